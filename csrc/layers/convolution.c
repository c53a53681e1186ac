/* convolution.c - y[o] = b[o] + sum over c, u, v of W[o][c][u][v] x[c] shifted by (u, v), images as
 * planes of lanes.
 *
 *   forward   y (O,places,P): W (O,K) times what the filters read, K = channels of a group *
 *             kernel; a run of places is
 *             one row of lanes, so this is a matrix product whose rows of x lie at listed distances
 *             (kernels/window.h)
 *   backward  dx: where filters move by one, forward again, dy with the kernel turned over; else
 *             for every entry (u,v) of
 *             the kernel W[.][.][u][v]' dy, added to x's places shifted by (u, v)
 *             dW[o][k] = sum over places of dy[o] x[k shifted]
 *
 * Live weights alone are shorter lists for the same kernels, an output row (dx: a channel or column
 * of W) at a time. Padding is a copy with zeros around each plane; it later takes dy with such
 * zeros, or the gradient of padded planes.
 */
#include <string.h>

#include "layers/parts/window.h"

/* FILTERS: of a share of forward and of sliding back, a multiple of the tile. CHANNELS: of a share
 * of dx tap by tap. AT_ONCE: bytes of dy that all channels of x meet before the next ones, to stay
 * in the L2 cache. */
enum { FILTERS = 24, CHANNELS = 12, AT_ONCE = 1 << 19 };
/* dx slides back up to so many times the multiply-adds that adding up tap by tap would take, which
 * reads and writes dx once a tap. */
#define MOST_IN_VAIN 1.5

/* The sizes of a layer, and what is kept: after the outputs the padded input, and besides (spare)
 * the lists of distances and, as large as W, either W turned for dx or the distances of its live
 * weights. */
typedef struct view {
    const gp_window *w;
    gp_window back; /* that makes dx from dy, if `slides_back` */
    int slides_back;
    /* C, O: channels and filters of a group; taps: entries of the kernel */
    size_t P, groups, C, O, K, taps;
    size_t plane, rows, columns, places;
    uint32_t *at, *back_at, *live_at;
    float *turned, *padded;
    int pads;
} view;

static const gp_window *window_of(const gp_layer_spec *spec)
{
    return &gp_convolution_of(spec)->window;
}

/* the window, groups */
static int convolution_set(gp_layer_spec *spec, const double *numbers)
{
    gp_window *w = &gp_convolution_in(spec)->window;
    return gp_window_set(w, numbers) && gp_read_size(numbers[GP_WINDOW_NUMBERS], &w->groups);
}

static size_t filters_of(const gp_layer_spec *spec)
{
    return spec->out /
           (gp_window_places(window_of(spec), 0) * gp_window_places(window_of(spec), 1));
}
static size_t taps_of(const gp_window *w) { return w->kernel[0] * w->kernel[1]; }
static size_t length_of(const gp_window *w) { return w->channels / w->groups * taps_of(w); }

static int convolution_fits(const gp_layer_spec *spec)
{
    const gp_window *w = window_of(spec);
    if (!gp_window_is_valid(w, spec->in)) return 0;
    const size_t filters = filters_of(spec);
    return spec->out == filters * gp_window_places(w, 0) * gp_window_places(w, 1) && filters > 0 &&
           filters % w->groups == 0 && length_of(w) <= UINT32_MAX / filters;
}

static int convolution_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    if (!convolution_fits(spec)) return 0;
    const size_t filters = filters_of(spec), weights = filters * length_of(window_of(spec));
    if (weights > n_prunable || spec->weight > n_prunable - weights) return 0;
    return spec->bias == GP_NONE ||
           (spec->bias >= n_prunable && filters <= n_params && spec->bias <= n_params - filters);
}

