/* net.h - the network's own state, shared by net.c, which makes it, calls.c and pass.c, which run
 * it, and fault.c, which looks for what went wrong. */
#ifndef GP_NET_H
#define GP_NET_H

#include "home.h"
#include "layers/layers.h"

enum { GP_HABITS = 48 };

/* What gp_net_forward was run on. */
typedef struct gp_held {
    const float *x;
    const int64_t *index, *lengths;
    size_t size;
    uint64_t seed, step;
} gp_held;

struct gp_net {
    const gp_kernels *kernels;
    gp_pool *pool;
    size_t n_layers, in, out;
    size_t below; /* of the input, see gp_graph_below */
    gp_layer *layers;
    /* what layers read, one layer after the other */
    const gp_layer **sources;
    const float **inputs;
    size_t *widths;
    /* multiply-adds of one sample's forward pass, with live weights only where there are lists */
    double macs;
    size_t widest, widest_padded;
    size_t block;      /* the most samples that pass through at once */
    int mixes_samples; /* but in training, whole batches do */
    size_t capacity;   /* lanes the workspace holds */
    size_t bytes;
    float *memory;
    float *spare;   /* what layers keep besides, made at the first call */
    float *partial; /* room for gradients of live weights chunk by chunk */
    size_t n_partial;
    /* pieces of memory, each for `capacity` lanes */
    float *input, *scratch, *gradient[2], *targets, *losses;
    int64_t *labels;
    uint32_t *hits;
    uint32_t *lengths; /* of the batch's sequences, 0 in lanes without a sample */
    gp_habit habits[GP_HABITS];
    gp_fault input_fault;               /* of the last call's input, or GP_PHASE_NONE */
    double last_loss;                   /* of the last backward */
    float max_activation, max_gradient; /* infinite: none */
    /* the first output beyond max_activation in the last backward, or GP_PHASE_NONE */
    gp_fault explosion;
    /* what the workspace still shows of the last backward: samples of its last block, 0 when
     * overwritten */
    size_t last_samples, last_first, last_live;
    /* the batch whose outputs in training the workspace holds whole, all else 0 if it does not */
    gp_held held;
};

/* Lanes of a chunk and number of chunks for a block of samples: as even as the cache line
 * allows. */
static inline void gp_net_cut(size_t samples, size_t *lanes, size_t *chunks)
{
    *chunks = (samples + GP_LANES - 1) / GP_LANES;
    *lanes = gp_padded((samples + *chunks - 1) / *chunks);
}

/* Workspace for a block of so many samples (net.c). On failure the old one stays. */
gp_status gp_net_reserve(gp_net *net, size_t samples);
/* Chooses how this call's layers run in blocks of so many samples, brings their numbers to where
 * they run, and counts how much work a sample is (net.c). */
void gp_net_look_up(gp_net *net, const gp_arena *arena, size_t samples);
/* Room for the gradients of the longest lists, once a chunk (net.c). */
gp_status gp_net_reserve_partial(gp_net *net, size_t samples);

/* What limits are for: a layer's output [chunk][width][P] or, of a recurrent one, its states
 * (fault.c). */
const float *gp_layer_watched(const gp_layer *layer, const float *output, size_t *width);
/* The first of a layer's outputs in a block of samples that is not within the limit: fills row,
 * column and value and returns 1, or returns 0 (fault.c). */
int gp_layer_find_output(const gp_layer *layer, size_t samples, size_t first, float limit,
                         gp_fault *fault);

#endif
