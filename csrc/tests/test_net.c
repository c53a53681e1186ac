/* test_net.c - whole networks: against naive C, for the same bits whatever the threads, and for what happens when the
 * input, the labels or the parameters are bad.
 *
 * naive.h runs the same layers in double, sample by sample; finite differences check naive.h itself. Batches are
 * chosen around the chunk of 64 lanes and the block of 1024 samples. Networks that are to run on several threads must
 * be large enough for the engine to find sharing worth while.
 */
#include "gradprune.h"

#include "fixture.h"
#include "naive.h"

static gp_pool *pool;

/* ---- networks -------------------------------------------------------------------------------------------------------- */

static void build_classifier(model *m)
{
    model_dense(m, 13, 17);
    model_activation(m, GP_RELU, 0);
    model_dense(m, 17, 5);
}
static void build_softmax(model *m)
{
    model_dense(m, 6, 9);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 9, 4)->l2 = 0.01f;
    model_softmax(m);
}
static void build_sigmoid(model *m)
{
    model_dense(m, 5, 3)->l1 = 0.02f;
    model_activation(m, GP_SIGMOID, 0);
}
static void build_everything(model *m)
{
    model_dropout(m, 0.2f, 11);
    gp_layer_spec *first = model_dense(m, 11, 30);
    first->l1 = 0.003f;
    first->l2 = 0.002f;
    model_activation(m, GP_GELU, 0);
    model_dropout(m, 0.5f, 0);
    model_dense(m, 30, 16)->bias = GP_NONE;
    model_activation(m, GP_LEAKY_RELU, 0);
    model_dense(m, 16, 3);
}
/* Nothing before it, nothing to learn in the middle of it. */
static void build_odd(model *m)
{
    model_activation(m, GP_SIGMOID, 7);
    model_dense(m, 7, 1)->bias = GP_NONE;
    model_activation(m, GP_IDENTITY, 0);
    model_dense(m, 1, 6);
    model_softmax(m);
    model_dense(m, 6, 2);
}
static void build_line(model *m) { model_dense(m, 1, 1); }
/* 40 inputs do not fit two vectors, 50 outputs are more than two blocks of rows. */
static void build_wide(model *m)
{
    model_dense(m, 40, 50);
    model_activation(m, GP_GELU, 0);
    model_dense(m, 50, 100);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 100, 10);
}

typedef void builder(model *m);
static builder *const builders[] = {build_classifier, build_softmax, build_sigmoid, build_everything,
                                    build_odd,        build_line,    build_wide};
enum { BUILDERS = sizeof builders / sizeof builders[0] };

/* A model, its network, and a batch for it. */
typedef struct scene {
    model m;
    gp_net *net;
    gp_batch batch;
    float *x, *targets;
    int64_t *labels;
    size_t in, out;
} scene;

static scene *scene_new(const gp_kernels *kernels, builder *build, size_t samples, gp_loss loss, uint64_t seed)
{
    scene *s = allocated(sizeof *s);
    noise source = {seed};
    memset(s, 0, sizeof *s);
    build(&s->m);
    model_finish(&s->m, seed + 1);
    CHECK_INT_EQUAL(gp_net_create(kernels, pool, s->m.n_layers, s->m.layers, &s->net), GP_OK);
    s->in = s->m.layers[0].in;
    s->out = model_out(&s->m);
    s->x = allocated(samples * s->in * sizeof *s->x);
    s->targets = allocated(samples * s->out * sizeof *s->targets);
    s->labels = allocated(samples * sizeof *s->labels);
    noise_floats(&source, samples * s->in, s->x, 1.5);
    noise_floats(&source, samples * s->out, s->targets, 1.0);
    for (size_t i = 0; i < samples; i++) s->labels[i] = (int64_t)noise_below(&source, s->out);
    for (size_t i = 0; loss == GP_BCE && i < samples * s->out; i++) s->targets[i] = fabsf(s->targets[i]);
    s->batch = (gp_batch){.size = samples, .x = s->x, .loss = loss};
    if (loss == GP_CROSS_ENTROPY) s->batch.labels = s->labels;
    else s->batch.targets = s->targets;
    return s;
}

