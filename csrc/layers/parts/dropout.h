/* dropout.h - the settings of dropout. */
#ifndef GP_DROPOUT_H
#define GP_DROPOUT_H

#include "layers/layers.h"

typedef struct gp_dropout_settings {
    float rate; /* in [0, 1) */
} gp_dropout_settings;

GP_SETTINGS(dropout)

#endif
