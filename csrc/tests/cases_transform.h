/* cases_transform.h - sums, noise, inhibition and quantization of gradients against the formulas in
 * double.
 *
 * Finite numbers must stay finite, zeros zero where the manual says so, and a number must have the
 * same bits wherever it stands. */
#ifndef GP_CASES_TRANSFORM_H
#define GP_CASES_TRANSFORM_H

#include "cases.h"

/* ---- random words ---------------------------------------------------------------------------- */

static uint32_t word_at(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t words[4];
    gp_philox(seed, stream, i / 4, words);
    return words[i % 4];
}

static void random_words_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const uint64_t firsts[] = {0, 3, 64, ((uint64_t)1 << 34) - 2};
    const uint64_t seed = 0x123456789abcdefu, stream = (uint64_t)5 << 60 | 77;
    for (size_t f = 0; f < 4; f++) {
        buffer out = output_bytes(n * sizeof(uint32_t), shift),
               index = input_bytes(n * sizeof(uint32_t), shift);
        buffer expected = output_bytes(n * sizeof(uint32_t), 0);
        uint32_t *want = expected.data, *places = index.data;
        for (size_t i = 0; i < n; i++) want[i] = word_at(seed, stream, firsts[f] + i);
        kernels->random_words(n, NULL, firsts[f], seed, stream, out.data);
        CHECK_BYTES_EQUAL(n * sizeof(uint32_t), out.data, want);
        for (size_t i = 0; i < n; i++) {
            places[i] = (uint32_t)noise_below(source, INT32_MAX);
            want[i] = word_at(seed, stream, firsts[f] + places[i]);
        }
        kernels->random_words(n, places, firsts[f], seed, stream, out.data);
        CHECK_BYTES_EQUAL(n * sizeof(uint32_t), out.data, want);
        CLOSE(out);
        CLOSE(index);
        CLOSE(expected);
    }
}
static void test_random_words(const gp_kernels *kernels) { over_sizes(kernels, random_words_case); }

/* ---- sums ------------------------------------------------------------------------------------ */

static void sum_squares_within_case(const gp_kernels *kernels, size_t n, size_t shift,
                                    noise *source)
{
    static const float limits[] = {0.3f, 1e-30f, 1e30f};
    for (size_t l = 0; l < 3; l++) {
        buffer x = input_floats(source, n, shift, 1.0);
        double want = 0.0;
        for (size_t i = 0; i < n; i++)
            want += pow(fmin(fabs((double)x.f[i]), (double)limits[l]), 2.0);
        CHECK_NEAR(kernels->sum_squares_within(n, x.f, limits[l]), want, want * 1e-13);
        CLOSE(x);
    }
}
static void test_sum_squares_within(const gp_kernels *kernels)
{
    noise source = {9};
    over_sizes(kernels, sum_squares_within_case);
    sum_squares_within_case(kernels, 1000, 1, &source); /* longer than its buffer */
}

static float saturated(double x) { return (float)fmin(fmax(x, -(double)FLT_MAX), (double)FLT_MAX); }

static void add_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer a = inout_floats(source, n, shift, 3.0), b = inout_floats(source, n, 3 - shift, 3.0);
    buffer expected = output_floats(n, 0);
    if (n > 1) a.f[1] = b.f[1] = -FLT_MAX;
    for (size_t i = 0; i < n; i++) expected.f[i] = saturated((double)a.f[i] + (double)b.f[i]);
    two_inputs_give(kernels->add, n, a, b, expected);
}
static void test_add(const gp_kernels *kernels) { over_sizes(kernels, add_case); }

static void subtract_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer x = inout_floats(source, n, shift, 3.0), out = output_floats(n, 3 - shift),
           expected = output_floats(n, 0);
    static const float amounts[] = {0.7f, -FLT_MAX};
    for (size_t j = 0; j < 2; j++) {
        if (n > 0) x.f[0] = FLT_MAX;
        for (size_t i = 0; i < n; i++)
            expected.f[i] = saturated((double)x.f[i] - (double)amounts[j]);
        kernels->subtract(n, x.f, amounts[j], out.f);
        CHECK_BYTES_EQUAL(n * sizeof(float), out.data, expected.data);
    }
    kernels->subtract(n, x.f, amounts[1], x.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), x.data, expected.data);
    CLOSE(x);
    CLOSE(out);
    CLOSE(expected);
}
static void test_subtract(const gp_kernels *kernels) { over_sizes(kernels, subtract_case); }