static void scene_free(scene *s)
{
    gp_net_destroy(s->net);
    model_free(&s->m);
    free(s->x);
    free(s->targets);
    free(s->labels);
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
static const gp_clip clip = {.kind = GP_CLIP_NORM_GROUP, .limit = 1e-4, .norm_type = 2.0};

static gp_status scene_backward(scene *s, gp_result *result, size_t threads)
{
    return gp_net_backward(s->net, &s->m.arena, &s->batch, result, SEED, STEP, threads);
}

static naive_net naive_of(const scene *s, const double *params, int training)
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

static double *doubles_of(size_t n, const float *values)
{
    double *copy = allocated(n * sizeof *copy);
    for (size_t i = 0; i < n; i++) copy[i] = (double)values[i];
    return copy;
}

/* ---- the reference itself -------------------------------------------------------------------------------------------- */

/* Directional derivatives along random directions over the live parameters, by central differences. */
static void naive_is_right(builder *build, gp_loss loss)
{
    scene *s = scene_new(gp_kernels_get(NULL), build, 9, loss, 1);
    const size_t n = s->m.arena.n;
    model_prune(&s->m, 0.2, 2);
    double *params = doubles_of(n, s->m.arena.params), *moved = allocated(n * sizeof *moved);
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

static void test_naive(void)
{
    for (size_t b = 0; b < BUILDERS; b++)
        for (gp_loss loss = GP_CROSS_ENTROPY; loss < GP_LOSSES; loss++) naive_is_right(builders[b], loss);
}

/* ---- gradients, losses and outputs ------------------------------------------------------------------------------------ */

static double largest_difference(size_t n, const float *got, const double *want)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - want[i]);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

static size_t removed_but_not_zero(const gp_arena *arena, const float *values)
{
    size_t remains = 0;
    for (size_t i = 0; i < arena->n_prunable; i++) remains += !arena->mask[i] && bits_of(values[i]) != 0;
    return remains;
}

static void backward_agrees(scene *s, size_t threads)
{
    const gp_arena *arena = &s->m.arena;
    double *params = doubles_of(arena->n, arena->params), *grads = allocated(arena->n * sizeof *grads);
    naive_net net = naive_of(s, params, 1);
    gp_result result = {0};
    double loss = naive_run(&net, &s->batch, grads, NULL);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    CHECK_NEAR(result.loss, loss, 3e-6 * (1.0 + fabs(loss)));
    CHECK_NEAR(largest_difference(arena->n, arena->grads, grads), 0.0, 3e-6);
    CHECK_INT_EQUAL(removed_but_not_zero(arena, arena->grads), 0);
    free(params);
    free(grads);
}

/* Guesses of naive outputs that are right; a last softmax does not change the order. */
static size_t naive_correct(const scene *s, const double *out)
{
    size_t correct = 0;
    for (size_t b = 0; b < s->batch.size; b++) {
        size_t best = 0;
        for (size_t o = 1; o < s->out; o++)
            if (out[b * s->out + o] > out[b * s->out + best]) best = o;
        correct += best == (size_t)s->labels[b];
    }
    return correct;
}

/* evaluate and predict: the same outputs, those of the naive network, and nothing written beyond. */
static void outputs_agree(scene *s, size_t threads)
{
    const gp_arena *arena = &s->m.arena;
    const size_t size = s->batch.size * s->out;
    double *params = doubles_of(arena->n, arena->params), *want = allocated(size * sizeof *want);
    naive_net net = naive_of(s, params, 0);
    buffer predicted = output_floats(size, 1), evaluated = output_floats(size, 2);
    gp_result result = {0}, again = {0};
    double loss = naive_run(&net, &s->batch, NULL, want);
    CHECK_INT_EQUAL(gp_net_predict(s->net, arena, s->batch.size, s->x, predicted.f, threads), GP_OK);
    CHECK_NEAR(largest_difference(size, predicted.f, want), 0.0, 2e-6);
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, evaluated.f, &result, threads), GP_OK);
    CHECK_BYTES_EQUAL(size * sizeof(float), evaluated.data, predicted.data);
    CHECK_NEAR(result.loss, loss, 3e-6 * (1.0 + fabs(loss)));
    if (s->batch.loss == GP_CROSS_ENTROPY) CHECK_INT_EQUAL(result.correct, naive_correct(s, want));
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, NULL, &again, threads), GP_OK);
    CHECK(again.loss == result.loss && again.correct == result.correct);
    CLOSE(predicted);
    CLOSE(evaluated);
    free(params);
    free(want);
}

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 2, 7, 16, 32, 64, 65, 100, 513, 1500};
    for (size_t b = 0; b < BUILDERS; b++)
        for (gp_loss loss = GP_CROSS_ENTROPY; loss < GP_LOSSES; loss++)
            for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
                if (is_quick() && (b + loss + i) % 6) continue;
                long failed = check_failed_count;
                scene *s = scene_new(kernels, builders[b], batches[i], loss, 10 * b + i);
                if ((b + i) % 3) model_prune(&s->m, (b + i) % 3 == 1 ? 0.6 : 0.85, i); /* 0.85: on lists */
                backward_agrees(s, 1 + i % 3);
                outputs_agree(s, 1 + i % 3);
                if (check_failed_count > failed) printf("  network %zu, loss %d, batch %zu\n", b, loss, batches[i]);
                scene_free(s);
            }
}

/* One network, batches of every size after one another: the workspace grows, is cut anew, and keeps nothing. */
static void test_changing_batches(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 70, 3, 1100, 64, 33, 200, 1};
    scene *s = scene_new(kernels, build_everything, 1100, GP_MSE, 20);
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        s->batch.size = sizes[i];
        s->batch.loss = i % 2 ? GP_BCE : GP_MSE;
        backward_agrees(s, 1);
        outputs_agree(s, 1);
        CHECK(gp_net_bytes(s->net) >= bytes);
        bytes = gp_net_bytes(s->net);
    }
    scene_free(s);
}

