/* test_batchnorm.c - batch normalization: statistics and gradients of one layer against the
 * formulas in double, the same bits whatever the threads, what a pass leaves behind, channels
 * without weights, and inference with it folded away.
 */
#include "scene.h"

static void build_features(model *m)
{
    model_dense(m, 9, 21);
    model_batchnorm(m, 21, 0);
    model_activation(m, GP_RELU, 0);
    model_dense(m, 21, 6)->bias = GP_NONE;
    model_batchnorm(m, 6, 0);
}
static void build_images(model *m)
{
    gp_window w = model_window(2, 6, 5, 3);
    w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
    gp_batchnorm_in(model_batchnorm(m, 2, 60))->momentum = 0.4f;
    model_convolution(m, w, 7);
    model_batchnorm(m, 7, 0);
    model_activation(m, GP_TANH, 0);
    model_convolution(m, model_window(7, 6, 5, 3), 5)->bias = GP_NONE;
    model_batchnorm(m, 5, 0);
    model_activation(m, GP_GELU, 0);
    model_batchnorm(m, 60, 0);
}

static builder *const builders[] = {build_features, build_images};
enum { BUILDERS = 2 };

/* ---- one layer ------------------------------------------------------------------------------- */

enum { CHANNELS = 3, PLACES = 4, WIDTH = CHANNELS * PLACES };
static void build_alone(model *m)
{
    gp_batchnorm_in(model_batchnorm(m, CHANNELS, WIDTH))->momentum = 0.3f;
}

/* Two in a row: what the second one passes on is what the first one's gradients are made of. */
static void build_twice(model *m)
{
    build_alone(m);
    model_batchnorm(m, CHANNELS, 0);
}

typedef struct course_of {
    double *y, *h, inverse[CHANNELS], mean[CHANNELS], variance[CHANNELS];
} course_of;

static course_of naive_training(const gp_layer_spec *spec, const gp_arena *arena, size_t samples,
                                const double *x)
{
    const size_t n = samples * PLACES;
    course_of now = {.y = allocated(samples * WIDTH * sizeof(double)),
                     .h = allocated(samples * WIDTH * sizeof(double))};
    for (size_t c = 0; c < CHANNELS; c++) {
        double sum = 0.0, squares = 0.0;
        for (size_t i = 0; i < n; i++) sum += x[i / PLACES * WIDTH + c * PLACES + i % PLACES];
        now.mean[c] = sum / (double)n;
        for (size_t i = 0; i < n; i++)
            squares += pow(x[i / PLACES * WIDTH + c * PLACES + i % PLACES] - now.mean[c], 2.0);
        now.variance[c] = squares / (double)n;
        now.inverse[c] = 1.0 / sqrt(now.variance[c] + (double)gp_batchnorm_of(spec)->eps);
        for (size_t i = 0; i < n; i++) {
            const size_t at = i / PLACES * WIDTH + c * PLACES + i % PLACES;
            now.h[at] = (x[at] - now.mean[c]) * now.inverse[c];
            now.y[at] = now.h[at] * (double)arena->params[spec->weight + c] +
                        (double)arena->params[spec->bias + c];
        }
    }
    return now;
}

/* dy becomes dx; checks the gradients that the core found. */
static void naive_back(const gp_layer_spec *spec, const gp_arena *arena, size_t samples,
                       const course_of *now, double *dy)
{
    const double n = (double)(samples * PLACES);
    for (size_t c = 0; c < CHANNELS; c++) {
        double dbeta = 0.0, dgamma = 0.0;
        for (int pass = 0; pass < 2; pass++)
            for (size_t i = 0; i < samples * PLACES; i++) {
                const size_t at = i / PLACES * WIDTH + c * PLACES + i % PLACES;
                if (pass)
                    dy[at] = (double)arena->params[spec->weight + c] * now->inverse[c] *
                             (dy[at] - dbeta / n - now->h[at] * dgamma / n);
                else dbeta += dy[at], dgamma += dy[at] * now->h[at];
            }
        CHECK_NEAR(arena->grads[spec->bias + c], dbeta, 2e-6);
        CHECK_NEAR(arena->grads[spec->weight + c], dgamma, 2e-6);
    }
}

