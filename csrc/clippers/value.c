/* value.c - every entry into [-limit, limit]. */
#include <string.h>

#include "clippers/clippers.h"

enum { LIMIT };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[LIMIT] > 0.0;
}

static double limit(const gp_clip *clip) { return clip->settings[LIMIT]; }

static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    const int exceeds = gp_block_exceeds(plan, block, g, clip->settings[LIMIT]);
    block->after = block->norm;
    if (exceeds && !clip->next && plan->norm_type == 2.0)
        block->after.sum =
            plan->kernels->sum_squares_within(block->length, g, (float)clip->settings[LIMIT]);
}

static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out)
{
    (void)stage;
    if (out != g) memcpy(out, g, block->length * sizeof *out);
    plan->kernels->clamp(block->length, out, (float)clip->settings[LIMIT]);
}

const gp_clipper_ops gp_clipper_value = {
    .is_valid = is_valid,
    .bound = limit,
    .clamp = limit,
    .measure = measure,
    .rewrite = rewrite,
};
