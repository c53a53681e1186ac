/* test_clip.c - norms and the factors made of them.
 *
 * The reference norm works with logarithms, so that it shares no trick with the core. Vectors mix
 * magnitudes from 1e-40 to 3e38, are longer than the blocks the core sums by, and hold NaN and
 * infinity at either end.
 */
#include "clip.h"
#include "clippers/clippers.h"
#include "fixture.h"
#include "naive.h"

static const double norm_types[] = {0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 37.0, INFINITY};
enum { NORM_TYPES = sizeof norm_types / sizeof norm_types[0] };

static void norms_agree(const gp_kernels *kernels, size_t n, const float *x)
{
    for (size_t t = 0; t < NORM_TYPES; t++) {
        double want = naive_norm(n, x, norm_types[t]), got = gp_norm(kernels, n, x, norm_types[t]);
        if (!CHECK_NEAR(got, want, want * 1e-11))
            printf("  norm_type %g, n %zu\n", norm_types[t], n);
    }
}

static void test_norms(const gp_kernels *kernels)
{
    static const double sizes[] = {1.0, 3.4e38, 1e-37, 1e-40, 1e-44};
    static const size_t lengths[] = {
        0, 1, 5, 100, GP_NORM_BLOCK, GP_NORM_BLOCK + 1, 2 * GP_NORM_BLOCK + 17};
    noise source = {1};
    for (size_t l = 0; l < (is_quick() ? 6 : 7); l++) {
        for (size_t s = 0; s < 5; s++) {
            buffer x = input_floats(&source, lengths[l], s % 4, sizes[s]);
            norms_agree(kernels, lengths[l], x.f);
            CLOSE(x);
        }
    }
}

/* Every block of another magnitude, rising and falling, with a block of zeros: the joining. */
static void test_norms_of_mixed_sizes(const gp_kernels *kernels)
{
    const size_t blocks = is_quick() ? 3 : 5, n = blocks * GP_NORM_BLOCK + 3;
    const double sizes[2][6] = {{1e-42, 1e-30, 0.0, 1.0, 3e38, 1e-20},
                                {3e38, 1e10, 1e10, 0.0, 1e-44, 2e38}};
    noise source = {2};
    for (size_t order = 0; order < 2; order++) {
        buffer x = input_bytes(n * sizeof(float), 0);
        for (size_t at = 0; at < n; at++)
            noise_floats(&source, 1, x.f + at, sizes[order][at / GP_NORM_BLOCK]);
        norms_agree(kernels, n, x.f);
        CLOSE(x);
    }
}

static void test_norms_not_finite(const gp_kernels *kernels)
{
    const size_t n = 2 * GP_NORM_BLOCK + 5,
                 places[] = {0, 7, GP_NORM_BLOCK - 1, GP_NORM_BLOCK, 2 * GP_NORM_BLOCK + 4};
    noise source = {3};
    buffer x = input_floats(&source, n, 1, 1.0);
    for (size_t p = 0; p < 5; p++) {
        float good = x.f[places[p]];
        for (size_t t = 0; t < NORM_TYPES; t++) {
            x.f[places[p]] = -INFINITY;
            CHECK(gp_norm(kernels, n, x.f, norm_types[t]) == INFINITY);
            x.f[places[p]] = NAN;
            CHECK(isnan(gp_norm(kernels, n, x.f, norm_types[t])));
            /* beside an infinity, before or after: still NaN */
            x.f[places[(p + 1) % 5]] = INFINITY;
            CHECK(isnan(gp_norm(kernels, n, x.f, norm_types[t])));
            x.f[places[(p + 1) % 5]] = 0.5f;
        }
        x.f[places[p]] = good;
    }
    CLOSE(x);
}

