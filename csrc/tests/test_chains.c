/* test_chains.c - steps behind chains of clippers, those that remember among them.
 *
 * What the tests in Python compare with a reference is here run under sanitizers, over segments of
 * all lengths: whole, masked and listed, rows longer and shorter than blocks.
 */
#include "clippers/clippers.h"
#include "parts.h"

enum { CHAINS = 13, CHAIN_LENGTH = 3, CHAIN_NORMS = 4, CHAIN_STATE = 3 + 2 * CHAIN_NORMS };

static const gp_clip agc = {.ops = &gp_clipper_agc, .settings = {0.5, 0.5}},
                     autoclip = {.ops = &gp_clipper_autoclip,
                                 .settings = {0.5},
                                 .n_state = CHAIN_STATE},
                     zclip = {.ops = &gp_clipper_zclip, .settings = {0.5, 0.5, 2.0}, .n_state = 4},
                     adagc = {.ops = &gp_clipper_adagc,
                              .settings = {1.5, 0.5, 0.5, 2.0},
                              .n_state = GP_STATE_OWN + SEGMENTS},
                     inhibit_norm = {.ops = &gp_clipper_inhibit_norm, .settings = {0.5, 1.0}},
                     inhibit = {.ops = &gp_clipper_inhibit, .settings = {0.5, 0.0}},
                     inhibit_tanh = {.ops = &gp_clipper_inhibit, .settings = {0.5, 1.0}},
                     at_random = {.ops = &gp_clipper_quantize, .settings = {0.0, 3.0}},
                     nearest = {.ops = &gp_clipper_quantize, .settings = {1.0, 3.0}},
                     sign = {.ops = &gp_clipper_quantize, .settings = {2.0, 3.0}},
                     noisy = {.ops = &gp_clipper_noise, .settings = {0.5, 0.5}},
                     centralize = {.ops = &gp_clipper_centralize},
                     norm = {.ops = &gp_clipper_norm, .settings = {0.5, 2.0, 0.0}},
                     value = {.ops = &gp_clipper_value, .settings = {0.5}};

typedef const gp_clip *stages[CHAIN_LENGTH];

static const stages chains[CHAINS] = {
    {&agc},
    {&autoclip},
    {&zclip},
    {&inhibit_norm},
    {&centralize, &adagc},
    {&inhibit},
    {&at_random},
    {&nearest},
    {&sign},
    {&noisy},
    {&centralize, &noisy, &norm},
    {&inhibit_tanh, &agc, &value},
    {&centralize, &zclip, &at_random},
};

typedef struct chain {
    gp_clip stages[CHAIN_LENGTH];
    double state[CHAIN_STATE];
    uint8_t excluded[SEGMENTS];
    float *residual;
} chain;

static chain *chain_new(const stages clips, size_t n)
{
    chain *c = allocated(sizeof *c);
    memset(c, 0, sizeof *c);
    c->excluded[2] = 1;
    c->residual = allocated(n * sizeof(float));
    memset(c->residual, 0, n * sizeof(float));
    for (size_t i = 0; i < CHAIN_LENGTH && clips[i]; i++) {
        gp_clip *clip = &c->stages[i];
        *clip = *clips[i];
        clip->state = c->state;
        if (clip->ops == &gp_clipper_agc) clip->excluded = c->excluded;
        if (clip->ops->keeps_residual) clip->residual = c->residual;
        if (i > 0) c->stages[i - 1].next = clip;
    }
    c->stages[0].work = allocated(n * sizeof(float));
    memset(c->stages[0].work, 0, n * sizeof(float));
    c->stages[0].keep = 1;
    return c;
}

static void chain_free(chain *c)
{
    free(c->stages[0].work);
    free(c->residual);
    free(c);
}

