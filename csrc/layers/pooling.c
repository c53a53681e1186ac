/* pooling.c - the largest or the mean number of every window, channel by channel.
 *
 * Of equal numbers the first one, row by row, gets the gradient. Windows of the largest leave out
 * what pads; for the mean it counts as 0.
 *
 * Small windows are gone through pixel by pixel. Large ones are pooled along the rows and then
 * along the columns. Along an axis a table holds what runs of 1, 2, 4, ... positions make, each
 * from two runs of half the length. A window's part of the axis is then two overlapping runs for
 * the largest, and for the mean the runs of its length's binary digits. So the work grows with the
 * logarithm of the window. Rows come first, and of equal numbers the left one stays: what is found
 * is the first of the window row by row, the same bits as pixel by pixel. Sums are added in another
 * order.
 */
#include <string.h>

#include "layers/parts/lengths.h"
#include "layers/parts/window.h"

#define TABLES_PAY 2.0 /* measured: see docs/decisions.md */

static const gp_word words[] = {{"max", GP_POOL_MAX}, {"mean", GP_POOL_MEAN}, {NULL, 0}};

/* the window, kind */
static int pooling_set(gp_layer_spec *spec, const double *numbers)
{
    gp_pooling_settings *own = gp_pooling_in(spec);
    size_t kind;
    if (!gp_read_size(numbers[GP_WINDOW_NUMBERS], &kind) || kind >= GP_POOLS) return 0;
    own->kind = (gp_pooling_kind)kind;
    return gp_window_set(&own->window, numbers);
}

static int pooling_fits(const gp_layer_spec *spec)
{
    const gp_pooling_settings *w = gp_pooling_of(spec);
    if (!gp_window_is_valid(&w->window, spec->in) || w->window.groups != 1 || w->kind >= GP_POOLS)
        return 0;
    for (size_t axis = 0; axis < 2; axis++) /* every window meets the image */
        if (w->window.dilation[axis] != 1 || w->window.before[axis] >= w->window.kernel[axis] ||
            w->window.after[axis] >= w->window.kernel[axis])
            return 0;
    return spec->out ==
           w->window.channels * gp_window_places(&w->window, 0) * gp_window_places(&w->window, 1);
}

static int pooling_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return pooling_fits(spec);
}

/* The most pixels of the image that are in a window. */
static size_t most_pixels(const gp_pooling_settings *w)
{
    return gp_smaller(w->window.kernel[0], w->window.height) *
           gp_smaller(w->window.kernel[1], w->window.width);
}

/* Where the window at one place along an axis begins and ends in the image. */
static void pixels_along(const gp_pooling_settings *w, size_t axis, size_t place, size_t *first,
                         size_t *end)
{
    const size_t size = axis == 0 ? w->window.height : w->window.width;
    const size_t begin = place * w->window.stride[axis], before = w->window.before[axis];
    *first = begin > before ? begin - before : 0;
    *end = gp_smaller(begin + w->window.kernel[axis] - before, size);
}

/* The pixels of the image in the window at one place; returns how many. */
static size_t pixels_of(const gp_pooling_settings *w, size_t row, size_t column, uint32_t *at)
{
    size_t count = 0, first[2], end[2];
    pixels_along(w, 0, row, &first[0], &end[0]);
    pixels_along(w, 1, column, &first[1], &end[1]);
    for (size_t y = first[0]; y < end[0]; y++)
        for (size_t x = first[1]; x < end[1]; x++)
            at[count++] = (uint32_t)(y * w->window.width + x);
    return count;
}

static float factor_of(const gp_pooling_settings *w)
{
    return 1.0f / (float)(w->window.kernel[0] * w->window.kernel[1]);
}

/* ---- large windows, one axis after the other ------------------------------------------------- */

/* Lanes, rows or columns that go through a table at a time. */
enum { BLOCK = GP_ALIGN_FLOATS };

/* Runs of positions along an axis: each place's pixels, or, of the mean's backward, the places that
 * see a pixel. */
typedef struct runs_along {
    const gp_pooling_settings *w;
    size_t axis, from, to, levels;
    int back;
} runs_along;

static void run_of(const runs_along *a, size_t place, size_t *first, size_t *end)
{
    if (!a->back) {
        pixels_along(a->w, a->axis, place, first, end);
        return;
    }
    const size_t at = place + a->w->window.before[a->axis], kernel = a->w->window.kernel[a->axis],
                 stride = a->w->window.stride[a->axis];
    *first = at < kernel ? 0 : (at - kernel) / stride + 1;
    *end = gp_smaller(at / stride + 1, a->from);
}

