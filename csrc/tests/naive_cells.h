/* naive_cells.h - activations and one unit's step of a recurrent cell, in double. */
#ifndef GP_NAIVE_CELLS_H
#define GP_NAIVE_CELLS_H

#include <math.h>

#include "gradprune.h"

/* ---- activations ----------------------------------------------------------------------------- */

static inline double naive_normal_cdf(double z) { return 0.5 * erfc(-z * 0.70710678118654752440); }
static inline double naive_sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }
static inline double naive_relu6(double z) { return z < 0.0 ? 0.0 : (z > 6.0 ? 6.0 : z); }

static inline double naive_activation(gp_activation f, double z, double slope)
{
    switch (f) {
    case GP_RELU: return z < 0.0 ? 0.0 : z;
    case GP_LEAKY_RELU: return z < 0.0 ? slope * z : z;
    case GP_TANH: return tanh(z);
    case GP_SIGMOID: return naive_sigmoid(z);
    case GP_GELU: return z * naive_normal_cdf(z);
    case GP_SILU: return z * naive_sigmoid(z);
    case GP_ELU: return z > 0.0 ? z : slope * expm1(z);
    case GP_HARDSWISH: return z * naive_relu6(z + 3.0) / 6.0;
    case GP_RELU6: return naive_relu6(z);
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return z;
}

static inline double naive_derivative(gp_activation f, double z, double slope)
{
    double y = naive_activation(f, z, slope);
    switch (f) {
    case GP_RELU: return z > 0.0 ? 1.0 : 0.0;
    case GP_LEAKY_RELU: return z > 0.0 ? 1.0 : slope;
    case GP_TANH: return 1.0 - y * y;
    case GP_SIGMOID: return y * naive_sigmoid(-z);
    case GP_GELU: return naive_normal_cdf(z) + z * exp(-0.5 * z * z) * 0.39894228040143267794;
    case GP_SILU: return naive_sigmoid(z) * (1.0 + z * naive_sigmoid(-z));
    case GP_ELU: return z > 0.0 ? 1.0 : slope * exp(z);
    case GP_HARDSWISH: return z <= -3.0 ? 0.0 : (z < 3.0 ? z / 3.0 + 0.5 : 1.0);
    case GP_RELU6: return z > 0.0 && z < 6.0 ? 1.0 : 0.0;
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return 1.0;
}

/* ---- cells ----------------------------------------------------------------------------------- */

/* z are a unit's gates before their activation, then after it; then their gradients before it. */

static inline void naive_lstm(double z[4], double c_before, double *c, double *h)
{
    for (int g = 0; g < 4; g++) z[g] = g == 2 ? tanh(z[g]) : naive_sigmoid(z[g]);
    *c = z[1] * c_before + z[0] * z[2];
    *h = z[3] * tanh(*c);
}

/* dc is what came from the step after, then what goes to the one before. */
static inline void naive_lstm_backward(double z[4], double c_before, double c, double dh,
                                       double *dc)
{
    const double i = z[0], f = z[1], g = z[2], o = z[3], y = tanh(c),
                 dstate = *dc + dh * o * (1.0 - y * y);
    z[0] = dstate * g * i * (1.0 - i);
    z[1] = dstate * c_before * f * (1.0 - f);
    z[2] = dstate * i * (1.0 - g * g);
    z[3] = dh * y * o * (1.0 - o);
    *dc = dstate * f;
}

static inline void naive_gru(double z[3], double q, double h_before, double *h)
{
    z[0] = naive_sigmoid(z[0]);
    z[1] = naive_sigmoid(z[1]);
    z[2] = tanh(z[2] + z[0] * q);
    *h = (1.0 - z[1]) * z[2] + z[1] * h_before;
}

/* Returns the gradient of q; straight is what goes to h_before without W_hh. */
static inline double naive_gru_backward(double z[3], double q, double h_before, double dh,
                                        double *straight)
{
    const double r = z[0], u = z[1], n = z[2], dn = dh * (1.0 - u) * (1.0 - n * n);
    z[0] = dn * q * r * (1.0 - r);
    z[1] = dh * (h_before - n) * u * (1.0 - u);
    z[2] = dn;
    *straight = dh * u;
    return dn * r;
}

#endif
