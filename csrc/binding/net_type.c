/* net_type.c - _core.Net: a compiled network; forward, backward and whole steps with the GIL
 * released. */
#include "binding/binding.h"
#include "loss.h"

/* For the owner of both locks, from enter to leave. */
typedef struct entered {
    gp_net *net;
    gp_arena *arena;
} entered;

typedef struct net_object {
    PyObject_HEAD
    gp_net *guarded; /* for the owner of the lock: the workspace serves one call at a time */
    size_t in, out;
    gp_lock lock;
    module_state *state;
    PyObject *module;
} net_object;

static PyObject *net_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"layers", NULL};
    PyObject *list;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!", names, &PyList_Type, &list)) return NULL;
    parsed_layers layers;
    if (gp_parse_layers(list, &layers)) return NULL;
    net_object *self = (net_object *)type->tp_alloc(type, 0);
    if (!self) goto done;
    self->module = Py_NewRef(PyType_GetModule(type));
    self->state = PyModule_GetState(self->module);
    if (gp_lock_create(&self->lock)) {
        Py_CLEAR(self);
        goto done;
    }
    gp_status status = gp_net_create(self->state->kernels, self->state->pool, layers.n,
                                     layers.specs, &self->guarded);
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

static int net_traverse(net_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    return 0;
}

static void net_dealloc(net_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    gp_net_destroy(self->guarded);
    gp_lock_destroy(&self->lock);
    Py_CLEAR(self->module);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Another Python thread may be inside this network or its arena with the GIL released. */
static gp_net *enter_net(net_object *self)
{
    gp_lock_enter(&self->lock);
    return self->guarded;
}

static void leave_net(net_object *self) { gp_lock_leave(&self->lock); }

static entered enter(net_object *self, PyObject *arena)
{
    gp_net *net = enter_net(self);
    return (entered){net, gp_arena_enter((arena_object *)arena)};
}

static void leave(net_object *self, PyObject *arena)
{
    gp_arena_leave((arena_object *)arena);
    leave_net(self);
}

/* (code, setting, ...): the loss, as many numbers as it is set by. */
static int parse_loss(PyObject *tuple, gp_batch *batch)
{
    const Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    const Py_ssize_t code = n > 0 ? PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, 0)) : -1;
    if (PyErr_Occurred()) return -1;
    batch->loss = code >= 0 ? gp_loss_at((size_t)code) : NULL;
    if (!batch->loss) {
        PyErr_SetString(PyExc_ValueError, "unknown loss");
        return -1;
    }
    if ((size_t)n - 1 != batch->loss->n_settings) {
        PyErr_Format(PyExc_ValueError, "%s takes %zu settings, got %zd", gp_loss_name(batch->loss),
                     batch->loss->n_settings, n - 1);
        return -1;
    }
    for (Py_ssize_t i = 1; i < n; i++) {
        const double setting = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple, i));
        if (PyErr_Occurred()) return -1;
        batch->settings[i - 1] = setting;
    }
    return 0;
}

static int parse_lengths(PyObject *object, npy_intp rows, gp_batch *batch)
{
    gp_padding padding;
    if (gp_parse_lengths(object, rows, &padding)) return -1;
    batch->lengths = padding.lengths;
    batch->steps = padding.steps;
    batch->by_step = padding.by_step;
    return 0;
}

