/* convolution_frozen.c - convolution at inference: y = f(b + W * x), W whole or its live weights alone, packed when the
 * network is frozen.
 *
 *   many samples   lanes, as in training (convolution.c)
 *   few samples    a plane of one sample is one long row: a filter slides over it from the first place to the last, over
 *                  the ends of rows, too, and what it finds there is left out. With a stride down a run is a row of places.
 */
#include <stdlib.h>
#include <string.h>

#include "layers/layers.h"

/* FILTERS: computed while the rows of x that they read are in the cache; a multiple of the tiles. */
enum { FILTERS = 24 };

typedef struct convolution_packed {
    size_t K, filters;
    uint32_t *at;    /* distances of a filter's inputs, or of the live ones of all filters */
    uint32_t *start; /* filters + 1; NULL: whole */
    float *weights, *bias;
} convolution_packed;

static size_t places_of(const gp_window *w) { return gp_window_places(w, 0) * gp_window_places(w, 1); }
static size_t planes_of(const gp_window *w) { return w->channels * gp_window_plane(w); }

/* Few samples: pixels of a run, of which there are `runs`. */
static size_t length_of_run(const gp_window *w, size_t *runs)
{
    const size_t across = (gp_window_places(w, 1) - 1) * w->stride[1] + 1, down = gp_window_places(w, 0);
    *runs = w->stride[0] == 1 ? 1 : down;
    return gp_padded(w->stride[0] == 1 ? (down - 1) * gp_window_padded(w, 1) + across : across);
}

static size_t convolution_scratch(const gp_layer_spec *spec, int in_lanes)
{
    const gp_window *w = &spec->window;
    size_t runs, n = length_of_run(w, &runs);
    if (in_lanes) return gp_window_pads(w) ? planes_of(w) : 0;
    return gp_padded(planes_of(w)) + GP_ALIGN_FLOATS + FILTERS * runs * n; /* runs read up to 15 pixels more */
}

static gp_status convolution_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const gp_window *w = &spec->window;
    const size_t K = w->channels / w->groups * w->kernel[0] * w->kernel[1], filters = spec->out / places_of(w);
    const uint8_t *mask = arena->mask + spec->weight;
    const float *W = arena->params + spec->weight;
    packed->kept = gp_mask_count(filters * K, mask);
    packed->row_list = packed->lane_list = gp_lists_pay_in_lanes(packed->kept, filters * K);

    const size_t numbers = packed->lane_list ? packed->kept : filters * K;
    const size_t head = gp_padded((sizeof(convolution_packed) + sizeof(float) - 1) / sizeof(float));
    const size_t words = head + gp_padded(numbers) + gp_padded(filters) + gp_padded(filters + 1) +
                         gp_padded(packed->lane_list ? numbers : K);
    uint32_t *offsets = malloc((K + 1) * sizeof *offsets), *memory = aligned_alloc(64, words * sizeof *memory);
    if (!offsets || !memory) {
        free(offsets);
        free(memory);
        return GP_NO_MEMORY;
    }
    memset(memory, 0, words * sizeof *memory);
    gp_window_offsets(w, offsets);
    convolution_packed *own = (convolution_packed *)(void *)memory;
    *own = (convolution_packed){.K = K, .filters = filters};
    own->weights = (float *)(void *)(memory + head);
    own->bias = own->weights + gp_padded(numbers);
    uint32_t *start = (uint32_t *)(void *)(own->bias + gp_padded(filters));
    own->at = start + gp_padded(filters + 1);
    if (spec->bias != GP_NONE) memcpy(own->bias, arena->params + spec->bias, filters * sizeof(float));
    if (packed->lane_list) {
        own->start = start;
        uint32_t next = 0;
        for (size_t o = 0; o < filters; o++, start[o] = next)
            for (size_t k = 0; k < K; k++) {
                if (!mask[o * K + k]) continue;
                own->at[next] = offsets[k];
                own->weights[next++] = W[o * K + k];
            }
    } else {
        memcpy(own->at, offsets, K * sizeof *offsets);
        for (size_t k = 0; k < filters * K; k++) own->weights[k] = mask[k] ? W[k] : 0.0f;
    }
    free(offsets);
    packed->memory = memory;
    packed->bytes = words * sizeof *memory;

    /* nanoseconds a multiply-add of 16 numbers, estimated for AVX-512 */
    size_t runs, n = length_of_run(w, &runs);
    const double each = packed->lane_list ? 0.4 : 0.25, products = each * (double)numbers;
    packed->row_ns = products * (double)runs * (double)n / GP_ALIGN_FLOATS + 0.2 * (double)planes_of(w);
    packed->lane_ns = products * (double)places_of(w);
    return GP_OK;
}

