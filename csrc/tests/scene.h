/* scene.h - a network with a batch, and what any network must do: agree with naive.h, give the same
 * bits at any number of threads, name what went wrong. */
#ifndef GP_SCENE_H
#define GP_SCENE_H

#include "clippers/clippers.h"
#include "gradprune.h"

#include "fixture.h"
#include "naive.h"

static gp_pool *pool;

typedef void builder(model *m);

/* A model, its network, and a batch for it. */
typedef struct scene {
    model m;
    gp_net *net;
    gp_batch batch;
    float *x, *targets;
    int64_t *labels;
    double *weights; /* used by tests that say so: batch.weights */
    size_t in, out;
} scene;

static inline scene *scene_new(const gp_kernels *kernels, builder *build, size_t samples,
                               const gp_loss_ops *loss, uint64_t seed)
{
    scene *s = allocated(sizeof *s);
    noise source = {seed};
    memset(s, 0, sizeof *s);
    build(&s->m);
    model_finish(&s->m, seed + 1);
    CHECK_INT_EQUAL(gp_net_create(kernels, pool, s->m.n_layers, s->m.layers, &s->net), GP_OK);
    s->in = gp_layers_in(s->m.layers);
    s->out = model_out(&s->m);
    s->x = allocated(samples * s->in * sizeof *s->x);
    s->targets = allocated(samples * s->out * sizeof *s->targets);
    s->labels = allocated(samples * sizeof *s->labels);
    s->weights = allocated(samples * sizeof *s->weights);
    noise_floats(&source, samples * s->in, s->x, 1.5);
    noise_floats(&source, samples * s->out, s->targets, 1.0);
    for (size_t i = 0; i < samples; i++) s->labels[i] = (int64_t)noise_below(&source, s->out);
    for (size_t i = 0; loss == &gp_loss_bce && i < samples * s->out; i++)
        s->targets[i] = fabsf(s->targets[i]);
    s->batch = (gp_batch){.size = samples, .x = s->x, .loss = loss};
    for (size_t i = 0; i < samples; i++)
        s->weights[i] = i % 5 == 3 ? 0.0 : 0.25 + 2.0 * noise_unit(&source);
    if (loss == &gp_loss_cross_entropy) {
        s->batch.settings[NAIVE_SMOOTHING] = seed % 10 == 1 ? 0.2f : 0.0f;
        s->batch.settings[NAIVE_IGNORED] = -100.0f;
    }
    if (loss == &gp_loss_huber) s->batch.settings[NAIVE_DELTA] = 0.75f;
    if (loss == &gp_loss_distillation) {
        s->batch.settings[NAIVE_TEMPERATURE] = 3.0f;
        s->batch.settings[NAIVE_ALPHA] = 0.7f;
    }
    if (loss->takes & GP_TAKES_LABELS) s->batch.labels = s->labels;
    if (loss->takes & GP_TAKES_VALUES) s->batch.targets = s->targets;
    return s;
}

static inline void scene_free(scene *s)
{
    gp_net_destroy(s->net);
    model_free(&s->m);
    free(s->x);
    free(s->targets);
    free(s->labels);
    free(s->weights);
    free(s);
}

enum { SEED = 77, STEP = 5 };

static const gp_rule rule = {.kind = GP_ADAM,
                             .lr = 0.01,
                             .weight_decay = 0.01,
                             .decoupled = 1,
                             .beta1 = 0.9,
                             .beta2 = 0.99,
                             .eps = 1e-8,
                             .step = 1};
static const gp_clip clip = {.ops = &gp_clipper_norm, .settings = {1e-4, 2.0, 1.0}};

static inline gp_status scene_backward(scene *s, gp_result *result, size_t threads)
{
    return gp_net_backward(s->net, &s->m.arena, &s->batch, result, SEED, STEP, threads);
}

static inline naive_net naive_of(const scene *s, const double *params, int training)
{
    return (naive_net){.n_layers = s->m.n_layers,
                       .layers = s->m.layers,
                       .n = s->m.arena.n,
                       .n_prunable = s->m.arena.n_prunable,
                       .params = params,
                       .mask = s->m.mask,
                       .training = training,
                       .seed = SEED,
                       .step = STEP};
}

static inline double *doubles_of(size_t n, const float *values)
{
    double *copy = allocated(n * sizeof *copy);
    for (size_t i = 0; i < n; i++) copy[i] = (double)values[i];
    return copy;
}

/* Directional derivatives along random directions over the live parameters, by central
 * differences. */
