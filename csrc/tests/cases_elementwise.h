/* cases_elementwise.h - copies, activations, dropout, masks. */
#ifndef GP_CASES_ELEMENTWISE_H
#define GP_CASES_ELEMENTWISE_H

#include "cases.h"

/* ---- copies ---------------------------------------------------------------------------------- */

static void copy_finite_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer in = input_floats(source, n, shift, 1.0), out = output_floats(n, 3 - shift);
    if (n > 2) in.f[n / 2] = -FLT_MAX, in.f[n / 3] = float_of(1);
    CHECK(kernels->copy_finite(n, in.f, out.f) == 1);
    CHECK_BYTES_EQUAL(n * sizeof(float), out.data, in.data);
    for (size_t i = 0; i < n; i++) {
        float good = in.f[i];
        in.f[i] = not_finite(i % NOT_FINITE);
        CHECK(kernels->copy_finite(n, in.f, out.f) == 0);
        CHECK_BYTES_EQUAL(sizeof(float), out.f + i, in.f + i);
        in.f[i] = good;
    }
    CLOSE(in);
    CLOSE(out);
}
static void test_copy_finite(const gp_kernels *kernels) { over_sizes(kernels, copy_finite_case); }

static void multiply_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer a = inout_floats(source, n, shift, 3.0), b = input_floats(source, n, 3 - shift, 3.0);
    buffer expected = output_floats(n, 0);
    for (size_t i = 0; i < n; i++) expected.f[i] = a.f[i] * b.f[i];
    two_inputs_give(kernels->multiply, n, a, b, expected);
}
static void test_multiply(const gp_kernels *kernels) { over_sizes(kernels, multiply_case); }

/* ---- activations ----------------------------------------------------------------------------- */

static const float slope_case = 0.01f;

/* The largest relative error allowed. gelu's tail is exp(-z^2/2): the rounding of z^2 is magnified
 * by z^2/2. */
