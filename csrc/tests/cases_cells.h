/* cases_cells.h - one step of the recurrent cells, forward and backward, against naive_cells.h.
 *
 * n is a multiple of 16; what may be NULL is. A number's bits do not depend on where it stands: the
 * last 16 are run by themselves, too.
 */
#ifndef GP_CASES_CELLS_H
#define GP_CASES_CELLS_H

#include "cases.h"

enum { CELL_MOST = 112, CELL_GATES = 4 };

typedef float cell_copy[CELL_GATES][CELL_MOST];

/* before: there is a step before; from_above: there is a dy */
typedef struct cell_call {
    const gp_kernels *kernels;
    size_t n, shift;
    int before, from_above;
    noise *source;
} cell_call;

static void over_cells(const gp_kernels *kernels, void (*run)(const cell_call *call))
{
    static const size_t sizes[] = {0, 16, 32, 48, 64, CELL_MOST};
    noise source = {2};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t shift = 0; shift < 4; shift++)
            for (int null = 0; null < 4; null++)
                run(&(cell_call){kernels, sizes[i], shift, !(null & 1), !(null & 2), &source});
}

static void cell_open(const cell_call *call, buffer gates[CELL_GATES], cell_copy copy, double size)
{
    for (size_t g = 0; g < CELL_GATES; g++) {
        gates[g] = inout_floats(call->source, call->n, (call->shift + g) % 4, size);
        memcpy(copy[g], gates[g].f, call->n * sizeof(float));
    }
}
/* Like gates after their activation. */
static void cell_squash(const cell_call *call, buffer gates[CELL_GATES], cell_copy copy,
                        size_t tanh_gate)
{
    for (size_t g = 0; g < CELL_GATES; g++)
        for (size_t i = 0; i < call->n; i++)
            copy[g][i] = gates[g].f[i] =
                (float)(g == tanh_gate ? tanh((double)gates[g].f[i])
                                       : naive_sigmoid((double)gates[g].f[i]));
}
static void cell_close(buffer gates[CELL_GATES])
{
    for (size_t g = 0; g < CELL_GATES; g++) CLOSE(gates[g]);
}

#define CELL_NEAR(n, got, want) CHECK_FLOATS_NEAR(n, got, want, 1e-6, 2e-6)
/* The last 16 of `whole` are `alone`. */
#define CELL_ALONE(n, alone, whole) CHECK_BYTES_EQUAL(16 * sizeof(float), alone, (whole) + (n) - 16)

/* ---- LSTM ------------------------------------------------------------------------------------ */

static void lstm_forward_case(const cell_call *call)
{
    const size_t n = call->n;
    buffer g[CELL_GATES], before = input_floats(call->source, n, call->shift, 2.0);
    buffer c = output_floats(n, call->shift), h = output_floats(n, 3 - call->shift);
    cell_copy z, want;
    float want_c[CELL_MOST], want_h[CELL_MOST];
    cell_open(call, g, z, 4.0);
    for (size_t i = 0; i < n; i++) {
        double a[CELL_GATES], now, y;
        for (size_t k = 0; k < CELL_GATES; k++) a[k] = (double)z[k][i];
        naive_lstm(a, call->before ? (double)before.f[i] : 0.0, &now, &y);
        for (size_t k = 0; k < CELL_GATES; k++) want[k][i] = (float)a[k];
        want_c[i] = (float)now;
        want_h[i] = (float)y;
    }
    call->kernels->lstm_forward(n, g[0].f, g[1].f, g[2].f, g[3].f, call->before ? before.f : NULL,
                                c.f, h.f);
    for (size_t k = 0; k < CELL_GATES; k++) CELL_NEAR(n, g[k].f, want[k]);
    CELL_NEAR(n, c.f, want_c);
    CELL_NEAR(n, h.f, want_h);
    if (n > 0) {
        const size_t at = n - 16;
        float one_c[16], one_h[16];
        call->kernels->lstm_forward(16, z[0] + at, z[1] + at, z[2] + at, z[3] + at,
                                    call->before ? before.f + at : NULL, one_c, one_h);
        for (size_t k = 0; k < CELL_GATES; k++) CELL_ALONE(n, z[k] + at, g[k].f);
        CELL_ALONE(n, one_c, c.f);
        CELL_ALONE(n, one_h, h.f);
    }
    cell_close(g);
    CLOSE(before);
    CLOSE(c);
    CLOSE(h);
}

