/* solo.c - one sparse layer by itself, between rows of samples: what other frameworks run inside of
 * networks of their own.
 *
 * The caller keeps the live values, side by side in the order of the mask, and all arrays; nothing
 * is left from one call to the next. Samples pass through in rounds of one chunk of lanes a member,
 * small enough to stay in its core's cache on the way from rows to rows. Gradients add up over the
 * chunks in order, so their bits do not depend on the team; lanes of a chunk follow from the
 * layer's sizes and the batch alone.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "denormals.h"
#include "layers/layers.h"

enum {
    HABITS = 48,
    CACHE_FLOATS = 1 << 17, /* inputs and outputs of a chunk, half a megabyte */
    BLOCK = 64              /* features that go between rows and lanes at once */
};
/* Multiply-adds; a feature that goes to lanes or back takes about as long as so many. */
#define WORK_WORTH_SHARING 200000.0
#define FEATURE_WORK 8.0

struct gp_solo {
    const gp_kernels *kernels;
    gp_pool *pool;
    gp_layer_spec spec;
    gp_matrix matrix;
    gp_lists *lists; /* only what the mask says: values and gradients are the caller's */
    atomic_flag learning;
    gp_habit habits[2][HABITS]; /* forward, backward */
};

/* One call, as all members see it. */
typedef struct call {
    const gp_solo *solo;
    const gp_solo_arrays *arrays;
    int backward;
    size_t lanes;
    gp_arena arena;
    gp_lists lists;
    gp_layer layer;
    float *x, *dx, *partial; /* in lanes; gradients chunk by chunk */
    double *db, *db_part;    /* of the batch; of each chunk of the round */
} call;

/* The layer without what is of no interest here, and its matrix. */
static gp_status plan(const gp_layer_spec *layer, gp_layer_spec *spec, gp_matrix *matrix)
{
    gp_matrix matrices[GP_MATRICES];
    const gp_layer_ops *type = layer->type;
    *spec = *layer;
    spec->n_back = 0;
    spec->back = NULL; /* the caller's */
    spec->weight = 0;
    spec->bias = spec->buffers = GP_NONE;
    if (!type->is_product || spec->in == 0 || spec->out == 0 || (type->fits && !type->fits(spec)) ||
        type->weights(spec, matrices) != 1)
        return GP_BAD_ARGUMENT;
    *matrix = matrices[0];
    if (matrix->rows >= INT32_MAX / matrix->columns) return GP_BAD_ARGUMENT;
    const size_t weights = matrix->rows * matrix->columns;
    return type->is_valid(spec, weights, weights) ? GP_OK : GP_BAD_ARGUMENT;
}

gp_status gp_solo_check(const gp_layer_spec *layer, size_t *weights)
{
    gp_layer_spec spec;
    gp_matrix matrix;
    const gp_status status = plan(layer, &spec, &matrix);
    if (status == GP_OK) *weights = matrix.rows * matrix.columns;
    return status;
}

gp_status gp_solo_create(const gp_kernels *kernels, gp_pool *pool, const gp_layer_spec *layer,
                         const uint8_t *mask, gp_solo **solo)
{
    gp_layer_spec spec;
    gp_matrix matrix;
    *solo = NULL;
    gp_status status = plan(layer, &spec, &matrix);
    if (status != GP_OK) return status;
    gp_solo *made = calloc(1, sizeof *made);
    if (!made) return GP_NO_MEMORY;
    made->kernels = kernels;
    made->pool = pool;
    made->spec = spec;
    made->matrix = matrix;
    atomic_flag_clear(&made->learning);
    status = gp_lists_create(matrix.rows, matrix.columns, mask, &made->lists);
    if (status != GP_OK) free(made);
    else *solo = made;
    return status;
}

void gp_solo_destroy(gp_solo *solo)
{
    if (!solo) return;
    gp_lists_destroy(solo->lists);
    free(solo);
}

gp_solo_sizes gp_solo_measure(const gp_solo *solo)
{
    return (gp_solo_sizes){solo->spec.in, solo->spec.out, solo->lists->count, solo->lists->rows};
}

/* Lanes of a chunk: as many as leave it in the cache. */
static size_t lanes_of(const gp_solo *solo, size_t samples)
{
    size_t most = CACHE_FLOATS / (solo->spec.in + solo->spec.out) / GP_ALIGN_FLOATS;
    most = gp_smaller(most ? most : 1, GP_LANES / GP_ALIGN_FLOATS) * GP_ALIGN_FLOATS;
    const size_t chunks = (samples + most - 1) / most;
    return gp_padded((samples + chunks - 1) / chunks);
}

