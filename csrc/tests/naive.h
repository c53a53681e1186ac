/* naive.h - the core once more, as plainly as it can be said: in double, one number after the
 * other.
 *
 * This is the specification the tests compare with; nothing here is clever, and nothing is shared
 * with the core but its types. The network runs sample by sample over a parameter array in double,
 * so finite differences can check it (test_net.c does).
 */
#ifndef GP_NAIVE_H
#define GP_NAIVE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "loss.h"
#include "naive_cells.h"
#include "naive_window.h"

/* ---- softmax and losses of one sample; z[i * stride] is feature i ---------------------------- */

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

/* y = log softmax(z/T) */
static inline void naive_log_softmax(size_t o, const double *z, double temperature, double *y)
{
    double total;
    for (size_t i = 0; i < o; i++) y[i] = z[i] / temperature;
    total = naive_logsumexp(o, y);
    for (size_t i = 0; i < o; i++) y[i] -= total;
}

/* The losses that naive_loss knows, and where each has its settings; test_loss.c asks for all. */
static const gp_loss_ops *const naive_losses[] = {&gp_loss_cross_entropy, &gp_loss_mse,
                                                  &gp_loss_bce,           &gp_loss_distillation,
                                                  &gp_loss_huber,         &gp_loss_mae};
enum { NAIVE_LOSSES = sizeof naive_losses / sizeof naive_losses[0] };
enum { NAIVE_SMOOTHING = 0, NAIVE_IGNORED = 1 }; /* cross entropy */
enum { NAIVE_TEMPERATURE = 0, NAIVE_ALPHA = 1 }; /* distillation */
enum { NAIVE_DELTA = 0 };                        /* huber */

/* Loss of one sample, not divided by anything; dz = its gradient. t or label by the kind of the
 * batch's loss. */
static inline double naive_loss(const gp_batch *settings, size_t o, const double *z, int64_t label,
                                const float *t, double *dz)
{
    enum { NAIVE_OUTPUTS = 512 };
    const gp_loss_ops *kind = settings->loss;
    const int by_label = kind->takes & GP_TAKES_LABELS, taught = kind == &gp_loss_distillation;
    double loss = 0.0, total = by_label ? naive_logsumexp(o, z) : 0.0;
    double own[NAIVE_OUTPUTS] = {0}, wide[NAIVE_OUTPUTS] = {0}, teacher[NAIVE_OUTPUTS] = {0};
    if (o > NAIVE_OUTPUTS) abort();
    const double T = taught ? (double)settings->settings[NAIVE_TEMPERATURE] : 1.0;
    for (size_t i = 0; i < o && taught; i++) wide[i] = (double)t[i];
    if (taught) naive_log_softmax(o, z, T, own), naive_log_softmax(o, wide, T, teacher);
    for (size_t i = 0; i < o; i++) {
        const double one = i == (size_t)label ? 1.0 : 0.0, target = by_label ? 0.0 : (double)t[i];
        if (kind == &gp_loss_cross_entropy) {
            const double even = (double)settings->settings[NAIVE_SMOOTHING];
            const double share = even > 0.0 ? (1.0 - even) * one + even / (double)o : one;
            dz[i] = exp(z[i] - total) - share;
            if (share > 0.0) loss += share * (total - z[i]);
        } else if (taught) {
            const double alpha = (double)settings->settings[NAIVE_ALPHA];
            const double y = exp(own[i]), q = exp(teacher[i]);
            dz[i] = (1.0 - alpha) * (exp(z[i] - total) - one) + alpha * T * (y - q);
            if (one > 0.0) loss += (1.0 - alpha) * (total - z[i]);
            if (q > 0.0) loss += alpha * T * T * q * (teacher[i] - own[i]);
        } else if (kind == &gp_loss_mse) {
            dz[i] = 2.0 * (z[i] - target);
            loss += (z[i] - target) * (z[i] - target);
        } else if (kind == &gp_loss_bce) {
            dz[i] = naive_sigmoid(z[i]) - target;
            loss += fmax(z[i], 0.0) - z[i] * target + log1p(exp(-fabs(z[i])));
        } else if (kind == &gp_loss_mae) {
            dz[i] = (z[i] > target) - (z[i] < target);
            loss += fabs(z[i] - target);
        } else if (kind == &gp_loss_huber) {
            const double error = z[i] - target, delta = (double)settings->settings[NAIVE_DELTA];
            dz[i] = fmax(-delta, fmin(error, delta));
            loss +=
                fabs(error) <= delta ? error * error / 2.0 : delta * (fabs(error) - delta / 2.0);
        } else abort();
    }
    return loss;
}

