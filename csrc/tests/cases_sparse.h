/* cases_sparse.h - products over lists of live weights, against sums in double.
 *
 * A row's bits must not depend on the rows beside it, and a lane's not on how many lanes there are:
 * threads share rows and batches fill lanes.
 */
#ifndef GP_CASES_SPARSE_H
#define GP_CASES_SPARSE_H

#include "cases.h"

enum { SPARSE_ROWS = 9, SPARSE_COLUMNS = 37 };

typedef struct sparse_input {
    size_t count;
    uint32_t start[SPARSE_ROWS + 1], index[SPARSE_ROWS * SPARSE_COLUMNS];
    float values[SPARSE_ROWS * SPARSE_COLUMNS];
} sparse_input;

/* Row r has r + more entries or as many as there are columns: empty rows, short rows, a full
 * one. */
static void sparse_fill(sparse_input *in, size_t more, noise *source)
{
    in->count = 0;
    for (size_t r = 0; r < SPARSE_ROWS; r++) {
        size_t left = r + 1 == SPARSE_ROWS
                          ? SPARSE_COLUMNS
                          : (r + more < SPARSE_COLUMNS ? r + more : SPARSE_COLUMNS);
        in->start[r] = (uint32_t)in->count;
        for (size_t c = 0; c < SPARSE_COLUMNS; c++) {
            if (noise_below(source, SPARSE_COLUMNS - c) >= left) continue;
            left--;
            in->index[in->count++] = (uint32_t)c;
        }
    }
    in->start[SPARSE_ROWS] = (uint32_t)in->count;
    noise_floats(source, in->count, in->values, 1.0);
}

static double sparse_error(const sparse_input *in, size_t r, size_t p, size_t lanes, const float *b,
                           double from, float got)
{
    double sum = from, size = fabs(from);
    for (size_t k = in->start[r]; k < in->start[r + 1]; k++) {
        double term = (double)in->values[k] * (double)b[in->index[k] * lanes + p];
        sum += term;
        size += fabs(term);
    }
    return fabs((double)got - sum) /
           ((double)(in->start[r + 1] - in->start[r] + 1) * size + DBL_MIN);
}

static void sparse_product_case(const gp_kernels *kernels, const sparse_input *in, size_t lanes,
                                int accumulate, noise *source)
{
    buffer b = input_floats(source, SPARSE_COLUMNS * lanes, 1, 1.0);
    buffer c = inout_floats(source, SPARSE_ROWS * lanes, 1, 1.0),
           part = output_floats(SPARSE_ROWS * lanes, 2);
    float *before = allocated(c.bytes);
    double worst = 0.0;
    memcpy(before, c.f, c.bytes);
    kernels->sparse_product(SPARSE_ROWS, lanes, in->start, in->index, in->values, b.f, c.f,
                            accumulate);
    for (size_t r = 0; r < SPARSE_ROWS; r++)
        for (size_t p = 0; p < lanes; p++) {
            double from = accumulate ? (double)before[r * lanes + p] : 0.0;
            double error = sparse_error(in, r, p, lanes, b.f, from, c.f[r * lanes + p]);
            if (!(error <= worst)) worst = error;
        }
    CHECK_NEAR(worst, 0.0, 6e-8);
    for (size_t first = 0; first < SPARSE_ROWS; first += 2) { /* some of the rows */
        size_t rows = SPARSE_ROWS - first;
        memcpy(part.f, before + first * lanes, rows * lanes * sizeof(float));
        kernels->sparse_product(rows, lanes, in->start + first, in->index, in->values, b.f, part.f,
                                accumulate);
        CHECK_BYTES_EQUAL(rows * lanes * sizeof(float), part.f, c.f + first * lanes);
    }
    if (lanes == 64) { /* the first 16 lanes alone */
        float narrow[SPARSE_COLUMNS * 16], out[SPARSE_ROWS * 16];
        for (size_t r = 0; r < SPARSE_COLUMNS; r++)
            memcpy(narrow + r * 16, b.f + r * 64, 16 * sizeof(float));
        for (size_t r = 0; r < SPARSE_ROWS; r++)
            memcpy(out + r * 16, before + r * 64, 16 * sizeof(float));
        kernels->sparse_product(SPARSE_ROWS, 16, in->start, in->index, in->values, narrow, out,
                                accumulate);
        for (size_t r = 0; r < SPARSE_ROWS; r++)
            CHECK_BYTES_EQUAL(16 * sizeof(float), out + r * 16, c.f + r * 64);
    }
    free(before);
    CLOSE(b);
    CLOSE(c);
    CLOSE(part);
}

static void test_sparse_product(const gp_kernels *kernels)
{
    noise source = {11};
    for (size_t more = 0; more < 12; more += 3) {
        sparse_input in;
        sparse_fill(&in, more, &source);
        for (size_t lanes = 16; lanes <= 64; lanes += 16)
            for (int accumulate = 0; accumulate < 2; accumulate++)
                sparse_product_case(kernels, &in, lanes, accumulate, &source);
    }
}

/* Rows in fours with the same indices: the same sums as row by row, and a four's bits depend on
 * nothing beside it. */
