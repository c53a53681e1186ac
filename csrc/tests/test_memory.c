/* test_memory.c - memory that runs out, and threads that cannot be had.
 *
 * The linker replaces the allocator by the functions below (--wrap, see the Makefile), which fail
 * from the k-th call on, or at that call alone. Each call of the core that allocates is made with
 * k = 0, 1, 2 ... until it succeeds; as long as it does not, it must say GP_NO_MEMORY, leave
 * parameters and moments alone, and give back what it had got. pthread_create can be made to fail,
 * too: then there are fewer threads and the same results. Memory can be filled with NaN before it
 * is handed out: whoever reads what nobody has written is then found by results that differ.
 */
#include "clippers/clippers.h"
#include "fixture.h"
#include "loss.h"
#include "parallel.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)

enum { NEVER = -1 };
static long until_failure = NEVER; /* calls that still succeed */
static int fails_once;             /* and those after it succeed again */
static long live;                  /* blocks allocated and not freed */
static long threads_to_give = NEVER;
static long joined;        /* threads that somebody has waited for */
static int filled = NEVER; /* the byte that new memory is filled with */

static int fails(void)
{
    if (until_failure == NEVER) return 0;
    if (until_failure == 0) {
        if (fails_once) until_failure = NEVER;
        return 1;
    }
    until_failure--;
    return 0;
}
static void *counted(void *memory)
{
    live += memory != NULL;
    return memory;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __real_pthread_join(pthread_t thread, void **result);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_join(pthread_t thread, void **result);

static void *fill(void *memory, size_t size)
{
    return memory && filled != NEVER ? memset(memory, filled, size) : memory;
}
void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : counted(fill(__real_malloc(size), size));
}
void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(count, size));
}
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : counted(fill(__real_aligned_alloc(alignment, size), size));
}
void __wrap_free(void *memory)
{
    live -= memory != NULL;
    __real_free(memory);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    if (threads_to_give == 0) return 11; /* EAGAIN */
    if (threads_to_give > 0) threads_to_give--;
    return __real_pthread_create(thread, attributes, run, argument);
}
int __wrap_pthread_join(pthread_t thread, void **result)
{
    joined++;
    return __real_pthread_join(thread, result);
}

/* ---- what is tried --------------------------------------------------------------------------- */

enum { SAMPLES = 100 };

typedef struct stage {
    const gp_kernels *kernels;
    gp_pool *pool;
    model m;
    gp_net *net;
    float *x, *out;
    int64_t *labels;
    gp_result result;
    gp_step_info info;
} stage;

typedef gp_status attempt(stage *s, size_t samples);

static const gp_rule rule = {
    .kind = GP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .step = 1};
static const gp_clip clip = {.ops = &gp_clipper_norm, .settings = {1.0, 2.0}};

static gp_batch batch_of(const stage *s, size_t samples)
{
    return (gp_batch){
        .size = samples, .x = s->x, .loss = &gp_loss_cross_entropy, .labels = s->labels};
}

static gp_status try_backward(stage *s, size_t samples)
{
    gp_batch batch = batch_of(s, samples);
    return gp_net_backward(s->net, &s->m.arena, &batch, &s->result, 1, 1, 2);
}
static gp_status try_train(stage *s, size_t samples)
{
    gp_batch batch = batch_of(s, samples);
    return gp_net_train(s->net, &s->m.arena, &batch, &clip, &rule, &s->result, &s->info, NULL, 1, 1,
                        2);
}
static gp_status try_predict(stage *s, size_t samples)
{
    return gp_net_predict(s->net, &s->m.arena, samples, s->x, s->out, 2);
}
static gp_status try_evaluate(stage *s, size_t samples)
{
    gp_batch batch = batch_of(s, samples);
    return gp_net_evaluate(s->net, &s->m.arena, &batch, s->out, &s->result, 2);
}
static gp_status try_step(stage *s, size_t samples)
{
    for (size_t i = 0; i < s->m.arena.n; i++) s->m.arena.grads[i] = (float)samples * 0.01f;
    return gp_arena_step(s->pool, s->kernels, &s->m.arena, &clip, &rule, &s->info, NULL, 2);
}

