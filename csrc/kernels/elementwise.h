/* elementwise.h - loops that treat every number alike: copies, activations, dropout, masks. Each
 * runs one expression over whole vectors and once more over the padded rest, so body and tail are
 * the same maths. */
#ifndef GP_ELEMENTWISE_H
#define GP_ELEMENTWISE_H

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/vmath.h"

static int copy_finite(size_t n, const float *in, float *out)
{
    vint finite = (vint)v_splat(0.0f) == 0;
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) {
        vfloat x = v_load(in + i);
        finite &= (x - x) == 0.0f; /* inf - inf and NaN - NaN are NaN */
        v_store(out + i, x);
    }
    if (i < n) {
        vfloat x = v_load_part(in + i, n - i);
        finite &= (x - x) == 0.0f;
        v_store_part(out + i, x, n - i);
    }
    int all = 1;
    for (size_t j = 0; j < GP_V; j++) all &= finite[j] != 0;
    return all;
}

static void multiply(size_t n, const float *a, const float *b, float *out)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) v_store(out + i, v_load(a + i) * v_load(b + i));
    if (i < n) v_store_part(out + i, v_load_part(a + i, n - i) * v_load_part(b + i, n - i), n - i);
}

/* x, at least 0 and at most `most`; NaN stays */
static inline vfloat v_between(vfloat x, float most)
{
    return v_min(v_max(x, v_splat(0.0f)), v_splat(most));
}

static inline __attribute__((always_inline)) vfloat silu_slope(vfloat z)
{
    vfloat s = v_sigmoid(z);
    return s * (z * (1.0f - s) + 1.0f);
}

static inline __attribute__((always_inline)) vfloat activate(gp_activation f, vfloat z, float slope)
{
    switch (f) {
    case GP_RELU: return v_max(z, v_splat(0.0f));
    case GP_LEAKY_RELU: return v_select(z > 0.0f, z, z * slope);
    case GP_TANH: return v_tanh(z);
    case GP_SIGMOID: return v_sigmoid(z);
    case GP_GELU: return z * v_normal_cdf(z);
    case GP_SILU: return v_silu(z);
    case GP_ELU: return v_select(z > 0.0f, z, v_exp_less_one(z) * slope);
    case GP_HARDSWISH: return z * (v_between(z + 3.0f, 6.0f) * (1.0f / 6.0f));
    case GP_RELU6: return v_between(z, 6.0f);
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return z;
}

/* f'(z), from y where that is enough */
static inline __attribute__((always_inline)) vfloat slope_of(gp_activation f, vfloat z, vfloat y,
                                                             float slope)
{
    vfloat one = v_splat(1.0f), zero = v_splat(0.0f);
    switch (f) {
    case GP_RELU: return v_select(y > 0.0f, one, zero);
    case GP_LEAKY_RELU:
        return v_select(y > 0.0f, one, v_splat(slope)); /* slope > 0: y has z's sign */
    case GP_TANH: return one - y * y;
    case GP_SIGMOID: return y * (one - y);
    case GP_GELU: return v_normal_cdf(z) + z * v_normal_pdf(z);
    case GP_SILU: return silu_slope(z);
    case GP_ELU: return v_select(y > 0.0f, one, y + slope); /* slope >= 0: y has z's sign */
    case GP_HARDSWISH:
        return v_select(z < 3.0f, v_select(z > -3.0f, z * (1.0f / 3.0f) + 0.5f, zero), one);
    case GP_RELU6: return v_select((y > 0.0f) & (y < 6.0f), one, zero);
    case GP_IDENTITY:
    case GP_ACTIVATIONS: break;
    }
    return one;
}

static inline __attribute__((always_inline)) void activate_all(gp_activation f, size_t n,
                                                               const float *z, float *y,
                                                               float slope)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) v_store(y + i, activate(f, v_load(z + i), slope));
    if (i < n) v_store_part(y + i, activate(f, v_load_part(z + i, n - i), slope), n - i);
}

static inline __attribute__((always_inline)) void backward_all(gp_activation f, size_t n,
                                                               const float *z, const float *y,
                                                               const float *dy, float *dz,
                                                               float slope)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V)
        v_store(dz + i, v_load(dy + i) * slope_of(f, v_load(z + i), v_load(y + i), slope));
    if (i < n)
        v_store_part(dz + i,
                     v_load_part(dy + i, n - i) *
                         slope_of(f, v_load_part(z + i, n - i), v_load_part(y + i, n - i), slope),
                     n - i);
}