/* y: labels or values or, for a loss that takes both, a tuple of them. */
static int parse_batch(net_object *self, PyObject *x, PyObject *y, PyObject *index,
                       PyObject *loss_tuple, PyObject *weights, PyObject *lengths, gp_batch *batch)
{
    *batch = (gp_batch){0};
    if (parse_loss(loss_tuple, batch)) return -1;
    PyArrayObject *inputs = gp_array(x, NPY_FLOAT32, 2, 0, "x"), *rows = NULL, *shares = NULL;
    if (!inputs || gp_array_or_none(index, NPY_INT64, 1, 0, "index", &rows) ||
        gp_array_or_none(weights, NPY_FLOAT64, 1, 0, "weights", &shares))
        return -1;
    if ((size_t)PyArray_DIM(inputs, 1) != self->in) {
        PyErr_Format(PyExc_ValueError, "x has %zd features, the network takes %zu",
                     PyArray_DIM(inputs, 1), self->in);
        return -1;
    }
    npy_intp n = PyArray_DIM(inputs, 0);
    if (parse_lengths(lengths, n, batch)) return -1;
    batch->size = (size_t)n;
    batch->x = PyArray_DATA(inputs);
    if (rows) {
        const int64_t *at = PyArray_DATA(rows);
        batch->index = at;
        batch->size = (size_t)PyArray_DIM(rows, 0);
        for (size_t i = 0; i < batch->size; i++)
            if (at[i] < 0 || at[i] >= n) {
                PyErr_Format(PyExc_IndexError, "index[%zu] is %lld, x has %zd rows", i,
                             (long long)at[i], n);
                return -1;
            }
    }
    if (batch->size == 0) {
        PyErr_SetString(PyExc_ValueError, "the batch is empty");
        return -1;
    }
    PyObject *label_object = batch->loss->takes & GP_TAKES_LABELS ? y : NULL,
             *value_object = batch->loss->takes & GP_TAKES_VALUES ? y : NULL;
    if (label_object && value_object &&
        (gp_tuple(y, "y is (labels, values)") ||
         !PyArg_ParseTuple(y, "OO;y is (labels, values)", &label_object, &value_object)))
        return -1;
    PyArrayObject *labels = label_object ? gp_array(label_object, NPY_INT64, 1, 0, "y") : NULL;
    PyArrayObject *values = value_object ? gp_array(value_object, NPY_FLOAT32, 2, 0, "y") : NULL;
    if ((label_object && !labels) || (value_object && !values)) return -1;
    if (values && (size_t)PyArray_DIM(values, 1) != self->out) {
        PyErr_Format(PyExc_ValueError, "y has %zd columns, the network gives %zu",
                     PyArray_DIM(values, 1), self->out);
        return -1;
    }
    if ((labels && PyArray_DIM(labels, 0) != n) || (values && PyArray_DIM(values, 0) != n)) {
        PyErr_Format(PyExc_ValueError, "x has %zd rows, y has %zd", n,
                     PyArray_DIM(labels && PyArray_DIM(labels, 0) != n ? labels : values, 0));
        return -1;
    }
    if (shares && PyArray_DIM(shares, 0) != n) {
        PyErr_Format(PyExc_ValueError, "x has %zd rows, weights has %zd", n,
                     PyArray_DIM(shares, 0));
        return -1;
    }
    if (labels) batch->labels = PyArray_DATA(labels);
    if (shares) batch->weights = PyArray_DATA(shares);
    if (values) batch->targets = PyArray_DATA(values);
    return 0;
}

/* The exception for a call that failed, with the place. Here and in all answers objects are made
 * after the locks are released: making one may run a finalizer, which may use the network. */
static PyObject *raise_fault(const net_object *self, const gp_fault *place, const gp_batch *batch,
                             gp_status status)
{
    if (status == GP_NO_WEIGHT)
        return PyErr_Format(PyExc_ValueError,
                            "no sample of the batch counts: the weights of its %zu samples sum to "
                            "0, or all of its labels are ignored",
                            batch->size);
    if (status != GP_BAD_INPUT && status != GP_BAD_TARGET && status != GP_BAD_LABEL)
        return gp_raise_status(status);
    if (status == GP_BAD_LABEL)
        return PyErr_Format(PyExc_ValueError,
                            "y[%zu] is %lld: labels must be in 0..%zu, one for each output",
                            place->row, (long long)batch->labels[place->row], self->out - 1);
    const float *values = status == GP_BAD_INPUT ? batch->x : batch->targets;
    size_t width = status == GP_BAD_INPUT ? self->in : self->out;
    float value = values[place->row * width + place->column];
    return gp_raise_number(status == GP_BAD_INPUT ? "x" : "y", place, value);
}

static PyObject *answer_of(const gp_result *result)
{
    return Py_BuildValue("(ddd)", result->loss, result->correct, result->weight);
}

