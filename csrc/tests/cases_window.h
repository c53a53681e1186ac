/* cases_window.h - products of filters that slide over images, and pools.
 *
 * As for the plain product, what is compared with double is a whole; its parts, be they some rows,
 * one place, or some vectors of it, must then have exactly its bits, whatever the tiles: threads
 * and groups share rows, and lists of live weights are run row by row.
 */
#ifndef GP_CASES_WINDOW_H
#define GP_CASES_WINDOW_H

#include "cases.h"

enum { WINDOW_M = 15, WINDOW_K = 33, WINDOW_N = 208, WINDOW_UNIT = 21, WINDOW_AT = 50 };

/* The rows of a, the places in b, and how both lie; where the places' own numbers lie is up to the
 * kernel. */
typedef struct window_input {
    size_t m, k, a_row, own_row;
    const float *a, *b;
    const uint32_t *at;
    gp_runs runs;
} window_input;

/* One long run; and shorter ones, which are apart from each other on both sides. */
static const gp_runs window_runs[] = {{.n = WINDOW_N, .inner = 1, .outer = 1},
                                      {.n = 16, .inner = 3, .outer = 2},
                                      {.n = 48, .inner = 2, .outer = 3},
                                      {.n = 144, .inner = 1, .outer = 2}};
enum { WINDOW_RUNS = sizeof window_runs / sizeof window_runs[0] };

static gp_runs window_spread(gp_runs runs)
{
    runs.from_inner = 37;
    runs.from_outer = 101;
    runs.to_inner = runs.n + 3;
    runs.to_outer = runs.inner * runs.to_inner + 5;
    return runs;
}

/* Where a place's own numbers lie, and those it reads; places are counted run by run. */
static size_t window_own_at(const gp_runs *runs, size_t place)
{
    return place / runs->inner * runs->to_outer + place % runs->inner * runs->to_inner;
}
static size_t window_read_at(const gp_runs *runs, size_t place)
{
    return place / runs->inner * runs->from_outer + place % runs->inner * runs->from_inner;
}

/* Floats from the first to the last, and no more: of what belongs to the places, and of what they
 * read. */
static size_t window_own_size(const window_input *in)
{
    const gp_runs *runs = &in->runs;
    return (in->m - 1) * in->own_row + window_own_at(runs, runs->inner * runs->outer - 1) + runs->n;
}
static size_t window_read_size(const window_input *in)
{
    const gp_runs *runs = &in->runs;
    size_t last = 0;
    for (size_t q = 0; q < in->k; q++)
        if (in->at[q] > last) last = in->at[q];
    return in->k > 0
               ? last * WINDOW_UNIT + window_read_at(runs, runs->inner * runs->outer - 1) + runs->n
               : 0;
}

/* The list of k distances, in no order. */
static void window_list(noise *source, size_t k, uint32_t *at)
{
    for (size_t q = 0; q < k; q++) at[q] = (uint32_t)noise_below(source, WINDOW_AT);
}

/* ---- y = W x --------------------------------------------------------------------------------- */

/* What the sums start with. */
typedef enum window_start { START_ZERO, START_BIAS, START_OUTPUT, STARTS } window_start;

typedef struct product_input {
    window_input in;
    window_start start;
    const float *bias;
    buffer before; /* what outputs hold, also between the places */
} product_input;

static buffer product_run(const gp_kernels *kernels, const product_input *p)
{
    const window_input *in = &p->in;
    buffer c = output_bytes(p->before.bytes, (in->m + in->k) % 4);
    memcpy(c.data, p->before.data, c.bytes);
    kernels->window_product(in->m, in->k, in->a, in->a_row, in->at, WINDOW_UNIT, in->b,
                            p->start == START_BIAS ? p->bias : NULL, c.f, in->own_row, &in->runs,
                            p->start == START_OUTPUT);
    return c;
}

static double product_error(const product_input *p, size_t row, const float *b, double from,
                            float got)
{
    const float *a = p->in.a + row * p->in.a_row;
    double sum = from, size = fabs(from);
    for (size_t q = 0; q < p->in.k; q++) {
        double term = (double)a[q] * (double)b[p->in.at[q] * WINDOW_UNIT];
        sum += term;
        size += fabs(term);
    }
    return fabs((double)got - sum) / ((double)(p->in.k + 1) * size + DBL_MIN);
}