/* ---- the stage ------------------------------------------------------------------------------- */

/* PRUNED: so far that both dense layers run on lists of their live weights */
enum { WHOLE, PRUNED, RECURRENT, CONVOLUTION, KINDS };

static void stage_open(stage *s, const gp_kernels *kernels, int kind)
{
    noise source = {1};
    *s = (stage){.kernels = kernels};
    if (kind == RECURRENT) {
        model_recurrent(&s->m, GP_LSTM, 3, 10, 12, 1);
        gp_layer_spec *rnn = model_recurrent(&s->m, GP_RNN, 3, 12, 40, 0);
        gp_recurrent_in(rnn)->omega = gp_recurrent_in(rnn)->orthogonality = 0.1f;
    } else if (kind == CONVOLUTION) {
        gp_window w = model_window(2, 3, 5, 3);
        w.before[0] = w.before[1] = w.after[0] = w.after[1] = 1;
        model_convolution(&s->m, w, 5);
        model_batchnorm(&s->m, 5, 0);
        model_pooling(&s->m, model_window(5, 3, 5, 2), GP_POOL_MAX);
    } else {
        model_dense(&s->m, 30, 40);
        model_activation(&s->m, GP_RELU, 0);
        model_dropout(&s->m, 0.5f, 0);
    }
    model_dense(&s->m, 40, 7);
    model_finish(&s->m, 2);
    if (kind != WHOLE) model_prune(&s->m, 0.9, 3);
    s->x = allocated(SAMPLES * 30 * sizeof *s->x);
    s->out = allocated(SAMPLES * 7 * sizeof *s->out);
    s->labels = allocated(SAMPLES * sizeof *s->labels);
    noise_floats(&source, SAMPLES * 30, s->x, 1.0);
    for (size_t i = 0; i < SAMPLES; i++) s->labels[i] = (int64_t)noise_below(&source, 7);
    CHECK_INT_EQUAL(gp_pool_create(&s->pool), GP_OK);
    CHECK_INT_EQUAL(gp_net_create(kernels, s->pool, s->m.n_layers, s->m.layers, &s->net), GP_OK);
}

static void stage_close(stage *s)
{
    gp_net_destroy(s->net);
    gp_pool_destroy(s->pool);
    model_free(&s->m);
    free(s->x);
    free(s->out);
    free(s->labels);
}

/* Fails at the first, second ... allocation until it works; returns how often it failed, -1 if it
 * never worked. Only a workspace for the new batch may be kept from a call that failed: at most one
 * block more than before. */
static long fail_until_it_works(stage *s, attempt *run, size_t samples)
{
    const long before = live;
    for (long k = 0; k < 100; k++) {
        snapshot whole = snapshot_take(&s->m.arena);
        gp_fault fault;
        s->result.loss = s->info.norm = -1.0;
        until_failure = k;
        gp_status status = run(s, samples);
        until_failure = NEVER;
        if (status == GP_OK) return snapshot_free(&whole), k;
        CHECK_INT_EQUAL(status, GP_NO_MEMORY);
        CHECK(snapshot_equal(&whole, &s->m.arena));
        CHECK(s->result.loss == -1.0 && s->info.norm == -1.0);
        snapshot_free(&whole);
        CHECK(live == before || (live <= before + 2 && gp_net_bytes(s->net) > 0));
        gp_net_fault(s->net, &s->m.arena, &fault); /* finds its way whatever is missing */
    }
    return -1;
}

