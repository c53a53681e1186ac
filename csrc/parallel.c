/* parallel.c - a pool of threads that spin briefly, then sleep.
 *
 * A training step is tens of microseconds: waking a sleeping thread costs as much, so workers spin
 * between steps for a moment. A region is published as one atomic word, (generation << 16) | team
 * size, so that a worker that was not asked can never mistake a later region for an earlier one.
 * Barriers yield when they wait long, which keeps two processes on the same cores from starving
 * each other.
 *
 * No thread is pinned. When others keep every CPU busy, the system leaves two threads of a team on
 * one CPU for seconds, so a worker that finds itself on the caller's CPU moves to another one, and
 * may be moved anywhere from there.
 */
#define _GNU_SOURCE
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Short, so that who waits for a thread that was put to sleep soon lets others run; shorter gives
 * the CPU away too often. Chosen by trial on a busy machine. */
enum { SPINS_IN_BARRIER = 2000, SPINS_WHEN_IDLE = 4000, TEAM_BITS = 16 };
#define TEAM_MASK ((1u << TEAM_BITS) - 1u)

/* Members count themselves in, and a barrier is passed when all have come: one cache line a
 * barrier, no reset. */
struct gp_barrier {
    _Alignas(64) atomic_size_t arrived; /* in this region, at all of its barriers */
};

typedef struct worker {
    gp_pool *pool;
    size_t rank;
    pthread_t thread;
} worker;

struct gp_pool {
    gp_barrier barrier;
    /* (generation << TEAM_BITS) | team size; team size 0: stop */
    _Alignas(64) atomic_uint_fast64_t region;
    /* in the line of the region: workers fetch all of it at once */
    gp_task *task;
    void *context;
    int cpu;                            /* the caller's as the region began, -1: of no interest */
    _Alignas(64) pthread_mutex_t entry; /* held by the thread inside a region */
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    size_t sleeping; /* guarded by sleep */
    size_t started;  /* workers running, guarded by entry */
    gp_runtime
        runtime; /* whose threads are borrowed, `parallel` NULL: nobody's; guarded by entry */
    /* pid; threads do not survive fork: a child sees another's and starts anew, -pid meanwhile */
    atomic_int owner;
    int steps_aside; /* do workers leave the caller's CPU? */
    worker workers[GP_MAX_THREADS];
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void gp_team_wait(const gp_team *team)
{
    if (team->size == 1) return;
    gp_barrier *barrier = team->barrier;
    size_t before = atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel);
    size_t all = (before / team->size + 1) * team->size;
    for (int spins = 0; atomic_load_explicit(&barrier->arrived, memory_order_acquire) < all;
         spins++) {
        if (spins < SPINS_IN_BARRIER) relax();
        else sched_yield();
    }
}

