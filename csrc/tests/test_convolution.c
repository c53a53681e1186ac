/* test_convolution.c - networks of convolutions and pools over images: against naive C, whole and
 * on lists, for the same bits whatever the threads and the company, for the names of faults, and
 * for what must be refused.
 */
#include "scene.h"

/* ---- networks -------------------------------------------------------------------------------- */

/* Every setting of a window once, and different along the two axes: 9 x 7 pixels become 5 x 4, 4 x
 * 3, 4 x 3, 2 x 3. */
static void build_settings(model *m)
{
    gp_window w = model_window(4, 9, 7, 3);
    w.stride[0] = w.stride[1] = w.groups = 2;
    w.before[0] = w.after[0] = w.before[1] = w.after[1] = 1;
    model_convolution(m, w, 6)->l2 = 0.003f;
    model_activation(m, GP_RELU, 0);
    model_pooling(m, model_window(6, 5, 4, 2), GP_POOL_MAX);
    w = model_window(6, 4, 3, 2);
    w.kernel[1] = 3;
    w.dilation[0] = 3;
    w.before[0] = 2;
    w.after[0] = 1;
    w.before[1] = 0;
    w.after[1] = 2;
    model_convolution(m, w, 5)->l1 = 0.002f;
    w = model_window(5, 4, 3, 3);
    w.stride[0] = 2;
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    model_pooling(m, w, GP_POOL_MEAN);
    model_dense(m, 30, 4);
}
/* Matrix products at every pixel of what a pool left, more filters and channels than are shared at
 * a time. */
static void build_pixels(model *m)
{
    gp_window w = model_window(3, 5, 5, 3);
    w.before[0] = w.before[1] = 1;
    w.stride[1] = 2; /* the last column is not seen */
    model_pooling(m, w, GP_POOL_MAX);
    model_convolution(m, model_window(3, 4, 2, 1), 30)->bias = GP_NONE;
    model_activation(m, GP_TANH, 0);
    w = model_window(30, 4, 2, 1);
    w.groups = 2;
    model_convolution(m, w, 26);
    w = model_window(26, 4, 2, 4);
    w.kernel[1] = 2;
    model_pooling(m, w, GP_POOL_MEAN);
}
/* Filters of their own for each channel, a pool of windows side by side, and some that see
 * everything at once. */
static void build_apart(model *m)
{
    gp_window w = model_window(5, 5, 5, 3);
    w.groups = 5;
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    model_convolution(m, w, 10);
    model_activation(m, GP_GELU, 0);
    w = model_window(10, 5, 5, 3);
    w.stride[0] = w.stride[1] = 3;
    w.before[0] = w.after[1] = 1;
    model_pooling(m, w, GP_POOL_MAX);
    model_dropout(m, 0.2f, 0);
    model_convolution(m, model_window(10, 2, 2, 2), 3);
    model_softmax(m);
}

/* Groups on every way back: moved by more than one, with more channels of a group than are shared
 * at a time; slid back with zeros around; filters of their own for each channel, moved by two. */
static void build_groups(model *m)
{
    model_convolution(m, model_window(2, 9, 8, 1), 26);
    gp_window w = model_window(26, 9, 8, 3);
    w.groups = w.stride[0] = w.stride[1] = 2;
    w.before[0] = w.before[1] = 1;
    model_convolution(m, w, 6); /* 4 x 4 */
    w = model_window(6, 4, 4, 3);
    w.groups = 3;
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    model_convolution(m, w, 9);
    w = model_window(9, 4, 4, 2);
    w.groups = 9;
    w.stride[0] = w.stride[1] = 2;
    model_convolution(m, w, 18); /* 2 x 2 */
    model_dense(m, 72, 4);
}

/* Slid back with more channels of a group than are shared at a time, not a multiple of those. */
static void build_wide_groups(model *m)
{
    model_convolution(m, model_window(2, 4, 5, 1), 52);
    gp_window w = model_window(52, 4, 5, 3);
    w.groups = 2;
    w.kernel[0] = 1; /* wider sums would be rounded by more than the checks allow */
    w.before[1] = w.after[1] = 1;
    model_convolution(m, w, 4);
    model_dense(m, 80, 3);
}

