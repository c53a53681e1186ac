/* gemm.h - the matrix products of dense layers. P lanes (samples) are innermost wherever there are
 * samples.
 *
 * Forward:  y[o][P]  = sum_i W[o][i] x[i][P]          gemm
 * Backward: dx[i][P] = sum_o W[o][i] dy[o][P]         gemm_transposed
 * Weights:  dW[o][i] = sum over lanes dy[o] x[i]      gemm_over_lanes
 *
 * A tile of R rows by C vectors stays in registers while k runs; a is read one scalar at a time and
 * broadcast, which the FMA does for free. Each number of c is one chain of multiply-adds over k,
 * whatever the tile and the blocks of k, so neither ever changes the bits.
 */
#ifndef GP_GEMM_H
#define GP_GEMM_H

#include "kernels/vector.h"

/* Tiles by the vectors in a column panel: enough accumulators to hide the FMA's latency, few enough
 * for the registers (32 with AVX-512 and NEON, 16 elsewhere). With 8 floats a vector a panel of two
 * is a cache line wide: one of three, in tiles of four rows, fetches two lines for every k. */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_PANEL = 4, GP_ROWS_4 = 6, GP_ROWS_3 = 8, GP_ROWS_2 = 12, GP_ROWS_1 = 14 };
#else
enum { GP_PANEL = 2, GP_ROWS_4 = 1, GP_ROWS_3 = 1, GP_ROWS_2 = 6, GP_ROWS_1 = 12 };
#endif

/* a and b of a sum over k, in pieces which follow each other. */
typedef struct gemm_terms {
    size_t pieces, k;
    const float *a;
    size_t a_row, a_col, a_piece;
    const float *b;
    size_t b_row, b_piece;
} gemm_terms;

/* Where the sums go. */
typedef struct gemm_sums {
    float *c;
    size_t c_row;
    size_t last; /* floats of the last vector that belong to c (V when all do) */
    int accumulate;
} gemm_sums;

static inline size_t gemm_smaller(size_t x, size_t y) { return x < y ? x : y; }

/* R and C are constants at every call, so the loops over them unroll and the accumulators are
 * registers. */
static inline __attribute__((always_inline)) void gemm_tile(const size_t R, const size_t C,
                                                            const gemm_terms *terms, size_t row,
                                                            const gemm_sums *to)
{
    const size_t k = terms->k, a_row = terms->a_row, a_col = terms->a_col, b_row = terms->b_row;
    const float *a = terms->a + row * a_row, *b = terms->b;
    float *c = to->c + row * to->c_row;
    vfloat sum[GP_ROWS_1][4];
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            float *at = c + i * to->c_row + j * GP_V;
            if (!to->accumulate) sum[i][j] = v_splat(0.0f);
            else if (j + 1 == C && to->last < GP_V) sum[i][j] = v_load_part(at, to->last);
            else sum[i][j] = v_load(at);
        }
    for (size_t s = 0; s < terms->pieces; s++, a += terms->a_piece, b += terms->b_piece)
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
            float *at = c + i * to->c_row + j * GP_V;
            if (j + 1 == C && to->last < GP_V) v_store_part(at, sum[i][j], to->last);
            else v_store(at, sum[i][j]);
        }
}

/* All rows of one column panel of C vectors: tiles of R rows, then 4, 2, 1. */
static inline __attribute__((always_inline)) void gemm_panel(const size_t R, const size_t C,
                                                             size_t m, const gemm_terms *terms,
                                                             const gemm_sums *to)
{
    size_t i = 0;
    for (; i + R <= m; i += R) gemm_tile(R, C, terms, i, to);
    for (; R > 4 && i + 4 <= m; i += 4) gemm_tile(4, C, terms, i, to);
    for (; R > 2 && i + 2 <= m; i += 2) gemm_tile(2, C, terms, i, to);
    for (; i < m; i++) gemm_tile(1, C, terms, i, to);
}

/* Vectors of the panel of n columns, or of its first part. */
static inline size_t gemm_vectors(size_t n)
{
    return gemm_smaller((n + GP_V - 1) / GP_V, GP_PANEL);
}

