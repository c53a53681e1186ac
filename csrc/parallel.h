/* parallel.h - run one function on a team of threads.
 *
 * A region is entered once a call; inside, the threads share work by rank and meet at barriers.
 * Entering a region while another thread is inside one runs it alone, with the same results. */
#ifndef GP_PARALLEL_H
#define GP_PARALLEL_H

#include "gradprune.h"

typedef struct gp_barrier gp_barrier;

typedef struct gp_team {
    size_t rank, size;
    gp_barrier *barrier;
} gp_team;

typedef void gp_task(void *context, const gp_team *team);

/* Runs task on up to `threads` threads (at least one: the caller) and returns when all are done. */
void gp_pool_run(gp_pool *pool, size_t threads, gp_task *task, void *context);

/* Everything written before by any member is seen after by all. */
void gp_team_wait(const gp_team *team);

/* This member's contiguous part of 0..items. */
static inline void gp_team_share(const gp_team *team, size_t items, size_t *begin, size_t *end)
{
    size_t each = items / team->size, more = items % team->size;
    *begin = team->rank * each + (team->rank < more ? team->rank : more);
    *end = *begin + each + (team->rank < more ? 1 : 0);
}

/* The same in whole blocks of so many items, but for the last. */
static inline void gp_team_share_blocks(const gp_team *team, size_t items, size_t block,
                                        size_t *begin, size_t *end)
{
    gp_team_share(team, (items + block - 1) / block, begin, end);
    *begin = *begin * block < items ? *begin * block : items;
    *end = *end * block < items ? *end * block : items;
}

/* A member's part of the products of a weight matrix with all chunks. */
typedef struct gp_part {
    size_t first_chunk, last_chunk, begin, end;
} gp_part;

/* Whole chunks if they come out even and the matrix is small, so that members write far from each
 * other; else rows of the result, so that each reads a part of the matrix alone. */
enum { GP_SMALL_MATRIX = 1 << 15, GP_PART_ROWS = 6 };
static inline gp_part gp_team_part(const gp_team *team, size_t chunks, size_t rows, size_t weights)
{
    gp_part mine = {0, chunks, 0, rows};
    if (chunks % team->size == 0 && weights < GP_SMALL_MATRIX)
        gp_team_share(team, chunks, &mine.first_chunk, &mine.last_chunk);
    else gp_team_share_blocks(team, rows, GP_PART_ROWS, &mine.begin, &mine.end);
    return mine;
}

/* Whether a team pays, learned from the calls themselves: small steps lose more by meeting than
 * they win by sharing, and on a busy machine a team waits for whoever was put to sleep. One for
 * each kind and size of call; start from zeros. */
typedef enum gp_habit_phase {
    GP_FIRST_TOGETHER,
    GP_FIRST_ALONE,
    GP_USUAL,
    GP_TRIAL /* of the other way than the usual one */
} gp_habit_phase;

typedef struct gp_habit {
    double seconds[2]; /* recent time of a call: alone, together */
    gp_habit_phase phase;
    unsigned tried; /* calls of the present trial, */
    double spent;   /* and what they took */
    unsigned wait;  /* calls until the next trial */
    int together;   /* the usual way */
} gp_habit;

/* How many threads the next call should use, 1 or `threads`. Results never depend on it. */
size_t gp_habit_choose(const gp_habit *habit, size_t threads);
/* What a call with so many threads took. */
void gp_habit_learn(gp_habit *habit, size_t used, double seconds);
/* A monotonic clock. */
double gp_seconds(void);

#endif
