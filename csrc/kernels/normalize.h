/* normalize.h - sums of a channel and its normalization.
 *
 * A channel is rows of lanes, of which the first `valid` hold samples. Sums are of distances from a number that lies
 * among the x, in double: a mean that is large beside the deviation costs no places. Products are rounded before they are
 * added to, so that a number is normalized to the same bits by every instruction set and outside of it.
 */
#ifndef GP_NORMALIZE_KERNELS_H
#define GP_NORMALIZE_KERNELS_H

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Two running sums each hide the latency of the addition. */
static void shifted_sums(size_t rows, size_t lanes, size_t valid, const float *x, float shift, double sums[2])
{
    const vdouble from = (vdouble){0} + (double)shift;
    vdouble sum[2] = {{0}, {0}}, square[2] = {{0}, {0}};
    if (valid == lanes) { /* one long row */
        valid *= rows;
        rows = valid > 0;
    }
    const size_t whole = valid - valid % GP_V;
    vlong kept[2]; /* of the vector that is cut */
    for (size_t l = 0; l < GP_V; l++) kept[l / GP_H][l % GP_H] = whole + l < valid ? -1 : 0;
    for (size_t r = 0; r < rows; r++, x += lanes) {
        for (size_t i = 0; i < whole; i += GP_V)
#pragma GCC unroll 2
            for (size_t u = 0; u < 2; u++) {
                const vdouble d = v_load_wide(x + i + u * GP_H) - from;
                sum[u] += d;
                square[u] += d * d;
            }
        for (size_t u = 0; whole < valid && u < 2; u++) {
            const vdouble d = (vdouble)((vlong)(v_load_wide(x + whole + u * GP_H) - from) & kept[u]);
            sum[u] += d;
            square[u] += d * d;
        }
    }
    sums[0] += v_sum_wide(sum[0] + sum[1]);
    sums[1] += v_sum_wide(square[0] + square[1]);
}

static void normalize_sums(size_t n, const float *dy, const float *x, float shift, double sums[2])
{
    const vdouble from = (vdouble){0} + (double)shift;
    vdouble sum[2] = {{0}, {0}}, product[2] = {{0}, {0}};
    for (size_t i = 0; i < n; i += GP_V)
#pragma GCC unroll 2
        for (size_t u = 0; u < 2; u++) {
            const vdouble d = v_load_wide(dy + i + u * GP_H);
            sum[u] += d;
            product[u] += d * (v_load_wide(x + i + u * GP_H) - from);
        }
    sums[0] += v_sum_wide(sum[0] + sum[1]);
    sums[1] += v_sum_wide(product[0] + product[1]);
}

/* All ones in lanes p + l < valid. */
static inline vint lanes_below(size_t valid, size_t p)
{
    vint kept;
    for (size_t l = 0; l < GP_V; l++) kept[l] = p + l < valid ? -1 : 0;
    return kept;
}

/* Both kernels: `value` of the vector at i, and 0 in lanes from valid on. */
#define GP_OVER_LANES(value, out) \
    if (valid == lanes) \
        for (size_t i = 0; i < rows * lanes; i += GP_V) v_store((out) + i, value); \
    else { \
        const vint edge = lanes_below(valid, valid - valid % GP_V); \
        for (size_t r = 0; r < rows; r++) \
            for (size_t p = 0; p < lanes; p += GP_V) { \
                const size_t i = r * lanes + p; \
                vfloat found = p < valid ? value : v_splat(0.0f); \
                if (p < valid && p + GP_V > valid) found = v_select(edge, found, v_splat(0.0f)); \
                v_store((out) + i, found); \
            } \
    }

static void normalize(size_t rows, size_t lanes, size_t valid, const float *x, float shift, float scale, float offset,
                      float *y)
{
    GP_OVER_LANES(v_rounded((v_load(x + i) - shift) * scale) + offset, y)
}

static void normalize_backward(size_t rows, size_t lanes, size_t valid, const float *x, const float *dy, float shift,
                               float dy_scale, float x_scale, float offset, float *dx)
{
    GP_OVER_LANES(v_load(dy + i) * dy_scale + (v_load(x + i) - shift) * x_scale + offset, dx)
}

#undef GP_OVER_LANES
#endif
