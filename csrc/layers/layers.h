/* layers.h - what a layer type is: a row of gp_layer_table, its functions in a file of its own.
 *
 * To add a layer: a line in GP_LAYER_LIST (gradprune.h) and layers/<name>.c with forward and
 * backward side by side, and with what it does in a frozen network. Forward and backward are called
 * by every member of the team with the same arguments; they share the work by rank and return after
 * a barrier. Letters: B batch, P lanes, I in, O out.
 */
#ifndef GP_LAYERS_H
#define GP_LAYERS_H

#include <string.h>

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
    size_t batch;                  /* samples in the whole batch */
    int training;
    uint64_t seed, step; /* of dropout */
    const float *rows;   /* (samples, rows_stride): the network's input with the batch outermost */
    float *scratch;      /* (chunks * P, widest input padded) */
    float *partial;      /* (chunks, live weights of the longest lists): gradients chunk by chunk */
} gp_pass;

enum { GP_MATRICES = 2, GP_SOURCES = 2 }; /* the most a layer has */

/* A weight matrix of a layer, row-major in the arena. */
typedef struct gp_matrix {
    size_t offset, rows, columns;
    int in_fours; /* its rows are shared in whole fours */
    size_t uses;  /* how often a sample multiplies by it */
    /* of this call: the live weights when they are few enough to be worth a list, else NULL */
    gp_lists *live;
} gp_matrix;

typedef struct gp_layer {
    gp_layer_spec spec;
    size_t index;
    gp_matrix weights[GP_MATRICES];
    size_t n_weights;
    float *work; /* the floats it asked for, for every lane */
    float *spare;
    /* whose outputs it reads, NULL: the network's input */
    const struct gp_layer *source[GP_SOURCES];
    size_t readers, last_reader; /* layers that read its output */
    /* of its output, where not the next layer alone reads it; else NULL */
    float *gradient;
    const float *other; /* of an add, what it reads besides */
    const float *input; /* of the last forward */
    const float *output;
    const float *states; /* recurrent: what it was after every step, [chunk][T*H][P]; else NULL */
    double penalty;      /* what backward adds to the loss of the batch */
    /* what its buffers become if the pass turns out well; NULL: what they are */
    const float *pending;
} gp_layer;

/* Products of one chunk with a matrix or with its live weights (matrix.c); y and dx point at their
 * row begin. Of live weights the values are collected first, by all members, who then wait. */
void gp_matrix_collect(const gp_matrix *matrix, const gp_pass *pass);
/* of what was collected before */
void gp_matrix_collect_columns(const gp_matrix *matrix, const gp_pass *pass);
/* y[begin..end][P] = W x, or += */
void gp_matrix_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin, size_t end,
                     const float *x, float *y, int add);
/* dx[begin..end][P] = W^T dy, or += */
void gp_matrix_transposed_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin,
                                size_t end, const float *dy, float *dx, int add);

/* Dense with a list of its live weights (dense_live.c). */
const float *gp_dense_live_forward(gp_layer *layer, const gp_pass *pass, const float *x);
float *gp_dense_live_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx);
/* db += sum over the block's lanes of dy, for rows begin..end */
void gp_dense_bias_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy,
                            size_t begin, size_t end);

/* A layer of a frozen network (frozen.c): packed once, then read by any number of threads at
 * once. */
typedef struct gp_packed {
    const struct gp_frozen_ops *ops;
    gp_layer_spec spec;
    size_t index; /* in the network it was made from */
    /* what it reads: outputs of packed layers; GP_NONE: the network's input */
    size_t source[GP_SOURCES];
    size_t from[GP_SOURCES], to; /* the buffers that hold these, and its own output */
    /* what follows, computed with the layer; GP_IDENTITY if nothing does */
    gp_activation then;
    float slope;
    /* filled by pack: */
    void *memory;       /* the type's own, to be freed; or NULL */
    size_t bytes, kept; /* of memory; weights that are not removed */
    /* whether it runs on its live weights alone: few samples, many samples */
    int row_list, lane_list;
    int int8; /* whether on 8-bit weights, all of them */
    /* estimated time of a sample among few, INFINITY: never so; of 16 together */
    double row_ns, lane_ns;
} gp_packed;

/* Some samples on their way through a frozen network. Few: [sample][gp_padded(features)], what pads
 * is finite. Many: [feature][P]. */
