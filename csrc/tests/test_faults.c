/* test_faults.c - what happens when the input, the labels or the parameters are bad, or numbers go
 * bad inside: what is refused, what is left as it was, and what the report names, whatever the
 * threads.
 */
#include "networks.h"

/* ---- bad data -------------------------------------------------------------------------------- */

/* train, backward and evaluate all refuse with `status` and say where; nothing has changed. */
static void refuses(scene *s, gp_status status, gp_phase phase, size_t row, size_t column,
                    size_t threads)
{
    gp_step_info info = {.norm = -1.0};
    gp_result result = {.loss = -1.0};
    float *out = allocated(s->batch.size * s->out * sizeof *out);
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, 1, threads),
                    status);
    input_fault_is(s, phase, row, column);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), status);
    input_fault_is(s, phase, row, column);
    CHECK_INT_EQUAL(gp_net_evaluate(s->net, &s->m.arena, &s->batch, out, &result, threads), status);
    input_fault_is(s, phase, row, column);
    CHECK(result.loss == -1.0 && info.norm == -1.0);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    snapshot_free(&whole);
    free(out);
}

/* The gradients of the last good batch survive a bad one, however late in it the fault lies. */
static void bad_input(const gp_kernels *kernels, size_t samples, size_t row, size_t threads)
{
    scene *s = scene_new(kernels, build_large, samples, &gp_loss_cross_entropy, 40);
    gp_result result;
    float out[21];
    model_prune(&s->m, 0.3, 41);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    float *grads = allocated(s->m.arena.n * sizeof *grads);
    memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);
    for (size_t i = 0; i < 3; i++) {
        const float bad[3] = {NAN, INFINITY, -INFINITY};
        const size_t column = i == 0 ? 0 : i == 1 ? 102 : 50;
        float good = s->x[row * s->in + column];
        s->x[row * s->in + column] = bad[i];
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, row, column, threads);
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 1, s->x + row * s->in, out, threads),
                        GP_BAD_INPUT);
        input_fault_is(s, GP_PHASE_INPUT, 0, column);
        s->x[row * s->in + column] = good;
    }
    CHECK_BYTES_EQUAL(s->m.arena.n * sizeof *grads, s->m.arena.grads, grads);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    no_fault(s);
    free(grads);
    scene_free(s);
}

static void test_bad_input(const gp_kernels *kernels)
{
    bad_input(kernels, 1, 0, 1);
    bad_input(kernels, 100, 99, 2);
    bad_input(kernels, 1100, 1060, 3); /* in the second block */
    if (!is_quick()) bad_input(kernels, 1100, 5, 2);
}

static void test_bad_label(const gp_kernels *kernels)
{
    static const int64_t bad[] = {-1, 21, INT64_MAX, INT64_MIN, (int64_t)1 << 32};
    for (size_t i = 0; i < 5; i++) {
        size_t samples = i % 2 ? 1050 : 60, row = samples - 1 - i;
        scene *s = scene_new(kernels, build_large, samples, &gp_loss_cross_entropy, 42);
        s->labels[row] = bad[i];
        refuses(s, GP_BAD_LABEL, GP_PHASE_TARGET, row, 0, 1 + i % 3);
        scene_free(s);
    }
}

static void test_bad_target(const gp_kernels *kernels)
{
    for (size_t i = 0; i < 4; i++) {
        size_t samples = i % 2 ? 1050 : 60, row = samples - 1 - i;
        scene *s =
            scene_new(kernels, build_large, samples, i < 2 ? &gp_loss_mse : &gp_loss_bce, 43);
        s->targets[row * s->out + 20 - i] = i % 2 ? NAN : INFINITY;
        refuses(s, GP_BAD_TARGET, GP_PHASE_TARGET, row, 20 - i, 1 + i % 3);
        scene_free(s);
    }
}

/* The row named is the row of x, not the place in the batch. Of two faults the first sample's
 * counts. */
static void test_bad_row_by_index(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_wide, 30, &gp_loss_cross_entropy, 44);
    const int64_t index[4] = {3, 28, 0, 7};
    s->batch.index = index;
    s->batch.size = 4;
    s->x[28 * s->in + 39] = NAN;
    s->x[7 * s->in] = INFINITY;
    s->x[5 * s->in] = NAN; /* not in the batch */
    refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 28, 39, 2);
    scene_free(s);
}