/* ---- one number of an optimizer step --------------------------------------------------------- */

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
        move =
            s.m[0] / (1.0 - pow(r->beta1, t)) / (sqrt(s.m[1] / (1.0 - pow(r->beta2, t))) + r->eps);
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

/* ---- norms ----------------------------------------------------------------------------------- */

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

/* ---- the network ----------------------------------------------------------------------------- */

enum { NAIVE_LAYERS = 8, NAIVE_WIDTH = 2048 };

/* One sample on its way: x[l] enters layer l, r[l] are a dropout layer's multipliers; of a
 * recurrent layer and step t gates[l] + t*G*H, h[l] + t*H, and inner[l] + t*H is LSTM's c or GRU's
 * q. */
typedef struct naive_sample {
    double x[NAIVE_LAYERS + 1][NAIVE_WIDTH], dx[NAIVE_LAYERS + 1][NAIVE_WIDTH],
        r[NAIVE_LAYERS][NAIVE_WIDTH];
    double gates[NAIVE_LAYERS][4 * NAIVE_WIDTH], inner[NAIVE_LAYERS][NAIVE_WIDTH],
        h[NAIVE_LAYERS][NAIVE_WIDTH];
    double omega; /* what Pascanu's regularizer adds to the loss */
} naive_sample;

typedef struct naive_net {
    size_t n_layers;
    const gp_layer_spec *layers;
    size_t n, n_prunable;
    const double *params;
    const uint8_t *mask; /* or NULL */
    int training;
    uint64_t seed, step; /* of dropout */
    size_t batch;        /* samples; naive_run sets it */
} naive_net;

/* Where in s->x the layer l finds what it reads: 0 is the network's input, i + 1 the output of the
 * i-th layer. */
static inline size_t naive_input(const naive_net *net, size_t l, size_t k)
{
    return net->layers[l].n_back > 0 ? l + 1 - net->layers[l].back[k] : l;
}
static inline size_t naive_source(const naive_net *net, size_t l) { return naive_input(net, l, 0); }

static inline double naive_weight(const naive_net *net, size_t at)
{
    return at < net->n_prunable && net->mask && !net->mask[at] ? 0.0 : net->params[at];
}

static inline double naive_multiplier(const naive_net *net, size_t layer, uint64_t element)
{
    uint32_t words[4];
    double rate = (double)gp_dropout_of(&net->layers[layer])->rate;
    if (!net->training) return 1.0;
    gp_philox(net->seed, (uint64_t)1 << 60 | net->step << 16 | layer, element / 4, words);
    return (double)(words[element % 4] >> 8) * 0x1p-24 >= rate ? 1.0 / (1.0 - rate) : 0.0;
}

/* W_hh or W_ih times x of row r; `columns` long. */
static inline double naive_row(const naive_net *net, size_t weight, size_t r, size_t columns,
                               const double *x)
{
    double sum = 0.0;
    for (size_t i = 0; i < columns; i++) sum += naive_weight(net, weight + r * columns + i) * x[i];
    return sum;
}

typedef struct naive_sizes {
    size_t T, F, H, G;
} naive_sizes;
static inline naive_sizes naive_sizes_of(const gp_layer_spec *spec)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t T = own->steps;
    return (naive_sizes){T, spec->in / T, own->sequences ? spec->out / T : spec->out,
                         own->cell == GP_LSTM  ? 4
                         : own->cell == GP_GRU ? 3
                                               : 1};
}

