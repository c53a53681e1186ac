/* quantize.c - entries on few levels, parameter by parameter.
 *
 * At random and without bias, on `steps` levels of the norm (Alistarh et al. 2017); on the nearest
 * of `steps` levels of the largest entry; or as sign times the mean magnitude (Karimireddy et al.
 * 2019). What quantization took away stays in the residual, if there is one. */
#include <float.h>
#include <math.h>

#include "clippers/clippers.h"

enum { FORM, STEPS };
enum { RANDOM, NEAREST, SIGN }; /* FORM */

static int form_of(const gp_clip *clip) { return (int)clip->settings[FORM]; }

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    const double form = clip->settings[FORM];
    (void)arena;
    return clip->settings[STEPS] > 0.0 && (form == RANDOM || form == NEAREST || form == SIGN);
}

static void measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip, const float *g)
{
    const gp_kernels *kernels = plan->kernels;
    const size_t n = block->length;
    if (form_of(clip) == NEAREST) {
        block->sum = (double)kernels->max_abs(n, g);
        return;
    }
    block->sum = form_of(clip) == SIGN ? kernels->sum_abs(n, g) : kernels->sum_squares(n, g);
    block->count = gp_block_live(plan, block);
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
static void decide(gp_step_plan *plan, const gp_clip *clip, double norm)
{
    const int largest = form_of(clip) == NEAREST;
    (void)norm;
    if (largest) take_largest(plan);
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

static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out)
{
    const gp_unit *unit = &plan->units[block->unit];
    float *residual = clip->residual ? clip->residual + gp_block_place(plan, block) : NULL;
    const double s = clip->settings[STEPS], n = unit->count;
    uint32_t words[GP_NORM_BLOCK];
    if (form_of(clip) == SIGN) {
        plan->kernels->scaled_sign(block->length, g, (float)(unit->sum / fmax(n, 1.0)), out,
                                   residual);
        return;
    }
    const int random = form_of(clip) == RANDOM;
    double step = (random ? sqrt(unit->sum) : unit->sum) / s, size = step;
    /* nothing but zeros and what is lost among them: the residual, if any, keeps it */
    if (step < 0x1p-126) {
        plan->kernels->scaled_sign(block->length, g, 0.0f, out, residual);
        return;
    }
    /* the variance is up to w = min(n / s^2, sqrt(n) / s) times the square: fed back undivided, the
     * error would grow */
    if (random && residual) size /= 1.0 + fmin(n / (s * s), sqrt(n) / s);
    if (random) gp_block_draw(plan, block, clip, stage, words);
    plan->kernels->quantize(block->length, g, random ? words : NULL,
                            (float)fmin(step, (double)FLT_MAX), (float)fmin(size, (double)FLT_MAX),
                            (float)s, out, residual);
}

const gp_clipper_ops gp_clipper_quantize = {
    .keeps_residual = 1,
    .is_valid = is_valid,
    .measure = measure,
    .decide = decide,
    .rewrite = rewrite,
};
