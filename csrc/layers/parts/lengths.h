/* lengths.h - sequences that are padded to one number of steps. A sample of length n has numbers at
 * steps 0 to n - 1; what comes behind is padding, which is kept at 0. */
#ifndef GP_LENGTHS_H
#define GP_LENGTHS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "layers/layers.h"

/* The lengths of a chunk of the block, if its sequences have so many steps; else NULL. */
static inline const uint32_t *gp_lengths_of(const gp_pass *pass, size_t chunk, size_t steps)
{
    return pass->lengths && pass->steps == steps ? pass->lengths + chunk * pass->lanes : NULL;
}

/* The same of the samples or lanes of a frozen network. */
static inline const uint32_t *gp_lengths_in(const gp_chunk *chunk, size_t steps)
{
    return chunk->steps == steps ? chunk->lengths : NULL;
}

/* x (n,P) at step t becomes 0 in the lanes whose sequence has ended. */
static inline void gp_lengths_clear(size_t n, size_t P, const uint32_t *lengths, size_t t, float *x)
{
    size_t ended = 0;
    for (size_t p = 0; p < P; p++) ended += t >= lengths[p];
    if (ended == 0) return;
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < P; p++) x[i * P + p] = t < lengths[p] ? x[i * P + p] : 0.0f;
}

/* x (n,P) at step t, into y in the lanes whose last step it is. */
static inline void gp_lengths_keep_last(size_t n, size_t P, const uint32_t *lengths, size_t t,
                                        const float *x, float *y)
{
    for (size_t p = 0; p < P; p++)
        for (size_t i = 0; t + 1 == lengths[p] && i < n; i++) y[i * P + p] = x[i * P + p];
}

/* y (n,P), of the last step, is added to x at step t in the lanes whose last step it is. */
static inline void gp_lengths_add_last(size_t n, size_t P, const uint32_t *lengths, size_t t,
                                       const float *y, float *x)
{
    for (size_t p = 0; p < P; p++)
        for (size_t i = 0; t + 1 == lengths[p] && i < n; i++) x[i * P + p] += y[i * P + p];
}

/* Of one sample, a row of so many numbers in all its steps: those that pad it become 0. */
static inline void gp_lengths_end(size_t length, size_t steps, size_t numbers, float *row)
{
    const size_t each = numbers / steps;
    memset(row + length * each, 0, (steps - length) * each * sizeof *row);
}

#endif
