/* select.c - exactly the k largest of n floats, in O(n): radix selection over the float's bits.
 *
 * Sorting to prune is slow and unstable. Instead the scores are mapped to integers in the same order, and three
 * passes of 11, 11 and 10 bits count how many fall into each bucket until the k-th largest is known bit by bit. A
 * last pass keeps what is larger, and of the equals the first ones. Nothing is allocated and no score is moved.
 */
#include <string.h>

#include "gradprune.h"

/* Ascending with the float; -0.0 equals 0.0. */
static inline uint32_t ordered(float x)
{
    uint32_t bits;
    x += 0.0f; /* -0.0 + 0.0 = 0.0 */
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

gp_status gp_topk_mask(size_t n, const float *scores, uint8_t *keep, size_t k)
{
    enum { PASSES = 3, BUCKETS = 1 << 11 };
    static const unsigned shift[PASSES] = {21, 10, 0}, width[PASSES] = {11, 11, 10};
    if (k > n) return GP_BAD_ARGUMENT;
    for (size_t i = 0; i < n; i++)
        if (scores[i] != scores[i]) return GP_BAD_INPUT;
    if (k == 0 || k == n) {
        if (n) memset(keep, k == n, n);
        return GP_OK;
    }

    uint32_t prefix = 0; /* the high bits of the k-th largest found so far */
    size_t wanted = k;   /* the k-th largest is the wanted-th largest among those with this prefix */
    for (int pass = 0; pass < PASSES; pass++) {
        size_t count[BUCKETS] = {0};
        uint32_t known = pass == 0 ? 0 : ~0u << (shift[pass] + width[pass]);
        uint32_t low = (1u << width[pass]) - 1u;
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = ordered(scores[i]);
            if ((bits & known) == prefix) count[bits >> shift[pass] & low]++;
        }
        uint32_t bucket = low;
        while (count[bucket] < wanted) wanted -= count[bucket--];
        prefix |= bucket << shift[pass];
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = ordered(scores[i]);
        keep[i] = bits > prefix;
        if (bits == prefix && wanted > 0) {
            keep[i] = 1;
            wanted--;
        }
    }
    return GP_OK;
}
