/* dispatch.c - what depends on the CPU: which kernel tables exist here, which it can run, and how
 * it treats denormals.
 *
 * A table is usable when the CPU has the instructions *and* the operating system saves the wider
 * registers on a context switch; __builtin_cpu_supports checks both (CPUID and XGETBV). The build
 * says which tables were compiled.
 */
#include <string.h>

#include "denormals.h"
#include "kernels/kernels.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#if defined(__AVX__)
#error "csrc must not be compiled with global AVX flags: shared code would then fault on older CPUs"
#endif

static int always(void) { return 1; }
#if defined(GP_HAVE_AVX2)
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif
#if defined(GP_HAVE_AVX512)
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif
#if defined(GP_HAVE_AVX512VNNI)
static int has_avx512vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

/* From the plainest to the best. */
static const struct {
    const gp_kernels *kernels;
    int (*usable)(void);
} tables[] = {
    {&gp_kernels__baseline, always},
#if defined(GP_HAVE_NEON)
    {&gp_kernels__neon, always}, /* part of the 64-bit Arm baseline */
#endif
#if defined(GP_HAVE_AVX2)
    {&gp_kernels__avx2, has_avx2},
#endif
#if defined(GP_HAVE_AVX512)
    {&gp_kernels__avx512, has_avx512},
#endif
#if defined(GP_HAVE_AVX512VNNI)
    {&gp_kernels__avx512vnni, has_avx512vnni},
#endif
};
enum { TABLES = sizeof tables / sizeof tables[0] };

const gp_kernels *gp_kernels_get(const char *name)
{
    const gp_kernels *found = NULL;
    for (size_t i = 0; i < TABLES; i++)
        if (tables[i].usable() && (!name || strcmp(name, tables[i].kernels->isa) == 0))
            found = tables[i].kernels;
    return found;
}

const char *gp_isa_name(size_t i)
{
    for (size_t t = 0; t < TABLES; t++)
        if (tables[t].usable() && i-- == 0) return tables[t].kernels->isa;
    return NULL;
}

const char *gp_kernels_isa(const gp_kernels *kernels) { return kernels->isa; }

uint64_t gp_denormals_flush(void)
{
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040u); /* results are flushed, operands count as 0 */
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(before));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(before | UINT64_C(1) << 24));
    return before;
#else
    return 0;
#endif
}

void gp_denormals_restore(uint64_t before)
{
#if defined(__SSE2__)
    _mm_setcsr((unsigned)before);
#elif defined(__aarch64__)
    __asm__ __volatile__("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

const char *gp_status_text(gp_status status)
{
    switch (status) {
    case GP_OK: return "ok";
    case GP_NO_MEMORY: return "out of memory";
    case GP_BAD_ARGUMENT: return "bad argument";
    case GP_BAD_INPUT: return "the input holds NaN or infinity";
    case GP_BAD_TARGET: return "the target holds NaN or infinity";
    case GP_BAD_LABEL: return "a label is out of range";
    case GP_NO_WEIGHT: return "the batch has no weight";
    }
    return "unknown status";
}