/* The switch is outside of the loop: f is a constant inside, so each activation has a loop of its
 * own. */
static void activation_forward(size_t n, const float *z, float *y, gp_activation f, float slope)
{
    switch (f) {
    case GP_RELU: activate_all(GP_RELU, n, z, y, slope); break;
    case GP_LEAKY_RELU: activate_all(GP_LEAKY_RELU, n, z, y, slope); break;
    case GP_TANH: activate_all(GP_TANH, n, z, y, slope); break;
    case GP_SIGMOID: activate_all(GP_SIGMOID, n, z, y, slope); break;
    case GP_GELU: activate_all(GP_GELU, n, z, y, slope); break;
    case GP_SILU: activate_all(GP_SILU, n, z, y, slope); break;
    case GP_ELU: activate_all(GP_ELU, n, z, y, slope); break;
    case GP_HARDSWISH: activate_all(GP_HARDSWISH, n, z, y, slope); break;
    case GP_RELU6: activate_all(GP_RELU6, n, z, y, slope); break;
    case GP_IDENTITY:
    case GP_ACTIVATIONS: activate_all(GP_IDENTITY, n, z, y, slope); break;
    }
}

static void activation_backward(size_t n, const float *z, const float *y, const float *dy,
                                float *dz, gp_activation f, float slope)
{
    switch (f) {
    case GP_RELU: backward_all(GP_RELU, n, z, y, dy, dz, slope); break;
    case GP_LEAKY_RELU: backward_all(GP_LEAKY_RELU, n, z, y, dy, dz, slope); break;
    case GP_TANH: backward_all(GP_TANH, n, z, y, dy, dz, slope); break;
    case GP_SIGMOID: backward_all(GP_SIGMOID, n, z, y, dy, dz, slope); break;
    case GP_GELU: backward_all(GP_GELU, n, z, y, dy, dz, slope); break;
    case GP_SILU: backward_all(GP_SILU, n, z, y, dy, dz, slope); break;
    case GP_ELU: backward_all(GP_ELU, n, z, y, dy, dz, slope); break;
    case GP_HARDSWISH: backward_all(GP_HARDSWISH, n, z, y, dy, dz, slope); break;
    case GP_RELU6: backward_all(GP_RELU6, n, z, y, dy, dz, slope); break;
    case GP_IDENTITY:
    case GP_ACTIVATIONS: backward_all(GP_IDENTITY, n, z, y, dy, dz, slope); break;
    }
}

/* Philox4x32-10 on GP_PHILOX_LANES counters at once, each in lanes of 64 bits of which the lower
 * half counts. Integers only, so the numbers are those of gp_philox on every instruction set. */
enum { GP_PHILOX_LANES = 16, GP_PHILOX_VECTORS = GP_PHILOX_LANES / GP_H };

