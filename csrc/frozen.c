/* frozen.c - a network for inference alone: packed once, run by any number of threads at once.
 *
 * Few samples pass as rows, all layers on one thread and, when they are small, with the workspace
 * on the stack. More pass in chunks of P <= 64 lanes: a member of the team takes a chunk from the
 * user's rows to the user's rows, so there are no barriers, and a chunk stays in its core's cache.
 * Where the border lies follows from what the layers say they cost.
 *
 * What a call computes depends on nothing that changes. The habits, which only choose the number of
 * threads, belong to one call at a time; a call that finds another one inside runs alone, and so do
 * all calls of a child that was forked meanwhile.
 */
#include "gradprune.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "home.h"
#include "layers/parts/lengths.h"

enum {
    STACK_FLOATS = 4096, /* workspace up to this size is on the stack */
    HABITS = 32
};
/* Calls estimated to take less are not shared: meeting costs about a microsecond, waking a thread
 * tens. */
#define WORTH_SHARING_NS 8000.0
/* One feature of 16 samples from rows to lanes. */
#define TO_LANES_NS 2.0

/* Activations that are not needed at the same time take turns in a buffer. */
typedef struct buffer {
    size_t width;    /* of the widest */
    size_t start[2]; /* floats before it: a sample among few, a lane */
} buffer;

struct gp_frozen {
    const gp_kernels *kernels;
    gp_pool *pool;
    size_t in, out, n_layers, bytes;
    size_t below;      /* of the input, see gp_graph_below */
    size_t few;        /* up to so many samples pass as rows */
    size_t floats[2];  /* of all buffers together: a sample among few, a lane */
    size_t scratch[2]; /* floats that layers need besides: a sample among few, a lane */
    size_t result;     /* the buffer with the output */
    size_t n_buffers;
    buffer *buffers; /* the first has the input at first */
    size_t *places;  /* sources, and where they begin, of one layer after the other */
    double lane_ns;  /* estimated time of 16 samples in lanes, with the way there */
    atomic_flag learning;
    gp_habit habits[HABITS];
    gp_packed layers[];
};

/* ---- making ---------------------------------------------------------------------------------- */

static int are_valid(size_t n_layers, const gp_layer_spec *layers, const gp_arena *arena)
{
    if (!gp_graph_is_valid(n_layers, layers)) return 0;
    for (size_t i = 0; i < n_layers; i++) {
        const gp_layer_ops *ops = layers[i].type;
        if (!ops->frozen || !ops->is_valid(&layers[i], arena->n, arena->n_prunable)) return 0;
        if (!gp_buffers_are_valid(&layers[i], arena)) return 0;
    }
    return arena->n_prunable <= arena->n;
}

/* Whether a packed layer's output goes to one layer alone; output[i] is where that of the i-th
 * layer comes from. */
static int is_read_once(size_t n_layers, const gp_layer_spec *layers, size_t packed,
                        const size_t *output, size_t so_far)
{
    for (size_t i = 0; i < so_far; i++)
        if (output[i] == packed && gp_graph_reader(n_layers, layers, i) == GP_NONE) return 0;
    return 1;
}

/* Packs the i-th layer as `spec` over the arena, unless it does nothing or the one that it reads
 * does it; output[i]: the packed layer that gives its output, or GP_NONE for the network's
 * input. */
static gp_status add(gp_frozen *made, size_t n_layers, const gp_layer_spec *layers, size_t i,
                     const gp_layer_spec *spec, const gp_arena *arena, gp_precision precision,
                     size_t *output, size_t *next_place)
{
    const gp_layer_ops *type = spec->type;
    const gp_frozen_ops *ops = precision == GP_INT8 && !spec->exact && type->frozen_int8
                                   ? type->frozen_int8
                                   : type->frozen;
    gp_packed *packed = &made->layers[made->n_layers];
    *packed = (gp_packed){.ops = ops,
                          .spec = *spec,
                          .index = i,
                          .then = GP_IDENTITY,
                          .n_sources = gp_graph_arity(layers, i),
                          .source = made->places + *next_place};
    packed->spec.n_back = 0;
    packed->spec.back = NULL; /* the caller's */
    for (size_t k = 0; k < 2; k++) packed->start[k] = packed->source + (k + 1) * packed->n_sources;
    packed->widths = packed->source + 3 * packed->n_sources;
    for (size_t k = 0; k < packed->n_sources; k++) {
        const size_t source = gp_graph_source(layers, i, k);
        packed->source[k] = source == GP_NONE ? GP_NONE : output[source];
        packed->widths[k] = source == GP_NONE ? made->in : layers[source].out;
    }
    output[i] = packed->source[0];
    if (!ops->infer) return GP_OK;
    gp_packed *before = packed->source[0] == GP_NONE ? NULL : &made->layers[packed->source[0]];
    if (ops->function && before && before->ops->takes_activation && before->then == GP_IDENTITY &&
        is_read_once(n_layers, layers, packed->source[0], output, i)) {
        before->then = ops->function(&packed->spec, &before->slope);
        return GP_OK;
    }
    output[i] = made->n_layers;
    *next_place += 4 * packed->n_sources;
    gp_status status = ops->pack ? ops->pack(packed, arena) : GP_OK;
    if (status == GP_OK) made->n_layers++;
    return status;
}