static inline void naive_is_right(builder *build, const gp_loss_ops *loss)
{
    scene *s = scene_new(gp_kernels_get(NULL), build, 9, loss, 1);
    const size_t n = s->m.arena.n, all = n + s->m.arena.n_buffers;
    model_prune(&s->m, 0.2, 2);
    double *params = doubles_of(all, s->m.arena.params),
           *moved = doubles_of(all, s->m.arena.params);
    double *grads = allocated(n * sizeof *grads), *direction = allocated(n * sizeof *direction);
    naive_net net = naive_of(s, params, 1), other = naive_of(s, moved, 1);
    noise source = {3};
    naive_run(&net, &s->batch, grads, NULL);
    for (int trial = 0; trial < 5; trial++) {
        const double h = 1e-6;
        double slope = 0.0, ahead, behind;
        for (size_t i = 0; i < n; i++) {
            int removed = i < s->m.arena.n_prunable && !s->m.mask[i];
            direction[i] = removed ? 0.0 : 2.0 * noise_unit(&source) - 1.0;
            slope += direction[i] * grads[i];
        }
        for (size_t i = 0; i < n; i++) moved[i] = params[i] + h * direction[i];
        ahead = naive_run(&other, &s->batch, NULL, NULL);
        for (size_t i = 0; i < n; i++) moved[i] = params[i] - h * direction[i];
        behind = naive_run(&other, &s->batch, NULL, NULL);
        CHECK_NEAR((ahead - behind) / (2.0 * h), slope, 1e-7 * (1.0 + fabs(slope)));
    }
    free(params);
    free(moved);
    free(grads);
    free(direction);
    scene_free(s);
}

static inline double largest_difference(size_t n, const float *got, const double *want)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - want[i]);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

static inline size_t removed_but_not_zero(const gp_arena *arena, const float *values)
{
    size_t remains = 0;
    for (size_t i = 0; i < arena->n_prunable; i++)
        remains += !arena->mask[i] && bits_of(values[i]) != 0;
    return remains;
}

static inline void backward_agrees(scene *s, size_t threads)
{
    const gp_arena *arena = &s->m.arena;
    double *params = doubles_of(arena->n + arena->n_buffers, arena->params),
           *grads = allocated(arena->n * sizeof *grads);
    naive_net net = naive_of(s, params, 1);
    gp_result result = {0};
    double loss = naive_run(&net, &s->batch, grads, NULL);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    CHECK_NEAR(result.loss, loss, 3e-6 * (1.0 + fabs(loss)));
    /* of large gradients, four times what rounding one of them to a float may do */
    double largest = 0.0;
    for (size_t i = 0; i < arena->n; i++) largest = fmax(largest, fabs(grads[i]));
    CHECK_NEAR(largest_difference(arena->n, arena->grads, grads), 0.0,
               fmax(3e-6, 4.0 * 0x1p-24 * largest));
    CHECK_INT_EQUAL(removed_but_not_zero(arena, arena->grads), 0);
    free(params);
    free(grads);
}

/* Weight of guesses of naive outputs that are right; a last softmax does not change the order. */
static inline double naive_correct(const scene *s, const naive_net *net, const double *out)
{
    const double half = naive_is_fused(net, s->batch.loss) ? 0.5 : 0.0; /* of a sigmoid */
    double correct = 0.0;
    for (size_t b = 0; b < s->batch.size; b++) {
        size_t best = 0, sides = 0;
        const size_t row = (s->batch.index ? (size_t)s->batch.index[b] : b) * s->out;
        for (size_t o = 0; !s->batch.labels && o < s->out; o++)
            sides += (out[b * s->out + o] > half) == (s->batch.targets[row + o] > 0.5f);
        correct += (double)sides / (double)s->out * naive_counted(&s->batch, b);
        if (!s->batch.labels) continue;
        for (size_t o = 1; o < s->out; o++)
            if (out[b * s->out + o] > out[b * s->out + best]) best = o;
        if (best == (size_t)s->labels[b]) correct += naive_counted(&s->batch, b);
    }
    return correct;
}

/* evaluate and predict: the same outputs, those of the naive network, and nothing written
 * beyond. */
