/* pass.c - what a team does in a call of a network: load, forward, loss, backward, step.
 *
 * A batch passes through in blocks; parameter gradients add up over the blocks in order.
 */
#include <math.h>
#include <string.h>

#include "denormals.h"
#include "layers/parts/lengths.h"
#include "region.h"

/* Whether a layer's output can be larger than its input, which is watched, too. */
static int may_grow(const gp_layer *layer)
{
    const gp_layer_ops *type = layer->spec.type;
    return layer->index == 0 || !type->may_grow || type->may_grow(&layer->spec);
}

/* Whether an output in this member's share is beyond the limit. Lanes without a sample do not
 * count. */
static int exceeds(const gp_pass *pass, const gp_layer *layer, const float *y, float limit)
{
    size_t begin, end, width;
    y = gp_layer_watched(layer, y, &width);
    const size_t P = pass->lanes, whole = pass->samples / P * width;
    gp_team_share(pass->team, pass->chunks * width, &begin, &end);
    size_t middle = gp_smaller(whole, end) > begin ? gp_smaller(whole, end) : begin;
    if (!(pass->kernels->max_abs((middle - begin) * P, y + begin * P) <= limit)) return 1;
    for (size_t row = middle; row < end; row++)
        if (!(pass->kernels->max_abs(pass->samples % P, y + row * P) <= limit)) return 1;
    return 0;
}

/* Keeps the place of the first explosion while the workspace shows it; after a barrier, by one
 * member. */
static void note_explosion(gp_region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    size_t found = GP_NONE;
    for (size_t i = 0; i < pass->team->size; i++) found = gp_smaller(found, shared->exploded[i]);
    if (found == GP_NONE || gp_net_exploded(net)) return;
    net->explosion = (gp_fault){.phase = GP_PHASE_FORWARD, .layer = found, .step = GP_NONE};
    gp_layer_find_output(&net->layers[found], pass->samples, pass->first, net->max_activation,
                         &net->explosion);
}

static const float *output_of(const gp_net *net, const gp_layer *layer)
{
    return layer ? layer->output : net->input;
}

static const float *forward(gp_region *shared, const gp_pass *pass, size_t n_layers)
{
    gp_net *net = shared->net;
    const float *x = net->input;
    const int is_limited = shared->training && net->max_activation < INFINITY;
    size_t exploded = GP_NONE;
    for (size_t i = 0; i < n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        if (layer->reads_back) {
            for (size_t k = 0; pass->team->rank == 0 && k < layer->n_sources; k++)
                layer->inputs[k] = output_of(net, layer->source[k]);
            gp_team_wait(pass->team); /* then all can read what the first member has noted */
            x = output_of(net, layer->source[0]);
        }
        const float *y = layer->spec.type->forward(layer, pass, x);
        if (is_limited && exploded == GP_NONE && may_grow(layer) &&
            exceeds(pass, layer, y, net->max_activation))
            exploded = i;
        if (pass->team->rank == 0) {
            layer->input = x;
            layer->output = y;
        }
        x = y;
    }
    shared->exploded[pass->team->rank] = exploded;
    gp_team_wait(pass->team);
    if (is_limited && pass->team->rank == 0) note_explosion(shared, pass);
    return x;
}

/* By how much a sample of the block counts more than the mean one: 1 where all count the same. */
static float share_of(const gp_region *shared, size_t sample)
{
    const double weight = gp_region_weight(shared->batch, gp_region_row(shared->batch, sample));
    return (float)(weight / shared->weight * (double)shared->batch->size);
}

/* The gradients of a chunk times what its samples count; 0 where that is 0, whatever they are. */
static void weigh(const gp_region *shared, const gp_loss_chunk *c, size_t first)
{
    float share[GP_LANES];
    for (size_t p = 0; p < c->valid; p++) share[p] = share_of(shared, first + p);
    for (size_t at = 0; at < c->outputs * c->lanes; at += c->lanes)
        for (size_t p = 0; p < c->valid; p++)
            c->dz[at + p] = share[p] > 0.0f ? c->dz[at + p] * share[p] : 0.0f;
}

/* Adds up what the block's samples lose, and which are right: by one member, in order. */
static void add_up(gp_region *shared, const gp_pass *pass, double elements)
{
    const gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    double sum = 0.0, right = 0.0;
    for (size_t s = 0; s < pass->samples; s++) {
        const float share = shared->weighted ? share_of(shared, pass->first + s) : 1.0f;
        if (!(share > 0.0f)) continue; /* 0 times infinity is no loss */
        sum += (double)share * (double)net->losses[s];
        if (batch->loss->counts_hits && net->hits[s])
            right += net->hits[s] * gp_region_weight(batch, gp_region_row(batch, pass->first + s));
    }
    shared->correct += right / elements;
    shared->loss += sum / ((double)batch->size * elements);
}

