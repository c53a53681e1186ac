/* channels.h - frozen layers that compute (x - mean) scale + shift, channel by channel. */
#ifndef GP_CHANNELS_H
#define GP_CHANNELS_H

#include "layers/layers.h"

typedef struct gp_channel {
    float mean, scale, shift;
} gp_channel;

/* Memory of the packed layer for so many channels, to be filled, and what is known of its time. */
gp_status gp_channels_pack(gp_packed *packed, size_t channels, gp_channel **own);

void gp_channels_infer(const gp_packed *packed, size_t channels, const gp_chunk *chunk,
                       const float *x, float *y);

#endif