/* A sample's output has the same bits in any company. */
static void keeps_company(const gp_kernels *kernels, double sparsity)
{
    enum { SAMPLES = 150 };
    scene *s = scene_new(kernels, build_wide, SAMPLES, GP_CROSS_ENTROPY, 21);
    float all[SAMPLES * 10], one[10], some[70 * 10];
    if (sparsity > 0.0) model_prune(&s->m, sparsity, 21);
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, all, 2), GP_OK);
    for (size_t i = 0; i < SAMPLES; i += is_quick() ? 29 : 1) {
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x + i * s->in, one, 1), GP_OK);
        CHECK_BYTES_EQUAL(sizeof one, one, all + i * 10);
    }
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 70, s->x + 41 * s->in, some, 1), GP_OK);
    CHECK_BYTES_EQUAL(sizeof some, some, all + 41 * 10);
    scene_free(s);
}

static void test_company(const gp_kernels *kernels)
{
    keeps_company(kernels, 0.0);
    keeps_company(kernels, 0.9);
}

/* A batch by index is the batch of those rows. */
static void test_index(const gp_kernels *kernels)
{
    enum { ROWS = 90, SIZE = 75 };
    for (gp_loss loss = GP_CROSS_ENTROPY; loss < GP_LOSSES; loss++) {
        scene *s = scene_new(kernels, build_wide, ROWS, loss, 22);
        int64_t index[SIZE];
        noise source = {23};
        for (size_t i = 0; i < SIZE; i++) index[i] = (int64_t)noise_below(&source, ROWS);
        s->batch.index = index;
        s->batch.size = SIZE;
        backward_agrees(s, 2);
        scene_free(s);
    }
}

/* Fewer and fewer weights, down to none, and all of them again: from all weights to lists of the live ones and back. */
static void test_sparsity(const gp_kernels *kernels)
{
    static const double shares[] = {0.0, 0.5, 0.75, 0.95, 0.999, 1.0, 0.9, 0.2};
    scene *s = scene_new(kernels, build_everything, 130, GP_MSE, 26);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        gp_arena *arena = &s->m.arena;
        noise source = {i};
        noise_floats(&source, arena->n, arena->params, 0.5);
        model_prune(&s->m, shares[i], i);
        backward_agrees(s, 2);
        outputs_agree(s, 2);
        for (size_t l = 0; l < s->m.n_layers; l++)
            if (s->m.layers[l].type != GP_LAYER_DENSE || shares[i] < 0.5)
                CHECK(!gp_net_is_sparse(s->net, arena, l, 130));
            else if (shares[i] > 0.89) CHECK(gp_net_is_sparse(s->net, arena, l, 130));
        CHECK(!gp_net_is_sparse(s->net, arena, s->m.n_layers, 130));
        noise_floats(&source, arena->n, arena->params, 0.5); /* new values, same lists */
        backward_agrees(s, 2);
    }
    scene_free(s);
}

/* What somebody wrote into removed weights does not count, is no fault, and is gone after a step: with all weights and
 * on lists of the live ones. */
static void mask_is_the_truth(const gp_kernels *kernels, double sparsity, int call)
{
    scene *s = scene_new(kernels, build_wide, 40, GP_CROSS_ENTROPY, 24);
    gp_arena *arena = &s->m.arena;
    gp_rule plain = {.kind = GP_SGD, .lr = 0.1, .step = 1};
    float out[40 * 10], expected[40 * 10];
    gp_result result;
    gp_step_info info;
    model_prune(&s->m, sparsity, 25);
    CHECK_INT_EQUAL(gp_net_predict(s->net, arena, 40, s->x, expected, 1), GP_OK);
    for (size_t i = 0; i < arena->n_prunable; i++)
        if (!s->m.mask[i]) arena->params[i] = i % 2 ? NAN : 5.0f;
    if (call == 0) CHECK_INT_EQUAL(gp_net_predict(s->net, arena, 40, s->x, out, 2), GP_OK);
    if (call == 1) CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, out, &result, 2), GP_OK);
    backward_agrees(s, 2);
    gp_fault fault;
    gp_net_fault(s->net, arena, &fault);
    CHECK_INT_EQUAL(fault.phase, GP_PHASE_NONE);
    if (call == 2) CHECK_INT_EQUAL(gp_net_predict(s->net, arena, 40, s->x, out, 1), GP_OK);
    CHECK_BYTES_EQUAL(sizeof out, out, expected);
    CHECK_INT_EQUAL(gp_net_train(s->net, arena, &s->batch, &clip, &plain, &result, &info, NULL, SEED, 1, 2), GP_OK);
    CHECK(info.applied);
    CHECK_INT_EQUAL(removed_but_not_zero(arena, arena->params), 0);
    scene_free(s);
}

static void test_mask_is_the_truth(const gp_kernels *kernels)
{
    for (int call = 0; call < 3; call++) {
        mask_is_the_truth(kernels, 0.5, call);
        mask_is_the_truth(kernels, 0.9, call);
    }
}

/* ---- steps, and any number of threads ---------------------------------------------------------------------------------- */

static void build_large(model *m) /* 7 thousand multiply-adds: 30 samples are worth sharing */
{
    model_dropout(m, 0.1f, 103);
    gp_layer_spec *first = model_dense(m, 103, 60);
    first->l1 = 1e-4f;
    first->l2 = 1e-3f;
    model_activation(m, GP_GELU, 0);
    model_dropout(m, 0.3f, 0);
    model_dense(m, 60, 21);
    model_softmax(m);
}

