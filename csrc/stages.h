/* stages.h - the stages of clipping inside an optimizer step. `clip` is plan->clip or one that
 * follows it. */
#ifndef GP_STAGES_H
#define GP_STAGES_H

#include "clippers/clippers.h"

/* All there are, by the code that Python uses, and the names of their files. */
extern const gp_clipper_ops *const gp_clippers[];
extern const char *const gp_clipper_names[];
extern const size_t gp_clippers_count;

/* Whether the chain can be run over the arena. */
int gp_stages_are_good(const gp_arena *arena, const gp_clip *first);
/* Whether a stage of it has one number a row of W. */
int gp_stages_want_rows(const gp_clip *first);
/* The p of the norms that the step reports. */
double gp_stages_norm_type(const gp_clip *first);
/* Whether a last stage is part of the update: a factor, or a limit whose norm afterwards is
 * known. */
int gp_stage_is_fused(const gp_step_plan *plan, const gp_clip *last);

/* The norm of a block of the raw gradient and, where it matters, its largest entry. */
void gp_stage_measure_raw(const gp_step_plan *plan, gp_block *block);
/* What the stage has to know of a block of the gradient `g` that it gets; its norm has been
 * measured. */
void gp_stage_measure(const gp_step_plan *plan, gp_block *block, const gp_clip *clip,
                      const float *g);
/* From what all blocks measured, by one thread: the factors of units and plan->info. The first
 * stage also decides whether the step is taken at all. */
void gp_stage_decide(gp_step_plan *plan, const gp_clip *clip);
/* The stage, number `stage` of them, on a block: from g into out, which may be g. */
void gp_stage_rewrite(const gp_step_plan *plan, const gp_block *block, const gp_clip *clip,
                      size_t stage, const float *g, float *out);
/* plan->info.norm_after from the norms that blocks have after the last stage; by one thread. */
void gp_stage_settle(gp_step_plan *plan);

#endif