static size_t log2_of(size_t number)
{
    size_t log = 0;
    while (number >>= 1) log++;
    return log;
}

/* Levels of the table above the numbers themselves. */
static size_t levels_of(const gp_pooling_settings *w, size_t axis)
{
    return log2_of(
        gp_smaller(w->window.kernel[axis], axis == 0 ? w->window.height : w->window.width));
}

static runs_along runs_of(const gp_pooling_settings *w, size_t axis, int back)
{
    const size_t size = axis == 0 ? w->window.height : w->window.width,
                 places = gp_window_places(&w->window, axis);
    if (!back) return (runs_along){w, axis, size, places, levels_of(w, axis), 0};
    const size_t longest =
        gp_smaller((w->window.kernel[axis] - 1) / w->window.stride[axis] + 1, places);
    return (runs_along){w, axis, places, size, log2_of(longest), 1};
}

/* Floats of a table of so many lanes or lines. */
static size_t table_of(const runs_along *a, size_t block)
{
    return (a->levels + 1) * a->from * block;
}

/* Floats of the larger table of the two axes, of `across` lines or lanes, and of `down` ones. */
static size_t larger_table(const gp_pooling_settings *w, int back, size_t across, size_t down)
{
    const runs_along along_rows = runs_of(w, 1, back), along_columns = runs_of(w, 0, back);
    const size_t one = table_of(&along_rows, across), other = table_of(&along_columns, down);
    return one > other ? one : other;
}

/* Numbers of a plane that are pooled along the rows only. */
static size_t halfway_of(const gp_pooling_settings *w)
{
    return w->window.height * gp_window_places(&w->window, 1);
}

/* Numbers that are read, pixel by pixel and by tables, for a plane. */
static double reads_of(const gp_pooling_settings *w, int by_tables)
{
    const double rows = (double)gp_window_places(&w->window, 0),
                 columns = (double)gp_window_places(&w->window, 1);
    const double height = (double)w->window.height, width = (double)w->window.width;
    if (!by_tables) return rows * columns * (double)most_pixels(w);
    return height * (width * (double)(levels_of(w, 1) + 1) + 2 * columns) +
           columns * (height * (double)(levels_of(w, 0) + 1) + 2 * rows);
}

/* Whether tables pay: of small windows, and of those that hardly overlap, each pixel is read few
 * times anyway, and calls for short rows cost more than the reads. By the shape alone, so that bits
 * are the same everywhere.
 */
static int is_large(const gp_pooling_settings *w)
{
    const double places =
        (double)larger_table(w, 0, BLOCK, BLOCK) + (double)larger_table(w, 1, BLOCK, BLOCK);
    /* listed in 32 bits */
    return reads_of(w, 0) > TABLES_PAY * reads_of(w, 1) && places < (double)UINT32_MAX;
}

/* From this place on: places whose runs are as long, and begin `step` further each. */
static size_t alike_along(const runs_along *a, size_t place, size_t first, size_t end, size_t *step)
{
    size_t count = 1, next = first, next_end = end;
    *step = 0;
    for (size_t before = first; place + count < a->to; count++, before = next) {
        run_of(a, place + count, &next, &next_end);
        if (next_end - next != end - first || (count > 1 && next - before != *step)) break;
        *step = next - before;
    }
    if (count == 1) *step = 1;
    return count;
}

/* The entries of a table that make up a run, the first ones first; `level` is the distance between
 * levels. */
static size_t entries_of(gp_pooling_kind pooling, size_t first, size_t end, size_t level,
                         uint32_t *at)
{
    size_t count = 0;
    if (pooling == GP_POOL_MAX) {
        const size_t log = log2_of(end - first), last = end - ((size_t)1 << log);
        at[count++] = (uint32_t)(log * level + first);
        if (last != first) at[count++] = (uint32_t)(log * level + last);
        return count;
    }
    for (size_t log = log2_of(end - first) + 1; log-- > 0;)
        if ((end - first) >> log & 1) {
            at[count++] = (uint32_t)(log * level + first);
            first += (size_t)1 << log;
        }
    return count;
}

/* Either n lanes of one line, or, with n = 1, many lines. */
typedef struct block {
    const gp_kernels *kernels;
    size_t lines, n;
    float *table, *slopes; /* slopes: of the largest, backward */
} block;