static size_t convolution_weights(const gp_layer_spec *spec, gp_matrix weights[GP_MATRICES])
{
    const gp_window *w = window_of(spec);
    /* asked before anybody has looked at the layer */
    if (!gp_window_is_valid(w, spec->in)) return 0;
    weights[0] = (gp_matrix){.offset = spec->weight,
                             .rows = filters_of(spec),
                             .columns = length_of(w),
                             .uses = gp_window_places(w, 0) * gp_window_places(w, 1)};
    return 1;
}

static size_t convolution_vectors(const gp_layer_spec *spec, gp_vector vectors[GP_VECTORS])
{
    if (spec->bias == GP_NONE) return 0;
    vectors[0] = (gp_vector){.offset = spec->bias, .length = filters_of(spec), .bias = 1};
    return 1;
}

/* dx as a convolution of dy: where the filter moves by one, and it is worth while: every place of
 * dx meets the whole kernel, those of zeros around dy included. */
static int find_way_back(const gp_layer_spec *spec, gp_window *back)
{
    const gp_window *w = window_of(spec);
    *back = *w;
    back->channels = filters_of(spec);
    back->height = gp_window_places(w, 0);
    back->width = gp_window_places(w, 1);
    for (size_t axis = 0; axis < 2; axis++) {
        const size_t reach = w->dilation[axis] * (w->kernel[axis] - 1);
        if (w->stride[axis] != 1 || w->before[axis] > reach || w->after[axis] > reach) return 0;
        back->before[axis] = reach - w->before[axis];
        back->after[axis] = reach - w->after[axis];
    }
    return (double)(w->height * w->width) <= MOST_IN_VAIN * (double)(back->height * back->width) &&
           gp_window_is_valid(back, back->channels * back->height * back->width);
}

static size_t padded_size(const gp_window *w)
{
    return gp_window_pads(w) ? w->channels * gp_window_plane(w) : 0;
}

static size_t convolution_workspace(const gp_layer_spec *spec)
{
    gp_window back;
    const size_t padded = padded_size(window_of(spec));
    const size_t turned = find_way_back(spec, &back) ? padded_size(&back) : 0;
    return spec->out + (turned > padded ? turned : padded);
}

static size_t convolution_spare(const gp_layer_spec *spec)
{
    if (!gp_window_is_valid(window_of(spec), spec->in)) return 0;
    const gp_window *w = window_of(spec);
    const size_t K = length_of(w), filters = filters_of(spec);
    return gp_padded(K) + gp_padded(filters / w->groups * taps_of(w)) + gp_padded(filters * K);
}

static view look_at(const gp_layer *layer, const gp_pass *pass)
{
    const gp_window *w = window_of(&layer->spec);
    const size_t K = length_of(w);
    view v = {.w = w,
              .P = pass->lanes,
              .groups = w->groups,
              .C = w->channels / w->groups,
              .O = filters_of(&layer->spec) / w->groups,
              .K = K,
              .taps = taps_of(w),
              .plane = gp_window_plane(w),
              .rows = gp_window_places(w, 0),
              .columns = gp_window_places(w, 1),
              .at = (uint32_t *)(void *)layer->spare,
              .back_at = (uint32_t *)(void *)(layer->spare + gp_padded(K)),
              .padded = layer->work + layer->spec.out * pass->lanes * pass->chunks,
              .pads = gp_window_pads(w)};
    v.places = v.rows * v.columns;
    v.turned = layer->spare + gp_padded(K) + gp_padded(v.O * v.taps);
    v.live_at = (uint32_t *)(void *)v.turned;
    v.slides_back =
        find_way_back(&layer->spec, &v.back) && (v.groups == 1 || !layer->weights[0].live);
    return v;
}

/* The padded planes of a chunk, of which all groups have theirs. */
static const float *planes_of(const gp_layer *layer, const view *v, const float *x, size_t chunk)
{
    return v->pads ? v->padded + chunk * v->w->channels * v->plane * v->P
                   : x + chunk * layer->spec.in * v->P;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Zeros around all planes of x, which is what the window slides over. */
static void pad(const gp_pass *pass, const gp_window *w, const float *x, float *padded)
{
    const size_t P = pass->lanes, from = w->height * w->width * P, to = gp_window_plane(w) * P;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * w->channels, &begin, &end);
    for (size_t item = begin; item < end; item++)
        gp_window_pad(w, P, x + item * from, padded + item * to);
}

