/* test_frozen.c - a frozen network predicts what the network does, on every path and by many
 * threads at once. */
#include "fixture.h"

#include <pthread.h>

enum { IN = 37, OUT = 7, MOST = 200 };

typedef struct stage {
    gp_pool *pool;
    model m;
    gp_net *net;
    gp_frozen *frozen;
    float *x, *want, *out;
} stage;

/* A net with every kind of layer; activations first, doubled, and after softmax. */
static void stage_open(stage *s, const gp_kernels *kernels, double removed, uint64_t seed)
{
    noise source = {seed};
    *s = (stage){0};
    model_activation(&s->m, GP_TANH, IN);
    model_dense(&s->m, IN, 300);
    model_dropout(&s->m, 0.5f, 0);
    model_activation(&s->m, GP_RELU, 0);
    model_activation(&s->m, GP_GELU, 0);
    model_dense(&s->m, 300, 50)->bias = GP_NONE;
    model_softmax(&s->m);
    model_dense(&s->m, 50, OUT);
    model_finish(&s->m, seed);
    model_prune(&s->m, removed, seed + 1);
    s->x = allocated(MOST * IN * sizeof(float));
    s->want = allocated(MOST * OUT * sizeof(float));
    s->out = allocated(MOST * OUT * sizeof(float));
    noise_floats(&source, MOST * IN, s->x, 2.0);
    CHECK_INT_EQUAL(gp_pool_create(&s->pool), GP_OK);
    CHECK_INT_EQUAL(gp_net_create(kernels, s->pool, s->m.n_layers, s->m.layers, &s->net), GP_OK);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, s->pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                     GP_FLOAT32, &s->frozen),
                    GP_OK);
    CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, MOST, s->x, s->want, 1), GP_OK);
}

static void stage_close(stage *s)
{
    gp_frozen_destroy(s->frozen);
    gp_net_destroy(s->net);
    gp_pool_destroy(s->pool);
    model_free(&s->m);
    free(s->x);
    free(s->want);
    free(s->out);
}

static void test_predict(const gp_kernels *kernels)
{
    const double removed[] = {0.0, 0.5, 0.8, 0.95, 0.99, 1.1};
    const size_t sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 129, MOST};
    for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
        stage s;
        stage_open(&s, kernels, removed[i], 40 + i);
        memset(s.m.arena.params, 0xff, s.m.arena.n * sizeof(float)); /* it has a copy of its own */
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            for (size_t threads = 1; threads <= 3; threads++) {
                if (is_quick() && (i + j + threads) % 4) continue;
                gp_fault fault = {.phase = GP_PHASE_NONE};
                memset(s.out, 0xff, MOST * OUT * sizeof(float));
                CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, sizes[j], s.x, s.out, &fault, threads),
                                GP_OK);
                CHECK_FLOATS_NEAR(sizes[j] * OUT, s.out, s.want, 2e-6, 2e-6);
                for (size_t k = sizes[j] * OUT; k < MOST * OUT; k++)
                    if (bits_of(s.out[k]) != 0xffffffffu) CHECK(k == 0); /* written past the end */
            }
        gp_frozen_layer layer = gp_frozen_describe(s.frozen, 1),
                        none = gp_frozen_describe(s.frozen, 0);
        CHECK(layer.row_list == (removed[i] > 0.9) && layer.lane_list == (removed[i] > 0.7));
        CHECK(none.kept == 0 && none.bytes == 0 && gp_frozen_bytes(s.frozen) > layer.bytes);
        stage_close(&s);
    }
}

/* In int8: about the same numbers; and those of a sample have the same bits in every batch, with
 * any threads, and for layers without exp on every instruction set. */
