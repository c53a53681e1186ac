/* dense_frozen_int8.c - Dense at inference on 8-bit integers: y = f(s_r s (Q u - z sum(Q)) + b).
 *
 *   weights   w(r, i) ~ s_r Q(r, i), Q in -127..127: a scale a row, by its largest |w|
 *   inputs    x(i) ~ s (u(i) - z), u a byte: a scale a sample, and step of a sequence, by its
 *             largest |x| in this call; z
 *             is 0 for a sample
 *             without negative numbers, as after relu, else 128
 *   few       rows of Q times rows of u
 *   many      rows of Q times lanes of u, four features to a word
 *
 * Both read the same Q, and sums of integers are exact: a sample's outputs depend neither on the
 * batch nor on the instruction set. So a layer must not run on lists of its live weights with few
 * samples and on Q with many: where few enough live that lists pay, it is left to dense_frozen.c
 * altogether.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers/layers.h"

/* Rows that are computed, activated and stored while they are in the L1 cache: a multiple of the
 * common tiles. */
enum { ROWS = 24 };

typedef struct int8_packed {
    gp_int8_matrix W;
} int8_packed;

/* Nanoseconds a multiply-add (many samples: 16 of them alone), measured with VNNI on
 * 784-300-100-10; they hold for every instruction set, or the choice would change the bits. A layer
 * runs on lists if it wins more with few samples or with many than it loses with the other: from
 * about 7 % of the weights kept on downwards. */
static const double row_list = 0.31, lanes_list = 0.9, row_int8 = 0.0125, lanes_int8 = 0.08;
static int lists_pay(double kept, double weights)
{
    return kept * row_list * kept * lanes_list < weights * row_int8 * weights * lanes_int8;
}

static size_t stride_of(size_t I) { return 4 * gp_padded((I + 3) / 4); }

/* A row of live weights as bytes; returns their sum. */
static int32_t quantize_weights(size_t I, const float *w, const uint8_t *mask, int8_t *q,
                                float *scale)
{
    float top = 0.0f;
    int32_t sum = 0;
    for (size_t i = 0; i < I; i++) {
        const float size = mask[i] ? fabsf(w[i]) : 0.0f;
        if (!(size <= top)) top = size; /* a NaN stays: nothing is at most NaN */
        if (isnan(top)) break;
    }
    *scale = isfinite(top) ? top / 127.0f : NAN;
    if (!(*scale >= 1e-30f)) {
        if (!isnan(*scale)) *scale = 0.0f; /* next to nothing */
        return 0;
    }
    for (size_t i = 0; i < I; i++) {
        if (mask[i]) q[i] = (int8_t)nearbyintf(w[i] / *scale);
        sum += q[i];
    }
    return sum;
}

static gp_status int8_pack(gp_packed *packed, const gp_arena *arena)
{
    const gp_layer_spec *spec = &packed->spec;
    const size_t I = gp_columns_of(spec), O = gp_rows_of(spec), rows = gp_padded(O);
    packed->kept = gp_mask_count(I * O, arena->mask + spec->weight);
    const double weights = (double)I * (double)O, kept = (double)packed->kept;
    if (I > GP_INT8_MOST || lists_pay(kept, weights)) {
        packed->ops = &gp_dense_frozen;
        return gp_dense_frozen.pack(packed, arena);
    }
    enum { HEAD = 64 };
    _Static_assert(sizeof(int8_packed) <= HEAD, "the header does not fit");
    const size_t stride = stride_of(I), each = sizeof(int32_t) + 2 * sizeof(float);
    if (rows > (SIZE_MAX - HEAD) / (stride + each)) return GP_NO_MEMORY;
    const size_t bytes = HEAD + O * stride + rows * each;
    char *memory = aligned_alloc(64, bytes);
    if (!memory) return GP_NO_MEMORY;
    memset(memory, 0, bytes);
    int32_t *sum = (int32_t *)(memory + HEAD);
    float *scale = (float *)(sum + rows), *bias = scale + rows;
    int8_t *Q = (int8_t *)(bias + rows);
    for (size_t r = 0; r < O; r++)
        sum[r] = quantize_weights(I, arena->params + spec->weight + r * I,
                                  arena->mask + spec->weight + r * I, Q + r * stride, &scale[r]);
    if (spec->bias != GP_NONE) memcpy(bias, arena->params + spec->bias, O * sizeof *bias);
    *(int8_packed *)(void *)memory =
        (int8_packed){{.stride = stride, .weights = Q, .sum = sum, .scale = scale, .bias = bias}};
    packed->memory = memory;
    packed->bytes = bytes;
    packed->int8 = 1;
    /* with the bytes, and sums of lanes */
    packed->row_ns = weights * row_int8 + 0.25 * (double)I + 3.0 * (double)O;
    const size_t T = gp_steps_of(spec);
    if (T > 1) packed->row_ns = INFINITY; /* never as rows */
    packed->lane_ns = (double)T * (weights * lanes_int8 + 3.0 * (double)I);
    return GP_OK;
}

