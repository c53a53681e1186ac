/* loss.h - what a loss is: a row of the table of losses, its functions in losses/<name>.c.
 *
 * To add a loss: losses/<name>.c that defines gp_loss_<name>; the build gathers the names of the
 * files in GP_LOSS_LIST, X(name) X(name) ..., and nothing else in C names a loss.
 */
#ifndef GP_LOSS_TABLE_H
#define GP_LOSS_TABLE_H

#include "kernels/kernels.h"

#ifndef GP_LOSS_LIST
#error "GP_LOSS_LIST is not defined: the build passes X(name) for each file csrc/losses/<name>.c"
#endif

/* What a loss is measured by. Whoever calls the core passes what the loss takes; the pass refuses a
 * label outside [0, outputs) and a value that is not finite. */
enum { GP_TAKES_LABELS = 1, GP_TAKES_VALUES = 2 };

/* A function that a last layer computes and that a loss can compute with, from what goes into it:
 * more exactly, and with a gradient that cannot vanish in between. */
typedef enum gp_fused { GP_FUSES_NOTHING, GP_FUSES_SOFTMAX, GP_FUSES_SIGMOID } gp_fused;

/* One chunk of a batch, [output][lanes]; the lanes before `valid` hold samples. */
typedef struct gp_loss_chunk {
    const gp_kernels *kernels;
    size_t outputs, lanes, valid;
    const float *z;         /* what the network gives */
    const int64_t *labels;  /* (valid), if the loss takes labels */
    const float *targets;   /* [output][lanes], if it takes values */
    const double *settings; /* of gp_batch */
    /* what a sample's gradient is multiplied by: one over the number of samples, or of elements */
    float factor;
    /* to be filled: factor times the gradient of z, 0 in the lanes after `valid`, or NULL */
    float *dz;
    float *losses;  /* (valid): of each sample, summed over outputs, without the factor */
    uint32_t *hits; /* (valid): how many of the sample's answers are right, if it counts hits: one
                     * label's, or by element one for each output */
} gp_loss_chunk;

struct gp_loss_ops {
    const char *name;
    int takes;         /* GP_TAKES_LABELS, GP_TAKES_VALUES or both */
    int by_element;    /* the mean is over all elements, not over samples */
    int counts_hits;   /* it fills `hits` */
    gp_fused fuses;    /* of a last layer that computes this the input is z */
    size_t n_settings; /* at most GP_LOSS_SETTINGS */
    /* whether the settings are in their range; NULL: there are none, or all are */
    int (*is_valid)(const double *settings);
    /* whether the settings say that samples of this label do not count; NULL: all do */
    int (*ignores)(const double *settings, int64_t label);
    /* Somebody else has computed the loss of the whole batch, which the settings say, and its
     * gradient, which are the targets. NULL: it is computed here. */
    double (*given)(const double *settings);
    void (*run)(const gp_loss_chunk *chunk);
};

#define X(name) extern const gp_loss_ops gp_loss_##name;
GP_LOSS_LIST
#undef X

#endif