typedef struct outcome {
    gp_result result;
    gp_step_info info;
    double norms[2 * MODEL_LAYERS];
} outcome;

typedef struct course {
    gp_loss loss;
    size_t samples;
    double sparsity;
} course;

/* Three steps. With `apart`, each is a backward and a step. */
static scene *train(const gp_kernels *kernels, const course *c, size_t threads, int apart, outcome *o)
{
    scene *s = scene_new(kernels, build_large, c->samples, c->loss, 30);
    gp_rule now = rule;
    memset(o, 0, sizeof *o);
    model_prune(&s->m, c->sparsity, 31);
    for (now.step = 1; now.step <= 3; now.step++) {
        if (apart) {
            CHECK_INT_EQUAL(gp_net_backward(s->net, &s->m.arena, &s->batch, &o->result, SEED, now.step, threads),
                            GP_OK);
            CHECK_INT_EQUAL(gp_arena_step(pool, kernels, &s->m.arena, &clip, &now, &o->info, o->norms, threads), GP_OK);
        } else {
            CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &now, &o->result, &o->info, o->norms,
                                         SEED, now.step, threads),
                            GP_OK);
            gp_live_publish(&s->m.arena);
        }
        CHECK_INT_EQUAL(removed_but_not_zero(&s->m.arena, s->m.arena.params), 0);
        CHECK_INT_EQUAL(removed_but_not_zero(&s->m.arena, s->m.arena.grads), 0);
    }
    CHECK(o->info.applied && o->info.clipped && isfinite(o->result.loss));
    return s;
}

static void same_bits(const gp_kernels *kernels, const course *c)
{
    outcome one, other;
    scene *expected = train(kernels, c, 1, 0, &one);
    snapshot whole = snapshot_take(&expected->m.arena);
    for (size_t threads = 1; threads <= 3; threads++)
        for (int apart = 0; apart < 2; apart++) {
            scene *s = train(kernels, c, threads, apart, &other);
            CHECK(snapshot_equal(&whole, &s->m.arena));
            CHECK_BYTES_EQUAL(s->m.arena.n * sizeof(float), s->m.arena.grads, expected->m.arena.grads);
            CHECK(other.result.loss == one.result.loss && other.result.correct == one.result.correct);
            CHECK(other.info.norm == one.info.norm && other.info.scale == one.info.scale);
            CHECK_BYTES_EQUAL(sizeof one.norms, other.norms, one.norms);
            scene_free(s);
        }
    snapshot_free(&whole);
    scene_free(expected);
}

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{GP_CROSS_ENTROPY, 30, 0.3},
                                     {GP_MSE, 300, 0.9},
                                     {GP_BCE, 130, 0.3},
                                     {GP_CROSS_ENTROPY, 1100, 0.85},
                                     {GP_MSE, 65, 0.2}};
    for (size_t i = 0; i < (is_quick() ? 2 : 5); i++) same_bits(kernels, &courses[i]);
}

/* Outputs, too; and naive.h agrees with the shared work. */
static void test_shared_work(const gp_kernels *kernels)
{
    const size_t samples = is_quick() ? 100 : 1100;
    scene *s = scene_new(kernels, build_large, samples, GP_CROSS_ENTROPY, 32);
    float *one = allocated(samples * s->out * sizeof *one), *many = allocated(samples * s->out * sizeof *many);
    backward_agrees(s, 2);
    outputs_agree(s, 3);
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, samples, s->x, one, 1), GP_OK);
    for (size_t threads = 2; threads <= 5; threads++) {
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, samples, s->x, many, threads), GP_OK);
        CHECK_BYTES_EQUAL(samples * s->out * sizeof *one, many, one);
    }
    free(one);
    free(many);
    scene_free(s);
}

