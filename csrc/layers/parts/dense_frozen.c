/* dense_frozen.c - Dense at inference: y = f(W x + b) with W packed when the network is frozen.
 *
 *   few samples    a row each: dense rows of W, or its live weights in slices of 16 rows sorted by
 *   length (sliced ELL,
 *                  Monakov et al. 2010), so that a gather fills a vector and next to nothing is
 *                  padding
 *   many samples   lanes: dense rows of W, or compressed rows in blocks of columns whose part of x
 *   stays in the L1 cache
 *
 * Several steps of a sequence run in lanes alone, one after the other: rows of a sample lie side by
 * side there, not padded one by one. The two are chosen apart, since a list pays sooner with many
 * samples. W is kept twice when both run on lists: 16 bytes a live weight, as much as the dense
 * matrix at 25 % kept.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers/layers.h"

/* Rows that are computed, activated and stored while they are in the L1 cache: a multiple of every
 * tile of gemm. */
enum { ROWS = 24 };
/* About the columns of a block: with 32 lanes 32 kB. A row shorter than ENTRIES a block loses more
 * by coming back than it wins. */
enum { COLUMNS = 256, ENTRIES = 8 };

typedef struct dense_packed {
    /* floats between rows of W; 0 blocks or slices: not on a list */
    size_t stride, blocks, slices;
    float *bias;                    /* padded with zeros */
    float *weights;                 /* (O, stride) or NULL */
    uint32_t *block_start, *column; /* blocks of (O + 1) starts */
    float *value;
    uint32_t *slice_start, *slice_column, *slice_row;
    float *slice_value, *slice_bias;
} dense_packed;

/* ---- what runs on a list --------------------------------------------------------------------- */

/* Nanoseconds a multiply-add (many samples: 16 of them), measured with AVX-512 on 784-300-100-10; a
 * list entry costs more than a dense weight, and less than it removes once few are left. For many
 * samples gp_lists_pay_in_lanes decides. */
static void choose(gp_packed *packed)
{
    static const double row_dense = 0.04, row_list = 0.31; /* one sample */
    /* each of several: W is read once for all */
    static const double rows_dense = 0.02;
    static const double lanes_dense = 0.37, lanes_list = 0.9; /* 16 lanes alone */
    const double weights = (double)gp_columns_of(&packed->spec) * (double)gp_rows_of(&packed->spec),
                 kept = (double)packed->kept;
    const int fits =
        weights < (double)(UINT32_MAX / (2 * GP_SLICE)) && gp_columns_of(&packed->spec) < INT32_MAX;
    const size_t T = gp_steps_of(&packed->spec);
    packed->row_list = T == 1 && fits && kept * row_list < weights * row_dense;
    packed->lane_list =
        fits && gp_lists_pay_in_lanes(packed->kept,
                                      gp_rows_of(&packed->spec) * gp_columns_of(&packed->spec));
    packed->row_ns = packed->row_list ? kept * row_list : weights * rows_dense;
    if (T > 1) packed->row_ns = INFINITY; /* never as rows */
    packed->lane_ns = (double)T * (packed->lane_list ? kept * lanes_list : weights * lanes_dense);
}

/* ---- packing --------------------------------------------------------------------------------- */

static int is_live(const gp_packed *packed, const gp_arena *arena, size_t r, size_t c)
{
    return arena->mask[packed->spec.weight + r * gp_columns_of(&packed->spec) + c] != 0;
}

/* A row and how many of its columns are live; rows past the last have none. */
typedef struct row_length {
    uint32_t row, length;
} row_length;

static int by_length(const void *a, const void *b)
{
    const row_length *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return x->row < y->row ? -1 : 1;
}

static void pack_weights(const gp_packed *packed, const gp_arena *arena, dense_packed *dense)
{
    const size_t I = gp_columns_of(&packed->spec);
    for (size_t r = 0; r < gp_rows_of(&packed->spec); r++)
        for (size_t c = 0; c < I; c++)
            if (is_live(packed, arena, r, c))
                dense->weights[r * dense->stride + c] =
                    arena->params[packed->spec.weight + r * I + c];
}

