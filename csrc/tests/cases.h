/* cases.h - what the cases of all kernels share: sizes, shifts, numbers that are not. */
#ifndef GP_CASES_H
#define GP_CASES_H

#include "fixture.h"
#include "naive.h"

/* n numbers, pointers `shift` floats off alignment */
typedef void sized_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source);

static inline void over_sizes(const gp_kernels *kernels, sized_case *run)
{
    const size_t V = kernels->width;
    const size_t sizes[] = {0, 1, 2, 3, V - 1, V, V + 1, 2 * V, 2 * V + 3, 64, 100};
    noise source = {1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t shift = 0; shift < 4; shift++) run(kernels, sizes[i], shift, &source);
}

enum { NOT_FINITE = 4 };
static inline float not_finite(size_t i)
{
    /* +-NaN, +-inf */
    static const uint32_t bits[NOT_FINITE] = {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u};
    return float_of(bits[i]);
}

/* How far `got` is from `want`, in units of |want|; numbers below FLT_MIN count as FLT_MIN. */
static inline double relative_error(double got, double want)
{
    if (isnan(want)) return isnan(got) ? 0.0 : INFINITY;
    if (got == want) return 0.0;
    return fabs(got - want) / fmax(fabs(want), (double)FLT_MIN);
}

/* A kernel of two inputs gives `expected` elsewhere and in place of the first, bit by bit; closes
 * what it is given. */
static inline void two_inputs_give(void (*kernel)(size_t n, const float *a, const float *b,
                                                  float *out),
                                   size_t n, buffer a, buffer b, buffer expected)
{
    buffer out = output_floats(n, 1);
    kernel(n, a.f, b.f, out.f);
    CHECK_BYTES_EQUAL(n * sizeof(float), out.data, expected.data);
    kernel(n, a.f, b.f, a.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), a.data, expected.data);
    CLOSE(a);
    CLOSE(b);
    CLOSE(out);
    CLOSE(expected);
}

/* Bit patterns from 0 to infinity in steps that meet every exponent; both signs are the caller's
 * business. */
static inline uint32_t sweep_step(void) { return is_quick() ? 1000003u : 20011u; }
enum { INFINITY_BITS = 0x7f800000 };

#endif
