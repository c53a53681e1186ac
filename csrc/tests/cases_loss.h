/* cases_loss.h - softmax and the losses: [feature][P] in, lane by lane.
 *
 * A case is a number of features, of lanes, and of lanes that hold samples; each lane is compared
 * with the naive formula for one sample. Logits of any size are asked for, since logsumexp exists
 * for the huge ones.
 */
#ifndef GP_CASES_LOSS_H
#define GP_CASES_LOSS_H

#include "cases.h"

enum { LOSS_FEATURES = 40 };

typedef struct lanes_case {
    size_t o, lanes, valid;
    double size; /* of the logits */
} lanes_case;

typedef void lanes_test(const gp_kernels *kernels, const lanes_case *c, noise *source);

static void over_lanes(const gp_kernels *kernels, lanes_test *test)
{
    static const size_t features[] = {1, 2, 3, 10, 37};
    static const double sizes[] = {3.0, 60.0, 3e38};
    noise source = {4};
    for (size_t f = 0; f < sizeof features / sizeof features[0]; f++)
        for (size_t lanes = 16; lanes <= GP_LANES; lanes += 16)
            for (size_t s = 0; s < 3; s++) {
                const size_t valid[] = {0, 1, lanes - 5, lanes};
                lanes_case c = {features[f], lanes, valid[(f + s) % 4], sizes[s]};
                test(kernels, &c, &source);
            }
}

/* One lane as doubles */
static void lane_of(const lanes_case *c, const float *values, size_t p, double *lane)
{
    for (size_t i = 0; i < c->o; i++) lane[i] = (double)values[i * c->lanes + p];
}

/* ---- softmax --------------------------------------------------------------------------------- */

static void softmax_forward_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    size_t n = c->o * c->lanes;
    buffer z = inout_floats(source, n, 1, c->size), y = output_floats(n, 2);
    kernels->softmax_forward(c->o, c->lanes, z.f, y.f);
    double worst = 0.0;
    for (size_t p = 0; p < c->lanes; p++) {
        double lane[LOSS_FEATURES], want[LOSS_FEATURES], sum = 0.0;
        lane_of(c, z.f, p, lane);
        naive_softmax(c->o, lane, want);
        for (size_t i = 0; i < c->o; i++) {
            double got = (double)y.f[i * c->lanes + p];
            worst = fmax(worst, relative_error(got, want[i]));
            sum += got;
        }
        CHECK_NEAR(sum, 1.0, 5e-7);
    }
    /* z - max is rounded: 60 bits off by 2^-19 */
    CHECK_NEAR(worst, 0.0, c->size > 10.0 ? 8e-6 : 6e-7);
    kernels->softmax_forward(c->o, c->lanes, z.f, z.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), z.data, y.data);
    CLOSE(z);
    CLOSE(y);
}

/* softmax([0, x]) for x < 0 is nearly exp(x): every exponent of x. */
static void softmax_sweep(const gp_kernels *kernels)
{
    double worst = 0.0, at = 0.0;
    for (uint32_t bits = 0; bits < INFINITY_BITS;) {
        float z[2 * GP_LANES] = {0}, y[2 * GP_LANES];
        for (size_t p = 0; p < GP_LANES; p++, bits += sweep_step())
            z[GP_LANES + p] = -float_of(bits < INFINITY_BITS ? bits : 0);
        kernels->softmax_forward(2, GP_LANES, z, y);
        for (size_t p = 0; p < GP_LANES; p++) {
            double x = (double)z[GP_LANES + p];
            double error = relative_error((double)y[GP_LANES + p], naive_sigmoid(x));
            error = fmax(error, relative_error((double)y[p], naive_sigmoid(-x)));
            if (error > worst) worst = error, at = x;
        }
    }
    if (!CHECK_NEAR(worst, 0.0, 4e-7)) printf("  softmax([0, %.9g])\n", at);
}

static void softmax_not_finite(const gp_kernels *kernels)
{
    for (size_t bad = 0; bad < 3; bad++) {
        float z[3 * 16] = {0}, y[3 * 16];
        z[bad * 16 + 5] = NAN;
        kernels->softmax_forward(3, 16, z, y);
        for (size_t p = 0; p < 16; p++)
            for (size_t i = 0; i < 3; i++) CHECK(is_float_nan(y[i * 16 + p]) == (p == 5));
    }
}

static void test_softmax_forward(const gp_kernels *kernels)
{
    over_lanes(kernels, softmax_forward_case);
    softmax_sweep(kernels);
    softmax_not_finite(kernels);
}

