/* test_net.c - whole networks: against naive C, for the same bits whatever the threads, and for
 * what happens when they are asked for what cannot be.
 *
 * naive.h runs the same layers in double, sample by sample; finite differences check naive.h
 * itself. Batches are chosen around the chunk of 64 lanes and the block of 1024 samples. Networks
 * that are to run on several threads must be large enough for the engine to find sharing worth
 * while.
 */
#include "networks.h"

/* ---- networks -------------------------------------------------------------------------------- */

static builder *const builders[] = {build_classifier, build_softmax, build_sigmoid,
                                    build_everything, build_odd,     build_line,
                                    build_wide};
enum { BUILDERS = sizeof builders / sizeof builders[0] };

/* ---- the reference itself -------------------------------------------------------------------- */

static void test_naive(void)
{
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t loss = 0; loss < NAIVE_LOSSES; loss++)
            naive_is_right(builders[b], naive_losses[loss]);
}

/* ---- gradients, losses and outputs ----------------------------------------------------------- */

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 2, 7, 16, 32, 64, 65, 100, 513, 1500};
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t loss = 0; loss < NAIVE_LOSSES; loss++)
            for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
                if (is_quick() && (b + loss + i) % 6) continue;
                long failed = check_failed_count;
                scene *s =
                    scene_new(kernels, builders[b], batches[i], naive_losses[loss], 10 * b + i);
                /* 0.85: on lists */
                if ((b + i) % 3) model_prune(&s->m, (b + i) % 3 == 1 ? 0.6 : 0.85, i);
                backward_agrees(s, 1 + i % 3);
                outputs_agree(s, 1 + i % 3);
                if (check_failed_count > failed)
                    printf("  network %zu, loss %s, batch %zu\n", b, naive_losses[loss]->name,
                           batches[i]);
                scene_free(s);
            }
}

/* One network, batches of every size after one another: the workspace grows, is cut anew, and keeps
 * nothing. */
static void test_changing_batches(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 70, 3, 1100, 64, 33, 200, 1};
    scene *s = scene_new(kernels, build_everything, 1100, &gp_loss_mse, 20);
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        s->batch.size = sizes[i];
        s->batch.loss = i % 2 ? &gp_loss_bce : &gp_loss_mse;
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
    scene *s = scene_new(kernels, build_wide, SAMPLES, &gp_loss_cross_entropy, 21);
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
    for (size_t loss = 0; loss < NAIVE_LOSSES; loss++) {
        scene *s = scene_new(kernels, build_wide, ROWS, naive_losses[loss], 22);
        int64_t index[SIZE];
        noise source = {23};
        for (size_t i = 0; i < SIZE; i++) index[i] = (int64_t)noise_below(&source, ROWS);
        s->batch.index = index;
        s->batch.size = SIZE;
        backward_agrees(s, 2);
        scene_free(s);
    }
}

/* Weights of samples: against naive.h by each loss, with a last layer that is part of it and
 * without, in one block and in several, by index; the same bits at any number of threads. */
static void test_weights(const gp_kernels *kernels)
{
    enum { ROWS = 90, SIZE = 75 };
    static builder *const builders[] = {build_wide, build_everything, build_classifier};
    for (size_t i = 0; i < 3 * NAIVE_LOSSES; i++) {
        scene *s = scene_new(kernels, builders[i / NAIVE_LOSSES], ROWS,
                             naive_losses[i % NAIVE_LOSSES], 20 + i);
        const size_t bytes = s->m.arena.n * sizeof(float);
        int64_t index[SIZE];
        noise source = {24};
        s->batch.weights = s->weights;
        outputs_agree(s, 2);
        for (size_t k = 0; k < SIZE; k++) index[k] = (int64_t)noise_below(&source, ROWS);
        s->batch.index = index;
        s->batch.size = SIZE;
        backward_agrees(s, 1);
        float *one = allocated(bytes);
        memcpy(one, s->m.arena.grads, bytes);
        for (size_t threads = 2; threads <= 3; threads++) {
            backward_agrees(s, threads);
            CHECK_BYTES_EQUAL(bytes, s->m.arena.grads, one);
        }
        free(one);
        scene_free(s);
    }
}