static PyObject *net_backward(net_object *self, PyObject *args)
{
    PyObject *arena, *x, *y, *index, *loss, *weights = Py_None, *lengths = Py_None;
    unsigned long long seed, step;
    gp_batch batch;
    gp_result result;
    gp_status status;
    gp_fault place;
    if (!PyArg_ParseTuple(args, "O!OOOO!KK|OO", self->state->arena_type, &arena, &x, &y, &index,
                          &PyTuple_Type, &loss, &seed, &step, &weights, &lengths) ||
        parse_batch(self, x, y, index, loss, weights, lengths, &batch))
        return NULL;
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    const entered own = enter(self, arena);
    Py_BEGIN_ALLOW_THREADS
    status = gp_net_backward(own.net, own.arena, &batch, &result, seed, step, threads);
    Py_END_ALLOW_THREADS
    gp_net_input_fault(own.net, &place);
    leave(self, arena);
    return status == GP_OK ? answer_of(&result) : raise_fault(self, &place, &batch, status);
}

/* The rates of the steps, a tuple, and how many of the rows are each one's, a tuple or None for
 * whole batches. Fills what has room for so many. */
static int parse_course(PyObject *rates, PyObject *sizes, size_t rows, gp_course *course,
                        double *lr, size_t *samples)
{
    *course = (gp_course){.n = (size_t)PyTuple_GET_SIZE(rates), .lr = lr};
    for (size_t i = 0; i < course->n; i++)
        lr[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(rates, (Py_ssize_t)i));
    if (PyErr_Occurred()) return -1;
    if (sizes == Py_None) return 0;
    if (!PyTuple_Check(sizes) || PyTuple_GET_SIZE(sizes) != PyTuple_GET_SIZE(rates)) {
        PyErr_SetString(PyExc_ValueError, "there must be as many sizes as learning rates");
        return -1;
    }
    for (size_t i = 0; i < course->n; rows -= samples[i++]) {
        samples[i] = PyLong_AsSize_t(PyTuple_GET_ITEM(sizes, (Py_ssize_t)i));
        if (PyErr_Occurred()) return -1;
        if (samples[i] > 0 && samples[i] <= rows) continue;
        PyErr_Format(PyExc_ValueError, "step %zu takes %zu samples, the index has %zu left", i,
                     samples[i], rows);
        return -1;
    }
    course->sizes = samples;
    return 0;
}

/* A list for each number of a step: loss, correct, weight, norm, scale, clipped, applied,
 * norm_after. */
static PyObject *taken_steps(const gp_taken *taken, size_t done)
{
    enum { NUMBERS = 8 };
    PyObject *columns = PyTuple_New(NUMBERS);
    for (Py_ssize_t k = 0; columns && k < NUMBERS; k++) {
        PyObject *column = PyList_New((Py_ssize_t)done);
        if (column) PyTuple_SET_ITEM(columns, k, column);
        else Py_CLEAR(columns);
    }
    for (size_t i = 0; columns && i < done; i++) {
        const gp_step_info *info = &taken[i].info;
        PyObject *const numbers[NUMBERS] = {PyFloat_FromDouble(taken[i].result.loss),
                                            PyFloat_FromDouble(taken[i].result.correct),
                                            PyFloat_FromDouble(taken[i].result.weight),
                                            PyFloat_FromDouble(info->norm),
                                            PyFloat_FromDouble(info->scale),
                                            PyBool_FromLong(info->clipped),
                                            PyBool_FromLong(info->applied),
                                            PyFloat_FromDouble(info->norm_after)};
        for (Py_ssize_t k = 0; k < NUMBERS; k++)
            PyList_SET_ITEM(PyTuple_GET_ITEM(columns, k), (Py_ssize_t)i, numbers[k]);
    }
    if (!PyErr_Occurred()) return columns;
    Py_XDECREF(columns);
    return NULL;
}