/* It learns: the loss of a small problem falls to next to nothing. */
static void build_xor(model *m)
{
    model_dense(m, 2, 8);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 8, 2);
}
static void test_xor(const gp_kernels *kernels)
{
    const float x[8] = {0, 0, 0, 1, 1, 0, 1, 1};
    const int64_t labels[4] = {0, 1, 1, 0};
    scene *s = scene_new(kernels, build_xor, 4, GP_CROSS_ENTROPY, 33);
    gp_rule now = {.kind = GP_ADAM, .lr = 0.05, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    gp_result result = {0};
    gp_step_info info;
    memcpy(s->x, x, sizeof x);
    memcpy(s->labels, labels, sizeof labels);
    for (now.step = 1; now.step <= 300; now.step++)
        gp_net_train(s->net, &s->m.arena, &s->batch, &(gp_clip){.kind = GP_CLIP_NONE}, &now, &result, &info, NULL, 0,
                     now.step, 1);
    CHECK(result.loss < 0.02);
    CHECK_INT_EQUAL(result.correct, 4);
    scene_free(s);
}

/* ---- bad data ------------------------------------------------------------------------------------------------------------ */

static void fault_equals(const gp_fault *fault, gp_phase phase, size_t layer, int bias, size_t row, size_t column)
{
    CHECK_INT_EQUAL(fault->phase, phase);
    CHECK_INT_EQUAL(fault->layer, layer);
    CHECK_INT_EQUAL(fault->bias, bias);
    CHECK_INT_EQUAL(fault->row, row);
    CHECK_INT_EQUAL(fault->column, column);
}

static void input_fault_is(const scene *s, gp_phase phase, size_t row, size_t column)
{
    gp_fault fault;
    gp_net_input_fault(s->net, &fault);
    fault_equals(&fault, phase, GP_NONE, 0, row, column);
}

/* Of the numbers inside; the input was good. */
static void fault_is(const scene *s, gp_phase phase, size_t layer, int bias, size_t row, size_t column)
{
    gp_fault fault;
    input_fault_is(s, GP_PHASE_NONE, 0, 0);
    gp_net_fault(s->net, &s->m.arena, &fault);
    fault_equals(&fault, phase, layer, bias, row, column);
}

static void no_fault(const scene *s) { fault_is(s, GP_PHASE_NONE, GP_NONE, 0, 0, 0); }

/* train, backward and evaluate all refuse with `status` and say where; nothing has changed. */
static void refuses(scene *s, gp_status status, gp_phase phase, size_t row, size_t column, size_t threads)
{
    gp_step_info info = {.norm = -1.0};
    gp_result result = {.loss = -1.0};
    float *out = allocated(s->batch.size * s->out * sizeof *out);
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, threads),
                    status);
    input_fault_is(s, phase, row, column);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), status);
    input_fault_is(s, phase, row, column);
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &s->batch, out, &result, threads), status);
    input_fault_is(s, phase, row, column);
    CHECK(result.loss == -1.0 && info.norm == -1.0);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    snapshot_free(&whole);
    free(out);
}

/* The gradients of the last good batch survive a bad one, however late in it the fault lies. */
static void bad_input(const gp_kernels *kernels, size_t samples, size_t row, size_t threads)
{
    scene *s = scene_new(kernels, build_large, samples, GP_CROSS_ENTROPY, 40);
    gp_result result;
    float out[21];
    model_prune(&s->m, 0.3, 41);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    float *grads = allocated(s->m.arena.n * sizeof *grads);
    memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);
    for (size_t i = 0; i < 3; i++) {
        const float bad[3] = {NAN, INFINITY, -INFINITY};
        const size_t column = i == 0 ? 0 : i == 1 ? 102 : 50;
        float good = s->x[row * s->in + column];
        s->x[row * s->in + column] = bad[i];
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, row, column, threads);
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x + row * s->in, out, threads), GP_BAD_INPUT);
        input_fault_is(s, GP_PHASE_INPUT, 0, column);
        s->x[row * s->in + column] = good;
    }
    CHECK_BYTES_EQUAL(s->m.arena.n * sizeof *grads, s->m.arena.grads, grads);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    no_fault(s);
    free(grads);
    scene_free(s);
}

static void test_bad_input(const gp_kernels *kernels)
{
    bad_input(kernels, 1, 0, 1);
    bad_input(kernels, 100, 99, 2);
    bad_input(kernels, 1100, 1060, 3); /* in the second block */
    bad_input(kernels, 1100, 5, 2);
}

static void test_bad_label(const gp_kernels *kernels)
{
    static const int64_t bad[] = {-1, 21, INT64_MAX, INT64_MIN, (int64_t)1 << 32};
    for (size_t i = 0; i < 5; i++) {
        size_t samples = i % 2 ? 1050 : 60, row = samples - 1 - i;
        scene *s = scene_new(kernels, build_large, samples, GP_CROSS_ENTROPY, 42);
        s->labels[row] = bad[i];
        refuses(s, GP_BAD_LABEL, GP_PHASE_TARGET, row, 0, 1 + i % 3);
        scene_free(s);
    }
}

static void test_bad_target(const gp_kernels *kernels)
{
    for (size_t i = 0; i < 4; i++) {
        size_t samples = i % 2 ? 1050 : 60, row = samples - 1 - i;
        scene *s = scene_new(kernels, build_large, samples, i < 2 ? GP_MSE : GP_BCE, 43);
        s->targets[row * s->out + 20 - i] = i % 2 ? NAN : INFINITY;
        refuses(s, GP_BAD_TARGET, GP_PHASE_TARGET, row, 20 - i, 1 + i % 3);
        scene_free(s);
    }
}

/* The row named is the row of x, not the place in the batch. Of two faults the first sample's counts. */
static void test_bad_row_by_index(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_wide, 30, GP_CROSS_ENTROPY, 44);
    const int64_t index[4] = {3, 28, 0, 7};
    s->batch.index = index;
    s->batch.size = 4;
    s->x[28 * s->in + 39] = NAN;
    s->x[7 * s->in] = INFINITY;
    s->x[5 * s->in] = NAN; /* not in the batch */
    refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 28, 39, 2);
    scene_free(s);
}