/* The squared error, computed from outputs as somebody else's loss: the gradients and the loss of
 * the core's. The same bits whether the forward pass is gone on with or run again, in one block and
 * in several. */
static void given_agrees(const gp_kernels *kernels, builder *build, size_t samples, uint64_t seed)
{
    scene *s = scene_new(kernels, build, samples, &gp_loss_mse, seed);
    const size_t n = s->m.arena.n, bytes = n * sizeof(float), numbers = samples * s->out;
    float *expected = allocated(bytes), *one = allocated(bytes);
    float *out = allocated(numbers * sizeof *out), *dz = allocated(numbers * sizeof *dz);
    gp_result own, result;
    CHECK_INT_EQUAL(scene_backward(s, &own, 1), GP_OK);
    memcpy(expected, s->m.arena.grads, bytes);
    for (size_t threads = 1; threads <= 3; threads++) {
        for (int again = 0; again < 2; again++) {
            double value = 0.0;
            memset(s->m.arena.grads, 0xff, bytes);
            CHECK_INT_EQUAL(
                gp_net_forward(s->net, &s->m.arena, &s->batch, out, SEED, STEP, threads), GP_OK);
            for (size_t i = 0; i < numbers; i++) {
                const double error = (double)out[i] - (double)s->targets[i];
                value += error * error / (double)numbers;
                dz[i] = (float)(2.0 * error / (double)numbers);
            }
            gp_batch given = {.size = samples, .x = s->x, .loss = &gp_loss_given, .targets = dz};
            given.settings[0] = value;
            if (again) CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x, out, 1), GP_OK);
            CHECK_INT_EQUAL(
                gp_net_backward(s->net, &s->m.arena, &given, &result, SEED, STEP, threads), GP_OK);
            CHECK_NEAR(result.loss, own.loss, 1e-6 * (1.0 + own.loss));
            for (size_t i = 0; i < n; i++) CHECK_NEAR(s->m.arena.grads[i], expected[i], 2e-6);
            if (threads == 1 && !again) memcpy(one, s->m.arena.grads, bytes);
            CHECK_BYTES_EQUAL(bytes, s->m.arena.grads, one);
        }
    }
    free(expected);
    free(one);
    free(out);
    free(dz);
    scene_free(s);
}

static void test_given(const gp_kernels *kernels)
{
    given_agrees(kernels, build_everything, 75, 30);
    given_agrees(kernels, build_wide, 20, 31);
    given_agrees(kernels, build_odd, 1500, 32);
}

/* Gradients and result of a backward. */
static gp_result passed(scene *s, float *grads)
{
    gp_result result = {0};
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);
    return result;
}

/* Weights that are all the same are none, to the bit. A sample of weight 0 may be left out,
 * whatever it loses; one of weight 2 is there twice. So are labels that the loss ignores. */
