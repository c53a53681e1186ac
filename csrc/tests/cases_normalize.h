/* cases_normalize.h - normalization of channels, and of samples, against the formulas in double.
 *
 * Lanes without a sample hold NaN: they must not count, and come out as 0. */
#ifndef GP_CASES_NORMALIZE_H
#define GP_CASES_NORMALIZE_H

#include "cases.h"

typedef void channel_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid,
                          noise *source);

static void over_channels(const gp_kernels *kernels, channel_case *run)
{
    static const size_t rows[] = {0, 1, 2, 9};
    noise source = {31};
    for (size_t r = 0; r < 4; r++)
        for (size_t lanes = 16; lanes <= 64; lanes += 16)
            for (size_t valid = 0; valid <= lanes; valid++)
                if (!is_quick() || valid % 5 == 1 || valid == lanes)
                    run(kernels, rows[r], lanes, valid, &source);
}

/* Numbers around 1000, NaN where there is no sample. */
static buffer channel_new(size_t rows, size_t lanes, size_t valid, noise *source)
{
    buffer x = input_floats(source, rows * lanes, 0, 1.0);
    for (size_t i = 0; i < rows * lanes; i++)
        x.f[i] = i % lanes < valid ? x.f[i] + 1000.0f : (float)NAN;
    return x;
}

static void shifted_sums_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid,
                              noise *source)
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
static void test_shifted_sums(const gp_kernels *kernels)
{
    over_channels(kernels, shifted_sums_case);
}