/* Gates saturate without a NaN. */
static void lstm_saturates(const gp_kernels *kernels)
{
    float gates[CELL_GATES][16], before[16], c[16], h[16];
    for (size_t i = 0; i < 16; i++) {
        for (size_t g = 0; g < CELL_GATES; g++) gates[g][i] = (i >> g & 1) ? FLT_MAX : -FLT_MAX;
        before[i] = 3.0f;
    }
    kernels->lstm_forward(16, gates[0], gates[1], gates[2], gates[3], before, c, h);
    for (size_t i = 0; i < 16; i++) {
        const double now = (i & 2 ? 3.0 : 0.0) + (i & 1 ? (i & 4 ? 1.0 : -1.0) : 0.0);
        CHECK_NEAR(c[i], now, 1e-6);
        CHECK_NEAR(h[i], i & 8 ? tanh(now) : 0.0, 1e-6);
    }
}

static void test_lstm_forward(const gp_kernels *kernels)
{
    over_cells(kernels, lstm_forward_case);
    lstm_saturates(kernels);
}

static void lstm_backward_case(const cell_call *call)
{
    const size_t n = call->n;
    noise *source = call->source;
    buffer g[CELL_GATES], before = input_floats(source, n, call->shift, 2.0),
                          c = input_floats(source, n, 1, 2.0);
    buffer dy = input_floats(source, n, 2, 1.0), dh = input_floats(source, n, 3 - call->shift, 1.0);
    buffer dc = inout_floats(source, n, call->shift, 1.0);
    cell_copy z, want;
    float old_dc[CELL_MOST], want_dc[CELL_MOST];
    cell_open(call, g, z, 3.0);
    cell_squash(call, g, z, 2);
    memcpy(old_dc, dc.f, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double a[CELL_GATES], back = (double)dc.f[i];
        for (size_t k = 0; k < CELL_GATES; k++) a[k] = (double)z[k][i];
        naive_lstm_backward(a, call->before ? (double)before.f[i] : 0.0, (double)c.f[i],
                            (double)dh.f[i] + (call->from_above ? (double)dy.f[i] : 0.0), &back);
        for (size_t k = 0; k < CELL_GATES; k++) want[k][i] = (float)a[k];
        want_dc[i] = (float)back;
    }
    call->kernels->lstm_backward(n, g[0].f, g[1].f, g[2].f, g[3].f, call->before ? before.f : NULL,
                                 c.f, call->from_above ? dy.f : NULL, dh.f, dc.f);
    for (size_t k = 0; k < CELL_GATES; k++) CELL_NEAR(n, g[k].f, want[k]);
    CELL_NEAR(n, dc.f, want_dc);
    if (n > 0) {
        const size_t at = n - 16;
        call->kernels->lstm_backward(16, z[0] + at, z[1] + at, z[2] + at, z[3] + at,
                                     call->before ? before.f + at : NULL, c.f + at,
                                     call->from_above ? dy.f + at : NULL, dh.f + at, old_dc + at);
        for (size_t k = 0; k < CELL_GATES; k++) CELL_ALONE(n, z[k] + at, g[k].f);
        CELL_ALONE(n, old_dc + at, dc.f);
    }
    cell_close(g);
    CLOSE(before);
    CLOSE(c);
    CLOSE(dy);
    CLOSE(dh);
    CLOSE(dc);
}
static void test_lstm_backward(const gp_kernels *kernels)
{
    over_cells(kernels, lstm_backward_case);
}

/* ---- GRU: the fourth "gate" is q ------------------------------------------------------------- */

