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

void gp_matrix_transposed_times(const gp_matrix *matrix, const gp_pass *pass, size_t begin,
                                size_t end, const float *dy, float *dx, int add)
{
    const gp_lists *live = matrix->live;
    const size_t I = matrix->columns, P = pass->lanes;
    const float *W = pass->arena->params + matrix->offset;
    if (live)
        pass->kernels->sparse_product(end - begin, P, live->column_start + begin, live->row,
                                      live->by_column, dy, dx, add);
    else pass->kernels->gemm(end - begin, P, matrix->rows, W + begin, 1, I, dy, P, dx, P, add);
}
