/* zclip.c - the norm of everything, scaled down if its z-score among the recent ones is an
 * outlier's. Kumar et al. 2025, reciprocal */
#include <math.h>

#include "clippers/clippers.h"

enum { Z, ALPHA, WARMUP };
/* VARIANCE: during the warm-up the sum of squared deviations */
enum { COUNT = GP_STATE_COUNT, MEAN = GP_STATE_OWN, VARIANCE, NUMBERS };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[Z] > 0.0 && clip->state && clip->n_state == NUMBERS;
}

static double limit(const gp_clip *clip, double norm)
{
    double *state = gp_clip_state(clip);
    const double z = clip->settings[Z], alpha = clip->settings[ALPHA],
                 warmup = clip->settings[WARMUP];
    double *count = state + COUNT, *mean = state + MEAN, *variance = state + VARIANCE;
    double most = INFINITY;
    if (*count < warmup) {
        double deviation = norm - *mean;
        *count += 1.0;
        *mean += deviation / *count;
        *variance += deviation * (norm - *mean);
        if (*count >= warmup) *variance /= *count;
        return INFINITY;
    }
    double sigma = sqrt(*variance), score = (norm - *mean) / (sigma + 1e-6);
    if (score > z && *mean > 0.0) most = *mean + z * sigma * (z / score);
    double seen = most < norm ? most : norm;
    *mean = alpha * *mean + (1.0 - alpha) * seen;
    *variance = alpha * *variance + (1.0 - alpha) * (seen - *mean) * (seen - *mean);
    return most;
}

const gp_clipper_ops gp_clipper_zclip = {.is_valid = is_valid, .limit = limit};
