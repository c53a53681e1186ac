/* cross_entropy.c - logsumexp(z) - z[label]; a share of the label's weight may go to all outputs.
 *
 * Settings: that share, in [0, 1], and a label whose samples do not count. */
#include "loss.h"

static int cross_entropy_is_valid(const double *settings)
{
    return settings[0] >= 0.0 && settings[0] <= 1.0;
}

static int cross_entropy_ignores(const double *settings, int64_t label)
{
    return (double)label == settings[1];
}

static void cross_entropy_run(const gp_loss_chunk *c)
{
    c->kernels->cross_entropy(c->outputs, c->lanes, c->valid, c->z, c->labels, c->dz, c->losses,
                              c->hits, (float)c->settings[0], c->factor);
}

const gp_loss_ops gp_loss_cross_entropy = {.name = "cross_entropy",
                                           .takes = GP_TAKES_LABELS,
                                           .counts_hits = 1,
                                           .fuses = GP_FUSES_SOFTMAX,
                                           .n_settings = 2,
                                           .is_valid = cross_entropy_is_valid,
                                           .ignores = cross_entropy_ignores,
                                           .run = cross_entropy_run};
