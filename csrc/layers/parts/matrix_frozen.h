/* matrix_frozen.h - a weight matrix at inference, packed when the network is frozen
 * (matrix_frozen.c). */
#ifndef GP_MATRIX_FROZEN_H
#define GP_MATRIX_FROZEN_H

#include "layers/layers.h"

typedef struct gp_frozen_matrix {
    size_t rows, columns, kept;
    /* rows that lie side by side in what few samples give: all, or those of one gate; the next ones
     * begin at a multiple of GP_ALIGN_FLOATS */
    size_t group;
    size_t steps;          /* of a sample that it multiplies */
    size_t stride;         /* floats between rows of weights */
    size_t blocks, slices; /* 0: no list for many, for few samples */
    size_t words;          /* of memory */
    float *bias;           /* where few samples have its rows, zeros between */
    float *weights;        /* (rows, stride) or NULL */
    /* many samples: blocks of (rows + 1) starts */
    uint32_t *block_start, *column;
    float *value;
    /* few samples: sliced ELL */
    size_t sliced;
    uint32_t *slice_start, *slice_column, *slice_row;
    float *slice_value, *slice_bias;
    /* while it is packed: rows, the longest first */
    struct gp_row_length *order;
} gp_frozen_matrix;

/* Chooses dense rows or lists, and counts the words of memory that they take. */
gp_status gp_frozen_matrix_plan(gp_frozen_matrix *matrix, const uint8_t *mask, size_t rows,
                                size_t columns, size_t group, size_t steps);
/* What was planned, in memory of zeros, which `next` moves through; bias[r] or, if NULL, 0. */
void gp_frozen_matrix_fill(gp_frozen_matrix *matrix, const uint8_t *mask, const float *weights,
                           const float *bias, uint32_t **next);
/* Gives back what a plan has taken; after fill that is nothing. */
void gp_frozen_matrix_end(gp_frozen_matrix *matrix);

/* Estimated time of one of a few samples with all its steps, and of 16 together. */
double gp_frozen_matrix_row_ns(const gp_frozen_matrix *matrix);
double gp_frozen_matrix_lane_ns(const gp_frozen_matrix *matrix);

/* Floats of a row of what few samples give, and of what they read. */
static inline size_t gp_frozen_matrix_out(const gp_frozen_matrix *matrix)
{
    return matrix->rows / matrix->group * gp_padded(matrix->group);
}
static inline size_t gp_frozen_matrix_in(const gp_frozen_matrix *matrix)
{
    return gp_padded(matrix->columns);
}
/* y[n] = W x[n] + bias for few samples; what pads x is finite, what pads y is left or 0. */
void gp_frozen_matrix_rows(const gp_frozen_matrix *matrix, const gp_kernels *kernels, size_t n,
                           const float *x, size_t x_row, float *y, size_t y_row);
/* n steps of one sample side by side, each padded with zeros; x itself if nothing pads them. */
const float *gp_frozen_steps(size_t n, size_t features, const float *x, float *padded);

#endif