static void product_against_double(const product_input *p, const buffer *c)
{
    const gp_runs *runs = &p->in.runs;
    float *rest = allocated(c->bytes);
    double worst = 0.0;
    memcpy(rest, p->before.data, c->bytes);
    for (size_t row = 0; row < p->in.m; row++)
        for (size_t place = 0; place < runs->inner * runs->outer; place++)
            for (size_t j = 0; j < runs->n; j++) {
                const size_t to = row * p->in.own_row + window_own_at(runs, place) + j;
                const double starts[STARTS] = {0.0, (double)p->bias[row], (double)rest[to]};
                double error = product_error(p, row, p->in.b + window_read_at(runs, place) + j,
                                             starts[p->start], c->f[to]);
                if (!(error <= worst)) worst = error; /* also a NaN */
                rest[to] = c->f[to];
            }
    /* 2^-24 an addition, and one for the product if it is not fused */
    CHECK_NEAR(worst, 0.0, 6e-8);
    CHECK_BYTES_EQUAL(c->bytes, c->data, rest);
    free(rest);
}

/* m rows of n columns at one place, from `row` and `column` on, against the same part of
 * `whole`. */
static void product_part(const gp_kernels *kernels, const product_input *whole, const buffer *want,
                         size_t place, size_t row, size_t m, size_t column, size_t n)
{
    const size_t own_row = whole->in.own_row;
    const size_t to = row * own_row + window_own_at(&whole->in.runs, place) + column;
    product_input p = *whole;
    size_t wrong = 0;
    p.bias += row;
    p.in.m = m;
    p.in.a += row * p.in.a_row;
    p.in.b += window_read_at(&whole->in.runs, place) + column;
    p.in.own_row = n + 1;
    p.in.runs = (gp_runs){.n = n, .inner = 1, .outer = 1};
    p.before = input_bytes(((m - 1) * (n + 1) + n) * sizeof(float), 0);
    for (size_t r = 0; r < m; r++)
        memcpy(p.before.f + r * (n + 1), whole->before.f + to + r * own_row, n * sizeof(float));
    buffer c = product_run(kernels, &p);
    for (size_t r = 0; r < m; r++) {
        wrong += memcmp(c.f + r * (n + 1), want->f + to + r * own_row, n * sizeof(float)) != 0;
        if (r + 1 < m) wrong += bits_of(c.f[r * (n + 1) + n]) != 0xffffffffu;
    }
    CHECK_INT_EQUAL(wrong, 0);
    CLOSE(c);
    CLOSE(p.before);
}

static void product_parts(const gp_kernels *kernels, const product_input *p, const buffer *want,
                          noise *source)
{
    const size_t n = p->in.runs.n, places = p->in.runs.inner * p->in.runs.outer;
    for (size_t m = 1; m <= p->in.m; m += is_quick() ? 3 : 1)
        for (size_t part = 16; part <= n; part += 16)
            product_part(kernels, p, want, noise_below(source, places),
                         noise_below(source, p->in.m - m + 1), m, noise_below(source, n - part + 1),
                         part);
}

/* A chain goes on where it was left: half of the list and then the rest give the bits of all at
 * once. */
static void product_continued(const gp_kernels *kernels, const product_input *p, const buffer *want)
{
    product_input half = *p;
    half.in.k = p->in.k / 2;
    half.before = product_run(kernels, &half);
    half.in.a += half.in.k;
    half.in.at += half.in.k;
    half.in.k = p->in.k - half.in.k;
    half.start = START_OUTPUT;
    buffer c = product_run(kernels, &half);
    CHECK_BYTES_EQUAL(c.bytes, c.data, want->data);
    CLOSE(half.before);
    CLOSE(c);
}

static void product_case(const gp_kernels *kernels, size_t k, gp_runs runs, window_start start,
                         noise *source)
{
    uint32_t at[WINDOW_K];
    float bias[WINDOW_M];
    window_list(source, k, at);
    noise_floats(source, WINDOW_M, bias, 1.0);
    window_input in = {
        .m = WINDOW_M, .k = k, .a_row = k + 2, .at = at, .runs = window_spread(runs)};
    in.own_row = in.runs.outer * in.runs.to_outer + 7;
    buffer a = input_floats(source, (WINDOW_M - 1) * in.a_row + k, 1, 1.0);
    buffer b = input_floats(source, window_read_size(&in), 3, 1.0);
    in.a = a.f;
    in.b = b.f;
    product_input p = {in, start, bias, input_floats(source, window_own_size(&in), 0, 1.0)};
    buffer c = product_run(kernels, &p);
    product_against_double(&p, &c);
    product_parts(kernels, &p, &c, source);
    product_continued(kernels, &p, &c);
    CLOSE(a);
    CLOSE(b);
    CLOSE(c);
    CLOSE(p.before);
}