static PyObject *net_train(net_object *self, PyObject *args)
{
    PyObject *arena, *x, *y, *index, *loss, *clip_tuple, *rule_tuple, *moments, *norms_object,
        *rates, *sizes, *weights = Py_None, *lengths = Py_None;
    unsigned long long seed, step;
    gp_batch batch;
    gp_clip clips[GP_MAX_CLIPS];
    gp_rule rule;
    gp_course course;
    float *moments_of_step[GP_MAX_MOMENTS];
    double *norms, seconds;
    gp_status status;
    gp_fault place;
    if (!PyArg_ParseTuple(args, "O!OOOO!KKO!O!OOO!Od|OO", self->state->arena_type, &arena, &x, &y,
                          &index, &PyTuple_Type, &loss, &seed, &step, &PyTuple_Type, &clip_tuple,
                          &PyTuple_Type, &rule_tuple, &moments, &norms_object, &PyTuple_Type,
                          &rates, &sizes, &seconds, &weights, &lengths) ||
        parse_batch(self, x, y, index, loss, weights, lengths, &batch) ||
        gp_parse_step(clip_tuple, rule_tuple, moments, norms_object,
                      gp_arena_sizes((arena_object *)arena), clips, &rule, moments_of_step, &norms))
        return NULL;
    if (sizes != Py_None && !batch.index) {
        PyErr_SetString(PyExc_ValueError, "sizes without an index");
        return NULL;
    }
    const size_t n = (size_t)PyTuple_GET_SIZE(rates);
    gp_taken *taken = PyMem_Calloc(n + 1, sizeof *taken);
    double *lr = PyMem_Calloc(n + 1, sizeof *lr);
    size_t *samples = PyMem_Calloc(n + 1, sizeof *samples), done = 0;
    PyObject *answer = NULL;
    if (!taken || !lr || !samples) {
        PyErr_NoMemory();
        goto done;
    }
    if (parse_course(rates, sizes, batch.size, &course, lr, samples)) goto done;
    course.seconds = seconds;
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    const entered own = enter(self, arena);
    gp_arena with_moments = *own.arena;
    memcpy(with_moments.moments, moments_of_step, sizeof with_moments.moments);
    Py_BEGIN_ALLOW_THREADS
    status = gp_net_train_many(own.net, &with_moments, &batch, &course, clips, &rule, taken, &done,
                               norms, seed, step, threads);
    Py_END_ALLOW_THREADS
    gp_net_input_fault(own.net, &place);
    leave(self, arena);
    answer = status == GP_OK ? taken_steps(taken, done) : raise_fault(self, &place, &batch, status);
done:
    PyMem_Free(taken);
    PyMem_Free(lr);
    PyMem_Free(samples);
    return answer;
}

static PyArrayObject *parse_output(net_object *self, PyObject *out, size_t rows)
{
    PyArrayObject *array = gp_array(out, NPY_FLOAT32, 2, 1, "out");
    if (array &&
        ((size_t)PyArray_DIM(array, 0) != rows || (size_t)PyArray_DIM(array, 1) != self->out)) {
        PyErr_Format(PyExc_ValueError, "out must be of shape (%zu, %zu)", rows, self->out);
        return NULL;
    }
    return array;
}

/* The outputs for samples, `training` as a pass in training has them. */
static PyObject *fill_outputs(net_object *self, PyObject *arena, PyObject *x, PyObject *out,
                              PyObject *lengths, int training, uint64_t seed, uint64_t step)
{
    gp_status status;
    gp_fault place;
    gp_result result;
    PyArrayObject *inputs = gp_array(x, NPY_FLOAT32, 2, 0, "x");
    if (!inputs) return NULL;
    if ((size_t)PyArray_DIM(inputs, 1) != self->in)
        return PyErr_Format(PyExc_ValueError, "x has %zd features, the network takes %zu",
                            PyArray_DIM(inputs, 1), self->in);
    gp_batch batch = {.size = (size_t)PyArray_DIM(inputs, 0), .x = PyArray_DATA(inputs)};
    PyArrayObject *outputs = parse_output(self, out, batch.size);
    if (!outputs || parse_lengths(lengths, PyArray_DIM(inputs, 0), &batch)) return NULL;
    if (batch.size == 0) Py_RETURN_NONE;
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    const entered own = enter(self, arena);
    Py_BEGIN_ALLOW_THREADS
    if (training)
        status =
            gp_net_forward(own.net, own.arena, &batch, PyArray_DATA(outputs), seed, step, threads);
    else
        status =
            gp_net_evaluate(own.net, own.arena, &batch, PyArray_DATA(outputs), &result, threads);
    Py_END_ALLOW_THREADS
    gp_net_input_fault(own.net, &place);
    leave(self, arena);
    return status == GP_OK ? Py_NewRef(Py_None) : raise_fault(self, &place, &batch, status);
}