/* The largest number of each channel, in planes of an odd size. */
static void build_largest(model *m)
{
    model_convolution(m, model_window(2, 8, 6, 2), 5);
    gp_window w = model_window(5, 7, 5, 7);
    w.kernel[1] = 5;
    model_pooling(m, w, GP_POOL_MAX);
    model_dense(m, 5, 4);
}

static builder *const builders[] = {build_settings, build_pixels, build_apart,
                                    build_largest,  build_groups, build_wide_groups};
enum { BUILDERS = sizeof builders / sizeof builders[0] };

/* ---- against naive.h ------------------------------------------------------------------------- */

static void test_naive(void)
{
    for (size_t b = 0; b < BUILDERS; b++)
        naive_is_right(builders[b], naive_losses[b % NAIVE_LOSSES]);
}

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 16, 33, 65, 130};
    static const double shares[] = {0.0, 0.5, 0.9}; /* 0.9: on lists */
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
            if (is_quick() && (b + i) % 3) continue;
            const gp_loss_ops *loss = naive_losses[(b + i) % NAIVE_LOSSES];
            long failed = check_failed_count;
            scene *s = scene_new(kernels, builders[b], batches[i], loss, 10 * b + i);
            for (size_t share = 0; share < 3; share++) {
                model_prune(&s->m, shares[share], i);
                backward_agrees(s, 1 + (i + share) % 3);
                if (share != 1) outputs_agree(s, 1 + i % 3);
            }
            if (check_failed_count > failed)
                printf("  network %zu, loss %s, batch %zu\n", b, loss->name, batches[i]);
            scene_free(s);
        }
}

/* Batches of every size after one another, and fewer and fewer weights: nothing is kept of the call
 * before. */
static void test_changes(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 70, 3, 64, 33, 1};
    static const double shares[] = {0.0, 0.9, 0.3, 1.0, 0.95, 0.0};
    for (size_t b = 0; b < BUILDERS; b++) {
        scene *s = scene_new(kernels, builders[b], 70, &gp_loss_mse, 20 + b);
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

/* A layer runs on lists if it has weights and few are left. */
static void test_is_sparse(void)
{
    for (size_t b = 0; b < BUILDERS; b++) {
        scene *s = scene_new(gp_kernels_get(NULL), builders[b], 64, &gp_loss_mse, 25);
        for (int pruned = 0; pruned < 2; pruned++) {
            model_prune(&s->m, pruned ? 0.9 : 0.1, 3);
            for (size_t l = 0; l < s->m.n_layers; l++)
                CHECK_INT_EQUAL(gp_net_is_sparse(s->net, &s->m.arena, l, 64),
                                pruned && model_rows(&s->m.layers[l]) > 0);
        }
        scene_free(s);
    }
}

/* ---- frozen ---------------------------------------------------------------------------------- */

/* One sample's planes copied for each column of the kernel, also of one, and whole, both with
 * strides; a row of pools. */
static void build_sliding(model *m)
{
    model_convolution(m, model_window(2, 40, 22, 5), 25); /* 36 x 18 */
    model_pooling(m, model_window(25, 36, 18, 2), GP_POOL_MAX);
    gp_window w = model_window(25, 35, 17, 3);
    w.kernel[1] = 1;
    w.stride[0] = 2;
    w.stride[1] = 3;
    model_convolution(m, w, 4); /* 17 x 6 */
    w = model_window(4, 17, 6, 3);
    w.stride[0] = w.stride[1] = 2;
    w.before[1] = 1;
    model_pooling(m, w, GP_POOL_MAX); /* 8 x 3 */
    w = model_window(4, 8, 3, 2);
    w.stride[0] = 4;
    w.stride[1] = 2;
    w.dilation[0] = 3;
    w.after[1] = 1;
    model_convolution(m, w, 3); /* 2 x 2 */
}

static void test_frozen(const gp_kernels *kernels)
{
    enum { SAMPLES = 70 };
    static const double shares[] = {0.0, 0.3, 0.9};
    for (size_t b = 0; b <= BUILDERS; b++)
        for (size_t share = 0; share < 3; share++) {
            scene *s = scene_new(kernels, b < BUILDERS ? builders[b] : build_sliding, SAMPLES,
                                 &gp_loss_mse, 50 + b);
            const size_t O = s->out, counts[] = {1, 17, SAMPLES};
            float *expected = allocated(SAMPLES * O * sizeof *expected);
            gp_frozen *frozen = NULL;
            gp_fault fault;
            model_prune(&s->m, shares[share], 4);
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
            CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                             GP_FLOAT32, &frozen),
                            GP_OK);
            for (size_t i = 0; i < 3; i++) {
                buffer got = output_floats(counts[i] * O, i);
                CHECK_INT_EQUAL(gp_frozen_predict(frozen, counts[i], s->x, got.f, &fault, 2),
                                GP_OK);
                CHECK_FLOATS_NEAR(counts[i] * O, got.f, expected, 2e-6, 2e-6);
                CLOSE(got);
            }
            gp_frozen_destroy(frozen);
            free(expected);
            scene_free(s);
        }
}

