/* test_optim.c - the clipped optimizer step over an arena.
 *
 * A reference step in double clips as the manual says (one norm over everything, a group or a
 * segment; live entries only), then applies torch's formulas number by number. Every rule meets
 * every clip, with and without removed weights, over several steps, on an arena whose segments are
 * empty, tiny, and longer than a block. The same bits must come from any number of threads, a step
 * whose norm is not finite must change nothing, and a call that breaks the contract must be
 * refused.
 */
#include "clippers/clippers.h"
#include "parts.h"

/* ---- clips ----------------------------------------------------------------------------------- */

#define NORM(limit, p, over) \
    { \
        .ops = &gp_clipper_norm, .settings = {limit, p, over} \
    }
enum {
    LIMIT,
    NORM_TYPE,
    OVER
}; /* settings of gp_clipper_norm; the first also of gp_clipper_value */
enum { ALL, GROUP, SEGMENT };

static const gp_clip clips[] = {
    {.ops = NULL},
    {.ops = &gp_clipper_value, .settings = {0.5}},
    NORM(20.0, 2.0, ALL),
    NORM(1e9, 1.5, ALL),
    NORM(0.25, INFINITY, ALL),
    NORM(40.0, 2.0, GROUP),
    NORM(30.0, 1.0, SEGMENT),
    NORM(3.0, 4.0, SEGMENT),
};
enum { CLIPS = sizeof clips / sizeof clips[0] };

/* ---- the reference --------------------------------------------------------------------------- */

typedef struct reference {
    naive_state *states; /* n */
    gp_step_info info;
    double segment_norms[SEGMENTS];
} reference;

/* The p-norm of the live gradients of the segments that `member` (of segment s) says belong. */
static double live_norm(const parts *p, double norm_type, size_t s, int (*member)(size_t, size_t))
{
    float *live = allocated(p->arena.n * sizeof *live);
    size_t n = 0;
    for (size_t other = 0; other < SEGMENTS; other++)
        for (size_t i = 0; member(s, other) && i < lengths[other]; i++)
            if (!is_removed(p, p->segments[other].offset + i))
                live[n++] = p->arena.grads[p->segments[other].offset + i];
    double norm = naive_norm(n, live, norm_type);
    free(live);
    return norm;
}
static int in_all(size_t s, size_t other) { return (void)s, (void)other, 1; }
static int in_group(size_t s, size_t other) { return groups[s] == groups[other]; }
static int in_segment(size_t s, size_t other) { return s == other; }

static double factor_of(const parts *p, const gp_clip *clip, double total, size_t s)
{
    const double limit = clip->settings[LIMIT], norm_type = clip->settings[NORM_TYPE];
    double norm = total;
    if (clip->ops != &gp_clipper_norm) return 1.0;
    if (clip->settings[OVER] == GROUP) norm = live_norm(p, norm_type, s, in_group);
    if (clip->settings[OVER] == SEGMENT) norm = live_norm(p, norm_type, s, in_segment);
    return norm > limit ? limit / (norm + 1e-6) : 1.0;
}

static void reference_step(reference *r, const parts *p, const gp_clip *clip, const gp_rule *rule)
{
    const double norm_type = clip->ops == &gp_clipper_norm ? clip->settings[NORM_TYPE] : 2.0;
    r->info =
        (gp_step_info){.norm = live_norm(p, norm_type, 0, in_all), .scale = 1.0, .applied = 1};
    for (size_t s = 0; s < SEGMENTS; s++) {
        double factor = factor_of(p, clip, r->info.norm, s);
        r->segment_norms[s] = live_norm(p, norm_type, s, in_segment);
        r->info.scale = fmin(r->info.scale, factor);
        for (size_t i = p->segments[s].offset; i < p->segments[s].offset + lengths[s]; i++) {
            double g = (double)p->arena.grads[i] * factor;
            if (is_removed(p, i)) continue;
            if (clip->ops == &gp_clipper_value) {
                if (fabs(g) > clip->settings[LIMIT]) r->info.clipped = 1;
                g = fmin(fmax(g, -clip->settings[LIMIT]), clip->settings[LIMIT]);
            }
            r->states[i] = naive_step(rule, r->states[i], g);
        }
    }
    if (r->info.scale < 1.0) r->info.clipped = 1;
}

