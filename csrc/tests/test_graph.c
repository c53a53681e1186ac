/* test_graph.c - networks that branch: outputs that several layers read, sums, layers that read
 * from further back; numbers in another order; and networks that make no sense.
 */
#include "networks.h"

/* ---- networks -------------------------------------------------------------------------------- */

static gp_layer_spec *model_sum(model *m, size_t back, size_t other)
{
    gp_layer_spec *spec = model_add(m, &gp_layer_add, model_out(m), model_out(m));
    model_reads(m, spec, 2, (const size_t[]){back, other});
    return spec;
}
/* Sums with the input, over a branch, and of an output with itself. */
static void build_residual(model *m)
{
    model_dense(m, 9, 9)->l2 = 0.01f;
    model_activation(m, GP_TANH, 0);
    model_sum(m, 1, 3);
    model_dense(m, 9, 9);
    model_dropout(m, 0.3f, 0);
    model_sum(m, 1, 3);
    model_sum(m, 1, 1);
    model_dense(m, 9, 4);
}
/* Two layers read one output, one of them from further back; so does the network's last but one
 * sum. */
static void build_branches(model *m)
{
    model_dense(m, 7, 12);
    model_activation(m, GP_RELU, 0);
    model_dense(m, 12, 6);
    model_reads(m, model_dense(m, 12, 6), 1, (const size_t[]){2});
    model_sum(m, 2, 1);
    model_activation(m, GP_GELU, 0);
    model_sum(m, 1, 2);
    model_softmax(m);
}
/* n outputs side by side in each of so many steps. */
static void model_concat(model *m, size_t steps, size_t width, size_t n, const size_t *back)
{
    gp_layer_spec *spec = model_add(m, &gp_layer_concat, width, width);
    const double settings = (double)steps;
    CHECK_INT_EQUAL(gp_layer_set(spec, &settings), GP_OK);
    model_reads(m, spec, n, back);
}
/* Three outputs and the input side by side, one of them twice; then steps of what a concatenation
 * and the layer before it gave. */
static void build_concat(model *m)
{
    model_dense(m, 6, 4);
    model_activation(m, GP_TANH, 0);
    model_reads(m, model_dense(m, 6, 2), 1, (const size_t[]){3});
    model_concat(m, 1, 16, 4, (const size_t[]){1, 2, 4, 2});
    model_concat(m, 2, 18, 2, (const size_t[]){1, 2});
    model_dense(m, 18, 4);
    model_activation(m, GP_RELU, 0);
    model_dense(m, 4, 4);
}
/* The input beside itself, first of all. */
static void build_concat_first(model *m)
{
    model_concat(m, 3, 12, 2, (const size_t[]){1, 1});
    model_dense(m, 12, 4);
}
/* The input is read three times, by no layer first. */
static void build_inputs(model *m)
{
    model_activation(m, GP_SIGMOID, 5);
    model_reads(m, model_dense(m, 5, 5), 1, (const size_t[]){2});
    model_sum(m, 1, 3);
    model_sum(m, 3, 1);
}

/* Sizes of what it reads, the order of its axes, and whether the first one runs backward. */
static void model_rearrange(model *m, size_t width, const double settings[7])
{
    gp_layer_spec *spec = model_add(m, &gp_layer_rearrange, width, width);
    CHECK_INT_EQUAL(gp_layer_set(spec, settings), GP_OK);
}
/* The input, lines of one number and of several, backward, and what is read twice. */
static void build_rearranged(model *m)
{
    model_rearrange(m, 12, (const double[]){2, 3, 2, 2, 0, 1, 0});
    model_dense(m, 12, 10);
    model_rearrange(m, 10, (const double[]){5, 2, 1, 0, 1, 2, 1});
    model_activation(m, GP_TANH, 0);
    model_rearrange(m, 10, (const double[]){5, 2, 1, 1, 0, 2, 1});
    model_sum(m, 1, 2);
    model_rearrange(m, 10, (const double[]){1, 10, 1, 2, 1, 0, 0});
    model_dense(m, 10, 4);
}

