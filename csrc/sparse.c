/* sparse.c - lists of live weights. They are made when the mask changes, in one pass over it and a
 * few over the entries, and never patched. What the optimizer keeps of a listed segment is packed:
 * its live entries side by side.
 */
#include "sparse.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

size_t gp_mask_count(size_t n, const uint8_t *mask)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) kept += mask[i] != 0;
    return kept;
}

static int are_alike(const gp_lists *lists, size_t row)
{
    const uint32_t *start = lists->row_start + row;
    const size_t count = start[1] - start[0];
    for (size_t r = 1; r < 4; r++)
        if (start[r + 1] - start[r] != count ||
            memcmp(lists->column + start[r], lists->column + start[0], count * sizeof(uint32_t)) !=
                0)
            return 0;
    return count > 0;
}

gp_status gp_lists_create(size_t rows, size_t columns, const uint8_t *mask, gp_lists **lists)
{
    *lists = NULL;
    if (rows >= INT32_MAX || columns >= INT32_MAX || (columns && rows > INT32_MAX / columns))
        return GP_BAD_ARGUMENT;
    const size_t count = gp_mask_count(rows * columns, mask);

    /* one piece of memory: header, then floats, then integers, all of four bytes; one more for the
     * loop below, which writes before it knows whether the entry counts */
    size_t words = rows + 1 + columns + 1 + 7 * count + 1 + rows / 4 + 1;
    gp_lists *made = malloc(sizeof *made + words * sizeof(uint32_t));
    if (!made) return GP_NO_MEMORY;
    *made = (gp_lists){.rows = rows, .columns = columns, .count = count};
    made->value = (float *)(void *)(made + 1);
    made->gradient = made->value + count;
    made->by_column = made->gradient + count;
    made->row_start = (uint32_t *)(void *)(made->by_column + count);
    made->column_start = made->row_start + rows + 1;
    made->row = made->column_start + columns + 1;
    made->place = made->row + count;
    made->flat = made->place + count;
    made->column = made->flat + count;
    made->alike = (uint8_t *)(void *)(made->column + count + 1);

    uint32_t next = 0;
    for (size_t r = 0; r < rows; r++) {
        made->row_start[r] = next;
        const uint8_t *kept = mask + r * columns;
        for (size_t c = 0; c < columns; c += 8) {
            size_t n = columns - c < 8 ? columns - c : 8;
            uint64_t eight = 1;
            if (n == 8) memcpy(&eight, kept + c, 8);
            /* most eights are empty; in the others there are no branches */
            for (size_t j = 0; eight && j < n; j++) {
                made->column[next] = (uint32_t)(c + j);
                next += kept[c + j] != 0;
            }
        }
        for (uint32_t k = made->row_start[r]; k < next; k++)
            made->flat[k] = (uint32_t)(r * columns) + made->column[k];
    }
    made->row_start[rows] = next;

    for (size_t c = 0; c <= columns; c++) made->column_start[c] = 0;
    for (uint32_t k = 0; k < next; k++) made->column_start[made->column[k] + 1]++;
    for (size_t c = 0; c < columns; c++) made->column_start[c + 1] += made->column_start[c];
    /* a counting sort: column_start[c] walks through column c, then everything moves back by one
     * column */
    for (size_t r = 0; r < rows; r++)
        for (uint32_t k = made->row_start[r]; k < made->row_start[r + 1]; k++) {
            uint32_t at = made->column_start[made->column[k]]++;
            made->row[at] = (uint32_t)r;
            made->place[at] = k;
        }
    for (size_t c = columns; c > 0; c--) made->column_start[c] = made->column_start[c - 1];
    made->column_start[0] = 0;
    for (size_t four = 0; four < rows / 4; four++)
        made->alike[four] = (uint8_t)are_alike(made, 4 * four);
    *lists = made;
    return GP_OK;
}

void gp_lists_destroy(gp_lists *lists) { free(lists); }

/* The first row that starts at or after the given entry. */
static size_t row_at(size_t rows, const uint32_t *start, size_t entry)
{
    size_t low = 0, high = rows;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (start[middle] < entry) low = middle + 1;
        else high = middle;
    }
    /* so that a four of rows is run in one way, whatever the size of the team */
    return low / 4 * 4;
}

void gp_lists_share(const gp_team *team, size_t rows, const uint32_t *start, size_t *begin,
                    size_t *end)
{
    size_t count = start[rows];
    *begin = team->rank == 0 ? 0 : row_at(rows, start, count * team->rank / team->size);
    *end = team->rank + 1 == team->size
               ? rows
               : row_at(rows, start, count * (team->rank + 1) / team->size);
}

void gp_lists_expand_row(const gp_lists *lists, size_t r, const float *numbers, float *row)
{
    memset(row, 0, lists->columns * sizeof *row);
    for (size_t k = lists->row_start[r]; k < lists->row_start[r + 1]; k++)
        row[lists->column[k]] = numbers[k];
}

