/* module.c - gradprune._core: the module, its state and its functions. */
#include "binding/binding.h"

#include <stdlib.h>

#include "rules.h"
#include "stages.h"

static module_state *state_of(PyObject *module) { return PyModule_GetState(module); }

static PyObject *core_isa(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyUnicode_FromString(gp_kernels_isa(state_of(module)->kernels));
}

static PyObject *isa_list(void)
{
    PyObject *list = PyList_New(0);
    const char *name;
    for (size_t i = 0; list && (name = gp_isa_name(i)); i++) {
        PyObject *text = PyUnicode_FromString(name);
        if (!text || PyList_Append(list, text)) Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static PyObject *core_isas(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return isa_list();
}

static PyObject *core_get_num_threads(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(state_of(module)->threads);
}

static PyObject *core_set_num_threads(PyObject *module, PyObject *number)
{
    Py_ssize_t n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (n < 1 || n > GP_MAX_THREADS)
        return PyErr_Format(PyExc_ValueError, "threads must be in 1..%d, got %zd", GP_MAX_THREADS,
                            n);
    state_of(module)->threads = (size_t)n;
    Py_RETURN_NONE;
}

static PyObject *costs_tuple(const gp_costs *costs)
{
    PyObject *tuple = PyTuple_New(GP_COSTS);
    for (Py_ssize_t i = 0; tuple && i < GP_COSTS; i++) {
        PyObject *number = PyFloat_FromDouble(costs->most[i]);
        if (!number) Py_CLEAR(tuple);
        else PyTuple_SET_ITEM(tuple, i, number);
    }
    return tuple;
}

static PyObject *core_default_costs(PyObject *module, PyObject *unused)
{
    (void)unused;
    const gp_costs costs = gp_costs_default(state_of(module)->kernels);
    return costs_tuple(&costs);
}

static PyObject *core_measure_costs(PyObject *module, PyObject *unused)
{
    (void)unused;
    module_state *state = state_of(module);
    gp_costs costs;
    gp_status status;
    Py_BEGIN_ALLOW_THREADS
    status = gp_costs_measure(state->kernels, state->pool, &costs);
    Py_END_ALLOW_THREADS
    return status == GP_OK ? costs_tuple(&costs) : gp_raise_status(status);
}

/* (n, seed, stream) of the generators */
static PyArrayObject *parse_random(PyObject *args, int type, unsigned long long *seed,
                                   unsigned long long *stream)
{
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "nKK", &n, seed, stream)) return NULL;
    if (n < 0) {
        PyErr_SetString(PyExc_ValueError, "n must not be negative");
        return NULL;
    }
    npy_intp shape[1] = {n};
    return (PyArrayObject *)PyArray_SimpleNew(1, shape, type);
}

