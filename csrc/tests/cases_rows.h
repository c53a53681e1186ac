/* cases_rows.h - products for a few samples, against sums in double. A number's bits must not
 * depend on how many samples or rows are computed beside it. */
#ifndef GP_CASES_ROWS_H
#define GP_CASES_ROWS_H

#include "cases.h"

static void dense_rows_case(const gp_kernels *kernels, size_t samples, size_t rows, size_t k,
                            noise *source)
{
    const size_t w_row = k + 16, x_row = k + 1, y_row = rows + 3;
    buffer w = input_floats(source, rows * w_row, 1, 1.0),
           x = input_floats(source, samples * x_row, 2, 1.0);
    buffer bias = input_floats(source, rows, 1, 1.0), y = output_floats(samples * y_row, 1),
           one = output_floats(1, 1);
    double worst = 0.0;
    kernels->dense_rows(samples, rows, k, w.f, w_row, bias.f, x.f, x_row, y.f, y_row);
    for (size_t s = 0; s < samples; s++)
        for (size_t r = 0; r < rows; r++) {
            double sum = (double)bias.f[r], size = fabs(sum);
            for (size_t q = 0; q < k; q++) {
                double term = (double)w.f[r * w_row + q] * (double)x.f[s * x_row + q];
                sum += term;
                size += fabs(term);
            }
            double error = fabs((double)y.f[s * y_row + r] - sum) / ((double)(k + 1) * size);
            if (!(error <= worst)) worst = error;
            kernels->dense_rows(1, 1, k, w.f + r * w_row, w_row, bias.f + r, x.f + s * x_row, x_row,
                                one.f, 1);
            CHECK(bits_of(one.f[0]) == bits_of(y.f[s * y_row + r]));
        }
    CHECK_NEAR(worst, 0.0, 6e-8);
    for (size_t i = 0; i < samples * y_row; i++)
        if (i % y_row >= rows) CHECK(bits_of(y.f[i]) == 0xffffffffu);
    CLOSE(w);
    CLOSE(x);
    CLOSE(bias);
    CLOSE(y);
    CLOSE(one);
}

static void test_dense_rows(const gp_kernels *kernels)
{
    noise source = {31};
    for (size_t samples = 0; samples <= 9; samples++)
        for (size_t rows = 1; rows <= 18; rows += samples < 5 ? 1 : 5)
            for (size_t k = 16; k <= 80; k += 32)
                dense_rows_case(kernels, samples, rows, k, &source);
}

enum { SLICED_COLUMNS = 29, SLICES = 3, SLICED_ROWS = SLICES * GP_SLICE };

static void test_sliced_rows(const gp_kernels *kernels)
{
    noise source = {32};
    for (uint32_t longest = 0; longest < 8; longest++) {
        uint32_t start[SLICES + 1] = {0, longest, longest + longest / 2, 2 * longest},
                                row[SLICED_ROWS];
        const size_t count = (size_t)start[SLICES] * GP_SLICE;
        buffer list = input_bytes(count * sizeof(uint32_t), 1),
               values = input_floats(&source, count, 2, 1.0);
        buffer bias = input_floats(&source, SLICED_ROWS, 1, 1.0),
               x = input_floats(&source, SLICED_COLUMNS, 3, 1.0);
        buffer y = output_floats(SLICED_ROWS, 1);
        uint32_t *index = list.data;
        for (size_t i = 0; i < count; i++)
            index[i] = (uint32_t)noise_below(&source, SLICED_COLUMNS);
        /* a permutation */
        for (size_t l = 0; l < SLICED_ROWS; l++) row[l] = (uint32_t)((5 * l + 7) % SLICED_ROWS);
        kernels->sliced_rows(SLICES, start, index, values.f, row, bias.f, x.f, y.f);
        for (size_t l = 0; l < SLICED_ROWS; l++) {
            double sum = (double)bias.f[l];
            for (size_t j = start[l / GP_SLICE]; j < start[l / GP_SLICE + 1]; j++) {
                size_t at = j * GP_SLICE + l % GP_SLICE;
                sum += (double)values.f[at] * (double)x.f[index[at]];
            }
            CHECK_NEAR(y.f[row[l]], sum, 1e-6 * (1 + longest));
        }
        CLOSE(list);
        CLOSE(values);
        CLOSE(bias);
        CLOSE(x);
        CLOSE(y);
    }
}

static void softmax_row_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer z = inout_floats(source, n, shift, 30.0), y = output_floats(n, shift);
    double lane[100], want[100], worst = 0.0;
    for (size_t i = 0; i < n; i++) lane[i] = (double)z.f[i];
    naive_softmax(n, lane, want);
    kernels->softmax_row(n, z.f, y.f);
    for (size_t i = 0; i < n; i++) worst = fmax(worst, relative_error((double)y.f[i], want[i]));
    CHECK_NEAR(worst, 0.0, 8e-6); /* z - max is rounded */
    kernels->softmax_row(n, z.f, z.f);
    CHECK_BYTES_EQUAL(n * sizeof(float), z.data, y.data);
    if (n > 0) { /* as the lanes do: all are NaN if one is */
        z.f[n / 2] = NAN;
        kernels->softmax_row(n, z.f, y.f);
        for (size_t i = 0; i < n; i++) CHECK(is_float_nan(y.f[i]));
    }
    CLOSE(z);
    CLOSE(y);
}

static void test_softmax_row(const gp_kernels *kernels) { over_sizes(kernels, softmax_row_case); }

#endif
