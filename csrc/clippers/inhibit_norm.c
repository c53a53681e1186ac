/* inhibit_norm.c - the norm n of everything becomes c n / (c + n), or c tanh(n / c). */
#include <math.h>

#include "clippers/clippers.h"

enum { LIMIT, IS_TANH };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[LIMIT] > 0.0;
}

static double bound(const gp_clip *clip) { return clip->settings[LIMIT]; }

static double factor(const gp_clip *clip, double norm)
{
    const double c = clip->settings[LIMIT];
    if (clip->settings[IS_TANH] != 0.0)
        return norm > 0.0 ? fmin(c * tanh(norm / c) / norm, 1.0) : 1.0;
    return norm > c ? (c / norm) / (1.0 + c / norm) : 1.0 / (1.0 + norm / c);
}

const gp_clipper_ops gp_clipper_inhibit_norm = {
    .is_valid = is_valid, .bound = bound, .factor = factor};
