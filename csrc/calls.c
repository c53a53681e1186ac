/* calls.c - the calls of a network: arguments are checked, a team is chosen, the region run, and
 * what it left is kept.
 */
#include <math.h>
#include <string.h>

#include "region.h"

/* Fewer multiply-adds than this are done by one thread, without trying two. */
#define GP_WORK_WORTH_SHARING 200000.0

/* The habit of calls with about so much work: one for each power of two. */
static gp_habit *habit_of(gp_net *net, size_t samples, double passes)
{
    int size = 0;
    frexp(net->macs * (double)samples * passes, &size);
    return &net->habits[size < 0 ? 0 : (size < GP_HABITS ? size : GP_HABITS - 1)];
}

static int arena_fits(const gp_net *net, const gp_arena *arena)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const gp_layer_spec *spec = &net->layers[i].spec;
        if (!spec->type->is_valid(spec, arena->n, arena->n_prunable)) return 0;
        if (!gp_buffers_are_valid(spec, arena)) return 0;
    }
    return arena->n_prunable <= arena->n && arena->removed <= arena->n_prunable;
}

/* Whether the batch has what its loss is measured by. */
static int fits_loss(const gp_batch *batch)
{
    const gp_loss_ops *loss = batch->loss;
    return loss && (batch->labels || !(loss->takes & GP_TAKES_LABELS)) &&
           (batch->targets || !(loss->takes & GP_TAKES_VALUES)) &&
           (!loss->is_valid || loss->is_valid(batch->settings));
}

/* Whether the lengths are those of the samples, padded to as many steps as the network reads. */
static int fits_lengths(const gp_net *net, const gp_batch *batch)
{
    const size_t steps = batch->steps;
    if (!batch->lengths) return steps == 0 && !batch->by_step;
    if (steps == 0 || steps > UINT32_MAX || net->in % steps != 0) return 0;
    if (batch->by_step && (net->out % steps != 0 || batch->labels)) return 0;
    for (size_t s = 0; s < batch->size; s++) {
        const int64_t length = batch->lengths[gp_region_row(batch, s)];
        if (length < 1 || (uint64_t)length > steps) return 0;
    }
    return 1;
}

/* The layers to run before the loss: without a last one that is part of it. */
static size_t layers_before_loss(const gp_net *net, const gp_batch *batch)
{
    const gp_fused fuses = batch->loss ? batch->loss->fuses : GP_FUSES_NOTHING;
    const gp_layer_spec *last = &net->layers[net->n_layers - 1].spec;
    const int is_fused =
        fuses != GP_FUSES_NOTHING && last->type->fused && last->type->fused(last) == fuses;
    return net->n_layers - (is_fused ? 1 : 0);
}

/* Whether backward leaves the weights that start there as a step wants them: masked, and in their
 * lists if they have any. */
static uint8_t is_prepared(const gp_net *net, const gp_arena *arena, size_t offset)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const gp_layer *layer = &net->layers[i];
        for (size_t m = 0; m < layer->n_weights; m++)
            if (layer->weights[m].offset == offset)
                return layer->weights[m].live ==
                       gp_live_segment(arena->live, gp_segment_at(arena, offset));
    }
    return 0;
}

/* Running statistics move on after a pass that was good: all of them or none. */
static void keep_statistics(const gp_region *shared)
{
    const gp_net *net = shared->net;
    if (!isfinite(shared->loss) || gp_net_exploded(net) ||
        (shared->step && !shared->step->info.applied))
        return;
    for (int copy = 0; copy < 2; copy++)
        for (const gp_layer *layer = net->layers; layer < net->layers + net->n_layers; layer++) {
            if (!layer->pending) continue;
            const size_t n = layer->spec.type->buffers(&layer->spec);
            float *to = shared->arena->params + layer->spec.buffers;
            if (copy) memcpy(to, layer->pending, n * sizeof *to);
            else if (!(net->kernels->max_abs(n, layer->pending) < INFINITY)) return;
        }
}

/* Sums up what the samples count. 0 if that is no number to divide by. */
static int weigh(gp_region *shared)
{
    const gp_batch *batch = shared->batch;
    shared->weight = (double)batch->size;
    if (batch->loss->given) shared->loss = batch->loss->given(batch->settings);
    const int by_step = batch->by_step && !batch->loss->given;
    if (!batch->weights && !batch->loss->ignores && !by_step) return 1;
    shared->weight = 0.0;
    shared->weighted = batch->weights != NULL || by_step;
    for (size_t s = 0; s < batch->size; s++) {
        const size_t row = gp_region_row(batch, s);
        const double part = by_step ? (double)batch->lengths[row] / (double)batch->steps : 1.0;
        shared->weighted |= gp_region_ignores(batch, row);
        shared->weight += gp_region_weight(batch, row) * part;
    }
    return shared->weight > 0.0 && shared->weight < INFINITY;
}

static gp_held batch_of(const gp_region *shared)
{
    return (gp_held){.x = shared->batch->x,
                     .index = shared->batch->index,
                     .lengths = shared->batch->lengths,
                     .size = shared->batch->size,
                     .seed = shared->seed,
                     .step = shared->dropout_step};
}

