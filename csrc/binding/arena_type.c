/* arena_type.c - _core.Arena: the flat buffers as the C core sees them. */
#include "binding/binding.h"

struct arena_object {
    PyObject_HEAD
    PyArrayObject *params, *grads, *mask;
    gp_segment *segments;
    /* for the owner of the lock, by gp_arena_enter; its moments are set for one step only */
    gp_arena guarded;
    gp_lock lock; /* the lists have room for the numbers of one call */
    module_state *state;
    PyObject *module;
};

gp_arena *gp_arena_enter(arena_object *self)
{
    gp_lock_enter(&self->lock);
    return &self->guarded;
}

void gp_arena_leave(arena_object *self) { gp_lock_leave(&self->lock); }

arena_sizes gp_arena_sizes(const arena_object *self)
{
    return (arena_sizes){self->guarded.n, self->guarded.n_prunable, self->guarded.n_segments};
}

static int parse_segments(PyObject *list, size_t n, size_t n_prunable, gp_segment **out,
                          size_t *count)
{
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError,
                        "segments must be a list of (offset, length, group, columns)");
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
        Py_ssize_t offset, length, group, columns;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, (Py_ssize_t)i), "nnnn", &offset, &length,
                              &group, &columns))
            return -1;
        if (offset < 0 || length < 0 || group < 0 || (size_t)offset != end ||
            (size_t)length > n - end || (size_t)group >= *count ||
            ((size_t)offset < n_prunable && end + (size_t)length > n_prunable)) {
            PyErr_Format(PyExc_ValueError,
                         "segment %zu does not follow the one before or leaves the buffer", i);
            return -1;
        }
        if (columns < 0 || (columns > 0 && length % columns != 0)) {
            PyErr_Format(PyExc_ValueError, "segment %zu cannot have rows of %zd entries", i,
                         columns);
            return -1;
        }
        (*out)[i] = (gp_segment){(size_t)offset, (size_t)length, (size_t)group, (size_t)columns};
        end += (size_t)length;
    }
    if (end != n) {
        PyErr_Format(PyExc_ValueError, "the segments cover %zu of %zu parameters", end, n);
        return -1;
    }
    return 0;
}

static PyObject *arena_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"params", "grads", "mask", "segments", "costs", NULL};
    PyObject *params, *grads, *mask, *segments, *table;
    gp_costs costs;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOO", names, &params, &grads, &mask,
                                     &segments, &table) ||
        gp_parse_costs(table, &costs))
        return NULL;
    PyArrayObject *w = gp_array(params, NPY_FLOAT32, 1, 1, "params"), *g = NULL, *m = NULL;
    if (w) g = gp_array(grads, NPY_FLOAT32, 1, 1, "grads");
    if (g) m = gp_array(mask, NPY_UINT8, 1, 0, "mask");
    if (!m) return NULL;
    if (PyArray_SIZE(w) < PyArray_SIZE(g) || PyArray_SIZE(m) > PyArray_SIZE(g)) {
        PyErr_SetString(PyExc_ValueError,
                        "grads must not be longer than params, mask not longer than grads");
        return NULL;
    }
    arena_object *self = (arena_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->module = Py_NewRef(PyType_GetModule(type));
    self->state = PyModule_GetState(self->module);
    self->params = (PyArrayObject *)Py_NewRef(params);
    self->grads = (PyArrayObject *)Py_NewRef(grads);
    self->mask = (PyArrayObject *)Py_NewRef(mask);
    gp_arena *arena = &self->guarded;
    *arena = (gp_arena){.n = (size_t)PyArray_SIZE(g),
                        .n_buffers = (size_t)(PyArray_SIZE(w) - PyArray_SIZE(g)),
                        .n_prunable = (size_t)PyArray_SIZE(m),
                        .params = PyArray_DATA(w),
                        .grads = PyArray_DATA(g),
                        .mask = PyArray_DATA(m)};
    if (parse_segments(segments, arena->n, arena->n_prunable, &self->segments,
                       &arena->n_segments)) {
        Py_DECREF(self);
        return NULL;
    }
    arena->segments = self->segments;
    arena->removed = arena->n_prunable - gp_mask_count(arena->n_prunable, arena->mask);
    gp_status status = gp_live_create(arena, &costs, &arena->live);
    if (status != GP_OK || gp_lock_create(&self->lock)) {
        if (status != GP_OK) gp_raise_status(status);
        Py_DECREF(self);
        return NULL;
    }
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
    gp_live_destroy(self->guarded.live);
    gp_lock_destroy(&self->lock);
    PyMem_Free(self->segments);
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The buffers of a tuple of moments; 0 or -1. */
static int parse_moments(const arena_object *self, PyObject *tuple, float ***out, size_t *count)
{
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "moments must be a tuple of arrays");
        return -1;
    }
    *count = (size_t)PyTuple_GET_SIZE(tuple);
    *out = PyMem_Calloc(*count + 1, sizeof **out);
    if (!*out) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < *count; i++) {
        PyArrayObject *moment =
            gp_array(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i), NPY_FLOAT32, 1, 1, "a moment");
        if (moment && (size_t)PyArray_SIZE(moment) != gp_arena_sizes(self).n)
            PyErr_SetString(PyExc_ValueError, "a moment must be as long as the parameters");
        if (PyErr_Occurred()) {
            PyMem_Free(*out);
            return -1;
        }
        (*out)[i] = PyArray_DATA(moment);
    }
    return 0;
}