static void test_scale_factor(void)
{
    CHECK(gp_clip_scale(0.0, 1.0) == 1.0 && gp_clip_scale(1.0, 1.0) == 1.0);
    CHECK(gp_clip_scale(nextafter(1.0, 2.0), 1.0) < 1.0);
    CHECK_NEAR(gp_clip_scale(4.0, 1.0), 1.0 / 4.000001, 1e-15);
    CHECK_NEAR(gp_clip_scale(1e300, 1.0), 1e-300, 1e-312);
    CHECK(gp_clip_scale(1e300, 1e-300) >= 0.0);
    CHECK(gp_clip_scale(5.0, INFINITY) == 1.0);
    /* the caller looks at the norm */
    CHECK(gp_clip_scale(INFINITY, 1.0) == 1.0 && gp_clip_scale(NAN, 1.0) == 1.0);
    noise source = {4};
    for (int i = 0; i < 1000; i++) {
        double norm = exp(100.0 * noise_unit(&source) - 50.0),
               limit = exp(100.0 * noise_unit(&source) - 50.0);
        double scale = gp_clip_scale(norm, limit);
        CHECK(scale > 0.0 && scale <= 1.0 && norm * scale <= limit * (1.0 + 1e-15));
        CHECK((scale == 1.0) == (norm <= limit));
    }
}

/* Scaled by its factor, a vector's norm is at the limit, and never above by more than rounding. */
static void test_clipped_norm(const gp_kernels *kernels)
{
    static const double sizes[] = {1.0, 3e38, 1e-3};
    noise source = {5};
    for (size_t s = 0; s < 3; s++)
        for (size_t t = 0; t < NORM_TYPES; t++) {
            buffer x = inout_floats(&source, 1000, 1, sizes[s]);
            double norm = gp_norm(kernels, 1000, x.f, norm_types[t]), limit = norm / 3.0;
            gp_scale(kernels, 1000, x.f, (float)gp_clip_scale(norm, limit));
            double after = gp_norm(kernels, 1000, x.f, norm_types[t]);
            CHECK(after <= limit * (1.0 + 2e-7));
            CHECK(after >= limit * (1.0 - 2e-7) - 1e-6);
            CLOSE(x);
        }
}

static void test_clamp_and_mask(const gp_kernels *kernels)
{
    float x[6] = {-2.0f, 0.25f, NAN, INFINITY, -INFINITY, 1.0f};
    const float expected[6] = {-0.5f, 0.25f, NAN, 0.5f, -0.5f, 0.5f},
                masked[6] = {0, 0.25f, 0, 0, -0.5f, 0.5f};
    const uint8_t mask[6] = {0, 1, 0, 0, 1, 1};
    gp_clamp(kernels, 6, x, 0.5f);
    CHECK_FLOATS_NEAR(6, x, expected, 0.0, 0.0);
    gp_mask_apply(kernels, 6, mask, x);
    CHECK_BYTES_EQUAL(sizeof x, x, masked);
}

static void test_settle(const gp_kernels *kernels)
{
    float params[8] = {1.0f, NAN, 2.0f, INFINITY, 3.0f, 7.0f, 8.0f, 9.0f},
          grads[6] = {NAN, NAN, 5.0f, 7.0f, 0.0f, NAN};
    /* the last three are not prunable */
    const float settled[8] = {1.0f, 0, 2.0f, 0, 3.0f, 7.0f, 8.0f, 9.0f};
    uint8_t mask[5] = {1, 0, 1, 0, 1};
    const gp_segment segments[2] = {{0, 5, 0, 0}, {5, 1, 0, 0}};
    const gp_arena arena = {.n = 6,
                            .n_buffers = 2,
                            .n_prunable = 5,
                            .removed = 2,
                            .params = params,
                            .grads = grads,
                            .mask = mask,
                            .n_segments = 2,
                            .segments = segments};
    gp_arena_settle(kernels, &arena);
    CHECK_BYTES_EQUAL(sizeof params, params, settled);
    CHECK(isnan(grads[0]) && grads[1] == 0.0f && grads[2] == 5.0f && grads[3] == 0.0f &&
          isnan(grads[5]));
}

