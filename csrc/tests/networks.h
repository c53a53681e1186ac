/* networks.h - the networks that scenes are made of, from a line to one that is worth sharing. */
#ifndef GP_NETWORKS_H
#define GP_NETWORKS_H

#include "scene.h"

static inline void build_classifier(model *m)
{
    model_dense(m, 13, 17);
    model_activation(m, GP_RELU, 0);
    model_dense(m, 17, 5);
}
static inline void build_softmax(model *m)
{
    model_dense(m, 6, 9);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 9, 4)->l2 = 0.01f;
    model_softmax(m);
}
static inline void build_sigmoid(model *m)
{
    model_dense(m, 5, 3)->l1 = 0.02f;
    model_activation(m, GP_SIGMOID, 0);
}
static inline void build_everything(model *m)
{
    model_dropout(m, 0.2f, 11);
    gp_layer_spec *first = model_dense(m, 11, 30);
    first->l1 = 0.003f;
    first->l2 = 0.002f;
    model_activation(m, GP_GELU, 0);
    model_dropout(m, 0.5f, 0);
    model_dense(m, 30, 16)->bias = GP_NONE;
    model_activation(m, GP_LEAKY_RELU, 0);
    model_dense(m, 16, 3);
}
/* Nothing before it, nothing to learn in the middle of it. */
static inline void build_odd(model *m)
{
    model_activation(m, GP_SIGMOID, 7);
    model_dense(m, 7, 1)->bias = GP_NONE;
    model_activation(m, GP_IDENTITY, 0);
    model_dense(m, 1, 6);
    model_softmax(m);
    model_dense(m, 6, 2);
}
static inline void build_line(model *m) { model_dense(m, 1, 1); }
/* 40 inputs do not fit two vectors, 50 outputs are more than two blocks of rows. */
static inline void build_wide(model *m)
{
    model_dense(m, 40, 50);
    model_activation(m, GP_GELU, 0);
    model_dense(m, 50, 100);
    model_activation(m, GP_TANH, 0);
    model_dense(m, 100, 10);
}
/* 7 thousand multiply-adds: 30 samples are worth sharing */
static inline void build_large(model *m)
{
    model_dropout(m, 0.1f, 103);
    gp_layer_spec *first = model_dense(m, 103, 60);
    first->l1 = 1e-4f;
    first->l2 = 1e-3f;
    model_activation(m, GP_GELU, 0);
    model_dropout(m, 0.3f, 0);
    model_dense(m, 60, 21);
    model_softmax(m);
}

#endif
