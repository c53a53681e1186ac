/* cases_int8.h - samples as bytes and products of integers, bit by bit against plain C: nothing
 * here may depend on the instruction set. */
#ifndef GP_CASES_INT8_H
#define GP_CASES_INT8_H

#include "cases.h"

/* Of n numbers `step` apart: a factor and a unit and a zero as quantize_row gives them. */
static float naive_bytes(size_t n, size_t step, const float *x, float *scale, int32_t *zero)
{
    float top = 0.0f;
    int is_finite = 1;
    *zero = 0;
    for (size_t i = 0; i < n; i++) {
        is_finite &= isfinite(x[i * step]) != 0;
        top = fmaxf(top, fabsf(x[i * step]));
        if (x[i * step] < 0.0f) *zero = 128;
    }
    const float most = *zero ? 127.0f : 255.0f;
    *scale = !is_finite ? NAN : top < 1e-30f ? 0.0f : top / most;
    return *scale > 0.0f ? most / top : 0.0f;
}

static uint8_t naive_byte(float x, float factor, int32_t zero)
{
    volatile float product = x * factor; /* rounded */
    return (uint8_t)((int32_t)nearbyintf(product) + zero);
}

static int same_scale(float got, float want)
{
    return bits_of(got) == bits_of(want) || (isnan(got) && isnan(want));
}

/* Numbers of all kinds a sample may have. */
static void draw_sample(noise *source, size_t kind, size_t n, size_t step, float *x)
{
    for (size_t i = 0; i < n; i++) {
        float *at = x + i * step;
        noise_floats(source, 1, at, kind == 3 ? 1e-31 : kind == 4 ? 3e38 : 2.0);
        if (kind == 1) *at = fabsf(*at);           /* as after relu */
        if (kind == 2) *at = i % 2 ? -0.0f : 0.0f; /* no negative number */
    }
    if (kind >= 5 && kind < 5 + NOT_FINITE && n > 0) x[(n / 2) * step] = not_finite(kind - 5);
}
enum { SAMPLE_KINDS = 5 + NOT_FINITE };

static void quantize_row_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    for (size_t kind = 0; kind < SAMPLE_KINDS; kind++) {
        buffer x = input_bytes(n * sizeof(float), shift),
               out = output_bytes((n + 63) / 64 * 64, shift);
        float scale = -1.0f, want_scale;
        int32_t zero = -1, want_zero;
        draw_sample(source, kind, n, 1, x.f);
        const float factor = naive_bytes(n, 1, x.f, &want_scale, &want_zero);
        kernels->quantize_row(n, x.f, out.data, &scale, &zero);
        CHECK(same_scale(scale, want_scale));
        CHECK_INT_EQUAL(zero, want_zero);
        for (size_t i = 0; i < n && !isnan(scale); i++)
            CHECK_INT_EQUAL(((uint8_t *)out.data)[i], naive_byte(x.f[i], factor, zero));
        CLOSE(x);
        CLOSE(out);
    }
}
static void test_quantize_row(const gp_kernels *kernels) { over_sizes(kernels, quantize_row_case); }

static void test_quantize_lanes(const gp_kernels *kernels)
{
    noise source = {33};
    const size_t sizes[] = {0, 1, 2, 3, 4, 5, 31};
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++)
        for (size_t P = 16; P <= GP_LANES; P += 16) {
            const size_t features = sizes[c], fours = (features + 3) / 4;
            buffer x = input_bytes(features * P * sizeof(float), 1),
                   out = output_bytes(fours * P * 4, 2);
            buffer scale = output_floats(P, 1), zero = output_bytes(P * sizeof(int32_t), 3);
            for (size_t p = 0; p < P; p++)
                draw_sample(&source, p % SAMPLE_KINDS, features, P, x.f + p);
            kernels->quantize_lanes(features, P, x.f, out.data, scale.f, (int32_t *)zero.data);
            for (size_t p = 0; p < P; p++) {
                float want_scale;
                int32_t want_zero;
                const float factor = naive_bytes(features, P, x.f + p, &want_scale, &want_zero);
                CHECK(same_scale(scale.f[p], want_scale));
                CHECK_INT_EQUAL(((int32_t *)zero.data)[p], want_zero);
                for (size_t f = 0; f < 4 * fours && !isnan(want_scale); f++) {
                    const float number = f < features ? x.f[f * P + p] : 0.0f;
                    CHECK_INT_EQUAL(((uint8_t *)out.data)[(f / 4 * P + p) * 4 + f % 4],
                                    naive_byte(number, factor, want_zero));
                }
            }
            CLOSE(x);
            CLOSE(out);
            CLOSE(scale);
            CLOSE(zero);
        }
}

/* Weights and samples for both products; `extreme`: every product as large as it can be. */
typedef struct int8_case {
    size_t rows, samples, k; /* k bytes a row, a multiple of 64 */
    gp_int8_matrix w;
    buffer weights, sum, unit, bias, x, scale, zero;
} int8_case;

