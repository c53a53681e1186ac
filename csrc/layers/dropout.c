/* dropout.c - inverted dropout: in training y = x * r, r = 0 with probability rate, else
 * 1/(1-rate); nothing otherwise.
 *
 * r is addressed by (seed, step, layer, sample, feature), so it depends neither on threads nor on
 * how the batch is cut into chunks: sample s, feature f of a batch takes number s*I + f of stream
 * GP_DROPOUT_STREAMS | step << GP_LAYER_BITS | layer.
 */
#include "layers/parts/dropout.h"

/* rate */
static int dropout_set(gp_layer_spec *spec, const double *numbers)
{
    gp_dropout_in(spec)->rate = (float)numbers[0];
    return 1;
}

static int dropout_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    const float rate = gp_dropout_of(spec)->rate;
    return spec->in == spec->out && spec->in > 0 && rate >= 0.0f && rate < 1.0f;
}

/* The output, the multipliers, and the multipliers as they are drawn, batch outermost. */
static size_t dropout_workspace(const gp_layer_spec *spec) { return 3 * spec->in; }

static float *multipliers_of(const gp_layer *layer, const gp_pass *pass)
{
    return layer->work + layer->spec.in * pass->chunks * pass->lanes;
}

static const float *dropout_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    if (!pass->training) return x;
    const size_t I = layer->spec.in, P = pass->lanes, size = I * P;
    const uint64_t stream = gp_dropout_stream(pass->step, layer->index);
    float *multipliers = multipliers_of(layer, pass), *drawn = multipliers + pass->chunks * size;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++) {
        pass->kernels->dropout_multipliers(size, drawn + chunk * size, pass->seed, stream,
                                           (uint64_t)(pass->first + chunk * P) * I,
                                           gp_dropout_of(&layer->spec)->rate);
        pass->kernels->transpose(P, I, drawn + chunk * size, I, multipliers + chunk * size, P);
        pass->kernels->multiply(size, x + chunk * size, multipliers + chunk * size,
                                layer->work + chunk * size);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

static float *dropout_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)dx;
    const float *multipliers = multipliers_of(layer, pass);
    size_t begin, end, P = pass->lanes;
    gp_team_share(pass->team, pass->chunks * layer->spec.in, &begin, &end);
    pass->kernels->multiply((end - begin) * P, dy + begin * P, multipliers + begin * P,
                            dy + begin * P);
    gp_team_wait(pass->team);
    return dy;
}

static const gp_frozen_ops frozen = {.in_place = 1};

const gp_layer_ops gp_layer_dropout = {.name = "dropout",
                                       .n_settings = 1,
                                       .set = dropout_set,
                                       .is_valid = dropout_is_valid,
                                       .workspace = dropout_workspace,
                                       .forward = dropout_forward,
                                       .backward = dropout_backward,
                                       .frozen = &frozen};
