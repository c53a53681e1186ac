/* stages.c - the stages of clipping in an optimizer step: what is common to all clippers. What one
 * measures, decides and rewrites is in csrc/clippers/<name>.c. A factor or limit at the end of the
 * chain is part of the update (optim.c).
 */
#include "stages.h"

#include <math.h>
#include <string.h>

#include "rules.h"

/* A block of gradients with a smaller norm cannot make a step overflow, whatever the rule. */
#define HARMLESS 1e18

const gp_clipper_ops *const gp_clippers[] = {
#define X(name) &gp_clipper_##name,
    GP_CLIPPER_LIST
#undef X
};
const char *const gp_clipper_names[] = {
#define X(name) #name,
    GP_CLIPPER_LIST
#undef X
};
const size_t gp_clippers_count = sizeof gp_clippers / sizeof gp_clippers[0];

/* ---- what a chain needs ---------------------------------------------------------------------- */

int gp_stages_are_good(const gp_arena *arena, const gp_clip *first)
{
    size_t stages = 0, factors = 0;
    for (const gp_clip *clip = first; clip && clip->ops; clip = clip->next) {
        if (++stages > GP_MAX_CLIPS || !clip->ops->is_valid(clip, arena)) return 0;
        if (clip->residual && !clip->ops->keeps_residual) return 0;
        if (clip->next && !clip->next->ops) return 0;
        factors += gp_clipper_is_factor(clip->ops) != 0;
    }
    if (!first->ops && first->next) return 0;
    if (gp_clip_needs_work(first) && !first->work && arena->n) return 0;
    return factors <= 1;
}

int gp_clip_needs_work(const gp_clip *clip)
{
    return clip->next || clip->keep || (clip->ops && gp_clipper_rewrites(clip->ops));
}

int gp_stages_want_rows(const gp_clip *clip)
{
    for (; clip && clip->ops; clip = clip->next)
        if (clip->ops->wants_rows) return 1;
    return 0;
}

double gp_stages_norm_type(const gp_clip *clip)
{
    for (; clip && clip->ops; clip = clip->next)
        if (clip->ops->norm_type) return clip->ops->norm_type(clip);
    return 2.0;
}

int gp_stage_is_fused(const gp_step_plan *plan, const gp_clip *clip)
{
    return !clip->ops || gp_clipper_is_factor(clip->ops) ||
           (clip->ops->clamp && plan->norm_type == 2.0);
}

/* ---- measuring ------------------------------------------------------------------------------- */

void gp_stage_measure_raw(const gp_step_plan *plan, gp_block *block)
{
    const float *g = gp_block_gradient(plan, block);
    block->norm = gp_norm_measure(plan->kernels, block->length, g, plan->norm_type);
    int matters = plan->rule.max_gradient < INFINITY ||
                  gp_norm_finish(block->norm, plan->norm_type) > HARMLESS;
    block->largest = matters ? plan->kernels->max_abs(block->length, g) : 0.0f;
}

void gp_stage_measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip,
                      const float *g)
{
    const gp_kernels *kernels = plan->kernels;
    if (clip->residual) {
        float *work = plan->clip.work + gp_block_place(plan, block);
        kernels->add(block->length, g, clip->residual + gp_block_place(plan, block), work);
        g = work;
    }
    if (clip->ops && clip->ops->measure) clip->ops->measure(plan, block, clip, g);
}

/* ---- deciding: one thread between two passes ------------------------------------------------- */

/* The norm of everything from norms of units, which are joined in order, by segment and then by
 * group; `scaled`: each times its factor. */
static gp_partial_norm join_units(gp_step_plan *plan, int scaled)
{
    const gp_arena *arena = &plan->arena;
    const double p = plan->norm_type;
    gp_partial_norm *segment_norm = plan->norms, *group_norm = plan->norms + arena->n_segments;
    gp_partial_norm total = gp_norm_start();
    for (size_t s = 0; s < arena->n_segments; s++)
        segment_norm[s] = group_norm[s] = gp_norm_start();
    for (const gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        gp_partial_norm *norm = &segment_norm[unit->segment];
        *norm =
            gp_norm_join(*norm, scaled ? gp_norm_scale(unit->norm, unit->scale) : unit->norm, p);
    }
    for (size_t s = 0; s < arena->n_segments; s++) {
        gp_partial_norm *group = &group_norm[arena->segments[s].group];
        *group = gp_norm_join(*group, segment_norm[s], p);
        total = gp_norm_join(total, segment_norm[s], p);
    }
    return total;
}

