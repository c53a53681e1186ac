/* costs.c - up to which share of weights kept lists of the live ones are faster, for each
 * instruction set as it was measured once; autotune.c measures it on this CPU.
 */
#include <string.h>

#include "gradprune.h"

/* The middle of what gp_costs_measure found for the numbers of lanes: baseline 0.64-0.77 and AVX2
 * 0.38-0.54 on an AMD Zen 3, AVX-512 0.33-0.46 on another machine. NEON has vectors like baseline
 * and a multiply-add like AVX2; its share lies between theirs and is not measured. It is one share
 * whatever the lanes, so that what is predicted of a sample does not depend on how many others are
 * in its batch. */
static const struct {
    const char *isa;
    double most;
} presets[] = {
    {"baseline", 0.7}, {"neon", 0.55}, {"avx2", 0.45}, {"avx512", 0.4}, {"avx512vnni", 0.4}};

gp_costs gp_costs_default(const gp_kernels *kernels)
{
    size_t i = sizeof presets / sizeof presets[0] - 1;
    while (i > 0 && strcmp(presets[i].isa, gp_kernels_isa(kernels)) != 0) i--;
    const double most = presets[i].most;
    return (gp_costs){{most, most, most, most}};
}

int gp_costs_are_valid(const gp_costs *costs)
{
    for (size_t i = 0; i < GP_COSTS; i++)
        if (!(costs->most[i] >= 0.0 && costs->most[i] <= 1.0)) return 0;
    return 1;
}
