/* test_parallel.c - the thread pool: every member runs, meets the others at barriers, and nothing
 * hangs.
 *
 * Members write to places of their own and the main thread checks them afterwards; a thread
 * sanitizer sees the rest. A hang is a failure that no check reports, so cases are many and short:
 * teams of any size in any order, regions that follow at once or after the workers fell asleep, a
 * region entered from within one or from two threads at a time, a fork between regions and during
 * one, pools destroyed in every state.
 */
#define _GNU_SOURCE
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

/* The thread sanitizer refuses threads after a fork. */
#if defined(__SANITIZE_THREAD__)
#define GP_NO_FORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GP_NO_FORK 1
#endif
#endif

static gp_pool *pool_new(void)
{
    gp_pool *pool = NULL;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    if (!pool) abort();
    return pool;
}

static void doze(long milliseconds)
{
    struct timespec span = {0, milliseconds * 1000000};
    nanosleep(&span, NULL);
}

/* ---- one region ------------------------------------------------------------------------------ */

enum { MEMBERS = 16, ITEMS = 103 };

typedef struct census {
    size_t size[MEMBERS]; /* by rank: the size the member was told, 0 if it did not come */
    size_t visits[ITEMS];
    size_t total;
} census;

static void count_members(void *context, const gp_team *team)
{
    census *c = context;
    size_t begin, end;
    c->size[team->rank] += team->size;
    gp_team_share(team, ITEMS, &begin, &end);
    for (size_t i = begin; i < end; i++) c->visits[i]++;
    gp_team_wait(team);
    if (team->rank == team->size - 1) /* reads what all have written */
        for (size_t i = 0; i < ITEMS; i++) c->total += c->visits[i];
}

static int census_is_right(const census *c, size_t members)
{
    int right = c->total == ITEMS;
    for (size_t i = 0; i < MEMBERS; i++) right &= c->size[i] == (i < members ? members : 0);
    for (size_t i = 0; i < ITEMS; i++) right &= c->visits[i] == 1;
    return right;
}

static int region_is_right(gp_pool *pool, size_t threads)
{
    census c = {0};
    gp_pool_run(pool, threads, count_members, &c);
    return census_is_right(&c, threads ? threads : 1);
}

static void test_team_sizes(void)
{
    static const size_t sizes[] = {2, 1, 0, 3, 2, 7, 2, 16, 1, 5, 16, 2, 3};
    gp_pool *pool = pool_new();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        CHECK(region_is_right(pool, sizes[i]));
    gp_pool_destroy(pool);
}

/* One region after the other, the team growing and shrinking: a worker not asked must not come, nor
 * be forgotten. */
static void test_many_regions(void)
{
    gp_pool *pool = pool_new();
    noise source = {1};
    size_t wrong = 0;
    for (int i = 0; i < (is_quick() ? 100 : 1000); i++)
        wrong += !region_is_right(pool, 1 + noise_below(&source, 4));
    CHECK_INT_EQUAL(wrong, 0);
    gp_pool_destroy(pool);
}

/* After a nap the workers sleep; before one they spin. */
static void test_sleeping_workers(void)
{
    gp_pool *pool = pool_new();
    for (int i = 0; i < 10; i++) {
        CHECK(region_is_right(pool, 2 + (size_t)i % 3));
        doze(i % 2 ? 5 : 0);
    }
    gp_pool_destroy(pool);
}

static void count_only(void *context, const gp_team *team)
{
    size_t *sizes = context;
    sizes[team->rank] = team->size;
}

/* More threads than there may be. */
static void test_too_many_threads(void)
{
    static size_t sizes[GP_MAX_THREADS];
    gp_pool *pool = pool_new();
    size_t members = 0;
    gp_pool_run(pool, is_quick() ? 40 : 100000, count_only, sizes);
    while (members < GP_MAX_THREADS && sizes[members] == sizes[0]) members++;
    CHECK_INT_EQUAL(members, sizes[0]); /* as many as the system gave, at most GP_MAX_THREADS */
    CHECK(members >= 1);
    gp_pool_destroy(pool);
}

