/* cells.h - one time step of a recurrent cell, elementwise over units and lanes: everything but the
 * products. Lanes come in multiples of 16, so there is no rest to a vector.
 */
#ifndef GP_CELLS_H
#define GP_CELLS_H

#include <math.h>

#include "kernels/elementwise.h"

static void lstm_forward(size_t n, float *gate_i, float *gate_f, float *gate_g, float *gate_o,
                         const float *c_before, float *c, float *h)
{
    for (size_t i = 0; i < n; i += GP_V) {
        vfloat input = v_sigmoid(v_load(gate_i + i)), forget = v_sigmoid(v_load(gate_f + i));
        vfloat cell = v_tanh(v_load(gate_g + i)), out = v_sigmoid(v_load(gate_o + i));
        vfloat now = input * cell;
        if (c_before) now += forget * v_load(c_before + i);
        v_store(gate_i + i, input);
        v_store(gate_f + i, forget);
        v_store(gate_g + i, cell);
        v_store(gate_o + i, out);
        v_store(c + i, now);
        v_store(h + i, out * v_tanh(now));
    }
}

static void lstm_backward(size_t n, float *gate_i, float *gate_f, float *gate_g, float *gate_o,
                          const float *c_before, const float *c, const float *dy, const float *dh,
                          float *dc)
{
    const vfloat one = v_splat(1.0f);
    for (size_t i = 0; i < n; i += GP_V) {
        vfloat input = v_load(gate_i + i), forget = v_load(gate_f + i), cell = v_load(gate_g + i),
               out = v_load(gate_o + i);
        vfloat state = v_tanh(v_load(c + i)), back = v_load(dh + i);
        if (dy) back += v_load(dy + i);
        vfloat dstate = v_load(dc + i) + back * out * (one - state * state);
        v_store(gate_i + i, dstate * cell * input * (one - input));
        v_store(gate_f + i,
                c_before ? dstate * v_load(c_before + i) * forget * (one - forget) : v_splat(0.0f));
        v_store(gate_g + i, dstate * input * (one - cell * cell));
        v_store(gate_o + i, back * state * out * (one - out));
        v_store(dc + i, dstate * forget);
    }
}

static void gru_forward(size_t n, float *gate_r, float *gate_z, float *gate_n, const float *q,
                        const float *h_before, float *h)
{
    for (size_t i = 0; i < n; i += GP_V) {
        vfloat reset = v_sigmoid(v_load(gate_r + i)), update = v_sigmoid(v_load(gate_z + i));
        vfloat new = v_tanh(v_load(gate_n + i) + reset * v_load(q + i));
        vfloat now = (1.0f - update) * new;
        if (h_before) now += update * v_load(h_before + i);
        v_store(gate_r + i, reset);
        v_store(gate_z + i, update);
        v_store(gate_n + i, new);
        v_store(h + i, now);
    }
}

static void gru_backward(size_t n, float *gate_r, float *gate_z, float *gate_n, float *q,
                         float *r_too, float *z_too, const float *h_before, const float *dy,
                         float *dh)
{
    const vfloat one = v_splat(1.0f);
    for (size_t i = 0; i < n; i += GP_V) {
        vfloat reset = v_load(gate_r + i), update = v_load(gate_z + i), new = v_load(gate_n + i),
               back = v_load(dh + i);
        if (dy) back += v_load(dy + i);
        vfloat before = h_before ? v_load(h_before + i) : v_splat(0.0f);
        vfloat dnew = back * (one - update) * (one - new *new);
        vfloat dupdate = back * (before - new) * update * (one - update);
        vfloat dreset = dnew * v_load(q + i) * reset * (one - reset);
        v_store(gate_r + i, dreset);
        v_store(r_too + i, dreset);
        v_store(gate_z + i, dupdate);
        v_store(z_too + i, dupdate);
        v_store(gate_n + i, dnew);
        v_store(q + i, dnew * reset);
        v_store(dh + i, back * update);
    }
}

static inline __attribute__((always_inline)) void rnn_backward_all(gp_activation f, size_t n,
                                                                   const float *h, const float *dy,
                                                                   const float *dh, float *dz)
{
    for (size_t i = 0; i < n; i += GP_V) {
        vfloat y = v_load(h + i), back = v_load(dh + i);
        if (dy) back += v_load(dy + i);
        v_store(dz + i, back * slope_of(f, y, y, 0.0f));
    }
}

static void rnn_backward(size_t n, const float *h, const float *dy, const float *dh, float *dz,
                         gp_activation f)
{
    if (f == GP_RELU) rnn_backward_all(GP_RELU, n, h, dy, dh, dz);
    else rnn_backward_all(GP_TANH, n, h, dy, dh, dz);
}

/* A smaller gradient has lost its digits, or soon will; the ratio says nothing then. */
#define GP_VANISHED 1e-30

static void omega_terms(size_t units, size_t lanes, size_t valid, const float *dz,
                        const float *back, const float *h, gp_activation f, double weight, float *x,
                        float *term)
{
    double norm[GP_LANES] = {0.0}, norm_before[GP_LANES] = {0.0}, factor[GP_LANES] = {0.0};
    for (size_t u = 0; u < units; u++)
        for (size_t p = 0; p < lanes; p++) {
            float y = h[u * lanes + p],
                  slope = f == GP_RELU ? (y > 0.0f ? 1.0f : 0.0f) : 1.0f - y * y;
            double d = (double)dz[u * lanes + p], v = (double)back[u * lanes + p] * (double)slope;
            norm[p] += d * d;
            norm_before[p] += v * v;
        }
    for (size_t p = 0; p < lanes; p++) {
        term[p] = 0.0f;
        if (p >= valid || !(norm[p] > GP_VANISHED * GP_VANISHED)) continue;
        double ratio = sqrt(norm_before[p] / norm[p]);
        term[p] = (float)((ratio - 1.0) * (ratio - 1.0));
        if (norm_before[p] > 0.0)
            factor[p] = weight * 2.0 * (ratio - 1.0) / sqrt(norm[p] * norm_before[p]);
    }
    for (size_t u = 0; u < units; u++)
        for (size_t p = 0; p < lanes; p++) {
            float y = h[u * lanes + p],
                  slope = f == GP_RELU ? (y > 0.0f ? 1.0f : 0.0f) : 1.0f - y * y;
            x[u * lanes + p] = (float)((double)y + factor[p] * (double)back[u * lanes + p] *
                                                       (double)(slope * slope));
        }
}

#endif
