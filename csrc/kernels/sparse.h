/* sparse.h - products with the live weights only. The batch is innermost, so a live weight touches
 * one contiguous row of lanes and skipping a removed one needs no gather: sparse and dense kernels
 * work on the same arrays.
 *
 * Lists are in compressed rows: entries start[r]..start[r+1] belong to row r and name a column
 * each.
 */
#ifndef GP_SPARSE_KERNELS_H
#define GP_SPARSE_KERNELS_H

#include "kernels/fold.h"
#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Chains of sums a vector of lanes: enough to hide the latency of the FMA, and as many whatever the
 * lanes, so that a sample's numbers do not depend on how many others are in its batch. */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_CHAINS = 4 };
#else
enum { GP_CHAINS = 2 };
#endif

/* c[C vectors] (+)= sum_k values[k] b[index[k]]; C is a constant at every call. */
static inline __attribute__((always_inline)) void sparse_row(const size_t C, size_t count,
                                                             const uint32_t *index,
                                                             const float *values, const float *b,
                                                             size_t lanes, float *c, int accumulate)
{
    vfloat sum[GP_CHAINS][4];
#pragma GCC unroll 4
    for (size_t u = 0; u < GP_CHAINS; u++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++)
            sum[u][j] = accumulate && u == 0 ? v_load(c + j * GP_V) : v_splat(0.0f);
    size_t k = 0;
    for (; k + GP_CHAINS <= count; k += GP_CHAINS)
#pragma GCC unroll 4
        for (size_t u = 0; u < GP_CHAINS; u++) {
            const float *row = b + index[k + u] * lanes;
            vfloat w = v_splat(values[k + u]);
#pragma GCC unroll 4
            for (size_t j = 0; j < C; j++) sum[u][j] += w * v_load(row + j * GP_V);
        }
    for (; k < count; k++) {
        const float *row = b + index[k] * lanes;
        vfloat w = v_splat(values[k]);
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) sum[0][j] += w * v_load(row + j * GP_V);
    }
#pragma GCC unroll 4
    for (size_t j = 0; j < C; j++) {
#pragma GCC unroll 4
        for (size_t u = 1; u < GP_CHAINS; u++) sum[0][j] += sum[u][j];
        v_store(c + j * GP_V, sum[0][j]);
    }
}

static void sparse_product(size_t rows, size_t lanes, const uint32_t *start, const uint32_t *index,
                           const float *values, const float *b, float *c, int accumulate)
{
#define GP_SPARSE_ROWS(C) \
    for (size_t r = 0; r < rows; r++) \
        sparse_row(C, start[r + 1] - start[r], index + start[r], values + start[r], b + p, lanes, \
                   c + r * lanes + p, accumulate); \
    p += C * GP_V
    for (size_t p = 0; p < lanes;) {
        switch ((lanes - p) / GP_V) {
        case 1: GP_SPARSE_ROWS(1); break;
        case 2: GP_SPARSE_ROWS(2); break;
        case 3: GP_SPARSE_ROWS(3); break;
        default: GP_SPARSE_ROWS(4); break;
        }
    }
#undef GP_SPARSE_ROWS
}

/* c[4 rows][C vectors] (+)= sum_k values[row][k] b[index[k]]: a vector of b is loaded once for four
 * rows. */
static inline __attribute__((always_inline)) void sparse_four(const size_t C, size_t count,
                                                              const uint32_t *index,
                                                              const float *const values[4],
                                                              const float *b, size_t lanes,
                                                              float *c, int accumulate)
{
    vfloat sum[4][4];
#pragma GCC unroll 4
    for (size_t u = 0; u < 4; u++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++)
            sum[u][j] = accumulate ? v_load(c + u * lanes + j * GP_V) : v_splat(0.0f);
    for (size_t k = 0; k < count; k++) {
        const float *row = b + index[k] * lanes;
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            vfloat x = v_load(row + j * GP_V);
#pragma GCC unroll 4
            for (size_t u = 0; u < 4; u++) sum[u][j] += v_splat(values[u][k]) * x;
        }
    }
#pragma GCC unroll 4
    for (size_t u = 0; u < 4; u++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) v_store(c + u * lanes + j * GP_V, sum[u][j]);
}