/* Positions lie x_step apart, lines follow each other. */
static void fill_table(const runs_along *a, const block *b, const float *x, size_t x_step)
{
    const size_t positions = b->lines * a->from, level = positions * b->n;
    if (x_step == b->n) memcpy(b->table, x, level * sizeof *x);
    else
        for (size_t i = 0; i < positions; i++)
            memcpy(b->table + i * b->n, x + i * x_step, b->n * sizeof *x);
    for (size_t log = 0; log < a->levels; log++) {
        const uint32_t at[2] = {0, (uint32_t)1 << log};
        const size_t count = level - (((size_t)2 << log) - 1) * b->n;
        const float *from = b->table + log * level;
        float *to = b->table + (log + 1) * level;
        if (a->w->kind == GP_POOL_MAX)
            b->kernels->pool_max(1, count, 2, at, b->n, 1, from, 0, to, 0);
        else b->kernels->pool_mean(1, count, 2, at, b->n, 1, from, 0, to, 0, 1.0f);
    }
}

static void pool_along(const runs_along *a, const block *b, const float *x, size_t x_step, float *y,
                       size_t y_step, float factor)
{
    fill_table(a, b, x, x_step);
    const int in_rows = b->n == 1 && y_step == 1; /* else one line */
    const size_t level = b->lines * a->from;
    for (size_t place = 0, places; place < a->to; place += places) {
        uint32_t at[8 * sizeof(size_t)];
        size_t first, end, step;
        run_of(a, place, &first, &end);
        places = alike_along(a, place, first, end, &step);
        float *to = y + place * y_step;
        if (first == end) { /* strides leave the pixel out */
            for (size_t i = 0; i < places; i++) memset(to + i * y_step, 0, b->n * sizeof *y);
            continue;
        }
        const size_t count = entries_of(a->w->kind, first, end, level, at);
        const size_t outer = in_rows ? b->lines : places, inner = in_rows ? places : b->n;
        const size_t stride = in_rows ? step : 1;
        const size_t from_step = in_rows ? a->from : step * b->n,
                     to_step = in_rows ? a->to : y_step;
        if (a->w->kind == GP_POOL_MAX)
            b->kernels->pool_max(outer, inner, count, at, b->n, stride, b->table, from_step, to,
                                 to_step);
        else
            b->kernels->pool_mean(outer, inner, count, at, b->n, stride, b->table, from_step, to,
                                  to_step, factor);
    }
}

/* The largest, backward: to what won in the table, level by level. dx is written; of dy a line lies
 * as y. */
static void max_back_along(const runs_along *a, const block *b, const float *x, float *dx,
                           size_t x_step, const float *y, const float *dy, size_t y_step)
{
    const size_t level = a->from * b->n;
    fill_table(a, b, x, x_step);
    memset(b->slopes, 0, (a->levels + 1) * level * sizeof *dx);
    for (size_t place = 0, places; place < a->to; place += places) {
        uint32_t at[2];
        size_t first, end, step;
        run_of(a, place, &first, &end);
        places = alike_along(a, place, first, end, &step);
        const size_t count = entries_of(GP_POOL_MAX, first, end, a->from, at), to = place * y_step;
        b->kernels->pool_max_back(places, b->n, count, at, b->table, step * b->n, y + to, dy + to,
                                  y_step, b->slopes, 1);
    }
    for (size_t log = a->levels; log-- > 0;) {
        const uint32_t at[2] = {0, (uint32_t)1 << log};
        const size_t above = (log + 1) * level, below = log * level;
        b->kernels->pool_max_back(a->from - ((size_t)2 << log) + 1, b->n, 2, at, b->table + below,
                                  b->n, b->table + above, b->slopes + above, b->n,
                                  b->slopes + below, 1);
    }
    for (size_t i = 0; i < a->from; i++)
        memcpy(dx + i * x_step, b->slopes + i * b->n, b->n * sizeof *dx);
}

