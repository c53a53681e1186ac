/* optim.c - the clipped optimizer step over the flat arena.
 *
 * Two passes: measure (norms by block) and update (clip, weight decay, moments, weight in one
 * kernel). Between them one thread joins the block norms in order and turns them into one factor a
 * unit. Of a removed weight all numbers are 0 before, and so they are afterwards.
 *
 * A chain of clippers has a pass more for every stage that rewrites entries: it rewrites a block
 * into the work buffer and measures there what the next stage has to know. Whether the gradient is
 * finite is found out by the first pass, before anything is remembered; later stages keep finite
 * numbers finite. What the stages compute is in stages.c.
 *
 * Of a listed segment both passes see the live entries only. If they are at home in the whole
 * buffers, they are gathered from there unless the network has done so, and the new values are
 * scattered back.
 */
#include "optim.h"

#include <math.h>
#include <stdlib.h>

#include "denormals.h"
#include "home.h"
#include "rules.h"
#include "stages.h"

static size_t blocks_of(size_t length) { return (length + GP_NORM_BLOCK - 1) / GP_NORM_BLOCK; }

/* Of a segment, those that a step has to do with. */
static size_t entries_of(const gp_arena *arena, size_t segment)
{
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    return lists ? lists->count : arena->segments[segment].length;
}

static int arguments_are_good(const gp_arena *arena, const gp_clip *clip, const gp_rule *rule)
{
    const gp_rule_ops *ops = gp_rule_ops_of(rule);
    if (!ops || !gp_stages_are_good(arena, clip) || arena->n_prunable > arena->n || rule->step == 0)
        return 0;
    for (int i = 0, moments = ops->moments(rule); i < moments; i++)
        if (!arena->moments[i]) return 0;
    for (size_t i = 0; rule->lr_scale && i < arena->n_segments; i++)
        if (!(rule->lr_scale[i] >= 0.0) || !(rule->lr_scale[i] < INFINITY)) return 0;
    size_t end = 0;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const gp_segment *segment = &arena->segments[i];
        if (segment->offset != end || segment->group >= arena->n_segments) return 0;
        if (segment->columns && segment->length % segment->columns) return 0;
        end += segment->length;
        if (segment->offset < arena->n_prunable && end > arena->n_prunable) return 0;
    }
    return end == arena->n;
}

/* ---- units and blocks ------------------------------------------------------------------------ */

static size_t units_of(const gp_step_plan *plan, size_t segment)
{
    const gp_segment *s = &plan->arena.segments[segment];
    if (gp_is_frozen(plan, segment)) return 0;
    return gp_stages_want_rows(&plan->clip) && s->columns ? s->length / s->columns : 1;
}

static gp_unit unit_at(const gp_step_plan *plan, size_t segment, size_t row)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, segment);
    gp_unit unit = {.segment = segment, .length = entries_of(&plan->arena, segment), .scale = 1.0};
    if (units_of(plan, segment) == 1) return unit;
    unit.length = plan->arena.segments[segment].columns;
    unit.first = row * unit.length;
    if (lists) {
        unit.first = lists->row_start[row];
        unit.length = lists->row_start[row + 1] - unit.first;
    }
    return unit;
}

static void cut(gp_step_plan *plan)
{
    gp_unit *unit = plan->units;
    gp_block *block = plan->blocks;
    for (size_t s = 0; s < plan->arena.n_segments; s++) {
        const double entries = (double)entries_of(&plan->arena, s);
        for (size_t row = 0, rows = units_of(plan, s); row < rows; row++, unit++) {
            *unit = unit_at(plan, s, row);
            const size_t end = unit->first + unit->length;
            for (size_t first = unit->first; first < end; first += GP_NORM_BLOCK) {
                size_t length = end - first < GP_NORM_BLOCK ? end - first : GP_NORM_BLOCK;
                *block++ = (gp_block){.unit = (size_t)(unit - plan->units),
                                      .segment = s,
                                      .first = first,
                                      .length = length,
                                      .middle = ((double)first + 0.5 * (double)length) / entries};
            }
        }
    }
}