static void philox_lanes(uint64_t seed, uint64_t stream, const uint64_t blocks[GP_PHILOX_LANES],
                         uint32_t out[4 * GP_PHILOX_LANES])
{
    vword c0[GP_PHILOX_VECTORS], c1[GP_PHILOX_VECTORS], c2[GP_PHILOX_VECTORS],
        c3[GP_PHILOX_VECTORS];
    for (size_t v = 0; v < GP_PHILOX_VECTORS; v++) {
        memcpy(&c0[v], blocks + v * GP_H, sizeof c0[v]);
        c1[v] = c0[v] >> 32;
        c2[v] = (vword){0} + stream;
        c3[v] = (vword){0} + (stream >> 32);
    }
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        for (size_t v = 0; v < GP_PHILOX_VECTORS; v++) {
            vword p0 = v_multiply_halves(c0[v], 0xD2511F53u),
                  p1 = v_multiply_halves(c2[v], 0xCD9E8D57u);
            c0[v] = (p1 >> 32) ^ c1[v] ^ k0;
            c2[v] = (p0 >> 32) ^ c3[v] ^ k1;
            c1[v] = p1;
            c3[v] = p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (size_t v = 0; v < GP_PHILOX_VECTORS; v++) {
        vword even = (c0[v] & UINT32_MAX) | c1[v] << 32, odd = (c2[v] & UINT32_MAX) | c3[v] << 32;
        for (size_t l = 0; l < GP_H; l++) {
            const uint64_t words[2] = {even[l], odd[l]};
            for (size_t i = 0; i < 4; i++)
                out[4 * (v * GP_H + l) + i] = (uint32_t)(words[i / 2] >> 32 * (i % 2));
        }
    }
}

/* Words from number `first` on, GP_PHILOX_LANES blocks at a time: words[skip + i], i < take, are
 * next. */
typedef struct word_run {
    uint32_t words[4 * GP_PHILOX_LANES];
    uint64_t first;
    size_t skip, take;
} word_run;

static inline void word_run_next(word_run *run, size_t left, uint64_t seed, uint64_t stream)
{
    uint64_t blocks[GP_PHILOX_LANES];
    for (size_t l = 0; l < GP_PHILOX_LANES; l++) blocks[l] = run->first / 4 + l;
    philox_lanes(seed, stream, blocks, run->words);
    run->skip = (size_t)(run->first % 4);
    run->take = 4 * GP_PHILOX_LANES - run->skip;
    if (run->take > left) run->take = left;
    run->first += run->take;
}

static void dropout_multipliers(size_t n, float *out, uint64_t seed, uint64_t stream,
                                uint64_t first, float rate)
{
    const float gain = 1.0f / (1.0f - rate);
    word_run run = {.first = first};
    for (size_t done = 0; done < n; done += run.take) {
        word_run_next(&run, n - done, seed, stream);
        for (size_t i = 0; i < run.take; i++) {
            float u = (float)(run.words[run.skip + i] >> 8) * 0x1p-24f;
            out[done + i] = u >= rate ? gain : 0.0f;
        }
    }
}

static void random_words(size_t n, const uint32_t *index, uint64_t first, uint64_t seed,
                         uint64_t stream, uint32_t *out)
{
    word_run run = {.first = first};
    for (size_t done = 0; !index && done < n; done += run.take) {
        word_run_next(&run, n - done, seed, stream);
        for (size_t i = 0; i < run.take; i++) out[done + i] = run.words[run.skip + i];
    }
    for (size_t done = 0; index && done < n; done += GP_PHILOX_LANES) { /* a block for every word */
        size_t take = n - done < GP_PHILOX_LANES ? n - done : GP_PHILOX_LANES;
        uint64_t blocks[GP_PHILOX_LANES] = {0};
        for (size_t l = 0; l < take; l++) blocks[l] = (first + index[done + l]) / 4;
        philox_lanes(seed, stream, blocks, run.words);
        for (size_t l = 0; l < take; l++)
            out[done + l] = run.words[4 * l + (first + index[done + l]) % 4];
    }
}

static void scale(size_t n, float *x, float factor)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) v_store(x + i, v_load(x + i) * factor);
    if (i < n) v_store_part(x + i, v_load_part(x + i, n - i) * factor, n - i);
}

static inline vfloat clamp_vector(vfloat x, vfloat limit) { return v_max(v_min(x, limit), -limit); }

static void clamp(size_t n, float *x, float limit)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) v_store(x + i, clamp_vector(v_load(x + i), v_splat(limit)));
    if (i < n) v_store_part(x + i, clamp_vector(v_load_part(x + i, n - i), v_splat(limit)), n - i);
}

static int is_masked(size_t n, const uint8_t *kept, const float *x)
{
    vint bad = {0};
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V) bad |= (vint)v_load(x + i) & ~v_kept(kept + i);
    if (i < n) bad |= (vint)v_load_part(x + i, n - i) & ~v_kept_part(kept + i, n - i);
    int32_t any = 0;
    for (size_t j = 0; j < GP_V; j++) any |= bad[j];
    return any == 0;
}

static void mask(size_t n, const uint8_t *kept, float *x)
{
    vfloat zero = v_splat(0.0f);
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V)
        v_store(x + i, v_select(v_kept(kept + i), v_load(x + i), zero));
    if (i < n)
        v_store_part(x + i, v_select(v_kept_part(kept + i, n - i), v_load_part(x + i, n - i), zero),
                     n - i);
}

static inline vfloat penalty_vector(vfloat w, vfloat dw, float l1, float l2)
{
    vfloat zero = v_splat(0.0f);
    vfloat sign = v_select(w > zero, v_splat(1.0f), v_select(w < zero, v_splat(-1.0f), zero));
    return dw + l1 * sign + (2.0f * l2) * w;
}

static void penalty(size_t n, const float *w, float *dw, float l1, float l2)
{
    size_t i = 0;
    for (; i + GP_V <= n; i += GP_V)
        v_store(dw + i, penalty_vector(v_load(w + i), v_load(dw + i), l1, l2));
    if (i < n)
        v_store_part(dw + i,
                     penalty_vector(v_load_part(w + i, n - i), v_load_part(dw + i, n - i), l1, l2),
                     n - i);
}

#endif
