/* gradprune.h - the manual of gradprune's C core.
 *
 * The core trains, clips and prunes feed-forward networks on a CPU. It knows nothing of Python:
 * libc and pthreads are all it needs, and `make check-c` builds and tests it alone.
 *
 * Idea
 *   All state is flat. The caller owns one float buffer of parameters, one of gradients, one byte
 *   mask over the prunable parameters (which come first) and up to two optimizer moments; a
 *   gp_arena points at them. A gp_net is compiled from layer specifications, holds offsets into the
 *   arena and its own workspace, and runs whole steps.
 *
 * Layout inside the engine
 *   The batch is the innermost axis. A batch of B samples is cut into chunks of P <= 64 lanes (a
 *   multiple of 16); activations are [chunk][feature][P]. Lanes past the last sample are zero, and
 *   their gradients stay zero. Weights keep the user's layout, (O, I) row-major.
 *
 * Letters: B batch, P lanes of a chunk, I features in, O features out, n length, m x n x k a matrix
 *          product.
 * Names:   gp_noun_verb; the gradient of x is dx; arguments are sizes, const inputs, outputs,
 *          scalars.
 *
 * Sparse execution
 *   A weight matrix of which the mask keeps few entries, few enough by a table (gp_costs), gets
 *   lists of the live ones (gp_live), made when the mask changes. Forward, dx, dW, norms and the
 *   optimizer then touch live weights only, and values, gradients and moments are kept packed, live
 *   entries side by side. The whole buffers of such a matrix hold its numbers only while somebody
 *   outside has a view of them (gp_home): then every call collects them from there and puts them
 *   back, with the same bits.
 *
 * Threads and bits
 *   A call runs as one parallel region on a gp_pool. Every output number is computed by one thread
 *   in a fixed order and reductions use fixed blocks, so the bits do not depend on the number of
 *   threads. They depend on the instruction set, and on the table that says which layers run on
 *   lists; the caller keeps that with the network.
 *
 * Errors
 *   A gp_status other than GP_OK means that parameters, moments and masks are as they were before
 *   the call. Nothing here exits, prints, or keeps state outside of the objects it hands out.
 */
#ifndef GRADPRUNE_H
#define GRADPRUNE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GP_VERSION "0.1.0"

enum {
    GP_LANES = 64, /* the most samples in a chunk */
    /* lanes and padded rows are multiples of this: 64 bytes, one cache line */
    GP_ALIGN_FLOATS = 16,
    GP_MAX_THREADS = 256,
    GP_MAX_MOMENTS = 2
};

#define GP_NONE SIZE_MAX /* "no such offset or index" */

typedef enum gp_status {
    GP_OK = 0,
    GP_NO_MEMORY,    /* an allocation failed */
    GP_BAD_ARGUMENT, /* the caller broke the contract of this header */
    GP_BAD_INPUT,    /* x holds what it must not; gp_net_input_fault says where and why */
    GP_BAD_TARGET,   /* a float target holds NaN or infinity */
    GP_BAD_LABEL,    /* a label is outside [0, classes) */
    GP_NO_WEIGHT     /* the weights of a batch sum to 0 or to no float64 */
} gp_status;

const char *gp_status_text(gp_status status);

/* ---- kernels: one table an instruction set (dispatch.c, kernels/) ---------------------------- */

typedef struct gp_kernels gp_kernels;

/* The table called `name` ("baseline", "avx2", "avx512", "avx512vnni", "neon"), or the best this
 * CPU runs if name is NULL. NULL if the name is unknown, not built, or not supported by this CPU
 * and operating system. */
const gp_kernels *gp_kernels_get(const char *name);
/* The i-th instruction set this CPU can run, from the plainest to the best; NULL past the end. */
const char *gp_isa_name(size_t i);
const char *gp_kernels_isa(const gp_kernels *kernels);

/* ---- threads (parallel.c) -------------------------------------------------------------------- */

typedef struct gp_pool gp_pool;

