/* dense_frozen.c - Dense at inference: y = f(W x + b) with W packed when the network is frozen
 * (matrix_frozen.c).
 *
 * Steps of a sequence run one after the other in lanes. Few samples run them some at a time as rows
 * of a sample of their own each, between copies where a step has to be padded.
 */
#include <stdlib.h>
#include <string.h>

#include "layers/parts/matrix_frozen.h"

/* Rows that are computed, activated and stored while they are in the L1 cache: a multiple of every
 * tile of gemm. */
enum { ROWS = 24 };
/* Steps of few samples that are computed together. */
enum { STEPS = 16 };

static gp_status dense_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t I = gp_columns_of(spec), O = gp_rows_of(spec);
    enum { HEAD = 48 }; /* words */
    _Static_assert(sizeof(gp_frozen_matrix) <= HEAD * sizeof(uint32_t), "it does not fit");
    gp_frozen_matrix plan;
    gp_status status =
        gp_frozen_matrix_plan(&plan, arena->mask + spec->weight, O, I, O, gp_steps_of(spec));
    if (status != GP_OK) return status;
    const size_t words = HEAD + plan.words;
    uint32_t *next = aligned_alloc(64, words * sizeof *next);
    if (!next) {
        gp_frozen_matrix_end(&plan);
        return GP_NO_MEMORY;
    }
    memset(next, 0, words * sizeof *next);
    packed->memory = next;
    packed->bytes = words * sizeof *next;
    gp_frozen_matrix *W = packed->memory;
    *W = plan;
    next += HEAD;
    gp_frozen_matrix_fill(W, arena->mask + spec->weight, arena->params + spec->weight,
                          spec->bias == GP_NONE ? NULL : arena->params + spec->bias, &next);
    packed->kept = W->kept;
    packed->row_list = W->slices > 0;
    packed->lane_list = W->blocks > 0;
    packed->row_ns = gp_frozen_matrix_row_ns(W);
    packed->lane_ns = gp_frozen_matrix_lane_ns(W);
    return GP_OK;
}

static size_t dense_scratch(const gp_layer_spec *spec, int in_lanes)
{
    if (in_lanes || gp_steps_of(spec) == 1) return 0;
    return STEPS * (gp_padded(gp_columns_of(spec)) + gp_padded(gp_rows_of(spec)));
}

static void activate(const gp_packed *packed, const gp_kernels *kernels, size_t n, float *y)
{
    if (packed->then != GP_IDENTITY)
        kernels->activation_forward(n, y, y, packed->then, packed->slope);
}

static void infer_rows(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_frozen_matrix *W = packed->memory;
    const size_t x_row = gp_frozen_matrix_in(W), y_row = gp_frozen_matrix_out(W);
    gp_frozen_matrix_rows(W, chunk->kernels, chunk->samples, x, x_row, y, y_row);
    activate(packed, chunk->kernels, chunk->samples * y_row, y);
}

static void infer_steps(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_frozen_matrix *W = packed->memory;
    const size_t I = W->columns, O = W->rows, T = gp_steps_of(&packed->spec);
    const size_t x_row = gp_frozen_matrix_in(W), y_row = gp_frozen_matrix_out(W);
    float *padded = chunk->scratch, *out = padded + STEPS * x_row;
    memset(out, 0, STEPS * y_row * sizeof *out);
    for (size_t s = 0; s < chunk->samples; s++)
        for (size_t t = 0; t < T; t += STEPS) {
            const size_t n = gp_smaller(STEPS, T - t);
            const float *steps =
                gp_frozen_steps(n, I, x + s * gp_padded(packed->spec.in) + t * I, padded);
            float *to = y + s * gp_padded(packed->spec.out) + t * O;
            gp_frozen_matrix_rows(W, chunk->kernels, n, steps, x_row, out, y_row);
            activate(packed, chunk->kernels, n * y_row, out);
            for (size_t i = 0; i < n; i++) memcpy(to + i * O, out + i * y_row, O * sizeof *to);
        }
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_frozen_matrix *W = packed->memory;
    const gp_kernels *kernels = chunk->kernels;
    const size_t I = W->columns, O = W->rows, P = chunk->lanes;
    const size_t blocks = W->blocks ? W->blocks : 1;
    for (size_t block = 0; block < blocks; block++)
        for (size_t o = 0; o < O; o += ROWS) {
            size_t rows = gp_smaller(ROWS, O - o);
            if (block == 0) kernels->broadcast(rows, P, W->bias + o, y + o * P);
            if (W->blocks)
                kernels->sparse_product(rows, P, W->block_start + block * (O + 1) + o, W->column,
                                        W->value, x, y + o * P, 1);
            else
                kernels->gemm(rows, P, I, W->weights + o * W->stride, W->stride, 1, x, P, y + o * P,
                              P, 1);
            if (block + 1 == blocks) activate(packed, kernels, rows * P, y + o * P);
        }
}

static void dense_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t T = gp_steps_of(&packed->spec), P = chunk->lanes;
    for (size_t t = 0; P > 0 && t < T; t++)
        infer_lanes(packed, chunk, x + t * gp_columns_of(&packed->spec) * P,
                    y + t * gp_rows_of(&packed->spec) * P);
    if (P == 0 && T == 1) infer_rows(packed, chunk, x, y);
    if (P == 0 && T > 1) infer_steps(packed, chunk, x, y);
}

const gp_frozen_ops gp_dense_frozen = {
    .takes_activation = 1, .pack = dense_pack, .scratch = dense_scratch, .infer = dense_infer};
