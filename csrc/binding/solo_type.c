/* solo_type.c - _core.Solo: one sparse layer by itself. A call is meant to cost next to nothing,
 * and any number of Python threads may be in one at once. */
#include <dlfcn.h>
#include <string.h>

#include "binding/binding.h"

typedef struct solo_object {
    PyObject_HEAD
    gp_solo *solo;
    gp_solo_sizes sizes;
    module_state *state;
    PyObject *module;
} solo_object;

/* 0 if this process has no such function. */
static int find(const char *name, size_t size, void *function)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    memcpy(function, &found, size); /* ISO C has no conversion to a pointer to a function */
    return found != NULL;
}

/* The framework's OpenMP threads spin between its own calls, and other threads would wait for
 * them. */
static void borrow_threads(gp_pool *pool)
{
    gp_runtime runtime;
    if (find("GOMP_parallel", sizeof runtime.parallel, &runtime.parallel) &&
        find("omp_get_thread_num", sizeof runtime.rank, &runtime.rank) &&
        find("omp_get_num_threads", sizeof runtime.size, &runtime.size))
        gp_pool_borrow(pool, &runtime);
}

static PyObject *solo_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"layers", "mask", NULL};
    PyObject *list, *mask_object, *module = PyType_GetModule(type);
    module_state *state = PyModule_GetState(module);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!O", names, &PyList_Type, &list,
                                     &mask_object))
        return NULL;
    PyArrayObject *mask = gp_array(mask_object, NPY_UINT8, 1, 0, "mask");
    parsed_layers layers;
    if (!mask || gp_parse_layers(list, &layers)) return NULL;
    solo_object *self = NULL;
    size_t weights;
    if (layers.n != 1 || gp_solo_check(layers.specs, &weights) != GP_OK) {
        PyErr_SetString(PyExc_ValueError,
                        "a layer by itself is one dense layer or convolution whose sizes go "
                        "together");
        goto done;
    }
    if ((size_t)PyArray_SIZE(mask) != weights) {
        PyErr_Format(PyExc_ValueError, "mask must have %zu entries, got %zd", weights,
                     PyArray_SIZE(mask));
        goto done;
    }
    self = (solo_object *)type->tp_alloc(type, 0);
    if (!self) goto done;
    self->module = Py_NewRef(module);
    self->state = state;
    borrow_threads(state->guests);
    gp_status status;
    const uint8_t *kept = PyArray_DATA(mask);
    Py_BEGIN_ALLOW_THREADS
    status = gp_solo_create(state->kernels, state->guests, layers.specs, kept, &self->solo);
    Py_END_ALLOW_THREADS
    if (status == GP_OK) {
        self->sizes = gp_solo_measure(self->solo);
    } else {
        gp_raise_status(status);
        Py_CLEAR(self);
    }
done:
    gp_free_layers(&layers);
    return (PyObject *)self;
}

static int solo_traverse(solo_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    return 0;
}