static double activation_bound(gp_activation f, double z)
{
    switch (f) {
    case GP_TANH: return 2.5e-7;
    case GP_SIGMOID:
        return z > -88.7 ? 4e-7 : 0.25; /* exp(-z) is infinite: 0 for what is below FLT_MIN / 4 */
    case GP_GELU: return 5e-7 + (z < 0.0 ? 1.2e-7 * 0.5 * z * z : 0.0);
    case GP_LEAKY_RELU: return 6e-8;
    case GP_SILU: return z > -87.3 ? 5e-7 : 2e-5; /* below, exp(z) is denormal */
    case GP_ELU: return 5e-7;
    case GP_HARDSWISH: return 2.5e-7;
    case GP_RELU6:
    case GP_RELU:
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return 0.0;
}

/* Every exponent of both signs, denormals and the largest numbers among them. */
static void activation_sweep(const gp_kernels *kernels, gp_activation f)
{
    enum { MANY = 64 };
    float z[MANY], y[MANY];
    double worst = 0.0, at = 0.0;
    uint32_t bits = 0;
    while (bits < INFINITY_BITS) {
        for (size_t i = 0; i < MANY; i += 2, bits += sweep_step()) {
            z[i] = float_of(bits < INFINITY_BITS ? bits : 0);
            z[i + 1] = -z[i];
        }
        kernels->activation_forward(MANY, z, y, f, slope_case);
        for (size_t i = 0; i < MANY; i++) {
            double want = naive_activation(f, (double)z[i], (double)slope_case);
            double excess = relative_error((double)y[i], want) - activation_bound(f, (double)z[i]);
            if (excess > worst) worst = excess, at = (double)z[i];
        }
    }
    if (!CHECK_NEAR(worst, 0.0, 0.0)) printf("  activation %d at %.9g\n", (int)f, at);
}

static void activation_limits(const gp_kernels *kernels, gp_activation f)
{
    float z[5] = {INFINITY, -INFINITY, NAN, -NAN, 0.0f}, y[5];
    kernels->activation_forward(5, z, y, f, slope_case);
    CHECK(y[0] == (f == GP_TANH || f == GP_SIGMOID ? 1.0f : (f == GP_RELU6 ? 6.0f : INFINITY)));
    if (f == GP_TANH) CHECK(y[1] == -1.0f);
    if (f == GP_RELU || f == GP_RELU6 || f == GP_SIGMOID) CHECK(y[1] == 0.0f);
    if (f == GP_ELU) CHECK(y[1] == -slope_case);
    if (f == GP_IDENTITY || f == GP_LEAKY_RELU) CHECK(y[1] == -INFINITY);
    CHECK(is_float_nan(y[2]) && is_float_nan(y[3]));
    CHECK(y[4] == (f == GP_SIGMOID ? 0.5f : 0.0f));
}

/* The bits of a number must not depend on where it stands. */
static void activation_alone(const gp_kernels *kernels, gp_activation f, size_t n, const float *z,
                             const float *y)
{
    for (size_t i = 0; i < n; i++) {
        float one;
        kernels->activation_forward(1, z + i, &one, f, slope_case);
        CHECK_BYTES_EQUAL(sizeof one, &one, y + i);
    }
}

static void activation_forward_case(const gp_kernels *kernels, size_t n, size_t shift,
                                    noise *source)
{
    buffer z = inout_floats(source, n, shift, 4.0), y = output_floats(n, 3 - shift),
           expected = output_floats(n, 0);
    for (gp_activation f = GP_IDENTITY; f < GP_ACTIVATIONS; f++) {
        noise_floats(source, n, z.f, 4.0);
        for (size_t i = 0; i < n; i++)
            expected.f[i] = (float)naive_activation(f, (double)z.f[i], (double)slope_case);
        kernels->activation_forward(n, z.f, y.f, f, slope_case);
        CHECK_FLOATS_NEAR(n, y.f, expected.f, 1e-9, 2e-6);
        activation_alone(kernels, f, n, z.f, y.f);
        kernels->activation_forward(n, z.f, z.f, f, slope_case); /* in place */
        CHECK_BYTES_EQUAL(n * sizeof(float), z.data, y.data);
    }
    CLOSE(z);
    CLOSE(y);
    CLOSE(expected);
}

static void test_activation_forward(const gp_kernels *kernels)
{
    over_sizes(kernels, activation_forward_case);
    for (gp_activation f = GP_IDENTITY; f < GP_ACTIVATIONS; f++) {
        activation_sweep(kernels, f);
        activation_limits(kernels, f);
    }
}

static void activation_backward_case(const gp_kernels *kernels, size_t n, size_t shift,
                                     noise *source)
{
    buffer z = input_floats(source, n, shift, 4.0), y = input_floats(source, n, 3 - shift, 1.0);
    buffer dy = inout_floats(source, n, 1, 2.0), dz = output_floats(n, 2),
           expected = output_floats(n, 0);
    for (gp_activation f = GP_IDENTITY; f < GP_ACTIVATIONS; f++) {
        noise_floats(source, n, dy.f, 2.0);
        if (n > 0) z.f[0] = 0.0f;
        kernels->activation_forward(n, z.f, y.f, f, slope_case);
        for (size_t i = 0; i < n; i++)
            expected.f[i] =
                (float)((double)dy.f[i] * naive_derivative(f, (double)z.f[i], (double)slope_case));
        kernels->activation_backward(n, z.f, y.f, dy.f, dz.f, f, slope_case);
        CHECK_FLOATS_NEAR(n, dz.f, expected.f, 1e-6, 1e-6);
        for (size_t i = 0; i < n; i++) {
            float one;
            kernels->activation_backward(1, z.f + i, y.f + i, dy.f + i, &one, f, slope_case);
            CHECK_BYTES_EQUAL(sizeof one, &one, dz.f + i);
        }
        kernels->activation_backward(n, z.f, y.f, dy.f, dy.f, f, slope_case); /* in place */
        CHECK_BYTES_EQUAL(n * sizeof(float), dy.data, dz.data);
        for (size_t i = 0; i < n; i++) dy.f[i] = NAN;
        kernels->activation_backward(n, z.f, y.f, dy.f, dz.f, f, slope_case);
        for (size_t i = 0; i < n; i++) CHECK(is_float_nan(dz.f[i]));
    }
    CLOSE(z);
    CLOSE(y);
    CLOSE(dy);
    CLOSE(dz);
    CLOSE(expected);
}

/* Huge numbers have a slope, too. */
static void activation_slope_limits(const gp_kernels *kernels)
{
    const float z[4] = {FLT_MAX, -FLT_MAX, 1e4f, -1e4f}, dy[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    for (gp_activation f = GP_IDENTITY; f < GP_ACTIVATIONS; f++) {
        float y[4], dz[4];
        kernels->activation_forward(4, z, y, f, slope_case);
        kernels->activation_backward(4, z, y, dy, dz, f, slope_case);
        for (size_t i = 0; i < 4; i++)
            CHECK_NEAR(dz[i], naive_derivative(f, (double)z[i], (double)slope_case), 1e-9);
    }
}

static void test_activation_backward(const gp_kernels *kernels)
{
    over_sizes(kernels, activation_backward_case);
    activation_slope_limits(kernels);
}

/* ---- dropout --------------------------------------------------------------------------------- */

static float multiplier(uint64_t seed, uint64_t stream, uint64_t element, float rate)
{
    uint32_t words[4];
    gp_philox(seed, stream, element / 4, words);
    return (float)(words[element % 4] >> 8) * 0x1p-24f >= rate ? 1.0f / (1.0f - rate) : 0.0f;
}

static void dropout_case(const gp_kernels *kernels, size_t n, size_t shift, uint64_t first,
                         float rate)
{
    const uint64_t seed = 0x0123456789abcdefu + first, stream = 0xfedcba9876543210u - first;
    buffer out = output_floats(n, shift), expected = output_floats(n, 0);
    for (size_t i = 0; i < n; i++) expected.f[i] = multiplier(seed, stream, first + i, rate);
    kernels->dropout_multipliers(n, out.f, seed, stream, first, rate);
    CHECK_BYTES_EQUAL(n * sizeof(float), out.data, expected.data);
    CLOSE(out);
    CLOSE(expected);
}

/* A number equal to the rate is kept. */
static void dropout_at_the_rate(const gp_kernels *kernels)
{
    float u[64], out[64];
    gp_random_uniform(64, u, 9, 8);
    for (size_t i = 0; i < 64; i++) {
        kernels->dropout_multipliers(64, out, 9, 8, 0, u[i]);
        for (size_t j = 0; j < 64; j++) CHECK((out[j] > 0.0f) == (u[j] >= u[i]));
    }
}

static void test_dropout_multipliers(const gp_kernels *kernels)
{
    const uint64_t firsts[] = {
        0, 1, 2, 3, 4, 63, 64, 65, 1000003, (uint64_t)1 << 34, ((uint64_t)1 << 34) - 7};
    const size_t sizes[] = {0, 1, 3, 4, 5, 61, 62, 63, 64, 65, 127, 128, 129, 300};
    for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            dropout_case(kernels, sizes[s], s % 4, firsts[f], f % 2 ? 0.5f : 0.1f);
    dropout_case(kernels, 1000, 0, 5, 0.0f);
    dropout_case(kernels, 1000, 0, 5, 0.999f);
    dropout_at_the_rate(kernels);
}

/* ---- scale, clamp, mask, penalty ------------------------------------------------------------- */

static void scale_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer x = inout_floats(source, n, shift, 5.0), expected = output_floats(n, 0);
    if (n > 1) x.f[n / 2] = NAN, x.f[0] = -INFINITY;
    for (size_t i = 0; i < n; i++) expected.f[i] = x.f[i] * 0.37f;
    kernels->scale(n, x.f, 0.37f);
    CHECK_FLOATS_NEAR(n, x.f, expected.f, 0.0, 0.0);
    CLOSE(x);
    CLOSE(expected);
}
static void test_scale(const gp_kernels *kernels) { over_sizes(kernels, scale_case); }

static void clamp_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer x = inout_floats(source, n, shift, 2.0), expected = output_floats(n, 0);
    for (size_t i = 0; i < n; i++) {
        if (noise_below(source, 4) == 0) x.f[i] = not_finite(noise_below(source, NOT_FINITE));
        expected.f[i] = x.f[i] > 0.75f ? 0.75f : x.f[i] < -0.75f ? -0.75f : x.f[i];
    }
    kernels->clamp(n, x.f, 0.75f);
    CHECK_FLOATS_NEAR(n, x.f, expected.f, 0.0, 0.0);
    kernels->clamp(n, x.f, INFINITY);
    CHECK_FLOATS_NEAR(n, x.f, expected.f, 0.0, 0.0);
    CLOSE(x);
    CLOSE(expected);
}
static void test_clamp(const gp_kernels *kernels) { over_sizes(kernels, clamp_case); }