/* ---- large pools ----------------------------------------------------------------------------- */

/* Pools on both sides of where tables begin to pay: at it, much larger than the image, of one row
 * or column, moved by more than one, cut off at every side, and with as many columns as lanes, one
 * more, and one. */
static const gp_window large_pools[] = {
    {.height = 21, .width = 19, .kernel = {4, 4}, .stride = {1, 1}},
    {.height = 21, .width = 19, .kernel = {5, 5}, .stride = {1, 1}},
    {.height = 21,
     .width = 20,
     .kernel = {6, 5},
     .stride = {1, 1},
     .before = {2, 2},
     .after = {3, 2}},
    {.height = 20,
     .width = 23,
     .kernel = {9, 7},
     .stride = {2, 1},
     .before = {8, 6},
     .after = {3, 6}},
    {.height = 20,
     .width = 25,
     .kernel = {7, 16},
     .stride = {1, 3},
     .before = {3, 0},
     .after = {2, 15}},
    {.height = 24, .width = 24, .kernel = {8, 8}, .stride = {8, 8}},
    {.height = 3,
     .width = 4,
     .kernel = {30, 41},
     .stride = {1, 1},
     .before = {18, 25},
     .after = {16, 20}},
    {.height = 1,
     .width = 50,
     .kernel = {1, 17},
     .stride = {1, 1},
     .before = {0, 8},
     .after = {0, 8}},
    {.height = 50,
     .width = 1,
     .kernel = {33, 1},
     .stride = {1, 1},
     .before = {16, 0},
     .after = {16, 0}},
    {.height = 18,
     .width = 32,
     .kernel = {9, 16},
     .stride = {1, 1},
     .before = {4, 0},
     .after = {4, 0}},
    {.height = 17,
     .width = 17,
     .kernel = {17, 17},
     .stride = {1, 1},
     .before = {8, 16},
     .after = {8, 0}}};
enum { LARGE_POOLS = sizeof large_pools / sizeof large_pools[0], LARGE_CHANNELS = 3 };

static gp_window large_pool;
static gp_pooling_kind large_kind;

static void build_large(model *m)
{
    model_convolution(m, model_window(2, large_pool.height, large_pool.width, 1), LARGE_CHANNELS);
    model_pooling(m, large_pool, large_kind);
    model_dense(m, model_out(m), 4);
}
static void build_large_alone(model *m) { model_pooling(m, large_pool, large_kind); }

static void choose_large(size_t i, gp_pooling_kind kind)
{
    large_pool = large_pools[i];
    large_pool.channels = LARGE_CHANNELS;
    large_pool.dilation[0] = large_pool.dilation[1] = large_pool.groups = 1;
    large_kind = kind;
}

