/* normalize.h - normalization of channels over a batch, and of a sample over its features.
 *
 * A channel is rows of lanes, of which the first `valid` hold samples. Sums are of distances from a
 * number that lies among the x, in double: a mean that is large beside the deviation costs no
 * places. Products are rounded before they are added to, so that a number is normalized to the same
 * bits by every instruction set and outside of it.
 */
#ifndef GP_NORMALIZE_KERNELS_H
#define GP_NORMALIZE_KERNELS_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Two running sums each hide the latency of the addition. */
static void shifted_sums(size_t rows, size_t lanes, size_t valid, const float *x, float shift,
                         double sums[2])
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
            const vdouble d =
                (vdouble)((vlong)(v_load_wide(x + whole + u * GP_H) - from) & kept[u]);
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

static void normalize(size_t rows, size_t lanes, size_t valid, const float *x, float shift,
                      float scale, float offset, float *y)
{
    GP_OVER_LANES(v_rounded((v_load(x + i) - shift) * scale) + offset, y)
}

static void normalize_backward(size_t rows, size_t lanes, size_t valid, const float *x,
                               const float *dy, float shift, float dy_scale, float x_scale,
                               float offset, float *dx)
{
    GP_OVER_LANES(v_load(dy + i) * dy_scale + (v_load(x + i) - shift) * x_scale + offset, dx)
}

#undef GP_OVER_LANES

/* ---- lane by lane ---------------------------------------------------------------------------- */

/* Both halves of a vector of floats, as vectors of doubles. */
typedef struct wide {
    vdouble half[2];
} wide;

static inline void wide_store(wide x, float *out)
{
    for (size_t u = 0; u < 2; u++)
        *(vhalf_any *)(out + u * GP_H) = __builtin_convertvector(x.half[u], vhalf);
}

/* As v_rounded. */
static inline vdouble wide_rounded(vdouble product) { return (vdouble)v_rounded((vfloat)product); }

static void lane_statistics(size_t features, size_t stride, size_t lanes, const float *x, float eps,
                            float *mean, float *inverse)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        wide from, sum = {{{0}, {0}}}, square = {{{0}, {0}}};
#pragma GCC unroll 2
        for (size_t u = 0; u < 2; u++) from.half[u] = v_load_wide(x + p + u * GP_H);
        for (size_t f = 0; f < features; f++)
#pragma GCC unroll 2
            for (size_t u = 0; u < 2; u++) {
                const vdouble d = v_load_wide(x + f * stride + p + u * GP_H) - from.half[u];
                sum.half[u] += d;
                square.half[u] += wide_rounded(d * d);
            }
        for (size_t u = 0; u < 2; u++) {
            const vdouble away = sum.half[u] / (double)features;
            vdouble variance = square.half[u] / (double)features - wide_rounded(away * away);
            for (size_t l = 0; l < GP_H; l++) /* not below 0 but for rounding; a NaN stays */
                variance[l] = 1.0 / sqrt((variance[l] < 0.0 ? 0.0 : variance[l]) + (double)eps);
            from.half[u] += away;
            square.half[u] = variance;
        }
        wide_store(from, mean + p);
        wide_store(square, inverse + p);
    }
}

static void lane_normalize(size_t features, size_t stride, size_t lanes, const float *x,
                           const float *mean, const float *inverse, const float *gamma,
                           const float *beta, float *y)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        const vfloat from = v_load(mean + p), scale = v_load(inverse + p);
        for (size_t f = 0; f < features; f++) {
            const size_t i = f * stride + p;
            v_store(y + i, v_rounded((v_load(x + i) - from) * scale * gamma[f]) + beta[f]);
        }
    }
}

static void lane_normalize_backward(size_t features, size_t stride, size_t lanes, const float *x,
                                    const float *mean, const float *inverse, const float *gamma,
                                    const float *dy, float *dx)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        const vfloat from = v_load(mean + p), scale = v_load(inverse + p);
        vdouble sum[2] = {{0}, {0}}, product[2] = {{0}, {0}};
        float g[GP_V], h[GP_V], means[2][GP_V];
        for (size_t f = 0; f < features; f++) {
            const size_t i = f * stride + p;
            v_store(g, v_load(dy + i) * gamma[f]);
            v_store(h, (v_load(x + i) - from) * scale);
#pragma GCC unroll 2
            for (size_t u = 0; u < 2; u++) {
                const vdouble wide_g = v_load_wide(g + u * GP_H);
                sum[u] += wide_g;
                product[u] += wide_g * v_load_wide(h + u * GP_H);
            }
        }
        wide_store((wide){{sum[0] / (double)features, sum[1] / (double)features}}, means[0]);
        wide_store((wide){{product[0] / (double)features, product[1] / (double)features}},
                   means[1]);
        const vfloat mean_g = v_load(means[0]), mean_gh = v_load(means[1]);
        for (size_t f = 0; f < features; f++) {
            const size_t i = f * stride + p;
            const vfloat normal = (v_load(x + i) - from) * scale;
            v_store(dx + i, scale * (v_load(dy + i) * gamma[f] - mean_g - normal * mean_gh));
        }
    }
}

static void lane_normalize_sums(size_t features, size_t lanes, const float *x, const float *mean,
                                const float *inverse, const float *dy, float *dgamma, float *dbeta,
                                int accumulate)
{
    for (size_t f = 0; f < features; f++, x += lanes, dy += lanes) {
        vfloat sum = v_splat(0.0f), product = v_splat(0.0f);
        for (size_t p = 0; p < lanes; p += GP_V) {
            const vfloat d = v_load(dy + p);
            sum += d;
            product += d * ((v_load(x + p) - v_load(mean + p)) * v_load(inverse + p));
        }
        float totals[2] = {0.0f, 0.0f};
        for (size_t l = 0; l < GP_V; l++) {
            totals[0] += sum[l];
            totals[1] += product[l];
        }
        dbeta[f] = accumulate ? dbeta[f] + totals[0] : totals[0];
        dgamma[f] = accumulate ? dgamma[f] + totals[1] : totals[1];
    }
}

#endif
