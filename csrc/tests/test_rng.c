/* test_rng.c - the generator and what is made of it.
 *
 * Philox must give the known answers of its authors' library (Random123's kat_vectors); everything
 * else is compared with its definition in terms of gp_philox, spelled out here a second time. The
 * moments say that the definition is a sensible one.
 */
#include "fixture.h"

static void test_known_answers(void)
{
    static const struct {
        uint64_t seed, stream, block;
        uint32_t words[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
        {0x299f31d0a4093822u,
         0x0370734413198a2eu,
         0x85a308d3243f6a88u,
         {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t words[4];
        gp_philox(known[i].seed, known[i].stream, known[i].block, words);
        CHECK_BYTES_EQUAL(sizeof words, words, known[i].words);
    }
}

static uint32_t word_of(uint64_t seed, uint64_t stream, size_t i)
{
    uint32_t words[4];
    gp_philox(seed, stream, i / 4, words);
    return words[i % 4];
}

static void test_uniform(void)
{
    for (size_t n = 0; n < 20; n++) {
        buffer out = output_floats(n, n % 4);
        gp_random_uniform(n, out.f, 7, n);
        for (size_t i = 0; i < n; i++) {
            CHECK((double)out.f[i] == (double)(word_of(7, n, i) >> 8) / 16777216.0);
            CHECK(out.f[i] >= 0.0f && out.f[i] < 1.0f);
        }
        CLOSE(out);
    }
}

static void normal_case(size_t n)
{
    const double two_pi = 6.283185307179586;
    buffer out = output_floats(n, n % 4);
    gp_random_normal(n, out.f, 8, n);
    for (size_t i = 0; i < n; i++) {
        double u = ((double)(word_of(8, n, i / 2 * 2) >> 8) + 1.0) / 16777216.0;
        double angle = two_pi * (double)(word_of(8, n, i / 2 * 2 + 1) >> 8) / 16777216.0;
        CHECK_NEAR(out.f[i], sqrt(-2.0 * log(u)) * (i % 2 ? sin(angle) : cos(angle)), 4e-7);
    }
    CLOSE(out);
}

static void test_normal(void)
{
    for (size_t n = 0; n < 20; n++) normal_case(n);
    normal_case(20001); /* enough to meet small uniforms, where the logarithm is steep */
}

/* Mean of x^power over n numbers must be near `expected`; `spread` is the standard deviation of
 * x^power. */
static void check_moment(size_t n, const float *x, int power, double expected, double spread)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += pow((double)x[i], power);
    CHECK_NEAR(sum / (double)n, expected, 4.0 * spread / sqrt((double)n));
}

static void test_moments(void)
{
    const size_t n = is_quick() ? 10000 : 1000000;
    float *x = allocated(n * sizeof *x);
    gp_random_uniform(n, x, 1, 2);
    check_moment(n, x, 1, 1.0 / 2.0, sqrt(1.0 / 12.0));
    check_moment(n, x, 2, 1.0 / 3.0, sqrt(4.0 / 45.0));
    gp_random_normal(n, x, 1, 2);
    check_moment(n, x, 1, 0.0, 1.0);
    check_moment(n, x, 2, 1.0, sqrt(2.0));
    check_moment(n, x, 3, 0.0, sqrt(15.0));
    check_moment(n, x, 4, 3.0, sqrt(96.0));
    for (size_t i = 1; i < n; i++) x[i - 1] *= x[i]; /* neighbours know nothing of each other */
    check_moment(n - 1, x, 1, 0.0, 1.0);
    free(x);
}

#if defined(__SIZEOF_INT128__)
__extension__ typedef unsigned __int128 wide;

static void permutation_by_definition(size_t n, int64_t *out, uint64_t seed, uint64_t stream)
{
    for (size_t i = 0; i < n; i++) out[i] = (int64_t)i;
    for (size_t i = n; i-- > 1;) {
        size_t number = n - 1 - i;
        uint64_t x = word_of(seed, stream, 2 * number) |
                     (uint64_t)word_of(seed, stream, 2 * number + 1) << 32;
        size_t j = (size_t)((wide)x * (i + 1) >> 64);
        int64_t swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}
#endif

static void permutation_case(size_t n, uint64_t seed)
{
    buffer out = output_bytes(n * sizeof(int64_t), 0);
    int64_t *order = out.data;
    uint8_t *seen = allocated(n);
    size_t repeated = 0;
    memset(seen, 0, n);
    gp_random_permutation(n, order, seed, n);
    for (size_t i = 0; i < n; i++) {
        if (!CHECK(order[i] >= 0 && (uint64_t)order[i] < n)) break;
        repeated += seen[order[i]]++;
    }
    CHECK_INT_EQUAL(repeated, 0);
#if defined(__SIZEOF_INT128__)
    int64_t *expected = allocated(n * sizeof *expected);
    permutation_by_definition(n, expected, seed, n);
    CHECK_BYTES_EQUAL(n * sizeof *expected, order, expected);
    free(expected);
#endif
    CLOSE(out);
    free(seen);
}

/* Each of the 24 orders of four comes up about as often. */
static void permutations_are_fair(void)
{
    const size_t draws = is_quick() ? 2400 : 48000;
    size_t count[256] = {0}, orders = 0;
    for (size_t d = 0; d < draws; d++) {
        int64_t order[4];
        gp_random_permutation(4, order, 3, d);
        count[order[0] | order[1] << 2 | order[2] << 4 | order[3] << 6]++;
    }
    for (size_t i = 0; i < 256; i++) {
        if (count[i] == 0) continue;
        orders++;
        CHECK_NEAR(count[i], (double)draws / 24.0, 5.0 * sqrt((double)draws / 24.0));
    }
    CHECK_INT_EQUAL(orders, 24);
}

static void test_permutation(void)
{
    for (size_t n = 0; n < 40; n++) permutation_case(n, 0x123456789abcdefu * n);
    permutation_case(10007, 5);
    permutations_are_fair();
}

/* The same bits as in a row, in any order, far away, too. */
static void test_at_places(void)
{
    enum { N = 1001 };
    float all[N], *one = allocated(N * sizeof *one);
    int64_t places[N];
    gp_random_permutation(N, places, 1, 0);
    for (int normal = 0; normal < 2; normal++) {
        (normal ? gp_random_normal : gp_random_uniform)(N, all, 8, 9);
        (normal ? gp_random_normal_at : gp_random_uniform_at)(N, places, one, 8, 9);
        for (size_t i = 0; i < N; i++) CHECK(bits_of(one[i]) == bits_of(all[places[i]]));
    }
    const int64_t far = ((int64_t)1 << 40) + 2;
    gp_random_uniform_at(1, &far, one, 8, 9);
    CHECK((double)one[0] == (double)(word_of(8, 9, (size_t)far) >> 8) / 16777216.0);
    free(one);
}

static void subset_case(size_t n, size_t k, uint64_t seed)
{
    buffer out = output_bytes(n, 0);
    uint8_t *keep = out.data;
    size_t kept = 0, others = 0;
    gp_random_subset(n, k, keep, seed, n);
    for (size_t i = 0; i < n; i++) {
        kept += keep[i] == 1;
        others += keep[i] > 1;
    }
    CHECK_INT_EQUAL(kept, k);
    CHECK_INT_EQUAL(others, 0);
    CLOSE(out);
}

static void test_subset(void)
{
    for (size_t n = 0; n < 12; n++)
        for (size_t k = 0; k <= n; k++) subset_case(n, k, 3 * n + k);
    subset_case(10007, 100, 1);
    subset_case(10007, 9990, 1);
    /* each of the ten pairs, and what is left of them, comes up about as often */
    const size_t draws = is_quick() ? 2000 : 40000;
    for (size_t k = 2; k < 4; k++) {
        size_t count[32] = {0}, subsets = 0;
        for (size_t d = 0; d < draws; d++) {
            uint8_t keep[5];
            size_t which = 0;
            gp_random_subset(5, k, keep, 11, d);
            for (size_t i = 0; i < 5; i++) which |= (size_t)keep[i] << i;
            count[which]++;
        }
        for (size_t i = 0; i < 32; i++) {
            if (count[i] == 0) continue;
            subsets++;
            CHECK_NEAR(count[i], (double)draws / 10.0, 5.0 * sqrt((double)draws / 10.0));
        }
        CHECK_INT_EQUAL(subsets, 10);
    }
}

/* A change of seed or stream, also in their high words, changes the numbers. */
static void test_addresses(void)
{
    const uint64_t other[] = {1, (uint64_t)1 << 32, (uint64_t)1 << 63};
    for (size_t i = 0; i < 3; i++) {
        float a[8], b[8], c[8];
        gp_random_uniform(8, a, 0, 0);
        gp_random_uniform(8, b, other[i], 0);
        gp_random_uniform(8, c, 0, other[i]);
        CHECK(memcmp(a, b, sizeof a) != 0 && memcmp(a, c, sizeof a) != 0 &&
              memcmp(b, c, sizeof a) != 0);
    }
}

int main(void)
{
    test_known_answers();
    test_uniform();
    test_normal();
    test_moments();
    test_permutation();
    test_at_places();
    test_subset();
    test_addresses();
    return check_summary();
}