static int reads(const gp_packed *packed, size_t value)
{
    for (size_t k = 0; k < packed->n_sources; k++)
        if (packed->source[k] == value) return 1;
    return 0;
}

/* Whether the output of a packed layer, or the input, is read by one behind the i-th, or is the
 * result. */
static int is_needed_after(const gp_frozen *made, size_t i, size_t value, size_t result)
{
    for (size_t reader = i + 1; reader < made->n_layers; reader++)
        if (reads(&made->layers[reader], value)) return 1;
    return value == result;
}

static size_t buffer_of(const gp_frozen *made, size_t value)
{
    return value == GP_NONE ? 0 : made->layers[value].to;
}

/* Whether another number that is still needed is in this buffer when the i-th layer writes. */
static int is_taken(const gp_frozen *made, size_t i, size_t b, size_t result)
{
    const gp_packed *packed = &made->layers[i];
    for (size_t value = 0; value <= i; value++) {
        const size_t earlier = value == i ? GP_NONE : value;
        if (buffer_of(made, earlier) != b) continue;
        if (is_needed_after(made, i, earlier, result)) return 1;
        if (reads(packed, earlier) && !packed->ops->in_place) return 1;
    }
    return 0;
}

/* Gives every output a buffer: that of what a layer reads if it can work in place, else the first
 * free one. */
static void share_buffers(gp_frozen *made, size_t result)
{
    made->buffers[0].width = made->in;
    made->n_buffers = 1;
    for (size_t i = 0; i < made->n_layers; i++) {
        gp_packed *packed = &made->layers[i];
        packed->to = packed->ops->in_place ? buffer_of(made, packed->source[0]) : 0;
        if (is_taken(made, i, packed->to, result)) packed->to = 0;
        while (packed->to < made->n_buffers && is_taken(made, i, packed->to, result)) packed->to++;
        if (packed->to == made->n_buffers) made->n_buffers++;
        buffer *chosen = &made->buffers[packed->to];
        if (packed->spec.out > chosen->width) chosen->width = packed->spec.out;
    }
    made->result = buffer_of(made, result);
    for (buffer *b = made->buffers; b < made->buffers + made->n_buffers; b++) {
        b->start[0] = made->floats[0];
        b->start[1] = made->floats[1];
        made->floats[0] += gp_padded(b->width);
        made->floats[1] += b->width;
    }
    for (gp_packed *packed = made->layers; packed < made->layers + made->n_layers; packed++)
        for (size_t k = 0; k < packed->n_sources; k++)
            for (size_t in_lanes = 0; in_lanes < 2; in_lanes++)
                packed->start[in_lanes][k] =
                    made->buffers[buffer_of(made, packed->source[k])].start[in_lanes];
}

static int folds(const gp_layer_spec *product, const gp_layer_spec *norm)
{
    const gp_fold *fold = norm->type->frozen->fold;
    return fold && fold->folds(product, norm);
}

/* Whether the normalization that reads the i-th layer becomes a part of it. */
static int is_folded(size_t n_layers, const gp_layer_spec *layers, size_t i)
{
    const size_t norm = gp_graph_reader(n_layers, layers, i);
    return norm != GP_NONE && folds(&layers[i], &layers[norm]);
}

