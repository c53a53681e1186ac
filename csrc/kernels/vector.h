/* vector.h - the few vector operations the kernels need, on GCC/Clang vector extensions. Static
 * functions only: this file is compiled with AVX flags and must not leak code into shared
 * objects. */
#ifndef GP_VECTOR_H
#define GP_VECTOR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(GP_ISA_AVX512VNNI)
#define GP_ISA_AVX512 /* and one instruction more */
#define GP_V 16
#define GP_SUFFIX avx512vnni
#elif defined(GP_ISA_AVX512)
#define GP_V 16
#define GP_SUFFIX avx512
#elif defined(GP_ISA_AVX2)
#define GP_V 8
#define GP_SUFFIX avx2
#elif defined(GP_ISA_NEON)
#define GP_V 4
#define GP_SUFFIX neon
#else
#define GP_V 4
#define GP_SUFFIX baseline
#endif

typedef float vfloat __attribute__((vector_size(4 * GP_V)));
typedef int32_t vint __attribute__((vector_size(4 * GP_V)));
typedef float vfloat_any __attribute__((vector_size(4 * GP_V), aligned(4), may_alias));
/* A vector register of doubles, and the half register of floats that widens to it. */
#define GP_H (GP_V / 2)
typedef double vdouble __attribute__((vector_size(8 * GP_H)));
typedef int64_t vlong __attribute__((vector_size(8 * GP_H)));
typedef uint64_t vword __attribute__((vector_size(8 * GP_H)));
typedef float vhalf __attribute__((vector_size(4 * GP_H)));
typedef float vhalf_any __attribute__((vector_size(4 * GP_H), aligned(4), may_alias));

/* Any lanes of two vectors. */
#if defined(__clang__)
#define GP_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define GP_PICK(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif

typedef int32_t vint_any __attribute__((vector_size(4 * GP_V), aligned(4), may_alias));

static inline vfloat v_splat(float x) { return x - (vfloat){0}; }
static inline vfloat v_load(const float *p) { return (vfloat) * (const vfloat_any *)p; }
static inline void v_store(float *p, vfloat x) { *(vfloat_any *)p = (vfloat_any)x; }

static inline vint v_load_int(const void *p) { return (vint) * (const vint_any *)p; }

/* A product as it is rounded: what is added to it may not be fused with it, so that the bits are
 * those of every instruction set, with an FMA or without. */
static inline vfloat v_rounded(vfloat product)
{
#if defined(GP_ISA_AVX512)
    __asm__("" : "+v"(product));
#elif defined(__x86_64__)
    __asm__("" : "+x"(product));
#elif defined(__aarch64__)
    __asm__("" : "+w"(product));
#else
    __asm__("" : "+m"(product));
#endif
    return product;
}

/* The first n <= V entries; the rest reads as 0. */
static inline vfloat v_load_part(const float *p, size_t n)
{
#if defined(GP_ISA_AVX512)
    return (vfloat)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    float t[GP_V] = {0};
    for (size_t i = 0; i < n; i++) t[i] = p[i];
    return v_load(t);
#endif
}
static inline void v_store_part(float *p, vfloat x, size_t n)
{
#if defined(GP_ISA_AVX512)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
#else
    float t[GP_V];
    v_store(t, x);
    for (size_t i = 0; i < n; i++) p[i] = t[i];
#endif
}

/* p[0], p[stride], ..., n <= V of them; nothing else is read beyond the last. */
#define GP_EVERY_OTHER(first) first, (first) + 2, (first) + 4, (first) + 6
static inline vfloat v_load_strided(const float *p, size_t n, size_t stride)
{
    if (stride == 1) return n < GP_V ? v_load_part(p, n) : v_load(p);
    if (stride == 2) {
        /* the second half begins one earlier, so that it ends with the last */
        const size_t reach = 2 * n - 1;
        const vfloat low = reach < GP_V ? v_load_part(p, reach) : v_load(p);
        const vfloat high = reach < GP_V ? low : v_load_part(p + GP_V - 1, reach - (GP_V - 1));
#if GP_V == 16
        return GP_PICK(low, high, GP_EVERY_OTHER(0), GP_EVERY_OTHER(8), GP_EVERY_OTHER(17),
                       GP_EVERY_OTHER(25));
#elif GP_V == 8
        return GP_PICK(low, high, GP_EVERY_OTHER(0), GP_EVERY_OTHER(9));
#else
        return GP_PICK(low, high, 0, 2, 5, 7);
#endif
    }
    float t[GP_V] = {0};
    for (size_t i = 0; i < n; i++) t[i] = p[i * stride];
    return v_load(t);
}

/* base[index[0]], base[index[1]], ...; indices below 2^31. The vector extensions have no gather:
 * with the two intrinsics a product over lists takes half the time of one with scalar loads. */
static inline vfloat v_gather(const float *base, const uint32_t *index)
{
#if defined(GP_ISA_AVX512)
    return (vfloat)_mm512_i32gather_ps(_mm512_loadu_si512(index), base, 4);
#elif defined(GP_ISA_AVX2)
    return (vfloat)_mm256_i32gather_ps(base,
                                       _mm256_loadu_si256((const __m256i *)(const void *)index), 4);
#else
    vfloat x;
    for (size_t i = 0; i < GP_V; i++) x[i] = base[index[i]];
    return x;
#endif
}