/* One plane of one sample (lanes = 0) or of many. */
static void pool_large(const gp_pooling_settings *w, const gp_kernels *kernels, size_t lanes,
                       const float *x, float *halfway, float *table, float *y)
{
    const runs_along across = runs_of(w, 1, 0), down = runs_of(w, 0, 0);
    const size_t columns = across.to, unit = lanes ? lanes : 1;
    block b = {.kernels = kernels, .lines = 1, .n = BLOCK, .table = table};
    for (size_t lane = 0; lane < lanes; lane += BLOCK)
        for (size_t row = 0; row < w->window.height; row++)
            pool_along(&across, &b, x + row * w->window.width * unit + lane, unit,
                       halfway + row * columns * unit + lane, unit, 1.0f);
    b.n = 1;
    for (size_t row = 0; lanes == 0 && row < w->window.height; row += BLOCK) {
        b.lines = gp_smaller(BLOCK, w->window.height - row);
        pool_along(&across, &b, x + row * w->window.width, 1, halfway + row * columns, 1, 1.0f);
    }
    b.lines = 1;
    for (size_t i = 0; i < columns * unit; i += BLOCK) {
        b.n = gp_smaller(BLOCK, columns * unit - i);
        pool_along(&down, &b, halfway + i, columns * unit, y + i, columns * unit, factor_of(w));
    }
}

/* Backward, with what forward found halfway, for the largest. */
static void pool_large_back(const gp_pooling_settings *w, const gp_kernels *kernels, size_t lanes,
                            const float *x, const float *halfway, const float *y, float *table,
                            const float *dy, float *dhalfway, float *dx)
{
    const int is_max = w->kind == GP_POOL_MAX;
    const runs_along across = runs_of(w, 1, !is_max), down = runs_of(w, 0, !is_max);
    const size_t columns = gp_window_places(&w->window, 1), step = columns * lanes;
    const block b = {kernels, 1, BLOCK, table, table + larger_table(w, 0, BLOCK, BLOCK)};
    for (size_t i = 0; i < step; i += BLOCK) {
        if (is_max) max_back_along(&down, &b, halfway + i, dhalfway + i, step, y + i, dy + i, step);
        else pool_along(&down, &b, dy + i, step, dhalfway + i, step, 1.0f);
    }
    for (size_t row = 0; row < w->window.height; row++)
        for (size_t lane = 0; lane < lanes; lane += BLOCK) {
            const size_t from = row * w->window.width * lanes + lane, to = row * step + lane;
            if (is_max)
                max_back_along(&across, &b, x + from, dx + from, lanes, halfway + to, dhalfway + to,
                               lanes);
            else pool_along(&across, &b, dhalfway + to, lanes, dx + from, lanes, factor_of(w));
        }
}

/* ---- training -------------------------------------------------------------------------------- */

/* After the outputs what is pooled along the rows, and for the largest its gradients. */
static size_t pooling_workspace(const gp_layer_spec *spec)
{
    const gp_pooling_settings *w = gp_pooling_of(spec);
    if (!is_large(w)) return spec->out;
    return spec->out + (w->kind == GP_POOL_MAX ? 2 : 1) * w->window.channels * halfway_of(w);
}

/* Floats of a member's list of pixels, or of its tables: for the largest of values and of
 * gradients. */
static size_t own_of(const gp_pooling_settings *w)
{
    if (!is_large(w)) return gp_padded(most_pixels(w));
    const size_t forward = larger_table(w, 0, BLOCK, BLOCK),
                 back = larger_table(w, 1, BLOCK, BLOCK);
    if (w->kind == GP_POOL_MAX) return 2 * forward;
    return forward > back ? forward : back;
}

/* How many members have their own: fewer of large windows, so that lists take about a megabyte, and
 * tables four. */
static size_t members_of(const gp_pooling_settings *w)
{
    const size_t members = ((size_t)1 << (is_large(w) ? 20 : 18)) / own_of(w);
    return members == 0 ? 1 : gp_smaller(members, GP_MAX_THREADS);
}

static size_t pooling_spare(const gp_layer_spec *spec)
{
    return members_of(gp_pooling_of(spec)) * own_of(gp_pooling_of(spec));
}

/* This member's planes, if it has room of its own, and the room. */
static float *share(const gp_layer *layer, const gp_pass *pass, size_t *begin, size_t *end)
{
    const gp_pooling_settings *w = gp_pooling_of(&layer->spec);
    const size_t planes = pass->chunks * w->window.channels,
                 members = gp_smaller(pass->team->size, members_of(w));
    const size_t rank = gp_smaller(pass->team->rank, members);
    *begin = planes * rank / members;
    *end = rank == members ? planes : planes * (rank + 1) / members;
    return rank == members ? NULL : layer->spare + rank * own_of(w);
}

/* From this column on: windows with the same pixels, one place further each. */
static size_t alike(const gp_pooling_settings *w, size_t column)
{
    const size_t begin = column * w->window.stride[1], seen = w->window.before[1] + w->window.width;
    if (begin < w->window.before[1] || begin + w->window.kernel[1] > seen) return 1;
    return gp_smaller((seen - w->window.kernel[1] - begin) / w->window.stride[1] + 1,
                      gp_window_places(&w->window, 1) - column);
}

