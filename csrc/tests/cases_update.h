/* cases_update.h - one optimizer step of n entries against the formulas in double, and the pruning
 * statistics.
 *
 * A case crosses the clip (factor and limit), weight decay, the optional moment and the mask. What
 * is removed must end as +0 in every buffer, even if it was NaN; what is kept must leave the
 * gradient as it was.
 */
#ifndef GP_CASES_UPDATE_H
#define GP_CASES_UPDATE_H

#include "cases.h"

typedef struct update_case {
    gp_rule_kind kind;
    int masked, moment; /* moment: the optional one, SGD's and RMSprop's momentum */
    gp_update u;
} update_case;

typedef struct update_arrays {
    buffer mask, w, g, m, v; /* m, v as the kernel names them */
} update_arrays;

typedef struct update_state {
    double w, m, v;
} update_state;

static update_state update_naive(const update_case *c, update_state s, double g)
{
    const gp_update *u = &c->u;
    double limit = (double)u->limit, move = 0.0;
    g = fmin(fmax(g * (double)u->scale * (double)u->scale_again, -limit), limit) +
        (double)u->l2 * s.w;
    switch (c->kind) {
    case GP_SGD:
        if (c->moment) s.m = (double)u->beta1 * s.m + (double)u->gain1 * g;
        move = !c->moment ? g : u->nesterov ? g + (double)u->beta1 * s.m : s.m;
        break;
    case GP_ADAM:
        s.m = (double)u->beta1 * s.m + (double)u->gain1 * g;
        s.v = (double)u->beta2 * s.v + (double)u->gain2 * g * g;
        move = s.m / (sqrt(s.v) * (double)u->correction2 + (double)u->eps);
        break;
    case GP_RMSPROP:
        s.v = (double)u->beta2 * s.v + (double)u->gain2 * g * g;
        move = g / (sqrt(s.v) + (double)u->eps);
        if (c->moment) move = s.m = (double)u->beta1 * s.m + move;
        break;
    case GP_RULES: break;
    }
    s.w = s.w * (double)u->shrink - (double)u->lr * move;
    return s;
}

static update_arrays update_arrays_new(size_t n, size_t shift, noise *source)
{
    update_arrays a = {.mask = input_bytes(n, 0)};
    a.w = inout_floats(source, n, shift, 1.0);
    a.g = inout_floats(source, n, 3 - shift, 2.0);
    a.m = inout_floats(source, n, 1, 1.0);
    a.v = inout_floats(source, n, 2, 1.0);
    for (size_t i = 0; i < n; i++) {
        a.v.f[i] = fabsf(a.v.f[i]) + 0.01f;
        ((uint8_t *)a.mask.data)[i] = noise_below(source, 3) > 0;
    }
    return a;
}

static void update_arrays_close(update_arrays *a)
{
    CLOSE(a->mask);
    CLOSE(a->w);
    CLOSE(a->g);
    CLOSE(a->m);
    CLOSE(a->v);
}

static void update_run(const gp_kernels *kernels, const update_case *c, size_t n, update_arrays *a)
{
    float *m = c->moment ? a->m.f : NULL;
    switch (c->kind) {
    case GP_SGD: kernels->sgd(n, a->w.f, a->g.f, m, &c->u); break;
    case GP_ADAM: kernels->adam(n, a->w.f, a->g.f, a->m.f, a->v.f, &c->u); break;
    case GP_RMSPROP: kernels->rmsprop(n, a->w.f, a->g.f, a->v.f, m, &c->u); break;
    case GP_RULES: break;
    }
}

static int update_uses_m(const update_case *c) { return c->kind == GP_ADAM || c->moment; }
static int update_uses_v(const update_case *c) { return c->kind != GP_SGD; }

static void update_removed(const update_case *c, const update_arrays *a, size_t i)
{
    CHECK(bits_of(a->w.f[i]) == 0 && bits_of(a->g.f[i]) == 0);
    if (update_uses_m(c)) CHECK(bits_of(a->m.f[i]) == 0);
    if (update_uses_v(c)) CHECK(bits_of(a->v.f[i]) == 0);
}

static void update_compare(const gp_kernels *kernels, const update_case *c, size_t n, size_t shift,
                           noise *source)
{
    update_arrays a = update_arrays_new(n, shift, source);
    update_state *want = allocated(n * sizeof *want);
    float *g = allocated(n * sizeof *g);
    const uint8_t *keep = a.mask.data;
    for (size_t i = 0; i < n; i++) {
        update_state start = {(double)a.w.f[i], (double)a.m.f[i], (double)a.v.f[i]};
        if (c->masked && !keep[i]) a.w.f[i] = a.m.f[i] = a.v.f[i] = a.g.f[i] = 0.0f;
        want[i] = update_naive(c, start, (double)a.g.f[i]);
        g[i] = a.g.f[i];
    }
    update_run(kernels, c, n, &a);
    for (size_t i = 0; i < n; i++) {
        if (c->masked && !keep[i]) {
            update_removed(c, &a, i);
            continue;
        }
        CHECK_NEAR(a.w.f[i], want[i].w, 1e-6);
        CHECK_NEAR(a.m.f[i], want[i].m, 2e-6);
        CHECK_NEAR(a.v.f[i], want[i].v, 1e-6);
        CHECK(bits_of(a.g.f[i]) == bits_of(g[i]));
    }
    free(want);
    free(g);
    update_arrays_close(&a);
}