gp_status gp_frozen_create(const gp_kernels *kernels, gp_pool *pool, size_t n_layers,
                           const gp_layer_spec *layers, const gp_arena *arena,
                           gp_precision precision, gp_frozen **frozen)
{
    *frozen = NULL;
    if (precision >= GP_PRECISIONS || !are_valid(n_layers, layers, arena)) return GP_BAD_ARGUMENT;
    gp_arena_lend(kernels, arena);
    gp_status status = GP_NO_MEMORY;
    size_t bytes = sizeof(gp_frozen) + n_layers * sizeof(gp_packed);
    size_t n_places = 0, next_place = 0;
    size_t *output = calloc(n_layers, sizeof *output);
    gp_frozen *made = calloc(1, bytes);
    if (!made || !output) goto done;
    made->buffers = calloc(n_layers + 1, sizeof *made->buffers);
    for (size_t i = 0; i < n_layers; i++) n_places += 4 * gp_graph_arity(layers, i);
    made->places = calloc(n_places, sizeof *made->places);
    if (!made->buffers || !made->places) goto done;
    made->kernels = kernels;
    made->pool = pool;
    made->in = gp_layers_in(layers);
    made->below = gp_graph_below(n_layers, layers);
    made->out = layers[n_layers - 1].out;
    made->bytes = bytes + (n_layers + 1) * sizeof *made->buffers + n_places * sizeof *made->places;
    atomic_flag_clear(&made->learning);
    for (size_t i = 0; i < n_layers; i++) {
        const size_t source = gp_graph_source(layers, i, 0);
        const gp_layer_spec *before = source == GP_NONE ? NULL : &layers[source];
        if (before && is_folded(n_layers, layers, source)) {
            output[i] = output[source];
            continue;
        }
        const int joined = is_folded(n_layers, layers, i);
        const size_t norm = gp_graph_reader(n_layers, layers, i);
        gp_layer_spec spec = layers[i];
        gp_arena own = *arena;
        if (joined)
            status = layers[norm].type->frozen->fold->fold(&layers[i], &layers[norm], arena, &spec,
                                                           &own);
        else status = GP_OK;
        if (status == GP_OK)
            status = add(made, n_layers, layers, i, &spec, &own, precision, output, &next_place);
        if (joined) free(own.params);
        if (status != GP_OK) goto done;
        if (before && folds(before, &layers[i]))
            layers[i].type->frozen->fold->silence(&made->layers[output[i]], before, arena);
    }
    share_buffers(made, output[n_layers - 1]);
    double row_ns = 0.0;
    made->lane_ns = TO_LANES_NS * (double)made->in;
    for (size_t i = 0; i < made->n_layers; i++) {
        const gp_packed *packed = &made->layers[i];
        for (int in_lanes = 0; in_lanes < 2 && packed->ops->scratch; in_lanes++) {
            const size_t scratch = packed->ops->scratch(&packed->spec, in_lanes);
            if (scratch > made->scratch[in_lanes]) made->scratch[in_lanes] = scratch;
        }
        made->bytes += packed->bytes;
        made->lane_ns += packed->lane_ns;
        row_ns += packed->row_ns;
    }
    made->few = GP_ALIGN_FLOATS; /* with more, two chunks of lanes could do */
    while (made->few > (isinf(row_ns) ? 0 : 1) && (double)made->few * row_ns > made->lane_ns)
        made->few--;
    *frozen = made;
    made = NULL;
done:
    gp_arena_take_back(kernels, arena);
    free(output);
    gp_frozen_destroy(made);
    return status;
}

void gp_frozen_destroy(gp_frozen *frozen)
{
    if (!frozen) return;
    for (size_t i = 0; i < frozen->n_layers; i++) free(frozen->layers[i].memory);
    free(frozen->buffers);
    free(frozen->places);
    free(frozen);
}

size_t gp_frozen_bytes(const gp_frozen *frozen) { return frozen->bytes; }

gp_frozen_layer gp_frozen_describe(const gp_frozen *frozen, size_t layer)
{
    for (size_t i = 0; i < frozen->n_layers; i++) {
        const gp_packed *packed = &frozen->layers[i];
        if (packed->index == layer)
            return (gp_frozen_layer){packed->kept, packed->bytes, packed->row_list,
                                     packed->lane_list, packed->int8};
    }
    return (gp_frozen_layer){0};
}

/* ---- few samples ----------------------------------------------------------------------------- */

/* Whether n numbers that are finite can be input. */
static int takes(const gp_frozen *frozen, size_t n, const float *x)
{
    size_t at = 0;
    while (frozen->below > 0 && at < n && gp_is_input(x[at], frozen->below)) at++;
    return frozen->below == 0 || at == n;
}

