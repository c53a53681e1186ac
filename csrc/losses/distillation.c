/* distillation.c - (1 - alpha) cross entropy with labels + alpha T^2 KL(softmax(t/T) ||
 * softmax(z/T)), t a teacher's logits.
 *
 * Settings: T > 0, finite, and alpha in [0, 1]. */
#include <math.h>

#include "loss.h"

static int distillation_is_valid(const double *settings)
{
    return settings[0] > 0.0 && settings[0] < INFINITY && settings[1] >= 0.0 && settings[1] <= 1.0;
}

static void distillation_run(const gp_loss_chunk *c)
{
    const float temperature = (float)c->settings[0], alpha = (float)c->settings[1];
    c->kernels->cross_entropy(c->outputs, c->lanes, c->valid, c->z, c->labels, c->dz, c->losses,
                              c->hits, 0.0f, c->factor * (1.0f - alpha));
    c->kernels->distillation(c->outputs, c->lanes, c->valid, c->z, c->targets, c->dz, c->losses,
                             temperature, alpha, c->factor);
}

const gp_loss_ops gp_loss_distillation = {.name = "distillation",
                                          .takes = GP_TAKES_LABELS | GP_TAKES_VALUES,
                                          .counts_hits = 1,
                                          .fuses = GP_FUSES_SOFTMAX,
                                          .n_settings = 2,
                                          .is_valid = distillation_is_valid,
                                          .run = distillation_run};
