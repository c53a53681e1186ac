/* softmax.c - y = softmax(z) over the features, at each step of a sequence. */
#include "layers/layers.h"

static int softmax_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return spec->in == spec->out && spec->in > 0 && spec->in % gp_steps_of(spec) == 0;
}

static size_t softmax_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *softmax_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const size_t T = gp_steps_of(&layer->spec), features = layer->spec.in / T,
                 size = features * pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++)
        pass->kernels->softmax_forward(features, pass->lanes, x + chunk * size,
                                       layer->work + chunk * size);
    gp_team_wait(pass->team);
    return layer->work;
}

static float *softmax_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)dx;
    const size_t T = gp_steps_of(&layer->spec), features = layer->spec.in / T,
                 size = features * pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++)
        pass->kernels->softmax_backward(features, pass->lanes, layer->output + chunk * size,
                                        dy + chunk * size, dy + chunk * size);
    gp_team_wait(pass->team);
    return dy;
}

static void softmax_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t T = gp_steps_of(&packed->spec), O = packed->spec.in / T, P = chunk->lanes,
                 stride = gp_padded(packed->spec.in);
    for (size_t t = 0; P > 0 && t < T; t++)
        chunk->kernels->softmax_forward(O, P, x + t * O * P, y + t * O * P);
    for (size_t i = 0; P == 0 && i < chunk->samples * T; i++) {
        const size_t at = i / T * stride + i % T * O;
        chunk->kernels->softmax_row(O, x + at, y + at);
    }
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