static void test_int8(const gp_kernels *kernels)
{
    enum { INPUTS = 37, HIDDEN = 50 };
    model m = {0};
    gp_pool *pool;
    gp_net *net;
    gp_frozen *frozen, *plain;
    noise source = {45};
    gp_fault fault;
    float *x = allocated(MOST * INPUTS * sizeof(float)),
          *want = allocated(MOST * OUT * sizeof(float));
    float *out = allocated(MOST * OUT * sizeof(float)),
          *all = allocated(MOST * OUT * sizeof(float));
    noise_floats(&source, MOST * INPUTS, x, 2.0);
    model_dense(&m, INPUTS, HIDDEN);
    model_activation(&m, GP_RELU, 0);
    model_dense(&m, HIDDEN, HIDDEN)->bias = GP_NONE;
    model_activation(&m, GP_LEAKY_RELU, 0);
    model_dense(&m, HIDDEN, OUT);
    model_finish(&m, 46);
    model_prune(&m, 0.3, 47);
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    CHECK_INT_EQUAL(
        gp_frozen_create(kernels, pool, m.n_layers, m.layers, &m.arena, GP_INT8, &frozen), GP_OK);
    CHECK_INT_EQUAL(gp_frozen_create(gp_kernels_get("baseline"), pool, m.n_layers, m.layers,
                                     &m.arena, GP_INT8, &plain),
                    GP_OK);
    CHECK_INT_EQUAL(gp_net_create(kernels, pool, m.n_layers, m.layers, &net), GP_OK);
    CHECK_INT_EQUAL(gp_net_predict(net, &m.arena, MOST, x, want, 1), GP_OK);
    for (size_t i = 0; i < m.n_layers; i += 2) {
        gp_frozen_layer layer = gp_frozen_describe(frozen, i);
        CHECK(layer.int8 && !layer.row_list && !layer.lane_list && layer.kept > 0);
        CHECK(layer.bytes == 64 + 64 * m.layers[i].out + 12 * ((m.layers[i].out + 15) / 16 * 16));
    }
    CHECK_INT_EQUAL(gp_frozen_predict(frozen, MOST, x, all, &fault, 2), GP_OK);
    CHECK_FLOATS_NEAR(MOST * OUT, all, want, 0.1, 0.0);
    CHECK_INT_EQUAL(gp_frozen_predict(plain, MOST, x, out, &fault, 1), GP_OK);
    CHECK_BYTES_EQUAL(MOST * OUT * sizeof(float), out, all);
    for (size_t n = 1; n < MOST; n += 1 + n / 3)
        for (size_t first = 0; first + n <= MOST; first += 1 + MOST / 3) {
            CHECK_INT_EQUAL(
                gp_frozen_predict(frozen, n, x + first * INPUTS, out, &fault, 1 + n % 3), GP_OK);
            CHECK_BYTES_EQUAL(n * OUT * sizeof(float), out, all + first * OUT);
        }
    x[3 * INPUTS + 5] = NAN;
    CHECK_INT_EQUAL(gp_frozen_predict(frozen, MOST, x, out, &fault, 2), GP_BAD_INPUT);
    CHECK(fault.row == 3 && fault.column == 5);
    gp_frozen_destroy(frozen);
    gp_frozen_destroy(plain);
    gp_net_destroy(net);
    gp_pool_destroy(pool);
    model_free(&m);
    free(x);
    free(want);
    free(out);
    free(all);
}

/* A layer that hardly lives stays on lists of floats; so does one that is too wide for the sums. */
static void test_int8_is_left(const gp_kernels *kernels)
{
    model m = {0};
    gp_pool *pool;
    gp_frozen *frozen;
    model_dense(&m, GP_INT8_MOST + 1, 2);
    model_dense(&m, 2, 2);
    model_finish(&m, 48);
    memset(m.mask + 2 * (GP_INT8_MOST + 1), 0, 4);
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, 2, m.layers, &m.arena, GP_INT8, &frozen),
                    GP_OK);
    gp_frozen_layer wide = gp_frozen_describe(frozen, 0), dead = gp_frozen_describe(frozen, 1);
    CHECK(!wide.int8 && wide.bytes > 2 * GP_INT8_MOST * sizeof(float));
    CHECK(!dead.int8 && dead.row_list && dead.lane_list);
    gp_frozen_destroy(frozen);
    gp_pool_destroy(pool);
    model_free(&m);
}

/* Numbers that overflow inside of the network, or were never finite, do not become ordinary
 * ones. */
static void test_int8_not_finite(const gp_kernels *kernels)
{
    float x[20 * 3], out[20 * 2];
    for (size_t kind = 0; kind < 3; kind++) {
        model m = {0};
        gp_pool *pool;
        gp_frozen *frozen;
        gp_fault fault;
        model_dense(&m, 3, 4);
        model_activation(&m, GP_RELU, 0);
        model_dense(&m, 4, 2);
        model_finish(&m, 49);
        float *W = m.arena.params + m.layers[0].weight;
        if (kind == 0) W[0] = NAN;
        if (kind == 1) W[1] = INFINITY;
        if (kind == 2) W[0] = W[1] = W[2] = 3e38f;
        for (size_t i = 0; i < 60; i++) x[i] = 10.0f;
        CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
        CHECK_INT_EQUAL(
            gp_frozen_create(kernels, pool, m.n_layers, m.layers, &m.arena, GP_INT8, &frozen),
            GP_OK);
        for (size_t n = 1; n <= 20; n += 19) {
            CHECK_INT_EQUAL(gp_frozen_predict(frozen, n, x, out, &fault, 1), GP_OK);
            for (size_t i = 0; i < n * 2; i++) CHECK(is_float_nan(out[i]));
        }
        gp_frozen_destroy(frozen);
        gp_pool_destroy(pool);
        model_free(&m);
    }
}

