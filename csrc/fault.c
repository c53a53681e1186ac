/* fault.c - the first number that is not finite, in the order of computation: found only after something went wrong, so
 * it may take its time. */
#include <math.h>

#include "net.h"

/* 1 and its place if a (rows, columns) array holds one. */
static int first_bad(const float *values, size_t rows, size_t columns, size_t row_stride, size_t *row, size_t *column)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            if (!isfinite(values[r * row_stride + c])) {
                *row = r;
                *column = c;
                return 1;
            }
    return 0;
}

/* What is removed does not exist, whatever was written there. */
static int bad_weight(const gp_layer_spec *spec, const gp_arena *arena, const float *flat, gp_fault *fault)
{
    for (size_t k = 0; k < spec->in * spec->out; k++) {
        if (isfinite(flat[spec->weight + k]) || (arena->removed > 0 && !arena->mask[spec->weight + k])) continue;
        fault->row = k / spec->in;
        fault->column = k % spec->in;
        return 1;
    }
    return 0;
}

/* In the parameters or the gradients, whichever `flat` is. */
static int bad_parameter(const gp_layer *layer, const gp_arena *arena, const float *flat, gp_fault *fault)
{
    const gp_layer_spec *spec = &layer->spec;
    if (spec->type != GP_LAYER_DENSE) return 0;
    fault->bias = 0;
    if (bad_weight(spec, arena, flat, fault)) return 1;
    fault->bias = 1;
    return spec->bias != GP_NONE && first_bad(flat + spec->bias, 1, spec->out, spec->out, &fault->row, &fault->column);
}

static int bad_output(const gp_net *net, const gp_layer *layer, gp_fault *fault)
{
    size_t lanes, chunks, O = layer->spec.out;
    gp_net_cut(net->last_samples, &lanes, &chunks);
    for (size_t s = 0; s < net->last_samples; s++) {
        const float *at = layer->output + s / lanes * O * lanes + s % lanes;
        size_t row;
        if (first_bad(at, O, 1, lanes, &fault->column, &row)) {
            fault->row = net->last_first + s;
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
        if (bad_parameter(&net->layers[i], arena, arena->params, fault)) return;
        *fault = (gp_fault){.phase = GP_PHASE_FORWARD, .layer = i};
        if (net->last_samples > 0 && i < net->last_live && bad_output(net, &net->layers[i], fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_LOSS, .layer = GP_NONE};
    if (!isfinite(net->last_loss)) return;
    for (size_t i = net->n_layers; i-- > 0;) {
        *fault = (gp_fault){.phase = GP_PHASE_BACKWARD, .layer = i};
        if (bad_parameter(&net->layers[i], arena, arena->grads, fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_NONE, .layer = GP_NONE};
}
