/* fixture.h - what the tests need besides CHECK: reproducible numbers, fenced memory, and a model
 * in an arena.
 *
 * Numbers come from a generator of the tests' own, so that a bug in rng.c cannot hide one
 * elsewhere. Inputs are allocated to the byte, so that sanitizers and valgrind see a read past the
 * end; outputs lie between fences of 0xff bytes (NaN as floats), so that any build sees a write
 * outside.
 */
#ifndef GP_FIXTURE_H
#define GP_FIXTURE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels/kernels.h"
#include "naive_window.h"

/* Fewer and smaller cases: if asked, or under valgrind, which is known by the library it
 * preloads. */
static inline int is_quick(void)
{
    const char *asked = getenv("GP_TEST_QUICK"), *preload = getenv("LD_PRELOAD");
    return (asked && *asked) || (preload && strstr(preload, "vgpreload"));
}

/* ---- every instruction set this CPU can run -------------------------------------------------- */

typedef void kernels_test(const gp_kernels *kernels);

static inline void over_instruction_sets(const char *name, kernels_test *test, int all)
{
    for (size_t i = 0; gp_isa_name(i); i++) {
        if (!all && gp_isa_name(i + 1)) continue; /* a wider one comes */
        const gp_kernels *kernels = gp_kernels_get(gp_isa_name(i));
        long failed = check_failed_count;
        test(kernels);
        if (check_failed_count > failed) printf("  in %s on %s\n", name, gp_kernels_isa(kernels));
    }
}
/* Networks are the same code on each: quick tests of them take the widest, only those of kernels
 * take all. */
#define OVER_INSTRUCTION_SETS(test) over_instruction_sets(#test, test, !is_quick())

/* ---- numbers: splitmix64 (Steele, Lea, Flood 2014) ------------------------------------------- */

typedef struct noise {
    uint64_t state;
} noise;

static inline uint64_t noise_word(noise *source)
{
    uint64_t z = source->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline double noise_unit(noise *source)
{
    return (double)(noise_word(source) >> 11) * 0x1p-53;
}
static inline size_t noise_below(noise *source, size_t bound)
{
    return (size_t)(noise_word(source) % bound);
}
/* Uniform in (-size, size). */
static inline void noise_floats(noise *source, size_t n, float *out, double size)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)((2.0 * noise_unit(source) - 1.0) * size);
}

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static inline void *allocated(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) abort();
    return memory;
}

enum { FENCE = 64 };

typedef struct buffer {
    unsigned char *memory;
    size_t lead, bytes, tail;
    void *data;
    float *f; /* data */
} buffer;

static inline buffer buffer_new(size_t bytes, size_t lead, size_t tail)
{
    buffer made = {
        .memory = allocated(lead + bytes + tail), .lead = lead, .bytes = bytes, .tail = tail};
    memset(made.memory, 0xff, lead + bytes + tail);
    made.data = made.memory + lead;
    made.f = (float *)made.data;
    return made;
}
/* Exact to the byte; `shift` floats off the allocator's alignment. */
static inline buffer input_bytes(size_t bytes, size_t shift)
{
    return buffer_new(bytes, shift * sizeof(float), 0);
}
static inline buffer input_floats(noise *source, size_t n, size_t shift, double size)
{
    buffer made = input_bytes(n * sizeof(float), shift);
    noise_floats(source, n, made.f, size);
    return made;
}
/* With an odd shift there is no fence behind: the sanitizers and valgrind then see a read there,
 * too. */
static inline buffer output_bytes(size_t bytes, size_t shift)
{
    return buffer_new(bytes, FENCE + shift * sizeof(float), shift % 2 ? 0 : FENCE);
}
static inline buffer output_floats(size_t n, size_t shift)
{
    return output_bytes(n * sizeof(float), shift);
}
/* An output that holds numbers to begin with. */
static inline buffer inout_floats(noise *source, size_t n, size_t shift, double size)
{
    buffer made = output_floats(n, shift);
    noise_floats(source, n, made.f, size);
    return made;
}
static inline int fence_holds(const buffer *b)
{
    for (size_t i = 0; i < b->lead + b->bytes + b->tail; i++)
        if ((i < b->lead || i >= b->lead + b->bytes) && b->memory[i] != 0xff) return 0;
    return 1;
}
static inline void buffer_free(buffer *b) { free(b->memory); }
/* Checks the fence and frees. */
#define CLOSE(b) \
    do { \
        CHECK(fence_holds(&(b))); \
        buffer_free(&(b)); \
    } while (0)

