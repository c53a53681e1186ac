/* convolution_frozen.c - convolution at inference: y = f(b + W * x), W whole or its live weights
 * alone, packed when the network is frozen.
 *
 *   many samples   lanes, as in training (convolution.c)
 *   few samples    a plane of one sample is one long row: a filter slides over it from the first
 *   place to the last, over
 *                  the ends of rows, too, and what it finds there is left out. Where that is much,
 *                  the plane is copied for every column of the kernel, with the pixels alone that
 *                  this column meets: then nothing is left out.
 */
#include <stdlib.h>
#include <string.h>

#include "layers/parts/window.h"

/* FILTERS: computed while the rows of x that they read are in the cache; a multiple of the
 *          tiles. */
enum { FILTERS = 24 };

typedef struct convolution_packed {
    size_t K, filters;
    /* distances of a filter's inputs, or of the live ones of all filters: few samples, lanes */
    uint32_t *at[2];
    uint32_t *start; /* filters + 1; NULL: whole */
    float *weights, *bias;
} convolution_packed;

static size_t places_of(const gp_window *w)
{
    return gp_window_places(w, 0) * gp_window_places(w, 1);
}
static size_t planes_of(const gp_window *w) { return w->channels * gp_window_plane(w); }

/* Few samples: how their planes are laid out, and the long rows that filters see. */
typedef struct sliding {
    size_t copies, width, step; /* a plane's; a row's pixels, so far apart in the image */
    size_t stride;              /* pixels of a row from one place to the next */
    /* rows that are a window's stride apart follow each other; how many do */
    size_t phases, phase;
    size_t plane; /* pixels */
    size_t n;     /* pixels from the first place to the last, padded */
} sliding;

static sliding sliding_of(const gp_window *w)
{
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1);
    const size_t height = gp_window_padded(w, 0), width = gp_window_padded(w, 1);
    const size_t copied = gp_padded(rows * columns);
    const size_t whole = gp_padded((rows - 1) * width + (columns - 1) * w->stride[1] + 1);
    sliding s = {.copies = 1, .width = width, .step = 1, .stride = w->stride[1], .n = whole};
    s.phases = gp_smaller(w->stride[0], height);
    s.phase = (height + s.phases - 1) / s.phases;
    const size_t most = UINT32_MAX / 2 / (w->channels * s.phases * s.phase * columns);
    if (8 * copied <= 7 * whole && w->kernel[1] <= most) {
        s.copies = w->kernel[1];
        s.width = columns;
        s.step = w->stride[1];
        s.stride = 1;
        s.n = copied;
    }
    s.plane = s.phases * s.phase * s.width;
    /* or all planes would meet in a few sets of the cache */
    if (s.phases == 1 && s.plane % (8 * GP_ALIGN_FLOATS) == 0) s.plane += GP_ALIGN_FLOATS;
    return s;
}

/* The pixels of all planes, and of what is read behind them. */
static size_t pixels_of(const gp_window *w, const sliding *s)
{
    return gp_padded(w->channels * s->copies * s->plane) + GP_ALIGN_FLOATS;
}

static size_t convolution_scratch(const gp_layer_spec *spec, int in_lanes)
{
    const gp_window *w = &gp_convolution_of(spec)->window;
    const sliding s = sliding_of(w);
    if (in_lanes) return gp_window_pads(w) ? planes_of(w) : 0;
    return pixels_of(w, &s) + gp_padded(gp_window_plane(w)) + FILTERS * s.n;
}

/* Where the inputs of a filter at the first place lie in these planes: at[channel][y][x]; channels
 * of one group. */
static void sliding_offsets(const gp_window *w, const sliding *s, uint32_t *at)
{
    for (size_t c = 0; c < w->channels / w->groups; c++)
        for (size_t y = 0; y < w->kernel[0]; y++)
            for (size_t x = 0; x < w->kernel[1]; x++) {
                const size_t row = y * w->dilation[0],
                             turn = row % w->stride[0] * s->phase + row / w->stride[0];
                const size_t copy = s->copies == 1 ? 0 : x;
                *at++ = (uint32_t)((c * s->copies + copy) * s->plane + turn * s->width +
                                   (x - copy) * w->dilation[1]);
            }
}

