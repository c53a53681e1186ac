/* test_augment.c - images under affine maps, against the definition: every pixel of the image
 * weighs (1 - distance down) times (1 - distance across) in every pixel of the result, where
 * neither is below 0. */
#include "fixture.h"

static double weight(double distance) { return fabs(distance) < 1.0 ? 1.0 - fabs(distance) : 0.0; }

/* What pixel (y, x) of one channel becomes. image is (height + 2, width + 2). */
static double warped(size_t height, size_t width, const float *image, const double *m, size_t y,
                     size_t x)
{
    double row = m[0] * (double)y + m[1] * (double)x + m[2],
           column = m[3] * (double)y + m[4] * (double)x + m[5];
    double sum = 0.0;
    for (size_t r = 0; r < height; r++)
        for (size_t c = 0; c < width; c++)
            sum += weight(row - (double)r) * weight(column - (double)c) *
                   (double)image[(r + 1) * (width + 2) + c + 1];
    return sum;
}

static void clear_borders(size_t n, size_t height, size_t width, float *images)
{
    for (size_t i = 0; i < n * (height + 2) * (width + 2); i++) {
        size_t row = i / (width + 2) % (height + 2), column = i % (width + 2);
        if (row == 0 || row > height || column == 0 || column > width) images[i] = 0.0f;
    }
}

/* Turned about the middle, stretched and moved, more from sample to sample. */
static void draw_map(noise *source, size_t sample, size_t height, size_t width, double *m)
{
    double size = 0.4 * (double)sample, middle_y = 0.5 * (double)height,
           middle_x = 0.5 * (double)width;
    double angle = size * noise_unit(source), stretch = 1.0 + 0.3 * size * noise_unit(source);
    m[0] = m[4] = stretch * cos(angle);
    m[1] = stretch * sin(angle);
    m[3] = -m[1];
    m[2] = middle_y - m[0] * middle_y - m[1] * middle_x + size * (noise_unit(source) - 0.5);
    m[5] = middle_x - m[3] * middle_y - m[4] * middle_x + size * (noise_unit(source) - 0.5);
}

static void warp_case(noise *source, size_t n, size_t channels, size_t height, size_t width)
{
    size_t size = height * width, bordered = (height + 2) * (width + 2);
    buffer images = input_floats(source, n * channels * bordered, 1, 1.0);
    buffer maps = input_bytes(n * 6 * sizeof(double), 0),
           out = output_floats(n * channels * size, n % 4);
    clear_borders(n * channels, height, width, images.f);
    double *m = maps.data;
    for (size_t i = 0; i < n; i++) draw_map(source, i, height, width, m + 6 * i);
    gp_images_warp(n, channels, height, width, images.f, m, out.f);
    for (size_t i = 0; i < n * channels; i++)
        for (size_t at = 0; at < size; at++)
            CHECK_NEAR(out.f[i * size + at],
                       warped(height, width, images.f + i * bordered, m + i / channels * 6,
                              at / width, at % width),
                       1e-5 * (1.0 + (double)(height + width) / 20.0));
    CLOSE(images);
    CLOSE(maps);
    CLOSE(out);
}

static void test_sizes(void)
{
    static const size_t sizes[][2] = {{0, 0}, {1, 1},  {1, 9},  {9, 1},  {2, 2},
                                      {5, 7}, {3, 63}, {2, 64}, {2, 65}, {1, 130}};
    noise source = {1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t n = 0; n < 4; n++) warp_case(&source, n, 1 + i % 3, sizes[i][0], sizes[i][1]);
    warp_case(&source, 5, 1, 28, 28);
}

/* The identity gives the same bits, even of numbers whose differences overflow. */
static void test_identity(void)
{
    const double identity[6] = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0};
    float image[4 * 5] = {0}, expected[6] = {FLT_MAX, -FLT_MAX, FLT_MIN, -1.0f, 0.1f, -FLT_MAX};
    for (size_t at = 0; at < 6; at++) image[(at / 3 + 1) * 5 + at % 3 + 1] = expected[at];
    buffer out = output_floats(6, 0);
    gp_images_warp(1, 1, 2, 3, image, identity, out.f);
    CHECK_BYTES_EQUAL(sizeof expected, out.f, expected);
    CLOSE(out);
}

/* Whatever a map says, only the image and its border are read; what lies beyond is 0. */
static void test_beyond(void)
{
    const double far[] = {-1.0, -1.5, 2.0, 3.0, 1e9, -1e9, 1e30, -1e30, (double)NAN};
    noise source = {2};
    buffer images = input_floats(&source, 4 * 5, 0, 1.0);
    clear_borders(1, 2, 3, images.f);
    for (size_t i = 0; i < sizeof far / sizeof *far; i++)
        for (size_t place = 2; place < 6; place += 3) {
            double m[6] = {0.0, 0.0, 0.5, 0.0, 0.0, 0.5};
            const float zeros[6] = {0};
            buffer out = output_floats(6, i % 4);
            m[place] = far[i] == 2.0 && place == 5 ? 3.0 : far[i]; /* three columns */
            gp_images_warp(1, 1, 2, 3, images.f, m, out.f);
            CHECK_FLOATS_NEAR(6, out.f, zeros, 0.0, 0.0);
            CLOSE(out);
        }
    CLOSE(images);
}

int main(void)
{
    test_sizes();
    test_identity();
    test_beyond();
    return check_summary();
}
