/* transform.h - loops that make another gradient of a gradient: inhibition, noise, quantization.
 * Finite numbers stay finite: what rounds beyond the largest float becomes it. */
#ifndef GP_TRANSFORM_H
#define GP_TRANSFORM_H

#include <float.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/update.h"
#include "kernels/vector.h"
#include "kernels/vmath.h"

static inline vfloat finite_vector(vfloat x) { return clamp_vector(x, v_splat(FLT_MAX)); }

/* out = expression of x, whole vectors and then the padded rest; `part` is how many numbers of it
 * count */
#define GP_MAP(n, x, out, expression) \
    for (size_t i = 0; i < (n); i += GP_V) { \
        const size_t part = (n) - i < GP_V ? (n) - i : GP_V; \
        vfloat v = part == GP_V ? v_load((x) + i) : v_load_part((x) + i, part); \
        vfloat made = (expression); \
        if (part == GP_V) v_store((out) + i, made); \
        else v_store_part((out) + i, made, part); \
    }

static inline vfloat v_load_some(const float *p, size_t part)
{
    return part == GP_V ? v_load(p) : v_load_part(p, part);
}
static inline void v_store_some(float *p, vfloat x, size_t part)
{
    if (part == GP_V) v_store(p, x);
    else v_store_part(p, x, part);
}

static void add(size_t n, const float *a, const float *b, float *out)
{
    GP_MAP(n, a, out, finite_vector(v + v_load_some(b + i, part)))
}

static void subtract(size_t n, const float *x, float amount, float *out)
{
    GP_MAP(n, x, out, finite_vector(v - amount))
}

/* The upper 24 bits of words as numbers from 0 to 2^24 - 1. */
static inline vint v_load_words(const uint32_t *words, size_t part)
{
    vint bits;
    uint32_t t[GP_V] = {0};
    for (size_t i = 0; i < part; i++) t[i] = words[i] >> 8;
    memcpy(&bits, t, sizeof bits);
    return bits;
}

/* sqrt(2) erfinv(x) of x in (-1, 1): the single-precision polynomials of Giles 2010, "Approximating
 * the erfinv function", in w = -log(1 - x^2); relative error about 3e-7 */
static inline vfloat v_normal_quantile(vfloat x)
{
    vfloat w = -v_log((1.0f - x) * (1.0f + x)), near = w - 2.5f, far = v_sqrt(w) - 3.0f;
    vfloat p = v_splat(2.81022636e-08f), q = v_splat(-0.000200214257f);
    p = p * near + 3.43273939e-07f;
    p = p * near - 3.5233877e-06f;
    p = p * near - 4.39150654e-06f;
    p = p * near + 0.00021858087f;
    p = p * near - 0.00125372503f;
    p = p * near - 0.00417768164f;
    p = p * near + 0.246640727f;
    p = p * near + 1.50140941f;
    q = q * far + 0.000100950558f;
    q = q * far + 0.00134934322f;
    q = q * far - 0.00367342844f;
    q = q * far + 0.00573950773f;
    q = q * far - 0.0076224613f;
    q = q * far + 0.00943887047f;
    q = q * far + 1.00167406f;
    q = q * far + 2.83297682f;
    return 1.41421356f * x * v_select(w < 5.0f, p, q);
}

/* A word is the middle of one of 2^24 equal parts of (-1, 1), which a float holds exactly. */
static inline vfloat v_normal_of_words(const uint32_t *words, size_t part)
{
    vint odd = 2 * v_load_words(words, part) + 1 - (1 << 24);
    return v_normal_quantile(__builtin_convertvector(odd, vfloat) * 0x1p-24f);
}

static void add_normal(size_t n, const float *x, const uint32_t *words, float sigma, float *out)
{
    GP_MAP(n, x, out, finite_vector(v + sigma * v_normal_of_words(words + i, part)))
}

/* c x / (c + |x|) = min(|x|, c) / (1 + min / max) with x's sign: nothing overflows */
static inline vfloat inhibit_vector(vfloat x, vfloat c)
{
    vfloat size = v_abs(x), less = v_min(size, c), more = v_max(size, c);
    vfloat made = less / (1.0f + less / more);
    return (vfloat)((vint)made | ((vint)x & (vint)v_splat(-0.0f)));
}

/* Far below c it is x itself, to float precision, where x / c may be a denormal. */
static inline vfloat inhibit_tanh_vector(vfloat x, vfloat c)
{
    vfloat size = v_abs(x),
           made = v_select(size < 1e-4f * c, size, v_min(c * v_tanh(size / c), size));
    return (vfloat)((vint)made | ((vint)x & (vint)v_splat(-0.0f)));
}

static void inhibit(size_t n, const float *x, float c, int is_tanh, float *out)
{
    const vfloat limit = v_splat(c);
    if (is_tanh) GP_MAP(n, x, out, inhibit_tanh_vector(v, limit))
    else GP_MAP(n, x, out, inhibit_vector(v, limit))
}

static inline void store_quantized(size_t i, size_t part, vfloat x, vfloat made, float *out,
                                   float *residual)
{
    if (residual) v_store_some(residual + i, x - made, part);
    v_store_some(out + i, made, part);
}

static void quantize(size_t n, const float *x, const uint32_t *words, float unit, float size,
                     float levels, float *out, float *residual)
{
    const vfloat round = v_splat(8388608.0f); /* 2^23: adding it rounds to an integer */
    for (size_t i = 0; i < n; i += GP_V) {
        const size_t part = n - i < GP_V ? n - i : GP_V;
        vfloat v = v_load_some(x + i, part), y = v_min(v_abs(v) / unit, v_splat(levels)),
               xi = (y + round) - round;
        if (words) {
            vfloat lower = __builtin_convertvector(__builtin_convertvector(y, vint), vfloat);
            vfloat u = __builtin_convertvector(v_load_words(words + i, part), vfloat) * 0x1p-24f;
            xi = lower + v_select(u < y - lower, v_splat(1.0f), v_splat(0.0f));
        }
        vfloat made = v_min(v_min(xi, v_splat(levels)) * size, v_splat(FLT_MAX));
        made = v_select(xi > 0.0f, (vfloat)((vint)made | ((vint)v & (vint)v_splat(-0.0f))),
                        v_splat(0.0f));
        store_quantized(i, part, v, made, out, residual);
    }
}

static void scaled_sign(size_t n, const float *x, float size, float *out, float *residual)
{
    const vfloat zero = v_splat(0.0f);
    for (size_t i = 0; i < n; i += GP_V) {
        const size_t part = n - i < GP_V ? n - i : GP_V;
        vfloat v = v_load_some(x + i, part);
        vfloat made = v_select(v > 0.0f, v_splat(size), v_select(v < 0.0f, v_splat(-size), zero));
        store_quantized(i, part, v, made, out, residual);
    }
}

#endif
