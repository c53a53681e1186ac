/* binding.h - what the files of the Python binding share. Only binding/ includes Python and NumPy
 * headers.
 *
 * The binding checks types, shapes and contiguity, takes references for the length of a call,
 * releases the GIL and turns a gp_status into an exception. It converts nothing: the Python modules
 * hand it float32, C-contiguous arrays.
 */
#ifndef GP_BINDING_H
#define GP_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL gradprune_ARRAY_API
#ifndef GP_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "gradprune.h"

typedef struct module_state {
    const gp_kernels *kernels;
    gp_pool *pool;
    gp_pool *guests; /* of layers inside other frameworks, on their threads if they have some */
    size_t threads;
    PyTypeObject *arena_type, *net_type, *frozen_type, *solo_type;
} module_state;

/* For an object that serves one call at a time. Calls run with the GIL released, so it cannot stand
 * in. */
typedef struct gp_lock {
    PyThread_type_lock lock;
    /* process that made the lock: a fork may copy it held by a thread that is not there */
    long owner;
} gp_lock;

/* What it holds is known to arena_type.c alone, so that nobody reaches the core's arena without its
 * lock. */
typedef struct arena_object arena_object;

typedef struct arena_sizes {
    size_t n, n_prunable, n_segments;
} arena_sizes;

extern PyType_Spec gp_arena_spec, gp_net_spec, gp_frozen_spec, gp_solo_spec;

enum { ANY = -1 };

/* Finds NumPy's functions, before anything here uses them. 0, or -1 with an exception. */
int gp_import_numpy(void);
/* 0, or -1 with TypeError: PyArg_ParseTuple asks for a tuple, and does not check it. */
int gp_tuple(PyObject *object, const char *message);
/* (lengths, steps, by_step) of so many rows, or None: then there are no lengths. */
int gp_parse_lengths(PyObject *object, npy_intp rows, gp_padding *padding);
/* A C-contiguous, aligned, native array of this type and dimension (ANY), writable if asked; else
 * NULL and TypeError or ValueError with `name` in its text. A borrowed reference. */
PyArrayObject *gp_array(PyObject *object, int type, int dimension, int writable, const char *name);
/* The same where None is allowed: *array is NULL then. Returns 0 or -1. */
int gp_array_or_none(PyObject *object, int type, int dimension, int writable, const char *name,
                     PyArrayObject **array);
/* Sets the exception for a status and returns NULL. */
/* A ValueError about a number of x or y, which `place` is about; returns NULL. */
PyObject *gp_raise_number(const char *name, const gp_fault *place, float value);
PyObject *gp_raise_status(gp_status status);

/* Parses a table of costs. Returns 0 or -1. */
int gp_parse_costs(PyObject *tuple, gp_costs *costs);

/* 0, or -1 with MemoryError. */
int gp_lock_create(gp_lock *lock);
void gp_lock_destroy(gp_lock *lock);
/* Waits without holding the GIL. */
void gp_lock_enter(gp_lock *lock);
void gp_lock_leave(gp_lock *lock);

/* The core's arena, its own until gp_arena_leave; waits for other threads without holding the GIL.
 * Its moments are NULL: they are set in a copy, for one step. Who also takes the lock of a network
 * takes that one first. */
gp_arena *gp_arena_enter(arena_object *self);
void gp_arena_leave(arena_object *self);
/* These never change. */
arena_sizes gp_arena_sizes(const arena_object *self);

/* What is parsed of a list of layers. */
typedef struct parsed_layers {
    size_t n;
    gp_layer_spec *specs;
    size_t **backs; /* what each of them reads */
} parsed_layers;

/* Parses [(type, inputs, outputs, back, weight, bias, l1, l2, buffers, settings), ...]: type is a
 * name, back a tuple of how many layers before it what it reads are, settings a tuple of numbers
 * and words that the layer itself reads. Returns 0, and the layers are to be freed, or -1. */
int gp_parse_layers(PyObject *list, parsed_layers *layers);
void gp_free_layers(parsed_layers *layers);
/* Parses ((stage, ...), work or None, keep) into up to GP_MAX_CLIPS stages, each of them (code,
 * settings, seed, excluded or None, state or None, version, residual or None);
 * (code, lr, weight_decay, decoupled, momentum, dampening, nesterov, beta1, beta2, eps, step,
 * max_gradient, max_norm, frozen or None, undecayed or None, lr_scale or None), and a tuple of
 * moments. Returns 0 or -1. */
int gp_parse_step(PyObject *clip, PyObject *rule, PyObject *moments, PyObject *norms,
                  arena_sizes sizes, gp_clip clips_out[GP_MAX_CLIPS], gp_rule *rule_out,
                  float *moments_out[GP_MAX_MOMENTS], double **norms_out);

/* (norm, scale, clipped, applied, norm_after), or NULL. */
PyObject *gp_step_result(const gp_step_info *info);

/* products.c: what benchmarks measure of the matrix products */
PyObject *gp_core_gemm(PyObject *module, PyObject *args);
PyObject *gp_core_gemm_sum(PyObject *module, PyObject *args);

#endif
