/* naive.h - the core once more, as plainly as it can be said: in double, one number after the other.
 *
 * This is the specification the tests compare with; nothing here is clever, and nothing is shared with the core but
 * its types. The network runs sample by sample over a parameter array in double, so finite differences can check it
 * (test_net.c does).
 */
#ifndef GP_NAIVE_H
#define GP_NAIVE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

/* ---- activations --------------------------------------------------------------------------------------------------- */

static inline double naive_normal_cdf(double z) { return 0.5 * erfc(-z * 0.70710678118654752440); }
static inline double naive_sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }

static inline double naive_activation(gp_activation f, double z, double slope)
{
    switch (f) {
    case GP_RELU: return z < 0.0 ? 0.0 : z;
    case GP_LEAKY_RELU: return z < 0.0 ? slope * z : z;
    case GP_TANH: return tanh(z);
    case GP_SIGMOID: return naive_sigmoid(z);
    case GP_GELU: return z * naive_normal_cdf(z);
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
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return 1.0;
}

/* ---- softmax and losses of one sample; z[i * stride] is feature i ----------------------------------------------- */

static inline double naive_logsumexp(size_t o, const double *z)
{
    double top = z[0], sum = 0.0;
    for (size_t i = 1; i < o; i++) top = fmax(top, z[i]);
    for (size_t i = 0; i < o; i++) sum += exp(z[i] - top);
    return top + log(sum);
}

static inline void naive_softmax(size_t o, const double *z, double *y)
{
    double total = naive_logsumexp(o, z);
    for (size_t i = 0; i < o; i++) y[i] = exp(z[i] - total);
}

/* Loss of one sample, not divided by anything; dz = its gradient. t or label by kind. */
static inline double naive_loss(gp_loss kind, size_t o, const double *z, int64_t label, const float *t, double *dz)
{
    double loss = 0.0, total = kind == GP_CROSS_ENTROPY ? naive_logsumexp(o, z) : 0.0;
    for (size_t i = 0; i < o; i++) {
        switch (kind) {
        case GP_CROSS_ENTROPY:
            dz[i] = exp(z[i] - total) - (i == (size_t)label ? 1.0 : 0.0);
            if (i == (size_t)label) loss = total - z[i];
            break;
        case GP_MSE:
            dz[i] = 2.0 * (z[i] - (double)t[i]);
            loss += (z[i] - (double)t[i]) * (z[i] - (double)t[i]);
            break;
        case GP_BCE:
            dz[i] = naive_sigmoid(z[i]) - (double)t[i];
            loss += fmax(z[i], 0.0) - z[i] * (double)t[i] + log1p(exp(-fabs(z[i])));
            break;
        case GP_LOSSES: break;
        }
    }
    return loss;
}

/* ---- one number of an optimizer step ------------------------------------------------------------------------------- */

typedef struct naive_state {
    double w, m[GP_MAX_MOMENTS];
} naive_state;

/* torch's formulas, g being clipped already. */
static inline naive_state naive_step(const gp_rule *r, naive_state s, double g)
{
    double t = (double)r->step, move = 0.0;
    if (r->decoupled) s.w *= 1.0 - r->lr * r->weight_decay;
    else g += r->weight_decay * s.w;
    switch (r->kind) {
    case GP_SGD:
        if (r->momentum == 0.0) {
            move = g;
            break;
        }
        s.m[0] = r->step == 1 ? g : r->momentum * s.m[0] + (1.0 - r->dampening) * g;
        move = r->nesterov ? g + r->momentum * s.m[0] : s.m[0];
        break;
    case GP_ADAM:
        s.m[0] = r->beta1 * s.m[0] + (1.0 - r->beta1) * g;
        s.m[1] = r->beta2 * s.m[1] + (1.0 - r->beta2) * g * g;
        move = s.m[0] / (1.0 - pow(r->beta1, t)) / (sqrt(s.m[1] / (1.0 - pow(r->beta2, t))) + r->eps);
        break;
    case GP_RMSPROP:
        s.m[0] = r->beta2 * s.m[0] + (1.0 - r->beta2) * g * g;
        move = g / (sqrt(s.m[0]) + r->eps);
        if (r->momentum != 0.0) move = s.m[1] = r->momentum * s.m[1] + move;
        break;
    case GP_RULES: break;
    }
    s.w -= r->lr * move;
    return s;
}

/* ---- norms --------------------------------------------------------------------------------------------------------- */

/* Through logarithms: no overflow, and not the way the core goes. */
static inline double naive_norm(size_t n, const float *x, double p)
{
    double top = 0.0, sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != x[i]) return NAN;
        top = fmax(top, fabs((double)x[i]));
    }
    if (isinf(p) || isinf(top) || top == 0.0) return top;
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0.0f) sum += exp(p * (log(fabs((double)x[i])) - log(top)));
    return top * exp(log(sum) / p);
}