/* The filters first..first+n, of one group, at one row of places. */
static void forward_row(const gp_layer *layer, const gp_pass *pass, const view *v,
                        const float *planes, float *y, size_t first, size_t n, size_t row)
{
    const gp_matrix *W = &layer->weights[0];
    const gp_runs runs = gp_window_runs(v->w, v->P, 1);
    const float *bias = layer->spec.bias == GP_NONE ? NULL : pass->arena->params + layer->spec.bias;
    const float *from =
        planes +
        (first / v->O * v->C * v->plane + row * v->w->stride[0] * gp_window_padded(v->w, 1)) * v->P;
    float *to = y + (first * v->places + row * v->columns) * v->P;
    if (!W->live) {
        pass->kernels->window_product(n, v->K, pass->arena->params + W->offset + first * v->K, v->K,
                                      v->at, v->P, from, bias ? bias + first : NULL, to,
                                      v->places * v->P, &runs, 0);
        return;
    }
    for (size_t o = first; o < first + n; o++, to += v->places * v->P) {
        const size_t start = W->live->row_start[o];
        pass->kernels->window_product(1, W->live->row_start[o + 1] - start, W->live->value + start,
                                      0, v->live_at + start, v->P, from, bias ? bias + o : NULL, to,
                                      0, &runs, 0);
    }
}

static void convolution_prepare(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const view v = look_at(layer, pass);
    const gp_lists *live = layer->weights[0].live;
    size_t begin, end;
    if (pass->team->rank == 0) gp_window_offsets(v.w, v.at);
    if (v.pads) pad(pass, v.w, x, v.padded);
    if (live) gp_matrix_collect(&layer->weights[0], pass);
    gp_team_wait(pass->team);
    if (!live) return;
    gp_team_share(pass->team, live->count, &begin, &end);
    for (size_t k = begin; k < end; k++) v.live_at[k] = v.at[live->column[k]];
    gp_team_wait(pass->team);
}

static const float *convolution_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const view v = look_at(layer, pass);
    const size_t blocks = (v.O + FILTERS - 1) / FILTERS;
    size_t begin, end;
    convolution_prepare(layer, pass, x);
    gp_team_share(pass->team, pass->chunks * v.rows * v.groups * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t block = item % blocks, group = item / blocks % v.groups,
                     row = item / blocks / v.groups % v.rows;
        const size_t chunk = item / blocks / v.groups / v.rows, first = block * FILTERS;
        forward_row(layer, pass, &v, planes_of(layer, &v, x, chunk),
                    layer->work + chunk * layer->spec.out * v.P, group * v.O + first,
                    gp_smaller(FILTERS, v.O - first), row);
    }
    gp_team_wait(pass->team);
    return layer->work;
}

/* ---- backward -------------------------------------------------------------------------------- */

static void bias_gradient(const gp_layer *layer, const gp_pass *pass, const view *v,
                          const float *dy)
{
    if (layer->spec.bias == GP_NONE) return;
    const size_t filters = v->O * v->groups;
    float *db = pass->arena->grads + layer->spec.bias;
    size_t begin, end;
    gp_team_share(pass->team, filters, &begin, &end);
    for (size_t o = begin; o < end; o++) {
        double sum = pass->first > 0 ? (double)db[o] : 0.0;
        for (size_t chunk = 0; chunk < pass->chunks; chunk++)
            sum +=
                pass->kernels->sum(v->places * v->P, dy + (chunk * filters + o) * v->places * v->P);
        db[o] = (float)sum;
    }
}