/* `away`: the mean, which is large beside the deviation. */
static void formulas_hold(const gp_kernels *kernels, builder *build, size_t samples, float away)
{
    scene *s = scene_new(kernels, build, samples, &gp_loss_mse, 5);
    const gp_arena *arena = &s->m.arena;
    const size_t L = s->m.n_layers, size = samples * WIDTH;
    course_of now[2] = {{0}, {0}};
    double *x = allocated(size * sizeof *x), *dy = allocated(size * sizeof *dy);
    gp_result result;
    for (size_t i = 0; i < size; i++) x[i] = (double)(s->x[i] += away);
    snapshot before = snapshot_take(arena);
    const float *old = (const float *)(const void *)before.data;
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    for (size_t l = 0; l < L; l++) {
        const gp_layer_spec *spec = &s->m.layers[l];
        now[l] = naive_training(spec, arena, samples, l ? now[l - 1].y : x);
        for (size_t c = 0; c < CHANNELS; c++) {
            const double n = (double)(samples * PLACES),
                         momentum = (double)gp_batchnorm_of(spec)->momentum;
            const double want[2] = {now[l].mean[c], now[l].variance[c] * n / (n - 1.0)};
            for (size_t i = 0; i < 2; i++) {
                const size_t at = spec->buffers + i * CHANNELS + c;
                const double expected = (1.0 - momentum) * (double)old[at] + momentum * want[i];
                CHECK_NEAR(arena->params[at], expected, 1e-6 * (1.0 + fabs(expected)));
            }
        }
    }
    for (size_t i = 0; i < size; i++)
        dy[i] = 2.0 * (now[L - 1].y[i] - (double)s->targets[i]) / (double)size;
    for (size_t l = L; l-- > 0;) naive_back(&s->m.layers[l], arena, samples, &now[l], dy);
    for (size_t l = 0; l < L; l++) free(now[l].y), free(now[l].h);
    free(x);
    free(dy);
    snapshot_free(&before);
    scene_free(s);
}

static void test_formulas(const gp_kernels *kernels)
{
    static const size_t sizes[] = {1, 2, 16, 33, 65, 130, 2500};
    for (size_t i = 0; i < (is_quick() ? 6 : 7); i++) {
        formulas_hold(kernels, build_alone, sizes[i], 0.0f);
        formulas_hold(kernels, build_alone, sizes[i], 3000.0f);
        formulas_hold(kernels, build_twice, sizes[i], 0.0f);
    }
}

/* ---- networks -------------------------------------------------------------------------------- */

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_features, &gp_loss_cross_entropy, 70, 0.3},
                                     {build_images, &gp_loss_mse, 33, 0.0},
                                     {build_images, &gp_loss_bce, 70, 0.9}};
    for (size_t i = 0; i < 3; i++) same_bits(kernels, &courses[i]);
}

static void remove_rows(model *m)
{
    for (size_t l = 0; l < m->n_layers; l++) {
        const size_t rows = model_rows(&m->layers[l]), columns = model_columns(&m->layers[l]);
        for (size_t r = 0; r < rows; r += 2)
            for (size_t k = 0; k < columns; k++) m->mask[m->layers[l].weight + r * columns + k] = 0;
    }
    m->arena.removed = m->arena.n_prunable - gp_mask_count(m->arena.n_prunable, m->mask);
    for (size_t i = 0; i < m->arena.n_prunable; i++)
        if (!m->mask[i]) m->arena.params[i] = 0.0f;
    gp_live_destroy(m->arena.live);
    CHECK_INT_EQUAL(gp_live_create(&m->arena, &model_costs, &m->arena.live), GP_OK);
}

/* Without training: as running statistics say, whole, folded, and silent where a row has no
 * weight. */
static void test_inference(const gp_kernels *kernels)
{
    enum { SAMPLES = 70 };
    for (size_t b = 0; b < BUILDERS; b++)
        for (int rows = 0; rows < 2; rows++) {
            scene *s = scene_new(kernels, builders[b], SAMPLES, &gp_loss_mse, 40 + b);
            const size_t O = s->out, counts[] = {1, 17, SAMPLES};
            float *expected = allocated(SAMPLES * O * sizeof *expected);
            gp_frozen *frozen = NULL;
            gp_fault fault;
            if (rows) remove_rows(&s->m);
            outputs_agree(s, 2);
            CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
            CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                             GP_FLOAT32, &frozen),
                            GP_OK);
            for (size_t i = 0; i < 3; i++) {
                buffer got = output_floats(counts[i] * O, i);
                CHECK_INT_EQUAL(gp_frozen_predict(frozen, counts[i], s->x, got.f, &fault, 2),
                                GP_OK);
                CHECK_FLOATS_NEAR(counts[i] * O, got.f, expected, 3e-6, 3e-6);
                CLOSE(got);
            }
            gp_frozen_destroy(frozen);
            free(expected);
            scene_free(s);
        }
}

/* A channel whose row is removed has no gradients, and its running statistics stay. */
static void test_silent(const gp_kernels *kernels)
{
    for (size_t b = 0; b < BUILDERS; b++) {
        scene *s = scene_new(kernels, builders[b], 40, &gp_loss_mse, 45);
        const gp_arena *arena = &s->m.arena;
        gp_result result;
        remove_rows(&s->m);
        snapshot before = snapshot_take(arena);
        const float *old = (const float *)(const void *)before.data;
        CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
        for (size_t l = 1; l < s->m.n_layers; l++) {
            const gp_layer_spec *spec = &s->m.layers[l];
            const size_t C = gp_batchnorm_of(spec)->channels;
            if (spec->type != &gp_layer_batchnorm || model_rows(spec - 1) != C) continue;
            for (size_t c = 0; c < C; c++) {
                CHECK_INT_EQUAL(arena->grads[spec->weight + c] == 0.0f, c % 2 == 0);
                CHECK_INT_EQUAL(arena->grads[spec->bias + c] == 0.0f, c % 2 == 0);
                for (size_t i = 0, at = spec->buffers + c; i < 2; i++, at += C)
                    CHECK_INT_EQUAL(arena->params[at] == old[at], c % 2 == 0);
            }
        }
        snapshot_free(&before);
        scene_free(s);
    }
}

