/* test_home.c - a network whose numbers live in its lists, and its twin whose whole buffers count
 * at every call: the same bits, whatever is done to both, and whoever looks in between.
 */
#include "home.h"
#include "networks.h"

static void build_windows(model *m)
{
    gp_window w = model_window(2, 6, 6, 3);
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    model_convolution(m, w, 8);
    model_activation(m, GP_RELU, 0);
    model_convolution(m, model_window(8, 6, 6, 3), 6);
    model_dense(m, model_out(m), 5);
}
static void build_cells(model *m)
{
    model_recurrent(m, GP_LSTM, 4, 9, 11, 0);
    model_dense(m, model_out(m), 3);
}

enum { STEPS_TAKEN = 60, MOST_SAMPLES = 130 };

/* One that somebody may write to at any time, and one that is left alone. */
typedef struct twins {
    scene *open, *shut;
    noise source;
    uint64_t step;
} twins;

static void give_homes(gp_arena *arena)
{
    for (int kind = 0; kind < GP_KINDS; kind++) {
        arena->homes[kind] = allocated(arena->n_segments);
        memset(arena->homes[kind], GP_RETURNED, arena->n_segments);
    }
}

/* Both buffers are those of the twin; then nobody has a view any more. */
static void compare(twins *t, const gp_kernels *kernels)
{
    gp_arena *open = &t->open->m.arena, *shut = &t->shut->m.arena;
    gp_arena_settle(kernels, open);
    gp_arena_settle(kernels, shut);
    CHECK_BYTES_EQUAL((open->n + open->n_buffers) * sizeof(float), open->params, shut->params);
    CHECK_BYTES_EQUAL(open->n * sizeof(float), open->grads, shut->grads);
    for (size_t i = 0; i < GP_MAX_MOMENTS; i++)
        CHECK_BYTES_EQUAL(open->n * sizeof(float), open->moments[i], shut->moments[i]);
}

static void set_mask(twins *t, const gp_kernels *kernels, double share)
{
    const size_t n = t->open->m.arena.n_prunable;
    uint8_t *mask = allocated(n);
    for (size_t i = 0; i < n; i++) mask[i] = noise_unit(&t->source) >= share;
    for (int k = 0; k < 2; k++) {
        model *m = k ? &t->shut->m : &t->open->m;
        CHECK_INT_EQUAL(gp_arena_set_mask(kernels, &m->arena, m->mask, mask, &model_costs,
                                          GP_MAX_MOMENTS, m->arena.moments),
                        GP_OK);
    }
    free(mask);
}

/* Writes into a view that is held for `calls` more calls or given back at once, removed entries
 * too. */
static void write_some(twins *t, const gp_kernels *kernels, gp_kind kind, int keep)
{
    gp_arena *open = &t->open->m.arena, *shut = &t->shut->m.arena;
    const size_t s = noise_below(&t->source, open->n_segments),
                 at = open->segments[s].offset + noise_below(&t->source, open->segments[s].length);
    const float value = (float)noise_unit(&t->source);
    gp_arena_show(kernels, open, kind, s);
    gp_arena_show(kernels, shut, kind, s);
    (kind == GP_VALUES ? open->params : open->grads)[at] = value;
    (kind == GP_VALUES ? shut->params : shut->grads)[at] = value;
    shut->homes[kind][s] = keep ? GP_OUTSIDE : GP_RETURNED;
}

static void release(twins *t)
{
    const gp_arena *shut = &t->shut->m.arena;
    for (int kind = 0; kind < GP_KINDS; kind++)
        for (size_t s = 0; s < shut->n_segments; s++)
            if (shut->homes[kind][s] == GP_OUTSIDE) shut->homes[kind][s] = GP_RETURNED;
}

