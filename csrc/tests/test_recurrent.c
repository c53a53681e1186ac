/* test_recurrent.c - networks of RNN, LSTM and GRU: against naive C, whole and on lists, for the
 * same bits whatever the threads, with Pascanu's regularizer and orthogonality, and for the names
 * of faults, steps among them.
 */
#include "scene.h"

/* ---- networks -------------------------------------------------------------------------------- */

static void build_rnn(model *m)
{
    model_recurrent(m, GP_RNN, 5, 3, 7, 0)->l2 = 0.01f;
    model_dense(m, 7, 4);
}
static void build_lstm(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_LSTM, 4, 6, 12, 0))->orthogonality = 0.05f;
    model_dense(m, 12, 3);
}
static void build_gru(model *m)
{
    model_recurrent(m, GP_GRU, 6, 2, 9, 0)->l1 = 0.003f;
    model_dense(m, 9, 5);
}
/* Every step's state is an input, after dropout; no biases; units in fours and not. */
static void build_stack(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_GRU, 3, 17, 16, 1))->truncation = 2;
    model_dropout(m, 0.3f, 0);
    gp_layer_spec *lstm = model_recurrent(m, GP_LSTM, 3, 16, 5, 1);
    lstm->bias = gp_recurrent_in(lstm)->bias = GP_NONE;
    gp_layer_spec *rnn = model_recurrent(m, GP_RNN, 3, 5, 13, 1);
    gp_recurrent_in(rnn)->activation = GP_RELU;
    gp_recurrent_in(rnn)->orthogonality = 0.02f;
    rnn->l1 = 0.002f;
    model_activation(m, GP_TANH, 0);
    model_dense(m, 39, 4);
    model_softmax(m);
}
static void build_one_step(model *m)
{
    model_recurrent(m, GP_LSTM, 1, 4, 3, 1);
    model_recurrent(m, GP_GRU, 1, 3, 4, 0);
    model_recurrent(m, GP_RNN, 1, 4, 2, 0);
}
/* The states are the outputs. */
static void build_states(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_RNN, 9, 2, 4, 1))->truncation = 4;
}

static void build_omega(model *m)
{
    gp_layer_spec *rnn = model_recurrent(m, GP_RNN, 6, 4, 10, 0);
    gp_recurrent_in(rnn)->omega = 0.5f;
    gp_recurrent_in(rnn)->orthogonality = 0.01f;
    model_dense(m, 10, 3);
}
static void build_omega_relu(model *m)
{
    gp_layer_spec *rnn = model_recurrent(m, GP_RNN, 8, 3, 8, 1);
    gp_recurrent_in(rnn)->activation = GP_RELU;
    gp_recurrent_in(rnn)->omega = 0.2f;
    gp_recurrent_in(rnn)->truncation = 3;
    rnn = model_recurrent(m, GP_RNN, 8, 8, 6, 0);
    gp_recurrent_in(rnn)->omega = 1.0f;
    rnn->l2 = 0.01f;
    model_dense(m, 6, 3);
}

static builder *const builders[] = {build_rnn,      build_lstm,   build_gru,   build_stack,
                                    build_one_step, build_states, build_omega, build_omega_relu};
enum { BUILDERS = sizeof builders / sizeof builders[0], WITHOUT_OMEGA = 6 };

/* ---- against naive.h ------------------------------------------------------------------------- */

/* Only of what is a gradient: that of omega holds more constant, and truncation leaves part of it
 * out. */