static void test_what_weights_mean(const gp_kernels *kernels)
{
    enum { ROWS = 70, LAST = ROWS - 1 };
    for (size_t i = 0; i < NAIVE_LOSSES; i++) {
        scene *s = scene_new(kernels, build_wide, ROWS, naive_losses[i], 28);
        const size_t n = s->m.arena.n, bytes = n * sizeof(float);
        float *plain = allocated(bytes), *grads = allocated(bytes);
        int64_t twice[ROWS + 1];
        const double sizes[] = {1.0, 0.3, 1e-300, 1e300};
        const gp_result whole = passed(s, plain);
        CHECK(whole.weight == ROWS);
        s->batch.weights = s->weights;
        for (size_t k = 0; k < 4; k++) {
            for (size_t row = 0; row < ROWS; row++) s->weights[row] = sizes[k];
            CHECK(passed(s, grads).loss == whole.loss);
            CHECK_BYTES_EQUAL(bytes, grads, plain);
        }
        for (size_t row = 0; row < ROWS; row++) s->weights[row] = row == 5 ? 2.0 : 1.0;
        const gp_result heavy = passed(s, plain);
        for (int64_t row = 0; row < ROWS; row++) twice[row] = row;
        twice[ROWS] = 5;
        s->batch.weights = NULL;
        s->batch.index = twice;
        s->batch.size = ROWS + 1;
        const gp_result repeated = passed(s, grads);
        CHECK_NEAR(heavy.loss, repeated.loss, 1e-6 * (1.0 + repeated.loss));
        CHECK(heavy.correct == repeated.correct && heavy.weight == repeated.weight);
        for (size_t k = 0; k < n; k++) CHECK_NEAR(grads[k], plain[k], 2e-6);

        s->batch.size = LAST; /* without the last one */
        const gp_result without = passed(s, plain);
        s->batch.size = ROWS;
        s->batch.weights = s->weights;
        for (size_t row = 0; row < ROWS; row++) s->weights[row] = row < LAST ? 1.0 : 0.0;
        for (int by_label = 0; by_label < (naive_losses[i] == &gp_loss_cross_entropy ? 2 : 1);
             by_label++) {
            if (by_label) {
                s->batch.weights = NULL;
                s->labels[LAST] = -100;
            }
            const gp_result left = passed(s, grads);
            CHECK_NEAR(left.loss, without.loss, 1e-6 * (1.0 + without.loss));
            CHECK(left.correct == without.correct && left.weight == without.weight);
            for (size_t k = 0; k < n; k++) CHECK_NEAR(grads[k], plain[k], 2e-6);
        }
        free(plain);
        free(grads);
        scene_free(s);
    }
}

/* A batch that does not count is refused, and nothing has changed. */
static void test_no_weight(const gp_kernels *kernels)
{
    enum { ROWS = 9 };
    const double bad[] = {0.0, NAN, INFINITY, -1.0, 1e308};
    scene *s = scene_new(kernels, build_wide, ROWS, &gp_loss_cross_entropy, 29);
    snapshot whole = snapshot_take(&s->m.arena);
    gp_result result = {0};
    gp_step_info info = {0};
    s->batch.weights = s->weights;
    for (size_t i = 0; i < 6; i++) {
        for (size_t row = 0; row < ROWS; row++) {
            if (i < 5) s->weights[row] = bad[i];
            else s->labels[row] = (int64_t)s->batch.settings[NAIVE_IGNORED];
        }
        if (i == 5) s->batch.weights = NULL;
        CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_NO_WEIGHT);
        CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &s->batch, NULL, &result, 2),
                        GP_NO_WEIGHT);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, 2),
                        GP_NO_WEIGHT);
    }
    CHECK(snapshot_equal(&whole, &s->m.arena));
    snapshot_free(&whole);
    scene_free(s);
}

/* Fewer and fewer weights, down to none, and all of them again: from all weights to lists of the
 * live ones and back. */
static void test_sparsity(const gp_kernels *kernels)
{
    static const double shares[] = {0.0, 0.5, 0.75, 0.95, 0.999, 1.0, 0.9, 0.2};
    scene *s = scene_new(kernels, build_everything, 130, &gp_loss_mse, 26);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        gp_arena *arena = &s->m.arena;
        noise source = {i};
        noise_floats(&source, arena->n, arena->params, 0.5);
        model_prune(&s->m, shares[i], i);
        backward_agrees(s, 2);
        outputs_agree(s, 2);
        for (size_t l = 0; l < s->m.n_layers; l++)
            if (model_rows(&s->m.layers[l]) == 0 || shares[i] < 0.5)
                CHECK(!gp_net_is_sparse(s->net, arena, l, 130));
            else if (shares[i] > 0.89) CHECK(gp_net_is_sparse(s->net, arena, l, 130));
        CHECK(!gp_net_is_sparse(s->net, arena, s->m.n_layers, 130));
        noise_floats(&source, arena->n, arena->params, 0.5); /* new values, same lists */
        backward_agrees(s, 2);
    }
    scene_free(s);
}

