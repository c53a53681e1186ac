/* adagc.c - the norm of each parameter, scaled down to a multiple of the moving mean of its norms
 * as they were clipped. Wang et al. 2025
 *
 * During the warm-up everything is scaled by one factor, to a limit for the norm of everything, and
 * a parameter's mean is its smallest norm so far. The state has one mean a segment. */
#include <math.h>

#include "clippers/clippers.h"

enum { RELATIVE, ABSOLUTE, BETA, WARMUP };
enum { COUNT = GP_STATE_COUNT, MEANS = GP_STATE_OWN };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    const double beta = clip->settings[BETA];
    return clip->settings[RELATIVE] > 0.0 && clip->settings[ABSOLUTE] > 0.0 && beta >= 0.0 &&
           beta < 1.0 && clip->state && clip->n_state == MEANS + arena->n_segments;
}

static void decide(gp_step_plan *plan, const gp_clip *clip, double norm)
{
    double *state = gp_clip_state(clip), *means = state + MEANS;
    const double beta = clip->settings[BETA], relative = clip->settings[RELATIVE];
    const int warms_up = state[COUNT] < clip->settings[WARMUP];
    const double all = gp_clip_scale(norm, clip->settings[ABSOLUTE]);
    gp_unit *unit = plan->units, *end = plan->units + plan->n_units;
    for (size_t s = 0; s < plan->arena.n_segments; s++) {
        const double own = gp_norm_finish(plan->norms[s], 2.0), mean = means[s];
        double scale = all;
        /* a limit of 0 would end the training */
        if (!warms_up) scale = mean > 0.0 ? gp_clip_scale(own, relative * mean) : 1.0;
        for (; unit < end && unit->segment == s; unit++) unit->scale = scale;
        const double seen = own * scale;
        if (!warms_up) means[s] = beta * mean + (1.0 - beta) * seen;
        else means[s] = state[COUNT] > 0.0 ? fmin(mean, seen) : seen;
    }
    state[COUNT] += 1.0;
}

const gp_clipper_ops gp_clipper_adagc = {.is_valid = is_valid, .decide = decide};
