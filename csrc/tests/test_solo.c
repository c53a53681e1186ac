/* test_solo.c - a sparse layer by itself: against naive C, the same bits whatever the team, nothing
 * written that nobody wants, and what must be refused.
 */
#include "fixture.h"

enum { MOST_THREADS = 3 };

/* A layer with a mask, and one batch's arrays. */
typedef struct scene {
    gp_layer_spec spec;
    size_t rows, columns, live, samples;
    uint8_t *mask;
    double *weight; /* whole */
    buffer values, bias, x, dy;
} scene;

static gp_layer_spec dense_of(size_t in, size_t out)
{
    return (gp_layer_spec){.type = &gp_layer_dense, .in = in, .out = out};
}

static gp_layer_spec convolution_of(gp_window w, size_t filters)
{
    gp_layer_spec spec = {.type = &gp_layer_convolution,
                          .in = w.channels * w.height * w.width,
                          .out = filters * naive_places(&w, 0) * naive_places(&w, 1)};
    *window_in(&spec) = w;
    return spec;
}

static int is_dense(const gp_layer_spec *spec) { return spec->type == &gp_layer_dense; }

/* About one weight of `one_in` lives; 0: none. */
static scene scene_new(gp_layer_spec spec, size_t samples, size_t one_in, noise *source)
{
    scene s = {.spec = spec, .samples = samples};
    s.rows = is_dense(&spec) ? spec.out : naive_filters(&spec);
    s.columns = is_dense(&spec) ? spec.in : naive_filter_length(&spec);
    s.mask = allocated(s.rows * s.columns);
    s.weight = allocated(s.rows * s.columns * sizeof *s.weight);
    for (size_t i = 0; i < s.rows * s.columns; i++) {
        s.mask[i] = one_in > 0 && noise_below(source, one_in) == 0;
        s.live += s.mask[i];
    }
    s.values = input_floats(source, s.live, 1, 1.0);
    for (size_t i = 0, k = 0; i < s.rows * s.columns; i++)
        s.weight[i] = s.mask[i] ? (double)s.values.f[k++] : 0.0;
    s.bias = input_floats(source, s.rows, 1, 1.0);
    s.x = input_floats(source, samples * spec.in, 1, 1.0);
    s.dy = input_floats(source, samples * spec.out, 1, 1.0);
    return s;
}

static void scene_free(scene *s)
{
    free(s->mask);
    free(s->weight);
    buffer_free(&s->values);
    buffer_free(&s->bias);
    buffer_free(&s->x);
    buffer_free(&s->dy);
}

/* The input that weight `column` of output o meets, GP_NONE if it is padding; o counts rows and, of
 * a convolution, places. */
static size_t input_of(const scene *s, size_t o, size_t column)
{
    if (is_dense(&s->spec)) return column;
    const gp_window *w = window_of(&s->spec);
    const size_t places = s->spec.out / s->rows, taps = w->kernel[0] * w->kernel[1],
                 row = o / places, channels = w->channels / w->groups;
    const size_t pixel = naive_pixel(w, o % places, column % taps);
    if (pixel == GP_NONE) return GP_NONE;
    const size_t channel = row / (s->rows / w->groups) * channels + column / taps;
    return channel * w->height * w->width + pixel;
}

/* What all of it should be, in double: y, dx, whole dW, db. */
typedef struct answer {
    double *y, *dx, *dw, *db;
} answer;

static answer answer_of(const scene *s)
{
    const size_t I = s->spec.in, O = s->spec.out, places = O / s->rows;
    answer a = {calloc(s->samples * O + 1, sizeof(double)),
                calloc(s->samples * I + 1, sizeof(double)),
                calloc(s->rows * s->columns, sizeof(double)), calloc(s->rows, sizeof(double))};
    for (size_t n = 0; n < s->samples; n++)
        for (size_t o = 0; o < O; o++) {
            const size_t row = o / places;
            const double dy = (double)s->dy.f[n * O + o];
            a.y[n * O + o] = (double)s->bias.f[row];
            a.db[row] += dy;
            for (size_t c = 0; c < s->columns; c++) {
                const size_t i = input_of(s, o, c), at = row * s->columns + c;
                if (i == GP_NONE || !s->mask[at]) continue;
                const double x = (double)s->x.f[n * I + i];
                a.y[n * O + o] += s->weight[at] * x;
                a.dx[n * I + i] += s->weight[at] * dy;
                a.dw[at] += dy * x;
            }
        }
    return a;
}

