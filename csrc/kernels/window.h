/* window.h - products of a filter that slides over images, batch innermost.
 *
 * A filter at one place multiplies rows of lanes that lie anywhere, but at the same distances from
 * each other wherever it is: `at` lists them once. Where it moves by one pixel, the lanes of
 * neighbours are contiguous, and a run of pixels is one long row. So nothing is copied into columns
 * (im2col), and a filter with few live weights is a shorter list.
 *
 * Each number is one chain of multiply-adds, over the list or over the places, whatever the tile:
 * tiles never change the bits.
 */
#ifndef GP_WINDOW_KERNELS_H
#define GP_WINDOW_KERNELS_H

#include "kernels/fold.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "kernels/vector.h"

/* ---- y = W x, and dx = W' dy ----------------------------------------------------------------- */

/* Tiles as in gemm.h, of one vector such that the 24 rows of a layer are two; a single row takes
 * twice as many vectors to hide the FMA's latency. */
enum { GP_WINDOW_WIDE = 8, GP_WINDOW_TALL = 12 };

typedef struct window_operands {
    size_t k;
    const float *a;
    size_t a_row;
    const uint32_t *at;
    size_t unit;
    const float *b;
    float *c;
    size_t c_row;
    const float *bias;
    int accumulate;
} window_operands;