/* ---- the network --------------------------------------------------------------------------------------------------- */

enum { NAIVE_LAYERS = 8, NAIVE_WIDTH = 256 };

typedef struct naive_sample { /* one sample on its way: x[l] enters layer l, r[l] are a dropout layer's multipliers */
    double x[NAIVE_LAYERS + 1][NAIVE_WIDTH], r[NAIVE_LAYERS][NAIVE_WIDTH];
} naive_sample;

typedef struct naive_net {
    size_t n_layers;
    const gp_layer_spec *layers;
    size_t n, n_prunable;
    const double *params;
    const uint8_t *mask; /* or NULL */
    int training;
    uint64_t seed, step; /* of dropout */
} naive_net;

static inline double naive_weight(const naive_net *net, size_t at)
{
    return at < net->n_prunable && net->mask && !net->mask[at] ? 0.0 : net->params[at];
}

static inline double naive_multiplier(const naive_net *net, size_t layer, uint64_t element)
{
    uint32_t words[4];
    double rate = (double)net->layers[layer].rate;
    if (!net->training) return 1.0;
    gp_philox(net->seed, net->step << 16 | layer, element / 4, words);
    return (double)(words[element % 4] >> 8) * 0x1p-24 >= rate ? 1.0 / (1.0 - rate) : 0.0;
}

static inline void naive_forward_layer(const naive_net *net, size_t l, uint64_t sample, naive_sample *s)
{
    const gp_layer_spec *spec = &net->layers[l];
    const double *x = s->x[l];
    double *y = s->x[l + 1];
    switch (spec->type) {
    case GP_LAYER_DENSE:
        for (size_t o = 0; o < spec->out; o++) {
            y[o] = spec->bias == GP_NONE ? 0.0 : net->params[spec->bias + o];
            for (size_t i = 0; i < spec->in; i++) y[o] += naive_weight(net, spec->weight + o * spec->in + i) * x[i];
        }
        break;
    case GP_LAYER_ACTIVATION:
        for (size_t i = 0; i < spec->in; i++) y[i] = naive_activation(spec->activation, x[i], (double)spec->slope);
        break;
    case GP_LAYER_SOFTMAX: naive_softmax(spec->in, x, y); break;
    case GP_LAYER_DROPOUT:
        for (size_t i = 0; i < spec->in; i++) {
            s->r[l][i] = naive_multiplier(net, l, sample * spec->in + i);
            y[i] = x[i] * s->r[l][i];
        }
        break;
    case GP_LAYER_TYPES: break;
    }
}