static void softmax_backward_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    size_t n = c->o * c->lanes;
    buffer y = input_floats(source, n, 1, 1.0), dy = inout_floats(source, n, 2, 1.0),
           dz = output_floats(n, 3);
    kernels->softmax_backward(c->o, c->lanes, y.f, dy.f, dz.f);
    double worst = 0.0;
    for (size_t p = 0; p < c->lanes; p++) {
        double yp[LOSS_FEATURES], dyp[LOSS_FEATURES], dot = 0.0;
        lane_of(c, y.f, p, yp);
        lane_of(c, dy.f, p, dyp);
        for (size_t i = 0; i < c->o; i++) dot += yp[i] * dyp[i];
        for (size_t i = 0; i < c->o; i++)
            worst = fmax(worst, fabs((double)dz.f[i * c->lanes + p] - yp[i] * (dyp[i] - dot)));
    }
    CHECK_NEAR(worst, 0.0, 3e-6);
    kernels->softmax_backward(c->o, c->lanes, y.f, dy.f, dy.f); /* in place */
    CHECK_BYTES_EQUAL(n * sizeof(float), dy.data, dz.data);
    CLOSE(y);
    CLOSE(dy);
    CLOSE(dz);
}
static void test_softmax_backward(const gp_kernels *kernels)
{
    over_lanes(kernels, softmax_backward_case);
}

/* ---- losses ---------------------------------------------------------------------------------- */

typedef struct loss_arrays {
    buffer z, t, dz, loss, label, hit; /* t: targets; label: cross entropy */
    gp_batch settings;                 /* the loss and its numbers */
} loss_arrays;

static loss_arrays loss_arrays_new(const gp_batch *settings, const lanes_case *c, noise *source)
{
    const gp_loss_ops *kind = settings->loss;
    size_t n = c->o * c->lanes;
    /* the square, and the sum, must be floats */
    double size = fmin(c->size, kind == &gp_loss_mse            ? 1e10
                                : kind == &gp_loss_bce          ? 3e36
                                : kind == &gp_loss_distillation ? 1e30
                                                                : INFINITY);
    if (kind == &gp_loss_cross_entropy && settings->settings[NAIVE_SMOOTHING] > 0.0f)
        size = fmin(size, 1e38); /* distances must be floats, too */
    double teacher = kind == &gp_loss_distillation ? size : 1.0;
    loss_arrays made = {.z = input_floats(source, n, 1, size),
                        .t = input_floats(source, n, 3, teacher),
                        .settings = *settings};
    made.dz = output_floats(n, 2);
    made.loss = output_floats(c->valid, 1);
    made.hit = output_bytes(c->valid * sizeof(uint32_t), 0);
    made.label = input_bytes(c->valid * sizeof(int64_t), 0);
    for (size_t p = 0; p < c->valid; p++)
        ((int64_t *)made.label.data)[p] = (int64_t)noise_below(source, c->o);
    return made;
}

static void loss_arrays_close(loss_arrays *a)
{
    CLOSE(a->z);
    CLOSE(a->t);
    CLOSE(a->dz);
    CLOSE(a->loss);
    CLOSE(a->hit);
    CLOSE(a->label);
}

static void loss_run(const gp_kernels *k, const lanes_case *c, loss_arrays *a, float *dz,
                     float factor)
{
    const gp_loss_chunk chunk = {.kernels = k,
                                 .outputs = c->o,
                                 .lanes = c->lanes,
                                 .valid = c->valid,
                                 .z = a->z.f,
                                 .labels = a->label.data,
                                 .targets = a->t.f,
                                 .settings = a->settings.settings,
                                 .factor = factor,
                                 .dz = dz,
                                 .losses = a->loss.f,
                                 .hits = a->hit.data};
    a->settings.loss->run(&chunk);
}

/* KL of distributions that are near each other is a series in d = log(y/q), |d| < 1/4. A term left
 * out or wrong moves all lanes to one side, which their mean shows though each lane's rounding is
 * larger: the last term, d^7/5040, is 1e-7 to 4e-7 of the result here, whose sign is that of d. */
static void distillation_series(const gp_kernels *kernels)
{
    enum { ROUNDS = 400 };
    noise source = {23};
    for (int sign = -1; sign <= 1; sign += 2) {
        double mean = 0.0;
        for (size_t round = 0; round < ROUNDS; round++) {
            float z[2 * GP_LANES], t[2 * GP_LANES], loss[GP_LANES] = {0};
            /* one rare class, about whose log alone they differ */
            for (size_t p = 0; p < GP_LANES; p++) {
                z[p] = t[p] = 0.0f;
                t[GP_LANES + p] = (float)(-5.0 - noise_unit(&source));
                z[GP_LANES + p] =
                    (float)((double)t[GP_LANES + p] + sign * (0.215 + 0.03 * noise_unit(&source)));
            }
            kernels->distillation(2, GP_LANES, GP_LANES, z, t, NULL, loss, 1.0f, 1.0f, 1.0f);
            for (size_t p = 0; p < GP_LANES; p++) {
                const double a = (double)z[GP_LANES + p], b = (double)t[GP_LANES + p];
                const double z_log = log1p(exp(a)), t_log = log1p(exp(b)), q = exp(b - t_log);
                const double exact = q * ((b - t_log) - (a - z_log)) + (1.0 - q) * (z_log - t_log);
                mean += ((double)loss[p] - exact) / exact / (ROUNDS * GP_LANES);
            }
        }
        CHECK_NEAR(mean, 0.0, 7e-8);
    }
}

