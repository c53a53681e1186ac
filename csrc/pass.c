/* pass.c - a call of a network: load, forward, loss, backward, step, as one parallel region.
 *
 * A batch passes through in blocks; parameter gradients add up over the blocks in order.
 */
#include "gradprune.h"

#include <math.h>
#include <string.h>

#include "denormals.h"
#include "net.h"
#include "optim.h"

/* Fewer multiply-adds than this are done by one thread, without trying two. */
#define GP_WORK_WORTH_SHARING 200000.0

/* The habit of calls with about so much work: one for each power of two. */
static gp_habit *habit_of(gp_net *net, size_t samples, double passes)
{
    int size = 0;
    frexp(net->macs * (double)samples * passes, &size);
    return &net->habits[size < 0 ? 0 : (size < GP_HABITS ? size : GP_HABITS - 1)];
}

/* ---- one region ------------------------------------------------------------------------------ */

/* What the members of the team share. */
typedef struct region {
    gp_net *net;
    const gp_arena *arena;
    const gp_batch *batch;
    int backward;
    gp_step_plan *step; /* or NULL */
    float *out;         /* predictions, or NULL */
    size_t block;       /* samples that pass through at once */
    size_t n_live;      /* layers to run: without the one fused into the loss */
    uint64_t seed, dropout_step;
    double loss;
    size_t correct;
    size_t last_first; /* the first sample of the last block that ran */
    /* one slot a member: no two write the same */
    gp_status status[GP_MAX_THREADS];
    gp_fault fault[GP_MAX_THREADS];
    /* first layer of the block with an output beyond the limit, or GP_NONE */
    size_t exploded[GP_MAX_THREADS];
} region;

/* The member with the first failure, GP_NONE if all is well: x before labels and targets, then in
 * the order of samples, so that what is reported does not depend on the size of the team. */
static size_t first_failure(const region *shared, size_t members)
{
    size_t found = GP_NONE;
    for (size_t i = members; i-- > 0;) {
        int later = found != GP_NONE && shared->status[found] == GP_BAD_INPUT &&
                    shared->status[i] != GP_BAD_INPUT;
        if (shared->status[i] != GP_OK && !later) found = i;
    }
    return found;
}

static void fail(region *shared, const gp_team *team, gp_status status, gp_phase phase, size_t row,
                 size_t column)
{
    if (shared->status[team->rank] != GP_OK) return;
    shared->status[team->rank] = status;
    shared->fault[team->rank] =
        (gp_fault){.phase = phase, .layer = GP_NONE, .step = GP_NONE, .row = row, .column = column};
}

static size_t row_of(const gp_batch *batch, size_t sample)
{
    return batch->index ? (size_t)batch->index[sample] : sample;
}

/* lanes [chunk][feature][P] and, unless it is NULL, rows (samples, padded width) from the rows of
 * the batch, this member's share of the features. Returns 1 if all are finite. */
static int gather(const region *shared, const gp_pass *pass, const float *values, size_t width,
                  float *lanes, float *rows)
{
    enum { FEATURES = 64 };
    const size_t P = pass->lanes, blocks = (width + FEATURES - 1) / FEATURES,
                 stride = gp_padded(width);
    size_t begin, end;
    int finite = 1;
    gp_team_share(pass->team, pass->chunks * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t chunk = item / blocks, f = item % blocks * FEATURES,
               n = gp_smaller(FEATURES, width - f);
        size_t first = chunk * P,
               samples = gp_smaller(P, pass->samples - gp_smaller(pass->samples, first));
        const float *from[GP_LANES];
        for (size_t s = 0; s < samples; s++) {
            from[s] = values + row_of(shared->batch, pass->first + first + s) * width;
            if (rows) memcpy(rows + (first + s) * stride + f, from[s] + f, n * sizeof *rows);
        }
        finite &= pass->kernels->to_lanes(samples, n, from, f, P, lanes + (chunk * width + f) * P);
    }
    return finite;
}

/* The first number of the block that is not finite, in the order of samples: found by one member,
 * whoever met one. */
static void find_bad(region *shared, const gp_pass *pass, const float *values, size_t width,
                     gp_status status, gp_phase phase)
{
    for (size_t s = 0; s < pass->samples; s++) {
        size_t from = row_of(shared->batch, pass->first + s);
        for (size_t column = 0; column < width; column++)
            if (!isfinite(values[from * width + column])) {
                fail(shared, pass->team, status, phase, from, column);
                return;
            }
    }
}

