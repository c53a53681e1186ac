/* pooling.c - the largest or the mean number of every window, channel by channel.
 *
 * Of equal numbers the first one, row by row, gets the gradient. Windows of the largest leave out what pads; for the mean
 * it counts as 0.
 */
#include <string.h>

#include "layers/layers.h"

static int pooling_fits(const gp_layer_spec *spec)
{
    const gp_window *w = &spec->window;
    if (!gp_window_is_valid(w, spec->in) || w->groups != 1) return 0;
    for (size_t axis = 0; axis < 2; axis++) /* every window meets the image */
        if (w->dilation[axis] != 1 || w->before[axis] >= w->kernel[axis] || w->after[axis] >= w->kernel[axis]) return 0;
    return spec->out == w->channels * gp_window_places(w, 0) * gp_window_places(w, 1);
}

static int pooling_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return pooling_fits(spec);
}

static size_t pooling_workspace(const gp_layer_spec *spec) { return spec->out; }

/* The most pixels of the image that are in a window. */
static size_t most_pixels(const gp_window *w)
{
    return gp_smaller(w->kernel[0], w->height) * gp_smaller(w->kernel[1], w->width);
}

/* Lists of a window's pixels that are kept, one a member: fewer of large windows, so that all take about a megabyte. */
static size_t lists_of(const gp_window *w)
{
    const size_t lists = ((size_t)1 << 18) / gp_padded(most_pixels(w));
    return lists == 0 ? 1 : gp_smaller(lists, GP_MAX_THREADS);
}

static size_t pooling_spare(const gp_layer_spec *spec)
{
    return lists_of(&spec->window) * gp_padded(most_pixels(&spec->window));
}

/* This member's planes, if it has a list, and the list. */
static uint32_t *share(const gp_layer *layer, const gp_pass *pass, size_t *begin, size_t *end)
{
    const gp_window *w = &layer->spec.window;
    const size_t planes = pass->chunks * w->channels, members = gp_smaller(pass->team->size, lists_of(w));
    const size_t rank = gp_smaller(pass->team->rank, members);
    *begin = planes * rank / members;
    *end = rank == members ? planes : planes * (rank + 1) / members;
    return rank == members ? NULL : (uint32_t *)(void *)(layer->spare + rank * gp_padded(most_pixels(w)));
}

/* Where the window at one place along an axis begins and ends in the image. */
static void pixels_along(const gp_window *w, size_t axis, size_t place, size_t *first, size_t *end)
{
    const size_t size = axis == 0 ? w->height : w->width;
    const size_t begin = place * w->stride[axis], before = w->before[axis];
    *first = begin > before ? begin - before : 0;
    *end = gp_smaller(begin + w->kernel[axis] - before, size);
}

/* The pixels of the image in the window at one place; returns how many. */
static size_t pixels_of(const gp_window *w, size_t row, size_t column, uint32_t *at)
{
    size_t count = 0, first[2], end[2];
    pixels_along(w, 0, row, &first[0], &end[0]);
    pixels_along(w, 1, column, &first[1], &end[1]);
    for (size_t y = first[0]; y < end[0]; y++)
        for (size_t x = first[1]; x < end[1]; x++) at[count++] = (uint32_t)(y * w->width + x);
    return count;
}

static float factor_of(const gp_window *w) { return 1.0f / (float)(w->kernel[0] * w->kernel[1]); }

/* From this column on: windows with the same pixels, one place further each. */
static size_t alike(const gp_window *w, size_t column)
{
    const size_t begin = column * w->stride[1], seen = w->before[1] + w->width;
    if (begin < w->before[1] || begin + w->kernel[1] > seen) return 1;
    return gp_smaller((seen - w->kernel[1] - begin) / w->stride[1] + 1, gp_window_places(w, 1) - column);
}