static void test_shares(void)
{
    for (size_t size = 1; size <= 9; size++)
        for (size_t items = 0; items < 30; items++) {
            size_t next = 0, begin = 0, end = 0;
            for (size_t rank = 0; rank < size; rank++) {
                gp_team team = {rank, size, NULL};
                gp_team_share(&team, items, &begin, &end);
                CHECK(begin == next && end >= begin && end - begin <= items / size + 1);
                next = end;
            }
            CHECK_INT_EQUAL(next, items);
        }
}

/* ---- barriers -------------------------------------------------------------------------------- */

typedef struct relay {
    size_t rounds, wrong[MEMBERS];
    size_t slot[MEMBERS]; /* plain memory: the barrier alone orders it */
} relay;

/* Each round every member writes its slot, and after the barrier reads all of them. */
static void run_relay(void *context, const gp_team *team)
{
    relay *r = context;
    for (size_t round = 1; round <= r->rounds; round++) {
        r->slot[team->rank] = round;
        gp_team_wait(team);
        for (size_t i = 0; i < team->size; i++) r->wrong[team->rank] += r->slot[i] != round;
        gp_team_wait(team);
    }
}

static void test_barriers(void)
{
    static const size_t sizes[] = {1, 2, 3, 7};
    gp_pool *pool = pool_new();
    for (size_t s = 0; s < 4; s++) {
        relay r = {.rounds = (is_quick() ? 200u : 10000u) / (sizes[s] > 2 ? 10 : 1)};
        gp_pool_run(pool, sizes[s], run_relay, &r);
        for (size_t i = 0; i < MEMBERS; i++) {
            CHECK_INT_EQUAL(r.wrong[i], 0);
            CHECK_INT_EQUAL(r.slot[i], i < sizes[s] ? r.rounds : 0);
        }
    }
    gp_pool_destroy(pool);
}

/* ---- a region inside a region, and two at once ----------------------------------------------- */

typedef struct nest {
    gp_pool *pool;
    int right[MEMBERS];
} nest;

static void run_nested(void *context, const gp_team *team)
{
    nest *n = context;
    census c = {0};
    gp_pool_run(n->pool, 3, count_members, &c); /* the pool is taken: alone */
    n->right[team->rank] = census_is_right(&c, 1);
    gp_team_wait(team);
}

static void test_nested(void)
{
    nest n = {.pool = pool_new()};
    gp_pool_run(n.pool, 3, run_nested, &n);
    for (size_t i = 0; i < 3; i++) CHECK(n.right[i]);
    CHECK(region_is_right(n.pool, 3));
    gp_pool_destroy(n.pool);
}

typedef struct caller {
    gp_pool *pool;
    size_t regions, wrong;
    atomic_int *ready; /* or NULL: counts callers, who start together */
} caller;

/* With a team or alone, each call must do all of its work. */
static void *call_often(void *argument)
{
    caller *self = argument;
    if (self->ready) {
        atomic_fetch_add(self->ready, 1);
        while (atomic_load(self->ready) < 2) {
        }
    }
    for (size_t i = 0; i < self->regions; i++) {
        census c = {0};
        gp_pool_run(self->pool, 3, count_members, &c);
        self->wrong += !census_is_right(&c, 3) && !census_is_right(&c, 1);
    }
    return NULL;
}

static void test_concurrent(void)
{
    enum { CALLERS = 3 };
    gp_pool *pool = pool_new();
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.pool = pool, .regions = is_quick() ? 50 : 1000};
        CHECK_INT_EQUAL(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT_EQUAL(callers[i].wrong, 0);
    }
    gp_pool_destroy(pool);
}

/* ---- habits ---------------------------------------------------------------------------------- */