/* Without a list: one unit after the other. */
static void product_in_order(const gp_kernels *kernels, size_t m, size_t k, noise *source)
{
    const gp_runs runs = {.n = 48, .inner = 1, .outer = 1};
    uint32_t at[WINDOW_K];
    for (size_t q = 0; q < k; q++) at[q] = (uint32_t)q;
    buffer a = input_floats(source, m * k, 2, 1.0),
           b = input_floats(source, k ? (k - 1) * WINDOW_UNIT + 48 : 0, 1, 1.0);
    buffer c = output_floats(m * 48, 1), want = output_floats(m * 48, 3);
    kernels->window_product(m, k, a.f, k, at, WINDOW_UNIT, b.f, NULL, want.f, 48, &runs, 0);
    kernels->window_product(m, k, a.f, k, NULL, WINDOW_UNIT, b.f, NULL, c.f, 48, &runs, 0);
    CHECK_BYTES_EQUAL(c.bytes, c.data, want.data);
    CLOSE(a);
    CLOSE(b);
    CLOSE(c);
    CLOSE(want);
}

/* A NaN reaches its row (from a) or its column (from b), and nothing else. */
static void product_not_finite(const gp_kernels *kernels, noise *source)
{
    enum { M = 7, N = 160, K = 5 };
    const gp_runs runs = {.n = N, .inner = 1, .outer = 1};
    const uint32_t at[K] = {4, 0, 3, 1, 2};
    float a[M * K], b[K * N], c[M * N];
    for (size_t i = 0; i < M; i++) {
        size_t j = (i * 51) % N, wrong = 0;
        noise_floats(source, M * K, a, 1.0);
        noise_floats(source, K * N, b, 1.0);
        a[i * K + 2] = not_finite(i % NOT_FINITE);
        b[3 * N + j] = NAN;
        kernels->window_product(M, K, a, K, at, N, b, NULL, c, N, &runs, 0);
        for (size_t to = 0; to < M * N; to++)
            wrong += isfinite(c[to]) == (to / N == i || to % N == j);
        CHECK_INT_EQUAL(wrong, 0);
    }
}

static void test_window_product(const gp_kernels *kernels)
{
    static const size_t ks[] = {0, 1, 2, 9, WINDOW_K};
    noise source = {16};
    for (size_t i = 0; i < 5; i++) {
        for (size_t runs = 0; runs < WINDOW_RUNS; runs++)
            for (window_start start = START_ZERO; start < STARTS; start++)
                product_case(kernels, ks[i], window_runs[runs], start, &source);
        product_in_order(kernels, 1, ks[i], &source);
        product_in_order(kernels, 7, ks[i], &source);
    }
    product_not_finite(kernels, &source);
}

/* ---- dW = dy x' ------------------------------------------------------------------------------ */

static buffer dots_run(const gp_kernels *kernels, const window_input *in, const buffer *before,
                       size_t out_row, int accumulate)
{
    buffer out = output_bytes(before->bytes, (in->m + in->k) % 4);
    memcpy(out.data, before->data, out.bytes);
    kernels->window_dots(in->m, in->k, in->a, in->own_row, in->at, WINDOW_UNIT, in->b, out.f,
                         out_row, &in->runs, accumulate);
    return out;
}

static double dots_error(const window_input *in, size_t row, size_t q, float got)
{
    const gp_runs *runs = &in->runs;
    double sum = 0.0, size = 0.0;
    for (size_t place = 0; place < runs->inner * runs->outer; place++)
        for (size_t j = 0; j < runs->n; j++) {
            double term = (double)in->a[row * in->own_row + window_own_at(runs, place) + j] *
                          (double)in->b[in->at[q] * WINDOW_UNIT + window_read_at(runs, place) + j];
            sum += term;
            size += fabs(term);
        }
    return fabs((double)got - sum) /
           ((double)(runs->inner * runs->outer * runs->n) * size + DBL_MIN);
}

