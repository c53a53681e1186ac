/* sparse.h - which weights of a layer live, as lists derived from its mask. */
#ifndef GP_SPARSE_H
#define GP_SPARSE_H

#include "parallel.h"

/* The live entries of a (rows, columns) matrix, once by row and once by column. */
typedef struct gp_lists {
    size_t rows, columns, count;
    uint32_t *row_start;       /* rows + 1 */
    uint32_t *column;          /* of each entry, by row, ascending */
    uint32_t *column_start;    /* columns + 1 */
    uint32_t *row;             /* of each entry, by column, ascending */
    uint32_t *place;           /* where the entry stands in the order by row */
    float *by_row, *by_column; /* room for one value an entry */
} gp_lists;

/* Lists of the mask's ones. GP_BAD_ARGUMENT if they cannot be counted in 32 bits. */
gp_status gp_lists_create(size_t rows, size_t columns, const uint8_t *mask, gp_lists **lists);
void gp_lists_destroy(gp_lists *lists);

/* This member's rows (or columns): contiguous, with about an equal number of entries. */
void gp_lists_share(const gp_team *team, size_t rows, const uint32_t *start, size_t *begin, size_t *end);

#endif
