/* table.c - the layer types. */
#include "layers/layers.h"

const gp_layer_ops *const gp_layer_table[GP_LAYER_TYPES] = {
    [GP_LAYER_DENSE] = &gp_layer_dense,
    [GP_LAYER_ACTIVATION] = &gp_layer_activation,
    [GP_LAYER_SOFTMAX] = &gp_layer_softmax,
    [GP_LAYER_DROPOUT] = &gp_layer_dropout,
};
