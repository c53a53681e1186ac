/* matrix_frozen.c - a weight matrix at inference, for few samples and for many.
 *
 *   few samples    a row each: dense rows of W, or its live weights in slices of 16 rows sorted by
 *   length (sliced ELL,
 *                  Monakov et al. 2010), so that a gather fills a vector and next to nothing is
 *                  padding
 *   many samples   lanes: dense rows of W, or compressed rows in blocks of columns whose part of x
 *   stays in the L1 cache
 *
 * The two are chosen apart, since a list pays sooner with many samples. W is kept twice when both
 * run on lists: 16 bytes a live weight, as much as the dense matrix at 25 % kept.
 */
#include "layers/parts/matrix_frozen.h"

#include <stdlib.h>
#include <string.h>

/* About the columns of a block: with 32 lanes 32 kB. A row shorter than ENTRIES a block loses more
 * by coming back than it wins. */
enum { COLUMNS = 256, ENTRIES = 8 };

/* ---- what runs on a list --------------------------------------------------------------------- */

/* Nanoseconds a multiply-add (many samples: 16 of them), measured with AVX-512 on 784-300-100-10; a
 * list entry costs more than a dense weight, and less than it removes once few are left. For many
 * samples gp_lists_pay_in_lanes decides. */
static const double row_dense = 0.04, row_list = 0.31; /* one sample */
/* each of several: W is read once for all */
static const double rows_dense = 0.02;
static const double lanes_dense = 0.37, lanes_list = 0.9; /* 16 lanes alone */
/* The same of a matrix that multiplies every step of a sequence, and what a row takes besides,
 * measured with AVX2 on layers of 20 to 128 units. W is in a cache, so there is little to share. */
static const double step_dense = 0.04, step_list = 0.43, step_row = 0.6;

static double weights_of(const gp_frozen_matrix *matrix)
{
    return (double)matrix->rows * (double)matrix->columns;
}

/* With what pads the rows. */
static double words_of(const gp_frozen_matrix *matrix)
{
    return (double)matrix->rows * (double)matrix->stride;
}

static int list_pays(const gp_frozen_matrix *matrix)
{
    const double kept = (double)matrix->kept;
    return matrix->steps > 1 ? kept * step_list < words_of(matrix) * step_dense
                             : kept * row_list < weights_of(matrix) * row_dense;
}

double gp_frozen_matrix_row_ns(const gp_frozen_matrix *matrix)
{
    const double kept = (double)matrix->kept, rows = (double)matrix->rows;
    const double each = matrix->slices ? kept * step_list : words_of(matrix) * step_dense;
    if (matrix->steps > 1) return (double)matrix->steps * (each + rows * step_row);
    return matrix->slices ? kept * row_list : weights_of(matrix) * rows_dense;
}

double gp_frozen_matrix_lane_ns(const gp_frozen_matrix *matrix)
{
    const double each =
        matrix->blocks ? (double)matrix->kept * lanes_list : weights_of(matrix) * lanes_dense;
    return (double)matrix->steps * each;
}

/* ---- packing --------------------------------------------------------------------------------- */

/* A row and how many of its columns are live; rows past the last have none. */
typedef struct gp_row_length {
    uint32_t row, length;
} gp_row_length;

static int by_length(const void *a, const void *b)
{
    const gp_row_length *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return x->row < y->row ? -1 : 1;
}

gp_status gp_frozen_matrix_plan(gp_frozen_matrix *matrix, const uint8_t *mask, size_t rows,
                                size_t columns, size_t group, size_t steps)
{
    const size_t padded = gp_padded(rows), stride = gp_padded(columns);
    *matrix = (gp_frozen_matrix){
        .rows = rows, .columns = columns, .group = group, .steps = steps, .stride = stride};
    if (rows >= UINT32_MAX - GP_SLICE || padded > SIZE_MAX / 64 / stride) return GP_NO_MEMORY;
    gp_row_length *order = matrix->order = malloc(padded * sizeof *order);
    if (!order) return GP_NO_MEMORY;
    for (size_t r = 0; r < padded; r++) {
        uint32_t length = 0;
        for (size_t c = 0; r < rows && c < columns; c++) length += mask[r * columns + c] != 0;
        order[r] = (gp_row_length){(uint32_t)r, length};
        matrix->kept += length;
    }
    qsort(order, padded, sizeof *order, by_length);

    const int fits =
        weights_of(matrix) < (double)(UINT32_MAX / (2 * GP_SLICE)) && columns < INT32_MAX;
    if (fits && list_pays(matrix)) matrix->slices = padded / GP_SLICE;
    for (size_t g = 0; g < matrix->slices; g++)
        matrix->sliced += (size_t)order[g * GP_SLICE].length * GP_SLICE;
    if (fits && gp_lists_pay_in_lanes(matrix->kept, rows * columns)) {
        matrix->blocks =
            gp_smaller((columns + COLUMNS / 2) / COLUMNS, matrix->kept / (rows * ENTRIES));
        if (matrix->blocks == 0) matrix->blocks = 1;
    }
    const size_t dense = matrix->slices && matrix->blocks ? 0 : rows * stride,
                 blocked = matrix->blocks ? matrix->kept : 0;
    matrix->words = gp_frozen_matrix_out(matrix) + dense + gp_padded(matrix->blocks * (rows + 1)) +
                    2 * gp_padded(blocked) + gp_padded(matrix->slices + 1) +
                    2 * matrix->slices * GP_SLICE + 2 * matrix->sliced;
    return GP_OK;
}

