/* common.c - checks and errors shared by the binding. */
#define GP_IMPORTS_NUMPY
#include "binding/binding.h"

#include <string.h>
#include <unistd.h>

#include "stages.h"

int gp_import_numpy(void) { return PyArray_ImportNumPyAPI() < 0 ? -1 : 0; }

static const char *type_name(int type)
{
    switch (type) {
    case NPY_FLOAT32: return "float32";
    case NPY_FLOAT64: return "float64";
    case NPY_INT64: return "int64";
    case NPY_UINT8: return "uint8";
    default: return "another type";
    }
}

int gp_tuple(PyObject *object, const char *message)
{
    if (PyTuple_Check(object)) return 0;
    PyErr_SetString(PyExc_TypeError, message);
    return -1;
}

PyArrayObject *gp_array(PyObject *object, int type, int dimension, int writable, const char *name)
{
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array of %s, got %s", name,
                     type_name(type), Py_TYPE(object)->tp_name);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != type || PyArray_ISBYTESWAPPED(array)) {
        PyErr_Format(PyExc_TypeError, "%s must be of native %s, got dtype %S", name,
                     type_name(type), (PyObject *)PyArray_DESCR(array));
        return NULL;
    }
    if (dimension != ANY && PyArray_NDIM(array) != dimension) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimension(s), got %d", name, dimension,
                     PyArray_NDIM(array));
        return NULL;
    }
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISALIGNED(array)) {
        PyErr_Format(PyExc_ValueError, "%s must be C-contiguous and aligned", name);
        return NULL;
    }
    if (writable && !PyArray_ISWRITEABLE(array)) {
        PyErr_Format(PyExc_ValueError, "%s is read-only", name);
        return NULL;
    }
    return array;
}

int gp_array_or_none(PyObject *object, int type, int dimension, int writable, const char *name,
                     PyArrayObject **array)
{
    *array = NULL;
    if (object == Py_None) return 0;
    *array = gp_array(object, type, dimension, writable, name);
    return *array ? 0 : -1;
}

int gp_parse_costs(PyObject *tuple, gp_costs *costs)
{
    double *most = costs->most;
    if (gp_tuple(tuple, "costs must be a tuple") ||
        !PyArg_ParseTuple(tuple, "dddd", &most[0], &most[1], &most[2], &most[3]))
        return -1;
    if (gp_costs_are_valid(costs)) return 0;
    PyErr_SetString(PyExc_ValueError, "costs must be four shares in [0, 1]");
    return -1;
}

PyObject *gp_raise_status(gp_status status)
{
    if (status == GP_NO_MEMORY) return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, gp_status_text(status));
    return NULL;
}

int gp_lock_create(gp_lock *lock)
{
    *lock = (gp_lock){PyThread_allocate_lock(), (long)getpid()};
    if (lock->lock) return 0;
    PyErr_NoMemory();
    return -1;
}

void gp_lock_destroy(gp_lock *lock)
{
    if (lock->lock) PyThread_free_lock(lock->lock);
}

void gp_lock_enter(gp_lock *lock)
{
    long process = (long)getpid();
    if (process != lock->owner) {
        PyThread_type_lock fresh = PyThread_allocate_lock();
        if (fresh) lock->lock = fresh; /* the old one may be held for ever and cannot be freed */
        lock->owner = process;
    }
    if (PyThread_acquire_lock(lock->lock, NOWAIT_LOCK)) return;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lock->lock, WAIT_LOCK);
    Py_END_ALLOW_THREADS
}

void gp_lock_leave(gp_lock *lock) { PyThread_release_lock(lock->lock); }

/* A buffer of n numbers, or None. Returns 0 or -1. */
static int parse_buffer(PyObject *object, int type, size_t n, const char *name, void **data)
{
    PyArrayObject *array;
    *data = NULL;
    if (gp_array_or_none(object, type, 1, type != NPY_UINT8, name, &array)) return -1;
    if (!array) return 0;
    if ((size_t)PyArray_SIZE(array) != n) {
        PyErr_Format(PyExc_ValueError, "%s must have %zu entries, got %zd", name, n,
                     PyArray_SIZE(array));
        return -1;
    }
    *data = PyArray_DATA(array);
    return 0;
}

