/* embedding.c - y_t = W[x_t]: the rows of W that the numbers of a sample name.
 *
 *   forward   y (T,F) of x (T): row x_t of W (V,F) at each step
 *   backward  dW[r] = sum over samples and steps with x_t = r of dy_t
 *
 * The input has been checked: whole numbers below V (load.c, frozen.c). A member of the team adds
 * up whole rows of dW, in the order of chunks, steps and lanes. The row that pads gets no gradient.
 */
#include <stdlib.h>

#include "layers/layers.h"

typedef struct gp_embedding_settings {
    size_t vocabulary, padding; /* rows; the one that pads, or GP_NONE */
} gp_embedding_settings;

GP_SETTINGS(embedding)

/* vocabulary, padding */
static int embedding_set(gp_layer_spec *spec, const double *numbers)
{
    gp_embedding_settings *own = gp_embedding_in(spec);
    return gp_read_size(numbers[0], &own->vocabulary) && gp_read_offset(numbers[1], &own->padding);
}

/* Larger numbers are not exact in float. */
enum { MOST_ROWS = 1 << 24 };

static size_t rows_of(const gp_layer_spec *spec) { return gp_embedding_of(spec)->vocabulary; }
static size_t features_of(const gp_layer_spec *spec) { return spec->out / spec->in; }

static int embedding_fits(const gp_layer_spec *spec)
{
    return spec->in > 0 && spec->out >= spec->in && spec->out % spec->in == 0 &&
           rows_of(spec) > 0 && rows_of(spec) <= MOST_ROWS;
}

static int embedding_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params;
    const size_t V = rows_of(spec), F = features_of(spec);
    return embedding_fits(spec) && F <= n_prunable / V && spec->weight <= n_prunable - V * F;
}

static size_t embedding_weights(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES])
{
    weights[0] = (gp_matrix){
        .offset = spec->weight, .rows = rows_of(spec), .columns = features_of(spec), .uses = 0};
    return 1;
}

static size_t embedding_workspace(const gp_layer_spec *spec) { return spec->out; }

/* Lanes without a sample hold 0, which is a row, too. */
static size_t row_at(const gp_layer_spec *spec, float number)
{
    const size_t row = number >= 0.0f ? (size_t)number : 0;
    return row < rows_of(spec) ? row : 0;
}

static const float *embedding_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_matrix *W = &layer->weights[0];
    const gp_lists *live = W->live;
    const size_t F = W->columns, P = pass->lanes;
    size_t begin, end;
    gp_matrix_collect(W, pass);
    gp_team_share(pass->team, pass->chunks * spec->in, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        float *y = layer->work + item * F * P;
        const float *rows[GP_LANES];
        if (live) memset(y, 0, F * P * sizeof *y);
        for (size_t lane = 0; lane < P; lane++) {
            const size_t row = row_at(spec, x[item * P + lane]);
            if (!live) rows[lane] = pass->arena->params + W->offset + row * F;
            else
                for (size_t k = live->row_start[row]; k < live->row_start[row + 1]; k++)
                    y[live->column[k] * P + lane] = live->value[k];
        }
        if (!live) pass->kernels->to_lanes(P, F, rows, 0, P, y);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* dW[row] += dy of one lane at one step */
static void add_row(const gp_matrix *W, float *dW, size_t row, const float *dy, size_t P)
{
    const gp_lists *live = W->live;
    if (!live)
        for (size_t f = 0; f < W->columns; f++) dW[row * W->columns + f] += dy[f * P];
    else
        for (size_t k = live->row_start[row]; k < live->row_start[row + 1]; k++)
            dW[k] += dy[live->column[k] * P];
}

static float *embedding_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_matrix *W = &layer->weights[0];
    const gp_lists *live = W->live;
    const size_t F = W->columns, T = spec->in, P = pass->lanes;
    const size_t rank = pass->team->rank, members = pass->team->size;
    float *dW = live ? live->gradient : pass->arena->grads + W->offset;
    for (size_t r = rank; pass->first == 0 && r < W->rows; r += members) {
        const size_t at = live ? live->row_start[r] : r * F;
        memset(dW + at, 0, (live ? live->row_start[r + 1] - at : F) * sizeof *dW);
    }
    for (size_t item = 0; item < pass->chunks * T; item++) {
        const size_t first = item / T * P,
                     valid = gp_smaller(P, pass->samples - gp_smaller(pass->samples, first));
        for (size_t lane = 0; lane < valid; lane++) {
            const size_t row = row_at(spec, layer->input[item * P + lane]);
            if (row % members == rank && row != gp_embedding_of(spec)->padding)
                add_row(W, dW, row, dy + item * F * P + lane, P);
        }
    }
    for (size_t r = rank; !live && pass->arena->removed > 0 && r < W->rows; r += members)
        pass->kernels->mask(F, pass->arena->mask + W->offset + r * F, dW + r * F);
    gp_team_wait(pass->team);
    return dx;
}