/* All or nothing: the only thing that can fail, the new lists, comes first. */
static PyObject *arena_set_mask(arena_object *self, PyObject *args)
{
    PyObject *object, *table, *tuple;
    gp_costs costs;
    float **moments;
    size_t n_moments;
    if (!PyArg_ParseTuple(args, "OOO", &object, &table, &tuple) || gp_parse_costs(table, &costs))
        return NULL;
    PyArrayObject *mask = gp_array(object, NPY_UINT8, 1, 0, "mask");
    if (!mask) return NULL;
    if ((size_t)PyArray_SIZE(mask) != gp_arena_sizes(self).n_prunable) {
        PyErr_SetString(PyExc_ValueError, "the mask must be as long as the prunable parameters");
        return NULL;
    }
    if (parse_moments(self, tuple, &moments, &n_moments)) return NULL;
    const gp_kernels *kernels = self->state->kernels;
    gp_arena *arena = gp_arena_enter(self), next = *arena;
    gp_status status;
    Py_BEGIN_ALLOW_THREADS
    next.mask = PyArray_DATA(mask);
    status = gp_live_create(&next, &costs, &next.live);
    if (status == GP_OK) {
        /* what was written where the old mask is 0 must not come back with the new one */
        gp_arena_settle(kernels, arena);
        for (size_t i = 0; i < n_moments; i++) {
            gp_live_unpack(arena->live, moments[i]);
            gp_mask_apply(kernels, arena->n_prunable, arena->mask, moments[i]);
        }
        /* it may be the arena's own */
        memmove(PyArray_DATA(self->mask), next.mask, arena->n_prunable);
        gp_mask_apply(kernels, arena->n_prunable, arena->mask, arena->params);
        gp_mask_apply(kernels, arena->n_prunable, arena->mask, arena->grads);
        for (size_t i = 0; i < n_moments; i++) {
            gp_mask_apply(kernels, arena->n_prunable, arena->mask, moments[i]);
            gp_live_pack(next.live, moments[i]);
        }
        gp_live_destroy(arena->live);
        arena->live = next.live;
        arena->removed = arena->n_prunable - gp_mask_count(arena->n_prunable, arena->mask);
    }
    Py_END_ALLOW_THREADS
    gp_arena_leave(self);
    PyMem_Free(moments);
    if (status != GP_OK) return gp_raise_status(status);
    Py_RETURN_NONE;
}