static void solo_dealloc(solo_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    gp_solo_destroy(self->solo);
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* An array of any shape with so many numbers; NULL where None is allowed and given. Returns 0 or
 * -1. */
static int parse_numbers(PyObject *object, int may_be_none, int writable, size_t n,
                         const char *name, float **data)
{
    *data = NULL;
    if (may_be_none && object == Py_None) return 0;
    PyArrayObject *array = gp_array(object, NPY_FLOAT32, ANY, writable, name);
    if (!array) return -1;
    if ((size_t)PyArray_SIZE(array) != n) {
        PyErr_Format(PyExc_ValueError, "%s must have %zu entries, got %zd", name, n,
                     PyArray_SIZE(array));
        return -1;
    }
    *data = PyArray_DATA(array);
    return 0;
}

/* x, and how many samples are in it. Returns 0 or -1. */
static int parse_samples(const solo_object *self, PyObject *object, gp_solo_arrays *arrays)
{
    PyArrayObject *x = gp_array(object, NPY_FLOAT32, ANY, 0, "x");
    if (!x) return -1;
    if ((size_t)PyArray_SIZE(x) % self->sizes.in != 0) {
        PyErr_Format(PyExc_ValueError, "x must have samples of %zu numbers, got %zd in all",
                     self->sizes.in, PyArray_SIZE(x));
        return -1;
    }
    arrays->x = PyArray_DATA(x);
    arrays->samples = (size_t)PyArray_SIZE(x) / self->sizes.in;
    return 0;
}

static PyObject *run(solo_object *self, const gp_solo_arrays *arrays, Py_ssize_t threads,
                     gp_status (*pass)(gp_solo *, const gp_solo_arrays *, size_t))
{
    gp_status status;
    if (threads < 1)
        return PyErr_Format(PyExc_ValueError, "threads must be at least 1, got %zd", threads);
    Py_BEGIN_ALLOW_THREADS
    status = pass(self->solo, arrays, (size_t)threads);
    Py_END_ALLOW_THREADS
    if (status != GP_OK) return gp_raise_status(status);
    Py_RETURN_NONE;
}

static PyObject *solo_forward(solo_object *self, PyObject *args)
{
    PyObject *values, *bias, *x, *y;
    Py_ssize_t threads;
    gp_solo_arrays arrays = {0};
    if (!PyArg_ParseTuple(args, "OOOOn", &values, &bias, &x, &y, &threads) ||
        parse_numbers(values, 0, 0, self->sizes.live, "values", &arrays.values) ||
        parse_numbers(bias, 1, 0, self->sizes.biases, "bias", &arrays.bias) ||
        parse_samples(self, x, &arrays) ||
        parse_numbers(y, 0, 1, arrays.samples * self->sizes.out, "y", &arrays.y))
        return NULL;
    return run(self, &arrays, threads, gp_solo_forward);
}

static PyObject *solo_backward(solo_object *self, PyObject *args)
{
    PyObject *values, *x, *dy_object, *dx, *dvalues, *dbias;
    Py_ssize_t threads;
    float *dy;
    gp_solo_arrays arrays = {0};
    if (!PyArg_ParseTuple(args, "OOOOOOn", &values, &x, &dy_object, &dx, &dvalues, &dbias,
                          &threads) ||
        parse_numbers(values, 0, 0, self->sizes.live, "values", &arrays.values) ||
        parse_samples(self, x, &arrays) ||
        parse_numbers(dy_object, 0, 0, arrays.samples * self->sizes.out, "dy", &dy) ||
        parse_numbers(dx, 1, 1, arrays.samples * self->sizes.in, "dx", &arrays.dx) ||
        parse_numbers(dvalues, 1, 1, self->sizes.live, "dvalues", &arrays.dvalues) ||
        parse_numbers(dbias, 1, 1, self->sizes.biases, "dbias", &arrays.dbias))
        return NULL;
    arrays.dy = dy;
    return run(self, &arrays, threads, gp_solo_backward);
}

static PyMethodDef solo_methods[] = {
    {"forward", (PyCFunction)solo_forward, METH_VARARGS,
     "forward(values, bias or None, x, y, threads): y of the samples in x"},
    {"backward", (PyCFunction)solo_backward, METH_VARARGS,
     "backward(values, x, dy, dx, dvalues, dbias, threads): gradients, those that are not None"},
    {NULL, NULL, 0, NULL}};
static PyType_Slot solo_slots[] = {
    {Py_tp_doc, "Solo(layers, mask): a dense layer or a convolution of which few weights live, by "
                "itself; it keeps no numbers but the mask's."},
    {Py_tp_new, (void *)solo_new},
    {Py_tp_dealloc, (void *)solo_dealloc},
    {Py_tp_traverse, (void *)solo_traverse},
    {Py_tp_methods, solo_methods},
    {0, NULL}};
PyType_Spec gp_solo_spec = {.name = "gradprune._core.Solo",
                            .basicsize = sizeof(solo_object),
                            .flags =
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                            .slots = solo_slots};