/* What somebody wrote into removed weights does not count, is no fault, and is gone after a step:
 * with all weights and on lists of the live ones. */
static void mask_is_the_truth(const gp_kernels *kernels, double sparsity, int call)
{
    scene *s = scene_new(kernels, build_wide, 40, &gp_loss_cross_entropy, 24);
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
    if (call == 1)
        CHECK_INT_EQUAL(gp_net_evaluate(s->net, arena, &s->batch, out, &result, 2), GP_OK);
    backward_agrees(s, 2);
    gp_fault fault;
    gp_net_fault(s->net, arena, &fault);
    CHECK_INT_EQUAL(fault.phase, GP_PHASE_NONE);
    if (call == 2) CHECK_INT_EQUAL(gp_net_predict(s->net, arena, 40, s->x, out, 1), GP_OK);
    CHECK_BYTES_EQUAL(sizeof out, out, expected);
    CHECK_INT_EQUAL(
        gp_net_train(s->net, arena, &s->batch, &clip, &plain, &result, &info, NULL, SEED, 1, 2),
        GP_OK);
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

/* ---- steps, and any number of threads -------------------------------------------------------- */

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_large, &gp_loss_cross_entropy, 30, 0.3},
                                     {build_large, &gp_loss_mse, 300, 0.9},
                                     {build_large, &gp_loss_bce, 130, 0.3},
                                     {build_large, &gp_loss_cross_entropy, 1100, 0.85},
                                     {build_large, &gp_loss_mse, 65, 0.2}};
    for (size_t i = 0; i < (is_quick() ? 2 : 5); i++) same_bits(kernels, &courses[i]);
}