static void model_slice(model *m, size_t in, size_t out, const double settings[5])
{
    gp_layer_spec *spec = model_add(m, &gp_layer_slice, in, out);
    CHECK_INT_EQUAL(gp_layer_set(spec, settings), GP_OK);
}
/* Of the input, of the middle and the last axis, one place alone, and of what is read twice. */
static void build_sliced(model *m)
{
    model_slice(m, 24, 16, (const double[]){1, 6, 4, 1, 5});
    model_dense(m, 16, 12);
    model_slice(m, 12, 6, (const double[]){3, 4, 1, 2, 4});
    model_activation(m, GP_TANH, 0);
    model_slice(m, 6, 2, (const double[]){2, 3, 1, 0, 1});
    const size_t back[] = {1, 3, 2};
    model_concat(m, 1, 14, 3, back);
    model_dense(m, 14, 4);
}

static builder *const builders[] = {build_residual, build_branches,     build_inputs,
                                    build_concat,   build_concat_first, build_rearranged,
                                    build_sliced};
enum { BUILDERS = sizeof builders / sizeof builders[0] };

/* ---- what they compute ----------------------------------------------------------------------- */

static void test_naive(void)
{
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t loss = 0; loss < NAIVE_LOSSES; loss++)
            naive_is_right(builders[b], naive_losses[loss]);
}

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 7, 64, 65, 1500};
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t loss = 0; loss < NAIVE_LOSSES; loss++)
            for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
                if (is_quick() && (b + loss + i) % 3) continue;
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

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_residual, &gp_loss_mse, 1300, 0.0},
                                     {build_branches, &gp_loss_cross_entropy, 400, 0.3},
                                     {build_inputs, &gp_loss_bce, 70, 0.9}};
    for (size_t i = 0; i < sizeof courses / sizeof courses[0]; i++) same_bits(kernels, &courses[i]);
}

/* Few samples and many, dropout gone. */
static void test_frozen(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 5, 16, 70, 300};
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            scene *s = scene_new(kernels, builders[b], sizes[i], &gp_loss_mse, 40 + b);
            const size_t size = sizes[i] * s->out;
            buffer want = output_floats(size, 1), got = output_floats(size, 2);
            double *wanted;
            gp_frozen *frozen;
            gp_fault fault;
            if (i % 2) model_prune(&s->m, 0.85, i);
            CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                             GP_FLOAT32, &frozen),
                            GP_OK);
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, sizes[i], s->x, want.f, 1), GP_OK);
            CHECK_INT_EQUAL(gp_frozen_predict(frozen, sizes[i], s->x, got.f, &fault, 2), GP_OK);
            wanted = doubles_of(size, want.f);
            CHECK_NEAR(largest_difference(size, got.f, wanted), 0.0, 3e-6);
            free(wanted);
            gp_frozen_destroy(frozen);
            CLOSE(want);
            CLOSE(got);
            scene_free(s);
        }
}

/* An output that becomes bad is found where it is first seen, also when it is read twice. */
static void test_fault(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_residual, 8, &gp_loss_mse, 60);
    gp_result result;
    s->m.arena.params[s->m.layers[3].bias + 2] = INFINITY;
    scene_backward(s, &result, 1);
    fault_is(s, GP_PHASE_PARAMETER, 3, 1, 0, 2);
    scene_free(s);
}

/* ---- what is no network ---------------------------------------------------------------------- */

static void refuses(const gp_layer_spec *layers, size_t n, const gp_arena *arena)
{
    gp_net *net = (gp_net *)&net;
    gp_frozen *frozen = (gp_frozen *)&frozen;
    const gp_kernels *kernels = gp_kernels_get(NULL);
    CHECK_INT_EQUAL(gp_net_create(kernels, pool, n, layers, &net), GP_BAD_ARGUMENT);
    CHECK(net == NULL);
    CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, n, layers, arena, GP_FLOAT32, &frozen),
                    GP_BAD_ARGUMENT);
    CHECK(frozen == NULL);
}

