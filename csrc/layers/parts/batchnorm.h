/* batchnorm.h - the settings of a batch normalization, and its form in frozen networks. */
#ifndef GP_BATCHNORM_H
#define GP_BATCHNORM_H

#include "layers/layers.h"

/* weight, bias: factor and offset of each channel; buffers: its running means, then variances */
typedef struct gp_batchnorm_settings {
    size_t channels;
    float momentum; /* the weight of a batch in the running statistics */
    float eps;      /* is added to the variance */
    int frozen;     /* it has the running statistics in training, too, and leaves them alone */
} gp_batchnorm_settings;

GP_SETTINGS(batchnorm)

extern const gp_frozen_ops gp_batchnorm_frozen; /* batchnorm_frozen.c */

#endif
