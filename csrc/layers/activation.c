/* activation.c - y = f(z), elementwise. z stays as it was: slopes and the guards want it. */
#include "layers/parts/activation.h"

static const gp_word words[] = {{"identity", GP_IDENTITY},
                                {"relu", GP_RELU},
                                {"leaky_relu", GP_LEAKY_RELU},
                                {"tanh", GP_TANH},
                                {"sigmoid", GP_SIGMOID},
                                {"gelu", GP_GELU},
                                {"silu", GP_SILU},
                                {"elu", GP_ELU},
                                {"hardswish", GP_HARDSWISH},
                                {"relu6", GP_RELU6},
                                {NULL, 0}};

/* function, slope */
static int activation_set(gp_layer_spec *spec, const double *numbers)
{
    _Static_assert(sizeof words / sizeof words[0] == GP_ACTIVATIONS + 1,
                   "an activation has no name");
    size_t function;
    if (!gp_read_size(numbers[0], &function) || function >= GP_ACTIVATIONS) return 0;
    *gp_activation_in(spec) =
        (gp_activation_settings){.function = (gp_activation)function, .slope = (float)numbers[1]};
    return 1;
}

static int activation_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    const gp_activation_settings *own = gp_activation_of(spec);
    return spec->in == spec->out && spec->in > 0 && own->function < GP_ACTIVATIONS &&
           own->slope >= 0.0f;
}

static size_t activation_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *activation_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const gp_activation_settings *own = gp_activation_of(&layer->spec);
    float *y = layer->work;
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    pass->kernels->activation_forward((end - begin) * P, x + begin * P, y + begin * P,
                                      own->function, own->slope);
    gp_team_wait(pass->team);
    return y;
}

static float *activation_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)dx;
    const gp_activation_settings *own = gp_activation_of(&layer->spec);
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    size_t at = begin * P;
    pass->kernels->activation_backward((end - begin) * P, layer->input + at, layer->output + at,
                                       dy + at, dy + at, own->function, own->slope);
    gp_team_wait(pass->team);
    return dy;
}

static void activation_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                             float *y)
{
    const gp_layer_spec *spec = &packed->spec;
    const gp_activation_settings *own = gp_activation_of(spec);
    size_t n = chunk->lanes ? spec->in * chunk->lanes : chunk->samples * gp_padded(spec->in);
    chunk->kernels->activation_forward(n, x, y, own->function, own->slope);
}

static gp_activation activation_function(const gp_layer_spec *spec, float *slope)
{
    *slope = gp_activation_of(spec)->slope;
    return gp_activation_of(spec)->function;
}

static int activation_may_grow(const gp_layer_spec *spec)
{
    const gp_activation_settings *own = gp_activation_of(spec);
    const int has_slope = own->function == GP_LEAKY_RELU || own->function == GP_ELU;
    return own->function == GP_SIGMOID || (has_slope && own->slope > 1.0f);
}

static gp_fused activation_fused(const gp_layer_spec *spec)
{
    return gp_activation_of(spec)->function == GP_SIGMOID ? GP_FUSES_SIGMOID : GP_FUSES_NOTHING;
}

static const gp_frozen_ops frozen = {
    .in_place = 1, .infer = activation_infer, .function = activation_function};

const gp_layer_ops gp_layer_activation = {.name = "activation",
                                          .n_settings = 2,
                                          .words = words,
                                          .set = activation_set,
                                          .may_grow = activation_may_grow,
                                          .fused = activation_fused,
                                          .is_valid = activation_is_valid,
                                          .workspace = activation_workspace,
                                          .forward = activation_forward,
                                          .backward = activation_backward,
                                          .frozen = &frozen};