/* Threads start at the first use. Safe to use after fork: the child makes threads of its own. */
gp_status gp_pool_create(gp_pool **pool);
void gp_pool_destroy(gp_pool *pool);
/* Threads of somebody else: `parallel` runs a function on up to so many at once, the caller among
 * them, and returns when all are done; rank and size are asked from within that function. An OpenMP
 * runtime has these as GOMP_parallel, omp_get_thread_num and omp_get_num_threads. */
typedef struct gp_runtime {
    void (*parallel)(void (*run)(void *), void *argument, unsigned threads, unsigned flags);
    int (*rank)(void), (*size)(void);
} gp_runtime;
/* Lets the pool run on those instead of starting threads of its own, which would compete with
 * threads that spin for CPUs. A child that is forked has threads of its own. */
void gp_pool_borrow(gp_pool *pool, const gp_runtime *runtime);
/* CPUs this process may run on. */
size_t gp_cpu_count(void);

/* ---- random numbers (rng.c) ------------------------------------------------------------------ */

/* Philox4x32-10, Salmon et al. 2011: stateless, addressed by (seed, stream, i). */

/* The first streams of what the core itself draws. gradprune/foundation/streams.py knows those of
 * all purposes. */
#define GP_DROPOUT_STREAMS ((uint64_t)1 << 60) /* | step << GP_LAYER_BITS | layer */
enum { GP_LAYER_BITS = 16 };                   /* a network has at most 2^16 layers */
uint64_t gp_dropout_stream(uint64_t step, size_t layer);
#define GP_TIMING_STREAMS ((uint64_t)5 << 56) /* + which array: numbers to measure costs with */
#define GP_NOISE_STREAMS ((uint64_t)1 << 61)  /* | stage << 56 | step, from 1: clippers that draw */

/* Words 4*block .. 4*block+3 of a stream. */
void gp_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t words[4]);
/* out[i] = (word i >> 8) * 2^-24, in [0, 1) */
void gp_random_uniform(size_t n, float *out, uint64_t seed, uint64_t stream);
/* Box-Muller in double on the pairs of words 2j, 2j+1 */
void gp_random_normal(size_t n, float *out, uint64_t seed, uint64_t stream);
/* The same numbers at n places alone, in any order: out[j] = number places[j] of the stream. */
void gp_random_uniform_at(size_t n, const int64_t *places, float *out, uint64_t seed,
                          uint64_t stream);
void gp_random_normal_at(size_t n, const int64_t *places, float *out, uint64_t seed,
                         uint64_t stream);
/* Fisher-Yates */
void gp_random_permutation(size_t n, int64_t *out, uint64_t seed, uint64_t stream);
/* keep[i] = 1 at k <= n places, else 0, each subset as likely as another; draws min(k, n - k)
 * numbers: Floyd's algorithm, Bentley, "Programming pearls: a sample of brilliance", CACM 1987 */
void gp_random_subset(size_t n, size_t k, uint8_t *keep, uint64_t seed, uint64_t stream);

/* ---- augmentation (augment.c) ---------------------------------------------------------------- */

/* out (N, C, H, W): pixel (y, x) of sample i comes from row m0 y + m1 x + m2 and column m3 y + m4 x
 * + m5 of all its channels, m = maps (N, 6), interpolated bilinearly between four pixels; around
 * the image all is 0. images (N, C, H + 2, W + 2) have a border of zeros, and (H + 2) (W + 2) <
 * 2^31. What comes from NaN is 0. */
void gp_images_warp(size_t n, size_t channels, size_t height, size_t width, const float *images,
                    const double *maps, float *out);

/* ---- selection (select.c) -------------------------------------------------------------------- */

/* keep[i] = 1 for the k largest scores, else 0; ties go to the lower index; O(n). Scores must not
 * be NaN (GP_BAD_INPUT); k <= n. -0.0 equals 0.0. Unless GP_OK nothing is written. */
gp_status gp_topk_mask(gp_pool *pool, const gp_kernels *kernels, size_t n, const float *scores,
                       uint8_t *keep, size_t k, size_t threads);

/* ---- the arena ------------------------------------------------------------------------------- */

typedef struct gp_segment { /* one named parameter tensor */
    size_t offset, length;
    size_t group;   /* parameters of one layer share a group; groups count up from 0 */
    size_t columns; /* prunable: entries a row, a divisor of length; 0: never listed */
} gp_segment;