/* m rows and k entries of the list, from `row` and q on, against the same part of `want`. */
static void dots_part(const gp_kernels *kernels, const window_input *whole, const buffer *want,
                      size_t row, size_t m, size_t q, size_t k)
{
    window_input in = *whole;
    in.m = m;
    in.k = k;
    in.a += row * in.own_row;
    in.at += q;
    buffer nothing = input_bytes(((m - 1) * (k + 1) + k) * sizeof(float), 0);
    buffer out = dots_run(kernels, &in, &nothing, k + 1, 0);
    for (size_t r = 0; r < m; r++) {
        CHECK_BYTES_EQUAL(k * sizeof(float), out.f + r * (k + 1),
                          want->f + (row + r) * (whole->k + 3) + q);
        if (r + 1 < m) CHECK(bits_of(out.f[r * (k + 1) + k]) == 0xffffffffu);
    }
    CLOSE(nothing);
    CLOSE(out);
}

static void dots_case(const gp_kernels *kernels, size_t m, size_t k, gp_runs runs, noise *source)
{
    const size_t out_row = k + 3;
    uint32_t at[WINDOW_K];
    window_list(source, k, at);
    window_input in = {.m = m, .k = k, .at = at, .runs = window_spread(runs)};
    in.own_row = in.runs.outer * in.runs.to_outer + 7;
    buffer a = input_floats(source, window_own_size(&in), 1, 1.0);
    buffer b = input_floats(source, window_read_size(&in), 3, 1.0);
    buffer before = input_floats(source, (m - 1) * out_row + k, 0, 1.0);
    in.a = a.f;
    in.b = b.f;
    buffer out = dots_run(kernels, &in, &before, out_row, 0),
           sum = dots_run(kernels, &in, &before, out_row, 1);
    double worst = 0.0;
    size_t wrong = 0;
    for (size_t i = 0; i < out.bytes / sizeof(float); i++) {
        const int is_between = i % out_row >= k;
        if (!is_between) worst = fmax(worst, dots_error(&in, i / out_row, i % out_row, out.f[i]));
        wrong += bits_of(sum.f[i]) != bits_of(is_between ? before.f[i] : before.f[i] + out.f[i]);
        wrong += isnan(out.f[i]) || (is_between && bits_of(out.f[i]) != bits_of(before.f[i]));
    }
    CHECK_NEAR(worst, 0.0, 6e-8);
    CHECK_INT_EQUAL(wrong, 0);
    for (size_t part = 0; part < (is_quick() ? 3 : 10); part++) {
        const size_t row = noise_below(source, m), q = noise_below(source, k);
        dots_part(kernels, &in, &out, row, 1 + noise_below(source, m - row), q,
                  1 + noise_below(source, k - q));
    }
    CLOSE(a);
    CLOSE(b);
    CLOSE(before);
    CLOSE(out);
    CLOSE(sum);
}

static void test_window_dots(const gp_kernels *kernels)
{
    static const size_t ks[] = {1, 2, 5, 6, 7, 8, 9, 12, 17, 25, WINDOW_K};
    noise source = {17};
    for (size_t m = 1; m <= 9; m++)
        for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++)
            for (size_t runs = 0; runs < WINDOW_RUNS; runs++) {
                if (is_quick() && (m + i + runs) % 4) continue;
                dots_case(kernels, m, ks[i], window_runs[runs], &source);
            }
    float out[2] = {5, 6}, zero[16] = {0};
    const uint32_t at[1] = {0};
    kernels->window_dots(2, 0, zero, 0, at, 1, zero, out, 1,
                         &(gp_runs){.n = 16, .inner = 1, .outer = 1}, 0);
    kernels->window_dots(0, 1, zero, 0, at, 1, zero, out, 1,
                         &(gp_runs){.n = 16, .inner = 1, .outer = 1}, 0);
    CHECK(out[0] == 5 && out[1] == 6);
    kernels->window_dots(2, 1, zero, 0, at, 1, zero, out, 1,
                         &(gp_runs){.n = 16, .inner = 0, .outer = 1}, 0);
    CHECK(out[0] == 0 && out[1] == 0); /* the sum over no place */
}

/* ---- pools ----------------------------------------------------------------------------------- */

enum { POOL_CHANNELS = 3, POOL_PIXELS = 13, POOL_MOST = 11 };

/* Some pixels of the planes of a few channels, and numbers for the n lanes of one place or for n
 * places in a row. */
typedef struct pool_input {
    size_t n, unit, stride, count, x_step, y_step;
    uint32_t at[POOL_PIXELS];
    buffer x, y, dy, dx;
} pool_input;