/* ---- between rows and lanes ------------------------------------------------------------------ */

/* lanes [chunk][width][P] from rows, this member's share: its own chunk if all have one. */
static void load(const gp_pass *pass, size_t width, const float *rows, float *lanes)
{
    const size_t P = pass->lanes, blocks = (width + BLOCK - 1) / BLOCK;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t chunk = item / blocks, f = item % blocks * BLOCK;
        const size_t samples = gp_smaller(P, pass->samples - chunk * P);
        const float *from[GP_LANES];
        for (size_t s = 0; s < samples; s++) from[s] = rows + (pass->first + chunk * P + s) * width;
        pass->kernels->to_lanes(samples, gp_smaller(BLOCK, width - f), from, f, P,
                                lanes + (chunk * width + f) * P);
    }
}

static void store(const gp_pass *pass, size_t width, const float *lanes, float *rows)
{
    const size_t P = pass->lanes, blocks = (width + BLOCK - 1) / BLOCK;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t chunk = item / blocks, f = item % blocks * BLOCK;
        pass->kernels->transpose(gp_smaller(BLOCK, width - f),
                                 gp_smaller(P, pass->samples - chunk * P),
                                 lanes + (chunk * width + f) * P, P,
                                 rows + (pass->first + chunk * P) * width + f, width);
    }
}

/* ---- one call -------------------------------------------------------------------------------- */

/* db += the sums of dy over places and lanes, in double, chunk by chunk. */
static void bias_gradient(const call *c, const gp_pass *pass, const float *dy)
{
    const size_t O = c->lists.rows, each = c->solo->spec.out / O * pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * O, &begin, &end);
    for (size_t item = begin; item < end; item++)
        c->db_part[item] = pass->kernels->sum(each, dy + item * each);
    gp_team_wait(pass->team);
    gp_team_share(pass->team, O, &begin, &end);
    for (size_t o = begin; o < end; o++) {
        double sum = pass->first > 0 ? c->db[o] : 0.0;
        for (size_t chunk = 0; chunk < pass->chunks; chunk++) sum += c->db_part[chunk * O + o];
        c->db[o] = sum;
        c->arrays->dbias[o] = (float)sum;
    }
}

static void go_back(call *c, const gp_pass *pass)
{
    const gp_layer_ops *type = c->solo->spec.type;
    float *dy = c->layer.work; /* where the outputs would be */
    load(pass, c->solo->spec.out, c->arrays->dy, dy);
    gp_team_wait(pass->team);
    if (type->prepare) type->prepare(&c->layer, pass, c->x);
    if (c->arrays->dbias) bias_gradient(c, pass, dy);
    type->backward(&c->layer, pass, dy, c->dx);
    if (c->dx) store(pass, c->solo->spec.in, c->dx, c->arrays->dx);
}

static void run(void *context, const gp_team *team)
{
    call *c = context;
    const gp_solo *solo = c->solo;
    const size_t samples = c->arrays->samples, P = c->lanes, round = team->size * P;
    uint64_t mode = gp_denormals_flush();
    for (size_t first = 0; first < samples; first += round) {
        const size_t n = gp_smaller(round, samples - first);
        const gp_pass pass = {.kernels = solo->kernels,
                              .arena = &c->arena,
                              .team = team,
                              .samples = n,
                              .lanes = P,
                              .chunks = (n + P - 1) / P,
                              .first = first,
                              .batch = samples,
                              .partial = c->partial};
        load(&pass, solo->spec.in, c->arrays->x, c->x);
        if (c->backward) {
            go_back(c, &pass);
        } else {
            gp_team_wait(team);
            store(&pass, solo->spec.out, solo->spec.type->forward(&c->layer, &pass, c->x),
                  c->arrays->y);
        }
        gp_team_wait(team); /* the next round overwrites what this one reads */
    }
    gp_denormals_restore(mode);
}

/* A piece of memory, from a cache line on; NULL if nothing is wanted. */
static void *take(float **next, size_t floats)
{
    float *piece = *next;
    *next += gp_padded(floats);
    return floats ? piece : NULL;
}