/* dW of the filters first..first+n, of one group, from one chunk: some rows of places at a time
 * meet all channels. */
static void weight_gradient(const gp_layer *layer, const gp_pass *pass, const view *v,
                            const float *planes, const float *dy, size_t first, size_t n, int add)
{
    const gp_matrix *W = &layer->weights[0];
    const size_t row_bytes = v->O * v->columns * v->P * sizeof(float);
    const size_t most = row_bytes < AT_ONCE ? AT_ONCE / row_bytes : 1,
                 from_row = v->w->stride[0] * gp_window_padded(v->w, 1);
    const float *x = planes + first / v->O * v->C * v->plane * v->P;
    dy += first * v->places * v->P;
    for (size_t row = 0; row < v->rows; row += most) {
        const gp_runs runs = gp_window_runs(v->w, v->P, gp_smaller(most, v->rows - row));
        const float *from = x + row * from_row * v->P, *to = dy + row * v->columns * v->P;
        const int adds = add || row > 0;
        /* a channel stays in the L1 cache while all filters pass */
        for (size_t c = 0; !W->live && c < v->C; c++)
            pass->kernels->window_dots(
                n, v->taps, to, v->places * v->P, v->at, v->P, from + c * v->plane * v->P,
                pass->arena->grads + W->offset + first * v->K + c * v->taps, v->K, &runs, adds);
        for (size_t o = first; W->live && o < first + n; o++) {
            const size_t start = W->live->row_start[o];
            pass->kernels->window_dots(1, W->live->row_start[o + 1] - start,
                                       to + (o - first) * v->places * v->P, 0, v->live_at + start,
                                       v->P, from, W->live->gradient + start, 0, &runs, adds);
        }
    }
}

static void weight_gradients(const gp_layer *layer, const gp_pass *pass, const view *v,
                             const float *dy)
{
    const gp_matrix *W = &layer->weights[0];
    const gp_arena *arena = pass->arena;
    size_t begin, end;
    if (W->live) gp_lists_share(pass->team, W->rows, W->live->row_start, &begin, &end);
    else gp_team_share(pass->team, W->rows, &begin, &end);
    for (size_t first = begin, n; first < end; first += n) {
        n = gp_smaller(end - first, v->O - first % v->O);
        for (size_t chunk = 0; chunk < pass->chunks; chunk++)
            weight_gradient(layer, pass, v, planes_of(layer, v, layer->input, chunk),
                            dy + chunk * layer->spec.out * v->P, first, n, pass->first + chunk > 0);
    }
    if (W->live || !arena->removed) return;
    const size_t at = W->offset + begin * v->K, n = (end - begin) * v->K;
    pass->kernels->mask(n, arena->mask + at, arena->grads + at);
}

/* For dx: W of each group as [channel][tap][filter], and dy as [chunk][place][filter][P] in the
 * scratch, so that what a product reads lies side by side: rows a power of two apart would meet in
 * a few sets of the cache. */
static void turn(const gp_layer *layer, const gp_pass *pass, const view *v, const float *dy)
{
    const size_t filters = v->O * v->groups, P = v->P;
    const float *W = pass->arena->params + layer->weights[0].offset;
    size_t begin, end;
    gp_team_share(pass->team, v->groups * v->K, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t group = item / v->K, k = item % v->K;
        for (size_t o = 0; o < v->O; o++)
            v->turned[item * v->O + o] = W[(group * v->O + o) * v->K + k];
    }
    gp_team_share(pass->team, pass->chunks * v->places, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const float *from = dy + (item / v->places * filters * v->places + item % v->places) * P;
        float *to = pass->scratch + item * filters * P;
        for (size_t o = 0; o < filters; o++)
            memcpy(to + o * P, from + o * v->places * P, P * sizeof *to);
    }
}

/* What sliding back needs: the distances in padded planes of dy; W of each group as
 * [channel][filter][tap turned over], or where the inputs of a channel's live weights are; dy with
 * zeros around. */
