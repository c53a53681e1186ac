/* optim.c - the clipped optimizer step over the flat arena.
 *
 * Two passes: measure (norms by block) and update (clip, weight decay, moments, weight in one kernel). Between them one
 * thread joins the block norms in order and turns them into one factor a group. Of a removed weight all numbers are 0
 * before, and so they are afterwards.
 *
 * Of a listed segment both passes see the live entries only: values and gradients are gathered from the whole buffers
 * unless the network has done so, moments are packed, and the new values are scattered back.
 */
#include "optim.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "denormals.h"

/* A block of gradients with a smaller norm cannot make a step overflow, whatever the rule. */
#define HARMLESS 1e18

static size_t blocks_of(size_t length) { return (length + GP_NORM_BLOCK - 1) / GP_NORM_BLOCK; }

/* Of a segment, those that a step has to do with. */
static size_t entries_of(const gp_arena *arena, size_t segment)
{
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    return lists ? lists->count : arena->segments[segment].length;
}

static int moments_needed(const gp_rule *rule)
{
    switch (rule->kind) {
    case GP_SGD: return rule->momentum != 0.0 ? 1 : 0;
    case GP_ADAM: return 2;
    case GP_RMSPROP: return rule->momentum != 0.0 ? 2 : 1;
    case GP_RULES: break;
    }
    return -1;
}

static int arguments_are_good(const gp_arena *arena, const gp_clip *clip, const gp_rule *rule)
{
    int moments = moments_needed(rule);
    if (moments < 0 || clip->kind >= GP_CLIP_KINDS || arena->n_prunable > arena->n || rule->step == 0) return 0;
    for (int i = 0; i < moments; i++)
        if (!arena->moments[i]) return 0;
    if (clip->kind != GP_CLIP_NONE && !(clip->limit > 0.0)) return 0;
    if (clip->kind >= GP_CLIP_NORM && !(clip->norm_type > 0.0)) return 0;
    size_t end = 0;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const gp_segment *segment = &arena->segments[i];
        if (segment->offset != end || segment->group >= arena->n_segments) return 0;
        end += segment->length;
        if (segment->offset < arena->n_prunable && end > arena->n_prunable) return 0;
    }
    return end == arena->n;
}

gp_status gp_step_plan_create(gp_step_plan *plan, const gp_kernels *kernels, const gp_arena *arena, const gp_clip *clip,
                              const gp_rule *rule, double *segment_norms)
{
    *plan = (gp_step_plan){.kernels = kernels,
                           .arena = *arena,
                           .clip = *clip,
                           .rule = *rule,
                           .segment_norms = segment_norms,
                           .info = {.norm = NAN, .scale = 1.0}};
    if (!arguments_are_good(arena, clip, rule)) return GP_BAD_ARGUMENT;
    if (plan->clip.kind < GP_CLIP_NORM) plan->clip.norm_type = 2.0;
    if (!(plan->rule.max_gradient > 0.0)) plan->rule.max_gradient = INFINITY;
    if (!(plan->rule.max_norm > 0.0)) plan->rule.max_norm = INFINITY;
    for (size_t i = 0; i < arena->n_segments; i++) plan->n_blocks += blocks_of(entries_of(arena, i));
    plan->blocks = malloc((plan->n_blocks + 1) * sizeof *plan->blocks);
    plan->norms = malloc((2 * arena->n_segments + 1) * sizeof *plan->norms);
    plan->scales = malloc((arena->n_segments + 1) * sizeof *plan->scales);
    plan->prepared = calloc(arena->n_segments + 1, sizeof *plan->prepared);
    if (!plan->blocks || !plan->norms || !plan->scales || !plan->prepared) {
        gp_step_plan_destroy(plan);
        return GP_NO_MEMORY;
    }
    gp_block *block = plan->blocks;
    for (size_t i = 0; i < arena->n_segments; i++) {
        size_t entries = entries_of(arena, i);
        for (size_t first = 0; first < entries; first += GP_NORM_BLOCK) {
            size_t left = entries - first, length = left < GP_NORM_BLOCK ? left : GP_NORM_BLOCK;
            double middle = ((double)first + 0.5 * (double)length) / (double)entries;
            *block++ = (gp_block){.segment = i, .first = first, .length = length, .middle = middle};
        }
    }
    return GP_OK;
}