/* ---- noise ----------------------------------------------------------------------------------- */

/* What share of normal numbers lies below z is what the word says: the inverse, checked
 * forwards. */
static void normal_is_right(const gp_kernels *kernels, uint32_t word)
{
    const float zero = 0.0f;
    float z;
    kernels->add_normal(1, &zero, &word, 1.0f, &z);
    double want = ((double)(word >> 8) + 0.5) * 0x1p-24,
           share = 0.5 * erfc(-(double)z * 0.70710678118654752440);
    /* an error of 1e-6 in z is one of z * 1e-6 in the logarithm of the tail */
    double tail = fmin(want, 1.0 - want),
           got = want < 0.5 ? share : 0.5 * erfc((double)z * 0.70710678118654752440);
    CHECK_NEAR(got, tail, tail * 3e-6 * (1.0 + (double)(z * z)) + 1e-9 * tail);
}

static void add_normal_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer x = inout_floats(source, n, shift, 3.0), out = output_floats(n, 3 - shift);
    buffer words = input_bytes(n * sizeof(uint32_t), shift);
    uint32_t *word = words.data;
    for (size_t i = 0; i < n; i++) word[i] = (uint32_t)noise_below(source, UINT32_MAX);
    kernels->add_normal(n, x.f, word, 0.5f, out.f);
    for (size_t i = 0; i < n; i++) {
        float one;
        kernels->add_normal(1, x.f + i, word + i, 0.5f, &one);
        CHECK_BYTES_EQUAL(sizeof one, &one, out.f + i);
    }
    kernels->add_normal(n, x.f, word, 0.5f, x.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), x.data, out.data);
    CLOSE(x);
    CLOSE(out);
    CLOSE(words);
}

static void test_add_normal(const gp_kernels *kernels)
{
    over_sizes(kernels, add_normal_case);
    const uint32_t step = is_quick() ? 99991u * 256u : 3001u * 256u;
    for (uint64_t word = 0; word <= UINT32_MAX; word += step)
        normal_is_right(kernels, (uint32_t)word);
    normal_is_right(kernels, UINT32_MAX);
    const float ends[2] = {FLT_MAX, -FLT_MAX};
    const uint32_t words[2] = {UINT32_MAX, 0};
    float out[2];
    kernels->add_normal(2, ends, words, FLT_MAX / 8.0f, out);
    CHECK_BYTES_EQUAL(sizeof ends, out, ends);
}

/* ---- inhibition ------------------------------------------------------------------------------ */

static double inhibit_naive(double x, double c, int is_tanh)
{
    return is_tanh ? c * tanh(x / c) : x / (1.0 + fabs(x) / c);
}

static void inhibit_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const double sizes[] = {1.0, 3.4e38, 1e-30};
    static const float limits[] = {0.5f, FLT_MIN, FLT_MAX, 1e20f};
    for (size_t s = 0; s < 12; s++)
        for (int is_tanh = 0; is_tanh < 2; is_tanh++) {
            const float c = limits[s % 4];
            buffer x = inout_floats(source, n, shift, sizes[s % 3]),
                   out = output_floats(n, 3 - shift);
            size_t larger = 0;
            if (n > 1) x.f[1] = 0.0f;
            kernels->inhibit(n, x.f, c, is_tanh, out.f);
            for (size_t i = 0; i < n; i++) {
                double want = inhibit_naive((double)x.f[i], (double)c, is_tanh);
                CHECK_NEAR(out.f[i], want, fabs(want) * 1e-6 + (double)FLT_MIN);
                larger += fabsf(out.f[i]) > fabsf(x.f[i]) || fabsf(out.f[i]) > c;
                larger += (bits_of(out.f[i]) ^ bits_of(x.f[i])) >> 31; /* or another sign */
            }
            CHECK_INT_EQUAL(larger, 0);
            for (size_t i = 0; s == 0 && i < n; i++) {
                x.f[i] = not_finite(i % 2);
                kernels->inhibit(n, x.f, c, is_tanh, x.f);
                CHECK(is_float_nan(x.f[i]));
            }
            CLOSE(x);
            CLOSE(out);
        }
}