static void gru_forward_case(const cell_call *call)
{
    const size_t n = call->n;
    buffer g[CELL_GATES], before = input_floats(call->source, n, call->shift, 1.0),
                          h = output_floats(n, call->shift);
    cell_copy z, want;
    float want_h[CELL_MOST];
    cell_open(call, g, z, 4.0);
    for (size_t i = 0; i < n; i++) {
        double a[3] = {(double)z[0][i], (double)z[1][i], (double)z[2][i]}, y;
        naive_gru(a, (double)z[3][i], call->before ? (double)before.f[i] : 0.0, &y);
        for (size_t k = 0; k < 3; k++) want[k][i] = (float)a[k];
        want_h[i] = (float)y;
    }
    call->kernels->gru_forward(n, g[0].f, g[1].f, g[2].f, g[3].f, call->before ? before.f : NULL,
                               h.f);
    for (size_t k = 0; k < 3; k++) CELL_NEAR(n, g[k].f, want[k]);
    CELL_NEAR(n, h.f, want_h);
    CHECK_BYTES_EQUAL(n * sizeof(float), g[3].f, z[3]);
    if (n > 0) {
        const size_t at = n - 16;
        float one[16];
        call->kernels->gru_forward(16, z[0] + at, z[1] + at, z[2] + at, z[3] + at,
                                   call->before ? before.f + at : NULL, one);
        for (size_t k = 0; k < 3; k++) CELL_ALONE(n, z[k] + at, g[k].f);
        CELL_ALONE(n, one, h.f);
    }
    cell_close(g);
    CLOSE(before);
    CLOSE(h);
}
static void test_gru_forward(const gp_kernels *kernels) { over_cells(kernels, gru_forward_case); }

static void gru_backward_case(const cell_call *call)
{
    const size_t n = call->n;
    noise *source = call->source;
    buffer g[CELL_GATES], before = input_floats(source, n, call->shift, 1.0),
                          dy = input_floats(source, n, 2, 1.0);
    buffer r_too = output_floats(n, 1), z_too = output_floats(n, 2),
           dh = inout_floats(source, n, call->shift, 1.0);
    cell_copy z, want;
    float old_dh[CELL_MOST], want_dh[CELL_MOST];
    cell_open(call, g, z, 3.0);
    cell_squash(call, g, z, 2);
    memcpy(old_dh, dh.f, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double a[3] = {(double)z[0][i], (double)z[1][i], (double)z[2][i]}, straight;
        double dq = naive_gru_backward(a, (double)z[3][i], call->before ? (double)before.f[i] : 0.0,
                                       (double)dh.f[i] + (call->from_above ? (double)dy.f[i] : 0.0),
                                       &straight);
        for (size_t k = 0; k < 3; k++) want[k][i] = (float)a[k];
        want[3][i] = (float)dq;
        want_dh[i] = (float)straight;
    }
    call->kernels->gru_backward(n, g[0].f, g[1].f, g[2].f, g[3].f, r_too.f, z_too.f,
                                call->before ? before.f : NULL, call->from_above ? dy.f : NULL,
                                dh.f);
    for (size_t k = 0; k < CELL_GATES; k++) CELL_NEAR(n, g[k].f, want[k]);
    CELL_NEAR(n, dh.f, want_dh);
    CHECK_BYTES_EQUAL(n * sizeof(float), r_too.f, g[0].f);
    CHECK_BYTES_EQUAL(n * sizeof(float), z_too.f, g[1].f);
    if (n > 0) {
        const size_t at = n - 16;
        float r[16], u[16];
        call->kernels->gru_backward(16, z[0] + at, z[1] + at, z[2] + at, z[3] + at, r, u,
                                    call->before ? before.f + at : NULL,
                                    call->from_above ? dy.f + at : NULL, old_dh + at);
        for (size_t k = 0; k < CELL_GATES; k++) CELL_ALONE(n, z[k] + at, g[k].f);
        CELL_ALONE(n, old_dh + at, dh.f);
    }
    cell_close(g);
    CLOSE(before);
    CLOSE(dy);
    CLOSE(r_too);
    CLOSE(z_too);
    CLOSE(dh);
}
static void test_gru_backward(const gp_kernels *kernels) { over_cells(kernels, gru_backward_case); }

/* ---- RNN ------------------------------------------------------------------------------------- */

static double rnn_slope(gp_activation f, float h)
{
    if (f == GP_RELU) return h > 0.0f ? 1.0 : 0.0;
    return 1.0 - (double)h * (double)h;
}

static void rnn_backward_case(const cell_call *call)
{
    const size_t n = call->n;
    const gp_activation f = call->before ? GP_TANH : GP_RELU;
    buffer h = input_floats(call->source, n, call->shift, 1.0),
           dy = input_floats(call->source, n, 2, 1.0);
    buffer dh = input_floats(call->source, n, 3 - call->shift, 1.0),
           dz = output_floats(n, call->shift);
    float want[CELL_MOST], one[16];
    for (size_t i = 0; i < n; i++) {
        if (i % 5 == 0 || (f == GP_RELU && h.f[i] < 0.0f)) h.f[i] = 0.0f;
        want[i] = (float)(((double)dh.f[i] + (call->from_above ? (double)dy.f[i] : 0.0)) *
                          rnn_slope(f, h.f[i]));
    }
    call->kernels->rnn_backward(n, h.f, call->from_above ? dy.f : NULL, dh.f, dz.f, f);
    CELL_NEAR(n, dz.f, want);
    if (n > 0) {
        call->kernels->rnn_backward(16, h.f + n - 16, call->from_above ? dy.f + n - 16 : NULL,
                                    dh.f + n - 16, one, f);
        CELL_ALONE(n, one, dz.f);
    }
    CLOSE(h);
    CLOSE(dy);
    CLOSE(dh);
    CLOSE(dz);
}
static void test_rnn_backward(const gp_kernels *kernels) { over_cells(kernels, rnn_backward_case); }

