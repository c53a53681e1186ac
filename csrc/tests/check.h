/* check.h: the whole test harness of the C core.
 *
 * A test file is one program: functions full of CHECKs, and
 *
 *     int main(void) {
 *         test_this();
 *         test_that();
 *         return check_summary();
 *     }
 *
 * A failed check prints where and what and goes on, so that one run shows every failure.
 * check_summary() prints "N passed, N failed"; main's result is nonzero if anything failed, or if
 * nothing was checked. It does not fork, time, or catch signals: sanitizers and valgrind do that.
 * Checks are counted without locks: call them from one thread.
 */
#ifndef GP_CHECK_H
#define GP_CHECK_H

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* A broken kernel fails at every element; the first few say enough. */
enum { CHECK_MAX_PRINTED = 20 };

static long check_passed_count, check_failed_count;

/* Counts one check; true if its failure is to be explained. */
static inline int check_count(int ok, const char *file, int line, const char *text)
{
    if (ok) {
        check_passed_count++;
        return 0;
    }
    check_failed_count++;
    if (check_failed_count > CHECK_MAX_PRINTED) return 0;
    printf("%s:%d: failed: %s", file, line, text);
    return 1;
}

static inline int check_condition(int ok, const char *file, int line, const char *text)
{
    if (check_count(ok, file, line, text)) printf("\n");
    return ok;
}

static inline int check_int_equal(long long actual, long long expected, const char *file, int line,
                                  const char *text)
{
    int ok = actual == expected;
    if (check_count(ok, file, line, text)) printf(": got %lld, expected %lld\n", actual, expected);
    return ok;
}

/* |actual - expected| <= tolerance, or the same infinity, or both NaN. */
static inline int check_is_near(double actual, double expected, double tolerance)
{
    if (isnan(expected)) return isnan(actual);
    if (isinf(expected)) return isinf(actual) && signbit(actual) == signbit(expected);
    return fabs(actual - expected) <= tolerance;
}

static inline int check_near(double actual, double expected, double tolerance, const char *file,
                             int line, const char *text)
{
    int ok = check_is_near(actual, expected, tolerance);
    if (check_count(ok, file, line, text))
        printf(": got %.9g, expected %.9g within %.3g\n", actual, expected, tolerance);
    return ok;
}

/* n floats, each within absolute + relative * |expected|; names the first that is not. One
 * check. */
static inline int check_floats_near(size_t n, const float *actual, const float *expected,
                                    double absolute, double relative, const char *file, int line,
                                    const char *text)
{
    for (size_t i = 0; i < n; i++) {
        double got = (double)actual[i], want = (double)expected[i];
        double tolerance = absolute + relative * fabs(want);
        if (check_is_near(got, want, tolerance)) continue;
        if (check_count(0, file, line, text))
            printf(": [%zu] of %zu: got %.9g, expected %.9g within %.3g\n", i, n, got, want,
                   tolerance);
        return 0;
    }
    return !check_count(1, file, line, text);
}

/* n bytes, bit for bit: tells -0.0 from 0.0 and one NaN from another. */
static inline int check_bytes_equal(size_t n, const void *actual, const void *expected,
                                    const char *file, int line, const char *text)
{
    const unsigned char *a = actual, *e = expected;
    for (size_t i = 0; i < n; i++) {
        if (a[i] == e[i]) continue;
        if (check_count(0, file, line, text))
            printf(": byte %zu of %zu: got 0x%02x, expected 0x%02x\n", i, n, a[i], e[i]);
        return 0;
    }
    return !check_count(1, file, line, text);
}

/* Each is an expression: true if the check held. */
#define CHECK(condition) check_condition(!!(condition), __FILE__, __LINE__, #condition)
#define CHECK_INT_EQUAL(actual, expected) \
    check_int_equal((long long)(actual), (long long)(expected), __FILE__, __LINE__, \
                    #actual " == " #expected)
#define CHECK_NEAR(actual, expected, tolerance) \
    check_near((double)(actual), (double)(expected), (double)(tolerance), __FILE__, __LINE__, \
               #actual " ~ " #expected)
#define CHECK_FLOATS_NEAR(n, actual, expected, absolute, relative) \
    check_floats_near((size_t)(n), actual, expected, absolute, relative, __FILE__, __LINE__, \
                      #actual " ~ " #expected)
#define CHECK_BYTES_EQUAL(n, actual, expected) \
    check_bytes_equal((size_t)(n), actual, expected, __FILE__, __LINE__, #actual " == " #expected)

static inline int check_summary(void)
{
    printf("%ld passed, %ld failed\n", check_passed_count, check_failed_count);
    return check_failed_count != 0 || check_passed_count == 0;
}

#endif