static void fill_weights(gp_frozen_matrix *matrix, const uint8_t *mask, const float *weights)
{
    const size_t I = matrix->columns;
    for (size_t r = 0; r < matrix->rows; r++)
        for (size_t c = 0; c < I; c++)
            if (mask[r * I + c]) matrix->weights[r * matrix->stride + c] = weights[r * I + c];
}

static void fill_blocks(gp_frozen_matrix *matrix, const uint8_t *mask, const float *weights)
{
    const size_t I = matrix->columns, width = (I + matrix->blocks - 1) / matrix->blocks;
    uint32_t next = 0, *start = matrix->block_start;
    for (size_t block = 0; block < matrix->blocks; block++, *start++ = next)
        for (size_t r = 0; r < matrix->rows; r++) {
            *start++ = next;
            for (size_t c = block * width; c < gp_smaller(I, (block + 1) * width); c++) {
                if (!mask[r * I + c]) continue;
                matrix->column[next] = (uint32_t)c;
                matrix->value[next++] = weights[r * I + c];
            }
        }
}

/* Where few samples have a row. Lanes past the last row are written to what pads a group, and there
 * is some when there are such lanes. */
static size_t place_of(const gp_frozen_matrix *matrix, size_t r)
{
    const size_t group = matrix->group;
    return r < matrix->rows ? r / group * gp_padded(group) + r % group : group;
}

static void fill_slices(gp_frozen_matrix *matrix, const uint8_t *mask, const float *weights)
{
    const size_t I = matrix->columns;
    const gp_row_length *order = matrix->order;
    uint32_t next = 0;
    for (size_t g = 0; g < matrix->slices; g++, next += order[(g - 1) * GP_SLICE].length) {
        matrix->slice_start[g] = next;
        for (size_t l = 0; l < GP_SLICE; l++) {
            const size_t r = order[g * GP_SLICE + l].row, place = place_of(matrix, r);
            size_t at = (size_t)next * GP_SLICE + l;
            matrix->slice_row[g * GP_SLICE + l] = (uint32_t)place;
            matrix->slice_bias[g * GP_SLICE + l] = matrix->bias[place];
            for (size_t c = 0; r < matrix->rows && c < I; c++) {
                if (!mask[r * I + c]) continue;
                matrix->slice_column[at] = (uint32_t)c;
                matrix->slice_value[at] = weights[r * I + c];
                at += GP_SLICE;
            }
        }
    }
    matrix->slice_start[matrix->slices] = next;
}

/* Words of memory, each piece from a cache line on. */
static void *take(uint32_t **next, size_t words)
{
    uint32_t *piece = *next;
    *next += gp_padded(words);
    return piece;
}

void gp_frozen_matrix_fill(gp_frozen_matrix *matrix, const uint8_t *mask, const float *weights,
                           const float *bias, uint32_t **next)
{
    const size_t blocked = matrix->blocks ? matrix->kept : 0, sorted = matrix->slices * GP_SLICE;
    matrix->bias = take(next, gp_frozen_matrix_out(matrix));
    for (size_t r = 0; bias && r < matrix->rows; r++) matrix->bias[place_of(matrix, r)] = bias[r];
    if (!matrix->slices || !matrix->blocks) {
        matrix->weights = take(next, matrix->rows * matrix->stride);
        fill_weights(matrix, mask, weights);
    }
    matrix->block_start = take(next, matrix->blocks * (matrix->rows + 1));
    matrix->column = take(next, blocked);
    matrix->value = take(next, blocked);
    matrix->slice_start = take(next, matrix->slices + 1);
    matrix->slice_row = take(next, sorted);
    matrix->slice_bias = take(next, sorted);
    matrix->slice_column = take(next, matrix->sliced);
    matrix->slice_value = take(next, matrix->sliced);
    if (matrix->blocks) fill_blocks(matrix, mask, weights);
    if (matrix->slices) fill_slices(matrix, mask, weights);
    gp_frozen_matrix_end(matrix);
}

void gp_frozen_matrix_end(gp_frozen_matrix *matrix)
{
    free(matrix->order);
    matrix->order = NULL;
}

/* ---- few samples ----------------------------------------------------------------------------- */

void gp_frozen_matrix_rows(const gp_frozen_matrix *matrix, const gp_kernels *kernels, size_t n,
                           const float *x, size_t x_row, float *y, size_t y_row)
{
    const size_t group = matrix->group, stride = matrix->stride;
    for (size_t g = 0; !matrix->slices && g * group < matrix->rows; g++) {
        const size_t place = g * gp_padded(group);
        kernels->dense_rows(n, group, stride, matrix->weights + g * group * stride, stride,
                            matrix->bias + place, x, x_row, y + place, y_row);
    }
    for (size_t s = 0; matrix->slices && s < n; s++)
        kernels->sliced_rows(matrix->slices, matrix->slice_start, matrix->slice_column,
                             matrix->slice_value, matrix->slice_row, matrix->slice_bias,
                             x + s * x_row, y + s * y_row);
}

const float *gp_frozen_steps(size_t n, size_t features, const float *x, float *padded)
{
    const size_t row = gp_padded(features);
    if (row == features) return x;
    for (size_t t = 0; t < n; t++) {
        memcpy(padded + t * row, x + t * features, features * sizeof *x);
        memset(padded + t * row + features, 0, (row - features) * sizeof *x);
    }
    return padded;
}