static void gather_labels(region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    size_t begin, end;
    gp_team_share(pass->team, pass->samples, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        size_t from = row_of(shared->batch, pass->first + s);
        int64_t label = shared->batch->labels[from];
        if (label < 0 || (uint64_t)label >= net->out)
            fail(shared, pass->team, GP_BAD_LABEL, GP_PHASE_TARGET, from, 0);
        else net->labels[s] = label;
    }
}

/* Everything the block needs from outside; nothing else has been touched when it fails. */
static gp_status load(region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const gp_layer *first = &net->layers[0];
    /* only dW on all weights wants the batch outermost */
    int wants_rows =
        shared->backward && gp_layer_table[first->spec.type]->wants_rows && !first->weights[0].live;
    if (!gather(shared, pass, batch->x, net->in, net->input, wants_rows ? net->rows : NULL))
        find_bad(shared, pass, batch->x, net->in, GP_BAD_INPUT, GP_PHASE_INPUT);
    if (batch->targets && !gather(shared, pass, batch->targets, net->out, net->targets, NULL))
        find_bad(shared, pass, batch->targets, net->out, GP_BAD_TARGET, GP_PHASE_TARGET);
    if (batch->labels) gather_labels(shared, pass);
    gp_team_wait(pass->team);
    size_t failed = first_failure(shared, pass->team->size);
    return failed == GP_NONE ? GP_OK : shared->status[failed];
}

