/* bce.c - binary cross entropy of logits: max(z, 0) - z t + log(1 + exp(-|z|)).
 *
 * An answer is right if z > 0 where t > 0.5, and z <= 0 elsewhere. */
#include "loss.h"

static void bce_run(const gp_loss_chunk *c)
{
    c->kernels->binary_cross_entropy(c->outputs, c->lanes, c->valid, c->z, c->targets, c->dz,
                                     c->losses, c->factor);
    for (size_t p = 0; p < c->valid; p++) c->hits[p] = 0;
    for (size_t at = 0; at < c->outputs * c->lanes; at += c->lanes)
        for (size_t p = 0; p < c->valid; p++)
            c->hits[p] += (c->z[at + p] > 0.0f) == (c->targets[at + p] > 0.5f);
}

const gp_loss_ops gp_loss_bce = {.name = "bce",
                                 .takes = GP_TAKES_VALUES,
                                 .by_element = 1,
                                 .counts_hits = 1,
                                 .fuses = GP_FUSES_SIGMOID,
                                 .run = bce_run};