static int parse_settings(PyObject *tuple, gp_clip *clip)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (count > GP_CLIP_SETTINGS) {
        PyErr_Format(PyExc_ValueError, "a clipper has at most %d settings, got %zd",
                     GP_CLIP_SETTINGS, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        clip->settings[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple, i));
        if (clip->settings[i] == -1.0 && PyErr_Occurred()) return -1;
    }
    return 0;
}

static int parse_stage(PyObject *tuple, arena_sizes sizes, gp_clip *clip)
{
    int code;
    unsigned long long seed;
    PyObject *settings, *excluded, *state_object, *residual;
    PyArrayObject *state;
    void *flags, *floats;
    if (gp_tuple(tuple, "a stage must be a tuple") ||
        !PyArg_ParseTuple(tuple, "iO!KOOdO;a stage must have 7 entries", &code, &PyTuple_Type,
                          &settings, &seed, &excluded, &state_object, &clip->version, &residual) ||
        parse_settings(settings, clip) ||
        parse_buffer(excluded, NPY_UINT8, sizes.n_segments, "excluded", &flags) ||
        gp_array_or_none(state_object, NPY_FLOAT64, 1, 1, "state", &state) ||
        parse_buffer(residual, NPY_FLOAT32, sizes.n, "residual", &floats))
        return -1;
    if (code < 0 || (size_t)code >= gp_clippers_count) {
        PyErr_SetString(PyExc_ValueError, "unknown clipper");
        return -1;
    }
    clip->ops = gp_clippers[code];
    clip->seed = seed;
    clip->excluded = flags;
    clip->residual = floats;
    clip->state = state ? PyArray_DATA(state) : NULL;
    clip->n_state = state ? (size_t)PyArray_SIZE(state) : 0;
    return 0;
}