static void reference_compare(const reference *r, const parts *p)
{
    const gp_arena *a = &p->arena;
    double worst[3] = {0};
    size_t remains = 0;
    float *moments[2];
    for (size_t i = 0; i < 2; i++) {
        moments[i] = allocated(a->n * sizeof(float));
        memcpy(moments[i], a->moments[i], a->n * sizeof(float));
        gp_live_unpack(a->live, moments[i]);
    }
    for (size_t i = 0; i < a->n; i++) {
        const double got[3] = {(double)a->params[i], (double)moments[0][i], (double)moments[1][i]};
        const double want[3] = {r->states[i].w, r->states[i].m[0], r->states[i].m[1]};
        if (is_removed(p, i))
            remains += bits_of(a->params[i]) || bits_of(a->grads[i]) || bits_of(moments[0][i]) ||
                       bits_of(moments[1][i]);
        for (size_t j = 0; j < 3; j++) {
            double error = fabs(got[j] - want[j]) / (1.0 + fabs(want[j]));
            if (!(error <= worst[j])) worst[j] = error;
        }
    }
    CHECK_INT_EQUAL(remains, 0);
    for (size_t j = 0; j < 3; j++) CHECK_NEAR(worst[j], 0.0, 2e-6);
    free(moments[0]);
    free(moments[1]);
}

static void info_compare(const gp_step_info *got, const gp_step_info *want)
{
    CHECK_NEAR(got->norm, want->norm, want->norm * 1e-11);
    CHECK_NEAR(got->scale, want->scale, want->scale * 1e-11);
    CHECK_INT_EQUAL(got->clipped, want->clipped);
    CHECK_INT_EQUAL(got->applied, want->applied);
}

/* ---- steps against the reference ------------------------------------------------------------- */

static void steps_agree(const gp_kernels *kernels, const gp_rule *rule, const gp_clip *clip,
                        pruning how)
{
    parts *p = parts_new(how, 1);
    reference r = {.states = calloc(p->arena.n, sizeof *r.states)};
    noise source = {2};
    for (size_t i = 0; i < p->arena.n; i++) r.states[i].w = (double)p->arena.params[i];
    for (uint64_t step = 1; step <= 3; step++) {
        gp_rule now = *rule;
        gp_step_info info;
        double norms[SEGMENTS];
        now.step = step;
        noise_floats(&source, p->arena.n, p->arena.grads, 1.0);
        reference_step(&r, p, clip, &now);
        CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &p->arena, clip, &now, &info, norms, 2),
                        GP_OK);
        info_compare(&info, &r.info);
        for (size_t s = 0; s < SEGMENTS; s++)
            CHECK_NEAR(norms[s], r.segment_norms[s], r.segment_norms[s] * 1e-11);
        reference_compare(&r, p);
    }
    free(r.states);
    parts_free(p);
}

static void test_steps(const gp_kernels *kernels)
{
    for (size_t rule = 0; rule < RULES; rule++)
        for (size_t clip = 0; clip < CLIPS; clip++) {
            if (is_quick() && (rule + clip) % 4) continue;
            long failed = check_failed_count;
            steps_agree(kernels, &rules[rule], &clips[clip], PRUNED);
            steps_agree(kernels, &rules[rule], &clips[clip], LISTED);
            if (clip < 2) steps_agree(kernels, &rules[rule], &clips[clip], WHOLE);
            if (check_failed_count > failed) printf("  rule %zu, clip %zu\n", rule, clip);
        }
}

/* ---- threads --------------------------------------------------------------------------------- */

/* Three steps with so many threads; returns the arena. */
static parts *steps_with(const gp_kernels *kernels, pruning how, size_t threads,
                         const gp_rule *rule, const gp_clip *clip, gp_step_info *info,
                         double *norms)
{
    parts *p = parts_new(how, 3);
    noise source = {4};
    for (uint64_t step = 1; step <= 3; step++) {
        gp_rule now = *rule;
        now.step = step;
        noise_floats(&source, p->arena.n, p->arena.grads, 1.0);
        CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &p->arena, clip, &now, info, norms, threads),
                        GP_OK);
    }
    return p;
}