static inline void naive_recurrent_forward(const naive_net *net, size_t l, naive_sample *s)
{
    const gp_layer_spec *spec = &net->layers[l];
    const naive_sizes n = naive_sizes_of(spec);
    static const double zeros[NAIVE_WIDTH];
    for (size_t t = 0; t < n.T; t++) {
        const double *x = s->x[naive_source(net, l)] + t * n.F,
                     *before = t > 0 ? s->h[l] + (t - 1) * n.H : zeros;
        double *gates = s->gates[l] + t * n.G * n.H, *inner = s->inner[l] + t * n.H,
               *h = s->h[l] + t * n.H;
        for (size_t u = 0; u < n.H; u++) {
            double z[4], q[4];
            for (size_t g = 0; g < n.G; g++) {
                const size_t r = g * n.H + u;
                z[g] = naive_row(net, spec->weight, r, n.F, x);
                q[g] = naive_row(net, gp_recurrent_of(spec)->weight, r, n.H, before);
                if (spec->bias == GP_NONE) continue;
                z[g] += net->params[spec->bias + r];
                q[g] += net->params[gp_recurrent_of(spec)->bias + r];
            }
            for (size_t g = 0; g < n.G; g++)
                if (gp_recurrent_of(spec)->cell != GP_GRU || g < 2) z[g] += q[g];
            if (gp_recurrent_of(spec)->cell == GP_LSTM) {
                double c_before = t > 0 ? *(inner + u - n.H) : 0.0;
                naive_lstm(z, c_before, &inner[u], &h[u]);
            } else if (gp_recurrent_of(spec)->cell == GP_GRU) {
                inner[u] = q[2];
                naive_gru(z, q[2], before[u], &h[u]);
            } else h[u] = naive_activation(gp_recurrent_of(spec)->activation, z[0], 0.0);
            for (size_t g = 0; g < n.G; g++) gates[g * n.H + u] = z[g];
        }
    }
    const size_t first = gp_recurrent_of(spec)->sequences ? 0 : n.T - 1;
    memcpy(s->x[l + 1], s->h[l] + first * n.H, (n.T - first) * n.H * sizeof(double));
}

static inline void naive_add(const naive_net *net, double *grads, size_t at, double value)
{
    if (at >= net->n_prunable || !net->mask || net->mask[at]) grads[at] += value;
}

/* Between steps t and t-1: dz of the later one, back = W_hh' dz. */
static inline void naive_omega(const naive_net *net, const gp_layer_spec *spec, size_t H,
                               const double *dz, const double *back, const double *h,
                               naive_sample *s, double *grads)
{
    double norm = 0.0, norm_before = 0.0,
           share = (double)gp_recurrent_of(spec)->omega / (double)net->batch;
    double slope[NAIVE_WIDTH];
    for (size_t u = 0; u < H; u++) {
        slope[u] = gp_recurrent_of(spec)->activation == GP_RELU ? (h[u] > 0.0 ? 1.0 : 0.0)
                                                                : 1.0 - h[u] * h[u];
        norm += dz[u] * dz[u];
        norm_before += back[u] * back[u] * slope[u] * slope[u];
    }
    norm = sqrt(norm);
    norm_before = sqrt(norm_before);
    if (!(norm > 1e-30)) return;
    const double ratio = norm_before / norm;
    s->omega += share * (ratio - 1.0) * (ratio - 1.0);
    for (size_t r = 0; r < H && norm_before > 0.0; r++)
        for (size_t u = 0; u < H; u++)
            naive_add(net, grads, gp_recurrent_of(spec)->weight + r * H + u,
                      share * 2.0 * (ratio - 1.0) / norm / norm_before * dz[r] * back[u] *
                          slope[u] * slope[u]);
}

