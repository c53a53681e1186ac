/* cases_gemm.h - the matrix products and the transpose.
 *
 * The product of the largest size is compared with double; every smaller one, and every part of it
 * at any place, must then have exactly the bits of that one, since each number is one chain of
 * multiply-adds whatever the tile. The two other products must have the bits of this one.
 */
#ifndef GP_CASES_GEMM_H
#define GP_CASES_GEMM_H

#include "cases.h"

enum { GEMM_M = 15, GEMM_N = 130, GEMM_K = 70, GEMM_B_ROW = 147 };

typedef struct gemm_input {
    size_t k, a_row, a_col;
    const float *a, *b;
    const float *start; /* (M, N) to add to, or NULL */
} gemm_input;

static size_t gemm_padded(size_t n) { return (n + 15) / 16 * 16; }

/* In the interval of width (b_row) only what the header allows may be read, so b ends where the
 * reading must. */
static buffer gemm_b(noise *source, size_t n, size_t k)
{
    size_t length = k ? (k - 1) * GEMM_B_ROW + gemm_padded(n) : 0;
    return input_floats(source, length, 1, 1.0);
}

static void gemm_against_double(const gemm_input *in, const float *c)
{
    double worst = 0.0;
    for (size_t i = 0; i < GEMM_M; i++) {
        for (size_t j = 0; j < GEMM_N; j++) {
            double sum = in->start ? (double)in->start[i * GEMM_N + j] : 0.0, size = fabs(sum);
            for (size_t q = 0; q < in->k; q++) {
                double term = (double)in->a[i * in->a_row + q * in->a_col] *
                              (double)in->b[q * GEMM_B_ROW + j];
                sum += term;
                size += fabs(term);
            }
            double error =
                fabs((double)c[i * GEMM_N + j] - sum) / ((double)(in->k + 1) * size + DBL_MIN);
            if (!(error <= worst)) worst = error; /* also a NaN */
        }
    }
    /* 2^-24 an addition, and one for the product if it is not fused */
    CHECK_NEAR(worst, 0.0, 6e-8);
}

/* c (m,n) of rows i.. and columns j.., in rows of n + 1, against the same part of `whole` */
static void gemm_part(const gp_kernels *kernels, const gemm_input *in, const float *whole, size_t i,
                      size_t j, size_t m, size_t n)
{
    const size_t c_row = n + 1;
    buffer c = output_floats((m - 1) * c_row + n, (m + n) % 4);
    size_t wrong = 0;
    for (size_t r = 0; in->start && r < m; r++)
        memcpy(c.f + r * c_row, in->start + (i + r) * GEMM_N + j, n * sizeof(float));
    kernels->gemm(m, n, in->k, in->a + i * in->a_row, in->a_row, in->a_col, in->b + j, GEMM_B_ROW,
                  c.f, c_row, in->start != NULL);
    for (size_t r = 0; r < m; r++) {
        wrong += memcmp(c.f + r * c_row, whole + (i + r) * GEMM_N + j, n * sizeof(float)) != 0;
        if (r + 1 < m) wrong += bits_of(c.f[r * c_row + n]) != 0xffffffffu; /* between the rows */
    }
    CHECK_INT_EQUAL(wrong, 0);
    CLOSE(c);
}

static void gemm_parts(const gp_kernels *kernels, const gemm_input *in, const float *whole,
                       noise *source)
{
    const size_t n_step = is_quick() ? 13 : 1, m_step = is_quick() ? 3 : 1;
    for (size_t m = 1; m <= GEMM_M; m += m_step)
        for (size_t n = 1; n <= GEMM_N; n += n_step) gemm_part(kernels, in, whole, 0, 0, m, n);
    for (size_t part = 0; part < (is_quick() ? 5 : 50); part++) {
        size_t i = noise_below(source, GEMM_M), j = noise_below(source, GEMM_N);
        gemm_part(kernels, in, whole, i, j, 1 + noise_below(source, GEMM_M - i),
                  1 + noise_below(source, GEMM_N - j));
    }
}

/* b may be read up to its padded end, and up to 16 more than the part asks when it starts
 * anywhere */
static void gemm_case(const gp_kernels *kernels, size_t k, int by_column, int accumulate, int parts,
                      noise *source)
{
    buffer a = input_floats(source, k * GEMM_M, 1, 1.0), b = gemm_b(source, GEMM_N + 16, k);
    buffer start = input_floats(source, GEMM_M * GEMM_N, 0, 1.0),
           c = output_floats(GEMM_M * GEMM_N, 1);
    gemm_input in = {
        .k = k, .a_row = by_column ? 1 : k, .a_col = by_column ? GEMM_M : 1, .a = a.f, .b = b.f};
    if (accumulate) {
        in.start = start.f;
        memcpy(c.data, start.data, c.bytes);
    }
    kernels->gemm(GEMM_M, GEMM_N, k, in.a, in.a_row, in.a_col, in.b, GEMM_B_ROW, c.f, GEMM_N,
                  accumulate);
    gemm_against_double(&in, c.f);
    if (parts) gemm_parts(kernels, &in, c.f, source);
    CLOSE(a);
    CLOSE(b);
    CLOSE(start);
    CLOSE(c);
}