static uint_fast64_t wait_for_region(gp_pool *pool, uint_fast64_t seen)
{
    uint_fast64_t now;
    for (int spins = 0; spins < SPINS_WHEN_IDLE; spins++) {
        now = atomic_load_explicit(&pool->region, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&pool->sleep);
    pool->sleeping++;
    while ((now = atomic_load_explicit(&pool->region, memory_order_acquire)) == seen)
        pthread_cond_wait(&pool->wake, &pool->sleep);
    pool->sleeping--;
    pthread_mutex_unlock(&pool->sleep);
    return now;
}

static void publish(gp_pool *pool, size_t team_size)
{
    /* under the lock, so that a worker on its way to sleep either sees the new region or gets the
     * signal */
    pthread_mutex_lock(&pool->sleep);
    uint_fast64_t generation =
        atomic_load_explicit(&pool->region, memory_order_relaxed) >> TEAM_BITS;
    atomic_store_explicit(&pool->region, ((generation + 1) << TEAM_BITS) | team_size,
                          memory_order_release);
    if (pool->sleeping > 0) pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
}

static int current_cpu(void)
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Moves this thread away from that CPU, if there is one for each member; where it may run stays as
 * it was. */
static void step_aside(int cpu, size_t team_size)
{
#if defined(__linux__)
    cpu_set_t own, other;
    if (cpu < 0 || cpu != sched_getcpu()) return;
    if (sched_getaffinity(0, sizeof own, &own) || (size_t)CPU_COUNT(&own) < team_size) return;
    other = own;
    CPU_CLR((size_t)cpu, &other);
    if (sched_setaffinity(0, sizeof other, &other) == 0) sched_setaffinity(0, sizeof own, &own);
#else
    (void)cpu, (void)team_size;
#endif
}

static void *work(void *argument)
{
    worker *self = argument;
    gp_pool *pool = self->pool;
    /* generations count from 1, and a worker is started before its first region */
    uint_fast64_t seen = 0;
    for (;;) {
        seen = wait_for_region(pool, seen);
        size_t team_size = (size_t)(seen & TEAM_MASK);
        if (team_size == 0) return NULL;
        if (self->rank >= team_size) continue;
        gp_team team = {self->rank, team_size, &pool->barrier};
        step_aside(pool->cpu, team_size);
        pool->task(pool->context, &team);
        /* the caller waits for it in gp_pool_run */
        atomic_fetch_add_explicit(&pool->barrier.arrived, 1, memory_order_release);
    }
}

static gp_status pool_reset(gp_pool *pool)
{
    atomic_init(&pool->barrier.arrived, 0);
    atomic_init(&pool->region, 0);
    pool->sleeping = pool->started = 0;
    if (pthread_mutex_init(&pool->entry, NULL) || pthread_mutex_init(&pool->sleep, NULL) ||
        pthread_cond_init(&pool->wake, NULL))
        return GP_NO_MEMORY;
    /* last: the rest is ready */
    atomic_store_explicit(&pool->owner, (int)getpid(), memory_order_release);
    return GP_OK;
}

/* Is the pool this process's? In a child the first thread to ask makes it so; others have to do
 * without until then. */
static int pool_is_ours(gp_pool *pool)
{
    int self = (int)getpid(), owner = atomic_load_explicit(&pool->owner, memory_order_acquire);
    if (owner == self) return 1;
    if (owner == -self || !atomic_compare_exchange_strong(&pool->owner, &owner, -self)) return 0;
    pool->runtime.parallel = NULL; /* its threads do not survive either */
    return pool_reset(pool) == GP_OK;
}

gp_status gp_pool_create(gp_pool **pool)
{
    *pool = NULL;
    gp_pool *made = aligned_alloc(64, (sizeof(gp_pool) + 63) / 64 * 64);
    if (!made) return GP_NO_MEMORY;
    const char *pin = getenv("GRADPRUNE_PIN");
    made->steps_aside = !pin || strcmp(pin, "0") != 0;
    made->runtime = (gp_runtime){0};
    gp_status status = pool_reset(made);
    if (status != GP_OK) free(made);
    else *pool = made;
    return status;
}

void gp_pool_destroy(gp_pool *pool)
{
    if (!pool) return;
    if (atomic_load_explicit(&pool->owner, memory_order_acquire) == (int)getpid()) {
        publish(pool, 0);
        for (size_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    }
    free(pool);
}

/* Starts workers up to `wanted`; fewer if the system gives no more. */
static void start_workers(gp_pool *pool, size_t wanted)
{
    sigset_t all, old;
    sigfillset(&all);
    /* signals belong to the caller's threads: Ctrl-C must reach Python */
    pthread_sigmask(SIG_BLOCK, &all, &old);
    while (pool->started < wanted) {
        worker *next = &pool->workers[pool->started];
        next->pool = pool;
        next->rank = pool->started + 1;
        if (pthread_create(&next->thread, NULL, work, next)) break;
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void gp_pool_borrow(gp_pool *pool, const gp_runtime *runtime)
{
    if (!pool_is_ours(pool)) return;
    pthread_mutex_lock(&pool->entry);
    pool->runtime = *runtime;
    pthread_mutex_unlock(&pool->entry);
}

/* A borrowed thread's part of a region. */
static void visit(void *argument)
{
    gp_pool *pool = argument;
    const gp_team team = {(size_t)pool->runtime.rank(), (size_t)pool->runtime.size(),
                          &pool->barrier};
    pool->task(pool->context, &team);
}

void gp_pool_run(gp_pool *pool, size_t threads, gp_task *task, void *context)
{
    gp_team team = {0, 1, NULL};
    if (threads > GP_MAX_THREADS) threads = GP_MAX_THREADS;
    if (threads <= 1) {
        task(context, &team);
        return;
    }
    if (!pool_is_ours(pool) || pthread_mutex_trylock(&pool->entry)) {
        task(context, &team);
        return;
    }
    if (pool->runtime.parallel) {
        pool->task = task;
        pool->context = context;
        atomic_store_explicit(&pool->barrier.arrived, 0, memory_order_relaxed);
        pool->runtime.parallel(visit, pool, (unsigned)threads, 0);
        pthread_mutex_unlock(&pool->entry);
        return;
    }
    if (pool->started + 1 < threads) start_workers(pool, threads - 1);
    team.size = pool->started + 1 < threads ? pool->started + 1 : threads;
    team.barrier = &pool->barrier;
    if (team.size == 1) {
        task(context, &team);
    } else {
        pool->task = task;
        pool->context = context;
        pool->cpu = pool->steps_aside ? current_cpu() : -1;
        atomic_store_explicit(&pool->barrier.arrived, 0, memory_order_relaxed);
        publish(pool, team.size);
        task(context, &team);
        gp_team_wait(&team); /* each worker has counted itself in as it ended */
    }
    pthread_mutex_unlock(&pool->entry);
}

size_t gp_cpu_count(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int count = CPU_COUNT(&set);
        if (count > 0) return (size_t)count < GP_MAX_THREADS ? (size_t)count : GP_MAX_THREADS;
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (online < 1) return 1;
    return (size_t)online < GP_MAX_THREADS ? (size_t)online : GP_MAX_THREADS;
}

/* Both ways are tried, then the faster one is used and the other one tried now and then. A trial is
 * some calls in a row: in the first ones workers wake up, and numbers move from one core's cache to
 * another's. It is shorter if the calls are long or hopeless. */
enum { TRIES = 10, WARM = 3, FEWEST = 2, GAP = 2048, LEAST_GAP = 128, MOST_GAP = 1 << 16 };
enum { FIRST_GAP = 64, LONG_GAP = 8, LOSS_SHARE = 20, OUTLIER = 4 };
static const double RECENT = 0.02, LONG_TRIAL = 10e-3, HOPELESS = 1e-3, QUICK_GAP = 0.1;

size_t gp_habit_choose(const gp_habit *habit, size_t threads)
{
    int together = habit->together;
    if (habit->phase != GP_USUAL)
        together = habit->phase == GP_FIRST_TOGETHER || (habit->phase == GP_TRIAL && !together);
    return together && threads > 1 ? threads : 1;
}

/* At most so many calls, and fewer if they are long: those of QUICK_GAP seconds, but LONG_GAP. */
static unsigned at_most(unsigned calls, double seconds)
{
    const double quick = QUICK_GAP / seconds;
    return quick > calls ? calls : quick < LONG_GAP ? LONG_GAP : (unsigned)quick;
}

/* The way that lost so much time is tried again when that is one part in LOSS_SHARE of what has
 * passed. */
static unsigned gap_after(double lost, double seconds)
{
    const double gap = LOSS_SHARE * lost / seconds;
    const unsigned least = at_most(LEAST_GAP, seconds);
    return gap < least ? least : gap < MOST_GAP ? (unsigned)gap : MOST_GAP;
}

static void learn_in_trial(gp_habit *habit, double *known, double other, double seconds)
{
    const int is_first = habit->phase != GP_TRIAL;
    if (habit->tried++ <= WARM || seconds < *known) *known = seconds;
    if (habit->tried > 1) habit->spent += seconds; /* the first one may have made threads */
    if (habit->tried < FEWEST) return;
    const int is_hopeless = !is_first && habit->spent > HOPELESS && *known > OUTLIER * other;
    if (habit->tried < TRIES && habit->spent < LONG_TRIAL && !is_hopeless) return;
    const double each = habit->spent / (habit->tried - 1);
    const unsigned gap = gap_after(habit->tried * (each - other), other);
    const int is_unsure = is_first && habit->seconds[1] < OUTLIER * habit->seconds[0];
    const unsigned least = at_most(GAP, other);
    habit->wait = is_unsure ? at_most(FIRST_GAP, other) : is_first || gap < least ? least : gap;
    habit->phase = habit->phase == GP_FIRST_TOGETHER ? GP_FIRST_ALONE : GP_USUAL;
    habit->tried = 0;
    habit->spent = 0.0;
}

void gp_habit_learn(gp_habit *habit, size_t used, double seconds)
{
    double *known = &habit->seconds[used > 1], other = habit->seconds[used <= 1];
    if (habit->phase != GP_USUAL) {
        learn_in_trial(habit, known, other, seconds);
        if (habit->phase != GP_USUAL) return;
    } else {
        /* what holds one thread up for long would have held a team up as well */
        if (used == 1 && seconds > OUTLIER * *known) seconds = OUTLIER * *known;
        *known += RECENT * (seconds - *known);
        if (*known > other) habit->wait = gap_after((*known - other) / RECENT, other);
        else if (--habit->wait == 0) habit->phase = GP_TRIAL;
    }
    habit->together = habit->seconds[1] <= habit->seconds[0];
}

double gp_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