/* dy (out) -> dx (in) */
static inline void naive_recurrent_backward(const naive_net *net, size_t l, naive_sample *s,
                                            const double *dy, double *dx, double *grads)
{
    const gp_layer_spec *spec = &net->layers[l];
    const naive_sizes n = naive_sizes_of(spec);
    double dh[NAIVE_WIDTH] = {0}, dc[NAIVE_WIDTH] = {0};
    static const double zeros[NAIVE_WIDTH];
    for (size_t t = n.T; t-- > 0;) {
        const double *x = s->x[naive_source(net, l)] + t * n.F,
                     *before = t > 0 ? s->h[l] + (t - 1) * n.H : zeros;
        const double *h = s->h[l] + t * n.H, *inner = s->inner[l] + t * n.H;
        double dz[4 * NAIVE_WIDTH], dq[4 * NAIVE_WIDTH], back[NAIVE_WIDTH] = {0};
        for (size_t u = 0; u < n.H; u++) {
            double z[4], q = 0.0, d = dh[u], straight = 0.0;
            if (gp_recurrent_of(spec)->sequences) d += dy[t * n.H + u];
            else if (t + 1 == n.T) d += dy[u];
            for (size_t g = 0; g < n.G; g++) z[g] = s->gates[l][(t * n.G + g) * n.H + u];
            if (gp_recurrent_of(spec)->cell == GP_LSTM)
                naive_lstm_backward(z, t > 0 ? *(inner + u - n.H) : 0.0, inner[u], d, &dc[u]);
            else if (gp_recurrent_of(spec)->cell == GP_GRU)
                q = naive_gru_backward(z, inner[u], before[u], d, &straight);
            else
                z[0] = d * (gp_recurrent_of(spec)->activation == GP_RELU ? (h[u] > 0.0 ? 1.0 : 0.0)
                                                                         : 1.0 - h[u] * h[u]);
            for (size_t g = 0; g < n.G; g++) {
                dz[g * n.H + u] = z[g];
                dq[g * n.H + u] = gp_recurrent_of(spec)->cell == GP_GRU && g == 2 ? q : z[g];
            }
            back[u] = straight;
        }
        for (size_t r = 0; r < n.G * n.H; r++) {
            for (size_t i = 0; i < n.F; i++) {
                const size_t at = spec->weight + r * n.F + i;
                naive_add(net, grads, at, dz[r] * x[i]);
                dx[t * n.F + i] += naive_weight(net, at) * dz[r];
            }
            for (size_t i = 0; i < n.H; i++) {
                const size_t at = gp_recurrent_of(spec)->weight + r * n.H + i;
                naive_add(net, grads, at, dq[r] * before[i]);
                back[i] += naive_weight(net, at) * dq[r];
            }
            if (spec->bias == GP_NONE) continue;
            grads[spec->bias + r] += dz[r];
            grads[gp_recurrent_of(spec)->bias + r] += dq[r];
        }
        const int passes = t > 0 && (gp_recurrent_of(spec)->truncation == 0 ||
                                     t % gp_recurrent_of(spec)->truncation != 0);
        if (passes && gp_recurrent_of(spec)->omega != 0.0f)
            naive_omega(net, spec, n.H, dz, back, before, s, grads);
        for (size_t u = 0; u < n.H; u++) dh[u] = passes ? back[u] : 0.0;
        for (size_t u = 0; u < n.H && !passes; u++) dc[u] = 0.0;
    }
}

/* ---- convolution ----------------------------------------------------------------------------- */

/* x to y or, if dx is given, from dy to dx and the gradients, which add up. */
static inline void naive_convolution(const naive_net *net, const gp_layer_spec *spec,
                                     const double *x, double *y, const double *dy, double *dx,
                                     double *grads)
{
    const gp_window *w = window_of(spec);
    const size_t filters = naive_filters(spec), places = spec->out / filters,
                 taps = w->kernel[0] * w->kernel[1];
    const size_t length = naive_filter_length(spec);
    for (size_t o = 0; o < spec->out; o++) {
        const size_t filter = o / places, group = filter / (filters / w->groups);
        if (!dx) y[o] = spec->bias == GP_NONE ? 0.0 : net->params[spec->bias + filter];
        else if (spec->bias != GP_NONE) grads[spec->bias + filter] += dy[o];
        for (size_t k = 0; k < length; k++) {
            const size_t pixel = naive_pixel(w, o % places, k % taps),
                         at = spec->weight + filter * length + k;
            const size_t channel = group * (w->channels / w->groups) + k / taps;
            const size_t from = channel * w->height * w->width + pixel;
            if (pixel == GP_NONE) continue;
            if (!dx) y[o] += naive_weight(net, at) * x[from];
            else {
                dx[from] += naive_weight(net, at) * dy[o];
                naive_add(net, grads, at, dy[o] * x[from]);
            }
        }
    }
}

/* ---- batch normalization, without training --------------------------------------------------- */