static void prepare_way_back(const gp_layer *layer, const gp_pass *pass, const view *v,
                             const float *dy)
{
    const gp_lists *live = layer->weights[0].live;
    const float *W = pass->arena->params + layer->weights[0].offset;
    const size_t length = v->O * v->taps;
    size_t begin, end;
    if (pass->team->rank == 0) gp_window_offsets(&v->back, v->back_at);
    if (gp_window_pads(&v->back)) pad(pass, &v->back, dy, v->padded);
    if (!live) {
        gp_team_share(pass->team, v->groups * v->C, &begin, &end);
        for (size_t item = begin; item < end; item++) {
            const float *from = W + item / v->C * v->O * v->K + item % v->C * v->taps;
            for (size_t k = 0; k < length; k++)
                v->turned[item * length + k] = from[k / v->taps * v->K + v->taps - 1 - k % v->taps];
        }
        return;
    }
    gp_matrix_collect_columns(&layer->weights[0], pass); /* they meet */
    gp_team_share(pass->team, v->K, &begin, &end);
    for (size_t column = begin; column < end; column++)
        for (size_t k = live->column_start[column]; k < live->column_start[column + 1]; k++)
            v->live_at[k] = v->back_at[live->row[k] * v->taps + v->taps - 1 - column % v->taps];
}

/* One row of the gradient of the channels first..first+n, of one group; dy with zeros around. */
static void slide_back(const gp_layer *layer, const gp_pass *pass, const view *v, const float *dy,
                       float *dx, size_t first, size_t n, size_t row)
{
    const gp_lists *live = layer->weights[0].live;
    const gp_runs runs = gp_window_runs(&v->back, v->P, 1);
    const size_t length = v->O * v->taps, step = v->w->height * v->w->width * v->P;
    const float *from = dy + (first / v->C * v->O * gp_window_plane(&v->back) +
                              row * gp_window_padded(&v->back, 1)) *
                                 v->P;
    float *to = dx + first * step + row * v->w->width * v->P;
    if (!live)
        pass->kernels->window_product(n, length, v->turned + first * length, length, v->back_at,
                                      v->P, from, NULL, to, step, &runs, 0);
    for (size_t c = first; live && c < first + n; c++, to += step) {
        const size_t start = live->column_start[c * v->taps],
                     end = live->column_start[(c + 1) * v->taps];
        pass->kernels->window_product(1, end - start, live->by_column + start, 0,
                                      v->live_at + start, v->P, from, NULL, to, 0, &runs, 0);
    }
}

static void slide_all_back(const gp_layer *layer, const gp_pass *pass, const view *v,
                           const float *dy, float *dx)
{
    const size_t blocks = (v->C + FILTERS - 1) / FILTERS, rows = v->w->height;
    const size_t plane = gp_window_plane(&v->back), filters = v->O * v->groups;
    size_t begin, end;
    gp_team_wait(pass->team); /* all have seen the padded input for the last time */
    prepare_way_back(layer, pass, v, dy);
    gp_team_wait(pass->team);
    if (gp_window_pads(&v->back)) dy = v->padded;
    gp_team_share(pass->team, pass->chunks * rows * v->groups * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t block = item % blocks, group = item / blocks % v->groups,
                     row = item / blocks / v->groups % rows;
        const size_t chunk = item / blocks / v->groups / rows, first = block * FILTERS;
        slide_back(layer, pass, v, dy + chunk * filters * plane * v->P,
                   dx + chunk * layer->spec.in * v->P, group * v->C + first,
                   gp_smaller(FILTERS, v->C - first), row);
    }
}

/* The gradient of the planes first..first+n of one group, padded ones if there is padding, from dy
 * of the chunk. */
