/* int8.h - products of 8-bit integers, exact in 32 bits: what the Dense layers of a frozen network
 * run on that was asked for int8 (layers/dense_frozen_int8.c).
 *
 * Weights are signed bytes with a scale a row, samples unsigned bytes with a scale and a zero a
 * sample. Four neighbouring products are one lane of a vector, which is one instruction where there
 * is VNNI and two multiplications of 16 bits elsewhere. Integers add up to the same in any order,
 * and floats are rounded here as on every instruction set: neither that nor the batch a sample is
 * in changes a bit.
 */
#ifndef GP_INT8_KERNELS_H
#define GP_INT8_KERNELS_H

#include <string.h>

#include "kernels/fold.h"
#include "kernels/kernels.h"
#include "kernels/vector.h"

typedef uint32_t vuint __attribute__((vector_size(4 * GP_V)));
typedef int16_t vshort __attribute__((vector_size(4 * GP_V)));
typedef uint16_t vushort __attribute__((vector_size(4 * GP_V)));

/* Lanes of 32 bits: the sum of both products of 16 bits. GCC 12 does not find the instruction by
 * itself. */
static inline vint v_multiply_pairs(vint a, vint b)
{
#if defined(GP_ISA_AVX512)
    return (vint)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(GP_ISA_AVX2)
    return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (vint)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return ((vint)((vuint)a << 16) >> 16) * ((vint)((vuint)b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

/* Lane by lane: sum + the four products of unsigned and signed bytes. The instruction of AVX2 for
 * it adds pairs in 16 bits, which 2 * 255 * 127 does not fit. */
static inline vint v_add_products(vint sum, vint bytes, vint weights)
{
#if defined(GP_ISA_AVX512VNNI)
    return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, (__m512i)weights);
#else
    vint even = bytes & 0x00ff00ff, odd = (vint)((vuint)bytes >> 8) & 0x00ff00ff;
    vint even_weights = (vint)((vshort)((vushort)weights << 8) >> 8),
         odd_weights = (vint)((vshort)weights >> 8);
    return sum + v_multiply_pairs(even, even_weights) + v_multiply_pairs(odd, odd_weights);
#endif
}

/* ---- samples as bytes ------------------------------------------------------------------------ */

/* Samples whose largest |x| is smaller count as 0: 255 over it could be infinite. */
#define GP_INT8_LEAST 1e-30f
/* 1.5 * 2^23: added to a number, it leaves the nearest integer in the last bits, ties to even. */
#define GP_INT8_ROUND 12582912.0f

/* From the bits of the largest |x| and whether any is negative: what to multiply with and what a
 * unit is worth. */
static inline float bytes_factor(int32_t top_bits, int is_signed, float *scale)
{
    union {
        int32_t bits;
        float value;
    } top = {top_bits};
    const float most = is_signed ? 127.0f : 255.0f;
    if (top.bits >= 0x7f800000) *scale = top.value - top.value; /* NaN */
    else if (top.value >= GP_INT8_LEAST) *scale = top.value / most;
    else *scale = 0.0f;
    return *scale > 0.0f ? most / top.value : 0.0f;
}

/* The largest |x| as bits, see max_abs, and all ones where an x is negative. */
static inline void add_to_range(vfloat x, vint *top, vint *negative)
{
    vint bits = (vint)v_abs(x), more = bits > *top;
    *top = (bits & more) | (*top & ~more);
    *negative |= x < 0.0f;
}

/* In the last byte of each lane. */
static inline vint v_bytes(vfloat x, vfloat factor, vfloat round)
{
    return (vint)(v_rounded(x * factor) + round);
}

static void quantize_row(size_t n, const float *x, uint8_t *out, float *scale, int32_t *zero)
{
    enum { BLOCK = 64 };
    vint top = {0}, negative = {0};
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) add_to_range(v_load(x + i), &top, &negative);
    if (i < n) add_to_range(v_load_part(x + i, n - i), &top, &negative);
    int32_t top_bits = 0, is_signed = 0;
    for (size_t l = 0; l < GP_V; l++) {
        top_bits = top[l] > top_bits ? top[l] : top_bits;
        is_signed |= negative[l];
    }
    *zero = is_signed ? 128 : 0;
    const vfloat factor = v_splat(bytes_factor(top_bits, is_signed, scale));
    const vfloat round = v_splat(GP_INT8_ROUND + (float)*zero);
    for (size_t from = 0; from < n; from += BLOCK) {
        float rest[BLOCK] = {0};
        int32_t bytes[BLOCK];
        if (n - from < BLOCK) memcpy(rest, x + from, (n - from) * sizeof *rest);
        const float *part = n - from < BLOCK ? rest : x + from;
        for (size_t l = 0; l < BLOCK; l += GP_V)
            *(vint_any *)(bytes + l) = (vint_any)v_bytes(v_load(part + l), factor, round);
        for (size_t l = 0; l < BLOCK; l++) out[from + l] = (uint8_t)bytes[l];
    }
}

/* C vectors of lanes side by side, so that memory is read in order; C is a constant at every
 * call. */
static inline __attribute__((always_inline)) void quantize_panel(const size_t C, size_t features,
                                                                 size_t lanes, const float *x,
                                                                 uint8_t *out, float *scale,
                                                                 int32_t *zero)
{
    vint top[4] = {{0}}, negative[4] = {{0}};
    vfloat factor[4], round[4];
    for (size_t f = 0; f < features; f++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++)
            add_to_range(v_load(x + f * lanes + j * GP_V), &top[j], &negative[j]);
    for (size_t j = 0; j < C; j++) {
        float factors[GP_V];
        for (size_t l = 0; l < GP_V; l++) {
            factors[l] = bytes_factor(top[j][l], negative[j][l], &scale[j * GP_V + l]);
            zero[j * GP_V + l] = negative[j][l] ? 128 : 0;
        }
        factor[j] = v_load(factors);
        round[j] = __builtin_convertvector(v_load_int(zero + j * GP_V), vfloat) + GP_INT8_ROUND;
    }
    for (size_t f = 0; f < features; f += 4)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            vuint word = {0};
#pragma GCC unroll 4
            for (size_t u = 0; u < 4; u++) {
                vfloat number =
                    f + u < features ? v_load(x + (f + u) * lanes + j * GP_V) : v_splat(0.0f);
                word |= ((vuint)v_bytes(number, factor[j], round[j]) & 255) << (8 * u);
            }
            *(vint_any *)(void *)(out + f * lanes + 4 * j * GP_V) = (vint_any)word;
        }
}

