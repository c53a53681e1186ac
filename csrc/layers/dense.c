/* dense.c - y = W x + b, at each of T steps of a sequence; T = 1: of a plain sample.
 *
 *   forward   y (O,P)  = W (O,I) x (I,P) + b
 *   backward  dx (I,P) = W^T (I,O) dy (O,P);  dW (O,I) = sum over lanes and chunks of dy (O,P) x
 *             (I,P);  db (O) = sum_p dy (O,P)
 *
 * Removed weights get a gradient of exactly 0.
 *
 * A sample is (T, I) row by row, so in lanes step t of a chunk is (I,P), contiguous: products take
 * a chunk of T steps as T chunks. dW and db add up over chunks and steps in this order.
 */
#include "layers/layers.h"

static int dense_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    const size_t T = gp_steps_of(spec), I = gp_columns_of(spec), O = gp_rows_of(spec);
    if (I == 0 || O == 0 || spec->in % T != 0 || spec->out % T != 0 || I > n_prunable / O) return 0;
    if (spec->weight > n_prunable - I * O) return 0;
    return spec->bias == GP_NONE ||
           (spec->bias >= n_prunable && O <= n_params && spec->bias <= n_params - O);
}

static size_t dense_weights(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES])
{
    weights[0] = (gp_matrix){.offset = spec->weight,
                             .rows = gp_rows_of(spec),
                             .columns = gp_columns_of(spec),
                             .in_fours = 1,
                             .uses = gp_steps_of(spec)};
    return 1;
}

static size_t dense_vectors(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS])
{
    vectors[0] = (gp_vector){.offset = spec->bias, .length = gp_rows_of(spec), .bias = 1};
    return spec->bias != GP_NONE;
}

static size_t dense_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *dense_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    if (layer->weights[0].live) return gp_dense_live_forward(layer, pass, x);
    const gp_matrix *W = &layer->weights[0];
    const size_t I = W->columns, O = W->rows, P = pass->lanes, chunks = pass->chunks * W->uses;
    const float *b = layer->spec.bias == GP_NONE ? NULL : pass->arena->params + layer->spec.bias;
    const gp_part mine = gp_team_part(pass->team, chunks, O, O * I);
    for (size_t chunk = mine.first_chunk; chunk < mine.last_chunk; chunk++) {
        float *y = layer->work + (chunk * O + mine.begin) * P;
        if (b) pass->kernels->broadcast(mine.end - mine.begin, P, b + mine.begin, y);
        gp_matrix_times(W, pass, mine.begin, mine.end, x + chunk * I * P, y, b != NULL);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

static float *dense_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (layer->weights[0].live) return gp_dense_live_backward(layer, pass, dy, dx);
    const gp_matrix *W = &layer->weights[0];
    const size_t I = W->columns, O = W->rows, P = pass->lanes;
    size_t begin, end;
    gp_team_share_blocks(pass->team, O, GP_PART_ROWS, &begin, &end);
    gp_dense_bias_gradient(layer, pass, dy, begin, end);
    gp_matrix_gradient(W, pass, 0, dy, layer->input);
    if (dx) {
        const gp_part mine = gp_team_part(pass->team, pass->chunks * W->uses, I, O * I);
        gp_matrix_transposed_times(W, pass, mine.last_chunk - mine.first_chunk, mine.begin,
                                   mine.end, dy + mine.first_chunk * O * P,
                                   dx + (mine.first_chunk * I + mine.begin) * P, 0);
    }
    gp_team_wait(pass->team);
    return dx;
}

const gp_layer_ops gp_layer_dense = {.name = "dense",
                                     .is_valid = dense_is_valid,
                                     .weights = dense_weights,
                                     .vectors = dense_vectors,
                                     .workspace = dense_workspace,
                                     .forward = dense_forward,
                                     .backward = dense_backward,
                                     .is_product = 1,
                                     .wants_partial = 1,
                                     .frozen = &gp_dense_frozen,
                                     .frozen_int8 = &gp_dense_frozen_int8};
