/* vmath.h - exp, tanh, sigmoid and the normal distribution function on vectors. The polynomials are
 * minimax fits of our own (iteratively reweighted least squares in double against 50-digit values);
 * each comment gives the largest relative error of the fit. */
#ifndef GP_VMATH_H
#define GP_VMATH_H

#include "kernels/vector.h"

/* exp(x) = 2^n exp(r), |r| <= ln2/2, exp(r) = 1 + r + r^2 p(r), fit 3.2e-9. Overflows to inf,
 * underflows to 0. */
static inline vfloat v_exp(vfloat x)
{
    const vfloat round = v_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vfloat clamped = v_max(v_min(x, v_splat(89.0f)), v_splat(-104.0f));
    vfloat n = (clamped * 1.44269504088896341f + round) - round;
    vfloat r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vfloat p = v_splat(0.00139504892f);
    p = p * r + 0.00836888956f;
    p = p * r + 0.0416662058f;
    p = p * r + 0.166665188f;
    p = p * r + 0.50000001f;
    vfloat y = p * (r * r) + r + 1.0f;
    /* 2^n in two halves: n alone leaves the exponent range at both ends */
    vint whole = __builtin_convertvector(v_select(n == n, n, v_splat(0.0f)), vint);
    vint half = whole >> 1;
    y = y * (vfloat)((half + 127) << 23);
    return y * (vfloat)((whole - half + 127) << 23);
}

static inline vfloat v_sigmoid(vfloat x) { return 1.0f / (1.0f + v_exp(-x)); }

/* x sigmoid(x); exp(-|x|) overflows on neither side, which x times it would show */
static inline vfloat v_silu(vfloat x)
{
    vfloat decay = v_exp(-v_abs(x));
    return v_select(x > 0.0f, x, x * decay) / (1.0f + decay);
}

/* |x| < 0.625: x + x^3 p(x^2), fit 4.2e-9; else sign(x) (1 - 2/(exp(2|x|)+1)) */
static inline vfloat v_tanh(vfloat x)
{
    vfloat size = v_abs(x), s = x * x;
    vfloat p = v_splat(-0.00571552689f);
    p = p * s + 0.0206492903f;
    p = p * s - 0.0537431211f;
    p = p * s + 0.13331487f;
    p = p * s - 0.333332838f;
    vfloat small = p * s * x + x;
    vfloat large = 1.0f - 2.0f / (v_exp(size + size) + 1.0f);
    large = (vfloat)((vint)large | ((vint)x & (vint)v_splat(-0.0f)));
    return v_select(size < 0.625f, small, large);
}

/* exp(x) - 1 for x <= 0, small numbers with all their digits: 2 t/(1 - t), t = tanh(x/2) */
static inline vfloat v_exp_less_one(vfloat x)
{
    vfloat t = v_tanh(0.5f * x);
    return (t + t) / (1.0f - t);
}

/* Phi(-|x|) = exp(-x^2/2) t p(t), t = 1/(1 + 0.35|x|), fit 3.2e-8; Phi(x) = 1 - Phi(-x) */
static inline vfloat v_normal_cdf(vfloat x)
{
    vfloat size = v_abs(x), t = 1.0f / (size * 0.35f + 1.0f);
    vfloat p = v_splat(-0.0291580299f);
    p = p * t + 0.144031609f;
    p = p * t - 0.255840399f;
    p = p * t + 0.159321249f;
    p = p * t - 0.0232133912f;
    p = p * t + 0.105552926f;
    p = p * t + 0.119821185f;
    p = p * t + 0.139863529f;
    p = p * t + 0.139621306f;
    vfloat tail = v_exp(-0.5f * (x * x)) * (t * p);
    return v_select(x > 0.0f, 1.0f - tail, tail);
}

static inline vfloat v_normal_pdf(vfloat x)
{
    return 0.398942280401432678f * v_exp(-0.5f * (x * x));
}

/* Of positive normal numbers: x = 2^e m, m in [sqrt(1/2), sqrt(2)), log m = 2 artanh(s), s =
 * (m-1)/(m+1), fit 7e-10 */
static inline vfloat v_log(vfloat x)
{
    vint bits = (vint)x, e = (bits - 0x3f3504f3) >> 23;
    vfloat m = (vfloat)(bits - (e << 23)), s = (m - 1.0f) / (m + 1.0f), t = s * s;
    vfloat p = v_splat(0.29925676f);
    p = p * t + 0.39974794f;
    p = p * t + 0.66666816f;
    p = p * t + 2.0f;
    return __builtin_convertvector(e, vfloat) * 0.693147181f + p * s;
}

#endif