/* Whether the layer before, with as many rows of weights, has none left in one. */
static inline int naive_is_silent(const naive_net *net, size_t l, size_t channel)
{
    const gp_layer_spec *before = l > 0 ? &net->layers[l - 1] : NULL;
    size_t length = 0, kept = 0;
    if (!before || !net->mask) return 0;
    if (before->type == &gp_layer_dense &&
        before->out == gp_batchnorm_of(&net->layers[l])->channels)
        length = before->in;
    if (before->type == &gp_layer_convolution &&
        naive_filters(before) == gp_batchnorm_of(&net->layers[l])->channels)
        length = naive_filter_length(before);
    for (size_t i = 0; i < length; i++) kept += net->mask[before->weight + channel * length + i];
    return length > 0 && kept == 0;
}

static inline void naive_batchnorm(const naive_net *net, size_t l, const double *x, double *y)
{
    const gp_layer_spec *spec = &net->layers[l];
    const size_t C = gp_batchnorm_of(spec)->channels;
    for (size_t i = 0; i < spec->in; i++) {
        const size_t c = i / (spec->in / C);
        const double mean = net->params[spec->buffers + c],
                     variance = net->params[spec->buffers + C + c];
        y[i] = (x[i] - mean) / sqrt(variance + (double)gp_batchnorm_of(spec)->eps) *
                   net->params[spec->weight + c] +
               net->params[spec->bias + c];
        if (naive_is_silent(net, l, c)) y[i] = 0.0;
    }
}

/* x to y or, without x, from dy to dx, which adds up. */
static inline void naive_standardize(const naive_net *net, const gp_layer_spec *spec,
                                     const double *x, double *y, const double *dy, double *dx)
{
    const size_t C = gp_standardize_of(spec)->channels;
    for (size_t i = 0; i < spec->in; i++) {
        const size_t c = i / (spec->in / C);
        const double mean = net->params[spec->buffers + c],
                     scale = net->params[spec->buffers + C + c];
        if (x) y[i] = (x[i] - mean) / scale;
        else dx[i] += dy[i] / scale;
    }
}

/* x to y or, if dx is given, from dy to dx and the gradients, which add up. */
static inline void naive_layernorm(const naive_net *net, const gp_layer_spec *spec, const double *x,
                                   double *y, const double *dy, double *dx, double *grads)
{
    const size_t n = spec->in;
    double mean = 0.0, variance = 0.0, mean_g = 0.0, mean_gh = 0.0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) variance += pow(x[i] - mean, 2.0) / (double)n;
    const double inverse = 1.0 / sqrt(variance + (double)gp_layernorm_of(spec)->eps);
    for (size_t i = 0; i < n; i++) {
        const double h = (x[i] - mean) * inverse, gamma = net->params[spec->weight + i];
        if (!dx) {
            y[i] = h * gamma + net->params[spec->bias + i];
            continue;
        }
        grads[spec->weight + i] += dy[i] * h;
        grads[spec->bias + i] += dy[i];
        mean_g += gamma * dy[i] / (double)n;
        mean_gh += gamma * dy[i] * h / (double)n;
    }
    for (size_t i = 0; dx && i < n; i++)
        dx[i] = inverse * (net->params[spec->weight + i] * dy[i] - mean_g -
                           (x[i] - mean) * inverse * mean_gh);
}

/* ---- side by side ---------------------------------------------------------------------------- */

/* From what the layer reads to its output or, if `back`, its gradient to theirs. */
static inline void naive_concat(const naive_net *net, size_t l, naive_sample *s, int back)
{
    const gp_layer_spec *spec = &net->layers[l];
    const size_t steps = spec->settings.size; /* its only setting */
    for (size_t t = 0, at = 0; t < steps; t++)
        for (size_t k = 0; k < spec->n_back; k++) {
            const size_t from = naive_input(net, l, k),
                         width = from == 0 ? gp_layers_in(net->layers) : net->layers[from - 1].out;
            for (size_t i = t * width / steps; i < (t + 1) * width / steps; i++, at++) {
                if (back) s->dx[from][i] += s->dx[l + 1][at];
                else s->x[l + 1][at] = s->x[from][i];
            }
        }
}

/* ---- another order --------------------------------------------------------------------------- */