typedef struct gp_chunk {
    const gp_kernels *kernels;
    size_t samples;
    size_t lanes;       /* P; 0: few samples */
    float *scratch;     /* the floats the layer asked for, for every sample or lane */
    const float *other; /* of an add, what it reads besides x */
} gp_chunk;

typedef struct gp_frozen_ops {
    int in_place;         /* y may be x */
    int takes_activation; /* computes packed->then itself */
    /* packed->memory and what describes it, from the arena as it is now; NULL: there is nothing to
     * keep. May hand the layer over to other ops. */
    gp_status (*pack)(gp_packed *packed, const gp_arena *arena);
    /* floats of scratch a lane, or a sample among few; NULL: none */
    size_t (*scratch)(const gp_layer_spec *spec, int in_lanes);
    /* one thread, nothing but y and scratch is written; NULL: the layer does nothing at
     * inference */
    void (*infer)(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y);
} gp_frozen_ops;

/* Whether `kept` of so many weights run faster as lists with many samples: nanoseconds of 16 of 64
 * lanes, 0.25 a weight and 0.6 an entry of a list, measured with AVX-512 on 784-300-100-10. */
static inline int gp_lists_pay_in_lanes(size_t kept, size_t weights)
{
    return (double)kept * 0.6 < (double)weights * 0.25;
}

extern const gp_frozen_ops gp_dense_frozen;       /* dense_frozen.c */
extern const gp_frozen_ops gp_dense_frozen_int8;  /* dense_frozen_int8.c */
extern const gp_frozen_ops gp_recurrent_frozen;   /* recurrent_frozen.c */
extern const gp_frozen_ops gp_convolution_frozen; /* convolution_frozen.c */
extern const gp_frozen_ops gp_batchnorm_frozen;   /* batchnorm_frozen.c */

/* Whether a layer has its place among the buffers of the arena. */
int gp_buffers_are_valid(const gp_layer_spec *spec, const gp_arena *arena);

/* Of a normalization: how many factors it has, and as many offsets. */
static inline size_t gp_factors_of(const gp_layer_spec *spec)
{
    return spec->type == GP_LAYER_BATCHNORM   ? spec->window.channels
           : spec->type == GP_LAYER_LAYERNORM ? spec->in
                                              : 0;
}

/* Whether all weights of a row are removed. */
static inline int gp_row_is_removed(const gp_matrix *matrix, const gp_arena *arena, size_t row)
{
    return arena->removed > 0 &&
           !memchr(arena->mask + matrix->offset + row * matrix->columns, 1, matrix->columns);
}

/* Whether a frozen network multiplies the weights of `product` by the factors of a batch
 * normalization behind it. */
int gp_batchnorm_folds(const gp_layer_spec *product, const gp_layer_spec *norm);
/* Does so, in `own`, an arena of the product alone whose params are to be freed; `folded` says
 * where. Rows that are removed give 0. */
gp_status gp_batchnorm_fold(const gp_layer_spec *product, const gp_layer_spec *norm,
                            const gp_arena *arena, gp_layer_spec *folded, gp_arena *own);
/* Of one that is packed by itself, because others read the product too: channels whose row is
 * removed give 0. */
void gp_batchnorm_silence(gp_packed *packed, const gp_layer_spec *product, const gp_arena *arena);

/* Of a window: outputs along an axis, 0 if it does not fit; and sizes with padding. */
static inline size_t gp_window_padded(const gp_window *w, size_t axis)
{
    return (axis == 0 ? w->height : w->width) + w->before[axis] + w->after[axis];
}
static inline size_t gp_window_places(const gp_window *w, size_t axis)
{
    const size_t reach = w->dilation[axis] * (w->kernel[axis] - 1) + 1,
                 size = gp_window_padded(w, axis);
    return size < reach ? 0 : (size - reach) / w->stride[axis] + 1;
}
static inline int gp_window_pads(const gp_window *w)
{
    return w->before[0] || w->before[1] || w->after[0] || w->after[1];
}
/* Pixels from one plane to the next. Padded planes are an odd number apart, or those of all
 * channels would meet in a few sets of the cache where images are a power of two wide. */