/* Of several faults the same one is reported by any team: x before labels, then the first
 * sample. */
static void test_first_of_many(const gp_kernels *kernels)
{
    for (size_t threads = 1; threads <= 4; threads++) {
        scene *s = scene_new(kernels, build_wide, 200, &gp_loss_cross_entropy, 45);
        s->labels[3] = -1;
        s->labels[150] = 10;
        refuses(s, GP_BAD_LABEL, GP_PHASE_TARGET, 3, 0, threads);
        s->x[190 * s->in + 5] = NAN;
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 190, 5, threads);
        s->x[70 * s->in + 7] = NAN;
        s->x[70 * s->in + 6] = INFINITY;
        refuses(s, GP_BAD_INPUT, GP_PHASE_INPUT, 70, 6, threads);
        scene_free(s);
    }
}

/* ---- numbers that go bad inside -------------------------------------------------------------- */

/* Layers of build_wide: 0 dense, 1 gelu, 2 dense, 3 tanh, 4 dense. */
static void bad_parameter(const gp_kernels *kernels, size_t layer, int bias, float value,
                          size_t samples)
{
    scene *s = scene_new(kernels, build_wide, samples, &gp_loss_cross_entropy, 50);
    const gp_layer_spec *spec = &s->m.layers[layer];
    const size_t row = bias ? 0 : spec->out - 1, column = bias ? spec->out - 2 : spec->in - 1;
    float *at = s->m.arena.params + (bias ? spec->bias : spec->weight + row * spec->in) + column;
    gp_step_info info = {0};
    gp_result result;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    *at = value;
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, 1, 2),
                    GP_OK);
    if (!info.applied || isnan(value)) CHECK(snapshot_equal(&whole, &s->m.arena));
    if (isnan(value)) CHECK(!info.applied && isnan(result.loss));
    fault_is(s, GP_PHASE_PARAMETER, layer, bias, row, column);
    snapshot_free(&whole);
    scene_free(s);
}

static void test_bad_parameter(const gp_kernels *kernels)
{
    for (size_t layer = 0; layer <= 4; layer += 2)
        for (int bias = 0; bias < 2; bias++) {
            bad_parameter(kernels, layer, bias, NAN, 33);
            bad_parameter(kernels, layer, bias, INFINITY, 1);
            bad_parameter(kernels, layer, bias, -INFINITY, is_quick() ? 65 : 1100);
        }
}

/* Finite parameters, infinite outputs: the layer, the sample and the feature are named. */
static void test_overflow_forward(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_classifier, 70, &gp_loss_cross_entropy, 51);
    const gp_layer_spec *last = &s->m.layers[2];
    gp_result result;
    for (size_t i = 0; i < s->in * 70; i++) s->x[i] = 0.0f;
    for (size_t i = 0; i < 17; i++) s->m.arena.params[s->m.layers[0].bias + i] = 1e20f;
    for (size_t i = 0; i < 17 * 5; i++)
        s->m.arena.params[last->weight + i] = i / 17 == 3 ? 1e30f : 0.0f;
    CHECK_INT_EQUAL(scene_backward(s, &result, 2), GP_OK);
    CHECK(!isfinite(result.loss));
    fault_is(s, GP_PHASE_FORWARD, 2, 0, 0, 3);
    scene_free(s);
}

/* The batch ends with the block that spoils it, so that the culprit can still be found there. */
static void test_overflow_in_a_block(const gp_kernels *kernels)
{
    for (size_t threads = 1; threads <= 3; threads++) {
        scene *s = scene_new(kernels, build_classifier, 2100, &gp_loss_cross_entropy, 56);
        const size_t row = threads == 1 ? 7 : threads == 2 ? 1023 : 1024;
        gp_step_info info = {.applied = 1};
        gp_result result;
        for (size_t i = 0; i < s->in; i++)
            s->m.arena.params[s->m.layers[0].weight + i] = i == 2 ? 1e10f : 0.0f;
        for (size_t i = 0; i < 2100; i++) s->x[i * s->in + 2] = i == row ? 1e30f : 1e-12f;
        snapshot whole = snapshot_take(&s->m.arena);
        CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info,
                                     NULL, SEED, 1, threads),
                        GP_OK);
        CHECK(!isfinite(result.loss) && !info.applied);
        CHECK(snapshot_equal(&whole, &s->m.arena));
        fault_is(s, GP_PHASE_FORWARD, 0, 0, row, 0);
        snapshot_free(&whole);
        scene_free(s);
    }
}

