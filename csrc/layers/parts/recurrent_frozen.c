/* recurrent_frozen.c - RNN, LSTM and GRU at inference, in lanes: one member takes a chunk through
 * all steps.
 *
 * Weights are packed when the network is frozen, row-major without what is removed, or as
 * compressed rows of live weights when these are few; the two matrices choose apart. Few samples
 * run in lanes as well: a step's products depend on the last, so there is no row of W to read once
 * for all of them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers/parts/recurrent.h"

/* Rows that are computed while they are in the L1 cache, as in dense_frozen.c. */
enum { ROWS = 24 };

/* One matrix: weights (rows, columns), or lists. */
typedef struct packed_matrix {
    size_t rows, columns;
    float *weights;
    uint32_t *start, *column;
    float *value;
} packed_matrix;

typedef struct recurrent_packed {
    packed_matrix ih, hh;
    float *bias; /* as add_biases in recurrent.c: gates, then GRU's b_hh of n */
    size_t T, F, H, G;
} recurrent_packed;

/* Copies a matrix to `next`, which is moved on, or only counts the words when it is NULL. */
static size_t pack_matrix(const gp_arena *arena, size_t offset, size_t rows, size_t columns,
                          packed_matrix *matrix, uint32_t *next)
{
    const size_t n = rows * columns, kept = gp_mask_count(n, arena->mask + offset);
    const int listed = gp_lists_pay_in_lanes(kept, n) && n < UINT32_MAX / 2;
    const size_t words = listed ? gp_padded(rows + 1) + 2 * gp_padded(kept) : gp_padded(n);
    if (!next) return words;
    const uint8_t *mask = arena->mask + offset;
    const float *W = arena->params + offset;
    *matrix = (packed_matrix){.rows = rows, .columns = columns};
    if (!listed) {
        matrix->weights = (float *)next;
        for (size_t i = 0; i < n; i++) matrix->weights[i] = mask[i] ? W[i] : 0.0f;
        return words;
    }
    matrix->start = next;
    matrix->column = next + gp_padded(rows + 1);
    matrix->value = (float *)(matrix->column + gp_padded(kept));
    uint32_t k = 0;
    for (size_t r = 0; r < rows; r++) {
        matrix->start[r] = k;
        for (size_t c = 0; c < columns; c++) {
            if (!mask[r * columns + c]) continue;
            matrix->column[k] = (uint32_t)c;
            matrix->value[k++] = W[r * columns + c];
        }
    }
    matrix->start[rows] = k;
    return words;
}

static gp_status recurrent_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const gp_recurrent_settings *set = gp_recurrent_of(spec);
    const size_t T = set->steps, F = spec->in / T, H = gp_units_of(spec), G = gp_gates_of(spec),
                 rows = G * H;
    enum { HEAD = 64 }; /* words, at least the struct */
    _Static_assert(sizeof(recurrent_packed) <= HEAD * sizeof(uint32_t),
                   "the head holds the struct");
    size_t words = HEAD + gp_padded(rows + H);
    words += pack_matrix(arena, spec->weight, rows, F, NULL, NULL);
    words += pack_matrix(arena, set->weight, rows, H, NULL, NULL);
    uint32_t *memory = aligned_alloc(64, words * sizeof *memory);
    if (!memory) return GP_NO_MEMORY;
    memset(memory, 0, words * sizeof *memory);
    recurrent_packed *own = packed->memory = memory;
    *own = (recurrent_packed){.bias = (float *)(memory + HEAD), .T = T, .F = F, .H = H, .G = G};
    uint32_t *next = memory + HEAD + gp_padded(rows + H);
    next += pack_matrix(arena, spec->weight, rows, F, &own->ih, next);
    pack_matrix(arena, set->weight, rows, H, &own->hh, next);
    const size_t joint = set->cell == GP_GRU ? 2 * H : rows;
    for (size_t r = 0; spec->bias != GP_NONE && r < rows; r++) {
        const float b_hh = arena->params[set->bias + r];
        own->bias[r] = arena->params[spec->bias + r] + (r < joint ? b_hh : 0.0f);
        if (r >= joint) own->bias[r + H] = b_hh;
    }
    const size_t weights = rows * (F + H);
    packed->bytes = words * sizeof *memory;
    packed->kept = gp_mask_count(rows * F, arena->mask + spec->weight) +
                   gp_mask_count(rows * H, arena->mask + set->weight);
    packed->row_list = packed->lane_list = own->ih.start || own->hh.start;
    packed->lane_ns = (double)T * (double)(packed->lane_list ? packed->kept : weights) * 0.4;
    packed->row_ns = INFINITY; /* never as rows */
    return GP_OK;
}

static size_t recurrent_scratch(const gp_layer_spec *spec, int in_lanes)
{
    (void)in_lanes;
    return (gp_gates_of(spec) + 1) * gp_units_of(spec); /* gates, and c of LSTM or q of GRU */
}

/* out[rows][P] = bias + W x, or += W x without a bias */
static void times(const gp_chunk *chunk, const packed_matrix *W, size_t begin, size_t end,
                  const float *bias, const float *x, float *out)
{
    const gp_kernels *kernels = chunk->kernels;
    const size_t P = chunk->lanes, I = W->columns;
    for (size_t r = begin; r < end; r += ROWS, out += ROWS * P) {
        const size_t n = gp_smaller(ROWS, end - r);
        if (bias) kernels->broadcast(n, P, bias + (r - begin), out);
        if (W->start) kernels->sparse_product(n, P, W->start + r, W->column, W->value, x, out, 1);
        else kernels->gemm(n, P, I, W->weights + r * I, I, 1, x, P, out, P, 1);
    }
}

static void recurrent_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    const recurrent_packed *own = packed->memory;
    const gp_recurrent_settings *set = gp_recurrent_of(&packed->spec);
    const gp_kernels *kernels = chunk->kernels;
    const size_t H = own->H, P = chunk->lanes, rows = own->G * H, n = H * P;
    const gp_cell cell = set->cell;
    float *gates = chunk->scratch, *other = gates + rows * P; /* c or q */
    for (size_t t = 0; t < own->T; t++, x += own->F * P) {
        float *h = set->sequences ? y + t * n : y;
        const float *before = t == 0 ? NULL : (set->sequences ? h - n : h);
        const size_t joint = cell == GP_GRU ? 2 * H : rows;
        times(chunk, &own->ih, 0, rows, own->bias, x, gates);
        if (before) times(chunk, &own->hh, 0, joint, NULL, before, gates);
        switch (cell) {
        case GP_LSTM:
            kernels->lstm_forward(n, gates, gates + n, gates + 2 * n, gates + 3 * n,
                                  before ? other : NULL, other, h);
            break;
        case GP_GRU:
            kernels->broadcast(H, P, own->bias + rows, other);
            if (before) times(chunk, &own->hh, joint, rows, NULL, before, other);
            kernels->gru_forward(n, gates, gates + n, gates + 2 * n, other, before, h);
            break;
        case GP_RNN:
        case GP_CELLS: kernels->activation_forward(n, gates, h, set->activation, 0.0f); break;
        }
    }
}

const gp_frozen_ops gp_recurrent_frozen = {
    .pack = recurrent_pack, .scratch = recurrent_scratch, .infer = recurrent_infer};