void gp_step_plan_destroy(gp_step_plan *plan)
{
    free(plan->blocks);
    free(plan->norms);
    free(plan->scales);
    free(plan->prepared);
    plan->blocks = NULL;
    plan->norms = NULL;
    plan->scales = NULL;
    plan->prepared = NULL;
}

/* The gradient of a block's entries, side by side. */
static const float *gradient_of(const gp_step_plan *plan, const gp_block *block)
{
    const gp_arena *arena = &plan->arena;
    const float *whole = arena->grads + arena->segments[block->segment].offset;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    if (!lists) return whole + block->first;
    float *live = lists->gradient + block->first;
    if (!plan->prepared[block->segment]) plan->kernels->gather(block->length, lists->flat + block->first, whole, live);
    return live;
}

static void measure(gp_step_plan *plan, gp_block *block)
{
    const float *grads = gradient_of(plan, block);
    block->norm = gp_norm_measure(plan->kernels, block->length, grads, plan->clip.norm_type);
    block->exceeds = plan->clip.kind == GP_CLIP_VALUE &&
                     (double)plan->kernels->max_abs(block->length, grads) > (double)(float)plan->clip.limit;
    int is_looked_at =
        plan->rule.max_gradient < INFINITY || gp_norm_finish(block->norm, plan->clip.norm_type) > HARMLESS;
    block->largest = is_looked_at ? plan->kernels->max_abs(block->length, grads) : 0.0f;
}

/* Clipped gradients up to here keep every number of the step within float: the square in a second moment, or what a
 * first moment and the weight add up to. A finite gradient beyond it would leave weights or moments that are not. */
static double largest_step(const gp_rule *rule)
{
    if (rule->kind != GP_SGD) return 1e19;
    return (double)FLT_MAX * fmax(1.0 - rule->momentum, 1e-6) / fmax(2.0 * rule->lr, 1.0);
}

/* Whether an entry is beyond the rule's limit, or the step would overflow. Scales are decided. */
static int explodes(const gp_step_plan *plan)
{
    const double value_limit = plan->clip.kind == GP_CLIP_VALUE ? plan->clip.limit : INFINITY;
    const double most = largest_step(&plan->rule);
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++)
        if (block->largest > (float)plan->rule.max_gradient ||
            fmin((double)block->largest * plan->scales[block->segment], value_limit) > most)
            return 1;
    return plan->info.norm > plan->rule.max_norm;
}

/* Joins the block norms in order and sets one factor a segment. */
static void decide(gp_step_plan *plan)
{
    const gp_arena *arena = &plan->arena;
    const double p = plan->clip.norm_type;
    gp_partial_norm *segment_norm = plan->norms, *group_norm = plan->norms + arena->n_segments;
    gp_partial_norm total = gp_norm_start();
    int exceeds = 0;
    for (size_t s = 0; s < arena->n_segments; s++) segment_norm[s] = group_norm[s] = gp_norm_start();
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++) {
        gp_partial_norm *norm = &segment_norm[block->segment];
        *norm = gp_norm_join(*norm, block->norm, p);
        exceeds |= block->exceeds;
    }
    for (size_t s = 0; s < arena->n_segments; s++) {
        gp_partial_norm *group = &group_norm[arena->segments[s].group];
        *group = gp_norm_join(*group, segment_norm[s], p);
        total = gp_norm_join(total, segment_norm[s], p);
        if (plan->segment_norms) plan->segment_norms[s] = gp_norm_finish(segment_norm[s], p);
    }
    plan->info = (gp_step_info){.norm = gp_norm_finish(total, p), .scale = 1.0};
    for (size_t s = 0; s < arena->n_segments; s++) {
        double scale = 1.0;
        switch (plan->clip.kind) {
        case GP_CLIP_NORM: scale = gp_clip_scale(plan->info.norm, plan->clip.limit); break;
        case GP_CLIP_NORM_GROUP:
            scale = gp_clip_scale(gp_norm_finish(group_norm[arena->segments[s].group], p), plan->clip.limit);
            break;
        case GP_CLIP_NORM_SEGMENT: scale = gp_clip_scale(gp_norm_finish(segment_norm[s], p), plan->clip.limit); break;
        case GP_CLIP_NONE:
        case GP_CLIP_VALUE:
        case GP_CLIP_KINDS: break;
        }
        if (scale < plan->info.scale) plan->info.scale = scale;
        plan->scales[s] = scale;
    }
    plan->info.clipped = exceeds || plan->info.scale < 1.0;
    plan->info.applied = isfinite(plan->info.norm) && !explodes(plan);
}