static void quantize_lanes(size_t features, size_t lanes, const float *x, uint8_t *out,
                           float *scale, int32_t *zero)
{
#define GP_QUANTIZE(C) \
    quantize_panel(C, features, lanes, x + p, out + 4 * p, scale + p, zero + p); \
    p += C * GP_V
    for (size_t p = 0; p < lanes;) {
        switch ((lanes - p) / GP_V) {
        case 1: GP_QUANTIZE(1); break;
        case 2: GP_QUANTIZE(2); break;
        case 3: GP_QUANTIZE(3); break;
        default: GP_QUANTIZE(4); break;
        }
    }
#undef GP_QUANTIZE
}

/* ---- products -------------------------------------------------------------------------------- */

static inline vfloat dequantized(vint sum, vfloat unit, vfloat bias)
{
    return v_rounded(__builtin_convertvector(sum, vfloat) * unit) + bias;
}

/* Few samples: rows of w times rows of x, as in rows.h. First all sums, in place of the numbers
 * they become. */
static inline __attribute__((always_inline)) void int8_rows_tile(const size_t G, const size_t S,
                                                                 size_t rows, size_t k,
                                                                 const int8_t *w, size_t w_row,
                                                                 const uint8_t *x, size_t x_row,
                                                                 float *y, size_t y_row)
{
    vint sum[8][4];
    const int8_t *row[8];
#pragma GCC unroll 8
    for (size_t u = 0; u < 4 * G; u++) {
        row[u] = w + (u < rows ? u : rows - 1) * w_row;
#pragma GCC unroll 4
        for (size_t s = 0; s < S; s++) sum[u][s] = (vint){0};
    }
    for (size_t i = 0; i < k; i += 4 * GP_V) {
        vint in[4];
#pragma GCC unroll 4
        for (size_t s = 0; s < S; s++) in[s] = v_load_int(x + s * x_row + i);
#pragma GCC unroll 8
        for (size_t u = 0; u < 4 * G; u++) {
            vint weights = v_load_int(row[u] + i);
#pragma GCC unroll 4
            for (size_t s = 0; s < S; s++) sum[u][s] = v_add_products(sum[u][s], in[s], weights);
        }
    }
#pragma GCC unroll 4
    for (size_t s = 0; s < S; s++)
#pragma GCC unroll 2
        for (size_t g = 0; g < G; g++) {
            vint four = int_sum_of_four(sum[4 * g][s], sum[4 * g + 1][s], sum[4 * g + 2][s],
                                        sum[4 * g + 3][s]);
            float *at = y + s * y_row + 4 * g;
            if (4 * g + 4 <= rows) memcpy(at, &four, 4 * sizeof *at);
            else if (4 * g < rows) memcpy(at, &four, (rows - 4 * g) * sizeof *at);
        }
}