static void same_bits(const gp_kernels *kernels, pruning how, const gp_rule *rule,
                      const gp_clip *clip)
{
    static const size_t threads[] = {0, 2, 3, 7, 1000};
    double one_norms[SEGMENTS], norms[SEGMENTS];
    gp_step_info one_info, info;
    parts *one = steps_with(kernels, how, 1, rule, clip, &one_info, one_norms);
    snapshot expected = snapshot_take(&one->arena);
    for (size_t t = 0; t < 5; t++) {
        parts *many = steps_with(kernels, how, threads[t], rule, clip, &info, norms);
        CHECK(snapshot_equal(&expected, &many->arena));
        CHECK_BYTES_EQUAL(many->arena.n * sizeof(float), many->arena.grads, one->arena.grads);
        CHECK_BYTES_EQUAL(sizeof norms, norms, one_norms);
        CHECK(info.norm == one_info.norm && info.scale == one_info.scale);
        parts_free(many);
    }
    snapshot_free(&expected);
    parts_free(one);
}

static void test_threads(const gp_kernels *kernels)
{
    for (size_t clip = 0; clip < CLIPS; clip++)
        same_bits(kernels, clip % 2 ? LISTED : PRUNED, &rules[clip % RULES], &clips[clip]);
    same_bits(kernels, PRUNED, &rules[8], &clips[2]);
    same_bits(kernels, LISTED, &rules[8], &clips[2]);
}

/* ---- what is not finite changes nothing ------------------------------------------------------ */

static void test_not_finite(const gp_kernels *kernels)
{
    parts *p = parts_new(PRUNED, 5);
    const size_t places[] = {p->arena.n - 1, p->arena.n_prunable, 2000, GP_NORM_BLOCK + 1};
    noise source = {6};
    p->mask[2000] = p->mask[GP_NORM_BLOCK + 1] = 1; /* alive, whatever it was */
    for (size_t clip = 0; clip < CLIPS; clip++)
        for (size_t bad = 0; bad < 4; bad++) {
            gp_rule rule = rules[6];
            gp_step_info info = {0};
            snapshot whole = snapshot_take(&p->arena);
            rule.step = 1;
            noise_floats(&source, p->arena.n, p->arena.grads, 1.0);
            p->arena.grads[places[bad]] = bad % 2 ? NAN : -INFINITY;
            CHECK_INT_EQUAL(
                gp_arena_step(pool, kernels, &p->arena, &clips[clip], &rule, &info, NULL, 2),
                GP_OK);
            CHECK(!info.applied && (bad % 2 ? isnan(info.norm) : info.norm == INFINITY));
            CHECK(snapshot_equal(&whole, &p->arena));
            snapshot_free(&whole);
        }
    parts_free(p);
}

/* A NaN in the gradient of a removed weight is no gradient at all. */
static void test_not_finite_but_removed(const gp_kernels *kernels)
{
    for (size_t clip = 0; clip < CLIPS; clip++) {
        parts *p = parts_new(clip % 2 ? LISTED : PRUNED, 7);
        noise source = {8};
        gp_rule rule = rules[4];
        gp_step_info info = {0};
        size_t remains = 0;
        rule.step = 1;
        noise_floats(&source, p->arena.n, p->arena.grads, 1.0);
        for (size_t i = 0; i < p->arena.n; i++)
            if (is_removed(p, i)) p->arena.grads[i] = i % 2 ? NAN : INFINITY;
        CHECK_INT_EQUAL(
            gp_arena_step(pool, kernels, &p->arena, &clips[clip], &rule, &info, NULL, 1), GP_OK);
        CHECK(info.applied && isfinite(info.norm));
        for (size_t i = 0; i < p->arena.n; i++) {
            remains += !isfinite(p->arena.params[i]) || !isfinite(p->arena.grads[i]);
            if (is_removed(p, i))
                remains += bits_of(p->arena.grads[i]) != 0 || bits_of(p->arena.params[i]) != 0;
        }
        CHECK_INT_EQUAL(remains, 0);
        parts_free(p);
    }
}