/* Of several faults the same one is reported by any team: x before labels, then the first sample. */
static void test_first_of_many(const gp_kernels *kernels)
{
    for (size_t threads = 1; threads <= 4; threads++) {
        scene *s = scene_new(kernels, build_wide, 200, GP_CROSS_ENTROPY, 45);
        s->labels[3] = -1;
        s->labels[150] = 10;
        refuses(s, GP_BAD_LABEL, GP_PHASE_TARGET, 3, 0, threads);
        s->x[190 * s->in + 5] = NAN;
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 190, 5, threads);
        s->x[70 * s->in + 7] = NAN;
        s->x[70 * s->in + 6] = INFINITY;
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 70, 6, threads);
        scene_free(s);
    }
}

/* ---- numbers that go bad inside ------------------------------------------------------------------------------------------ */

/* Layers of build_wide: 0 dense, 1 gelu, 2 dense, 3 tanh, 4 dense. */
static void bad_parameter(const gp_kernels *kernels, size_t layer, int bias, float value, size_t samples)
{
    scene *s = scene_new(kernels, build_wide, samples, GP_CROSS_ENTROPY, 50);
    const gp_layer_spec *spec = &s->m.layers[layer];
    const size_t row = bias ? 0 : spec->out - 1, column = bias ? spec->out - 2 : spec->in - 1;
    float *at = s->m.arena.params + (bias ? spec->bias : spec->weight + row * spec->in) + column;
    gp_step_info info = {0};
    gp_result result;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    *at = value;
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, 2),
                    GP_OK);
    if (!info.applied || isnan(value)) CHECK(snapshot_equal(&whole, &s->m.arena));
    if (isnan(value)) CHECK(!info.applied && isnan(result.loss));
    fault_is(s, GP_PHASE_PARAMETER, layer, bias, row, column);
    snapshot_free(&whole);
    scene_free(s);
}

static void test_bad_parameter(const gp_kernels *kernels)
{
    for (size_t layer = 0; layer <= 4; layer += 2)
        for (int bias = 0; bias < 2; bias++) {
            bad_parameter(kernels, layer, bias, NAN, 33);
            bad_parameter(kernels, layer, bias, INFINITY, 1);
            bad_parameter(kernels, layer, bias, -INFINITY, 1100);
        }
}

/* Finite parameters, infinite outputs: the layer, the sample and the feature are named. */
static void test_overflow_forward(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_classifier, 70, GP_CROSS_ENTROPY, 51);
    const gp_layer_spec *last = &s->m.layers[2];
    gp_result result;
    for (size_t i = 0; i < s->in * 70; i++) s->x[i] = 0.0f;
    for (size_t i = 0; i < 17; i++) s->m.arena.params[s->m.layers[0].bias + i] = 1e20f;
    for (size_t i = 0; i < 17 * 5; i++) s->m.arena.params[last->weight + i] = i / 17 == 3 ? 1e30f : 0.0f;
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    CHECK(!isfinite(result.loss));
    fault_is(s, GP_PHASE_FORWARD, 2, 0, 0, 3);
    scene_free(s);
}

/* The batch ends with the block that spoils it, so that the culprit can still be found there. */
static void test_overflow_in_a_block(const gp_kernels *kernels)
{
    for (size_t threads = 1; threads <= 3; threads++) {
        scene *s = scene_new(kernels, build_classifier, 2100, GP_CROSS_ENTROPY, 56);
        const size_t row = threads == 1 ? 7 : threads == 2 ? 1023 : 1024;
        gp_step_info info = {.applied = 1};
        gp_result result;
        for (size_t i = 0; i < s->in; i++) s->m.arena.params[s->m.layers[0].weight + i] = i == 2 ? 1e10f : 0.0f;
        for (size_t i = 0; i < 2100; i++) s->x[i * s->in + 2] = i == row ? 1e30f : 1e-12f;
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(
            gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, threads), GP_OK);
        CHECK(!isfinite(result.loss) && !info.applied);
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_FORWARD, 0, 0, row, 0);
        snapshot_free(&whole);
        scene_free(s);
    }
}

/* All outputs finite, but their squared errors are not: the step is left out. */
static void test_overflow_loss(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 3, GP_MSE, 52);
    gp_step_info info = {.applied = 1};
    gp_result result;
    s->m.arena.params[0] = 1e30f;
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, 1),
                    GP_OK);
    CHECK(result.loss == INFINITY && !info.applied && isnan(info.norm) && info.scale == 1.0 && !info.clipped);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    fault_is(s, GP_PHASE_LOSS, GP_NONE, 0, 0, 0);
    snapshot_free(&whole);
    scene_free(s);
}

/* Only a gradient overflows: dW = dz x is too large where z and the loss are not. */
static void test_overflow_backward(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 1, GP_MSE, 53);
    gp_result result;
    gp_step_info info = {0};
    s->m.arena.params[0] = 1e-20f;
    s->x[0] = 1e30f;
    s->targets[0] = 1e15f;
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, 1),
                    GP_OK);
    CHECK(isfinite(result.loss) && !info.applied);
    fault_is(s, GP_PHASE_BACKWARD, 0, 0, 0, 0);
    scene_free(s);
}

/* After a call that ran the last softmax and one that fused it with the loss, there is nothing left of the first:
 * not its numbers, nor its memory, which the larger batch has replaced. */