static void answer_free(answer *a)
{
    free(a->y);
    free(a->dx);
    free(a->dw);
    free(a->db);
}

static void check_floats(size_t n, const float *actual, const double *expected, double tolerance)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += !check_is_near((double)actual[i], expected[i], tolerance);
    CHECK_INT_EQUAL(wrong, 0);
}

static gp_solo *solo_of(const gp_kernels *kernels, gp_pool *pool, const scene *s)
{
    gp_solo *solo;
    CHECK_INT_EQUAL(gp_solo_create(kernels, pool, &s->spec, s->mask, &solo), GP_OK);
    const gp_solo_sizes sizes = gp_solo_measure(solo);
    CHECK_INT_EQUAL(sizes.in, s->spec.in);
    CHECK_INT_EQUAL(sizes.out, s->spec.out);
    CHECK_INT_EQUAL(sizes.live, s->live);
    CHECK_INT_EQUAL(sizes.biases, s->rows);
    return solo;
}

static void scene_case(const gp_kernels *kernels, gp_pool *pool, gp_layer_spec spec, size_t samples,
                       size_t one_in, noise *source)
{
    scene s = scene_new(spec, samples, one_in, source);
    answer a = answer_of(&s);
    const size_t numbers[4] = {samples * spec.out, samples * spec.in, s.live, s.rows};
    buffer first[4];
    for (size_t threads = 1; threads <= MOST_THREADS; threads++) {
        buffer found[4];
        for (size_t i = 0; i < 4; i++) found[i] = output_floats(numbers[i], threads % 2);
        gp_solo_arrays arrays = {.samples = samples,
                                 .values = s.values.f,
                                 .bias = s.bias.f,
                                 .x = s.x.f,
                                 .y = found[0].f,
                                 .dy = s.dy.f,
                                 .dx = found[1].f,
                                 .dvalues = found[2].f,
                                 .dbias = found[3].f};
        gp_solo *solo = solo_of(kernels, pool, &s);
        CHECK_INT_EQUAL(gp_solo_forward(solo, &arrays, threads), GP_OK);
        CHECK_INT_EQUAL(gp_solo_backward(solo, &arrays, threads), GP_OK);
        gp_solo_destroy(solo);
        if (threads == 1) {
            const double length = sqrt((double)(s.columns + spec.out));
            check_floats(numbers[0], found[0].f, a.y, 3e-6 * length);
            check_floats(numbers[1], found[1].f, a.dx, 3e-6 * length);
            check_floats(numbers[3], found[3].f, a.db, 1e-5 * (double)(samples + 1));
            for (size_t i = 0, k = 0; i < s.rows * s.columns; i++)
                if (s.mask[i]) a.dw[k++] = a.dw[i];
            check_floats(numbers[2], found[2].f, a.dw,
                         3e-6 * sqrt((double)(samples * spec.out / s.rows + 1)));
            memcpy(first, found, sizeof first);
            continue;
        }
        for (size_t i = 0; i < 4; i++) {
            CHECK_BYTES_EQUAL(numbers[i] * sizeof(float), found[i].data, first[i].data);
            CLOSE(found[i]);
        }
    }
    for (size_t i = 0; i < 4; i++) CLOSE(first[i]);
    answer_free(&a);
    scene_free(&s);
}

static void test_dense(const gp_kernels *kernels)
{
    static const size_t sizes[][2] = {{1, 1}, {7, 5}, {16, 16}, {33, 20}, {70, 131}, {300, 210}};
    static const size_t batches[] = {0, 1, 15, 17, 64, 65, 130};
    noise source = {1};
    gp_pool *pool;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++)
            scene_case(kernels, pool, dense_of(sizes[i][0], sizes[i][1]), batches[b],
                       b % 3 == 2 && i < 4 ? 0 : 1 + 2 * (b % 4), &source);
    /* chunks of fewer lanes, since the layer is large, and more of them than members */
    scene_case(kernels, pool, dense_of(1500, 3000), 70, 400, &source);
    gp_pool_destroy(pool);
}

