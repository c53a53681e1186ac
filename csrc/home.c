/* home.c - where the numbers of a segment are, and how they move.
 *
 * While nobody outside has a view, the values and gradients of a listed segment are in its lists
 * alone, no call looks at its removed entries, and the pages of its part of the whole buffers go
 * back to the system. Somebody who asks for a view gets the whole buffer filled; after that every
 * call brings what counts from there into the lists and back, with the same bits. When the last
 * view has gone, the next call that runs on the lists takes the numbers back.
 */
#include "home.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

gp_home gp_home_of(const gp_arena *arena, gp_kind kind, size_t segment)
{
    return arena->homes[kind] ? (gp_home)arena->homes[kind][segment] : GP_OUTSIDE;
}

static void set_home(const gp_arena *arena, gp_kind kind, size_t segment, gp_home home)
{
    if (arena->homes[kind]) arena->homes[kind][segment] = (uint8_t)home;
}

size_t gp_segment_at(const gp_arena *arena, size_t offset)
{
    for (size_t s = 0; s < arena->n_segments; s++)
        if (arena->segments[s].offset == offset) return s;
    return GP_NONE;
}

static float *buffer_of(const gp_arena *arena, gp_kind kind, size_t segment)
{
    return (kind == GP_VALUES ? arena->params : arena->grads) + arena->segments[segment].offset;
}

void gp_arena_take(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment)
{
    const gp_segment *own = &arena->segments[segment];
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    float *whole = buffer_of(arena, kind, segment);
    if (lists) {
        kernels->gather(lists->count, lists->flat, whole, gp_lists_numbers(lists, kind));
        gp_clear(own->length, whole);
    } else if (own->offset < arena->n_prunable && arena->removed > 0)
        kernels->mask(own->length, arena->mask + own->offset, whole);
    set_home(arena, kind, segment, GP_INSIDE);
}

void gp_arena_spread(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment)
{
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    if (lists)
        kernels->scatter(lists->count, lists->flat, gp_lists_numbers(lists, kind),
                         buffer_of(arena, kind, segment));
    set_home(arena, kind, segment, GP_RETURNED);
}

/* Reading is cheaper than writing, and there is hardly ever anything to write. Pages that nobody
 * has written to do not become memory. */
static void mask_numbers(const gp_kernels *kernels, size_t n, const uint8_t *mask, float *values)
{
    if (!kernels->is_masked(n, mask, values)) kernels->mask(n, mask, values);
}

void gp_arena_enforce(const gp_kernels *kernels, const gp_arena *arena, const gp_team *team,
                      float *flat, size_t offset, size_t n)
{
    size_t begin, end;
    gp_team_share(team, n, &begin, &end);
    if (arena->removed == 0) return;
    mask_numbers(kernels, end - begin, arena->mask + offset + begin, flat + offset + begin);
}

void gp_arena_show(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment)
{
    const gp_team alone = {.size = 1};
    const gp_segment *own = &arena->segments[segment];
    if (gp_home_of(arena, kind, segment) == GP_INSIDE)
        gp_arena_spread(kernels, arena, kind, segment);
    else if (own->offset < arena->n_prunable)
        gp_arena_enforce(kernels, arena, &alone, kind == GP_VALUES ? arena->params : arena->grads,
                         own->offset, own->length);
    set_home(arena, kind, segment, GP_OUTSIDE);
}

static void settle(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        const gp_home home = gp_home_of(arena, kind, s);
        gp_arena_show(kernels, arena, kind, s);
        set_home(arena, kind, s, home == GP_OUTSIDE ? GP_OUTSIDE : GP_RETURNED);
    }
}

void gp_arena_settle(const gp_kernels *kernels, const gp_arena *arena)
{
    for (int kind = 0; kind < GP_KINDS; kind++) settle(kernels, arena, (gp_kind)kind);
}

void gp_arena_lend(const gp_kernels *kernels, const gp_arena *arena)
{
    settle(kernels, arena, GP_VALUES);
}

void gp_arena_take_back(const gp_kernels *kernels, const gp_arena *arena)
{
    for (size_t s = 0; s < arena->n_segments; s++)
        if (gp_home_of(arena, GP_VALUES, s) == GP_RETURNED && gp_live_segment(arena->live, s))
            gp_arena_take(kernels, arena, GP_VALUES, s);
}

/* ---- live entries, wherever they are --------------------------------------------------------- */

