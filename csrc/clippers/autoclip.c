/* autoclip.c - the norm of everything, scaled down to a percentile of the norms so far, the present
 * one included. Seetharaman et al. 2020
 *
 * The state has, behind its head, room for as many norms as count, in a ring in the order they
 * came, and as many sorted. The oldest is forgotten when it is full. */
#include <math.h>
#include <string.h>

#include "clippers/clippers.h"

enum { PERCENTILE };
/* NEXT: where in the ring the next norm goes */
enum { COUNT = GP_STATE_COUNT, NEXT = GP_STATE_OWN, HEAD };

static int is_valid(const gp_clip *clip, const gp_arena *arena)
{
    (void)arena;
    if (!(clip->settings[PERCENTILE] >= 0.0 && clip->settings[PERCENTILE] <= 100.0)) return 0;
    if (!clip->state || clip->n_state < HEAD + 2) return 0;
    const double capacity = (double)((clip->n_state - HEAD) / 2);
    const double count = clip->state[COUNT], next = clip->state[NEXT];
    return count >= 0.0 && count <= capacity && next >= 0.0 && next < capacity;
}

/* How many of the sorted numbers are below x. */
static size_t count_below(size_t n, const double *sorted, double x)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sorted[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The percentile with NumPy's linear interpolation, operation by operation. */
static double percentile(size_t n, const double *sorted, double percent)
{
    double place = (double)(n - 1) * (percent / 100.0), whole = floor(place), share = place - whole;
    size_t low = (size_t)whole, high = low + 1 < n ? low + 1 : n - 1;
    double step = sorted[high] - sorted[low];
    return share < 0.5 ? sorted[low] + step * share : sorted[high] - step * (1.0 - share);
}

static double limit(const gp_clip *clip, double norm)
{
    double *state = gp_clip_state(clip), *ring = state + HEAD;
    const size_t capacity = (clip->n_state - HEAD) / 2;
    size_t count = (size_t)state[COUNT], next = (size_t)state[NEXT];
    double *sorted = ring + capacity;
    if (count == capacity) {
        count--;
        size_t at = count_below(capacity, sorted, ring[next]);
        memmove(sorted + at, sorted + at + 1, (count - at) * sizeof *sorted);
    }
    size_t at = count_below(count, sorted, norm);
    memmove(sorted + at + 1, sorted + at, (count - at) * sizeof *sorted);
    sorted[at] = ring[next] = norm;
    state[COUNT] = (double)(count + 1);
    state[NEXT] = (double)((next + 1) % capacity);
    const double most = percentile(count + 1, sorted, clip->settings[PERCENTILE]);
    return most > 0.0 ? most : INFINITY; /* a limit of 0 would end the training */
}

const gp_clipper_ops gp_clipper_autoclip = {.is_valid = is_valid, .limit = limit};