/* So many channels of one chunk, or with 0 lanes of one sample. */
static void pool_planes(const gp_pooling_settings *w, const gp_kernels *kernels, size_t lanes,
                        size_t channels, uint32_t *at, const float *x, float *y)
{
    const size_t rows = gp_window_places(&w->window, 0), columns = gp_window_places(&w->window, 1);
    const size_t unit = lanes ? lanes : 1, stride = lanes ? 1 : w->window.stride[1];
    const size_t x_step = w->window.height * w->window.width * unit, y_step = rows * columns * unit;
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0, places; column < columns; column += places) {
            places = lanes ? 1 : alike(w, column);
            const size_t count = pixels_of(w, row, column, at), n = places * unit;
            float *to = y + (row * columns + column) * unit;
            if (w->kind == GP_POOL_MAX)
                kernels->pool_max(channels, n, count, at, unit, stride, x, x_step, to, y_step);
            else
                kernels->pool_mean(channels, n, count, at, unit, stride, x, x_step, to, y_step,
                                   factor_of(w));
        }
}

/* Of padded sequences, in this member's share of the features; 0 if there are none. */
static int pool_over_time(const gp_layer *layer, const gp_pass *pass, const float *x,
                          const float *dy, float *dx)
{
    const gp_pooling_settings *w = gp_pooling_of(&layer->spec);
    const size_t P = pass->lanes, in = layer->spec.in * P, out = layer->spec.out * P;
    gp_time_axis axis;
    if (!pass->lengths || !gp_pooling_over_time(w, pass->steps, &axis)) return 0;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * axis.features, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t chunk = item / axis.features, f = item % axis.features;
        const uint32_t *lengths = gp_lengths_of(pass, chunk, pass->steps);
        float *y = layer->work + chunk * out;
        if (dx)
            gp_pool_steps_back(w->kind, &axis, P, lengths, f, f + 1, x + chunk * in, y,
                               dy + chunk * out, dx + chunk * in);
        else gp_pool_steps(w->kind, &axis, P, lengths, f, f + 1, x + chunk * in, y);
    }
    gp_team_wait(pass->team);
    return 1;
}

static const float *pooling_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    if (pool_over_time(layer, pass, x, NULL, NULL)) return layer->work;
    const gp_pooling_settings *w = gp_pooling_of(&layer->spec);
    const size_t P = pass->lanes, x_step = w->window.height * w->window.width * P,
                 y_step = layer->spec.out / w->window.channels * P;
    size_t begin, end;
    float *own = share(layer, pass, &begin, &end);
    if (own && is_large(w)) {
        float *halfway = layer->work + pass->chunks * layer->spec.out * P;
        for (size_t c = begin; c < end; c++)
            pool_large(w, pass->kernels, P, x + c * x_step, halfway + c * halfway_of(w) * P, own,
                       layer->work + c * y_step);
    } else if (own)
        pool_planes(w, pass->kernels, P, end - begin, (uint32_t *)(void *)own, x + begin * x_step,
                    layer->work + begin * y_step);
    gp_team_wait(pass->team);
    return layer->work;
}

static int are_tiles(const gp_pooling_settings *w, size_t axis)
{
    return w->window.stride[axis] == w->window.kernel[axis] &&
           gp_window_places(&w->window, axis) * w->window.kernel[axis] ==
               gp_window_padded(&w->window, axis);
}

/* Of small windows, the planes from `begin` on. */
static void pool_planes_back(const gp_layer *layer, const gp_pass *pass, size_t begin, size_t end,
                             uint32_t *at, const float *dy, float *dx)
{
    const gp_pooling_settings *w = gp_pooling_of(&layer->spec);
    const gp_kernels *kernels = pass->kernels;
    const size_t P = pass->lanes, x_step = w->window.height * w->window.width * P,
                 y_step = layer->spec.out / w->window.channels * P;
    /* windows side by side that leave no pixel out write each of them once */
    const int tiles = w->kind == GP_POOL_MAX && are_tiles(w, 0) && are_tiles(w, 1);
    if (!tiles) memset(dx + begin * x_step, 0, (end - begin) * x_step * sizeof *dx);
    for (size_t place = 0, columns = gp_window_places(&w->window, 1); place * P < y_step; place++) {
        const size_t count = pixels_of(w, place / columns, place % columns, at),
                     first = begin * y_step + place * P;
        if (w->kind == GP_POOL_MAX)
            kernels->pool_max_back(end - begin, P, count, at, layer->input + begin * x_step, x_step,
                                   layer->output + first, dy + first, y_step, dx + begin * x_step,
                                   !tiles);
        else
            kernels->pool_mean_back(end - begin, P, count, at, dy + first, y_step,
                                    dx + begin * x_step, x_step, factor_of(w));
    }
}

