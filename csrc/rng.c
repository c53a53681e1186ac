/* rng.c - Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011. Numbers are addressed, not drawn, so nothing has to be
 * saved to resume and threads need no generators of their own. key = seed, counter = (block,
 * stream).
 */
#define _GNU_SOURCE /* M_PI */
#include <math.h>
#include <string.h>

#include "gradprune.h"

void gp_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t words[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

uint64_t gp_dropout_stream(uint64_t step, size_t layer)
{
    return GP_DROPOUT_STREAMS | (step << GP_LAYER_BITS & (GP_DROPOUT_STREAMS - 1)) | layer;
}

static double unit(uint32_t word) { return (double)(word >> 8) * 0x1p-24; }

void gp_random_uniform(size_t n, float *out, uint64_t seed, uint64_t stream)
{
    uint32_t words[4];
    for (size_t i = 0; i < n; i++) {
        if (i % 4 == 0) gp_philox(seed, stream, i / 4, words);
        out[i] = (float)unit(words[i % 4]); /* exact: 24 bits */
    }
}

void gp_random_uniform_at(size_t n, const int64_t *places, float *out, uint64_t seed,
                          uint64_t stream)
{
    uint32_t words[4];
    for (size_t i = 0; i < n; i++) {
        const uint64_t place = (uint64_t)places[i];
        gp_philox(seed, stream, place / 4, words);
        out[i] = (float)unit(words[place % 4]);
    }
}

/* Two normal numbers out of two words. */
static void normal_pair(const uint32_t words[2], float pair[2])
{
    double radius = sqrt(-2.0 * log(unit(words[0]) + 0x1p-24)); /* (0, 1]: log stays finite */
    double angle = 2.0 * M_PI * unit(words[1]);
    pair[0] = (float)(radius * cos(angle));
    pair[1] = (float)(radius * sin(angle));
}

void gp_random_normal(size_t n, float *out, uint64_t seed, uint64_t stream)
{
    uint32_t words[4];
    float pair[2];
    for (size_t i = 0; i < n; i += 2) {
        if (i % 4 == 0) gp_philox(seed, stream, i / 4, words);
        normal_pair(words + i % 4, pair);
        out[i] = pair[0];
        if (i + 1 < n) out[i + 1] = pair[1];
    }
}

void gp_random_normal_at(size_t n, const int64_t *places, float *out, uint64_t seed,
                         uint64_t stream)
{
    uint32_t words[4];
    float pair[2];
    for (size_t i = 0; i < n; i++) {
        const uint64_t place = (uint64_t)places[i];
        gp_philox(seed, stream, place / 4, words);
        normal_pair(words + place % 4 / 2 * 2, pair);
        out[i] = pair[place % 2];
    }
}

/* The high 64 bits of word * bound: uniform below the bound, up to 2^-64 * bound. */
static size_t below(uint64_t word, uint64_t bound)
{
    uint64_t low = (word & 0xffffffffu) * (bound & 0xffffffffu);
    uint64_t middle = (word >> 32) * (bound & 0xffffffffu) + (low >> 32);
    uint64_t cross = (word & 0xffffffffu) * (bound >> 32) + (middle & 0xffffffffu);
    return (size_t)((word >> 32) * (bound >> 32) + (middle >> 32) + (cross >> 32));
}

/* The `drawn`-th word of 64 bits; `words` holds two of them. */
static uint64_t wide_word(uint64_t seed, uint64_t stream, size_t drawn, uint32_t words[4])
{
    if (drawn % 2 == 0) gp_philox(seed, stream, drawn / 2, words);
    return words[2 * (drawn % 2)] | (uint64_t)words[2 * (drawn % 2) + 1] << 32;
}

void gp_random_permutation(size_t n, int64_t *out, uint64_t seed, uint64_t stream)
{
    uint32_t words[4];
    for (size_t i = 0; i < n; i++) out[i] = (int64_t)i;
    for (size_t drawn = 0; drawn + 1 < n; drawn++) {
        const size_t i = n - 1 - drawn;
        const size_t j = below(wide_word(seed, stream, drawn, words), (uint64_t)i + 1);
        const int64_t swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}

void gp_random_subset(size_t n, size_t k, uint8_t *keep, uint64_t seed, uint64_t stream)
{
    const uint8_t rare = k <= n - k; /* what there is less of is drawn */
    const size_t count = rare ? k : n - k;
    uint32_t words[4];
    memset(keep, !rare, n);
    for (size_t drawn = 0; drawn < count; drawn++) {
        const size_t last = n - count + drawn;
        size_t at = below(wide_word(seed, stream, drawn, words), (uint64_t)last + 1);
        if (keep[at] == rare) at = last;
        keep[at] = rare;
    }
}