static void calls_fail_cleanly(const gp_kernels *kernels, int kind)
{
    attempt *const attempts[] = {try_backward, try_train, try_predict, try_evaluate, try_step};
    const long start = live;
    for (size_t i = 0; i < 5; i++) {
        stage s;
        int steps = attempts[i] == try_train || attempts[i] == try_step;
        stage_open(&s, kernels, kind);
        long failures = fail_until_it_works(&s, attempts[i], SAMPLES);
        CHECK(failures >= 1);
        until_failure = 0; /* the workspace is there: only a step still allocates */
        CHECK_INT_EQUAL(attempts[i](&s, SAMPLES), steps ? GP_NO_MEMORY : GP_OK);
        until_failure = NEVER;
        stage_close(&s);
        CHECK_INT_EQUAL(live, start);
    }
}

static void test_calls(const gp_kernels *kernels)
{
    for (int kind = WHOLE; kind < KINDS; kind++) calls_fail_cleanly(kernels, kind);
}

/* Lists of live weights: all of them or none. */
static void test_lists(void)
{
    stage s;
    gp_live *made;
    stage_open(&s, gp_kernels_get(NULL), 1);
    const long before = live;
    long failures = 0;
    for (; failures < 20; failures++) {
        until_failure = failures;
        gp_status status = gp_live_create(&s.m.arena, &model_costs, &made);
        until_failure = NEVER;
        if (status == GP_OK) break;
        CHECK_INT_EQUAL(status, GP_NO_MEMORY);
        CHECK(made == NULL);
        CHECK_INT_EQUAL(live, before);
    }
    CHECK_INT_EQUAL(failures, 5); /* the collection with its two arrays, and two lists */
    gp_live_destroy(made);
    CHECK_INT_EQUAL(live, before);
    stage_close(&s);
}

/* When a larger workspace cannot be had the old one still works, and to the same bits. */
static void test_growth(const gp_kernels *kernels)
{
    stage s;
    float expected[7];
    stage_open(&s, kernels, 0);
    CHECK_INT_EQUAL(try_predict(&s, 1), GP_OK);
    memcpy(expected, s.out, sizeof expected);
    for (size_t round = 0; round < 2; round++) {
        until_failure = 0;
        CHECK_INT_EQUAL(try_predict(&s, SAMPLES), GP_NO_MEMORY);
        memset(s.out, 0, sizeof expected);
        CHECK_INT_EQUAL(try_predict(&s, 1), GP_OK);
        CHECK_BYTES_EQUAL(sizeof expected, s.out, expected);
        until_failure = NEVER;
    }
    CHECK(fail_until_it_works(&s, try_train, SAMPLES) >= 1);
    stage_close(&s);
}

/* Nothing is written, nothing is kept. */
static void test_selection(void)
{
    enum { N = 20000 };
    const long start = live;
    gp_pool *pool = NULL;
    noise source = {5};
    float *scores = allocated(N * sizeof *scores);
    uint8_t keep[N] = {0};
    size_t kept = 0;
    long failures = 0;
    noise_floats(&source, N, scores, 1.0);
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    for (gp_status status = GP_NO_MEMORY; status != GP_OK && failures < 100;) {
        const long before = live;
        until_failure = failures;
        status = gp_topk_mask(pool, gp_kernels_get(NULL), N, scores, keep, N / 2, 2);
        until_failure = NEVER;
        CHECK_INT_EQUAL(live, before);
        if (status == GP_OK) break;
        CHECK(++failures && status == GP_NO_MEMORY && memchr(keep, 1, N) == NULL);
    }
    for (size_t i = 0; i < N; i++) kept += keep[i];
    CHECK(failures >= 1 && failures < 100);
    CHECK_INT_EQUAL(kept, N / 2);
    gp_pool_destroy(pool);
    free(scores);
    CHECK_INT_EQUAL(live, start);
}

/* Whatever a measurement cannot have, once or from then on: it says so, the table stays, and
 * nothing is kept. */