static float *pooling_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (!dx || pool_over_time(layer, pass, layer->input, dy, dx)) return dx;
    const gp_pooling_settings *w = gp_pooling_of(&layer->spec);
    const size_t P = pass->lanes, x_step = w->window.height * w->window.width * P,
                 y_step = layer->spec.out / w->window.channels * P;
    size_t begin, end;
    float *own = share(layer, pass, &begin, &end);
    if (own && is_large(w)) {
        const size_t step = halfway_of(w) * P;
        float *halfway = layer->work + pass->chunks * layer->spec.out * P;
        float *dhalfway =
            halfway + (w->kind == GP_POOL_MAX ? pass->chunks * w->window.channels * step : 0);
        for (size_t c = begin; c < end; c++)
            pool_large_back(w, pass->kernels, P, layer->input + c * x_step, halfway + c * step,
                            layer->output + c * y_step, own, dy + c * y_step, dhalfway + c * step,
                            dx + c * x_step);
    } else if (own) pool_planes_back(layer, pass, begin, end, (uint32_t *)(void *)own, dy, dx);
    gp_team_wait(pass->team);
    return dx;
}

/* ---- inference ------------------------------------------------------------------------------- */

static size_t pooling_scratch(const gp_layer_spec *spec, int in_lanes)
{
    const gp_pooling_settings *w = gp_pooling_of(spec);
    if (!is_large(w)) return gp_padded(most_pixels(w));
    const size_t lines = in_lanes ? 1 : gp_smaller(BLOCK, w->window.height);
    const size_t columns = in_lanes ? 1 : gp_smaller(BLOCK, gp_window_places(&w->window, 1));
    return gp_padded(halfway_of(w)) + gp_padded(larger_table(w, 0, lines, columns));
}

static void pooling_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const gp_pooling_settings *w = gp_pooling_of(&packed->spec);
    const size_t x_row = gp_padded(packed->spec.in), y_row = gp_padded(packed->spec.out);
    const size_t unit = chunk->lanes ? chunk->lanes : 1,
                 x_step = w->window.height * w->window.width * unit;
    const size_t y_step = packed->spec.out / w->window.channels * unit;
    gp_time_axis axis;
    const int ends = chunk->lengths && gp_pooling_over_time(w, chunk->steps, &axis);
    for (size_t s = 0; s < (chunk->lanes ? 1 : chunk->samples); s++, x += x_row, y += y_row) {
        if (ends) {
            gp_pool_steps(w->kind, &axis, unit, chunk->lengths + s, 0, axis.features, x, y);
            continue;
        }
        if (!is_large(w)) {
            pool_planes(w, chunk->kernels, chunk->lanes, w->window.channels,
                        (uint32_t *)(void *)chunk->scratch, x, y);
            continue;
        }
        float *table = chunk->scratch + gp_padded(halfway_of(w)) * unit;
        for (size_t c = 0; c < w->window.channels; c++)
            pool_large(w, chunk->kernels, chunk->lanes, x + c * x_step, chunk->scratch, table,
                       y + c * y_step);
    }
}

static gp_status pooling_pack(gp_packed *packed, const gp_arena *arena)
{
    (void)arena;
    const gp_pooling_settings *w = gp_pooling_of(&packed->spec);
    const double reads = (double)w->window.channels * reads_of(w, is_large(w));
    packed->row_ns = 0.2 * reads; /* estimated, as for convolution */
    packed->lane_ns = 0.5 * reads;
    return GP_OK;
}

static const gp_frozen_ops frozen = {
    .pack = pooling_pack, .scratch = pooling_scratch, .infer = pooling_infer};

const gp_layer_ops gp_layer_pooling = {.name = "pooling",
                                       .n_settings = GP_WINDOW_NUMBERS + 1,
                                       .words = words,
                                       .set = pooling_set,
                                       .fits = pooling_fits,
                                       .is_valid = pooling_is_valid,
                                       .workspace = pooling_workspace,
                                       .spare = pooling_spare,
                                       .forward = pooling_forward,
                                       .backward = pooling_backward,
                                       .frozen = &frozen};