typedef struct gp_live gp_live; /* the live weights of an arena as lists (sparse.c) */

/* The buffers of an arena of which somebody may have a view. */
typedef enum gp_kind { GP_VALUES, GP_GRADIENTS, GP_KINDS } gp_kind;

/* Where the numbers of a segment are (home.c). */
typedef enum gp_home {
    /* in its lists, and the whole buffer is 0; of a segment without lists in the whole buffer,
     * which is 0 where the mask is 0 */
    GP_INSIDE,
    GP_RETURNED, /* in the whole buffer, with whatever somebody has written where the mask is 0 */
    GP_OUTSIDE   /* the same, and somebody has a view: it may be written to between two calls */
} gp_home;

typedef struct gp_arena {
    size_t n, n_prunable; /* prunable parameters come first */
    /* floats behind the n of params that are not trained: running statistics */
    size_t n_buffers;
    float *params, *grads; /* n + n_buffers, n */
    const uint8_t *mask;   /* n_prunable, 1 = kept */
    size_t removed;        /* how many of the mask are 0 */
    /* lists made from this mask, or NULL: everything is run and kept whole */
    gp_live *live;
    /* one gp_home a segment, which calls change from GP_RETURNED to GP_INSIDE and back; NULL: all
     * are GP_OUTSIDE, for ever */
    uint8_t *homes[GP_KINDS];
    /* n each, packed by `live`; NULL when the rule does not use it */
    float *moments[GP_MAX_MOMENTS];
    size_t n_segments;
    const gp_segment *segments; /* in order of offset, covering 0..n */
} gp_arena;

/* How many of n mask entries are kept. */
size_t gp_mask_count(size_t n, const uint8_t *mask);
/* Zero the removed entries of one flat buffer of n_prunable or more floats. */
void gp_mask_apply(const gp_kernels *kernels, size_t n_prunable, const uint8_t *mask,
                   float *values);
/* Make the whole buffer of a segment say what counts, 0 where the mask is 0, whatever was written
 * there; somebody outside may read and write it from now on, until its home is changed. */
void gp_arena_show(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, size_t segment);
/* The same for all of both buffers, to be read now. */
void gp_arena_settle(const gp_kernels *kernels, const gp_arena *arena);
/* The live numbers of a segment in order, and the inverse, which touches no removed entry while
 * nobody has a view. */
size_t gp_arena_live_count(const gp_arena *arena, size_t segment);
void gp_arena_collect_segment(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, float *live);
void gp_arena_replace_segment(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                              size_t segment, const float *live);
/* The n - removed live numbers of a kind, of GP_VALUES with the buffers behind them, and the
 * inverse. */
void gp_arena_collect(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind, float *live);
void gp_arena_replace(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind,
                      const float *live);
/* The same of a moment in the form that steps use, see gp_live_pack. */
void gp_arena_collect_moment(const gp_arena *arena, const float *moment, float *live);
void gp_arena_replace_moment(const gp_arena *arena, float *moment, const float *live);
/* Whether all of a kind are finite. */
int gp_arena_is_finite(const gp_kernels *kernels, const gp_arena *arena, gp_kind kind);
/* When lists are faster (costs.c): up to `most` of the weights kept, by the lanes of a chunk, 16,
 * 32, 48 and 64. Lists add in another order, so the table decides about the last bits: a network
 * goes on with the one it began with. */
enum { GP_COSTS = GP_LANES / GP_ALIGN_FLOATS };
typedef struct gp_costs {
    double most[GP_COSTS]; /* in [0, 1]; 0: never */
} gp_costs;
/* The same on every machine with this instruction set, and for any lanes. */
gp_costs gp_costs_default(const gp_kernels *kernels);
int gp_costs_are_valid(const gp_costs *costs);
/* Measures on this CPU, in about a tenth of a second. Two measurements differ. */
gp_status gp_costs_measure(const gp_kernels *kernels, gp_pool *pool, gp_costs *costs);

/* Lists of the live entries of every prunable segment for which they are faster at some number of
 * lanes; *live is NULL if that is none. They hold room for one call's numbers, so calls on one
 * arena must not overlap. */
