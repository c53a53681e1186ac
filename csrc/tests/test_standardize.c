/* test_standardize.c - standardization in networks: against naive C, for the same bits whatever the
 * threads and blocks, frozen, and for what must be refused.
 */
#include "scene.h"

static void build_features(model *m)
{
    model_standardize(m, 9, 9);
    model_dense(m, 9, 6);
}
/* The second one has a gradient to hand on. */
static void build_images(model *m)
{
    model_standardize(m, 2, 60);
    model_convolution(m, model_window(2, 6, 5, 3), 7);
    model_standardize(m, 7, 0);
    model_activation(m, GP_GELU, 0);
    model_dense(m, 84, 5);
}

static builder *const builders[] = {build_features, build_images};
enum { BUILDERS = 2 };

static void test_naive(void)
{
    for (size_t b = 0; b < BUILDERS; b++)
        naive_is_right(builders[b], naive_losses[b % NAIVE_LOSSES]);
}

static void test_against_naive(const gp_kernels *kernels)
{
    static const size_t batches[] = {1, 16, 33, 130, 1100};
    for (size_t b = 0; b < BUILDERS; b++)
        for (size_t i = 0; i < (is_quick() ? 4 : 5); i++) {
            scene *s = scene_new(kernels, builders[b], batches[i],
                                 naive_losses[(b + i) % NAIVE_LOSSES], 10 * b + i);
            model_prune(&s->m, i % 2 ? 0.5 : 0.0, i);
            backward_agrees(s, 1 + i % 3);
            outputs_agree(s, 1 + i % 2);
            scene_free(s);
        }
}

static void test_same_bits(const gp_kernels *kernels)
{
    static const course courses[] = {{build_features, &gp_loss_cross_entropy, 70, 0.3},
                                     {build_images, &gp_loss_mse, 100, 0.0}};
    for (size_t i = 0; i < 2; i++) same_bits(kernels, &courses[i]);
}

static void test_frozen(const gp_kernels *kernels)
{
    enum { SAMPLES = 70 };
    for (size_t b = 0; b < BUILDERS; b++) {
        scene *s = scene_new(kernels, builders[b], SAMPLES, &gp_loss_mse, 40 + b);
        const size_t O = s->out, counts[] = {1, 17, SAMPLES};
        float *expected = allocated(SAMPLES * O * sizeof *expected);
        gp_frozen *frozen = NULL;
        gp_fault fault;
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, SAMPLES, s->x, expected, 1), GP_OK);
        CHECK_INT_EQUAL(gp_frozen_create(kernels, pool, s->m.n_layers, s->m.layers, &s->m.arena,
                                         GP_FLOAT32, &frozen),
                        GP_OK);
        for (size_t i = 0; i < 3; i++) {
            buffer got = output_floats(counts[i] * O, i);
            CHECK_INT_EQUAL(gp_frozen_predict(frozen, counts[i], s->x, got.f, &fault, 2), GP_OK);
            CHECK_FLOATS_NEAR(counts[i] * O, got.f, expected, 3e-6, 3e-6);
            CLOSE(got);
        }
        gp_frozen_destroy(frozen);
        free(expected);
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
    scene *s = scene_new(gp_kernels_get(NULL), build_images, 8, &gp_loss_mse, 48);
    model m = s->m;
    gp_layer_spec *spec = &m.layers[2];
    const gp_layer_spec good = *spec;
    gp_standardize_settings *own = gp_standardize_in(spec);
    REFUSED(own->channels, 0);
    REFUSED(own->channels, 5);
    REFUSED(own->channels, SIZE_MAX);
    REFUSED(spec->out, 60);
    REFUSED(spec->buffers, GP_NONE);
    REFUSED(spec->buffers, 0);
    REFUSED(spec->buffers, good.buffers + 1);
    m.arena.n_buffers--;
    refused("too few buffers", s, &m);
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    test_naive();
    OVER_INSTRUCTION_SETS(test_against_naive);
    OVER_INSTRUCTION_SETS(test_same_bits);
    OVER_INSTRUCTION_SETS(test_frozen);
    test_bad_arguments();
    gp_pool_destroy(pool);
    return check_summary();
}