static gp_update fold(const gp_clip *clip, const gp_rule *rule)
{
    double t = (double)rule->step, lr = rule->lr;
    gp_update u = {
        .scale = 1.0f,
        .scale_again = 1.0f,
        .limit = clip->kind == GP_CLIP_VALUE ? (float)clip->limit : INFINITY,
        .l2 = rule->decoupled ? 0.0f : (float)rule->weight_decay,
        .shrink = rule->decoupled ? (float)(1.0 - lr * rule->weight_decay) : 1.0f,
        .eps = (float)rule->eps,
        .nesterov = rule->nesterov,
    };
    switch (rule->kind) {
    case GP_SGD:
        u.beta1 = (float)rule->momentum;
        u.gain1 = rule->step == 1 ? 1.0f : (float)(1.0 - rule->dampening); /* torch: the buffer starts as g */
        break;
    case GP_ADAM:
        u.beta1 = (float)rule->beta1;
        u.beta2 = (float)rule->beta2;
        u.gain1 = (float)(1.0 - rule->beta1);
        u.gain2 = (float)(1.0 - rule->beta2);
        u.correction2 = (float)(1.0 / sqrt(1.0 - pow(rule->beta2, t)));
        lr /= 1.0 - pow(rule->beta1, t);
        break;
    case GP_RMSPROP:
        u.beta1 = (float)rule->momentum;
        u.beta2 = (float)rule->beta2;
        u.gain2 = (float)(1.0 - rule->beta2);
        break;
    case GP_RULES: break;
    }
    u.lr = (float)lr;
    return u;
}

static void update(const gp_step_plan *plan, const gp_block *block, const gp_update *u)
{
    const gp_arena *arena = &plan->arena;
    size_t start = arena->segments[block->segment].offset, at = start + block->first, n = block->length;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    float *w = lists ? lists->value + block->first : arena->params + at;
    float *g = lists ? lists->gradient + block->first : arena->grads + at;
    float *first = arena->moments[0] ? arena->moments[0] + at : NULL;
    float *second = arena->moments[1] ? arena->moments[1] + at : NULL;
    if (lists && !plan->prepared[block->segment])
        plan->kernels->gather(n, lists->flat + block->first, arena->params + start, w);
    switch (plan->rule.kind) {
    case GP_SGD: plan->kernels->sgd(n, w, g, plan->rule.momentum != 0.0 ? first : NULL, u); break;
    case GP_ADAM: plan->kernels->adam(n, w, g, first, second, u); break;
    case GP_RMSPROP: plan->kernels->rmsprop(n, w, g, first, plan->rule.momentum != 0.0 ? second : NULL, u); break;
    case GP_RULES: break;
    }
    if (lists) plan->kernels->scatter(n, lists->flat + block->first, w, arena->params + start);
}

