/* dense_live.c - Dense when few weights are left: the same three products over lists of the live
 * ones.
 *
 *   forward   y[o]  = b[o] + sum over live i of W[o][i] x[i]      rows of the list, a vector of
 *             lanes at a time
 *   backward  dx[i] = sum over live o of W[o][i] dy[o];  dW[o][i] = sum over lanes of dy[o] x[i],
 *             live entries only
 *
 * Nothing here needs the batch outermost. A chunk of T steps counts as T chunks, see dense.c.
 */
#include "layers/layers.h"

/* A member's part of a product: whole chunks, T steps each, if they come out even, so that it alone
 * reads their inputs, else rows. */
static gp_part part_of(const gp_pass *pass, size_t chunks, size_t rows, const uint32_t *start)
{
    gp_part mine = {0, chunks, 0, rows};
    if (pass->chunks % pass->team->size == 0)
        gp_team_share(pass->team, chunks, &mine.first_chunk, &mine.last_chunk);
    else gp_lists_share(pass->team, rows, start, &mine.begin, &mine.end);
    return mine;
}

void gp_dense_bias_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy,
                            size_t begin, size_t end)
{
    if (layer->spec.bias == GP_NONE) return;
    float *db = pass->arena->grads + layer->spec.bias;
    const gp_matrix *W = &layer->weights[0];
    const size_t P = pass->lanes, chunks = pass->chunks * W->uses;
    for (size_t o = begin; o < end; o++) {
        double sum = pass->first > 0 ? (double)db[o] : 0.0;
        for (size_t chunk = 0; chunk < chunks; chunk++)
            sum += pass->kernels->sum(P, dy + (chunk * W->rows + o) * P);
        db[o] = (float)sum;
    }
}

const float *gp_dense_live_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const gp_matrix *W = &layer->weights[0];
    const gp_lists *live = W->live;
    const size_t I = W->columns, O = W->rows, P = pass->lanes;
    const float *b = layer->spec.bias == GP_NONE ? NULL : pass->arena->params + layer->spec.bias;
    gp_matrix_collect(W, pass);
    const gp_part mine = part_of(pass, pass->chunks * W->uses, O, live->row_start);
    for (size_t chunk = mine.first_chunk; chunk < mine.last_chunk; chunk++) {
        float *y = layer->work + chunk * O * P;
        if (b)
            pass->kernels->broadcast(mine.end - mine.begin, P, b + mine.begin, y + mine.begin * P);
        gp_matrix_times(W, pass, mine.begin, mine.end, x + chunk * I * P, y + mine.begin * P,
                        b != NULL);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* dW of the live weights: whole chunks by who has their inputs at hand, then the sum over chunks,
 * in order; or rows. So do all of several steps: they would need a partial sum each. */
static void weight_gradient(const gp_layer *layer, const gp_pass *pass, const float *dy)
{
    const gp_matrix *W = &layer->weights[0];
    const gp_lists *live = W->live;
    const size_t I = W->columns, O = W->rows, P = pass->lanes, chunks = pass->chunks * W->uses;
    gp_part mine = {0, chunks, 0, 0};
    if (W->uses == 1) mine = part_of(pass, chunks, O, live->row_start);
    else gp_lists_share(pass->team, O, live->row_start, &mine.begin, &mine.end);
    const int by_chunk = mine.last_chunk - mine.first_chunk < chunks;
    for (size_t chunk = mine.first_chunk; chunk < mine.last_chunk; chunk++)
        pass->kernels->sparse_dot(mine.end - mine.begin, P, live->row_start + mine.begin,
                                  live->column, dy + (chunk * O + mine.begin) * P,
                                  layer->input + chunk * I * P,
                                  by_chunk ? pass->partial + chunk * live->count : live->gradient,
                                  !by_chunk && pass->first + chunk > 0);
    if (!by_chunk) return;
    size_t begin, end;
    gp_team_wait(pass->team);
    gp_team_share(pass->team, live->count, &begin, &end);
    for (size_t chunk = 0; chunk < pass->chunks; chunk++) {
        const float *from = pass->partial + chunk * live->count;
        if (pass->first + chunk == 0)
            for (size_t k = begin; k < end; k++) live->gradient[k] = from[k];
        else
            for (size_t k = begin; k < end; k++) live->gradient[k] += from[k];
    }
}

float *gp_dense_live_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    const gp_matrix *W = &layer->weights[0];
    const gp_lists *live = W->live;
    const size_t I = W->columns, O = W->rows, P = pass->lanes;
    size_t begin, end;
    if (dx) {
        gp_matrix_collect_columns(W, pass);
        const gp_part mine = part_of(pass, pass->chunks * W->uses, I, live->column_start);
        for (size_t chunk = mine.first_chunk; chunk < mine.last_chunk; chunk++)
            gp_matrix_transposed_times(W, pass, 1, mine.begin, mine.end, dy + chunk * O * P,
                                       dx + (chunk * I + mine.begin) * P, 0);
    }
    weight_gradient(layer, pass, dy);
    gp_lists_share(pass->team, O, live->row_start, &begin, &end);
    gp_dense_bias_gradient(layer, pass, dy, begin, end);
    gp_team_wait(pass->team);
    return dx;
}