static void gemm_of_nothing(const gp_kernels *kernels)
{
    float a[4] = {1, 2, 3, 4}, b[64] = {1}, c[4] = {5, 6, 7, 8}, before[4] = {5, 6, 7, 8},
          zero[4] = {0};
    kernels->gemm(0, 4, 1, a, 1, 1, b, 16, c, 4, 0);
    kernels->gemm(4, 0, 1, a, 1, 1, b, 16, c, 1, 0);
    kernels->gemm(1, 4, 0, a, 1, 1, b, 16, c, 4, 1);
    CHECK_BYTES_EQUAL(sizeof c, c, before);
    kernels->gemm(1, 4, 0, a, 1, 1, b, 16, c, 4, 0);
    CHECK_BYTES_EQUAL(sizeof c, c, zero);
}

/* A NaN reaches its row (from a) or its column (from b), and nothing else. */
static void gemm_not_finite(const gp_kernels *kernels, noise *source)
{
    enum { M = 7, N = 40, K = 5, B_ROW = 48 };
    float a[M * K], b[K * B_ROW], c[M * N];
    for (size_t i = 0; i < M; i++) {
        size_t j = (i * 11) % N, wrong = 0;
        noise_floats(source, M * K, a, 1.0);
        noise_floats(source, K * B_ROW, b, 1.0);
        a[i * K + 2] = not_finite(i % NOT_FINITE);
        b[3 * B_ROW + j] = NAN;
        kernels->gemm(M, N, K, a, K, 1, b, B_ROW, c, N, 0);
        for (size_t at = 0; at < M * N; at++)
            wrong += isfinite(c[at]) == (at / N == i || at % N == j);
        CHECK_INT_EQUAL(wrong, 0);
    }
}

static void test_gemm(const gp_kernels *kernels)
{
    noise source = {2};
    for (size_t k = 0; k <= GEMM_K; k += is_quick() ? 7 : 1)
        for (int which = 0; which < 4; which++)
            gemm_case(kernels, k, which & 1, which >> 1, k < 4 || k == 17 || k == GEMM_K, &source);
    gemm_of_nothing(kernels);
    gemm_not_finite(kernels, &source);
}

/* Rows of a, `wide` apart, are the columns of a narrow one, for the plain product. */
static void gemm_transposed_case(const gp_kernels *kernels, size_t pieces, size_t m, size_t lanes,
                                 size_t k, size_t wide, int accumulate, noise *source)
{
    const size_t b_piece = k * lanes + 5, c_piece = m * lanes + 3;
    buffer a = input_floats(source, k ? (k - 1) * wide + m : 0, 1, 1.0),
           b = input_floats(source, (pieces - 1) * b_piece + k * lanes, 2, 1.0);
    const size_t length = (pieces - 1) * c_piece + m * lanes;
    buffer c = output_floats(length, 1), want = output_floats(length, 3);
    float *narrow = allocated((m * k + 1) * sizeof *narrow);
    for (size_t i = 0; i < m; i++)
        for (size_t q = 0; q < k; q++) narrow[i * k + q] = a.f[q * wide + i];
    for (size_t s = 0; s < pieces; s++) {
        for (size_t at = 0; accumulate && at < m * lanes; at++)
            c.f[s * c_piece + at] = want.f[s * c_piece + at] = (float)at * 0.25f;
        kernels->gemm(m, lanes, k, narrow, k, 1, b.f + s * b_piece, lanes, want.f + s * c_piece,
                      lanes, accumulate);
    }
    kernels->gemm_transposed(pieces, m, lanes, k, a.f, wide, b.f, b_piece, c.f, c_piece,
                             accumulate);
    CHECK_BYTES_EQUAL(c.bytes, c.f, want.f);
    free(narrow);
    CLOSE(a);
    CLOSE(b);
    CLOSE(c);
    CLOSE(want);
}

/* Around the sizes of the blocks that are packed, of an a that is and one that is not. */
static void test_gemm_transposed(const gp_kernels *kernels)
{
    static const size_t ms[] = {1, 6, 7, 42, 43, 47, 48, 49, 101}, lanes[] = {16, 32, 48, 64, 80},
                        depths[][2] = {{0, 520},   {1, 33000}, {2, 33000}, {5, 104},  {127, 520},
                                       {128, 520}, {129, 520}, {260, 520}, {8200, 8}, {11000, 3}};
    noise source = {5};
    for (size_t d = 0; d < 10; d++)
        for (size_t i = 0; i < (is_quick() ? 3 : 9); i++) {
            const size_t k = depths[d][0], wide = depths[d][1], m = ms[is_quick() ? 4 * i : i];
            const size_t which = d * 9 + i;
            gemm_transposed_case(kernels, 1 + which % 3, m < wide ? m : wide, lanes[which % 5], k,
                                 wide, which % 2 == 0, &source);
        }
}

