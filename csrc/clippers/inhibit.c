/* inhibit.c - every entry g becomes c g / (c + |g|), or c tanh(g / c). */
#include "clippers/clippers.h"

enum { LIMIT, IS_TANH };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[LIMIT] > 0.0;
}

static double bound(const gp_clip *clip) { return clip->settings[LIMIT]; }

static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    gp_block_exceeds(plan, block, g, clip->settings[LIMIT]);
}

static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out)
{
    (void)stage;
    plan->kernels->inhibit(block->length, g, (float)clip->settings[LIMIT],
                           clip->settings[IS_TANH] != 0.0, out);
}

const gp_clipper_ops gp_clipper_inhibit = {
    .is_valid = is_valid, .bound = bound, .measure = measure, .rewrite = rewrite};