static void sparse_product_fours(size_t fours, size_t lanes, const uint32_t *start,
                                 const uint32_t *index, const float *values, const float *b,
                                 float *c, int accumulate)
{
    /* sums of four rows take four times the registers of one */
    enum { MOST = GP_V == 16 || GP_CHAINS == 4 ? 4 : 2 };
#define GP_SPARSE_FOURS(C) \
    for (size_t r = 0; r < 4 * fours; r += 4) { \
        const float *const rows[4] = {values + start[r], values + start[r + 1], \
                                      values + start[r + 2], values + start[r + 3]}; \
        sparse_four(C, start[r + 1] - start[r], index + start[r], rows, b + p, lanes, \
                    c + r * lanes + p, accumulate); \
    } \
    p += C * GP_V
    for (size_t p = 0; p < lanes;) {
        size_t left = (lanes - p) / GP_V;
        if (left >= MOST) {
            GP_SPARSE_FOURS(MOST);
        } else if (left >= 2) {
            GP_SPARSE_FOURS(2);
        } else {
            GP_SPARSE_FOURS(1);
        }
    }
#undef GP_SPARSE_FOURS
}

/* Lane u is the sum over lanes of dy[p] x[index[u]][p]; `lanes` is a constant at every call. */
static inline __attribute__((always_inline)) vfloat dot_group(const size_t lanes,
                                                              const uint32_t *index,
                                                              const float *dy, const float *x)
{
    vfloat sum[GP_GROUP];
    const float *row[GP_GROUP];
#pragma GCC unroll 8
    for (size_t u = 0; u < GP_GROUP; u++) row[u] = x + index[u] * lanes;
#pragma GCC unroll 8
    for (size_t u = 0; u < GP_GROUP; u++) sum[u] = v_load(dy) * v_load(row[u]);
#pragma GCC unroll 4
    for (size_t p = GP_V; p < lanes; p += GP_V) {
        vfloat d = v_load(dy + p);
#pragma GCC unroll 8
        for (size_t u = 0; u < GP_GROUP; u++) sum[u] += d * v_load(row[u] + p);
    }
    return sums_of(sum);
}

#if GP_V == 16 /* GP_GROUP of its lanes */
static inline vfloat v_load_group(const float *p) { return v_load_part(p, GP_GROUP); }
static inline void v_store_group(float *p, vfloat x) { v_store_part(p, x, GP_GROUP); }
#else
static inline vfloat v_load_group(const float *p) { return v_load(p); }
static inline void v_store_group(float *p, vfloat x) { v_store(p, x); }
#endif

static inline
    __attribute__((always_inline)) void dot_rows(const size_t lanes, size_t rows,
                                                 const uint32_t *start, const uint32_t *index,
                                                 const float *dy, const float *x, float *out,
                                                 int accumulate)
{
    for (size_t r = 0; r < rows; r++, dy += lanes) {
        for (size_t k = start[r]; k < start[r + 1]; k += GP_GROUP) {
            size_t n = start[r + 1] - k;
            if (n >= GP_GROUP) {
                vfloat sums = dot_group(lanes, index + k, dy, x);
                if (accumulate) sums += v_load_group(out + k);
                v_store_group(out + k, sums);
            } else {
                uint32_t rest[GP_GROUP];
                for (size_t u = 0; u < GP_GROUP; u++) rest[u] = index[u < n ? k + u : k];
                vfloat sums = dot_group(lanes, rest, dy, x);
                if (accumulate) sums += v_load_part(out + k, n);
                v_store_part(out + k, sums, n);
            }
        }
    }
}

static void sparse_dot(size_t rows, size_t lanes, const uint32_t *start, const uint32_t *index,
                       const float *dy, const float *x, float *out, int accumulate)
{
    switch (lanes) {
    case 16: dot_rows(16, rows, start, index, dy, x, out, accumulate); break;
    case 32: dot_rows(32, rows, start, index, dy, x, out, accumulate); break;
    case 48: dot_rows(48, rows, start, index, dy, x, out, accumulate); break;
    default: dot_rows(64, rows, start, index, dy, x, out, accumulate); break;
    }
}

static void gather(size_t n, const uint32_t *index, const float *in, float *out)
{
    /* signed: the compiler has gathers for it */
    for (size_t k = 0; k < n; k++) out[k] = in[(int32_t)index[k]];
}

static void scatter(size_t n, const uint32_t *index, const float *in, float *out)
{
    for (size_t k = 0; k < n; k++) out[(int32_t)index[k]] = in[k];
}

#endif
