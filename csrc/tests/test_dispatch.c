/* test_dispatch.c - the tables of kernels, by number and by name, and the text of every status. */
#include "denormals.h"
#include "fixture.h"

static void test_tables(void)
{
    size_t count = 0;
    for (; gp_isa_name(count); count++) {
        const char *name = gp_isa_name(count);
        const gp_kernels *kernels = gp_kernels_get(name);
        CHECK(kernels && strcmp(gp_kernels_isa(kernels), name) == 0);
        CHECK(kernels->width >= 4 && GP_ALIGN_FLOATS % kernels->width == 0);
        if (count > 0) CHECK(kernels->width >= gp_kernels_get(gp_isa_name(count - 1))->width);
    }
    CHECK(count >= 1 && strcmp(gp_isa_name(0), "baseline") == 0);
    CHECK(gp_kernels_get(NULL) == gp_kernels_get(gp_isa_name(count - 1)));
    CHECK(gp_isa_name(count + 1) == NULL);
    CHECK(gp_kernels_get("") == NULL && gp_kernels_get("AVX2") == NULL &&
          gp_kernels_get("avx") == NULL);
}

static void test_no_kernel_is_missing(const gp_kernels *kernels)
{
#define CHECK_FIELD(type, name, parameters) CHECK(kernels->name != NULL);
    GP_KERNEL_LIST(CHECK_FIELD)
#undef CHECK_FIELD
}

static void test_status_text(void)
{
    const gp_status all[] = {GP_OK,         GP_NO_MEMORY, GP_BAD_ARGUMENT, GP_BAD_INPUT,
                             GP_BAD_TARGET, GP_BAD_LABEL, GP_NO_WEIGHT,    999};
    enum { ALL = sizeof all / sizeof all[0] };
    for (size_t i = 0; i < ALL; i++) {
        CHECK(gp_status_text(all[i]) && *gp_status_text(all[i]));
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(gp_status_text(all[i]), gp_status_text(all[j])) != 0);
    }
}

/* While they are flushed a denormal counts as 0, on this thread only, and afterwards as itself
 * again. */
static void test_denormals(void)
{
    volatile float tiny = 1e-39f, one = 1.0f;
    CHECK(tiny * one > 0.0f);
    uint64_t before = gp_denormals_flush();
    float flushed = tiny * one, large = 1e-30f * one;
    gp_denormals_restore(before);
    CHECK(flushed == 0.0f && large > 0.0f);
    CHECK(tiny * one > 0.0f);
}

int main(void)
{
    test_tables();
    OVER_INSTRUCTION_SETS(test_no_kernel_is_missing);
    test_status_text();
    if (!is_quick()) test_denormals(); /* valgrind does not follow the mode */
    return check_summary();
}
