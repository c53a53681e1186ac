"""Train, clip and prune neural networks on the CPU.

One C engine over flat buffers: a removed weight stays removed, through every optimizer and every
file, and clipping sees live weights only. See README.md for a first script, docs/ for the rest.

Here are the names of which scripts are made. The others are in modules: `gp.losses`,
`gp.initializers`, `gp.learning_rates`, `gp.clipping`, `gp.guards`, `gp.callbacks`, `gp.metrics`,
`gp.pruning`, `gp.compression`, `gp.analysis`, `gp.augmentation`, `gp.datasets`, `gp.plotting`,
`gp.errors`.
"""

import importlib as _importlib
import sys as _sys
import typing as _typing

from gradprune import (
    analysis,
    augmentation,
    callbacks,
    clipping,
    compression,
    costs,
    datasets,
    errors,
    forms,
    guards,
    initializers,
    layers,
    learning_rates,
    losses,
    metrics,
    models,
    optim,
    plotting,
    pruning,
    signposts,
    sweeps,
    training,
)
from gradprune.analysis.diagnosis import diagnose
from gradprune.analysis.explosion_phase import explode
from gradprune.analysis.reports import report
from gradprune.analysis.sensitivity import sensitivity
from gradprune.analysis.verification import verify
from gradprune.compression.compressing import compress
from gradprune.importing import from_onnx, from_torch
from gradprune.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Add,
    AvgPool2D,
    BatchNorm,
    Bidirectional,
    Concat,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Input,
    LayerNorm,
    MaxPool2D,
    Standardize,
)
from gradprune.loading import load
from gradprune.model import Model
from gradprune.optim import (
    AGC,
    SGD,
    Adam,
    AdamW,
    AutoClip,
    Centralize,
    ClipNorm,
    ClipNormPerLayer,
    ClipNormPerParameter,
    ClipValue,
    GradientNoise,
    Inhibit,
    QuantizeGradient,
    RMSprop,
    ZClip,
    clip_grad_norm_,
    clip_grad_value_,
)
from gradprune.pruning import (
    NM,
    SET,
    Block,
    Cubic,
    Element,
    Explosion,
    Fisher,
    Gradient,
    GradientDecomposition,
    GraSP,
    Iterative,
    LinearSchedule,
    Magnitude,
    Movement,
    OneShot,
    Polynomial,
    Pruner,
    Random,
    RigL,
    SynFlow,
    Taylor,
    Unit,
    Wanda,
)
from gradprune.quantization import Codebook, Grid, Quantizer
from gradprune.state.batching import batches
from gradprune.state.selection import topk_mask
from gradprune.state.threads import get_num_threads, set_num_threads, show_config
from gradprune.state.views import Views as _Views
from gradprune.sweeps.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "AGC",
    "GRU",
    "LSTM",
    "NM",
    "RNN",
    "SET",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Add",
    "AutoClip",
    "AvgPool2D",
    "BatchNorm",
    "Bidirectional",
    "Block",
    "Centralize",
    "ClipNorm",
    "ClipNormPerLayer",
    "ClipNormPerParameter",
    "ClipValue",
    "Codebook",
    "Concat",
    "Conv1D",
    "Conv2D",
    "Cubic",
    "Dense",
    "Dropout",
    "Element",
    "Embedding",
    "Explosion",
    "Fisher",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GraSP",
    "Gradient",
    "GradientDecomposition",
    "GradientNoise",
    "Grid",
    "Inhibit",
    "Input",
    "Iterative",
    "LayerNorm",
    "LinearSchedule",
    "Magnitude",
    "MaxPool2D",
    "Model",
    "Movement",
    "OneShot",
    "Polynomial",
    "Pruner",
    "QuantizeGradient",
    "Quantizer",
    "RMSprop",
    "Random",
    "RigL",
    "Standardize",
    "SynFlow",
    "Taylor",
    "Unit",
    "Wanda",
    "ZClip",
    "analysis",
    "augmentation",
    "batches",
    "callbacks",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clipping",
    "compress",
    "compression",
    "costs",
    "datasets",
    "diagnose",
    "errors",
    "explode",
    "forms",
    "from_onnx",
    "from_torch",
    "get_num_threads",
    "guards",
    "initializers",
    "layers",
    "learning_rates",
    "load",
    "losses",
    "metrics",
    "models",
    "optim",
    "plotting",
    "pruning",
    "report",
    "sensitivity",
    "set_num_threads",
    "show_config",
    "sweep",
    "sweeps",
    "topk_mask",
    "training",
    "verify",
]

# Where users look for names that are not on top.
_HOMES = (
    augmentation,
    callbacks,
    clipping,
    costs,
    datasets,
    errors,
    guards,
    initializers,
    layers,
    learning_rates,
    losses,
    metrics,
    plotting,
    analysis,
    compression,
    forms,
    pruning,
    sweeps,
    training,
)

signposts.explain_homes((optim, *_HOMES, _sys.modules[__name__]))
signposts.explain_attributes(Model, signposts.MODEL_ATTRIBUTES)
signposts.explain_attributes(optim.Optimizer, signposts.OPTIMIZER_ATTRIBUTES)
signposts.explain_attributes(layers.Layer, signposts.LAYER_ATTRIBUTES)
signposts.explain_frozen(
    kind
    for kind in vars(layers).values()
    if isinstance(kind, type) and issubclass(kind, layers.Layer)
)
signposts.refuse_calls(Model, "a model is not called: write model.predict(x)")
signposts.refuse_calls(
    _Views,
    "parameters and gradients are mappings of names to arrays, not methods: write "
    "model.parameters.values(); optimizers take the model, gp.Adam(model)",
)

if not _typing.TYPE_CHECKING:  # or type checkers would believe that every name exists

    def __getattr__(name: str) -> object:
        """What is not here: import it, if it needs an extra, or say where it is."""
        if name in ("sklearn", "torch"):
            return _importlib.import_module(f"gradprune.{name}")
        homes = {
            home.__name__.removeprefix("gradprune."): getattr(home, "__all__", None) or vars(home)
            for home in _HOMES
        }
        raise AttributeError(signposts.explain(name, homes, __all__), name=name)
