/* select.c - exactly the k largest of n floats, for little more than one pass over them.
 *
 * Idea
 *   Nearly all scores are far from the k-th largest, and a sample knows what far is. It is taken at
 *   fixed, scattered places; two of its order statistics bracket the k-th largest score with near
 *   certainty. One pass over the scores notes for each, as a bit, whether it is above the bracket,
 *   and collects the percent or so that is near it, that is inside, with its position. The
 *   threshold is found among these exactly. The mask is then written from the bits and corrected at
 *   the positions; the scores are not read again. Should the bracket miss (the scores knew the
 *   places), the threshold is found among all scores and, as a bracket of one value, noted in
 *   another pass.
 *
 * Order statistics
 *   By radix: floats are mapped to integers in the same order, and passes of 11 bits count how many
 *   fall into each bucket until the k-th largest is known bit by bit. A narrow bracket leaves few
 *   bits to find.
 *
 * Ties
 *   The bracket's borders are scores of the sample, so what is frequent enough to fill the bracket
 *   is one of them, and a threshold that is a border needs no search. How many of the threshold's
 *   equals a block of scores keeps follows from the blocks before it: each is written alone.
 *
 * Threads
 *   Each takes a row of blocks. All they find are exact counts and scores, so the result cannot
 *   depend on their number.
 *
 * Cost: one read, the write of the mask, and an eighth of a byte a score in between. When the
 * bracket misses: four reads more, three of them slow.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "parallel.h"

enum {
    BLOCK = 8192,
    MANY = BLOCK / 4,    /* near scores: comparing all anew is faster than correcting these */
    BITS = 11,           /* of a radix pass */
    BUCKETS = 1 << BITS, /* 16 KiB: in the first cache */
    SMALL = 1 << 13,     /* so few scores need no sample */
    ALONE = 1 << 15      /* scores that one thread has read before another is awake */
};

/* How scores lie around the bracket. */
typedef struct counts {
    size_t above, near, at_high, at_low, nans;
    /* near ones that can be looked up, and how many of them are at_high */
    size_t listed, listed_high;
} counts;

typedef struct block {
    counts counts;
    const float *near;        /* [listed], in order */
    const uint32_t *position; /* of these in the block, unless there are MANY */
    size_t ties;              /* scores that equal the threshold */
} block;

typedef struct selection {
    const gp_kernels *kernels;
    size_t n, k;
    const float *scores;
    uint8_t *keep;
    size_t blocks, sampled;
    block *block;             /* [blocks] */
    float *sample;            /* [sampled] */
    uint16_t *above;          /* a bit a score, 16 a word */
    float *near;              /* [n] and 16 for each thread; what is not used costs no memory */
    uint32_t *position;       /* as many */
    size_t (*table)[BUCKETS]; /* one a thread */
    gp_status status;
} selection;

