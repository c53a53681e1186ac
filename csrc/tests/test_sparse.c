/* test_sparse.c - the lists of live weights: every one is there, in order, both ways; shares cover
 * all rows once. Of an arena: which segments are listed, and what is packed comes back. */
#include "home.h"

#include "fixture.h"

static void lists_case(size_t rows, size_t columns, size_t one_in, noise *source)
{
    buffer mask = input_bytes(rows * columns, 0);
    uint8_t *kept = mask.data;
    gp_lists *lists;
    size_t next = 0;
    for (size_t i = 0; i < rows * columns; i++)
        kept[i] = one_in > 0 && noise_below(source, one_in) == 0;
    CHECK_INT_EQUAL(gp_lists_create(rows, columns, kept, &lists), GP_OK);
    for (size_t r = 0; r < rows; r++) {
        CHECK_INT_EQUAL(lists->row_start[r], next);
        for (size_t c = 0; c < columns; c++)
            if (kept[r * columns + c]) {
                CHECK_INT_EQUAL(lists->flat[next], r * columns + c);
                CHECK_INT_EQUAL(lists->column[next++], c);
            }
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
            CHECK(lists->place[next] >= lists->row_start[r] &&
                  lists->place[next] < lists->row_start[r + 1]);
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
            CHECK(begin % 4 == 0 || begin == rows);
            CHECK(end >= begin);
            covered = end;
        }
        CHECK_INT_EQUAL(covered, rows);
    }
    gp_lists_destroy(lists);
    CLOSE(mask);
}

/* Fours of rows that live in the same columns are known; one entry more or elsewhere, or none at
 * all, and they are not. */
static void test_alike(void)
{
    enum { ROWS = 22, COLUMNS = 9 };
    uint8_t mask[ROWS * COLUMNS] = {0};
    gp_lists *lists;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLUMNS; c++) mask[r * COLUMNS + c] = (c + r / 4) % 3 == 0;
    mask[6 * COLUMNS + 3] ^= 1;                 /* in the second four */
    memset(mask + 8 * COLUMNS, 0, 4 * COLUMNS); /* the third */
    /* the fourth: as many or not, elsewhere */
    for (size_t c = 0; c < 2; c++) mask[13 * COLUMNS + c] ^= 1;
    CHECK_INT_EQUAL(gp_lists_create(ROWS, COLUMNS, mask, &lists), GP_OK);
    static const uint8_t expected[ROWS / 4] = {1, 0, 0, 0, 1};
    CHECK_BYTES_EQUAL(sizeof expected, lists->alike, expected);
    gp_lists_destroy(lists);
}

static void expand_case(size_t rows, size_t columns, noise *source)
{
    uint8_t *mask = allocated(rows * columns);
    gp_lists *lists;
    for (size_t i = 0; i < rows * columns; i++) mask[i] = noise_below(source, 3) == 0;
    CHECK_INT_EQUAL(gp_lists_create(rows, columns, mask, &lists), GP_OK);
    buffer numbers = input_floats(source, lists->count, 0, 1.0),
           full = output_floats(rows * columns, 1);
    gp_lists_expand(lists, 0, rows / 2, numbers.f, full.f);
    gp_lists_expand(lists, rows / 2, rows, numbers.f, full.f);
    for (size_t i = 0, k = 0; i < rows * columns; i++)
        CHECK(bits_of(full.f[i]) == (mask[i] ? bits_of(numbers.f[k++]) : 0));
    gp_lists_destroy(lists);
    CLOSE(numbers);
    CLOSE(full);
    free(mask);
}

/* Two matrices with few weights, one with many, none, a bias: the first two are listed. */
static void test_live(void)
{
    enum { N = 60 + 40 + 20 + 4 + 5, PRUNABLE = N - 5 };
    static const gp_segment segments[] = {
        {0, 60, 0, 10}, {60, 40, 1, 40}, {100, 20, 2, 5}, {120, 4, 3, 0}, {124, 5, 0, 0}};
    noise source = {14};
    uint8_t mask[PRUNABLE];
    float grads[N], moment[N], whole[N];
    gp_arena arena = {.n = N,
                      .n_prunable = PRUNABLE,
                      .grads = grads,
                      .mask = mask,
                      .n_segments = 5,
                      .segments = segments};
    for (size_t i = 0; i < PRUNABLE; i++)
        mask[i] = i < 60 ? i % 7 == 2 : i < 100 ? i == 77 : i < 120 ? i % 2 == 1 : 0;
    for (size_t i = 0; i < PRUNABLE; i++) arena.removed += !mask[i];
    const gp_costs never = {{0.0}}, some = {{0.0, 0.3, 0.02, 0.1}}, wrong = {{0.5, 1.5, 0.5, 0.5}};
    CHECK_INT_EQUAL(gp_live_create(&arena, &wrong, &arena.live), GP_BAD_ARGUMENT);
    CHECK_INT_EQUAL(gp_live_create(&arena, &never, &arena.live), GP_OK);
    CHECK(arena.live == NULL);
    CHECK_INT_EQUAL(gp_live_create(&arena, &some, &arena.live), GP_OK);
    for (size_t i = 0; i < 6; i++) CHECK((gp_live_segment(arena.live, i) != NULL) == (i < 2));
    CHECK(gp_segment_at(&arena, 60) == 1 && gp_segment_at(&arena, 61) == GP_NONE);

    /* 1 of 40, 9 of 60 */
    const gp_lists *few = gp_live_segment(arena.live, 1), *more = gp_live_segment(arena.live, 0);
    CHECK(!gp_live_pays(arena.live, few, 16) && gp_live_pays(arena.live, few, 32));
    CHECK(!gp_live_pays(arena.live, few, 48) && gp_live_pays(arena.live, few, 64));
    CHECK(gp_live_pays(arena.live, more, 32) && !gp_live_pays(arena.live, more, 64));

    noise_floats(&source, N, whole, 1.0);
    for (size_t i = 0; i < 100; i++) whole[i] = mask[i] ? whole[i] : 0.0f;
    memcpy(moment, whole, sizeof whole);
    gp_live_pack(arena.live, moment);
    size_t count = gp_live_segment(arena.live, 0)->count;
    for (size_t i = 0; i < 60; i++)
        CHECK(bits_of(moment[i]) == (i < count ? bits_of(whole[2 + 7 * i]) : 0));
    CHECK(moment[60] == whole[77]);
    gp_live_unpack(arena.live, moment);
    CHECK_BYTES_EQUAL(sizeof whole, moment, whole);
    gp_live_pack(NULL, moment);
    gp_live_unpack(NULL, moment);
    CHECK_BYTES_EQUAL(sizeof whole, moment, whole);
    gp_live_destroy(arena.live);
    gp_live_destroy(NULL);
}

static void too_many(void)
{
    gp_lists *lists;
    uint8_t none = 0;
    CHECK_INT_EQUAL(gp_lists_create((size_t)1 << 20, (size_t)1 << 20, &none, &lists),
                    GP_BAD_ARGUMENT);
    CHECK(lists == NULL);
    gp_lists_destroy(NULL);
}

int main(void)
{
    noise source = {13};
    for (size_t rows = 1; rows < 20; rows += 3)
        for (size_t columns = 1; columns < 40; columns += 6)
            for (size_t one_in = 0; one_in < 8; one_in += 1 + one_in)
                lists_case(rows, columns, one_in, &source);
    for (size_t rows = 1; rows < 9; rows += 2)
        for (size_t columns = 1; columns < 40; columns += 13) expand_case(rows, columns, &source);
    test_alike();
    test_live();
    too_many();
    return check_summary();
}