static void test_fault_after_fusing(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_softmax, 200, GP_MSE, 54);
    gp_result result;
    float good = s->m.arena.params[0];
    s->batch.size = 5;
    s->m.arena.params[0] = NAN;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    fault_is(s, GP_PHASE_PARAMETER, 0, 0, 0, 0);
    s->m.arena.params[0] = good;
    s->batch.loss = GP_CROSS_ENTROPY;
    s->batch.labels = s->labels;
    s->batch.targets = NULL;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    s->batch.size = 200;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    scene_free(s);
}

/* Once another call has used the workspace, or failed in it, the outputs are not looked at any more. */
static void test_fault_after_other_calls(const gp_kernels *kernels)
{
    for (int which = 0; which < 2; which++) {
        scene *s = scene_new(kernels, build_line, 300, GP_MSE, 55);
        float out[300];
        gp_result result;
        s->batch.size = 2;
        s->m.arena.params[0] = s->x[1] = 1e30f;
        CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
        fault_is(s, GP_PHASE_FORWARD, 0, 0, 1, 0);
        s->x[1] = which ? NAN : 1.0f;
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 300, s->x, out, 1), which ? GP_BAD_INPUT : GP_OK);
        gp_fault fault;
        gp_net_fault(s->net, &s->m.arena, &fault);
        fault_equals(&fault, GP_PHASE_LOSS, GP_NONE, 0, 0, 0);
        scene_free(s);
    }
}

/* ---- bad arguments ----------------------------------------------------------------------------------------------------------- */

static void create_refuses(const gp_layer_spec *layers, size_t n)
{
    gp_net *net = (gp_net *)&net;
    CHECK_INT_EQUAL(gp_net_create(gp_kernels_get(NULL), pool, n, layers, &net), GP_BAD_ARGUMENT);
    CHECK(net == NULL);
}

static void test_bad_layers(void)
{
    model m = {0};
    build_everything(&m);
    model_finish(&m, 1);
    create_refuses(m.layers, 0);
    for (size_t l = 0; l < m.n_layers; l++) {
        gp_layer_spec good = m.layers[l];
        m.layers[l].in = 0;
        create_refuses(m.layers, m.n_layers);
        m.layers[l] = good;
        m.layers[l].out++;
        if (l + 1 < m.n_layers) create_refuses(m.layers, m.n_layers);
        m.layers[l] = good;
        m.layers[l].type = GP_LAYER_TYPES;
        create_refuses(m.layers, m.n_layers);
        m.layers[l] = good;
    }
    model_free(&m);
    gp_net_destroy(NULL);
}

/* A specification that does not fit the arena, or a number out of range. */
static void call_refuses(const char *what, const model *m, gp_batch batch)
{
    gp_net *net = NULL;
    gp_result result = {.loss = -1.0};
    CHECK_INT_EQUAL(gp_net_create(gp_kernels_get(NULL), pool, m->n_layers, m->layers, &net), GP_OK);
    gp_status status = gp_net_backward(net, &m->arena, &batch, &result, 0, 1, 2);
    if (!CHECK_INT_EQUAL(status, GP_BAD_ARGUMENT)) printf("  %s\n", what);
    CHECK(result.loss == -1.0);
    gp_net_destroy(net);
}

static void bad_specifications(const scene *s)
{
    model m = s->m;
    const gp_layer_spec *good = s->m.layers;
    const size_t out_of_range[] = {m.arena.n_prunable - good[1].in * good[1].out + 1, m.arena.n, GP_NONE};
    for (size_t i = 0; i < 3; i++) {
        m.layers[1].weight = out_of_range[i];
        call_refuses("weight", &m, s->batch);
    }
    m.layers[1] = good[1];
    const size_t no_bias[] = {0, m.arena.n_prunable - 1, m.arena.n - good[1].out + 1, m.arena.n, GP_NONE - 1};
    for (size_t i = 0; i < 5; i++) {
        m.layers[1].bias = no_bias[i];
        call_refuses("bias", &m, s->batch);
    }
    m.layers[1] = good[1];
    m.layers[2].activation = GP_ACTIVATIONS;
    call_refuses("activation", &m, s->batch);
    m.layers[2] = good[2];
    const float rates[] = {-0.1f, 1.0f, 2.0f, NAN};
    for (size_t i = 0; i < 4; i++) {
        m.layers[0].rate = rates[i];
        call_refuses("rate", &m, s->batch);
    }
    m.layers[0] = good[0];
    m.arena.n_prunable = m.arena.n + 1;
    call_refuses("n_prunable", &m, s->batch);
}

static void bad_batches(const scene *s)
{
    gp_batch batch = s->batch;
    batch.size = 0;
    call_refuses("size 0", &s->m, batch);
    batch = s->batch;
    batch.loss = GP_LOSSES;
    call_refuses("loss", &s->m, batch);
    batch = s->batch;
    batch.targets = NULL;
    call_refuses("no targets", &s->m, batch);
    batch.loss = GP_CROSS_ENTROPY;
    call_refuses("no labels", &s->m, batch);
}