/* Every segment is cut among the team as the network cuts its rows, so that what a core wrote it reads again. */
static int is_mine(const gp_team *team, const gp_block *block)
{
    return (size_t)(block->middle * (double)team->size) == team->rank;
}

/* The i-th block in an order that turns round with every pass: what the last pass left in the cache comes first. */
static gp_block *block_at(const gp_step_plan *plan, size_t i, int downwards)
{
    return &plan->blocks[downwards ? plan->n_blocks - 1 - i : i];
}

/* Zeros in what the mask removes, whatever was written there, of the segments that nobody has prepared. */
static void enforce(const gp_step_plan *plan, const gp_team *team)
{
    const gp_arena *arena = &plan->arena;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const gp_segment *segment = &arena->segments[i];
        if (plan->prepared[i] || segment->offset >= arena->n_prunable) continue;
        gp_arena_enforce(plan->kernels, arena, team, arena->params, segment->offset, segment->length);
        gp_arena_enforce(plan->kernels, arena, team, arena->grads, segment->offset, segment->length);
    }
    gp_team_wait(team);
}

void gp_step_plan_run(gp_step_plan *plan, const gp_team *team)
{
    const int downwards = plan->rule.step % 2 == 0;
    enforce(plan, team);
    for (size_t i = 0; i < plan->n_blocks; i++) {
        gp_block *block = block_at(plan, i, downwards);
        if (is_mine(team, block)) measure(plan, block);
    }
    gp_team_wait(team);
    if (team->rank == 0) decide(plan);
    gp_team_wait(team);
    if (!plan->info.applied) return;
    gp_update u = fold(&plan->clip, &plan->rule);
    for (size_t i = 0; i < plan->n_blocks; i++) {
        const gp_block *block = block_at(plan, i, !downwards);
        if (!is_mine(team, block)) continue;
        double scale = plan->scales[block->segment];
        /* below 2^-126 a float loses digits, so a very small factor is applied in two steps */
        u.scale = (float)(scale < 0x1p-60 ? scale * 0x1p60 : scale);
        u.scale_again = scale < 0x1p-60 ? 0x1p-60f : 1.0f;
        update(plan, block, &u);
    }
}

static void step_task(void *plan, const gp_team *team)
{
    uint64_t mode = gp_denormals_flush();
    gp_step_plan_run(plan, team);
    gp_denormals_restore(mode);
}

gp_status gp_arena_step(gp_pool *pool, const gp_kernels *kernels, const gp_arena *arena, const gp_clip *clip,
                        const gp_rule *rule, gp_step_info *info, double *segment_norms, size_t threads)
{
    gp_step_plan plan;
    gp_status status = gp_step_plan_create(&plan, kernels, arena, clip, rule, segment_norms);
    if (status != GP_OK) return status;
    gp_live_publish(arena);
    gp_pool_run(pool, threads < plan.n_blocks ? threads : 1, step_task, &plan);
    *info = plan.info;
    gp_step_plan_destroy(&plan);
    return GP_OK;
}

void gp_arena_enforce(const gp_kernels *kernels, const gp_arena *arena, const gp_team *team, float *flat, size_t offset,
                      size_t n)
{
    size_t begin, end;
    gp_team_share(team, n, &begin, &end);
    if (arena->removed == 0) return;
    const uint8_t *mask = arena->mask + offset + begin;
    float *values = flat + offset + begin;
    /* reading is cheaper than writing, and there is hardly ever anything to write */
    if (!kernels->is_masked(end - begin, mask, values)) kernels->mask(end - begin, mask, values);
}

void gp_mask_apply(const gp_kernels *kernels, size_t n_prunable, const uint8_t *mask, float *values)
{
    kernels->mask(n_prunable, mask, values);
}

void gp_statistics_update(const gp_kernels *kernels, size_t n, const float *grads, float *mean, float *mean_square,
                          uint64_t count)
{
    kernels->statistics(n, grads, mean, mean_square, (float)(1.0 / (double)count));
}