gp_status gp_live_create(const gp_arena *arena, const gp_costs *costs, gp_live **live);
void gp_live_destroy(gp_live *live);
/* Replaces the mask and the lists by those of `mask`, which may be arena->mask: what it removes
 * becomes 0 in values, gradients and so many moments, and what it keeps anew starts at 0. Unless
 * GP_OK nothing is changed. `own` is arena->mask, to be written to. */
gp_status gp_arena_set_mask(const gp_kernels *kernels, gp_arena *arena, uint8_t *own,
                            const uint8_t *mask, const gp_costs *costs, size_t n_moments,
                            float *const *moments);
/* A moment of arena->n floats between its two forms, in place. Packed, a listed segment has its
 * live entries in order and then zeros; whole, every entry at its place and 0 where it is
 * removed. */
void gp_live_pack(const gp_live *live, float *moment);
void gp_live_unpack(const gp_live *live, float *moment);

/* ---- clipping (clip.c, stages.c, clippers/) -------------------------------------------------- */

/* A clipper is a stage between the gradient and the optimizer. Factors scale a unit (everything, a
 * layer, a parameter, a row of W) by one number, which costs nothing in a step; the others rewrite
 * entries, in a buffer of their own: the gradient itself never changes. */
enum { GP_MAX_CLIPS = 8, GP_CLIP_SETTINGS = 6 };

/* What a clipper is, see clippers/clippers.h: csrc/clippers/<name>.c defines gp_clipper_<name>. */
typedef struct gp_clipper_ops gp_clipper_ops;

typedef struct gp_clip {
    const gp_clipper_ops *ops; /* NULL: no clipper, and none after it */
    /* numbers that the clipper gives a meaning, in its file; those it does not know are 0 */
    double settings[GP_CLIP_SETTINGS];
    /* of what is random; numbers are addressed by step and place in the arena */
    uint64_t seed;
    const uint8_t *excluded; /* one flag a segment that a clipper may heed, or NULL */
    double *state;           /* what it remembers, see clippers/clippers.h; zeros at the start */
    size_t n_state;
    double version; /* a state of another version is forgotten */
    /* n floats, packed like moments, fed back at the next step; or NULL */
    float *residual;
    const struct gp_clip *next; /* the stage after this one, or NULL; at most one factor in all */
    /* of the first stage: n floats, packed like moments; see gp_clip_needs_work */
    float *work;
    /* of the first stage: leave in `work` the gradient that the rule saw */
    int keep;
} gp_clip;

/* Whether these stages rewrite entries. */
int gp_clip_needs_work(const gp_clip *clip);
/* The p-norm of n floats: in double, never overflowing, NaN if any entry is NaN. */
double gp_norm(const gp_kernels *kernels, size_t n, const float *values, double norm_type);
/* 1 if norm <= limit (or is not finite), else limit / (norm + 1e-6). Never above 1. */
double gp_clip_scale(double norm, double limit);
void gp_scale(const gp_kernels *kernels, size_t n, float *values, float factor);
/* NaN stays NaN */
void gp_clamp(const gp_kernels *kernels, size_t n, float *values, float limit);

/* ---- optimizers (optim.c) -------------------------------------------------------------------- */

typedef enum gp_rule_kind { GP_SGD, GP_ADAM, GP_RMSPROP, GP_RULES } gp_rule_kind;

typedef struct gp_rule {
    gp_rule_kind kind;
    double lr, weight_decay;
    /* weight decay shrinks the weight instead of joining the gradient */
    int decoupled;
    double momentum, dampening; /* SGD; momentum also RMSprop */
    int nesterov;               /* SGD */
    double beta1, beta2;        /* Adam; RMSprop's alpha is beta2 */
    double eps;                 /* Adam, RMSprop */
    uint64_t step;              /* 1 for the first step */
    /* a larger entry before clipping refuses the step; 0: any finite one may be */
    double max_gradient;
    double max_norm; /* so does a larger norm */
    /* One a segment, or NULL, as if all were 0, 0 and 1. What is frozen stays as it is, and is in
     * no norm; what is not decayed has no weight decay; lr_scale, at least 0, multiplies lr. */
    const uint8_t *frozen, *undecayed;
    const double *lr_scale;
} gp_rule;