static void test_costs(void)
{
    gp_pool *pool = NULL;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    const long start = live;
    for (long k = 0; k < 80; k++) {
        gp_costs costs = model_costs;
        fails_once = k % 2 == 1;
        until_failure = k / 2;
        CHECK_INT_EQUAL(gp_costs_measure(gp_kernels_get(NULL), pool, &costs), GP_NO_MEMORY);
        until_failure = NEVER;
        CHECK_INT_EQUAL(live, start);
        CHECK_BYTES_EQUAL(sizeof costs, &costs, &model_costs);
    }
    fails_once = 0;
    gp_pool_destroy(pool);
}

/* ---- making and unmaking --------------------------------------------------------------------- */

static void create_fails_cleanly(int kind)
{
    stage s;
    long pool_failures = 0, net_failures = 0;
    stage_open(&s, gp_kernels_get(NULL), kind);
    const long start = live;
    for (gp_status status = GP_NO_MEMORY; status != GP_OK && pool_failures < 100;) {
        gp_pool *pool = s.pool;
        until_failure = pool_failures;
        status = gp_pool_create(&pool);
        until_failure = NEVER;
        if (status != GP_OK)
            CHECK(++pool_failures && status == GP_NO_MEMORY && pool == NULL && live == start);
        gp_pool_destroy(pool);
    }
    for (gp_status status = GP_NO_MEMORY; status != GP_OK && net_failures < 100;) {
        gp_net *net = s.net;
        until_failure = net_failures;
        status = gp_net_create(s.kernels, s.pool, s.m.n_layers, s.m.layers, &net);
        until_failure = NEVER;
        if (status != GP_OK)
            CHECK(++net_failures && status == GP_NO_MEMORY && net == NULL && live == start);
        gp_net_destroy(net);
    }
    CHECK(pool_failures >= 1 && pool_failures < 100);
    CHECK(net_failures >= 1 && net_failures < 100);
    CHECK_INT_EQUAL(live, start);
    stage_close(&s);
}

static void test_create(void)
{
    for (int kind = WHOLE; kind < KINDS; kind++) create_fails_cleanly(kind);
}

static void test_frozen(void)
{
    for (int kind = 0; kind < 4; kind++) {
        const int pruned = kind % 2;
        const gp_precision precision = kind < 2 ? GP_FLOAT32 : GP_INT8;
        stage s;
        gp_frozen *frozen = NULL;
        gp_fault fault = {.phase = GP_PHASE_NONE};
        long failures = 0;
        stage_open(&s, gp_kernels_get(NULL), pruned);
        const long start = live;
        for (gp_status status = GP_NO_MEMORY; status != GP_OK && failures < 100;) {
            until_failure = failures;
            status = gp_frozen_create(s.kernels, s.pool, s.m.n_layers, s.m.layers, &s.m.arena,
                                      precision, &frozen);
            until_failure = NEVER;
            if (status != GP_OK)
                CHECK(++failures && status == GP_NO_MEMORY && frozen == NULL && live == start);
        }
        /* itself, its buffers, what layers read, where outputs are; and the weights of two layers
         * and, in float32, an order */
        CHECK_INT_EQUAL(failures, precision == GP_INT8 ? 6 : 8);
        const long made = live;
        until_failure = 0;
        CHECK_INT_EQUAL(gp_frozen_predict(frozen, SAMPLES, s.x, s.out, &fault, 2), GP_NO_MEMORY);
        /* on the stack */
        CHECK_INT_EQUAL(gp_frozen_predict(frozen, 1, s.x, s.out, &fault, 2), GP_OK);
        until_failure = NEVER;
        CHECK_INT_EQUAL(gp_frozen_predict(frozen, SAMPLES, s.x, s.out, &fault, 2), GP_OK);
        CHECK_INT_EQUAL(live, made);
        gp_frozen_destroy(frozen);
        CHECK_INT_EQUAL(live, start);
        stage_close(&s);
    }
}

/* ---- what memory held before ----------------------------------------------------------------- */

