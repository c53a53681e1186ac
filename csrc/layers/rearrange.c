/* rearrange.c - the numbers of a sample in another order: its axes change places, or the first one
 * runs backward. In lanes a number is P floats, so what is copied is contiguous. */
#include "layers/parts/lengths.h"

enum { AXES = 3 };

typedef struct gp_rearrange_settings {
    size_t sizes[AXES]; /* of what it reads */
    size_t order[AXES]; /* which axis of this each axis of the output is */
    int reversed;       /* whether the first axis of the output runs backward */
} gp_rearrange_settings;

GP_SETTINGS(rearrange)

/* sizes, order, reversed */
static int rearrange_set(gp_layer_spec *spec, const double *numbers)
{
    gp_rearrange_settings *own = gp_rearrange_in(spec);
    for (size_t i = 0; i < AXES; i++)
        if (!gp_read_size(numbers[i], &own->sizes[i]) ||
            !gp_read_size(numbers[AXES + i], &own->order[i]))
            return 0;
    own->reversed = numbers[2 * AXES] != 0.0;
    return 1;
}

static int rearrange_fits(const gp_layer_spec *spec)
{
    const gp_rearrange_settings *own = gp_rearrange_of(spec);
    size_t left = spec->in;
    int seen[AXES] = {0};
    for (size_t i = 0; i < AXES; i++) {
        if (own->sizes[i] == 0 || left % own->sizes[i] != 0) return 0;
        if (own->order[i] >= AXES || seen[own->order[i]]++) return 0;
        left /= own->sizes[i];
    }
    return left == 1 && spec->in == spec->out;
}

static int rearrange_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return rearrange_fits(spec);
}

static size_t rearrange_workspace(const gp_layer_spec *spec) { return spec->out; }

static int rearrange_may_grow(const gp_layer_spec *spec)
{
    (void)spec;
    return 0;
}

/* Along the axes of the output: its sizes, and how far apart neighbours are in the input. */
typedef struct walk {
    size_t sizes[AXES], steps[AXES];
    int reversed;
} walk;

static walk walk_of(const gp_layer_spec *spec)
{
    const gp_rearrange_settings *own = gp_rearrange_of(spec);
    const size_t steps[AXES] = {own->sizes[1] * own->sizes[2], own->sizes[2], 1};
    walk w = {.reversed = own->reversed};
    for (size_t i = 0; i < AXES; i++) {
        w.sizes[i] = own->sizes[own->order[i]];
        w.steps[i] = steps[own->order[i]];
    }
    return w;
}

/* Lines of the output along its last axis, those of several chunks or samples one after the
 * other. */
static size_t lines_of(const walk *w) { return w->sizes[0] * w->sizes[1]; }

/* One line, each number so many floats; `back` copies from the output to the input. */
static void copy_line(const walk *w, size_t line, size_t unit, const float *from, float *to,
                      int back)
{
    const size_t row = line / w->sizes[1], place = w->reversed ? w->sizes[0] - 1 - row : row;
    const size_t in = place * w->steps[0] + line % w->sizes[1] * w->steps[1],
                 out = line * w->sizes[2];
    const size_t together = w->steps[2] == 1 ? w->sizes[2] : 1, n = together * unit;
    for (size_t i = 0; i < w->sizes[2]; i += together) {
        const size_t a = (in + i * w->steps[2]) * unit, b = (out + i) * unit;
        const float *source = from + (back ? b : a);
        float *target = to + (back ? a : b);
        if (n == 1) *target = *source;
        else memcpy(target, source, n * sizeof *target);
    }
}

/* One line of steps that run backward, each sequence from its own last step; behind its end are
 * zeros. The way back is the same. */
static void turn_line(const walk *w, size_t line, size_t P, const uint32_t *lengths,
                      const float *from, float *to)
{
    const size_t each = w->sizes[1] * w->sizes[2], t = line / w->sizes[1];
    for (size_t i = line * w->sizes[2]; i < (line + 1) * w->sizes[2]; i++)
        for (size_t p = 0; p < P; p++) {
            const size_t n = lengths[p];
            to[i * P + p] = t < n ? from[(i + (n - 1 - t) * each - t * each) * P + p] : 0.0f;
        }
}

/* The steps that run backward. */
static size_t turned_steps(const walk *w) { return w->reversed ? w->sizes[0] : 0; }

static void rearrange(const gp_layer *layer, const gp_pass *pass, const float *from, float *to,
                      int back)
{
    const walk w = walk_of(&layer->spec);
    const size_t P = pass->lanes, size = layer->spec.in * P, lines = lines_of(&w);
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * lines, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        const size_t at = item / lines * size;
        const uint32_t *lengths = gp_lengths_of(pass, item / lines, turned_steps(&w));
        if (lengths) turn_line(&w, item % lines, P, lengths, from + at, to + at);
        else copy_line(&w, item % lines, P, from + at, to + at, back);
    }
    gp_team_wait(pass->team);
}

static const float *rearrange_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    rearrange(layer, pass, x, layer->work, 0);
    return layer->work;
}

static float *rearrange_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (dx) rearrange(layer, pass, dy, dx, 1);
    return dx;
}

static void rearrange_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x,
                            float *y)
{
    const walk w = walk_of(&packed->spec);
    const size_t row = gp_padded(packed->spec.in), unit = chunk->lanes ? chunk->lanes : 1;
    const uint32_t *lengths = gp_lengths_in(chunk, turned_steps(&w));
    for (size_t s = 0; s < (chunk->lanes ? 1 : chunk->samples); s++)
        for (size_t line = 0; line < lines_of(&w); line++)
            if (lengths) turn_line(&w, line, unit, lengths + s, x + s * row, y + s * row);
            else copy_line(&w, line, unit, x + s * row, y + s * row, 0);
}

static const gp_frozen_ops frozen = {.infer = rearrange_infer};

const gp_layer_ops gp_layer_rearrange = {.name = "rearrange",
                                         .n_settings = 2 * AXES + 1,
                                         .set = rearrange_set,
                                         .fits = rearrange_fits,
                                         .is_valid = rearrange_is_valid,
                                         .workspace = rearrange_workspace,
                                         .may_grow = rearrange_may_grow,
                                         .forward = rearrange_forward,
                                         .backward = rearrange_backward,
                                         .frozen = &frozen};