static void test_large_pools(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 17, 70};
    for (size_t i = 0; i < 2 * LARGE_POOLS; i++) {
        long failed = check_failed_count;
        choose_large(i / 2, i % 2 ? GP_POOL_MEAN : GP_POOL_MAX);
        scene *s = scene_new(kernels, build_large, batches[i % 3], &gp_loss_mse, 90 + i);
        /* the dense layer adds hundreds */
        for (size_t j = 0; j < s->batch.size * s->in; j++) s->x[j] *= 0.5f;
        backward_agrees(s, 1 + i % 3);
        backward_agrees(s, 2); /* nothing is kept of the call before */
        outputs_agree(s, 1 + i % 3);
        scene_free(s);
        const course c = {build_large, &gp_loss_mse, batches[(i + 1) % 3], 0.0};
        same_bits(kernels, &c);
        if (check_failed_count > failed) printf("  pool %zu, %s\n", i / 2, i % 2 ? "mean" : "max");
    }
}

/* The first of the largest, row by row. */
static float first_largest(const gp_window *w, const float *plane, size_t place)
{
    float most = 0.0f;
    int found = 0;
    for (size_t tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
        const size_t pixel = naive_pixel(w, place, tap);
        if (pixel == GP_NONE || (found && plane[pixel] <= most)) continue;
        most = plane[pixel];
        found = 1;
    }
    return most;
}

/* To the bit, also of both zeros, in rows and in lanes; and frozen as in the network. */
static void test_large_pools_to_the_bit(const gp_kernels *kernels)
{
    enum { SAMPLES = 40 };
    static const float few[] = {-1.5f, -0.0f, 0.0f, 0.25f, -3.0f, 1.0f};
    static const size_t counts[] = {1, 3, SAMPLES};
    noise source = {91};
    for (size_t i = 0; i < 2 * LARGE_POOLS; i++) {
        const int is_mean = i % 2;
        choose_large(i / 2, is_mean ? GP_POOL_MEAN : GP_POOL_MAX);
        scene *s = scene_new(kernels, build_large_alone, SAMPLES, &gp_loss_mse, 92);
        const size_t places = s->out / LARGE_CHANNELS, plane = s->in / LARGE_CHANNELS;
        buffer want = output_floats(SAMPLES * s->out, 1);
        gp_frozen *frozen = NULL;
        gp_fault fault;
        for (size_t j = 0; j < SAMPLES * s->in && !is_mean; j++)
            s->x[j] = few[noise_below(&source, j / s->in % 2 ? 6 : 3)];
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, want.f, 2), GP_OK);
        for (size_t j = 0; j < SAMPLES * s->out && !is_mean; j++) {
            const float largest = first_largest(&large_pool, s->x + j / places * plane, j % places);
            if (!CHECK(bits_of(want.f[j]) == bits_of(largest))) break;
        }
        CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                         GP_FLOAT32, &frozen),
                        GP_OK);
        for (size_t k = 0; k < 3; k++) {
            buffer got = output_floats(counts[k] * s->out, k);
            CHECK_INT_EQUAL(gp_frozen_predict(frozen, counts[k], s->x, got.f, &fault, 2), GP_OK);
            CHECK_BYTES_EQUAL(got.bytes, got.data, want.data);
            CLOSE(got);
        }
        gp_frozen_destroy(frozen);
        CLOSE(want);
        scene_free(s);
    }
}

/* ---- blocks, lanes and threads --------------------------------------------------------------- */

/* So many filters that dW is summed over some rows of places at a time in 64 lanes, and over all of
 * them in 16. */
static void build_tall(model *m)
{
    gp_window w = model_window(2, 14, 14, 3);
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    model_convolution(m, w, 16);
    model_pooling(m, model_window(16, 14, 14, 14), GP_POOL_MEAN);
}

/* The gradients of a batch are the mean over those of its parts, whatever blocks and lanes they are
 * cut into. */