/* Whether a layer's output can be larger than its input, which is watched, too. */
static int may_grow(const gp_layer *layer)
{
    const gp_layer_spec *spec = &layer->spec;
    return layer->index == 0 || spec->type != GP_LAYER_ACTIVATION ||
           spec->activation == GP_SIGMOID ||
           (spec->activation == GP_LEAKY_RELU && spec->slope > 1.0f);
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
static void note_explosion(region *shared, const gp_pass *pass)
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

/* Whether a layer reads anything but the output of the one before. */
static int reads_further_back(const gp_layer *layer)
{
    return layer->spec.back > 1 || layer->spec.other > 0;
}

static const float *forward(region *shared, const gp_pass *pass, size_t n_layers)
{
    gp_net *net = shared->net;
    const float *x = net->input;
    const int is_limited = shared->backward && net->max_activation < INFINITY;
    size_t exploded = GP_NONE;
    for (size_t i = 0; i < n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        if (reads_further_back(layer)) {
            if (pass->team->rank == 0) layer->other = output_of(net, layer->source[1]);
            gp_team_wait(pass->team); /* then all can read what the first member has noted */
            x = output_of(net, layer->source[0]);
        }
        const float *y = gp_layer_table[layer->spec.type]->forward(layer, pass, x);
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

/* Losses of the block's samples into net->losses, their gradient into dz (unless NULL). */
static void loss_of(region *shared, const gp_pass *pass, const float *z, float *dz)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const size_t O = net->out, P = pass->lanes;
    const double elements = batch->loss == GP_MSE || batch->loss == GP_BCE ? (double)O : 1.0;
    const float factor = (float)(1.0 / ((double)batch->size * elements));
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++) {
        size_t valid = gp_smaller(P, pass->samples - gp_smaller(pass->samples, chunk * P)),
               at = chunk * O * P;
        float *gradient = dz ? dz + at : NULL, *losses = net->losses + chunk * P;
        switch (batch->loss) {
        case GP_CROSS_ENTROPY:
            pass->kernels->cross_entropy(O, P, valid, z + at, net->labels + chunk * P, gradient,
                                         losses, net->hits + chunk * P, batch->smoothing, factor);
            break;
        case GP_DISTILLATION:
            pass->kernels->cross_entropy(O, P, valid, z + at, net->labels + chunk * P, gradient,
                                         losses, net->hits + chunk * P, 0.0f,
                                         factor * (1.0f - batch->alpha));
            pass->kernels->distillation(O, P, valid, z + at, net->targets + at, gradient, losses,
                                        batch->temperature, batch->alpha, factor);
            break;
        case GP_MSE:
            pass->kernels->mean_squared_error(O, P, valid, z + at, net->targets + at, gradient,
                                              losses, factor);
            break;
        case GP_BCE:
            pass->kernels->binary_cross_entropy(O, P, valid, z + at, net->targets + at, gradient,
                                                losses, factor);
            break;
        case GP_LOSSES: break;
        }
    }
    gp_team_wait(pass->team);
    if (pass->team->rank == 0) {
        double sum = 0.0;
        for (size_t s = 0; s < pass->samples; s++) sum += (double)net->losses[s];
        shared->loss += sum / ((double)batch->size * elements);
        for (size_t s = 0; batch->labels && s < pass->samples; s++) shared->correct += net->hits[s];
    }
    gp_team_wait(pass->team);
}

/* Whether a layer's gradient is the first to come to its k-th source: that of the last layer that
 * reads it. */
static int is_first(const gp_layer *layer, size_t k)
{
    return layer->source[k]->last_reader == layer->index &&
           (k == 0 || layer->source[0] != layer->source[k]);
}

/* dx, a gradient of what the layer reads, to the sources that keep theirs. */
static void hand_on(const gp_layer *layer, const gp_pass *pass, const float *dx)
{
    for (size_t k = 0; k < GP_SOURCES; k++) {
        const gp_layer *source = layer->source[k];
        if (!source || !source->gradient || source->gradient == dx) continue;
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
static void backward(region *shared, const gp_pass *pass)
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
        dy = gp_layer_table[layer->spec.type]->backward(layer, pass, dy, dx);
        hand_on(layer, pass, dy);
    }
}

/* l1 sum|w| + l2 sum w^2 of every layer that asks for it, once a batch. Removed weights are 0 and
 * their gradient is left alone: the slope of both terms at 0 is 0. */
static void penalize(region *shared, const gp_team *team)
{
    const gp_net *net = shared->net;
    const gp_kernels *kernels = net->kernels;
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        const gp_layer_spec *spec = &layer->spec;
        const gp_layer_ops *ops = gp_layer_table[spec->type];
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

/* Gradients of listed layers: into the whole buffer, or a note that they are not there yet. */
static void publish(const region *shared, const gp_team *team)
{
    for (size_t i = 0; i < shared->net->n_layers; i++) {
        const gp_layer *layer = &shared->net->layers[i];
        for (const gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++) {
            gp_lists *lists = gp_live_at(shared->arena, matrix->offset);
            if (lists && team->rank == 0) lists->unpublished = matrix->live && shared->step;
            if (!matrix->live || shared->step) continue;
            size_t begin, end;
            gp_lists_share(team, lists->rows, lists->row_start, &begin, &end);
            gp_lists_expand(lists, begin, end, lists->gradient,
                            shared->arena->grads + matrix->offset);
        }
    }
}

/* out[s][o] from y[chunk][o][P] */
static void store(region *shared, const gp_pass *pass, const float *y)
{
    const size_t O = shared->net->out, P = pass->lanes;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks, &begin, &end);
    for (size_t chunk = begin; chunk < end; chunk++) {
        size_t valid = gp_smaller(P, pass->samples - gp_smaller(pass->samples, chunk * P));
        pass->kernels->transpose(O, valid, y + chunk * O * P, P,
                                 shared->out + (pass->first + chunk * P) * O, O);
    }
}

static gp_pass block_of(const region *shared, const gp_team *team, size_t first)
{
    gp_pass pass = {
        .kernels = shared->net->kernels,
        .arena = shared->arena,
        .team = team,
        .samples = gp_smaller(shared->block, shared->batch->size - first),
        .first = first,
        .batch = shared->batch->size,
        .training = shared->backward,
        .seed = shared->seed,
        .step = shared->dropout_step,
        .rows = shared->net->rows,
        .scratch = shared->net->scratch,
        .partial = shared->net->partial,
    };
    gp_net_cut(pass.samples, &pass.lanes, &pass.chunks);
    return pass;
}

static void run_blocks(region *shared, const gp_team *team)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const size_t size = batch->size;

    /* With several blocks a late fault would find gradients half written: look at everything
     * first. */
    for (size_t first = 0; size > shared->block && shared->backward && first < size;
         first += shared->block) {
        gp_pass pass = block_of(shared, team, first);
        if (load(shared, &pass) != GP_OK) return;
        /* nobody finds fault with the next block while others ask about this one */
        gp_team_wait(team);
    }
    for (size_t i = 0; i < net->n_layers; i++) {
        gp_layer *layer = &net->layers[i];
        if (team->rank == 0) {
            layer->penalty = 0.0;
            layer->pending = NULL;
        }
        for (const gp_matrix *matrix = layer->weights; matrix < layer->weights + layer->n_weights;
             matrix++)
            gp_arena_enforce(net->kernels, shared->arena, team, shared->arena->params,
                             matrix->offset, matrix->rows * matrix->columns);
    } /* load() meets before anybody reads them */
    for (size_t first = 0; first < size; first += shared->block) {
        gp_pass pass = block_of(shared, team, first);
        if (load(shared, &pass) != GP_OK) return;
        if (team->rank == 0) shared->last_first = first;
        const float *z = forward(shared, &pass, shared->n_live);
        if (batch->labels || batch->targets) {
            loss_of(shared, &pass, z, shared->backward ? net->gradient[0] : NULL);
            if (shared->backward) backward(shared, &pass);
        }
        if (shared->out) {
            for (size_t i = shared->n_live; i < net->n_layers; i++)
                z = gp_layer_table[net->layers[i].spec.type]->forward(&net->layers[i], &pass, z);
            store(shared, &pass, z);
        }
        /* a training batch that cannot be used ends here, with the culprit still in the workspace;
         * asked before the barrier, since after it the first member may add penalties */
        int useless = shared->backward && !isfinite(shared->loss);
        gp_team_wait(team); /* the next block overwrites what this one read */
        if (useless) break;
    }
    if (batch->labels || batch->targets) penalize(shared, team);
    if (shared->backward) publish(shared, team);
    /* a loss beyond float leaves the step out, as a gradient beyond float does */
    if (shared->step && isfinite(shared->loss) && !gp_net_exploded(net))
        gp_step_plan_run(shared->step, team);
}

