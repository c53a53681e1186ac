/* select.h - exact selection's one pass over the scores, and the writing of its mask (select.c). */
#ifndef GP_SELECT_H
#define GP_SELECT_H

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* The lanes in which a > b, as bits. */
static inline unsigned v_greater(vfloat a, vfloat b)
{
#if defined(GP_ISA_AVX512)
    return _cvtmask16_u32(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ));
#elif defined(GP_ISA_AVX2)
    return (unsigned)_mm256_movemask_ps((__m256)(a > b));
#else
    vlong bits = (vlong)((a > b) & (vint){1, 2, 4, 8});
    uint64_t all = (uint64_t)(bits[0] | bits[1]);
    return (unsigned)(all | all >> 32) & 15u;
#endif
}

/* Appends those of the 16 floats at x + i whose bits are set. AVX-512 needs no branch, which would
 * be mispredicted. */
static inline size_t append(const float *x, size_t i, unsigned bits, float *out, uint32_t *position)
{
#if defined(GP_ISA_AVX512)
    __mmask16 chosen = _cvtu32_mask16(bits);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_storeu_ps(out, _mm512_maskz_compress_ps(chosen, _mm512_loadu_ps(x + i)));
    _mm512_storeu_si512(position, _mm512_maskz_compress_epi32(
                                      chosen, _mm512_add_epi32(lanes, _mm512_set1_epi32((int)i))));
#else
    for (unsigned rest = bits; rest; rest &= rest - 1) {
        *position = (uint32_t)i + (uint32_t)__builtin_ctz(rest);
        *out++ = x[*position++];
    }
#endif
    return (size_t)__builtin_popcount(bits);
}

static size_t bracket(size_t n, const float *x, float low, float high, uint16_t *above,
                      size_t *n_above, float *near, uint32_t *position)
{
    const vfloat lower = v_splat(low), upper = v_splat(high);
    size_t i = 0, found = 0, total = 0;
    for (; i + 16 <= n; i += 16) {
        unsigned over = 0, under = 0;
        __builtin_prefetch(x + i + 512); /* without it, a third slower than memory */
        for (size_t j = 0; j < 16; j += GP_V) {
            vfloat a = v_load(x + i + j);
            over |= v_greater(a, upper) << j;
            under |= v_greater(lower, a) << j;
        }
        found += append(x, i, ~(over | under) & 0xffffu, near + found, position + found);
        total += (size_t)__builtin_popcount(over);
        above[i / 16] = (uint16_t)over;
    }
    if (i < n) above[i / 16] = 0;
    for (; i < n; i++) {
        unsigned over = x[i] > high;
        near[found] = x[i];
        position[found] = (uint32_t)i;
        found += !(over || x[i] < low);
        total += over;
        above[i / 16] = (uint16_t)(above[i / 16] | over << i % 16);
    }
    *n_above = total;
    return found;
}

/* Bits to bytes: one bit of each copy of the byte is kept, and carried to where 1 stands. */
static void expand(size_t n, const uint16_t *bits, uint8_t *out)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
#if defined(GP_ISA_AVX512)
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm_maskz_set1_epi8(bits[i / 16], 1));
#else
        for (unsigned half = 0; half < 2; half++) {
            uint64_t spread = ((uint64_t)bits[i / 16] >> 8 * half & 0xffu) * 0x0101010101010101u &
                              0x8040201008040201u;
            spread = (spread + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
            memcpy(out + i + 8 * half, &spread, sizeof spread);
        }
#endif
    for (; i < n; i++) out[i] = (uint8_t)(bits[i / 16] >> i % 16 & 1);
}

#endif
