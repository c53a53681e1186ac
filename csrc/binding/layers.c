/* layers.c - a list of layers from Python, as the core takes it. */
#include "binding/binding.h"

/* How many layers it reads, and which, in `backs`, which is to be freed. Returns 0 or -1. */
static int parse_sources(PyObject *tuple, size_t i, gp_layer_spec *spec, size_t **backs)
{
    const size_t n = (size_t)PyTuple_GET_SIZE(tuple);
    size_t *back = *backs = PyMem_Calloc(n + 1, sizeof *back);
    if (!back) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t k = 0; k < n; k++) {
        back[k] = PyLong_AsSize_t(PyTuple_GET_ITEM(tuple, (Py_ssize_t)k));
        if (!PyErr_Occurred()) continue;
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "layer %zu reads layers that are not before it", i);
        return -1;
    }
    spec->n_back = n;
    spec->back = back;
    return 0;
}

/* A number, or a word that the type has for one. Returns 0 or -1. */
static int parse_setting(PyObject *item, size_t i, const gp_layer_ops *type, double *number)
{
    if (!PyUnicode_Check(item)) {
        *number = PyFloat_AsDouble(item);
        return PyErr_Occurred() ? -1 : 0;
    }
    const char *word;
    for (size_t k = 0; (word = gp_layer_word(type, k, number)); k++)
        if (PyUnicode_CompareWithASCIIString(item, word) == 0) return 0;
    PyErr_Format(PyExc_ValueError, "layer %zu, of type %s, knows no %R", i, gp_layer_name(type),
                 item);
    return -1;
}

static int parse_settings(PyObject *tuple, size_t i, gp_layer_spec *spec)
{
    double numbers[GP_MOST_SETTINGS];
    const size_t wanted = gp_layer_settings_count(spec->type), n = (size_t)PyTuple_GET_SIZE(tuple);
    if (n != wanted || n > GP_MOST_SETTINGS) {
        PyErr_Format(PyExc_ValueError, "layer %zu, of type %s, has %zu settings, got %zu", i,
                     gp_layer_name(spec->type), wanted, n);
        return -1;
    }
    for (size_t k = 0; k < n; k++)
        if (parse_setting(PyTuple_GET_ITEM(tuple, (Py_ssize_t)k), i, spec->type, &numbers[k]))
            return -1;
    if (gp_layer_set(spec, numbers) == GP_OK) return 0;
    PyErr_Format(PyExc_ValueError, "layer %zu, of type %s, cannot have the settings %R", i,
                 gp_layer_name(spec->type), tuple);
    return -1;
}

static int parse_layer(PyObject *tuple, size_t i, gp_layer_spec *spec, size_t **backs)
{
    const char *type;
    Py_ssize_t in, out, weight, bias, buffers, steps;
    PyObject *sources, *settings;
    if (gp_tuple(tuple, "layers must be a list of tuples") ||
        !PyArg_ParseTuple(
            tuple,
            "snnO!nnffnnO!;a layer is (type, inputs, outputs, back, weight, bias, l1, "
            "l2, buffers, steps, settings)",
            &type, &in, &out, &PyTuple_Type, &sources, &weight, &bias, &spec->l1, &spec->l2,
            &buffers, &steps, &PyTuple_Type, &settings))
        return -1;
    spec->type = gp_layer_named(type);
    if (!spec->type || in <= 0 || out <= 0 || steps <= 0) {
        PyErr_Format(PyExc_ValueError,
                     "layer %zu has an unknown type, '%s', no features or no steps", i, type);
        return -1;
    }
    spec->in = (size_t)in;
    spec->out = (size_t)out;
    spec->steps = (size_t)steps;
    spec->weight = weight < 0 ? GP_NONE : (size_t)weight;
    spec->bias = bias < 0 ? GP_NONE : (size_t)bias;
    spec->buffers = buffers < 0 ? GP_NONE : (size_t)buffers;
    return parse_sources(sources, i, spec, backs) || parse_settings(settings, i, spec) ? -1 : 0;
}

int gp_parse_layers(PyObject *list, parsed_layers *layers)
{
    const size_t n = (size_t)PyList_GET_SIZE(list);
    *layers = (parsed_layers){.n = n,
                              .specs = PyMem_Calloc(n + 1, sizeof *layers->specs),
                              .backs = PyMem_Calloc(n + 1, sizeof *layers->backs)};
    if (layers->specs && layers->backs) {
        size_t i = 0;
        while (i < n && parse_layer(PyList_GET_ITEM(list, (Py_ssize_t)i), i, &layers->specs[i],
                                    &layers->backs[i]) == 0)
            i++;
        if (i == n) return 0;
    } else PyErr_NoMemory();
    gp_free_layers(layers);
    return -1;
}

void gp_free_layers(parsed_layers *layers)
{
    for (size_t i = 0; layers->backs && i < layers->n; i++) PyMem_Free(layers->backs[i]);
    PyMem_Free(layers->backs);
    PyMem_Free(layers->specs);
}