static void test_bad_graphs(void)
{
    model m = {0};
    build_branches(&m);
    model_finish(&m, 1);
    const gp_layer_spec sum = m.layers[4];
    for (size_t bad = 0; bad < 8; bad++) {
        gp_layer_spec *spec = &m.layers[4];
        size_t *back = m.back[4];
        if (bad == 0) back[0] = 6;                         /* before the input */
        if (bad == 1) back[1] = SIZE_MAX;                  /* the same */
        if (bad == 2) back[1] = 0;                         /* itself */
        if (bad == 3) back[1] = 3;                         /* of another width */
        if (bad == 4) back[0] = back[1];                   /* nothing reads the third layer */
        if (bad == 5) spec->type = &gp_layer_activation;   /* which reads one layer */
        if (bad == 6) spec->n_back = 1;                    /* a sum of one */
        if (bad == 7) spec->n_back = 3, back[2] = back[1]; /* of three */
        refuses(m.layers, m.n_layers, &m.arena);
        *spec = sum;
        back[0] = 2;
        back[1] = 1;
    }
    model_reads(&m, &m.layers[5], 2, (const size_t[]){1, 1}); /* which reads one */
    refuses(m.layers, m.n_layers, &m.arena);
    model_free(&m);
    m = (model){0};
    build_concat(&m);
    model_finish(&m, 1);
    const gp_layer_spec concat = m.layers[4];
    for (size_t bad = 0; bad < 5; bad++) {
        gp_layer_spec *spec = &m.layers[4];
        if (bad == 0) spec->settings.size = 0;
        if (bad == 1) spec->settings.size = 4; /* no divisor of one input */
        if (bad == 2) m.back[4][1] = 4;        /* more features than it says */
        if (bad == 3) spec->n_back = 1;
        if (bad == 4) spec->out++;
        refuses(m.layers, m.n_layers, &m.arena);
        *spec = concat;
        m.back[4][1] = 2;
    }
    model_free(&m);
    /* One output alone, of the right width, is nothing to put side by side; nor is it a sum. */
    for (int is_sum = 0; is_sum < 2; is_sum++) {
        m = (model){0};
        model_dense(&m, 6, 4);
        model_concat(&m, 1, 4, 1, (const size_t[]){1});
        if (is_sum) m.layers[1].type = &gp_layer_add;
        model_dense(&m, 4, 2);
        model_finish(&m, 1);
        refuses(m.layers, m.n_layers, &m.arena);
        model_free(&m);
    }
}

/* Sizes that are not those of the features, and what is no order of axes. */
static void test_bad_rearrangements(void)
{
    static const double bad[][7] = {
        {2, 3, 1, 0, 1, 2, 0}, {4, 4, 1, 0, 1, 2, 0}, {0, 12, 1, 0, 1, 2, 0},
        {2, 6, 1, 0, 1, 1, 0}, {2, 6, 1, 1, 2, 3, 0}, {24, 1, 1, 0, 1, 2, 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        model m = {0};
        model_rearrange(&m, 12, bad[i]);
        model_finish(&m, 1);
        refuses(m.layers, m.n_layers, &m.arena);
        m.layers[0].out = 6;
        CHECK_INT_EQUAL(gp_layer_set(m.layers, (const double[]){2, 6, 1, 0, 1, 2, 0}), GP_OK);
        refuses(m.layers, m.n_layers, &m.arena);
        CHECK_INT_EQUAL(gp_layer_set(m.layers, (const double[]){2, 6, 1.5, 0, 1, 2, 0}),
                        GP_BAD_ARGUMENT);
        CHECK_INT_EQUAL(gp_layer_set(m.layers, (const double[]){2, 6, 1, 0, 1, -2, 0}),
                        GP_BAD_ARGUMENT);
        model_free(&m);
    }
}

/* Ranges that are none of the axis, and sizes that are not those of the features. */
static void test_bad_slices(void)
{
    static const double bad[][5] = {
        {1, 12, 1, 4, 4}, {1, 12, 1, 4, 13}, {1, 12, 1, 5, 4}, {0, 12, 1, 0, 4}, {1, 0, 12, 0, 4},
        {2, 12, 1, 0, 4}, {3, 3, 1, 0, 2},   {1, 12, 0, 0, 4}, {1, 12, 1, 0, 5},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        model m = {0};
        model_slice(&m, 12, 4, bad[i]);
        model_finish(&m, 1);
        refuses(m.layers, m.n_layers, &m.arena);
        CHECK_INT_EQUAL(gp_layer_set(m.layers, (const double[]){1, 12, 1, 0.5, 4}),
                        GP_BAD_ARGUMENT);
        model_free(&m);
    }
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_naive();
    OVER_INSTRUCTION_SETS(test_against_naive);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_frozen);
    test_fault();
    test_bad_graphs();
    test_bad_rearrangements();
    test_bad_slices();
    gp_pool_destroy(pool);
    return check_summary();
}