static void parts_add_up(const gp_kernels *kernels, builder *build, size_t samples, size_t part,
                         double sparsity)
{
    scene *s = scene_new(kernels, build, samples, &gp_loss_mse, 26);
    const gp_arena *arena = &s->m.arena;
    double *sum = allocated(arena->n * sizeof *sum);
    gp_result result;
    model_prune(&s->m, sparsity, 26);
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    for (size_t i = 0; i < arena->n; i++) sum[i] = (double)arena->grads[i];
    for (size_t first = 0; first < samples; first += part) {
        s->batch.size = samples - first < part ? samples - first : part;
        s->batch.x = s->x + first * s->in;
        s->batch.targets = s->targets + first * s->out;
        CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
        for (size_t i = 0; i < arena->n; i++)
            sum[i] -= (double)arena->grads[i] * (double)s->batch.size / (double)samples;
    }
    for (size_t i = 0; i < arena->n; i++)
        sum[i] = fabs(sum[i]) / (1.0 + fabs((double)arena->grads[i]));
    for (size_t i = 0; i < arena->n; i++) CHECK_NEAR(sum[i], 0.0, 1e-6);
    free(sum);
    scene_free(s);
}

static void test_parts_add_up(const gp_kernels *kernels)
{
    for (int pruned = 0; pruned < 2; pruned++) {
        parts_add_up(kernels, build_tall, 64, 16, pruned ? 0.9 : 0.0);
        if (!is_quick()) parts_add_up(kernels, build_pixels, 1100, 1024, pruned ? 0.9 : 0.0);
    }
}

/* A sample's output has the same bits in any company. */
static void test_company(const gp_kernels *kernels)
{
    enum { SAMPLES = 100, MOST = 26 };
    for (size_t b = 0; b < BUILDERS; b++)
        for (int pruned = 0; pruned < 2; pruned++) {
            scene *s = scene_new(kernels, builders[b], SAMPLES, &gp_loss_cross_entropy, 27);
            const size_t each = s->out * sizeof(float);
            float all[SAMPLES * MOST], one[MOST], some[70 * MOST];
            model_prune(&s->m, pruned ? 0.9 : 0.0, 21);
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, all, 2), GP_OK);
            for (size_t i = 0; i < SAMPLES; i += is_quick() ? 29 : 7) {
                CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x + i * s->in, one, 1),
                                GP_OK);
                CHECK_BYTES_EQUAL(each, one, all + i * s->out);
            }
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 70, s->x + 30 * s->in, some, 1),
                            GP_OK);
            CHECK_BYTES_EQUAL(70 * each, some, all + 30 * s->out);
            scene_free(s);
        }
}

/* Enough work to be shared, by filters, channels and chunks. */
static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_settings, &gp_loss_cross_entropy, 30, 0.3},
                                     {build_pixels, &gp_loss_mse, 300, 0.9},
                                     {build_apart, &gp_loss_bce, 70, 0.2},
                                     {build_groups, &gp_loss_mse, 70, 0.2},
                                     {build_groups, &gp_loss_cross_entropy, 70, 0.9},
                                     {build_settings, &gp_loss_mse, 260, 0.85},
                                     {build_tall, &gp_loss_cross_entropy, 33, 0.0}};
    for (size_t i = 0; i < (is_quick() ? 5 : 7); i++) same_bits(kernels, &courses[i]);
}

