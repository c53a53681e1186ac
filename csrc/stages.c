/* stages.c - what a stage of clipping does in an optimizer step: it measures blocks, decides, and
 * rewrites blocks.
 *
 * A clipper is a gp_clip_kind with its lines here: in gp_stage_measure, gp_stage_decide and
 * gp_stage_rewrite, and in the questions about kinds where it differs. A factor or limit at the end
 * of the chain is part of the update (optim.c).
 */
#include "stages.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A block of gradients with a smaller norm cannot make a step overflow, whatever the rule. */
#define HARMLESS 1e18

/* ---- what kinds there are -------------------------------------------------------------------- */

int gp_stages_are_good(const gp_arena *arena, const gp_clip *first)
{
    size_t stages = 0, factors = 0;
    for (const gp_clip *clip = first; clip; clip = clip->next) {
        if (clip->kind >= GP_CLIP_KINDS || ++stages > GP_MAX_CLIPS) return 0;
        factors += gp_clip_is_factor(clip) != 0;
        int may_be_0 =
            clip->kind == GP_CLIP_NONE || (clip->kind == GP_CLIP_AUTO && clip->limit == 0.0);
        if (!(clip->limit > 0.0) && !may_be_0) return 0;
        if (clip->kind >= GP_CLIP_NORM && clip->kind <= GP_CLIP_NORM_SEGMENT &&
            !(clip->norm_type > 0.0))
            return 0;
        if (clip->kind == GP_CLIP_AUTO) {
            if (!clip->state || clip->n_state < GP_STATE_HEAD + 2 || !(clip->limit <= 100.0))
                return 0;
            double capacity = (double)((clip->n_state - GP_STATE_HEAD) / 2);
            double count = clip->state[GP_STATE_COUNT], next = clip->state[GP_STATE_NEXT];
            if (!(count >= 0.0 && count <= capacity && next >= 0.0 && next < capacity)) return 0;
        }
        if (clip->kind == GP_CLIP_Z && (!clip->state || clip->n_state != GP_STATE_Z)) return 0;
    }
    if (first->kind == GP_CLIP_NONE && first->next) return 0;
    if (gp_clip_needs_work(first) && !first->work && arena->n) return 0;
    return factors <= 1;
}

int gp_stages_want_rows(const gp_clip *clip)
{
    for (; clip; clip = clip->next)
        if (clip->kind == GP_CLIP_ADAPTIVE || clip->kind == GP_CENTRALIZE) return 1;
    return 0;
}

double gp_stages_norm_type(const gp_clip *clip)
{
    for (; clip; clip = clip->next)
        if (clip->kind >= GP_CLIP_NORM && clip->kind <= GP_CLIP_NORM_SEGMENT)
            return clip->norm_type;
    return 2.0;
}

int gp_stage_is_fused(const gp_step_plan *plan, const gp_clip *clip)
{
    return clip->kind == GP_CLIP_NONE || gp_clip_is_factor(clip) ||
           (clip->kind == GP_CLIP_VALUE && plan->norm_type == 2.0);
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* The mask of a block's entries if some of them may be removed. */
static const uint8_t *mask_of(const gp_step_plan *plan, const gp_block *block)
{
    const size_t at = gp_block_place(plan, block);
    if (plan->arena.removed == 0 || at >= plan->arena.n_prunable) return NULL;
    return gp_live_segment(plan->arena.live, block->segment) ? NULL : plan->arena.mask + at;
}

static double live_entries(const gp_step_plan *plan, const gp_block *block)
{
    const uint8_t *mask = mask_of(plan, block);
    return (double)(mask ? gp_mask_count(block->length, mask) : block->length);
}

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
    const size_t n = block->length;
    if (clip->residual) {
        float *work = plan->clip.work + gp_block_place(plan, block);
        kernels->add(n, g, clip->residual + gp_block_place(plan, block), work);
        g = work;
    }
    switch (clip->kind) {
    case GP_CLIP_ADAPTIVE:
        block->sum = kernels->sum_squares(n, gp_block_values(plan, block));
        break;
    case GP_CENTRALIZE:
        block->sum = kernels->sum(n, g);
        block->count = live_entries(plan, block);
        break;
    case GP_QUANTIZE_SIGN:
    case GP_QUANTIZE_RANDOM:
        block->sum =
            clip->kind == GP_QUANTIZE_SIGN ? kernels->sum_abs(n, g) : kernels->sum_squares(n, g);
        block->count = live_entries(plan, block);
        break;
    case GP_QUANTIZE_NEAREST: block->sum = (double)kernels->max_abs(n, g); break;
    case GP_CLIP_VALUE:
    case GP_INHIBIT:
    case GP_INHIBIT_TANH: {
        int exceeds = (double)kernels->max_abs(n, g) > (double)(float)clip->limit;
        block->exceeds |= exceeds;
        block->after = block->norm;
        if (exceeds && clip->kind == GP_CLIP_VALUE && !clip->next && plan->norm_type == 2.0)
            block->after.sum = kernels->sum_squares_within(n, g, (float)clip->limit);
        break;
    }
    default: break;
    }
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

/* The largest of the blocks' numbers instead of their sum. */
static void take_largest(gp_step_plan *plan)
{
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) unit->sum = 0.0;
    for (const gp_block *block = plan->blocks; block < plan->blocks + plan->n_blocks; block++) {
        gp_unit *unit = &plan->units[block->unit];
        if (block->sum > unit->sum) unit->sum = block->sum;
    }
}

