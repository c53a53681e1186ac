/* graph.c - which layer reads which: layers are in an order in which they can run, each says what
 * it reads. */
#include "layers/layers.h"

size_t gp_graph_arity(const gp_layer_spec *layers, size_t i)
{
    return layers[i].n_back == 0 ? 1 : layers[i].n_back;
}

size_t gp_graph_source(const gp_layer_spec *layers, size_t i, size_t k)
{
    const size_t back = layers[i].n_back == 0 ? 1 : layers[i].back[k];
    return back > i ? GP_NONE : i - back;
}

size_t gp_layers_in(const gp_layer_spec *layers)
{
    /* all that the first layer reads is the network's input */
    return layers[0].type && layers[0].type->parts ? layers[0].in / gp_graph_arity(layers, 0)
                                                   : layers[0].in;
}

/* How many times later layers read it; *last is the last that does. */
static size_t count_readers(size_t n_layers, const gp_layer_spec *layers, size_t i, size_t *last)
{
    size_t readers = 0;
    for (size_t reader = i + 1; reader < n_layers; reader++)
        for (size_t k = gp_graph_arity(layers, reader); k-- > 0;) {
            if (gp_graph_source(layers, reader, k) != i) continue;
            readers++;
            *last = reader;
        }
    return readers;
}

size_t gp_graph_reader(size_t n_layers, const gp_layer_spec *layers, size_t i)
{
    size_t last = GP_NONE;
    return count_readers(n_layers, layers, i, &last) == 1 ? last : GP_NONE;
}

size_t gp_graph_below(size_t n_layers, const gp_layer_spec *layers)
{
    size_t below = 0;
    for (size_t i = 0; i < n_layers; i++) {
        const size_t own = layers[i].type->indexes ? layers[i].type->indexes(&layers[i]) : 0;
        if (own > 0 && (below == 0 || own < below)) below = own;
    }
    return below;
}

/* Whether it reads as many layers as it can, all of them before it. */
static int reads_enough(const gp_layer_spec *layers, size_t i)
{
    const gp_layer_spec *spec = &layers[i];
    const size_t arity = gp_graph_arity(layers, i);
    const int wanted = spec->type->arity;
    for (size_t k = 0; k < spec->n_back; k++)
        if (spec->back[k] == 0 || spec->back[k] > i + 1) return 0;
    return wanted == GP_SEVERAL ? arity >= 2 : arity == (wanted == 0 ? 1 : (size_t)wanted);
}

/* Whether what it reads is as wide as it says. */
static int widths_fit(const gp_layer_spec *layers, size_t i)
{
    const gp_layer_spec *spec = &layers[i];
    const size_t parts = spec->type->parts ? spec->type->parts(spec) : 1;
    size_t sum = 0;
    if (parts == 0) return 0;
    for (size_t k = 0; k < gp_graph_arity(layers, i); k++) {
        const size_t source = gp_graph_source(layers, i, k),
                     width = source == GP_NONE ? gp_layers_in(layers) : layers[source].out;
        if (!spec->type->parts && width != spec->in) return 0;
        if (width % parts != 0 || width > SIZE_MAX - sum) return 0;
        sum += width;
    }
    return !spec->type->parts || sum == spec->in;
}

int gp_graph_is_valid(size_t n_layers, const gp_layer_spec *layers)
{
    for (size_t i = 0; i < n_layers; i++) {
        const gp_layer_spec *spec = &layers[i];
        if (!spec->type || spec->in == 0 || spec->out == 0) return 0;
        if (!reads_enough(layers, i) || !widths_fit(layers, i)) return 0;
        if (spec->type->indexes && gp_graph_source(layers, i, 0) != GP_NONE) return 0;
    }
    for (size_t i = 0, last; i + 1 < n_layers; i++)
        if (count_readers(n_layers, layers, i, &last) == 0) return 0;
    return n_layers > 0 && n_layers <= (size_t)1 << GP_LAYER_BITS;
}