/* A NaN or an infinity that is kept is not hidden by the clamp or the moments. */
static void update_not_finite(const gp_kernels *kernels, const update_case *c, noise *source)
{
    update_arrays a = update_arrays_new(21, 0, source);
    size_t wrong = 0;
    memset(a.mask.data, 1, 21);
    a.g.f[3] = a.g.f[20] = NAN;
    update_run(kernels, c, 21, &a);
    for (size_t i = 0; i < 21; i++) wrong += isfinite(a.w.f[i]) == (i == 3 || i == 20);
    CHECK_INT_EQUAL(wrong, 0);
    update_arrays_close(&a);
}

static gp_update update_numbers(int clip, int decay, int nesterov)
{
    return (gp_update){.scale = clip == 1 ? 0.3f : 1.0f,
                       .scale_again = clip == 1 ? 0.5f : 1.0f,
                       .limit = clip == 2 ? 0.5f : INFINITY,
                       .lr = 0.1f,
                       .l2 = decay == 1 ? 0.2f : 0.0f,
                       .shrink = decay == 2 ? 0.95f : 1.0f,
                       .beta1 = 0.9f,
                       .beta2 = 0.99f,
                       .gain1 = 0.1f,
                       .gain2 = 0.01f,
                       .correction2 = 2.5f,
                       .eps = 1e-8f,
                       .nesterov = nesterov};
}

static void update_test(const gp_kernels *kernels, gp_rule_kind kind)
{
    const size_t V = kernels->width, sizes[] = {0, 1, V - 1, V, V + 1, 2 * V + 3, 100};
    noise source = {6};
    for (int variant = 0; variant < 72; variant++) {
        int clip = variant % 3, decay = variant / 3 % 3, moment = variant / 9 % 2,
            nesterov = variant / 18 % 2;
        update_case c = {kind, variant / 36, moment, update_numbers(clip, decay, nesterov)};
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            update_compare(kernels, &c, sizes[s], (s + (size_t)variant) % 4, &source);
        update_not_finite(kernels, &c, &source);
    }
}
/* The root of v over the whole range of floats, in the vectors and in the rest after them: with g =
 * 0, m = v = the number and eps far below its root, w moves by -m / sqrt(v). */
static void update_roots(const gp_kernels *kernels)
{
    const gp_update u = {.scale = 1.0f,
                         .scale_again = 1.0f,
                         .limit = INFINITY,
                         .lr = 1.0f,
                         .shrink = 1.0f,
                         .beta1 = 1.0f,
                         .beta2 = 1.0f,
                         .correction2 = 1.0f,
                         .eps = 1e-30f};
    enum { N = 35 };
    double worst = 0.0;
    size_t wrong = 0;
    for (uint32_t bits = 0; bits < INFINITY_BITS; bits += sweep_step()) {
        float w[N], g[N], m[N], v[N];
        for (size_t i = 0; i < N; i++) {
            w[i] = g[i] = 0.0f;
            m[i] = v[i] = float_of(bits);
        }
        kernels->adam(N, w, g, m, v, &u);
        double x = (double)float_of(bits), want = -x / (sqrt(x) + 1e-30),
               error = relative_error((double)w[0], want);
        if (!(error <= worst)) worst = error;
        for (size_t i = 1; i < N; i++) wrong += bits_of(w[i]) != bits_of(w[0]);
    }
    CHECK_NEAR(worst, 0.0, 3e-7);
    CHECK_INT_EQUAL(wrong, 0);
    const float special[] = {0.0f, INFINITY, NAN, -1.0f};
    for (size_t i = 0; i < 4; i++) { /* w - m / (sqrt(v) + eps) */
        float w = 1.0f, g = 0.0f, m = 1e-30f, v = special[i];
        kernels->adam(1, &w, &g, &m, &v, &u);
        CHECK(i < 2 ? w == (i == 0 ? 0.0f : 1.0f) : isnan(w));
    }
}

static void test_sgd(const gp_kernels *kernels) { update_test(kernels, GP_SGD); }
static void test_adam(const gp_kernels *kernels)
{
    update_test(kernels, GP_ADAM);
    update_roots(kernels);
}
static void test_rmsprop(const gp_kernels *kernels) { update_test(kernels, GP_RMSPROP); }

static void statistics_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer g = input_floats(source, n, shift, 2.0);
    buffer mean = inout_floats(source, n, 1, 1.0), square = inout_floats(source, n, 2, 1.0);
    buffer want_mean = output_floats(n, 0), want_square = output_floats(n, 0);
    for (size_t i = 0; i < n; i++) {
        double x = (double)g.f[i], m = (double)mean.f[i], s = (double)square.f[i];
        want_mean.f[i] = (float)(m + (x - m) * 0.25);
        want_square.f[i] = (float)(s + (x * x - s) * 0.25);
    }
    kernels->statistics(n, g.f, mean.f, square.f, 0.25f);
    CHECK_FLOATS_NEAR(n, mean.f, want_mean.f, 5e-7, 0.0);
    CHECK_FLOATS_NEAR(n, square.f, want_square.f, 5e-7, 0.0);
    kernels->statistics(n, g.f, mean.f, square.f, 1.0f); /* a first batch replaces */
    CHECK_FLOATS_NEAR(n, mean.f, g.f, 5e-7, 0.0);
    CLOSE(g);
    CLOSE(mean);
    CLOSE(square);
    CLOSE(want_mean);
    CLOSE(want_square);
}
static void test_statistics(const gp_kernels *kernels) { over_sizes(kernels, statistics_case); }

#endif
