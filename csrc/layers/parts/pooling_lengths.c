/* pooling_lengths.c - the largest or the mean number of each feature over the steps of a sequence
 * that is padded behind. Of equal numbers the first one gets the gradient. Lanes without a sample
 * give 0.
 */
#include "layers/parts/window.h"

int gp_pooling_over_time(const gp_pooling_settings *w, size_t steps, gp_time_axis *axis)
{
    const gp_window *own = &w->window;
    if (own->channels == 1 && own->kernel[1] == 1 && own->height == steps &&
        own->kernel[0] == steps) {
        *axis = (gp_time_axis){steps, own->width, own->width, 1};
        return 1;
    }
    if (own->height != 1 || own->width != steps || own->kernel[1] != steps) return 0;
    *axis = (gp_time_axis){steps, own->channels, 1, steps};
    return 1;
}

void gp_pool_steps(gp_pooling_kind kind, const gp_time_axis *axis, size_t P,
                   const uint32_t *lengths, size_t begin, size_t end, const float *x, float *y)
{
    const size_t step = axis->step * P;
    for (size_t f = begin; f < end; f++)
        for (size_t p = 0; p < P; p++) {
            const float *from = x + f * axis->feature * P + p;
            float found = lengths[p] > 0 ? from[0] : 0.0f;
            for (size_t t = 1; t < lengths[p]; t++) {
                if (kind == GP_POOL_MEAN) found += from[t * step];
                else if (from[t * step] > found) found = from[t * step];
            }
            if (kind == GP_POOL_MEAN && lengths[p] > 0) found *= 1.0f / (float)lengths[p];
            y[f * P + p] = found;
        }
}

void gp_pool_steps_back(gp_pooling_kind kind, const gp_time_axis *axis, size_t P,
                        const uint32_t *lengths, size_t begin, size_t end, const float *x,
                        const float *y, const float *dy, float *dx)
{
    const size_t step = axis->step * P;
    for (size_t f = begin; f < end; f++)
        for (size_t p = 0; p < P; p++) {
            const size_t first = f * axis->feature * P + p, at = f * P + p;
            int is_given = 0; /* the largest has its gradient */
            for (size_t t = 0; t < axis->steps; t++) {
                float *to = dx + first + t * step;
                *to = 0.0f;
                if (t >= lengths[p]) continue;
                if (kind == GP_POOL_MEAN) *to = dy[at] * (1.0f / (float)lengths[p]);
                else if (!is_given && x[first + t * step] == y[at]) {
                    *to = dy[at];
                    is_given = 1;
                }
            }
        }
}