typedef struct world { /* what a call takes */
    double alone, together;
    double held_up;  /* now and then a call takes so much longer, */
    size_t calls[2]; /* every so many calls: alone, together; 0: never */
} world;

/* What n calls take; `used_together`: how many of them are made by a team. */
static double live(gp_habit *habit, const world *w, size_t n, size_t *used_together)
{
    double all = 0;
    *used_together = 0;
    for (size_t i = 1; i <= n; i++) {
        size_t used = gp_habit_choose(habit, 2);
        if (used != 1 && used != 2) abort();
        double seconds = used == 2 ? w->together : w->alone;
        if (w->calls[used - 1] && i % w->calls[used - 1] == 0) seconds += w->held_up;
        *used_together += used == 2;
        all += seconds;
        gp_habit_learn(habit, used, seconds);
    }
    return all;
}

/* Whatever the world, the way of the least time is the usual one, and finding out costs little. */
static void test_habits(void)
{
    static const struct {
        world w;
        int together;
    } worlds[] = {
        {{2e-5, 1.2e-5, 0, {0, 0}}, 1},
        {{2e-5, 2.4e-5, 0, {0, 0}}, 0},
        /* a team waits for who was put to sleep, every time */
        {{2e-5, 9e-3, 0, {0, 0}}, 0},
        {{3e-5, 1.8e-5, 8e-3, {0, 50}}, 0},     /* or often enough, */
        {{3e-5, 1.8e-5, 8e-3, {0, 100000}}, 1}, /* or hardly ever */
        {{3e-5, 2.4e-4, 8e-3, {150, 150}}, 0},  /* one thread is held up as well */
        {{3e-5, 1.8e-5, 1e-4, {20, 20}}, 1},
    };
    const size_t calls = is_quick() ? 200000 : 400000;
    for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
        gp_habit habit = {0};
        const world *w = &worlds[i].w;
        size_t together;
        double mean = live(&habit, w, calls, &together) / (double)calls,
               ways[2] = {w->alone, w->together};
        for (size_t k = 0; k < 2; k++)
            if (w->calls[k]) ways[k] += w->held_up / (double)w->calls[k];
        CHECK(together > 0 && together < calls);
        CHECK(worlds[i].together ? together > calls / 20 * 19 : together < calls / 20);
        CHECK(mean < 1.08 * ways[worlds[i].together]);
    }
}

/* The world changes: it is found out within a second. */
static void test_habits_change(void)
{
    const world good = {2e-5, 1.2e-5, 0, {0, 0}}, bad = {2e-5, 9e-3, 0, {0, 0}};
    for (int first = 0; first < 2; first++) {
        gp_habit habit = {0};
        size_t together;
        live(&habit, first ? &good : &bad, 200000, &together);
        live(&habit, first ? &bad : &good, 50000, &together); /* 50000 calls alone are a second */
        live(&habit, first ? &bad : &good, 5000, &together);
        CHECK(first ? together < 100 : together > 4900);
    }
}

/* So many calls of the way that is chosen; the last one's. */
static size_t some_calls(gp_habit *habit, size_t n, double alone, double together)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used = gp_habit_choose(habit, 2);
        gp_habit_learn(habit, used, used > 1 ? together : alone);
    }
    return used;
}

/* Ten calls together, ten alone; the first four of each do not count, because workers have to wake
 * up. Then the faster way, and from time to time a trial of the other. */
