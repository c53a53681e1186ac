/* types.h - the layers' rows by name, and the settings of those that the tests look into. */
#ifndef GP_TYPES_H
#define GP_TYPES_H

#include "layers/parts/activation.h"
#include "layers/parts/batchnorm.h"
#include "layers/parts/dropout.h"
#include "layers/parts/layernorm.h"
#include "layers/parts/recurrent.h"
#include "layers/parts/standardize.h"
#include "layers/parts/window.h"

#define X(name) extern const gp_layer_ops gp_layer_##name;
GP_LAYER_LIST
#undef X

/* Of a layer that slides a window. */
static inline const gp_window *window_of(const gp_layer_spec *spec)
{
    return spec->type == &gp_layer_pooling ? &gp_pooling_of(spec)->window
                                           : &gp_convolution_of(spec)->window;
}
static inline gp_window *window_in(gp_layer_spec *spec)
{
    return spec->type == &gp_layer_pooling ? &gp_pooling_in(spec)->window
                                           : &gp_convolution_in(spec)->window;
}

#endif
