/* activation.h - the settings of an activation. */
#ifndef GP_ACTIVATION_H
#define GP_ACTIVATION_H

#include "layers/layers.h"

typedef struct gp_activation_settings {
    gp_activation function;
    float slope; /* of leaky_relu; of elu: its alpha */
} gp_activation_settings;

GP_SETTINGS(activation)

#endif
