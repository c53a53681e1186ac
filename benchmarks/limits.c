/* limits.c - what the machine can do at most: multiply-adds in registers, reading and updating
 * memory, reading rows that a list names. limits.py compiles it with -march=native; it runs in as
 * many threads as call it. */
#include <stddef.h>

#if defined(__AVX512F__)
enum { V = 16, CHAINS = 24 };
#elif defined(__AVX__)
enum { V = 8, CHAINS = 12 };
#else
enum { V = 4, CHAINS = 12 };
#endif
typedef float vector __attribute__((vector_size(4 * V), aligned(4), may_alias));

size_t limits_flops_a_round(void) { return 2 * V * CHAINS; }

/* Independent chains of x = x a + b, enough of them to hide the latency. */
float limits_multiply_add(size_t rounds, float a, float b)
{
    vector x[CHAINS];
    const vector va = a - (vector){0}, vb = b - (vector){0};
    for (size_t i = 0; i < CHAINS; i++) x[i] = (float)i - (vector){0};
    for (size_t n = 0; n < rounds; n++)
#pragma GCC unroll 24
        for (size_t i = 0; i < CHAINS; i++) x[i] = x[i] * va + vb;
    vector sum = x[0];
    for (size_t i = 1; i < CHAINS; i++) sum += x[i];
    return sum[0];
}

float limits_read(size_t n, const float *x)
{
    vector sum[8] = {0};
    size_t i = 0;
    for (; i + 8 * V <= n; i += 8 * V)
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++) sum[j] += *(const vector *)(x + i + j * V);
    for (size_t j = 1; j < 8; j++) sum[0] += sum[j];
    return sum[0][0];
}

/* Reads the rows of `lanes` floats that a list names: a product with live weights does at least
 * that. Two rows have sums of their own, which hides the latency of the additions. */
float limits_rows(size_t n, const unsigned *index, size_t lanes, const float *x)
{
    vector sum[2][4] = {{{0}}};
    for (size_t p = 0; p < lanes; p += 4 * V)
        for (size_t k = 0; k + 2 <= n; k += 2)
#pragma GCC unroll 2
            for (size_t u = 0; u < 2; u++) {
                const float *row = x + index[k + u] * lanes + p;
#pragma GCC unroll 4
                for (size_t j = 0; j < 4; j++) sum[u][j] += *(const vector *)(row + j * V);
            }
    for (size_t j = 0; j < 4; j++) sum[0][0] += sum[0][j] + sum[1][j];
    return sum[0][0][0];
}

void limits_update(size_t n, float *x, float factor)
{
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}
