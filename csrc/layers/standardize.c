/* standardize.c - y = (x - mean) / scale, channel by channel, by statistics that were measured
 * before training: buffers, first the means, then the scales. No pass changes them.
 *
 * Channels of an image are (channels, places). A sequence has its channels in each step: (T,
 * channels), and a chunk of T steps counts as T chunks, as in dense.c.
 */
#include "layers/parts/standardize.h"
#include "layers/parts/channels.h"

static size_t channels_of(const gp_layer_spec *spec) { return gp_standardize_of(spec)->channels; }

/* channels */
static int standardize_set(gp_layer_spec *spec, const double *numbers)
{
    return gp_read_size(numbers[0], &gp_standardize_in(spec)->channels);
}

static int standardize_fits(const gp_layer_spec *spec)
{
    const size_t C = channels_of(spec);
    return spec->in == spec->out && C > 0 && spec->in % gp_steps_of(spec) == 0 &&
           gp_columns_of(spec) % C == 0;
}

static int standardize_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return standardize_fits(spec);
}

static size_t standardize_workspace(const gp_layer_spec *spec) { return spec->out; }

static size_t standardize_buffers(const gp_layer_spec *spec) { return 2 * channels_of(spec); }

static float factor_of(const gp_layer_spec *spec, const gp_arena *arena, size_t channel)
{
    return (float)(1.0 / (double)arena->params[spec->buffers + channels_of(spec) + channel]);
}

/* Every number of a channel, less `shift` of it or not, times its factor: this member's share. */
static void times_factors(const gp_layer *layer, const gp_pass *pass, int shifts, const float *x,
                          float *y)
{
    const gp_layer_spec *spec = &layer->spec;
    const size_t C = channels_of(spec), P = pass->lanes, places = gp_columns_of(spec) / C;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * gp_steps_of(spec) * C, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const float shift = shifts ? pass->arena->params[spec->buffers + item % C] : 0.0f;
        pass->kernels->normalize(places, P, P, x + item * places * P, shift,
                                 factor_of(spec, pass->arena, item % C), 0.0f,
                                 y + item * places * P);
    }
    gp_team_wait(pass->team);
}

static const float *standardize_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    times_factors(layer, pass, 1, x, layer->work);
    return layer->work;
}

/* In place. */
static float *standardize_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (dx) times_factors(layer, pass, 0, dy, dy);
    return dy;
}

static gp_status standardize_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    gp_channel *channels;
    const gp_status status = gp_channels_pack(packed, channels_of(spec), &channels);
    for (size_t c = 0; status == GP_OK && c < channels_of(spec); c++)
        channels[c] = (gp_channel){.mean = arena->params[spec->buffers + c],
                                   .scale = factor_of(spec, arena, c)};
    return status;
}

static void standardize_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                              float *y)
{
    gp_channels_infer(packed, channels_of(&packed->spec), chunk, x, y);
}

static const gp_frozen_ops frozen = {
    .in_place = 1, .pack = standardize_pack, .infer = standardize_infer};

const gp_layer_ops gp_layer_standardize = {.name = "standardize",
                                           .n_settings = 1,
                                           .set = standardize_set,
                                           .fits = standardize_fits,
                                           .is_valid = standardize_is_valid,
                                           .workspace = standardize_workspace,
                                           .forward = standardize_forward,
                                           .backward = standardize_backward,
                                           .buffers = standardize_buffers,
                                           .frozen = &frozen};
