/* recurrent.c - RNN, LSTM and GRU over T steps, with backpropagation through time.
 *
 *   RNN    h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)
 *   LSTM   i, f, g, o likewise, with sigmoid but tanh for g;  c_t = f c_(t-1) + i g;  h_t = o
 *          tanh(c_t)
 *   GRU    r, z likewise;  n = tanh(W_in x_t + b_in + r q), q = W_hn h_(t-1) + b_hn;  h_t = (1-z) n
 *          + z h_(t-1)
 *
 * A sample is (T, F) row by row, so in lanes step t of a chunk is (F,P), contiguous; h_(-1) =
 * c_(-1) = 0. Numbers of a step are kept for backward, which turns gates into their gradients where
 * they stand; products of W_ih and W_hh are those of Dense (matrix.c), and dW adds up over chunks
 * and steps in order.
 *
 * Of sequences that are padded to T steps h and c are 0 behind the end, and gradients begin at each
 * sample's own last step: with no gradient from outside, none comes from the steps behind it.
 *
 * Members share the chunks if they come out even: time then runs without a barrier. Otherwise they
 * share the units and meet once a step. Every number has one order of additions, so the bits are
 * the same.
 */
#include <string.h>

#include "layers/parts/lengths.h"
#include "layers/parts/recurrent.h"

static const gp_word words[] = {{"rnn", GP_RNN},   {"lstm", GP_LSTM}, {"gru", GP_GRU},
                                {"tanh", GP_TANH}, {"relu", GP_RELU}, {NULL, 0}};

/* cell, activation, steps, sequences, truncation, weight, bias, orthogonality, omega */
static int recurrent_set(gp_layer_spec *spec, const double *numbers)
{
    gp_recurrent_settings *own = gp_recurrent_in(spec);
    size_t cell, activation, sequences;
    if (!gp_read_size(numbers[0], &cell) || cell >= GP_CELLS ||
        !gp_read_size(numbers[1], &activation) || activation >= GP_ACTIVATIONS ||
        !gp_read_size(numbers[3], &sequences))
        return 0;
    own->cell = (gp_cell)cell;
    own->activation = (gp_activation)activation;
    own->sequences = sequences != 0;
    own->orthogonality = (float)numbers[7];
    own->omega = (float)numbers[8];
    return gp_read_size(numbers[2], &own->steps) && gp_read_size(numbers[4], &own->truncation) &&
           gp_read_offset(numbers[5], &own->weight) && gp_read_offset(numbers[6], &own->bias);
}

static int fits(size_t offset, size_t length, size_t begin, size_t end)
{
    return offset >= begin && offset <= end && length <= end - offset;
}

static int recurrent_fits(const gp_layer_spec *spec) { return gp_recurrent_of(spec)->steps > 0; }

static int recurrent_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t T = own->steps;
    if (own->cell >= GP_CELLS || T == 0 || spec->in % T != 0 ||
        (own->sequences && spec->out % T != 0))
        return 0;
    if (own->cell == GP_RNN && own->activation != GP_TANH && own->activation != GP_RELU) return 0;
    if (own->omega != 0.0f && own->cell != GP_RNN) return 0;
    const size_t F = spec->in / T, H = gp_units_of(spec), G = gp_gates_of(spec);
    if (F == 0 || H == 0 || H > n_prunable / G / H || F > n_prunable / G / H) return 0;
    if (!fits(spec->weight, G * H * F, 0, n_prunable) ||
        !fits(own->weight, G * H * H, 0, n_prunable))
        return 0;
    if (spec->bias == GP_NONE) return own->bias == GP_NONE;
    return fits(spec->bias, G * H, n_prunable, n_params) &&
           fits(own->bias, G * H, n_prunable, n_params);
}

static size_t recurrent_weights(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES])
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t H = gp_units_of(spec), rows = gp_gates_of(spec) * H;
    const int in_fours = H % 4 == 0;
    weights[0] = (gp_matrix){.offset = spec->weight,
                             .rows = rows,
                             .columns = spec->in / own->steps,
                             .in_fours = in_fours,
                             .uses = own->steps};
    weights[1] = (gp_matrix){.offset = own->weight,
                             .rows = rows,
                             .columns = H,
                             .in_fours = in_fours,
                             .uses = own->steps};
    return 2;
}

