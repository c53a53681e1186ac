/* frozen.c - a network for inference alone: packed once, run by any number of threads at once.
 *
 * Few samples pass as rows, all layers on one thread and, when they are small, with the workspace on the stack. More pass
 * in chunks of P <= 64 lanes: a member of the team takes a chunk from the user's rows to the user's rows, so there are no
 * barriers, and a chunk stays in its core's cache. Where the border lies follows from what the layers say they cost.
 *
 * What a call computes depends on nothing that changes. The habits, which only choose the number of threads, belong to
 * one call at a time; a call that finds another one inside runs alone, and so do all calls of a child that was forked
 * meanwhile.
 */
#include "gradprune.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "layers/layers.h"

enum {
    STACK_FLOATS = 4096, /* workspace up to this size is on the stack */
    HABITS = 32
};
/* Calls estimated to take less are not shared: meeting costs about a microsecond, waking a thread tens. */
#define WORTH_SHARING_NS 8000.0
/* One feature of 16 samples from rows to lanes. */
#define TO_LANES_NS 2.0

struct gp_frozen {
    const gp_kernels *kernels;
    gp_pool *pool;
    size_t in, out, n_layers, bytes;
    size_t few;        /* up to so many samples pass as rows */
    size_t width[2];   /* the widest of the activations that alternate between two buffers */
    size_t scratch[2]; /* floats that layers need besides: a sample among few, a lane */
    double lane_ns;    /* estimated time of 16 samples in lanes, with the way there */
    atomic_flag learning;
    gp_habit habits[HABITS];
    gp_packed layers[];
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int are_valid(size_t n_layers, const gp_layer_spec *layers, const gp_arena *arena)
{
    for (size_t i = 0; i < n_layers; i++) {
        if (layers[i].type >= GP_LAYER_TYPES || layers[i].in == 0 || layers[i].out == 0) return 0;
        if (i > 0 && layers[i].in != layers[i - 1].out) return 0;
        const gp_layer_ops *ops = gp_layer_table[layers[i].type];
        if (!ops->frozen || !ops->is_valid(&layers[i], arena->n, arena->n_prunable)) return 0;
        if (!gp_buffers_are_valid(&layers[i], arena)) return 0;
    }
    return n_layers > 0 && arena->n_prunable <= arena->n;
}

/* Adds a layer, unless it does nothing or the one before does it. */
static gp_status add(gp_frozen *made, size_t index, const gp_layer_spec *spec, const gp_arena *arena,
                     gp_precision precision)
{
    const gp_layer_ops *type = gp_layer_table[spec->type];
    const gp_frozen_ops *ops = precision == GP_INT8 && type->frozen_int8 ? type->frozen_int8 : type->frozen;
    gp_packed *last = made->n_layers > 0 ? &made->layers[made->n_layers - 1] : NULL;
    if (!ops->infer) return GP_OK;
    if (spec->type == GP_LAYER_ACTIVATION && last && last->ops->takes_activation && last->then == GP_IDENTITY) {
        last->then = spec->activation;
        last->slope = spec->slope;
        return GP_OK;
    }
    gp_packed *packed = &made->layers[made->n_layers];
    *packed = (gp_packed){.ops = ops, .spec = *spec, .index = index, .then = GP_IDENTITY};
    gp_status status = ops->pack ? ops->pack(packed, arena) : GP_OK;
    if (status == GP_OK) made->n_layers++;
    return status;
}

gp_status gp_frozen_create(const gp_kernels *kernels, gp_pool *pool, size_t n_layers, const gp_layer_spec *layers,
                           const gp_arena *arena, gp_precision precision, gp_frozen **frozen)
{
    *frozen = NULL;
    if (precision >= GP_PRECISIONS || !are_valid(n_layers, layers, arena)) return GP_BAD_ARGUMENT;
    size_t bytes = sizeof(gp_frozen) + n_layers * sizeof(gp_packed);
    gp_frozen *made = calloc(1, bytes);
    if (!made) return GP_NO_MEMORY;
    made->kernels = kernels;
    made->pool = pool;
    made->in = made->width[0] = layers[0].in;
    made->out = layers[n_layers - 1].out;
    made->bytes = bytes;
    atomic_flag_clear(&made->learning);
    for (size_t i = 0; i < n_layers; i++) {
        gp_layer_spec spec = layers[i];
        gp_arena own = *arena;
        const int folds = i + 1 < n_layers && gp_batchnorm_folds(&layers[i], &layers[i + 1]);
        gp_status status = folds ? gp_batchnorm_fold(&layers[i], &layers[i + 1], arena, &spec, &own) : GP_OK;
        if (status == GP_OK) status = add(made, i, &spec, &own, precision);
        if (folds) free(own.params);
        i += (size_t)folds;
        if (status == GP_OK) continue;
        gp_frozen_destroy(made);
        return status;
    }
    double row_ns = 0.0;
    made->lane_ns = TO_LANES_NS * (double)made->in;
    for (size_t i = 0, at = 0; i < made->n_layers; i++) {
        const gp_packed *packed = &made->layers[i];
        if (!packed->ops->in_place) at = !at;
        if (packed->spec.out > made->width[at]) made->width[at] = packed->spec.out;
        for (int in_lanes = 0; in_lanes < 2 && packed->ops->scratch; in_lanes++) {
            const size_t scratch = packed->ops->scratch(&packed->spec, in_lanes);
            if (scratch > made->scratch[in_lanes]) made->scratch[in_lanes] = scratch;
        }
        made->bytes += packed->bytes;
        made->lane_ns += packed->lane_ns;
        row_ns += packed->row_ns;
    }
    made->few = GP_ALIGN_FLOATS; /* with more, two chunks of lanes could do */
    while (made->few > (isinf(row_ns) ? 0 : 1) && (double)made->few * row_ns > made->lane_ns) made->few--;
    *frozen = made;
    return GP_OK;
}

void gp_frozen_destroy(gp_frozen *frozen)
{
    if (!frozen) return;
    for (size_t i = 0; i < frozen->n_layers; i++) free(frozen->layers[i].memory);
    free(frozen);
}

size_t gp_frozen_bytes(const gp_frozen *frozen) { return frozen->bytes; }

gp_frozen_layer gp_frozen_describe(const gp_frozen *frozen, size_t layer)
{
    for (size_t i = 0; i < frozen->n_layers; i++) {
        const gp_packed *packed = &frozen->layers[i];
        if (packed->index == layer)
            return (gp_frozen_layer){packed->kept, packed->bytes, packed->row_list, packed->lane_list, packed->int8};
    }
    return (gp_frozen_layer){0};
}

/* ---- few samples --------------------------------------------------------------------------------------------------- */

/* The first number that is not finite; there is one. */
static void find_fault(const gp_frozen *frozen, size_t sample, const float *x, gp_fault *fault)
{
    const size_t I = frozen->in;
    size_t at = 0;
    while (isfinite(x[at])) at++;
    *fault = (gp_fault){
        .phase = GP_PHASE_INPUT, .layer = GP_NONE, .step = GP_NONE, .row = sample + at / I, .column = at % I};
}

static gp_status run_rows(const gp_frozen *frozen, size_t n, const float *x, float *out, gp_fault *fault, float *work)
{
    const size_t I = frozen->in, O = frozen->out;
    float *now = work, *other = now + n * gp_padded(frozen->width[0]);
    float *scratch = other + n * gp_padded(frozen->width[1]);
    const gp_chunk chunk = {.kernels = frozen->kernels, .samples = n, .scratch = scratch};
    for (size_t s = 0; s < n; s++) {
        float *row = now + s * gp_padded(I);
        memset(row + I, 0, (gp_padded(I) - I) * sizeof *row);
        if (frozen->kernels->copy_finite(I, x + s * I, row)) continue;
        find_fault(frozen, s, x + s * I, fault);
        return GP_BAD_INPUT;
    }
    for (size_t i = 0; i < frozen->n_layers; i++) {
        const gp_packed *packed = &frozen->layers[i];
        const size_t width = packed->spec.out, padded = gp_padded(width);
        float *y = packed->ops->in_place ? now : other;
        for (size_t s = 0; y != now && s < n; s++) memset(y + s * padded + width, 0, (padded - width) * sizeof *y);
        packed->ops->infer(packed, &chunk, now, y);
        if (y != now) other = now;
        now = y;
    }
    for (size_t s = 0; s < n; s++) memcpy(out + s * O, now + s * gp_padded(O), O * sizeof *out);
    return GP_OK;
}

static gp_status predict_rows(const gp_frozen *frozen, size_t n, const float *x, float *out, gp_fault *fault)
{
    _Alignas(64) float stack[STACK_FLOATS];
    const size_t each = gp_padded(frozen->width[0]) + gp_padded(frozen->width[1]) + gp_padded(frozen->scratch[0]);
    if (each > SIZE_MAX / sizeof(float) / n) return GP_NO_MEMORY;
    float *work = n * each <= STACK_FLOATS ? stack : aligned_alloc(64, n * each * sizeof *work);
    if (!work) return GP_NO_MEMORY;
    gp_status status = run_rows(frozen, n, x, out, fault, work);
    if (work != stack) free(work);
    return status;
}

/* ---- many samples -------------------------------------------------------------------------------------------------- */

typedef struct region {
    const gp_frozen *frozen;
    size_t n, lanes, chunks;
    const float *x;
    float *out;
    float *work; /* (widths) * lanes for each member */
    gp_fault fault[GP_MAX_THREADS];
} region;

static size_t floats_a_lane(const gp_frozen *frozen)
{
    return frozen->width[0] + frozen->width[1] + frozen->scratch[1];
}

/* A member's chunks follow each other, so the first member that finds a fault has the first one. */
static void run_lanes(void *context, const gp_team *team)
{
    region *shared = context;
    const gp_frozen *frozen = shared->frozen;
    const size_t I = frozen->in, O = frozen->out, P = shared->lanes;
    float *buffer[2] = {shared->work + team->rank * floats_a_lane(frozen) * P};
    buffer[1] = buffer[0] + frozen->width[0] * P;
    float *scratch = buffer[1] + frozen->width[1] * P;
    size_t begin, end;
    gp_team_share(team, shared->chunks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t first = item * P, samples = gp_smaller(P, shared->n - first);
        const gp_chunk chunk = {.kernels = frozen->kernels, .samples = samples, .lanes = P, .scratch = scratch};
        const float *x = shared->x + first * I;
        const float *rows[GP_LANES];
        for (size_t s = 0; s < samples; s++) rows[s] = x + s * I;
        if (!frozen->kernels->to_lanes(samples, I, rows, 0, P, buffer[0])) {
            find_fault(frozen, first, x, &shared->fault[team->rank]);
            return;
        }
        size_t at = 0;
        for (size_t i = 0; i < frozen->n_layers; i++) {
            const gp_packed *packed = &frozen->layers[i];
            const float *from = buffer[at];
            if (!packed->ops->in_place) at = !at;
            packed->ops->infer(packed, &chunk, from, buffer[at]);
        }
        frozen->kernels->transpose(O, samples, buffer[at], P, shared->out + first * O, O);
    }
}

static gp_status predict_lanes(const gp_frozen *frozen, size_t n, const float *x, float *out, gp_fault *fault,
                               size_t threads)
{
    region shared = {.frozen = frozen, .n = n, .x = x, .out = out};
    size_t wanted = (n + GP_LANES - 1) / GP_LANES;
    if (wanted < threads) wanted = gp_smaller(threads, (n + GP_ALIGN_FLOATS - 1) / GP_ALIGN_FLOATS);
    shared.lanes = gp_padded((n + wanted - 1) / wanted);
    shared.chunks = (n + shared.lanes - 1) / shared.lanes;
    size_t members = gp_smaller(threads, gp_smaller(shared.chunks, GP_MAX_THREADS));
    size_t each = floats_a_lane(frozen);
    if (each > SIZE_MAX / sizeof(float) / (members * shared.lanes)) return GP_NO_MEMORY;
    shared.work = aligned_alloc(64, each * members * shared.lanes * sizeof(float));
    if (!shared.work) return GP_NO_MEMORY;
    gp_pool_run(frozen->pool, members, run_lanes, &shared);
    free(shared.work);
    for (size_t i = 0; i < members; i++) {
        if (shared.fault[i].phase == GP_PHASE_NONE) continue;
        *fault = shared.fault[i];
        return GP_BAD_INPUT;
    }
    return GP_OK;
}

gp_status gp_frozen_predict(gp_frozen *frozen, size_t n, const float *x, float *out, gp_fault *fault, size_t threads)
{
    if (n == 0) return GP_OK;
    if (n <= frozen->few) return predict_rows(frozen, n, x, out, fault);
    const double estimate = frozen->lane_ns * (double)n / GP_ALIGN_FLOATS;
    if (threads <= 1 || n <= GP_ALIGN_FLOATS || estimate < WORTH_SHARING_NS ||
        atomic_flag_test_and_set(&frozen->learning))
        return predict_lanes(frozen, n, x, out, fault, 1);
    int size = 0;
    frexp(estimate, &size);
    gp_habit *habit = &frozen->habits[size < HABITS ? size : HABITS - 1];
    const size_t used = gp_habit_choose(habit, threads);
    const double began = gp_seconds();
    gp_status status = predict_lanes(frozen, n, x, out, fault, used);
    if (status == GP_OK) gp_habit_learn(habit, used, gp_seconds() - began);
    atomic_flag_clear(&frozen->learning);
    return status;
}