/* So many channels of one chunk, or with 0 lanes of one sample. */
static void pool_planes(const gp_window *w, const gp_kernels *kernels, size_t lanes, size_t channels, uint32_t *at,
                        const float *x, float *y)
{
    const size_t rows = gp_window_places(w, 0), columns = gp_window_places(w, 1);
    const size_t unit = lanes ? lanes : 1, stride = lanes ? 1 : w->stride[1];
    const size_t x_step = w->height * w->width * unit, y_step = rows * columns * unit;
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0, places; column < columns; column += places) {
            places = lanes ? 1 : alike(w, column);
            const size_t count = pixels_of(w, row, column, at), n = places * unit;
            float *to = y + (row * columns + column) * unit;
            if (w->pooling == GP_POOL_MAX)
                kernels->pool_max(channels, n, count, at, unit, stride, x, x_step, to, y_step);
            else kernels->pool_mean(channels, n, count, at, unit, stride, x, x_step, to, y_step, factor_of(w));
        }
}

static const float *pooling_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const gp_window *w = &layer->spec.window;
    const size_t P = pass->lanes, x_step = w->height * w->width * P, y_step = layer->spec.out / w->channels * P;
    size_t begin, end;
    uint32_t *at = share(layer, pass, &begin, &end);
    if (at) pool_planes(w, pass->kernels, P, end - begin, at, x + begin * x_step, layer->work + begin * y_step);
    gp_team_wait(pass->team);
    return layer->work;
}

static int are_tiles(const gp_window *w, size_t axis)
{
    return w->stride[axis] == w->kernel[axis] &&
           gp_window_places(w, axis) * w->kernel[axis] == gp_window_padded(w, axis);
}

static float *pooling_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (!dx) return dx;
    const gp_window *w = &layer->spec.window;
    const gp_kernels *kernels = pass->kernels;
    const size_t P = pass->lanes, x_step = w->height * w->width * P, y_step = layer->spec.out / w->channels * P;
    size_t begin, end;
    uint32_t *at = share(layer, pass, &begin, &end);
    /* windows side by side that leave no pixel out write each of them once */
    const int tiles = w->pooling == GP_POOL_MAX && are_tiles(w, 0) && are_tiles(w, 1);
    if (!tiles) memset(dx + begin * x_step, 0, (end - begin) * x_step * sizeof *dx);
    for (size_t place = 0, columns = gp_window_places(w, 1); at && place * P < y_step; place++) {
        const size_t count = pixels_of(w, place / columns, place % columns, at), first = begin * y_step + place * P;
        if (w->pooling == GP_POOL_MAX)
            kernels->pool_max_back(end - begin, P, count, at, layer->input + begin * x_step, x_step,
                                   layer->output + first, dy + first, y_step, dx + begin * x_step, !tiles);
        else
            kernels->pool_mean_back(end - begin, P, count, at, dy + first, y_step, dx + begin * x_step, x_step,
                                    factor_of(w));
    }
    gp_team_wait(pass->team);
    return dx;
}

/* ---- inference ----------------------------------------------------------------------------------------------------- */

static size_t pooling_scratch(const gp_layer_spec *spec, int in_lanes)
{
    (void)in_lanes;
    return gp_padded(most_pixels(&spec->window));
}

static void pooling_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_window *w = &packed->spec.window;
    const size_t x_row = gp_padded(packed->spec.in), y_row = gp_padded(packed->spec.out);
    for (size_t s = 0; s < (chunk->lanes ? 1 : chunk->samples); s++)
        pool_planes(w, chunk->kernels, chunk->lanes, w->channels, (uint32_t *)(void *)chunk->scratch, x + s * x_row,
                    y + s * y_row);
}

static gp_status pooling_pack(gp_packed *packed, const gp_arena *arena)
{
    (void)arena;
    const double pixels =
        (double)packed->spec.out * (double)(packed->spec.window.kernel[0] * packed->spec.window.kernel[1]);
    packed->row_ns = 0.2 * pixels; /* estimated, as for convolution */
    packed->lane_ns = 0.5 * pixels;
    return GP_OK;
}

static const gp_frozen_ops frozen = {.pack = pooling_pack, .scratch = pooling_scratch, .infer = pooling_infer};

const gp_layer_ops gp_layer_pooling = {.name = "pooling",
                                       .fits = pooling_fits,
                                       .is_valid = pooling_is_valid,
                                       .workspace = pooling_workspace,
                                       .spare = pooling_spare,
                                       .forward = pooling_forward,
                                       .backward = pooling_backward,
                                       .frozen = &frozen};