static void test_when_a_habit_is_tried_again(void)
{
    gp_habit habit = {0};
    CHECK_INT_EQUAL(some_calls(&habit, 3, 1e-5, 9e-5), 2);
    CHECK_INT_EQUAL(some_calls(&habit, 7, 1e-5, 0.5e-5), 2);
    CHECK_INT_EQUAL(some_calls(&habit, 10, 1e-5, 0.5e-5), 1);
    CHECK_INT_EQUAL(some_calls(&habit, 64, 1e-5, 0.5e-5), 2);
    CHECK_INT_EQUAL(some_calls(&habit, 1, 1e-5, 0.5e-5), 1);
    CHECK_INT_EQUAL(some_calls(&habit, 9, 0.4e-5, 0.5e-5), 1);
    CHECK_INT_EQUAL(gp_habit_choose(&habit, 2), 1); /* it has turned out to be faster */
    CHECK_INT_EQUAL(some_calls(&habit, 2048, 0.4e-5, 0.5e-5), 1);
    CHECK_INT_EQUAL(some_calls(&habit, 2, 0.4e-5, 9e-3), 2); /* hopeless: no third call */
    CHECK_INT_EQUAL(gp_habit_choose(&habit, 2), 1);
    /* what was lost, 18 ms, is to be a sixteenth of what passes until the next trial */
    CHECK_INT_EQUAL(habit.wait, 65536);
}

/* Long calls need no more than two each to be judged. */
static void test_habits_of_long_calls(void)
{
    gp_habit habit = {0};
    CHECK_INT_EQUAL(some_calls(&habit, 2, 0.02, 0.01), 2);
    CHECK_INT_EQUAL(some_calls(&habit, 2, 0.02, 0.01), 1);
    CHECK_INT_EQUAL(some_calls(&habit, 1, 0.02, 0.01), 2);
    /* a first choice made while others held the team up is mended within a fifth of a second */
    habit = (gp_habit){0};
    CHECK_INT_EQUAL(some_calls(&habit, 4, 0.01, 0.03), 1);
    CHECK_INT_EQUAL(some_calls(&habit, 13, 0.01, 0.006), 2);
}

static void test_habits_of_one(void)
{
    gp_habit habit = {0};
    for (int i = 0; i < 300; i++) {
        CHECK_INT_EQUAL(gp_habit_choose(&habit, (size_t)i % 2), 1);
        gp_habit_learn(&habit, 1, 1e-5);
    }
    double before = gp_seconds();
    doze(2);
    CHECK(gp_seconds() - before >= 0.0019);
}

/* ---- fork ------------------------------------------------------------------------------------ */

#if !defined(GP_NO_FORK)
/* Runs `run` in a child; its answer, or 0 if the child came to another end (the alarm ends one that
 * hangs). The answer comes through shared memory, and the child ends as another program: no leak
 * check is to look for what belonged to the parent's threads, which the child does not have. */
static int in_child(int (*run)(gp_pool *pool), gp_pool *pool)
{
    int status = 0, right = 0;
    int *answer =
        mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(answer != MAP_FAILED)) return 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        *answer = run(pool);
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    right = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
            WEXITSTATUS(status) == 0 && *answer;
    munmap(answer, sizeof *answer);
    return right;
}

static int use(gp_pool *pool)
{
    int right = 1;
    for (size_t threads = 1; threads <= 4; threads++) right &= region_is_right(pool, threads);
    return right;
}
static int use_and_destroy(gp_pool *pool)
{
    int right = use(pool);
    gp_pool_destroy(pool);
    return right;
}
static int destroy_unused(gp_pool *pool)
{
    gp_pool_destroy(pool);
    return 1;
}

static void test_fork(void)
{
    gp_pool *pool = pool_new();
    CHECK(in_child(use_and_destroy, pool)); /* never used */
    CHECK(region_is_right(pool, 3));
    CHECK(in_child(use_and_destroy, pool)); /* workers may still spin */
    doze(20);
    CHECK(in_child(use_and_destroy, pool)); /* asleep */
    CHECK(region_is_right(pool, 3));
    CHECK(in_child(use, pool));
    CHECK(in_child(destroy_unused, pool));
    CHECK(region_is_right(pool, 4));
    gp_pool_destroy(pool);
}

typedef struct fork_inside {
    gp_pool *pool;
    int right;
} fork_inside;