/* One lane against naive_loss: the loss, its gradient, and the guess. */
static void loss_lane(const lanes_case *c, const loss_arrays *a, size_t p, double factor)
{
    const gp_loss_ops *kind = a->settings.loss;
    const double T = kind == &gp_loss_distillation
                         ? fmax((double)a->settings.settings[NAIVE_TEMPERATURE], 1.0)
                         : 1.0;
    double z[LOSS_FEATURES], dz[LOSS_FEATURES], size = 1.0;
    float t[LOSS_FEATURES];
    size_t best = 0, sides = 0;
    int64_t label = ((const int64_t *)a->label.data)[p];
    lane_of(c, a->z.f, p, z);
    for (size_t i = 0; i < c->o; i++) {
        t[i] = a->t.f[i * c->lanes + p];
        size = fmax(size, fabs(z[i]));
        if (z[i] > z[best]) best = i;
        sides += (z[i] > 0.0) == (t[i] > 0.5f);
    }
    double loss = naive_loss(&a->settings, c->o, z, label, t, dz);
    for (size_t i = 0; i < c->o && kind == &gp_loss_distillation; i++)
        size = fmax(size, fabs((double)t[i]));
    if (loss < (double)FLT_MAX) CHECK_NEAR(a->loss.f[p], loss, (T * size + fabs(loss)) * 1e-6);
    else CHECK(a->loss.f[p] == INFINITY); /* cross entropy of logits that far apart */
    const int by_label = kind->takes & GP_TAKES_LABELS;
    if (kind->counts_hits)
        CHECK_INT_EQUAL(((const uint32_t *)a->hit.data)[p],
                        by_label ? (size_t)label == best : sides);
    for (size_t i = 0; i < c->o; i++) {
        double want = dz[i] * factor, scale = kind == &gp_loss_mse ? fabs(want) : factor;
        double rounded = by_label ? fmin(size, 60.0) * 6e-8 : 0.0; /* of z - max */
        CHECK_NEAR(a->dz.f[i * c->lanes + p], want, scale * (5e-7 + rounded) * T);
    }
}

static void loss_case_of(const gp_kernels *kernels, const gp_batch *settings, const lanes_case *c,
                         noise *source)
{
    const float factor = 0.125f;
    loss_arrays a = loss_arrays_new(settings, c, source);
    loss_run(kernels, c, &a, a.dz.f, factor);
    for (size_t p = 0; p < c->lanes; p++) {
        if (p < c->valid) loss_lane(c, &a, p, (double)factor);
        else
            for (size_t i = 0; i < c->o; i++) CHECK(bits_of(a.dz.f[i * c->lanes + p]) == 0);
    }
    buffer with = output_floats(c->valid, 0);
    memcpy(with.data, a.loss.data, with.bytes);
    memset(a.loss.data, 0, a.loss.bytes);
    loss_run(kernels, c, &a, NULL, factor); /* without a gradient: the same loss */
    CHECK_BYTES_EQUAL(with.bytes, a.loss.data, with.data);
    CLOSE(with);
    loss_arrays_close(&a);
}

static void loss_case(const gp_kernels *kernels, const gp_loss_ops *kind, const lanes_case *c,
                      noise *source)
{
    loss_case_of(kernels, &(gp_batch){.loss = kind}, c, source);
}

/* A NaN or an infinity in one lane shows in its loss, and in no other. */
static void loss_not_finite(const gp_kernels *kernels, const gp_loss_ops *kind)
{
    const gp_batch settings = {.loss = kind,
                               .settings = {kind == &gp_loss_distillation ? 2.0f : 0.0f, 0.5f}};
    const lanes_case c = {3, 16, 16, 1.0};
    noise source = {5};
    for (size_t bad = 0; bad < 3 * NOT_FINITE; bad++) {
        loss_arrays a = loss_arrays_new(&settings, &c, &source);
        a.z.f[bad / NOT_FINITE * c.lanes + 7] = not_finite(bad % NOT_FINITE);
        loss_run(kernels, &c, &a, a.dz.f, 1.0f);
        for (size_t p = 0; p < c.lanes; p++)
            if (p != 7) CHECK(isfinite(a.loss.f[p]));
        if (bad % NOT_FINITE < 2)
            CHECK(is_float_nan(a.loss.f[7]) && is_float_nan(a.dz.f[bad / NOT_FINITE * 16 + 7]));
        /* -inf may be a class that is ruled out */
        if (bad % NOT_FINITE == 2) CHECK(!isfinite(a.loss.f[7]));
        loss_arrays_close(&a);
    }
}

