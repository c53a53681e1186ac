/* frozen_type.c - _core.Frozen: a frozen network. A call is meant to cost next to nothing, and any
 * number of Python threads may be in one at once. */
#include "binding/binding.h"

typedef struct frozen_object {
    PyObject_HEAD
    gp_frozen *frozen;
    size_t in, out;
    module_state *state;
    PyObject *module;
} frozen_object;

static PyObject *frozen_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"layers", "arena", "precision", "exact", NULL};
    int precision = GP_FLOAT32;
    PyObject *list, *arena, *exact = NULL, *module = PyType_GetModule(type);
    module_state *state = PyModule_GetState(module);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!O!|iO!", names, &PyList_Type, &list,
                                     state->arena_type, &arena, &precision, &PyTuple_Type, &exact))
        return NULL;
    parsed_layers layers;
    if (gp_parse_layers(list, &layers)) return NULL;
    frozen_object *self = NULL;
    for (Py_ssize_t k = 0; exact && k < PyTuple_GET_SIZE(exact); k++) {
        const size_t i = PyLong_AsSize_t(PyTuple_GET_ITEM(exact, k));
        if (PyErr_Occurred()) goto done;
        if (i >= layers.n) {
            PyErr_Format(PyExc_IndexError, "there is no layer %zu to keep in float32", i);
            goto done;
        }
        layers.specs[i].exact = 1;
    }
    self = (frozen_object *)type->tp_alloc(type, 0);
    if (!self) goto done;
    self->module = Py_NewRef(module);
    self->state = state;
    gp_status status;
    const gp_arena *source = gp_arena_enter((arena_object *)arena);
    Py_BEGIN_ALLOW_THREADS
    status = gp_frozen_create(state->kernels, state->pool, layers.n, layers.specs, source,
                              (gp_precision)precision, &self->frozen);
    Py_END_ALLOW_THREADS
    gp_arena_leave((arena_object *)arena);
    if (status != GP_OK) {
        gp_raise_status(status);
        Py_CLEAR(self);
        goto done;
    }
    self->in = gp_layers_in(layers.specs);
    self->out = layers.specs[layers.n - 1].out;
done:
    gp_free_layers(&layers);
    return (PyObject *)self;
}

static int frozen_traverse(frozen_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    return 0;
}

static void frozen_dealloc(frozen_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    gp_frozen_destroy(self->frozen);
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int is_plain(const frozen_object *self, PyObject *object)
{
    if (!PyArray_CheckExact(object)) return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    return PyArray_TYPE(array) == NPY_FLOAT32 && PyArray_NDIM(array) == 2 &&
           PyArray_ISCARRAY_RO(array) && (size_t)PyArray_DIM(array, 1) == self->in;
}

static PyObject *frozen_predict(frozen_object *self, PyObject *const *args, Py_ssize_t n_args)
{
    gp_padding padding = {0};
    gp_fault fault = {.phase = GP_PHASE_NONE};
    gp_status status;
    if (n_args < 1 || n_args > 2)
        return PyErr_Format(PyExc_TypeError, "predict takes x and lengths, got %zd arguments",
                            n_args);
    if (!is_plain(self, args[0])) Py_RETURN_NONE;
    PyArrayObject *inputs = (PyArrayObject *)args[0];
    if (n_args > 1 && gp_parse_lengths(args[1], PyArray_DIM(inputs, 0), &padding)) return NULL;
    npy_intp shape[2] = {PyArray_DIM(inputs, 0), (npy_intp)self->out};
    PyArrayObject *outputs = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT32);
    if (!outputs) return NULL;
    const float *x = PyArray_DATA(inputs);
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    Py_BEGIN_ALLOW_THREADS
    status = gp_frozen_predict_padded(self->frozen, (size_t)shape[0], x,
                                      padding.lengths ? &padding : NULL, PyArray_DATA(outputs),
                                      &fault, threads);
    Py_END_ALLOW_THREADS
    if (status == GP_OK) return (PyObject *)outputs;
    Py_DECREF(outputs);
    if (status != GP_BAD_INPUT) return gp_raise_status(status);
    return gp_raise_number("x", &fault, x[fault.row * self->in + fault.column]);
}

static PyObject *frozen_describe(frozen_object *self, PyObject *number)
{
    Py_ssize_t layer = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (layer == -1 && PyErr_Occurred()) return NULL;
    gp_frozen_layer found = gp_frozen_describe(self->frozen, layer < 0 ? GP_NONE : (size_t)layer);
    return Py_BuildValue("(nnNNN)", (Py_ssize_t)found.kept, (Py_ssize_t)found.bytes,
                         PyBool_FromLong(found.row_list), PyBool_FromLong(found.lane_list),
                         PyBool_FromLong(found.int8));
}

static PyObject *frozen_nbytes(frozen_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(gp_frozen_bytes(self->frozen));
}

static PyMethodDef frozen_methods[] = {
    {"predict", (PyCFunction)(void (*)(void))frozen_predict, METH_FASTCALL,
     "predict(x, lengths=None) -> float32 (n, outputs); None if x is not a C-contiguous float32 "
     "array (n, "
     "features)"},
    {"describe", (PyCFunction)frozen_describe, METH_O,
     "describe(layer) -> (kept, bytes, few samples on a list, many samples on a list, int8)"},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef frozen_getset[] = {{"nbytes", (getter)frozen_nbytes, NULL, "Bytes held.", NULL},
                                      {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot frozen_slots[] = {
    {Py_tp_doc,
     "Frozen(layers, arena, precision=0, exact=()): an immutable copy of a network for inference."},
    {Py_tp_new, (void *)frozen_new},
    {Py_tp_dealloc, (void *)frozen_dealloc},
    {Py_tp_traverse, (void *)frozen_traverse},
    {Py_tp_methods, frozen_methods},
    {Py_tp_getset, frozen_getset},
    {0, NULL}};
PyType_Spec gp_frozen_spec = {.name = "gradprune._core.Frozen",
                              .basicsize = sizeof(frozen_object),
                              .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                       Py_TPFLAGS_IMMUTABLETYPE,
                              .slots = frozen_slots};
