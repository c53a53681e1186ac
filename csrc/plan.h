/* plan.h - what a clipped optimizer step works on: the arena in blocks, and what is measured of
 * each. optim.c makes a plan and runs it, the stages of clipping read and fill it.
 */
#ifndef GP_PLAN_H
#define GP_PLAN_H

#include "clip.h"
#include "kernels/kernels.h"
#include "sparse.h"

/* What has one factor: a segment or, if a stage asks for rows, a row of W. */
typedef struct gp_unit {
    /* first: counted from the segment's start; live entries alone if it is listed */
    size_t segment, first, length;
    gp_partial_norm norm;
    double sum, count; /* what a stage has measured, see gp_stage_measure */
    double scale;
} gp_unit;

/* A piece of one unit: what is shared among threads and summed in order. */
typedef struct gp_block {
    size_t unit, segment, first, length;
    double middle; /* where it lies in the segment, in [0, 1): decides whose it is */
    gp_partial_norm norm, after;
    double sum, count;
    int exceeds; /* an entry is beyond the limit of a stage */
    /* |raw entry|; 0 where the rule has no limit for it and the norm says that it is harmless */
    float largest;
} gp_block;

typedef struct gp_step_plan {
    const gp_kernels *kernels;
    gp_arena arena;
    gp_clip clip;     /* the first stage */
    double norm_type; /* of the norms in info */
    gp_rule rule;
    size_t n_units, n_blocks;
    gp_unit *units;
    gp_block *blocks;
    gp_partial_norm *norms; /* one a segment, then one a group: never more than segments */
    double *segment_norms;  /* the caller's, or NULL */
    /* one a segment: values and gradient are masked and, of a listed one, in its lists */
    uint8_t *prepared;
    /* one a segment if the rule tells segments apart, else NULL */
    gp_update *updates;
    gp_step_info info;
} gp_step_plan;

static inline int gp_is_frozen(const gp_step_plan *plan, size_t segment)
{
    return plan->rule.frozen && plan->rule.frozen[segment];
}

/* A block's place in flat buffers; of a listed segment, in packed ones. */
static inline size_t gp_block_place(const gp_step_plan *plan, const gp_block *block)
{
    return plan->arena.segments[block->segment].offset + block->first;
}

/* The raw gradient of a block's entries, side by side; of a listed segment once it is in its
 * lists. */
static inline float *gp_block_gradient(const gp_step_plan *plan, const gp_block *block)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    return lists ? lists->gradient + block->first : plan->arena.grads + gp_block_place(plan, block);
}

/* Their values, likewise. */
static inline float *gp_block_values(const gp_step_plan *plan, const gp_block *block)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    return lists ? lists->value + block->first : plan->arena.params + gp_block_place(plan, block);
}

#endif