/* Quads of floats at rows[0] + c, rows[4] + c, ...: GCC 12 builds such a vector float by float
 * unless told how. */
static inline vfloat v_load_quads(const float *const *rows, size_t c)
{
#if defined(GP_ISA_AVX512)
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(rows[0] + c));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[4] + c), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[8] + c), 2);
    return (vfloat)_mm512_insertf32x4(x, _mm_loadu_ps(rows[12] + c), 3);
#elif defined(GP_ISA_AVX2)
    return (vfloat)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[0] + c)),
                                        _mm_loadu_ps(rows[4] + c), 1);
#else
    return v_load(rows[0] + c);
#endif
}

/* From the quads of two vectors, quad by quad: a0 b0 a1 b1, a2 b2 a3 b3, a0 a1 b0 b1, a2 a3 b2
 * b3. */
#define GP_QUAD(q, i, j) (4 * (q) + (i)), (4 * (q) + (j) + GP_V)
#define GP_QUAD_UNPACK(q, i) GP_QUAD(q, i, i), GP_QUAD(q, (i) + 1, (i) + 1)
#define GP_QUAD_PAIRS(q, i) \
    (4 * (q) + (i)), (4 * (q) + (i) + 1), (4 * (q) + (i) + GP_V), (4 * (q) + (i) + 1 + GP_V)
#if GP_V == 16
#define GP_QUADS(of, i) of(0, i), of(1, i), of(2, i), of(3, i)
#elif GP_V == 8
#define GP_QUADS(of, i) of(0, i), of(1, i)
#else
#define GP_QUADS(of, i) of(0, i)
#endif
#define GP_UNPACK_LOW(a, b) GP_PICK(a, b, GP_QUADS(GP_QUAD_UNPACK, 0))
#define GP_UNPACK_HIGH(a, b) GP_PICK(a, b, GP_QUADS(GP_QUAD_UNPACK, 2))
#define GP_PAIRS_LOW(a, b) GP_PICK(a, b, GP_QUADS(GP_QUAD_PAIRS, 0))
#define GP_PAIRS_HIGH(a, b) GP_PICK(a, b, GP_QUADS(GP_QUAD_PAIRS, 2))

/* Numbers c to c + 3 of V rows become four vectors: a register of quads, of every fourth row each,
 * needs no more than the two steps of a 4 x 4 transpose within its quads. */
static inline void v_turn(const float *const *rows, size_t c, vfloat turned[4])
{
    vfloat quads[4];
#pragma GCC unroll 4
    for (size_t u = 0; u < 4; u++) quads[u] = v_load_quads(rows + u, c);
    const vfloat low = GP_UNPACK_LOW(quads[0], quads[1]), high = GP_UNPACK_HIGH(quads[0], quads[1]);
    const vfloat low2 = GP_UNPACK_LOW(quads[2], quads[3]),
                 high2 = GP_UNPACK_HIGH(quads[2], quads[3]);
    turned[0] = GP_PAIRS_LOW(low, low2);
    turned[1] = GP_PAIRS_HIGH(low, low2);
    turned[2] = GP_PAIRS_LOW(high, high2);
    turned[3] = GP_PAIRS_HIGH(high, high2);
}

/* condition is all ones or all zeros a lane, as comparisons give it */
static inline vfloat v_select(vint condition, vfloat yes, vfloat no)
{
    return (vfloat)((condition & (vint)yes) | (~condition & (vint)no));
}
/* A NaN in x stays. */
static inline vfloat v_min(vfloat x, vfloat limit) { return v_select(x > limit, limit, x); }
static inline vfloat v_max(vfloat x, vfloat limit) { return v_select(x < limit, limit, x); }
static inline vfloat v_abs(vfloat x) { return (vfloat)((vint)x & 0x7fffffff); }

/* All ones where the byte mask keeps, else zeros. GCC 12 widens bytes one by one if it is left to
 * __builtin_convertvector, which costs more than the optimizer step it guards: hence the two
 * intrinsics. */
static inline vint v_kept(const uint8_t *mask)
{
#if defined(GP_ISA_AVX512)
    return (vint)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)mask)) != 0;
#elif defined(GP_ISA_AVX2)
    return (vint)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)mask)) != 0;
#else
    vint kept;
    for (size_t i = 0; i < GP_V; i++) kept[i] = mask[i] ? -1 : 0;
    return kept;
#endif
}
static inline vint v_kept_part(const uint8_t *mask, size_t n)
{
    uint8_t t[GP_V] = {0};
    for (size_t i = 0; i < n; i++) t[i] = mask[i];
    return v_kept(t);
}

static inline vdouble v_load_wide(const float *p)
{
    return __builtin_convertvector((vhalf) * (const vhalf_any *)p, vdouble);
}

/* The lower halves of a times m, below 2^32, in full: the vector extensions know only products of
 * whole lanes, which made random numbers several times as slow. */
static inline vword v_multiply_halves(vword a, uint64_t m)
{
#if defined(GP_ISA_AVX512)
    return (vword)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((int64_t)m));
#elif defined(GP_ISA_AVX2)
    return (vword)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((int64_t)m));
#else
    return (a & UINT32_MAX) * m;
#endif
}

static inline double v_sum_wide(vdouble x)
{
    double total = x[0];
    for (size_t i = 1; i < GP_H; i++) total += x[i];
    return total;
}

#endif