/* From x to y, or if `back` from dy to dx, which adds up. */
static inline void naive_rearrange(const gp_layer_spec *spec, const double *from, double *to,
                                   int back)
{
    struct { /* as in rearrange.c */
        size_t sizes[3], order[3];
        int reversed;
    } own;
    memcpy(&own, &spec->settings, sizeof own);
    for (size_t o = 0; o < spec->out; o++) {
        const size_t last = own.sizes[own.order[2]], middle = own.sizes[own.order[1]];
        size_t along[3], i[3] = {o / last / middle, o / last % middle, o % last};
        if (own.reversed) i[0] = own.sizes[own.order[0]] - 1 - i[0];
        for (size_t k = 0; k < 3; k++) along[own.order[k]] = i[k];
        const size_t in = (along[0] * own.sizes[1] + along[1]) * own.sizes[2] + along[2];
        if (back) to[in] += from[o];
        else to[o] = from[in];
    }
}

/* From x to y, or if `back` from dy to dx, which adds up. */
static inline void naive_slice(const gp_layer_spec *spec, const double *from, double *to, int back)
{
    size_t own[5]; /* as in slice.c: blocks, size, apart, begin, end */
    memcpy(own, &spec->settings, sizeof own);
    for (size_t i = 0, o = 0; i < spec->in; i++) {
        const size_t place = i / own[2] % own[1];
        if (place < own[3] || place >= own[4]) continue;
        if (back) to[i] += from[o++];
        else to[o++] = from[i];
    }
}

/* ---- all layers ------------------------------------------------------------------------------ */

static inline void naive_forward_layer(const naive_net *net, size_t l, uint64_t sample,
                                       naive_sample *s)
{
    const gp_layer_spec *spec = &net->layers[l];
    const double *x = s->x[naive_source(net, l)];
    double *y = s->x[l + 1];
    if (spec->type == &gp_layer_dense)
        for (size_t o = 0; o < spec->out; o++) {
            y[o] = spec->bias == GP_NONE ? 0.0 : net->params[spec->bias + o];
            for (size_t i = 0; i < spec->in; i++)
                y[o] += naive_weight(net, spec->weight + o * spec->in + i) * x[i];
        }
    else if (spec->type == &gp_layer_activation)
        for (size_t i = 0; i < spec->in; i++)
            y[i] = naive_activation(gp_activation_of(spec)->function, x[i],
                                    (double)gp_activation_of(spec)->slope);
    else if (spec->type == &gp_layer_softmax) naive_softmax(spec->in, x, y);
    else if (spec->type == &gp_layer_dropout)
        for (size_t i = 0; i < spec->in; i++) {
            s->r[l][i] = naive_multiplier(net, l, sample * spec->in + i);
            y[i] = x[i] * s->r[l][i];
        }
    else if (spec->type == &gp_layer_recurrent) naive_recurrent_forward(net, l, s);
    else if (spec->type == &gp_layer_convolution)
        naive_convolution(net, spec, x, y, NULL, NULL, NULL);
    else if (spec->type == &gp_layer_pooling) naive_pooling(gp_pooling_of(spec), x, y, NULL, NULL);
    else if (spec->type == &gp_layer_add)
        for (size_t i = 0; i < spec->in; i++) y[i] = x[i] + s->x[naive_input(net, l, 1)][i];
    else if (spec->type == &gp_layer_concat) naive_concat(net, l, s, 0);
    else if (spec->type == &gp_layer_rearrange) naive_rearrange(spec, x, y, 0);
    else if (spec->type == &gp_layer_slice) naive_slice(spec, x, y, 0);
    else if (spec->type == &gp_layer_batchnorm) naive_batchnorm(net, l, x, y);
    else if (spec->type == &gp_layer_layernorm) naive_layernorm(net, spec, x, y, NULL, NULL, NULL);
    else if (spec->type == &gp_layer_standardize) naive_standardize(net, spec, x, y, NULL, NULL);
}

/* From s->dx[l + 1] to the gradients of what the layer reads; they and those of parameters add
 * up. */