static void int8_rows(size_t samples, size_t first, size_t rows, size_t k, const gp_int8_matrix *w,
                      const uint8_t *x, size_t x_row, const float *scale, const int32_t *zero,
                      float *y, size_t y_row)
{
    const int8_t *weights = w->weights + first * w->stride;
#define GP_INT8_ROWS(G, S) \
    for (; s + S <= samples; s += S) \
        for (size_t o = r; o < rows && o < r + 8; o += 4 * G) \
    int8_rows_tile(G, S, rows - o, k, weights + o * w->stride, w->stride, x + s * x_row, x_row, \
                   y + s * y_row + o, y_row)
    for (size_t r = 0; r < rows; r += 8) {
        size_t s = 0;
#if GP_V == 16 || defined(GP_ISA_NEON)
        GP_INT8_ROWS(1, 4);
        GP_INT8_ROWS(1, 3);
#endif
        GP_INT8_ROWS(1, 2);
        GP_INT8_ROWS(2, 1);
    }
#undef GP_INT8_ROWS
    for (size_t s = 0; s < samples; s++) {
        float *out = y + s * y_row;
        for (size_t r = 0; r < rows; r += GP_V) {
            const size_t valid = rows - r < GP_V ? rows - r : GP_V, bytes = valid * sizeof(float);
            int32_t sum[GP_V] = {0}, of_weights[GP_V] = {0};
            float unit[GP_V] = {0}, bias[GP_V] = {0};
            memcpy(sum, out + r, bytes);
            memcpy(of_weights, w->sum + first + r, bytes);
            memcpy(unit, w->scale + first + r, bytes);
            memcpy(bias, w->bias + first + r, bytes);
            vint exact = v_load_int(sum) - zero[s] * v_load_int(of_weights);
            v_store(unit, dequantized(exact, v_load(unit) * scale[s], v_load(bias)));
            memcpy(out + r, unit, bytes);
        }
    }
}

/* Many samples: tiles of R rows by C vectors of lanes, as in gemm.h. */
#if defined(GP_ISA_AVX512VNNI)
enum {
    GP_INT8_PANEL = 4,
    GP_INT8_ROWS_4 = 6,
    GP_INT8_ROWS_3 = 8,
    GP_INT8_ROWS_2 = 12,
    GP_INT8_ROWS_1 = 12
};
#else
/* bytes and weights take two registers each */
enum {
    GP_INT8_PANEL = 2,
    GP_INT8_ROWS_4 = 1,
    GP_INT8_ROWS_3 = 1,
    GP_INT8_ROWS_2 = GP_V == 16 ? 8 : 4,
    GP_INT8_ROWS_1 = 8
};
#endif

static inline
    __attribute__((always_inline)) void int8_tile(const size_t R, const size_t C, size_t first,
                                                  size_t lanes, size_t k, const gp_int8_matrix *w,
                                                  const uint8_t *x, const float *scale,
                                                  const int32_t *zero, float *y)
{
    vint sum[GP_INT8_ROWS_1][4];
    const int8_t *weights = w->weights + first * w->stride;
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) sum[i][j] = (vint){0};
    for (size_t q = 0; q < k; q++) {
        vint panel[4];
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) panel[j] = v_load_int(x + 4 * (q * lanes + j * GP_V));
#pragma GCC unroll 16
        for (size_t i = 0; i < R; i++) {
            int32_t four;
            memcpy(&four, weights + i * w->stride + 4 * q, sizeof four);
            vint all = four - (vint){0};
#pragma GCC unroll 4
            for (size_t j = 0; j < C; j++) sum[i][j] = v_add_products(sum[i][j], panel[j], all);
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < R; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < C; j++) {
            vint exact = sum[i][j] - v_load_int(zero + j * GP_V) * w->sum[first + i];
            vfloat unit = w->scale[first + i] * v_load(scale + j * GP_V);
            v_store(y + i * lanes + j * GP_V,
                    dequantized(exact, unit, v_splat(w->bias[first + i])));
        }
}

static void int8_lanes(size_t first, size_t rows, size_t lanes, size_t k, const gp_int8_matrix *w,
                       const uint8_t *x, const float *scale, const int32_t *zero, float *y)
{
#define GP_INT8_TILES(R, C) \
    for (; r + R <= rows; r += R) \
    int8_tile(R, C, first + r, lanes, k, w, x + 4 * p, scale + p, zero + p, y + r * lanes + p)
#define GP_INT8_LANES(C) \
    GP_INT8_TILES(GP_INT8_ROWS_##C, C); \
    GP_INT8_TILES(4, C); \
    GP_INT8_TILES(2, C); \
    GP_INT8_TILES(1, C); \
    p += C * GP_V
    for (size_t p = 0; p < lanes;) {
        const size_t left = (lanes - p) / GP_V;
        size_t r = 0;
        switch (left < GP_INT8_PANEL ? left : GP_INT8_PANEL) {
        case 4: GP_INT8_LANES(4); break;
        case 3: GP_INT8_LANES(3); break;
        case 2: GP_INT8_LANES(2); break;
        default: GP_INT8_LANES(1); break;
        }
    }
#undef GP_INT8_LANES
#undef GP_INT8_TILES
}

#endif
