/* layernorm.c - y = gamma (x - mean) / sqrt(variance + eps) + beta with mean and variance of all
 * features of a sample, or of each step of a sequence (Ba, Kiros and Hinton 2016), gamma and beta
 * one a feature. Samples are lanes: 16 of them are one member's. A chunk of T steps is T chunks, as
 * in dense.c.
 */
#include <math.h>
#include <stdlib.h>

#include "layers/parts/layernorm.h"

/* channels, eps */
static int layernorm_set(gp_layer_spec *spec, const double *numbers)
{
    gp_layernorm_settings *own = gp_layernorm_in(spec);
    own->eps = (float)numbers[1];
    return gp_read_size(numbers[0], &own->channels);
}

/* That are normalized together. */
static size_t features_of(const gp_layer_spec *spec) { return spec->in / gp_steps_of(spec); }

static int layernorm_fits(const gp_layer_spec *spec)
{
    const gp_layernorm_settings *own = gp_layernorm_of(spec);
    return spec->in == spec->out && own->channels > 0 && spec->in % gp_steps_of(spec) == 0 &&
           features_of(spec) % own->channels == 0 && own->eps > 0.0f && own->eps < INFINITY;
}

static int layernorm_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    const size_t n = features_of(spec);
    return layernorm_fits(spec) && n <= n_params && spec->weight >= n_prunable &&
           spec->weight <= n_params - n && spec->bias >= n_prunable && spec->bias <= n_params - n;
}

static size_t layernorm_vectors(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS])
{
    const size_t n = features_of(spec), columns = n / gp_layernorm_of(spec)->channels;
    vectors[0] = (gp_vector){.offset = spec->weight, .length = n, .columns = columns};
    vectors[1] = (gp_vector){.offset = spec->bias, .length = n, .bias = 1};
    return 2;
}

/* y, and mean and inverse deviation of each sample and step */
static size_t layernorm_workspace(const gp_layer_spec *spec)
{
    return spec->out + 2 * gp_steps_of(spec);
}

static size_t chunks_of(const gp_layer *layer, const gp_pass *pass)
{
    return pass->chunks * gp_steps_of(&layer->spec);
}

static float *means_of(const gp_layer *layer, const gp_pass *pass)
{
    return layer->work + layer->spec.out * pass->lanes * pass->chunks;
}
static float *inverses_of(const gp_layer *layer, const gp_pass *pass)
{
    return means_of(layer, pass) + pass->lanes * chunks_of(layer, pass);
}

/* Where 16 lanes begin in [chunk][feature][P]; in [chunk][P] it is at 16 item. */
static size_t place_of(const gp_layer *layer, const gp_pass *pass, size_t item)
{
    const size_t first = item * GP_ALIGN_FLOATS, P = pass->lanes;
    return first / P * features_of(&layer->spec) * P + first % P;
}