static void pack_blocks(const gp_packed *packed, const gp_arena *arena, dense_packed *dense)
{
    const size_t I = gp_columns_of(&packed->spec), O = gp_rows_of(&packed->spec),
                 width = (I + dense->blocks - 1) / dense->blocks;
    uint32_t next = 0, *start = dense->block_start;
    for (size_t block = 0; block < dense->blocks; block++, *start++ = next)
        for (size_t r = 0; r < O; r++) {
            *start++ = next;
            for (size_t c = block * width; c < gp_smaller(I, (block + 1) * width); c++) {
                if (!is_live(packed, arena, r, c)) continue;
                dense->column[next] = (uint32_t)c;
                dense->value[next++] = arena->params[packed->spec.weight + r * I + c];
            }
        }
}

static void pack_slices(const gp_packed *packed, const gp_arena *arena, const row_length *order,
                        dense_packed *dense)
{
    const size_t I = gp_columns_of(&packed->spec), O = gp_rows_of(&packed->spec);
    uint32_t next = 0;
    for (size_t g = 0; g < dense->slices; g++, next += order[(g - 1) * GP_SLICE].length) {
        dense->slice_start[g] = next;
        for (size_t l = 0; l < GP_SLICE; l++) {
            size_t r = order[g * GP_SLICE + l].row, at = (size_t)next * GP_SLICE + l;
            dense->slice_row[g * GP_SLICE + l] = (uint32_t)r;
            dense->slice_bias[g * GP_SLICE + l] = dense->bias[r];
            for (size_t c = 0; r < O && c < I; c++) {
                if (!is_live(packed, arena, r, c)) continue;
                dense->slice_column[at] = (uint32_t)c;
                dense->slice_value[at] = arena->params[packed->spec.weight + r * I + c];
                at += GP_SLICE;
            }
        }
    }
    dense->slice_start[dense->slices] = next;
}

/* Words of memory, each piece from a cache line on. */
static void *take(uint32_t **next, size_t words)
{
    uint32_t *piece = *next;
    *next += gp_padded(words);
    return piece;
}

static gp_status dense_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t I = gp_columns_of(spec), O = gp_rows_of(spec), rows = gp_padded(O);
    enum { HEAD = 32 }; /* words */
    _Static_assert(sizeof(dense_packed) <= HEAD * sizeof(uint32_t), "the header does not fit");
    if (O >= UINT32_MAX - GP_SLICE || rows > SIZE_MAX / 64 / gp_padded(I)) return GP_NO_MEMORY;
    row_length *order = malloc(rows * sizeof *order);
    if (!order) return GP_NO_MEMORY;

    packed->kept = 0;
    for (size_t r = 0; r < rows; r++) {
        uint32_t length = 0;
        for (size_t c = 0; r < O && c < I; c++) length += (uint32_t)is_live(packed, arena, r, c);
        order[r] = (row_length){(uint32_t)r, length};
        packed->kept += length;
    }
    qsort(order, rows, sizeof *order, by_length);
    choose(packed);

    dense_packed plan = {.stride = gp_padded(I)};
    size_t sliced = 0, blocked = 0;
    if (packed->row_list) plan.slices = rows / GP_SLICE;
    for (size_t g = 0; g < plan.slices; g++)
        sliced += (size_t)order[g * GP_SLICE].length * GP_SLICE;
    if (packed->lane_list) {
        plan.blocks = gp_smaller((I + COLUMNS / 2) / COLUMNS, packed->kept / (O * ENTRIES));
        if (plan.blocks == 0) plan.blocks = 1;
        blocked = packed->kept;
    }
    const size_t weights = packed->row_list && packed->lane_list ? 0 : O * plan.stride;
    const size_t starts = plan.blocks * (O + 1), sorted = plan.slices * GP_SLICE;
    const size_t words = HEAD + rows + gp_padded(weights) + gp_padded(starts) +
                         2 * gp_padded(blocked) + gp_padded(plan.slices + 1) + 2 * sorted +
                         2 * sliced;
    uint32_t *next = aligned_alloc(64, words * sizeof(uint32_t));
    if (!next) {
        free(order);
        return GP_NO_MEMORY;
    }
    memset(next, 0, words * sizeof(uint32_t));
    packed->memory = next;
    packed->bytes = words * sizeof(uint32_t);

    dense_packed *dense = packed->memory;
    *dense = plan;
    next += HEAD;
    dense->bias = take(&next, rows);
    dense->weights = weights ? take(&next, weights) : NULL;
    dense->block_start = take(&next, starts);
    dense->column = take(&next, blocked);
    dense->value = take(&next, blocked);
    dense->slice_start = take(&next, plan.slices + 1);
    dense->slice_row = take(&next, sorted);
    dense->slice_bias = take(&next, sorted);
    dense->slice_column = take(&next, sliced);
    dense->slice_value = take(&next, sliced);
    if (spec->bias != GP_NONE) memcpy(dense->bias, arena->params + spec->bias, O * sizeof(float));
    if (dense->weights) pack_weights(packed, arena, dense);
    if (dense->blocks) pack_blocks(packed, arena, dense);
    if (dense->slices) pack_slices(packed, arena, order, dense);
    free(order);
    return GP_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

