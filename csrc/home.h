/* home.h - where the values and gradients of a segment are: see gp_home. */
#ifndef GP_HOME_H
#define GP_HOME_H

#include "kernels/kernels.h"
#include "parallel.h"
#include "sparse.h"

gp_home gp_home_of(const gp_arena *arena, gp_kind kind, size_t segment);
/* The segment that starts at this offset, GP_NONE if none does. */
size_t gp_segment_at(const gp_arena *arena, size_t offset);
/* From GP_RETURNED to GP_INSIDE. */
void gp_arena_take(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment);
/* From GP_INSIDE to GP_RETURNED, for a call that runs on all weights of a listed segment. */
void gp_arena_spread(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                     size_t segment);

/* All values in the whole buffer, to be read; and back into the lists, unless somebody looks. */
void gp_arena_lend(const gp_kernels *kernels, const gp_arena *arena);
void gp_arena_take_back(const gp_kernels *kernels, const gp_arena *arena);
/* The n numbers of a segment: side by side if it is listed, else whole, 0 where removed. */
const float *gp_arena_settled(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, size_t *n);

/* Every member zeroes its share of the removed entries among n of a flat buffer from offset on: the
 * mask is the truth, whatever was written since. */
void gp_arena_enforce(const gp_kernels *kernels, const gp_arena *arena, const gp_team *team,
                      float *flat, size_t offset, size_t n);

#endif