static void test_naive(void)
{
    static builder *const differentiable[] = {build_rnn, build_lstm, build_gru, build_one_step};
    for (size_t b = 0; b < 4; b++)
        for (size_t loss = 0; loss < NAIVE_LOSSES; loss++)
            naive_is_right(differentiable[b], naive_losses[loss]);
}

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 16, 17, 64, 65, 130, 300};
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
            if (is_quick() && (b + i) % 4) continue;
            const gp_loss_ops *loss = naive_losses[(b + i) % NAIVE_LOSSES];
            long failed = check_failed_count;
            scene *s = scene_new(kernels, builders[b], batches[i], loss, 10 * b + i);
            /* 0.85: on lists */
            if ((b + i) % 3) model_prune(&s->m, (b + i) % 3 == 1 ? 0.5 : 0.85, i);
            for (size_t threads = 1; threads <= 3; threads++) backward_agrees(s, threads);
            if (b < WITHOUT_OMEGA) outputs_agree(s, 1 + i % 3);
            if (check_failed_count > failed)
                printf("  network %zu, loss %s, batch %zu\n", b, loss->name, batches[i]);
            scene_free(s);
        }
}

/* Batches of every size after one another, and fewer and fewer weights: nothing is kept of the call
 * before. */
static void test_changes(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 70, 3, 200, 64, 33, 1};
    static const double shares[] = {0.0, 0.9, 0.3, 1.0, 0.95, 0.0, 0.8};
    for (size_t b = 0; b < BUILDERS; b++) {
        scene *s = scene_new(kernels, builders[b], 200, &gp_loss_mse, 20 + b);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            if (is_quick() && (b + i) % 3) continue;
            noise source = {i};
            s->batch.size = sizes[i];
            noise_floats(&source, s->m.arena.n, s->m.arena.params, 0.4);
            model_prune(&s->m, shares[i], i);
            backward_agrees(s, 1 + i % 2);
        }
        scene_free(s);
    }
}

static void test_is_sparse(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_gru, 64, &gp_loss_mse, 25);
    for (int pruned = 0; pruned < 2; pruned++) {
        model_prune(&s->m, pruned ? 0.9 : 0.1, 3);
        CHECK_INT_EQUAL(gp_net_is_sparse(s->net, &s->m.arena, 0, 64), pruned);
    }
    scene_free(s);
}

/* ---- frozen ---------------------------------------------------------------------------------- */

static void test_frozen(const gp_kernels *kernels)
{
    enum { SAMPLES = 70, MOST = 16 };
    for (size_t b = 0; b < BUILDERS; b++)
        for (int share = is_quick() ? 2 : 0; share < 3; share++) {
            scene *s = scene_new(kernels, builders[b], SAMPLES, &gp_loss_mse, 50 + b);
            const size_t O = s->out;
            float *expected = allocated(SAMPLES * O * sizeof *expected),
                  *got = allocated(SAMPLES * O * sizeof *got);
            gp_frozen *frozen = NULL;
            gp_fault fault;
            if (share > 0) model_prune(&s->m, share == 1 ? 0.3 : 0.9, 4);
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
            CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                             GP_FLOAT32, &frozen),
                            GP_OK);
            const size_t counts[] = {1, 3, MOST, MOST + 1, SAMPLES};
            for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                CHECK_INT_EQUAL(gp_frozen_predict(frozen, counts[i], s->x, got, &fault, 2), GP_OK);
                for (size_t k = 0; k < counts[i] * O; k++)
                    CHECK_NEAR(got[k], expected[k], 1e-5 * (1.0 + fabsf(expected[k])));
            }
            gp_frozen_destroy(frozen);
            free(expected);
            free(got);
            scene_free(s);
        }
}

/* What the next network is; the steps do not fit those that are computed together. */
static struct {
    gp_cell cell;
    size_t steps, features, units;
    int sequences, bias;
} shape;

/* With a layer over the steps of what is a sequence. */
static void build_shape(model *m)
{
    enum { TAGS = 3 };
    gp_layer_spec *own =
        model_recurrent(m, shape.cell, shape.steps, shape.features, shape.units, shape.sequences);
    if (!shape.bias) own->bias = gp_recurrent_in(own)->bias = GP_NONE;
    if (!shape.sequences) return;
    gp_layer_spec *dense = model_dense(m, shape.steps * shape.units, shape.steps * TAGS);
    dense->steps = shape.steps;
    if (!shape.bias) dense->bias = GP_NONE;
    model_activation(m, GP_SIGMOID, 0);
}