static void activate(const gp_packed *packed, const gp_kernels *kernels, size_t n, float *y)
{
    if (packed->then != GP_IDENTITY)
        kernels->activation_forward(n, y, y, packed->then, packed->slope);
}

static void infer_rows(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const dense_packed *dense = packed->memory;
    const gp_kernels *kernels = chunk->kernels;
    const size_t O = packed->spec.out, x_row = dense->stride, y_row = gp_padded(O);
    if (!packed->row_list)
        kernels->dense_rows(chunk->samples, O, x_row, dense->weights, x_row, dense->bias, x, x_row,
                            y, y_row);
    for (size_t s = 0; packed->row_list && s < chunk->samples; s++)
        kernels->sliced_rows(dense->slices, dense->slice_start, dense->slice_column,
                             dense->slice_value, dense->slice_row, dense->slice_bias, x + s * x_row,
                             y + s * y_row);
    activate(packed, kernels, chunk->samples * y_row, y);
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const dense_packed *dense = packed->memory;
    const gp_kernels *kernels = chunk->kernels;
    const size_t I = gp_columns_of(&packed->spec), O = gp_rows_of(&packed->spec), P = chunk->lanes;
    const size_t blocks = packed->lane_list ? dense->blocks : 1;
    for (size_t block = 0; block < blocks; block++)
        for (size_t o = 0; o < O; o += ROWS) {
            size_t rows = gp_smaller(ROWS, O - o);
            if (block == 0) kernels->broadcast(rows, P, dense->bias + o, y + o * P);
            if (packed->lane_list)
                kernels->sparse_product(rows, P, dense->block_start + block * (O + 1) + o,
                                        dense->column, dense->value, x, y + o * P, 1);
            else
                kernels->gemm(rows, P, I, dense->weights + o * dense->stride, dense->stride, 1, x,
                              P, y + o * P, P, 1);
            if (block + 1 == blocks) activate(packed, kernels, rows * P, y + o * P);
        }
}

static void dense_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t T = gp_steps_of(&packed->spec), P = chunk->lanes;
    for (size_t t = 0; P > 0 && t < T; t++)
        infer_lanes(packed, chunk, x + t * gp_columns_of(&packed->spec) * P,
                    y + t * gp_rows_of(&packed->spec) * P);
    if (P == 0) infer_rows(packed, chunk, x, y);
}

const gp_frozen_ops gp_dense_frozen = {
    .takes_activation = 1, .pack = dense_pack, .infer = dense_infer};
