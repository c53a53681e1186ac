/* net.c - making a network: what it is made of, its workspace, and how its layers run in a call.
 *
 * A batch passes through in blocks of at most GP_BLOCK samples, so the workspace does not grow with
 * the batch. A block is cut into chunks of P lanes.
 */
#include "gradprune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

enum { GP_BLOCK = 1024 };
/* Recurrent layers keep a lot a sample: their blocks are smaller, for a workspace of about so many
 * floats. */
enum { GP_WORKSPACE = 16 << 20 };
/* ---- making a network ------------------------------------------------------------------------ */

/* The layers whose outputs each one reads. */
static gp_status connect(gp_net *net, const gp_layer_spec *layers)
{
    size_t total = 0;
    for (size_t i = 0; i < net->n_layers; i++) total += gp_graph_arity(layers, i);
    net->sources = calloc(total, sizeof *net->sources);
    net->inputs = calloc(total, sizeof *net->inputs);
    net->widths = calloc(total, sizeof *net->widths);
    if (!net->sources || !net->inputs || !net->widths) return GP_NO_MEMORY;
    size_t *widths = net->widths;
    const gp_layer **source = net->sources;
    const float **inputs = net->inputs;
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        layer->n_sources = gp_graph_arity(layers, i);
        layer->source = source;
        layer->inputs = inputs;
        layer->widths = widths;
        source += layer->n_sources;
        inputs += layer->n_sources;
        layer->reads_back = layer->n_sources > 1 || (layers[i].n_back > 0 && layers[i].back[0] > 1);
        for (size_t k = 0; k < layer->n_sources; k++) {
            const size_t from = gp_graph_source(layers, i, k);
            *widths++ = from == GP_NONE ? net->in : layers[from].out;
            if (from == GP_NONE) continue;
            gp_layer *read = &net->layers[from];
            layer->source[k] = read;
            read->last_reader = i;
            read->readers++;
            read->splits |= layers[i].type->parts != NULL;
        }
        layer->spec.n_back = 0;
        layer->spec.back = NULL; /* the caller's */
    }
    return GP_OK;
}

/* Whether not the next layer alone reads its output, all of whose gradient is this one's: gradients
 * of several layers add up, or have to wait. */
static int has_own_gradient(const gp_net *net, size_t i)
{
    return net->layers[i].readers > 1 || net->layers[i].splits ||
           (i + 1 < net->n_layers && net->layers[i].last_reader != i + 1);
}

/* Floats of workspace a lane; every piece is a multiple of 16 floats long because the lanes are. */
static size_t floats_a_lane(const gp_net *net)
{
    size_t each = net->in + net->widest_padded + 2 * net->widest + net->out + 1 + 2 + 1 + 1;
    for (size_t i = 0; i < net->n_layers; i++) {
        each += net->layers[i].spec.type->workspace(&net->layers[i].spec);
        each += has_own_gradient(net, i) ? net->layers[i].spec.out : 0;
    }
    return each;
}