/* Removes the first row of every matrix, and the last. */
static void empty_rows(model *m)
{
    for (size_t i = 0; i < m->arena.n_segments; i++) {
        const gp_segment *part = &m->segments[i];
        if (part->columns == 0) continue;
        memset(m->mask + part->offset, 0, part->columns);
        memset(m->mask + part->offset + part->length - part->columns, 0, part->columns);
    }
    model_remove(m);
}

static void few_agree(const gp_kernels *kernels, double share, uint64_t seed)
{
    enum { MOST = 16 };
    scene *s = scene_new(kernels, build_shape, MOST, &gp_loss_mse, seed);
    const size_t O = s->out;
    float *expected = allocated(MOST * O * sizeof *expected),
          *got = allocated(MOST * O * sizeof *got);
    gp_frozen *frozen = NULL;
    gp_fault fault;
    long failed = check_failed_count;
    if (share > 0.0) model_prune(&s->m, share, seed);
    if (share > 0.0) empty_rows(&s->m);
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, MOST, s->x, expected, 1), GP_OK);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                     GP_FLOAT32, &frozen),
                    GP_OK);
    for (size_t n = 1; n <= MOST; n += 1 + n / 3) {
        memset(got, 0xff, MOST * O * sizeof *got);
        CHECK_INT_EQUAL(gp_frozen_predict(frozen, n, s->x, got, &fault, 1), GP_OK);
        CHECK_FLOATS_NEAR(n * O, got, expected, 1e-5, 1e-5);
        CHECK(n == MOST || is_float_nan(got[n * O]));
    }
    if (share == 0.0 || share > 1.0) {
        const gp_frozen_layer layer = gp_frozen_describe(frozen, 0);
        CHECK(layer.row_list == (share > 0.0) && layer.lane_list == (share > 0.0));
    }
    if (check_failed_count > failed)
        printf("  cell %d, %zu steps of %zu, %zu units, sequences %d, bias %d, share %g\n",
               (int)shape.cell, shape.steps, shape.features, shape.units, shape.sequences,
               shape.bias, share);
    gp_frozen_destroy(frozen);
    free(expected);
    free(got);
    scene_free(s);
}

/* Every cell, with units and features around a vector, on dense rows and on lists. */
static void test_few(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 4, 15, 16, 17, 32, 50};
    static const double shares[] = {0.0, 0.3, 0.85, 0.97, 1.1};
    uint64_t seed = 100;
    for (int cell = 0; cell < GP_CELLS; cell++)
        for (int form = 0; form < 4; form++)
            for (size_t i = 0; i < 7; i++)
                for (size_t k = 0; k < 5; k++, seed++) {
                    if (is_quick() && seed % 7) continue;
                    shape.cell = (gp_cell)cell;
                    shape.sequences = form & 1;
                    shape.bias = form >> 1;
                    shape.steps = (i + k) % 3 == 0 ? 1 : 19 + 13 * ((i + k) % 3 - 1);
                    shape.features = sizes[(i + k) % 7];
                    shape.units = sizes[i];
                    few_agree(kernels, shares[k], seed);
                }
}

/* The state grows past all numbers in one sample, from its fourth step on: nothing of it is seen in
 * the steps before or in the next sample, which are padded by nothing or lie beside it. */