enum { RESULTS = 4 + 2 * (1 + 5 + SAMPLES) * 7 };

/* The same for what the next calls will find on the stack. */
static __attribute__((noinline)) void fill_stack(int byte)
{
    volatile unsigned char room[1 << 16];
    for (size_t i = 0; i < sizeof room; i++) room[i] = (unsigned char)byte;
}

/* Two steps, predictions of one, some and many samples, and the same of the frozen network. */
static void results_of(const gp_kernels *kernels, int kind, gp_precision precision, int byte,
                       float results[RESULTS])
{
    static const size_t sizes[] = {1, 5, SAMPLES};
    stage s;
    gp_frozen *frozen = NULL;
    gp_fault fault;
    float *out = results;
    filled = byte;
    stage_open(&s, kernels, kind);
    for (size_t i = 0; i < 2; i++) {
        CHECK_INT_EQUAL(try_train(&s, i == 0 ? 3 : SAMPLES), GP_OK);
        *out++ = (float)s.result.loss;
        *out++ = (float)s.info.norm;
    }
    CHECK_INT_EQUAL(
        gp_frozen_create(kernels, s.pool, s.m.n_layers, s.m.layers, &s.m.arena, precision, &frozen),
        GP_OK);
    for (size_t i = 0; i < 3; i++) {
        CHECK_INT_EQUAL(try_predict(&s, sizes[i]), GP_OK);
        memcpy(out, s.out, sizes[i] * 7 * sizeof *out);
        out += sizes[i] * 7;
        fill_stack(byte);
        CHECK_INT_EQUAL(gp_frozen_predict(frozen, sizes[i], s.x, s.out, &fault, 2), GP_OK);
        memcpy(out, s.out, sizes[i] * 7 * sizeof *out);
        out += sizes[i] * 7;
    }
    filled = NEVER;
    gp_frozen_destroy(frozen);
    stage_close(&s);
}

/* Nothing that was not written is read: the same bits whether memory was 0 or NaN. */
static void test_unwritten(const gp_kernels *kernels)
{
    static float zeros[RESULTS], nans[RESULTS];
    for (int kind = WHOLE; kind < KINDS; kind++)
        for (int precision = 0; precision < GP_PRECISIONS; precision++) {
            results_of(kernels, kind, (gp_precision)precision, 0, zeros);
            results_of(kernels, kind, (gp_precision)precision, 0xff, nans);
            CHECK_BYTES_EQUAL(sizeof zeros, nans, zeros);
        }
}