/* Quantization is by parameter, also where units are rows: every row gets the numbers of all. */
static void spread_over_segments(gp_step_plan *plan, int largest)
{
    for (size_t begin = 0, end = 0; begin < plan->n_units; begin = end) {
        double sum = 0.0, count = 0.0;
        for (end = begin;
             end < plan->n_units && plan->units[end].segment == plan->units[begin].segment; end++) {
            const gp_unit *unit = &plan->units[end];
            sum = largest ? fmax(sum, unit->sum) : sum + unit->sum;
            count += unit->count;
        }
        for (size_t i = begin; i < end; i++) plan->units[i].sum = sum, plan->units[i].count = count;
    }
}

/* Brock et al. 2021 */
static double adaptive_factor(const gp_clip *clip, const gp_unit *unit)
{
    double norm = gp_norm_finish(unit->norm, 2.0),
           most = clip->limit * fmax(sqrt(unit->sum), clip->more[0]);
    if (clip->excluded && clip->excluded[unit->segment]) return 1.0;
    return norm >= most ? most / fmax(norm, 1e-6) : 1.0;
}

static void set_factors(gp_step_plan *plan, const gp_clip *clip, gp_partial_norm total)
{
    const gp_partial_norm *segment_norm = plan->norms,
                          *group_norm = plan->norms + plan->arena.n_segments;
    const double p = plan->norm_type, norm = gp_norm_finish(total, p);
    const int by_unit = clip->kind == GP_CLIP_NORM_GROUP || clip->kind == GP_CLIP_NORM_SEGMENT;
    const double factor =
        by_unit || clip->kind == GP_CLIP_ADAPTIVE ? 1.0 : gp_clip_factor(clip, norm);
    const int inhibits = clip->kind == GP_INHIBIT_NORM || clip->kind == GP_INHIBIT_NORM_TANH;
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        const size_t s = unit->segment;
        unit->scale = factor;
        if (clip->kind == GP_CLIP_ADAPTIVE) unit->scale = adaptive_factor(clip, unit);
        if (clip->kind == GP_CLIP_NORM_SEGMENT)
            unit->scale = gp_clip_factor(clip, gp_norm_finish(segment_norm[s], p));
        if (clip->kind == GP_CLIP_NORM_GROUP)
            unit->scale =
                gp_clip_factor(clip, gp_norm_finish(group_norm[plan->arena.segments[s].group], p));
        plan->info.scale = fmin(plan->info.scale, unit->scale);
    }
    plan->info.clipped |= inhibits ? norm > clip->limit : plan->info.scale < 1.0;
    plan->info.norm_after = gp_norm_finish(join_units(plan, 1), p);
}

/* Clipped gradients up to here keep every number of the step within float: the square in a second
 * moment, or what a first moment and the weight add up to. A finite gradient beyond it would leave
 * weights or moments that are not. */
static double largest_step(const gp_rule *rule)
{
    if (rule->kind != GP_SGD) return 1e19;
    return (double)FLT_MAX * fmax(1.0 - rule->momentum, 1e-6) / fmax(2.0 * rule->lr, 1.0);
}

/* What no entry exceeds after clipping, whatever it was; asked before stages adapt, so their limits
 * do not count. */
static double largest_clipped(const gp_clip *clip)
{
    double bound = INFINITY;
    for (; clip; clip = clip->next) {
        switch (clip->kind) {
        case GP_CLIP_VALUE:
        case GP_CLIP_NORM:
        case GP_CLIP_NORM_GROUP:
        case GP_CLIP_NORM_SEGMENT:
        case GP_INHIBIT:
        case GP_INHIBIT_TANH:
        case GP_INHIBIT_NORM:
        case GP_INHIBIT_NORM_TANH: bound = fmin(bound, clip->limit); break;
        default: break;
        }
    }
    return bound;
}