/* ---- Pascanu's regularizer ------------------------------------------------------------------- */

enum { VANISHED = 3, STOPPED = 5, TINY = 6, HUGE_ONE = 7 }; /* lanes that are special */

static void omega_case(const gp_kernels *kernels, size_t units, size_t lanes, size_t valid,
                       gp_activation f, int in_place)
{
    const size_t n = units * lanes;
    const double weight = 0.3;
    noise source = {units + lanes + valid};
    buffer dz = input_floats(&source, n, 1, 1.0), h = input_floats(&source, n, 2, 1.0);
    buffer back = inout_floats(&source, n, 3, 1.0), x = output_floats(n, 1),
           term = output_floats(lanes, 2);
    float *out = in_place ? back.f : x.f;
    float *want = allocated((n + 1) * sizeof *want);
    memset(want, 0, (n + 1) * sizeof *want);
    for (size_t u = 0; u < units; u++) {
        dz.f[u * lanes + VANISHED] = u == 0 ? 1e-31f : 0.0f;
        back.f[u * lanes + STOPPED] = 0.0f;
        dz.f[u * lanes + TINY] *= 1e-20f; /* its square is no float, but a double */
        back.f[u * lanes + TINY] *= 1e-20f;
        dz.f[u * lanes + HUGE_ONE] *= 1e30f;
        back.f[u * lanes + HUGE_ONE] *= 1e30f;
    }
    for (size_t p = 0; p < lanes; p++) {
        double norm = 0.0, before = 0.0, factor = 0.0;
        for (size_t i = p; i < n; i += lanes) {
            const double v = (double)back.f[i] * rnn_slope(f, h.f[i]);
            norm += (double)dz.f[i] * (double)dz.f[i];
            before += v * v;
        }
        norm = sqrt(norm);
        before = sqrt(before);
        const int counts = p < valid && norm > 1e-30;
        if (counts && before > 0.0) factor = weight * 2.0 * (before / norm - 1.0) / (norm * before);
        for (size_t i = p; i < n; i += lanes)
            want[i] = (float)((double)h.f[i] + factor * (double)back.f[i] * rnn_slope(f, h.f[i]) *
                                                   rnn_slope(f, h.f[i]));
        term.f[p] = counts ? (float)((before / norm - 1.0) * (before / norm - 1.0)) : 0.0f;
    }
    buffer got = output_floats(lanes, 1);
    kernels->omega_terms(units, lanes, valid, dz.f, back.f, h.f, f, weight, out, got.f);
    CHECK_FLOATS_NEAR(n, out, want, 1e-6, 5e-5); /* ratio - 1 cancels */
    CHECK_FLOATS_NEAR(lanes, got.f, term.f, 1e-7, 2e-6);
    for (size_t p = 0; p < lanes; p++) {
        if (p >= valid || p == VANISHED) CHECK(got.f[p] == 0.0f);
        for (size_t i = p; i < n; i += lanes)
            if (p >= valid || p == VANISHED) CHECK(bits_of(out[i]) == bits_of(h.f[i]));
    }
    free(want);
    CLOSE(dz);
    CLOSE(h);
    CLOSE(back);
    CLOSE(x);
    CLOSE(term);
    CLOSE(got);
}

static void test_omega_terms(const gp_kernels *kernels)
{
    static const size_t units[] = {1, 2, 7, 16, 33};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        for (size_t lanes = 16; lanes <= GP_LANES; lanes += 16)
            for (int k = 0; k < 4; k++)
                omega_case(kernels, units[i], lanes, k == 3 ? 0 : lanes - (size_t)k * 5,
                           k % 2 ? GP_RELU : GP_TANH, k > 1);
}

#endif
