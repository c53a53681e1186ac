/* loss.h - softmax and the losses, lane by lane: [feature][P] in, one loss a lane out. */
#ifndef GP_LOSS_H
#define GP_LOSS_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/vmath.h"

/* e[o] = exp(z[o] - max) for one vector of lanes, unless e is NULL; e may be z. Returns their sum,
 * writes the max. The max is subtracted so that exp cannot overflow. */
static inline vfloat softmax_vector(size_t o, size_t lanes, const float *z, float *e,
                                    vfloat *largest)
{
    vfloat top = v_load(z), total = v_splat(0.0f);
    for (size_t i = 1; i < o; i++) {
        vfloat x = v_load(z + i * lanes);
        top = v_select(x > top, x, top);
    }
    for (size_t i = 0; i < o; i++) {
        vfloat x = v_exp(v_load(z + i * lanes) - top);
        total += x;
        if (e) v_store(e + i * lanes, x);
    }
    *largest = top;
    return total;
}

static void softmax_forward(size_t o, size_t lanes, const float *z, float *y)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        vfloat top, inverse = 1.0f / softmax_vector(o, lanes, z + p, y + p, &top);
        for (size_t i = 0; i < o; i++)
            v_store(y + i * lanes + p, v_load(y + i * lanes + p) * inverse);
    }
}

static void softmax_backward(size_t o, size_t lanes, const float *y, const float *dy, float *dz)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        vfloat dot = v_splat(0.0f);
        for (size_t i = 0; i < o; i++)
            dot += v_load(y + i * lanes + p) * v_load(dy + i * lanes + p);
        for (size_t i = 0; i < o; i++)
            v_store(dz + i * lanes + p,
                    v_load(y + i * lanes + p) * (v_load(dy + i * lanes + p) - dot));
    }
}

/* All ones in the lanes below `valid`, zeros after. */
static inline vint valid_lanes(size_t p, size_t valid)
{
    int32_t t[GP_V];
    for (size_t l = 0; l < GP_V; l++) t[l] = p + l < valid ? -1 : 0;
    return (vint)v_load((const float *)(const void *)t);
}

static void cross_entropy(size_t o, size_t lanes, size_t valid, const float *z,
                          const int64_t *label, float *dz, float *loss, uint32_t *hit,
                          float smoothing, float factor)
{
    const float each = 1.0f / (float)o, even = factor * smoothing * each;
    float top[GP_LANES], total[GP_LANES], spread[GP_LANES];
    for (size_t p = 0; p < lanes; p += GP_V) {
        vfloat largest, sum, distance = v_splat(0.0f);
        if (dz) {
            sum = softmax_vector(o, lanes, z + p, dz + p, &largest);
            vint real = valid_lanes(p, valid);
            vfloat gain = factor / sum;
            for (size_t i = 0; i < o; i++) {
                float *at = dz + i * lanes + p;
                v_store(at, v_select(real, v_load(at) * gain - even, v_splat(0.0f)));
            }
        } else {
            sum = softmax_vector(o, lanes, z + p, NULL, &largest);
        }
        for (size_t i = 0; smoothing > 0.0f && i < o; i++)
            distance += (largest - v_load(z + i * lanes + p)) * each;
        v_store(top + p, largest);
        v_store(total + p, sum);
        v_store(spread + p, distance);
    }
    for (size_t p = 0; p < valid; p++) {
        size_t own = (size_t)label[p], first = 0;
        while (first + 1 < o && !(z[first * lanes + p] >= top[p])) first++;
        hit[p] = first == own;
        loss[p] = (1.0f - smoothing) * (top[p] - z[own * lanes + p]) + smoothing * spread[p] +
                  logf(total[p]);
        if (dz) dz[own * lanes + p] -= factor * (1.0f - smoothing);
    }
}

/* exp(d) - 1 - d for |d| < 1/4, where the plain form cancels */
static inline vfloat exp_beyond_linear(vfloat d)
{
    vfloat p = d * (1.0f / 5040.0f) + 1.0f / 720.0f;
    p = p * d + 1.0f / 120.0f;
    p = p * d + 1.0f / 24.0f;
    p = p * d + 1.0f / 6.0f;
    p = p * d + 0.5f;
    return p * (d * d);
}

