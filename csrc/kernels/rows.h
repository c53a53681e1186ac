/* rows.h - products for a few samples, each a contiguous row of features: what a frozen network
 * runs on when there are too few samples to fill lanes (layers/parts/matrix_frozen.c).
 *
 * With one sample a weight is used once, so these kernels live on reading weights fast. Vectors run
 * along the features (dense) or along 16 output rows (sliced). A number's chain of sums is the same
 * whatever is computed beside it.
 */
#ifndef GP_ROWS_KERNELS_H
#define GP_ROWS_KERNELS_H

#include "kernels/fold.h"
#include "kernels/kernels.h"
#include "kernels/vector.h"
#include "kernels/vmath.h"

/* Samples that share a vector of weights: as many as there are registers for four rows of sums
 * each. */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_TOGETHER = 4 };
#else
enum { GP_TOGETHER = 2 };
#endif

/* Up to 4 G rows of w for S samples; G and S are constants at every call. Rows past the last repeat
 * it. */
static inline __attribute__((always_inline)) void dense_rows_tile(
    const size_t G, const size_t S, size_t rows, size_t k, const float *w, size_t w_row,
    const float *bias, const float *x, size_t x_row, float *y, size_t y_row)
{
    vfloat sum[8][GP_TOGETHER];
    const float *row[8];
#pragma GCC unroll 8
    for (size_t u = 0; u < 4 * G; u++) {
        row[u] = w + (u < rows ? u : rows - 1) * w_row;
#pragma GCC unroll 4
        for (size_t s = 0; s < S; s++) sum[u][s] = v_splat(0.0f);
    }
    for (size_t i = 0; i < k; i += GP_V) {
        vfloat in[GP_TOGETHER];
#pragma GCC unroll 4
        for (size_t s = 0; s < S; s++) in[s] = v_load(x + s * x_row + i);
#pragma GCC unroll 8
        for (size_t u = 0; u < 4 * G; u++) {
            vfloat weights = v_load(row[u] + i);
#pragma GCC unroll 4
            for (size_t s = 0; s < S; s++) sum[u][s] += weights * in[s];
        }
    }
#pragma GCC unroll 4
    for (size_t s = 0; s < S; s++)
#pragma GCC unroll 2
        for (size_t g = 0; g < G; g++) {
            vfloat four =
                sum_of_four(sum[4 * g][s], sum[4 * g + 1][s], sum[4 * g + 2][s], sum[4 * g + 3][s]);
            for (size_t l = 0; l < 4 && 4 * g + l < rows; l++)
                y[s * y_row + 4 * g + l] = four[l] + bias[4 * g + l];
        }
}

/* Eight rows of w at a time serve all samples before the next are read. */
static void dense_rows(size_t samples, size_t rows, size_t k, const float *w, size_t w_row,
                       const float *bias, const float *x, size_t x_row, float *y, size_t y_row)
{
#define GP_DENSE_ROWS(G, S) \
    for (; s + S <= samples; s += S) \
        for (size_t o = r; o < rows && o < r + 8; o += 4 * G) \
    dense_rows_tile(G, S, rows - o, k, w + o * w_row, w_row, bias + o, x + s * x_row, x_row, \
                    y + s * y_row + o, y_row)
    for (size_t r = 0; r < rows; r += 8) {
        size_t s = 0;
#if GP_V == 16 || defined(GP_ISA_NEON)
        GP_DENSE_ROWS(1, 4);
        GP_DENSE_ROWS(1, 3);
#endif
        GP_DENSE_ROWS(1, 2);
        GP_DENSE_ROWS(2, 1);
    }
#undef GP_DENSE_ROWS
}

/* Sliced ELL: lane l of slice g is one output row, entry j of its 16 rows is one vector. Two chains
 * hide the FMA. */
enum { GP_SLICE_VECTORS = GP_SLICE / GP_V };

static void sliced_rows(size_t slices, const uint32_t *start, const uint32_t *index,
                        const float *values, const uint32_t *row, const float *bias, const float *x,
                        float *y)
{
    for (size_t g = 0; g < slices; g++) {
        vfloat sum[2][GP_SLICE_VECTORS];
        float out[GP_SLICE];
#pragma GCC unroll 4
        for (size_t v = 0; v < GP_SLICE_VECTORS; v++) {
            sum[0][v] = v_load(bias + g * GP_SLICE + v * GP_V);
            sum[1][v] = v_splat(0.0f);
        }
        size_t j = (size_t)start[g] * GP_SLICE, end = (size_t)start[g + 1] * GP_SLICE;
        for (; j + 2 * GP_SLICE <= end; j += 2 * GP_SLICE)
#pragma GCC unroll 2
            for (size_t u = 0; u < 2; u++)
#pragma GCC unroll 4
                for (size_t v = 0; v < GP_SLICE_VECTORS; v++) {
                    size_t at = j + u * GP_SLICE + v * GP_V;
                    sum[u][v] += v_load(values + at) * v_gather(x, index + at);
                }
        if (j < end)
#pragma GCC unroll 4
            for (size_t v = 0; v < GP_SLICE_VECTORS; v++)
                sum[0][v] += v_load(values + j + v * GP_V) * v_gather(x, index + j + v * GP_V);
#pragma GCC unroll 4
        for (size_t v = 0; v < GP_SLICE_VECTORS; v++)
            v_store(out + v * GP_V, sum[0][v] + sum[1][v]);
        for (size_t l = 0; l < GP_SLICE; l++) y[row[g * GP_SLICE + l]] = out[l];
    }
}

/* y = softmax(z); y may be z */
static void softmax_row(size_t n, const float *z, float *y)
{
    float top = n > 0 ? z[0] : 0.0f, total = 0.0f;
    for (size_t i = 1; i < n; i++) top = z[i] > top ? z[i] : top;
    for (size_t i = 0; i < n; i += GP_V) {
        size_t valid = n - i < GP_V ? n - i : GP_V;
        float t[GP_V];
        v_store(t, v_exp((valid < GP_V ? v_load_part(z + i, valid) : v_load(z + i)) - top));
        for (size_t l = 0; l < valid; l++) total += y[i + l] = t[l];
    }
    for (size_t i = 0; i < n; i++) y[i] *= 1.0f / total;
}

#endif
