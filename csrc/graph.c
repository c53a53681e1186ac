/* graph.c - which layer reads which: layers are in an order in which they can run, each names what
 * it reads. */
#include "layers/layers.h"

size_t gp_graph_sources(const gp_layer_spec *layers, size_t i, size_t sources[GP_SOURCES])
{
    const size_t back = layers[i].back == 0 ? 1 : layers[i].back;
    sources[0] = back > i ? GP_NONE : i - back;
    sources[1] = layers[i].other > i ? GP_NONE : i - layers[i].other;
    return layers[i].type == GP_LAYER_ADD ? 2 : 1;
}

/* How many times later layers read it; *last is the last that does. */
static size_t count_readers(size_t n_layers, const gp_layer_spec *layers, size_t i, size_t *last)
{
    size_t sources[GP_SOURCES], readers = 0;
    for (size_t reader = i + 1; reader < n_layers; reader++)
        for (size_t k = gp_graph_sources(layers, reader, sources); k-- > 0;) {
            if (sources[k] != i) continue;
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

int gp_graph_is_valid(size_t n_layers, const gp_layer_spec *layers)
{
    for (size_t i = 0; i < n_layers; i++) {
        const gp_layer_spec *spec = &layers[i];
        size_t sources[GP_SOURCES];
        if (spec->type >= GP_LAYER_TYPES || spec->in == 0 || spec->out == 0) return 0;
        if (spec->back > i + 1 || spec->other > i + 1 ||
            (spec->other > 0) != (spec->type == GP_LAYER_ADD))
            return 0;
        for (size_t k = gp_graph_sources(layers, i, sources); k-- > 0;)
            if (spec->in != (sources[k] == GP_NONE ? layers[0].in : layers[sources[k]].out))
                return 0;
        size_t last;
        if (i + 1 < n_layers && count_readers(n_layers, layers, i, &last) == 0) return 0;
    }
    return n_layers > 0 && n_layers <= (size_t)1 << GP_LAYER_BITS;
}
