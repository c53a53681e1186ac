/* load.c - brings a block of samples into the workspace: x, labels and targets, checked. */
#include <math.h>
#include <string.h>

#include "layers/parts/lengths.h"
#include "region.h"

size_t gp_region_failure(const gp_region *shared, size_t members)
{
    size_t found = GP_NONE;
    for (size_t i = members; i-- > 0;) {
        int later = found != GP_NONE && shared->status[found] == GP_BAD_INPUT &&
                    shared->status[i] != GP_BAD_INPUT;
        if (shared->status[i] != GP_OK && !later) found = i;
    }
    return found;
}

static void fail(gp_region *shared, const gp_team *team, gp_status status, gp_phase phase,
                 size_t row, size_t column)
{
    if (shared->status[team->rank] != GP_OK) return;
    shared->status[team->rank] = status;
    shared->fault[team->rank] =
        (gp_fault){.phase = phase, .layer = GP_NONE, .step = GP_NONE, .row = row, .column = column};
}

/* lanes [chunk][feature][P] from the rows of the batch, this member's share of the features.
 * Returns 1 if all are finite. */
static int gather(const gp_region *shared, const gp_pass *pass, const float *values, size_t width,
                  float *lanes)
{
    enum { FEATURES = 64 };
    const size_t P = pass->lanes, blocks = (width + FEATURES - 1) / FEATURES;
    size_t begin, end;
    int finite = 1;
    gp_team_share(pass->team, pass->chunks * blocks, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t chunk = item / blocks, f = item % blocks * FEATURES,
               n = gp_smaller(FEATURES, width - f);
        size_t first = chunk * P,
               samples = gp_smaller(P, pass->samples - gp_smaller(pass->samples, first));
        const float *from[GP_LANES];
        for (size_t s = 0; s < samples; s++)
            from[s] = values + gp_region_row(shared->batch, pass->first + first + s) * width;
        finite &= pass->kernels->to_lanes(samples, n, from, f, P, lanes + (chunk * width + f) * P);
    }
    return finite;
}

/* The first number of the block that is not finite or, with `below`, no whole one below it, in the
 * order of samples: found by one member, whoever met one. */
static void find_bad(gp_region *shared, const gp_pass *pass, const float *values, size_t width,
                     gp_status status, gp_phase phase, size_t below)
{
    for (size_t s = 0; s < pass->samples; s++) {
        size_t from = gp_region_row(shared->batch, pass->first + s);
        for (size_t column = 0; column < width; column++)
            if (!gp_is_input(values[from * width + column], below)) {
                fail(shared, pass->team, status, phase, from, column);
                shared->fault[pass->team->rank].below = below;
                return;
            }
    }
}

static void gather_labels(gp_region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    size_t begin, end;
    gp_team_share(pass->team, pass->samples, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        size_t from = gp_region_row(shared->batch, pass->first + s);
        int64_t label = shared->batch->labels[from];
        if (gp_region_ignores(shared->batch, from)) net->labels[s] = 0; /* it only has to be one */
        else if (label < 0 || (uint64_t)label >= net->out)
            fail(shared, pass->team, GP_BAD_LABEL, GP_PHASE_TARGET, from, 0);
        else net->labels[s] = label;
    }
}

/* By one member. */
static void gather_lengths(const gp_region *shared, const gp_pass *pass)
{
    const gp_batch *batch = shared->batch;
    uint32_t *lengths = shared->net->lengths;
    for (size_t s = 0; s < pass->samples; s++)
        lengths[s] = (uint32_t)batch->lengths[gp_region_row(batch, pass->first + s)];
    for (size_t s = pass->samples; s < pass->chunks * pass->lanes; s++) lengths[s] = 0;
}

/* What pads a sample becomes 0, so that nothing depends on it. */
static void clear_padding(const gp_region *shared, const gp_pass *pass)
{
    const size_t T = pass->steps, P = pass->lanes, features = shared->net->in / T;
    size_t begin, end;
    gp_team_share(pass->team, pass->chunks * T, &begin, &end);
    for (size_t at = begin; at < end; at++)
        gp_lengths_clear(features, P, pass->lengths + at / T * P, at % T,
                         shared->net->input + at * features * P);
    gp_team_wait(pass->team);
}

gp_status gp_region_load(gp_region *shared, const gp_pass *pass)
{
    gp_net *net = shared->net;
    const gp_batch *batch = shared->batch;
    const int finite = shared->resumed || gather(shared, pass, batch->x, net->in, net->input);
    if (!finite || (net->below > 0 && !shared->resumed))
        find_bad(shared, pass, batch->x, net->in, GP_BAD_INPUT, GP_PHASE_INPUT, net->below);
    const int takes = batch->loss ? batch->loss->takes : 0;
    if ((takes & GP_TAKES_VALUES) && batch->targets &&
        !gather(shared, pass, batch->targets, net->out, net->targets))
        find_bad(shared, pass, batch->targets, net->out, GP_BAD_TARGET, GP_PHASE_TARGET, 0);
    if ((takes & GP_TAKES_LABELS) && batch->labels) gather_labels(shared, pass);
    if (pass->lengths && pass->team->rank == 0) gather_lengths(shared, pass);
    gp_team_wait(pass->team);
    size_t failed = gp_region_failure(shared, pass->team->size);
    if (failed == GP_NONE && pass->lengths && !shared->resumed) clear_padding(shared, pass);
    return failed == GP_NONE ? GP_OK : shared->status[failed];
}
