/* activation.c - y = f(z), elementwise. z stays as it was: gelu's slope and the guards want it. */
#include "layers/layers.h"

static int activation_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return spec->in == spec->out && spec->in > 0 && spec->activation < GP_ACTIVATIONS &&
           spec->slope >= 0.0f;
}

static size_t activation_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *activation_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    float *y = layer->work;
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    pass->kernels->activation_forward((end - begin) * P, x + begin * P, y + begin * P,
                                      layer->spec.activation, layer->spec.slope);
    gp_team_wait(pass->team);
    return y;
}

static float *activation_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)dx;
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    size_t at = begin * P;
    pass->kernels->activation_backward((end - begin) * P, layer->input + at, layer->output + at,
                                       dy + at, dy + at, layer->spec.activation, layer->spec.slope);
    gp_team_wait(pass->team);
    return dy;
}

static void activation_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                             float *y)
{
    const gp_layer_spec *spec = &packed->spec;
    size_t n = chunk->lanes ? spec->in * chunk->lanes : chunk->samples * gp_padded(spec->in);
    chunk->kernels->activation_forward(n, x, y, spec->activation, spec->slope);
}

static const gp_frozen_ops frozen = {.in_place = 1, .infer = activation_infer};

const gp_layer_ops gp_layer_activation = {.name = "activation",
                                          .is_valid = activation_is_valid,
                                          .workspace = activation_workspace,
                                          .forward = activation_forward,
                                          .backward = activation_backward,
                                          .frozen = &frozen};
