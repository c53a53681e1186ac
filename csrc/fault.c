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
static int bad_weight(const gp_matrix *W, const gp_arena *arena, const float *flat, gp_fault *fault)
{
    for (size_t k = 0; k < W->rows * W->columns; k++) {
        if (isfinite(flat[W->offset + k]) || (arena->removed > 0 && !arena->mask[W->offset + k])) continue;
        fault->row = k / W->columns;
        fault->column = k % W->columns;
        return 1;
    }
    return 0;
}

/* In the parameters or the gradients, whichever `flat` is: weights, then biases. */
static int bad_parameter(const gp_layer *layer, const gp_arena *arena, const float *flat, gp_fault *fault)
{
    const size_t biases[GP_MATRICES] = {layer->spec.bias, layer->spec.recurrent_bias};
    fault->bias = 0;
    for (size_t m = 0; m < layer->n_weights; m++) {
        fault->recurrent = m > 0;
        if (bad_weight(&layer->weights[m], arena, flat, fault)) return 1;
    }
    fault->bias = 1;
    for (size_t m = 0; m < layer->n_weights && layer->spec.bias != GP_NONE; m++) {
        const size_t rows = layer->weights[m].rows;
        fault->recurrent = m > 0;
        if (first_bad(flat + biases[m], 1, rows, rows, &fault->row, &fault->column)) return 1;
    }
    return 0;
}

static int bad_output(const gp_net *net, const gp_layer *layer, gp_fault *fault)
{
    const gp_layer_spec *spec = &layer->spec;
    const size_t units = layer->states ? layer->weights[1].columns : 0, O = units ? spec->steps * units : spec->out;
    const float *outputs = units ? layer->states : layer->output;
    size_t lanes, chunks;
    gp_net_cut(net->last_samples, &lanes, &chunks);
    for (size_t s = 0; s < net->last_samples; s++) {
        const float *at = outputs + s / lanes * O * lanes + s % lanes;
        size_t row;
        if (!first_bad(at, O, 1, lanes, &fault->column, &row)) continue;
        fault->row = net->last_first + s;
        if (units) {
            fault->step = fault->column / units;
            fault->column %= units;
        }
        return 1;
    }
    return 0;
}

void gp_net_input_fault(const gp_net *net, gp_fault *fault) { *fault = net->input_fault; }

void gp_net_fault(const gp_net *net, const gp_arena *arena, gp_fault *fault)
{
    gp_live_publish(arena);
    for (size_t i = 0; i < net->n_layers; i++) {
        *fault = (gp_fault){.phase = GP_PHASE_PARAMETER, .layer = i, .step = GP_NONE};
        if (bad_parameter(&net->layers[i], arena, arena->params, fault)) return;
        *fault = (gp_fault){.phase = GP_PHASE_FORWARD, .layer = i, .step = GP_NONE};
        if (net->last_samples > 0 && i < net->last_live && bad_output(net, &net->layers[i], fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_LOSS, .layer = GP_NONE, .step = GP_NONE};
    if (!isfinite(net->last_loss)) return;
    for (size_t i = net->n_layers; i-- > 0;) {
        *fault = (gp_fault){.phase = GP_PHASE_BACKWARD, .layer = i, .step = GP_NONE};
        if (bad_parameter(&net->layers[i], arena, arena->grads, fault)) return;
    }
    *fault = (gp_fault){.phase = GP_PHASE_NONE, .layer = GP_NONE, .step = GP_NONE};
}