/* The first panel of n columns. */
static void gemm_columns(size_t m, size_t n, gemm_terms terms, float *c, size_t c_row,
                         int accumulate)
{
    const size_t vectors = gemm_vectors(n);
    const gemm_sums to = {.c = c,
                          .c_row = c_row,
                          .last = gemm_smaller(n - (vectors - 1) * GP_V, GP_V),
                          .accumulate = accumulate};
    switch (vectors) {
    case 4: gemm_panel(GP_ROWS_4, 4, m, &terms, &to); break;
    case 3: gemm_panel(GP_ROWS_3, 3, m, &terms, &to); break;
    case 2: gemm_panel(GP_ROWS_2, 2, m, &terms, &to); break;
    default: gemm_panel(GP_ROWS_1, 1, m, &terms, &to); break;
    }
}

/* k is not blocked: up to k = 1024 a panel of b stays in the L2 cache, and blocks of k for the L1
 * cache were slower (c is written more often, rows of a are read in pieces too short to be
 * prefetched). */
static void gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                 const float *b, size_t b_row, float *c, size_t c_row, int accumulate)
{
    gemm_terms terms = {
        .pieces = 1, .k = k, .a = a, .a_row = a_row, .a_col = a_col, .b_row = b_row};
    for (size_t j = 0; j < n; j += GP_PANEL * GP_V) {
        terms.b = b + j;
        gemm_columns(m, n - j, terms, c + j, c_row, accumulate);
    }
}

/* Of a wide a, every k would take the few numbers of a tile from another page, and all pages meet
 * in a few sets of the cache. A block of PACK_M columns by PACK_K rows is copied first, those of a
 * tile next to each other, and then used for all pieces. A smaller a stays in the cache. */
enum { GP_PACK_FROM = 1 << 15, GP_PACK_M = 48, GP_PACK_K = 128 };

/* The columns of a in groups of `tile`, at most two vectors, [group][k][tile] and GP_V floats
 * between groups: vectors that are stored reach beyond a tile, and the next one overwrites that.
 * Rows are longer than a tile and a vector, so only in the last one nothing may be read past the
 * columns. GCC 12 makes it several times slower where it is inlined. */
static __attribute__((noinline)) void gemm_pack(size_t m, size_t k, const float *a, size_t a_row,
                                                size_t tile, float *packed)
{
    const size_t group = k * tile + GP_V;
    for (size_t q = 0; q + 1 < k; q++, a += a_row, packed += tile)
        for (size_t i = 0, g = 0; i < m; i += tile, g += group) {
            v_store(packed + g, v_load(a + i));
            if (tile > GP_V) v_store(packed + g + GP_V, v_load(a + i + GP_V));
        }
    for (size_t i = 0; i < m; i++) packed[i / tile * group + i % tile] = a[i];
}

static void gemm_transposed(size_t pieces, size_t m, size_t lanes, size_t k, const float *a,
                            size_t a_row, const float *b, size_t b_piece, float *c, size_t c_piece,
                            int accumulate)
{
    if (k * a_row < GP_PACK_FROM || a_row < GP_ROWS_1 + GP_V) {
        for (size_t s = 0; s < pieces; s++)
            gemm(m, lanes, k, a, 1, a_row, b + s * b_piece, lanes, c + s * c_piece, lanes,
                 accumulate);
        return;
    }
    static const size_t tiles[] = {GP_ROWS_1, GP_ROWS_2, GP_ROWS_3, GP_ROWS_4};
    const size_t tile = tiles[gemm_vectors(lanes) - 1];
    const size_t most = GP_PACK_M / tile * tile;
    float packed[GP_PACK_M * GP_PACK_K + GP_PACK_M / 6 * GP_V];
    for (size_t i = 0; i < m; i += most) {
        const size_t rows = gemm_smaller(most, m - i);
        for (size_t q = 0; q < k; q += GP_PACK_K) {
            const size_t depth = gemm_smaller(GP_PACK_K, k - q);
            gemm_pack(rows, depth, a + q * a_row + i, a_row, tile, packed);
            for (size_t s = 0; s < pieces; s++)
                for (size_t j = 0; j < lanes; j += GP_PANEL * GP_V)
                    for (size_t r = 0; r < rows; r += tile)
                        gemm_columns(gemm_smaller(tile, rows - r), lanes - j,
                                     (gemm_terms){.pieces = 1,
                                                  .k = depth,
                                                  .a = packed + r / tile * (depth * tile + GP_V),
                                                  .a_row = 1,
                                                  .a_col = tile,
                                                  .b = b + s * b_piece + q * lanes + j,
                                                  .b_row = lanes},
                                     c + s * c_piece + (i + r) * lanes + j, lanes,
                                     accumulate || q > 0);
        }
    }
}

