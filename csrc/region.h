/* region.h - one call of a network on its way: what the members of the team share. calls.c makes
 * it, load.c brings a block of samples in, pass.c runs the blocks.
 */
#ifndef GP_REGION_H
#define GP_REGION_H

#include "loss.h"
#include "net.h"
#include "optim.h"

/* What the members of the team share. */
typedef struct gp_region {
    gp_net *net;
    const gp_arena *arena;
    const gp_batch *batch;
    int training; /* dropout drops, and statistics are those of the batch */
    int backward;
    int resumed;        /* the forward pass has been run by a call before */
    gp_step_plan *step; /* or NULL */
    float *out;         /* predictions, or NULL */
    size_t block;       /* samples that pass through at once */
    size_t n_live;      /* layers to run: without the one fused into the loss */
    uint64_t seed, dropout_step;
    int weighted;  /* whether samples count differently, by weights or ignored labels */
    double weight; /* the sum of what they count */
    double loss, correct;
    size_t last_first; /* the first sample of the last block that ran */
    /* one slot a member: no two write the same */
    gp_status status[GP_MAX_THREADS];
    gp_fault fault[GP_MAX_THREADS];
    /* first layer of the block with an output beyond the limit, or GP_NONE */
    size_t exploded[GP_MAX_THREADS];
} gp_region;

/* Loads a block of samples: x, labels and targets, checked. Nothing else has been touched when it
 * fails (load.c). */
gp_status gp_region_load(gp_region *shared, const gp_pass *pass);
/* The member with the first failure, GP_NONE if all is well: x before labels and targets, then in
 * the order of samples, so that what is reported does not depend on the size of the team
 * (load.c). */
size_t gp_region_failure(const gp_region *shared, size_t members);
/* The whole call, by every member of the team; the context is a gp_region (pass.c). */
void gp_region_run(void *context, const gp_team *team);

/* Whether the batch has what its loss is measured by. */
static inline int gp_region_measures(const gp_region *shared)
{
    return shared->batch->labels || shared->batch->targets;
}

/* The row of x of a sample. */
static inline size_t gp_region_row(const gp_batch *batch, size_t sample)
{
    return batch->index ? (size_t)batch->index[sample] : sample;
}

/* Whether the loss leaves out samples of this row's label. */
static inline int gp_region_ignores(const gp_batch *batch, size_t row)
{
    return batch->labels && batch->loss && batch->loss->ignores &&
           batch->loss->ignores(batch->settings, batch->labels[row]);
}

/* What a row of x counts. */
static inline double gp_region_weight(const gp_batch *batch, size_t row)
{
    if (gp_region_ignores(batch, row)) return 0.0;
    return batch->weights ? batch->weights[row] : 1.0;
}

#endif