/* What somebody wrote into removed weights does not count, and is gone after a step. */
static void test_mask_is_the_truth(const gp_kernels *kernels)
{
    for (int sparse = 0; sparse < 2; sparse++) {
        scene *s = scene_new(kernels, build_settings, 40, &gp_loss_cross_entropy, 24);
        gp_arena *arena = &s->m.arena;
        gp_result result;
        gp_step_info info;
        model_prune(&s->m, sparse ? 0.9 : 0.5, 25);
        for (size_t i = 0; i < arena->n_prunable; i++)
            if (!s->m.mask[i]) arena->params[i] = i % 2 ? NAN : 5.0f;
        outputs_agree(s, 2);
        for (size_t i = 0; i < arena->n_prunable; i++)
            if (!s->m.mask[i]) arena->params[i] = i % 2 ? 5.0f : NAN;
        CHECK_INT_EQUAL(
            gp_net_train(s->net, arena, &s->batch, &clip, &rule, &result, &info, NULL, SEED, 1, 2),
            GP_OK);
        CHECK(info.applied);
        CHECK_INT_EQUAL(removed_but_not_zero(arena, arena->params), 0);
        backward_agrees(s, 2);
        scene_free(s);
    }
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* A filter and an entry of it, or its bias. */
static void test_bad_parameter(const gp_kernels *kernels)
{
    for (int where = 0; where < 4; where++) {
        scene *s = scene_new(kernels, build_settings, 70, &gp_loss_cross_entropy, 50);
        const size_t layer = where >> 1 ? 3 : 0;
        const gp_layer_spec *spec = &s->m.layers[layer];
        const int bias = where & 1;
        gp_step_info info = {0};
        gp_result result;
        s->m.arena.params[bias ? spec->bias + 4 : spec->weight + 4 * model_columns(spec) + 7] = NAN;
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, 2),
                        GP_OK);
        CHECK(!info.applied && isnan(result.loss));
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_PARAMETER, layer, bias, bias ? 0 : 4, bias ? 4 : 7);
        snapshot_free(&whole);
        scene_free(s);
    }
}

/* The pixel that overflows is named, also in a later block: one whose window is all of one
 * sample. */
static void test_overflow_has_a_pixel(const gp_kernels *kernels)
{
    static const size_t rows[] = {0, 69, 1060};
    for (size_t i = 0; i < (is_quick() ? 2 : 3); i++) {
        const size_t row = rows[i], samples = row < 100 ? 70 : 1100;
        scene *s = scene_new(kernels, build_apart, samples, &gp_loss_cross_entropy, 51);
        const gp_layer_spec *spec = &s->m.layers[0];
        gp_step_info info = {.applied = 1};
        gp_result result;
        for (size_t k = 0; k < 9; k++)
            s->m.arena.params[spec->weight + 7 * 9 + k] = k == 4 ? 1e20f : 0.0f;
        memset(s->x, 0, samples * s->in * sizeof *s->x);
        s->x[row * s->in + 3 * 25 + 13] = 1e20f; /* filter 7 sees channel 3 */
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, 1 + i),
                        GP_OK);
        CHECK(!isfinite(result.loss) && !info.applied);
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_FORWARD, 0, 0, row, 7 * 25 + 13);
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

#define REFUSED(place, value) \
    do { \
        (place) = (value); \
        refused(#place " " #value, &m, &s->batch); \
        *spec = good; \
    } while (0)

/* Numbers of a window that make no sense, or do not belong to the sizes of the layer; never a
 * division by 0. */
static void bad_windows(const scene *s, size_t layer)
{
    model m = s->m;
    gp_layer_spec *spec = &m.layers[layer];
    const gp_layer_spec good = *spec;
    const gp_window *was = window_of(&good);
    gp_window *w = window_in(spec);
    const size_t huge[] = {(size_t)UINT32_MAX / 2 + 1, (size_t)UINT32_MAX, SIZE_MAX / 2, SIZE_MAX};
    REFUSED(w->channels, 0);
    REFUSED(w->height, 0);
    REFUSED(w->width, 0);
    REFUSED(w->groups, 0);
    REFUSED(w->groups, was->channels + 1); /* no divisor */
    REFUSED(w->channels, was->channels + 1);
    REFUSED(w->height, was->height + 1);
    if (spec->type == &gp_layer_pooling) REFUSED(gp_pooling_in(spec)->kind, GP_POOLS);
    for (size_t axis = 0; axis < 2; axis++) {
        REFUSED(w->kernel[axis], 0);
        REFUSED(w->stride[axis], 0);
        REFUSED(w->dilation[axis], 0);
        REFUSED(w->kernel[axis], 12); /* larger than the padded image */
        REFUSED(w->dilation[axis], 12);
        REFUSED(w->before[axis], 9); /* more places */
        REFUSED(w->after[axis], 9);
        for (size_t i = 0; i < 4; i++) {
            REFUSED(w->kernel[axis], huge[i]);
            REFUSED(w->dilation[axis], huge[i]);
            REFUSED(w->stride[axis], huge[i]);
            REFUSED(w->before[axis], huge[i]);
            REFUSED(w->after[axis], huge[i]);
        }
    }
    for (size_t i = 0; i < 4; i++) {
        REFUSED(w->channels, huge[i]);
        REFUSED(w->height, huge[i]);
        REFUSED(w->width, huge[i]);
        REFUSED(w->groups, huge[i]);
    }
    w->height = w->width = (size_t)1 << 32; /* their product is 0 */
    refused("height and width", &m, &s->batch);
    *spec = good;
    spec->in++;
    if (layer == 0) refused("in", &m, &s->batch);
}

static void test_bad_windows(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_settings, 8, &gp_loss_mse, 60);
    for (size_t layer = 0; layer < 5; layer++)
        if (s->m.layers[layer].type != &gp_layer_activation) bad_windows(s, layer);
    scene_free(s);
}

