/* add.c - y = a + b, the outputs of two layers: a residual connection. */
#include "layers/layers.h"

static int add_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return spec->in == spec->out;
}

static size_t add_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *add_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    pass->kernels->add((end - begin) * P, x + begin * P, layer->inputs[1] + begin * P,
                       layer->work + begin * P);
    gp_team_wait(pass->team);
    return layer->work;
}

/* The gradient of both inputs is that of the output. */
static float *add_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)layer, (void)pass, (void)dx;
    return dy;
}

static void add_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t in = packed->spec.in;
    chunk->kernels->add(chunk->lanes ? in * chunk->lanes : chunk->samples * gp_padded(in), x,
                        gp_chunk_input(packed, chunk, 1), y);
}

static const gp_frozen_ops frozen = {.in_place = 1, .infer = add_infer};

const gp_layer_ops gp_layer_add = {.name = "add",
                                   .arity = 2,
                                   .is_valid = add_is_valid,
                                   .workspace = add_workspace,
                                   .forward = add_forward,
                                   .backward = add_backward,
                                   .frozen = &frozen};