static inline int is_float_nan(float x) { return x != x; }

/* ---- a model: layer specifications and the arena they live in -------------------------------- */

enum { MODEL_LAYERS = 8 };

typedef struct model {
    size_t n_layers;
    gp_layer_spec layers[MODEL_LAYERS];
    size_t back[MODEL_LAYERS][MODEL_LAYERS]; /* how far back what they read is */
    gp_segment segments[4 * MODEL_LAYERS];
    gp_arena arena;
    uint8_t *mask;
} model;

static inline gp_layer_spec *model_add(model *m, const gp_layer_ops *type, size_t in, size_t out)
{
    gp_layer_spec *spec = &m->layers[m->n_layers++];
    *spec = (gp_layer_spec){.type = type, .in = in, .out = out, .weight = GP_NONE, .bias = GP_NONE};
    return spec;
}
/* The i-th layer reads n others, each so many before it. */
static inline void model_reads(model *m, gp_layer_spec *spec, size_t n, const size_t *back)
{
    size_t *own = m->back[spec - m->layers];
    for (size_t k = 0; k < n; k++) own[k] = back[k];
    spec->n_back = n;
    spec->back = own;
}
static inline size_t model_out(const model *m) { return m->layers[m->n_layers - 1].out; }
static inline gp_layer_spec *model_dense(model *m, size_t in, size_t out)
{
    gp_layer_spec *spec = model_add(m, &gp_layer_dense, in, out);
    spec->bias = 0; /* some: model_finish places it */
    return spec;
}
/* `features` wide; 0: as the layer before */
static inline void model_activation(model *m, gp_activation f, size_t features)
{
    size_t width = features ? features : model_out(m);
    gp_layer_spec *spec = model_add(m, &gp_layer_activation, width, width);
    *gp_activation_in(spec) = (gp_activation_settings){.function = f, .slope = 0.01f};
}
static inline void model_softmax(model *m)
{
    model_add(m, &gp_layer_softmax, model_out(m), model_out(m));
}
static inline void model_dropout(model *m, float rate, size_t features)
{
    size_t width = features ? features : model_out(m);
    gp_dropout_in(model_add(m, &gp_layer_dropout, width, width))->rate = rate;
}

/* features of a step; the state after every step if sequences. Starts with biases. */
static inline gp_layer_spec *model_recurrent(model *m, gp_cell cell, size_t steps, size_t features,
                                             size_t units, int sequences)
{
    gp_layer_spec *spec =
        model_add(m, &gp_layer_recurrent, steps * features, (sequences ? steps : 1) * units);
    *gp_recurrent_in(spec) = (gp_recurrent_settings){
        .cell = cell, .steps = steps, .sequences = sequences, .activation = GP_TANH};
    spec->bias = 0; /* some, and its own: model_finish places them */
    return spec;
}
static inline size_t model_units(const gp_layer_spec *spec)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    return own->sequences ? spec->out / own->steps : spec->out;
}
static inline size_t model_gates(const gp_layer_spec *spec)
{
    const gp_cell cell = gp_recurrent_of(spec)->cell;
    return cell == GP_LSTM ? 4 : cell == GP_GRU ? 3 : 1;
}

/* A square kernel that moves by one, without padding; to be changed before it is added. */
static inline gp_window model_window(size_t channels, size_t height, size_t width, size_t kernel)
{
    return (gp_window){.channels = channels,
                       .height = height,
                       .width = width,
                       .kernel = {kernel, kernel},
                       .stride = {1, 1},
                       .dilation = {1, 1},
                       .groups = 1};
}
static inline gp_layer_spec *model_windowed(model *m, const gp_layer_ops *type, const gp_window *w,
                                            size_t planes)
{
    gp_layer_spec *spec = model_add(m, type, w->channels * w->height * w->width,
                                    planes * naive_places(w, 0) * naive_places(w, 1));
    *window_in(spec) = *w;
    return spec;
}
static inline gp_layer_spec *model_convolution(model *m, gp_window w, size_t filters)
{
    gp_layer_spec *spec = model_windowed(m, &gp_layer_convolution, &w, filters);
    spec->bias = 0; /* some: model_finish places it */
    return spec;
}
static inline gp_layer_spec *model_pooling(model *m, gp_window w, gp_pooling_kind kind)
{
    gp_layer_spec *spec = model_windowed(m, &gp_layer_pooling, &w, w.channels);
    gp_pooling_in(spec)->kind = kind;
    return spec;
}