static void test_bad_arguments(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_everything, 8, GP_MSE, 60);
    snapshot whole = snapshot_take(&s->m.arena);
    gp_result result = {0};
    gp_step_info info = {0};
    gp_rule no_step = rule;
    no_step.step = 0;
    bad_specifications(s);
    bad_batches(s);
    gp_batch other = s->batch; /* targets, but not what this loss wants */
    other.loss = GP_CROSS_ENTROPY;
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &other, NULL, &result, 1), GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &no_step, &result, &info, NULL, SEED, 1, 1),
                    GP_BAD_ARGUMENT);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 0, NULL, NULL, 1), GP_OK);
    snapshot_free(&whole);
    scene_free(s);
}

/* ---- limits ---------------------------------------------------------------------------------------------------------- */

/* One sample explodes: backward gives the same gradients and says so, train leaves the step out, the report names it. */
static void limited(const gp_kernels *kernels, size_t samples, double sparsity, size_t threads)
{
    scene *s = scene_new(kernels, build_large, samples, GP_CROSS_ENTROPY, 60);
    gp_step_info info;
    gp_result result, free_result;
    gp_fault fault;
    model_prune(&s->m, sparsity, 61);
    size_t last = s->m.n_layers - 1;
    while (s->m.layers[last].type != GP_LAYER_DENSE) last--;
    for (size_t i = 0; i < s->in; i++) s->x[(samples - 1) * s->in + i] *= 1e6f; /* the last sample */
    CHECK_INT_EQUAL(scene_backward(s, &free_result, threads), GP_OK);
    CHECK(!gp_net_exploded(s->net));
    float *grads = allocated(s->m.arena.n * sizeof *grads);
    memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);

    gp_net_limit(s->net, 1e4f, INFINITY);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK); /* as before, but somebody noticed */
    CHECK(gp_net_exploded(s->net) && result.loss == free_result.loss);
    CHECK_BYTES_EQUAL(s->m.arena.n * sizeof *grads, s->m.arena.grads, grads);
    gp_net_fault(s->net, &s->m.arena, &fault);
    CHECK(fault.phase == GP_PHASE_FORWARD && fault.layer == 0 && fault.row == samples - 1);
    CHECK(fabs(fault.value) > 1e4);
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(
        gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, STEP, threads), GP_OK);
    CHECK(!info.applied && isnan(info.norm) && snapshot_equal(&whole, &s->m.arena));
    snapshot_free(&whole);

    gp_net_limit(s->net, 1e8f, 1e-30f); /* of gradients only the report knows here: the step's limit is the rule's */
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    gp_net_fault(s->net, &s->m.arena, &fault);
    CHECK(!gp_net_exploded(s->net) && fault.phase == GP_PHASE_BACKWARD && fault.layer == last);
    gp_net_limit(s->net, INFINITY, INFINITY);
    CHECK_INT_EQUAL(
        gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, STEP, threads), GP_OK);
    CHECK(info.applied && !gp_net_exploded(s->net));
    free(grads);
    scene_free(s);
}

static void test_limited(const gp_kernels *kernels)
{
    limited(kernels, 1, 0.0, 1);
    limited(kernels, 64, 0.0, 2);
    limited(kernels, 100, 0.9, 3);
    limited(kernels, 1100, 0.0, 2); /* in the second block */
}

/* Lanes without a sample hold what the biases make of nothing: that is no output. */
static void test_empty_lanes_do_not_explode(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 1, GP_MSE, 62);
    gp_result result;
    s->m.arena.params[0] = -100.0f; /* y = -100 x + 100, x = 1 */
    s->m.arena.params[1] = 100.0f;
    s->x[0] = 1.0f;
    gp_net_limit(s->net, 10.0f, INFINITY);
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    CHECK(!gp_net_exploded(s->net));
    s->x[0] = 0.0f;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    CHECK(gp_net_exploded(s->net));
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_naive();
    OVER_INSTRUCTION_SETS(test_against_naive);
    OVER_INSTRUCTION_SETS(test_changing_batches);
    OVER_INSTRUCTION_SETS(test_company);
    OVER_INSTRUCTION_SETS(test_index);
    OVER_INSTRUCTION_SETS(test_sparsity);
    OVER_INSTRUCTION_SETS(test_mask_is_the_truth);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_shared_work);
    OVER_INSTRUCTION_SETS(test_xor);
    OVER_INSTRUCTION_SETS(test_bad_input);
    OVER_INSTRUCTION_SETS(test_bad_label);
    OVER_INSTRUCTION_SETS(test_bad_target);
    OVER_INSTRUCTION_SETS(test_bad_row_by_index);
    OVER_INSTRUCTION_SETS(test_first_of_many);
    OVER_INSTRUCTION_SETS(test_bad_parameter);
    OVER_INSTRUCTION_SETS(test_overflow_forward);
    OVER_INSTRUCTION_SETS(test_overflow_in_a_block);
    OVER_INSTRUCTION_SETS(test_overflow_loss);
    OVER_INSTRUCTION_SETS(test_overflow_backward);
    OVER_INSTRUCTION_SETS(test_fault_after_fusing);
    OVER_INSTRUCTION_SETS(test_fault_after_other_calls);
    OVER_INSTRUCTION_SETS(test_limited);
    OVER_INSTRUCTION_SETS(test_empty_lanes_do_not_explode);
    test_bad_layers();
    test_bad_arguments();
    gp_pool_destroy(pool);
    return check_summary();
}