/* The first number that can be no input; there is one. */
static void find_fault(const gp_frozen *frozen, size_t sample, const float *x, gp_fault *fault)
{
    const size_t I = frozen->in;
    size_t at = 0;
    while (gp_is_input(x[at], frozen->below)) at++;
    *fault = (gp_fault){.phase = GP_PHASE_INPUT,
                        .layer = GP_NONE,
                        .step = GP_NONE,
                        .row = sample + at / I,
                        .column = at % I,
                        .below = frozen->below};
}

/* The lengths of so many samples from the first-th on, 0 in lanes without one. */
static void take_lengths(const gp_padding *padding, size_t first, size_t n, uint32_t *lengths,
                         gp_chunk *chunk)
{
    if (!padding) return;
    for (size_t s = 0; s < n; s++) lengths[s] = (uint32_t)padding->lengths[first + s];
    for (size_t s = n; s < chunk->lanes; s++) lengths[s] = 0;
    chunk->lengths = lengths;
    chunk->steps = padding->steps;
}

/* A buffer of n samples. */
static float *rows_of(const gp_frozen *frozen, size_t n, float *work, size_t b)
{
    return work + n * frozen->buffers[b].start[0];
}

static gp_status run_rows(const gp_frozen *frozen, size_t n, const float *x,
                          const gp_padding *padding, float *out, gp_fault *fault, float *work)
{
    const size_t I = frozen->in, O = frozen->out;
    uint32_t lengths[GP_ALIGN_FLOATS];
    gp_chunk chunk = {.kernels = frozen->kernels,
                      .samples = n,
                      .scratch = work + n * frozen->floats[0],
                      .work = work};
    take_lengths(padding, 0, n, lengths, &chunk);
    for (size_t s = 0; s < n; s++) {
        float *row = work + s * gp_padded(I);
        memset(row + I, 0, (gp_padded(I) - I) * sizeof *row);
        if (!frozen->kernels->copy_finite(I, x + s * I, row) || !takes(frozen, I, x + s * I)) {
            find_fault(frozen, s, x + s * I, fault);
            return GP_BAD_INPUT;
        }
        if (padding) gp_lengths_end(lengths[s], padding->steps, I, row);
    }
    for (size_t i = 0; i < frozen->n_layers; i++) {
        const gp_packed *packed = &frozen->layers[i];
        const size_t width = packed->spec.out, padded = gp_padded(width);
        const float *from = gp_chunk_input(packed, &chunk, 0);
        float *y = rows_of(frozen, n, work, packed->to);
        for (size_t s = 0; y != from && s < n; s++)
            memset(y + s * padded + width, 0, (padded - width) * sizeof *y);
        packed->ops->infer(packed, &chunk, from, y);
    }
    const float *y = rows_of(frozen, n, work, frozen->result);
    for (size_t s = 0; s < n; s++) {
        memcpy(out + s * O, y + s * gp_padded(O), O * sizeof *out);
        if (padding && padding->by_step) gp_lengths_end(lengths[s], padding->steps, O, out + s * O);
    }
    return GP_OK;
}

static gp_status predict_rows(const gp_frozen *frozen, size_t n, const float *x,
                              const gp_padding *padding, float *out, gp_fault *fault)
{
    _Alignas(64) float stack[STACK_FLOATS];
    const size_t each = frozen->floats[0] + gp_padded(frozen->scratch[0]);
    if (each > SIZE_MAX / sizeof(float) / n) return GP_NO_MEMORY;
    float *work = n * each <= STACK_FLOATS ? stack : aligned_alloc(64, n * each * sizeof *work);
    if (!work) return GP_NO_MEMORY;
    gp_status status = run_rows(frozen, n, x, padding, out, fault, work);
    if (work != stack) free(work);
    return status;
}

/* ---- many samples ---------------------------------------------------------------------------- */

typedef struct region {
    const gp_frozen *frozen;
    size_t n, lanes, chunks;
    const float *x;
    const gp_padding *padding; /* or NULL */
    float *out;
    float *work; /* (widths) * lanes for each member */
    gp_fault fault[GP_MAX_THREADS];
} region;

static size_t floats_a_lane(const gp_frozen *frozen)
{
    return frozen->floats[1] + frozen->scratch[1];
}

/* A buffer of P lanes. */
static float *lanes_of(const gp_frozen *frozen, size_t P, float *work, size_t b)
{
    return work + frozen->buffers[b].start[1] * P;
}