/* The losses of a chunk, step by step: what pads a sample has no loss, gradient or hit. */
static void run_by_step(const gp_loss_ops *loss, const gp_loss_chunk *c, const uint32_t *lengths,
                        size_t steps)
{
    const size_t each = c->outputs / steps, floats = each * c->lanes;
    float sums[GP_LANES] = {0.0f};
    uint32_t right[GP_LANES] = {0};
    for (size_t t = 0; t < steps; t++) {
        gp_loss_chunk step = *c;
        step.outputs = each;
        step.z = c->z + t * floats;
        step.targets = c->targets + t * floats;
        step.dz = c->dz ? c->dz + t * floats : NULL;
        loss->run(&step);
        for (size_t p = 0; p < c->valid; p++) {
            sums[p] += t < lengths[p] ? c->losses[p] : 0.0f;
            if (loss->counts_hits && t < lengths[p]) right[p] += c->hits[p];
        }
        if (c->dz) gp_lengths_clear(each, c->lanes, lengths, t, step.dz);
    }
    memcpy(c->losses, sums, c->valid * sizeof *sums);
    memcpy(c->hits, right, c->valid * sizeof *right);
}

/* Losses of the block's samples into net->losses, their gradient into dz (unless NULL). */
static void loss_of(gp_region *shared, const gp_pass *pass, const float *z, float *dz)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const size_t O = net->out, P = pass->lanes;
    const gp_loss_ops *loss = batch->loss;
    const double elements = loss->by_element ? (double)O : 1.0;
    const float factor = (float)(1.0 / ((double)batch->size * elements));
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++) {
        const size_t first = chunk * P, at = first * O;
        const gp_loss_chunk mine = {
            .kernels = pass->kernels,
            .outputs = O,
            .lanes = P,
            .valid = gp_smaller(P, pass->samples - gp_smaller(pass->samples, first)),
            .z = z + at,
            .labels = net->labels + first,
            .targets = net->targets + at,
            .settings = batch->settings,
            .factor = factor,
            .dz = dz ? dz + at : NULL,
            .losses = net->losses + first,
            .hits = net->hits + first,
        };
        if (batch->by_step) run_by_step(loss, &mine, net->lengths + first, batch->steps);
        else loss->run(&mine);
        if (dz && shared->weighted) weigh(shared, &mine, pass->first + first);
    }
    gp_team_wait(pass->team);
    if (pass->team->rank == 0) add_up(shared, pass, elements);
    gp_team_wait(pass->team);
}

/* Whether a layer's gradient is the first to come to its k-th source: that of the last layer that
 * reads it. */
static int is_first(const gp_layer *layer, size_t k)
{
    for (size_t before = 0; before < k; before++)
        if (layer->source[before] == layer->source[k]) return 0;
    return layer->source[k]->last_reader == layer->index;
}

/* dx, a gradient of what the layer reads, to the sources that keep theirs. */
static void hand_on(const gp_layer *layer, const gp_pass *pass, const float *dx)
{
    for (size_t k = 0; k < layer->n_sources; k++) {
        const gp_layer *source = layer->source[k];
        if (!source || !source->gradient || source->gradient == dx) continue;
        if (layer->spec.type->split) {
            layer->spec.type->split(layer, pass, k, dx, source->gradient, !is_first(layer, k));
            gp_team_wait(pass->team);
            continue;
        }
        size_t begin, end;
        gp_team_share(pass->team, pass->chunks * source->spec.out, &begin, &end);
        const size_t at = begin * pass->lanes, n = (end - begin) * pass->lanes;
        if (is_first(layer, k)) memcpy(source->gradient + at, dx + at, n * sizeof *dx);
        else pass->kernels->add(n, source->gradient + at, dx + at, source->gradient + at);
        gp_team_wait(pass->team);
    }
}

/* From the last layer back; the gradient of the output is in the first of the two buffers that take
 * turns. */
static void backward(gp_region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    float *dy = net->gradient[0];
    for (size_t i = shared->n_live; i-- > 0;) {
        gp_layer *layer = &net->layers[i];
        const gp_layer *source = layer->source[0];
        if (layer->gradient) dy = layer->gradient;
        float *dx = dy == net->gradient[0] ? net->gradient[1] : net->gradient[0];
        if (!source) dx = NULL;
        else if (source->gradient && is_first(layer, 0)) dx = source->gradient;
        dy = layer->spec.type->backward(layer, pass, dy, dx);
        hand_on(layer, pass, dy);
    }
}

/* l1 sum|w| + l2 sum w^2 of every layer that asks for it, once a batch. Removed weights are 0 and
 * their gradient is left alone: the slope of both terms at 0 is 0. */
static void penalize(gp_region *shared, const gp_team *team)
{
    const gp_net *net = shared->net;
    const gp_kernels *kernels = net->kernels;
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        const gp_layer_spec *spec = &layer->spec;
        const gp_layer_ops *ops = spec->type;
        double penalty = ops->penalty
                             ? ops->penalty(layer, kernels, shared->arena, team, shared->backward)
                             : 0.0;
        if (team->rank == 0) shared->loss += layer->penalty + penalty;
        if (spec->l1 == 0.0f && spec->l2 == 0.0f) continue;
        for (const gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++) {
            const gp_lists *live = matrix->live;
            const float *w = live ? live->value : shared->arena->params + matrix->offset;
            float *dw = live ? live->gradient : shared->arena->grads + matrix->offset;
            size_t n = live ? live->count : matrix->rows * matrix->columns, begin, end;
            if (shared->backward) {
                gp_team_share(team, n, &begin, &end);
                kernels->penalty(end - begin, w + begin, dw + begin, spec->l1, spec->l2);
            }
            if (team->rank == 0)
                shared->loss += (double)spec->l1 * kernels->sum_abs(n, w) +
                                (double)spec->l2 * kernels->sum_squares(n, w);
        }
    }
    gp_team_wait(team);
}