/* Outputs, too; and naive.h agrees with the shared work. */
static void test_shared_work(const gp_kernels *kernels)
{
    const size_t samples = is_quick() ? 100 : 1100;
    scene *s = scene_new(kernels, build_large, samples, &gp_loss_cross_entropy, 32);
    float *one = allocated(samples * s->out * sizeof *one),
          *many = allocated(samples * s->out * sizeof *many);
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
    scene *s = scene_new(kernels, build_xor, 4, &gp_loss_cross_entropy, 33);
    gp_rule now = {.kind = GP_ADAM, .lr = 0.05, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    gp_result result = {0};
    gp_step_info info;
    memcpy(s->x, x, sizeof x);
    memcpy(s->labels, labels, sizeof labels);
    for (now.step = 1; now.step <= 300; now.step++)
        gp_net_train(s->net, &s->m.arena, &s->batch, &(gp_clip){.ops = NULL}, &now, &result, &info,
                     NULL, 0, now.step, 1);
    CHECK(result.loss < 0.02);
    CHECK(result.correct == 4.0 && result.weight == (double)s->batch.size);
    scene_free(s);
}

/* ---- bad arguments --------------------------------------------------------------------------- */

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
        m.layers[l].type = NULL;
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
    const size_t out_of_range[] = {m.arena.n_prunable - good[1].in * good[1].out + 1, m.arena.n,
                                   GP_NONE};
    for (size_t i = 0; i < 3; i++) {
        m.layers[1].weight = out_of_range[i];
        call_refuses("weight", &m, s->batch);
    }
    m.layers[1] = good[1];
    const size_t no_bias[] = {0, m.arena.n_prunable - 1, m.arena.n - good[1].out + 1, m.arena.n,
                              GP_NONE - 1};
    for (size_t i = 0; i < 5; i++) {
        m.layers[1].bias = no_bias[i];
        call_refuses("bias", &m, s->batch);
    }
    m.layers[1] = good[1];
    gp_activation_in(&m.layers[2])->function = GP_ACTIVATIONS;
    call_refuses("activation", &m, s->batch);
    m.layers[2] = good[2];
    const float rates[] = {-0.1f, 1.0f, 2.0f, NAN};
    for (size_t i = 0; i < 4; i++) {
        gp_dropout_in(&m.layers[0])->rate = rates[i];
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
    batch.loss = NULL;
    call_refuses("loss", &s->m, batch);
    batch = s->batch;
    batch.targets = NULL;
    call_refuses("no targets", &s->m, batch);
    batch.loss = &gp_loss_cross_entropy;
    call_refuses("no labels", &s->m, batch);
    batch.loss = &gp_loss_distillation;
    batch.targets = s->targets;
    call_refuses("a teacher but no labels", &s->m, batch);
    batch.labels = s->labels;
    batch.targets = NULL;
    call_refuses("labels but no teacher", &s->m, batch);
    batch.targets = s->targets;
    const float bad[] = {-0.1f, 1.1f, NAN}, cold[] = {0.0f, INFINITY, NAN};
    for (size_t i = 0; i < 3; i++) {
        batch.settings[NAIVE_ALPHA] = bad[i];
        call_refuses("alpha", &s->m, batch);
        batch.settings[NAIVE_ALPHA] = 0.5f;
        batch.settings[NAIVE_TEMPERATURE] = cold[i];
        call_refuses("temperature", &s->m, batch);
        batch.settings[NAIVE_TEMPERATURE] = 1.0f;
        batch.loss = &gp_loss_cross_entropy;
        batch.settings[NAIVE_SMOOTHING] = bad[i];
        call_refuses("smoothing", &s->m, batch);
        batch.settings[NAIVE_TEMPERATURE] = 1.0f;
        batch.loss = &gp_loss_distillation;
    }
}

/* Many steps by index are those steps one by one; a step that is refused or fails comes first or
 * not at all. */
static void test_many(const gp_kernels *kernels)
{
    enum { ROWS = 40, STEPS = 5 };
    static const size_t sizes[STEPS] = {8, 3, 16, 1, 12};
    static const double lr[STEPS] = {0.01, 0.02, 0.03, 0.04, 0.05};
    scene *one = scene_new(kernels, build_everything, ROWS, &gp_loss_mse, 40),
          *many = scene_new(kernels, build_everything, ROWS, &gp_loss_mse, 40);
    int64_t index[ROWS];
    gp_taken apart[STEPS], taken[STEPS] = {0};
    gp_course course = {.n = STEPS, .sizes = sizes, .lr = lr, .seconds = INFINITY};
    size_t at = 0, done = 0;
    noise source = {41};
    memset(apart, 0, sizeof apart);
    for (size_t i = 0; i < ROWS; i++) index[i] = (int64_t)noise_below(&source, ROWS);
    for (size_t i = 0; i < STEPS; at += sizes[i++]) {
        gp_rule now = rule;
        now.lr = lr[i];
        now.step = i + 1;
        one->batch.index = index + at;
        one->batch.size = sizes[i];
        CHECK_INT_EQUAL(gp_net_train(one->net, &one->m.arena, &one->batch, &clip, &now,
                                     &apart[i].result, &apart[i].info, NULL, SEED, i, 2),
                        GP_OK);
    }
    many->batch.index = index;
    many->batch.size = ROWS;
    CHECK_INT_EQUAL(gp_net_train_many(many->net, &many->m.arena, &many->batch, &course, &clip,
                                      &rule, taken, &done, NULL, SEED, 0, 2),
                    GP_OK);
    CHECK_INT_EQUAL(done, STEPS);
    CHECK_BYTES_EQUAL(sizeof taken, taken, apart);
    CHECK_BYTES_EQUAL(one->m.arena.n * sizeof(float), many->m.arena.params, one->m.arena.params);

    course.seconds = -1.0; /* no time at all */
    CHECK_INT_EQUAL(gp_net_train_many(many->net, &many->m.arena, &many->batch, &course, &clip,
                                      &rule, taken, &done, NULL, SEED, 0, 2),
                    GP_OK);
    CHECK_INT_EQUAL(done, 1);
    course.seconds = INFINITY;
    index[20] = 7; /* of the third step */
    for (size_t i = 0; i < ROWS; i++) index[i] -= index[i] == 7 && i != 20;
    for (int first = 0; first < 2; first++) {
        many->x[7 * many->in] = first ? NAN : 1e30f; /* one is refused, the other fails */
        gp_net_limit(many->net, 1e6f, INFINITY);
        CHECK_INT_EQUAL(gp_net_train_many(many->net, &many->m.arena, &many->batch, &course, &clip,
                                          &rule, taken, &done, NULL, SEED, 0, 2),
                        GP_OK);
        CHECK_INT_EQUAL(done, 2);
        gp_batch rest = many->batch;
        rest.index += sizes[0] + sizes[1];
        const gp_course later = {.n = 3, .sizes = sizes + 2, .lr = lr, .seconds = INFINITY};
        CHECK_INT_EQUAL(gp_net_train_many(many->net, &many->m.arena, &rest, &later, &clip, &rule,
                                          taken, &done, NULL, SEED, 0, 2),
                        first ? GP_BAD_INPUT : GP_OK);
        CHECK_INT_EQUAL(done, first ? 0 : 1);
        CHECK(first || !taken[0].info.applied);
    }
    scene_free(one);
    scene_free(many);
}

static void build_fours(model *m)
{
    model_dense(m, 23, 61);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 61, 42);
    model_dense(m, 42, 8);
}

