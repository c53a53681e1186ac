/* cases_normalize.h - sums of channels and their normalization against the formulas in double.
 *
 * Lanes without a sample hold NaN: they must not count, and come out as 0. */
#ifndef GP_CASES_NORMALIZE_H
#define GP_CASES_NORMALIZE_H

#include "cases.h"

typedef void channel_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid, noise *source);

static void over_channels(const gp_kernels *kernels, channel_case *run)
{
    static const size_t rows[] = {0, 1, 2, 9};
    noise source = {31};
    for (size_t r = 0; r < 4; r++)
        for (size_t lanes = 16; lanes <= 64; lanes += 16)
            for (size_t valid = 0; valid <= lanes; valid++)
                if (!is_quick() || valid % 5 == 1 || valid == lanes) run(kernels, rows[r], lanes, valid, &source);
}

/* Numbers around 1000, NaN where there is no sample. */
static buffer channel_new(size_t rows, size_t lanes, size_t valid, noise *source)
{
    buffer x = input_floats(source, rows * lanes, 0, 1.0);
    for (size_t i = 0; i < rows * lanes; i++) x.f[i] = i % lanes < valid ? x.f[i] + 1000.0f : (float)NAN;
    return x;
}

static void shifted_sums_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid, noise *source)
{
    buffer x = channel_new(rows, lanes, valid, source);
    const float shift = 1000.25f;
    double sums[2] = {3.0, 5.0}, want[2] = {3.0, 5.0};
    for (size_t i = 0; i < rows * lanes; i++) {
        const double d = (double)x.f[i] - (double)shift;
        if (i % lanes >= valid) continue;
        want[0] += d;
        want[1] += d * d;
    }
    kernels->shifted_sums(rows, lanes, valid, x.f, shift, sums);
    CHECK_NEAR(sums[0], want[0], 1e-12 * (5.0 + (double)(rows * lanes)));
    CHECK_NEAR(sums[1], want[1], 1e-12 * (5.0 + (double)(rows * lanes)));
    CLOSE(x);
}
static void test_shifted_sums(const gp_kernels *kernels) { over_channels(kernels, shifted_sums_case); }

static void normalize_sums_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid, noise *source)
{
    if (valid < lanes) return; /* it knows of no lanes */
    buffer x = channel_new(rows, lanes, lanes, source), dy = input_floats(source, rows * lanes, 0, 1.0);
    const float shift = 999.5f;
    double sums[2] = {3.0, 5.0}, want[2] = {3.0, 5.0};
    for (size_t i = 0; i < rows * lanes; i++) {
        want[0] += (double)dy.f[i];
        want[1] += (double)dy.f[i] * ((double)x.f[i] - (double)shift);
    }
    kernels->normalize_sums(rows * lanes, dy.f, x.f, shift, sums);
    CHECK_NEAR(sums[0], want[0], 1e-12 * (5.0 + (double)(rows * lanes)));
    CHECK_NEAR(sums[1], want[1], 1e-12 * (5.0 + (double)(rows * lanes)));
    CLOSE(x);
    CLOSE(dy);
}
static void test_normalize_sums(const gp_kernels *kernels) { over_channels(kernels, normalize_sums_case); }

static void normalize_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid, noise *source)
{
    buffer x = channel_new(rows, lanes, valid, source), y = output_floats(rows * lanes, 0);
    kernels->normalize(rows, lanes, valid, x.f, 999.0f, 1.5f, -0.5f, y.f);
    for (size_t i = 0; i < rows * lanes; i++) {
        if (i % lanes < valid) CHECK_NEAR(y.f[i], ((double)x.f[i] - 999.0) * 1.5 - 0.5, 1e-6);
        else CHECK(bits_of(y.f[i]) == 0);
    }
    kernels->normalize(rows, lanes, valid, x.f, 999.0f, 1.5f, -0.5f, x.f);
    CHECK_BYTES_EQUAL(rows * lanes * sizeof(float), x.f, y.f);
    CLOSE(x);
    CLOSE(y);
}
static void test_normalize(const gp_kernels *kernels) { over_channels(kernels, normalize_case); }

static void normalize_backward_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid, noise *source)
{
    buffer x = channel_new(rows, lanes, valid, source), dy = input_floats(source, rows * lanes, 0, 1.0);
    buffer dx = output_floats(rows * lanes, 0);
    kernels->normalize_backward(rows, lanes, valid, x.f, dy.f, 999.0f, 2.0f, -0.25f, 0.125f, dx.f);
    for (size_t i = 0; i < rows * lanes; i++) {
        const double want = 2.0 * (double)dy.f[i] - 0.25 * ((double)x.f[i] - 999.0) + 0.125;
        if (i % lanes < valid) CHECK_NEAR(dx.f[i], want, 1e-6);
        else CHECK(bits_of(dx.f[i]) == 0);
    }
    kernels->normalize_backward(rows, lanes, valid, x.f, dy.f, 999.0f, 2.0f, -0.25f, 0.125f, dy.f);
    CHECK_BYTES_EQUAL(rows * lanes * sizeof(float), dy.f, dx.f);
    CLOSE(x);
    CLOSE(dy);
    CLOSE(dx);
}
static void test_normalize_backward(const gp_kernels *kernels) { over_channels(kernels, normalize_backward_case); }

#endif