static void build_growing_twice(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_RNN, 6, 2, 3, 1))->activation = GP_RELU;
    gp_recurrent_in(model_recurrent(m, GP_RNN, 6, 3, 3, 1))->activation = GP_RELU;
    model_dense(m, 18, 12)->steps = 6;
}
static void test_few_overflow(const gp_kernels *kernels)
{
    enum { SAMPLES = 3, OUT = 12 };
    scene *s = scene_new(kernels, build_growing_twice, SAMPLES, &gp_loss_mse, 71);
    const gp_layer_spec *spec = &s->m.layers[0];
    float expected[SAMPLES * OUT], got[SAMPLES * OUT];
    gp_frozen *frozen = NULL;
    gp_fault fault;
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
    s->m.arena.params[spec->weight + 2 * 2] = 1.0f;
    s->m.arena.params[gp_recurrent_of(spec)->weight + 2 * 3 + 2] = 1e20f;
    for (size_t i = 0; i < 12; i++) s->x[12 + i] = i == 2 ? 1.0f : 0.0f;
    CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                     GP_FLOAT32, &frozen),
                    GP_OK);
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
    CHECK_INT_EQUAL(gp_frozen_predict(frozen, SAMPLES, s->x, got, &fault, 1), GP_OK);
    for (size_t i = 0; i < SAMPLES * OUT; i++) {
        CHECK_INT_EQUAL(isfinite(got[i]), isfinite(expected[i]));
        if (isfinite(expected[i])) CHECK_NEAR(got[i], expected[i], 1e-5 * fabs(expected[i]) + 1e-5);
    }
    CHECK(!isfinite(got[2 * OUT - 1]) && isfinite(got[OUT]));
    gp_frozen_destroy(frozen);
    scene_free(s);
}

/* ---- blocks, lanes and threads --------------------------------------------------------------- */

/* 49 thousand floats a lane: blocks of 256 samples. */
static void build_long(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_LSTM, 1000, 1, 8, 0))->truncation = 300;
    model_dense(m, 8, 2);
}

/* Workspace and gradients over blocks; naive.h has no room for so many steps. */
static void test_blocks(const gp_kernels *kernels)
{
    if (is_quick()) return;
    enum { SAMPLES = 300, PART = 256 };
    scene *s = scene_new(kernels, build_long, SAMPLES, &gp_loss_mse, 26);
    gp_arena *arena = &s->m.arena;
    gp_result result;
    float whole[SAMPLES * 2], part[SAMPLES * 2];
    CHECK_INT_EQUAL(gp_net_predict(s->net, arena, PART, s->x, part, 1), GP_OK);
    const size_t bytes = gp_net_bytes(s->net);
    CHECK_INT_EQUAL(gp_net_predict(s->net, arena, SAMPLES, s->x, whole, 2), GP_OK);
    CHECK_INT_EQUAL(gp_net_bytes(s->net), bytes);
    CHECK_BYTES_EQUAL(PART * 2 * sizeof(float), whole, part);
    /* the mean over all samples is that of the parts */
    double *sum = allocated(arena->n * sizeof *sum);
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    for (size_t i = 0; i < arena->n; i++) sum[i] = (double)arena->grads[i];
    s->batch.size = PART;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    for (size_t i = 0; i < arena->n; i++) sum[i] -= (double)arena->grads[i] * PART / SAMPLES;
    s->batch.x = s->x + PART * s->in;
    s->batch.targets = s->targets + PART * s->out;
    s->batch.size = SAMPLES - PART;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    for (size_t i = 0; i < arena->n; i++)
        sum[i] -= (double)arena->grads[i] * (SAMPLES - PART) / SAMPLES;
    for (size_t i = 0; i < arena->n; i++) CHECK_NEAR(sum[i], 0.0, 1e-6);
    free(sum);
    scene_free(s);
}