static inline size_t gp_window_plane(const gp_window *w)
{
    return gp_window_pads(w) ? (gp_window_padded(w, 0) * gp_window_padded(w, 1)) | 1
                             : w->height * w->width;
}
/* Whether the numbers make sense, and make up an input of `in` (window.c). */
int gp_window_is_valid(const gp_window *window, size_t in);
/* One plane of a chunk with zeros around it, and the plane without them. */
void gp_window_pad(const gp_window *window, size_t lanes, const float *plane, float *padded);
void gp_window_crop(const gp_window *window, size_t lanes, const float *padded, float *plane);
/* Where the inputs of a filter at the first place lie in padded planes, in pixels:
 * at[channel][y][x]; channels of one group. */
void gp_window_offsets(const gp_window *window, uint32_t *at);
/* The places of the filter in `rows` rows of outputs, reading padded planes of so many lanes. */
gp_runs gp_window_runs(const gp_window *window, size_t lanes, size_t rows);

/* Of a recurrent layer: rows of a weight matrix are gates times units. */
static inline size_t gp_gates_of(const gp_layer_spec *spec)
{
    return spec->cell == GP_LSTM ? 4 : (spec->cell == GP_GRU ? 3 : 1);
}
static inline size_t gp_units_of(const gp_layer_spec *spec)
{
    return spec->sequences ? spec->out / spec->steps : spec->out;
}

typedef struct gp_layer_ops {
    const char *name;
    /* whether its sizes go together; nothing else is asked of a layer before; NULL: they do */
    int (*fits)(const gp_layer_spec *spec);
    /* whether it also has its place in the arena */
    int (*is_valid)(const gp_layer_spec *spec, size_t n_params, size_t n_prunable);
    /* the weight matrices, returns how many; NULL: none */
    size_t (*weights)(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES]);
    /* floats to keep for each lane between forward and backward */
    size_t (*workspace)(const gp_layer_spec *spec);
    /* floats to keep besides, 0 at first; NULL: none */
    size_t (*spare)(const gp_layer_spec *spec);
    /* x [chunk][I][P] -> [chunk][O][P] in the layer's workspace, or x itself if the layer does
     * nothing */
    const float *(*forward)(gp_layer *layer, const gp_pass *pass, const float *x);
    /* dy [chunk][O][P] -> dx [chunk][I][P], in the buffer dx or in place; returns it. Parameter
     * gradients are overwritten by the first block of a batch and added to by later ones. dx is
     * NULL when nobody needs it. */
    float *(*backward)(gp_layer *layer, const gp_pass *pass, float *dy, float *dx);
    /* floats at spec.buffers that are not trained; NULL: none */
    size_t (*buffers)(const gp_layer_spec *spec);
    /* what a penalty on the weights adds to the loss; its gradient is added once a batch. NULL:
     * nothing */
    double (*penalty)(gp_layer *layer, const gp_kernels *kernels, const gp_arena *arena,
                      const gp_team *team, int backward);
    /* training depends on the whole batch, which passes through as one block */
    int mixes_samples;
    /* backward of the first layer, on all weights, wants the batch outermost */
    int wants_rows;
    const gp_frozen_ops *frozen;      /* NULL: cannot be frozen */
    const gp_frozen_ops *frozen_int8; /* NULL: as `frozen`, in float32 */
} gp_layer_ops;

extern const gp_layer_ops *const gp_layer_table[GP_LAYER_TYPES];
#define GP_LAYER_DECLARE(CONSTANT, name) extern const gp_layer_ops gp_layer_##name;
GP_LAYER_LIST(GP_LAYER_DECLARE)
#undef GP_LAYER_DECLARE

/* Which layer reads which (graph.c). The network's input is GP_NONE. */
int gp_graph_is_valid(size_t n_layers, const gp_layer_spec *layers);
/* returns how many */
size_t gp_graph_sources(const gp_layer_spec *layers, size_t i, size_t sources[GP_SOURCES]);
/* The layer that alone reads the i-th one, GP_NONE if there are several. */
size_t gp_graph_reader(size_t n_layers, const gp_layer_spec *layers, size_t i);

static inline size_t gp_padded(size_t n)
{
    return (n + GP_ALIGN_FLOATS - 1) / GP_ALIGN_FLOATS * GP_ALIGN_FLOATS;
}
static inline size_t gp_smaller(size_t a, size_t b) { return a < b ? a : b; }

#endif