static gp_status convolution_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const gp_window *w = &gp_convolution_of(spec)->window;
    const size_t K = w->channels / w->groups * w->kernel[0] * w->kernel[1],
                 filters = spec->out / places_of(w);
    const uint8_t *mask = arena->mask + spec->weight;
    const float *W = arena->params + spec->weight;
    packed->kept = gp_mask_count(filters * K, mask);
    packed->row_list = packed->lane_list = gp_lists_pay_in_lanes(packed->kept, filters * K);

    const size_t numbers = packed->lane_list ? packed->kept : filters * K;
    const size_t head = gp_padded((sizeof(convolution_packed) + sizeof(float) - 1) / sizeof(float));
    const size_t words = head + gp_padded(numbers) + gp_padded(filters) + gp_padded(filters + 1) +
                         2 * gp_padded(packed->lane_list ? numbers : K);
    uint32_t *offsets = malloc(2 * (K + 1) * sizeof *offsets),
             *memory = aligned_alloc(64, words * sizeof *memory);
    if (!offsets || !memory) {
        free(offsets);
        free(memory);
        return GP_NO_MEMORY;
    }
    memset(memory, 0, words * sizeof *memory);
    const sliding sliding = sliding_of(w);
    sliding_offsets(w, &sliding, offsets);
    gp_window_offsets(w, offsets + K);
    convolution_packed *own = (convolution_packed *)(void *)memory;
    *own = (convolution_packed){.K = K, .filters = filters};
    own->weights = (float *)(void *)(memory + head);
    own->bias = own->weights + gp_padded(numbers);
    uint32_t *start = (uint32_t *)(void *)(own->bias + gp_padded(filters));
    own->at[0] = start + gp_padded(filters + 1);
    own->at[1] = own->at[0] + gp_padded(packed->lane_list ? numbers : K);
    if (spec->bias != GP_NONE)
        memcpy(own->bias, arena->params + spec->bias, filters * sizeof(float));
    if (packed->lane_list) {
        own->start = start;
        uint32_t next = 0;
        for (size_t o = 0; o < filters; o++, start[o] = next)
            for (size_t k = 0; k < K; k++) {
                if (!mask[o * K + k]) continue;
                own->at[0][next] = offsets[k];
                own->at[1][next] = offsets[K + k];
                own->weights[next++] = W[o * K + k];
            }
    } else {
        memcpy(own->at[0], offsets, K * sizeof *offsets);
        memcpy(own->at[1], offsets + K, K * sizeof *offsets);
        for (size_t k = 0; k < filters * K; k++) own->weights[k] = mask[k] ? W[k] : 0.0f;
    }
    free(offsets);
    packed->memory = memory;
    packed->bytes = words * sizeof *memory;

    /* nanoseconds a multiply-add of 16 numbers, estimated for AVX-512 */
    const double each = packed->lane_list ? 0.4 : 0.25, products = each * (double)numbers;
    packed->row_ns =
        products * (double)sliding.n / GP_ALIGN_FLOATS + 0.2 * (double)pixels_of(w, &sliding);
    packed->lane_ns = products * (double)places_of(w);
    return GP_OK;
}

/* The filters first..first+n, of one group: `planes` are those of the group, `to` those of the
 * first filter; `lanes` or, if 0, one sample. */
static void slide(const convolution_packed *own, const gp_kernels *kernels, size_t first, size_t n,
                  size_t lanes, const float *planes, float *to, size_t to_plane,
                  const gp_runs *runs)
{
    const uint32_t *at = own->at[lanes > 0];
    const size_t unit = lanes ? lanes : 1;
    if (!own->start) {
        kernels->window_product(n, own->K, own->weights + first * own->K, own->K, at, unit, planes,
                                own->bias + first, to, to_plane, runs, 0);
        return;
    }
    for (size_t o = first; o < first + n; o++, to += to_plane) {
        const size_t start = own->start[o];
        kernels->window_product(1, own->start[o + 1] - start, own->weights + start, 0, at + start,
                                unit, planes, own->bias + o, to, 0, runs, 0);
    }
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const convolution_packed *own = packed->memory;
    const gp_window *w = &gp_convolution_of(&packed->spec)->window;
    const size_t P = chunk->lanes, plane = gp_window_plane(w), places = places_of(w);
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1),
                 filters = own->filters / w->groups;
    const size_t channels = w->channels / w->groups;
    const gp_runs runs = gp_window_runs(w, P, 1);
    if (gp_window_pads(w)) {
        for (size_t c = 0; c < w->channels; c++)
            gp_window_pad(w, P, x + c * w->height * w->width * P, chunk->scratch + c * plane * P);
        x = chunk->scratch;
    }
    for (size_t group = 0; group < w->groups; group++)
        for (size_t row = 0; row < rows; row++) {
            const float *from =
                x + (group * channels * plane + row * w->stride[0] * gp_window_padded(w, 1)) * P;
            for (size_t o = 0; o < filters; o += FILTERS)
                slide(own, chunk->kernels, group * filters + o, gp_smaller(FILTERS, filters - o), P,
                      from, y + ((group * filters + o) * places + row * columns) * P, places * P,
                      &runs);
        }
    if (packed->then != GP_IDENTITY)
        chunk->kernels->activation_forward(packed->spec.out * P, y, y, packed->then, packed->slope);
}