/* Whether something is beyond the rule's limits, or the step would overflow. */
static int explodes(const gp_step_plan *plan)
{
    const double bound = largest_clipped(&plan->clip), most = largest_step(&plan->rule);
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
    gp_partial_norm total = join_units(plan, 0);
    if (clip == &plan->clip) {
        double norm = gp_norm_finish(total, plan->norm_type);
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
    if (gp_clip_is_factor(clip)) set_factors(plan, clip, total);
    if (clip->kind == GP_QUANTIZE_NEAREST) take_largest(plan);
    if (clip->kind >= GP_QUANTIZE_RANDOM)
        spread_over_segments(plan, clip->kind == GP_QUANTIZE_NEAREST);
    if (clip->kind == GP_CLIP_VALUE && !clip->next) gp_stage_settle(plan);
}

/* ---- rewriting ------------------------------------------------------------------------------- */

enum { GP_STREAMS_SHIFT = 56 };
/* One for each stage and step. */
static uint64_t stream_of(const gp_step_plan *plan, size_t stage)
{
    const uint64_t mask = ((uint64_t)1 << GP_STREAMS_SHIFT) - 1;
    return GP_NOISE_STREAMS | (uint64_t)stage << GP_STREAMS_SHIFT | (plan->rule.step & mask);
}

/* Numbers for a block's entries by their place in the arena, however it is run. */
static void draw(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip, size_t stage,
                 uint32_t *words)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    const size_t start = plan->arena.segments[block->segment].offset;
    plan->kernels->random_words(block->length, lists ? lists->flat + block->first : NULL,
                                lists ? start : start + block->first, clip->seed,
                                stream_of(plan, stage), words);
}

/* g times factor; below 2^-126 a float loses digits, so a very small factor is applied in two
 * steps */
static void scale_block(const gp_kernels *kernels, size_t n, float *g, double factor)
{
    if (factor < 1.0) kernels->scale(n, g, (float)(factor < 0x1p-60 ? factor * 0x1p60 : factor));
    if (factor < 0x1p-60) kernels->scale(n, g, 0x1p-60f);
}

static void quantize(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                     size_t stage, const float *g, float *out)
{
    const gp_unit *unit = &plan->units[block->unit];
    float *residual = clip->residual ? clip->residual + gp_block_place(plan, block) : NULL;
    const double s = clip->limit, n = unit->count;
    uint32_t words[GP_NORM_BLOCK];
    if (clip->kind == GP_QUANTIZE_SIGN) {
        plan->kernels->scaled_sign(block->length, g, (float)(unit->sum / fmax(n, 1.0)), out,
                                   residual);
        return;
    }
    const int random = clip->kind == GP_QUANTIZE_RANDOM;
    double step = (random ? sqrt(unit->sum) : unit->sum) / s, size = step;
    /* nothing but zeros and what is lost among them: the residual, if any, keeps it */
    if (step < 0x1p-126) {
        plan->kernels->scaled_sign(block->length, g, 0.0f, out, residual);
        return;
    }
    /* the variance is up to w = min(n / s^2, sqrt(n) / s) times the square: fed back undivided, the
     * error would grow */
    if (random && residual) size /= 1.0 + fmin(n / (s * s), sqrt(n) / s);
    if (random) draw(plan, block, clip, stage, words);
    plan->kernels->quantize(block->length, g, random ? words : NULL,
                            (float)fmin(step, (double)FLT_MAX), (float)fmin(size, (double)FLT_MAX),
                            (float)s, out, residual);
}

void gp_stage_rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                      size_t stage, const float *g, float *out)
{
    const gp_kernels *kernels = plan->kernels;
    const gp_unit *unit = &plan->units[block->unit];
    const size_t n = block->length;
    const uint8_t *mask = mask_of(plan, block);
    uint32_t words[GP_NORM_BLOCK];
    switch (clip->kind) {
    case GP_INHIBIT:
    case GP_INHIBIT_TANH:
        kernels->inhibit(n, g, (float)clip->limit, clip->kind == GP_INHIBIT_TANH, out);
        return;
    case GP_QUANTIZE_RANDOM:
    case GP_QUANTIZE_NEAREST:
    case GP_QUANTIZE_SIGN: quantize(plan, block, clip, stage, g, out); return;
    case GP_CENTRALIZE: /* what is alone in its row has no mean to leave */
        if (!plan->arena.segments[block->segment].columns || unit->count < 2.0) break;
        kernels->subtract(n, g, (float)(unit->sum / unit->count), out);
        if (mask) kernels->mask(n, mask, out);
        return;
    case GP_NOISE:
        draw(plan, block, clip, stage, words);
        kernels->add_normal(n, g, words,
                            (float)sqrt(clip->limit * pow((double)plan->rule.step, -clip->more[0])),
                            out);
        if (mask) kernels->mask(n, mask, out);
        return;
    default: break;
    }
    if (out != g) memcpy(out, g, n * sizeof *out);
    if (gp_clip_is_factor(clip)) scale_block(kernels, n, out, unit->scale);
    if (clip->kind == GP_CLIP_VALUE) kernels->clamp(n, out, (float)clip->limit);
}
