/* agc.c - the gradient of each row of W in proportion to its weights. Brock et al. 2021 */
#include <math.h>

#include "clippers/clippers.h"

enum { CLIPPING, EPS };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[CLIPPING] > 0.0;
}

static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    (void)clip, (void)g;
    block->sum = plan->kernels->sum_squares(block->length, gp_block_values(plan, block));
}

static void decide(gp_step_plan *plan, const gp_clip *clip, double all)
{
    (void)all;
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        const double norm = gp_norm_finish(unit->norm, 2.0),
                     most = clip->settings[CLIPPING] * fmax(sqrt(unit->sum), clip->settings[EPS]);
        const int is_excluded = clip->excluded && clip->excluded[unit->segment];
        unit->scale = !is_excluded && norm >= most ? most / fmax(norm, 1e-6) : 1.0;
    }
}

const gp_clipper_ops gp_clipper_agc = {
    .wants_rows = 1, .is_valid = is_valid, .measure = measure, .decide = decide};