static void lay_out(const gp_window *w, const sliding *s, const float *x, float *planes,
                    float *padded)
{
    const size_t width = gp_window_padded(w, 1);
    for (size_t c = 0; c < w->channels; c++, x += w->height * w->width) {
        const float *plane = x;
        if (gp_window_pads(w)) gp_window_pad(w, 1, x, padded), plane = padded;
        for (size_t v = 0; v < s->copies; v++, planes += s->plane)
            for (size_t phase = 0; phase < s->phases; phase++) {
                float *to = planes + phase * s->phase * s->width;
                for (size_t row = phase; row < gp_window_padded(w, 0);
                     row += w->stride[0], to += s->width) {
                    const float *from = plane + row * width + v * w->dilation[1];
                    if (s->step == 1) /* what is too much is overwritten by the next row */
                        for (size_t i = 0; i < s->width; i += GP_ALIGN_FLOATS)
                            memcpy(to + i, from + i, GP_ALIGN_FLOATS * sizeof *to);
                    else
                        for (size_t i = 0; i < s->width; i++) to[i] = from[i * s->step];
                }
            }
    }
}

/* The places among the pixels of a long row. */
static void pick(const gp_window *w, const sliding *s, const float *row, float *y)
{
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1);
    if (s->width == columns) {
        memcpy(y, row, rows * columns * sizeof *y);
        return;
    }
    for (size_t i = 0; i < rows; i++, row += s->width, y += columns)
        if (s->stride == 1) memcpy(y, row, columns * sizeof *y);
        else
            for (size_t column = 0; column < columns; column++) y[column] = row[column * s->stride];
}

static void infer_sample(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const convolution_packed *own = packed->memory;
    const gp_window *w = &gp_convolution_of(&packed->spec)->window;
    const sliding s = sliding_of(w);
    const size_t places = places_of(w), filters = own->filters / w->groups,
                 channels = w->channels / w->groups;
    const gp_runs runs = {.n = s.n, .inner = 1, .outer = 1};
    float *planes = chunk->scratch, *padded = planes + pixels_of(w, &s);
    float *found = padded + gp_padded(gp_window_plane(w));
    lay_out(w, &s, x, planes, padded);
    for (size_t group = 0; group < w->groups; group++, planes += channels * s.copies * s.plane)
        for (size_t o = 0; o < filters; o += FILTERS) {
            const size_t first = group * filters + o, n = gp_smaller(FILTERS, filters - o);
            slide(own, chunk->kernels, first, n, 0, planes, found, s.n, &runs);
            for (size_t r = 0; r < n; r++) pick(w, &s, found + r * s.n, y + (first + r) * places);
        }
    if (packed->then != GP_IDENTITY)
        chunk->kernels->activation_forward(packed->spec.out, y, y, packed->then, packed->slope);
}

static void convolution_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                              float *y)
{
    if (chunk->lanes) infer_lanes(packed, chunk, x, y);
    for (size_t s = 0; !chunk->lanes && s < chunk->samples; s++)
        infer_sample(packed, chunk, x + s * gp_padded(packed->spec.in),
                     y + s * gp_padded(packed->spec.out));
}

const gp_frozen_ops gp_convolution_frozen = {.takes_activation = 1,
                                             .pack = convolution_pack,
                                             .scratch = convolution_scratch,
                                             .infer = convolution_infer};
