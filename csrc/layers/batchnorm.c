/* batchnorm.c - y = gamma (x - mean) / sqrt(variance + eps) + beta, channel by channel (Ioffe and
 * Szegedy 2015): in training with mean and variance of the batch, else with their running means.
 *
 * Channels of an image are (channels, places). A sequence has its channels in each step: (T,
 * channels), and a chunk of T steps counts as T chunks, as in dense.c.
 *
 * A member of the team does whole channels, in the order of samples. Sums are in double, of
 * distances from the channel's first number, which is among the others: |x0 - mean|^2 is at most n
 * times the variance.
 *
 * Where the layer before has no weight left for a channel the output is 0, and gamma and beta get
 * no gradient: a filter that is removed takes its normalization along. Running statistics of such a
 * channel stay. A frozen layer has running means in training, too, and leaves them alone.
 */
#include <math.h>

#include "layers/parts/batchnorm.h"

/* channels, momentum, eps, frozen */
static int batchnorm_set(gp_layer_spec *spec, const double *numbers)
{
    gp_batchnorm_settings *own = gp_batchnorm_in(spec);
    own->momentum = (float)numbers[1];
    own->eps = (float)numbers[2];
    own->frozen = numbers[3] != 0.0;
    return gp_read_size(numbers[0], &own->channels);
}

/* Of a channel in the last pass; inverse is 0 if there is nothing to normalize. */
typedef struct statistics {
    double mean, inverse;
} statistics;

static size_t channels_of(const gp_layer_spec *spec) { return gp_batchnorm_of(spec)->channels; }

static int batchnorm_fits(const gp_layer_spec *spec)
{
    const size_t C = channels_of(spec);
    const gp_batchnorm_settings *own = gp_batchnorm_of(spec);
    return spec->in == spec->out && C > 0 && spec->in % gp_steps_of(spec) == 0 &&
           gp_columns_of(spec) % C == 0 && own->momentum >= 0.0f && own->momentum <= 1.0f &&
           own->eps > 0.0f && own->eps < INFINITY;
}

static int batchnorm_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    const size_t C = channels_of(spec);
    return batchnorm_fits(spec) && C <= n_params && spec->weight >= n_prunable &&
           spec->weight <= n_params - C && spec->bias >= n_prunable && spec->bias <= n_params - C;
}

static size_t batchnorm_vectors(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS])
{
    const size_t C = channels_of(spec);
    vectors[0] = (gp_vector){.offset = spec->weight, .length = C, .columns = 1};
    vectors[1] = (gp_vector){.offset = spec->bias, .length = C, .bias = 1};
    return 2;
}

static size_t batchnorm_workspace(const gp_layer_spec *spec) { return spec->out; }

static size_t batchnorm_buffers(const gp_layer_spec *spec) { return 2 * channels_of(spec); }

/* What is pending, then statistics. */
static size_t batchnorm_spare(const gp_layer_spec *spec)
{
    const size_t C = channels_of(spec), floats = sizeof(statistics) / sizeof(float);
    return gp_padded(2 * C) + gp_padded(floats * C);
}

static statistics *statistics_of(const gp_layer *layer)
{
    return (statistics *)(void *)(layer->spare + gp_padded(2 * channels_of(&layer->spec)));
}

static int is_silent(const gp_layer *layer, const gp_arena *arena, size_t channel)
{
    const gp_layer *before = layer->source[0];
    return before && before->n_weights == 1 &&
           before->weights[0].rows == channels_of(&layer->spec) &&
           gp_row_is_removed(&before->weights[0], arena, channel);
}

static size_t chunks_of(const gp_layer *layer, const gp_pass *pass)
{
    return pass->chunks * gp_steps_of(&layer->spec);
}

static size_t valid_lanes(const gp_layer *layer, const gp_pass *pass, size_t chunk)
{
    chunk /= gp_steps_of(&layer->spec);
    return gp_smaller(pass->lanes, pass->samples - gp_smaller(pass->samples, chunk * pass->lanes));
}

/* One channel of one chunk. */
static void normalize(const gp_layer *layer, const gp_pass *pass, size_t chunk, size_t channel,
                      statistics found, const float *x)
{
    const gp_layer_spec *spec = &layer->spec;
    const size_t places = gp_columns_of(spec) / channels_of(spec), P = pass->lanes;
    const size_t at = (chunk * gp_columns_of(spec) + channel * places) * P;
    const double scale = found.inverse * (double)pass->arena->params[spec->weight + channel];
    const float shift = (float)found.mean;
    const double offset =
        (double)pass->arena->params[spec->bias + channel] + ((double)shift - found.mean) * scale;
    if (found.inverse == 0.0) memset(layer->work + at, 0, places * P * sizeof(float));
    else
        pass->kernels->normalize(places, P, valid_lanes(layer, pass, chunk), x + at, shift,
                                 (float)scale, (float)offset, layer->work + at);
}

static statistics running(const gp_layer *layer, const gp_arena *arena, size_t channel)
{
    const float *mean = arena->params + layer->spec.buffers,
                *variance = mean + channels_of(&layer->spec);
    if (is_silent(layer, arena, channel)) return (statistics){0.0, 0.0};
    return (statistics){
        (double)mean[channel],
        1.0 / sqrt((double)variance[channel] + (double)gp_batchnorm_of(&layer->spec)->eps)};
}

