/* mse.c - (z - t)^2. */
#include "loss.h"

static void mse_run(const gp_loss_chunk *c)
{
    c->kernels->mean_squared_error(c->outputs, c->lanes, c->valid, c->z, c->targets, c->dz,
                                   c->losses, c->factor);
}

const gp_loss_ops gp_loss_mse = {
    .name = "mse", .takes = GP_TAKES_VALUES, .by_element = 1, .run = mse_run};