/* Huge gradients are finite: the squares of floats fit a double. */
static void test_huge(const gp_kernels *kernels)
{
    for (size_t clip = 0; clip < CLIPS; clip++) {
        parts *p = parts_new(PRUNED, 9);
        gp_rule rule = rules[0];
        gp_step_info info = {0};
        size_t bad = 0;
        rule.step = 1;
        for (size_t i = 0; i < p->arena.n; i++) p->arena.grads[i] = i % 2 ? FLT_MAX : -FLT_MAX;
        CHECK_INT_EQUAL(
            gp_arena_step(pool, kernels, &p->arena, &clips[clip], &rule, &info, NULL, 2), GP_OK);
        CHECK(info.applied && isfinite(info.norm) && info.norm > 1e38);
        for (size_t i = 0; i < p->arena.n; i++) bad += !isfinite(p->arena.params[i]) ? 1 : 0;
        CHECK_INT_EQUAL(bad, 0);
        parts_free(p);
    }
}

/* A finite gradient whose step would leave float changes nothing; clipped, it is a step like any
 * other. */
static void overflow(const gp_kernels *kernels, pruning how, gp_rule rule, float size,
                     const gp_clip *clip)
{
    parts *p = parts_new(how, 14);
    gp_step_info info = {0};
    size_t bad = 0;
    rule.step = 1;
    p->arena.grads[p->arena.n - 1] = size;
    snapshot whole = snapshot_take(&p->arena);
    CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &p->arena, clip, &rule, &info, NULL, 2), GP_OK);
    CHECK(isfinite(info.norm) && info.applied == (clip->ops != NULL));
    if (!clip->ops) CHECK(snapshot_equal(&whole, &p->arena));
    for (size_t i = 0; i < p->arena.n; i++)
        bad += !isfinite(p->arena.params[i]) || !isfinite(p->arena.moments[0][i]) ||
               !isfinite(p->arena.moments[1][i]);
    CHECK_INT_EQUAL(bad, 0);
    snapshot_free(&whole);
    parts_free(p);
}

static void test_overflow(const gp_kernels *kernels)
{
    const gp_rule fast = {.kind = GP_SGD, .lr = 100.0};
    for (size_t clip = 0; clip < CLIPS; clip++) {
        if (clip == 3) continue; /* a norm of 1e9, and a step of 1e11 */
        overflow(kernels, PRUNED, fast, 1e37f, &clips[clip]);
        /* its momentum may grow tenfold */
        overflow(kernels, LISTED, rules[2], 1e38f, &clips[clip]);
        overflow(kernels, PRUNED, rules[4], -1e20f, &clips[clip]);
        overflow(kernels, LISTED, rules[7], 1e25f, &clips[clip]);
    }
}

/* Limits of a rule: of an entry and of the norm, before clipping, live entries only. */
static void test_limits(const gp_kernels *kernels)
{
    static const double sizes[] = {2.0, 1.0, 0.5};
    for (pruning how = WHOLE; how <= LISTED; how++)
        for (size_t clip = 0; clip < CLIPS; clip++)
            for (size_t i = 0; i < 6; i++) {
                parts *p = parts_new(how, 15);
                gp_rule rule = rules[clip % RULES];
                gp_step_info info = {0};
                rule.step = 1;
                *(i < 3 ? &rule.max_gradient : &rule.max_norm) = 1.0;
                p->mask[2] = 1;
                p->arena.grads[how == LISTED ? p->arena.n - 3 : 2] = (float)-sizes[i % 3];
                for (size_t k = 0; k < p->arena.n_prunable; k++)
                    if (!p->mask[k]) p->arena.grads[k] = 5.0f;
                snapshot whole = snapshot_take(&p->arena);
                CHECK_INT_EQUAL(
                    gp_arena_step(pool, kernels, &p->arena, &clips[clip], &rule, &info, NULL, 2),
                    GP_OK);
                CHECK(info.applied == (i % 3 > 0));
                CHECK_NEAR(info.norm, sizes[i % 3], 1e-6);
                CHECK(snapshot_equal(&whole, &p->arena) == (i % 3 == 0));
                snapshot_free(&whole);
                parts_free(p);
            }
}

