/* clippers.h - what a clipper says about itself, and what it finds in a step.
 *
 * csrc/clippers/<name>.c defines gp_clipper_<name>. The build lists the files of this folder, so a
 * new one needs no line anywhere else; Python finds it by its name in _core.clippers.
 */
#ifndef GP_CLIPPERS_H
#define GP_CLIPPERS_H

#include "plan.h"

#ifndef GP_CLIPPER_LIST
#error "the build must define GP_CLIPPER_LIST as X(name) for every csrc/clippers/<name>.c"
#endif

/* Hooks may be NULL unless it says otherwise.
 *
 * A clipper without `rewrite` is a factor: it scales units (everything, a parameter, a row of W) by
 * numbers made of norms, and has exactly one of `limit`, `factor` and `decide`. A chain has at most
 * one factor. */
struct gp_clipper_ops {
    int wants_rows;     /* units are rows of W, not whole parameters */
    int keeps_residual; /* it may be given a residual, which is added to the gradient it measures */
    /* Whether settings and state can be used with the arena. Must be there. */
    int (*is_valid)(const gp_clip *clip, const gp_arena *arena);
    /* The p of the norms that the step measures and reports; without it 2. */
    double (*norm_type)(const gp_clip *clip);
    /* What no entry exceeds afterwards, whatever the gradient is; without it INFINITY. */
    double (*bound)(const gp_clip *clip);
    /* A limit for entries that the update applies on its way if this is the last stage. */
    double (*clamp)(const gp_clip *clip);

    /* What it has to know of a block of the gradient g that it gets: sum, count, exceeds. The
     * block's norm has been measured. */
    void (*measure)(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g);

    /* Between two passes, one thread; the numbers of blocks have been added up in their units, and
     * plan->norms holds the norms of segments and groups. */
    /* A factor: the norm to which everything is scaled if it is above; INFINITY: as it is. */
    double (*limit)(const gp_clip *clip, double norm);
    /* A factor: the one for everything. Something was beyond a limit if `norm` is above `bound`. */
    double (*factor)(const gp_clip *clip, double norm);
    /* Sets `scale` of every unit, or what `rewrite` is to find in units. */
    void (*decide)(gp_step_plan *plan, const gp_clip *clip, double norm);

    /* The stage, number `stage` of the chain, on a block: from g into out, which may be g. */
    void (*rewrite)(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out);
};

#define X(name) extern const gp_clipper_ops gp_clipper_##name;
GP_CLIPPER_LIST
#undef X

static inline int gp_clipper_is_factor(const gp_clipper_ops *ops) { return !ops->rewrite; }
/* Whether a chain of this one alone needs a second buffer for the gradient. */
static inline int gp_clipper_rewrites(const gp_clipper_ops *ops)
{
    return ops->rewrite && !ops->clamp;
}

/* ---- for the files of clippers (units.c) ----------------------------------------------------- */

/* The mask of a block's entries if some of them may be removed, else NULL. */
const uint8_t *gp_block_mask(const gp_step_plan *plan, const gp_block *block);
/* How many of a block's entries are live. */
double gp_block_live(const gp_step_plan *plan, const gp_block *block);
/* One random word for each entry of a block, by its place in the arena, the step and the stage. */
void gp_block_draw(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                   size_t stage, uint32_t *words);
/* Notes that an entry of a block is beyond the limit, and returns whether one is. */
int gp_block_exceeds(const gp_step_plan *plan, gp_block *block, const float *g, double limit);

/* Of a state, two numbers are there for every clipper: how often it has adapted (0: it starts), and
 * the version; Python writes the version. */
enum { GP_STATE_COUNT, GP_STATE_VERSION, GP_STATE_OWN };
/* The state with which a clipper goes on: one of another version is set to 0 first. */
double *gp_clip_state(const gp_clip *clip);

#endif