static PyObject *core_uniform(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long seed, stream;
    PyArrayObject *out = parse_random(args, NPY_FLOAT32, &seed, &stream);
    if (!out) return NULL;
    Py_BEGIN_ALLOW_THREADS
    gp_random_uniform((size_t)PyArray_SIZE(out), PyArray_DATA(out), seed, stream);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

static PyObject *core_normal(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long seed, stream;
    PyArrayObject *out = parse_random(args, NPY_FLOAT32, &seed, &stream);
    if (!out) return NULL;
    Py_BEGIN_ALLOW_THREADS
    gp_random_normal((size_t)PyArray_SIZE(out), PyArray_DATA(out), seed, stream);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

/* Numbers at places of a stream. */
static PyObject *draw_at(PyObject *args,
                         void draw(size_t, const int64_t *, float *, uint64_t, uint64_t))
{
    PyObject *object;
    unsigned long long seed, stream;
    if (!PyArg_ParseTuple(args, "OKK", &object, &seed, &stream)) return NULL;
    PyArrayObject *places = gp_array(object, NPY_INT64, 1, 0, "places");
    if (!places) return NULL;
    const size_t n = (size_t)PyArray_SIZE(places);
    const int64_t *first = PyArray_DATA(places);
    for (size_t i = 0; i < n; i++)
        if (first[i] < 0) {
            PyErr_SetString(PyExc_ValueError, "places must not be negative");
            return NULL;
        }
    npy_intp shape[1] = {(npy_intp)n};
    PyArrayObject *out = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_FLOAT32);
    if (!out) return NULL;
    Py_BEGIN_ALLOW_THREADS
    draw(n, first, PyArray_DATA(out), seed, stream);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

static PyObject *core_uniform_at(PyObject *module, PyObject *args)
{
    (void)module;
    return draw_at(args, gp_random_uniform_at);
}
static PyObject *core_normal_at(PyObject *module, PyObject *args)
{
    (void)module;
    return draw_at(args, gp_random_normal_at);
}

static PyObject *core_subset(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object;
    Py_ssize_t k;
    unsigned long long seed, stream;
    if (!PyArg_ParseTuple(args, "OnKK", &object, &k, &seed, &stream)) return NULL;
    PyArrayObject *keep = gp_array(object, NPY_UINT8, 1, 1, "keep");
    if (!keep) return NULL;
    if (k < 0 || k > PyArray_SIZE(keep)) {
        PyErr_Format(PyExc_ValueError, "k must be in 0..%zd, got %zd", PyArray_SIZE(keep), k);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    gp_random_subset((size_t)PyArray_SIZE(keep), (size_t)k, PyArray_DATA(keep), seed, stream);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *core_permutation(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long seed, stream;
    PyArrayObject *out = parse_random(args, NPY_INT64, &seed, &stream);
    if (!out) return NULL;
    Py_BEGIN_ALLOW_THREADS
    gp_random_permutation((size_t)PyArray_SIZE(out), PyArray_DATA(out), seed, stream);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

static PyObject *core_topk_mask(PyObject *module, PyObject *args)
{
    module_state *state = state_of(module);
    PyObject *object;
    Py_ssize_t k;
    gp_status status;
    if (!PyArg_ParseTuple(args, "On", &object, &k)) return NULL;
    PyArrayObject *scores = gp_array(object, NPY_FLOAT32, 1, 0, "scores");
    if (!scores) return NULL;
    if (k < 0 || k > PyArray_SIZE(scores))
        return PyErr_Format(PyExc_ValueError, "k must be in 0..%zd, got %zd", PyArray_SIZE(scores),
                            k);
    npy_intp shape[1] = {PyArray_SIZE(scores)};
    PyArrayObject *keep = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_UINT8);
    if (!keep) return NULL;
    const size_t threads = state->threads; /* now, while the GIL is held */
    Py_BEGIN_ALLOW_THREADS
    status = gp_topk_mask(state->pool, state->kernels, (size_t)shape[0], PyArray_DATA(scores),
                          PyArray_DATA(keep), (size_t)k, threads);
    Py_END_ALLOW_THREADS
    if (status == GP_OK) return (PyObject *)keep;
    Py_DECREF(keep);
    if (status == GP_BAD_INPUT) return PyErr_Format(PyExc_ValueError, "scores must not be NaN");
    return gp_raise_status(status);
}

static PyObject *core_norm(PyObject *module, PyObject *args)
{
    PyObject *object;
    double norm_type, norm;
    if (!PyArg_ParseTuple(args, "Od", &object, &norm_type)) return NULL;
    PyArrayObject *values = gp_array(object, NPY_FLOAT32, ANY, 0, "values");
    if (!values) return NULL;
    if (!(norm_type > 0.0)) return PyErr_Format(PyExc_ValueError, "norm_type must be positive");
    Py_BEGIN_ALLOW_THREADS
    norm = gp_norm(state_of(module)->kernels, (size_t)PyArray_SIZE(values), PyArray_DATA(values),
                   norm_type);
    Py_END_ALLOW_THREADS
    return PyFloat_FromDouble(norm);
}

static PyObject *core_scale(PyObject *module, PyObject *args)
{
    PyObject *object;
    float factor;
    if (!PyArg_ParseTuple(args, "Of", &object, &factor)) return NULL;
    PyArrayObject *values = gp_array(object, NPY_FLOAT32, ANY, 1, "values");
    if (!values) return NULL;
    Py_BEGIN_ALLOW_THREADS
    gp_scale(state_of(module)->kernels, (size_t)PyArray_SIZE(values), PyArray_DATA(values), factor);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *core_clamp(PyObject *module, PyObject *args)
{
    PyObject *object;
    float limit;
    if (!PyArg_ParseTuple(args, "Of", &object, &limit)) return NULL;
    PyArrayObject *values = gp_array(object, NPY_FLOAT32, ANY, 1, "values");
    if (!values) return NULL;
    Py_BEGIN_ALLOW_THREADS
    gp_clamp(state_of(module)->kernels, (size_t)PyArray_SIZE(values), PyArray_DATA(values), limit);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *core_mask(PyObject *module, PyObject *args)
{
    PyObject *mask_object, *object;
    if (!PyArg_ParseTuple(args, "OO", &mask_object, &object)) return NULL;
    PyArrayObject *mask = gp_array(mask_object, NPY_UINT8, 1, 0, "mask");
    PyArrayObject *values = mask ? gp_array(object, NPY_FLOAT32, 1, 1, "values") : NULL;
    if (!values) return NULL;
    if (PyArray_SIZE(mask) > PyArray_SIZE(values))
        return PyErr_Format(PyExc_ValueError, "the mask is longer than the values");
    gp_mask_apply(state_of(module)->kernels, (size_t)PyArray_SIZE(mask), PyArray_DATA(mask),
                  PyArray_DATA(values));
    Py_RETURN_NONE;
}

static PyObject *core_statistics(PyObject *module, PyObject *args)
{
    PyObject *a, *b, *c;
    unsigned long long count;
    if (!PyArg_ParseTuple(args, "OOOK", &a, &b, &c, &count)) return NULL;
    PyArrayObject *grads = gp_array(a, NPY_FLOAT32, 1, 0, "grads"), *mean = NULL, *square = NULL;
    if (grads) mean = gp_array(b, NPY_FLOAT32, 1, 1, "mean");
    if (mean) square = gp_array(c, NPY_FLOAT32, 1, 1, "mean_square");
    if (!square) return NULL;
    if (PyArray_SIZE(grads) != PyArray_SIZE(mean) || PyArray_SIZE(grads) != PyArray_SIZE(square) ||
        count == 0)
        return PyErr_Format(PyExc_ValueError,
                            "arrays must be of equal length and count at least 1");
    gp_statistics_update(state_of(module)->kernels, (size_t)PyArray_SIZE(grads),
                         PyArray_DATA(grads), PyArray_DATA(mean), PyArray_DATA(square), count);
    Py_RETURN_NONE;
}

static PyObject *core_warp(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *a, *b, *c;
    if (!PyArg_ParseTuple(args, "OOO", &a, &b, &c)) return NULL;
    PyArrayObject *images = gp_array(a, NPY_FLOAT32, 4, 0, "images"), *maps = NULL, *out = NULL;
    if (images) maps = gp_array(b, NPY_FLOAT64, 2, 0, "maps");
    if (maps) out = gp_array(c, NPY_FLOAT32, 4, 1, "out");
    if (!out) return NULL;
    const npy_intp *from = PyArray_DIMS(images), *to = PyArray_DIMS(out);
    if (from[0] != to[0] || from[1] != to[1] || from[2] - 2 != to[2] || from[3] - 2 != to[3] ||
        PyArray_DIM(maps, 0) != to[0] || PyArray_DIM(maps, 1) != 6)
        return PyErr_Format(PyExc_ValueError,
                            "images need a border of one pixel, and maps the shape (%zd, 6)",
                            to[0]);
    if (from[2] > INT32_MAX / from[3])
        return PyErr_Format(PyExc_ValueError, "an image has more than 2^31 pixels");
    Py_BEGIN_ALLOW_THREADS
    gp_images_warp((size_t)to[0], (size_t)to[1], (size_t)to[2], (size_t)to[3], PyArray_DATA(images),
                   PyArray_DATA(maps), PyArray_DATA(out));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"isa", core_isa, METH_NOARGS, "The instruction set in use."},
    {"isas", core_isas, METH_NOARGS, "The instruction sets this CPU can run, plainest first."},
    {"get_num_threads", core_get_num_threads, METH_NOARGS, "The most threads a call uses."},
    {"set_num_threads", core_set_num_threads, METH_O, "Set the most threads a call uses."},
    {"default_costs", core_default_costs, METH_NOARGS,
     "The share of weights kept up to which lists of them are used, at 16, 32, 48 and 64 lanes, on "
     "this instruction "
     "set."},
    {"measure_costs", core_measure_costs, METH_NOARGS, "The same, measured on this CPU."},
    {"uniform", core_uniform, METH_VARARGS, "uniform(n, seed, stream) -> float32 in [0, 1)"},
    {"normal", core_normal, METH_VARARGS, "normal(n, seed, stream) -> float32"},
    {"uniform_at", core_uniform_at, METH_VARARGS,
     "uniform_at(places, seed, stream) -> the numbers of uniform at these places"},
    {"normal_at", core_normal_at, METH_VARARGS,
     "normal_at(places, seed, stream) -> the numbers of normal at these places"},
    {"subset_", core_subset, METH_VARARGS,
     "subset_(keep, k, seed, stream): keep (n,) uint8 becomes 1 at k places, else 0"},
    {"permutation", core_permutation, METH_VARARGS, "permutation(n, seed, stream) -> int64"},
    {"topk_mask", core_topk_mask, METH_VARARGS,
     "topk_mask(scores, k) -> uint8, 1 for the k largest"},
    {"norm", core_norm, METH_VARARGS, "norm(values, norm_type) -> float"},
    {"scale_", core_scale, METH_VARARGS, "scale_(values, factor): in place"},
    {"clamp_", core_clamp, METH_VARARGS, "clamp_(values, limit): in place"},
    {"mask_", core_mask, METH_VARARGS, "mask_(mask, values): zero where the mask is 0, in place"},
    {"statistics_", core_statistics, METH_VARARGS,
     "statistics_(grads, mean, mean_square, count): running means"},
    {"warp", core_warp, METH_VARARGS,
     "warp(images, maps, out): out = images, with a border of zeros, under maps"},
    {"gemm", gp_core_gemm, METH_VARARGS,
     "gemm(a, transposed, b, out): out[chunk] = a b[chunk], for benchmarks"},
    {"gemm_sum", gp_core_gemm_sum, METH_VARARGS,
     "gemm_sum(a, b, out): out = sum of a[chunk] b[chunk]^T, for benchmarks"},
    {NULL, NULL, 0, NULL}};

static int choose_kernels(module_state *state)
{
    const char *wanted = getenv("GRADPRUNE_ISA");
    state->kernels = gp_kernels_get(wanted && *wanted ? wanted : NULL);
    if (state->kernels) return 0;
    PyObject *known = isa_list();
    if (known)
        PyErr_Format(PyExc_ImportError, "GRADPRUNE_ISA is '%s'; this CPU can run %R", wanted,
                     known);
    Py_XDECREF(known);
    return -1;
}

/* OMP_NUM_THREADS as OpenMP reads it (a list counts by its first entry), at most the CPUs of this
 * process. */
static size_t default_threads(void)
{
    size_t cpus = gp_cpu_count();
    const char *text = getenv("OMP_NUM_THREADS");
    long wanted = text ? strtol(text, NULL, 10) : 0;
    return wanted > 0 && (size_t)wanted < cpus ? (size_t)wanted : cpus;
}

static int add_streams(PyObject *module, const char *name, uint64_t first)
{
    PyObject *number = PyLong_FromUnsignedLongLong(first);
    const int failed = PyModule_AddObjectRef(module, name, number); /* NULL: an error is set */
    Py_XDECREF(number);
    return failed;
}

/* Adds a dictionary, which becomes the module's, as a mapping that nobody changes. */
static int add_mapping(PyObject *module, const char *name, PyObject *dict)
{
    PyObject *mapping = dict ? PyDictProxy_New(dict) : NULL;
    const int failed = PyModule_AddObjectRef(module, name, mapping); /* NULL: an error is set */
    Py_XDECREF(mapping);
    Py_XDECREF(dict);
    return failed;
}

static int set_item(PyObject *dict, const char *key, PyObject *value)
{
    const int failed = value ? PyDict_SetItemString(dict, key, value) : -1;
    Py_XDECREF(value);
    return failed;
}

/* Name to code. */
static PyObject *all_losses(void)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && gp_loss_at(i); i++)
        if (set_item(dict, gp_loss_name(gp_loss_at(i)), PyLong_FromSize_t(i))) Py_CLEAR(dict);
    return dict;
}

/* Name to (code, whether it is a factor, whether it rewrites entries). */
static PyObject *all_clippers(void)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < gp_clippers_count; i++) {
        const gp_clipper_ops *ops = gp_clippers[i];
        PyObject *row =
            Py_BuildValue("(nNN)", (Py_ssize_t)i, PyBool_FromLong(gp_clipper_is_factor(ops)),
                          PyBool_FromLong(gp_clipper_rewrites(ops)));
        if (set_item(dict, gp_clipper_names[i], row)) Py_CLEAR(dict);
    }
    return dict;
}

/* Name to code. */
static PyObject *all_rules(void)
{
    PyObject *dict = PyDict_New();
    for (long i = 0; dict && i < GP_RULES; i++)
        if (set_item(dict, gp_rule_table[i]->name, PyLong_FromLong(i))) Py_CLEAR(dict);
    return dict;
}

/* Type of layer to the words among its settings. */
static PyObject *all_layer_types(void)
{
    PyObject *dict = PyDict_New();
    const gp_layer_ops *type;
    for (size_t i = 0; dict && (type = gp_layer_at(i)); i++) {
        size_t n = 0;
        double number;
        while (gp_layer_word(type, n, &number)) n++;
        PyObject *words = PyTuple_New((Py_ssize_t)n);
        for (size_t k = 0; words && k < n; k++) {
            PyObject *word = PyUnicode_FromString(gp_layer_word(type, k, &number));
            if (word) PyTuple_SET_ITEM(words, (Py_ssize_t)k, word);
            else Py_CLEAR(words);
        }
        if (set_item(dict, gp_layer_name(type), words)) Py_CLEAR(dict);
    }
    return dict;
}

static int core_exec(PyObject *module)
{
    module_state *state = state_of(module);
    if (gp_import_numpy() || choose_kernels(state)) return -1;
    state->threads = default_threads();
    gp_status status = gp_pool_create(&state->pool);
    if (status == GP_OK) status = gp_pool_create(&state->guests);
    if (status != GP_OK) {
        gp_raise_status(status);
        return -1;
    }
    state->arena_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &gp_arena_spec, NULL);
    state->net_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &gp_net_spec, NULL);
    state->frozen_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &gp_frozen_spec, NULL);
    state->solo_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &gp_solo_spec, NULL);
    if (!state->arena_type || !state->net_type || !state->frozen_type || !state->solo_type ||
        PyModule_AddType(module, state->arena_type) || PyModule_AddType(module, state->net_type) ||
        PyModule_AddType(module, state->frozen_type) ||
        PyModule_AddType(module, state->solo_type) ||
        PyModule_AddStringConstant(module, "version", GP_VERSION) ||
        add_streams(module, "dropout_streams", GP_DROPOUT_STREAMS) ||
        add_streams(module, "noise_streams", GP_NOISE_STREAMS) ||
        add_streams(module, "timing_streams", GP_TIMING_STREAMS) ||
        add_mapping(module, "layer_types", all_layer_types()) ||
        add_mapping(module, "losses", all_losses()) ||
        add_mapping(module, "clippers", all_clippers()) ||
        add_mapping(module, "rules", all_rules()))
        return -1;
    return 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = state_of(module);
    Py_VISIT(state->arena_type);
    Py_VISIT(state->net_type);
    Py_VISIT(state->frozen_type);
    Py_VISIT(state->solo_type);
    return 0;
}

static int core_clear(PyObject *module)
{
    module_state *state = state_of(module);
    Py_CLEAR(state->arena_type);
    Py_CLEAR(state->net_type);
    Py_CLEAR(state->frozen_type);
    Py_CLEAR(state->solo_type);
    return 0;
}

static void core_free(void *module)
{
    module_state *state = state_of(module);
    core_clear(module);
    gp_pool_destroy(state->pool);
    gp_pool_destroy(state->guests);
    state->pool = state->guests = NULL;
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, (void *)core_exec}, {0, NULL}};
static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,          .m_name = "_core",         .m_doc = "The C core of gradprune.",
    .m_size = sizeof(module_state), .m_methods = core_methods, .m_slots = core_slots,
    .m_traverse = core_traverse,    .m_clear = core_clear,     .m_free = core_free};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