/* ---- inference ------------------------------------------------------------------------------- */

/* The rows one after the other, or the live entries of each where they take less room. */
typedef struct table {
    uint32_t *start, *column; /* NULL: all entries */
    float *value;
} table;

static gp_status embedding_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t V = rows_of(spec), n = V * features_of(spec);
    const float *W = arena->params + spec->weight;
    const uint8_t *mask = arena->removed > 0 ? arena->mask + spec->weight : NULL;
    const size_t kept = mask ? gp_mask_count(n, mask) : n;
    const int lists = n < UINT32_MAX && 2 * kept + V + 1 < n;
    const size_t words = lists ? 2 * kept + V + 1 : n;
    packed->bytes = sizeof(table) + words * sizeof(float);
    packed->kept = kept;
    packed->row_list = packed->lane_list = lists;
    packed->row_ns = 0.3 * (double)spec->out; /* estimated, as for convolution */
    packed->lane_ns = 3.0 * (double)spec->out;
    table *made = packed->memory = malloc(packed->bytes);
    if (!made) return GP_NO_MEMORY;
    *made = (table){.value = (float *)(void *)(made + 1)};
    if (lists) {
        made->start = (uint32_t *)(void *)(made->value + kept);
        made->column = made->start + V + 1;
    }
    for (size_t i = 0, k = 0; i < n; i++) {
        if (lists && i % features_of(spec) == 0) made->start[i / features_of(spec)] = (uint32_t)k;
        if (!lists) made->value[i] = mask && !mask[i] ? 0.0f : W[i];
        else if (mask[i]) {
            made->column[k] = (uint32_t)(i % features_of(spec));
            made->value[k++] = W[i];
        }
    }
    if (lists) made->start[V] = (uint32_t)kept;
    return GP_OK;
}

/* Row x_t of the table, its entries so far apart. */
static void look_up(const gp_packed *packed, float number, float *y, size_t step)
{
    const table *own = packed->memory;
    const size_t F = features_of(&packed->spec), row = row_at(&packed->spec, number);
    for (size_t f = 0; f < F; f++) y[f * step] = own->start ? 0.0f : own->value[row * F + f];
    if (!own->start) return;
    for (size_t k = own->start[row]; k < own->start[row + 1]; k++)
        y[own->column[k] * step] = own->value[k];
}

static void embedding_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    const size_t T = packed->spec.in, F = features_of(&packed->spec), P = chunk->lanes;
    for (size_t item = 0; item < T * P; item++)
        look_up(packed, x[item], y + item / P * F * P + item % P, P);
    for (size_t s = 0; P == 0 && s < chunk->samples; s++)
        for (size_t t = 0; t < T; t++)
            look_up(packed, x[s * gp_padded(T) + t], y + s * gp_padded(packed->spec.out) + t * F,
                    1);
}

static const gp_frozen_ops frozen = {.pack = embedding_pack, .infer = embedding_infer};

const gp_layer_ops gp_layer_embedding = {.name = "embedding",
                                         .n_settings = 2,
                                         .set = embedding_set,
                                         .fits = embedding_fits,
                                         .is_valid = embedding_is_valid,
                                         .indexes = rows_of,
                                         .weights = embedding_weights,
                                         .workspace = embedding_workspace,
                                         .forward = embedding_forward,
                                         .backward = embedding_backward,
                                         .frozen = &frozen};
