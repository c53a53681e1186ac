/* fault.c - the first number that is not finite or beyond its limit, in the order of computation:
 * found only after something went wrong, so it may take its time. */
#include <float.h>
#include <math.h>

#include "net.h"

/* Not a number, or beyond the limit, which may be infinite: no infinity is within it. */
static int is_bad(float value, float limit)
{
    return !(fabsf(value) <= (limit < FLT_MAX ? limit : FLT_MAX));
}

/* What is removed does not exist, whatever was written there. */
static int bad_weight(const gp_matrix *W, const gp_arena *arena, const float *flat, float limit,
                      gp_fault *fault)
{
    for (size_t k = 0; k < W->rows * W->columns; k++) {
        float value = flat[W->offset + k];
        if (!is_bad(value, limit) || (arena->removed > 0 && !arena->mask[W->offset + k])) continue;
        fault->row = k / W->columns;
        fault->column = k % W->columns;
        fault->value = (double)value;
        return 1;
    }
    return 0;
}

/* 1 and its place if one of n numbers, so far apart, is bad. */
static int bad_entry(size_t n, const float *values, size_t stride, float limit, gp_fault *fault)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_bad(values[i * stride], limit)) continue;
        fault->column = i;
        fault->value = (double)values[i * stride];
        return 1;
    }
    return 0;
}

/* In the parameters or the gradients, whichever `flat` is: weights, then biases. */
static int bad_parameter(const gp_layer *layer, const gp_arena *arena, const float *flat,
                         float limit, gp_fault *fault)
{
    for (size_t m = 0; m < layer->n_weights; m++) {
        fault->bias = 0;
        fault->recurrent = m > 0;
        if (bad_weight(&layer->weights[m], arena, flat, limit, fault)) return 1;
    }
    for (const gp_vector *v = layer->vectors; v < layer->vectors + layer->n_vectors; v++) {
        fault->bias = v->bias;
        fault->recurrent = v->recurrent;
        if (!bad_entry(v->length, flat + v->offset, 1, limit, fault)) continue;
        if (v->columns > 0) {
            fault->row = fault->column / v->columns;
            fault->column %= v->columns;
        }
        return 1;
    }
    return 0;
}

const float *gp_layer_watched(const gp_layer *layer, const float *output, size_t *width)
{
    *width = layer->states ? layer->steps * layer->units : layer->spec.out;
    return layer->states ? layer->states : output;
}

int gp_layer_find_output(const gp_layer *layer, size_t samples, size_t first, float limit,
                         gp_fault *fault)
{
    size_t lanes, chunks, O;
    const float *outputs = gp_layer_watched(layer, layer->output, &O);
    gp_net_cut(samples, &lanes, &chunks);
    for (size_t s = 0; s < samples; s++) {
        if (!bad_entry(O, outputs + s / lanes * O * lanes + s % lanes, lanes, limit, fault))
            continue;
        fault->row = first + s;
        if (layer->states) {
            fault->step = fault->column / layer->units;
            fault->column %= layer->units;
        }
        return 1;
    }
    return 0;
}

void gp_net_input_fault(const gp_net *net, gp_fault *fault) { *fault = net->input_fault; }

void gp_net_fault(const gp_net *net, const gp_arena *arena, gp_fault *fault)
{
    gp_arena_settle(net->kernels, arena);
    for (size_t i = 0; i < net->n_layers; i++) {
        *fault = (gp_fault){.phase = GP_PHASE_PARAMETER, .layer = i, .step = GP_NONE};
        if (bad_parameter(&net->layers[i], arena, arena->params, INFINITY, fault)) return;
        if (gp_net_exploded(net) && net->explosion.layer == i) {
            *fault = net->explosion;
            return;
        }
        *fault = (gp_fault){.phase = GP_PHASE_FORWARD, .layer = i, .step = GP_NONE};
        if (net->last_samples > 0 && i < net->last_live &&
            gp_layer_find_output(&net->layers[i], net->last_samples, net->last_first, INFINITY,
                                 fault))
            return;
    }
    *fault = (gp_fault){
        .phase = GP_PHASE_LOSS, .layer = GP_NONE, .step = GP_NONE, .value = net->last_loss};
    if (!isfinite(net->last_loss)) return;
    for (size_t i = net->n_layers; i-- > 0;) {
        *fault = (gp_fault){.phase = GP_PHASE_BACKWARD, .layer = i, .step = GP_NONE};
        if (bad_parameter(&net->layers[i], arena, arena->grads, net->max_gradient, fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_NONE, .layer = GP_NONE, .step = GP_NONE};
}