static void run(void *context, const gp_team *team)
{
    uint64_t mode = gp_denormals_flush();
    run_blocks(context, team);
    gp_denormals_restore(mode);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static int arena_fits(const gp_net *net, const gp_arena *arena)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const gp_layer_spec *spec = &net->layers[i].spec;
        if (!gp_layer_table[spec->type]->is_valid(spec, arena->n, arena->n_prunable)) return 0;
        if (!gp_buffers_are_valid(spec, arena)) return 0;
    }
    return arena->n_prunable <= arena->n && arena->removed <= arena->n_prunable;
}

/* Whether the batch has what its loss is measured by. */
static int fits_loss(const gp_batch *batch)
{
    switch (batch->loss) {
    case GP_CROSS_ENTROPY:
        return batch->labels && batch->smoothing >= 0.0f && batch->smoothing <= 1.0f;
    case GP_DISTILLATION:
        return batch->labels && batch->targets && batch->temperature > 0.0f &&
               batch->temperature < INFINITY && batch->alpha >= 0.0f && batch->alpha <= 1.0f;
    case GP_MSE:
    case GP_BCE: return batch->targets != NULL;
    case GP_LOSSES: break;
    }
    return 0;
}

/* The layers to run before the loss: a last softmax (sigmoid) is part of cross entropy (binary
 * cross entropy). */
static size_t layers_before_loss(const gp_net *net, const gp_batch *batch)
{
    const gp_layer_spec *last = &net->layers[net->n_layers - 1].spec;
    int is_cross_entropy = batch->loss == GP_CROSS_ENTROPY || batch->loss == GP_DISTILLATION;
    int fused = (is_cross_entropy && last->type == GP_LAYER_SOFTMAX) ||
                (batch->loss == GP_BCE && last->type == GP_LAYER_ACTIVATION &&
                 last->activation == GP_SIGMOID);
    return net->n_layers - (fused ? 1 : 0);
}

/* Whether backward leaves the weights that start there as a step wants them: masked, and in their
 * lists if they have any. */
static uint8_t is_prepared(const gp_net *net, const gp_arena *arena, size_t offset)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const gp_layer *layer = &net->layers[i];
        for (size_t m = 0; m < layer->n_weights; m++)
            if (layer->weights[m].offset == offset)
                return layer->weights[m].live == gp_live_at(arena, offset);
    }
    return 0;
}

/* Running statistics move on after a pass that was good: all of them or none. */
static void keep_statistics(const region *shared)
{
    const gp_net *net = shared->net;
    if (!isfinite(shared->loss) || gp_net_exploded(net) ||
        (shared->step && !shared->step->info.applied))
        return;
    for (int copy = 0; copy < 2; copy++)
        for (const gp_layer *layer = net->layers; layer < net->layers + net->n_layers; layer++) {
            if (!layer->pending) continue;
            const size_t n = gp_layer_table[layer->spec.type]->buffers(&layer->spec);
            float *to = shared->arena->params + layer->spec.buffers;
            if (copy) memcpy(to, layer->pending, n * sizeof *to);
            else if (!(net->kernels->max_abs(n, layer->pending) < INFINITY)) return;
        }
}