static inline void naive_backward_layer(const naive_net *net, size_t l, naive_sample *s,
                                        double *grads)
{
    const gp_layer_spec *spec = &net->layers[l];
    const double *x = s->x[naive_source(net, l)], *y = s->x[l + 1], *dy = s->dx[l + 1];
    double *dx = s->dx[naive_source(net, l)], dot = 0.0;
    if (spec->type == &gp_layer_recurrent) naive_recurrent_backward(net, l, s, dy, dx, grads);
    if (spec->type == &gp_layer_convolution) naive_convolution(net, spec, x, NULL, dy, dx, grads);
    if (spec->type == &gp_layer_pooling) naive_pooling(gp_pooling_of(spec), x, NULL, dy, dx);
    if (spec->type == &gp_layer_layernorm) naive_layernorm(net, spec, x, NULL, dy, dx, grads);
    if (spec->type == &gp_layer_standardize) naive_standardize(net, spec, NULL, NULL, dy, dx);
    if (spec->type == &gp_layer_concat) naive_concat(net, l, s, 1);
    if (spec->type == &gp_layer_rearrange) naive_rearrange(spec, dy, dx, 1);
    if (spec->type == &gp_layer_slice) naive_slice(spec, dy, dx, 1);
    for (size_t o = 0; o < spec->out; o++) dot += y[o] * dy[o];
    for (size_t o = 0; o < spec->out; o++) {
        if (spec->type == &gp_layer_dense) {
            if (spec->bias != GP_NONE) grads[spec->bias + o] += dy[o];
            for (size_t i = 0, at = spec->weight + o * spec->in; i < spec->in; i++, at++) {
                if (!net->mask || net->mask[at]) grads[at] += dy[o] * x[i];
                dx[i] += naive_weight(net, at) * dy[o];
            }
        } else if (spec->type == &gp_layer_activation) {
            const gp_activation_settings *own = gp_activation_of(spec);
            dx[o] += dy[o] * naive_derivative(own->function, x[o], (double)own->slope);
        } else if (spec->type == &gp_layer_softmax) {
            dx[o] += y[o] * (dy[o] - dot);
        } else if (spec->type == &gp_layer_dropout) {
            dx[o] += dy[o] * s->r[l][o];
        } else if (spec->type == &gp_layer_add) {
            dx[o] += dy[o];
            s->dx[naive_input(net, l, 1)][o] += dy[o];
        } /* batchnorm is of the whole batch, which this is not: see test_batchnorm.c */
    }
}

static inline double naive_sign(double w) { return (w > 0.0) - (w < 0.0); }

/* l1 and l2 of n weights */
static inline double naive_decay(const naive_net *net, const gp_layer_spec *spec, size_t at,
                                 size_t n, double *grads)
{
    const double l1 = (double)spec->l1, l2 = (double)spec->l2;
    double penalty = 0.0;
    for (size_t i = at; i < at + n; i++) {
        double w = naive_weight(net, i);
        penalty += l1 * fabs(w) + l2 * w * w;
        if (grads) grads[i] += l1 * naive_sign(w) + 2.0 * l2 * w;
    }
    return penalty;
}

/* |W'W - 1|^2 of one gate, (H,H) from `at` on; its gradient is 4 W (W'W - 1) */
static inline double naive_orthogonality(const naive_net *net, size_t H, size_t at, double weight,
                                         double *grads)
{
    double sum = 0.0;
    for (size_t i = 0; i < H; i++)
        for (size_t j = 0; j < H; j++) {
            double error = i == j ? -1.0 : 0.0;
            for (size_t k = 0; k < H; k++)
                error += naive_weight(net, at + k * H + i) * naive_weight(net, at + k * H + j);
            sum += error * error;
            for (size_t k = 0; grads && k < H; k++)
                naive_add(net, grads, at + k * H + j,
                          4.0 * weight * naive_weight(net, at + k * H + i) * error);
        }
    return weight * sum;
}

