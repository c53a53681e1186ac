/* clip.h - norms in pieces, so that threads can measure blocks and one of them can join the results
 * in order. */
#ifndef GP_CLIP_H
#define GP_CLIP_H

#include "gradprune.h"

enum { GP_NORM_BLOCK = 1024 }; /* fixed: the order of additions must not depend on threads */

/* norm^p = unit^p * sum; for p = infinity the norm is unit * sum with sum = 1 (or what is not
 * finite). */
typedef struct gp_partial_norm {
    double unit, sum;
} gp_partial_norm;

gp_partial_norm gp_norm_start(void);
gp_partial_norm gp_norm_measure(const gp_kernels *kernels, size_t n, const float *values,
                                double norm_type);
gp_partial_norm gp_norm_join(gp_partial_norm a, gp_partial_norm b, double norm_type);
double gp_norm_finish(gp_partial_norm norm, double norm_type);
/* The norm of everything times factor >= 0. */
gp_partial_norm gp_norm_scale(gp_partial_norm norm, double factor);

#endif