typedef struct gp_step_info {
    /* of the live gradient before clipping; 2-norm unless the clip names another p */
    double norm;
    double norm_after; /* of what the rule saw */
    double scale;      /* the smallest factor applied; 1 when nothing was scaled */
    int clipped;       /* something was beyond a limit */
    /* 0: the norm is not finite, beyond a limit, or the step would overflow; nothing was changed */
    int applied;
} gp_step_info;

/* One clipped optimizer step over the arena. group_norms, if not NULL, receives one 2-norm (or
 * p-norm) a segment. */
gp_status gp_arena_step(gp_pool *pool, const gp_kernels *kernels, const gp_arena *arena,
                        const gp_clip *clip, const gp_rule *rule, gp_step_info *info,
                        double *segment_norms, size_t threads);

/* ---- gradient statistics for pruning (optim.c) ----------------------------------------------- */

/* Running means over batches: mean += (g - mean)/count, mean_square += (g*g - mean_square)/count,
 * count >= 1. */
void gp_statistics_update(const gp_kernels *kernels, size_t n, const float *grads, float *mean,
                          float *mean_square, uint64_t count);
/* The same of prunable weights with the arena's gradient or, unless NULL, that of a moment; mean
 * and mean_square are moments, too. */
void gp_arena_observe(const gp_kernels *kernels, const gp_arena *arena, const float *gradient,
                      float *mean, float *mean_square, uint64_t count);

/* ---- layers and the network (net.c, calls.c, layers/, losses/) ------------------------------- */

/* What a layer is: its row, in a file of its own (layers/<name>.c). The build gathers them. */
typedef struct gp_layer_ops gp_layer_ops;

typedef enum gp_activation {
    GP_IDENTITY,
    GP_RELU,
    GP_LEAKY_RELU,
    GP_TANH,
    GP_SIGMOID,
    GP_GELU,      /* exact: z * Phi(z) */
    GP_SILU,      /* z * sigmoid(z) */
    GP_ELU,       /* z, below 0 slope * (exp(z) - 1) */
    GP_HARDSWISH, /* z * relu6(z + 3) / 6 */
    GP_RELU6,     /* at least 0 and at most 6 */
    GP_ACTIVATIONS
} gp_activation;

/* Settings that one type of layers alone has: a struct of its own, at most so large. */
enum { GP_SETTINGS_BYTES = 192, GP_MOST_SETTINGS = 24 };
typedef union gp_settings {
    double number;
    size_t size;
    unsigned char bytes[GP_SETTINGS_BYTES];
} gp_settings;

typedef struct gp_layer_spec {
    const gp_layer_ops *type;
    size_t in, out;
    /* it reads the outputs of n_back layers, each so many before it; none: of the one before. The
     * network's input is before the first layer. */
    size_t n_back;
    const size_t *back;
    /* offsets into the arena of its first weight matrix and bias, which may be GP_NONE; of a
     * normalization: of its factors and offsets */
    size_t weight, bias;
    size_t buffers; /* offset of its numbers that are not trained */
    float l1, l2;   /* adds l1*sum|w| + l2*sum w^2 to the loss, over all weight matrices */
    int exact;      /* in a frozen network: float32, whatever the others are kept as */
    /* dense, softmax, batchnorm, layernorm: at so many steps of a sequence they do the same, in and
     * out are of all of them; 0 is 1 */
    size_t steps;
    gp_settings settings;
} gp_layer_spec;

/* The type of this name; the i-th of them, in no order that means anything. NULL: there is none. */
const gp_layer_ops *gp_layer_named(const char *name);
const gp_layer_ops *gp_layer_at(size_t i);
const char *gp_layer_name(const gp_layer_ops *type);
/* The i-th word that stands for a number among the settings of the type, such as the name of an
 * activation; NULL past the end. */
const char *gp_layer_word(const gp_layer_ops *type, size_t i, double *number);
/* How many numbers are its settings. */
size_t gp_layer_settings_count(const gp_layer_ops *type);
/* Reads them into spec->settings; GP_BAD_ARGUMENT if one of them can be no setting of the type,
 * whatever the sizes are. */
