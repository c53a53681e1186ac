/* dense_live.c - Dense when few weights are left: the same three products over lists of the live ones.
 *
 *   forward   y[o]  = b[o] + sum over live i of W[o][i] x[i]      rows of the list, a vector of lanes at a time
 *   backward  dx[i] = sum over live o of W[o][i] dy[o];  dW[o][i] = sum over lanes of dy[o] x[i], live entries only
 *
 * The values are gathered from the user's row-major W in every call, so what was written into it counts. Nothing here
 * needs the batch outermost.
 */
#include "layers/layers.h"

/* y (+)= W x for rows begin..end: fours that share their columns, and the rows between them. */
static void product(const gp_layer *layer, const gp_pass *pass, size_t begin, size_t end, const float *x, float *y)
{
    const gp_lists *live = layer->live;
    const int add = layer->spec.bias != GP_NONE;
    const size_t P = pass->lanes, fours = live->rows / 4;
    for (size_t o = begin, next; o < end; o = next) {
        int alike = o / 4 < fours && live->alike[o / 4];
        for (next = o + 4; next < end && (next / 4 < fours && live->alike[next / 4]) == alike;) next += 4;
        next = gp_smaller(next, end);
        if (alike)
            pass->kernels->sparse_product_fours((next - o) / 4, P, live->row_start + o, live->column, live->value, x,
                                                y + o * P, add);
        else
            pass->kernels->sparse_product(next - o, P, live->row_start + o, live->column, live->value, x, y + o * P,
                                          add);
    }
}

const float *gp_dense_live_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    gp_lists *live = layer->live;
    const size_t I = layer->spec.in, O = layer->spec.out, P = pass->lanes;
    const float *W = pass->arena->params + layer->spec.weight;
    const float *b = layer->spec.bias == GP_NONE ? NULL : pass->arena->params + layer->spec.bias;
    size_t begin, end;
    gp_lists_share(pass->team, O, live->row_start, &begin, &end);
    const size_t first = live->row_start[begin], count = live->row_start[end] - first;
    pass->kernels->gather(count, live->flat + first, W, live->value + first);
    for (size_t chunk = 0; chunk < pass->chunks; chunk++) {
        float *y = layer->work + chunk * O * P;
        for (size_t o = begin; b && o < end; o++) pass->kernels->fill(P, y + o * P, b[o]);
        product(layer, pass, begin, end, x + chunk * I * P, y);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

float *gp_dense_live_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    gp_lists *live = layer->live;
    const size_t I = layer->spec.in, O = layer->spec.out, P = pass->lanes;
    size_t begin, end;
    if (dx) {
        gp_lists_share(pass->team, I, live->column_start, &begin, &end);
        const size_t first = live->column_start[begin], count = live->column_start[end] - first;
        pass->kernels->gather(count, live->place + first, live->value, live->by_column + first);
        for (size_t chunk = 0; chunk < pass->chunks; chunk++)
            pass->kernels->sparse_product(end - begin, P, live->column_start + begin, live->row, live->by_column,
                                          dy + chunk * O * P, dx + (chunk * I + begin) * P, 0);
    }
    gp_lists_share(pass->team, O, live->row_start, &begin, &end);
    for (size_t chunk = 0; chunk < pass->chunks; chunk++)
        pass->kernels->sparse_dot(end - begin, P, live->row_start + begin, live->column, dy + (chunk * O + begin) * P,
                                  layer->input + chunk * I * P, live->gradient, pass->first + chunk > 0);
    gp_dense_bias_gradient(layer, pass, dy, begin, end);
    gp_team_wait(pass->team);
    return dx;
}
