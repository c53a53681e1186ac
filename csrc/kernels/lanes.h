/* lanes.h - samples from the user's rows into lanes, checked on the way: the door to everything
 * that is batch innermost.
 */
#ifndef GP_LANES_KERNELS_H
#define GP_LANES_KERNELS_H

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/vector.h"

/* Four features of V samples at a time. Columns are stored as whole vectors, so that with 16 lanes
 * a cache line is written once. Missing samples are zeros. */
static int to_lanes(size_t samples, size_t features, const float *const *x, size_t offset,
                    size_t lanes, float *out)
{
    enum { FEATURES = 64 };
    vfloat poison = v_splat(0.0f); /* 0 * inf and 0 * NaN are NaN, and a sum keeps it */
    int finite = 1;
    for (size_t f = 0; f < features; f += FEATURES) {
        const size_t n = features - f < FEATURES ? features - f : FEATURES, whole = n - n % 4;
        for (size_t p = 0; p < lanes; p += GP_V) {
            float *to = out + f * lanes + p, part[GP_V * FEATURES];
            const float *row[GP_V];
            for (size_t l = 0; l < GP_V; l++)
                row[l] = p + l < samples ? x[p + l] + offset + f : part + l * FEATURES;
            if (p + GP_V > samples) memset(part, 0, sizeof part); /* the rows that are not there */
            for (size_t c = 0; c < whole; c += 4) {
                vfloat turned[4];
                v_turn(row, c, turned);
#pragma GCC unroll 4
                for (size_t u = 0; u < 4; u++) {
                    poison += turned[u] * 0.0f;
                    v_store(to + (c + u) * lanes, turned[u]);
                }
            }
            for (size_t c = whole; c < n; c++)
                for (size_t l = 0; l < GP_V; l++) {
                    to[c * lanes + l] = row[l][c];
                    finite &= row[l][c] * 0.0f == 0.0f;
                }
        }
    }
    vint sound = poison == 0.0f;
    for (size_t l = 0; l < GP_V; l++) finite &= sound[l] != 0;
    return finite;
}

/* A row of P lanes each */
static void broadcast(size_t rows, size_t lanes, const float *values, float *out)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t p = 0; p < lanes; p += GP_V) v_store(out + r * lanes + p, v_splat(values[r]));
}

#endif
