/* units.c - what clippers ask of the blocks of a step, and of their own state. */
#include <string.h>

#include "clippers/clippers.h"

const uint8_t *gp_block_mask(const gp_step_plan *plan, const gp_block *block)
{
    const size_t at = gp_block_place(plan, block);
    if (plan->arena.removed == 0 || at >= plan->arena.n_prunable) return NULL;
    return gp_live_segment(plan->arena.live, block->segment) ? NULL : plan->arena.mask + at;
}

double gp_block_live(const gp_step_plan *plan, const gp_block *block)
{
    const uint8_t *mask = gp_block_mask(plan, block);
    return (double)(mask ? gp_mask_count(block->length, mask) : block->length);
}

enum { GP_STREAMS_SHIFT = 56 };
/* One for each stage and step. */
static uint64_t stream_of(const gp_step_plan *plan, size_t stage)
{
    const uint64_t mask = ((uint64_t)1 << GP_STREAMS_SHIFT) - 1;
    return GP_NOISE_STREAMS | (uint64_t)stage << GP_STREAMS_SHIFT | (plan->rule.step & mask);
}

void gp_block_draw(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                   size_t stage, uint32_t *words)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    const size_t start = plan->arena.segments[block->segment].offset;
    plan->kernels->random_words(block->length, lists ? lists->flat + block->first : NULL,
                                lists ? start : start + block->first, clip->seed,
                                stream_of(plan, stage), words);
}

int gp_block_exceeds(const gp_step_plan *plan, gp_block *block, const float *g, double limit)
{
    const int exceeds = (double)plan->kernels->max_abs(block->length, g) > (double)(float)limit;
    block->exceeds |= exceeds;
    return exceeds;
}

double *gp_clip_state(const gp_clip *clip)
{
    if (clip->state[GP_STATE_VERSION] != clip->version) {
        memset(clip->state, 0, clip->n_state * sizeof *clip->state);
        clip->state[GP_STATE_VERSION] = clip->version;
    }
    return clip->state;
}