/* Whether the workspace shows the forward pass of this very call. */
static int is_held(const gp_net *net, const gp_region *shared)
{
    const gp_held now = batch_of(shared);
    return net->held.x == now.x && net->held.index == now.index &&
           net->held.lengths == now.lengths && net->held.size == now.size &&
           net->held.seed == now.seed && net->held.step == now.step;
}

static gp_status enter(gp_region *shared, double passes, size_t threads)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    int wants_target = shared->backward || gp_region_measures(shared);
    if (batch->size == 0 || (wants_target && !fits_loss(batch)) || !fits_lengths(net, batch) ||
        !arena_fits(net, shared->arena))
        return GP_BAD_ARGUMENT;
    if (wants_target && !weigh(shared)) return GP_NO_WEIGHT;
    shared->block =
        shared->training && net->mixes_samples ? batch->size : gp_smaller(net->block, batch->size);
    shared->resumed = shared->backward && batch->loss->given && is_held(net, shared);
    net->held = (gp_held){0};
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
    if (shared->training && !shared->resumed) net->explosion = net->input_fault;
    gp_habit *habit = habit_of(net, batch->size, passes);
    if (net->macs * (double)batch->size * passes < GP_WORK_WORTH_SHARING) threads = 1;
    size_t used = gp_habit_choose(habit, threads);
    double began = gp_seconds();
    gp_pool_run(net->pool, used, gp_region_run, shared);
    if (threads > 1) gp_habit_learn(habit, used, gp_seconds() - began);
    size_t failed = gp_region_failure(shared, GP_MAX_THREADS);
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
    gp_region shared = {.net = net,
                        .arena = arena,
                        .batch = batch,
                        .training = 1,
                        .backward = 1,
                        .step = &plan,
                        .seed = seed,
                        .dropout_step = step};
    status = enter(&shared, 3.0, threads);
    if (status == GP_OK) {
        *result = (gp_result){shared.loss, shared.correct, shared.weight};
        *info = plan.info;
    }
    gp_step_plan_destroy(&plan);
    return status;
}

gp_status gp_net_train_many(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                            const gp_course *course, const gp_clip *clip, const gp_rule *rule,
                            gp_taken *taken, size_t *done, double *segment_norms, uint64_t seed,
                            uint64_t step, size_t threads)
{
    gp_batch part = *batch;
    gp_rule now = *rule;
    const double began = gp_seconds();
    for (*done = 0; *done < course->n; now.step++) {
        if (*done > 0 && gp_seconds() - began > course->seconds) break;
        if (course->sizes) {
            if (*done > 0) part.index += part.size;
            part.size = course->sizes[*done];
        }
        now.lr = course->lr[*done];
        gp_status status = gp_net_train(net, arena, &part, clip, &now, &taken[*done].result,
                                        &taken[*done].info, segment_norms, seed, step++, threads);
        const int goes_on = status == GP_OK && taken[*done].info.applied;
        if (!goes_on && *done > 0) return GP_OK;
        if (status != GP_OK) return status;
        ++*done;
        if (!goes_on) break;
    }
    return GP_OK;
}

gp_status gp_net_backward(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                          gp_result *result, uint64_t seed, uint64_t step, size_t threads)
{
    gp_region shared = {.net = net,
                        .arena = arena,
                        .batch = batch,
                        .training = 1,
                        .backward = 1,
                        .seed = seed,
                        .dropout_step = step};
    gp_status status = enter(&shared, 3.0, threads);
    if (status == GP_OK) *result = (gp_result){shared.loss, shared.correct, shared.weight};
    return status;
}

gp_status gp_net_forward(gp_net *net, const gp_arena *arena, const gp_batch *batch, float *out,
                         uint64_t seed, uint64_t step, size_t threads)
{
    const gp_batch inputs = {.size = batch->size,
                             .x = batch->x,
                             .index = batch->index,
                             .lengths = batch->lengths,
                             .steps = batch->steps,
                             .by_step = batch->by_step};
    gp_region shared = {.net = net,
                        .arena = arena,
                        .batch = &inputs,
                        .training = 1,
                        .out = out,
                        .seed = seed,
                        .dropout_step = step};
    gp_status status = enter(&shared, 1.0, threads);
    if (status == GP_OK && shared.block == batch->size) net->held = batch_of(&shared);
    return status;
}

gp_status gp_net_evaluate(gp_net *net, const gp_arena *arena, const gp_batch *batch, float *out,
                          gp_result *result, size_t threads)
{
    gp_region shared = {.net = net, .arena = arena, .batch = batch, .out = out};
    gp_status status = enter(&shared, 1.0, threads);
    if (status == GP_OK) *result = (gp_result){shared.loss, shared.correct, shared.weight};
    return status;
}

gp_status gp_net_predict(gp_net *net, const gp_arena *arena, size_t n, const float *x, float *out,
                         size_t threads)
{
    gp_batch batch = {.size = n, .x = x};
    gp_region shared = {.net = net, .arena = arena, .batch = &batch, .out = out};
    if (n == 0) return GP_OK;
    return enter(&shared, 1.0, threads);
}