static size_t recurrent_vectors(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS])
{
    const size_t rows = gp_gates_of(spec) * gp_units_of(spec);
    if (spec->bias == GP_NONE) return 0;
    vectors[0] = (gp_vector){.offset = spec->bias, .length = rows, .bias = 1};
    vectors[1] = (gp_vector){
        .offset = gp_recurrent_of(spec)->bias, .length = rows, .bias = 1, .recurrent = 1};
    return 2;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

/* The sizes and buffers of one call. Of a chunk and step: gates (G*H,P), then their gradients;
 * state the same as W_hh sees it, which differs for GRU alone; c, h (H,P). */
typedef struct view {
    const gp_matrix *W_ih, *W_hh;
    size_t T, F, H, G, P;
    float *gates, *state, *c, *h;
    float *last;    /* [chunk][H][P], unless the output is all of h */
    float *dh, *dc; /* [chunk][H][P]: on the way from a step to the one before */
    /* for omega: [chunk][t][H][P] what stands for h_(t-1) in dW_hh, and [chunk][t][P] */
    float *inputs, *term;
    size_t begin, end;              /* this member's units */
    size_t first_chunk, last_chunk; /* and chunks */
    int meets;                      /* members depend on each other in every step */
} view;

/* Floats a lane of every buffer; returns their sum. `at` may be NULL. */
static size_t lay_out(const gp_layer_spec *spec, float *next, size_t lanes, view *at)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t T = own->steps, F = spec->in / T, H = gp_units_of(spec), G = gp_gates_of(spec);
    size_t total = 0;
#define TAKE(pointer, floats) \
    do { \
        if (at) at->pointer = next + total * lanes; \
        total += (floats); \
    } while (0)
    TAKE(gates, T * G * H);
    if (own->cell == GP_GRU) TAKE(state, T * G * H);
    else if (at) at->state = at->gates;
    TAKE(c, own->cell == GP_LSTM ? T * H : 0);
    TAKE(h, T * H);
    TAKE(last, own->sequences ? 0 : H);
    TAKE(dh, H);
    TAKE(dc, own->cell == GP_LSTM ? H : 0);
    TAKE(inputs, own->omega != 0.0f ? T * H : 0);
    TAKE(term, own->omega != 0.0f ? T : 0);
#undef TAKE
    if (at) {
        at->T = T;
        at->F = F;
        at->H = H;
        at->G = G;
    }
    return total;
}

static size_t recurrent_workspace(const gp_layer_spec *spec)
{
    return lay_out(spec, NULL, 0, NULL);
}

static size_t recurrent_spare(const gp_layer_spec *spec)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t H = gp_units_of(spec),
                 square = own->orthogonality != 0.0f ? 3 * H * gp_padded(H) : 0;
    return gp_padded((gp_gates_of(spec) + 1) * H) + square;
}

static view look_at(const gp_layer *layer, const gp_pass *pass)
{
    view v = {.W_ih = &layer->weights[0],
              .W_hh = &layer->weights[1],
              .P = pass->lanes,
              .last_chunk = pass->chunks};
    lay_out(&layer->spec, layer->work, pass->lanes * pass->chunks, &v);
    v.end = v.H;
    v.meets = pass->chunks % pass->team->size != 0;
    if (!v.meets) gp_team_share(pass->team, pass->chunks, &v.first_chunk, &v.last_chunk);
    else
        gp_team_share_blocks(pass->team, v.H, v.H % 4 == 0 ? GP_RECURRENT_SHARE : v.H, &v.begin,
                             &v.end);
    return v;
}

static size_t valid_lanes(const gp_pass *pass, size_t chunk)
{
    return gp_smaller(pass->lanes, pass->samples - gp_smaller(pass->samples, chunk * pass->lanes));
}

/* ---- forward --------------------------------------------------------------------------------- */

/* [G*H]: b_ih + b_hh, for GRU's n b_ih alone; then [H]: b_hh of GRU's n. */
static void add_biases(const gp_layer *layer, const gp_pass *pass, const view *v)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t n = v->G * v->H, joint = own->cell == GP_GRU ? 2 * v->H : n;
    /* without biases it is 0 since the network was made */
    if (pass->team->rank != 0 || spec->bias == GP_NONE) return;
    const float *b_ih = pass->arena->params + spec->bias, *b_hh = pass->arena->params + own->bias;
    for (size_t r = 0; r < n; r++) layer->spare[r] = r < joint ? b_ih[r] + b_hh[r] : b_ih[r];
    for (size_t r = joint; r < n; r++) layer->spare[r + v->H] = b_hh[r];
}

