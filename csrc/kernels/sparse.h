/* sparse.h - products with the live weights only. The batch is innermost, so a live weight touches one contiguous row
 * of lanes and skipping a removed one needs no gather: sparse and dense kernels work on the same arrays.
 *
 * Lists are in compressed rows: entries start[r]..start[r+1] belong to row r and name a column each.
 */
#ifndef GP_SPARSE_KERNELS_H
#define GP_SPARSE_KERNELS_H

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Chains of sums a vector of lanes: enough to hide the latency of the FMA, and as many whatever the lanes, so that a
 * sample's numbers do not depend on how many others are in its batch. */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_CHAINS = 4 };
#else
enum { GP_CHAINS = 2 };
#endif

/* c[C vectors] (+)= sum_k values[k] b[index[k]]; C is a constant at every call. */
static inline __attribute__((always_inline)) void sparse_row(const size_t C, size_t count, const uint32_t *index,
                                                             const float *values, const float *b, size_t lanes,
                                                             float *c, int accumulate)
{
    vfloat sum[GP_CHAINS][4];
#pragma GCC unroll 4
    for (size_t u = 0; u < GP_CHAINS; u++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) sum[u][j] = accumulate && u == 0 ? v_load(c + j * GP_V) : v_splat(0.0f);
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

static void sparse_product(size_t rows, size_t lanes, const uint32_t *start, const uint32_t *index, const float *values,
                           const float *b, float *c, int accumulate)
{
#define GP_SPARSE_ROWS(C)                                                                                              \
    for (size_t r = 0; r < rows; r++)                                                                                  \
        sparse_row(C, start[r + 1] - start[r], index + start[r], values + start[r], b + p, lanes, c + r * lanes + p,   \
                   accumulate);                                                                                        \
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

/* Vectors a and b hold items of w partial sums each; the result holds the items of a, then of b, of w/2 each. */
#define GP_AT(i, w, half) ((i) / ((w) / 2) * (w) + (i) % ((w) / 2) + (half))
#define GP_AT4(i, w, half) GP_AT(i, w, half), GP_AT(i + 1, w, half), GP_AT(i + 2, w, half), GP_AT(i + 3, w, half)
#if GP_V == 16
#define GP_LANES_AT(w, half) GP_AT4(0, w, half), GP_AT4(4, w, half), GP_AT4(8, w, half), GP_AT4(12, w, half)
#elif GP_V == 8
#define GP_LANES_AT(w, half) GP_AT4(0, w, half), GP_AT4(4, w, half)
#else
#define GP_LANES_AT(w, half) GP_AT4(0, w, half)
#endif
#define GP_FOLD(a, b, w) (GP_PICK(a, b, GP_LANES_AT(w, 0)) + GP_PICK(a, b, GP_LANES_AT(w, (w) / 2)))

/* Lanes 0..3 are the sums of four vectors. */
static inline vfloat sum_of_four(vfloat a, vfloat b, vfloat c, vfloat d)
{
    vfloat ab = GP_FOLD(a, b, GP_V), cd = GP_FOLD(c, d, GP_V), all = GP_FOLD(ab, cd, GP_V / 2);
#if GP_V == 16
    all = GP_FOLD(all, all, 4);
#endif
#if GP_V >= 8
    all = GP_FOLD(all, all, 2);
#endif
    return all;
}

/* out[k] = sum over chunks and lanes of dy[chunk][p] x[chunk][index[k]][p] */
static void sparse_dot(size_t count, size_t chunks, size_t lanes, const uint32_t *index, const float *dy,
                       size_t dy_chunk, const float *x, size_t x_chunk, float *out)
{
    for (size_t k = 0; k < count; k += 4) {
        const float *row[4];
        for (size_t u = 0; u < 4; u++) row[u] = x + index[k + u < count ? k + u : count - 1] * lanes;
        vfloat sum[4] = {{0}};
        for (size_t chunk = 0; chunk < chunks; chunk++)
            for (size_t p = 0; p < lanes; p += GP_V) {
                vfloat d = v_load(dy + chunk * dy_chunk + p);
                for (size_t u = 0; u < 4; u++) sum[u] += d * v_load(row[u] + chunk * x_chunk + p);
            }
        vfloat four = sum_of_four(sum[0], sum[1], sum[2], sum[3]);
        for (size_t u = 0; u < 4 && k + u < count; u++) out[k + u] = four[u];
    }
}

#endif
