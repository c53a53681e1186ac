/* norm.c - the norm of everything, of each layer or of each parameter, scaled down to a limit.
 * Pascanu et al. 2013 */
#include <math.h>

#include "clippers/clippers.h"

enum { LIMIT, NORM_TYPE, OVER };
enum { ALL, GROUP, SEGMENT }; /* OVER: what has one norm */

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    const double over = clip->settings[OVER];
    (void)arena;
    return clip->settings[LIMIT] > 0.0 && clip->settings[NORM_TYPE] > 0.0 &&
           (over == ALL || over == GROUP || over == SEGMENT);
}

static double norm_type(const gp_clip *clip) { return clip->settings[NORM_TYPE]; }
static double bound(const gp_clip *clip) { return clip->settings[LIMIT]; }

static double factor_of(const gp_clip *clip, double norm)
{
    /* a small p overflowed a double */
    return norm < INFINITY ? gp_clip_scale(norm, clip->settings[LIMIT]) : 0.0;
}

static void decide(gp_step_plan *plan, const gp_clip *clip, double norm)
{
    const double p = clip->settings[NORM_TYPE];
    const gp_partial_norm *segments = plan->norms, *groups = segments + plan->arena.n_segments;
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        const size_t s = unit->segment;
        if (clip->settings[OVER] == GROUP)
            norm = gp_norm_finish(groups[plan->arena.segments[s].group], p);
        if (clip->settings[OVER] == SEGMENT) norm = gp_norm_finish(segments[s], p);
        unit->scale = factor_of(clip, norm);
    }
}

const gp_clipper_ops gp_clipper_norm = {
    .is_valid = is_valid, .norm_type = norm_type, .bound = bound, .decide = decide};