static void test_convolution(const gp_kernels *kernels)
{
    noise source = {2};
    gp_pool *pool;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    gp_window plain = model_window(3, 8, 7, 3), padded = plain, wide = model_window(4, 9, 7, 2);
    padded.before[0] = padded.before[1] = padded.after[0] = 1;
    padded.after[1] = 2;
    wide.stride[0] = wide.stride[1] = wide.groups = wide.dilation[1] = 2;
    wide.before[0] = wide.after[1] = 1;
    const gp_window windows[] = {plain, padded, wide, model_window(5, 4, 4, 1)};
    static const size_t batches[] = {0, 1, 17, 70};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++)
        for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++)
            for (size_t one_in = b == 1 ? 0 : 1; one_in < 5; one_in += 3)
                scene_case(kernels, pool, convolution_of(windows[i], 6), batches[b], one_in,
                           &source);
    gp_pool_destroy(pool);
}

/* What is NULL is not written, and the rest has the same bits; without a bias it counts as 0. */
static void test_what_nobody_wants(const gp_kernels *kernels)
{
    noise source = {3};
    gp_pool *pool;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    scene s = scene_new(dense_of(20, 30), 40, 3, &source);
    gp_solo *solo = solo_of(kernels, pool, &s);
    const size_t numbers[3] = {40 * 20, s.live, 30};
    buffer all[3], y = output_floats(40 * 30, 0), bare = output_floats(40 * 30, 0);
    for (size_t i = 0; i < 3; i++) all[i] = output_floats(numbers[i], 0);
    gp_solo_arrays arrays = {.samples = 40,
                             .values = s.values.f,
                             .bias = s.bias.f,
                             .x = s.x.f,
                             .y = y.f,
                             .dy = s.dy.f,
                             .dx = all[0].f,
                             .dvalues = all[1].f,
                             .dbias = all[2].f};
    CHECK_INT_EQUAL(gp_solo_forward(solo, &arrays, 1), GP_OK);
    CHECK_INT_EQUAL(gp_solo_backward(solo, &arrays, 1), GP_OK);
    for (size_t wanted = 0; wanted < 8; wanted++) {
        buffer some[3];
        for (size_t i = 0; i < 3; i++) some[i] = output_floats(numbers[i], 0);
        arrays.dx = wanted & 1 ? some[0].f : NULL;
        arrays.dvalues = wanted & 2 ? some[1].f : NULL;
        arrays.dbias = wanted & 4 ? some[2].f : NULL;
        CHECK_INT_EQUAL(gp_solo_backward(solo, &arrays, 1), GP_OK);
        for (size_t i = 0; i < 3; i++) {
            if (wanted >> i & 1)
                CHECK_BYTES_EQUAL(numbers[i] * sizeof(float), some[i].data, all[i].data);
            CLOSE(some[i]);
        }
    }
    arrays.bias = NULL;
    arrays.y = bare.f;
    CHECK_INT_EQUAL(gp_solo_forward(solo, &arrays, 1), GP_OK);
    for (size_t i = 0; i < 40 * 30; i++)
        CHECK_NEAR((double)bare.f[i], (double)y.f[i] - (double)s.bias.f[i % 30], 1e-5);
    for (size_t i = 0; i < 3; i++) CLOSE(all[i]);
    CLOSE(y);
    CLOSE(bare);
    gp_solo_destroy(solo);
    scene_free(&s);
    gp_pool_destroy(pool);
}

/* Lists cannot be counted, sizes do not go together, or it is another layer. */
static void test_refused(const gp_kernels *kernels)
{
    const uint8_t mask[4] = {1, 1, 1, 1};
    gp_solo *solo;
    gp_layer_spec odd = convolution_of(model_window(1, 3, 3, 2), 1);
    odd.out++;
    const gp_layer_spec refused[] = {
        dense_of((size_t)1 << 20, (size_t)1 << 20),
        dense_of(0, 2),
        odd,
        {.type = &gp_layer_softmax, .in = 2, .out = 2},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        size_t weights;
        const gp_status status = gp_solo_check(&refused[i], &weights);
        CHECK_INT_EQUAL(status, GP_BAD_ARGUMENT);
        CHECK_INT_EQUAL(gp_solo_create(kernels, NULL, &refused[i], mask, &solo), GP_BAD_ARGUMENT);
        CHECK(!solo);
    }
}

int main(void)
{
    OVER_INSTRUCTION_SETS(test_dense);
    OVER_INSTRUCTION_SETS(test_convolution);
    OVER_INSTRUCTION_SETS(test_what_nobody_wants);
    OVER_INSTRUCTION_SETS(test_refused);
    return check_summary();
}