static inline __attribute__((always_inline)) void window_tile(const size_t R, const size_t C,
                                                              const window_operands *in, size_t row,
                                                              size_t column)
{
    vfloat sum[GP_ROWS_1][GP_WINDOW_WIDE];
    const float *a = in->a + row * in->a_row, *b = in->b + column;
    float *c = in->c + row * in->c_row + column;
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 8
        for (size_t j = 0; j < C; j++) {
            if (in->accumulate) sum[i][j] = v_load(c + i * in->c_row + j * GP_V);
            else sum[i][j] = v_splat(in->bias ? in->bias[row + i] : 0.0f);
        }
    for (size_t q = 0; q < in->k; q++) {
        const float *from = b + (in->at ? in->at[q] : q) * in->unit;
        vfloat w[GP_ROWS_1];
        if (R == 1) { /* b straight from memory */
            vfloat x = v_splat(a[q]);
#pragma GCC unroll 8
            for (size_t j = 0; j < C; j++) sum[0][j] += x * v_load(from + j * GP_V);
            continue;
        }
#pragma GCC unroll 8
        for (size_t j = 0; j < C; j++) w[j] = v_load(from + j * GP_V);
#pragma GCC unroll 16
        for (size_t i = 0; i < R; i++) {
            vfloat x = v_splat(a[i * in->a_row + q]);
#pragma GCC unroll 8
            for (size_t j = 0; j < C; j++) sum[i][j] += x * w[j];
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 8
        for (size_t j = 0; j < C; j++) v_store(c + i * in->c_row + j * GP_V, sum[i][j]);
}

/* All rows of one panel of C vectors: tiles of R rows, then 4, 2, 1. */
static inline __attribute__((always_inline)) void window_panel(const size_t R, const size_t C,
                                                               size_t m, const window_operands *in,
                                                               size_t column)
{
    size_t i = 0;
    for (; i + R <= m; i += R) window_tile(R, C, in, i, column);
    for (; R > 4 && i + 4 <= m; i += 4) window_tile(4, C, in, i, column);
    for (; R > 2 && i + 2 <= m; i += 2) window_tile(2, C, in, i, column);
    for (; i < m; i++) window_tile(1, C, in, i, column);
}

static void window_run(size_t m, size_t n, const window_operands *in)
{
    size_t j = 0;
    for (; m == 1 && j + GP_WINDOW_WIDE * GP_V <= n; j += GP_WINDOW_WIDE * GP_V)
        window_tile(1, GP_WINDOW_WIDE, in, 0, j);
    while (j < n) {
        size_t vectors = (n - j) / GP_V;
        if (vectors > GP_PANEL) vectors = GP_PANEL;
        switch (vectors) {
        case 4: window_panel(GP_ROWS_4, 4, m, in, j); break;
        case 3: window_panel(GP_ROWS_3, 3, m, in, j); break;
        case 2: window_panel(GP_ROWS_2, 2, m, in, j); break;
        default: window_panel(GP_WINDOW_TALL, 1, m, in, j); break;
        }
        j += vectors * GP_V;
    }
}

static void window_product(size_t m, size_t k, const float *a, size_t a_row, const uint32_t *at,
                           size_t unit, const float *b, const float *bias, float *c, size_t c_row,
                           const gp_runs *runs, int accumulate)
{
    window_operands in = {.k = k,
                          .a = a,
                          .a_row = a_row,
                          .at = at,
                          .unit = unit,
                          .c_row = c_row,
                          .bias = bias,
                          .accumulate = accumulate};
    for (size_t y = 0; y < runs->outer; y++)
        for (size_t x = 0; x < runs->inner; x++) {
            in.b = b + y * runs->from_outer + x * runs->from_inner;
            in.c = c + y * runs->to_outer + x * runs->to_inner;
            window_run(m, runs->n, &in);
        }
}

/* ---- dW = dy x' ------------------------------------------------------------------------------ */

/* Numbers of a tile are folded in groups of GP_GROUP. */
#if GP_V == 16 || defined(GP_ISA_NEON)
enum { GP_DOTS_ROWS = 4, GP_DOTS_4 = 6, GP_DOTS_2 = 8, GP_DOTS_1 = 8 };
#else
enum { GP_DOTS_ROWS = 2, GP_DOTS_4 = 0, GP_DOTS_2 = 4, GP_DOTS_1 = 8 };
#endif
enum { GP_DOTS_MOST = 24 };

typedef struct dots_operands {
    const float *a;
    size_t a_row, k;
    const uint32_t *at;
    size_t unit;
    const float *b;
    float *out;
    size_t out_row;
    const gp_runs *runs;
    int accumulate;
} dots_operands;

/* R rows of a by Q entries of the list, of which `last` are wanted. */
static inline __attribute__((always_inline)) void dots_tile(const size_t R, const size_t Q,
                                                            const dots_operands *in, size_t row,
                                                            size_t first, size_t last)
{
    const gp_runs *runs = in->runs;
    vfloat sum[GP_DOTS_MOST];
    const float *from[8];
#pragma GCC unroll 24
    for (size_t i = 0; i < R * Q; i++) sum[i] = v_splat(0.0f);
    for (size_t q = 0; q < Q; q++) from[q] = in->b + in->at[first + (q < last ? q : 0)] * in->unit;
    for (size_t y = 0; y < runs->outer; y++)
        for (size_t x = 0; x < runs->inner; x++) {
            const float *a = in->a + row * in->a_row + y * runs->to_outer + x * runs->to_inner;
            const size_t shift = y * runs->from_outer + x * runs->from_inner;
            for (size_t j = 0; j < runs->n; j += GP_V) {
                vfloat d[GP_DOTS_ROWS];
#pragma GCC unroll 4
                for (size_t r = 0; r < R; r++) d[r] = v_load(a + r * in->a_row + j);
#pragma GCC unroll 8
                for (size_t q = 0; q < Q; q++) {
                    vfloat v = v_load(from[q] + shift + j);
#pragma GCC unroll 4
                    for (size_t r = 0; r < R; r++) sum[r * Q + q] += d[r] * v;
                }
            }
        }
    float total[GP_DOTS_MOST + GP_V];
#pragma GCC unroll 6
    for (size_t i = 0; i < R * Q; i += GP_GROUP) v_store(total + i, sums_of(sum + i));
    for (size_t r = 0; r < R; r++)
        for (size_t q = 0; q < last; q++) {
            float *out = in->out + (row + r) * in->out_row + first + q;
            *out = in->accumulate ? *out + total[r * Q + q] : total[r * Q + q];
        }
}

static inline __attribute__((always_inline)) void dots_rows(const size_t R, const size_t Q,
                                                            const dots_operands *in, size_t row)
{
    const size_t rest = R == 4 ? 2 : Q; /* of a wide tile little would be wanted */
    size_t q = 0;
    for (; q + Q <= in->k; q += Q) dots_tile(R, Q, in, row, q, Q);
    for (; q < in->k; q += rest)
        dots_tile(R, rest, in, row, q, in->k - q < rest ? in->k - q : rest);
}

static void window_dots(size_t m, size_t k, const float *a, size_t a_row, const uint32_t *at,
                        size_t unit, const float *b, float *out, size_t out_row,
                        const gp_runs *runs, int accumulate)
{
    const dots_operands in = {a, a_row, k, at, unit, b, out, out_row, runs, accumulate};
    size_t r = 0;
#if GP_V == 16 || defined(GP_ISA_NEON)
    for (; r + 4 <= m; r += 4) dots_rows(4, GP_DOTS_4, &in, r);
#endif
    for (; r + 2 <= m; r += 2) dots_rows(2, GP_DOTS_2, &in, r);
    for (; r < m; r++) dots_rows(1, GP_DOTS_1, &in, r);
}

/* ---- pooling --------------------------------------------------------------------------------- */

typedef struct pool_operands {
    size_t channels, n, count;
    const uint32_t *at;
    size_t unit;
    const float *x;
    size_t x_step;
    float *y;
    size_t y_step;
} pool_operands;

/* Few numbers cost less one by one, if parts of vectors cannot be loaded. */
static inline int pool_is_alone(size_t n)
{
#if defined(GP_ISA_AVX512)
    return n == 1;
#else
    return n < GP_V;
#endif
}
static inline __attribute__((always_inline)) float pool_number(const int is_max,
                                                               const pool_operands *in,
                                                               const float *x, float factor)
{
    float found = x[in->at[0] * in->unit];
    for (size_t i = 1; i < in->count; i++) {
        const float next = x[in->at[i] * in->unit];
        if (!is_max) found += next;
        else if (!(found >= next) && found == found) found = next;
    }
    return is_max ? found : found * factor;
}

static inline __attribute__((always_inline)) vfloat pool_vector(const int is_max,
                                                                const size_t stride, size_t n,
                                                                const pool_operands *in,
                                                                const float *x, float factor)
{
    vfloat found = v_load_strided(x + in->at[0] * in->unit, n, stride);
    for (size_t i = 1; i < in->count; i++) {
        vfloat next = v_load_strided(x + in->at[i] * in->unit, n, stride);
        /* a NaN stays, and one that comes is taken */
        if (is_max) found = v_select((found >= next) | (found != found), found, next);
        else found += next;
    }
    return is_max ? found : found * v_splat(factor);
}

/* The stride is a constant at every call, unless it is rare. */
static inline __attribute__((always_inline)) void pool_rows(const int is_max, const size_t stride,
                                                            const pool_operands *in, float factor)
{
    for (size_t c = 0; c < in->channels; c++)
        for (size_t j = 0; j < in->n; j += GP_V) {
            const size_t n = in->n - j < GP_V ? in->n - j : GP_V;
            const float *x = in->x + c * in->x_step + j * stride;
            float *y = in->y + c * in->y_step + j;
            if (pool_is_alone(n)) {
                for (size_t i = 0; i < n; i++)
                    y[i] = pool_number(is_max, in, x + i * stride, factor);
                continue;
            }
            if (n < GP_V) v_store_part(y, pool_vector(is_max, stride, n, in, x, factor), n);
            else v_store(y, pool_vector(is_max, stride, GP_V, in, x, factor));
        }
}

static void pool_max(size_t channels, size_t n, size_t count, const uint32_t *at, size_t unit,
                     size_t stride, const float *x, size_t x_step, float *y, size_t y_step)
{
    const pool_operands in = {channels, n, count, at, unit, x, x_step, y, y_step};
    if (stride == 1) pool_rows(1, 1, &in, 1.0f);
    else if (stride == 2) pool_rows(1, 2, &in, 1.0f);
    else pool_rows(1, stride, &in, 1.0f);
}

static void pool_mean(size_t channels, size_t n, size_t count, const uint32_t *at, size_t unit,
                      size_t stride, const float *x, size_t x_step, float *y, size_t y_step,
                      float factor)
{
    const pool_operands in = {channels, n, count, at, unit, x, x_step, y, y_step};
    if (stride == 1) pool_rows(0, 1, &in, factor);
    else pool_rows(0, stride, &in, factor);
}

static void pool_max_back(size_t channels, size_t lanes, size_t count, const uint32_t *at,
                          const float *x, size_t x_step, const float *y, const float *dy,
                          size_t y_step, float *dx, int accumulate)
{
    for (size_t c = 0; c < channels; c++, x += x_step, dx += x_step, y += y_step, dy += y_step)
        for (size_t p = 0; p < lanes; p += GP_V) {
            const vfloat most = v_load(y + p);
            vfloat left = v_load(dy + p);
            for (size_t i = 0; i < count; i++) {
                const size_t place = at[i] * lanes + p;
                vint here = v_load(x + place) == most;
                vfloat given = v_select(here, left, v_splat(0.0f));
                v_store(dx + place, accumulate ? given + v_load(dx + place) : given);
                left = v_select(here, v_splat(0.0f), left);
            }
        }
}

static void pool_mean_back(size_t channels, size_t lanes, size_t count, const uint32_t *at,
                           const float *dy, size_t y_step, float *dx, size_t x_step, float factor)
{
    for (size_t c = 0; c < channels; c++, dx += x_step, dy += y_step)
        for (size_t p = 0; p < lanes; p += GP_V) {
            const vfloat share = v_load(dy + p) * v_splat(factor);
            for (size_t i = 0; i < count; i++) {
                float *place = dx + at[i] * lanes + p;
                v_store(place, v_load(place) + share);
            }
        }
}

#endif