gp_status gp_layer_set(gp_layer_spec *spec, const double *numbers);
/* Features of what a network of these layers reads. */
size_t gp_layers_in(const gp_layer_spec *layers);

typedef struct gp_net gp_net;

/* Copies the specifications. GP_BAD_ARGUMENT if features do not fit, or nothing reads a layer that
 * is not the last. */
gp_status gp_net_create(const gp_kernels *kernels, gp_pool *pool, size_t n_layers,
                        const gp_layer_spec *layers, gp_net **net);
void gp_net_destroy(gp_net *net);

/* A loss: a row of a table, which the build gathers from losses/<name>.c; see loss.h. */
typedef struct gp_loss_ops gp_loss_ops;

enum { GP_LOSS_SETTINGS = 4 }; /* the most numbers that a loss is set by */

/* The i-th loss, NULL past the end. The order means nothing. */
const gp_loss_ops *gp_loss_at(size_t i);
const char *gp_loss_name(const gp_loss_ops *loss);

typedef struct gp_batch {
    size_t size;          /* samples, >= 1 */
    const float *x;       /* rows of I floats */
    const int64_t *index; /* which rows, or NULL for 0..size-1; the caller has checked the range */
    const gp_loss_ops *loss; /* NULL if there is nothing to measure by */
    const int64_t *labels;   /* if the loss takes labels; indexed like x */
    const float *targets;    /* if it takes values: rows of O floats; indexed like x */
    /* of the samples, >= 0, or NULL: each counts once; indexed like x. The mean loss is
     * sum w loss / sum w, so a sample of weight 2 counts as two, and one of weight 0 not at all. A
     * label that the loss ignores has the weight 0. */
    const double *weights;
    /* Of the samples, sequences of `steps` steps: how many of these count, 1 to `steps`; what comes
     * behind is padding, whose numbers change nothing. Indexed like x; NULL: all steps count. A
     * recurrent layer ends with the last step that counts, and its states behind it are 0. */
    const int64_t *lengths;
    size_t steps; /* with lengths, else 0 */
    /* The network gives as many steps: those that pad are 0, and do not count in the loss, which
     * takes values. A sample then counts by its steps: the loss is the mean over all of these. */
    int by_step;
    /* of the loss, as its file says */
    double settings[GP_LOSS_SETTINGS];
} gp_batch;

typedef struct gp_result {
    double loss; /* mean, with penalties */
    /* where the loss counts hits: the weight of samples whose largest logit is the label's or,
     * by element, of each sample its weight times the share of outputs on their target's side */
    double correct;
    double weight; /* of all samples: without weights, how many are counted */
} gp_result;

/* Where something went wrong, for the error message. */
typedef enum gp_phase {
    GP_PHASE_NONE,
    GP_PHASE_INPUT,
    GP_PHASE_TARGET,
    GP_PHASE_PARAMETER,
    GP_PHASE_FORWARD,
    GP_PHASE_LOSS,
    GP_PHASE_BACKWARD
} gp_phase;

typedef struct gp_fault {
    gp_phase phase;
    size_t layer;       /* index of the layer, or GP_NONE */
    int bias;           /* parameter, backward: the bias rather than the weight */
    int recurrent;      /* parameter, backward: of the state rather than of the input */
    size_t row, column; /* sample and feature; or the parameter's row and column */
    /* forward, in a recurrent layer: the time step, and column is a unit; else GP_NONE */
    size_t step;
    double value; /* the bad number; not set for input and target */
    size_t below; /* input: numbers have to be whole ones below it; 0: finite ones */
} gp_fault;

/* Limits of what training may meet, from the next call on; infinite: any finite number may be. A
 * layer's output in gp_net_backward or gp_net_train beyond `activation` makes gp_net_exploded
 * answer 1, and gp_net_train leave the step out; gp_net_fault finds numbers beyond them, too.
 * gp_net_create sets none. */
void gp_net_limit(gp_net *net, float activation, float gradient);
int gp_net_exploded(const gp_net *net);

