/* naive_window.h - where a window that slides over images lies, and pooling, in double. */
#ifndef GP_NAIVE_WINDOW_H
#define GP_NAIVE_WINDOW_H

#include "types.h"

/* Outputs along an axis, of a window that fits. */
static inline size_t naive_places(const gp_window *w, size_t axis)
{
    const size_t size = (axis == 0 ? w->height : w->width) + w->before[axis] + w->after[axis];
    return (size - w->dilation[axis] * (w->kernel[axis] - 1) - 1) / w->stride[axis] + 1;
}

/* Of a convolution W is (filters, length of a filter). */
static inline size_t naive_filters(const gp_layer_spec *spec)
{
    return spec->out / (naive_places(window_of(spec), 0) * naive_places(window_of(spec), 1));
}
static inline size_t naive_filter_length(const gp_layer_spec *spec)
{
    return window_of(spec)->channels / window_of(spec)->groups * window_of(spec)->kernel[0] *
           window_of(spec)->kernel[1];
}

/* Where entry `tap` of the window at a place lies in its plane, GP_NONE if that is padding; both
 * are counted row by row. */
static inline size_t naive_pixel(const gp_window *w, size_t place, size_t tap)
{
    const size_t columns = naive_places(w, 1);
    const size_t y = place / columns * w->stride[0] + tap / w->kernel[1] * w->dilation[0];
    const size_t x = place % columns * w->stride[1] + tap % w->kernel[1] * w->dilation[1];
    if (y < w->before[0] || y >= w->before[0] + w->height) return GP_NONE;
    if (x < w->before[1] || x >= w->before[1] + w->width) return GP_NONE;
    return (y - w->before[0]) * w->width + x - w->before[1];
}

/* x (channels, height, width) to y (channels, places) or, if dx is given, dx += what y's gradient
 * dy is to x. */
static inline void naive_pooling(const gp_pooling_settings *own, const double *x, double *y,
                                 const double *dy, double *dx)
{
    const gp_window *w = &own->window;
    const size_t places = naive_places(w, 0) * naive_places(w, 1),
                 taps = w->kernel[0] * w->kernel[1];
    for (size_t o = 0; o < w->channels * places; o++) {
        const size_t plane = o / places * w->height * w->width;
        double sum = 0.0;
        size_t largest = GP_NONE;
        for (size_t tap = 0; tap < taps; tap++) {
            const size_t pixel = naive_pixel(w, o % places, tap);
            if (pixel == GP_NONE) continue;
            if (largest == GP_NONE || x[plane + pixel] > x[largest]) largest = plane + pixel;
            sum += x[plane + pixel] / (double)taps;
            if (dx && own->kind == GP_POOL_MEAN) dx[plane + pixel] += dy[o] / (double)taps;
        }
        if (!dx) y[o] = own->kind == GP_POOL_MAX ? x[largest] : sum;
        else if (own->kind == GP_POOL_MAX) dx[largest] += dy[o];
    }
}

#endif