/* Of the gradient that the rule saw: its norm as the step says, and nothing that is removed. */
static void chain_compare(const parts *p, const chain *c, const gp_step_info *info)
{
    const size_t n = p->arena.n;
    float *used = allocated(n * sizeof *used);
    size_t remains = 0;
    memcpy(used, c->stages[0].work, n * sizeof *used);
    gp_live_unpack(p->arena.live, used);
    for (size_t i = 0; i < n; i++) remains += is_removed(p, i) && bits_of(used[i]) != 0;
    CHECK_INT_EQUAL(remains, 0);
    CHECK_NEAR(info->norm_after, naive_norm(n, used, 2.0), info->norm_after * 1e-6);
    free(used);
}

static void chain_steps(const gp_kernels *kernels, pruning how, const stages clips)
{
    parts *one = parts_new(how, 21), *many = parts_new(how, 21);
    chain *first = chain_new(clips, one->arena.n), *second = chain_new(clips, one->arena.n);
    noise source = {22};
    for (uint64_t step = 1; step <= 4; step++) {
        gp_rule rule = rules[step == 4 ? 0 : 4]; /* Adam's squares of 3e38 would be no floats */
        gp_step_info info, other;
        const size_t n = one->arena.n;
        rule.step = step;
        noise_floats(&source, n, one->arena.grads, step == 4 ? 3e38 : 1.0);
        memcpy(many->arena.grads, one->arena.grads, n * sizeof(float));
        CHECK_INT_EQUAL(
            gp_arena_step(pool, kernels, &one->arena, first->stages, &rule, &info, NULL, 1), GP_OK);
        CHECK_INT_EQUAL(
            gp_arena_step(pool, kernels, &many->arena, second->stages, &rule, &other, NULL, 3),
            GP_OK);
        CHECK(info.applied && isfinite(info.norm_after) && info.norm_after == other.norm_after);
        chain_compare(one, first, &info);
        CHECK_BYTES_EQUAL(n * sizeof(float), many->arena.params, one->arena.params);
        CHECK_BYTES_EQUAL(n * sizeof(float), second->residual, first->residual);
        CHECK_BYTES_EQUAL(sizeof first->state, second->state, first->state);
    }
    chain_free(first);
    chain_free(second);
    parts_free(one);
    parts_free(many);
}

static void chain_refuses(const gp_kernels *kernels, const stages clips)
{
    parts *p = parts_new(LISTED, 23);
    chain *c = chain_new(clips, p->arena.n);
    noise source = {24};
    gp_step_info info = {0};
    double state[sizeof c->state / sizeof c->state[0]];
    noise_floats(&source, p->arena.n, p->arena.grads, 1.0);
    p->arena.grads[p->arena.n - 1] = NAN;
    snapshot whole = snapshot_take(&p->arena);
    memcpy(state, c->state, sizeof state);
    gp_rule rule = rules[4];
    rule.step = 1;
    CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &p->arena, c->stages, &rule, &info, NULL, 2),
                    GP_OK);
    CHECK(!info.applied && isnan(info.norm) && isnan(info.norm_after) && !info.clipped);
    CHECK(snapshot_equal(&whole, &p->arena));
    CHECK_BYTES_EQUAL(sizeof state, c->state, state);
    for (size_t i = 0; i < p->arena.n; i++)
        if (c->residual[i] != 0.0f) CHECK(0);
    snapshot_free(&whole);
    chain_free(c);
    parts_free(p);
}

static void test_chains(const gp_kernels *kernels)
{
    for (size_t i = 0; i < CHAINS; i++) {
        long failed = check_failed_count;
        for (pruning how = WHOLE; how <= LISTED; how++)
            if (!is_quick() || (i + how) % 3 == 0) chain_steps(kernels, how, chains[i]);
        chain_refuses(kernels, chains[i]);
        if (check_failed_count > failed) printf("  chain %zu\n", i);
    }
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    OVER_INSTRUCTION_SETS(test_chains);
    gp_pool_destroy(pool);
    return check_summary();
}