/* With y = softmax(z/T), q = softmax(t/T) and d = log(y/q), KL = sum y - q - q d: terms that are
 * never negative, and small where d is, so that T^2 times their sum is right for a T so high that y
 * and q are nearly the same. */
static void distillation(size_t o, size_t lanes, size_t valid, const float *z, const float *t,
                         float *dz, float *loss, float temperature, float alpha, float factor)
{
    const float cold = 1.0f / temperature, hard = 1.0f - alpha,
                slope = alpha * temperature * factor;
    float divergence[GP_LANES];
    for (size_t p = 0; p < lanes; p += GP_V) {
        const vint real = valid_lanes(p, valid);
        vfloat z_top = v_load(z + p), t_top = v_load(t + p), kl = v_splat(0.0f);
        for (size_t i = 1; i < o; i++) {
            vfloat x = v_load(z + i * lanes + p), y = v_load(t + i * lanes + p);
            z_top = v_select(x > z_top, x, z_top);
            t_top = v_select(y > t_top, y, t_top);
        }
        vfloat z_sum = v_splat(0.0f), t_sum = v_splat(0.0f);
        for (size_t i = 0; i < o; i++) {
            z_sum += v_exp((v_load(z + i * lanes + p) - z_top) * cold);
            t_sum += v_exp((v_load(t + i * lanes + p) - t_top) * cold);
        }
        const vfloat shift = v_log(t_sum) - v_log(z_sum), z_gain = 1.0f / z_sum,
                     t_gain = 1.0f / t_sum;
        for (size_t i = 0; i < o; i++) {
            vfloat a = (v_load(z + i * lanes + p) - z_top) * cold,
                   b = (v_load(t + i * lanes + p) - t_top) * cold;
            vfloat y = v_exp(a) * z_gain, q = v_exp(b) * t_gain, d = a - b + shift;
            vfloat apart = y - q - v_select(q > 0.0f, q * d, v_splat(0.0f)); /* 0 log 0 = 0 */
            kl += v_select(v_abs(d) < 0.25f, q * exp_beyond_linear(d), apart);
            float *at = dz ? dz + i * lanes + p : NULL;
            if (at) v_store(at, v_select(real, v_load(at) + (y - q) * slope, v_splat(0.0f)));
        }
        v_store(divergence + p, kl);
    }
    for (size_t p = 0; p < valid; p++) { /* 0 times infinity is no loss */
        float soft = alpha > 0.0f ? alpha * temperature * temperature * divergence[p] : 0.0f;
        loss[p] = soft + (hard > 0.0f ? hard * loss[p] : 0.0f);
    }
}

static void mean_squared_error(size_t o, size_t lanes, size_t valid, const float *z, const float *t,
                               float *dz, float *loss, float factor)
{
    float total[GP_LANES];
    for (size_t p = 0; p < lanes; p += GP_V) {
        vint real = valid_lanes(p, valid);
        vfloat sum = v_splat(0.0f);
        for (size_t i = 0; i < o; i++) {
            vfloat error = v_load(z + i * lanes + p) - v_load(t + i * lanes + p);
            sum += error * error;
            if (dz)
                v_store(dz + i * lanes + p, v_select(real, error * (2.0f * factor), v_splat(0.0f)));
        }
        v_store(total + p, sum);
    }
    for (size_t p = 0; p < valid; p++) loss[p] = total[p];
}

static void binary_cross_entropy(size_t o, size_t lanes, size_t valid, const float *z,
                                 const float *t, float *dz, float *loss, float factor)
{
    for (size_t p = 0; p < valid; p++) {
        float sum = 0.0f;
        for (size_t i = 0; i < o; i++) {
            float x = z[i * lanes + p];
            sum += (x > 0.0f ? x : 0.0f * x) - x * t[i * lanes + p] + log1pf(expf(-fabsf(x)));
        }
        loss[p] = sum;
    }
    for (size_t p = 0; dz && p < lanes; p += GP_V) {
        vint real = valid_lanes(p, valid);
        for (size_t i = 0; i < o; i++) {
            vfloat error = v_sigmoid(v_load(z + i * lanes + p)) - v_load(t + i * lanes + p);
            v_store(dz + i * lanes + p, v_select(real, error * factor, v_splat(0.0f)));
        }
    }
}

#endif
