/* batchnorm_frozen.c - batch normalization at inference: folded into the weights and the bias of
 * the layer before where that is a product, else a factor and a shift for each channel.
 */
#include <math.h>
#include <stdlib.h>

#include "layers/parts/batchnorm.h"
#include "layers/parts/channels.h"

/* y = (x - mean) scale + beta */
static double scale_of(const gp_layer_spec *spec, const gp_arena *arena, size_t channel)
{
    const double variance =
        (double)arena->params[spec->buffers + gp_batchnorm_of(spec)->channels + channel];
    return (double)arena->params[spec->weight + channel] /
           sqrt(variance + (double)gp_batchnorm_of(spec)->eps);
}

static int folds(const gp_layer_spec *product, const gp_layer_spec *norm)
{
    gp_matrix weights[GP_MATRICES];
    return product->type->is_product && product->type->weights(product, weights) == 1 &&
           weights[0].rows == gp_batchnorm_of(norm)->channels;
}

static gp_status fold(const gp_layer_spec *product, const gp_layer_spec *norm,
                      const gp_arena *arena, gp_layer_spec *folded, gp_arena *own)
{
    gp_matrix weights[GP_MATRICES], *W = &weights[0];
    product->type->weights(product, weights);
    const size_t count = W->rows * W->columns;
    float *params = malloc((count + W->rows) * sizeof *params);
    *own = (gp_arena){.n = count + W->rows,
                      .n_prunable = count,
                      .params = params,
                      .mask = arena->mask + W->offset,
                      .removed = arena->removed};
    if (!params) return GP_NO_MEMORY;
    *folded = *product;
    folded->weight = 0;
    folded->bias = count;
    for (size_t r = 0; r < W->rows; r++) {
        const int silent = gp_row_is_removed(W, arena, r);
        const double scale = silent ? 0.0 : scale_of(norm, arena, r);
        const double bias =
            product->bias == GP_NONE ? 0.0 : (double)arena->params[product->bias + r];
        const double mean = (double)arena->params[norm->buffers + r];
        const double beta = (double)arena->params[norm->bias + r];
        params[count + r] = silent ? 0.0f : (float)((bias - mean) * scale + beta);
        for (size_t c = 0; c < W->columns; c++)
            params[r * W->columns + c] =
                (float)((double)arena->params[W->offset + r * W->columns + c] * scale);
    }
    return GP_OK;
}

static gp_status batchnorm_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t C = gp_batchnorm_of(spec)->channels;
    gp_channel *channels;
    const gp_status status = gp_channels_pack(packed, C, &channels);
    for (size_t c = 0; status == GP_OK && c < C; c++)
        channels[c] = (gp_channel){.mean = arena->params[spec->buffers + c],
                                   .scale = (float)scale_of(spec, arena, c),
                                   .shift = arena->params[spec->bias + c]};
    return status;
}

static void silence(gp_packed *packed, const gp_layer_spec *product, const gp_arena *arena)
{
    gp_matrix weights[GP_MATRICES];
    product->type->weights(product, weights);
    gp_channel *channels = packed->memory;
    for (size_t c = 0; c < gp_batchnorm_of(&packed->spec)->channels; c++)
        if (gp_row_is_removed(&weights[0], arena, c)) channels[c] = (gp_channel){0};
}

static void batchnorm_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    gp_channels_infer(packed, gp_batchnorm_of(&packed->spec)->channels, chunk, x, y);
}

static const gp_fold joining = {folds, fold, silence};

const gp_frozen_ops gp_batchnorm_frozen = {
    .in_place = 1, .fold = &joining, .pack = batchnorm_pack, .infer = batchnorm_infer};
