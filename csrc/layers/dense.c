/* dense.c - y = W x + b.
 *
 *   forward   y (O,P)  = W (O,I) x (I,P) + b
 *   backward  dx (I,P) = W^T (I,O) dy (O,P);  dW (O,I) = dy (O,B) rows (B,I);  db (O) = sum_p dy (O,P)
 *
 * dW multiplies along the batch, so it wants x with the batch outermost: the first layer has the user's rows, the
 * others transpose their input once. Removed weights get a gradient of exactly 0.
 */
#include "layers/layers.h"

/* Rows of a result are shared in blocks of so many: the height of the widest tile. */
enum { ROWS = 6, TALL = 24 };

static size_t row_blocks(size_t rows) { return (rows + ROWS - 1) / ROWS; }

/* The next rows of one chunk among a member's blocks item..end; 0 when there are none left. */
static int next_rows(size_t width, size_t *item, size_t end, size_t *chunk, size_t *first, size_t *rows)
{
    if (*item >= end) return 0;
    size_t blocks = row_blocks(width), take = gp_smaller(end - *item, blocks - *item % blocks);
    *chunk = *item / blocks;
    *first = *item % blocks * ROWS;
    *rows = gp_smaller(take * ROWS, width - *first);
    *item += take;
    return 1;
}

static int dense_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    if (spec->in == 0 || spec->out == 0 || spec->in > n_prunable / spec->out) return 0;
    if (spec->weight > n_prunable - spec->in * spec->out) return 0;
    return spec->bias == GP_NONE ||
           (spec->bias >= n_prunable && spec->out <= n_params && spec->bias <= n_params - spec->out);
}

static size_t dense_workspace(const gp_layer_spec *spec) { return spec->out; }

static const float *dense_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    if (layer->live) return gp_dense_live_forward(layer, pass, x);
    const size_t I = layer->spec.in, O = layer->spec.out, P = pass->lanes;
    const float *W = pass->arena->params + layer->spec.weight;
    const float *b = layer->spec.bias == GP_NONE ? NULL : pass->arena->params + layer->spec.bias;
    size_t item, end, chunk, o, rows;
    gp_team_share(pass->team, pass->chunks * row_blocks(O), &item, &end);
    while (next_rows(O, &item, end, &chunk, &o, &rows)) {
        float *y = layer->work + (chunk * O + o) * P;
        if (b)
            for (size_t r = 0; r < rows; r++) pass->kernels->fill(P, y + r * P, b[o + r]);
        pass->kernels->gemm(rows, P, I, W + o * I, I, 1, x + chunk * I * P, P, y, P, b != NULL);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* rows[sample][feature] from x[chunk][feature][P] */
static void transpose_input(const gp_layer *layer, const gp_pass *pass, float *rows, size_t stride)
{
    enum { FEATURES = 64 };
    const size_t I = layer->spec.in, P = pass->lanes;
    size_t blocks = (I + FEATURES - 1) / FEATURES, begin, end;
    gp_team_share(pass->team, pass->chunks * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t chunk = item / blocks, i = item % blocks * FEATURES, features = gp_smaller(FEATURES, I - i);
        pass->kernels->transpose(features, P, layer->input + (chunk * I + i) * P, P, rows + chunk * P * stride + i,
                                 stride);
    }
    gp_team_wait(pass->team);
}

void gp_dense_bias_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy, size_t begin, size_t end)
{
    if (layer->spec.bias == GP_NONE) return;
    float *db = pass->arena->grads + layer->spec.bias;
    const size_t P = pass->lanes;
    for (size_t o = begin; o < end; o++) {
        double sum = pass->first > 0 ? (double)db[o] : 0.0;
        for (size_t chunk = 0; chunk < pass->chunks; chunk++)
            sum += pass->kernels->sum(P, dy + (chunk * layer->spec.out + o) * P);
        db[o] = (float)sum;
    }
}

static float *dense_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (layer->live) return gp_dense_live_backward(layer, pass, dy, dx);
    const gp_kernels *kernels = pass->kernels;
    const gp_arena *arena = pass->arena;
    const size_t I = layer->spec.in, O = layer->spec.out, P = pass->lanes, stride = gp_padded(I);
    const float *W = arena->params + layer->spec.weight, *rows = pass->rows;
    float *dW = arena->grads + layer->spec.weight;
    size_t begin, end;
    if (layer->index > 0) {
        transpose_input(layer, pass, pass->scratch, stride);
        rows = pass->scratch;
    }
    gp_team_share(pass->team, row_blocks(O), &begin, &end);
    begin = gp_smaller(begin * ROWS, O);
    end = gp_smaller(end * ROWS, O);
    for (size_t o = begin; o < end; o += TALL) {
        size_t n = gp_smaller(TALL, end - o), done = 0;
        for (size_t chunk = 0; chunk < pass->chunks; chunk++, done += P) {
            size_t valid = gp_smaller(P, pass->samples - done);
            kernels->gemm(n, I, valid, dy + (chunk * O + o) * P, P, 1, rows + done * stride, stride, dW + o * I, I,
                          pass->first + done > 0);
        }
    }
    if (arena->removed) kernels->mask((end - begin) * I, arena->mask + layer->spec.weight + begin * I, dW + begin * I);
    gp_dense_bias_gradient(layer, pass, dy, begin, end);
    if (dx) {
        size_t item, chunk, first, n;
        gp_team_share(pass->team, pass->chunks * row_blocks(I), &item, &end);
        while (next_rows(I, &item, end, &chunk, &first, &n))
            kernels->gemm(n, P, O, W + first, 1, I, dy + chunk * O * P, P, dx + (chunk * I + first) * P, P, 0);
    }
    gp_team_wait(pass->team);
    return dx;
}

const gp_layer_ops gp_layer_dense = {"dense", dense_is_valid, dense_workspace, dense_forward, dense_backward};
