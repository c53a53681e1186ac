/* softmax.c - y = softmax(z) over the features. */
#include "layers/layers.h"

static int softmax_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return spec->in == spec->out && spec->in > 0;
}

static size_t softmax_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *softmax_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    size_t begin, end, size = layer->spec.in * pass->lanes;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++)
        pass->kernels->softmax_forward(layer->spec.in, pass->lanes, x + chunk * size,
                                       layer->work + chunk * size);
    gp_team_wait(pass->team);
    return layer->work;
}

static float *softmax_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)dx;
    size_t begin, end, size = layer->spec.in * pass->lanes;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++)
        pass->kernels->softmax_backward(layer->spec.in, pass->lanes, layer->output + chunk * size,
                                        dy + chunk * size, dy + chunk * size);
    gp_team_wait(pass->team);
    return dy;
}

static void softmax_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t O = packed->spec.in, stride = gp_padded(O);
    if (chunk->lanes) chunk->kernels->softmax_forward(O, chunk->lanes, x, y);
    else
        for (size_t s = 0; s < chunk->samples; s++)
            chunk->kernels->softmax_row(O, x + s * stride, y + s * stride);
}

static const gp_frozen_ops frozen = {.in_place = 1, .infer = softmax_infer};

static gp_fused softmax_fused(const gp_layer_spec *spec)
{
    (void)spec;
    return GP_FUSES_SOFTMAX;
}

const gp_layer_ops gp_layer_softmax = {.name = "softmax",
                                       .fused = softmax_fused,
                                       .is_valid = softmax_is_valid,
                                       .workspace = softmax_workspace,
                                       .forward = softmax_forward,
                                       .backward = softmax_backward,
                                       .frozen = &frozen};