static inline void outputs_agree(scene *s, size_t threads)
{
    const gp_arena *arena = &s->m.arena;
    const size_t size = s->batch.size * s->out;
    double *params = doubles_of(arena->n + arena->n_buffers, arena->params),
           *want = allocated(size * sizeof *want);
    naive_net net = naive_of(s, params, 0);
    buffer predicted = output_floats(size, 1), evaluated = output_floats(size, 2);
    gp_result result = {0}, again = {0};
    double loss = naive_run(&net, &s->batch, NULL, want);
    CHECK_INT_EQUAL(gp_net_predict(s->net, arena, s->batch.size, s->x, predicted.f, threads),
                    GP_OK);
    CHECK_NEAR(largest_difference(size, predicted.f, want), 0.0, 2e-6);
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, evaluated.f, &result, threads),
                    GP_OK);
    CHECK_BYTES_EQUAL(size * sizeof(float), evaluated.data, predicted.data);
    CHECK_NEAR(result.loss, loss, 3e-6 * (1.0 + fabs(loss)));
    if (s->batch.loss->counts_hits) {
        const double correct = naive_correct(s, &net, want);
        CHECK_NEAR(result.correct, correct, s->batch.labels ? 0.0 : correct * 1e-12);
    }
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, NULL, &again, threads), GP_OK);
    CHECK(again.loss == result.loss && again.correct == result.correct);
    CLOSE(predicted);
    CLOSE(evaluated);
    free(params);
    free(want);
}

typedef struct outcome {
    gp_result result;
    gp_step_info info;
    double norms[2 * MODEL_LAYERS];
} outcome;

typedef struct course {
    builder *build;
    const gp_loss_ops *loss;
    size_t samples;
    double sparsity;
} course;

/* Three steps. With `apart`, each is a backward and a step. */
static inline scene *train(const gp_kernels *kernels, const course *c, size_t threads, int apart,
                           outcome *o)
{
    scene *s = scene_new(kernels, c->build, c->samples, c->loss, 30);
    gp_rule now = rule;
    memset(o, 0, sizeof *o);
    model_prune(&s->m, c->sparsity, 31);
    for (now.step = 1; now.step <= 3; now.step++) {
        if (apart) {
            CHECK_INT_EQUAL(gp_net_backward(s->net, &s->m.arena, &s->batch, &o->result, SEED,
                                            now.step, threads),
                            GP_OK);
            CHECK_INT_EQUAL(
                gp_arena_step(pool, kernels, &s->m.arena, &clip, &now, &o->info, o->norms, threads),
                GP_OK);
        } else {
            CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &now, &o->result,
                                         &o->info, o->norms, SEED, now.step, threads),
                            GP_OK);
        }
        CHECK_INT_EQUAL(removed_but_not_zero(&s->m.arena, s->m.arena.params), 0);
        CHECK_INT_EQUAL(removed_but_not_zero(&s->m.arena, s->m.arena.grads), 0);
    }
    CHECK(o->info.applied && o->info.clipped && isfinite(o->result.loss));
    return s;
}

static inline void same_bits(const gp_kernels *kernels, const course *c)
{
    outcome one, other;
    scene *expected = train(kernels, c, 1, 0, &one);
    snapshot whole = snapshot_take(&expected->m.arena);
    for (size_t threads = 1; threads <= 3; threads++)
        for (int apart = 0; apart < 2; apart++) {
            scene *s = train(kernels, c, threads, apart, &other);
            CHECK(snapshot_equal(&whole, &s->m.arena));
            CHECK_BYTES_EQUAL(s->m.arena.n * sizeof(float), s->m.arena.grads,
                              expected->m.arena.grads);
            CHECK(other.result.loss == one.result.loss &&
                  other.result.correct == one.result.correct);
            CHECK(other.info.norm == one.info.norm && other.info.scale == one.info.scale);
            CHECK_BYTES_EQUAL(sizeof one.norms, other.norms, one.norms);
            scene_free(s);
        }
    snapshot_free(&whole);
    scene_free(expected);
}

static inline void fault_equals(const gp_fault *fault, gp_phase phase, size_t layer, int bias,
                                size_t row, size_t column)
{
    CHECK_INT_EQUAL(fault->phase, phase);
    CHECK_INT_EQUAL(fault->layer, layer);
    CHECK_INT_EQUAL(fault->bias, bias);
    CHECK_INT_EQUAL(fault->row, row);
    CHECK_INT_EQUAL(fault->column, column);
}

static inline void input_fault_is(const scene *s, gp_phase phase, size_t row, size_t column)
{
    gp_fault fault;
    gp_net_input_fault(s->net, &fault);
    fault_equals(&fault, phase, GP_NONE, 0, row, column);
}

/* Of the numbers inside; the input was good. */
static inline void fault_is(const scene *s, gp_phase phase, size_t layer, int bias, size_t row,
                            size_t column)
{
    gp_fault fault;
    input_fault_is(s, GP_PHASE_NONE, 0, 0);
    gp_net_fault(s->net, &s->m.arena, &fault);
    fault_equals(&fault, phase, layer, bias, row, column);
}

static inline void no_fault(const scene *s) { fault_is(s, GP_PHASE_NONE, GP_NONE, 0, 0, 0); }

#endif
