/* kernels.h - the table of loops that are compiled once per instruction set.
 *
 * Kernels are pure: no allocation, no failure, no globals, no threads. GP_KERNEL_LIST is the one
 * list of them; the table, the C tests and the binding are generated from it. Unless said otherwise
 * pointers need no alignment, outputs are overwritten and must not overlap inputs, n may be 0.
 * Letters: P lanes (a multiple of 16), V the vector width; m x n x k a matrix product.
 */
#ifndef GP_KERNELS_H
#define GP_KERNELS_H

#include "gradprune.h"

/* One optimizer step's numbers, already folded to floats. */
typedef struct gp_update {
    /* gradient factors from clipping by norm; the second is 1 unless one float cannot hold it */
    float scale, scale_again;
    float limit;        /* clip by value; INFINITY when off */
    float lr;           /* the step: lr, for Adam lr / (1 - beta1^t) */
    float l2;           /* coupled weight decay: g += l2 * w */
    float shrink;       /* decoupled weight decay: w *= shrink */
    float beta1, beta2; /* SGD: momentum in beta1, 1 - dampening in gain1 (1 at the first step) */
    float gain1, gain2; /* 1 - beta1, 1 - beta2 */
    float correction2;  /* Adam: 1 / sqrt(1 - beta2^t) */
    float eps;
    int nesterov;
} gp_update;

/* Rows of 8-bit weights, w(r, i) = scale[r] weights[r * stride + i]; past the columns weights are 0
 * up to the stride. */
typedef struct gp_int8_matrix {
    size_t stride; /* a multiple of 64, at most GP_INT8_MOST */
    const int8_t *weights;
    const int32_t *sum; /* of a row's weights */
    const float *scale, *bias;
} gp_int8_matrix;

/* The widest row whose products with bytes fit in 32 bits whatever they are: 255 * 127 * 65536 <
 * 2^31. */
enum { GP_INT8_MOST = 65536 };

/* Places that a filter visits, in floats: runs of n, a multiple of 16, `inner` of them side by
 * side, `outer` times; how far they lie apart in what it reads (from) and in what belongs to its
 * places (to). */
typedef struct gp_runs {
    size_t n, inner, outer;
    size_t from_inner, from_outer, to_inner, to_outer;
} gp_runs;

enum { GP_SLICE = 16 }; /* output rows of a slice of sliced_rows, whatever the instruction set */