/* A factor too small for a float still has all its digits: 1e15 is clipped to 1e-30, and a step of
 * 1e30 shows it. */
static void test_tiny_factor(const gp_kernels *kernels)
{
    static const double limits[] = {1e-30, 1e-25, 1e-10};
    for (size_t i = 0; i < 3; i++) {
        const gp_clip tiny = NORM(limits[i], 2.0, ALL);
        const gp_rule huge = {.kind = GP_SGD, .lr = 1.0 / limits[i], .step = 1};
        parts *p = parts_new(PRUNED, 12);
        reference r = {.states = calloc(p->arena.n, sizeof *r.states)};
        noise source = {13};
        gp_step_info info;
        for (size_t j = 0; j < p->arena.n; j++) r.states[j].w = p->arena.params[j] = 0.0f;
        noise_floats(&source, p->arena.n, p->arena.grads, 1e15);
        reference_step(&r, p, &tiny, &huge);
        CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &p->arena, &tiny, &huge, &info, NULL, 2),
                        GP_OK);
        info_compare(&info, &r.info);
        for (size_t j = 0; j < p->arena.n; j += 11)
            CHECK_NEAR(p->arena.params[j], r.states[j].w, fabs(r.states[j].w) * 1e-5);
        free(r.states);
        parts_free(p);
    }
}

/* Within the limit, clipping leaves every bit as it would be without. */
static void test_scale_one(const gp_kernels *kernels)
{
    for (size_t clip = 1; clip < CLIPS; clip++) {
        gp_clip wide = clips[clip];
        gp_step_info info, plain_info;
        wide.settings[LIMIT] = 1e30;
        parts *plain = steps_with(kernels, PRUNED, 1, &rules[6], &clips[0], &plain_info, NULL);
        parts *clipped = steps_with(kernels, PRUNED, 1, &rules[6], &wide, &info, NULL);
        snapshot expected = snapshot_take(&plain->arena);
        CHECK(snapshot_equal(&expected, &clipped->arena));
        CHECK(info.scale == 1.0 && !info.clipped && info.applied);
        snapshot_free(&expected);
        parts_free(plain);
        parts_free(clipped);
    }
}

/* ---- refused --------------------------------------------------------------------------------- */

static void refused(const char *what, const gp_arena *arena, const gp_clip *clip,
                    const gp_rule *rule)
{
    gp_step_info info = {.norm = -1.0};
    gp_status status = gp_arena_step(pool, gp_kernels_get(NULL), arena, clip, rule, &info, NULL, 2);
    if (!CHECK_INT_EQUAL(status, GP_BAD_ARGUMENT)) printf("  %s\n", what);
    CHECK(info.norm == -1.0);
}

static void refused_clips_and_rules(const gp_arena *arena, const gp_clip *clip, const gp_rule *rule)
{
    static const double bad[] = {0.0, -1.0, NAN, -INFINITY};
    static const gp_clipper_ops *const limited[] = {
        &gp_clipper_value,        &gp_clipper_norm,  &gp_clipper_agc,  &gp_clipper_inhibit,
        &gp_clipper_inhibit_norm, &gp_clipper_noise, &gp_clipper_zclip};
    float *work = allocated(arena->n * sizeof *work);
    for (size_t i = 0; i < 4; i++) {
        double state[4] = {0};
        for (size_t k = 0; k < sizeof limited / sizeof limited[0]; k++)
            refused("limit", arena,
                    &(gp_clip){.ops = limited[k],
                               .settings = {bad[i], 2.0},
                               .work = work,
                               .state = state,
                               .n_state = 4},
                    rule);
        refused("steps", arena,
                &(gp_clip){.ops = &gp_clipper_quantize, .settings = {0.0, bad[i]}, .work = work},
                rule);
        refused("norm type", arena, &(gp_clip)NORM(1.0, bad[i], ALL), rule);
    }
    refused("over what", arena, &(gp_clip)NORM(1.0, 2.0, 3.0), rule);
    refused("form", arena,
            &(gp_clip){.ops = &gp_clipper_quantize, .settings = {3.0, 4.0}, .work = work}, rule);
    refused("a residual of none", arena,
            &(gp_clip){.ops = &gp_clipper_noise,
                       .settings = {1.0, 1.0},
                       .work = work,
                       .residual = arena->grads},
            rule);
    free(work);
    gp_rule no_step = *rule, no_kind = *rule;
    no_step.step = 0;
    no_kind.kind = GP_RULES;
    refused("step 0", arena, clip, &no_step);
    refused("rule kind", arena, clip, &no_kind);
}

