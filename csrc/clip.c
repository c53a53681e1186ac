/* clip.c - norms that neither overflow nor lose a NaN, and what clipping makes of them. */
#include "clip.h"

#include <math.h>
#include <string.h>

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

int gp_clip_needs_work(const gp_clip *clip)
{
    return clip->next || clip->keep || clip->kind > GP_INHIBIT_NORM_TANH;
}

/* ---- limits that follow the norms ------------------------------------------------------------ */

/* How many of the sorted numbers are below x. */
static size_t count_below(size_t n, const double *sorted, double x)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sorted[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The percentile with NumPy's linear interpolation, operation by operation. */
static double percentile(size_t n, const double *sorted, double percent)
{
    double place = (double)(n - 1) * (percent / 100.0), whole = floor(place), share = place - whole;
    size_t low = (size_t)whole, high = low + 1 < n ? low + 1 : n - 1;
    double step = sorted[high] - sorted[low];
    return share < 0.5 ? sorted[low] + step * share : sorted[high] - step * (1.0 - share);
}

/* AutoClip, Seetharaman et al. 2020 */
static double auto_limit(const gp_clip *clip, double norm)
{
    double *state = clip->state, *ring = state + GP_STATE_HEAD;
    const size_t capacity = (clip->n_state - GP_STATE_HEAD) / 2;
    size_t count = (size_t)state[GP_STATE_COUNT], next = (size_t)state[GP_STATE_NEXT];
    double *sorted = ring + capacity;
    if (count == capacity) {
        count--;
        size_t at = count_below(capacity, sorted, ring[next]);
        memmove(sorted + at, sorted + at + 1, (count - at) * sizeof *sorted);
    }
    size_t at = count_below(count, sorted, norm);
    memmove(sorted + at + 1, sorted + at, (count - at) * sizeof *sorted);
    sorted[at] = ring[next] = norm;
    state[GP_STATE_COUNT] = (double)(count + 1);
    state[GP_STATE_NEXT] = (double)((next + 1) % capacity);
    return percentile(count + 1, sorted, clip->limit);
}

/* ZClip, Kumar et al. 2025, reciprocal */
static double z_limit(const gp_clip *clip, double norm)
{
    const double alpha = clip->more[0], warmup = clip->more[1];
    double *count = clip->state + GP_STATE_COUNT, *mean = clip->state + GP_STATE_MEAN;
    double *variance = clip->state + GP_STATE_VARIANCE, limit = INFINITY;
    if (*count < warmup) {
        double deviation = norm - *mean;
        *count += 1.0;
        *mean += deviation / *count;
        *variance += deviation * (norm - *mean);
        if (*count >= warmup) *variance /= *count;
        return INFINITY;
    }
    double sigma = sqrt(*variance), z = (norm - *mean) / (sigma + 1e-6);
    if (z > clip->limit && *mean > 0.0) limit = *mean + clip->limit * sigma * (clip->limit / z);
    double seen = limit < norm ? limit : norm;
    *mean = alpha * *mean + (1.0 - alpha) * seen;
    *variance = alpha * *variance + (1.0 - alpha) * (seen - *mean) * (seen - *mean);
    return limit;
}

double gp_clip_adapt(const gp_clip *clip, double norm)
{
    if (clip->state[GP_STATE_VERSION] != clip->version) {
        memset(clip->state, 0, clip->n_state * sizeof *clip->state);
        clip->state[GP_STATE_VERSION] = clip->version;
    }
    double limit = clip->kind == GP_CLIP_AUTO ? auto_limit(clip, norm) : z_limit(clip, norm);
    return limit > 0.0 ? limit : INFINITY; /* a limit of 0 would end the training */
}

double gp_clip_factor(const gp_clip *clip, double norm)
{
    const double c = clip->limit;
    switch (clip->kind) {
    case GP_CLIP_AUTO:
    case GP_CLIP_Z: return gp_clip_scale(norm, gp_clip_adapt(clip, norm));
    case GP_INHIBIT_NORM: return norm > c ? (c / norm) / (1.0 + c / norm) : 1.0 / (1.0 + norm / c);
    case GP_INHIBIT_NORM_TANH: return norm > 0.0 ? fmin(c * tanh(norm / c) / norm, 1.0) : 1.0;
    /* a small p overflowed a double */
    default: return norm < INFINITY ? gp_clip_scale(norm, c) : 0.0;
    }
}

void gp_scale(const gp_kernels *kernels, size_t n, float *values, float factor)
{
    kernels->scale(n, values, factor);
}

void gp_clamp(const gp_kernels *kernels, size_t n, float *values, float limit)
{
    kernels->clamp(n, values, limit);
}
