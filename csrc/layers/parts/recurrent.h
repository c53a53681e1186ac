/* recurrent.h - the settings of a recurrent layer, and its form in frozen networks. */
#ifndef GP_RECURRENT_H
#define GP_RECURRENT_H

#include "layers/layers.h"

typedef enum gp_cell {
    GP_RNN,  /* h = f(W_ih x + b_ih + W_hh h + b_hh), f tanh or relu */
    GP_LSTM, /* gates i, f, g, o */
    GP_GRU,  /* gates r, z, n */
    GP_CELLS
} gp_cell;

/* The specification's weight and bias are of the input, these of the state. */
typedef struct gp_recurrent_settings {
    gp_cell cell;
    gp_activation activation; /* of an RNN */
    size_t steps;             /* T; in = T * features a step */
    /* out = T * units: the state after every step; else units: the last state */
    int sequences;
    /* gradients do not pass from step k*truncation to the one before; 0: they all do */
    size_t truncation;
    size_t weight, bias; /* offsets into the arena; bias is GP_NONE when that of the input is */
    /* adds orthogonality * sum over gates of |W_hh' W_hh - 1|^2 to the loss */
    float orthogonality;
    /* RNN: adds omega * Pascanu's regularizer, in training */
    float omega;
} gp_recurrent_settings;

GP_SETTINGS(recurrent)

/* Rows of a weight matrix are gates times units. */
static inline size_t gp_gates_of(const gp_layer_spec *spec)
{
    const gp_cell cell = gp_recurrent_of(spec)->cell;
    return cell == GP_LSTM ? 4 : (cell == GP_GRU ? 3 : 1);
}
static inline size_t gp_units_of(const gp_layer_spec *spec)
{
    const gp_recurrent_settings *own = gp_recurrent_of(spec);
    return own->sequences ? spec->out / own->steps : spec->out;
}

/* Units of a share of the work: a multiple of the tiles of gemm and of fours. */
enum { GP_RECURRENT_SHARE = 12 };

double gp_recurrent_penalty(gp_layer *layer, const gp_kernels *kernels, const gp_arena *arena,
                            const gp_team *team, int backward); /* recurrent_penalty.c */

extern const gp_frozen_ops gp_recurrent_frozen; /* recurrent_frozen.c */

#endif