static inline double naive_penalty(const naive_net *net, double *grads)
{
    double penalty = 0.0;
    for (size_t l = 0; l < net->n_layers; l++) {
        const gp_layer_spec *spec = &net->layers[l];
        if (spec->type == &gp_layer_dense)
            penalty += naive_decay(net, spec, spec->weight, spec->in * spec->out, grads);
        if (spec->type == &gp_layer_convolution)
            penalty += naive_decay(net, spec, spec->weight,
                                   naive_filters(spec) * naive_filter_length(spec), grads);
        if (spec->type != &gp_layer_recurrent) continue;
        const naive_sizes n = naive_sizes_of(spec);
        penalty += naive_decay(net, spec, spec->weight, n.G * n.H * n.F, grads);
        penalty += naive_decay(net, spec, gp_recurrent_of(spec)->weight, n.G * n.H * n.H, grads);
        for (size_t g = 0; g < n.G && gp_recurrent_of(spec)->orthogonality != 0.0f; g++)
            penalty += naive_orthogonality(net, n.H, gp_recurrent_of(spec)->weight + g * n.H * n.H,
                                           (double)gp_recurrent_of(spec)->orthogonality, grads);
    }
    return penalty;
}

/* Is the last layer part of the loss? */
static inline int naive_is_fused(const naive_net *net, const gp_loss_ops *loss)
{
    const gp_layer_spec *last = &net->layers[net->n_layers - 1];
    return ((loss == &gp_loss_cross_entropy || loss == &gp_loss_distillation) &&
            last->type == &gp_layer_softmax) ||
           (loss == &gp_loss_bce && last->type == &gp_layer_activation &&
            gp_activation_of(last)->function == GP_SIGMOID);
}

static inline void naive_load(const naive_net *net, const gp_batch *batch, size_t sample,
                              naive_sample *s)
{
    size_t row = batch->index ? (size_t)batch->index[sample] : sample,
           in = gp_layers_in(net->layers);
    for (size_t i = 0; i < in; i++) s->x[0][i] = (double)batch->x[row * in + i];
}

/* What a sample counts. */
static inline double naive_counted(const gp_batch *batch, size_t sample)
{
    const size_t row = batch->index ? (size_t)batch->index[sample] : sample;
    const int is_ignored = batch->loss == &gp_loss_cross_entropy && batch->labels &&
                           batch->labels[row] == (int64_t)batch->settings[NAIVE_IGNORED];
    return is_ignored ? 0.0 : (batch->weights ? batch->weights[row] : 1.0);
}

/* Mean loss and, unless NULL, its gradient (n) and the outputs of the whole network (B, O). */
static inline double naive_run(const naive_net *given, const gp_batch *batch, double *grads,
                               double *out)
{
    naive_sample *s = calloc(1, sizeof *s);
    naive_net copy = *given, *net = &copy;
    double loss = 0.0;
    size_t L = net->n_layers, O = net->layers[L - 1].out,
           live = L - (batch->loss && naive_is_fused(net, batch->loss) ? 1 : 0);
    double weight = 0.0;
    for (size_t b = 0; b < batch->size; b++) weight += naive_counted(batch, b);
    double each =
        1.0 / weight / (!batch->loss || batch->loss->takes & GP_TAKES_LABELS ? 1.0 : (double)O);
    if (!s) abort();
    for (size_t l = 0; l < L; l++)
        if (L > NAIVE_LAYERS || net->layers[l].in > NAIVE_WIDTH || net->layers[l].out > NAIVE_WIDTH)
            abort();
    copy.batch = batch->size;
    if (grads) memset(grads, 0, net->n * sizeof *grads);
    for (size_t b = 0; b < batch->size; b++) {
        size_t row = batch->index ? (size_t)batch->index[b] : b;
        naive_load(net, batch, b, s);
        for (size_t l = 0; l < L; l++) naive_forward_layer(net, l, b, s);
        if (out) memcpy(out + b * O, s->x[L], O * sizeof *out);
        if (!batch->labels && !batch->targets) continue;
        memset(s->dx, 0, sizeof s->dx);
        const double share = each * naive_counted(batch, b);
        const int64_t label = batch->labels && share > 0.0 ? batch->labels[row] : 0;
        loss += share * naive_loss(batch, O, s->x[live], label,
                                   batch->targets ? batch->targets + row * O : NULL, s->dx[live]);
        for (size_t i = 0; i < O; i++) s->dx[live][i] *= share;
        for (size_t l = live; grads && l-- > 0;) naive_backward_layer(net, l, s, grads);
    }
    loss += s->omega;
    free(s);
    return loss + naive_penalty(net, grads);
}

#endif
