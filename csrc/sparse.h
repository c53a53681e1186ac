/* sparse.h - which weights of a layer live, as lists derived from its mask, and room for their
 * numbers in one call. */
#ifndef GP_SPARSE_H
#define GP_SPARSE_H

#include "kernels/kernels.h"
#include "parallel.h"

/* The live entries of a (rows, columns) matrix, once by row and once by column; k counts them by
 * row. */
typedef struct gp_lists {
    size_t rows, columns, count;
    uint32_t *row_start;    /* rows + 1 */
    uint32_t *column;       /* of entry k */
    uint32_t *flat;         /* row * columns + column of entry k */
    uint32_t *column_start; /* columns + 1 */
    uint32_t *row;          /* by column, ascending */
    uint32_t *place;        /* by column: which k it is */
    /* one a four of rows: they live in the same columns, so one kernel runs them together */
    uint8_t *alike;
    float *value, *gradient; /* by row; of the last call if they are at home outside (gp_home) */
    float *by_column;        /* the values by column, filled anew in every call */
} gp_lists;

/* Lists of the mask's ones. GP_BAD_ARGUMENT if they cannot be counted in 31 bits. */
gp_status gp_lists_create(size_t rows, size_t columns, const uint8_t *mask, gp_lists **lists);
void gp_lists_destroy(gp_lists *lists);

/* This member's rows (or columns): whole fours of them, contiguous, with about an equal number of
 * entries. */
void gp_lists_share(const gp_team *team, size_t rows, const uint32_t *start, size_t *begin,
                    size_t *end);

/* row[0..columns] = 0 but for the numbers of the live entries of row r. */
void gp_lists_expand_row(const gp_lists *lists, size_t r, const float *numbers, float *row);
/* full = 0 but full[place of entry k] = numbers[k], for the rows begin..end. */
void gp_lists_expand(const gp_lists *lists, size_t begin, size_t end, const float *numbers,
                     float *full);
/* The numbers of `to`'s entries out of those of `from`'s, lists of one matrix; 0 where `from` has
 * no entry. */
void gp_lists_carry(const gp_lists *from, const float *numbers, const gp_lists *to, float *carried);
/* `numbers` of rows * columns between its two forms, see gp_live_pack. */
void gp_lists_pack(const gp_lists *lists, float *numbers);
void gp_lists_unpack(const gp_lists *lists, float *numbers);
/* Zeros; of a large piece, the pages that lie in it are given back, and read as zeros. */
void gp_clear(size_t n, float *values);
/* The numbers of a kind. */
static inline float *gp_lists_numbers(const gp_lists *lists, gp_kind kind)
{
    return kind == GP_VALUES ? lists->value : lists->gradient;
}

/* The lists of an arena's segment, NULL if it has none. */
gp_lists *gp_live_segment(const gp_live *live, size_t segment);
/* Whether they are faster than all weights in chunks of so many lanes. */
int gp_live_pays(const gp_live *live, const gp_lists *lists, size_t lanes);

#endif