static void run(twins *t, int apart)
{
    const size_t samples = 1 + noise_below(&t->source, MOST_SAMPLES),
                 threads = 1 + noise_below(&t->source, 3);
    outcome outcomes[2];
    gp_rule now = rule;
    now.step = ++t->step;
    memset(outcomes, 0, sizeof outcomes);
    for (int k = 0; k < 2; k++) {
        scene *s = k ? t->shut : t->open;
        outcome *o = &outcomes[k];
        s->batch.size = samples;
        if (apart) {
            CHECK_INT_EQUAL(
                gp_net_backward(s->net, &s->m.arena, &s->batch, &o->result, SEED, t->step, threads),
                GP_OK);
            CHECK_INT_EQUAL(gp_arena_step(pool, gp_kernels_get(NULL), &s->m.arena, &clip, &now,
                                          &o->info, o->norms, threads),
                            GP_OK);
        } else
            CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &now, &o->result,
                                         &o->info, o->norms, SEED, t->step, threads),
                            GP_OK);
    }
    CHECK_BYTES_EQUAL(sizeof outcomes[0], &outcomes[0], &outcomes[1]);
}

/* What is collected, put back and observed of both, where nobody has a view of the one. */
static void look(twins *t, const gp_kernels *kernels, gp_kind kind)
{
    const gp_arena *arenas[2] = {&t->open->m.arena, &t->shut->m.arena};
    const size_t n = arenas[0]->n, buffers = kind == GP_VALUES ? arenas[0]->n_buffers : 0,
                 size = n - arenas[0]->removed + buffers, at = noise_below(&t->source, size);
    const float written = (float)noise_unit(&t->source);
    float *live[2], *mean[2], *square[2];
    for (int k = 0; k < 2; k++) {
        live[k] = allocated((size + 1) * sizeof(float));
        mean[k] = allocated(n * sizeof(float));
        square[k] = allocated(n * sizeof(float));
        memset(mean[k], 0, n * sizeof(float));
        memset(square[k], 0, n * sizeof(float));
        gp_arena_collect(kernels, arenas[k], kind, live[k]);
        CHECK(gp_arena_is_finite(kernels, arenas[k], kind));
        live[k][at] = NAN;
        gp_arena_replace(kernels, arenas[k], kind, live[k]);
        CHECK(!gp_arena_is_finite(kernels, arenas[k], kind));
        live[k][at] = written;
        gp_arena_replace(kernels, arenas[k], kind, live[k]);
        gp_arena_observe(kernels, arenas[k], NULL, mean[k], square[k], 1);
        gp_arena_observe(kernels, arenas[k], arenas[k]->moments[0], mean[k], square[k], 2);
    }
    CHECK_BYTES_EQUAL(size * sizeof(float), live[0], live[1]);
    CHECK_BYTES_EQUAL(n * sizeof(float), mean[0], mean[1]);
    CHECK_BYTES_EQUAL(n * sizeof(float), square[0], square[1]);
    gp_arena_settle(kernels, arenas[0]);
    const float *whole = kind == GP_VALUES ? arenas[0]->params : arenas[0]->grads;
    size_t place = 0;
    for (size_t i = 0; i < n + buffers; i++)
        if (i >= arenas[0]->n_prunable || arenas[0]->mask[i])
            CHECK(bits_of(live[0][place++]) == bits_of(whole[i]));
    CHECK_INT_EQUAL(place, size);
    gp_live_unpack(arenas[0]->live, mean[0]);
    gp_live_unpack(arenas[0]->live, square[0]);
    float *moment = allocated(n * sizeof(float));
    memcpy(moment, arenas[0]->moments[0], n * sizeof(float));
    gp_live_unpack(arenas[0]->live, moment);
    float *expected[2] = {allocated(n * sizeof(float)), allocated(n * sizeof(float))};
    memset(expected[0], 0, n * sizeof(float));
    memset(expected[1], 0, n * sizeof(float));
    const size_t prunable = arenas[0]->n_prunable;
    kernels->mask(prunable, arenas[0]->mask, moment);
    gp_statistics_update(kernels, prunable, arenas[0]->grads, expected[0], expected[1], 1);
    gp_statistics_update(kernels, prunable, moment, expected[0], expected[1], 2);
    CHECK_BYTES_EQUAL(prunable * sizeof(float), expected[0], mean[0]);
    CHECK_BYTES_EQUAL(prunable * sizeof(float), expected[1], square[0]);
    free(expected[0]);
    free(expected[1]);
    free(moment);
    for (int k = 0; k < 2; k++) {
        free(live[k]);
        free(mean[k]);
        free(square[k]);
    }
}