gp_status gp_net_create(const gp_kernels *kernels, gp_pool *pool, size_t n_layers,
                        const gp_layer_spec *layers, gp_net **net)
{
    *net = NULL;
    if (!gp_graph_is_valid(n_layers, layers)) return GP_BAD_ARGUMENT;
    for (size_t i = 0; i < n_layers; i++) {
        const gp_layer_ops *ops = layers[i].type;
        if (ops->fits && !ops->fits(&layers[i])) return GP_BAD_ARGUMENT;
    }
    gp_net *made = calloc(1, sizeof *made);
    if (!made) return GP_NO_MEMORY;
    made->layers = calloc(n_layers, sizeof *made->layers);
    if (!made->layers) {
        free(made);
        return GP_NO_MEMORY;
    }
    made->kernels = kernels;
    made->pool = pool;
    made->n_layers = n_layers;
    made->in = gp_layers_in(layers);
    made->below = gp_graph_below(n_layers, layers);
    made->out = layers[n_layers - 1].out;
    for (size_t i = 0; i < n_layers; i++) {
        made->layers[i].spec = layers[i];
        made->layers[i].index = i;
        if (layers[i].in > made->widest) made->widest = layers[i].in;
        if (layers[i].out > made->widest) made->widest = layers[i].out;
        const gp_layer_ops *ops = layers[i].type;
        made->mixes_samples |= ops->mixes_samples;
        made->layers[i].n_weights =
            ops->weights ? ops->weights(&layers[i], made->layers[i].weights) : 0;
        made->layers[i].n_vectors =
            ops->vectors ? ops->vectors(&layers[i], made->layers[i].vectors) : 0;
    }
    if (made->in > made->widest) made->widest = made->in;
    if (connect(made, layers) != GP_OK) {
        gp_net_destroy(made);
        return GP_NO_MEMORY;
    }
    made->widest_padded = gp_padded(made->widest);
    made->block = GP_BLOCK;
    while (made->block > GP_LANES && floats_a_lane(made) > GP_WORKSPACE / made->block)
        made->block /= 2;
    gp_net_limit(made, INFINITY, INFINITY);
    *net = made;
    return GP_OK;
}

void gp_net_destroy(gp_net *net)
{
    if (!net) return;
    free(net->spare);
    free(net->memory);
    free(net->partial);
    free(net->layers);
    free(net->sources);
    free(net->inputs);
    free(net->widths);
    free(net);
}

void gp_net_limit(gp_net *net, float activation, float gradient)
{
    net->max_activation = activation;
    net->max_gradient = gradient;
}

int gp_net_exploded(const gp_net *net) { return net->explosion.phase != GP_PHASE_NONE; }

/* Floats that layers keep besides, however many samples there are. */
static size_t spare_of(const gp_layer *layer)
{
    const gp_layer_ops *ops = layer->spec.type;
    return ops->spare ? gp_padded(ops->spare(&layer->spec)) : 0;
}

static size_t spare_floats(const gp_net *net)
{
    size_t floats = 0;
    for (size_t i = 0; i < net->n_layers; i++) floats += spare_of(&net->layers[i]);
    return floats;
}

void gp_net_needs(const gp_net *net, size_t *fixed, size_t *each)
{
    *fixed = spare_floats(net) * sizeof(float);
    *each = floats_a_lane(net) * sizeof(float);
}

/* Made at the first call: a network that is never run needs none. */
static gp_status reserve_spare(gp_net *net)
{
    const size_t floats = spare_floats(net);
    if (net->spare || floats == 0) return GP_OK;
    if (floats > SIZE_MAX / sizeof(float) / 2) return GP_NO_MEMORY;
    net->spare = aligned_alloc(64, floats * sizeof(float));
    if (!net->spare) return GP_NO_MEMORY;
    memset(net->spare, 0, floats * sizeof(float));
    float *next = net->spare;
    for (size_t i = 0; i < net->n_layers; i++) {
        net->layers[i].spare = next;
        next += spare_of(&net->layers[i]);
    }
    return GP_OK;
}

size_t gp_net_bytes(const gp_net *net)
{
    return net->bytes + (net->n_partial + (net->spare ? spare_floats(net) : 0)) * sizeof(float);
}

gp_status gp_net_reserve(gp_net *net, size_t samples)
{
    size_t lanes, chunks;
    gp_net_cut(samples, &lanes, &chunks);
    size_t capacity = lanes * chunks;
    gp_status status = reserve_spare(net);
    if (status != GP_OK || capacity <= net->capacity) return status;

    const size_t each = floats_a_lane(net);
    if (each > SIZE_MAX / sizeof(float) / capacity) return GP_NO_MEMORY;
    float *memory = aligned_alloc(64, each * capacity * sizeof(float));
    if (!memory) return GP_NO_MEMORY;
    memset(memory, 0, each * capacity * sizeof(float));
    free(net->memory);
    net->last_samples = 0; /* its outputs went with it */
    net->memory = memory;
    net->bytes = each * capacity * sizeof(float);
    net->capacity = capacity;

    float *next = memory;
#define TAKE(floats) (next += (floats) * capacity, next - (floats) * capacity)
    net->input = TAKE(net->in);
    net->scratch = TAKE(net->widest_padded);
    net->gradient[0] = TAKE(net->widest);
    net->gradient[1] = TAKE(net->widest);
    net->targets = TAKE(net->out);
    net->losses = TAKE(1);
    net->labels = (int64_t *)(void *)TAKE(2);
    net->hits = (uint32_t *)(void *)TAKE(1);
    net->lengths = (uint32_t *)(void *)TAKE(1);
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        layer->work = TAKE(layer->spec.type->workspace(&layer->spec));
        if (has_own_gradient(net, i)) layer->gradient = TAKE(layer->spec.out);
    }
