/* optim.c - the clipped optimizer step over the flat arena.
 *
 * Two passes: measure (norms by block) and update (clip, weight decay, moments, weight in one kernel). Between them one
 * thread joins the block norms in order and turns them into one factor a unit. Of a removed weight all numbers are 0
 * before, and so they are afterwards.
 *
 * A chain of clippers has a pass more for every stage that rewrites entries: it rewrites a block into the work buffer
 * and measures there what the next stage has to know. Whether the gradient is finite is found out by the first pass,
 * before anything is remembered; later stages keep finite numbers finite.
 *
 * Of a listed segment both passes see the live entries only: values and gradients are gathered from the whole buffers
 * unless the network has done so, moments are packed, and the new values are scattered back.
 */
#include "optim.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static int clips_are_good(const gp_arena *arena, const gp_clip *first)
{
    size_t stages = 0, factors = 0;
    for (const gp_clip *clip = first; clip; clip = clip->next) {
        if (clip->kind >= GP_CLIP_KINDS || ++stages > GP_MAX_CLIPS) return 0;
        factors += gp_clip_is_factor(clip) != 0;
        int may_be_0 = clip->kind == GP_CLIP_NONE || (clip->kind == GP_CLIP_AUTO && clip->limit == 0.0);
        if (!(clip->limit > 0.0) && !may_be_0) return 0;
        if (clip->kind >= GP_CLIP_NORM && clip->kind <= GP_CLIP_NORM_SEGMENT && !(clip->norm_type > 0.0)) return 0;
        if (clip->kind == GP_CLIP_AUTO) {
            if (!clip->state || clip->n_state < GP_STATE_HEAD + 2 || !(clip->limit <= 100.0)) return 0;
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

static int arguments_are_good(const gp_arena *arena, const gp_clip *clip, const gp_rule *rule)
{
    int moments = moments_needed(rule);
    if (moments < 0 || !clips_are_good(arena, clip) || arena->n_prunable > arena->n || rule->step == 0) return 0;
    for (int i = 0; i < moments; i++)
        if (!arena->moments[i]) return 0;
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

/* ---- units and blocks --------------------------------------------------------------------------------------------- */

static int by_rows(const gp_clip *clip)
{
    for (; clip; clip = clip->next)
        if (clip->kind == GP_CLIP_ADAPTIVE || clip->kind == GP_CENTRALIZE) return 1;
    return 0;
}

static size_t units_of(const gp_step_plan *plan, size_t segment)
{
    const gp_segment *s = &plan->arena.segments[segment];
    return by_rows(&plan->clip) && s->columns ? s->length / s->columns : 1;
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

static double norm_type_of(const gp_clip *clip)
{
    for (; clip; clip = clip->next)
        if (clip->kind >= GP_CLIP_NORM && clip->kind <= GP_CLIP_NORM_SEGMENT) return clip->norm_type;
    return 2.0;
}

gp_status gp_step_plan_create(gp_step_plan *plan, const gp_kernels *kernels, const gp_arena *arena, const gp_clip *clip,
                              const gp_rule *rule, double *segment_norms)
{
    *plan = (gp_step_plan){.kernels = kernels,
                           .arena = *arena,
                           .clip = *clip,
                           .rule = *rule,
                           .segment_norms = segment_norms,
                           .info = {.norm = NAN, .norm_after = NAN, .scale = 1.0}};
    if (!arguments_are_good(arena, clip, rule)) return GP_BAD_ARGUMENT;
    plan->norm_type = norm_type_of(clip);
    if (!(plan->rule.max_gradient > 0.0)) plan->rule.max_gradient = INFINITY;
    if (!(plan->rule.max_norm > 0.0)) plan->rule.max_norm = INFINITY;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const size_t rows = units_of(plan, i);
        plan->n_units += rows;
        for (size_t row = 0; row < rows; row++) plan->n_blocks += blocks_of(unit_at(plan, i, row).length);
    }
    plan->units = malloc((plan->n_units + 1) * sizeof *plan->units);
    plan->blocks = malloc((plan->n_blocks + 1) * sizeof *plan->blocks);
    plan->norms = malloc((2 * arena->n_segments + 1) * sizeof *plan->norms);
    plan->prepared = calloc(arena->n_segments + 1, sizeof *plan->prepared);
    if (!plan->units || !plan->blocks || !plan->norms || !plan->prepared) {
        gp_step_plan_destroy(plan);
        return GP_NO_MEMORY;
    }
    cut(plan);
    return GP_OK;
}

void gp_step_plan_destroy(gp_step_plan *plan)
{
    free(plan->units);
    free(plan->blocks);
    free(plan->norms);
    free(plan->prepared);
    plan->units = NULL;
    plan->blocks = NULL;
    plan->norms = NULL;
    plan->prepared = NULL;
}

/* ---- measuring ------------------------------------------------------------------------------------------------------ */

static size_t place_of(const gp_step_plan *plan, const gp_block *block)
{
    return plan->arena.segments[block->segment].offset + block->first;
}

/* The raw gradient of a block's entries, side by side. */
static float *gradient_of(const gp_step_plan *plan, const gp_block *block)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    return lists ? lists->gradient + block->first : plan->arena.grads + place_of(plan, block);
}

/* Their values. */
static float *values_of(const gp_step_plan *plan, const gp_block *block)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    return lists ? lists->value + block->first : plan->arena.params + place_of(plan, block);
}

/* Brings a block of a listed segment into its lists unless the network has done so. */
static void load(const gp_step_plan *plan, const gp_block *block)
{
    const gp_arena *arena = &plan->arena;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    if (!lists || plan->prepared[block->segment]) return;
    const size_t start = arena->segments[block->segment].offset;
    const uint32_t *flat = lists->flat + block->first;
    plan->kernels->gather(block->length, flat, arena->grads + start, lists->gradient + block->first);
    plan->kernels->gather(block->length, flat, arena->params + start, lists->value + block->first);
}

/* The mask of a block's entries if some of them may be removed. */
static const uint8_t *mask_of(const gp_step_plan *plan, const gp_block *block)
{
    const size_t at = place_of(plan, block);
    if (plan->arena.removed == 0 || at >= plan->arena.n_prunable) return NULL;
    return gp_live_segment(plan->arena.live, block->segment) ? NULL : plan->arena.mask + at;
}

static double live_entries(const gp_step_plan *plan, const gp_block *block)
{
    const uint8_t *mask = mask_of(plan, block);
    size_t count = block->length;
    for (size_t i = 0; mask && i < block->length; i++) count -= mask[i] == 0;
    return (double)count;
}

/* The norm of a block of the raw gradient and, where it matters, its largest entry. */
static void measure_raw(const gp_step_plan *plan, gp_block *block)
{
    const float *g = gradient_of(plan, block);
    block->norm = gp_norm_measure(plan->kernels, block->length, g, plan->norm_type);
    int matters = plan->rule.max_gradient < INFINITY || gp_norm_finish(block->norm, plan->norm_type) > HARMLESS;
    block->largest = matters ? plan->kernels->max_abs(block->length, g) : 0.0f;
}

/* What a stage has to know of a block of the gradient `g` that it gets. */
static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    const gp_kernels *kernels = plan->kernels;
    const size_t n = block->length;
    if (clip->residual) {
        float *work = plan->clip.work + place_of(plan, block);
        kernels->add(n, g, clip->residual + place_of(plan, block), work);
        g = work;
    }
    switch (clip->kind) {
    case GP_CLIP_ADAPTIVE: block->sum = kernels->sum_squares(n, values_of(plan, block)); break;
    case GP_CENTRALIZE:
        block->sum = kernels->sum(n, g);
        block->count = live_entries(plan, block);
        break;
    case GP_QUANTIZE_SIGN:
    case GP_QUANTIZE_RANDOM:
        block->sum = clip->kind == GP_QUANTIZE_SIGN ? kernels->sum_abs(n, g) : kernels->sum_squares(n, g);
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

/* ---- deciding: one thread between two passes ------------------------------------------------------------------------- */

/* The norm of everything from norms of units, which are joined in order, by segment and then by group; `scaled`: each
 * times its factor. */
static gp_partial_norm join_units(gp_step_plan *plan, int scaled)
{
    const gp_arena *arena = &plan->arena;
    const double p = plan->norm_type;
    gp_partial_norm *segment_norm = plan->norms, *group_norm = plan->norms + arena->n_segments;
    gp_partial_norm total = gp_norm_start();
    for (size_t s = 0; s < arena->n_segments; s++) segment_norm[s] = group_norm[s] = gp_norm_start();
    for (const gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        gp_partial_norm *norm = &segment_norm[unit->segment];
        *norm = gp_norm_join(*norm, scaled ? gp_norm_scale(unit->norm, unit->scale) : unit->norm, p);
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
        for (end = begin; end < plan->n_units && plan->units[end].segment == plan->units[begin].segment; end++) {
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
    double norm = gp_norm_finish(unit->norm, 2.0), most = clip->limit * fmax(sqrt(unit->sum), clip->more[0]);
    if (clip->excluded && clip->excluded[unit->segment]) return 1.0;
    return norm >= most ? most / fmax(norm, 1e-6) : 1.0;
}

static void set_factors(gp_step_plan *plan, const gp_clip *clip, gp_partial_norm total)
{
    const gp_partial_norm *segment_norm = plan->norms, *group_norm = plan->norms + plan->arena.n_segments;
    const double p = plan->norm_type, norm = gp_norm_finish(total, p);
    const int by_unit = clip->kind == GP_CLIP_NORM_GROUP || clip->kind == GP_CLIP_NORM_SEGMENT;
    const double factor = by_unit || clip->kind == GP_CLIP_ADAPTIVE ? 1.0 : gp_clip_factor(clip, norm);
    const int inhibits = clip->kind == GP_INHIBIT_NORM || clip->kind == GP_INHIBIT_NORM_TANH;
    for (gp_unit *unit = plan->units; unit < plan->units + plan->n_units; unit++) {
        const size_t s = unit->segment;
        unit->scale = factor;
        if (clip->kind == GP_CLIP_ADAPTIVE) unit->scale = adaptive_factor(clip, unit);
        if (clip->kind == GP_CLIP_NORM_SEGMENT) unit->scale = gp_clip_factor(clip, gp_norm_finish(segment_norm[s], p));
        if (clip->kind == GP_CLIP_NORM_GROUP)
            unit->scale = gp_clip_factor(clip, gp_norm_finish(group_norm[plan->arena.segments[s].group], p));
        plan->info.scale = fmin(plan->info.scale, unit->scale);
    }
    plan->info.clipped |= inhibits ? norm > clip->limit : plan->info.scale < 1.0;
    plan->info.norm_after = gp_norm_finish(join_units(plan, 1), p);
}

/* Clipped gradients up to here keep every number of the step within float: the square in a second moment, or what a
 * first moment and the weight add up to. A finite gradient beyond it would leave weights or moments that are not. */
static double largest_step(const gp_rule *rule)
{
    if (rule->kind != GP_SGD) return 1e19;
    return (double)FLT_MAX * fmax(1.0 - rule->momentum, 1e-6) / fmax(2.0 * rule->lr, 1.0);
}

/* What no entry exceeds after clipping, whatever it was; asked before stages adapt, so their limits do not count. */
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
        if (block->largest > (float)plan->rule.max_gradient || fmin((double)block->largest, bound) > most) return 1;
    return plan->info.norm > plan->rule.max_norm;
}

static void decide(gp_step_plan *plan, const gp_clip *clip, int first)
{
    join_blocks(plan, 0);
    gp_partial_norm total = join_units(plan, 0);
    if (first) {
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
    if (clip->kind >= GP_QUANTIZE_RANDOM) spread_over_segments(plan, clip->kind == GP_QUANTIZE_NEAREST);
    if (clip->kind == GP_CLIP_VALUE && !clip->next) {
        join_blocks(plan, 1);
        plan->info.norm_after = gp_norm_finish(join_units(plan, 0), plan->norm_type);
    }
}

/* ---- rewriting -------------------------------------------------------------------------------------------------------- */

enum { GP_STREAMS_SHIFT = 56 };
/* Apart from the streams of initial weights, pruning, dropout and shuffling; one for each stage and step. */
static uint64_t stream_of(const gp_step_plan *plan, size_t stage)
{
    return (uint64_t)1 << 61 | (uint64_t)stage << GP_STREAMS_SHIFT | plan->rule.step;
}

/* Numbers for a block's entries by their place in the arena, however it is run. */
static void draw(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip, size_t stage, uint32_t *words)
{
    const gp_lists *lists = gp_live_segment(plan->arena.live, block->segment);
    const size_t start = plan->arena.segments[block->segment].offset;
    plan->kernels->random_words(block->length, lists ? lists->flat + block->first : NULL,
                                lists ? start : start + block->first, clip->seed, stream_of(plan, stage), words);
}

/* g times factor; below 2^-126 a float loses digits, so a very small factor is applied in two steps */
static void scale_block(const gp_kernels *kernels, size_t n, float *g, double factor)
{
    if (factor < 1.0) kernels->scale(n, g, (float)(factor < 0x1p-60 ? factor * 0x1p60 : factor));
    if (factor < 0x1p-60) kernels->scale(n, g, 0x1p-60f);
}

static void quantize(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip, size_t stage, const float *g,
                     float *out)
{
    const gp_unit *unit = &plan->units[block->unit];
    float *residual = clip->residual ? clip->residual + place_of(plan, block) : NULL;
    const double s = clip->limit, n = unit->count;
    uint32_t words[GP_NORM_BLOCK];
    if (clip->kind == GP_QUANTIZE_SIGN) {
        plan->kernels->scaled_sign(block->length, g, (float)(unit->sum / fmax(n, 1.0)), out, residual);
        return;
    }
    const int random = clip->kind == GP_QUANTIZE_RANDOM;
    double step = (random ? sqrt(unit->sum) : unit->sum) / s, size = step;
    if (step < 0x1p-126) { /* nothing but zeros and what is lost among them: the residual, if any, keeps it */
        plan->kernels->scaled_sign(block->length, g, 0.0f, out, residual);
        return;
    }
    /* the variance is up to w = min(n / s^2, sqrt(n) / s) times the square: fed back undivided, the error would grow */
    if (random && residual) size /= 1.0 + fmin(n / (s * s), sqrt(n) / s);
    if (random) draw(plan, block, clip, stage, words);
    plan->kernels->quantize(block->length, g, random ? words : NULL, (float)fmin(step, (double)FLT_MAX),
                            (float)fmin(size, (double)FLT_MAX), (float)s, out, residual);
}

/* A stage on a block, from g into out, which may be g. */
static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip, size_t stage, const float *g,
                    float *out)
{
    const gp_kernels *kernels = plan->kernels;
    const gp_unit *unit = &plan->units[block->unit];
    const size_t n = block->length;
    const uint8_t *mask = mask_of(plan, block);
    uint32_t words[GP_NORM_BLOCK];
    switch (clip->kind) {
    case GP_INHIBIT:
    case GP_INHIBIT_TANH: kernels->inhibit(n, g, (float)clip->limit, clip->kind == GP_INHIBIT_TANH, out); return;
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
        kernels->add_normal(n, g, words, (float)sqrt(clip->limit * pow((double)plan->rule.step, -clip->more[0])), out);
        if (mask) kernels->mask(n, mask, out);
        return;
    default: break;
    }
    if (out != g) memcpy(out, g, n * sizeof *out);
    if (gp_clip_is_factor(clip)) scale_block(kernels, n, out, unit->scale);
    if (clip->kind == GP_CLIP_VALUE) kernels->clamp(n, out, (float)clip->limit);
}

/* ---- updating ----------------------------------------------------------------------------------------------------------- */

static gp_update fold(const gp_rule *rule)
{
    double t = (double)rule->step, lr = rule->lr;
    gp_update u = {
        .scale = 1.0f,
        .scale_again = 1.0f,
        .limit = INFINITY,
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

static void update(const gp_step_plan *plan, const gp_block *block, const float *g, const gp_update *u)
{
    const gp_arena *arena = &plan->arena;
    const size_t at = place_of(plan, block), n = block->length;
    const gp_lists *lists = gp_live_segment(arena->live, block->segment);
    float *w = values_of(plan, block);
    float *first = arena->moments[0] ? arena->moments[0] + at : NULL;
    float *second = arena->moments[1] ? arena->moments[1] + at : NULL;
    switch (plan->rule.kind) {
    case GP_SGD: plan->kernels->sgd(n, w, g, plan->rule.momentum != 0.0 ? first : NULL, u); break;
    case GP_ADAM: plan->kernels->adam(n, w, g, first, second, u); break;
    case GP_RMSPROP: plan->kernels->rmsprop(n, w, g, first, plan->rule.momentum != 0.0 ? second : NULL, u); break;
    case GP_RULES: break;
    }
    if (lists)
        plan->kernels->scatter(n, lists->flat + block->first, w,
                               arena->params + arena->segments[block->segment].offset);
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

/* Where a stage that rewrites finds its gradient: in the work buffer unless it is the first and keeps no residual. */
static const float *input_of(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip)
{
    int is_raw = clip == &plan->clip && !clip->residual;
    return is_raw ? gradient_of(plan, block) : plan->clip.work + place_of(plan, block);
}

/* Whether a last stage is part of the update: a factor, or a limit whose norm afterwards is known. */
static int is_fused(const gp_step_plan *plan, const gp_clip *clip)
{
    return clip->kind == GP_CLIP_NONE || gp_clip_is_factor(clip) ||
           (clip->kind == GP_CLIP_VALUE && plan->norm_type == 2.0);
}

/* The last pass over a block: what is left of the clipping, and the rule. */
static void finish(const gp_step_plan *plan, gp_block *block, const gp_clip *last, size_t stage, gp_update u)
{
    float *work = plan->clip.work ? plan->clip.work + place_of(plan, block) : NULL;
    const float *g = input_of(plan, block, last);
    const int fused = is_fused(plan, last);
    if (!fused) {
        rewrite(plan, block, last, stage, g, work);
        block->after = gp_norm_measure(plan->kernels, block->length, work, plan->norm_type);
        g = work;
    } else {
        double scale = gp_clip_is_factor(last) ? plan->units[block->unit].scale : 1.0;
        if (last->kind == GP_CLIP_VALUE) u.limit = (float)last->limit;
        u.scale = (float)(scale < 0x1p-60 ? scale * 0x1p60 : scale); /* as scale_block */
        u.scale_again = scale < 0x1p-60 ? 0x1p-60f : 1.0f;
    }
    update(plan, block, g, &u);
    if (fused && plan->clip.keep) rewrite(plan, block, last, stage, g, work);
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
        measure_raw(plan, block);
        measure(plan, block, clip, gradient_of(plan, block));
    }
    gp_team_wait(team);
    if (team->rank == 0) decide(plan, clip, 1);
    gp_team_wait(team);
    if (!plan->info.applied) return;
    for (; clip->next; clip = clip->next, stage++) {
        downwards = !downwards;
        for (size_t i = 0; i < plan->n_blocks; i++) {
            gp_block *block = block_at(plan, i, downwards);
            if (!is_mine(team, block)) continue;
            float *work = plan->clip.work + place_of(plan, block);
            rewrite(plan, block, clip, stage, input_of(plan, block, clip), work);
            block->norm = gp_norm_measure(plan->kernels, block->length, work, plan->norm_type);
            measure(plan, block, clip->next, work);
        }
        gp_team_wait(team);
        if (team->rank == 0) decide(plan, clip->next, 0);
        gp_team_wait(team);
    }
    const gp_update u = fold(&plan->rule);
    for (size_t i = 0; i < plan->n_blocks; i++) {
        gp_block *block = block_at(plan, i, !downwards);
        if (is_mine(team, block)) finish(plan, block, clip, stage, u);
    }
    if (is_fused(plan, clip)) return;
    gp_team_wait(team);
    if (team->rank != 0) return;
    join_blocks(plan, 1);
    plan->info.norm_after = gp_norm_finish(join_units(plan, 0), plan->norm_type);
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