/* dy becomes dx; gradients add up. */
static inline void naive_backward_layer(const naive_net *net, size_t l, const naive_sample *s, double *dy,
                                        double *grads)
{
    const gp_layer_spec *spec = &net->layers[l];
    const double *x = s->x[l], *y = s->x[l + 1];
    double dx[NAIVE_WIDTH] = {0}, dot = 0.0;
    for (size_t o = 0; o < spec->out; o++) dot += y[o] * dy[o];
    for (size_t o = 0; o < spec->out; o++) {
        switch (spec->type) {
        case GP_LAYER_DENSE:
            if (spec->bias != GP_NONE) grads[spec->bias + o] += dy[o];
            for (size_t i = 0, at = spec->weight + o * spec->in; i < spec->in; i++, at++) {
                if (!net->mask || net->mask[at]) grads[at] += dy[o] * x[i];
                dx[i] += naive_weight(net, at) * dy[o];
            }
            break;
        case GP_LAYER_ACTIVATION: dx[o] = dy[o] * naive_derivative(spec->activation, x[o], (double)spec->slope); break;
        case GP_LAYER_SOFTMAX: dx[o] = y[o] * (dy[o] - dot); break;
        case GP_LAYER_DROPOUT: dx[o] = dy[o] * s->r[l][o]; break;
        case GP_LAYER_TYPES: break;
        }
    }
    memcpy(dy, dx, spec->in * sizeof *dy);
}

static inline double naive_sign(double w) { return (w > 0.0) - (w < 0.0); }

static inline double naive_penalty(const naive_net *net, double *grads)
{
    double penalty = 0.0;
    for (size_t l = 0; l < net->n_layers; l++) {
        const gp_layer_spec *spec = &net->layers[l];
        if (spec->type != GP_LAYER_DENSE) continue;
        double l1 = (double)spec->l1, l2 = (double)spec->l2;
        for (size_t at = spec->weight; at < spec->weight + spec->in * spec->out; at++) {
            double w = naive_weight(net, at);
            penalty += l1 * fabs(w) + l2 * w * w;
            if (grads) grads[at] += l1 * naive_sign(w) + 2.0 * l2 * w;
        }
    }
    return penalty;
}

/* Is the last layer part of the loss? */
static inline int naive_is_fused(const naive_net *net, gp_loss loss)
{
    const gp_layer_spec *last = &net->layers[net->n_layers - 1];
    return (loss == GP_CROSS_ENTROPY && last->type == GP_LAYER_SOFTMAX) ||
           (loss == GP_BCE && last->type == GP_LAYER_ACTIVATION && last->activation == GP_SIGMOID);
}

static inline void naive_load(const naive_net *net, const gp_batch *batch, size_t sample, naive_sample *s)
{
    size_t row = batch->index ? (size_t)batch->index[sample] : sample, in = net->layers[0].in;
    for (size_t i = 0; i < in; i++) s->x[0][i] = (double)batch->x[row * in + i];
}

/* Mean loss and, unless NULL, its gradient (n) and the outputs of the whole network (B, O). */
static inline double naive_run(const naive_net *net, const gp_batch *batch, double *grads, double *out)
{
    naive_sample *s = calloc(1, sizeof *s);
    double loss = 0.0, dz[NAIVE_WIDTH];
    size_t L = net->n_layers, O = net->layers[L - 1].out, live = L - (naive_is_fused(net, batch->loss) ? 1 : 0);
    double share = 1.0 / (double)batch->size / (batch->loss == GP_CROSS_ENTROPY ? 1.0 : (double)O);
    if (!s) abort();
    if (grads) memset(grads, 0, net->n * sizeof *grads);
    for (size_t b = 0; b < batch->size; b++) {
        size_t row = batch->index ? (size_t)batch->index[b] : b;
        naive_load(net, batch, b, s);
        for (size_t l = 0; l < L; l++) naive_forward_layer(net, l, b, s);
        if (out) memcpy(out + b * O, s->x[L], O * sizeof *out);
        if (!batch->labels && !batch->targets) continue;
        loss += share * naive_loss(batch->loss, O, s->x[live], batch->labels ? batch->labels[row] : 0,
                                   batch->targets ? batch->targets + row * O : NULL, dz);
        for (size_t i = 0; i < O; i++) dz[i] *= share;
        for (size_t l = live; grads && l-- > 0;) naive_backward_layer(net, l, s, dz, grads);
    }
    free(s);
    return loss + naive_penalty(net, grads);
}

#endif
