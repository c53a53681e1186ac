/* recurrent_frozen.c - RNN, LSTM and GRU at inference, with both matrices packed when the network
 * is frozen (matrix_frozen.c).
 *
 * In lanes one member takes a chunk through all steps. Few samples have their states as rows: W_ih
 * x of some steps of a sample is one product, since it depends on no state, and each step of all
 * samples multiplies W_hh.
 */
#include <stdlib.h>
#include <string.h>

#include "layers/parts/lengths.h"
#include "layers/parts/matrix_frozen.h"
#include "layers/parts/recurrent.h"

/* Rows that are computed while they are in the L1 cache, as in dense_frozen.c. */
enum { ROWS = 24 };
/* Steps of few samples whose W_ih x is computed together. */
enum { STEPS = 16 };

typedef struct recurrent_packed {
    gp_frozen_matrix ih, hh; /* with the biases that few samples add */
    float *bias;             /* as add_biases in recurrent.c: gates, then GRU's b_hh of n */
    size_t T, F, H, G;
} recurrent_packed;

/* Nanoseconds of a step beside its products: a unit of one sample, and what one of few samples
 * takes for itself, measured with AVX2. */
static double unit_ns(gp_cell cell) { return cell == GP_LSTM ? 5.8 : cell == GP_GRU ? 3.9 : 1.2; }
static const double step_ns = 50.0;

static gp_status recurrent_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const gp_recurrent_settings *set = gp_recurrent_of(spec);
    const size_t T = set->steps, F = spec->in / T, H = gp_units_of(spec), G = gp_gates_of(spec),
                 rows = G * H;
    enum { HEAD = 128 }; /* words, at least the struct */
    _Static_assert(sizeof(recurrent_packed) <= HEAD * sizeof(uint32_t),
                   "the head holds the struct");
    recurrent_packed plan = {.T = T, .F = F, .H = H, .G = G};
    uint32_t *memory = NULL;
    float *apart = calloc(rows, sizeof *apart); /* what few samples add with W_hh h */
    gp_status status = apart ? GP_OK : GP_NO_MEMORY;
    if (status == GP_OK)
        status = gp_frozen_matrix_plan(&plan.ih, arena->mask + spec->weight, rows, F, H, T);
    if (status == GP_OK)
        status = gp_frozen_matrix_plan(&plan.hh, arena->mask + set->weight, rows, H, H, T);
    const size_t words = HEAD + gp_padded(rows + H) + plan.ih.words + plan.hh.words;
    if (status == GP_OK) memory = aligned_alloc(64, words * sizeof *memory);
    if (!memory) {
        gp_frozen_matrix_end(&plan.ih);
        gp_frozen_matrix_end(&plan.hh);
        free(apart);
        return GP_NO_MEMORY;
    }
    memset(memory, 0, words * sizeof *memory);
    recurrent_packed *own = packed->memory = memory;
    *own = plan;
    own->bias = (float *)(memory + HEAD);
    const size_t joint = set->cell == GP_GRU ? 2 * H : rows;
    for (size_t r = 0; spec->bias != GP_NONE && r < rows; r++) {
        const float b_hh = arena->params[set->bias + r];
        own->bias[r] = arena->params[spec->bias + r] + (r < joint ? b_hh : 0.0f);
        if (r >= joint) own->bias[r + H] = apart[r] = b_hh;
    }
    uint32_t *next = memory + HEAD + gp_padded(rows + H);
    gp_frozen_matrix_fill(&own->ih, arena->mask + spec->weight, arena->params + spec->weight,
                          own->bias, &next);
    gp_frozen_matrix_fill(&own->hh, arena->mask + set->weight, arena->params + set->weight, apart,
                          &next);
    free(apart);
    packed->bytes = words * sizeof *memory;
    packed->kept = own->ih.kept + own->hh.kept;
    packed->row_list = own->ih.slices || own->hh.slices;
    packed->lane_list = own->ih.blocks || own->hh.blocks;
    const double steps = (double)T, unit = unit_ns(set->cell);
    packed->row_ns = gp_frozen_matrix_row_ns(&own->ih) + gp_frozen_matrix_row_ns(&own->hh) +
                     steps * (unit * (double)gp_padded(H) + step_ns);
    packed->lane_ns = gp_frozen_matrix_lane_ns(&own->ih) + gp_frozen_matrix_lane_ns(&own->hh) +
                      steps * unit * (double)(H * GP_ALIGN_FLOATS);
    return GP_OK;
}

/* In lanes: gates, c of LSTM or q of GRU, and the state, if that of padded sequences goes on while
 * the output keeps the last one. Few samples: some steps, padded, and their gates;
 * then W_hh h, c and h. */
static size_t recurrent_scratch(const gp_layer_spec *spec, int in_lanes)
{
    const size_t G = gp_gates_of(spec), H = gp_units_of(spec), padded = gp_padded(H);
    if (in_lanes) return (G + (gp_recurrent_of(spec)->sequences ? 1 : 2)) * H;
    const size_t features = gp_padded(spec->in / gp_recurrent_of(spec)->steps);
    return STEPS * (features + G * padded) + (G + 2) * padded;
}

/* ---- many samples ---------------------------------------------------------------------------- */