void gp_lists_expand(const gp_lists *lists, size_t begin, size_t end, const float *numbers,
                     float *full)
{
    for (size_t r = begin; r < end; r++)
        gp_lists_expand_row(lists, r, numbers, full + r * lists->columns);
}

/* ---- of an arena ----------------------------------------------------------------------------- */

struct gp_live {
    gp_costs costs;
    size_t n_segments;
    size_t *offsets;
    gp_lists **lists; /* NULL where a segment is kept whole */
};

gp_status gp_live_create(const gp_arena *arena, const gp_costs *costs, gp_live **live)
{
    *live = NULL;
    if (!gp_costs_are_valid(costs)) return GP_BAD_ARGUMENT;
    double most = 0.0;
    for (size_t i = 0; i < GP_COSTS; i++)
        if (costs->most[i] > most) most = costs->most[i];
    gp_status status = GP_NO_MEMORY;
    size_t listed = 0;
    gp_live *made = calloc(1, sizeof *made);
    if (!made) return GP_NO_MEMORY;
    made->costs = *costs;
    made->n_segments = arena->n_segments;
    made->lists = calloc(arena->n_segments + 1, sizeof *made->lists);
    made->offsets = calloc(arena->n_segments + 1, sizeof *made->offsets);
    if (!made->lists || !made->offsets) goto failed;
    for (size_t i = 0; i < arena->n_segments; i++) {
        const gp_segment *segment = &arena->segments[i];
        made->offsets[i] = segment->offset;
        if (segment->offset >= arena->n_prunable || segment->columns == 0) continue;
        const uint8_t *mask = arena->mask + segment->offset;
        size_t kept = gp_mask_count(segment->length, mask);
        if (kept == segment->length || most == 0.0 || (double)kept > most * (double)segment->length)
            continue;
        status = gp_lists_create(segment->length / segment->columns, segment->columns, mask,
                                 &made->lists[i]);
        if (status == GP_NO_MEMORY) goto failed;
        listed += status == GP_OK; /* too large to be listed: it stays whole */
    }
    if (listed == 0) gp_live_destroy(made);
    else *live = made;
    return GP_OK;
failed:
    gp_live_destroy(made);
    return status;
}

void gp_live_destroy(gp_live *live)
{
    if (!live) return;
    for (size_t i = 0; live->lists && i < live->n_segments; i++) gp_lists_destroy(live->lists[i]);
    free(live->lists);
    free(live->offsets);
    free(live);
}

gp_lists *gp_live_segment(const gp_live *live, size_t segment)
{
    return live && segment < live->n_segments ? live->lists[segment] : NULL;
}

int gp_live_pays(const gp_live *live, const gp_lists *lists, size_t lanes)
{
    double most = live->costs.most[(lanes + GP_ALIGN_FLOATS - 1) / GP_ALIGN_FLOATS - 1];
    return most > 0.0 &&
           (double)lists->count <= most * (double)lists->rows * (double)lists->columns;
}

void gp_clear(size_t n, float *values)
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

/* An entry's place by row is never after its place in the matrix, so one pass upwards packs and one
 * downwards unpacks. */
void gp_lists_pack(const gp_lists *lists, float *numbers)
{
    for (size_t k = 0; k < lists->count; k++) numbers[k] = numbers[lists->flat[k]];
    gp_clear(lists->rows * lists->columns - lists->count, numbers + lists->count);
}

void gp_lists_unpack(const gp_lists *lists, float *numbers)
{
    size_t stop = lists->rows * lists->columns;
    for (size_t k = lists->count; k-- > 0;) {
        size_t at = lists->flat[k];
        float number = numbers[k];
        for (size_t i = at + 1; i < stop; i++) numbers[i] = 0.0f;
        numbers[at] = number;
        stop = at;
    }
    for (size_t i = 0; i < stop; i++) numbers[i] = 0.0f;
}

void gp_live_pack(const gp_live *live, float *moment)
{
    for (size_t s = 0; live && s < live->n_segments; s++)
        if (live->lists[s]) gp_lists_pack(live->lists[s], moment + live->offsets[s]);
}

void gp_live_unpack(const gp_live *live, float *moment)
{
    for (size_t s = 0; live && s < live->n_segments; s++)
        if (live->lists[s]) gp_lists_unpack(live->lists[s], moment + live->offsets[s]);
}

void gp_lists_carry(const gp_lists *from, const float *numbers, const gp_lists *to, float *carried)
{
    for (size_t k = 0, j = 0; k < to->count; k++) {
        while (j < from->count && from->flat[j] < to->flat[k]) j++;
        carried[k] = j < from->count && from->flat[j] == to->flat[k] ? numbers[j] : 0.0f;
    }
}