static void cross_entropy_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    loss_case(kernels, &gp_loss_cross_entropy, c, source);
    loss_case_of(kernels, &(gp_batch){.loss = &gp_loss_cross_entropy, .settings = {0.3f}}, c,
                 source);
}

/* Of equal logits the first is the guess. */
static void cross_entropy_ties(const gp_kernels *kernels)
{
    enum { O = 4, P = 16 };
    float z[O * P], loss[P];
    int64_t label[P];
    uint32_t hit[P];
    for (size_t p = 0; p < P; p++) {
        for (size_t i = 0; i < O; i++) z[i * P + p] = i == 0 ? 0.0f : 1.0f;
        label[p] = (int64_t)(p % O);
    }
    kernels->cross_entropy(O, P, P, z, label, NULL, loss, hit, 0.0f, 1.0f);
    for (size_t p = 0; p < P; p++) CHECK_INT_EQUAL(hit[p], label[p] == 1);
}

static void test_cross_entropy(const gp_kernels *kernels)
{
    over_lanes(kernels, cross_entropy_case);
    loss_not_finite(kernels, &gp_loss_cross_entropy);
    cross_entropy_ties(kernels);
}

static void distillation_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    static const float temperatures[] = {0.05f, 1.0f, 4.0f, 200.0f}, alphas[] = {0.0f, 0.9f, 1.0f};
    for (size_t i = 0; i < 12; i++) {
        gp_batch settings = {.loss = &gp_loss_distillation,
                             .settings = {temperatures[i % 4], alphas[i % 3]}};
        loss_case_of(kernels, &settings, c, source);
    }
}

/* T^2 KL tends to the variance of z - t, halved, as T grows: nothing is lost to cancellation. A
 * teacher that agrees teaches nothing. */
static void distillation_is_hot(const gp_kernels *kernels)
{
    enum { O = 4, P = 16 };
    float z[O * P] = {0}, t[O * P], dz[O * P] = {0}, loss[P] = {0};
    for (size_t p = 0; p < P; p++)
        for (size_t i = 0; i < O; i++)
            z[i * P + p] = (float)i, t[i * P + p] = p % 2 ? z[i * P + p] : 0.0f;
    kernels->distillation(O, P, P, z, t, dz, loss, 500.0f, 1.0f, 1.0f);
    for (size_t p = 0; p < P; p++) {
        CHECK_NEAR(loss[p], p % 2 ? 0.0 : 0.625, 2e-3);
        CHECK_NEAR(dz[p], p % 2 ? 0.0 : -1.5 / O, 2e-3);
    }
}

/* Logits as far apart as can be: a loss that is no float is infinite rather than NaN, and the
 * gradient is one. */
static void distillation_is_far(const gp_kernels *kernels)
{
    enum { O = 3, P = 16 };
    static const float far[] = {-FLT_MAX, 0.0f, FLT_MAX}, temperatures[] = {1e-3f, 1.0f, 1e3f};
    float z[O * P], t[O * P], dz[O * P] = {0}, loss[P] = {0};
    for (size_t p = 0; p < P; p++)
        for (size_t i = 0; i < O; i++)
            z[i * P + p] = far[(i + p) % 3], t[i * P + p] = far[(i + p / 3) % 3];
    for (size_t k = 0; k < 3; k++) {
        kernels->distillation(O, P, P, z, t, dz, loss, temperatures[k], 1.0f, 0.125f);
        for (size_t p = 0; p < P; p++)
            CHECK(p % 3 == p / 3 % 3 ? loss[p] == 0.0f : loss[p] >= FLT_MAX);
        for (size_t i = 0; i < O * P; i++) CHECK(isfinite(dz[i]));
    }
}

static void test_distillation(const gp_kernels *kernels)
{
    over_lanes(kernels, distillation_case);
    loss_not_finite(kernels, &gp_loss_distillation);
    distillation_is_hot(kernels);
    distillation_is_far(kernels);
    distillation_series(kernels);
}

static void mean_squared_error_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    loss_case(kernels, &gp_loss_mse, c, source);
}
static void test_mean_squared_error(const gp_kernels *kernels)
{
    over_lanes(kernels, mean_squared_error_case);
    loss_not_finite(kernels, &gp_loss_mse);
}

static void binary_cross_entropy_case(const gp_kernels *kernels, const lanes_case *c, noise *source)
{
    loss_case(kernels, &gp_loss_bce, c, source);
}
static void test_binary_cross_entropy(const gp_kernels *kernels)
{
    over_lanes(kernels, binary_cross_entropy_case);
    loss_not_finite(kernels, &gp_loss_bce);
}

#endif
