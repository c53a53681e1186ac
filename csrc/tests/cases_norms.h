/* cases_norms.h - sums in double and the largest magnitude: right, never overflowing, and never
 * losing a NaN. */
#ifndef GP_CASES_NORMS_H
#define GP_CASES_NORMS_H

#include "cases.h"

typedef enum norm_kernel { SUM, SUM_ABS, SUM_SQUARES, SUM_POWERS, MAX_ABS } norm_kernel;

static double norm_run(const gp_kernels *kernels, norm_kernel which, size_t n, const float *x)
{
    switch (which) {
    case SUM: return kernels->sum(n, x);
    case SUM_ABS: return kernels->sum_abs(n, x);
    case SUM_SQUARES: return kernels->sum_squares(n, x);
    case SUM_POWERS: return kernels->sum_powers(n, x, 1.5, 2.0);
    case MAX_ABS: break;
    }
    return (double)kernels->max_abs(n, x);
}

/* `size`, if not NULL, is the sum of magnitudes: what rounding errors are measured by. */
static double norm_naive(norm_kernel which, size_t n, const float *x, double *size)
{
    double total = 0.0, magnitudes = 0.0;
    for (size_t i = 0; i < n; i++) {
        double a = fabs((double)x[i]), term = a;
        if (which == SUM) term = (double)x[i];
        if (which == SUM_SQUARES) term = a * a;
        if (which == SUM_POWERS) term = pow(a / 2.0, 1.5);
        total = which == MAX_ABS ? fmax(total, a) : total + term;
        magnitudes += fabs(term);
    }
    if (size) *size = which == MAX_ABS ? 0.0 : magnitudes;
    return total;
}

static void norm_not_finite(const gp_kernels *kernels, norm_kernel which, buffer *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float good = x->f[i];
        x->f[i] = not_finite(i % 2);
        CHECK(isnan(norm_run(kernels, which, n, x->f)));
        if (n > 1) {
            float other = x->f[(i + 1) % n];
            x->f[(i + 1) % n] = INFINITY; /* a NaN wins */
            CHECK(isnan(norm_run(kernels, which, n, x->f)));
            x->f[(i + 1) % n] = other;
        }
        x->f[i] = not_finite(2 + i % 2);
        CHECK(isinf(norm_run(kernels, which, n, x->f)));
        x->f[i] = good;
    }
}

static void norm_case(const gp_kernels *kernels, norm_kernel which, size_t n, size_t shift,
                      noise *source)
{
    static const double sizes[] = {1.0, 3.4e38, 1e-38, 1e-44};
    for (size_t s = 0; s < 4; s++) {
        double size;
        buffer x = input_floats(source, n, shift, sizes[s]);
        double want = norm_naive(which, n, x.f, &size), got = norm_run(kernels, which, n, x.f);
        CHECK_NEAR(got, want, size * 1e-13);
        if (s == 0) norm_not_finite(kernels, which, &x, n);
        CLOSE(x);
    }
    if (n == 0) CHECK(norm_run(kernels, which, 0, NULL) == 0.0);
}

#define NORM_TEST(name, which) \
    static void name##_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source) \
    { \
        norm_case(kernels, which, n, shift, source); \
    } \
    static void test_##name(const gp_kernels *kernels) { over_sizes(kernels, name##_case); }
NORM_TEST(sum, SUM)
NORM_TEST(sum_abs, SUM_ABS)
NORM_TEST(sum_squares, SUM_SQUARES)
NORM_TEST(sum_powers, SUM_POWERS)
NORM_TEST(max_abs, MAX_ABS)
#undef NORM_TEST

#endif