/* Stages without what they need, two factors, a stage after none, or too many. */
static void refused_chains(const gp_arena *arena, const gp_rule *rule)
{
    enum { NEXT = GP_STATE_OWN, HEAD };
    double state[HEAD + 2] = {0};
    float *work = allocated(arena->n * sizeof *work);
    const gp_clip norm = NORM(1.0, 2.0, ALL), none = {.ops = NULL};
    gp_clip percentile = {
        .ops = &gp_clipper_autoclip, .settings = {10.0}, .state = state, .n_state = HEAD + 2};
    gp_clip many[GP_MAX_CLIPS + 1];
    refused("no state", arena, &(gp_clip){.ops = &gp_clipper_zclip, .settings = {1.0}}, rule);
    refused("no room", arena, &(gp_clip){.ops = &gp_clipper_inhibit, .settings = {1.0}}, rule);
    refused("keep without room", arena, &(gp_clip){.ops = NULL, .keep = 1}, rule);
    refused(
        "two factors", arena,
        &(gp_clip){
            .ops = &gp_clipper_norm, .settings = {1.0, 2.0, GROUP}, .next = &norm, .work = work},
        rule);
    refused("after none", arena, &(gp_clip){.ops = NULL, .next = &norm, .work = work}, rule);
    refused("none after another", arena,
            &(gp_clip){.ops = &gp_clipper_value, .settings = {1.0}, .next = &none, .work = work},
            rule);
    state[GP_STATE_COUNT] = 2.0;
    refused("more norms than room", arena, &percentile, rule);
    state[GP_STATE_COUNT] = 0.0;
    static const double places[] = {1.0, 2.0, -1.0, NAN}; /* there is one, 0 */
    for (size_t i = 0; i < 4; i++) {
        state[NEXT] = places[i];
        refused("a place outside of the ring", arena, &percentile, rule);
    }
    state[NEXT] = 0.0;
    percentile.settings[0] = 100.5;
    refused("percentile", arena, &percentile, rule);
    percentile.settings[0] = NAN;
    refused("percentile", arena, &percentile, rule);
    for (size_t i = 0; i <= GP_MAX_CLIPS; i++)
        many[i] = (gp_clip){.ops = &gp_clipper_value,
                            .settings = {1.0},
                            .next = i < GP_MAX_CLIPS ? &many[i + 1] : NULL};
    many[0].work = work;
    refused("too many", arena, many, rule);
    free(work);
}

static void refused_moments(const gp_arena *arena, const gp_clip *clip)
{
    for (size_t rule = 2; rule < RULES; rule++) { /* the first two need none */
        int second = rules[rule].kind == GP_ADAM ||
                     (rules[rule].kind == GP_RMSPROP && rules[rule].momentum != 0.0);
        gp_rule now = rules[rule];
        gp_arena without = *arena;
        now.step = 1;
        without.moments[second] = NULL;
        refused("moments", &without, clip, &now);
    }
}

