/* test_costs.c - the table that says when lists win: what is built in, its limits, and that a
 * measurement gives one. */
#include "fixture.h"

#include <string.h>

/* Bits depend on these numbers: whoever changes them changes what a seed gives. */
static void test_presets(void)
{
    static const struct {
        const char *isa;
        double most;
    } wanted[] = {
        {"baseline", 0.7}, {"neon", 0.55}, {"avx2", 0.45}, {"avx512", 0.4}, {"avx512vnni", 0.4}};
    size_t seen = 0;
    for (size_t i = 0; gp_isa_name(i); i++)
        for (size_t w = 0; w < sizeof wanted / sizeof wanted[0]; w++) {
            if (strcmp(wanted[w].isa, gp_isa_name(i)) != 0) continue;
            const gp_costs preset = gp_costs_default(gp_kernels_get(gp_isa_name(i)));
            for (size_t at = 0; at < GP_COSTS; at++) CHECK(preset.most[at] == wanted[w].most);
            seen++;
        }
    CHECK(seen > 0 && gp_isa_name(seen) == NULL);
}

static void test_limits(void)
{
    const gp_costs preset = gp_costs_default(gp_kernels_get(NULL)), bounds = {{0.0, 1.0, 0.5, 1.0}};
    CHECK(gp_costs_are_valid(&preset) && gp_costs_are_valid(&bounds));
    static const double wrong[] = {-0.1, 1.1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++)
        for (size_t at = 0; at < GP_COSTS; at++) {
            gp_costs costs = preset;
            costs.most[at] = wrong[i];
            CHECK(!gp_costs_are_valid(&costs));
        }
}

static void test_measure(void)
{
    const gp_kernels *kernels = gp_kernels_get(NULL);
    gp_pool *pool;
    gp_costs costs = {{-1.0, -1.0, -1.0, -1.0}};
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    CHECK_INT_EQUAL(gp_costs_measure(kernels, pool, &costs), GP_OK);
    CHECK(gp_costs_are_valid(&costs));
    gp_pool_destroy(pool);
}

int main(void)
{
    test_presets();
    test_limits();
    if (!is_quick()) test_measure(); /* thousands of real steps */
    return check_summary();
}
