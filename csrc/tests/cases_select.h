/* cases_select.h - bits around a bracket, what is near it, and bits made bytes. */
#ifndef GP_CASES_SELECT_H
#define GP_CASES_SELECT_H

#include "cases.h"

static int bit_of(const uint16_t *bits, size_t i) { return bits[i / 16] >> i % 16 & 1; }

/* Scores of few values, so that many equal the bracket's borders. */
static void bracket_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    static const float values[] = {-INFINITY, -2.0f, -1.0f, -0.0f,    0.0f, 1e-45f,
                                   0.5f,      1.0f,  2.0f,  INFINITY, NAN,  -NAN};
    static const float brackets[][2] = {{-1.0f, 1.0f},         {0.0f, 0.0f},
                                        {-INFINITY, INFINITY}, {INFINITY, INFINITY},
                                        {-INFINITY, -2.0f},    {0.6f, 0.7f}};
    for (size_t which = 0; which < sizeof brackets / sizeof brackets[0]; which++) {
        const float low = brackets[which][0], high = brackets[which][1];
        buffer x = input_bytes(n * sizeof(float), shift),
               above = output_bytes((n + 15) / 16 * sizeof(uint16_t), 0);
        buffer near = output_floats(n + 16, 0),
               position = output_bytes((n + 16) * sizeof(uint32_t), 0);
        for (size_t i = 0; i < n; i++)
            x.f[i] = values[noise_below(source, sizeof values / sizeof values[0])];
        size_t total, want_near = 0, want_above = 0;
        size_t found =
            kernels->bracket(n, x.f, low, high, above.data, &total, near.f, position.data);
        for (size_t i = 0; i < (n + 15) / 16 * 16; i++) {
            int over = i < n && x.f[i] > high;
            CHECK(bit_of(above.data, i) == over); /* past the end: 0 */
            want_above += (size_t)over;
            if (i >= n || over || x.f[i] < low) continue;
            CHECK(want_near < found && bits_of(near.f[want_near]) == bits_of(x.f[i]));
            CHECK(want_near < found && ((uint32_t *)position.data)[want_near] == i);
            want_near++;
        }
        CHECK_INT_EQUAL(found, want_near);
        CHECK_INT_EQUAL(total, want_above);
        CLOSE(x);
        CLOSE(above);
        CLOSE(near);
        CLOSE(position);
    }
}
static void test_bracket(const gp_kernels *kernels) { over_sizes(kernels, bracket_case); }

static void expand_case(const gp_kernels *kernels, size_t n, size_t shift, noise *source)
{
    buffer bits = input_bytes((n + 15) / 16 * sizeof(uint16_t), 0), out = output_bytes(n, shift);
    uint16_t *words = bits.data;
    for (size_t i = 0; i < (n + 15) / 16; i++) words[i] = (uint16_t)noise_word(source);
    kernels->expand(n, words, out.data);
    for (size_t i = 0; i < n; i++) CHECK_INT_EQUAL(((uint8_t *)out.data)[i], bit_of(words, i));
    CLOSE(bits);
    CLOSE(out);
}
static void test_expand(const gp_kernels *kernels) { over_sizes(kernels, expand_case); }

#endif