static int parse_clips(PyObject *tuple, arena_sizes sizes, gp_clip clips[GP_MAX_CLIPS])
{
    PyObject *stages, *work;
    void *floats;
    int keep;
    memset(clips, 0, GP_MAX_CLIPS * sizeof *clips);
    if (!PyArg_ParseTuple(tuple, "O!Op;clip must be (stages, work, keep)", &PyTuple_Type, &stages,
                          &work, &keep) ||
        parse_buffer(work, NPY_FLOAT32, sizes.n, "work", &floats))
        return -1;
    const Py_ssize_t count = PyTuple_GET_SIZE(stages);
    if (count > GP_MAX_CLIPS) {
        PyErr_Format(PyExc_ValueError, "at most %d clippers, got %zd", GP_MAX_CLIPS, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (parse_stage(PyTuple_GET_ITEM(stages, i), sizes, &clips[i])) return -1;
        if (i > 0) clips[i - 1].next = &clips[i];
    }
    clips[0].work = floats;
    clips[0].keep = keep;
    return 0;
}

int gp_parse_step(PyObject *clip, PyObject *rule, PyObject *moments, PyObject *norms,
                  arena_sizes sizes, gp_clip clips_out[GP_MAX_CLIPS], gp_rule *rule_out,
                  float *moments_out[GP_MAX_MOMENTS], double **norms_out)
{
    int rule_kind, decoupled, nesterov;
    unsigned long long step;
    PyObject *frozen, *undecayed, *scales;
    PyArrayObject *scale;
    void *flags[2];
    if (parse_clips(clip, sizes, clips_out) ||
        !PyArg_ParseTuple(rule, "iddpddpdddKddOOO;rule must have 16 entries", &rule_kind,
                          &rule_out->lr, &rule_out->weight_decay, &decoupled, &rule_out->momentum,
                          &rule_out->dampening, &nesterov, &rule_out->beta1, &rule_out->beta2,
                          &rule_out->eps, &step, &rule_out->max_gradient, &rule_out->max_norm,
                          &frozen, &undecayed, &scales) ||
        parse_buffer(frozen, NPY_UINT8, sizes.n_segments, "frozen", &flags[0]) ||
        parse_buffer(undecayed, NPY_UINT8, sizes.n_segments, "undecayed", &flags[1]) ||
        gp_array_or_none(scales, NPY_FLOAT64, 1, 0, "lr_scale", &scale))
        return -1;
    if (scale && (size_t)PyArray_SIZE(scale) != sizes.n_segments) {
        PyErr_SetString(PyExc_ValueError, "lr_scale must have one entry for each segment");
        return -1;
    }
    rule_out->frozen = flags[0];
    rule_out->undecayed = flags[1];
    rule_out->lr_scale = scale ? PyArray_DATA(scale) : NULL;
    if (rule_kind < 0 || rule_kind >= GP_RULES) {
        PyErr_SetString(PyExc_ValueError, "unknown kind of rule");
        return -1;
    }
    rule_out->kind = (gp_rule_kind)rule_kind;
    rule_out->decoupled = decoupled;
    rule_out->nesterov = nesterov;
    rule_out->step = step;
    memset(moments_out, 0, GP_MAX_MOMENTS * sizeof *moments_out);
    if (!PyTuple_Check(moments) || PyTuple_GET_SIZE(moments) > GP_MAX_MOMENTS) {
        PyErr_Format(PyExc_TypeError, "moments must be a tuple of at most %d arrays",
                     GP_MAX_MOMENTS);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(moments); i++) {
        PyArrayObject *moment =
            gp_array(PyTuple_GET_ITEM(moments, i), NPY_FLOAT32, 1, 1, "a moment");
        if (!moment) return -1;
        if ((size_t)PyArray_SIZE(moment) != sizes.n) {
            PyErr_SetString(PyExc_ValueError, "a moment must be as long as the parameters");
            return -1;
        }
        moments_out[i] = PyArray_DATA(moment);
    }
    *norms_out = NULL;
    if (norms != Py_None) {
        PyArrayObject *array = gp_array(norms, NPY_FLOAT64, 1, 1, "norms");
        if (!array) return -1;
        if ((size_t)PyArray_SIZE(array) != sizes.n_segments) {
            PyErr_SetString(PyExc_ValueError, "norms must have one entry for each segment");
            return -1;
        }
        *norms_out = PyArray_DATA(array);
    }
    return 0;
}

PyObject *gp_step_result(const gp_step_info *info)
{
    return Py_BuildValue("(ddNNd)", info->norm, info->scale, PyBool_FromLong(info->clipped),
                         PyBool_FromLong(info->applied), info->norm_after);
}

PyObject *gp_raise_number(const char *name, const gp_fault *place, float value)
{
    if (place->below == 0)
        return PyErr_Format(PyExc_ValueError, "%s[%zu, %zu] is %s: every value must be finite",
                            name, place->row, place->column,
                            value != value ? "nan" : (value > 0 ? "inf" : "-inf"));
    PyObject *number = PyFloat_FromDouble((double)value);
    if (!number) return NULL;
    PyErr_Format(PyExc_ValueError,
                 "%s[%zu, %zu] is %R: every value must be a whole number from 0 to %zu", name,
                 place->row, place->column, number, place->below - 1);
    Py_DECREF(number);
    return NULL;
}

int gp_parse_lengths(PyObject *object, npy_intp rows, gp_padding *padding)
{
    PyObject *values;
    Py_ssize_t steps;
    *padding = (gp_padding){0};
    if (object == Py_None) return 0;
    if (gp_tuple(object, "lengths is (lengths, steps, by_step)") ||
        !PyArg_ParseTuple(object, "Onp;lengths is (lengths, steps, by_step)", &values, &steps,
                          &padding->by_step))
        return -1;
    PyArrayObject *lengths = gp_array(values, NPY_INT64, 1, 0, "lengths");
    if (!lengths) return -1;
    if (PyArray_DIM(lengths, 0) != rows) {
        PyErr_Format(PyExc_ValueError, "x has %zd rows, lengths has %zd", rows,
                     PyArray_DIM(lengths, 0));
        return -1;
    }
    padding->lengths = PyArray_DATA(lengths);
    padding->steps = steps < 0 ? 0 : (size_t)steps;
    return 0;
}