static PyObject *arena_settle(arena_object *self, PyObject *unused)
{
    (void)unused;
    gp_arena_settle(self->state->kernels, gp_arena_enter(self));
    gp_arena_leave(self);
    Py_RETURN_NONE;
}

static PyObject *change_form(arena_object *self, PyObject *object,
                             void change(const gp_live *, float *))
{
    PyArrayObject *moment = gp_array(object, NPY_FLOAT32, 1, 1, "a moment");
    if (!moment) return NULL;
    if ((size_t)PyArray_SIZE(moment) != gp_arena_sizes(self).n) {
        PyErr_SetString(PyExc_ValueError, "a moment must be as long as the parameters");
        return NULL;
    }
    change(gp_arena_enter(self)->live, PyArray_DATA(moment));
    gp_arena_leave(self);
    Py_RETURN_NONE;
}

static PyObject *arena_pack(arena_object *self, PyObject *moment)
{
    return change_form(self, moment, gp_live_pack);
}
static PyObject *arena_unpack(arena_object *self, PyObject *moment)
{
    return change_form(self, moment, gp_live_unpack);
}

static PyObject *arena_step(arena_object *self, PyObject *args)
{
    PyObject *clip_tuple, *rule_tuple, *moments, *norms_object;
    gp_clip clips[GP_MAX_CLIPS];
    gp_rule rule;
    float *moments_of_step[GP_MAX_MOMENTS];
    double *norms;
    gp_step_info info;
    gp_status status;
    if (!PyArg_ParseTuple(args, "O!O!OO", &PyTuple_Type, &clip_tuple, &PyTuple_Type, &rule_tuple,
                          &moments, &norms_object) ||
        gp_parse_step(clip_tuple, rule_tuple, moments, norms_object, gp_arena_sizes(self), clips,
                      &rule, moments_of_step, &norms))
        return NULL;
    gp_arena arena = *gp_arena_enter(self);
    memcpy(arena.moments, moments_of_step, sizeof arena.moments);
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    Py_BEGIN_ALLOW_THREADS
    status = gp_arena_step(self->state->pool, self->state->kernels, &arena, clips, &rule, &info,
                           norms, threads);
    Py_END_ALLOW_THREADS
    gp_arena_leave(self);
    if (status != GP_OK) return gp_raise_status(status);
    return gp_step_result(&info);
}

static PyObject *arena_removed(arena_object *self, void *unused)
{
    (void)unused;
    const size_t removed = gp_arena_enter(self)->removed;
    gp_arena_leave(self);
    return PyLong_FromSize_t(removed);
}

static PyMethodDef arena_methods[] = {
    {"set_mask", (PyCFunction)arena_set_mask, METH_VARARGS,
     "set_mask(mask, costs, moments): replace mask and table; zero what it removes, in the moments "
     "too."},
    {"settle", (PyCFunction)arena_settle, METH_NOARGS,
     "Bring grads up to date after Net.train, and zero params and grads where the mask is 0."},
    {"pack", (PyCFunction)arena_pack, METH_O,
     "pack(moment): from whole to the form that steps use, in place."},
    {"unpack", (PyCFunction)arena_unpack, METH_O, "unpack(moment): the inverse of pack."},
    {"step", (PyCFunction)arena_step, METH_VARARGS,
     "step(clip, rule, moments, norms) -> (norm, scale, clipped, applied, norm_after)"},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef arena_getset[] = {
    {"removed", (getter)arena_removed, NULL, "Removed weights.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot arena_slots[] = {
    {Py_tp_doc, "Arena(params, grads, mask, segments, costs): flat buffers for the C core."},
    {Py_tp_new, (void *)arena_new},
    {Py_tp_dealloc, (void *)arena_dealloc},
    {Py_tp_traverse, (void *)arena_traverse},
    {Py_tp_methods, arena_methods},
    {Py_tp_getset, arena_getset},
    {0, NULL}};
PyType_Spec gp_arena_spec = {.name = "gradprune._core.Arena",
                             .basicsize = sizeof(arena_object),
                             .flags =
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                             .slots = arena_slots};
