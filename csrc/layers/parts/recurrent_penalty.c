/* recurrent_penalty.c - the penalty that keeps W_hh near orthogonal matrices. */
#include <string.h>

#include "layers/parts/recurrent.h"

/* W (H,H), a gate of W_hh: the value is |W'W - 1|^2 and its gradient 4 W (W'W - 1), by members in
 * rows. */
double gp_recurrent_penalty(gp_layer *layer, const gp_kernels *kernels, const gp_arena *arena,
                            const gp_team *team, int backward)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    if (own->orthogonality == 0.0f) return 0.0;
    const gp_matrix *W = &layer->weights[1];
    const gp_lists *live = W->live;
    const size_t H = W->columns, G = W->rows / H, S = gp_padded(H);
    float *copy = layer->spare + gp_padded((G + 1) * H), *square = copy + H * S,
          *slope = square + H * S;
    const float factor = 4.0f * own->orthogonality;
    double sum = 0.0;
    size_t begin, end;
    gp_team_share_blocks(team, H, GP_RECURRENT_SHARE, &begin, &end);
    for (size_t g = 0; g < G; g++) {
        const size_t offset = W->offset + g * H * H;
        for (size_t r = begin; r < end; r++)
            if (live) gp_lists_expand_row(live, g * H + r, live->value, copy + r * S);
            else memcpy(copy + r * S, arena->params + offset + r * H, H * sizeof *copy);
        gp_team_wait(team);
        kernels->gemm(end - begin, H, H, copy + begin, 1, S, copy, S, square + begin * S, S, 0);
        for (size_t r = begin; r < end; r++) square[r * S + r] -= 1.0f;
        gp_team_wait(team);
        for (size_t r = 0; r < H; r++) sum += kernels->sum_squares(H, square + r * S);
        if (backward)
            kernels->gemm(end - begin, H, H, copy + begin * S, S, 1, square, S, slope + begin * S,
                          S, 0);
        for (size_t r = begin; backward && r < end; r++) {
            const size_t row = g * H + r;
            if (live) {
                for (size_t k = live->row_start[row]; k < live->row_start[row + 1]; k++)
                    live->gradient[k] += factor * slope[r * S + live->column[k]];
                continue;
            }
            float *dW = arena->grads + offset + r * H;
            for (size_t i = 0; i < H; i++) dW[i] += factor * slope[r * S + i];
            if (arena->removed) kernels->mask(H, arena->mask + offset + r * H, dW);
        }
        gp_team_wait(team); /* the next gate overwrites the copies */
    }
    return (double)own->orthogonality * sum;
}
