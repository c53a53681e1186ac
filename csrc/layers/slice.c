/* slice.c - the numbers of a sample in a range of one of its axes. In lanes a number is P floats,
 * so what is copied is contiguous. */
#include "layers/layers.h"

typedef struct gp_slice_settings {
    size_t blocks;     /* how often the axis comes along: the numbers of the axes before it */
    size_t size;       /* of the axis */
    size_t apart;      /* numbers from one place of the axis to the next */
    size_t begin, end; /* places of the axis */
} gp_slice_settings;

GP_SETTINGS(slice)

/* blocks, size, apart, begin, end */
static int slice_set(gp_layer_spec *spec, const double *numbers)
{
    gp_slice_settings *own = gp_slice_in(spec);
    return gp_read_size(numbers[0], &own->blocks) && gp_read_size(numbers[1], &own->size) &&
           gp_read_size(numbers[2], &own->apart) && gp_read_size(numbers[3], &own->begin) &&
           gp_read_size(numbers[4], &own->end);
}

static int slice_fits(const gp_layer_spec *spec)
{
    const gp_slice_settings *own = gp_slice_of(spec);
    if (own->begin >= own->end || own->end > own->size) return 0;
    size_t left = spec->in;
    const size_t sizes[] = {own->blocks, own->size, own->apart};
    for (size_t i = 0; i < 3; i++) {
        if (sizes[i] == 0 || left % sizes[i] != 0) return 0;
        left /= sizes[i];
    }
    return left == 1 && spec->out == spec->in / own->size * (own->end - own->begin);
}

static int slice_is_valid(const gp_layer_spec *spec, size_t n_params, size_t n_prunable)
{
    (void)n_params, (void)n_prunable;
    return slice_fits(spec);
}

static size_t slice_workspace(const gp_layer_spec *spec) { return spec->out; }

static int slice_may_grow(const gp_layer_spec *spec)
{
    (void)spec;
    return 0;
}

/* Of every block, each number so many floats: the numbers of the axis before, in and behind the
 * range. */
typedef struct runs {
    size_t before, in, behind;
} runs;

static runs runs_of(const gp_layer_spec *spec, size_t unit)
{
    const gp_slice_settings *own = gp_slice_of(spec);
    const size_t place = own->apart * unit;
    return (runs){own->begin * place, (own->end - own->begin) * place,
                  (own->size - own->end) * place};
}

static const float *slice_forward(gp_layer *layer, const gp_pass *pass, const float *x)
{
    const runs r = runs_of(&layer->spec, pass->lanes);
    const size_t whole = r.before + r.in + r.behind;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * gp_slice_of(&layer->spec)->blocks, &begin, &end);
    for (size_t block = begin; block < end; block++)
        memcpy(layer->work + block * r.in, x + block * whole + r.before, r.in * sizeof *x);
    gp_team_wait(pass->team);
    return layer->work;
}

static float *slice_backward(gp_layer *layer, const gp_pass *pass, float *dy, float *dx)
{
    if (!dx) return dx;
    const runs r = runs_of(&layer->spec, pass->lanes);
    const size_t whole = r.before + r.in + r.behind;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * gp_slice_of(&layer->spec)->blocks, &begin, &end);
    for (size_t block = begin; block < end; block++) {
        float *to = dx + block * whole;
        memset(to, 0, r.before * sizeof *to);
        memcpy(to + r.before, dy + block * r.in, r.in * sizeof *to);
        memset(to + r.before + r.in, 0, r.behind * sizeof *to);
    }
    gp_team_wait(pass->team);
    return dx;
}

static void slice_infer(const gp_packed *packed, const gp_chunk *chunk, const float *x, float *y)
{
    const runs r = runs_of(&packed->spec, chunk->lanes ? chunk->lanes : 1);
    const size_t whole = r.before + r.in + r.behind, blocks = gp_slice_of(&packed->spec)->blocks;
    for (size_t s = 0; s < (chunk->lanes ? 1 : chunk->samples); s++) {
        const float *from = x + s * gp_padded(packed->spec.in) + r.before;
        float *to = y + s * gp_padded(packed->spec.out);
        for (size_t block = 0; block < blocks; block++)
            memcpy(to + block * r.in, from + block * whole, r.in * sizeof *to);
    }
}

static const gp_frozen_ops frozen = {.infer = slice_infer};

const gp_layer_ops gp_layer_slice = {.name = "slice",
                                     .n_settings = 5,
                                     .set = slice_set,
                                     .fits = slice_fits,
                                     .is_valid = slice_is_valid,
                                     .workspace = slice_workspace,
                                     .may_grow = slice_may_grow,
                                     .forward = slice_forward,
                                     .backward = slice_backward,
                                     .frozen = &frozen};