/* A member's chunks follow each other, so the first member that finds a fault has the first one. */
static void run_lanes(void *context, const gp_team *team)
{
    region *shared = context;
    const gp_frozen *frozen = shared->frozen;
    const size_t I = frozen->in, O = frozen->out, P = shared->lanes;
    float *work = shared->work + team->rank * floats_a_lane(frozen) * P;
    size_t begin, end;
    gp_team_share(team, shared->chunks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t first = item * P, samples = gp_smaller(P, shared->n - first);
        gp_chunk chunk = {.kernels = frozen->kernels,
                          .samples = samples,
                          .lanes = P,
                          .scratch = work + frozen->floats[1] * P,
                          .work = work};
        const gp_padding *padding = shared->padding;
        uint32_t lengths[GP_LANES];
        take_lengths(padding, first, samples, lengths, &chunk);
        const float *x = shared->x + first * I;
        const float *rows[GP_LANES];
        for (size_t s = 0; s < samples; s++) rows[s] = x + s * I;
        if (!frozen->kernels->to_lanes(samples, I, rows, 0, P, work) ||
            !takes(frozen, samples * I, x)) {
            find_fault(frozen, first, x, &shared->fault[team->rank]);
            return;
        }
        for (size_t t = 0, each = padding ? I / padding->steps : 0; padding && t < padding->steps;
             t++)
            gp_lengths_clear(each, P, lengths, t, work + t * each * P);
        for (size_t i = 0; i < frozen->n_layers; i++) {
            const gp_packed *packed = &frozen->layers[i];
            packed->ops->infer(packed, &chunk, gp_chunk_input(packed, &chunk, 0),
                               lanes_of(frozen, P, work, packed->to));
        }
        frozen->kernels->transpose(O, samples, lanes_of(frozen, P, work, frozen->result), P,
                                   shared->out + first * O, O);
        for (size_t s = 0; padding && padding->by_step && s < samples; s++)
            gp_lengths_end(lengths[s], padding->steps, O, shared->out + (first + s) * O);
    }
}

static gp_status predict_lanes(const gp_frozen *frozen, size_t n, const float *x,
                               const gp_padding *padding, float *out, gp_fault *fault,
                               size_t threads)
{
    region shared = {.frozen = frozen, .n = n, .x = x, .padding = padding, .out = out};
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

/* Whether the lengths are those of n samples. */
static int are_lengths(const gp_frozen *frozen, size_t n, const gp_padding *padding)
{
    const size_t steps = padding->steps;
    if (steps == 0 || steps > UINT32_MAX || frozen->in % steps != 0) return 0;
    if (padding->by_step && frozen->out % steps != 0) return 0;
    for (size_t s = 0; s < n; s++)
        if (padding->lengths[s] < 1 || (uint64_t)padding->lengths[s] > steps) return 0;
    return 1;
}

gp_status gp_frozen_predict(gp_frozen *frozen, size_t n, const float *x, float *out,
                            gp_fault *fault, size_t threads)
{
    return gp_frozen_predict_padded(frozen, n, x, NULL, out, fault, threads);
}

gp_status gp_frozen_predict_padded(gp_frozen *frozen, size_t n, const float *x,
                                   const gp_padding *padding, float *out, gp_fault *fault,
                                   size_t threads)
{
    if (padding && !are_lengths(frozen, n, padding)) return GP_BAD_ARGUMENT;
    if (n == 0) return GP_OK;
    if (n <= frozen->few) return predict_rows(frozen, n, x, padding, out, fault);
    const double estimate = frozen->lane_ns * (double)n / GP_ALIGN_FLOATS;
    if (threads <= 1 || n <= GP_ALIGN_FLOATS || estimate < WORTH_SHARING_NS ||
        atomic_flag_test_and_set(&frozen->learning))
        return predict_lanes(frozen, n, x, padding, out, fault, 1);
    int size = 0;
    frexp(estimate, &size);
    gp_habit *habit = &frozen->habits[size < HABITS ? size : HABITS - 1];
    const size_t used = gp_habit_choose(habit, threads);
    const double began = gp_seconds();
    gp_status status = predict_lanes(frozen, n, x, padding, out, fault, used);
    if (status == GP_OK) gp_habit_learn(habit, used, gp_seconds() - began);
    atomic_flag_clear(&frozen->learning);
    return status;
}
