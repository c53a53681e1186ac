/* fold.h - the sums of the lanes of several vectors at once: two vectors are folded into one until
 * every lane is a sum, which takes a third of the shuffles that one vector after the other
 * would. */
#ifndef GP_FOLD_H
#define GP_FOLD_H

#include "kernels/vector.h"

/* Vectors a and b hold items of w partial sums each; the result holds the items of a, then of b, of
 * w/2 each. */
#define GP_AT(i, w, half) ((i) / ((w) / 2) * (w) + (i) % ((w) / 2) + (half))
#define GP_AT4(i, w, half) \
    GP_AT(i, w, half), GP_AT(i + 1, w, half), GP_AT(i + 2, w, half), GP_AT(i + 3, w, half)
#if GP_V == 16
#define GP_LANES_AT(w, half) \
    GP_AT4(0, w, half), GP_AT4(4, w, half), GP_AT4(8, w, half), GP_AT4(12, w, half)
#elif GP_V == 8
#define GP_LANES_AT(w, half) GP_AT4(0, w, half), GP_AT4(4, w, half)
#else
#define GP_LANES_AT(w, half) GP_AT4(0, w, half)
#endif
#define GP_FOLD(a, b, w) (GP_PICK(a, b, GP_LANES_AT(w, 0)) + GP_PICK(a, b, GP_LANES_AT(w, (w) / 2)))

/* Lanes 0..3 are the sums of four vectors. */
#if GP_V == 16
#define GP_FOLD_REST(all) \
    all = GP_FOLD(all, all, 4); \
    all = GP_FOLD(all, all, 2)
#elif GP_V == 8
#define GP_FOLD_REST(all) all = GP_FOLD(all, all, 2)
#else
#define GP_FOLD_REST(all) (void)all
#endif
#define GP_SUM_OF_FOUR(name, vector) \
    static inline vector name(vector a, vector b, vector c, vector d) \
    { \
        vector ab = GP_FOLD(a, b, GP_V), cd = GP_FOLD(c, d, GP_V), \
               all = GP_FOLD(ab, cd, GP_V / 2); \
        GP_FOLD_REST(all); \
        return all; \
    }
GP_SUM_OF_FOUR(sum_of_four, vfloat)
GP_SUM_OF_FOUR(int_sum_of_four, vint)

/* Entries whose sums over lanes are formed together: many share the cost of the folds, few waste
 * little at a row's end. */
enum { GP_GROUP = GP_V < 8 ? GP_V : 8 };

/* Lane u is the sum of vector u, for GP_GROUP vectors. */
#if GP_V == 8
/* Between the halves of a vector numbers move slowly, so that comes last. */
#define GP_IN_HALVES(a, b, i, j, k, l) GP_PICK(a, b, i, j, k, l, (i) + 4, (j) + 4, (k) + 4, (l) + 4)
static inline __attribute__((always_inline)) vfloat sums_of(vfloat *v)
{
#pragma GCC unroll 4
    for (size_t u = 0; u < 4; u++)
        v[u] = GP_IN_HALVES(v[2 * u], v[2 * u + 1], 0, 8, 1, 9) +
               GP_IN_HALVES(v[2 * u], v[2 * u + 1], 2, 10, 3, 11);
#pragma GCC unroll 2
    for (size_t u = 0; u < 2; u++)
        v[u] = GP_IN_HALVES(v[2 * u], v[2 * u + 1], 0, 1, 8, 9) +
               GP_IN_HALVES(v[2 * u], v[2 * u + 1], 2, 3, 10, 11);
    return GP_FOLD(v[0], v[1], GP_V);
}
#else
static inline __attribute__((always_inline)) vfloat sums_of(vfloat *v)
{
#pragma GCC unroll 4
    for (size_t u = 0; u < GP_GROUP / 2; u++) v[u] = GP_FOLD(v[2 * u], v[2 * u + 1], GP_V);
#pragma GCC unroll 2
    for (size_t u = 0; u < GP_GROUP / 4; u++) v[u] = GP_FOLD(v[2 * u], v[2 * u + 1], GP_V / 2);
#if GP_V == 16
    v[0] = GP_FOLD(v[0], v[1], GP_V / 4);
    v[0] = GP_FOLD(v[0], v[0], 2);
#endif
    return v[0];
}
#endif

#endif
