/* dense.c - y = W x + b, at each of T steps of a sequence; T = 1: of a plain sample.
 *
 *   forward   y (O,P)  = W (O,I) x (I,P) + b
 *   backward  dx (I,P) = W^T (I,O) dy (O,P);  dW (O,I) = dy (O,B) rows (B,I);  db (O) = sum_p dy
 *             (O,P)
 *
 * dW multiplies along the batch, so it wants x with the batch outermost: the first layer has the
 * user's rows and is shared by outputs, the others transpose their input and are shared by columns.
 * Removed weights get a gradient of exactly 0.
 *
 * A sample is (T, I) row by row, so in lanes step t of a chunk is (I,P), contiguous: products take
 * a chunk of T steps as T chunks. dW and db add up over chunks and steps in this order.
 */
#include "layers/layers.h"

/* ROWS: results are shared by so many rows, the height of the widest tile. TALL: rows of dW
 * computed at a time, a multiple of every tile height but the narrowest; they stay in the L2 cache
 * while all samples pass. */
enum { ROWS = 6, TALL = 48 };

static size_t blocks_of(size_t rows, size_t block) { return (rows + block - 1) / block; }

/* This member's rows begin..end, in whole blocks. */
static void shared_rows(const gp_team *team, size_t rows, size_t block, size_t *begin, size_t *end)
{
    gp_team_share(team, blocks_of(rows, block), begin, end);
    *begin = gp_smaller(*begin * block, rows);
    *end = gp_smaller(*end * block, rows);
}

/* The next rows of one chunk among a member's blocks item..end; 0 when there are none left. */
static int next_rows(size_t width, size_t *item, size_t end, size_t *chunk, size_t *first,
                     size_t *rows)
{
    if (*item >= end) return 0;
    size_t blocks = blocks_of(width, ROWS), take = gp_smaller(end - *item, blocks - *item % blocks);
    *chunk = *item / blocks;
    *first = *item % blocks * ROWS;
    *rows = gp_smaller(take * ROWS, width - *first);
    *item += take;
    return 1;
}

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
    size_t begin, end;
    /* of W, which stay in the cache of who updates them */
    shared_rows(pass->team, O, ROWS, &begin, &end);
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        float *y = layer->work + (chunk * O + begin) * P;
        if (b) pass->kernels->broadcast(end - begin, P, b + begin, y);
        gp_matrix_times(W, pass, begin, end, x + chunk * I * P, y, b != NULL);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* Rows o..o + n_o and columns i..i + n_i of dW, masked; `rows` holds x with the batch outermost,
 * (sample, T*I padded). */
static void weight_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy,
                            const float *rows, size_t o, size_t n_o, size_t i, size_t n_i)
{
    const gp_matrix *W = &layer->weights[0];
    const size_t T = W->uses, I = W->columns, O = W->rows, P = pass->lanes,
                 stride = gp_padded(layer->spec.in);
    const gp_arena *arena = pass->arena;
    for (size_t end = o + n_o; o < end; o += TALL) {
        size_t n = gp_smaller(TALL, end - o), done = 0, at = W->offset + o * I + i;
        for (size_t chunk = 0; chunk < pass->chunks; chunk++, done += P) {
            size_t valid = gp_smaller(P, pass->samples - done);
            for (size_t t = 0; t < T; t++)
                pass->kernels->gemm(n, n_i, valid, dy + ((chunk * T + t) * O + o) * P, P, 1,
                                    rows + done * stride + t * I + i, stride, arena->grads + at, I,
                                    pass->first + done + t > 0);
        }
        for (size_t r = 0; arena->removed && r < n; r++)
            pass->kernels->mask(n_i, arena->mask + at + r * I, arena->grads + at + r * I);
    }
}

static float *dense_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (layer->weights[0].live) return gp_dense_live_backward(layer, pass, dy, dx);
    const gp_matrix *W = &layer->weights[0];
    const size_t T = W->uses, I = W->columns, O = W->rows, P = pass->lanes,
                 stride = gp_padded(layer->spec.in), chunks = pass->chunks * T;
    size_t begin, end, chunk, first, n;
    shared_rows(pass->team, O, ROWS, &begin, &end);
    gp_dense_bias_gradient(layer, pass, dy, begin, end);
    if (layer->index == 0) {
        weight_gradient(layer, pass, dy, pass->rows, begin, end - begin, 0, I);
    } else { /* whose columns a member turns, it also multiplies: no need to meet in between */
        shared_rows(pass->team, I, GP_ALIGN_FLOATS, &begin, &end);
        for (chunk = 0; chunk < chunks; chunk++)
            pass->kernels->transpose(end - begin, P, layer->input + (chunk * I + begin) * P, P,
                                     pass->scratch + chunk / T * P * stride + chunk % T * I + begin,
                                     stride);
        weight_gradient(layer, pass, dy, pass->scratch, 0, O, begin, end - begin);
    }
    if (dx) {
        gp_team_share(pass->team, chunks * blocks_of(I, ROWS), &begin, &end);
        while (next_rows(I, &begin, end, &chunk, &first, &n))
            gp_matrix_transposed_times(W, pass, first, first + n, dy + chunk * O * P,
                                       dx + (chunk * I + first) * P, 0);
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
                                     .wants_rows = 1,
                                     .wants_partial = 1,
                                     .frozen = &gp_dense_frozen,
                                     .frozen_int8 = &gp_dense_frozen_int8};