/* Running statistics are as they were after whatever was not good. */
static void test_nothing_changes(const gp_kernels *kernels)
{
    for (int what = 0; what < 5; what++) {
        scene *s = scene_new(kernels, build_images, 40, &gp_loss_mse, 46);
        gp_arena *arena = &s->m.arena;
        gp_rule now = rule;
        gp_step_info info;
        gp_result result;
        if (what == 0) s->x[39 * 60 + 3] = NAN;
        if (what == 1) arena->params[s->m.layers[1].bias + 2] = INFINITY;
        if (what == 2) gp_net_limit(s->net, 1e-3f, INFINITY);
        if (what == 3) now.max_norm = 1e-9;
        /* the variance is beyond float */
        if (what == 4) s->batch.size = 1, s->x[3] = -1e38f, s->x[4] = 1e38f;
        snapshot before = snapshot_take(arena);
        CHECK_INT_EQUAL(
            gp_net_train(s->net, arena, &s->batch, &clip, &now, &result, &info, NULL, SEED, 1, 2),
            what == 0 ? GP_BAD_INPUT : GP_OK);
        if (what < 4) CHECK(snapshot_equal(&before, arena));
        if (what < 3)
            CHECK_INT_EQUAL(scene_backward(s, &result, 2), what == 0 ? GP_BAD_INPUT : GP_OK);
        if (what < 3) CHECK(snapshot_equal(&before, arena));
        CHECK_BYTES_EQUAL(arena->n_buffers * sizeof(float), arena->params + arena->n,
                          before.data + arena->n * sizeof(float));
        snapshot_free(&before);
        scene_free(s);
    }
}

/* Factors that are not finite are named. */
static void test_faults(const gp_kernels *kernels)
{
    for (int bias = 0; bias < 2; bias++) {
        scene *s = scene_new(kernels, build_images, 40, &gp_loss_mse, 47);
        const gp_layer_spec *spec = &s->m.layers[5];
        gp_result result;
        s->m.arena.params[(bias ? spec->bias : spec->weight) + 3] = NAN;
        CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
        fault_is(s, GP_PHASE_PARAMETER, 5, bias, bias ? 0 : 3, bias ? 3 : 0);
        scene_free(s);
    }
}

static void refused(const char *what, const scene *s, const model *m)
{
    gp_net *net = NULL;
    gp_frozen *frozen = NULL;
    gp_result result;
    gp_status status = gp_net_create(gp_kernels_get(NULL), pool, m->n_layers, m->layers, &net);
    if (status == GP_OK) status = gp_net_backward(net, &m->arena, &s->batch, &result, 0, 1, 1);
    if (!CHECK_INT_EQUAL(status, GP_BAD_ARGUMENT)) printf("  %s\n", what);
    CHECK_INT_EQUAL(gp_frozen_create(gp_kernels_get(NULL), pool, m->n_layers, m->layers, &m->arena,
                                     GP_FLOAT32, &frozen),
                    GP_BAD_ARGUMENT);
    gp_net_destroy(net);
}

#define REFUSED(place, value) \
    do { \
        (place) = (value); \
        refused(#place " " #value, s, &m); \
        *spec = good; \
    } while (0)

static void test_bad_arguments(void)
{
    scene *s = scene_new(gp_kernels_get(NULL), build_alone, 8, &gp_loss_mse, 48);
    model m = s->m;
    gp_layer_spec *spec = &m.layers[0];
    const gp_layer_spec good = *spec;
    gp_batchnorm_settings *own = gp_batchnorm_in(spec);
    REFUSED(own->channels, 0);
    REFUSED(own->channels, 5);
    REFUSED(own->channels, SIZE_MAX);
    REFUSED(spec->out, WIDTH + 1);
    REFUSED(spec->weight, GP_NONE);
    REFUSED(spec->weight, 2 * CHANNELS - 2);
    REFUSED(spec->bias, GP_NONE);
    REFUSED(spec->buffers, GP_NONE);
    REFUSED(spec->buffers, 0);
    REFUSED(spec->buffers, good.buffers + 1);
    REFUSED(own->momentum, -0.1f);
    REFUSED(own->momentum, (float)NAN);
    REFUSED(own->eps, 0.0f);
    REFUSED(own->eps, INFINITY);
    m.arena.n_buffers--;
    refused("too few buffers", s, &m);
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    OVER_INSTRUCTION_SETS(test_formulas);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_inference);
    OVER_INSTRUCTION_SETS(test_silent);
    OVER_INSTRUCTION_SETS(test_nothing_changes);
    OVER_INSTRUCTION_SETS(test_faults);
    test_bad_arguments();
    gp_pool_destroy(pool);
    return check_summary();
}
