/* layers.h - what a layer is: a row, gp_layer_<name>, with its functions in a file of its own.
 *
 * To add a layer: layers/<name>.c, which the build finds, with its settings, forward and backward
 * side by side, and with what it does in a frozen network. What several files know of one layer,
 * and what several layers share, is in layers/parts. Nobody else asks which layer it is: what has
 * to be known is in the row. Forward and backward are called by every member of the team with the
 * same arguments; they share the work by rank and return after a barrier. Letters: B batch, P
 * lanes, I in, O out.
 */
#ifndef GP_LAYERS_H
#define GP_LAYERS_H

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "loss.h"
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
    /* of padded sequences: the lengths of the block's samples, 0 in lanes without one, and how many
     * steps they are padded to; NULL: there are none */
    const uint32_t *lengths;
    size_t steps;
    int training;
    uint64_t seed, step; /* of dropout */
    float *scratch;      /* (chunks * P, widest input padded) */
    float *partial;      /* (chunks, live weights of the longest lists): gradients chunk by chunk */
} gp_pass;

enum { GP_MATRICES = 2, GP_VECTORS = 2 }; /* the most a layer has */

/* A weight matrix of a layer, row-major in the arena. */
typedef struct gp_matrix {
    size_t offset, rows, columns;
    int in_fours; /* its rows are shared in whole fours */
    size_t uses;  /* how often a sample multiplies by it */
    /* of this call: the live weights when they are few enough to be worth a list, else NULL */
    gp_lists *live;
    /* of this call: whether somebody outside may have written to the whole buffers, which then
     * have the numbers */
    int outside[GP_KINDS];
} gp_matrix;

/* Other parameters of a layer: biases, or factors and offsets of a normalization. */
typedef struct gp_vector {
    size_t offset, length;
    size_t columns; /* of a row, for the place of a fault; 0: it is one row */
    int bias;       /* it is added, rather than a factor */
    int recurrent;  /* it belongs to the second weight matrix */
} gp_vector;

typedef struct gp_layer {
    gp_layer_spec spec; /* without spec.back */
    size_t index;
    gp_matrix weights[GP_MATRICES];
    size_t n_weights;
    gp_vector vectors[GP_VECTORS];
    size_t n_vectors;
    float *work; /* the floats it asked for, for every lane */
    float *spare;
    /* whose outputs it reads, NULL: the network's input; and those outputs */
    size_t n_sources;
    const struct gp_layer **source;
    const float **inputs;
    const size_t *widths;        /* features of each of them */
    int reads_back;              /* whether anything but the output of the layer before */
    int splits;                  /* whether a layer that reads it hands on a part of its gradient */
    size_t readers, last_reader; /* layers that read its output */
    /* of its output, where not the next layer alone reads it; else NULL */
    float *gradient;
    const float *input; /* inputs[0] of the last forward */
    const float *output;
    /* of a layer with a state: what it was after every step, [chunk][steps * units][P]; else
     * NULL */
    const float *states;
    size_t steps, units;
    double penalty; /* what backward adds to the loss of the batch */
    /* what its buffers become if the pass turns out well; NULL: what they are */
    const float *pending;
} gp_layer;

/* Products of one chunk with a matrix or with its live weights (matrix.c); y and dx point at their
 * row begin. Of live weights the values are collected first, by all members, who then wait, unless
 * they are in their lists. */
void gp_matrix_collect(const gp_matrix *matrix, const gp_pass *pass);
/* of what was collected before */
void gp_matrix_collect_columns(const gp_matrix *matrix, const gp_pass *pass);
/* y[begin..end][P] = W x, or += */
void gp_matrix_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin, size_t end,
                     const float *x, float *y, int add);
/* dx[begin..end][P] = W^T dy, or +=, of so many chunks that follow each other */
void gp_matrix_transposed_times(const gp_matrix *matrix, const gp_pass *pass, size_t chunks,
                                size_t begin, size_t end, const float *dy, float *dx, int add);
/* This member's share of dW = sum over the block's chunks and, from the first-th on, uses of
 * dy x^T, added to what earlier blocks left; 0 where the mask is. Of a matrix without lists. The x
 * of a chunk's use t is the (t - first)-th. */