/* A quarter of the columns: the same for a whole four of rows, or for each row others; or none. */
static void draw_fours(model *m, const gp_layer_spec *spec, noise *source)
{
    const size_t rows = model_rows(spec), columns = model_columns(spec);
    for (size_t r = 0; r < rows; r += 4) {
        uint8_t *four = m->mask + spec->weight + r * columns;
        const size_t kind = noise_below(source, 3), n = (rows - r < 4 ? rows - r : 4) * columns;
        for (size_t i = 0; i < n; i++)
            four[i] = kind == 0 && i >= columns ? four[i - columns]
                                                : kind < 2 && noise_below(source, 4) == 0;
    }
}

/* Fours of rows that live in the same columns run together; the rows between them do not, in
 * whatever order they come, and wherever a member of the team begins. */
static void test_fours(const gp_kernels *kernels)
{
    for (size_t trial = 0; trial < 6; trial++) {
        noise source = {80 + trial};
        scene *s = scene_new(kernels, build_fours, 70, &gp_loss_mse, 80 + trial);
        for (size_t l = 0; l < s->m.n_layers; l++)
            if (model_rows(&s->m.layers[l])) draw_fours(&s->m, &s->m.layers[l], &source);
        model_remove(&s->m);
        CHECK(gp_net_is_sparse(s->net, &s->m.arena, 0, 70));
        for (size_t threads = 1; threads <= 4; threads++) {
            backward_agrees(s, threads);
            outputs_agree(s, threads);
        }
        scene_free(s);
    }
}

static void test_bad_arguments(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_everything, 8, &gp_loss_mse, 60);
    snapshot whole = snapshot_take(&s->m.arena);
    gp_result result = {0};
    gp_step_info info = {0};
    gp_rule no_step = rule;
    no_step.step = 0;
    bad_specifications(s);
    bad_batches(s);
    gp_batch other = s->batch; /* targets, but not what this loss wants */
    other.loss = &gp_loss_cross_entropy;
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &other, NULL, &result, 1),
                    GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &no_step, &result, &info,
                                 NULL, SEED, 1, 1),
                    GP_BAD_ARGUMENT);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 0, NULL, NULL, 1), GP_OK);
    snapshot_free(&whole);
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
    OVER_INSTRUCTION_SETS(test_weights);
    OVER_INSTRUCTION_SETS(test_what_weights_mean);
    OVER_INSTRUCTION_SETS(test_no_weight);
    OVER_INSTRUCTION_SETS(test_sparsity);
    OVER_INSTRUCTION_SETS(test_given);
    OVER_INSTRUCTION_SETS(test_fours);
    OVER_INSTRUCTION_SETS(test_mask_is_the_truth);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_shared_work);
    OVER_INSTRUCTION_SETS(test_xor);
    OVER_INSTRUCTION_SETS(test_many);
    test_bad_layers();
    test_bad_arguments();
    gp_pool_destroy(pool);
    return check_summary();
}