/* ---- limits that follow the norms ------------------------------------------------------------ */

/* Of a state of AutoClip, its head; behind it two arrays of as many norms as count. */
enum { HEAD = GP_STATE_OWN + 1 };
/* Of a state of ZClip. */
enum { MEAN = GP_STATE_OWN, VARIANCE, Z_NUMBERS };

static double limit_of(const gp_clip *clip, double norm) { return clip->ops->limit(clip, norm); }

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* AutoClip against sorting anew at every step, with rooms smaller and larger than what comes. */
static void test_auto_clip(void)
{
    enum { STEPS = 60 };
    static const size_t capacities[] = {1, 2, 7, STEPS, 100};
    static const double percents[] = {0.0, 10.0, 50.0, 99.0, 100.0};
    for (size_t c = 0; c < 5; c++)
        for (size_t p = 0; p < 5; p++) {
            double state[HEAD + 200] = {0}, norms[STEPS], seen[STEPS];
            gp_clip clip = {.ops = &gp_clipper_autoclip, .settings = {percents[p]}, .state = state};
            clip.n_state = HEAD + 2 * capacities[c];
            noise source = {c + p};
            for (size_t step = 0; step < STEPS; step++) {
                norms[step] = (double)noise_below(&source, 20) + 0.25; /* with ties */
                size_t n = step + 1 < capacities[c] ? step + 1 : capacities[c];
                memcpy(seen, norms + step + 1 - n, n * sizeof *seen);
                qsort(seen, n, sizeof *seen, ascending);
                double place = (double)(n - 1) * percents[p] / 100.0, low = floor(place);
                size_t next = (size_t)low + 1 < n ? (size_t)low + 1 : n - 1;
                double want = seen[(size_t)low] + (place - low) * (seen[next] - seen[(size_t)low]);
                CHECK_NEAR(limit_of(&clip, norms[step]), want, 1e-12);
            }
        }
}

/* As NumPy interpolates, to the last bit: from below in the first half of the way, from above in
 * the second. The other way round each of these would end in another bit. */
static void test_percentile_bits(void)
{
    static const struct {
        double percent, low, high, want;
    } cases[] = {{25.0, 2.1, 8.5, 0x1.d99999999999ap+1},
                 {50.0, 0.4, 2.3, 0x1.5999999999999p+0},
                 {75.0, 1.7, 5.3, 0x1.199999999999ap+2}};
    for (size_t i = 0; i < 3; i++) {
        double state[HEAD + 4] = {0};
        const gp_clip clip = {.ops = &gp_clipper_autoclip,
                              .settings = {cases[i].percent},
                              .state = state,
                              .n_state = HEAD + 4};
        limit_of(&clip, cases[i].low);
        CHECK(limit_of(&clip, cases[i].high) == cases[i].want);
    }
}

/* By hand: norms 1 and 3 give mean 2, variance 1; 12 has score 10, so with z = 2 the limit is 2 + 2
 * * 2/10. */
static void test_z_clip(void)
{
    double state[Z_NUMBERS] = {0};
    gp_clip clip = {.ops = &gp_clipper_zclip,
                    .settings = {2.0, 0.5, 2.0},
                    .state = state,
                    .n_state = Z_NUMBERS};
    CHECK(limit_of(&clip, 1.0) == INFINITY && limit_of(&clip, 3.0) == INFINITY);
    CHECK_NEAR(state[MEAN], 2.0, 1e-15);
    CHECK_NEAR(state[VARIANCE], 1.0, 1e-15);
    CHECK_NEAR(limit_of(&clip, 12.0), 2.4, 1e-6);
    CHECK_NEAR(state[MEAN], 2.2, 1e-6);                  /* of 2.4, not of 12 */
    CHECK_NEAR(state[VARIANCE], 0.5 + 0.5 * 0.04, 1e-6); /* around the new mean */
    CHECK(limit_of(&clip, 2.2) == INFINITY);
    CHECK_NEAR(state[MEAN], 2.2, 1e-6);
}