static void refused_segments(const gp_arena *arena, const gp_clip *clip, const gp_rule *rule)
{
    gp_segment segments[SEGMENTS];
    gp_arena changed = *arena;
    changed.segments = segments;
    for (size_t i = 0; i < 4; i++) {
        memcpy(segments, arena->segments, sizeof segments);
        if (i == 0) segments[3].offset++;            /* a gap */
        if (i == 1) segments[SEGMENTS - 1].length--; /* too short */
        if (i == 2) segments[SEGMENTS - 1].length++; /* too long */
        if (i == 3) segments[2].group = SEGMENTS;    /* no such group */
        refused("segments", &changed, clip, rule);
    }
    changed = *arena;
    changed.n_prunable -= 1; /* a segment half prunable */
    refused("border", &changed, clip, rule);
    changed.n_prunable = arena->n + 1;
    refused("n_prunable", &changed, clip, rule);
}

static void test_refused(void)
{
    parts *p = parts_new(PRUNED, 10);
    gp_rule rule = rules[4];
    snapshot whole = snapshot_take(&p->arena);
    rule.step = 1;
    refused_clips_and_rules(&p->arena, &clips[2], &rule);
    refused_chains(&p->arena, &rule);
    refused_moments(&p->arena, &clips[2]);
    refused_segments(&p->arena, &clips[2], &rule);
    CHECK(snapshot_equal(&whole, &p->arena));
    snapshot_free(&whole);
    parts_free(p);
}

/* Rules do without the moments they do not use, and an arena may be empty. */
static void test_little(void)
{
    float w[3] = {1.0f, 2.0f, 3.0f}, g[3] = {1.0f, -1.0f, 0.5f};
    const float expected[3] = {0.5f, 2.5f, 2.75f};
    const gp_segment segment = {0, 3, 0, 0};
    const gp_arena arena = {.n = 3, .params = w, .grads = g, .n_segments = 1, .segments = &segment},
                   empty = {0};
    const gp_rule rule = {.kind = GP_SGD, .lr = 0.5, .step = 1};
    gp_step_info info = {0};
    const gp_kernels *kernels = gp_kernels_get(NULL);
    CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &arena, &clips[0], &rule, &info, NULL, 2), GP_OK);
    CHECK_FLOATS_NEAR(3, w, expected, 0.0, 0.0);
    CHECK_NEAR(info.norm, 1.5, 1e-15);
    for (size_t clip = 0; clip < CLIPS; clip++) {
        CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &empty, &clips[clip], &rule, &info, NULL, 2),
                        GP_OK);
        CHECK(info.norm == 0.0 && info.scale == 1.0 && !info.clipped && info.applied);
    }
}

/* ---- statistics ------------------------------------------------------------------------------ */

static void test_statistics(const gp_kernels *kernels)
{
    enum { N = 101, BATCHES = 9 };
    float g[N], mean[N], square[N];
    double sum[N] = {0}, squares[N] = {0};
    noise source = {11};
    for (size_t i = 0; i < N; i++) mean[i] = square[i] = 0.0f;
    for (uint64_t count = 1; count <= BATCHES; count++) {
        noise_floats(&source, N, g, 1.0);
        gp_statistics_update(kernels, N, g, mean, square, count);
        for (size_t i = 0; i < N; i++) {
            sum[i] += (double)g[i];
            squares[i] += (double)g[i] * (double)g[i];
            CHECK_NEAR(mean[i], sum[i] / (double)count, 5e-7);
            CHECK_NEAR(square[i], squares[i] / (double)count, 5e-7);
        }
    }
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    OVER_INSTRUCTION_SETS(test_steps);
    OVER_INSTRUCTION_SETS(test_threads);
    OVER_INSTRUCTION_SETS(test_not_finite);
    OVER_INSTRUCTION_SETS(test_not_finite_but_removed);
    OVER_INSTRUCTION_SETS(test_huge);
    OVER_INSTRUCTION_SETS(test_overflow);
    OVER_INSTRUCTION_SETS(test_limits);
    OVER_INSTRUCTION_SETS(test_tiny_factor);
    OVER_INSTRUCTION_SETS(test_scale_one);
    test_refused();
    test_little();
    OVER_INSTRUCTION_SETS(test_statistics);
    gp_pool_destroy(pool);
    return check_summary();
}
