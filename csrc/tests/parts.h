/* parts.h - what steps are tested on: an arena of segments of all lengths, and every rule. */
#ifndef GP_PARTS_H
#define GP_PARTS_H

#include "clip.h"
#include "fixture.h"
#include "naive.h"

static gp_pool *pool;

/* ---- an arena of segments of all lengths ----------------------------------------------------- */

enum { SEGMENTS = 8, PRUNABLE_SEGMENTS = 4 };
/* weights, then biases; groups pair them up; segment 1 is empty */
static const size_t lengths[SEGMENTS] = {2 * GP_NORM_BLOCK + 77, 0, 15, GP_NORM_BLOCK, 100, 1, 0,
                                         GP_NORM_BLOCK + 1};
static const size_t groups[SEGMENTS] = {0, 1, 2, 3, 0, 1, 2, 3};
static const size_t columns[SEGMENTS] = {1, 0, 5, 64, 0, 0, 0, 0};

/* PRUNED: a tenth is removed; LISTED: nine tenths, and there are lists of the rest */
typedef enum pruning { WHOLE, PRUNED, LISTED } pruning;

typedef struct parts {
    gp_arena arena;
    gp_segment segments[SEGMENTS];
    uint8_t *mask;
} parts;

static inline parts *parts_new(pruning how, uint64_t seed)
{
    parts *p = allocated(sizeof *p);
    noise source = {seed};
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < SEGMENTS; i++) {
        p->segments[i] = (gp_segment){p->arena.n, lengths[i], groups[i], columns[i]};
        p->arena.n += lengths[i];
        if (i < PRUNABLE_SEGMENTS) p->arena.n_prunable = p->arena.n;
    }
    const size_t n = p->arena.n;
    float **buffers[] = {&p->arena.params, &p->arena.grads, &p->arena.moments[0],
                         &p->arena.moments[1]};
    for (size_t i = 0; i < 4; i++) {
        *buffers[i] = allocated(n * sizeof(float));
        memset(*buffers[i], 0, n * sizeof(float));
    }
    noise_floats(&source, n, p->arena.params, 1.0);
    p->arena.mask = p->mask = allocated(p->arena.n_prunable);
    p->arena.n_segments = SEGMENTS;
    p->arena.segments = p->segments;
    for (size_t i = 0; i < p->arena.n_prunable; i++) {
        p->mask[i] = how == WHOLE || (noise_below(&source, 10) > 0) == (how == PRUNED);
        if (p->mask[i]) continue;
        p->arena.removed++;
        p->arena.params[i] = 0.0f;
    }
    if (how == LISTED)
        CHECK_INT_EQUAL(gp_live_create(&p->arena, &model_costs, &p->arena.live), GP_OK);
    return p;
}

static inline void parts_free(parts *p)
{
    gp_live_destroy(p->arena.live);
    free(p->arena.params);
    free(p->arena.grads);
    free(p->arena.moments[0]);
    free(p->arena.moments[1]);
    free(p->mask);
    free(p);
}

static inline int is_removed(const parts *p, size_t i)
{
    return i < p->arena.n_prunable && !p->mask[i];
}

/* ---- rules ----------------------------------------------------------------------------------- */

/* Where decay may cancel the gradient, eps is large: a small eps would magnify the rounding of the
 * difference. */
static const gp_rule rules[] = {
    {.kind = GP_SGD, .lr = 0.1},
    {.kind = GP_SGD, .lr = 0.1, .weight_decay = 0.05},
    {.kind = GP_SGD,
     .lr = 0.1,
     .momentum = 0.9,
     .dampening = 0.3,
     .weight_decay = 0.05,
     .decoupled = 1},
    {.kind = GP_SGD, .lr = 0.1, .momentum = 0.9, .nesterov = 1},
    {.kind = GP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    {.kind = GP_ADAM, .lr = 0.01, .beta1 = 0.8, .beta2 = 0.99, .eps = 1e-3, .weight_decay = 0.1},
    {.kind = GP_ADAM,
     .lr = 0.01,
     .beta1 = 0.9,
     .beta2 = 0.999,
     .eps = 1e-8,
     .weight_decay = 0.1,
     .decoupled = 1},
    {.kind = GP_RMSPROP, .lr = 0.01, .beta2 = 0.99, .eps = 1e-8},
    {.kind = GP_RMSPROP,
     .lr = 0.01,
     .beta2 = 0.9,
     .eps = 0.05,
     .momentum = 0.9,
     .weight_decay = 0.1},
};
enum { RULES = sizeof rules / sizeof rules[0] };

#endif