/* More than there are addresses for: refused before anything is asked of the allocator. */
static void test_too_large(void)
{
    stage s;
    gp_net *net = NULL;
    gp_layer_spec layer = {.type = &gp_layer_activation, .in = SIZE_MAX / 64, .out = SIZE_MAX / 64};
    stage_open(&s, gp_kernels_get(NULL), 0);
    CHECK_INT_EQUAL(gp_net_create(s.kernels, s.pool, 1, &layer, &net), GP_OK);
    CHECK_INT_EQUAL(gp_net_predict(net, &s.m.arena, 1, s.x, s.out, 1), GP_NO_MEMORY);
    gp_net_destroy(net);
    stage_close(&s);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void team_size(void *context, const gp_team *team)
{
    size_t *size = context;
    gp_team_wait(team);
    if (team->rank == 0) *size = team->size;
}

static void test_few_threads(void)
{
    for (long given = 0; given < 4; given++) {
        gp_pool *pool = NULL;
        size_t size = 0;
        CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
        threads_to_give = given;
        gp_pool_run(pool, 4, team_size, &size);
        CHECK_INT_EQUAL(size, given + 1);
        threads_to_give = NEVER;
        gp_pool_run(pool, 3, team_size, &size); /* now there are more */
        CHECK_INT_EQUAL(size, 3);
        gp_pool_destroy(pool);
    }
}

/* A pool is destroyed by waiting for its threads, but for those that a child after fork does not
 * have. */
static void test_joined(void)
{
    gp_pool *pool = NULL;
    size_t size = 0;
    int status = 0;
    long *in_child =
        mmap(NULL, sizeof *in_child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(in_child != MAP_FAILED)) return;
    CHECK_INT_EQUAL(gp_pool_create(&pool), GP_OK);
    gp_pool_run(pool, 3, team_size, &size);
    joined = 0;
    *in_child = NEVER;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        gp_pool_destroy(pool);
        *in_child = joined;
        /* without a leak check of what belonged to the parent */
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT_EQUAL(*in_child, 0);
    gp_pool_destroy(pool);
    CHECK_INT_EQUAL(joined, (long)size - 1);
    munmap(in_child, sizeof *in_child);
}

/* A sparse layer by itself: nothing is lost when a call fails, and the next one works. */
static void test_solo(void)
{
    enum { IN = 20, OUT = 12, SAMPLES_OF_SOLO = 70 };
    const gp_layer_spec spec = {.type = &gp_layer_dense, .in = IN, .out = OUT};
    uint8_t mask[IN * OUT];
    float values[IN * OUT], x[SAMPLES_OF_SOLO * IN], y[SAMPLES_OF_SOLO * OUT], bias[OUT];
    gp_solo *solo = NULL;
    noise source = {5};
    long failures = 0;
    const long start = live;
    for (size_t i = 0; i < IN * OUT; i++) mask[i] = i % 3 == 0;
    noise_floats(&source, IN * OUT, values, 1.0);
    noise_floats(&source, SAMPLES_OF_SOLO * IN, x, 1.0);
    noise_floats(&source, OUT, bias, 1.0);
    for (gp_status status = GP_NO_MEMORY; status != GP_OK && failures < 100;) {
        until_failure = failures;
        status = gp_solo_create(gp_kernels_get(NULL), NULL, &spec, mask, &solo);
        until_failure = NEVER;
        if (status != GP_OK)
            CHECK(++failures && status == GP_NO_MEMORY && solo == NULL && live == start);
    }
    CHECK_INT_EQUAL(failures, 2); /* itself, its lists */
    const long made = live;
    const gp_solo_arrays arrays = {.samples = SAMPLES_OF_SOLO,
                                   .values = values,
                                   .bias = bias,
                                   .x = x,
                                   .y = y,
                                   .dy = y,
                                   .dvalues = values,
                                   .dbias = bias};
    until_failure = 0;
    CHECK_INT_EQUAL(gp_solo_forward(solo, &arrays, 1), GP_NO_MEMORY);
    CHECK_INT_EQUAL(gp_solo_backward(solo, &arrays, 1), GP_NO_MEMORY);
    until_failure = NEVER;
    for (filled = NEVER; filled < 256; filled += 256) { /* what nobody has written is not read */
        CHECK_INT_EQUAL(gp_solo_forward(solo, &arrays, 1), GP_OK);
        for (size_t i = 0; i < SAMPLES_OF_SOLO * OUT; i++) CHECK(!is_float_nan(y[i]));
    }
    filled = NEVER;
    CHECK_INT_EQUAL(gp_solo_backward(solo, &arrays, 1), GP_OK);
    CHECK_INT_EQUAL(live, made);
    gp_solo_destroy(solo);
    CHECK_INT_EQUAL(live, start);
}

int main(void)
{
    OVER_INSTRUCTION_SETS(test_calls);
    OVER_INSTRUCTION_SETS(test_unwritten);
    test_lists();
    OVER_INSTRUCTION_SETS(test_growth);
    test_selection();
    test_costs();
    test_create();
    test_frozen();
    test_solo();
    test_too_large();
    test_few_threads();
    test_joined();
    CHECK_INT_EQUAL(live, 0);
    return check_summary();
}

#else

int main(void)
{
    CHECK(1); /* this linker has no --wrap */
    return check_summary();
}

#endif