static gp_status enter(region *shared, double passes, size_t threads)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    int wants_target = shared->backward || batch->labels || batch->targets;
    if (batch->size == 0 || batch->loss >= GP_LOSSES || (wants_target && !fits_loss(batch)) ||
        !arena_fits(net, shared->arena))
        return GP_BAD_ARGUMENT;
    shared->block =
        shared->backward && net->mixes_samples ? batch->size : gp_smaller(net->block, batch->size);
    gp_status status = gp_net_reserve(net, shared->block);
    if (status != GP_OK) return status;
    gp_net_look_up(net, shared->arena, shared->block);
    if (shared->backward) status = gp_net_reserve_partial(net, shared->block);
    if (status != GP_OK) return status;
    for (size_t i = 0; shared->step && i < shared->arena->n_segments; i++)
        shared->step->prepared[i] =
            is_prepared(net, shared->arena, shared->arena->segments[i].offset);
    shared->n_live = layers_before_loss(net, batch);
    net->last_samples = 0;
    net->input_fault = (gp_fault){.phase = GP_PHASE_NONE, .layer = GP_NONE, .step = GP_NONE};
    if (shared->backward) net->explosion = net->input_fault;
    gp_habit *habit = habit_of(net, batch->size, passes);
    if (net->macs * (double)batch->size * passes < GP_WORK_WORTH_SHARING) threads = 1;
    size_t used = gp_habit_choose(habit, threads);
    double began = gp_seconds();
    gp_pool_run(net->pool, used, run, shared);
    if (threads > 1) gp_habit_learn(habit, used, gp_seconds() - began);
    size_t failed = first_failure(shared, GP_MAX_THREADS);
    if (failed != GP_NONE) {
        net->input_fault = shared->fault[failed];
        return shared->status[failed];
    }
    if (shared->backward) {
        net->last_loss = shared->loss;
        net->last_first = shared->last_first;
        net->last_samples = gp_smaller(shared->block, batch->size - net->last_first);
        net->last_live = shared->n_live;
        keep_statistics(shared);
    }
    return GP_OK;
}

gp_status gp_net_train(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                       const gp_clip *clip, const gp_rule *rule, gp_result *result,
                       gp_step_info *info, double *segment_norms, uint64_t seed, uint64_t step,
                       size_t threads)
{
    gp_step_plan plan;
    gp_status status = gp_step_plan_create(&plan, net->kernels, arena, clip, rule, segment_norms);
    if (status != GP_OK) return status;
    region shared = {.net = net,
                     .arena = arena,
                     .batch = batch,
                     .backward = 1,
                     .step = &plan,
                     .seed = seed,
                     .dropout_step = step};
    status = enter(&shared, 3.0, threads);
    if (status == GP_OK) {
        *result = (gp_result){shared.loss, shared.correct};
        *info = plan.info;
    }
    gp_step_plan_destroy(&plan);
    return status;
}

gp_status gp_net_backward(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                          gp_result *result, uint64_t seed, uint64_t step, size_t threads)
{
    region shared = {.net = net,
                     .arena = arena,
                     .batch = batch,
                     .backward = 1,
                     .seed = seed,
                     .dropout_step = step};
    gp_status status = enter(&shared, 3.0, threads);
    if (status == GP_OK) *result = (gp_result){shared.loss, shared.correct};
    return status;
}

gp_status gp_net_evaluate(gp_net *net, const gp_arena *arena, const gp_batch *batch, float *out,
                          gp_result *result, size_t threads)
{
    region shared = {.net = net, .arena = arena, .batch = batch, .out = out};
    gp_status status = enter(&shared, 1.0, threads);
    if (status == GP_OK) *result = (gp_result){shared.loss, shared.correct};
    return status;
}

gp_status gp_net_predict(gp_net *net, const gp_arena *arena, size_t n, const float *x, float *out,
                         size_t threads)
{
    gp_batch batch = {.size = n, .x = x, .loss = GP_MSE};
    region shared = {.net = net, .arena = arena, .batch = &batch, .out = out};
    if (n == 0) return GP_OK;
    return enter(&shared, 1.0, threads);
}