/* Bytes, then a scale and a zero. */
static size_t int8_scratch(const gp_layer_spec *spec, int in_lanes)
{
    (void)in_lanes;
    const size_t I = gp_columns_of(spec);
    return I > GP_INT8_MOST ? 0 : stride_of(I) / sizeof(float) + 2;
}

static void activate(const gp_packed *packed, const gp_kernels *kernels, size_t n, float *y)
{
    if (packed->then != GP_IDENTITY)
        kernels->activation_forward(n, y, y, packed->then, packed->slope);
}

static void infer_rows(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_int8_matrix *W = &((const int8_packed *)packed->memory)->W;
    const gp_kernels *kernels = chunk->kernels;
    const size_t I = gp_columns_of(&packed->spec), O = gp_rows_of(&packed->spec),
                 n = chunk->samples, y_row = gp_padded(O);
    uint8_t *bytes = (uint8_t *)chunk->scratch;
    float *scale = (float *)(void *)(bytes + n * W->stride);
    int32_t *zero = (int32_t *)(scale + n);
    for (size_t s = 0; s < n; s++)
        kernels->quantize_row(I, x + s * gp_padded(I), bytes + s * W->stride, &scale[s], &zero[s]);
    kernels->int8_rows(n, 0, O, W->stride, W, bytes, W->stride, scale, zero, y, y_row);
    activate(packed, kernels, n * y_row, y);
}

static void infer_lanes(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_int8_matrix *W = &((const int8_packed *)packed->memory)->W;
    const gp_kernels *kernels = chunk->kernels;
    const size_t I = gp_columns_of(&packed->spec), O = gp_rows_of(&packed->spec), P = chunk->lanes,
                 fours = (I + 3) / 4;
    uint8_t *bytes = (uint8_t *)chunk->scratch;
    float *scale = chunk->scratch + fours * P;
    int32_t *zero = (int32_t *)(scale + P);
    kernels->quantize_lanes(I, P, x, bytes, scale, zero);
    for (size_t o = 0; o < O; o += ROWS) {
        const size_t rows = gp_smaller(ROWS, O - o);
        kernels->int8_lanes(o, rows, P, fours, W, bytes, scale, zero, y + o * P);
        activate(packed, kernels, rows * P, y + o * P);
    }
}

static void int8_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const size_t T = gp_steps_of(&packed->spec), P = chunk->lanes;
    for (size_t t = 0; P > 0 && t < T; t++)
        infer_lanes(packed, chunk, x + t * gp_columns_of(&packed->spec) * P,
                    y + t * gp_rows_of(&packed->spec) * P);
    if (P == 0) infer_rows(packed, chunk, x, y);
}

const gp_frozen_ops gp_dense_frozen_int8 = {
    .takes_activation = 1, .pack = int8_pack, .scratch = int8_scratch, .infer = int8_infer};