/* Of a segment that is not listed, in the whole buffer. */
static int has_removed(const gp_arena *arena, size_t segment)
{
    return arena->removed > 0 && arena->segments[segment].offset < arena->n_prunable;
}

/* Between a whole segment without lists and its live entries. */
static void read_whole(const gp_arena *arena, size_t segment, const float *whole, float *live)
{
    const size_t n = arena->segments[segment].length;
    const uint8_t *mask = arena->mask + arena->segments[segment].offset;
    if (!has_removed(arena, segment)) memcpy(live, whole, n * sizeof *live);
    else
        for (size_t i = 0; i < n; i++)
            if (mask[i]) *live++ = whole[i];
}

static void write_whole(const gp_arena *arena, size_t segment, float *whole, const float *live)
{
    const size_t n = arena->segments[segment].length;
    const uint8_t *mask = arena->mask + arena->segments[segment].offset;
    if (!has_removed(arena, segment)) memcpy(whole, live, n * sizeof *live);
    else
        for (size_t i = 0; i < n; i++)
            if (mask[i]) whole[i] = *live++;
}

size_t gp_arena_live_count(const gp_arena *arena, size_t segment)
{
    const gp_segment *own = &arena->segments[segment];
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    if (lists) return lists->count;
    return has_removed(arena, segment) ? gp_mask_count(own->length, arena->mask + own->offset)
                                       : own->length;
}

void gp_arena_collect_segment(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, float *live)
{
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    const float *whole = buffer_of(arena, kind, segment);
    if (!lists) read_whole(arena, segment, whole, live);
    else if (gp_home_of(arena, kind, segment) == GP_INSIDE)
        memcpy(live, gp_lists_numbers(lists, kind), lists->count * sizeof *live);
    else kernels->gather(lists->count, lists->flat, whole, live);
}

void gp_arena_replace_segment(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, const float *live)
{
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    float *whole = buffer_of(arena, kind, segment);
    if (!lists) write_whole(arena, segment, whole, live);
    else if (gp_home_of(arena, kind, segment) == GP_OUTSIDE)
        kernels->scatter(lists->count, lists->flat, live, whole);
    else {
        if (gp_home_of(arena, kind, segment) == GP_RETURNED)
            gp_clear(arena->segments[segment].length, whole);
        memcpy(gp_lists_numbers(lists, kind), live, lists->count * sizeof *live);
        set_home(arena, kind, segment, GP_INSIDE);
    }
}

void gp_arena_collect(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, float *live)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        gp_arena_collect_segment(kernels, arena, kind, s, live);
        live += gp_arena_live_count(arena, s);
    }
    if (kind == GP_VALUES) memcpy(live, arena->params + arena->n, arena->n_buffers * sizeof *live);
}

void gp_arena_replace(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                      const float *live)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        gp_arena_replace_segment(kernels, arena, kind, s, live);
        live += gp_arena_live_count(arena, s);
    }
    if (kind == GP_VALUES) memcpy(arena->params + arena->n, live, arena->n_buffers * sizeof *live);
}

void gp_arena_collect_moment(const gp_arena *arena, const float *moment, float *live)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        const float *own = moment + arena->segments[s].offset;
        const size_t count = gp_arena_live_count(arena, s);
        if (gp_live_segment(arena->live, s)) memcpy(live, own, count * sizeof *live);
        else read_whole(arena, s, own, live);
        live += count;
    }
}

void gp_arena_replace_moment(const gp_arena *arena, float *moment, const float *live)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        float *own = moment + arena->segments[s].offset;
        const size_t count = gp_arena_live_count(arena, s);
        if (gp_live_segment(arena->live, s)) memcpy(own, live, count * sizeof *own);
        else write_whole(arena, s, own, live);
        live += count;
    }
}

const float *gp_arena_settled(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, size_t *n)
{
    const gp_team alone = {.size = 1};
    const gp_segment *own = &arena->segments[segment];
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    const int is_inside = gp_home_of(arena, kind, segment) == GP_INSIDE;
    float *whole = buffer_of(arena, kind, segment);
    *n = lists ? lists->count : own->length;
    if (lists) {
        float *numbers = gp_lists_numbers(lists, kind);
        if (!is_inside) kernels->gather(lists->count, lists->flat, whole, numbers);
        return numbers;
    }
    if (!is_inside && own->offset < arena->n_prunable)
        gp_arena_enforce(kernels, arena, &alone, whole - own->offset, own->offset, own->length);
    return whole;
}