/* Larger in, not smaller out. */
static void inhibit_is_monotone(const gp_kernels *kernels, int is_tanh)
{
    float x[64], y[64], last = 0.0f;
    uint32_t bits = 1u << 23;
    size_t down = 0;
    while (bits < INFINITY_BITS) {
        for (size_t i = 0; i < 64; i++, bits += sweep_step())
            x[i] = float_of(bits < INFINITY_BITS ? bits : INFINITY_BITS - 1);
        kernels->inhibit(64, x, 0.37f, is_tanh, y);
        for (size_t i = 0; i < 64; i++) {
            down += y[i] < last;
            last = y[i];
        }
    }
    CHECK_INT_EQUAL(down, 0);
}

static void test_inhibit(const gp_kernels *kernels)
{
    over_sizes(kernels, inhibit_case);
    inhibit_is_monotone(kernels, 0);
    inhibit_is_monotone(kernels, 1);
}

/* ---- quantization ---------------------------------------------------------------------------- */

static float quantize_naive(float x, const uint32_t *word, float unit, float size, float levels)
{
    float y = fminf(fabsf(x) / unit, levels), lower = floorf(y), xi = rintf(y);
    if (word) xi = lower + ((float)(*word >> 8) * 0x1p-24f < y - lower ? 1.0f : 0.0f);
    float made = fminf(fminf(xi, levels) * size, FLT_MAX);
    return xi > 0.0f ? copysignf(made, x) : 0.0f;
}

static void quantize_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const float levels[] = {1.0f, 7.0f, 65536.0f};
    static const double sizes[] = {1.0, 3.4e38};
    for (size_t s = 0; s < 12; s++) {
        const float most = levels[s % 3], unit = (float)(sizes[s % 2] / (double)most),
                    size = s < 6 ? unit : unit / 3.0f;
        buffer x = inout_floats(source, n, shift, sizes[s % 2]), out = output_floats(n, 3 - shift);
        buffer residual = output_floats(n, shift), words = input_bytes(n * sizeof(uint32_t), shift);
        buffer expected = output_floats(n, 0), rest = output_floats(n, 0);
        uint32_t *word = s % 4 < 2 ? words.data : NULL;
        if (n > 2) x.f[1] = 0.0f, x.f[2] = -unit * 0.5f;
        for (size_t i = 0; i < n; i++) {
            ((uint32_t *)words.data)[i] = (uint32_t)noise_below(source, UINT32_MAX);
            expected.f[i] = quantize_naive(x.f[i], word ? word + i : NULL, unit, size, most);
            rest.f[i] = x.f[i] - expected.f[i];
        }
        kernels->quantize(n, x.f, word, unit, size, most, out.f, NULL);
        CHECK_BYTES_EQUAL(n * sizeof(float), out.data, expected.data);
        kernels->quantize(n, x.f, word, unit, size, most, x.f, residual.f); /* in place */
        CHECK_BYTES_EQUAL(n * sizeof(float), x.data, expected.data);
        CHECK_BYTES_EQUAL(n * sizeof(float), residual.data, rest.data);
        CLOSE(x);
        CLOSE(out);
        CLOSE(residual);
        CLOSE(words);
        CLOSE(expected);
        CLOSE(rest);
    }
}
static void test_quantize(const gp_kernels *kernels) { over_sizes(kernels, quantize_case); }

static void scaled_sign_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer x = inout_floats(source, n, shift, 1.0), out = output_floats(n, 3 - shift),
           residual = output_floats(n, shift);
    buffer expected = output_floats(n, 0), rest = output_floats(n, 0);
    if (n > 1) x.f[1] = 0.0f;
    for (size_t i = 0; i < n; i++) {
        expected.f[i] = x.f[i] == 0.0f ? 0.0f : copysignf(0.75f, x.f[i]);
        rest.f[i] = x.f[i] - expected.f[i];
    }
    kernels->scaled_sign(n, x.f, 0.75f, out.f, NULL);
    CHECK_BYTES_EQUAL(n * sizeof(float), out.data, expected.data);
    kernels->scaled_sign(n, x.f, 0.75f, x.f, residual.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), x.data, expected.data);
    CHECK_BYTES_EQUAL(n * sizeof(float), residual.data, rest.data);
    CLOSE(x);
    CLOSE(out);
    CLOSE(residual);
    CLOSE(expected);
    CLOSE(rest);
}
static void test_scaled_sign(const gp_kernels *kernels) { over_sizes(kernels, scaled_sign_case); }

#endif