static PyObject *net_predict(net_object *self, PyObject *args)
{
    PyObject *arena, *x, *out, *lengths = Py_None;
    if (!PyArg_ParseTuple(args, "O!OO|O", self->state->arena_type, &arena, &x, &out, &lengths))
        return NULL;
    return fill_outputs(self, arena, x, out, lengths, 0, 0, 0);
}

static PyObject *net_forward(net_object *self, PyObject *args)
{
    PyObject *arena, *x, *out, *lengths = Py_None;
    unsigned long long seed, step;
    if (!PyArg_ParseTuple(args, "O!OOKK|O", self->state->arena_type, &arena, &x, &out, &seed, &step,
                          &lengths))
        return NULL;
    return fill_outputs(self, arena, x, out, lengths, 1, seed, step);
}

static PyObject *net_evaluate(net_object *self, PyObject *args)
{
    PyObject *arena, *x, *y, *loss, *out, *weights = Py_None, *lengths = Py_None;
    gp_batch batch;
    gp_result result;
    gp_status status;
    gp_fault place;
    if (!PyArg_ParseTuple(args, "O!OOO!O|OO", self->state->arena_type, &arena, &x, &y,
                          &PyTuple_Type, &loss, &out, &weights, &lengths) ||
        parse_batch(self, x, y, Py_None, loss, weights, lengths, &batch))
        return NULL;
    PyArrayObject *outputs = NULL;
    if (out != Py_None && !(outputs = parse_output(self, out, batch.size))) return NULL;
    float *predictions = outputs ? PyArray_DATA(outputs) : NULL;
    const size_t threads = self->state->threads; /* now, while the GIL is held */
    const entered own = enter(self, arena);
    Py_BEGIN_ALLOW_THREADS
    status = gp_net_evaluate(own.net, own.arena, &batch, predictions, &result, threads);
    Py_END_ALLOW_THREADS
    gp_net_input_fault(own.net, &place);
    leave(self, arena);
    return status == GP_OK ? answer_of(&result) : raise_fault(self, &place, &batch, status);
}

static PyObject *net_fault(net_object *self, PyObject *args)
{
    static const char *const phases[] = {"",        "input", "target",  "parameter",
                                         "forward", "loss",  "backward"};
    PyObject *arena;
    gp_fault fault;
    if (!PyArg_ParseTuple(args, "O!", self->state->arena_type, &arena)) return NULL;
    const entered own = enter(self, arena);
    gp_net_fault(own.net, own.arena, &fault);
    leave(self, arena);
    if (fault.phase == GP_PHASE_NONE) Py_RETURN_NONE;
    return Py_BuildValue("(snNNnnnd)", phases[fault.phase],
                         fault.layer == GP_NONE ? (Py_ssize_t)-1 : (Py_ssize_t)fault.layer,
                         PyBool_FromLong(fault.bias), PyBool_FromLong(fault.recurrent),
                         (Py_ssize_t)fault.row, (Py_ssize_t)fault.column,
                         fault.step == GP_NONE ? (Py_ssize_t)-1 : (Py_ssize_t)fault.step,
                         fault.value);
}

static PyObject *net_set_limits(net_object *self, PyObject *args)
{
    float activation, gradient;
    if (!PyArg_ParseTuple(args, "ff", &activation, &gradient)) return NULL;
    gp_net_limit(enter_net(self), activation, gradient);
    leave_net(self);
    Py_RETURN_NONE;
}

static PyObject *net_exploded(net_object *self, void *unused)
{
    (void)unused;
    const int exploded = gp_net_exploded(enter_net(self));
    leave_net(self);
    return PyBool_FromLong(exploded);
}