/* On `threads` threads. */
static gp_status enter(const gp_solo *solo, const gp_solo_arrays *arrays, int backward,
                       size_t threads)
{
    const gp_layer_spec *spec = &solo->spec;
    const size_t lanes = lanes_of(solo, arrays->samples);
    threads = gp_smaller(threads ? threads : 1, GP_MAX_THREADS);
    const size_t count = solo->lists->count, rows = solo->lists->rows,
                 wide = lanes * gp_smaller(threads, (arrays->samples + lanes - 1) / lanes);
    const size_t work = spec->type->workspace(spec) * wide,
                 spare = spec->type->spare ? spec->type->spare(spec) : 0,
                 dx = backward && arrays->dx ? spec->in * wide : 0,
                 own = backward && !arrays->dvalues ? count : 0,
                 partial = backward && spec->type->wants_partial && threads > 1
                               ? wide / lanes * count
                               : 0,
                 db = backward && arrays->dbias ? 2 * rows : 0;
    const size_t floats = gp_padded(spec->in * wide) + gp_padded(work) + gp_padded(spare) +
                          gp_padded(dx) + gp_padded(own) + gp_padded(partial) + gp_padded(db) +
                          gp_padded(db * (wide / lanes)) + gp_padded(backward ? count : 0);
    float *memory = aligned_alloc(64, floats * sizeof *memory), *next = memory;
    if (!memory) return GP_NO_MEMORY;
    call c = {.solo = solo, .arrays = arrays, .backward = backward, .lanes = lanes};
    c.x = take(&next, spec->in * wide);
    float *const layer_work = take(&next, work), *const layer_spare = take(&next, spare);
    c.dx = take(&next, dx);
    float *const own_gradient = take(&next, own);
    c.partial = take(&next, partial);
    c.db = take(&next, db);
    c.db_part = take(&next, db * (wide / lanes));
    c.lists = *solo->lists;
    c.lists.by_column = take(&next, backward ? count : 0);
    c.lists.value = arrays->values;
    c.lists.gradient = arrays->dvalues ? arrays->dvalues : own_gradient;
    /* the bias is all that is read of it, if there is one */
    c.arena = (gp_arena){.params = arrays->bias ? arrays->bias : arrays->values};
    c.layer = (gp_layer){.spec = *spec,
                         .weights = {solo->matrix},
                         .n_weights = 1,
                         .work = layer_work,
                         .spare = layer_spare,
                         .input = c.x};
    c.layer.weights[0].live = &c.lists;
    if (!backward && arrays->bias) c.layer.spec.bias = 0;
    gp_pool_run(solo->pool, threads, run, &c);
    free(memory);
    return GP_OK;
}

/* A team only where it pays: small calls lose more by meeting than they win by sharing. */
static gp_status enter_as_usual(gp_solo *solo, const gp_solo_arrays *arrays, int backward,
                                size_t threads)
{
    const double a_sample = (double)solo->lists->count * (double)solo->matrix.uses +
                            FEATURE_WORK * ((double)solo->spec.in + (double)solo->spec.out);
    const double work = a_sample * (double)arrays->samples * (backward ? 3.0 : 1.0);
    if (threads <= 1 || work < WORK_WORTH_SHARING || atomic_flag_test_and_set(&solo->learning))
        return enter(solo, arrays, backward, 1);
    int size = 0;
    frexp(work, &size);
    gp_habit *habit = &solo->habits[backward][size < HABITS ? size : HABITS - 1];
    const size_t used = gp_habit_choose(habit, threads);
    const double began = gp_seconds();
    gp_status status = enter(solo, arrays, backward, used);
    if (status == GP_OK) gp_habit_learn(habit, used, gp_seconds() - began);
    atomic_flag_clear(&solo->learning);
    return status;
}

gp_status gp_solo_forward(gp_solo *solo, const gp_solo_arrays *arrays, size_t threads)
{
    return arrays->samples ? enter_as_usual(solo, arrays, 0, threads) : GP_OK;
}

gp_status gp_solo_backward(gp_solo *solo, const gp_solo_arrays *arrays, size_t threads)
{
    if (arrays->samples) return enter_as_usual(solo, arrays, 1, threads);
    for (size_t k = 0; arrays->dvalues && k < solo->lists->count; k++) arrays->dvalues[k] = 0.0f;
    for (size_t o = 0; arrays->dbias && o < solo->lists->rows; o++) arrays->dbias[o] = 0.0f;
    return GP_OK;
}