static const float *layernorm_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const gp_layer_spec *spec = &layer->spec;
    const float *gamma = pass->arena->params + spec->weight,
                *beta = pass->arena->params + spec->bias;
    size_t begin, end;
    const size_t n = features_of(spec);
    gp_team_share(pass->team, chunks_of(layer, pass) * pass->lanes / GP_ALIGN_FLOATS, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t at = place_of(layer, pass, item);
        float *mean = means_of(layer, pass) + item * GP_ALIGN_FLOATS;
        float *inverse = inverses_of(layer, pass) + item * GP_ALIGN_FLOATS;
        pass->kernels->lane_statistics(n, pass->lanes, GP_ALIGN_FLOATS, x + at,
                                       gp_layernorm_of(spec)->eps, mean, inverse);
        pass->kernels->lane_normalize(n, pass->lanes, GP_ALIGN_FLOATS, x + at, mean, inverse, gamma,
                                      beta, layer->work + at);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* In place. */
static float *layernorm_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    const gp_layer_spec *spec = &layer->spec;
    const float *gamma = pass->arena->params + spec->weight, *x = layer->input;
    const float *mean = means_of(layer, pass), *inverse = inverses_of(layer, pass);
    const size_t n = features_of(spec), P = pass->lanes, chunks = chunks_of(layer, pass);
    size_t begin, end;
    gp_team_share(pass->team, n, &begin, &end);
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        const size_t at = (chunk * n + begin) * P;
        pass->kernels->lane_normalize_sums(
            end - begin, P, x + at, mean + chunk * P, inverse + chunk * P, dy + at,
            pass->arena->grads + spec->weight + begin, pass->arena->grads + spec->bias + begin,
            pass->first > 0 || chunk > 0);
    }
    gp_team_wait(pass->team); /* dy is read by features, then written by lanes */
    if (!dx) return dy;
    gp_team_share(pass->team, chunks * P / GP_ALIGN_FLOATS, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t at = place_of(layer, pass, item), first = item * GP_ALIGN_FLOATS;
        pass->kernels->lane_normalize_backward(n, P, GP_ALIGN_FLOATS, x + at, mean + first,
                                               inverse + first, gamma, dy + at, dy + at);
    }
    gp_team_wait(pass->team);
    return dy;
}

/* ---- inference ------------------------------------------------------------------------------- */

/* gamma, then beta */
static gp_status layernorm_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t n = features_of(spec);
    float *numbers = malloc(2 * n * sizeof *numbers);
    if (!numbers) return GP_NO_MEMORY;
    memcpy(numbers, arena->params + spec->weight, n * sizeof *numbers);
    memcpy(numbers + n, arena->params + spec->bias, n * sizeof *numbers);
    packed->memory = numbers;
    packed->bytes = 2 * n * sizeof *numbers;
    packed->row_ns = 2.0 * (double)spec->in; /* estimated */
    packed->lane_ns = 2.0 * (double)spec->in;
    return GP_OK;
}

static size_t layernorm_scratch(const gp_layer_spec *spec, int in_lanes)
{
    (void)spec;
    return in_lanes ? 2 : 0;
}

static void normalize_row(const gp_layer_spec *spec, const float *gamma, const float *x, float *y)
{
    const size_t n = features_of(spec);
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)x[0];
        sum += d;
        squares += d * d;
    }
    const double away = sum / (double)n, variance = squares / (double)n - away * away;
    const float mean = (float)((double)x[0] + away);
    const float inverse =
        (float)(1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + (double)gp_layernorm_of(spec)->eps));
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inverse * gamma[i] + gamma[n + i];
}

static void layernorm_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    const gp_layer_spec *spec = &packed->spec;
    const float *gamma = packed->memory;
    const size_t T = gp_steps_of(spec), n = features_of(spec), P = chunk->lanes,
                 each = gp_padded(spec->in);
    float *mean = chunk->scratch, *inverse = chunk->scratch + P;
    for (size_t t = 0; P > 0 && t < T; t++) {
        const size_t at = t * n * P;
        chunk->kernels->lane_statistics(n, P, P, x + at, gp_layernorm_of(spec)->eps, mean, inverse);
        chunk->kernels->lane_normalize(n, P, P, x + at, mean, inverse, gamma, gamma + n, y + at);
    }
    for (size_t i = 0; P == 0 && i < chunk->samples * T; i++) {
        const size_t at = i / T * each + i % T * n;
        normalize_row(spec, gamma, x + at, y + at);
    }
}

static const gp_frozen_ops frozen = {
    .in_place = 1, .pack = layernorm_pack, .scratch = layernorm_scratch, .infer = layernorm_infer};

const gp_layer_ops gp_layer_layernorm = {.name = "layernorm",
                                         .n_settings = 2,
                                         .set = layernorm_set,
                                         .vectors = layernorm_vectors,
                                         .fits = layernorm_fits,
                                         .is_valid = layernorm_is_valid,
                                         .workspace = layernorm_workspace,
                                         .forward = layernorm_forward,
                                         .backward = layernorm_backward,
                                         .frozen = &frozen};