static void live_apart(const gp_kernels *kernels, builder *build, uint64_t seed)
{
    twins t = {.source = {seed}};
    t.open = scene_new(kernels, build, MOST_SAMPLES, &gp_loss_mse, seed);
    t.shut = scene_new(kernels, build, MOST_SAMPLES, &gp_loss_mse, seed);
    memset(t.open->m.arena.grads, 0, t.open->m.arena.n * sizeof(float));
    memset(t.shut->m.arena.grads, 0, t.shut->m.arena.n * sizeof(float));
    give_homes(&t.shut->m.arena);
    set_mask(&t, kernels, 0.9);
    for (size_t i = 0; i < STEPS_TAKEN; i++) {
        switch (noise_below(&t.source, 14)) {
        case 0: set_mask(&t, kernels, noise_unit(&t.source)); break;
        case 1: set_mask(&t, kernels, 0.75); break;
        case 2: write_some(&t, kernels, GP_VALUES, 0); break;
        case 3: write_some(&t, kernels, GP_VALUES, 1); break;
        case 4: write_some(&t, kernels, GP_GRADIENTS, 0); break;
        case 5: write_some(&t, kernels, GP_GRADIENTS, 1); break;
        case 6: release(&t); break;
        case 7: compare(&t, kernels); break;
        case 8: look(&t, kernels, GP_VALUES); break;
        case 9: look(&t, kernels, GP_GRADIENTS); break;
        case 10:
        case 11: run(&t, 1); break;
        default: run(&t, 0); break;
        }
    }
    compare(&t, kernels);
    for (int kind = 0; kind < GP_KINDS; kind++) free(t.shut->m.arena.homes[kind]);
    scene_free(t.open);
    scene_free(t.shut);
}

static void test_twins(const gp_kernels *kernels)
{
    static builder *const builders[] = {build_everything, build_wide, build_large, build_windows,
                                        build_cells};
    const uint64_t seeds = is_quick() ? 2 : 8;
    for (size_t b = 0; b < sizeof builders / sizeof builders[0]; b++)
        for (uint64_t seed = 0; seed < seeds; seed++) live_apart(kernels, builders[b], 97 + seed);
}

/* While nobody has a view, calls leave the whole buffers of listed segments at 0. */
static void test_left_alone(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_wide, 64, &gp_loss_mse, 5);
    gp_arena *arena = &s->m.arena;
    gp_result result;
    memset(arena->grads, 0, arena->n * sizeof(float));
    give_homes(arena);
    model_prune(&s->m, 0.9, 5);
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    for (size_t i = 0; i < arena->n_prunable; i++)
        CHECK(bits_of(arena->params[i]) == 0 && bits_of(arena->grads[i]) == 0);
    gp_arena_settle(kernels, arena);
    size_t found = 0;
    for (size_t i = 0; i < arena->n_prunable; i++) found += bits_of(arena->params[i]) != 0;
    CHECK(found > 0 && found <= arena->n_prunable - arena->removed);
    for (int kind = 0; kind < GP_KINDS; kind++) free(arena->homes[kind]);
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    OVER_INSTRUCTION_SETS(test_twins);
    OVER_INSTRUCTION_SETS(test_left_alone);
    gp_pool_destroy(pool);
    return check_summary();
}
