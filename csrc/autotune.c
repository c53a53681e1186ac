/* autotune.c - up to which share of weights kept lists of the live ones are faster on this CPU.
 *
 * What is timed is the real thing: Adam steps of a small network, whole and on lists, at each
 * number of lanes a chunk can have. Neither depends on how many threads there are, and must not:
 * the choice would change the bits. The time on lists is a straight line over the share kept; where
 * it meets the time without them lists stop paying.
 */
#include <stdlib.h>

#include "loss.h"
#include "parallel.h"

enum {
    WIDTH = 256,
    LAYERS = 2,
    WEIGHTS = LAYERS * WIDTH * WIDTH,
    N = WEIGHTS + LAYERS * WIDTH,
    REPEATS = 12
};

/* A network and room for everything it needs, in one piece. */
typedef struct bench {
    gp_net *net;
    gp_arena arena;
    gp_segment segments[2 * LAYERS];
    uint8_t mask[WEIGHTS];
    float params[N], grads[N], moments[2][N];
    float x[GP_LANES * WIDTH], targets[GP_LANES * WIDTH];
} bench;

static gp_status set_share(bench *b, double share)
{
    float *draw = b->grads;
    gp_live_destroy(b->arena.live);
    b->arena.live = NULL;
    b->arena.removed = 0;
    gp_random_uniform(WEIGHTS, draw, 0, GP_TIMING_STREAMS);
    for (size_t i = 0; i < WEIGHTS; i++) {
        b->mask[i] = (double)draw[i] < share;
        b->arena.removed += !b->mask[i];
    }
    const gp_costs always = {{1.0, 1.0, 1.0, 1.0}};
    return share < 1.0 ? gp_live_create(&b->arena, &always, &b->arena.live) : GP_OK;
}

/* Seconds of the fastest of some steps. */
static gp_status time_step(bench *b, size_t samples, double *seconds)
{
    const gp_batch batch = {
        .size = samples, .x = b->x, .loss = &gp_loss_mse, .targets = b->targets};
    const gp_clip clip = {.ops = NULL};
    gp_rule rule = {.kind = GP_ADAM, .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    *seconds = 1e9;
    for (rule.step = 1; rule.step <= REPEATS; rule.step++) {
        gp_result result;
        gp_step_info info;
        double began = gp_seconds();
        gp_status status =
            gp_net_train(b->net, &b->arena, &batch, &clip, &rule, &result, &info, NULL, 0, 0, 1);
        double took = gp_seconds() - began;
        if (status != GP_OK) return status;
        if (took < *seconds) *seconds = took;
    }
    return GP_OK;
}

static gp_status make(const gp_kernels *kernels, gp_pool *pool, bench *b)
{
    gp_layer_spec specs[LAYERS];
    for (size_t i = 0; i < LAYERS; i++) {
        size_t weight = i * WIDTH * WIDTH, bias = WEIGHTS + i * WIDTH;
        specs[i] = (gp_layer_spec){.type = gp_layer_named("dense"),
                                   .in = WIDTH,
                                   .out = WIDTH,
                                   .weight = weight,
                                   .bias = bias};
        b->segments[i] = (gp_segment){weight, WIDTH * WIDTH, i, WIDTH};
        b->segments[LAYERS + i] = (gp_segment){bias, WIDTH, i, 0};
    }
    b->arena = (gp_arena){.n = N,
                          .n_prunable = WEIGHTS,
                          .params = b->params,
                          .grads = b->grads,
                          .mask = b->mask,
                          .moments = {b->moments[0], b->moments[1]},
                          .n_segments = 2 * LAYERS,
                          .segments = b->segments};
    gp_random_normal(GP_LANES * WIDTH, b->x, 0, GP_TIMING_STREAMS + 1);
    gp_random_normal(GP_LANES * WIDTH, b->targets, 0, GP_TIMING_STREAMS + 2);
    gp_random_normal(WEIGHTS, b->params, 0, GP_TIMING_STREAMS + 3);
    for (size_t i = 0; i < WEIGHTS; i++) b->params[i] *= 0.05f;
    return gp_net_create(kernels, pool, LAYERS, specs, &b->net);
}

gp_status gp_costs_measure(const gp_kernels *kernels, gp_pool *pool, gp_costs *costs)
{
    static const double shares[2] = {0.1, 0.4};
    double on_lists[2][GP_COSTS], whole[GP_COSTS];
    bench *b = calloc(1, sizeof *b);
    if (!b) return GP_NO_MEMORY;
    gp_status status = make(kernels, pool, b);
    for (size_t s = 0; s < 3 && status == GP_OK; s++) {
        status = set_share(b, s < 2 ? shares[s] : 1.0);
        for (size_t i = 0; i < GP_COSTS && status == GP_OK; i++)
            status = time_step(b, (i + 1) * GP_ALIGN_FLOATS, s < 2 ? &on_lists[s][i] : &whole[i]);
    }
    for (size_t i = 0; i < GP_COSTS && status == GP_OK; i++) {
        double slope = (on_lists[1][i] - on_lists[0][i]) / (shares[1] - shares[0]);
        double most = slope > 0.0 ? shares[0] + (whole[i] - on_lists[0][i]) / slope : 1.0;
        costs->most[i] = most < 0.0 ? 0.0 : (most > 0.9 ? 0.9 : most);
    }
    gp_live_destroy(b->arena.live);
    gp_net_destroy(b->net);
    free(b);
    return status;
}