static void input_gradient(const gp_layer *layer, const gp_pass *pass, const view *v, size_t chunk,
                           const float *dy, float *planes, size_t group, size_t first, size_t n)
{
    const gp_lists *live = layer->weights[0].live;
    const gp_runs places = gp_window_runs(v->w, v->P, v->rows);
    const gp_runs runs = {places.n, places.inner, places.outer, places.to_inner,
                          /* the other way */
                          places.to_outer, places.from_inner, places.from_outer};
    const size_t unit = v->places * v->P, filters = v->O * v->groups;
    const gp_runs turned = {.n = v->P,
                            .inner = v->columns,
                            .outer = v->rows,
                            .from_inner = filters * v->P,
                            .from_outer = v->columns * filters * v->P,
                            .to_inner = v->w->stride[1] * v->P,
                            .to_outer = places.from_outer};
    memset(planes, 0, n * v->plane * v->P * sizeof *planes);
    for (size_t tap = 0; !live && tap < v->taps; tap++)
        pass->kernels->window_product(
            n, v->O, v->turned + ((group * v->C + first) * v->taps + tap) * v->O, v->taps * v->O,
            NULL, v->P, pass->scratch + (chunk * v->places * filters + group * v->O) * v->P, NULL,
            planes + v->at[tap] * v->P, v->plane * v->P, &turned, 1);
    for (size_t k = first * v->taps; live && k < (first + n) * v->taps; k++) {
        size_t begin = live->column_start[k], end = live->column_start[k + 1];
        while (begin < end && live->row[begin] / v->O < group) begin++;
        while (begin < end && live->row[end - 1] / v->O > group) end--;
        if (begin < end)
            pass->kernels->window_product(
                1, end - begin, live->by_column + begin, 0, live->row + begin, unit, dy, NULL,
                planes + ((k / v->taps - first) * v->plane + v->at[k % v->taps]) * v->P, 0, &runs,
                1);
    }
}

static float *convolution_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    const view v = look_at(layer, pass);
    const size_t blocks = (v.C + CHANNELS - 1) / CHANNELS, filters = v.O * v.groups;
    size_t begin, end;
    bias_gradient(layer, pass, &v, dy);
    weight_gradients(layer, pass, &v, dy);
    if (dx && v.slides_back) slide_all_back(layer, pass, &v, dy, dx);
    else if (dx) {
        /* they meet */
        if (layer->weights[0].live) gp_matrix_collect_columns(&layer->weights[0], pass);
        else turn(layer, pass, &v, dy);
        gp_team_wait(pass->team);
        gp_team_share(pass->team, pass->chunks * v.groups * blocks, &begin, &end);
        for (size_t item = begin; item < end; item++) {
            const size_t first = item % blocks * CHANNELS, group = item / blocks % v.groups;
            const size_t chunk = item / blocks / v.groups, n = gp_smaller(CHANNELS, v.C - first);
            const size_t channel = chunk * v.w->channels + group * v.C + first,
                         size = v.w->height * v.w->width * v.P;
            float *planes = v.pads ? v.padded + channel * v.plane * v.P : dx + channel * size;
            input_gradient(layer, pass, &v, chunk, dy + chunk * filters * v.places * v.P, planes,
                           group, first, n);
            for (size_t c = 0; v.pads && c < n; c++)
                gp_window_crop(v.w, v.P, planes + c * v.plane * v.P, dx + (channel + c) * size);
        }
    }
    gp_team_wait(pass->team);
    return dx;
}

const gp_layer_ops gp_layer_convolution = {.name = "convolution",
                                           .n_settings = GP_WINDOW_NUMBERS + 1,
                                           .set = convolution_set,
                                           .vectors = convolution_vectors,
                                           .is_product = 1,
                                           .fits = convolution_fits,
                                           .is_valid = convolution_is_valid,
                                           .weights = convolution_weights,
                                           .workspace = convolution_workspace,
                                           .spare = convolution_spare,
                                           .forward = convolution_forward,
                                           .prepare = convolution_prepare,
                                           .backward = convolution_backward,
                                           .frozen = &gp_convolution_frozen};
