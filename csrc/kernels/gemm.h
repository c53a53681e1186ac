/* gemm.h - c (m,n) = a (m,k) b (k,n), n innermost: the one matrix product of the core.
 *
 * Forward:  y[o][P]  = sum_i W[o][i]  x[i][P]      a = W,   strides (I, 1)
 * Backward: dx[i][P] = sum_o W[o][i]  dy[o][P]     a = W^T, strides (1, I)
 * Weights:  dW[o][i] = sum_p dy[o][p] rows[p][i]   a = dy,  strides (P, 1), rows = x with the batch
 *           outermost
 *
 * A tile of R rows by C vectors stays in registers while k runs; a is read one scalar at a time and
 * broadcast, which the FMA does for free. k is not blocked: up to k = 1024 a panel of b stays in
 * the L2 cache, and blocks of k for the L1 cache were slower (c is written more often, rows of a
 * are read in pieces too short to be prefetched). Each number of c is one chain of multiply-adds
 * over k, whatever the tile, so tiles never change the bits.
 */
#ifndef GP_GEMM_H
#define GP_GEMM_H

#include "kernels/vector.h"

/* Tiles by the vectors in a column panel: enough accumulators to hide the FMA's latency, few enough
 * for the registers (32 with AVX-512 and NEON, 16 elsewhere). */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_PANEL = 4, GP_ROWS_4 = 6, GP_ROWS_3 = 8, GP_ROWS_2 = 12, GP_ROWS_1 = 14 };
#else
enum { GP_PANEL = 3, GP_ROWS_4 = 1, GP_ROWS_3 = 4, GP_ROWS_2 = 6, GP_ROWS_1 = 12 };
#endif

/* R and C are constants at every call, so the loops over them unroll and the accumulators are
 * registers. `last` is how many floats of the last vector belong to c (V when all do). */
static inline __attribute__((always_inline)) void gemm_tile(const size_t R, const size_t C,
                                                            size_t k, const float *a, size_t a_row,
                                                            size_t a_col, const float *b,
                                                            size_t b_row, float *c, size_t c_row,
                                                            size_t last, int accumulate)
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
static inline __attribute__((always_inline)) void gemm_panel(
    const size_t R, const size_t C, size_t m, size_t k, const float *a, size_t a_row, size_t a_col,
    const float *b, size_t b_row, float *c, size_t c_row, size_t last, int accumulate)
{
    size_t i = 0;
    for (; i + R <= m; i += R)
        gemm_tile(R, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last,
                  accumulate);
    for (; R > 4 && i + 4 <= m; i += 4)
        gemm_tile(4, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last,
                  accumulate);
    for (; R > 2 && i + 2 <= m; i += 2)
        gemm_tile(2, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last,
                  accumulate);
    for (; i < m; i++)
        gemm_tile(1, C, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, last,
                  accumulate);
}

static void gemm_rows(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                      const float *b, size_t b_row, float *c, size_t c_row, int accumulate)
{
    for (size_t j = 0; j < n;) {
        size_t vectors = (n - j + GP_V - 1) / GP_V;
        if (vectors > GP_PANEL) vectors = GP_PANEL;
        size_t left = n - j, last = left >= vectors * GP_V ? GP_V : left - (vectors - 1) * GP_V;
        const float *panel = b + j;
        float *out = c + j;
        switch (vectors) {
        case 4:
            gemm_panel(GP_ROWS_4, 4, m, k, a, a_row, a_col, panel, b_row, out, c_row, last,
                       accumulate);
            break;
        case 3:
            gemm_panel(GP_ROWS_3, 3, m, k, a, a_row, a_col, panel, b_row, out, c_row, last,
                       accumulate);
            break;
        case 2:
            gemm_panel(GP_ROWS_2, 2, m, k, a, a_row, a_col, panel, b_row, out, c_row, last,
                       accumulate);
            break;
        default:
            gemm_panel(GP_ROWS_1, 1, m, k, a, a_row, a_col, panel, b_row, out, c_row, last,
                       accumulate);
            break;
        }
        j += vectors * GP_V;
    }
}

/* Wide transposed a (dX of a wide layer): every k would take its few numbers from another page, and
 * all pages meet in a few sets of the cache. A block of PACK_M rows by PACK_K is copied next to
 * each other first, the next one fetched meanwhile. */
enum { GP_PACK_FROM = 512, GP_PACK_M = 24, GP_PACK_K = 128 };

static void gemm_packed(size_t m, size_t n, size_t k, const float *a, size_t a_col, const float *b,
                        size_t b_row, float *c, size_t c_row, int accumulate)
{
    float packed[GP_PACK_K * GP_PACK_M];
    for (size_t q = 0; q < k; q += GP_PACK_K) {
        size_t depth = k - q < GP_PACK_K ? k - q : GP_PACK_K;
        for (size_t i = 0; i < m; i += GP_PACK_M) {
            size_t rows = m - i < GP_PACK_M ? m - i : GP_PACK_M;
            for (size_t r = 0; r < depth; r++) {
                const float *from = a + (q + r) * a_col + i;
                size_t v = 0;
                for (size_t line = 0; line <= GP_PACK_M; line += 16)
                    __builtin_prefetch(from + GP_PACK_M + line);
                for (; v + GP_V <= rows; v += GP_V)
                    v_store(packed + r * GP_PACK_M + v, v_load(from + v));
                for (; v < rows; v++) packed[r * GP_PACK_M + v] = from[v];
            }
            gemm_rows(rows, n, depth, packed, 1, GP_PACK_M, b + q * b_row, b_row, c + i * c_row,
                      c_row, accumulate || q > 0);
        }
    }
}

static void gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                 const float *b, size_t b_row, float *c, size_t c_row, int accumulate)
{
    if (a_row == 1 && a_col >= GP_PACK_FROM && k > 0)
        gemm_packed(m, n, k, a, a_col, b, b_row, c, c_row, accumulate);
    else gemm_rows(m, n, k, a, a_row, a_col, b, b_row, c, c_row, accumulate);
}

/* The vectors of V rows become those of V columns: each round interleaves the first half of them
 * with the second. */
static inline __attribute__((always_inline)) void turn_block(const float *in, size_t in_row,
                                                             float *out, size_t out_row)
{
    vfloat x[GP_V], y[GP_V];
#pragma GCC unroll 16
    for (size_t i = 0; i < GP_V; i++) x[i] = v_load(in + i * in_row);
#pragma GCC unroll 4
    for (size_t round = 1; round < GP_V; round *= 2) {
#pragma GCC unroll 8
        for (size_t i = 0; i < GP_V / 2; i++) {
            y[2 * i] = v_interleave_low(x[i], x[i + GP_V / 2]);
            y[2 * i + 1] = v_interleave_high(x[i], x[i + GP_V / 2]);
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < GP_V; i++) x[i] = y[i];
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < GP_V; i++) v_store(out + i * out_row, x[i]);
}

/* out[column][row] = in[row][column]: V x V blocks in registers, the last ones overlapping those
 * before them. */
static void transpose(size_t rows, size_t columns, const float *in, size_t in_row, float *out,
                      size_t out_row)
{
    if (rows < GP_V || columns < GP_V) {
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < columns; c++) out[c * out_row + r] = in[r * in_row + c];
        return;
    }
    for (size_t i = 0; i < rows; i += GP_V) {
        size_t r = i + GP_V <= rows ? i : rows - GP_V;
        for (size_t j = 0; j < columns; j += GP_V) {
            size_t c = j + GP_V <= columns ? j : columns - GP_V;
            turn_block(in + r * in_row + c, in_row, out + c * out_row + r, out_row);
        }
    }
}

#endif
