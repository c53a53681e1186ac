/* update.h - one optimizer step: clip, weight decay, moments and weight in a single pass. The
 * formulas are torch's (torch.optim.SGD, Adam, AdamW, RMSprop). u->scale and u->limit are the
 * clip. */
#ifndef GP_UPDATE_H
#define GP_UPDATE_H

#include <math.h>

#include "kernels/elementwise.h"
#include "kernels/kernels.h"
#include "kernels/vector.h"

/* AVX-512 divides and takes roots in one slow unit, so its root is an estimate and one Newton step,
 * right to 2 ulp, in the shadow of the division: a fifth less time for Adam in the L2 cache. 0 and
 * infinity are their own roots. */
static inline vfloat v_sqrt(vfloat x)
{
#if defined(GP_ISA_AVX512)
    vfloat inverse = (vfloat)_mm512_rsqrt14_ps((__m512)x), root = x * inverse;
    root += (0.5f * root) * (1.0f - root * inverse);
    return (vfloat)_mm512_mask_mov_ps((__m512)root, _mm512_fpclass_ps_mask((__m512)x, 0x0e),
                                      (__m512)x);
#else
    for (size_t i = 0; i < GP_V; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

/* The gradient the rule sees, and the weight after decoupled decay. */
static inline vfloat clipped(vfloat g, vfloat w, const gp_update *u)
{
    g = g * u->scale * u->scale_again;
    if (u->limit < INFINITY) g = clamp_vector(g, v_splat(u->limit));
    return g + u->l2 * w;
}

static inline vfloat sgd_vector(vfloat w, vfloat g, vfloat *m, const gp_update *u)
{
    g = clipped(g, w, u);
    if (m) {
        *m = u->beta1 * *m + u->gain1 * g;
        g = u->nesterov ? g + u->beta1 * *m : *m;
    }
    return w * u->shrink - u->lr * g;
}

/* m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2; w -= lr/(1-beta1^t) m /
 * (sqrt(v)/sqrt(1-beta2^t) + eps) */
static inline vfloat adam_vector(vfloat w, vfloat g, vfloat *m, vfloat *v, const gp_update *u)
{
    g = clipped(g, w, u);
    *m = u->beta1 * *m + u->gain1 * g;
    *v = u->beta2 * *v + u->gain2 * (g * g);
    return w * u->shrink - u->lr * *m / (v_sqrt(*v) * u->correction2 + u->eps);
}

/* v = alpha v + (1-alpha) g^2; step = g / (sqrt(v) + eps); with momentum m = mu m + step */
static inline vfloat rmsprop_vector(vfloat w, vfloat g, vfloat *v, vfloat *m, const gp_update *u)
{
    g = clipped(g, w, u);
    *v = u->beta2 * *v + u->gain2 * (g * g);
    vfloat move = g / (v_sqrt(*v) + u->eps);
    if (m) move = *m = u->beta1 * *m + move;
    return w * u->shrink - u->lr * move;
}

/* One vector, whole or part. `s` and `t` are the moments, NULL if unused. */
static inline __attribute__((always_inline)) void step_vector(gp_rule_kind kind, size_t part,
                                                              float *w, const float *g, float *s,
                                                              float *t, const gp_update *u)
{
    int whole = part == GP_V;
    vfloat vw = whole ? v_load(w) : v_load_part(w, part),
           vg = whole ? v_load(g) : v_load_part(g, part);
    vfloat vs = v_splat(0.0f), vt = vs;
    if (s) vs = whole ? v_load(s) : v_load_part(s, part);
    if (t) vt = whole ? v_load(t) : v_load_part(t, part);
    switch (kind) {
    case GP_SGD: vw = sgd_vector(vw, vg, s ? &vs : NULL, u); break;
    case GP_ADAM: vw = adam_vector(vw, vg, &vs, &vt, u); break;
    case GP_RMSPROP: vw = rmsprop_vector(vw, vg, &vs, t ? &vt : NULL, u); break;
    case GP_RULES: break;
    }
    if (whole) v_store(w, vw);
    else v_store_part(w, vw, part);
    if (s) {
        if (whole) v_store(s, vs);
        else v_store_part(s, vs, part);
    }
    if (t) {
        if (whole) v_store(t, vt);
        else v_store_part(t, vt, part);
    }
}

static inline __attribute__((always_inline)) void step_all(gp_rule_kind kind, size_t n, float *w,
                                                           const float *g, float *s, float *t,
                                                           const gp_update *u)
{
    const gp_update fixed = *u; /* a copy: the stores below cannot alias it */
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V)
        step_vector(kind, GP_V, w + i, g + i, s ? s + i : NULL, t ? t + i : NULL, &fixed);
    if (i < n) step_vector(kind, n - i, w + i, g + i, s ? s + i : NULL, t ? t + i : NULL, &fixed);
}

/* The optional pointers are told apart once, outside of the loops. */
static void sgd(size_t n, float *w, const float *g, float *m, const gp_update *u)
{
    if (m) step_all(GP_SGD, n, w, g, m, NULL, u);
    else step_all(GP_SGD, n, w, g, NULL, NULL, u);
}

static void adam(size_t n, float *w, const float *g, float *m, float *v, const gp_update *u)
{
    step_all(GP_ADAM, n, w, g, m, v, u);
}

static void rmsprop(size_t n, float *w, const float *g, float *v, float *m, const gp_update *u)
{
    if (m) step_all(GP_RMSPROP, n, w, g, v, m, u);
    else step_all(GP_RMSPROP, n, w, g, v, NULL, u);
}

static void statistics(size_t n, const float *g, float *mean, float *mean_square, float weight)
{
    for (size_t i = 0; i < n; i++) {
        mean[i] += (g[i] - mean[i]) * weight;
        mean_square[i] += (g[i] * g[i] - mean_square[i]) * weight;
    }
}

#endif