int gp_arena_is_finite(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind)
{
    for (size_t s = 0; s < arena->n_segments; s++) {
        size_t n;
        const float *numbers = gp_arena_settled(kernels, arena, kind, s, &n);
        if (!(kernels->max_abs(n, numbers) < INFINITY)) return 0;
    }
    return kind != GP_VALUES ||
           kernels->max_abs(arena->n_buffers, arena->params + arena->n) < INFINITY;
}

/* ---- a new mask ------------------------------------------------------------------------------ */

/* What becomes of a segment. */
typedef struct change {
    const gp_kernels *kernels;
    const gp_arena *arena; /* as it was */
    size_t segment;
    const uint8_t *before, *after; /* the segment's mask */
    const gp_lists *from, *to;
    float *carried; /* room for the numbers of `to` */
} change;

static void change_numbers(const change *c, gp_kind kind)
{
    const size_t n = c->arena->segments[c->segment].length;
    const int is_inside = gp_home_of(c->arena, kind, c->segment) == GP_INSIDE,
              stays = gp_home_of(c->arena, kind, c->segment) == GP_OUTSIDE;
    float *whole = buffer_of(c->arena, kind, c->segment);
    if (is_inside && c->from && c->to) {
        gp_lists_carry(c->from, gp_lists_numbers(c->from, kind), c->to,
                       gp_lists_numbers(c->to, kind));
        return;
    }
    /* what was written where the old mask is 0 must not come back with the new one */
    if (is_inside) gp_arena_spread(c->kernels, c->arena, kind, c->segment);
    else mask_numbers(c->kernels, n, c->before, whole);
    if (stays || !c->to) mask_numbers(c->kernels, n, c->after, whole);
    if (stays) return;
    if (c->to) {
        c->kernels->gather(c->to->count, c->to->flat, whole, gp_lists_numbers(c->to, kind));
        gp_clear(n, whole);
    }
    set_home(c->arena, kind, c->segment, GP_INSIDE);
}

static void change_moment(const change *c, float *moment)
{
    const size_t n = c->arena->segments[c->segment].length;
    if (c->from && c->to) {
        gp_lists_carry(c->from, moment, c->to, c->carried);
        memcpy(moment, c->carried, c->to->count * sizeof *moment);
        for (size_t k = c->to->count; k < c->from->count; k++) moment[k] = 0.0f;
        return;
    }
    if (c->from) gp_lists_unpack(c->from, moment);
    else mask_numbers(c->kernels, n, c->before, moment);
    mask_numbers(c->kernels, n, c->after, moment);
    if (c->to) gp_lists_pack(c->to, moment);
}

gp_status gp_arena_set_mask(const gp_kernels *kernels, gp_arena *arena, uint8_t *own,
                            const uint8_t *mask, const gp_costs *costs, size_t n_moments,
                            float *const *moments)
{
    gp_arena next = *arena;
    next.mask = mask;
    gp_status status = gp_live_create(&next, costs, &next.live);
    if (status != GP_OK) return status;
    size_t longest = 0;
    for (size_t s = 0; s < arena->n_segments; s++) {
        const gp_lists *to = gp_live_segment(next.live, s);
        if (to && to->count > longest) longest = to->count;
    }
    float *carried = malloc((longest + 1) * sizeof *carried);
    if (!carried) {
        gp_live_destroy(next.live);
        return GP_NO_MEMORY;
    }
    for (size_t s = 0; s < arena->n_segments; s++) {
        const size_t offset = arena->segments[s].offset;
        if (offset >= arena->n_prunable) continue;
        const change c = {.kernels = kernels,
                          .arena = arena,
                          .segment = s,
                          .before = arena->mask + offset,
                          .after = mask + offset,
                          .from = gp_live_segment(arena->live, s),
                          .to = gp_live_segment(next.live, s),
                          .carried = carried};
        change_numbers(&c, GP_VALUES);
        change_numbers(&c, GP_GRADIENTS);
        for (size_t i = 0; i < n_moments; i++) change_moment(&c, moments[i] + offset);
    }
    free(carried);
    memmove(own, mask, arena->n_prunable);
    gp_live_destroy(arena->live);
    arena->live = next.live;
    arena->removed = arena->n_prunable - gp_mask_count(arena->n_prunable, own);
    return GP_OK;
}
