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

/* What adaptive clippers remember: numbers of a double array. GP_CLIP_AUTO has its capacity of
 * norms behind the head, in a ring in the order they came, and as many sorted; it forgets the
 * oldest when it is full. */
enum {
    GP_STATE_COUNT,
    GP_STATE_VERSION,
    GP_STATE_NEXT, /* GP_CLIP_AUTO: where in the ring the next norm goes */
    GP_STATE_HEAD,
    GP_STATE_MEAN = 2, /* GP_CLIP_Z */
    GP_STATE_VARIANCE, /* during the warm-up the sum of squared deviations */
    GP_STATE_Z
};

/* The limit for a norm, finite, by the norms before it; it is taken in. INFINITY: no limit. */
double gp_clip_adapt(const gp_clip *clip, double norm);
/* The factor of a stage of one of the factor kinds but GP_CLIP_ADAPTIVE. */
double gp_clip_factor(const gp_clip *clip, double norm);

static inline int gp_clip_is_factor(const gp_clip *clip)
{
    return clip->kind >= GP_CLIP_NORM && clip->kind <= GP_INHIBIT_NORM_TANH;
}

#endif
