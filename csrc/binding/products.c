/* products.c - the matrix products of a dense layer alone, shared among the threads as
 * layers/dense.c shares them.
 *
 * The engine itself never calls this: it is how benchmarks compare the products with those of other
 * libraries, in the engine's own layout.
 */
#include "binding/binding.h"
#include "kernels/kernels.h"
#include "parallel.h"

typedef struct product {
    const gp_kernels *kernels;
    size_t chunks, m, n, k;
    const float *a, *b;
    int transposed; /* a */
    float *c;
} product;

/* c[chunk] = a b[chunk] */
static void multiply(void *context, const gp_team *team)
{
    const product *p = context;
    const gp_part mine = gp_team_part(team, p->chunks, p->m, p->m * p->k);
    const size_t rows = mine.end - mine.begin, chunks = mine.last_chunk - mine.first_chunk;
    const float *b = p->b + mine.first_chunk * p->k * p->n;
    float *c = p->c + (mine.first_chunk * p->m + mine.begin) * p->n;
    if (p->transposed) {
        p->kernels->gemm_transposed(chunks, rows, p->n, p->k, p->a + mine.begin, p->m, b,
                                    p->k * p->n, c, p->m * p->n, 0);
        return;
    }
    for (size_t chunk = 0; chunk < chunks; chunk++)
        p->kernels->gemm(rows, p->n, p->k, p->a + mine.begin * p->k, p->k, 1,
                         b + chunk * p->k * p->n, p->n, c + chunk * p->m * p->n, p->n, 0);
}

/* c = sum over chunks of a[chunk] b[chunk]^T: rows of c shared, or columns */
static void multiply_and_sum(void *context, const gp_team *team)
{
    const product *p = context;
    size_t row = 0, last = p->m, column = 0, end = p->n;
    if (p->m > p->n) gp_team_share_blocks(team, p->m, GP_PART_ROWS, &row, &last);
    else gp_team_share_blocks(team, p->n, GP_ALIGN_FLOATS, &column, &end);
    p->kernels->gemm_over_lanes(p->chunks, last - row, end - column, p->k, p->k, p->a + row * p->k,
                                p->m * p->k, p->b + column * p->k, p->n * p->k,
                                p->c + row * p->n + column, p->n, 0);
}

static PyObject *run(const module_state *state, gp_task *task, product *p)
{
    const size_t threads = state->threads; /* now, while the GIL is held */
    p->kernels = state->kernels;
    Py_BEGIN_ALLOW_THREADS
    gp_pool_run(state->pool, threads, task, p);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static size_t side(PyArrayObject *array, int axis) { return (size_t)PyArray_DIM(array, axis); }

static int are_lanes(size_t n) { return n > 0 && n <= GP_LANES && n % GP_ALIGN_FLOATS == 0; }

static PyObject *refuse(void)
{
    PyErr_SetString(
        PyExc_ValueError,
        "the shapes do not fit, or the last axis of b is not a multiple of 16, at most 64");
    return NULL;
}

PyObject *gp_core_gemm(PyObject *module, PyObject *args)
{
    PyObject *a_object, *b_object, *c_object;
    int transposed;
    if (!PyArg_ParseTuple(args, "OpOO", &a_object, &transposed, &b_object, &c_object)) return NULL;
    PyArrayObject *a = gp_array(a_object, NPY_FLOAT32, 2, 0, "a"), *b = NULL, *c = NULL;
    if (a) b = gp_array(b_object, NPY_FLOAT32, 3, 0, "b");
    if (b) c = gp_array(c_object, NPY_FLOAT32, 3, 1, "out");
    if (!c) return NULL;
    product p = {.chunks = side(b, 0),
                 .m = side(a, transposed ? 1 : 0),
                 .n = side(b, 2),
                 .k = side(b, 1),
                 .a = PyArray_DATA(a),
                 .b = PyArray_DATA(b),
                 .transposed = transposed,
                 .c = PyArray_DATA(c)};
    if (p.k != side(a, transposed ? 0 : 1) || side(c, 0) != p.chunks || side(c, 1) != p.m ||
        side(c, 2) != p.n || !are_lanes(p.n))
        return refuse();
    return run(PyModule_GetState(module), multiply, &p);
}

PyObject *gp_core_gemm_sum(PyObject *module, PyObject *args)
{
    PyObject *a_object, *b_object, *c_object;
    if (!PyArg_ParseTuple(args, "OOO", &a_object, &b_object, &c_object)) return NULL;
    PyArrayObject *a = gp_array(a_object, NPY_FLOAT32, 3, 0, "a"), *b = NULL, *c = NULL;
    if (a) b = gp_array(b_object, NPY_FLOAT32, 3, 0, "b");
    if (b) c = gp_array(c_object, NPY_FLOAT32, 2, 1, "out");
    if (!c) return NULL;
    product p = {.chunks = side(a, 0),
                 .m = side(a, 1),
                 .n = side(b, 1),
                 .k = side(a, 2),
                 .a = PyArray_DATA(a),
                 .b = PyArray_DATA(b),
                 .c = PyArray_DATA(c)};
    if (side(b, 0) != p.chunks || side(b, 2) != p.k || side(c, 0) != p.m || side(c, 1) != p.n ||
        p.chunks == 0 || !are_lanes(p.k))
        return refuse();
    return run(PyModule_GetState(module), multiply_and_sum, &p);
}
