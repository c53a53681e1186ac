/* bce.c - binary cross entropy of logits: max(z, 0) - z t + log(1 + exp(-|z|)). */
#include "loss.h"

static void bce_run(const gp_loss_chunk *c)
{
    c->kernels->binary_cross_entropy(c->outputs, c->lanes, c->valid, c->z, c->targets, c->dz,
                                     c->losses, c->factor);
}

const gp_loss_ops gp_loss_bce = {.name = "bce",
                                 .takes = GP_TAKES_VALUES,
                                 .by_element = 1,
                                 .fuses = GP_FUSES_SIGMOID,
                                 .run = bce_run};