/* h_t, and c_t, of this member's units from x_t and what was before. */
static void forward_step(const gp_layer *layer, const gp_pass *pass, const view *v, size_t chunk,
                         size_t t, const float *x)
{
    const gp_cell cell = gp_recurrent_of(&layer->spec)->cell;
    const size_t H = v->H, P = v->P, at = chunk * v->T + t, n = v->end - v->begin,
                 mine = v->begin * P;
    float *gates = v->gates + at * v->G * H * P, *state = v->state + at * v->G * H * P,
          *h = v->h + at * H * P;
    const float *before = t > 0 ? h - H * P : NULL;
    for (size_t g = 0; g < v->G; g++) {
        const size_t begin = g * H + v->begin, end = g * H + v->end;
        float *gate = gates + begin * P, *from_state = gate;
        pass->kernels->broadcast(n, P, layer->spare + begin, gate);
        gp_matrix_times(v->W_ih, pass, begin, end, x, gate, 1);
        if (cell == GP_GRU && g == 2) {
            from_state = state + begin * P;
            pass->kernels->broadcast(n, P, layer->spare + begin + H, from_state);
        }
        if (before) gp_matrix_times(v->W_hh, pass, begin, end, before, from_state, 1);
    }
    const float *earlier = before ? before + mine : NULL;
    float *g0 = gates + mine, *g1 = g0 + H * P, *g2 = g1 + H * P, *g3 = g2 + H * P,
          *c = v->c + at * H * P + mine;
    switch (cell) {
    case GP_LSTM:
        pass->kernels->lstm_forward(n * P, g0, g1, g2, g3, t > 0 ? c - H * P : NULL, c, h + mine);
        break;
    case GP_GRU:
        pass->kernels->gru_forward(n * P, g0, g1, g2, state + 2 * H * P + mine, earlier, h + mine);
        break;
    case GP_RNN:
    case GP_CELLS:
        pass->kernels->activation_forward(n * P, g0, h + mine,
                                          gp_recurrent_of(&layer->spec)->activation, 0.0f);
        break;
    }
    /* what a lane without a sample makes of the biases must not grow beyond float */
    const size_t valid = valid_lanes(pass, chunk);
    for (size_t u = v->begin; valid < P && u < v->end; u++) {
        memset(h + u * P + valid, 0, (P - valid) * sizeof *h);
        if (cell == GP_LSTM) memset(v->c + (at * H + u) * P + valid, 0, (P - valid) * sizeof *h);
    }
    const uint32_t *lengths = gp_lengths_of(pass, chunk, v->T);
    if (!lengths) return;
    gp_lengths_clear(n, P, lengths, t, h + mine);
    if (cell == GP_LSTM) gp_lengths_clear(n, P, lengths, t, c);
}

/* The state after the last step of each sample, of this member's units. */
static void take_last(const gp_pass *pass, const view *v, size_t chunk)
{
    const uint32_t *lengths = gp_lengths_of(pass, chunk, v->T);
    const size_t H = v->H, P = v->P, n = v->end - v->begin, mine = v->begin * P;
    float *last = v->last + chunk * H * P + mine;
    const float *h = v->h + (chunk * v->T + v->T - 1) * H * P + mine;
    memcpy(last, h, n * P * sizeof *last);
    for (size_t t = v->T - 1; lengths && t-- > 0;) {
        h -= H * P;
        gp_lengths_keep_last(n, P, lengths, t, h, last);
    }
}

static const float *recurrent_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const view v = look_at(layer, pass);
    const size_t T = v.T, H = v.H, P = v.P;
    gp_matrix_collect(v.W_ih, pass);
    gp_matrix_collect(v.W_hh, pass);
    add_biases(layer, pass, &v);
    gp_team_wait(pass->team);
    for (size_t chunk = v.first_chunk; chunk < v.last_chunk; chunk++) {
        for (size_t t = 0; t < T; t++) {
            forward_step(layer, pass, &v, chunk, t, x + (chunk * T + t) * v.F * P);
            if (v.meets) gp_team_wait(pass->team);
        }
        if (!gp_recurrent_of(&layer->spec)->sequences) take_last(pass, &v, chunk);
    }
    if (pass->team->rank == 0) {
        layer->states = v.h;
        layer->steps = T;
        layer->units = H;
    }
    gp_team_wait(pass->team);
    return gp_recurrent_of(&layer->spec)->sequences ? v.h : v.last;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Whether the gradient of step t reaches the step before. */
static int passes_on(const gp_layer_spec *spec, size_t t)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    return t > 0 && (own->truncation == 0 || t % own->truncation != 0);
}

/* The gradients of this member's gates at step t, from dy (NULL: none) and what came from the step
 * after. */