static void normalize_sums_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid,
                                noise *source)
{
    if (valid < lanes) return; /* it knows of no lanes */
    buffer x = channel_new(rows, lanes, lanes, source),
           dy = input_floats(source, rows * lanes, 0, 1.0);
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
static void test_normalize_sums(const gp_kernels *kernels)
{
    over_channels(kernels, normalize_sums_case);
}

static void normalize_case(const gp_kernels *kernels, size_t rows, size_t lanes, size_t valid,
                           noise *source)
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

static void normalize_backward_case(const gp_kernels *kernels, size_t rows, size_t lanes,
                                    size_t valid, noise *source)
{
    buffer x = channel_new(rows, lanes, valid, source),
           dy = input_floats(source, rows * lanes, 0, 1.0);
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
static void test_normalize_backward(const gp_kernels *kernels)
{
    over_channels(kernels, normalize_backward_case);
}

/* ---- lane by lane ---------------------------------------------------------------------------- */

/* Features of 16 or more lanes that may lie further apart. */
typedef struct samples_case {
    size_t features, stride, lanes;
    buffer x, dy, gamma, beta, mean, inverse;
    double *h, *g; /* (features, lanes) */
} samples_case;

static samples_case samples_new(size_t features, size_t stride, size_t lanes, noise *source)
{
    samples_case c = {.features = features, .stride = stride, .lanes = lanes};
    c.x = input_floats(source, features * stride, 0, 2.0);
    c.dy = input_floats(source, features * stride, 0, 1.0);
    c.gamma = input_floats(source, features, 1, 1.0);
    c.beta = input_floats(source, features, 1, 1.0);
    c.mean = output_floats(lanes, 0);
    c.inverse = output_floats(lanes, 0);
    c.h = allocated(features * lanes * sizeof *c.h);
    c.g = allocated(features * lanes * sizeof *c.g);
    for (size_t p = 0; p < lanes; p++) {
        double sum = 0.0, squares = 0.0, n = (double)features;
        for (size_t f = 0; f < features; f++) c.x.f[f * stride + p] += 50.0f;
        for (size_t f = 0; f < features; f++) sum += (double)c.x.f[f * stride + p];
        for (size_t f = 0; f < features; f++)
            squares += pow((double)c.x.f[f * stride + p] - sum / n, 2.0);
        c.mean.f[p] = (float)(sum / n);
        c.inverse.f[p] = (float)(1.0 / sqrt(squares / n + 1e-3));
        for (size_t f = 0; f < features; f++) {
            c.h[f * lanes + p] =
                ((double)c.x.f[f * stride + p] - (double)c.mean.f[p]) * (double)c.inverse.f[p];
            c.g[f * lanes + p] = (double)c.gamma.f[f] * (double)c.dy.f[f * stride + p];
        }
    }
    return c;
}
static void samples_free(samples_case *c)
{
    CLOSE(c->x);
    CLOSE(c->dy);
    CLOSE(c->gamma);
    CLOSE(c->beta);
    CLOSE(c->mean);
    CLOSE(c->inverse);
    free(c->h);
    free(c->g);
}

static void over_samples(const gp_kernels *kernels,
                         void (*run)(const gp_kernels *, const samples_case *))
{
    static const size_t features[] = {1, 2, 7, 100}, strides[] = {16, 48, 64};
    noise source = {32};
    for (size_t f = 0; f < 4; f++)
        for (size_t s = 0; s < 3; s++)
            for (size_t lanes = 16; lanes <= strides[s]; lanes += 16) {
                samples_case c = samples_new(features[f], strides[s], lanes, &source);
                run(kernels, &c);
                samples_free(&c);
            }
}

static void lane_statistics_case(const gp_kernels *kernels, const samples_case *c)
{
    buffer mean = output_floats(c->lanes, 1), inverse = output_floats(c->lanes, 1);
    kernels->lane_statistics(c->features, c->stride, c->lanes, c->x.f, 1e-3f, mean.f, inverse.f);
    CHECK_FLOATS_NEAR(c->lanes, mean.f, c->mean.f, 1e-6, 1e-6);
    CHECK_FLOATS_NEAR(c->lanes, inverse.f, c->inverse.f, 1e-6, 1e-6);
    CLOSE(mean);
    CLOSE(inverse);
}
static void test_lane_statistics(const gp_kernels *kernels)
{
    over_samples(kernels, lane_statistics_case);
}

static void lane_normalize_case(const gp_kernels *kernels, const samples_case *c)
{
    const size_t size = c->features * c->stride;
    buffer y = output_floats(size, 0);
    kernels->lane_normalize(c->features, c->stride, c->lanes, c->x.f, c->mean.f, c->inverse.f,
                            c->gamma.f, c->beta.f, y.f);
    for (size_t i = 0; i < size; i++) {
        const size_t f = i / c->stride, p = i % c->stride;
        if (p >= c->lanes) CHECK(bits_of(y.f[i]) == UINT32_MAX); /* not touched */
        else
            CHECK_NEAR(y.f[i],
                       c->h[f * c->lanes + p] * (double)c->gamma.f[f] + (double)c->beta.f[f], 1e-6);
    }
    CLOSE(y);
}
static void test_lane_normalize(const gp_kernels *kernels)
{
    over_samples(kernels, lane_normalize_case);
}

static void lane_normalize_backward_case(const gp_kernels *kernels, const samples_case *c)
{
    const size_t size = c->features * c->stride;
    const double n = (double)c->features;
    buffer dx = output_floats(size, 0);
    kernels->lane_normalize_backward(c->features, c->stride, c->lanes, c->x.f, c->mean.f,
                                     c->inverse.f, c->gamma.f, c->dy.f, dx.f);
    for (size_t p = 0; p < c->stride; p++) {
        double mean_g = 0.0, mean_gh = 0.0;
        for (size_t f = 0; p < c->lanes && f < c->features; f++) {
            mean_g += c->g[f * c->lanes + p] / n;
            mean_gh += c->g[f * c->lanes + p] * c->h[f * c->lanes + p] / n;
        }
        for (size_t f = 0; f < c->features; f++) {
            const size_t i = f * c->stride + p, at = f * c->lanes + p;
            if (p >= c->lanes) CHECK(bits_of(dx.f[i]) == UINT32_MAX);
            else {
                const double scale = (double)c->inverse.f[p];
                CHECK_NEAR(dx.f[i], scale * (c->g[at] - mean_g - c->h[at] * mean_gh),
                           1e-6 * (1.0 + scale));
            }
        }
    }
    CLOSE(dx);
}
static void test_lane_normalize_backward(const gp_kernels *kernels)
{
    over_samples(kernels, lane_normalize_backward_case);
}

static void lane_normalize_sums_case(const gp_kernels *kernels, const samples_case *c)
{
    if (c->lanes < c->stride) return; /* whole rows */
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        buffer dgamma = output_floats(c->features, 1), dbeta = output_floats(c->features, 1);
        for (size_t f = 0; f < c->features && accumulate; f++)
            dgamma.f[f] = 1.0f, dbeta.f[f] = 2.0f;
        kernels->lane_normalize_sums(c->features, c->lanes, c->x.f, c->mean.f, c->inverse.f,
                                     c->dy.f, dgamma.f, dbeta.f, accumulate);
        for (size_t f = 0; f < c->features; f++) {
            double want[2] = {accumulate ? 1.0 : 0.0, accumulate ? 2.0 : 0.0};
            for (size_t p = 0; p < c->lanes; p++) {
                want[0] += (double)c->dy.f[f * c->stride + p] * c->h[f * c->lanes + p];
                want[1] += (double)c->dy.f[f * c->stride + p];
            }
            CHECK_NEAR(dgamma.f[f], want[0], 1e-5);
            CHECK_NEAR(dbeta.f[f], want[1], 1e-5);
        }
        CLOSE(dgamma);
        CLOSE(dbeta);
    }
}
static void test_lane_normalize_sums(const gp_kernels *kernels)
{
    over_samples(kernels, lane_normalize_sums_case);
}

#endif