/* X(return type, name, parameters) */
#define GP_KERNEL_LIST(X) \
    /* c[m][n] = sum_k a(m,k) b[k][n], or += ; a(m,k) = a[m*a_row + k*a_col]. Rows of b must be \
     * readable up to n rounded up to 16. Every c is one chain of multiply-adds over k. */ \
    X(void, gemm, \
      (size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col, const float *b, \
       size_t b_row, float *c, size_t c_row, int accumulate)) \
    /* Of every piece s: c[s][m][P] = sum over q in 0..k of a[q * a_row + m] b[s][q][P], or +=; \
     * the same chains as of gemm */ \
    X(void, gemm_transposed, \
      (size_t pieces, size_t m, size_t lanes, size_t k, const float *a, size_t a_row, \
       const float *b, size_t b_piece, float *c, size_t c_piece, int accumulate)) \
    /* c[m][n] = sum over pieces s, at least one, and the first `valid` lanes p of a[s][m][p] \
     * b[s][n][p], or += ; one chain in this order; P is at most 64 */ \
    X(void, gemm_over_lanes, \
      (size_t pieces, size_t m, size_t n, size_t lanes, size_t valid, const float *a, \
       size_t a_piece, const float *b, size_t b_piece, float *c, size_t c_row, int accumulate)) \
    /* c[r][P] = sum over k in start[r]..start[r+1] of values[k] b[index[k]][P], or += */ \
    X(void, sparse_product, \
      (size_t rows, size_t lanes, const uint32_t *start, const uint32_t *index, \
       const float *values, const float *b, float *c, int accumulate)) \
    /* The same for rows in fours that share their indices: rows 4i to 4i+3 have as many entries, \
     * in the same places */ \
    X(void, sparse_product_fours, \
      (size_t fours, size_t lanes, const uint32_t *start, const uint32_t *index, \
       const float *values, const float *b, float *c, int accumulate)) \
    /* out[k] = sum over lanes of dy[r][p] x[index[k]][p] for k in start[r]..start[r+1], or += */ \
    X(void, sparse_dot, \
      (size_t rows, size_t lanes, const uint32_t *start, const uint32_t *index, const float *dy, \
       const float *x, float *out, int accumulate)) \
    /* At every place: c[r][n] = bias[r] + sum over q of a[r][q] b[at[q] * unit + n], or +=; bias \
     * may be NULL, and at, for 0, 1, 2 ... */ \
    X(void, window_product, \
      (size_t m, size_t k, const float *a, size_t a_row, const uint32_t *at, size_t unit, \
       const float *b, const float *bias, float *c, size_t c_row, const gp_runs *runs, \
       int accumulate)) \
    /* out[r][q] = sum over all places of a[r][n] b[at[q] * unit + n], or += ; a is what belongs \
     * to the places */ \
    X(void, window_dots, \
      (size_t m, size_t k, const float *a, size_t a_row, const uint32_t *at, size_t unit, \
       const float *b, float *out, size_t out_row, const gp_runs *runs, int accumulate)) \
    /* Of a pool in every channel, the lanes of one place or places in a row: y[j] = the largest \
     * of x[at[i] * unit + j * stride] over i, j < n, count > 0; a NaN is the largest */ \
    X(void, pool_max, \
      (size_t channels, size_t n, size_t count, const uint32_t *at, size_t unit, size_t stride, \
       const float *x, size_t x_step, float *y, size_t y_step)) \
    /* One place: dx[at[i]] = dy for the first x[at[i]][P] that is y[P], 0 for the others; or \
     * += */ \
    X(void, pool_max_back, \
      (size_t channels, size_t lanes, size_t count, const uint32_t *at, const float *x, \
       size_t x_step, const float *y, const float *dy, size_t y_step, float *dx, int accumulate)) \
    /* As pool_max, y[j] = factor * sum of x[at[i] * unit + j * stride] */ \
    X(void, pool_mean, \
      (size_t channels, size_t n, size_t count, const uint32_t *at, size_t unit, size_t stride, \
       const float *x, size_t x_step, float *y, size_t y_step, float factor)) \
    /* dx[at[i]] += factor * dy */ \
    X(void, pool_mean_back, \
      (size_t channels, size_t lanes, size_t count, const uint32_t *at, const float *dy, \
       size_t y_step, float *dx, size_t x_step, float factor)) \
    /* sums[0] += sum of x - shift, sums[1] += sum of its square, in double, over the first \
     * `valid` lanes of every row */ \
    X(void, shifted_sums, \
      (size_t rows, size_t lanes, size_t valid, const float *x, float shift, double sums[2])) \
    /* sums[0] += sum of dy, sums[1] += sum of dy (x - shift), in double */ \
    X(void, normalize_sums, \
      (size_t n, const float *dy, const float *x, float shift, double sums[2])) \
    /* y = (x - shift) scale + offset, and 0 in lanes from valid on; y may be x */ \
    X(void, normalize, \
      (size_t rows, size_t lanes, size_t valid, const float *x, float shift, float scale, \
       float offset, float *y)) \
    /* dx = dy dy_scale + (x - shift) x_scale + offset, and 0 in lanes from valid on; dx may be \
     * dy */ \
    X(void, normalize_backward, \
      (size_t rows, size_t lanes, size_t valid, const float *x, const float *dy, float shift, \
       float dy_scale, float x_scale, float offset, float *dx)) \
    /* Lane by lane over features that lie `stride` apart: mean, and inverse = 1 / sqrt(variance + \
     * eps), in double on the way */ \
    X(void, lane_statistics, \
      (size_t features, size_t stride, size_t lanes, const float *x, float eps, float *mean, \
       float *inverse)) \
    /* y[f] = (x[f] - mean) inverse gamma[f] + beta[f], lane by lane */ \
    X(void, lane_normalize, \
      (size_t features, size_t stride, size_t lanes, const float *x, const float *mean, \
       const float *inverse, const float *gamma, const float *beta, float *y)) \
    /* With h = (x - mean) inverse, g = gamma[f] dy: dx = inverse (g - mean of g - h mean of g h); \
     * dx may be dy */ \
    X(void, lane_normalize_backward, \
      (size_t features, size_t stride, size_t lanes, const float *x, const float *mean, \
       const float *inverse, const float *gamma, const float *dy, float *dx)) \
    /* dbeta[f] = sum over lanes of dy, dgamma[f] = sum of dy (x - mean) inverse; or += */ \
    X(void, lane_normalize_sums, \
      (size_t features, size_t lanes, const float *x, const float *mean, const float *inverse, \
       const float *dy, float *dgamma, float *dbeta, int accumulate)) \
    /* out[k] = in[index[k]]; indices below 2^31 */ \
    X(void, gather, (size_t n, const uint32_t *index, const float *in, float *out)) \
    /* out[index[k]] = in[k]; indices below 2^31 and different */ \
    X(void, scatter, (size_t n, const uint32_t *index, const float *in, float *out)) \
    /* y[s][r] = bias[r] + sum over q in 0..k of w[r][q] x[s][q]; k is a multiple of 16 */ \
    X(void, dense_rows, \
      (size_t samples, size_t rows, size_t k, const float *w, size_t w_row, const float *bias, \
       const float *x, size_t x_row, float *y, size_t y_row)) \
    /* y[row[l]] = bias[l] + sum over j in start[l/16]..start[l/16+1] of values[16j+l%16] \
     * x[index[16j+l%16]] */ \
    X(void, sliced_rows, \
      (size_t slices, const uint32_t *start, const uint32_t *index, const float *values, \
       const uint32_t *row, const float *bias, const float *x, float *y)) \
    /* A sample as bytes, x ~ scale (out - zero), by its largest |x|: zero is 0 if no x is \
     * negative, else 128. out has room for n rounded up to 64. scale is NaN if an x is not \
     * finite, and 0 if all are next to 0 */ \
    X(void, quantize_row, (size_t n, const float *x, uint8_t *out, float *scale, int32_t *zero)) \
    /* The same for P samples in lanes: out[feature/4][P][feature%4], features up to a multiple of \
     * 4; scale[P], zero[P] */ \
    X(void, quantize_lanes, \
      (size_t features, size_t lanes, const float *x, uint8_t *out, float *scale, int32_t *zero)) \
    /* y[s][r] = (sum over q in 0..k of w[r][q] x[s][q] - zero[s] sum[r]) (w.scale[r] scale[s]) + \
     * bias[r] for the rows first..first+rows, the sum exact; k is a multiple of 64 */ \
    X(void, int8_rows, \
      (size_t samples, size_t first, size_t rows, size_t k, const gp_int8_matrix *w, \
       const uint8_t *x, size_t x_row, const float *scale, const int32_t *zero, float *y, \
       size_t y_row)) \
    /* The same in lanes, y[r - first][P], x in fours of features: k of them */ \
    X(void, int8_lanes, \
      (size_t first, size_t rows, size_t lanes, size_t k, const gp_int8_matrix *w, \
       const uint8_t *x, const float *scale, const int32_t *zero, float *y)) \
    /* y = softmax(z) of one sample; y may be z */ \
    X(void, softmax_row, (size_t n, const float *z, float *y)) \
    /* out[r][P] = values[r] */ \
    X(void, broadcast, (size_t rows, size_t lanes, const float *values, float *out)) \
    /* out[feature][lane] = x[lane][offset + feature], 0 for lanes without a sample; returns 1 if \
     * all are finite */ \
    X(int, to_lanes, \
      (size_t samples, size_t features, const float *const *x, size_t offset, size_t lanes, \
       float *out)) \
    /* out[column][row] = in[row][column] */ \
    X(void, transpose, \
      (size_t rows, size_t columns, const float *in, size_t in_row, float *out, size_t out_row)) \
    /* out = in; returns 1 if all are finite */ \
    X(int, copy_finite, (size_t n, const float *in, float *out)) \
    /* out = a * b elementwise; out may be a */ \
    X(void, multiply, (size_t n, const float *a, const float *b, float *out)) \
    /* y = f(z); y may be z */ \
    X(void, activation_forward, \
      (size_t n, const float *z, float *y, gp_activation f, float slope)) \
    /* dz = dy * f'(z), given y = f(z) and, for gelu, silu and hardswish, z; dz may be dy */ \
    X(void, activation_backward, \
      (size_t n, const float *z, const float *y, const float *dy, float *dz, gp_activation f, \
       float slope)) \
    /* Cells: n is a multiple of 16. LSTM: gates before their activation become i, f, g, o; c = f \
     * c_before + i g; h = o tanh(c). c_before: or NULL */ \
    X(void, lstm_forward, \
      (size_t n, float *gate_i, float *gate_f, float *gate_g, float *gate_o, \
       const float *c_before, float *c, float *h)) \
    /* The gates become their gradients before the activation; dc that of c_before. dy, c_before \
     * may be NULL */ \
    X(void, lstm_backward, \
      (size_t n, float *gate_i, float *gate_f, float *gate_g, float *gate_o, \
       const float *c_before, const float *c, const float *dy, const float *dh, float *dc)) \
    /* GRU: gates become r, z, n = tanh(gate_n + r q); h = (1-z) n + z h_before. h_before may be \
     *      NULL */ \
    X(void, gru_forward, \
      (size_t n, float *gate_r, float *gate_z, float *gate_n, const float *q, \
       const float *h_before, float *h)) \
    /* Gates and q become their gradients, those of r and z also in r_too, z_too; dh becomes dh z. \
     * dy, h_before may be NULL */ \
    X(void, gru_backward, \
      (size_t n, float *gate_r, float *gate_z, float *gate_n, float *q, float *r_too, \
       float *z_too, const float *h_before, const float *dy, float *dh)) \
    /* dz = (dh + dy) f'(z) given h = f(z), f tanh or relu; dy may be NULL */ \
    X(void, rnn_backward, \
      (size_t n, const float *h, const float *dy, const float *dh, float *dz, gp_activation f)) \
    /* Pascanu's regularizer between two steps, lane by lane: v = back f'(h), back = W' dz; term = \
     * (|v|/|dz| - 1)^2, x = h + factor v f'(h) so that dz x' is the gradient of W with that of \
     * weight * term. 0 and h where dz vanished and in lanes from valid on. */ \
    X(void, omega_terms, \
      (size_t units, size_t lanes, size_t valid, const float *dz, const float *back, \
       const float *h, gp_activation f, double weight, float *x, float *term)) \
    /* out[i] = 0 or 1/(1-rate) by uniform element first+i of the stream */ \
    X(void, dropout_multipliers, \
      (size_t n, float *out, uint64_t seed, uint64_t stream, uint64_t first, float rate)) \
    /* out[i] = word first + (index ? index[i] : i) of the stream */ \
    X(void, random_words, \
      (size_t n, const uint32_t *index, uint64_t first, uint64_t seed, uint64_t stream, \
       uint32_t *out)) \
    /* y[o][P] = softmax over o, lane by lane; y may be z */ \
    X(void, softmax_forward, (size_t o, size_t lanes, const float *z, float *y)) \
    /* dz = y * (dy - sum_o y dy), lane by lane; dz may be dy */ \
    X(void, softmax_backward, \
      (size_t o, size_t lanes, const float *y, const float *dy, float *dz)) \
    /* For the first `valid` lanes: loss[p] = logsumexp(z) - sum_o q z, dz = (softmax(z) - q) * \
     * factor with q = (1 - smoothing) onehot + smoothing / o, and hit[p] = z[label] is the first \
     * largest. Other lanes: dz = 0. dz may be NULL. */ \
    X(void, cross_entropy, \
      (size_t o, size_t lanes, size_t valid, const float *z, const int64_t *label, float *dz, \
       float *loss, uint32_t *hit, float smoothing, float factor)) \
    /* Adds a teacher's logits t to what cross_entropy left, its factor times 1 - alpha: loss = \
     * (1-alpha) loss + alpha T^2 KL(softmax(t/T) || softmax(z/T)), dz += alpha T (softmax(z/T) - \
     * softmax(t/T)) * factor; lanes from valid on: dz = 0. dz may be NULL. */ \
    X(void, distillation, \
      (size_t o, size_t lanes, size_t valid, const float *z, const float *t, float *dz, \
       float *loss, float temperature, float alpha, float factor)) \
    /* loss[p] = sum_o (z-t)^2, dz = 2 (z-t) * factor; lanes from valid on: dz = 0. dz may be \
     * NULL. */ \
    X(void, mean_squared_error, \
      (size_t o, size_t lanes, size_t valid, const float *z, const float *t, float *dz, \
       float *loss, float factor)) \
    /* loss[p] = sum_o max(z,0) - z t + log(1 + exp(-|z|)), dz = (sigmoid(z) - t) * factor. dz may \
     * be NULL. */ \
    X(void, binary_cross_entropy, \
      (size_t o, size_t lanes, size_t valid, const float *z, const float *t, float *dz, \
       float *loss, float factor)) \
    /* sum of x, in double */ \
    X(double, sum, (size_t n, const float *x)) \
    X(double, sum_abs, (size_t n, const float *x)) \
    /* sum of x^2 in double: finite exactly when every x is */ \
    X(double, sum_squares, (size_t n, const float *x)) \
    /* sum of (|x|/unit)^p in double, unit > 0 */ \
    X(double, sum_powers, (size_t n, const float *x, double p, double unit)) \
    /* largest |x|, NaN if any x is NaN, 0 if n is 0 */ \
    X(float, max_abs, (size_t n, const float *x)) \
    X(void, scale, (size_t n, float *x, float factor)) \
    X(void, clamp, (size_t n, float *x, float limit)) \
    /* sum of min(|x|, limit)^2 in double, x finite */ \
    X(double, sum_squares_within, (size_t n, const float *x, float limit)) \
    /* out = a + b, at most FLT_MAX in magnitude if a and b are finite; out may be a */ \
    X(void, add, (size_t n, const float *a, const float *b, float *out)) \
    /* out = x - amount, at most FLT_MAX in magnitude; out may be x */ \
    X(void, subtract, (size_t n, const float *x, float amount, float *out)) \
    /* out = x + sigma z, at most FLT_MAX in magnitude, with z a standard normal number made of \
     * each word; out may be x */ \
    X(void, add_normal, \
      (size_t n, const float *x, const uint32_t *words, float sigma, float *out)) \
    /* out = c x / (c + |x|), or c tanh(x / c); never larger than x; c in [FLT_MIN, FLT_MAX]; out \
     * may be x */ \
    X(void, inhibit, (size_t n, const float *x, float c, int is_tanh, float *out)) \
    /* out = size sign(x) min(xi, levels), xi an integer next to |x| / unit: the lower one or, \
     * with the probability that leaves no bias, the upper one; without words the nearest. \
     * residual, if not NULL, = x - out. unit > 0, levels < 2^22; out may be x */ \
    X(void, quantize, \
      (size_t n, const float *x, const uint32_t *words, float unit, float size, float levels, \
       float *out, float *residual)) \
    /* out = size sign(x), 0 for 0; residual, if not NULL, = x - out; out may be x */ \
    X(void, scaled_sign, (size_t n, const float *x, float size, float *out, float *residual)) \
    /* 1 if x is +0 wherever mask is 0 */ \
    X(int, is_masked, (size_t n, const uint8_t *mask, const float *x)) \
    /* x = 0 where mask is 0 (also a NaN) */ \
    X(void, mask, (size_t n, const uint8_t *mask, float *x)) \
    /* dw += l1 * sign(w) + 2 * l2 * w */ \
    X(void, penalty, (size_t n, const float *w, float *dw, float l1, float l2)) \
    /* One step on n entries. Where all buffers hold 0, as they do for removed weights, they still \
     * do afterwards. */ \
    X(void, sgd, (size_t n, float *w, const float *g, float *m, const gp_update *u)) \
    X(void, adam, (size_t n, float *w, const float *g, float *m, float *v, const gp_update *u)) \
    X(void, rmsprop, (size_t n, float *w, const float *g, float *v, float *m, const gp_update *u)) \
    /* Where x lies around low <= high. above: a bit a number, x > high, 16 a word; n_above: how \
     * many. near: in order, what is neither that nor below low, so NaN, too; position: its \
     * indices; both need room for 16 more than are found, whose number is returned. n < 2^31 */ \
    X(size_t, bracket, \
      (size_t n, const float *x, float low, float high, uint16_t *above, size_t *n_above, \
       float *near, uint32_t *position)) \
    /* a byte, 0 or 1, a bit; bits as `bracket` writes them */ \
    X(void, expand, (size_t n, const uint16_t *bits, uint8_t *out)) \
    /* mean += (g - mean) * weight; mean_square += (g^2 - mean_square) * weight */ \
    X(void, statistics, (size_t n, const float *g, float *mean, float *mean_square, float weight))

struct gp_kernels {
    const char *isa;
    size_t width; /* floats in a vector */
#define GP_KERNEL_FIELD(type, name, parameters) type(*name) parameters;
    GP_KERNEL_LIST(GP_KERNEL_FIELD)
#undef GP_KERNEL_FIELD
};

extern const gp_kernels gp_kernels__baseline;
extern const gp_kernels gp_kernels__avx2;
extern const gp_kernels gp_kernels__avx512;
extern const gp_kernels gp_kernels__avx512vnni;
extern const gp_kernels gp_kernels__neon;

#endif