/* Forward and backward: fills arena->grads (removed entries exactly 0). `seed` and `step` address
 * dropout's masks. Running statistics move on if loss and statistics are finite and no output
 * exploded. */
gp_status gp_net_backward(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                          gp_result *result, uint64_t seed, uint64_t step, size_t threads);
/* gp_net_backward and gp_arena_step in one parallel region, with the same bits as the two calls
 * (seen by gp_arena_show). If the loss is not finite or an output exploded the step is left out:
 * info->applied is 0 and info->norm NaN. Running statistics move on with a step that was taken. */
gp_status gp_net_train(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                       const gp_clip *clip, const gp_rule *rule, gp_result *result,
                       gp_step_info *info, double *segment_norms, uint64_t seed, uint64_t step,
                       size_t threads);

/* Steps that follow each other. */
typedef struct gp_course {
    size_t n;
    /* n: how many samples of batch->index, one after the other; NULL: each takes the whole batch */
    const size_t *sizes;
    const double *lr; /* n: the learning rate of each, in place of rule->lr */
    double seconds;   /* after so long no other step begins; the first one always does */
} gp_course;

typedef struct gp_taken { /* what came of one of them */
    gp_result result;
    gp_step_info info;
} gp_taken;

/* gp_net_train again and again, with the same bits, until a step is refused or fails: `done` of
 * them have run. A step that is refused or fails counts if it is the first; a later one has left no
 * trace, and a call that begins with it says why. The first one is number rule->step, and `step`
 * for dropout. */
gp_status gp_net_train_many(gp_net *net, const gp_arena *arena, const gp_batch *batch,
                            const gp_course *course, const gp_clip *clip, const gp_rule *rule,
                            gp_taken *taken, size_t *done, double *segment_norms, uint64_t seed,
                            uint64_t step, size_t threads);
/* The forward pass of gp_net_backward, for a loss that somebody else computes from `out`, rows of O
 * floats: parameters, gradients and running statistics stay. gp_net_backward or gp_net_train with
 * gp_loss_given, the gradient of the loss as targets, and the same batch, seed and step go on from
 * there; if another call has come in between, the forward pass is run again. */
gp_status gp_net_forward(gp_net *net, const gp_arena *arena, const gp_batch *batch, float *out,
                         uint64_t seed, uint64_t step, size_t threads);
/* out: rows of O floats, without dropout. */
gp_status gp_net_predict(gp_net *net, const gp_arena *arena, size_t n, const float *x, float *out,
                         size_t threads);
/* Mean loss over any number of samples, without dropout; out, if not NULL, gets the predictions. */
gp_status gp_net_evaluate(gp_net *net, const gp_arena *arena, const gp_batch *batch, float *out,
                          gp_result *result, size_t threads);
/* The first number in the order of computation that is not finite or beyond a limit: a layer's
 * parameters, its output in the last backward or train call (unless the workspace has been used by
 * another call since), the loss, then gradients from the last layer back. phase is GP_PHASE_NONE if
 * all is finite. */
void gp_net_fault(const gp_net *net, const gp_arena *arena, gp_fault *fault);
/* Where the input or target was bad, after GP_BAD_INPUT, GP_BAD_TARGET or GP_BAD_LABEL: the row of
 * x or y. */
void gp_net_input_fault(const gp_net *net, gp_fault *fault);
/* Whether this layer runs on lists of its live weights in a call on so many samples. */
int gp_net_is_sparse(const gp_net *net, const gp_arena *arena, size_t layer, size_t samples);
/* Bytes of workspace that calls will take: however many samples there are, and for each lane, of
 * which a call has at least GP_ALIGN_FLOATS. Nothing is allocated before the first call. */
void gp_net_needs(const gp_net *net, size_t *fixed, size_t *each);
/* Bytes of workspace held. */
size_t gp_net_bytes(const gp_net *net);

/* ---- frozen networks (frozen.c) -------------------------------------------------------------- */

/* A copy of a network for inference: weights packed as they run fastest, nothing that training
 * needs. What it computes never changes, and any number of threads may be in it at once. */
typedef struct gp_frozen gp_frozen;

