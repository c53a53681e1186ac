/* table.c - the layer types by code. */
#include "layers/layers.h"

const gp_layer_ops *const gp_layer_table[GP_LAYER_TYPES] = {
#define GP_LAYER_ROW(CONSTANT, name) [GP_LAYER_##CONSTANT] = &gp_layer_##name,
    GP_LAYER_LIST(GP_LAYER_ROW)
#undef GP_LAYER_ROW
};