/* Numbers that are often equal, of both zeros, and now and then not finite. */
static float pool_number(noise *source)
{
    static const float few[] = {-1.5f, -0.0f, 0.0f, 0.25f, 0.25f, 1.0f, 1.0f};
    return noise_below(source, 40) ? few[noise_below(source, 7)]
                                   : not_finite(noise_below(source, NOT_FINITE));
}

static void pool_open(pool_input *p, size_t n, size_t unit, size_t stride, size_t count, int finite,
                      noise *source)
{
    const size_t plane = (POOL_PIXELS - 1) * unit + (n - 1) * stride + 1;
    *p = (pool_input){.n = n,
                      .unit = unit,
                      .stride = stride,
                      .count = count,
                      .x_step = plane + 5,
                      .y_step = n + 3};
    const size_t x_size = (POOL_CHANNELS - 1) * p->x_step + plane;
    const size_t y_size = (POOL_CHANNELS - 1) * p->y_step + n;
    p->x = inout_floats(source, x_size, 1, 1.0);
    p->y = inout_floats(source, y_size, 1, 1.0);
    p->dy = input_floats(source, y_size, 3, 1.0);
    p->dx = inout_floats(source, x_size, 1, 1.0);
    for (size_t i = 0; i < x_size && !finite; i++) p->x.f[i] = pool_number(source);
    for (size_t i = 0; i < POOL_PIXELS; i++) { /* shuffled: what comes first is first in the list */
        const size_t j = noise_below(source, i + 1);
        p->at[i] = p->at[j];
        p->at[j] = (uint32_t)i;
    }
}

static void pool_close(pool_input *p)
{
    CLOSE(p->x);
    CLOSE(p->y);
    CLOSE(p->dy);
    CLOSE(p->dx);
}

/* Entry i of the list, in a channel and a lane, or of the j-th place. */
static size_t pool_pixel(const pool_input *p, size_t channel, size_t j, size_t i)
{
    return channel * p->x_step + p->at[i] * p->unit + j * p->stride;
}

typedef void pool_case(const gp_kernels *kernels, pool_input *p);

static void over_pools(const gp_kernels *kernels, pool_case *run, int finite, noise *source)
{
    for (size_t lanes = 16; lanes <= 64; lanes += 16)
        for (size_t count = 1; count <= POOL_MOST; count++) {
            pool_input p;
            pool_open(&p, lanes, lanes, 1, count, finite, source);
            run(kernels, &p);
            pool_close(&p);
        }
}
static void over_pools_in_a_row(const gp_kernels *kernels, pool_case *run, int finite,
                                noise *source)
{
    for (size_t n = 1; n <= 35; n++)
        for (size_t stride = 1; stride <= 3; stride++) {
            pool_input p;
            pool_open(&p, n, 1, stride, 1 + n % POOL_MOST, finite, source);
            run(kernels, &p);
            pool_close(&p);
        }
}

/* The first of the largest, or the first NaN, to the bit. */
static void pool_max_case(const gp_kernels *kernels, pool_input *p)
{
    float *want = allocated(p->y.bytes);
    memcpy(want, p->y.data, p->y.bytes);
    for (size_t c = 0; c < POOL_CHANNELS; c++)
        for (size_t l = 0; l < p->n; l++) {
            float most = p->x.f[pool_pixel(p, c, l, 0)];
            for (size_t i = 1; i < p->count; i++) {
                const float next = p->x.f[pool_pixel(p, c, l, i)];
                if (!isnan(most) && (isnan(next) || next > most)) most = next;
            }
            want[c * p->y_step + l] = most;
        }
    kernels->pool_max(POOL_CHANNELS, p->n, p->count, p->at, p->unit, p->stride, p->x.f, p->x_step,
                      p->y.f, p->y_step);
    CHECK_BYTES_EQUAL(p->y.bytes, p->y.data, want);
    free(want);
}
static void test_pool_max(const gp_kernels *kernels)
{
    noise source = {18};
    over_pools(kernels, pool_max_case, 0, &source);
    over_pools(kernels, pool_max_case, 1, &source);
    over_pools_in_a_row(kernels, pool_max_case, 0, &source);
}

