/* channels.c - inference of layers that treat every number of a channel alike; see channels.h. */
#include <stdlib.h>

#include "layers/parts/channels.h"

gp_status gp_channels_pack(gp_packed *packed, size_t channels, gp_channel **own)
{
    packed->memory = *own = malloc(channels * sizeof **own);
    if (!packed->memory) return GP_NO_MEMORY;
    packed->bytes = channels * sizeof **own;
    packed->row_ns = 0.2 * (double)packed->spec.in; /* estimated, as for pooling */
    packed->lane_ns = 0.5 * (double)packed->spec.in;
    return GP_OK;
}

void gp_channels_infer(const gp_packed *packed, size_t channels, const gp_chunk *chunk,
                       const float *x, float *y)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t n = gp_columns_of(spec), places = n / channels, T = spec->in / n;
    const gp_channel *own = packed->memory;
    for (size_t i = 0; chunk->lanes && i < channels * T; i++) {
        const gp_channel *channel = &own[i % channels];
        const size_t at = i * places * chunk->lanes;
        chunk->kernels->normalize(places, chunk->lanes, chunk->lanes, x + at, channel->mean,
                                  channel->scale, channel->shift, y + at);
    }
    for (size_t s = 0; !chunk->lanes && s < chunk->samples; s++)
        for (size_t i = 0, at = s * gp_padded(spec->in); i < spec->in; i++, at++) {
            const gp_channel *channel = &own[i % n / places];
            y[at] = (x[at] - channel->mean) * channel->scale + channel->shift;
        }
}
