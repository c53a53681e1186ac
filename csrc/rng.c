/* rng.c - Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011. Numbers are addressed, not drawn, so nothing has to be
 * saved to resume and threads need no generators of their own. key = seed, counter = (block,
 * stream).
 */
#define _GNU_SOURCE /* M_PI */
#include <math.h>

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

void gp_random_normal(size_t n, float *out, uint64_t seed, uint64_t stream)
{
    uint32_t words[4];
    for (size_t i = 0; i < n; i += 2) {
        if (i % 4 == 0) gp_philox(seed, stream, i / 4, words);
        const uint32_t *pair = words + i % 4;
        double radius = sqrt(-2.0 * log(unit(pair[0]) + 0x1p-24)); /* (0, 1]: log stays finite */
        double angle = 2.0 * M_PI * unit(pair[1]);
        out[i] = (float)(radius * cos(angle));
        if (i + 1 < n) out[i + 1] = (float)(radius * sin(angle));
    }
}

void gp_random_permutation(size_t n, int64_t *out, uint64_t seed, uint64_t stream)
{
    uint32_t words[4];
    for (size_t i = 0; i < n; i++) out[i] = (int64_t)i;
    for (size_t drawn = 0; drawn + 1 < n; drawn++) {
        if (drawn % 2 == 0) gp_philox(seed, stream, drawn / 2, words);
        uint64_t word = words[2 * (drawn % 2)] | (uint64_t)words[2 * (drawn % 2) + 1] << 32;
        size_t i = n - 1 - drawn, j = 0;
        /* the high 64 bits of word * (i + 1): uniform in 0..i up to 2^-64 * (i + 1) */
        uint64_t bound = (uint64_t)i + 1, low = (word & 0xffffffffu) * (bound & 0xffffffffu);
        uint64_t middle = (word >> 32) * (bound & 0xffffffffu) + (low >> 32);
        uint64_t cross = (word & 0xffffffffu) * (bound >> 32) + (middle & 0xffffffffu);
        j = (size_t)((word >> 32) * (bound >> 32) + (middle >> 32) + (cross >> 32));
        int64_t swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}