void gp_matrix_gradient(const gp_matrix *matrix, const gp_pass *pass, size_t first, const float *dy,
                        const float *x);

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
    size_t n_sources, *source, *widths;
    /* floats before these in the workspace, a sample among few and a lane; and the buffer of its
     * own output */
    size_t *start[2], to;
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
    size_t lanes; /* P; 0: few samples */
    /* of padded sequences: the lengths of samples, or of lanes, and the steps they are padded to;
     * NULL: there are none */
    const uint32_t *lengths;
    size_t steps;
    float *scratch;    /* the floats the layer asked for, for every sample or lane */
    const float *work; /* where its inputs are */
} gp_chunk;

/* The k-th of a layer's inputs; x is the first. */
static inline const float *gp_chunk_input(const gp_packed *packed, const gp_chunk *chunk, size_t k)
{
    return chunk->lanes ? chunk->work + packed->start[1][k] * chunk->lanes
                        : chunk->work + packed->start[0][k] * chunk->samples;
}

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
    /* the function that it is, number by number, which the layer before may compute; NULL: it is
     * none */
    gp_activation (*function)(const gp_layer_spec *spec, float *slope);
    /* how it joins the product before it; NULL: it does not */
    const struct gp_fold *fold;
} gp_frozen_ops;

/* Whether `kept` of so many weights run faster as lists with many samples: nanoseconds of 16 of 64
 * lanes, 0.25 a weight and 0.6 an entry of a list, measured with AVX-512 on 784-300-100-10. */
static inline int gp_lists_pay_in_lanes(size_t kept, size_t weights)
{
    return (double)kept * 0.6 < (double)weights * 0.25;
}

extern const gp_frozen_ops gp_dense_frozen;      /* dense_frozen.c */
extern const gp_frozen_ops gp_dense_frozen_int8; /* dense_frozen_int8.c */

/* How often a layer does the same to a sample, at the steps of a sequence; in and out are of
 * all. */
static inline size_t gp_steps_of(const gp_layer_spec *spec)
{
    return spec->steps ? spec->steps : 1;
}
/* Of a dense layer: those of its weight matrix. */
static inline size_t gp_rows_of(const gp_layer_spec *spec) { return spec->out / gp_steps_of(spec); }
static inline size_t gp_columns_of(const gp_layer_spec *spec)
{
    return spec->in / gp_steps_of(spec);
}

/* Whether a layer has its place among the buffers of the arena. */
int gp_buffers_are_valid(const gp_layer_spec *spec, const gp_arena *arena);

/* Whether all weights of a row are removed. */
static inline int gp_row_is_removed(const gp_matrix *matrix, const gp_arena *arena, size_t row)
{
    return arena->removed > 0 &&
           !memchr(arena->mask + matrix->offset + row * matrix->columns, 1, matrix->columns);
}

/* A layer at inference that multiplies rows of a product by factors and adds to them. */
typedef struct gp_fold {
    /* whether a frozen network multiplies the weights of `product` by the factors of `norm` */
    int (*folds)(const gp_layer_spec *product, const gp_layer_spec *norm);
    /* Does so, in `own`, an arena of the product alone whose params are to be freed; `folded` says
     * where. Rows that are removed give 0. */
    gp_status (*fold)(const gp_layer_spec *product, const gp_layer_spec *norm,
                      const gp_arena *arena, gp_layer_spec *folded, gp_arena *own);
    /* Of one that is packed by itself, because others read the product too: channels whose row is
     * removed give 0. */
    void (*silence)(gp_packed *packed, const gp_layer_spec *product, const gp_arena *arena);
} gp_fold;

/* A word that stands for a number among the settings. */
typedef struct gp_word {
    const char *word;
    int number;
} gp_word;

enum { GP_SEVERAL = -1 };

