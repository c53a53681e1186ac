/* fault.c - the first number that is not finite or beyond its limit, in the order of computation: found only after
 * something went wrong, so it may take its time. */
#include <float.h>
#include <math.h>

#include "net.h"

/* Not a number, or beyond the limit, which may be infinite: no infinity is within it. */
static int is_bad(float value, float limit) { return !(fabsf(value) <= (limit < FLT_MAX ? limit : FLT_MAX)); }

/* What is removed does not exist, whatever was written there. */
static int bad_weight(const gp_layer_spec *spec, const gp_arena *arena, const float *flat, float limit, gp_fault *fault)
{
    for (size_t k = 0; k < spec->in * spec->out; k++) {
        float value = flat[spec->weight + k];
        if (!is_bad(value, limit) || (arena->removed > 0 && !arena->mask[spec->weight + k])) continue;
        fault->row = k / spec->in;
        fault->column = k % spec->in;
        fault->value = (double)value;
        return 1;
    }
    return 0;
}

static int bad_bias(const gp_layer_spec *spec, const float *flat, float limit, gp_fault *fault)
{
    for (size_t k = 0; spec->bias != GP_NONE && k < spec->out; k++) {
        float value = flat[spec->bias + k];
        if (!is_bad(value, limit)) continue;
        fault->bias = 1;
        fault->column = k;
        fault->value = (double)value;
        return 1;
    }
    return 0;
}

/* In the parameters or the gradients, whichever `flat` is. */
static int bad_parameter(const gp_layer *layer, const gp_arena *arena, const float *flat, float limit, gp_fault *fault)
{
    const gp_layer_spec *spec = &layer->spec;
    if (spec->type != GP_LAYER_DENSE) return 0;
    return bad_weight(spec, arena, flat, limit, fault) || bad_bias(spec, flat, limit, fault);
}

int gp_layer_find_output(const gp_layer *layer, size_t samples, size_t first, float limit, gp_fault *fault)
{
    size_t lanes, chunks, O = layer->spec.out;
    gp_net_cut(samples, &lanes, &chunks);
    for (size_t s = 0; s < samples; s++) {
        const float *at = layer->output + s / lanes * O * lanes + s % lanes;
        for (size_t column = 0; column < O; column++) {
            if (!is_bad(at[column * lanes], limit)) continue;
            fault->row = first + s;
            fault->column = column;
            fault->value = (double)at[column * lanes];
            return 1;
        }
    }
    return 0;
}

void gp_net_input_fault(const gp_net *net, gp_fault *fault) { *fault = net->input_fault; }

void gp_net_fault(const gp_net *net, const gp_arena *arena, gp_fault *fault)
{
    gp_live_publish(arena);
    for (size_t i = 0; i < net->n_layers; i++) {
        *fault = (gp_fault){.phase = GP_PHASE_PARAMETER, .layer = i};
        if (bad_parameter(&net->layers[i], arena, arena->params, INFINITY, fault)) return;
        if (gp_net_exploded(net) && net->explosion.layer == i) {
            *fault = net->explosion;
            return;
        }
        *fault = (gp_fault){.phase = GP_PHASE_FORWARD, .layer = i};
        if (net->last_samples > 0 && i < net->last_live &&
            gp_layer_find_output(&net->layers[i], net->last_samples, net->last_first, INFINITY, fault))
            return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_LOSS, .layer = GP_NONE, .value = net->last_loss};
    if (!isfinite(net->last_loss)) return;
    for (size_t i = net->n_layers; i-- > 0;) {
        *fault = (gp_fault){.phase = GP_PHASE_BACKWARD, .layer = i};
        if (bad_parameter(&net->layers[i], arena, arena->grads, net->max_gradient, fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_NONE, .layer = GP_NONE};
}
