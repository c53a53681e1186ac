/* clip.c - norms that neither overflow nor lose a NaN, and what clipping makes of them. */
#include "clip.h"

#include <math.h>

#include "kernels/kernels.h"

gp_partial_norm gp_norm_start(void) { return (gp_partial_norm){0.0, 0.0}; }

gp_partial_norm gp_norm_measure(const gp_kernels *kernels, size_t n, const float *values,
                                double norm_type)
{
    /* cannot overflow */
    if (norm_type == 2.0) return (gp_partial_norm){1.0, kernels->sum_squares(n, values)};
    double largest = (double)kernels->max_abs(n, values);
    if (!isfinite(largest)) return (gp_partial_norm){1.0, largest};
    if (largest == 0.0) return gp_norm_start();
    if (isinf(norm_type)) return (gp_partial_norm){largest, 1.0};
    return (gp_partial_norm){largest, kernels->sum_powers(n, values, norm_type, largest)};
}

gp_partial_norm gp_norm_join(gp_partial_norm a, gp_partial_norm b, double norm_type)
{
    if (a.unit == 0.0) return b;
    if (b.unit == 0.0) return a;
    if (!isfinite(a.sum) || !isfinite(b.sum)) return (gp_partial_norm){1.0, a.sum + b.sum};
    if (isinf(norm_type)) return a.unit >= b.unit ? a : b;
    if (a.unit == b.unit) return (gp_partial_norm){a.unit, a.sum + b.sum};
    if (a.unit < b.unit)
        return (gp_partial_norm){b.unit, b.sum + a.sum * pow(a.unit / b.unit, norm_type)};
    return (gp_partial_norm){a.unit, a.sum + b.sum * pow(b.unit / a.unit, norm_type)};
}

double gp_norm_finish(gp_partial_norm norm, double norm_type)
{
    if (!isfinite(norm.sum)) return norm.sum;
    if (norm_type == 2.0) return norm.unit * sqrt(norm.sum);
    if (isinf(norm_type)) return norm.unit;
    return norm.unit * pow(norm.sum, 1.0 / norm_type);
}

gp_partial_norm gp_norm_scale(gp_partial_norm norm, double factor)
{
    return (gp_partial_norm){norm.unit * factor, norm.sum};
}

double gp_norm(const gp_kernels *kernels, size_t n, const float *values, double norm_type)
{
    gp_partial_norm total = gp_norm_start();
    for (size_t i = 0; i < n; i += GP_NORM_BLOCK) {
        size_t length = n - i < GP_NORM_BLOCK ? n - i : GP_NORM_BLOCK;
        total =
            gp_norm_join(total, gp_norm_measure(kernels, length, values + i, norm_type), norm_type);
    }
    return gp_norm_finish(total, norm_type);
}

double gp_clip_scale(double norm, double limit)
{
    /* torch's 1e-6 keeps the result at or below the limit in spite of rounding; at or below it
     * already, the bits stay as they are */
    return norm > limit && isfinite(norm) ? limit / (norm + 1e-6) : 1.0;
}

void gp_scale(const gp_kernels *kernels, size_t n, float *values, float factor)
{
    kernels->scale(n, values, factor);
}

void gp_clamp(const gp_kernels *kernels, size_t n, float *values, float limit)
{
    kernels->clamp(n, values, limit);
}
