/* arena_type.c - _core.Arena: the flat buffers as the C core sees them. */
#include "binding/binding.h"

struct arena_object {
    PyObject_HEAD
    PyArrayObject *params, *grads, *mask;
    gp_segment *segments;
    /* how many views of a segment's numbers there are; changed and read with the GIL held */
    size_t *views[GP_KINDS];
    /* for the owner of the lock, by gp_arena_enter; its moments are set for one step only */
    gp_arena guarded;
    gp_lock lock; /* the lists have room for the numbers of one call */
    module_state *state;
    PyObject *module;
};

/* Of a segment of which nobody has a view any more. */
static gp_home home_without_view(const gp_arena *arena, size_t segment)
{
    return arena->segments[segment].offset < arena->n_prunable ? GP_RETURNED : GP_INSIDE;
}

gp_arena *gp_arena_enter(arena_object *self)
{
    gp_lock_enter(&self->lock);
    gp_arena *arena = &self->guarded;
    for (size_t kind = 0; kind < GP_KINDS; kind++)
        for (size_t s = 0; s < arena->n_segments; s++)
            if (arena->homes[kind][s] == GP_OUTSIDE && self->views[kind][s] == 0)
                arena->homes[kind][s] = (uint8_t)home_without_view(arena, s);
    return arena;
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
        PyObject *segment = PyList_GET_ITEM(list, (Py_ssize_t)i);
        if (gp_tuple(segment, "a segment is (offset, length, group, columns)") ||
            !PyArg_ParseTuple(segment, "nnnn;a segment is (offset, length, group, columns)",
                              &offset, &length, &group, &columns))
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
    for (size_t kind = 0; kind < GP_KINDS; kind++) {
        self->views[kind] = PyMem_Calloc(arena->n_segments + 1, sizeof *self->views[kind]);
        arena->homes[kind] = PyMem_Malloc(arena->n_segments + 1);
        if (!self->views[kind] || !arena->homes[kind]) {
            PyErr_NoMemory();
            Py_DECREF(self);
            return NULL;
        }
        for (size_t s = 0; s < arena->n_segments; s++)
            arena->homes[kind][s] = (uint8_t)home_without_view(arena, s);
    }
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
    for (size_t kind = 0; kind < GP_KINDS; kind++) {
        PyMem_Free(self->views[kind]);
        PyMem_Free(self->guarded.homes[kind]);
    }
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The buffers of a tuple of moments; 0 or -1. */
static int parse_moments(const arena_object *self, PyObject *tuple, float ***out, size_t *count)
{
    if (gp_tuple(tuple, "moments must be a tuple of arrays")) return -1;
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
    gp_arena *arena = gp_arena_enter(self);
    gp_status status;
    Py_BEGIN_ALLOW_THREADS
    status = gp_arena_set_mask(kernels, arena, PyArray_DATA(self->mask), PyArray_DATA(mask), &costs,
                               n_moments, moments);
    Py_END_ALLOW_THREADS
    gp_arena_leave(self);
    PyMem_Free(moments);
    if (status != GP_OK) return gp_raise_status(status);
    Py_RETURN_NONE;
}

/* ---- views: arrays of the whole buffers ------------------------------------------------------ */

/* What keeps a view's numbers in the whole buffer, as the array's base. */
typedef struct lease {
    arena_object *owner;
    gp_kind kind;
    size_t first, last; /* segments */
} lease;

static void count_views(const lease *held, int more)
{
    for (size_t s = held->first; s < held->last; s++)
        held->owner->views[held->kind][s] += more ? 1 : (size_t)-1;
}

/* The next call of the core sees that they are gone. */
static void end_lease(PyObject *capsule)
{
    lease *held = PyCapsule_GetPointer(capsule, NULL);
    count_views(held, 0);
    Py_DECREF(held->owner);
    PyMem_Free(held);
}

/* An array of n floats that keeps the lease, whose views are counted; NULL gives it back. */
static PyObject *leased_array(const lease *asked, float *data, size_t n)
{
    npy_intp length = (npy_intp)n;
    lease *held = PyMem_Malloc(sizeof *held);
    PyObject *capsule = held ? PyCapsule_New(held, NULL, end_lease) : PyErr_NoMemory();
    if (!capsule) {
        PyMem_Free(held);
        count_views(asked, 0);
        return NULL;
    }
    *held = *asked;
    Py_INCREF(held->owner);
    PyObject *array = PyArray_SimpleNewFromData(1, &length, NPY_FLOAT32, data);
    if (!array) Py_DECREF(capsule);
    else if (PyArray_SetBaseObject((PyArrayObject *)array, capsule)) Py_CLEAR(array);
    return array;
}

/* Of one segment or, if it is -1, of all. No object is made while the lock is held: that may run
 * the collector, and a finalizer that uses the arena would wait for ever. */
static PyObject *make_view(arena_object *self, PyObject *which, gp_kind kind)
{
    const Py_ssize_t segment = PyLong_AsSsize_t(which);
    if (segment == -1 && PyErr_Occurred()) return NULL;
    const size_t n_segments = gp_arena_sizes(self).n_segments;
    if (segment < -1 || segment >= (Py_ssize_t)n_segments)
        return PyErr_Format(PyExc_IndexError, "there is no segment %zd", segment);
    const lease asked = {self, kind, segment < 0 ? 0 : (size_t)segment,
                         segment < 0 ? n_segments : (size_t)segment + 1};
    const gp_kernels *kernels = self->state->kernels;
    gp_arena *arena = gp_arena_enter(self);
    Py_BEGIN_ALLOW_THREADS
    for (size_t s = asked.first; s < asked.last; s++) gp_arena_show(kernels, arena, kind, s);
    Py_END_ALLOW_THREADS
    float *data = kind == GP_VALUES ? arena->params : arena->grads;
    size_t n = arena->n + (kind == GP_VALUES ? arena->n_buffers : 0);
    if (segment >= 0) {
        data += arena->segments[segment].offset;
        n = arena->segments[segment].length;
    }
    count_views(&asked, 1);
    gp_arena_leave(self);
    return leased_array(&asked, data, n);
}

static PyObject *arena_values(arena_object *self, PyObject *segment)
{
    return make_view(self, segment, GP_VALUES);
}
static PyObject *arena_gradients(arena_object *self, PyObject *segment)
{
    return make_view(self, segment, GP_GRADIENTS);
}

static PyObject *arena_homes(arena_object *self, void *unused)
{
    static const char *const names[] = {
        [GP_INSIDE] = "inside", [GP_RETURNED] = "returned", [GP_OUTSIDE] = "outside"};
    (void)unused;
    const size_t n = gp_arena_sizes(self).n_segments;
    uint8_t *found = PyMem_Malloc(GP_KINDS * n + 1);
    if (!found) return PyErr_NoMemory();
    const gp_arena *arena = gp_arena_enter(self);
    for (size_t kind = 0; kind < GP_KINDS; kind++) memcpy(found + kind * n, arena->homes[kind], n);
    gp_arena_leave(self);
    PyObject *homes = PyList_New((Py_ssize_t)n);
    for (size_t s = 0; homes && s < n; s++) {
        PyObject *pair = Py_BuildValue("(ss)", names[found[s]], names[found[n + s]]);
        if (pair) PyList_SET_ITEM(homes, (Py_ssize_t)s, pair);
        else Py_CLEAR(homes);
    }
    PyMem_Free(found);
    return homes;
}

/* ---- live entries: no view, at their cost ---------------------------------------------------- */

static size_t live_size(const gp_arena *arena, gp_kind kind)
{
    return arena->n - arena->removed + (kind == GP_VALUES ? arena->n_buffers : 0);
}

static PyObject *collect(arena_object *self, gp_kind kind)
{
    for (;;) {
        const size_t size = live_size(gp_arena_enter(self), kind);
        gp_arena_leave(self); /* the array is made without the lock, see make_view */
        npy_intp length = (npy_intp)size;
        PyObject *array = PyArray_SimpleNew(1, &length, NPY_FLOAT32);
        if (!array) return NULL;
        const gp_arena *arena = gp_arena_enter(self);
        const int fits = live_size(arena, kind) == size;
        if (fits)
            gp_arena_collect(self->state->kernels, arena, kind,
                             PyArray_DATA((PyArrayObject *)array));
        gp_arena_leave(self);
        if (fits) return array;
        Py_DECREF(array);
    }
}

static PyObject *replace(arena_object *self, PyObject *object, gp_kind kind)
{
    PyArrayObject *live = gp_array(object, NPY_FLOAT32, 1, 0, "the live entries");
    if (!live) return NULL;
    const gp_arena *arena = gp_arena_enter(self);
    const size_t size = live_size(arena, kind);
    const int fits = (size_t)PyArray_SIZE(live) == size;
    if (fits) gp_arena_replace(self->state->kernels, arena, kind, PyArray_DATA(live));
    gp_arena_leave(self);
    if (!fits)
        return PyErr_Format(PyExc_ValueError, "there are %zu live entries, got %zd", size,
                            PyArray_SIZE(live));
    Py_RETURN_NONE;
}

/* Of one segment; the mask stays as it is while Python holds the lock of the arena. */
static int parse_segment(const arena_object *self, Py_ssize_t segment)
{
    if (segment >= 0 && (size_t)segment < gp_arena_sizes(self).n_segments) return 0;
    PyErr_Format(PyExc_IndexError, "there is no segment %zd", segment);
    return -1;
}

static PyObject *arena_live_segment(arena_object *self, PyObject *which)
{
    const Py_ssize_t segment = PyLong_AsSsize_t(which);
    if ((segment == -1 && PyErr_Occurred()) || parse_segment(self, segment)) return NULL;
    for (;;) {
        const size_t s = (size_t)segment, size = gp_arena_live_count(gp_arena_enter(self), s);
        gp_arena_leave(self); /* the array is made without the lock, see make_view */
        npy_intp length = (npy_intp)size;
        PyObject *array = PyArray_SimpleNew(1, &length, NPY_FLOAT32);
        if (!array) return NULL;
        const gp_arena *arena = gp_arena_enter(self);
        const int fits = gp_arena_live_count(arena, s) == size;
        if (fits)
            gp_arena_collect_segment(self->state->kernels, arena, GP_VALUES, s,
                                     PyArray_DATA((PyArrayObject *)array));
        gp_arena_leave(self);
        if (fits) return array;
        Py_DECREF(array);
    }
}

static PyObject *arena_put_segment(arena_object *self, PyObject *args)
{
    Py_ssize_t segment;
    PyObject *object;
    if (!PyArg_ParseTuple(args, "nO", &segment, &object) || parse_segment(self, segment))
        return NULL;
    PyArrayObject *live = gp_array(object, NPY_FLOAT32, 1, 0, "the live entries");
    if (!live) return NULL;
    const gp_arena *arena = gp_arena_enter(self);
    const size_t s = (size_t)segment, size = gp_arena_live_count(arena, s);
    const int fits = (size_t)PyArray_SIZE(live) == size;
    if (fits)
        gp_arena_replace_segment(self->state->kernels, arena, GP_VALUES, s, PyArray_DATA(live));
    gp_arena_leave(self);
    if (!fits)
        return PyErr_Format(PyExc_ValueError, "there are %zu live entries, got %zd", size,
                            PyArray_SIZE(live));
    Py_RETURN_NONE;
}

/* Between a moment and an array of its live entries. */
static PyObject *move_moment(arena_object *self, PyObject *args, int inwards)
{
    PyObject *objects[2];
    if (!PyArg_ParseTuple(args, "OO", &objects[0], &objects[1])) return NULL;
    PyArrayObject *moment = gp_array(objects[0], NPY_FLOAT32, 1, inwards, "a moment"), *live = NULL;
    if (moment) live = gp_array(objects[1], NPY_FLOAT32, 1, !inwards, "the live entries");
    if (!live) return NULL;
    const gp_arena *arena = gp_arena_enter(self);
    const size_t size = live_size(arena, GP_GRADIENTS);
    const int fits = (size_t)PyArray_SIZE(moment) == arena->n && (size_t)PyArray_SIZE(live) == size;
    if (fits && inwards) gp_arena_replace_moment(arena, PyArray_DATA(moment), PyArray_DATA(live));
    else if (fits) gp_arena_collect_moment(arena, PyArray_DATA(moment), PyArray_DATA(live));
    gp_arena_leave(self);
    if (!fits)
        return PyErr_Format(PyExc_ValueError,
                            "a moment must be as long as the parameters, of which %zu live", size);
    Py_RETURN_NONE;
}
static PyObject *arena_collect_moment(arena_object *self, PyObject *args)
{
    return move_moment(self, args, 0);
}
static PyObject *arena_put_moment(arena_object *self, PyObject *args)
{
    return move_moment(self, args, 1);
}

static PyObject *is_finite(arena_object *self, gp_kind kind)
{
    const int found = gp_arena_is_finite(self->state->kernels, gp_arena_enter(self), kind);
    gp_arena_leave(self);
    return PyBool_FromLong(found);
}

static PyObject *arena_live_values(arena_object *self, PyObject *unused)
{
    (void)unused;
    return collect(self, GP_VALUES);
}
static PyObject *arena_live_gradients(arena_object *self, PyObject *unused)
{
    (void)unused;
    return collect(self, GP_GRADIENTS);
}
static PyObject *arena_put_values(arena_object *self, PyObject *live)
{
    return replace(self, live, GP_VALUES);
}
static PyObject *arena_put_gradients(arena_object *self, PyObject *live)
{
    return replace(self, live, GP_GRADIENTS);
}
static PyObject *arena_values_are_finite(arena_object *self, PyObject *unused)
{
    (void)unused;
    return is_finite(self, GP_VALUES);
}
static PyObject *arena_gradients_are_finite(arena_object *self, PyObject *unused)
{
    (void)unused;
    return is_finite(self, GP_GRADIENTS);
}

static PyObject *arena_observe(arena_object *self, PyObject *args)
{
    PyObject *objects[3];
    float *moments[3] = {NULL};
    unsigned long long count;
    if (!PyArg_ParseTuple(args, "OOOK", &objects[0], &objects[1], &objects[2], &count)) return NULL;
    for (int i = 0; i < 3; i++) {
        if (i == 0 && objects[i] == Py_None) continue;
        PyArrayObject *moment = gp_array(objects[i], NPY_FLOAT32, 1, i > 0, "a moment");
        if (!moment) return NULL;
        if ((size_t)PyArray_SIZE(moment) != gp_arena_sizes(self).n || count == 0)
            return PyErr_Format(PyExc_ValueError,
                                "a moment must be as long as the parameters, and count at least 1");
        moments[i] = PyArray_DATA(moment);
    }
    const gp_arena *arena = gp_arena_enter(self);
    Py_BEGIN_ALLOW_THREADS
    gp_arena_observe(self->state->kernels, arena, moments[0], moments[1], moments[2], count);
    Py_END_ALLOW_THREADS
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
    {"values", (PyCFunction)arena_values, METH_O,
     "values(segment) -> its parameters (-1: all, and the buffers), 0 where removed: an array that "
     "calls read and write for as long as it lives."},
    {"gradients", (PyCFunction)arena_gradients, METH_O,
     "gradients(segment) -> its gradients, likewise."},
    {"live_values", (PyCFunction)arena_live_values, METH_NOARGS,
     "live_values() -> a copy of those that are not removed, in order, and of the buffers."},
    {"live_gradients", (PyCFunction)arena_live_gradients, METH_NOARGS,
     "live_gradients() -> a copy of those that are not removed, in order."},
    {"put_values", (PyCFunction)arena_put_values, METH_O,
     "put_values(live): replace what live_values gives."},
    {"put_gradients", (PyCFunction)arena_put_gradients, METH_O,
     "put_gradients(live): replace what live_gradients gives."},
    {"live_segment", (PyCFunction)arena_live_segment, METH_O,
     "live_segment(segment) -> a copy of its parameters that are not removed, in order."},
    {"put_segment", (PyCFunction)arena_put_segment, METH_VARARGS,
     "put_segment(segment, live): replace what live_segment gives."},
    {"collect_moment", (PyCFunction)arena_collect_moment, METH_VARARGS,
     "collect_moment(moment, live): copy what is not removed of a moment."},
    {"put_moment", (PyCFunction)arena_put_moment, METH_VARARGS,
     "put_moment(moment, live): the inverse."},
    {"values_are_finite", (PyCFunction)arena_values_are_finite, METH_NOARGS,
     "values_are_finite() -> whether live values and buffers are."},
    {"gradients_are_finite", (PyCFunction)arena_gradients_are_finite, METH_NOARGS,
     "gradients_are_finite() -> whether live gradients are."},
    {"observe", (PyCFunction)arena_observe, METH_VARARGS,
     "observe(gradient, mean, mean_square, count): running means, moments, of a moment or, for "
     "None, of the gradients."},
    {"pack", (PyCFunction)arena_pack, METH_O,
     "pack(moment): from whole to the form that steps use, in place."},
    {"unpack", (PyCFunction)arena_unpack, METH_O, "unpack(moment): the inverse of pack."},
    {"step", (PyCFunction)arena_step, METH_VARARGS,
     "step(clip, rule, moments, norms) -> (norm, scale, clipped, applied, norm_after)"},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef arena_getset[] = {
    {"removed", (getter)arena_removed, NULL, "Removed weights.", NULL},
    {"homes", (getter)arena_homes, NULL,
     "Where each segment's values and gradients are: 'inside', where no call looks at removed "
     "entries, 'outside' while there is a view, 'returned' after the last one.",
     NULL},
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
