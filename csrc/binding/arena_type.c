/* arena_type.c - _core.Arena: the flat buffers as the C core sees them. */
#include "binding/binding.h"

static int parse_segments(PyObject *list, size_t n, size_t n_prunable, gp_segment **out, size_t *count)
{
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "segments must be a list of (offset, length, group)");
        return -1;
    }
    *count = (size_t)PyList_GET_SIZE(list);
    *out = PyMem_Calloc(*count + 1, sizeof **out);
    if (!*out) {
        PyErr_NoMemory();
        return -1;
    }
    size_t end = 0;
    for (size_t i = 0; i < *count; i++) {
        Py_ssize_t offset, length, group;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, (Py_ssize_t)i), "nnn", &offset, &length, &group)) return -1;
        if (offset < 0 || length < 0 || group < 0 || (size_t)offset != end || (size_t)length > n - end ||
            (size_t)group >= *count || ((size_t)offset < n_prunable && end + (size_t)length > n_prunable)) {
            PyErr_Format(PyExc_ValueError, "segment %zu does not follow the one before or leaves the buffer", i);
            return -1;
        }
        (*out)[i] = (gp_segment){(size_t)offset, (size_t)length, (size_t)group};
        end += (size_t)length;
    }
    if (end != n) {
        PyErr_Format(PyExc_ValueError, "the segments cover %zu of %zu parameters", end, n);
        return -1;
    }
    return 0;
}

static void count_removed(arena_object *self)
{
    const uint8_t *mask = PyArray_DATA(self->mask);
    size_t kept = 0;
    for (size_t i = 0; i < self->arena.n_prunable; i++) kept += mask[i] != 0;
    self->arena.removed = self->arena.n_prunable - kept;
    self->arena.version++;
}

static PyObject *arena_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"params", "grads", "mask", "segments", NULL};
    PyObject *params, *grads, *mask, *segments;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOO", names, &params, &grads, &mask, &segments)) return NULL;
    PyArrayObject *w = gp_array(params, NPY_FLOAT32, 1, 1, "params"), *g = NULL, *m = NULL;
    if (w) g = gp_array(grads, NPY_FLOAT32, 1, 1, "grads");
    if (g) m = gp_array(mask, NPY_UINT8, 1, 0, "mask");
    if (!m) return NULL;
    if (PyArray_SIZE(w) != PyArray_SIZE(g) || PyArray_SIZE(m) > PyArray_SIZE(w)) {
        PyErr_SetString(PyExc_ValueError, "params and grads must be of equal length, mask not longer");
        return NULL;
    }
    arena_object *self = (arena_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->module = Py_NewRef(PyType_GetModule(type));
    self->state = PyModule_GetState(self->module);
    self->params = (PyArrayObject *)Py_NewRef(params);
    self->grads = (PyArrayObject *)Py_NewRef(grads);
    self->mask = (PyArrayObject *)Py_NewRef(mask);
    self->arena.n = (size_t)PyArray_SIZE(w);
    self->arena.n_prunable = (size_t)PyArray_SIZE(m);
    self->arena.params = PyArray_DATA(w);
    self->arena.grads = PyArray_DATA(g);
    self->arena.mask = PyArray_DATA(m);
    if (parse_segments(segments, self->arena.n, self->arena.n_prunable, &self->segments, &self->arena.n_segments)) {
        Py_DECREF(self);
        return NULL;
    }
    self->arena.segments = self->segments;
    count_removed(self);
    return (PyObject *)self;
}

static int arena_traverse(arena_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->params);
    Py_VISIT(self->grads);
    Py_VISIT(self->mask);
    return 0;
}

static void arena_dealloc(arena_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->params);
    Py_CLEAR(self->grads);
    Py_CLEAR(self->mask);
    PyMem_Free(self->segments);
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *arena_refresh(arena_object *self, PyObject *unused)
{
    (void)unused;
    count_removed(self);
    return PyLong_FromSize_t(self->arena.removed);
}

static PyObject *arena_step(arena_object *self, PyObject *args)
{
    PyObject *clip_tuple, *rule_tuple, *moments, *norms_object;
    gp_clip clip;
    gp_rule rule;
    gp_arena arena;
    double *norms;
    gp_step_info info;
    gp_status status;
    if (!PyArg_ParseTuple(args, "O!O!OO", &PyTuple_Type, &clip_tuple, &PyTuple_Type, &rule_tuple, &moments,
                          &norms_object) ||
        gp_parse_step(clip_tuple, rule_tuple, moments, norms_object, self, &clip, &rule, &arena, &norms))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = gp_arena_step(self->state->pool, self->state->kernels, &arena, &clip, &rule, &info, norms,
                           self->state->threads);
    Py_END_ALLOW_THREADS
    if (status != GP_OK) return gp_raise_status(status);
    return Py_BuildValue("(ddNN)", info.norm, info.scale, PyBool_FromLong(info.clipped), PyBool_FromLong(info.applied));
}

static PyObject *arena_removed(arena_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(self->arena.removed);
}

static PyMethodDef arena_methods[] = {
    {"refresh", (PyCFunction)arena_refresh, METH_NOARGS, "Count the removed entries of the mask anew; return them."},
    {"step", (PyCFunction)arena_step, METH_VARARGS,
     "step(clip, rule, moments, norms) -> (norm, scale, clipped, applied)"},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef arena_getset[] = {{"removed", (getter)arena_removed, NULL, "Removed weights.", NULL},
                                     {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot arena_slots[] = {{Py_tp_doc, "Arena(params, grads, mask, segments): flat buffers for the C core."},
                                    {Py_tp_new, (void *)arena_new},
                                    {Py_tp_dealloc, (void *)arena_dealloc},
                                    {Py_tp_traverse, (void *)arena_traverse},
                                    {Py_tp_methods, arena_methods},
                                    {Py_tp_getset, arena_getset},
                                    {0, NULL}};
PyType_Spec gp_arena_spec = {.name = "gradprune._core.Arena",
                             .basicsize = sizeof(arena_object),
                             .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                             .slots = arena_slots};
