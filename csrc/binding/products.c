/* products.c - the matrix products of a dense layer alone, shared among the threads as
 * layers/dense.c shares them.
 *
 * The engine itself never calls this: it is how benchmarks compare the products with those of other
 * libraries, in the engine's own layout.
 */
#include "binding/binding.h"
#include "kernels/kernels.h"
#include "parallel.h"

enum { ROWS = 6, TALL = 48 }; /* as in dense.c */

typedef struct product {
    const gp_kernels *kernels;
    size_t chunks, m, n, k;
    const float *a;
    size_t a_row, a_col;
    const float *source; /* of the sum: b transposed, [chunk][n][k], or NULL */
    float *b;
    size_t b_row;
    float *c;
} product;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* This member's part of n items, in whole blocks. */
static void share(const gp_team *team, size_t n, size_t block, size_t *begin, size_t *end)
{
    gp_team_share(team, (n + block - 1) / block, begin, end);
    *begin = smaller(*begin * block, n);
    *end = smaller(*end * block, n);
}

/* c[chunk] = a b[chunk], rows of c shared */
static void multiply(void *context, const gp_team *team)
{
    const product *p = context;
    size_t begin, end;
    share(team, p->m, ROWS, &begin, &end);
    for (size_t chunk = 0; chunk < p->chunks; chunk++)
        p->kernels->gemm(end - begin, p->n, p->k, p->a + begin * p->a_row, p->a_row, p->a_col,
                         p->b + chunk * p->k * p->b_row, p->b_row,
                         p->c + (chunk * p->m + begin) * p->n, p->n, 0);
}

/* Rows row..last and columns column..column + n of c = sum over chunks of a[chunk] b[chunk] */
static void sum_part(const product *p, size_t row, size_t last, size_t column, size_t n)
{
    for (; row < last; row += TALL)
        for (size_t chunk = 0; chunk < p->chunks; chunk++)
            p->kernels->gemm(smaller(TALL, last - row), n, p->k, p->a + (chunk * p->m + row) * p->k,
                             p->k, 1, p->b + chunk * p->k * p->b_row + column, p->b_row,
                             p->c + row * p->n + column, p->n, chunk > 0);
}

/* Rows of c shared; or, where b has to be turned first, columns: who turns them multiplies them. */
static void multiply_and_sum(void *context, const gp_team *team)
{
    const product *p = context;
    size_t begin, end;
    if (!p->source) {
        share(team, p->m, ROWS, &begin, &end);
        sum_part(p, begin, end, 0, p->n);
        return;
    }
    share(team, p->n, GP_ALIGN_FLOATS, &begin, &end);
    for (size_t chunk = 0; chunk < p->chunks; chunk++)
        p->kernels->transpose(end - begin, p->k, p->source + (chunk * p->n + begin) * p->k, p->k,
                              p->b + chunk * p->k * p->b_row + begin, p->b_row);
    sum_part(p, 0, p->m, begin, end - begin);
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

static PyObject *refuse(void)
{
    PyErr_SetString(PyExc_ValueError,
                    "the shapes do not fit, or the last axis of b is not a multiple of 16");
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
    size_t columns = side(a, 1);
    product p = {.chunks = side(b, 0),
                 .m = side(a, transposed ? 1 : 0),
                 .n = side(b, 2),
                 .k = side(b, 1),
                 .a = PyArray_DATA(a),
                 .a_row = transposed ? 1 : columns,
                 .a_col = transposed ? columns : 1,
                 .b = PyArray_DATA(b),
                 .b_row = side(b, 2),
                 .c = PyArray_DATA(c)};
    if (p.k != side(a, transposed ? 0 : 1) || side(c, 0) != p.chunks || side(c, 1) != p.m ||
        side(c, 2) != p.n || p.n % GP_ALIGN_FLOATS != 0)
        return refuse();
    return run(PyModule_GetState(module), multiply, &p);
}

PyObject *gp_core_gemm_sum(PyObject *module, PyObject *args)
{
    PyObject *a_object, *source_object, *b_object, *c_object;
    if (!PyArg_ParseTuple(args, "OOOO", &a_object, &source_object, &b_object, &c_object))
        return NULL;
    PyArrayObject *a = gp_array(a_object, NPY_FLOAT32, 3, 0, "a"), *source = NULL, *b = NULL,
                  *c = NULL;
    if (!a || gp_array_or_none(source_object, NPY_FLOAT32, 3, 0, "source", &source)) return NULL;
    b = gp_array(b_object, NPY_FLOAT32, 3, source != NULL, "b");
    if (b) c = gp_array(c_object, NPY_FLOAT32, 2, 1, "out");
    if (!c) return NULL;
    product p = {.chunks = side(a, 0),
                 .m = side(a, 1),
                 .n = side(c, 1),
                 .k = side(a, 2),
                 .a = PyArray_DATA(a),
                 .source = source ? PyArray_DATA(source) : NULL,
                 .b = PyArray_DATA(b),
                 .b_row = side(b, 2),
                 .c = PyArray_DATA(c)};
    if (side(b, 0) != p.chunks || side(b, 1) != p.k || side(c, 0) != p.m || p.chunks == 0 ||
        p.b_row < p.n || p.b_row % GP_ALIGN_FLOATS != 0 ||
        (source &&
         (side(source, 0) != p.chunks || side(source, 1) != p.n || side(source, 2) != p.k)))
        return refuse();
    return run(PyModule_GetState(module), multiply_and_sum, &p);
}