/* The same bits whatever the threads, and in lanes whatever the chunk. */
static void test_bits(const gp_kernels *kernels)
{
    stage s;
    gp_fault fault;
    stage_open(&s, kernels, 0.9, 60);
    for (size_t n = 1; n <= MOST; n += 1 + n / 3) {
        CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, n, s.x, s.want, &fault, 1), GP_OK);
        for (size_t call = 0; call < 20; call++) {
            CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, n, s.x, s.out, &fault, 1 + call % 4),
                            GP_OK);
            CHECK_BYTES_EQUAL(n * OUT * sizeof(float), s.out, s.want);
        }
    }
    stage_close(&s);
}

/* The first fault in the order of samples is told, by a team of any size. */
static void test_faults(const gp_kernels *kernels)
{
    const size_t sizes[] = {1, 2, 16, 17, 65, MOST};
    stage s;
    stage_open(&s, kernels, 0.9, 70);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t at = 0; at < sizes[i] * IN; at += 1 + at) {
            size_t last = sizes[i] * IN - 1;
            float first = s.x[at], other = s.x[last];
            s.x[at] = i % 2 ? NAN : -INFINITY;
            s.x[last] = INFINITY;
            for (size_t threads = 1; threads <= 3; threads++) {
                gp_fault fault = {.phase = GP_PHASE_NONE};
                CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, sizes[i], s.x, s.out, &fault, threads),
                                GP_BAD_INPUT);
                CHECK(fault.phase == GP_PHASE_INPUT && fault.row == at / IN &&
                      fault.column == at % IN);
            }
            s.x[last] = other;
            s.x[at] = first;
        }
    CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, 0, NULL, NULL, NULL, 2), GP_OK);
    stage_close(&s);
}

static void test_bad_arguments(const gp_kernels *kernels)
{
    stage s;
    gp_frozen *made;
    stage_open(&s, kernels, 0.0, 80);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, s.pool, 0, s.m.layers, &s.m.arena, GP_FLOAT32, &made),
                    GP_BAD_ARGUMENT);
    gp_layer_spec layers[2] = {s.m.layers[1], s.m.layers[1]}; /* do not chain */
    CHECK_INT_EQUAL(gp_frozen_create(kernels, s.pool, 2, layers, &s.m.arena, GP_FLOAT32, &made),
                    GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, s.pool, s.m.n_layers, s.m.layers, &s.m.arena,
                                     GP_PRECISIONS, &made),
                    GP_BAD_ARGUMENT);
    layers[0].weight = s.m.arena.n_prunable; /* past the end */
    CHECK_INT_EQUAL(gp_frozen_create(kernels, s.pool, 1, layers, &s.m.arena, GP_FLOAT32, &made),
                    GP_BAD_ARGUMENT);
    CHECK(made == NULL);
    gp_frozen_destroy(made);
    stage_close(&s);
}

/* A network that does nothing. */
static void test_identity(const gp_kernels *kernels)
{
    stage s = {0};
    gp_fault fault;
    float x[20 * 5], out[20 * 5];
    noise source = {90};
    noise_floats(&source, 100, x, 1.0);
    model_dropout(&s.m, 0.5f, 5);
    model_finish(&s.m, 1);
    CHECK_INT_EQUAL(gp_pool_create(&s.pool), GP_OK);
    CHECK_INT_EQUAL(
        gp_frozen_create(kernels, s.pool, 1, s.m.layers, &s.m.arena, GP_FLOAT32, &s.frozen), GP_OK);
    for (size_t n = 1; n <= 20; n++) {
        CHECK_INT_EQUAL(gp_frozen_predict(s.frozen, n, x, out, &fault, 1), GP_OK);
        CHECK_BYTES_EQUAL(n * 5 * sizeof(float), out, x);
    }
    gp_frozen_destroy(s.frozen);
    gp_pool_destroy(s.pool);
    model_free(&s.m);
}

/* ---- many callers ---------------------------------------------------------------------------- */

enum { CALLERS = 6 };

typedef struct caller {
    stage *s;
    size_t first, wrong;
} caller;