/* Channels of the layer before, or so many. */
static inline gp_layer_spec *model_batchnorm(model *m, size_t channels, size_t features)
{
    const size_t width = features ? features : model_out(m);
    gp_layer_spec *spec = model_add(m, &gp_layer_batchnorm, width, width);
    *gp_batchnorm_in(spec) =
        (gp_batchnorm_settings){.channels = channels, .momentum = 0.1f, .eps = 1e-5f};
    return spec;
}

static inline gp_layer_spec *model_standardize(model *m, size_t channels, size_t features)
{
    const size_t width = features ? features : model_out(m);
    gp_layer_spec *spec = model_add(m, &gp_layer_standardize, width, width);
    gp_standardize_in(spec)->channels = channels;
    return spec;
}

static inline void model_layernorm(model *m, size_t channels, size_t features)
{
    const size_t width = features ? features : model_out(m);
    gp_layer_spec *spec = model_add(m, &gp_layer_layernorm, width, width);
    *gp_layernorm_in(spec) = (gp_layernorm_settings){.channels = channels, .eps = 1e-5f};
}
/* Factors of a normalization, which has as many offsets. */
static inline size_t model_factors(const gp_layer_spec *spec)
{
    return spec->type == &gp_layer_batchnorm   ? gp_batchnorm_of(spec)->channels
           : spec->type == &gp_layer_layernorm ? spec->in
                                               : 0;
}

/* Channels of a layer that has two buffers for each. */
static inline size_t model_statistics(const gp_layer_spec *spec)
{
    return spec->type == &gp_layer_batchnorm     ? gp_batchnorm_of(spec)->channels
           : spec->type == &gp_layer_standardize ? gp_standardize_of(spec)->channels
                                                 : 0;
}

/* Rows of the weight matrix, which are as many as there are biases, and entries of a row; 0 rows:
 * there is none. */
static inline size_t model_rows(const gp_layer_spec *spec)
{
    if (spec->type == &gp_layer_dense) return gp_rows_of(spec);
    if (spec->type == &gp_layer_recurrent) return model_gates(spec) * model_units(spec);
    return spec->type == &gp_layer_convolution ? naive_filters(spec) : 0;
}
static inline size_t model_columns(const gp_layer_spec *spec)
{
    if (spec->type == &gp_layer_convolution) return naive_filter_length(spec);
    if (spec->type == &gp_layer_recurrent) return spec->in / gp_recurrent_of(spec)->steps;
    return gp_columns_of(spec);
}

static inline void model_place(model *m, size_t *at, size_t length, size_t group, size_t columns)
{
    m->segments[m->arena.n_segments++] =
        (gp_segment){.offset = *at, .length = length, .group = group, .columns = columns};
    *at += length;
}

/* Weights in forward order, then biases; a layer is a group. Parameters of a size that keeps
 * signals near 1. */
