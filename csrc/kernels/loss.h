/* loss.h - softmax and the losses, lane by lane: [feature][P] in, one loss a lane out. */
#ifndef GP_LOSS_H
#define GP_LOSS_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/vmath.h"

/* e[o] = exp(z[o] - max) for one vector of lanes, unless e is NULL; e may be z. Returns their sum, writes the max.
 * The max is subtracted so that exp cannot overflow. */
static inline vfloat softmax_vector(size_t o, size_t lanes, const float *z, float *e, vfloat *largest)
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
        for (size_t i = 0; i < o; i++) v_store(y + i * lanes + p, v_load(y + i * lanes + p) * inverse);
    }
}

static void softmax_backward(size_t o, size_t lanes, const float *y, const float *dy, float *dz)
{
    for (size_t p = 0; p < lanes; p += GP_V) {
        vfloat dot = v_splat(0.0f);
        for (size_t i = 0; i < o; i++) dot += v_load(y + i * lanes + p) * v_load(dy + i * lanes + p);
        for (size_t i = 0; i < o; i++)
            v_store(dz + i * lanes + p, v_load(y + i * lanes + p) * (v_load(dy + i * lanes + p) - dot));
    }
}

/* All ones in the lanes below `valid`, zeros after. */
static inline vint valid_lanes(size_t p, size_t valid)
{
    int32_t t[GP_V];
    for (size_t l = 0; l < GP_V; l++) t[l] = p + l < valid ? -1 : 0;
    return (vint)v_load((const float *)(const void *)t);
}

static void cross_entropy(size_t o, size_t lanes, size_t valid, const float *z, const int64_t *label, float *dz,
                          float *loss, uint8_t *hit, float factor)
{
    float top[GP_LANES], total[GP_LANES];
    for (size_t p = 0; p < lanes; p += GP_V) {
        vfloat largest, sum;
        if (dz) {
            sum = softmax_vector(o, lanes, z + p, dz + p, &largest);
            vint real = valid_lanes(p, valid);
            vfloat gain = factor / sum;
            for (size_t i = 0; i < o; i++) {
                float *at = dz + i * lanes + p;
                v_store(at, v_select(real, v_load(at) * gain, v_splat(0.0f)));
            }
        } else {
            sum = softmax_vector(o, lanes, z + p, NULL, &largest);
        }
        v_store(top + p, largest);
        v_store(total + p, sum);
    }
    for (size_t p = 0; p < valid; p++) {
        size_t own = (size_t)label[p], first = 0;
        while (first + 1 < o && !(z[first * lanes + p] >= top[p])) first++;
        hit[p] = first == own;
        loss[p] = top[p] - z[own * lanes + p] + logf(total[p]);
        if (dz) dz[own * lanes + p] -= factor;
    }
}

static void mean_squared_error(size_t o, size_t lanes, size_t valid, const float *z, const float *t, float *dz,
                               float *loss, float factor)
{
    float total[GP_LANES];
    for (size_t p = 0; p < lanes; p += GP_V) {
        vint real = valid_lanes(p, valid);
        vfloat sum = v_splat(0.0f);
        for (size_t i = 0; i < o; i++) {
            vfloat error = v_load(z + i * lanes + p) - v_load(t + i * lanes + p);
            sum += error * error;
            if (dz) v_store(dz + i * lanes + p, v_select(real, error * (2.0f * factor), v_splat(0.0f)));
        }
        v_store(total + p, sum);
    }
    for (size_t p = 0; p < valid; p++) loss[p] = total[p];
}

static void binary_cross_entropy(size_t o, size_t lanes, size_t valid, const float *z, const float *t, float *dz,
                                 float *loss, float factor)
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