/* The filters first..first+n, of one group: `planes` are those of the group, `to` those of the first filter. */
static void slide(const convolution_packed *own, const gp_kernels *kernels, size_t first, size_t n, size_t unit,
                  const float *planes, float *to, size_t to_plane, const gp_runs *runs)
{
    if (!own->start) {
        kernels->window_product(n, own->K, own->weights + first * own->K, own->K, own->at, unit, planes,
                                own->bias + first, to, to_plane, runs, 0);
        return;
    }
    for (size_t o = first; o < first + n; o++, to += to_plane) {
        const size_t start = own->start[o];
        kernels->window_product(1, own->start[o + 1] - start, own->weights + start, 0, own->at + start, unit, planes,
                                own->bias + o, to, 0, runs, 0);
    }
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const convolution_packed *own = packed->memory;
    const gp_window *w = &packed->spec.window;
    const size_t P = chunk->lanes, plane = gp_window_plane(w), places = places_of(w);
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1), filters = own->filters / w->groups;
    const size_t channels = w->channels / w->groups;
    const gp_runs runs = gp_window_runs(w, P, 1);
    if (gp_window_pads(w)) {
        for (size_t c = 0; c < w->channels; c++)
            gp_window_pad(w, P, x + c * w->height * w->width * P, chunk->scratch + c * plane * P);
        x = chunk->scratch;
    }
    for (size_t group = 0; group < w->groups; group++)
        for (size_t row = 0; row < rows; row++) {
            const float *from = x + (group * channels * plane + row * w->stride[0] * gp_window_padded(w, 1)) * P;
            for (size_t o = 0; o < filters; o += FILTERS)
                slide(own, chunk->kernels, group * filters + o, gp_smaller(FILTERS, filters - o), P, from,
                      y + ((group * filters + o) * places + row * columns) * P, places * P, &runs);
        }
    if (packed->then != GP_IDENTITY)
        chunk->kernels->activation_forward(packed->spec.out * P, y, y, packed->then, packed->slope);
}

/* The places among the pixels of a plane's runs. */
static void pick(const gp_window *w, const float *plane, size_t run, float *y)
{
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1);
    const size_t step = w->stride[0] == 1 ? gp_window_padded(w, 1) : run;
    for (size_t row = 0; row < rows; row++, plane += step, y += columns) {
        if (w->stride[1] == 1) memcpy(y, plane, columns * sizeof *y);
        else
            for (size_t column = 0; column < columns; column++) y[column] = plane[column * w->stride[1]];
    }
}

static void infer_sample(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const convolution_packed *own = packed->memory;
    const gp_window *w = &packed->spec.window;
    const size_t plane = gp_window_plane(w), places = places_of(w);
    const size_t filters = own->filters / w->groups, channels = w->channels / w->groups;
    size_t count;
    const size_t n = length_of_run(w, &count), slack = gp_padded(planes_of(w)) + GP_ALIGN_FLOATS;
    const gp_runs runs = {
        .n = n, .inner = 1, .outer = count, .from_outer = w->stride[0] * gp_window_padded(w, 1), .to_outer = n};
    float *planes = chunk->scratch, *found = planes + slack;
    for (size_t c = 0; c < w->channels; c++) gp_window_pad(w, 1, x + c * w->height * w->width, planes + c * plane);
    memset(planes + planes_of(w), 0, (slack - planes_of(w)) * sizeof *planes);
    for (size_t group = 0; group < w->groups; group++)
        for (size_t o = 0; o < filters; o += FILTERS) {
            const size_t rows = gp_smaller(FILTERS, filters - o);
            slide(own, chunk->kernels, group * filters + o, rows, 1, planes + group * channels * plane, found,
                  count * n, &runs);
            for (size_t r = 0; r < rows; r++) pick(w, found + r * count * n, n, y + (group * filters + o + r) * places);
        }
    if (packed->then != GP_IDENTITY)
        chunk->kernels->activation_forward(packed->spec.out, y, y, packed->then, packed->slope);
}

static void convolution_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    if (chunk->lanes) infer_lanes(packed, chunk, x, y);
    for (size_t s = 0; !chunk->lanes && s < chunk->samples; s++)
        infer_sample(packed, chunk, x + s * gp_padded(packed->spec.in), y + s * gp_padded(packed->spec.out));
}

const gp_frozen_ops gp_convolution_frozen = {
    .takes_activation = 1, .pack = convolution_pack, .scratch = convolution_scratch, .infer = convolution_infer};