/* Of the batch, and what they make of the running ones. */
static statistics measure(const gp_layer *layer, const gp_pass *pass, size_t channel,
                          const float *x)
{
    const gp_layer_spec *spec = &layer->spec;
    const size_t C = channels_of(spec), places = gp_columns_of(spec) / C, P = pass->lanes;
    const float *before = pass->arena->params + spec->buffers;
    float *pending = layer->spare;
    const int silent = is_silent(layer, pass->arena, channel);
    double sums[2] = {0.0, 0.0};
    const float shift = x[channel * places * P];
    for (size_t chunk = 0; !silent && chunk < chunks_of(layer, pass); chunk++)
        pass->kernels->shifted_sums(places, P, valid_lanes(layer, pass, chunk),
                                    x + (chunk * gp_columns_of(spec) + channel * places) * P, shift,
                                    sums);
    const double n = (double)(pass->samples * gp_steps_of(spec)) * (double)places,
                 away = sums[0] / n;
    double squares = sums[1] - away * sums[0]; /* not below 0 but for rounding; a NaN stays */
    if (squares < 0.0) squares = 0.0;
    const double now[2] = {(double)shift + away, squares / (n - 1.0)},
                 momentum = (double)gp_batchnorm_of(spec)->momentum;
    for (size_t i = 0; i < 2; i++) {
        const double old = (double)before[i * C + channel];
        pending[i * C + channel] =
            silent ? before[i * C + channel] : (float)(old + momentum * (now[i] - old));
    }
    return silent
               ? (statistics){0.0, 0.0}
               : (statistics){now[0], 1.0 / sqrt(squares / n + (double)gp_batchnorm_of(spec)->eps)};
}

static const float *batchnorm_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const size_t C = channels_of(&layer->spec);
    const int measures = pass->training && !gp_batchnorm_of(&layer->spec)->frozen;
    size_t begin, end;
    gp_team_share(pass->team, measures ? C : chunks_of(layer, pass) * C, &begin, &end);
    for (size_t item = begin; !measures && item < end; item++)
        normalize(layer, pass, item / C, item % C, running(layer, pass->arena, item % C), x);
    for (size_t channel = begin; measures && channel < end; channel++) {
        const statistics found = statistics_of(layer)[channel] = measure(layer, pass, channel, x);
        for (size_t chunk = 0; chunk < chunks_of(layer, pass); chunk++)
            normalize(layer, pass, chunk, channel, found, x);
    }
    if (measures && pass->team->rank == 0) layer->pending = layer->spare;
    gp_team_wait(pass->team);
    return layer->work;
}

/* With h = (x - mean) inverse: dbeta = sum dy, dgamma = sum dy h, dx = gamma inverse (dy - dbeta /
 * n - h dgamma / n). */
static void channel_backward(const gp_layer *layer, const gp_pass *pass, size_t channel, float *dy,
                             int wants_dx)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_kernels *kernels = pass->kernels;
    const int frozen = gp_batchnorm_of(spec)->frozen;
    const statistics found =
        frozen ? running(layer, pass->arena, channel) : statistics_of(layer)[channel];
    const size_t places = gp_columns_of(spec) / channels_of(spec), P = pass->lanes,
                 step = gp_columns_of(spec) * P, chunks = chunks_of(layer, pass);
    const float *x = layer->input + channel * places * P, shift = (float)found.mean;
    double sums[2] = {0.0, 0.0};
    dy += channel * places * P;
    for (size_t chunk = 0; found.inverse != 0.0 && chunk < chunks; chunk++)
        kernels->normalize_sums(places * P, dy + chunk * step, x + chunk * step, shift, sums);
    const double away = (double)shift - found.mean; /* x - mean = (x - shift) + away */
    const double dbeta = sums[0], dgamma = (sums[1] + away * sums[0]) * found.inverse;
    pass->arena->grads[spec->weight + channel] = (float)dgamma;
    pass->arena->grads[spec->bias + channel] = (float)dbeta;
    if (!wants_dx) return;
    const double n = (double)(pass->samples * gp_steps_of(spec)) * (double)places;
    const double scale = (double)pass->arena->params[spec->weight + channel] * found.inverse;
    const double slope = frozen ? 0.0 : -scale * found.inverse * dgamma / n,
                 offset = frozen ? 0.0 : -scale * dbeta / n + slope * away;
    for (size_t chunk = 0; chunk < chunks; chunk++)
        if (found.inverse == 0.0) memset(dy + chunk * step, 0, places * P * sizeof *dy);
        else
            kernels->normalize_backward(places, P, valid_lanes(layer, pass, chunk),
                                        x + chunk * step, dy + chunk * step, shift, (float)scale,
                                        (float)slope, (float)offset, dy + chunk * step);
}

/* In place. There is one block, so gradients are never added to. */
static float *batchnorm_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    size_t begin, end;
    gp_team_share(pass->team, channels_of(&layer->spec), &begin, &end);
    for (size_t channel = begin; channel < end; channel++)
        channel_backward(layer, pass, channel, dy, dx != NULL);
    gp_team_wait(pass->team);
    return dy;
}

const gp_layer_ops gp_layer_batchnorm = {.name = "batchnorm",
                                         .n_settings = 4,
                                         .set = batchnorm_set,
                                         .vectors = batchnorm_vectors,
                                         .fits = batchnorm_fits,
                                         .is_valid = batchnorm_is_valid,
                                         .workspace = batchnorm_workspace,
                                         .spare = batchnorm_spare,
                                         .forward = batchnorm_forward,
                                         .backward = batchnorm_backward,
                                         .buffers = batchnorm_buffers,
                                         .mixes_samples = 1,
                                         .frozen = &gp_batchnorm_frozen};
