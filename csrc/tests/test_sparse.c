/* test_sparse.c - the lists of live weights: every one is there, in order, both ways; shares cover all rows once. */
#include "sparse.h"

#include "fixture.h"

static void lists_case(size_t rows, size_t columns, size_t one_in, noise *source)
{
    buffer mask = input_bytes(rows * columns, 0);
    uint8_t *kept = mask.data;
    gp_lists *lists;
    size_t next = 0;
    for (size_t i = 0; i < rows * columns; i++) kept[i] = one_in > 0 && noise_below(source, one_in) == 0;
    CHECK_INT_EQUAL(gp_lists_create(rows, columns, kept, &lists), GP_OK);
    for (size_t r = 0; r < rows; r++) {
        CHECK_INT_EQUAL(lists->row_start[r], next);
        for (size_t c = 0; c < columns; c++)
            if (kept[r * columns + c]) CHECK_INT_EQUAL(lists->column[next++], c);
    }
    CHECK_INT_EQUAL(lists->row_start[rows], next);
    CHECK_INT_EQUAL(lists->count, next);
    next = 0;
    for (size_t c = 0; c < columns; c++) {
        CHECK_INT_EQUAL(lists->column_start[c], next);
        for (size_t r = 0; r < rows; r++) {
            if (!kept[r * columns + c]) continue;
            CHECK_INT_EQUAL(lists->row[next], r);
            CHECK_INT_EQUAL(lists->column[lists->place[next]], c);
            CHECK(lists->place[next] >= lists->row_start[r] && lists->place[next] < lists->row_start[r + 1]);
            next++;
        }
    }
    CHECK_INT_EQUAL(lists->column_start[columns], next);
    for (size_t size = 1; size <= 5; size++) {
        size_t covered = 0;
        for (size_t rank = 0; rank < size; rank++) {
            gp_team team = {rank, size, NULL};
            size_t begin, end;
            gp_lists_share(&team, rows, lists->row_start, &begin, &end);
            CHECK_INT_EQUAL(begin, covered);
            CHECK(end >= begin);
            covered = end;
        }
        CHECK_INT_EQUAL(covered, rows);
    }
    gp_lists_destroy(lists);
    CLOSE(mask);
}

static void too_many(void)
{
    gp_lists *lists;
    uint8_t none = 0;
    CHECK_INT_EQUAL(gp_lists_create((size_t)1 << 20, (size_t)1 << 20, &none, &lists), GP_BAD_ARGUMENT);
    CHECK(lists == NULL);
    gp_lists_destroy(NULL);
}

int main(void)
{
    noise source = {13};
    for (size_t rows = 1; rows < 20; rows += 3)
        for (size_t columns = 1; columns < 40; columns += 6)
            for (size_t one_in = 0; one_in < 8; one_in += 1 + one_in) lists_case(rows, columns, one_in, &source);
    too_many();
    return check_summary();
}
