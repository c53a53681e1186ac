/* window.c - what convolution and pooling share: windows that slide over padded planes. */
#include <string.h>

#include "layers/parts/window.h"

int gp_window_set(gp_window *w, const double *numbers)
{
    size_t *const sizes[GP_WINDOW_NUMBERS] = {
        &w->channels,  &w->height,    &w->width,       &w->kernel[0],   &w->kernel[1],
        &w->stride[0], &w->stride[1], &w->dilation[0], &w->dilation[1], &w->before[0],
        &w->before[1], &w->after[0],  &w->after[1]};
    for (size_t i = 0; i < GP_WINDOW_NUMBERS; i++)
        if (!gp_read_size(numbers[i], sizes[i])) return 0;
    w->groups = 1;
    return 1;
}

int gp_window_is_valid(const gp_window *w, size_t in)
{
    if (w->channels == 0 || w->groups == 0 || w->channels % w->groups != 0) return 0;
    const size_t most = UINT32_MAX / 2; /* places in padded planes are counted in 32 bits */
    const size_t sizes[2] = {w->height, w->width};
    size_t planes = w->channels;
    for (size_t axis = 0; axis < 2; axis++) {
        if (sizes[axis] == 0 || w->kernel[axis] == 0 || w->stride[axis] == 0 ||
            w->dilation[axis] == 0)
            return 0;
        if (sizes[axis] > most || w->before[axis] > most || w->after[axis] > most) return 0;
        const size_t padded = gp_window_padded(w, axis);
        if (planes > most / padded) return 0;
        planes *= padded;
        if (w->kernel[axis] > padded || (w->kernel[axis] > 1 && w->dilation[axis] > padded))
            return 0;
        if (gp_window_places(w, axis) == 0) return 0;
    }
    return in == w->channels * w->height * w->width;
}

void gp_window_pad(const gp_window *w, size_t lanes, const float *plane, float *padded)
{
    const size_t width = gp_window_padded(w, 1), row = w->width * lanes;
    memset(padded, 0, w->before[0] * width * lanes * sizeof *padded);
    padded += w->before[0] * width * lanes;
    for (size_t y = 0; y < w->height; y++, plane += row) {
        memset(padded, 0, w->before[1] * lanes * sizeof *padded);
        padded += w->before[1] * lanes;
        memcpy(padded, plane, row * sizeof *padded);
        padded += row;
        memset(padded, 0, w->after[1] * lanes * sizeof *padded);
        padded += w->after[1] * lanes;
    }
    const size_t rest = gp_window_plane(w) - (w->before[0] + w->height) * width;
    memset(padded, 0, rest * lanes * sizeof *padded);
}

void gp_window_crop(const gp_window *w, size_t lanes, const float *padded, float *plane)
{
    const size_t width = gp_window_padded(w, 1), row = w->width * lanes;
    padded += (w->before[0] * width + w->before[1]) * lanes;
    for (size_t y = 0; y < w->height; y++, plane += row, padded += width * lanes)
        memcpy(plane, padded, row * sizeof *plane);
}

void gp_window_offsets(const gp_window *w, uint32_t *at)
{
    const size_t width = gp_window_padded(w, 1), plane = gp_window_plane(w);
    for (size_t c = 0; c < w->channels / w->groups; c++)
        for (size_t y = 0; y < w->kernel[0]; y++)
            for (size_t x = 0; x < w->kernel[1]; x++)
                *at++ = (uint32_t)(c * plane + y * w->dilation[0] * width + x * w->dilation[1]);
}

gp_runs gp_window_runs(const gp_window *w, size_t lanes, size_t rows)
{
    const size_t places = gp_window_places(w, 1),
                 from_row = w->stride[0] * gp_window_padded(w, 1) * lanes;
    if (w->stride[1] == 1)
        return (gp_runs){.n = places * lanes,
                         .inner = 1,
                         .outer = rows,
                         .from_outer = from_row,
                         .to_outer = places * lanes};
    return (gp_runs){.n = lanes,
                     .inner = places,
                     .outer = rows,
                     .from_inner = w->stride[1] * lanes,
                     .from_outer = from_row,
                     .to_inner = lanes,
                     .to_outer = places * lanes};
}