#undef TAKE
    return GP_OK;
}

/* The lists that a matrix runs on in chunks of so many lanes, NULL if it runs on all its
 * weights. */
static gp_lists *lists_of(size_t segment, const gp_arena *arena, size_t lanes)
{
    gp_lists *lists = gp_live_segment(arena->live, segment);
    return lists && gp_live_pays(arena->live, lists, lanes) ? lists : NULL;
}

/* Brings the numbers of a kind to where this call wants them, unless somebody has a view. */
static void bring_home(const gp_net *net, const gp_arena *arena, gp_matrix *matrix, gp_kind kind,
                       size_t segment)
{
    const gp_home home = gp_home_of(arena, kind, segment);
    const int is_listed = gp_live_segment(arena->live, segment) != NULL,
              runs_whole = is_listed && !matrix->live;
    if (home == GP_RETURNED && !runs_whole) gp_arena_take(net->kernels, arena, kind, segment);
    if (home == GP_INSIDE && runs_whole) gp_arena_spread(net->kernels, arena, kind, segment);
    matrix->outside[kind] = gp_home_of(arena, kind, segment) != GP_INSIDE;
}

void gp_net_look_up(gp_net *net, const gp_arena *arena, size_t samples)
{
    size_t lanes, chunks;
    gp_net_cut(samples, &lanes, &chunks);
    net->macs = 0.0;
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        for (gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++) {
            const size_t segment = gp_segment_at(arena, matrix->offset);
            matrix->live = lists_of(segment, arena, lanes);
            bring_home(net, arena, matrix, GP_VALUES, segment);
            bring_home(net, arena, matrix, GP_GRADIENTS, segment);
            net->macs += (double)matrix->uses *
                         (matrix->live ? (double)matrix->live->count
                                       : (double)matrix->rows * (double)matrix->columns);
        }
    }
}

gp_status gp_net_reserve_partial(gp_net *net, size_t samples)
{
    size_t lanes, chunks, longest = 0;
    gp_net_cut(samples, &lanes, &chunks);
    for (size_t i = 0; i < net->n_layers; i++) {
        if (!net->layers[i].spec.type->wants_partial) continue;
        const gp_matrix *matrix = &net->layers[i].weights[0];
        const gp_lists *live = matrix->uses == 1 ? matrix->live : NULL; /* nor for several steps */
        if (live && live->count > longest) longest = live->count;
    }
    if (longest * chunks <= net->n_partial) return GP_OK;
    float *partial = malloc(longest * chunks * sizeof *partial);
    if (!partial) return GP_NO_MEMORY;
    free(net->partial);
    net->partial = partial;
    net->n_partial = longest * chunks;
    return GP_OK;
}

int gp_net_is_sparse(const gp_net *net, const gp_arena *arena, size_t layer, size_t samples)
{
    size_t lanes, chunks;
    if (layer >= net->n_layers || samples == 0) return 0;
    gp_net_cut(gp_smaller(samples, net->block), &lanes, &chunks);
    const gp_layer *chosen = &net->layers[layer];
    for (size_t m = 0; m < chosen->n_weights; m++)
        if (lists_of(gp_segment_at(arena, chosen->weights[m].offset), arena, lanes)) return 1;
    return 0;
}