static void sparse_fours_case(const gp_kernels *kernels, size_t count, size_t lanes, int accumulate,
                              noise *source)
{
    enum { FOURS = 3, ROWS = 4 * FOURS };
    sparse_input in = {.count = 0};
    uint32_t start[ROWS + 1] = {0}, index[ROWS * SPARSE_COLUMNS];
    buffer values = input_floats(source, ROWS * count, 1, 1.0),
           b = input_floats(source, SPARSE_COLUMNS * lanes, 2, 1.0);
    buffer c = inout_floats(source, ROWS * lanes, 3, 1.0), part = output_floats(ROWS * lanes, 0);
    float *before = allocated(c.bytes);
    memcpy(before, c.f, c.bytes);
    memcpy(part.f, c.f, c.bytes);
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t k = 0; k < count; k++)
            index[start[r] + k] = (uint32_t)((k * 3 + r / 4) % SPARSE_COLUMNS);
        start[r + 1] = (uint32_t)(start[r] + count);
    }
    memcpy(in.start, start, sizeof in.start); /* for sparse_error, which looks at nine rows */
    memcpy(in.index, index, 9 * count * sizeof *index);
    memcpy(in.values, values.f, 9 * count * sizeof(float));
    kernels->sparse_product_fours(FOURS, lanes, start, index, values.f, b.f, c.f, accumulate);
    double worst = 0.0;
    for (size_t r = 0; r < 9; r++)
        for (size_t p = 0; p < lanes; p++) {
            double from = accumulate ? (double)before[r * lanes + p] : 0.0;
            double error = sparse_error(&in, r, p, lanes, b.f, from, c.f[r * lanes + p]);
            if (!(error <= worst)) worst = error;
        }
    CHECK_NEAR(worst, 0.0, 6e-8);
    for (size_t four = 0; four < FOURS; four++)
        kernels->sparse_product_fours(1, lanes, start + 4 * four, index, values.f, b.f,
                                      part.f + 4 * four * lanes, accumulate);
    CHECK_BYTES_EQUAL(c.bytes, part.f, c.f);
    free(before);
    CLOSE(values);
    CLOSE(b);
    CLOSE(c);
    CLOSE(part);
}

static void test_sparse_product_fours(const gp_kernels *kernels)
{
    noise source = {15};
    for (size_t count = 0; count <= 9; count++)
        for (size_t lanes = 16; lanes <= 64; lanes += 16)
            for (int accumulate = 0; accumulate < 2; accumulate++)
                sparse_fours_case(kernels, count, lanes, accumulate, &source);
}

static void sparse_dot_case(const gp_kernels *kernels, const sparse_input *in, size_t lanes,
                            int accumulate, noise *source)
{
    const size_t count = in->start[SPARSE_ROWS];
    buffer dy = input_floats(source, SPARSE_ROWS * lanes, 1, 1.0),
           x = input_floats(source, SPARSE_COLUMNS * lanes, 2, 1.0);
    buffer out = inout_floats(source, count, 3, 1.0), part = output_floats(count, 0);
    float *before = allocated((count + 1) * sizeof *before);
    memcpy(before, out.f, count * sizeof(float));
    kernels->sparse_dot(SPARSE_ROWS, lanes, in->start, in->index, dy.f, x.f, out.f, accumulate);
    for (size_t r = 0; r < SPARSE_ROWS; r++)
        for (size_t k = in->start[r]; k < in->start[r + 1]; k++) {
            double sum = accumulate ? (double)before[k] : 0.0, size = fabs(sum);
            for (size_t p = 0; p < lanes; p++) {
                double term = (double)dy.f[r * lanes + p] * (double)x.f[in->index[k] * lanes + p];
                sum += term;
                size += fabs(term);
            }
            CHECK_NEAR(((double)out.f[k] - sum) / size, 0.0, 6e-8 * (double)lanes);
        }
    memcpy(part.f, before, count * sizeof(float));
    for (size_t r = 0; r < SPARSE_ROWS; r++) /* row by row */
        kernels->sparse_dot(1, lanes, in->start + r, in->index, dy.f + r * lanes, x.f, part.f,
                            accumulate);
    CHECK_BYTES_EQUAL(count * sizeof(float), part.f, out.f);
    free(before);
    CLOSE(dy);
    CLOSE(x);
    CLOSE(out);
    CLOSE(part);
}

static void test_sparse_dot(const gp_kernels *kernels)
{
    noise source = {12};
    for (size_t more = 0; more < 24; more += 3) {
        sparse_input in;
        sparse_fill(&in, more, &source);
        for (size_t lanes = 16; lanes <= 64; lanes += 16)
            for (int accumulate = 0; accumulate < 2; accumulate++)
                sparse_dot_case(kernels, &in, lanes, accumulate, &source);
    }
}

/* Any order of the places; nothing else is touched. */
static void places_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    const size_t wide = 3 * n + 5;
    buffer whole = input_floats(source, wide, shift, 1.0), few = output_floats(n, shift),
           list = input_bytes(n * 4, 0);
    buffer target = output_floats(wide, shift), expected = output_floats(wide, 0);
    uint32_t *index = list.data;
    for (size_t k = 0; k < n; k++) index[k] = (uint32_t)(3 * (n - 1 - k) + noise_below(source, 3));
    kernels->gather(n, index, whole.f, few.f);
    memcpy(expected.f, target.f, wide * sizeof(float));
    kernels->scatter(n, index, few.f, target.f);
    for (size_t k = 0; k < n; k++) {
        CHECK(bits_of(few.f[k]) == bits_of(whole.f[index[k]]));
        expected.f[index[k]] = whole.f[index[k]];
    }
    CHECK_BYTES_EQUAL(wide * sizeof(float), target.f, expected.f);
    CLOSE(whole);
    CLOSE(few);
    CLOSE(list);
    CLOSE(target);
    CLOSE(expected);
}
static void test_gather(const gp_kernels *kernels) { over_sizes(kernels, places_case); }
static void test_scatter(const gp_kernels *kernels) { over_sizes(kernels, places_case); }

#endif
