/* sparse.c - lists of live weights. Building them is two passes over the mask and one over the entries; they are rebuilt
 * when the mask changes and never patched. */
#include "sparse.h"

#include <stdlib.h>

gp_status gp_lists_create(size_t rows, size_t columns, const uint8_t *mask, gp_lists **lists)
{
    *lists = NULL;
    if (rows >= UINT32_MAX || columns >= UINT32_MAX || rows > UINT32_MAX / columns) return GP_BAD_ARGUMENT;
    size_t count = 0;
    for (size_t i = 0; i < rows * columns; i++) count += mask[i] != 0;

    /* one piece of memory: header, then floats, then integers, all of four bytes */
    size_t words = rows + 1 + columns + 1 + 5 * count;
    gp_lists *made = malloc(sizeof *made + words * sizeof(uint32_t));
    if (!made) return GP_NO_MEMORY;
    *made = (gp_lists){.rows = rows, .columns = columns, .count = count};
    made->by_row = (float *)(void *)(made + 1);
    made->by_column = made->by_row + count;
    made->row_start = (uint32_t *)(void *)(made->by_column + count);
    made->column = made->row_start + rows + 1;
    made->column_start = made->column + count;
    made->row = made->column_start + columns + 1;
    made->place = made->row + count;

    for (size_t c = 0; c <= columns; c++) made->column_start[c] = 0;
    uint32_t next = 0;
    for (size_t r = 0; r < rows; r++) {
        made->row_start[r] = next;
        for (size_t c = 0; c < columns; c++) {
            if (!mask[r * columns + c]) continue;
            made->column[next++] = (uint32_t)c;
            made->column_start[c + 1]++;
        }
    }
    made->row_start[rows] = next;
    for (size_t c = 0; c < columns; c++) made->column_start[c + 1] += made->column_start[c];
    /* a counting sort: column_start[c] walks through column c, then everything moves back by one column */
    for (size_t r = 0; r < rows; r++)
        for (uint32_t k = made->row_start[r]; k < made->row_start[r + 1]; k++) {
            uint32_t at = made->column_start[made->column[k]]++;
            made->row[at] = (uint32_t)r;
            made->place[at] = k;
        }
    for (size_t c = columns; c > 0; c--) made->column_start[c] = made->column_start[c - 1];
    made->column_start[0] = 0;
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
    return low;
}

void gp_lists_share(const gp_team *team, size_t rows, const uint32_t *start, size_t *begin, size_t *end)
{
    size_t count = start[rows];
    *begin = team->rank == 0 ? 0 : row_at(rows, start, count * team->rank / team->size);
    *end = team->rank + 1 == team->size ? rows : row_at(rows, start, count * (team->rank + 1) / team->size);
}