/* A sample's output has the same bits in any company. */
static void test_company(const gp_kernels *kernels)
{
    enum { SAMPLES = 100 };
    for (int pruned = 0; pruned < 2; pruned++) {
        scene *s = scene_new(kernels, build_stack, SAMPLES, &gp_loss_cross_entropy, 27);
        float all[SAMPLES * 4], one[4], some[70 * 4];
        if (pruned) model_prune(&s->m, 0.9, 21);
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, all, 2), GP_OK);
        for (size_t i = 0; i < SAMPLES; i += is_quick() ? 29 : 7) {
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x + i * s->in, one, 1),
                            GP_OK);
            CHECK_BYTES_EQUAL(sizeof one, one, all + i * 4);
        }
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 70, s->x + 30 * s->in, some, 1), GP_OK);
        CHECK_BYTES_EQUAL(sizeof some, some, all + 30 * 4);
        scene_free(s);
    }
}

/* ---- lengths --------------------------------------------------------------------------------- */

enum { PADDED = 5 }; /* steps */

static void build_padded_last(model *m)
{
    model_recurrent(m, GP_GRU, PADDED, 3, 8, 1);
    model_recurrent(m, GP_LSTM, PADDED, 8, 13, 1);
    gp_recurrent_in(model_recurrent(m, GP_RNN, PADDED, 13, 4, 0))->activation = GP_RELU;
    model_dense(m, 4, 2);
}
static void build_padded_lstm(model *m) { model_recurrent(m, GP_LSTM, PADDED, 3, 5, 0); }
static void build_padded_gru(model *m) { model_recurrent(m, GP_GRU, PADDED, 3, 4, 0); }
static void build_padded_states(model *m)
{
    model_recurrent(m, GP_GRU, PADDED, 3, 4, 1);
    model_recurrent(m, GP_LSTM, PADDED, 4, 6, 1);
}

/* What a sample of `length` steps gives by itself: rows of the network cut to as many steps. */
static void predict_alone(const gp_kernels *kernels, const scene *s, size_t sample, size_t length,
                          float *out)
{
    gp_layer_spec layers[MODEL_LAYERS];
    gp_net *net = NULL;
    for (size_t i = 0; i < s->m.n_layers; i++) {
        layers[i] = s->m.layers[i];
        if (layers[i].type != &gp_layer_recurrent) continue;
        layers[i].in = layers[i].in / PADDED * length;
        if (gp_recurrent_of(&layers[i])->sequences) layers[i].out = layers[i].out / PADDED * length;
        gp_recurrent_in(&layers[i])->steps = length;
    }
    CHECK_INT_EQUAL(gp_net_create(kernels, pool, s->m.n_layers, layers, &net), GP_OK);
    CHECK_INT_EQUAL(gp_net_predict(net, &s->m.arena, 1, s->x + sample * s->in, out, 1), GP_OK);
    gp_net_destroy(net);
}

static void outputs_are_those_alone(const gp_kernels *kernels, scene *s, float *out)
{
    float alone[PADDED * 8];
    gp_batch batch = s->batch;
    gp_result result;
    batch.targets = NULL;
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &batch, out, &result, 2), GP_OK);
    for (size_t i = 0; i < batch.size; i += is_quick() ? 17 : 1) {
        const size_t length = (size_t)batch.lengths[i],
                     kept = batch.by_step ? s->out / PADDED * length : s->out;
        double error = 0.0;
        predict_alone(kernels, s, i, length, alone);
        for (size_t k = 0; k < s->out; k++) {
            const float expected = k < kept ? alone[k] : 0.0f;
            error = fmax(error, fabs((double)out[i * s->out + k] - (double)expected));
        }
        CHECK_NEAR(error, 0.0, 2e-6);
    }
}

/* Frozen, rows and lanes. */
static void frozen_agrees(const gp_kernels *kernels, const scene *s, const float *expected)
{
    static const size_t sizes[] = {1, 3, 70, 130};
    const gp_padding padding = {s->batch.lengths, PADDED, s->batch.by_step};
    gp_frozen *frozen = NULL;
    gp_fault fault;
    CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                     GP_FLOAT32, &frozen),
                    GP_OK);
    for (size_t i = 0; i < 4; i++) {
        buffer got = output_floats(sizes[i] * s->out, i);
        double error = 0.0;
        CHECK_INT_EQUAL(
            gp_frozen_predict_padded(frozen, sizes[i], s->x, &padding, got.f, &fault, 2), GP_OK);
        for (size_t k = 0; k < sizes[i] * s->out; k++)
            error = fmax(error, fabs((double)got.f[k] - (double)expected[k]));
        CHECK_NEAR(error, 0.0, 2e-6);
        CLOSE(got);
    }
    gp_frozen_destroy(frozen);
}

