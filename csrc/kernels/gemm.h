/* gemm.h - c (m,n) = a (m,k) b (k,n), n innermost: the one matrix product of the core.
 *
 * Forward:  y[o][P]  = sum_i W[o][i]  x[i][P]      a = W,   strides (I, 1)
 * Backward: dx[i][P] = sum_o W[o][i]  dy[o][P]     a = W^T, strides (1, I)
 * Weights:  dW[o][i] = sum_p dy[o][p] rows[p][i]   a = dy,  strides (P, 1), rows = x with the batch outermost
 *
 * A tile of R rows by C vectors stays in registers while k runs; a is read one scalar at a time and broadcast, which
 * the FMA does for free. There is no blocking of k and no packing: up to k = 1024 a panel of b stays in the L2 cache.
 * Each number of c is one chain of multiply-adds over k, whatever the tile, so tiles never change the bits.
 */
#ifndef GP_GEMM_H
#define GP_GEMM_H

#include "kernels/vector.h"

/* Tiles by the vectors in a column panel: enough accumulators to hide the FMA's latency, few enough for the
 * registers (32 with AVX-512 and NEON, 16 elsewhere). */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_PANEL = 4, GP_ROWS_4 = 6, GP_ROWS_3 = 8, GP_ROWS_2 = 12, GP_ROWS_1 = 14 };
#else
enum { GP_PANEL = 3, GP_ROWS_4 = 1, GP_ROWS_3 = 4, GP_ROWS_2 = 6, GP_ROWS_1 = 12 };
#endif

/* R and C are constants at every call, so the loops over them unroll and the accumulators are registers. `last` is
 * how many floats of the last vector belong to c (V when all do). */
static inline __attribute__((always_inline)) void gemm_tile(const size_t R, const size_t C, size_t k, const float *a,
                                                            size_t a_row, size_t a_col, const float *b, size_t b_row,
                                                            float *c, size_t c_row, size_t last, int accumulate)
{
    vfloat sum[GP_ROWS_1][4];
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            float *at = c + i * c_row + j * GP_V;
            if (!accumulate) sum[i][j] = v_splat(0.0f);
            else if (j + 1 == C && last < GP_V) sum[i][j] = v_load_part(at, last);
            else sum[i][j] = v_load(at);
        }
    for (size_t q = 0; q < k; q++) {
        vfloat panel[4];
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) panel[j] = v_load(b + q * b_row + j * GP_V);
#pragma GCC unroll 16
        for (size_t i = 0; i < R; i++) {
            vfloat x = v_splat(a[i * a_row + q * a_col]);
#pragma GCC unroll 4
            for (size_t j = 0; j < C; j++) sum[i][j] += x * panel[j];
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            float *at = c + i * c_row + j * GP_V;
            if (j + 1 == C && last < GP_V) v_store_part(at, sum[i][j], last);
            else v_store(at, sum[i][j]);
        }
}

/* All rows of one column panel of C vectors: tiles of R rows, then 4, 2, 1. */
static inline __attribute__((always_inline)) void gemm_panel(const size_t R, const size_t C, size_t m, size_t k,
                                                             const float *a, size_t a_row, size_t a_col, const float *b,
                                                             size_t b_row, float *c, size_t c_row, size_t last,
                                                             int accumulate)
{
    size_t i = 0;
    for (; i + R <= m; i += R)
        gemm_tile(R, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last, accumulate);
    for (; R > 4 && i + 4 <= m; i += 4)
        gemm_tile(4, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last, accumulate);
    for (; R > 2 && i + 2 <= m; i += 2)
        gemm_tile(2, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last, accumulate);
    for (; i < m; i++)
        gemm_tile(1, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last, accumulate);
}

static void gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col, const float *b, size_t b_row,
                 float *c, size_t c_row, int accumulate)
{
    for (size_t j = 0; j < n;) {
        size_t vectors = (n - j + GP_V - 1) / GP_V;
        if (vectors > GP_PANEL) vectors = GP_PANEL;
        size_t left = n - j, last = left >= vectors * GP_V ? GP_V : left - (vectors - 1) * GP_V;
        const float *panel = b + j;
        float *out = c + j;
        switch (vectors) {
        case 4: gemm_panel(GP_ROWS_4, 4, m, k, a, a_row, a_col, panel, b_row, out, c_row, last, accumulate); break;
        case 3: gemm_panel(GP_ROWS_3, 3, m, k, a, a_row, a_col, panel, b_row, out, c_row, last, accumulate); break;
        case 2: gemm_panel(GP_ROWS_2, 2, m, k, a, a_row, a_col, panel, b_row, out, c_row, last, accumulate); break;
        default: gemm_panel(GP_ROWS_1, 1, m, k, a, a_row, a_col, panel, b_row, out, c_row, last, accumulate); break;
        }
        j += vectors * GP_V;
    }
}

/* out[column][row] = in[row][column]: 4 x 4 blocks in registers, scalars at the edges. */
static void transpose(size_t rows, size_t columns, const float *in, size_t in_row, float *out, size_t out_row)
{
    size_t whole_rows = rows - rows % 4, whole_columns = columns - columns % 4;
    for (size_t r = 0; r < whole_rows; r += 4) {
        for (size_t c = 0; c < whole_columns; c += 4) {
            const float *from = in + r * in_row + c;
            float *to = out + c * out_row + r;
            vquad x0 = (vquad) * (const vquad_any *)from, x1 = (vquad) * (const vquad_any *)(from + in_row);
            vquad x2 = (vquad) * (const vquad_any *)(from + 2 * in_row),
                  x3 = (vquad) * (const vquad_any *)(from + 3 * in_row);
            vquad y0 = GP_SHUFFLE(x0, x1, 0, 4, 1, 5), y1 = GP_SHUFFLE(x0, x1, 2, 6, 3, 7);
            vquad y2 = GP_SHUFFLE(x2, x3, 0, 4, 1, 5), y3 = GP_SHUFFLE(x2, x3, 2, 6, 3, 7);
            *(vquad_any *)to = (vquad_any)GP_SHUFFLE(y0, y2, 0, 1, 4, 5);
            *(vquad_any *)(to + out_row) = (vquad_any)GP_SHUFFLE(y0, y2, 2, 3, 6, 7);
            *(vquad_any *)(to + 2 * out_row) = (vquad_any)GP_SHUFFLE(y1, y3, 0, 1, 4, 5);
            *(vquad_any *)(to + 3 * out_row) = (vquad_any)GP_SHUFFLE(y1, y3, 2, 3, 6, 7);
        }
        for (size_t c = whole_columns; c < columns; c++)
            for (size_t i = 0; i < 4; i++) out[c * out_row + r + i] = in[(r + i) * in_row + c];
    }
    for (size_t r = whole_rows; r < rows; r++)
        for (size_t c = 0; c < columns; c++) out[c * out_row + r] = in[r * in_row + c];
}

#endif