/* Any byte but 0 keeps; a removed number becomes +0, whatever it was. */
static void mask_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const uint8_t bytes[4] = {0, 1, 0, 255};
    buffer x = inout_floats(source, n, shift, 1.0), expected = output_floats(n, 0),
           mask = input_bytes(n, 0);
    uint8_t *keep = mask.data;
    for (size_t i = 0; i < n; i++) {
        keep[i] = bytes[noise_below(source, 4)];
        if (noise_below(source, 3) == 0) x.f[i] = not_finite(noise_below(source, NOT_FINITE));
        expected.f[i] = keep[i] ? x.f[i] : 0.0f;
    }
    kernels->mask(n, keep, x.f);
    CHECK_BYTES_EQUAL(n * sizeof(float), x.data, expected.data);
    CLOSE(x);
    CLOSE(expected);
    CLOSE(mask);
}
/* One number out of place is found, wherever it is. */
static void is_masked_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const float wrong[] = {1.0f, -1e-45f, -0.0f, NAN};
    buffer x = inout_floats(source, n, shift, 1.0), mask = input_bytes(n, 0);
    uint8_t *keep = mask.data;
    for (size_t i = 0; i < n; i++) {
        keep[i] = noise_below(source, 3) == 0 ? 7 : 0;
        if (!keep[i]) x.f[i] = 0.0f;
    }
    CHECK(kernels->is_masked(n, keep, x.f));
    for (size_t i = 0; i < n; i++) {
        float own = x.f[i];
        x.f[i] = wrong[i % 4];
        CHECK_INT_EQUAL(kernels->is_masked(n, keep, x.f) != 0, keep[i] != 0);
        x.f[i] = own;
    }
    CLOSE(x);
    CLOSE(mask);
}
static void test_is_masked(const gp_kernels *kernels) { over_sizes(kernels, is_masked_case); }
static void test_mask(const gp_kernels *kernels) { over_sizes(kernels, mask_case); }