static inline void model_finish(model *m, uint64_t seed)
{
    gp_arena *arena = &m->arena;
    noise source = {seed};
    size_t at = 0, group = 0;
    for (size_t i = 0; i < m->n_layers; i++) {
        gp_layer_spec *spec = &m->layers[i];
        const size_t rows = model_rows(spec), columns = model_columns(spec);
        group += model_factors(spec) > 0;
        if (rows == 0) continue;
        spec->weight = at;
        model_place(m, &at, rows * columns, group, columns);
        if (spec->type == &gp_layer_recurrent) {
            gp_recurrent_in(spec)->weight = at;
            model_place(m, &at, rows * model_units(spec), group, model_units(spec));
        }
        group++;
    }
    arena->n_prunable = at;
    group = 0;
    for (size_t i = 0; i < m->n_layers; i++) {
        gp_layer_spec *spec = &m->layers[i];
        if (model_factors(spec) > 0) {
            spec->weight = at;
            model_place(m, &at, model_factors(spec), group, 0);
            spec->bias = at;
            model_place(m, &at, model_factors(spec), group, 0);
            group++;
        }
        if (model_rows(spec) == 0) continue;
        if (spec->bias != GP_NONE) {
            spec->bias = at;
            model_place(m, &at, model_rows(spec), group, 0);
            if (spec->type == &gp_layer_recurrent) {
                gp_recurrent_in(spec)->bias = at;
                model_place(m, &at, model_rows(spec), group, 0);
            }
        }
        group++;
    }
    arena->n = at;
    for (size_t i = 0; i < m->n_layers; i++) {
        if (model_statistics(&m->layers[i]) == 0) continue;
        m->layers[i].buffers = arena->n + arena->n_buffers;
        arena->n_buffers += 2 * model_statistics(&m->layers[i]);
    }
    arena->params = allocated((at + arena->n_buffers) * sizeof(float));
    arena->grads = allocated(at * sizeof(float));
    for (size_t i = 0; i < GP_MAX_MOMENTS; i++) {
        arena->moments[i] = allocated(at * sizeof(float));
        memset(arena->moments[i], 0, at * sizeof(float));
    }
    arena->mask = m->mask = allocated(arena->n_prunable);
    arena->segments = m->segments;
    memset(m->mask, 1, arena->n_prunable);
    /* NaN: whoever reads before writing is found out */
    memset(arena->grads, 0xff, at * sizeof(float));
    noise_floats(&source, at + arena->n_buffers, arena->params, 0.1);
    for (size_t i = 0; i < arena->n_segments; i++)
        if (m->segments[i].columns > 0)
            noise_floats(&source, m->segments[i].length, arena->params + m->segments[i].offset,
                         sqrt(3.0 / (double)m->segments[i].columns));
    for (size_t i = 0; i < m->n_layers; i++) { /* factors and variances around 1 */
        const gp_layer_spec *spec = &m->layers[i];
        for (size_t c = 0; c < model_factors(spec); c++) arena->params[spec->weight + c] += 1.0f;
        const size_t channels = model_statistics(spec);
        for (size_t c = 0; c < channels; c++) arena->params[spec->buffers + channels + c] += 1.0f;
    }
}

/* Matrices with at most this share of their weights kept get lists. */
static const gp_costs model_costs = {{0.3, 0.3, 0.3, 0.3}};

/* Removes what the mask, which somebody has changed, does not keep, and makes the lists anew. */
static inline void model_remove(model *m)
{
    gp_arena *arena = &m->arena;
    for (size_t j = 0; j < GP_MAX_MOMENTS; j++) gp_live_unpack(arena->live, arena->moments[j]);
    gp_live_destroy(arena->live);
    arena->removed = 0;
    for (size_t i = 0; i < arena->n_prunable; i++) {
        if (m->mask[i]) continue;
        arena->removed++;
        arena->params[i] = 0.0f;
        for (size_t j = 0; j < GP_MAX_MOMENTS; j++) arena->moments[j][i] = 0.0f;
    }
    CHECK_INT_EQUAL(gp_live_create(arena, &model_costs, &arena->live), GP_OK);
    for (size_t j = 0; j < GP_MAX_MOMENTS; j++) gp_live_pack(arena->live, arena->moments[j]);
}

/* Removes about `share` of the weights, from a mask made anew. */
static inline void model_prune(model *m, double share, uint64_t seed)
{
    noise source = {seed};
    for (size_t i = 0; i < m->arena.n_prunable; i++) m->mask[i] = noise_unit(&source) >= share;
    model_remove(m);
}

static inline void model_free(model *m)
{
    gp_live_destroy(m->arena.live);
    free(m->arena.params);
    free(m->arena.grads);
    free(m->arena.moments[0]);
    free(m->arena.moments[1]);
    free(m->mask);
}

/* Parameters, buffers, moments and mask, to see later that nothing changed. */
typedef struct snapshot {
    size_t bytes;
    unsigned char *data;
} snapshot;

static inline snapshot snapshot_take(const gp_arena *arena)
{
    const size_t each = (arena->n + arena->n_buffers) * sizeof(float),
                 moment = arena->n * sizeof(float);
    snapshot taken = {.bytes = 3 * each + arena->n_prunable,
                      .data = allocated(3 * each + arena->n_prunable)};
    memset(taken.data, 0, taken.bytes);
    memcpy(taken.data, arena->params, each);
    for (size_t i = 0; i < GP_MAX_MOMENTS; i++)
        if (arena->moments[i]) memcpy(taken.data + (i + 1) * each, arena->moments[i], moment);
    memcpy(taken.data + 3 * each, arena->mask, arena->n_prunable);
    return taken;
}
static inline int snapshot_equal(const snapshot *taken, const gp_arena *arena)
{
    snapshot now = snapshot_take(arena);
    int equal = now.bytes == taken->bytes && memcmp(now.data, taken->data, now.bytes) == 0;
    free(now.data);
    return equal;
}
static inline void snapshot_free(snapshot *taken) { free(taken->data); }

#endif