static void join_blocks(gp_step_plan *plan, int after)
{
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        unit->norm = gp_norm_start();
        unit->sum = unit->count = 0.0;
    }
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++) {
        gp_unit *unit = &plan->units[block->unit];
        unit->norm = gp_norm_join(unit->norm, after ? block->after : block->norm, plan->norm_type);
        unit->sum += block->sum;
        unit->count += block->count;
    }
}

static void set_factors(gp_step_plan *plan, const gp_clip *clip, double norm)
{
    const gp_clipper_ops *ops = clip->ops;
    if (ops->decide) {
        ops->decide(plan, clip, norm);
    } else {
        const double factor =
            ops->limit ? gp_clip_scale(norm, ops->limit(clip, norm)) : ops->factor(clip, norm);
        for (size_t i = 0; i < plan->n_units; i++) plan->units[i].scale = factor;
    }
    for (size_t i = 0; i < plan->n_units; i++)
        plan->info.scale = fmin(plan->info.scale, plan->units[i].scale);
    /* a smooth factor is below 1 for any norm */
    plan->info.clipped |= ops->factor ? norm > ops->bound(clip) : plan->info.scale < 1.0;
    plan->info.norm_after = gp_norm_finish(join_units(plan, 1), plan->norm_type);
}

/* What no entry exceeds after clipping, whatever it was; asked before stages adapt, so their limits
 * do not count. */
static double largest_clipped(const gp_clip *clip)
{
    double bound = INFINITY;
    for (; clip && clip->ops; clip = clip->next)
        if (clip->ops->bound) bound = fmin(bound, clip->ops->bound(clip));
    return bound;
}

/* Whether something is beyond the rule's limits, or the step would overflow. */
static int explodes(const gp_step_plan *plan)
{
    gp_rule rule = plan->rule;
    for (size_t s = 0; rule.lr_scale && s < plan->arena.n_segments; s++)
        rule.lr = fmax(rule.lr, plan->rule.lr * rule.lr_scale[s]);
    const double bound = largest_clipped(&plan->clip),
                 most = gp_rule_ops_of(&rule)->largest_gradient(&rule);
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++)
        if (block->largest > (float)plan->rule.max_gradient ||
            fmin((double)block->largest, bound) > most)
            return 1;
    return plan->info.norm > plan->rule.max_norm;
}

void gp_stage_settle(gp_step_plan *plan)
{
    join_blocks(plan, 1);
    plan->info.norm_after = gp_norm_finish(join_units(plan, 0), plan->norm_type);
}

void gp_stage_decide(gp_step_plan *plan, const gp_clip *clip)
{
    join_blocks(plan, 0);
    const double norm = gp_norm_finish(join_units(plan, 0), plan->norm_type);
    if (clip == &plan->clip) {
        plan->info = (gp_step_info){.norm = norm, .norm_after = norm, .scale = 1.0};
        plan->info.applied = isfinite(norm) && !explodes(plan);
        for (size_t s = 0; plan->segment_norms && s < plan->arena.n_segments; s++)
            plan->segment_norms[s] = gp_norm_finish(plan->norms[s], plan->norm_type);
        if (!plan->info.applied) {
            plan->info.norm_after = NAN;
            return;
        }
    }
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++)
        plan->info.clipped |= block->exceeds;
    if (!clip->ops) return;
    if (gp_clipper_is_factor(clip->ops)) set_factors(plan, clip, norm);
    else if (clip->ops->decide) clip->ops->decide(plan, clip, norm);
    if (clip->ops->clamp && !clip->next) gp_stage_settle(plan);
}

/* ---- rewriting ------------------------------------------------------------------------------- */

/* g times factor; below 2^-126 a float loses digits, so a very small factor is applied in two
 * steps */
static void scale_block(const gp_kernels *kernels, size_t n, float *g, double factor)
{
    if (factor < 1.0) kernels->scale(n, g, (float)(factor < 0x1p-60 ? factor * 0x1p60 : factor));
    if (factor < 0x1p-60) kernels->scale(n, g, 0x1p-60f);
}

void gp_stage_rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                      size_t stage, const float *g, float *out)
{
    if (clip->ops && clip->ops->rewrite) {
        clip->ops->rewrite(plan, block, clip, stage, g, out);
        return;
    }
    if (out != g) memcpy(out, g, block->length * sizeof *out);
    if (clip->ops) scale_block(plan->kernels, block->length, out, plan->units[block->unit].scale);
}