/* Ascending with the float; -0.0 equals 0.0. */
static inline uint32_t order_of(float x)
{
    uint32_t bits;
    x += 0.0f; /* -0.0 + 0.0 = 0.0 */
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static inline float at_order(uint32_t order)
{
    uint32_t bits = order & 0x80000000u ? order ^ 0x80000000u : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The *place-th largest of all values, of which each member of the team gives its n, and which are
 * in least..most in order. All get the same. *place becomes the place among its equals. */
static float find_largest(const selection *s, const gp_team *team, size_t n, const float *values,
                          uint32_t least, uint32_t most, size_t *place)
{
    size_t *mine = s->table[team->rank];
    unsigned unknown = most == least ? 0 : 32u - (unsigned)__builtin_clz(most - least); /* bits */
    while (unknown > 0) {
        unsigned shift = unknown > BITS ? unknown - BITS : 0;
        memset(mine, 0, BUCKETS * sizeof *mine);
        for (size_t i = 0; i < n; i++) {
            uint64_t rest = order_of(values[i]) - least; /* what is below wraps around, above all */
            if (rest >> unknown == 0) mine[rest >> shift]++;
        }
        gp_team_wait(team);
        uint32_t bucket = BUCKETS;
        for (;;) {
            size_t here = 0;
            bucket--;
            for (size_t t = 0; t < team->size; t++) here += s->table[t][bucket];
            if (here >= *place) break;
            *place -= here;
        }
        least += bucket << shift;
        unknown = shift;
        gp_team_wait(team); /* the tables have been read */
    }
    return at_order(least);
}

static float find_among_all(const selection *s, const gp_team *team, size_t place)
{
    size_t begin, end;
    gp_team_share(team, s->n, &begin, &end);
    return find_largest(s, team, end - begin, s->scores + begin, 0, UINT32_MAX, &place);
}

/* Two scores, or infinities, between which the k-th largest score nearly always is. */
static void guess(const selection *s, const gp_team *team, size_t k, float *low, float *high)
{
    size_t begin, end, m = s->sampled;
    double apart = (double)s->n / (double)m, share = (double)k / (double)s->n;
    gp_team_share(team, m, &begin, &end);
    /* one from each m-th, somewhere: multiples of the golden ratio */
    for (size_t j = begin; j < end; j++) {
        double place = (double)j + 0x1p-32 * (double)(uint32_t)(j * 2654435769u);
        s->sample[j] = s->scores[(size_t)(place * apart)];
    }
    double expected = share * (double)m, margin = 4.0 * sqrt(expected * (1.0 - share)) + 8.0;
    *high = INFINITY;
    *low = -INFINITY;
    if (expected - margin >= 1.0) {
        size_t place = (size_t)(expected - margin);
        *high = find_largest(s, team, end - begin, s->sample + begin, 0, UINT32_MAX, &place);
    }
    if (expected + margin <= (double)m) {
        size_t place = (size_t)(expected + margin);
        *low = find_largest(s, team, end - begin, s->sample + begin, 0, UINT32_MAX, &place);
    }
}

static size_t block_size(const selection *s, size_t b)
{
    return b + 1 < s->blocks ? BLOCK : s->n - b * BLOCK;
}

/* Counts what `bracket` has collected of a block. Where the bracket's borders fill it, what equals
 * them is not listed. */
static void count_near(counts *found, float *near, float low, float high)
{
    uint32_t at_high = 0, at_low = 0, nans = 0;
    for (size_t i = 0; i < found->near; i++) {
        at_high += near[i] == high;
        at_low += near[i] == low;
        nans += near[i] != near[i];
    }
    found->at_high = found->listed_high = at_high;
    found->at_low = at_low;
    found->nans = nans;
    found->listed = found->near;
    if (found->near <= MANY) return;
    found->listed = found->listed_high = 0;
    for (size_t i = 0; i < found->near; i++) {
        near[found->listed] = near[i];
        found->listed += near[i] > low && near[i] < high;
    }
}

/* Notes how this member's blocks begin..end lie around the bracket, and counts all. */
static counts note(const selection *s, const gp_team *team, size_t begin, size_t end, float low,
                   float high)
{
    size_t used = begin * BLOCK + team->rank * GP_ALIGN_FLOATS;
    for (size_t b = begin; b < end; b++) {
        counts found = {0};
        float *near = s->near + used;
        found.near =
            s->kernels->bracket(block_size(s, b), s->scores + b * BLOCK, low, high,
                                s->above + b * BLOCK / 16, &found.above, near, s->position + used);
        count_near(&found, near, low, high);
        s->block[b] = (block){.counts = found, .near = near, .position = s->position + used};
        used += found.listed;
    }
    gp_team_wait(team);
    counts all = {0};
    for (size_t b = 0; b < s->blocks; b++) {
        const counts *one = &s->block[b].counts;
        all.above += one->above;
        all.near += one->near;
        all.at_high += one->at_high;
        all.at_low += one->at_low;
        all.nans += one->nans;
        all.listed_high += one->listed_high;
    }
    return all;
}

/* keep[i] = 1 for what is above the threshold and for the first `ties` that equal it. */
static void write_block(const selection *s, size_t b, float threshold, size_t ties)
{
    const block *own = &s->block[b];
    const size_t at = b * BLOCK, n = block_size(s, b);
    const float *x = s->scores + at;
    uint8_t *keep = s->keep + at;
    if (own->counts.near > MANY) {
        size_t cut = 0; /* ties before it are kept */
        if (ties >= own->ties) cut = n;
        else
            for (; ties > 0; cut++) ties -= x[cut] == threshold;
        for (size_t i = 0; i < cut; i++) keep[i] = x[i] >= threshold;
        for (size_t i = cut; i < n; i++) keep[i] = x[i] > threshold;
        return;
    }
    s->kernels->expand(n, s->above + at / 16, keep);
    for (size_t i = 0; i < own->counts.near; i++) {
        int tie = own->near[i] == threshold && ties > 0;
        ties -= (size_t)tie;
        keep[own->position[i]] = (uint8_t)(own->near[i] > threshold || tie);
    }
}

static void select_task(void *context, const gp_team *team)
{
    selection *s = context;
    const size_t k = s->k ? s->k : 1; /* none: of the largest the first 0 */
    size_t begin, end;
    float low, high, threshold;
    if (s->sampled) guess(s, team, k, &low, &high);
    else low = high = find_among_all(s, team, k);
    gp_team_share(team, s->blocks, &begin, &end);
    counts all = note(s, team, begin, end, low, high);
    if (all.nans) {
        if (team->rank == 0) s->status = GP_BAD_INPUT;
        return;
    }
    if (k <= all.above || k > all.above + all.near) {
        low = high = find_among_all(s, team, k);
        all = note(s, team, begin, end, low, high);
    }

    /* of the threshold: first among the near, then among its equals */
    size_t place = k - all.above;
    if (place <= all.at_high) {
        threshold = high;
    } else if (place > all.near - all.at_low) {
        threshold = low;
        place -= all.near - all.at_low;
    } else {
        size_t listed = 0;
        for (size_t b = begin; b < end; b++) listed += s->block[b].counts.listed;
        place -= all.at_high - all.listed_high;
        threshold = find_largest(s, team, listed, listed ? s->block[begin].near : NULL,
                                 order_of(low), order_of(high), &place);
    }
    if (s->k == 0) place = 0;

    for (size_t b = begin; b < end; b++) {
        block *own = &s->block[b];
        if (threshold == high) own->ties = own->counts.at_high;
        else if (threshold == low) own->ties = own->counts.at_low;
        else
            for (size_t i = 0; i < own->counts.listed; i++) own->ties += own->near[i] == threshold;
    }
    gp_team_wait(team);
    size_t before = 0; /* ties in the blocks before */
    for (size_t b = 0; b < end; before += s->block[b++].ties)
        if (b >= begin) write_block(s, b, threshold, before < place ? place - before : 0);
}

gp_status gp_topk_mask(gp_pool *pool, const gp_kernels *kernels, size_t n, const float *scores,
                       uint8_t *keep, size_t k, size_t threads)
{
    if (k > n) return GP_BAD_ARGUMENT;
    if (n == 0) return GP_OK;
    selection s = {
        .kernels = kernels, .n = n, .k = k, .scores = scores, .keep = keep, .status = GP_OK};
    if (threads > n / ALONE + 1) threads = n / ALONE + 1;
    if (threads > GP_MAX_THREADS) threads = GP_MAX_THREADS;
    s.blocks = (n - 1) / BLOCK + 1;
    /* a larger one costs more than it spares */
    if (n > SMALL) s.sampled = (size_t)pow((double)n, 2.0 / 3.0);
    s.block = malloc(s.blocks * sizeof *s.block);
    s.sample = malloc((s.sampled + 1) * sizeof *s.sample);
    s.above = malloc(s.blocks * BLOCK / 8);
    s.near = malloc((n + GP_ALIGN_FLOATS * threads) * sizeof *s.near);
    s.position = malloc((n + GP_ALIGN_FLOATS * threads) * sizeof *s.position);
    s.table = malloc(threads * sizeof *s.table);
    if (s.block && s.sample && s.above && s.near && s.position && s.table)
        gp_pool_run(pool, threads, select_task, &s);
    else s.status = GP_NO_MEMORY;
    free(s.block);
    free(s.sample);
    free(s.above);
    free(s.near);
    free(s.position);
    free(s.table);
    return s.status;
}