static int8_case int8_open(noise *source, size_t rows, size_t samples, size_t k, int extreme)
{
    int8_case c = {.rows = rows, .samples = samples, .k = k};
    c.weights = input_bytes(rows * k, 0);
    c.sum = input_bytes(rows * sizeof(int32_t), 1);
    c.unit = input_floats(source, rows, 2, 0.01);
    c.bias = input_floats(source, rows, 3, 1.0);
    c.x = input_bytes(samples * k, 1);
    c.scale = input_floats(source, samples, 1, 0.01);
    c.zero = input_bytes(samples * sizeof(int32_t), 2);
    int8_t *weights = (int8_t *)c.weights.data;
    for (size_t i = 0; i < rows * k; i++)
        weights[i] =
            (int8_t)(extreme ? (i / k % 2 ? -127 : 127) : (int)noise_below(source, 255) - 127);
    for (size_t i = 0; i < samples * k; i++)
        ((uint8_t *)c.x.data)[i] = (uint8_t)(extreme ? 255 : noise_below(source, 256));
    for (size_t r = 0; r < rows; r++) {
        int32_t *sum = (int32_t *)c.sum.data + r;
        *sum = 0;
        for (size_t q = 0; q < k; q++) *sum += weights[r * k + q];
    }
    for (size_t s = 0; s < samples; s++) ((int32_t *)c.zero.data)[s] = s % 2 ? 128 : 0;
    c.w = (gp_int8_matrix){k, weights, (int32_t *)c.sum.data, c.unit.f, c.bias.f};
    return c;
}

static void int8_close(int8_case *c)
{
    CLOSE(c->weights);
    CLOSE(c->sum);
    CLOSE(c->unit);
    CLOSE(c->bias);
    CLOSE(c->x);
    CLOSE(c->scale);
    CLOSE(c->zero);
}

static float naive_int8(const int8_case *c, size_t r, size_t s, size_t k)
{
    int64_t sum = 0;
    for (size_t q = 0; q < k; q++)
        sum += (int64_t)c->w.weights[r * c->k + q] * (int64_t)((uint8_t *)c->x.data)[s * c->k + q];
    sum -= (int64_t)((int32_t *)c->zero.data)[s] * c->w.sum[r];
    CHECK(sum >= INT32_MIN && sum <= INT32_MAX);
    volatile float product = (float)sum * (c->unit.f[r] * c->scale.f[s]); /* rounded */
    return product + c->bias.f[r];
}

static void int8_rows_case(const gp_kernels *kernels, noise *source, size_t rows, size_t samples,
                           size_t k, int extreme)
{
    const size_t first = rows > 4 ? 3 : 0, y_row = rows + 2;
    int8_case c = int8_open(source, rows + first, samples, k, extreme);
    buffer y = output_floats(samples * y_row, 1);
    kernels->int8_rows(samples, first, rows, k, &c.w, c.x.data, k, c.scale.f,
                       (int32_t *)c.zero.data, y.f, y_row);
    for (size_t i = 0; i < samples * y_row; i++) {
        const size_t s = i / y_row, r = i % y_row;
        CHECK(bits_of(y.f[i]) ==
              (r < rows ? bits_of(naive_int8(&c, first + r, s, k)) : 0xffffffffu));
    }
    CLOSE(y);
    int8_close(&c);
}

static void test_int8_rows(const gp_kernels *kernels)
{
    noise source = {34};
    for (size_t samples = 0; samples <= 9; samples++)
        for (size_t rows = 0; rows <= 19; rows += samples < 5 ? 1 : 6)
            for (size_t k = 0; k <= 192; k += 64)
                int8_rows_case(kernels, &source, rows, samples, k, 0);
    int8_rows_case(kernels, &source, 2, 2, GP_INT8_MOST, 1);
}

static void int8_lanes_case(const gp_kernels *kernels, noise *source, size_t rows, size_t P,
                            size_t fours, int extreme)
{
    const size_t first = rows > 4 ? 3 : 0;
    int8_case c = int8_open(source, rows + first, P, (4 * fours + 63) / 64 * 64, extreme);
    buffer lanes = input_bytes(fours * P * 4, 1), y = output_floats(rows * P, 1);
    for (size_t p = 0; p < P; p++)
        for (size_t q = 0; q < fours; q++)
            memcpy((char *)lanes.data + (q * P + p) * 4, (char *)c.x.data + p * c.k + 4 * q, 4);
    kernels->int8_lanes(first, rows, P, fours, &c.w, lanes.data, c.scale.f, (int32_t *)c.zero.data,
                        y.f);
    for (size_t i = 0; i < rows * P; i++)
        CHECK(bits_of(y.f[i]) == bits_of(naive_int8(&c, first + i / P, i % P, 4 * fours)));
    CLOSE(lanes);
    CLOSE(y);
    int8_close(&c);
}

static void test_int8_lanes(const gp_kernels *kernels)
{
    noise source = {35};
    for (size_t P = 16; P <= GP_LANES; P += 16)
        for (size_t rows = 0; rows <= 25; rows++)
            for (size_t fours = 0; fours <= 17; fours += fours < 2 ? 1 : 15)
                int8_lanes_case(kernels, &source, rows, P, fours, 0);
    int8_lanes_case(kernels, &source, 2, 16, GP_INT8_MOST / 4, 1);
}

#endif