static void run_and_fork(void *context, const gp_team *team)
{
    fork_inside *f = context;
    gp_team_wait(team);
    if (team->rank == 0) f->right = in_child(use, f->pool);
    gp_team_wait(team);
}

/* The pool is locked at the moment of the fork: the child's copy of the lock must not matter. */
static void test_fork_inside(void)
{
    fork_inside f = {.pool = pool_new()};
    gp_pool_run(f.pool, 3, run_and_fork, &f);
    CHECK(f.right);
    CHECK(region_is_right(f.pool, 3));
    gp_pool_destroy(f.pool);
}

/* In a child, two threads may be the first to use the pool, at the same moment. */
static int race(gp_pool *pool)
{
    atomic_int ready;
    atomic_init(&ready, 0);
    caller callers[2] = {{pool, 20, 0, &ready}, {pool, 20, 0, &ready}};
    pthread_t other;
    if (pthread_create(&other, NULL, call_often, &callers[0])) return 0;
    call_often(&callers[1]);
    pthread_join(other, NULL);
    return !callers[0].wrong && !callers[1].wrong;
}

static void test_fork_and_race(void)
{
    gp_pool *pool = pool_new();
    CHECK(region_is_right(pool, 3));
    for (int i = 0; i < (is_quick() ? 2 : 50); i++) CHECK(in_child(race, pool));
    gp_pool_destroy(pool);
}
#else
static void test_fork(void) {}
static void test_fork_inside(void) {}
static void test_fork_and_race(void) {}
#endif

/* ---- the end --------------------------------------------------------------------------------- */

/* ---- threads of somebody else ---------------------------------------------------------------- */

typedef struct guest {
    void (*run)(void *);
    void *argument;
    int rank, size;
} guest;

static _Thread_local guest here;
static unsigned lent; /* regions that ran on them */

static void *be_guest(void *argument)
{
    here = *(const guest *)argument;
    here.run(here.argument);
    return NULL;
}
static int guest_rank(void) { return here.rank; }
static int guest_size(void) { return here.size; }
/* On fewer than were asked for, as a runtime may do it. */
static void lend(void (*run)(void *), void *argument, unsigned threads, unsigned flags)
{
    pthread_t them[MEMBERS];
    guest guests[MEMBERS];
    const int size = threads > 4 ? 4 : (int)threads;
    CHECK_INT_EQUAL(flags, 0);
    lent++;
    for (int i = size; i-- > 0;) {
        guests[i] = (guest){run, argument, i, size};
        if (i > 0 && pthread_create(&them[i], NULL, be_guest, &guests[i])) abort();
    }
    be_guest(&guests[0]);
    for (int i = 1; i < size; i++) pthread_join(them[i], NULL);
}
#if !defined(GP_NO_FORK)
static int use_own(gp_pool *pool)
{
    const unsigned before = lent;
    return use_and_destroy(pool) && lent == before;
}
#endif

static void test_borrowed_threads(void)
{
    static const size_t sizes[] = {2, 1, 4, 3, 2, 16, 2};
    const gp_runtime runtime = {lend, guest_rank, guest_size}, nobody = {0};
    gp_pool *pool = pool_new();
    CHECK(region_is_right(pool, 3)); /* its own threads are asleep or spin from now on */
    gp_pool_borrow(pool, &runtime);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        census c = {0};
        gp_pool_run(pool, sizes[i], count_members, &c);
        CHECK(census_is_right(&c, sizes[i] > 4 ? 4 : sizes[i]));
    }
    CHECK_INT_EQUAL(lent, 6); /* one thread needs nobody else */
#if !defined(GP_NO_FORK)
    CHECK(in_child(use_own, pool));
#endif
    gp_pool_borrow(pool, &nobody);
    CHECK(region_is_right(pool, 3));
    CHECK_INT_EQUAL(lent, 6);
    gp_pool_destroy(pool);
}