/* out[rows][P] = bias + W x, or += W x without a bias */
static void times(const gp_chunk *chunk, const gp_frozen_matrix *W, size_t begin, size_t end,
                  const float *bias, const float *x, float *out)
{
    const gp_kernels *kernels = chunk->kernels;
    const size_t P = chunk->lanes, I = W->columns, blocks = W->blocks ? W->blocks : 1;
    for (size_t block = 0; block < blocks; block++)
        for (size_t r = begin; r < end; r += ROWS) {
            const size_t n = gp_smaller(ROWS, end - r);
            float *to = out + (r - begin) * P;
            if (bias && block == 0) kernels->broadcast(n, P, bias + (r - begin), to);
            if (W->blocks)
                kernels->sparse_product(n, P, W->block_start + block * (W->rows + 1) + r, W->column,
                                        W->value, x, to, 1);
            else kernels->gemm(n, P, I, W->weights + r * W->stride, W->stride, 1, x, P, to, P, 1);
        }
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const recurrent_packed *own = packed->memory;
    const gp_recurrent_settings *set = gp_recurrent_of(&packed->spec);
    const gp_kernels *kernels = chunk->kernels;
    const size_t H = own->H, P = chunk->lanes, rows = own->G * H, n = H * P;
    const gp_cell cell = set->cell;
    float *gates = chunk->scratch, *other = gates + rows * P; /* c or q */
    const uint32_t *lengths = gp_lengths_in(chunk, own->T);
    float *state = lengths && !set->sequences ? other + n : y;
    for (size_t t = 0; t < own->T; t++, x += own->F * P) {
        float *h = set->sequences ? y + t * n : state;
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
        if (!lengths) continue;
        if (!set->sequences) gp_lengths_keep_last(H, P, lengths, t, h, y);
        gp_lengths_clear(H, P, lengths, t, h);
        if (cell == GP_LSTM) gp_lengths_clear(H, P, lengths, t, other);
    }
}

/* ---- few samples ----------------------------------------------------------------------------- */

/* One step of one sample; `product` is W_hh h, or the bias of it before the first step, when c and
 * h are not there yet. The gates are overwritten. */
static void step(const gp_packed *packed, const gp_kernels *kernels, int first, float *gates,
                 const float *product, float *c, float *h)
{
    const gp_recurrent_settings *set = gp_recurrent_of(&packed->spec);
    const recurrent_packed *own = packed->memory;
    const size_t n = gp_padded(own->H), joint = set->cell == GP_GRU ? 2 : own->G;
    if (!first) kernels->add(joint * n, gates, product, gates);
    switch (set->cell) {
    case GP_LSTM:
        kernels->lstm_forward(n, gates, gates + n, gates + 2 * n, gates + 3 * n, first ? NULL : c,
                              c, h);
        break;
    case GP_GRU:
        kernels->gru_forward(n, gates, gates + n, gates + 2 * n, product + 2 * n, first ? NULL : h,
                             h);
        break;
    case GP_RNN:
    case GP_CELLS: kernels->activation_forward(n, gates, h, set->activation, 0.0f); break;
    }
}

static void infer_rows(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const recurrent_packed *own = packed->memory;
    const gp_kernels *kernels = chunk->kernels;
    const int sequences = gp_recurrent_of(&packed->spec)->sequences;
    const uint32_t *lengths = gp_lengths_in(chunk, own->T);
    const size_t S = chunk->samples, T = own->T, F = own->F, H = own->H;
    const size_t in = gp_frozen_matrix_in(&own->ih), state = gp_padded(H),
                 rows = gp_frozen_matrix_out(&own->ih);
    const size_t x_row = gp_padded(packed->spec.in), y_row = gp_padded(packed->spec.out);
    float *gates = chunk->scratch, *product = gates + S * STEPS * rows, *c = product + S * rows,
          *h = c + S * state, *padded = h + S * state;
    /* what pads gates is finite from here on */
    if (state > H) memset(gates, 0, S * (STEPS + 1) * rows * sizeof *gates);
    for (size_t t = 0; t < T; t++) {
        const size_t at = t % STEPS, n = gp_smaller(STEPS, T - t);
        for (size_t s = 0; at == 0 && s < S; s++)
            gp_frozen_matrix_rows(&own->ih, kernels, n,
                                  gp_frozen_steps(n, F, x + s * x_row + t * F, padded), in,
                                  gates + s * STEPS * rows, rows);
        if (t > 0) gp_frozen_matrix_rows(&own->hh, kernels, S, h, state, product, rows);
        for (size_t s = 0; s < S; s++) {
            float *after = h + s * state;
            step(packed, kernels, t == 0, gates + (s * STEPS + at) * rows,
                 t == 0 ? own->hh.bias : product + s * rows, c + s * state, after);
            if (lengths) gp_lengths_clear(state, 1, lengths + s, t, after);
            if (sequences) memcpy(y + s * y_row + t * H, after, H * sizeof *y);
            else if (t + 1 == (lengths ? lengths[s] : T))
                memcpy(y + s * y_row, after, H * sizeof *y);
        }
    }
}

static void recurrent_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    if (chunk->lanes) infer_lanes(packed, chunk, x, y);
    else infer_rows(packed, chunk, x, y);
}

const gp_frozen_ops gp_recurrent_frozen = {
    .pack = recurrent_pack, .scratch = recurrent_scratch, .infer = recurrent_infer};