static void backward_gates(const gp_layer *layer, const gp_pass *pass, const view *v, size_t chunk,
                           size_t t, const float *dy)
{
    const size_t H = v->H, P = v->P, at = chunk * v->T + t, n = (v->end - v->begin) * P,
                 mine = v->begin * P;
    float *g0 = v->gates + at * v->G * H * P + mine, *g1 = g0 + H * P, *g2 = g1 + H * P,
          *g3 = g2 + H * P;
    float *s0 = v->state + at * v->G * H * P + mine, *dh = v->dh + chunk * H * P + mine;
    const float *h = v->h + at * H * P + mine, *c = v->c + at * H * P + mine;
    switch (gp_recurrent_of(&layer->spec)->cell) {
    case GP_LSTM:
        pass->kernels->lstm_backward(n, g0, g1, g2, g3, t > 0 ? c - H * P : NULL, c, dy, dh,
                                     v->dc + chunk * H * P + mine);
        break;
    case GP_GRU:
        pass->kernels->gru_backward(n, g0, g1, g2, s0 + 2 * H * P, s0, s0 + H * P,
                                    t > 0 ? h - H * P : NULL, dy, dh);
        break;
    case GP_RNN:
    case GP_CELLS:
        pass->kernels->rnn_backward(n, h, dy, dh, g0, gp_recurrent_of(&layer->spec)->activation);
        break;
    }
}

/* From the gradients of all gates at step t: dh of the step before for this member's units, and
 * dx. */
static void backward_products(const gp_layer *layer, const gp_pass *pass, const view *v,
                              size_t chunk, size_t t, float *dx)
{
    const size_t H = v->H, P = v->P, at = chunk * v->T + t, mine = (chunk * H + v->begin) * P;
    const size_t bytes = (v->end - v->begin) * P * sizeof(float);
    if (passes_on(&layer->spec, t)) {
        gp_matrix_transposed_times(v->W_hh, pass, 1, v->begin, v->end, v->state + at * v->G * H * P,
                                   v->dh + mine, gp_recurrent_of(&layer->spec)->cell == GP_GRU);
        if (gp_recurrent_of(&layer->spec)->omega != 0.0f)
            memcpy(v->inputs + (at * H + v->begin) * P, v->dh + mine, bytes);
    } else {
        memset(v->dh + mine, 0, bytes);
        if (gp_recurrent_of(&layer->spec)->cell == GP_LSTM) memset(v->dc + mine, 0, bytes);
    }
    if (!dx) return;
    size_t begin = 0, end = v->F;
    if (v->meets) gp_team_share_blocks(pass->team, v->F, GP_RECURRENT_SHARE, &begin, &end);
    gp_matrix_transposed_times(v->W_ih, pass, 1, begin, end, v->gates + at * v->G * H * P,
                               dx + (at * v->F + begin) * P, 0);
}

/* What stands for h_(t-1) in dW_hh when Omega is part of the loss. */
static void regularize(gp_layer *layer, const gp_pass *pass, const view *v)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const size_t T = v->T, H = v->H, P = v->P;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t at = begin; at < end; at++) {
        const size_t t = at % T;
        float *x = v->inputs + at * H * P, *term = v->term + at * P;
        if (passes_on(spec, t)) {
            pass->kernels->omega_terms(H, P, valid_lanes(pass, at / T), v->gates + at * H * P, x,
                                       v->h + (at - 1) * H * P, own->activation,
                                       (double)own->omega / (double)pass->batch, x, term);
            continue;
        }
        if (t > 0) memcpy(x, v->h + (at - 1) * H * P, H * P * sizeof *x);
        memset(term, 0, P * sizeof *term);
    }
    gp_team_wait(pass->team);
    double sum = 0.0;
    for (size_t i = 0; i < pass->chunks * T * P; i++) sum += (double)v->term[i];
    if (pass->team->rank == 0) layer->penalty += (double)own->omega * sum / (double)pass->batch;
}

/* dW += sum over chunks and steps from `first` on of dz_t x_t^T. x_t (columns,P) of a chunk and
 * step are at x + (chunk*T + t - first)*columns*P. */
static void weight_gradient(const gp_pass *pass, const view *v, const gp_matrix *W, const float *dz,
                            const float *x, size_t first)
{
    const size_t T = v->T, P = v->P, O = W->rows, I = W->columns;
    const gp_arena *arena = pass->arena;
    float *dW = W->live ? W->live->gradient : arena->grads + W->offset;
    const size_t n = W->live ? W->live->count : O * I;
    if (T == first) { /* one step and no state before it */
        if (pass->team->rank == 0 && pass->first == 0) memset(dW, 0, n * sizeof *dW);
        return;
    }
    if (!W->live) {
        gp_matrix_gradient(W, pass, first, dz, x);
        return;
    }
    size_t begin, end;
    gp_lists_share(pass->team, O, W->live->row_start, &begin, &end);
    for (size_t chunk = 0; chunk < pass->chunks; chunk++)
        for (size_t t = first; t < T; t++)
            pass->kernels->sparse_dot(end - begin, P, W->live->row_start + begin, W->live->column,
                                      dz + ((chunk * T + t) * O + begin) * P,
                                      x + (chunk * T + t - first) * I * P, dW,
                                      pass->first + chunk > 0 || t > first);
}