/* All outputs finite, but their squared errors are not: the step is left out. */
static void test_overflow_loss(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 3, &gp_loss_mse, 52);
    gp_step_info info = {.applied = 1};
    gp_result result;
    s->m.arena.params[0] = 1e30f;
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, 1, 1),
                    GP_OK);
    CHECK(result.loss == INFINITY && !info.applied && isnan(info.norm) && info.scale == 1.0 &&
          !info.clipped);
    CHECK(snapshot_equal(&whole, &s->m.arena));
    fault_is(s, GP_PHASE_LOSS, GP_NONE, 0, 0, 0);
    snapshot_free(&whole);
    scene_free(s);
}

/* Only a gradient overflows: dW = dz x is too large where z and the loss are not. */
static void test_overflow_backward(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 1, &gp_loss_mse, 53);
    gp_result result;
    gp_step_info info = {0};
    s->m.arena.params[0] = 1e-20f;
    s->x[0] = 1e30f;
    s->targets[0] = 1e15f;
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, 1, 1),
                    GP_OK);
    CHECK(isfinite(result.loss) && !info.applied);
    fault_is(s, GP_PHASE_BACKWARD, 0, 0, 0, 0);
    scene_free(s);
}

/* After a call that ran the last softmax and one that fused it with the loss, there is nothing left
 * of the first: not its numbers, nor its memory, which the larger batch has replaced. */
static void test_fault_after_fusing(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_softmax, 200, &gp_loss_mse, 54);
    gp_result result;
    float good = s->m.arena.params[0];
    s->batch.size = 5;
    s->m.arena.params[0] = NAN;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    fault_is(s, GP_PHASE_PARAMETER, 0, 0, 0, 0);
    s->m.arena.params[0] = good;
    s->batch.loss = &gp_loss_cross_entropy;
    s->batch.labels = s->labels;
    s->batch.targets = NULL;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    s->batch.size = 200;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    no_fault(s);
    scene_free(s);
}

/* Once another call has used the workspace, or failed in it, the outputs are not looked at any
 * more. */