/* All of dy to the first that equals y, and to none if y is NaN, which equals nothing. */
static void pool_max_back_case(const gp_kernels *kernels, pool_input *p, int accumulate)
{
    float *want = allocated(p->dx.bytes);
    memcpy(want, p->dx.data, p->dx.bytes);
    kernels->pool_max(POOL_CHANNELS, p->n, p->count, p->at, p->unit, p->stride, p->x.f, p->x_step,
                      p->y.f, p->y_step);
    for (size_t c = 0; c < POOL_CHANNELS; c++)
        for (size_t l = 0; l < p->n; l++)
            for (size_t i = 0, given = 0; i < p->count; i++) {
                const size_t at = pool_pixel(p, c, l, i), place = c * p->y_step + l;
                const int here = !given && p->x.f[at] == p->y.f[place];
                if (!accumulate) want[at] = here ? p->dy.f[place] : 0.0f;
                else if (here) want[at] += p->dy.f[place];
                given |= (size_t)here;
            }
    kernels->pool_max_back(POOL_CHANNELS, p->n, p->count, p->at, p->x.f, p->x_step, p->y.f, p->dy.f,
                           p->y_step, p->dx.f, accumulate);
    CHECK_BYTES_EQUAL(p->dx.bytes, p->dx.data, want);
    free(want);
}
static void pool_max_back_writes(const gp_kernels *kernels, pool_input *p)
{
    pool_max_back_case(kernels, p, 0);
}
static void pool_max_back_adds(const gp_kernels *kernels, pool_input *p)
{
    pool_max_back_case(kernels, p, 1);
}
static void test_pool_max_back(const gp_kernels *kernels)
{
    noise source = {19};
    for (int finite = 0; finite < 2; finite++) {
        over_pools(kernels, pool_max_back_writes, finite, &source);
        over_pools(kernels, pool_max_back_adds, finite, &source);
    }
}

/* One after the other in the order of the list, then the factor: the same bits on every instruction
 * set. */
static void pool_mean_case(const gp_kernels *kernels, pool_input *p)
{
    const float factor = 1.0f / (float)p->count;
    float *want = allocated(p->y.bytes);
    double worst = 0.0;
    memcpy(want, p->y.data, p->y.bytes);
    for (size_t c = 0; c < POOL_CHANNELS; c++)
        for (size_t l = 0; l < p->n; l++) {
            float sum = p->x.f[pool_pixel(p, c, l, 0)];
            double exact = (double)sum;
            for (size_t i = 1; i < p->count; i++) {
                sum += p->x.f[pool_pixel(p, c, l, i)];
                exact += (double)p->x.f[pool_pixel(p, c, l, i)];
            }
            want[c * p->y_step + l] = sum * factor;
            worst = fmax(worst, fabs((double)(sum * factor) - exact / (double)p->count));
        }
    kernels->pool_mean(POOL_CHANNELS, p->n, p->count, p->at, p->unit, p->stride, p->x.f, p->x_step,
                       p->y.f, p->y_step, factor);
    CHECK_NEAR(worst, 0.0, 6e-8 * (double)p->count);
    CHECK_BYTES_EQUAL(p->y.bytes, p->y.data, want);
    free(want);
}
static void test_pool_mean(const gp_kernels *kernels)
{
    noise source = {20};
    over_pools(kernels, pool_mean_case, 1, &source);
    over_pools_in_a_row(kernels, pool_mean_case, 1, &source);
}

static void pool_mean_back_case(const gp_kernels *kernels, pool_input *p)
{
    const float factor = 1.0f / (float)p->count;
    float *rest = allocated(p->dx.bytes);
    double worst = 0.0;
    memcpy(rest, p->dx.data, p->dx.bytes);
    kernels->pool_mean_back(POOL_CHANNELS, p->n, p->count, p->at, p->dy.f, p->y_step, p->dx.f,
                            p->x_step, factor);
    for (size_t c = 0; c < POOL_CHANNELS; c++)
        for (size_t l = 0; l < p->n; l++)
            for (size_t i = 0; i < p->count; i++) {
                const size_t at = pool_pixel(p, c, l, i);
                const double share = (double)p->dy.f[c * p->y_step + l] / (double)p->count;
                worst = fmax(worst, fabs((double)p->dx.f[at] - ((double)rest[at] + share)));
                rest[at] = p->dx.f[at];
            }
    CHECK_NEAR(worst, 0.0, 3e-7);
    CHECK_BYTES_EQUAL(p->dx.bytes, p->dx.data, rest); /* only the pixels of the list */
    free(rest);
}
static void test_pool_mean_back(const gp_kernels *kernels)
{
    noise source = {21};
    over_pools(kernels, pool_mean_back_case, 1, &source);
}

#endif
