"""NumPy twins of every C kernel: the executable specification and the oracle of the tests.

Plain and readable before fast.  float32 in gives float32 out and float64 in gives float64, so
gradients can be checked in double.  The layout is the user's: batch first (B, features), weights
(out, in).  Nothing here imports the rest of gradprune, so it cannot share its mistakes.
"""

from __future__ import annotations

from .clipping import (
    agc,
    autoclip_limits,
    centralize,
    clip_grad_norm,
    clip_grad_value,
    clip_scale,
    inhibit,
    normal_quantile,
    qsgd,
    quantize_kbit,
    scaled_sign,
    total_norm,
    zclip_limits,
)
from .int8 import int8_lanes, int8_rows, quantize_lanes, quantize_row, quantize_weights
from .layers import (
    ACTIVATION_NAMES,
    activation_backward,
    activation_forward,
    dense_backward,
    dense_forward,
    sigmoid,
    softmax,
)
from .losses import LOSS_NAMES, loss_forward_backward, regularization
from .network import forward, loss_and_gradients
from .optimizers import adam_step, rmsprop_step, sgd_step
from .pruning import (
    GradientDecomposition,
    block_scores,
    gradient,
    gradient_decomposition,
    iterative_sparsity,
    magnitude,
    moments_accumulate,
    polynomial_sparsity,
    prune_blocks,
    prune_mask,
    random,
    removed_count,
    taylor,
)
from .recurrent import (
    RecurrentGradients,
    States,
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    omega_terms,
    orthogonality,
    recurrent_backward,
    recurrent_forward,
    rnn_backward,
)
from .rng import dropout_mask, normal, permutation, philox4x32, uniform, words
from .select import topk_mask

__all__ = [
    "ACTIVATION_NAMES",
    "LOSS_NAMES",
    "GradientDecomposition",
    "RecurrentGradients",
    "States",
    "activation_backward",
    "activation_forward",
    "adam_step",
    "agc",
    "autoclip_limits",
    "block_scores",
    "centralize",
    "clip_grad_norm",
    "clip_grad_value",
    "clip_scale",
    "dense_backward",
    "dense_forward",
    "dropout_mask",
    "forward",
    "gradient",
    "gradient_decomposition",
    "gru_backward",
    "gru_forward",
    "inhibit",
    "int8_lanes",
    "int8_rows",
    "iterative_sparsity",
    "loss_and_gradients",
    "loss_forward_backward",
    "lstm_backward",
    "lstm_forward",
    "magnitude",
    "moments_accumulate",
    "normal",
    "normal_quantile",
    "omega_terms",
    "orthogonality",
    "permutation",
    "philox4x32",
    "polynomial_sparsity",
    "prune_blocks",
    "prune_mask",
    "qsgd",
    "quantize_kbit",
    "quantize_lanes",
    "quantize_row",
    "quantize_weights",
    "random",
    "recurrent_backward",
    "recurrent_forward",
    "regularization",
    "removed_count",
    "rmsprop_step",
    "rnn_backward",
    "scaled_sign",
    "sgd_step",
    "sigmoid",
    "softmax",
    "taylor",
    "topk_mask",
    "total_norm",
    "uniform",
    "words",
    "zclip_limits",
]