static void test_fault_after_other_calls(const gp_kernels *kernels)
{
    for (int which = 0; which < 2; which++) {
        scene *s = scene_new(kernels, build_line, 300, &gp_loss_mse, 55);
        float out[300];
        gp_result result;
        s->batch.size = 2;
        s->m.arena.params[0] = s->x[1] = 1e30f;
        CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
        fault_is(s, GP_PHASE_FORWARD, 0, 0, 1, 0);
        s->x[1] = which ? NAN : 1.0f;
        CHECK_INT_EQUAL(gp_net_predict(s->net, &s->m.arena, 300, s->x, out, 1),
                        which ? GP_BAD_INPUT : GP_OK);
        gp_fault fault;
        gp_net_fault(s->net, &s->m.arena, &fault);
        fault_equals(&fault, GP_PHASE_LOSS, GP_NONE, 0, 0, 0);
        scene_free(s);
    }
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* One sample explodes: backward gives the same gradients and says so, train leaves the step out,
 * the report names it. */
static void limited(const gp_kernels *kernels, size_t samples, double sparsity, size_t threads)
{
    scene *s = scene_new(kernels, build_large, samples, &gp_loss_cross_entropy, 60);
    gp_step_info info;
    gp_result result, free_result;
    gp_fault fault;
    model_prune(&s->m, sparsity, 61);
    size_t last = s->m.n_layers - 1;
    while (model_rows(&s->m.layers[last]) == 0) last--;
    /* the last sample */
    for (size_t i = 0; i < s->in; i++) s->x[(samples - 1) * s->in + i] *= 1e6f;
    CHECK_INT_EQUAL(scene_backward(s, &free_result, threads), GP_OK);
    CHECK(!gp_net_exploded(s->net));
    float *grads = allocated(s->m.arena.n * sizeof *grads);
    memcpy(grads, s->m.arena.grads, s->m.arena.n * sizeof *grads);

    gp_net_limit(s->net, 1e4f, INFINITY);
    /* as before, but somebody noticed */
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    CHECK(gp_net_exploded(s->net) && result.loss == free_result.loss);
    CHECK_BYTES_EQUAL(s->m.arena.n * sizeof *grads, s->m.arena.grads, grads);
    gp_net_fault(s->net, &s->m.arena, &fault);
    CHECK(fault.phase == GP_PHASE_FORWARD && fault.layer == 0 && fault.row == samples - 1);
    CHECK(fabs(fault.value) > 1e4);
    snapshot whole = snapshot_take(&s->m.arena);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, STEP, threads),
                    GP_OK);
    CHECK(!info.applied && isnan(info.norm) && snapshot_equal(&whole, &s->m.arena));
    snapshot_free(&whole);

    /* of gradients only the report knows here: the step's limit is the rule's */
    gp_net_limit(s->net, 1e8f, 1e-30f);
    CHECK_INT_EQUAL(scene_backward(s, &result, threads), GP_OK);
    gp_net_fault(s->net, &s->m.arena, &fault);
    CHECK(!gp_net_exploded(s->net) && fault.phase == GP_PHASE_BACKWARD && fault.layer == last);
    gp_net_limit(s->net, INFINITY, INFINITY);
    CHECK_INT_EQUAL(gp_net_train(s->net, &s->m.arena, &s->batch, &clip, &rule, &result, &info, NULL,
                                 SEED, STEP, threads),
                    GP_OK);
    CHECK(info.applied && !gp_net_exploded(s->net));
    free(grads);
    scene_free(s);
}

static void test_limited(const gp_kernels *kernels)
{
    limited(kernels, 1, 0.0, 1);
    limited(kernels, 64, 0.0, 2);
    limited(kernels, 100, 0.9, 3);
    limited(kernels, 1100, 0.0, 2); /* in the second block */
}

/* Lanes without a sample hold what the biases make of nothing: that is no output. */
static void test_empty_lanes_do_not_explode(const gp_kernels *kernels)
{
    scene *s = scene_new(kernels, build_line, 1, &gp_loss_mse, 62);
    gp_result result;
    s->m.arena.params[0] = -100.0f; /* y = -100 x + 100, x = 1 */
    s->m.arena.params[1] = 100.0f;
    s->x[0] = 1.0f;
    gp_net_limit(s->net, 10.0f, INFINITY);
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    CHECK(!gp_net_exploded(s->net));
    s->x[0] = 0.0f;
    CHECK_INT_EQUAL(scene_backward(s, &result, 1), GP_OK);
    CHECK(gp_net_exploded(s->net));
    scene_free(s);
}

int main(void)
{
    if (gp_pool_create(&pool) != GP_OK) return 1;
    OVER_INSTRUCTION_SETS(test_bad_input);
    OVER_INSTRUCTION_SETS(test_bad_label);
    OVER_INSTRUCTION_SETS(test_bad_target);
    OVER_INSTRUCTION_SETS(test_bad_row_by_index);
    OVER_INSTRUCTION_SETS(test_first_of_many);
    OVER_INSTRUCTION_SETS(test_bad_parameter);
    OVER_INSTRUCTION_SETS(test_overflow_forward);
    OVER_INSTRUCTION_SETS(test_overflow_in_a_block);
    OVER_INSTRUCTION_SETS(test_overflow_loss);
    OVER_INSTRUCTION_SETS(test_overflow_backward);
    OVER_INSTRUCTION_SETS(test_fault_after_fusing);
    OVER_INSTRUCTION_SETS(test_fault_after_other_calls);
    OVER_INSTRUCTION_SETS(test_limited);
    OVER_INSTRUCTION_SETS(test_empty_lanes_do_not_explode);
    gp_pool_destroy(pool);
    return check_summary();
}
