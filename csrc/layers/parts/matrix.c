/* matrix.c - one chunk of lanes times a weight matrix, whole or by its live weights: what all
 * layers with weights share.
 *
 * If somebody has a view of the whole row-major buffer, values of live weights are collected from
 * there in every call, so what was written there counts.
 */
#include "layers/layers.h"

static void collect(const gp_pass *pass, size_t rows, const uint32_t *start, const uint32_t *index,
                    const float *from, float *numbers)
{
    size_t begin, end;
    gp_lists_share(pass->team, rows, start, &begin, &end);
    pass->kernels->gather(start[end] - start[begin], index + start[begin], from,
                          numbers + start[begin]);
    gp_team_wait(pass->team);
}

void gp_matrix_collect(const gp_matrix *matrix, const gp_pass *pass)
{
    const gp_lists *live = matrix->live;
    if (live && matrix->outside[GP_VALUES])
        collect(pass, live->rows, live->row_start, live->flat, pass->arena->params + matrix->offset,
                live->value);
}

void gp_matrix_collect_columns(const gp_matrix *matrix, const gp_pass *pass)
{
    const gp_lists *live = matrix->live;
    if (live)
        collect(pass, live->columns, live->column_start, live->place, live->value, live->by_column);
}

/* Fours of rows that share their columns, and the rows between them. */
static void live_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin, size_t end,
                       const float *x, float *y, int add)
{
    const gp_lists *live = matrix->live;
    const size_t P = pass->lanes, fours = matrix->in_fours ? live->rows / 4 : 0;
    for (size_t o = begin, next; o < end; o = next) {
        int alike = o / 4 < fours && live->alike[o / 4];
        for (next = o + 4; next < end && (next / 4 < fours && live->alike[next / 4]) == alike;)
            next += 4;
        next = gp_smaller(next, end);
        if (alike)
            pass->kernels->sparse_product_fours((next - o) / 4, P, live->row_start + o,
                                                live->column, live->value, x, y + (o - begin) * P,
                                                add);
        else
            pass->kernels->sparse_product(next - o, P, live->row_start + o, live->column,
                                          live->value, x, y + (o - begin) * P, add);
    }
}

void gp_matrix_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin, size_t end,
                     const float *x, float *y, int add)
{
    const size_t I = matrix->columns, P = pass->lanes;
    const float *W = pass->arena->params + matrix->offset;
    if (matrix->live) live_times(matrix, pass, begin, end, x, y, add);
    else pass->kernels->gemm(end - begin, P, I, W + begin * I, I, 1, x, P, y, P, add);
}

void gp_matrix_transposed_times(const gp_matrix *matrix, const gp_pass *pass, size_t chunks,
                                size_t begin, size_t end, const float *dy, float *dx, int add)
{
    const gp_lists *live = matrix->live;
    const size_t P = pass->lanes, dy_chunk = matrix->rows * P, dx_chunk = matrix->columns * P;
    const float *W = pass->arena->params + matrix->offset;
    for (size_t chunk = 0; live && chunk < chunks; chunk++)
        pass->kernels->sparse_product(end - begin, P, live->column_start + begin, live->row,
                                      live->by_column, dy + chunk * dy_chunk, dx + chunk * dx_chunk,
                                      add);
    if (!live)
        pass->kernels->gemm_transposed(chunks, end - begin, P, matrix->rows, W + begin,
                                       matrix->columns, dy, dy_chunk, dx, dx_chunk, add);
}

void gp_matrix_gradient(const gp_matrix *matrix, const gp_pass *pass, size_t first, const float *dy,
                        const float *x)
{
    /* whose columns a member turns it also multiplies, unless they are few */
    const size_t T = matrix->uses, I = matrix->columns, O = matrix->rows, P = pass->lanes;
    const gp_arena *arena = pass->arena;
    size_t o = 0, o_end = O, i = 0, i_end = I;
    if (O > I) gp_team_share_blocks(pass->team, O, GP_PART_ROWS, &o, &o_end);
    else gp_team_share_blocks(pass->team, I, GP_ALIGN_FLOATS, &i, &i_end);
    const size_t at = matrix->offset + o * I + i, whole = pass->samples / P;
    for (size_t chunk = 0, together; chunk < pass->chunks; chunk += together) {
        together = first == 0 && chunk < whole ? whole - chunk : 1;
        pass->kernels->gemm_over_lanes(
            together * (T - first), o_end - o, i_end - i, P,
            gp_smaller(P, pass->samples - chunk * P), dy + ((chunk * T + first) * O + o) * P, O * P,
            x + (chunk * T * I + i) * P, I * P, arena->grads + at, I, pass->first + chunk > 0);
    }
    for (size_t r = 0; arena->removed && r < o_end - o; r++)
        pass->kernels->mask(i_end - i, arena->mask + at + r * I, arena->grads + at + r * I);
}
