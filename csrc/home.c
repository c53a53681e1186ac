/* home.c - where the numbers of a segment are, and how they move.
 *
 * While nobody outside has a view, the values and gradients of a listed segment are in its lists
 * alone, no call looks at its removed entries, and the pages of its part of the whole buffers go
 * back to the system. Somebody who asks for a view gets the whole buffer filled; after that every
 * call brings what counts from there into the lists and back, with the same bits. When the last
 * view has gone, the next call that runs on the lists takes the numbers back.
 */
#include "home.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

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

/* Zeros; of a large piece, the pages that lie in it are given back, and read as zeros. */
static void clear(float *values, size_t n)
{
#if defined(__linux__)
    enum { WORTH_GIVING_BACK = 1 << 20 };
    const size_t bytes = n * sizeof *values;
    const long page = sysconf(_SC_PAGESIZE);
    if (bytes >= WORTH_GIVING_BACK && page > 0) {
        const uintptr_t size = (uintptr_t)page, begin = (uintptr_t)values, end = begin + bytes,
                        first = (begin + size - 1) / size * size, last = end / size * size;
        char *pages = (char *)values + (first - begin);
        if (madvise(pages, last - first, MADV_DONTNEED) == 0) {
            memset(values, 0, first - begin);
            memset(pages + (last - first), 0, end - last);
            return;
        }
    }
#endif
    memset(values, 0, n * sizeof *values);
}

void gp_arena_take(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment)
{
    const gp_segment *own = &arena->segments[segment];
    const gp_lists *lists = gp_live_segment(arena->live, segment);
    float *whole = buffer_of(arena, kind, segment);
    if (lists) {
        kernels->gather(lists->count, lists->flat, whole, gp_lists_numbers(lists, kind));
        clear(whole, own->length);
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

void gp_arena_enforce(const gp_kernels *kernels, const gp_arena *arena, const gp_team *team,
                      float *flat, size_t offset, size_t n)
{
    size_t begin, end;
    gp_team_share(team, n, &begin, &end);
    if (arena->removed == 0) return;
    const uint8_t *mask = arena->mask + offset + begin;
    float *values = flat + offset + begin;
    /* reading is cheaper than writing, and there is hardly ever anything to write */
    if (!kernels->is_masked(end - begin, mask, values)) kernels->mask(end - begin, mask, values);
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

void gp_arena_settle(const gp_kernels *kernels, const gp_arena *arena)
{
    for (int kind = 0; kind < GP_KINDS; kind++)
        for (size_t s = 0; s < arena->n_segments; s++) {
            const gp_home home = gp_home_of(arena, (gp_kind)kind, s);
            gp_arena_show(kernels, arena, (gp_kind)kind, s);
            set_home(arena, (gp_kind)kind, s, home == GP_OUTSIDE ? GP_OUTSIDE : GP_RETURNED);
        }
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
    else c->kernels->mask(n, c->before, whole);
    c->kernels->mask(n, c->after, whole);
    if (stays) return;
    if (c->to) {
        c->kernels->gather(c->to->count, c->to->flat, whole, gp_lists_numbers(c->to, kind));
        clear(whole, n);
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
    else c->kernels->mask(n, c->before, moment);
    c->kernels->mask(n, c->after, moment);
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