struct gp_layer_ops {
    const char *name;
    /* How many layers it reads; 0: one; GP_SEVERAL: two or more. */
    int arity;
    /* It reads pieces: all of its inputs together are as wide as `in`, and each consists of so
     * many equal parts. NULL: each of them is as wide as `in`. */
    size_t (*parts)(const gp_layer_spec *spec);
    /* Its settings: how many numbers, words for them (up to one without a name, or NULL), and a
     * function that reads them, which returns whether they can be settings of the layer. NULL:
     * there are none. */
    size_t n_settings;
    const gp_word *words;
    int (*set)(gp_layer_spec *spec, const double *numbers);
    /* whether its sizes go together; nothing else is asked of a layer before; NULL: they do */
    int (*fits)(const gp_layer_spec *spec);
    /* whether it also has its place in the arena */
    int (*is_valid)(const gp_layer_spec *spec, size_t n_params, size_t n_prunable);
    /* the weight matrices, returns how many; NULL: none */
    size_t (*weights)(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES]);
    /* the other parameters; NULL: none */
    size_t (*vectors)(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS]);
    /* floats to keep for each lane between forward and backward */
    size_t (*workspace)(const gp_layer_spec *spec);
    /* floats to keep besides, 0 at first; NULL: none */
    size_t (*spare)(const gp_layer_spec *spec);
    /* x [chunk][I][P] -> [chunk][O][P] in the layer's workspace, or x itself if the layer does
     * nothing. Of a layer that reads several x is the first of layer->inputs. */
    const float *(*forward)(gp_layer *layer, const gp_pass *pass, const float *x);
    /* What forward leaves for backward besides layer->input, without the outputs; all members meet
     * at the end. NULL: nothing, of a product. */
    void (*prepare)(gp_layer *layer, const gp_pass *pass, const float *x);
    /* dy [chunk][O][P] -> dx [chunk][I][P], in the buffer dx or in place; returns it. Parameter
     * gradients are overwritten by the first block of a batch and added to by later ones. dx is
     * NULL when nobody needs it. */
    float *(*backward)(gp_layer *layer, const gp_pass *pass, float *dy, float *dx);
    /* of a layer that joins: the gradient of its k-th source out of dx, this member's share of it;
     * added to what is there if `add` */
    void (*split)(const gp_layer *layer, const gp_pass *pass, size_t k, const float *dx,
                  float *gradient, int add);
    /* floats at spec.buffers that are not trained; NULL: none */
    size_t (*buffers)(const gp_layer_spec *spec);
    /* what a penalty on the weights adds to the loss; its gradient is added once a batch. NULL:
     * nothing */
    double (*penalty)(gp_layer *layer, const gp_kernels *kernels, const gp_arena *arena,
                      const gp_team *team, int backward);
    /* whether outputs can be larger than the largest input; NULL: they can */
    int (*may_grow)(const gp_layer_spec *spec);
    /* It reads the network's input, which names rows: whole numbers below this, at most 2^24. NULL:
     * any finite numbers. */
    size_t (*indexes)(const gp_layer_spec *spec);
    /* what it computes that a loss can compute with; NULL: nothing */
    gp_fused (*fused)(const gp_layer_spec *spec);
    /* y is W x + b, channel by channel of W's rows, of its only matrix */
    int is_product;
    /* backward on lists uses pass->partial */
    int wants_partial;
    /* training depends on the whole batch, which passes through as one block */
    int mixes_samples;
    const gp_frozen_ops *frozen;      /* NULL: cannot be frozen */
    const gp_frozen_ops *frozen_int8; /* NULL: as `frozen`, in float32 */
};

/* Of a layer with settings of its own, struct gp_<name>_settings: them, to read and to write. */
#define GP_SETTINGS(name) \
    _Static_assert(sizeof(gp_##name##_settings) <= GP_SETTINGS_BYTES, "settings are too large"); \
    static inline const gp_##name##_settings *gp_##name##_of(const gp_layer_spec *spec) \
    { \
        return (const void *)&spec->settings; \
    } \
    static inline gp_##name##_settings *gp_##name##_in(gp_layer_spec *spec) \
    { \
        return (void *)&spec->settings; \
    }

/* Reads a number that counts something, or an offset, GP_NONE if it is negative; 0 if it is no
 * whole number. */
int gp_read_size(double number, size_t *size);
int gp_read_offset(double number, size_t *offset);

/* Which layer reads which (graph.c). The network's input is GP_NONE. */
int gp_graph_is_valid(size_t n_layers, const gp_layer_spec *layers);
/* How many layers the i-th one reads, and the k-th of them. */
size_t gp_graph_arity(const gp_layer_spec *layers, size_t i);
size_t gp_graph_source(const gp_layer_spec *layers, size_t i, size_t k);
/* What the network's input has to be below, if it names rows; 0: it does not. */
size_t gp_graph_below(size_t n_layers, const gp_layer_spec *layers);
static inline int gp_is_input(float number, size_t below)
{
    if (below == 0) return isfinite(number);
    return number >= 0.0f && number < (float)below && truncf(number) == number;
}
/* The layer that alone reads the i-th one, GP_NONE if there are several. */
size_t gp_graph_reader(size_t n_layers, const gp_layer_spec *layers, size_t i);

static inline size_t gp_padded(size_t n)
{
    return (n + GP_ALIGN_FLOATS - 1) / GP_ALIGN_FLOATS * GP_ALIGN_FLOATS;
}
static inline size_t gp_smaller(size_t a, size_t b) { return a < b ? a : b; }

#endif