/* db[r] += sum over chunks, steps and lanes of dz; `also`, unless it is GP_NONE, gets the same. */
static void bias_gradient(const gp_pass *pass, const view *v, size_t bias, size_t also,
                          const float *dz)
{
    const size_t rows = v->G * v->H;
    size_t begin, end;
    gp_team_share_blocks(pass->team, rows, GP_RECURRENT_SHARE, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *db = pass->arena->grads + bias + r;
        double sum = pass->first > 0 ? (double)*db : 0.0;
        for (size_t at = 0; at < pass->chunks * v->T; at++)
            sum += pass->kernels->sum(v->P, dz + (at * rows + r) * v->P);
        *db = (float)sum;
        if (also != GP_NONE) pass->arena->grads[also + r] = *db;
    }
}

/* The gradient of h_t from the layers that read it, NULL: none, of this member's units. */
static const float *gradient_from_outside(const gp_recurrent_settings *own, const view *v,
                                          const uint32_t *lengths, size_t chunk, size_t t,
                                          float *dy)
{
    const size_t n = v->end - v->begin, mine = (chunk * v->H + v->begin) * v->P;
    if (own->sequences) {
        float *from = dy + ((chunk * v->T + t) * v->H + v->begin) * v->P;
        if (lengths) gp_lengths_clear(n, v->P, lengths, t, from);
        return from;
    }
    if (!lengths) return t + 1 == v->T ? dy + mine : NULL;
    gp_lengths_add_last(n, v->P, lengths, t, dy + mine, v->dh + mine);
    return NULL;
}

static float *recurrent_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    const gp_layer_spec *spec = &layer->spec;
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    const view v = look_at(layer, pass);
    const size_t T = v.T, H = v.H, P = v.P;
    gp_matrix_collect_columns(v.W_hh, pass);
    if (dx) gp_matrix_collect_columns(v.W_ih, pass);
    for (size_t chunk = v.first_chunk; chunk < v.last_chunk; chunk++) {
        const size_t mine = (chunk * H + v.begin) * P,
                     bytes = (v.end - v.begin) * P * sizeof(float);
        const uint32_t *lengths = gp_lengths_of(pass, chunk, T);
        memset(v.dh + mine, 0, bytes);
        if (own->cell == GP_LSTM) memset(v.dc + mine, 0, bytes);
        for (size_t t = T; t-- > 0;) {
            const float *from = gradient_from_outside(own, &v, lengths, chunk, t, dy);
            backward_gates(layer, pass, &v, chunk, t, from);
            if (v.meets) gp_team_wait(pass->team);
            backward_products(layer, pass, &v, chunk, t, dx);
        }
    }
    gp_team_wait(pass->team);
    if (own->omega != 0.0f) regularize(layer, pass, &v);
    weight_gradient(pass, &v, v.W_ih, v.gates, layer->input, 0);
    if (own->omega != 0.0f) weight_gradient(pass, &v, v.W_hh, v.state, v.inputs + H * P, 1);
    else weight_gradient(pass, &v, v.W_hh, v.state, v.h, 1);
    if (spec->bias != GP_NONE) {
        const int alike = v.state == v.gates;
        bias_gradient(pass, &v, spec->bias, alike ? own->bias : GP_NONE, v.gates);
        if (!alike) bias_gradient(pass, &v, own->bias, GP_NONE, v.state);
    }
    gp_team_wait(pass->team);
    return dx;
}

const gp_layer_ops gp_layer_recurrent = {.name = "recurrent",
                                         .n_settings = 9,
                                         .words = words,
                                         .set = recurrent_set,
                                         .vectors = recurrent_vectors,
                                         .fits = recurrent_fits,
                                         .is_valid = recurrent_is_valid,
                                         .weights = recurrent_weights,
                                         .workspace = recurrent_workspace,
                                         .spare = recurrent_spare,
                                         .forward = recurrent_forward,
                                         .backward = recurrent_backward,
                                         .penalty = gp_recurrent_penalty,
                                         .frozen = &gp_recurrent_frozen};