/* Both factors have their lanes innermost, so one of them is turned: a panel of columns with as
 * many lanes as the L1 cache holds beside the tiles. Rows a power of two apart would meet in a few
 * sets of the cache; the panel has none. */
enum { GP_TURNED = 4096 };

/* out[piece][lane][panel] = x[piece][column][lane]; columns past n repeat the last one. */
static void gemm_turn(size_t pieces, size_t n, size_t lanes, const float *x, size_t x_piece,
                      size_t panel, float *out)
{
    for (size_t s = 0; s < pieces; s++)
        for (size_t v = 0; v < panel; v += GP_V) {
            const float *rows[GP_V];
            for (size_t i = 0; i < GP_V; i++)
                rows[i] = x + s * x_piece + gemm_smaller(v + i, n - 1) * lanes;
            for (size_t p = 0; p < lanes; p += 4) {
                vfloat turned[4];
                v_turn(rows, p, turned);
#pragma GCC unroll 4
                for (size_t u = 0; u < 4; u++)
                    v_store(out + (s * lanes + p + u) * panel + v, turned[u]);
            }
        }
}

static void gemm_over_lanes(size_t pieces, size_t m, size_t n, size_t lanes, size_t valid,
                            const float *a, size_t a_piece, const float *b, size_t b_piece,
                            float *c, size_t c_row, int accumulate)
{
    float turned[GP_TURNED] __attribute__((aligned(64)));
    if (m == 0 || n == 0) return;
    const size_t panel = gemm_vectors(n) * GP_V, most = GP_TURNED / (panel * lanes);
    for (size_t s = 0; s < pieces; s += most)
        for (size_t j = 0; j < n; j += panel) {
            const size_t together = gemm_smaller(most, pieces - s);
            gemm_turn(together, n - j, lanes, b + s * b_piece + j * lanes, b_piece, panel, turned);
            gemm_columns(m, gemm_smaller(panel, n - j),
                         (gemm_terms){.pieces = together,
                                      .k = valid,
                                      .a = a + s * a_piece,
                                      .a_row = lanes,
                                      .a_col = 1,
                                      .a_piece = a_piece,
                                      .b = turned,
                                      .b_row = panel,
                                      .b_piece = lanes * panel},
                         c + j, c_row, accumulate || s > 0);
        }
}

/* out[column][row] = in[row][column]: V x 4 blocks in registers, the last ones overlapping those
 * before them. */
static void transpose(size_t rows, size_t columns, const float *in, size_t in_row, float *out,
                      size_t out_row)
{
    if (rows < GP_V || columns < 4) {
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < columns; c++) out[c * out_row + r] = in[r * in_row + c];
        return;
    }
    for (size_t i = 0; i < rows; i += GP_V) {
        const size_t r = gemm_smaller(i, rows - GP_V);
        const float *from[GP_V];
        for (size_t l = 0; l < GP_V; l++) from[l] = in + (r + l) * in_row;
        for (size_t j = 0; j < columns; j += 4) {
            const size_t c = gemm_smaller(j, columns - 4);
            vfloat turned[4];
            v_turn(from, c, turned);
#pragma GCC unroll 4
            for (size_t u = 0; u < 4; u++) v_store(out + (c + u) * out_row + r, turned[u]);
        }
    }
}

#endif