static void *call(void *context)
{
    caller *self = context;
    float out[MOST * OUT];
    for (size_t round = 0; round < (is_quick() ? 5 : 30); round++) {
        size_t n = 1 + (self->first * 7 + round * 31) % (MOST - self->first);
        gp_fault fault;
        self->wrong += gp_frozen_predict(self->s->frozen, n, self->s->x + self->first * IN, out,
                                         &fault, 2) != GP_OK;
        for (size_t i = 0; i < n * OUT; i++) {
            float want = self->s->want[self->first * OUT + i];
            self->wrong += !(fabsf(out[i] - want) <= 2e-6f + 2e-6f * fabsf(want));
        }
    }
    return NULL;
}

static void test_callers(const gp_kernels *kernels)
{
    stage s;
    pthread_t threads[CALLERS];
    caller callers[CALLERS];
    stage_open(&s, kernels, 0.9, 100);
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){&s, i * 3, 0};
        if (pthread_create(&threads[i], NULL, call, &callers[i])) abort();
    }
    for (size_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT_EQUAL(callers[i].wrong, 0);
    }
    stage_close(&s);
}

/* ---- estimates ------------------------------------------------------------------------------- */

static void of_dense(model *m) { model_dense(m, 300, 100); }
static void of_convolution(model *m)
{
    gp_window w = model_window(4, 12, 10, 3);
    w.before[0] = w.after[0] = w.before[1] = w.after[1] = 1;
    model_convolution(m, w, 20);
}
static void of_maximum(model *m)
{
    gp_window w = model_window(4, 12, 10, 2);
    w.stride[0] = w.stride[1] = 2;
    model_pooling(m, w, GP_POOL_MAX);
}
static void of_batchnorm(model *m) { model_batchnorm(m, 4, 480); }
static void of_standardize(model *m) { model_standardize(m, 4, 480); }
static void of_layernorm(model *m) { model_layernorm(m, 4, 480); }
static void of_rnn(model *m) { model_recurrent(m, GP_RNN, 5, 12, 20, 0); }
static void of_gru(model *m) { model_recurrent(m, GP_GRU, 5, 12, 20, 0); }
static void of_lstm(model *m) { model_recurrent(m, GP_LSTM, 5, 12, 20, 1); }

/* The time that a layer says it takes decides how many samples run as rows; no result tells. */
static void test_estimates(void)
{
    static const struct {
        void (*build)(model *m);
        double removed, row_ns, lane_ns;
        int int8;
    } known[] = {
        {of_dense, 0.0, 600.0, 11100.0, 0},      {of_dense, 0.9, 955.42, 2773.8, 0},
        {of_dense, 0.0, 750.0, 3300.0, 1},       {of_convolution, 0.0, 1757.6, 21600.0, 0},
        {of_convolution, 0.9, 454.4, 4224.0, 0}, {of_maximum, 0.0, 96.0, 240.0, 0},
        {of_batchnorm, 0.0, 96.0, 240.0, 0},     {of_standardize, 0.0, 96.0, 240.0, 0},
        {of_layernorm, 0.0, 960.0, 960.0, 0},    {of_rnn, 0.0, 754.0, 3104.0, 0},
        {of_rnn, 0.9, 723.25, 2257.5, 0},        {of_gru, 0.0, 1810.0, 9792.0, 0},
        {of_lstm, 0.0, 2426.0, 14016.0, 0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        model m = {0};
        known[i].build(&m);
        model_finish(&m, 3);
        model_prune(&m, known[i].removed, 4);
        const gp_layer_ops *type = m.layers[0].type;
        gp_packed packed = {.ops = known[i].int8 ? type->frozen_int8 : type->frozen,
                            .spec = m.layers[0]};
        CHECK_INT_EQUAL(packed.ops->pack(&packed, &m.arena), GP_OK);
        CHECK(fabs(packed.row_ns - known[i].row_ns) <= 1e-9 * packed.row_ns);
        CHECK(fabs(packed.lane_ns - known[i].lane_ns) <= 1e-9 * packed.lane_ns);
        free(packed.memory);
        model_free(&m);
    }
}

int main(void)
{
    OVER_INSTRUCTION_SETS(test_predict);
    OVER_INSTRUCTION_SETS(test_int8);
    OVER_INSTRUCTION_SETS(test_int8_is_left);
    OVER_INSTRUCTION_SETS(test_int8_not_finite);
    OVER_INSTRUCTION_SETS(test_bits);
    OVER_INSTRUCTION_SETS(test_faults);
    OVER_INSTRUCTION_SETS(test_bad_arguments);
    OVER_INSTRUCTION_SETS(test_identity);
    OVER_INSTRUCTION_SETS(test_callers);
    test_estimates();
    return check_summary();
}
