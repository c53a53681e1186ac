/* test_loss.c - the table of losses: gathered by the build, each row complete. What they compute is
 * compared with naive.h in test_kernels.c and test_net.c. */
#include <string.h>

#include "fixture.h"
#include "naive.h"

static void test_rows(void)
{
    size_t n = 0;
    for (const gp_loss_ops *loss; (loss = gp_loss_at(n)) != NULL; n++) {
        CHECK(strcmp(gp_loss_name(loss), loss->name) == 0);
        CHECK(loss->takes & (GP_TAKES_LABELS | GP_TAKES_VALUES));
        CHECK(!loss->counts_hits || loss->takes & GP_TAKES_LABELS || loss->by_element);
        CHECK(loss->n_settings <= GP_LOSS_SETTINGS);
        CHECK((loss->n_settings > 0) == (loss->is_valid != NULL));
        CHECK(loss->run != NULL);
        for (size_t other = 0; other < n; other++)
            CHECK(strcmp(gp_loss_at(other)->name, loss->name) != 0);
    }
    /* naive.h says what each computes, but for the one that computes nothing */
    CHECK_INT_EQUAL(n, NAIVE_LOSSES + 1);
    CHECK(gp_loss_at(SIZE_MAX) == NULL);
}

/* The name of a row is that of its file, by which the build lists it. */
static void test_names(void)
{
#define X(stem) CHECK(strcmp(gp_loss_##stem.name, #stem) == 0);
    GP_LOSS_LIST
#undef X
}

int main(void)
{
    test_rows();
    test_names();
    return check_summary();
}
