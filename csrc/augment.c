/* augment.c - images under affine maps, which training's augmentation turns
 * (gradprune/data/augmentation.py).
 *
 * Every pixel of the result says which place of the image it comes from, and is interpolated
 * between the four pixels around that place. Images have a border of zeros: places beyond are moved
 * onto it, so that no pixel needs a branch and places and weights of a block of pixels are computed
 * side by side. The maps are drawn above; moves by whole pixels and mirroring are slices there and
 * do not come here.
 */
#include "gradprune.h"

enum { BLOCK = 64 }; /* pixels of a row at a time */

/* Where pixels of a row come from: index of the first of four pixels, and what the lower and the
 * right ones weigh. */
typedef struct places {
    int32_t first[BLOCK];
    float down[BLOCK], right[BLOCK];
} places;

/* In [0, most]; 0 for NaN. */
static inline float clamped(float x, float most)
{
    x = x > 0.0f ? x : 0.0f;
    return x < most ? x : most;
}

static inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* Weights before values: beside a weight of 0 the other value stays as it is, however large they
 * are. */
static inline float between(float a, float b, float weight)
{
    return (1.0f - weight) * a + weight * b;
}

/* n places from (row, column) on, both counted from the border, a step for each pixel. */
static void find(size_t n, int32_t height, int32_t width, float row, float column, float row_step,
                 float column_step, places *out)
{
    for (size_t x = 0; x < n; x++) {
        float down = clamped(row + row_step * (float)(int32_t)x, (float)height + 1.0f);
        float right = clamped(column + column_step * (float)(int32_t)x, (float)width + 1.0f);
        int32_t top = smaller((int32_t)down, height), left = smaller((int32_t)right, width);
        out->down[x] = down - (float)top;
        out->right[x] = right - (float)left;
        out->first[x] = top * (width + 2) + left;
    }
}

static void interpolate(size_t n, size_t width, const places *from, const float *image, float *out)
{
    const float *below = image + width + 2;
    for (size_t x = 0; x < n; x++) {
        size_t at = (size_t)from->first[x];
        float upper = between(image[at], image[at + 1], from->right[x]);
        float lower = between(below[at], below[at + 1], from->right[x]);
        out[x] = between(upper, lower, from->down[x]);
    }
}

void gp_images_warp(size_t n, size_t channels, size_t height, size_t width, const float *images,
                    const double *maps, float *out)
{
    size_t bordered = (height + 2) * (width + 2), size = height * width;
    places from;
    for (size_t i = 0; i < n; i++, images += channels * bordered, maps += 6, out += channels * size)
        for (size_t y = 0; y < height; y++)
            for (size_t x = 0; x < width; x += BLOCK) {
                size_t pixels = width - x < BLOCK ? width - x : BLOCK;
                double row = maps[0] * (double)y + maps[1] * (double)x + maps[2];
                double column = maps[3] * (double)y + maps[4] * (double)x + maps[5];
                find(pixels, (int32_t)height, (int32_t)width, (float)(row + 1.0),
                     (float)(column + 1.0), (float)maps[1], (float)maps[4], &from);
                for (size_t k = 0; k < channels; k++)
                    interpolate(pixels, width, &from, images + k * bordered,
                                out + k * size + y * width + x);
            }
}