static void lengths_are_refused(scene *s, int64_t *lengths)
{
    gp_result result;
    for (int64_t bad = -1; bad <= 1; bad++) {
        const int64_t was = lengths[7];
        lengths[7] = bad > 0 ? PADDED + 1 : bad;
        CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_BAD_ARGUMENT);
        lengths[7] = was;
    }
    s->batch.steps = 4;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_BAD_ARGUMENT);
    s->batch.steps = PADDED;
}

static void test_lengths(const gp_kernels *kernels)
{
    enum { SAMPLES = 130 };
    static builder *const padded[] = {build_padded_last, build_padded_lstm, build_padded_gru,
                                      build_padded_states};
    for (size_t b = 0; b < 4; b++) {
        scene *s = scene_new(kernels, padded[b], SAMPLES, &gp_loss_mse, 60 + b);
        int64_t lengths[SAMPLES];
        float *grads = allocated(s->m.arena.n * sizeof *grads),
              *out = allocated(SAMPLES * s->out * sizeof *out);
        gp_result first = {0}, result = {0};
        noise source = {b};
        for (size_t i = 0; i < SAMPLES; i++) lengths[i] = 1 + (int64_t)noise_below(&source, PADDED);
        s->batch.lengths = lengths;
        s->batch.steps = PADDED;
        s->batch.by_step = b == 3;
        if (b == 0) s->batch.weights = s->weights;
        outputs_are_those_alone(kernels, s, out);
        frozen_agrees(kernels, s, out);
        for (size_t threads = 1; threads <= 3; threads++) { /* the same bits, whatever pads */
            CHECK_INT_EQUAL(scene_backward(s, threads == 1 ? &first : &result, threads), GP_OK);
            if (threads == 1) memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);
            else CHECK(result.loss == first.loss && result.weight == first.weight);
            CHECK_BYTES_EQUAL(s->m.arena.n * sizeof *grads, s->m.arena.grads, grads);
            for (size_t i = 0; i < SAMPLES; i++)
                for (size_t k = (size_t)lengths[i] * s->in / PADDED; k < s->in; k++)
                    s->x[i * s->in + k] = threads == 1 ? 1e38f : -3e38f;
        }
        lengths_are_refused(s, lengths);
        free(grads);
        free(out);
        scene_free(s);
    }
}

/* In lanes without a sample the bias alone would double the state in every step. */
static void build_doubling(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_RNN, 240, 1, 1, 0))->activation = GP_RELU;
    model_dense(m, 1, 1);
}
static void test_padding_does_not_explode(const gp_kernels *kernels)
{
    static const size_t sizes[] = {3, 67, 131}; /* some of the only, the second, the last chunk */
    for (size_t i = 0; i < 6; i++) {
        const int pruned = i >= 3;
        const size_t size = sizes[i % 3];
        scene *s = scene_new(kernels, build_doubling, size, &gp_loss_mse, 28);
        const gp_layer_spec *spec = &s->m.layers[0];
        gp_arena *arena = &s->m.arena;
        if (pruned) {
            model_prune(&s->m, 0.0, 1);
            gp_live_destroy(arena->live);
            CHECK_INT_EQUAL(gp_live_create(arena, &(gp_costs){{1.0, 1.0, 1.0, 1.0}}, &arena->live),
                            GP_OK);
        }
        arena->params[spec->weight] = arena->params[spec->bias] = 1.0f;
        arena->params[gp_recurrent_of(spec)->weight] = 2.0f;
        arena->params[gp_recurrent_of(spec)->bias] = 0.0f;
        for (size_t k = 0; k < size * s->in; k++) s->x[k] = k % s->in + 1 == s->in ? 1.0f : -1.0f;
        backward_agrees(s, 1);
        CHECK(arena->grads[spec->weight] != 0.0f);
        scene_free(s);
    }
}

