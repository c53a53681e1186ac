/* layernorm.h - the settings of a layer normalization. */
#ifndef GP_LAYERNORM_H
#define GP_LAYERNORM_H

#include "layers/layers.h"

/* weight, bias: factor and offset of each feature */
typedef struct gp_layernorm_settings {
    size_t channels; /* rows of the factors, for the places of faults */
    float eps;       /* is added to the variance */
} gp_layernorm_settings;

GP_SETTINGS(layernorm)

#endif