static gp_update fold(const gp_rule *rule)
{
    gp_update u = {
        .scale = 1.0f,
        .scale_again = 1.0f,
        .limit = INFINITY,
        .l2 = rule->decoupled ? 0.0f : (float)rule->weight_decay,
        .shrink = rule->decoupled ? (float)(1.0 - rule->lr * rule->weight_decay) : 1.0f,
        .eps = (float)rule->eps,
        .nesterov = rule->nesterov,
    };
    gp_rule_ops_of(rule)->fold(rule, &u);
    return u;
}

/* The same of one segment. */
static gp_update fold_segment(const gp_rule *rule, size_t segment)
{
    gp_rule own = *rule;
    if (rule->lr_scale) own.lr *= rule->lr_scale[segment];
    if (rule->undecayed && rule->undecayed[segment]) own.weight_decay = 0.0;
    return fold(&own);
}

gp_status gp_step_plan_create(gp_step_plan *plan, const gp_kernels *kernels, const gp_arena *arena,
                              const gp_clip *clip, const gp_rule *rule, double *segment_norms)
{
    *plan = (gp_step_plan){.kernels = kernels,
                           .arena = *arena,
                           .clip = *clip,
                           .rule = *rule,
                           .segment_norms = segment_norms,
                           .info = {.norm = NAN, .norm_after = NAN, .scale = 1.0}};
    if (!arguments_are_good(arena, clip, rule)) return GP_BAD_ARGUMENT;
    plan->norm_type = gp_stages_norm_type(clip);
    if (!(plan->rule.max_gradient > 0.0)) plan->rule.max_gradient = INFINITY;
    if (!(plan->rule.max_norm > 0.0)) plan->rule.max_norm = INFINITY;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const size_t rows = units_of(plan, i);
        plan->n_units += rows;
        for (size_t row = 0; row < rows; row++)
            plan->n_blocks += blocks_of(unit_at(plan, i, row).length);
    }
    plan->units = malloc((plan->n_units + 1) * sizeof *plan->units);
    plan->blocks = malloc((plan->n_blocks + 1) * sizeof *plan->blocks);
    plan->norms = malloc((2 * arena->n_segments + 1) * sizeof *plan->norms);
    plan->prepared = calloc(arena->n_segments + 1, sizeof *plan->prepared);
    const int tells_apart = rule->undecayed || rule->lr_scale;
    if (tells_apart) plan->updates = malloc((arena->n_segments + 1) * sizeof *plan->updates);
    if (!plan->units || !plan->blocks || !plan->norms || !plan->prepared ||
        (tells_apart && !plan->updates)) {
        gp_step_plan_destroy(plan);
        return GP_NO_MEMORY;
    }
    cut(plan);
    for (size_t i = 0; tells_apart && i < arena->n_segments; i++)
        plan->updates[i] = fold_segment(rule, i);
    return GP_OK;
}

void gp_step_plan_destroy(gp_step_plan *plan)
{
    free(plan->units);
    free(plan->blocks);
    free(plan->norms);
    free(plan->prepared);
    free(plan->updates);
    plan->updates = NULL;
    plan->units = NULL;
    plan->blocks = NULL;
    plan->norms = NULL;
    plan->prepared = NULL;
}

/* Brings a block of a listed segment into its lists unless it is there. */
static void load(const gp_step_plan *plan, const gp_block *block)
{
    const gp_arena *arena = &plan->arena;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    if (!lists || plan->prepared[block->segment]) return;
    const size_t start = arena->segments[block->segment].offset;
    const uint32_t *flat = lists->flat + block->first;
    if (gp_home_of(arena, GP_GRADIENTS, block->segment) != GP_INSIDE)
        plan->kernels->gather(block->length, flat, arena->grads + start,
                              lists->gradient + block->first);
    if (gp_home_of(arena, GP_VALUES, block->segment) != GP_INSIDE)
        plan->kernels->gather(block->length, flat, arena->params + start,
                              lists->value + block->first);
}

