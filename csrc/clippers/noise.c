/* noise.c - normal noise on every live entry, of variance eta / (1 + t)^gamma at step t from 0.
 * Neelakantan et al. 2015 */
#include <math.h>

#include "clippers/clippers.h"

enum { ETA, GAMMA };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    return clip->settings[ETA] > 0.0;
}

static void rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                    size_t stage, const float *g, float *out)
{
    uint32_t words[GP_NORM_BLOCK];
    const uint8_t *mask = gp_block_mask(plan, block);
    const double fading = pow((double)plan->rule.step, -clip->settings[GAMMA]);
    gp_block_draw(plan, block, clip, stage, words);
    plan->kernels->add_normal(block->length, g, words, (float)sqrt(clip->settings[ETA] * fading),
                              out);
    if (mask) plan->kernels->mask(block->length, mask, out);
}

const gp_clipper_ops gp_clipper_noise = {.is_valid = is_valid, .rewrite = rewrite};