/* Around a mean of 0 there is no limit, and the first norm that is not 0 counts whole. */
static void test_z_clip_after_zeros(void)
{
    double state[Z_NUMBERS] = {0};
    const gp_clip clip = {.ops = &gp_clipper_zclip,
                          .settings = {2.0, 0.5, 2.0},
                          .state = state,
                          .n_state = Z_NUMBERS};
    for (size_t i = 0; i < 3; i++) CHECK(limit_of(&clip, 0.0) == INFINITY);
    CHECK(state[MEAN] == 0.0 && state[VARIANCE] == 0.0);
    CHECK(limit_of(&clip, 6.0) == INFINITY);
    CHECK(state[MEAN] == 3.0 && state[VARIANCE] == 4.5);
}

/* A state of another version starts anew; a limit of 0 is none. */
static void test_adapting_anew(void)
{
    double state[Z_NUMBERS] = {0}, history[HEAD + 20] = {0};
    gp_clip z = {.ops = &gp_clipper_zclip,
                 .settings = {1.0, 0.9, 2.0},
                 .state = state,
                 .n_state = Z_NUMBERS};
    gp_clip percentile = {
        .ops = &gp_clipper_autoclip, .settings = {50.0}, .state = history, .n_state = HEAD + 20};
    for (size_t i = 0; i < 5; i++) {
        limit_of(&z, 1.0 + (double)i);
        limit_of(&percentile, 100.0);
    }
    z.version = percentile.version = 7.0;
    CHECK(limit_of(&z, 1e6) == INFINITY && state[GP_STATE_COUNT] == 1.0 &&
          state[GP_STATE_VERSION] == 7.0);
    CHECK(limit_of(&percentile, 3.0) == 3.0 && history[GP_STATE_COUNT] == 1.0);
    memset(state, 0, sizeof state);
    memset(history, 0, sizeof history);
    z.version = percentile.version = 0.0;
    for (size_t i = 0; i < 5; i++)
        CHECK(limit_of(&z, 0.0) == INFINITY && limit_of(&percentile, 0.0) == INFINITY);
}

static void test_inhibited_norms(void)
{
    const gp_clip smooth = {.ops = &gp_clipper_inhibit_norm, .settings = {2.0, 0.0}},
                  tanhs = {.ops = &gp_clipper_inhibit_norm, .settings = {2.0, 1.0}};
    static const double norms[] = {0.0, 1e-300, 1e-3, 2.0, 5.0, 1e30, 1e300};
    for (size_t i = 0; i < 7; i++) {
        const double n = norms[i], factor = smooth.ops->factor(&smooth, n),
                     other = tanhs.ops->factor(&tanhs, n);
        CHECK_NEAR(n * factor, n > 1e20 ? 2.0 : 2.0 * n / (2.0 + n), 1e-14);
        CHECK_NEAR(n * other, 2.0 * tanh(n / 2.0), 1e-14);
        CHECK(factor > 0.0 && factor <= 1.0 && other > 0.0 && other <= 1.0);
    }
}

int main(void)
{
    OVER_INSTRUCTION_SETS(test_norms);
    OVER_INSTRUCTION_SETS(test_norms_of_mixed_sizes);
    OVER_INSTRUCTION_SETS(test_norms_not_finite);
    test_scale_factor();
    OVER_INSTRUCTION_SETS(test_clipped_norm);
    OVER_INSTRUCTION_SETS(test_clamp_and_mask);
    OVER_INSTRUCTION_SETS(test_settle);
    test_auto_clip();
    test_percentile_bits();
    test_z_clip();
    test_z_clip_after_zeros();
    test_adapting_anew();
    test_inhibited_norms();
    return check_summary();
}
