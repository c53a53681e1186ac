/* concat.c - the outputs of several layers side by side, along the features of every step. What is
 * no sequence is one step: plain features, and images, which are put together channel by channel.
 */
#include "layers/layers.h"

typedef struct gp_concat_settings {
    size_t steps;
} gp_concat_settings;

GP_SETTINGS(concat)

/* steps */
static int concat_set(gp_layer_spec *spec, const double *numbers)
{
    return gp_read_size(numbers[0], &gp_concat_in(spec)->steps);
}

static size_t steps_of(const gp_layer_spec *spec) { return gp_concat_of(spec)->steps; }

static int concat_fits(const gp_layer_spec *spec) { return spec->in == spec->out; }

static int concat_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return concat_fits(spec);
}

static size_t concat_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *concat_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    (void)x;
    const size_t T = steps_of(&layer->spec), I = layer->spec.in, P = pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        float *y = layer->work + item * (I / T) * P;
        for (size_t k = 0; k < layer->n_sources; k++) {
            const size_t n = layer->widths[k] / T * P;
            memcpy(y, layer->inputs[k] + item * n, n * sizeof *y);
            y += n;
        }
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* The gradients of its inputs lie side by side in that of its output. */
static float *concat_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    (void)layer, (void)pass, (void)dx;
    return dy;
}

static void concat_split(const gp_layer *layer, const gp_pass *pass, size_t k, const float *dx,
                         float *gradient, int add)
{
    const size_t T = steps_of(&layer->spec), I = layer->spec.in, P = pass->lanes;
    const size_t n = layer->widths[k] / T * P;
    size_t begin, end, before = 0;
    for (size_t i = 0; i < k; i++) before += layer->widths[i] / T;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const float *from = dx + (item * (I / T) + before) * P;
        float *to = gradient + item * n;
        if (add) pass->kernels->add(n, to, from, to);
        else memcpy(to, from, n * sizeof *to);
    }
}

static void concat_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    (void)x;
    const size_t T = steps_of(&packed->spec), P = chunk->lanes, unit = P > 0 ? P : 1;
    for (size_t s = 0; s < (P > 0 ? 1 : chunk->samples); s++) {
        float *to = y + s * gp_padded(packed->spec.out);
        for (size_t t = 0; t < T; t++)
            for (size_t k = 0; k < packed->n_sources; k++) {
                const size_t n = packed->widths[k] / T * unit;
                const float *from = gp_chunk_input(packed, chunk, k);
                memcpy(to, from + s * gp_padded(packed->widths[k]) + t * n, n * sizeof *to);
                to += n;
            }
    }
}

static const gp_frozen_ops frozen = {.infer = concat_infer};

const gp_layer_ops gp_layer_concat = {.name = "concat",
                                      .arity = GP_SEVERAL,
                                      .parts = steps_of,
                                      .n_settings = 1,
                                      .set = concat_set,
                                      .fits = concat_fits,
                                      .is_valid = concat_is_valid,
                                      .workspace = concat_workspace,
                                      .forward = concat_forward,
                                      .backward = concat_backward,
                                      .split = concat_split,
                                      .frozen = &frozen};
