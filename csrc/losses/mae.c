/* mae.c - |z - t|; its gradient at 0 is 0. */
#include <math.h>

#include "loss.h"

static void mae_run(const gp_loss_chunk *c)
{
    for (size_t p = 0; p < c->valid; p++) c->losses[p] = 0.0f;
    for (size_t at = 0; at < c->outputs * c->lanes; at += c->lanes) {
        for (size_t p = 0; p < c->valid; p++) {
            const float error = c->z[at + p] - c->targets[at + p];
            c->losses[p] += fabsf(error);
            if (!c->dz) continue;
            /* a NaN stays one */
            c->dz[at + p] = error > 0.0f ? c->factor : (error < 0.0f ? -c->factor : error);
        }
        for (size_t p = c->valid; c->dz && p < c->lanes; p++) c->dz[at + p] = 0.0f;
    }
}

const gp_loss_ops gp_loss_mae = {
    .name = "mae", .takes = GP_TAKES_VALUES, .by_element = 1, .run = mae_run};
