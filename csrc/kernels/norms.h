/* norms.h - sums and norms, accumulated in double: the square of a float cannot overflow a double,
 * and a NaN or an infinity always reaches the result. */
#ifndef GP_NORMS_H
#define GP_NORMS_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Two running sums hide the latency of the addition; the rest is padded with zeros, which add
 * nothing. Without the prefetch, sums of what is in no cache take a third longer than reading
 * it. */
#define GP_SUM_KERNEL(name, term) \
    static double name(size_t n, const float *x) \
    { \
        vdouble even = {0}, odd = {0}; \
        size_t i = 0; \
        for (; i + GP_V <= n; i += GP_V) { \
            __builtin_prefetch(x + i + 512); \
            vdouble a = v_load_wide(x + i), b = v_load_wide(x + i + GP_H); \
            even += term(a); \
            odd += term(b); \
        } \
        float rest[GP_V] = {0}; \
        for (size_t j = 0; i + j < n; j++) rest[j] = x[i + j]; \
        vdouble a = v_load_wide(rest), b = v_load_wide(rest + GP_H); \
        return v_sum_wide((even + term(a)) + (odd + term(b))); \
    }
#define GP_SAME(a) (a)
#define GP_MAGNITUDE(a) ((vdouble)((vlong)(a) & INT64_MAX))
#define GP_SQUARE(a) ((a) * (a))
GP_SUM_KERNEL(sum, GP_SAME)
GP_SUM_KERNEL(sum_abs, GP_MAGNITUDE)
GP_SUM_KERNEL(sum_squares, GP_SQUARE)

static double sum_squares_within(size_t n, const float *x, float limit)
{
    float part[256];
    double total = 0.0;
    for (size_t i = 0; i < n; i += 256) {
        size_t length = n - i < 256 ? n - i : 256;
        for (size_t j = 0; j < length; j++)
            part[j] = x[i + j] > limit ? limit : x[i + j] < -limit ? limit : x[i + j];
        total += sum_squares(length, part);
    }
    return total;
}

static double sum_powers(size_t n, const float *x, double p, double unit)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i++) total += pow(fabs((double)x[i]) / unit, p);
    return total;
}

/* As integers, the bits of |x| are in the order of |x|, infinity above every number and NaN above
 * infinity. */
static float max_abs(size_t n, const float *x)
{
    vint top = {0};
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) {
        vint bits = (vint)v_abs(v_load(x + i)), more = bits > top;
        top = (bits & more) | (top & ~more);
    }
    if (i < n) {
        vint bits = (vint)v_abs(v_load_part(x + i, n - i)), more = bits > top;
        top = (bits & more) | (top & ~more);
    }
    union {
        int32_t bits;
        float value;
    } largest = {0};
    for (size_t j = 0; j < GP_V; j++)
        if (top[j] > largest.bits) largest.bits = top[j];
    return largest.value;
}

#endif