static void test_destroy(void)
{
    gp_pool_destroy(NULL);
    gp_pool_destroy(pool_new()); /* never used */
    for (int i = 0; i < (is_quick() ? 5 : 100); i++) {
        gp_pool *pool = pool_new();
        CHECK(region_is_right(pool, 1 + (size_t)i % 4)); /* spinning, or not even begun */
        if (i % 10 == 9) doze(5);                        /* asleep */
        gp_pool_destroy(pool);
    }
}

/* Signals are the caller's: a worker blocks them. */
static void read_signals(void *context, const gp_team *team)
{
    int *blocked = context;
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    blocked[team->rank] = sigismember(&mask, SIGINT);
}

static void test_signals(void)
{
    int blocked[3] = {-1, -1, -1};
    gp_pool *pool = pool_new();
    gp_pool_run(pool, 3, read_signals, blocked);
    CHECK(blocked[0] == 0 && blocked[1] == 1 && blocked[2] == 1);
    gp_pool_destroy(pool);
}

/* ---- where the threads are ------------------------------------------------------------------- */

#if defined(__linux__)
typedef struct place {
    /* meet: in this region the worker goes to the caller's CPU, and is free to leave it */
    int cpu[2], meet;
    cpu_set_t allowed[2];
} place;

static void look_around(void *context, const gp_team *team)
{
    place *p = context;
    p->cpu[team->rank] = sched_getcpu();
    pthread_getaffinity_np(pthread_self(), sizeof(cpu_set_t), &p->allowed[team->rank]);
    gp_team_wait(team);
    if (team->rank == 1 && p->meet) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)p->cpu[0], &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &p->allowed[1]);
    }
}

/* A worker leaves the caller's CPU, and nobody's affinity changes. On one CPU they get along. */
static void test_places(void)
{
    enum { TIMES = 20 };
    int apart = 0, unchanged = 1;
    cpu_set_t all, one;
    if (!CHECK(pthread_getaffinity_np(pthread_self(), sizeof all, &all) == 0)) return;
    gp_pool *pool = pool_new();
    for (int i = 0; i < TIMES; i++) {
        place p = {.meet = 1};
        gp_pool_run(pool, 2, look_around, &p);
        p.meet = 0;
        gp_pool_run(pool, 2, look_around, &p);
        apart += p.cpu[0] != p.cpu[1];
        unchanged &= CPU_EQUAL(&all, &p.allowed[0]) && CPU_EQUAL(&all, &p.allowed[1]);
    }
    CHECK(unchanged);
    if (CPU_COUNT(&all) > 1) CHECK(apart > TIMES / 2); /* the system may move them together again */
    gp_pool_destroy(pool);

    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    pool = pool_new();
    CHECK_INT_EQUAL(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    for (int i = 0; i < TIMES; i++) {
        place p = {.meet = i % 2};
        gp_pool_run(pool, 2, look_around, &p);
        CHECK(p.cpu[0] == p.cpu[1] && CPU_EQUAL(&one, &p.allowed[1]));
    }
    CHECK_INT_EQUAL(pthread_setaffinity_np(pthread_self(), sizeof all, &all), 0);
    gp_pool_destroy(pool);
}
#else
static void test_places(void) {}
#endif

static void test_cpu_count(void) { CHECK(gp_cpu_count() >= 1 && gp_cpu_count() <= GP_MAX_THREADS); }

int main(void)
{
    unsetenv("GRADPRUNE_PIN"); /* for test_places */
    test_shares();
    test_team_sizes();
    test_many_regions();
    test_sleeping_workers();
    test_too_many_threads();
    test_barriers();
    test_nested();
    test_concurrent();
    test_habits();
    test_habits_change();
    test_when_a_habit_is_tried_again();
    test_habits_of_long_calls();
    test_habits_of_one();
    test_fork();
    test_fork_inside();
    test_fork_and_race();
    test_borrowed_threads();
    test_destroy();
    test_signals();
    test_places();
    test_cpu_count();
    return check_summary();
}