/* Enough work to be shared; 7 chunks are not shared evenly, so that units are. */
static void build_large(model *m)
{
    gp_layer_spec *first = model_recurrent(m, GP_LSTM, 4, 20, 25, 1);
    gp_recurrent_in(first)->orthogonality = 1e-3f;
    first->l2 = 1e-3f;
    model_dropout(m, 0.3f, 0);
    gp_recurrent_in(model_recurrent(m, GP_GRU, 4, 25, 24, 1))->truncation = 3;
    gp_layer_spec *last = model_recurrent(m, GP_RNN, 4, 24, 30, 0);
    gp_recurrent_in(last)->omega = 0.1f;
    gp_recurrent_in(last)->orthogonality = 1e-3f;
    model_dense(m, 30, 9);
}

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_large, &gp_loss_cross_entropy, 30, 0.3},
                                     {build_large, &gp_loss_mse, 130, 0.9},
                                     {build_large, &gp_loss_bce, 256, 0.2},
                                     {build_large, &gp_loss_cross_entropy, 400, 0.85}};
    for (size_t i = 0; i < (is_quick() ? 2 : 4); i++) same_bits(kernels, &courses[i]);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void test_bad_parameter(const gp_kernels *kernels)
{
    for (int where = 0; where < 4; where++) {
        scene *s = scene_new(kernels, build_gru, 70, &gp_loss_cross_entropy, 50);
        const gp_layer_spec *spec = &s->m.layers[0];
        const int bias = where & 1, recurrent = where >> 1;
        const size_t columns = bias ? 27 : recurrent ? 9 : 2, row = bias ? 0 : 20;
        const size_t offsets[4] = {spec->weight, spec->bias, gp_recurrent_of(spec)->weight,
                                   gp_recurrent_of(spec)->bias};
        gp_step_info info = {0};
        gp_result result;
        gp_fault fault;
        s->m.arena.params[offsets[where] + row * columns + 1] = NAN;
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, 2),
                        GP_OK);
        CHECK(!info.applied && isnan(result.loss));
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_PARAMETER, 0, bias, row, 1);
        gp_net_fault(s->net, &s->m.arena, &fault);
        CHECK_INT_EQUAL(fault.recurrent, recurrent);
        CHECK(fault.step == GP_NONE);
        snapshot_free(&whole);
        scene_free(s);
    }
}

/* Sample, step and unit where it began, also when only the last state is the output, and in a later
 * block. */
static void build_growing(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_RNN, 6, 2, 3, 0))->activation = GP_RELU;
    model_dense(m, 3, 2);
}
static void build_growing_states(model *m)
{
    gp_recurrent_in(model_recurrent(m, GP_RNN, 6, 2, 3, 1))->activation = GP_RELU;
    model_dense(m, 18, 2);
}
static void test_overflow_has_a_step(const gp_kernels *kernels)
{
    static const size_t rows[] = {0, 16, 69, 1023, 1060};
    for (size_t i = 0; i < 10; i++) {
        const size_t row = rows[i / 2], samples = row < 100 ? 70 : 1100;
        scene *s = scene_new(kernels, i % 2 ? build_growing_states : build_growing, samples,
                             &gp_loss_cross_entropy, 51);
        const gp_layer_spec *spec = &s->m.layers[0];
        gp_step_info info = {.applied = 1};
        gp_result result;
        gp_fault fault;
        memset(s->m.arena.params, 0, s->m.arena.n * sizeof(float));
        s->m.arena.params[spec->weight + 2 * 2] = 1.0f; /* unit 2 sees feature 0 */
        s->m.arena.params[gp_recurrent_of(spec)->weight + 2 * 3 + 2] = 1e20f; /* and itself */
        memset(s->x, 0, samples * s->in * sizeof(float));
        s->x[row * s->in + 1 * 2] = 1.0f; /* step 1: 1, then 1e20, then infinity */
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, 1 + i % 3),
                        GP_OK);
        CHECK(!isfinite(result.loss) && !info.applied);
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_FORWARD, 0, 0, row, 2);
        gp_net_fault(s->net, &s->m.arena, &fault);
        CHECK_INT_EQUAL(fault.step, 3);
        snapshot_free(&whole);
        scene_free(s);
    }
}