/* b turned, for the plain product piece by piece. Lanes past the valid ones are NaN. */
static void gemm_over_lanes_case(const gp_kernels *kernels, size_t pieces, size_t m, size_t n,
                                 size_t lanes, size_t valid, int accumulate, noise *source)
{
    const size_t a_piece = m * lanes + 3, b_piece = n * lanes + 5, c_row = n + 1;
    buffer a = input_floats(source, (pieces - 1) * a_piece + m * lanes, 1, 1.0),
           b = input_floats(source, (pieces - 1) * b_piece + n * lanes, 2, 1.0);
    buffer c = output_floats((m - 1) * c_row + n, 1), want = output_floats((m - 1) * c_row + n, 3);
    float *turned = allocated((valid * gemm_padded(n) + 1) * sizeof *turned);
    memset(turned, 0, valid * gemm_padded(n) * sizeof *turned);
    for (size_t i = 0; accumulate && i < m; i++)
        for (size_t j = 0; j < n; j++)
            c.f[i * c_row + j] = want.f[i * c_row + j] = (float)(i + j) * 0.25f;
    for (size_t s = 0; s < pieces; s++) {
        for (size_t i = 0; i < m; i++)
            for (size_t p = valid; p < lanes; p++) a.f[s * a_piece + i * lanes + p] = NAN;
        for (size_t j = 0; j < n; j++)
            for (size_t p = 0; p < lanes; p++) {
                float *at = b.f + s * b_piece + j * lanes + p;
                if (p >= valid) *at = NAN;
                else turned[p * gemm_padded(n) + j] = *at;
            }
        kernels->gemm(m, n, valid, a.f + s * a_piece, lanes, 1, turned, gemm_padded(n), want.f,
                      c_row, accumulate || s > 0);
    }
    kernels->gemm_over_lanes(pieces, m, n, lanes, valid, a.f, a_piece, b.f, b_piece, c.f, c_row,
                             accumulate);
    CHECK_BYTES_EQUAL(c.bytes, c.f, want.f);
    free(turned);
    CLOSE(a);
    CLOSE(b);
    CLOSE(c);
    CLOSE(want);
}

static void test_gemm_over_lanes(const gp_kernels *kernels)
{
    static const size_t ms[] = {1, 2, 5, 6, 7, 13},
                        ns[] = {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 130},
                        pieces[] = {1, 2, 4, 5, 9};
    noise source = {7};
    for (size_t lanes = 16; lanes <= 64; lanes += 16)
        for (size_t j = 0; j < 16; j += is_quick() ? 3 : 1)
            for (size_t i = 0; i < 6; i++) {
                const size_t valids[] = {lanes, lanes - 1, 1, 0, lanes - 5};
                gemm_over_lanes_case(kernels, pieces[(i + j) % 5], ms[i], ns[j], lanes,
                                     valids[(2 * i + j) % 5], (int)(i + j) % 2, &source);
            }
    float one[16] = {1}, kept[2] = {5, 6};
    kernels->gemm_over_lanes(1, 0, 1, 16, 16, one, 16, one, 16, kept, 1, 0);
    kernels->gemm_over_lanes(1, 1, 0, 16, 16, one, 16, one, 16, kept, 1, 0);
    CHECK_NEAR(kept[0] + kept[1], 11.0, 0.0);
}

static void transpose_case(const gp_kernels *kernels, size_t rows, size_t columns, noise *source)
{
    const size_t in_row = columns + 3, out_row = rows + 2;
    buffer in = input_floats(source, rows ? (rows - 1) * in_row + columns : 0, rows % 4, 1.0);
    buffer out = output_floats(columns ? (columns - 1) * out_row + rows : 0, columns % 4);
    size_t wrong = 0;
    if (rows * columns > 0) in.f[(rows - 1) * in_row] = NAN;
    kernels->transpose(rows, columns, in.f, in_row, out.f, out_row);
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < out_row && c * out_row + r < out.bytes / sizeof(float); r++) {
            uint32_t want = r < rows ? bits_of(in.f[r * in_row + c]) : 0xffffffffu;
            wrong += bits_of(out.f[c * out_row + r]) != want;
        }
    CHECK_INT_EQUAL(wrong, 0);
    CLOSE(in);
    CLOSE(out);
}

static void test_transpose(const gp_kernels *kernels)
{
    noise source = {3};
    for (size_t rows = 0; rows < 20; rows++)
        for (size_t columns = 0; columns < 20; columns++)
            transpose_case(kernels, rows, columns, &source);
    transpose_case(kernels, 64, 100, &source);
    transpose_case(kernels, 101, 33, &source);
}

#endif
