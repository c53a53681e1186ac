/* table.c - the layer types by code. */
#include "layers/layers.h"

const gp_layer_ops *const gp_layer_table[GP_LAYER_TYPES] = {
#define GP_LAYER_ROW(CONSTANT, name) [GP_LAYER_##CONSTANT] = &gp_layer_##name,
    GP_LAYER_LIST(GP_LAYER_ROW)
#undef GP_LAYER_ROW
};

int gp_buffers_are_valid(const gp_layer_spec *spec, const gp_arena *arena)
{
    const gp_layer_ops *ops = gp_layer_table[spec->type];
    const size_t floats = ops->buffers ? ops->buffers(spec) : 0;
    return floats == 0 || (spec->buffers >= arena->n && floats <= arena->n_buffers &&
                           spec->buffers - arena->n <= arena->n_buffers - floats);
}
