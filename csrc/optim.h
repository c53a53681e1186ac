/* optim.h - a clipped optimizer step in two halves that run inside somebody's parallel region. */
#ifndef GP_OPTIM_H
#define GP_OPTIM_H

#include "plan.h"

/* Checks the arguments and allocates. */
gp_status gp_step_plan_create(gp_step_plan *plan, const gp_kernels *kernels, const gp_arena *arena,
                              const gp_clip *clip, const gp_rule *rule, double *segment_norms);
void gp_step_plan_destroy(gp_step_plan *plan);
/* Every member of the team calls it after all gradients are written; plan->info is set when the
 * region ends. */
void gp_step_plan_run(gp_step_plan *plan, const gp_team *team);

#endif