static void test_bad_specifications(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_settings, 8, &gp_loss_mse, 60);
    model m = s->m;
    gp_layer_spec *spec = &m.layers[0];
    gp_layer_spec good = *spec;
    gp_window *w = window_in(spec);
    REFUSED(spec->weight, GP_NONE);
    REFUSED(spec->weight, m.arena.n_prunable - 6 * 18 + 1);
    REFUSED(spec->bias, 0); /* among the weights */
    REFUSED(spec->bias, m.arena.n - 5);
    REFUSED(spec->bias, GP_NONE - 1);
    REFUSED(w->groups, 4); /* no divisor of the filters */
    spec = &m.layers[5];   /* whose input is then not what comes before */
    good = *spec;
    REFUSED(spec->in, 31);
    m.n_layers = 1;
    spec = &m.layers[0];
    good = *spec;
    REFUSED(spec->out, 6 * 20 + 1); /* no multiple of the places */
    REFUSED(spec->out, 19);         /* not one filter */
    REFUSED(spec->out, 5 * 20);     /* not as many for each group */
    REFUSED(spec->out, 1000 * 20);  /* more weights than there are */
    window_in(spec)->kernel[0] = 11;
    window_in(spec)->kernel[1] = 9;
    REFUSED(spec->out, SIZE_MAX / (2 * 11 * 9) + 1); /* weights that cannot be counted */
    m.layers[0] = s->m.layers[2];
    good = *spec;
    REFUSED(spec->out, 6 * 12 + 1);
    w = window_in(spec);
    REFUSED(w->groups, 2);    /* pools have none */
    REFUSED(w->before[0], 2); /* a window that sees nothing of the image */
    REFUSED(w->after[1], 2);
    m.n_layers = 0;
    gp_window pool_window = model_window(4, 9, 7, 2);
    pool_window.dilation[1] = 2; /* pools have none */
    model_pooling(&m, pool_window, GP_POOL_MAX);
    refused("dilation", &m, &s->batch);
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_naive();
    OVER_INSTRUCTION_SETS(test_against_naive);
    OVER_INSTRUCTION_SETS(test_changes);
    test_is_sparse();
    OVER_INSTRUCTION_SETS(test_frozen);
    OVER_INSTRUCTION_SETS(test_large_pools);
    OVER_INSTRUCTION_SETS(test_large_pools_to_the_bit);
    OVER_INSTRUCTION_SETS(test_parts_add_up);
    OVER_INSTRUCTION_SETS(test_company);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_mask_is_the_truth);
    OVER_INSTRUCTION_SETS(test_bad_parameter);
    OVER_INSTRUCTION_SETS(test_overflow_has_a_pixel);
    test_bad_windows();
    test_bad_specifications();
    gp_pool_destroy(pool);
    return check_summary();
}
