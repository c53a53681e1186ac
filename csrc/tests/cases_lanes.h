/* cases_lanes.h - from rows to lanes: a transpose, exact, with zeros where there is no sample, and
 * every number seen. */
#ifndef GP_CASES_LANES_H
#define GP_CASES_LANES_H

#include "cases.h"

static void to_lanes_case(const gp_kernels *kernels, size_t samples, size_t features, size_t lanes,
                          noise *source)
{
    enum { OFFSET = 3 }; /* rows begin there, and stand in no order */
    buffer x = input_floats(source, samples * features + OFFSET, 1, 1.0),
           out = output_floats(features * lanes, 1);
    const float *rows[GP_LANES];
    for (size_t s = 0; s < samples; s++) rows[s] = x.f + (samples - 1 - s) * features;
    CHECK_INT_EQUAL(kernels->to_lanes(samples, features, rows, OFFSET, lanes, out.f), 1);
    size_t wrong = 0;
    for (size_t f = 0; f < features; f++)
        for (size_t p = 0; p < lanes; p++)
            wrong +=
                bits_of(out.f[f * lanes + p]) != (p < samples ? bits_of(rows[p][OFFSET + f]) : 0);
    CHECK_INT_EQUAL(wrong, 0);
    for (size_t i = OFFSET; i < samples * features + OFFSET; i += 1 + i / 7) {
        float before = x.f[i];
        x.f[i] = not_finite(i % NOT_FINITE);
        CHECK_INT_EQUAL(kernels->to_lanes(samples, features, rows, OFFSET, lanes, out.f), 0);
        x.f[i] = FLT_MAX;
        CHECK_INT_EQUAL(kernels->to_lanes(samples, features, rows, OFFSET, lanes, out.f), 1);
        x.f[i] = before;
    }
    CLOSE(x);
    CLOSE(out);
}

static void test_to_lanes(const gp_kernels *kernels)
{
    const size_t features[] = {1, 3, 4, 5, 63, 64, 66, 130}, samples[] = {1, 7, 15, 16, 17, 40, 64};
    noise source = {21};
    for (size_t f = 0; f < sizeof features / sizeof *features; f++)
        for (size_t s = 0; s < sizeof samples / sizeof *samples; s++)
            for (size_t lanes = (samples[s] + 15) / 16 * 16; lanes <= 64; lanes += 16)
                to_lanes_case(kernels, samples[s], features[f], lanes, &source);
}

static void test_broadcast(const gp_kernels *kernels)
{
    noise source = {22};
    for (size_t rows = 0; rows < 5; rows++)
        for (size_t lanes = 16; lanes <= 64; lanes += 16) {
            buffer values = input_floats(&source, rows, 1, 1.0),
                   out = output_floats(rows * lanes, 1);
            kernels->broadcast(rows, lanes, values.f, out.f);
            size_t wrong = 0;
            for (size_t i = 0; i < rows * lanes; i++)
                wrong += bits_of(out.f[i]) != bits_of(values.f[i / lanes]);
            CHECK_INT_EQUAL(wrong, 0);
            CLOSE(values);
            CLOSE(out);
        }
}

#endif