static void penalty_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    const double l1 = 0.5, l2 = 0.25;
    buffer w = input_floats(source, n, shift, 1.0), dw = inout_floats(source, n, 3 - shift, 1.0);
    buffer expected = output_floats(n, 0);
    for (size_t i = 0; i < n; i++) {
        if (i % 5 == 0) w.f[i] = i % 2 ? 0.0f : -0.0f;
        expected.f[i] =
            (float)((double)dw.f[i] + l1 * naive_sign((double)w.f[i]) + 2.0 * l2 * (double)w.f[i]);
    }
    kernels->penalty(n, w.f, dw.f, (float)l1, (float)l2);
    CHECK_FLOATS_NEAR(n, dw.f, expected.f, 2e-7, 2e-7);
    CLOSE(w);
    CLOSE(dw);
    CLOSE(expected);
}

/* What is removed has weight 0 and gradient 0, and keeps both. */
static void penalty_of_nothing(const gp_kernels *kernels)
{
    float w[37] = {0}, dw[37] = {0}, zero[37] = {0};
    kernels->penalty(37, w, dw, 0.5f, 0.25f);
    CHECK_BYTES_EQUAL(sizeof dw, dw, zero);
}

static void test_penalty(const gp_kernels *kernels)
{
    over_sizes(kernels, penalty_case);
    penalty_of_nothing(kernels);
}

#endif
