/* standardize.h - the settings of a standardization. */
#ifndef GP_STANDARDIZE_H
#define GP_STANDARDIZE_H

#include "layers/layers.h"

typedef struct gp_standardize_settings {
    size_t channels;
} gp_standardize_settings;

GP_SETTINGS(standardize)

#endif
