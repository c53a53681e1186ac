/* test_select.c - exactly the k largest scores, ties to the lower index, against a sort.
 *
 * The reference sorts indices by (score descending, index ascending) and keeps the first k. What
 * radix selection could get wrong is sought out: many equal scores, both zeros, both infinities,
 * denormals, scores that differ only in their lowest bits (the last pass) or only in their highest
 * (the first). What a sample could: sizes around the blocks, scores in order, in periods, of few
 * values, and scores that know which of them are sampled.
 */
#include "fixture.h"

static const float *sorted_scores; /* qsort knows no context */

static int before(const void *a, const void *b)
{
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    if (sorted_scores[i] != sorted_scores[j]) return sorted_scores[i] > sorted_scores[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static gp_pool *pool;
static const size_t team_sizes[] = {1, 2, 8};
enum { TEAM_SIZES = sizeof team_sizes / sizeof team_sizes[0] };

/* On every instruction set and with one thread more or fewer: all must give what the sort does. */
static void select_against_sort(size_t n, const float *scores, size_t k)
{
    size_t *order = allocated(n * sizeof *order);
    buffer expected = output_bytes(n, 0), copy = input_bytes(n * sizeof *scores, 1);
    for (size_t i = 0; i < n; i++) order[i] = i;
    if (n) memcpy(copy.data, scores, copy.bytes);
    sorted_scores = scores;
    qsort(order, n, sizeof *order, before);
    for (size_t i = 0; i < n; i++) ((uint8_t *)expected.data)[order[i]] = i < k;
    for (size_t isa = 0; gp_isa_name(isa); isa++)
        for (size_t t = 0; t < TEAM_SIZES; t++) {
            buffer keep = output_bytes(n, 0);
            const gp_kernels *kernels = gp_kernels_get(gp_isa_name(isa));
            CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, n, copy.f, keep.data, k, team_sizes[t]),
                            GP_OK);
            CHECK_BYTES_EQUAL(n, keep.data, expected.data);
            CLOSE(keep);
        }
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

/* Rows of scores that could mislead a sample, or the way back from the bracket to places. */
enum { MIXED, CONSTANT, RISING, FALLING, TWO_VALUES, PERIODIC, STEPS, HEAVY, SPIKE, ROWS };

static void fill_row(noise *source, int row, size_t n, float *scores)
{
    for (size_t i = 0; i < n; i++) switch (row) {
        case CONSTANT: scores[i] = -1.5f; break;
        case RISING: scores[i] = (float)i; break;
        case FALLING: scores[i] = -(float)(i / 3); break;
        case TWO_VALUES: scores[i] = i % 64 == 5 ? 1.0f : -1.0f; break;
        case PERIODIC: scores[i] = (float)(i % 64); break;
        case STEPS: scores[i] = floorf(100.0f * score(source, PLAIN)); break;
        case HEAVY:
            scores[i] = (float)(noise_below(source, 4) ? noise_below(source, 3)
                                                       : 1 + noise_below(source, 99));
            break;
        case SPIKE:
            scores[i] = noise_below(source, 50) ? score(source, INFINITE) : score(source, ANY_BITS);
            break;
        default: scores[i] = fabsf(score(source, i % 3 ? PLAIN : FEW));
        }
}

static void test_large(void)
{
    static const size_t sizes[] = {8191, 8192, 8193, 16384, 16385, 70001, 300000};
    noise source = {2};
    for (size_t size = 0; size < (is_quick() ? 4 : 7); size++)
        for (int row = 0; row < ROWS; row++) {
            const size_t n = sizes[size];
            const size_t ks[] = {0, 1, n / 20, n / 10, n / 2, n - 1, n};
            float *scores = allocated(n * sizeof *scores);
            fill_row(&source, row, n, scores);
            for (size_t i = is_quick() ? 2 : 0; i < (is_quick() ? 5 : 7); i++)
                select_against_sort(n, scores, ks[i]);
            free(scores);
        }
}

/* As select.c takes its sample: a test that goes stale still checks, but no longer meets a bracket
 * that misses. */
static void test_sampled_scores_differ(void)
{
    const size_t n = 40000, m = (size_t)pow((double)n, 2.0 / 3.0);
    noise source = {3};
    float *scores = allocated(n * sizeof *scores);
    for (int sign = -1; sign <= 1; sign += 2) {
        noise_floats(&source, n, scores, 1.0);
        for (size_t j = 0; j < m; j++) {
            double place = (double)j + 0x1p-32 * (double)(uint32_t)(j * 2654435769u);
            scores[(size_t)(place * ((double)n / (double)m))] += (float)(10 * sign);
        }
        for (size_t part = 1; part < 20; part += 6) select_against_sort(n, scores, n * part / 20);
    }
    free(scores);
}

/* Refused: nothing is written. */
static void refuse(const gp_kernels *kernels)
{
    float scores[7] = {1, 2, 3, 4, 5, 6, 7};
    uint8_t keep[7], before_call[7];
    memset(keep, 9, sizeof keep);
    memset(before_call, 9, sizeof before_call);
    CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, 7, scores, keep, 8, 1), GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, 0, NULL, keep, 1, 1), GP_BAD_ARGUMENT);
    for (size_t i = 0; i < 7; i++)
        for (size_t k = 0; k <= 7; k++) {
            float good = scores[i];
            scores[i] = i % 2 ? NAN : -NAN;
            CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, 7, scores, keep, k, 2), GP_BAD_INPUT);
            scores[i] = good;
        }
    CHECK_BYTES_EQUAL(sizeof keep, keep, before_call);
    CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, 0, NULL, NULL, 0, 1), GP_OK);
}

/* One NaN, many, nothing else: wherever the sample is. */
static void refuse_large(const gp_kernels *kernels)
{
    const size_t n = 70001, every[] = {1, 2, 100, n};
    noise source = {4};
    float *scores = allocated(n * sizeof *scores);
    uint8_t *keep = allocated(n), *before_call = allocated(n);
    memset(keep, 9, n);
    memset(before_call, 9, n);
    for (size_t e = 0; e < 4; e++)
        for (size_t k = 0; k <= n; k += n / 2) {
            noise_floats(&source, n, scores, 1.0);
            for (size_t i = noise_below(&source, every[e]); i < n; i += every[e])
                scores[i] = i % 2 ? NAN : -NAN;
            CHECK_INT_EQUAL(gp_topk_mask(pool, kernels, n, scores, keep, k, 2), GP_BAD_INPUT);
        }
    CHECK_BYTES_EQUAL(n, keep, before_call);
    free(scores);
    free(keep);
    free(before_call);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_against_sort();
    test_large();
    test_sampled_scores_differ();
    OVER_INSTRUCTION_SETS(refuse);
    OVER_INSTRUCTION_SETS(refuse_large);
    gp_pool_destroy(pool);
    return check_summary();
}