/* ---- updating -------------------------------------------------------------------------------- */

static void update(const gp_step_plan *plan, const gp_block *block, const float *g,
                   const gp_update *u)
{
    const gp_arena *arena = &plan->arena;
    const gp_rule_ops *ops = gp_rule_ops_of(&plan->rule);
    const size_t at = gp_block_place(plan, block), n = block->length;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    const int moments = ops->moments(&plan->rule);
    float *w = gp_block_values(plan, block);
    ops->update(plan->kernels, n, w, g, moments > 0 ? arena->moments[0] + at : NULL,
                moments > 1 ? arena->moments[1] + at : NULL, u);
    if (lists && gp_home_of(arena, GP_VALUES, block->segment) != GP_INSIDE)
        plan->kernels->scatter(n, lists->flat + block->first, w,
                               arena->params + arena->segments[block->segment].offset);
}

/* Every segment is cut among the team as the network cuts its rows, so that what a core wrote it
 * reads again. */
static int is_mine(const gp_team *team, const gp_block *block)
{
    return (size_t)(block->middle * (double)team->size) == team->rank;
}

/* The i-th block in an order that turns round with every pass: what the last pass left in the cache
 * comes first. */
static gp_block *block_at(const gp_step_plan *plan, size_t i, int downwards)
{
    return &plan->blocks[downwards ? plan->n_blocks - 1 - i : i];
}

/* Zeros in what the mask removes, whatever was written there from outside, of the segments that
 * nobody has prepared. */
static void enforce(const gp_step_plan *plan, const gp_team *team)
{
    const gp_arena *arena = &plan->arena;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const gp_segment *segment = &arena->segments[i];
        if (plan->prepared[i] || segment->offset >= arena->n_prunable) continue;
        for (int kind = 0; kind < GP_KINDS; kind++) {
            if (gp_home_of(arena, (gp_kind)kind, i) == GP_INSIDE) continue;
            gp_arena_enforce(plan->kernels, arena, team,
                             kind == GP_VALUES ? arena->params : arena->grads, segment->offset,
                             segment->length);
        }
    }
    gp_team_wait(team);
}

/* Of what is frozen, the rule has seen no gradient. */
static void forget_frozen(const gp_step_plan *plan, const gp_team *team)
{
    const gp_arena *arena = &plan->arena;
    if (!plan->clip.keep || team->rank != 0) return;
    for (size_t s = 0; s < arena->n_segments; s++)
        if (gp_is_frozen(plan, s))
            gp_clear(arena->segments[s].length, plan->clip.work + arena->segments[s].offset);
}

/* Where a stage that rewrites finds its gradient: in the work buffer unless it is the first and
 * keeps no residual. */
static const float *input_of(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip)
{
    int is_raw = clip == &plan->clip && !clip->residual;
    return is_raw ? gp_block_gradient(plan, block) : plan->clip.work + gp_block_place(plan, block);
}

/* The last pass over a block: what is left of the clipping, and the rule. */
static void finish(const gp_step_plan *plan, gp_block *block, const gp_clip *last, size_t stage,
                   gp_update u)
{
    float *work = plan->clip.work ? plan->clip.work + gp_block_place(plan, block) : NULL;
    const float *g = input_of(plan, block, last);
    const int fused = gp_stage_is_fused(plan, last);
    if (!fused) {
        gp_stage_rewrite(plan, block, last, stage, g, work);
        block->after = gp_norm_measure(plan->kernels, block->length, work, plan->norm_type);
        g = work;
    } else {
        double scale =
            last->ops && gp_clipper_is_factor(last->ops) ? plan->units[block->unit].scale : 1.0;
        if (last->ops && last->ops->clamp) u.limit = (float)last->ops->clamp(last);
        /* as scale_block in stages.c */
        u.scale = (float)(scale < 0x1p-60 ? scale * 0x1p60 : scale);
        u.scale_again = scale < 0x1p-60 ? 0x1p-60f : 1.0f;
    }
    update(plan, block, g, &u);
    if (fused && plan->clip.keep) gp_stage_rewrite(plan, block, last, stage, g, work);
}

