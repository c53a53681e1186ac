/* layers.h - what a layer type is: a row of gp_layer_table, its functions in a file of its own.
 *
 * To add a layer: a line in GP_LAYER_LIST (gradprune.h) and layers/<name>.c with forward and backward side by side.
 * Forward and backward are called by every member of the team with the same arguments; they share the work by rank
 * and return after a barrier. Letters: B batch, P lanes, I in, O out.
 */
#ifndef GP_LAYERS_H
#define GP_LAYERS_H

#include "kernels/kernels.h"
#include "parallel.h"
#include "sparse.h"

/* One block of samples on its way through the network. */
typedef struct gp_pass {
    const gp_kernels *kernels;
    const gp_arena *arena;
    const gp_team *team;
    size_t samples, lanes, chunks; /* lanes a chunk; chunks * lanes >= samples */
    size_t first;                  /* the block's first sample within the batch */
    int training;
    uint64_t seed, step; /* of dropout */
    const float *rows;   /* (samples, rows_stride): the network's input with the batch outermost */
    float *scratch;      /* (chunks * P, widest input padded) */
} gp_pass;

typedef struct gp_layer {
    gp_layer_spec spec;
    size_t index;
    float *work;        /* the floats it asked for, for every lane */
    const float *input; /* of the last forward */
    const float *output;
    gp_lists *live; /* of this call: the live weights when they are few enough to be worth a list, else NULL */
} gp_layer;

/* Dense with a list of its live weights (dense_live.c). */
const float *gp_dense_live_forward(gp_layer *layer, const gp_pass *pass, const float *x);
float *gp_dense_live_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx);
/* db += sum over the block's lanes of dy, for rows begin..end */
void gp_dense_bias_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy, size_t begin, size_t end);

typedef struct gp_layer_ops {
    const char *name;
    int (*is_valid)(const gp_layer_spec *spec, size_t n_params, size_t n_prunable);
    /* floats to keep for each lane between forward and backward */
    size_t (*workspace)(const gp_layer_spec *spec);
    /* x [chunk][I][P] -> [chunk][O][P] in the layer's workspace, or x itself if the layer does nothing */
    const float *(*forward)(gp_layer *layer, const gp_pass *pass, const float *x);
    /* dy [chunk][O][P] -> dx [chunk][I][P], in the buffer dx or in place; returns it. Parameter gradients are
     * overwritten by the first block of a batch and added to by later ones. dx is NULL when nobody needs it. */
    float *(*backward)(gp_layer *layer, const gp_pass *pass, float *dy, float *dx);
} gp_layer_ops;

extern const gp_layer_ops *const gp_layer_table[GP_LAYER_TYPES];
#define GP_LAYER_DECLARE(CONSTANT, name) extern const gp_layer_ops gp_layer_##name;
GP_LAYER_LIST(GP_LAYER_DECLARE)
#undef GP_LAYER_DECLARE

static inline size_t gp_padded(size_t n) { return (n + GP_ALIGN_FLOATS - 1) / GP_ALIGN_FLOATS * GP_ALIGN_FLOATS; }
static inline size_t gp_smaller(size_t a, size_t b) { return a < b ? a : b; }

#endif