/* ---- bad arguments --------------------------------------------------------------------------- */

static void refused(const char *what, const model *m, const gp_batch *batch)
{
    gp_net *net = NULL;
    gp_result result = {.loss = -1.0};
    gp_status status = gp_net_create(gp_kernels_get(NULL), pool, m->n_layers, m->layers, &net);
    if (status == GP_OK) status = gp_net_backward(net, &m->arena, batch, &result, 0, 1, 2);
    if (!CHECK_INT_EQUAL(status, GP_BAD_ARGUMENT)) printf("  %s\n", what);
    CHECK(result.loss == -1.0);
    gp_net_destroy(net);
}

static void test_bad_specifications(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_rnn, 8, &gp_loss_mse, 60);
    model m = s->m;
    gp_layer_spec *spec = &m.layers[0];
    const gp_layer_spec good = *spec;
    gp_recurrent_settings *own = gp_recurrent_in(spec);
#define REFUSED(place, value) \
    do { \
        (place) = (value); \
        refused(#place " " #value, &m, &s->batch); \
        *spec = good; \
    } while (0)
    REFUSED(own->steps, 0);
    REFUSED(own->steps, 4); /* not a divisor of 15 */
    REFUSED(own->steps, 16);
    REFUSED(own->cell, GP_CELLS);
    REFUSED(own->cell, GP_LSTM); /* more weights than there are */
    REFUSED(own->activation, GP_GELU);
    REFUSED(own->activation, GP_ACTIVATIONS);
    REFUSED(own->sequences, 1); /* 7 is no multiple of 5 */
    REFUSED(spec->weight, GP_NONE);
    REFUSED(spec->weight, m.arena.n_prunable - 20);
    REFUSED(own->weight, m.arena.n_prunable - 48);
    REFUSED(own->weight, GP_NONE);
    REFUSED(spec->bias, GP_NONE); /* one of two */
    REFUSED(own->bias, GP_NONE);
    REFUSED(spec->bias, 0); /* among the weights */
    REFUSED(own->bias, m.arena.n - 6);
#undef REFUSED
    gp_recurrent_in(&m.layers[0])->cell = GP_GRU;
    gp_recurrent_in(&m.layers[0])->omega = 0.1f;
    refused("omega of GRU", &m, &s->batch);
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_naive();
    OVER_INSTRUCTION_SETS(test_against_naive);
    OVER_INSTRUCTION_SETS(test_changes);
    OVER_INSTRUCTION_SETS(test_frozen);
    OVER_INSTRUCTION_SETS(test_few);
    OVER_INSTRUCTION_SETS(test_few_overflow);
    test_is_sparse();
    OVER_INSTRUCTION_SETS(test_blocks);
    OVER_INSTRUCTION_SETS(test_company);
    OVER_INSTRUCTION_SETS(test_lengths);
    OVER_INSTRUCTION_SETS(test_padding_does_not_explode);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_bad_parameter);
    OVER_INSTRUCTION_SETS(test_overflow_has_a_step);
    test_bad_specifications();
    gp_pool_destroy(pool);
    return check_summary();
}
