/* centralize.c - each row of W minus the mean of its live entries. Yong et al. 2020 */
#include <string.h>

#include "clippers/clippers.h"

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)clip, (void)arena;
    return 1;
}

static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    (void)clip;
    block->sum = plan->kernels->sum(block->length, g);
    block->count = gp_block_live(plan, block);
}

static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out)
{
    const gp_unit *unit = &plan->units[block->unit];
    const uint8_t *mask = gp_block_mask(plan, block);
    (void)clip, (void)stage;
    /* what is alone in its row has no mean to leave */
    if (!plan->arena.segments[block->segment].columns || unit->count < 2.0) {
        if (out != g) memcpy(out, g, block->length * sizeof *out);
        return;
    }
    plan->kernels->subtract(block->length, g, (float)(unit->sum / unit->count), out);
    if (mask) plan->kernels->mask(block->length, mask, out);
}

const gp_clipper_ops gp_clipper_centralize = {
    .wants_rows = 1, .is_valid = is_valid, .measure = measure, .rewrite = rewrite};