/* Gradients of listed layers: into the whole buffer if somebody has a view of it. */
static void publish(const gp_region *shared, const gp_team *team)
{
    for (size_t i = 0; i < shared->net->n_layers; i++) {
        const gp_layer *layer = &shared->net->layers[i];
        for (const gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++) {
            const gp_lists *lists = matrix->live;
            if (!lists || !matrix->outside[GP_GRADIENTS]) continue;
            size_t begin, end;
            gp_lists_share(team, lists->rows, lists->row_start, &begin, &end);
            gp_lists_expand(lists, begin, end, lists->gradient,
                            shared->arena->grads + matrix->offset);
        }
    }
}

/* out[s][o] from y[chunk][o][P] */
static void store(gp_region *shared, const gp_pass *pass, const float *y)
{
    const size_t O = shared->net->out, P = pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++) {
        size_t valid = gp_smaller(P, pass->samples - gp_smaller(pass->samples, chunk * P));
        float *out = shared->out + (pass->first + chunk * P) * O;
        pass->kernels->transpose(O, valid, y + chunk * O * P, P, out, O);
        for (size_t s = 0; shared->batch->by_step && s < valid; s++)
            gp_lengths_end(pass->lengths[chunk * P + s], pass->steps, O, out + s * O);
    }
}

static gp_pass block_of(const gp_region *shared, const gp_team *team, size_t first)
{
    gp_pass pass = {
        .kernels = shared->net->kernels,
        .arena = shared->arena,
        .team = team,
        .samples = gp_smaller(shared->block, shared->batch->size - first),
        .first = first,
        .batch = shared->batch->size,
        .lengths = shared->batch->lengths ? shared->net->lengths : NULL,
        .steps = shared->batch->steps,
        .training = shared->training,
        .seed = shared->seed,
        .step = shared->dropout_step,
        .scratch = shared->net->scratch,
        .partial = shared->net->partial,
    };
    gp_net_cut(pass.samples, &pass.lanes, &pass.chunks);
    return pass;
}

static void run_blocks(gp_region *shared, const gp_team *team)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const size_t size = batch->size;

    /* With several blocks a late fault would find gradients half written: look at everything
     * first. */
    for (size_t first = 0; size > shared->block && shared->backward && first < size;
         first += shared->block) {
        gp_pass pass = block_of(shared, team, first);
        if (gp_region_load(shared, &pass) != GP_OK) return;
        /* nobody finds fault with the next block while others ask about this one */
        gp_team_wait(team);
    }
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        if (team->rank == 0) {
            layer->penalty = 0.0;
            if (!shared->resumed) layer->pending = NULL;
        }
        for (const gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++)
            if (matrix->outside[GP_VALUES])
                gp_arena_enforce(net->kernels, shared->arena, team, shared->arena->params,
                                 matrix->offset, matrix->rows * matrix->columns);
    } /* gp_region_load meets before anybody reads them */
    for (size_t first = 0; first < size; first += shared->block) {
        gp_pass pass = block_of(shared, team, first);
        if (gp_region_load(shared, &pass) != GP_OK) return;
        if (team->rank == 0) shared->last_first = first;
        const float *z = shared->resumed ? net->layers[shared->n_live - 1].output
                                         : forward(shared, &pass, shared->n_live);
        if (gp_region_measures(shared)) {
            loss_of(shared, &pass, z, shared->backward ? net->gradient[0] : NULL);
            if (shared->backward) backward(shared, &pass);
        }
        if (shared->out) {
            for (size_t i = shared->n_live; i < net->n_layers; i++)
                z = net->layers[i].spec.type->forward(&net->layers[i], &pass, z);
            store(shared, &pass, z);
        }
        /* a training batch that cannot be used ends here, with the culprit still in the workspace;
         * asked before the barrier, since after it the first member may add penalties */
        int useless = shared->backward && !isfinite(shared->loss);
        gp_team_wait(team); /* the next block overwrites what this one read */
        if (useless) break;
    }
    if (gp_region_measures(shared)) penalize(shared, team);
    if (shared->backward) publish(shared, team);
    /* a loss beyond float leaves the step out, as a gradient beyond float does */
    if (shared->step && isfinite(shared->loss) && !gp_net_exploded(net))
        gp_step_plan_run(shared->step, team);
}

void gp_region_run(void *context, const gp_team *team)
{
    uint64_t mode = gp_denormals_flush();
    run_blocks(context, team);
    gp_denormals_restore(mode);
}