/* What weights are kept as. GP_INT8: those of Dense layers that run on all of their weights, at
 * most 65536 inputs and not `exact`, as 8-bit integers with a scale a row; their inputs become
 * bytes with a scale a sample in every call. A sample's outputs depend neither on the batch it is
 * in nor, but for tanh, sigmoid, gelu, silu, elu and softmax, on the instruction set. */
typedef enum gp_precision { GP_FLOAT32, GP_INT8, GP_PRECISIONS } gp_precision;

/* The network of these layers over the arena as it is now. GP_BAD_ARGUMENT if features do not fit,
 * or a layer does not fit the arena or cannot be frozen. */
gp_status gp_frozen_create(const gp_kernels *kernels, gp_pool *pool, size_t n_layers,
                           const gp_layer_spec *layers, const gp_arena *arena,
                           gp_precision precision, gp_frozen **frozen);
void gp_frozen_destroy(gp_frozen *frozen);
/* x: n rows of I floats; out: n rows of O floats. GP_BAD_INPUT: fault says where x is not finite
 * (else untouched), out holds anything. */
gp_status gp_frozen_predict(gp_frozen *frozen, size_t n, const float *x, float *out,
                            gp_fault *fault, size_t threads);
/* Of sequences that are padded: what gp_batch says of them. */
typedef struct gp_padding {
    const int64_t *lengths;
    size_t steps;
    int by_step;
} gp_padding;

/* The same of samples that may be padded, with `padding` NULL if they are not. */
gp_status gp_frozen_predict_padded(gp_frozen *frozen, size_t n, const float *x,
                                   const gp_padding *padding, float *out, gp_fault *fault,
                                   size_t threads);
/* Bytes held. */
size_t gp_frozen_bytes(const gp_frozen *frozen);

typedef struct gp_frozen_layer {
    size_t kept, bytes;
    int row_list, lane_list; /* whether few (many) samples run on a list of its live weights */
    int int8;                /* whether on 8-bit integers */
} gp_frozen_layer;

/* What became of a layer: zeros if it has no weights. */
gp_frozen_layer gp_frozen_describe(const gp_frozen *frozen, size_t layer);

/* ---- one layer by itself (solo.c) ------------------------------------------------------------ */

/* A dense layer or a convolution of which the mask keeps few weights, for networks that somebody
 * else runs: the caller has the live values, side by side in the order of the mask, and all other
 * arrays. Samples are rows, as elsewhere outside of the engine. What is computed depends neither on
 * earlier calls nor on the number of threads, and any number of threads may be in it at once. NaN
 * and infinity pass through, as far as live weights meet them. */
typedef struct gp_solo gp_solo;

/* How many weights the layer of these sizes and settings has; its offsets do not count.
 * GP_BAD_ARGUMENT: it is neither of the two, sizes do not go together, or weights cannot be counted
 * in 31 bits. */
gp_status gp_solo_check(const gp_layer_spec *layer, size_t *weights);
/* The same, with a byte of the mask for each weight. */
gp_status gp_solo_create(const gp_kernels *kernels, gp_pool *pool, const gp_layer_spec *layer,
                         const uint8_t *mask, gp_solo **solo);
void gp_solo_destroy(gp_solo *solo);

typedef struct gp_solo_sizes {
    size_t in, out, live, biases;
} gp_solo_sizes;

gp_solo_sizes gp_solo_measure(const gp_solo *solo);

typedef struct gp_solo_arrays {
    size_t samples;
    float *values, *bias; /* these and x, dy are only read; bias may be NULL */
    const float *x;       /* rows of inputs */
    float *y;             /* rows of outputs: what forward writes */
    /* what backward reads, and what it overwrites unless it is NULL */
    const float *dy;
    float *dx, *dvalues, *dbias;
} gp_solo_arrays;

/* GP_NO_MEMORY is all that can go wrong. */
gp_status gp_solo_forward(gp_solo *solo, const gp_solo_arrays *arrays, size_t threads);
gp_status gp_solo_backward(gp_solo *solo, const gp_solo_arrays *arrays, size_t threads);

#ifdef __cplusplus
}
#endif
#endif