static PyObject *net_is_sparse(net_object *self, PyObject *args)
{
    PyObject *arena;
    Py_ssize_t layer, samples;
    if (!PyArg_ParseTuple(args, "O!nn", self->state->arena_type, &arena, &layer, &samples))
        return NULL;
    const entered own = enter(self, arena);
    int is_sparse = layer >= 0 && samples > 0 &&
                    gp_net_is_sparse(own.net, own.arena, (size_t)layer, (size_t)samples);
    leave(self, arena);
    return PyBool_FromLong(is_sparse);
}

static PyObject *net_nbytes(net_object *self, void *unused)
{
    (void)unused;
    const size_t bytes = gp_net_bytes(enter_net(self));
    leave_net(self);
    return PyLong_FromSize_t(bytes);
}

static PyMethodDef net_methods[] = {
    {"backward", (PyCFunction)net_backward, METH_VARARGS,
     "backward(arena, x, y, index, loss, seed, step, weights=None, lengths=None) -> (loss, "
     "correct, "
     "weight). lengths is (lengths, steps, whether the network gives a number of each step)."},
    {"train", (PyCFunction)net_train, METH_VARARGS,
     "train(arena, x, y, index, loss, seed, step, clip, rule, moments, norms, rates, sizes, "
     "seconds, weights=None, lengths=None)"
     " -> (loss, correct, weight, norm, scale, clipped, applied, norm_after), a list each: a step "
     "for each "
     "rate until one is refused, which counts if it is the first, or the time is over. A step "
     "takes "
     "the next rows of index, as many as its size or, where sizes is None, all."},
    {"predict", (PyCFunction)net_predict, METH_VARARGS,
     "predict(arena, x, out, lengths=None): fill out."},
    {"forward", (PyCFunction)net_forward, METH_VARARGS,
     "forward(arena, x, out, seed, step, lengths=None): fill out as a pass in training does. "
     "backward or train "
     "with the loss \"given\" and the same x, seed and step goes on from there."},
    {"evaluate", (PyCFunction)net_evaluate, METH_VARARGS,
     "evaluate(arena, x, y, loss, out, weights=None, lengths=None) -> (loss, correct, weight)"},
    {"is_sparse", (PyCFunction)net_is_sparse, METH_VARARGS,
     "is_sparse(arena, layer, samples): whether a layer runs on its live weights alone."},
    {"fault", (PyCFunction)net_fault, METH_VARARGS,
     "fault(arena) -> None or (phase, layer, bias, recurrent, row, column, step, value) of the "
     "first bad number."},
    {"set_limits", (PyCFunction)net_set_limits, METH_VARARGS,
     "set_limits(activation, gradient): what is larger is bad; infinite: nothing finite is."},
    {NULL, NULL, 0, NULL}};
static PyObject *net_needs(net_object *self, void *unused)
{
    (void)unused;
    size_t fixed, each;
    gp_net_needs(enter_net(self), &fixed, &each);
    leave_net(self);
    return Py_BuildValue("(nn)", (Py_ssize_t)fixed, (Py_ssize_t)each);
}

static PyGetSetDef net_getset[] = {
    {"exploded", (getter)net_exploded, NULL, "Of the last backward or train.", NULL},
    {"nbytes", (getter)net_nbytes, NULL, "Bytes of workspace.", NULL},
    {"needs", (getter)net_needs, NULL,
     "Bytes of workspace that calls will take: in any case, and a sample.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot net_slots[] = {{Py_tp_doc, "Net(layers): a network compiled from layer tuples."},
                                  {Py_tp_new, (void *)net_new},
                                  {Py_tp_dealloc, (void *)net_dealloc},
                                  {Py_tp_traverse, (void *)net_traverse},
                                  {Py_tp_methods, net_methods},
                                  {Py_tp_getset, net_getset},
                                  {0, NULL}};
PyType_Spec gp_net_spec = {.name = "gradprune._core.Net",
                           .basicsize = sizeof(net_object),
                           .flags =
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                           .slots = net_slots};