void gp_step_plan_run(gp_step_plan *plan, const gp_team *team)
{
    int downwards = plan->rule.step % 2 == 0;
    const gp_clip *clip = &plan->clip;
    size_t stage = 0;
    enforce(plan, team);
    for (size_t i = 0; i < plan->n_blocks; i++) {
        gp_block *block = block_at(plan, i, downwards);
        if (!is_mine(team, block)) continue;
        load(plan, block);
        gp_stage_measure_raw(plan, block);
        gp_stage_measure(plan, block, clip, gp_block_gradient(plan, block));
    }
    gp_team_wait(team);
    if (team->rank == 0) gp_stage_decide(plan, clip);
    gp_team_wait(team);
    if (!plan->info.applied) return;
    for (; clip->next; clip = clip->next, stage++) {
        downwards = !downwards;
        for (size_t i = 0; i < plan->n_blocks; i++) {
            gp_block *block = block_at(plan, i, downwards);
            if (!is_mine(team, block)) continue;
            float *work = plan->clip.work + gp_block_place(plan, block);
            gp_stage_rewrite(plan, block, clip, stage, input_of(plan, block, clip), work);
            block->norm = gp_norm_measure(plan->kernels, block->length, work, plan->norm_type);
            gp_stage_measure(plan, block, clip->next, work);
        }
        gp_team_wait(team);
        if (team->rank == 0) gp_stage_decide(plan, clip->next);
        gp_team_wait(team);
    }
    forget_frozen(plan, team);
    const gp_update u = fold(&plan->rule);
    for (size_t i = 0; i < plan->n_blocks; i++) {
        gp_block *block = block_at(plan, i, !downwards);
        if (is_mine(team, block))
            finish(plan, block, clip, stage, plan->updates ? plan->updates[block->segment] : u);
    }
    if (gp_stage_is_fused(plan, clip)) return;
    gp_team_wait(team);
    if (team->rank == 0) gp_stage_settle(plan);
}

static void step_task(void *plan, const gp_team *team)
{
    uint64_t mode = gp_denormals_flush();
    gp_step_plan_run(plan, team);
    gp_denormals_restore(mode);
}

gp_status gp_arena_step(gp_pool *pool, const gp_kernels *kernels, const gp_arena *arena,
                        const gp_clip *clip, const gp_rule *rule, gp_step_info *info,
                        double *segment_norms, size_t threads)
{
    gp_step_plan plan;
    gp_status status = gp_step_plan_create(&plan, kernels, arena, clip, rule, segment_norms);
    if (status != GP_OK) return status;
    for (size_t s = 0; s < arena->n_segments; s++)
        for (int kind = 0; kind < GP_KINDS; kind++)
            if (gp_home_of(arena, (gp_kind)kind, s) == GP_RETURNED)
                gp_arena_take(kernels, arena, (gp_kind)kind, s);
    gp_pool_run(pool, threads < plan.n_blocks ? threads : 1, step_task, &plan);
    *info = plan.info;
    gp_step_plan_destroy(&plan);
    return GP_OK;
}

void gp_mask_apply(const gp_kernels *kernels, size_t n_prunable, const uint8_t *mask, float *values)
{
    kernels->mask(n_prunable, mask, values);
}

void gp_statistics_update(const gp_kernels *kernels, size_t n, const float *grads, float *mean,
                          float *mean_square, uint64_t count)
{
    kernels->statistics(n, grads, mean, mean_square, (float)(1.0 / (double)count));
}

void gp_arena_observe(const gp_kernels *kernels, const gp_arena *arena, const float *gradient,
                      float *mean, float *mean_square, uint64_t count)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        const size_t at = arena->segments[s].offset;
        if (at >= arena->n_prunable) break;
        size_t n = entries_of(arena, s);
        const float *g =
            gradient ? gradient + at : gp_arena_settled(kernels, arena, GP_GRADIENTS, s, &n);
        gp_statistics_update(kernels, n, g, mean + at, mean_square + at, count);
    }
}
