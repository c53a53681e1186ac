/* window.h - windows that slide over images, the settings of convolution and pooling. */
#ifndef GP_WINDOW_H
#define GP_WINDOW_H

#include "layers/layers.h"

/* Images are (channels, height, width), row by row in a sample. Of each pair the first is along the
 * height. Outputs along an axis: (size + before + after - dilation (kernel - 1) - 1) / stride + 1,
 * rounded down. */
typedef struct gp_window {
    size_t channels, height, width;
    size_t kernel[2], stride[2], dilation[2];
    size_t before[2], after[2]; /* padding: zeros, but nothing for the largest */
    size_t groups;              /* of channels, each with filters of its own */
} gp_window;

typedef struct gp_convolution_settings {
    gp_window window; /* W is (filters, channels / groups * kernel) */
} gp_convolution_settings;

GP_SETTINGS(convolution)

typedef enum gp_pooling_kind {
    GP_POOL_MAX,
    GP_POOL_MEAN, /* what pads counts as 0 */
    GP_POOLS
} gp_pooling_kind;

typedef struct gp_pooling_settings {
    gp_window window; /* of one group */
    gp_pooling_kind kind;
} gp_pooling_settings;

GP_SETTINGS(pooling)

/* Pooling whose window is a whole sequence, over the steps of each sample that count
 * (pooling_lengths.c). Where the numbers of a feature at neighbouring steps, and those of
 * neighbouring features at a step, are so many apart. */
typedef struct gp_time_axis {
    size_t steps, features, step, feature;
} gp_time_axis;

/* 0 if the window is no whole sequence of so many steps. */
int gp_pooling_over_time(const gp_pooling_settings *w, size_t steps, gp_time_axis *axis);
/* Features begin..end of P lanes, x of all steps; of the largest, y is what forward made. */
void gp_pool_steps(gp_pooling_kind kind, const gp_time_axis *axis, size_t P,
                   const uint32_t *lengths, size_t begin, size_t end, const float *x, float *y);
void gp_pool_steps_back(gp_pooling_kind kind, const gp_time_axis *axis, size_t P,
                        const uint32_t *lengths, size_t begin, size_t end, const float *x,
                        const float *y, const float *dy, float *dx);

/* The window from its numbers in this order, without the groups, which are 1 here; 0 if they are
 * none. */
enum { GP_WINDOW_NUMBERS = 13 };
int gp_window_set(gp_window *window, const double *numbers);

/* Outputs along an axis, 0 if it does not fit; and sizes with padding. */
static inline size_t gp_window_padded(const gp_window *w, size_t axis)
{
    return (axis == 0 ? w->height : w->width) + w->before[axis] + w->after[axis];
}
static inline size_t gp_window_places(const gp_window *w, size_t axis)
{
    const size_t reach = w->dilation[axis] * (w->kernel[axis] - 1) + 1,
                 size = gp_window_padded(w, axis);
    return size < reach ? 0 : (size - reach) / w->stride[axis] + 1;
}
static inline int gp_window_pads(const gp_window *w)
{
    return w->before[0] || w->before[1] || w->after[0] || w->after[1];
}
/* Pixels from one plane to the next. Padded planes are an odd number apart, or those of all
 * channels would meet in a few sets of the cache where images are a power of two wide. */
static inline size_t gp_window_plane(const gp_window *w)
{
    return gp_window_pads(w) ? (gp_window_padded(w, 0) * gp_window_padded(w, 1)) | 1
                             : w->height * w->width;
}
/* Whether the numbers make sense, and make up an input of `in` (window.c). */
int gp_window_is_valid(const gp_window *window, size_t in);
/* One plane of a chunk with zeros around it, and the plane without them. */
void gp_window_pad(const gp_window *window, size_t lanes, const float *plane, float *padded);
void gp_window_crop(const gp_window *window, size_t lanes, const float *padded, float *plane);
/* Where the inputs of a filter at the first place lie in padded planes, in pixels:
 * at[channel][y][x]; channels of one group. */
void gp_window_offsets(const gp_window *window, uint32_t *at);
/* The places of the filter in `rows` rows of outputs, reading padded planes of so many lanes. */
gp_runs gp_window_runs(const gp_window *window, size_t lanes, size_t rows);

extern const gp_frozen_ops gp_convolution_frozen; /* convolution_frozen.c */

#endif
