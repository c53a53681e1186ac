/* test_select.c - exactly the k largest scores, ties to the lower index, against a sort.
 *
 * The reference sorts indices by (score descending, index ascending) and keeps the first k. What radix selection could
 * get wrong is sought out: many equal scores, both zeros, both infinities, denormals, scores that differ only in their
 * lowest bits (the last pass) or only in their highest (the first).
 */
#include "fixture.h"

static const float *sorted_scores; /* qsort knows no context */

static int before(const void *a, const void *b)
{
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    if (sorted_scores[i] != sorted_scores[j]) return sorted_scores[i] > sorted_scores[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static void select_against_sort(size_t n, const float *scores, size_t k)
{
    size_t *order = allocated(n * sizeof *order);
    buffer keep = output_bytes(n, 0), expected = output_bytes(n, 0), copy = input_bytes(n * sizeof *scores, 1);
    for (size_t i = 0; i < n; i++) order[i] = i;
    if (n) memcpy(copy.data, scores, copy.bytes);
    sorted_scores = scores;
    qsort(order, n, sizeof *order, before);
    for (size_t i = 0; i < n; i++) ((uint8_t *)expected.data)[order[i]] = i < k;
    CHECK_INT_EQUAL(gp_topk_mask(n, copy.f, keep.data, k), GP_OK);
    CHECK_BYTES_EQUAL(n, keep.data, expected.data);
    CLOSE(keep);
    CLOSE(expected);
    CLOSE(copy);
    free(order);
}

static void select_each_k(size_t n, const float *scores)
{
    const size_t step = n > 100 ? n / (is_quick() ? 5 : 29) : 1;
    for (size_t k = 0; k <= n; k += step) select_against_sort(n, scores, k);
    select_against_sort(n, scores, n);
    if (n > 0) select_against_sort(n, scores, n - 1);
    if (n > 0) select_against_sort(n, scores, 1);
}

/* Ways to make a score. */
enum { PLAIN, FEW, EQUAL, ZEROS, INFINITE, ANY_BITS, LOW_BITS, HIGH_BITS, DENORMAL, WAYS };

static float score(noise *source, int way)
{
    static const float zeros[4] = {0.0f, -0.0f, 1e-45f, -1e-45f}, few[3] = {-1.0f, 2.0f, 0.5f};
    static const float infinite[4] = {INFINITY, -INFINITY, FLT_MAX, -FLT_MAX};
    uint32_t word = (uint32_t)noise_word(source);
    switch (way) {
    case FEW: return few[word % 3];
    case EQUAL: return 3.25f;
    case ZEROS: return zeros[word % 4];
    case INFINITE: return infinite[word % 4];
    case ANY_BITS: return float_of((word & 0x7f800000u) == 0x7f800000u ? word & 0xff800000u : word);
    case LOW_BITS: return float_of(0x3f800000u | (word & 0x3ffu));
    case HIGH_BITS: return float_of((word & 0xffe00000u) == 0x7f800000u ? 0 : (word & 0xbfe00000u));
    case DENORMAL: return float_of(word & 0x807fffffu);
    default: return (float)(2.0 * noise_unit(source) - 1.0);
    }
}

static void test_against_sort(void)
{
    static const size_t sizes[] = {0, 1, 2, 3, 10, 33, 1000, 5000};
    noise source = {1};
    for (int way = 0; way < WAYS; way++)
        for (size_t s = 0; s < (is_quick() ? 7 : 8); s++) {
            float *scores = allocated(sizes[s] * sizeof *scores);
            for (size_t i = 0; i < sizes[s]; i++) scores[i] = score(&source, way);
            select_each_k(sizes[s], scores);
            free(scores);
        }
}

static void test_large(void)
{
    const size_t n = is_quick() ? 20000 : 300000;
    noise source = {2};
    float *scores = allocated(n * sizeof *scores);
    for (size_t i = 0; i < n; i++) scores[i] = fabsf(score(&source, i % 3 ? PLAIN : FEW));
    for (size_t part = 1; part < 10; part += 4) select_against_sort(n, scores, n * part / 10);
    free(scores);
}

/* Refused: nothing is written. */
static void test_refused(void)
{
    float scores[7] = {1, 2, 3, 4, 5, 6, 7};
    uint8_t keep[7], before_call[7];
    memset(keep, 9, sizeof keep);
    memset(before_call, 9, sizeof before_call);
    CHECK_INT_EQUAL(gp_topk_mask(7, scores, keep, 8), GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_topk_mask(0, NULL, keep, 1), GP_BAD_ARGUMENT);
    for (size_t i = 0; i < 7; i++)
        for (size_t k = 0; k <= 7; k++) {
            float good = scores[i];
            scores[i] = i % 2 ? NAN : -NAN;
            CHECK_INT_EQUAL(gp_topk_mask(7, scores, keep, k), GP_BAD_INPUT);
            scores[i] = good;
        }
    CHECK_BYTES_EQUAL(sizeof keep, keep, before_call);
    CHECK_INT_EQUAL(gp_topk_mask(0, NULL, NULL, 0), GP_OK);
}

int main(void)
{
    test_against_sort();
    test_large();
    test_refused();
    return check_summary();
}
