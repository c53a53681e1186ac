/* huber.c - of e = z - t: e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2).
 *
 * Settings: delta > 0, finite. */
#include <math.h>

#include "loss.h"

static int huber_is_valid(const double *settings)
{
    return settings[0] > 0.0 && settings[0] < INFINITY;
}

static void huber_run(const gp_loss_chunk *c)
{
    const float delta = (float)c->settings[0];
    for (size_t p = 0; p < c->valid; p++) c->losses[p] = 0.0f;
    for (size_t at = 0; at < c->outputs * c->lanes; at += c->lanes) {
        for (size_t p = 0; p < c->valid; p++) {
            const float error = c->z[at + p] - c->targets[at + p], size = fabsf(error);
            c->losses[p] += size <= delta ? 0.5f * error * error : delta * (size - 0.5f * delta);
            if (!c->dz) continue;
            const float slope = error > delta ? delta : (error < -delta ? -delta : error);
            c->dz[at + p] = c->factor * slope; /* a NaN stays one */
        }
        for (size_t p = c->valid; c->dz && p < c->lanes; p++) c->dz[at + p] = 0.0f;
    }
}

const gp_loss_ops gp_loss_huber = {.name = "huber",
                                   .takes = GP_TAKES_VALUES,
                                   .by_element = 1,
                                   .n_settings = 1,
                                   .is_valid = huber_is_valid,
                                   .run = huber_run};
