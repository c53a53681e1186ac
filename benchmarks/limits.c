/* limits.c - what the machine can do at most: multiply-adds in registers, reading and updating
 * memory. limits.py compiles it with -march=native; it runs in as many threads as call it. */
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

void limits_update(size_t n, float *x, float factor)
{
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}
