"""Train, clip and prune neural networks on the CPU.

One C engine over flat buffers: a removed weight stays removed, through every optimizer and every
file, and clipping sees live weights only. See README.md for a first script, docs/ for the rest.
"""

from gradprune import datasets, plotting
from gradprune.batching import batches
from gradprune.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping
from gradprune.clipping import (
    AGC,
    AutoClip,
    Centralize,
    ClipNorm,
    ClipNormPerLayer,
    ClipNormPerParameter,
    ClipValue,
    GradientNoise,
    Inhibit,
    Quantize,
    ZClip,
    clip_grad_norm_,
    clip_grad_value_,
)
from gradprune.costs import Costs, get_costs, measure_costs, set_costs
from gradprune.diagnosis import Diagnosis, LayerDiagnosis, ParameterDiagnosis, diagnose
from gradprune.errors import (
    DatasetNotFoundError,
    ExplosionError,
    FileFormatError,
    NonFiniteError,
    NumericalError,
)
from gradprune.explosion_monitor import ExplosionDetector, ExplosionMonitor, detect_explosions
from gradprune.explosion_phase import ExplosionReport, explode
from gradprune.frozen import FrozenLayer, FrozenModel
from gradprune.guards import Guard, Raise, Rollback, Skip, Zero
from gradprune.history import Event, History
from gradprune.initializers import (
    Glorot,
    He,
    Identity,
    Normal,
    Orthogonal,
    SparseSpectral,
    Uniform,
)
from gradprune.layers import GRU, LSTM, RNN, Activation, Dense, Dropout
from gradprune.learning_rates import ConstantLR, CosineLR, StepLR, WarmupLR
from gradprune.model import Model, load
from gradprune.optimizers import SGD, Adam, AdamW, RMSprop, StepInfo
from gradprune.pruning.criteria import (
    Explosion,
    Gradient,
    GradientDecomposition,
    Magnitude,
    Random,
    Taylor,
)
from gradprune.pruning.granularity import Block, Element
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.schedules import Cubic, Iterative, Linear, OneShot, Polynomial
from gradprune.pruning.scopes import GlobalScope, LayerScope
from gradprune.reports import Report, report
from gradprune.selection import topk_mask
from gradprune.sweeps.experiment import Experiment
from gradprune.sweeps.records import Aggregate, Records
from gradprune.sweeps.sweep import SweepResult, sweep
from gradprune.threads import get_num_threads, set_num_threads, show_config
from gradprune.verification import VerificationError, VerificationReport, verify

__version__ = "0.1.0"

__all__ = [
    "AGC",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Aggregate",
    "AutoClip",
    "Block",
    "CSVLogger",
    "Callback",
    "Centralize",
    "Checkpoint",
    "ClipNorm",
    "ClipNormPerLayer",
    "ClipNormPerParameter",
    "ClipValue",
    "ConstantLR",
    "CosineLR",
    "Costs",
    "Cubic",
    "DatasetNotFoundError",
    "Dense",
    "Diagnosis",
    "Dropout",
    "EarlyStopping",
    "Element",
    "Event",
    "Experiment",
    "Explosion",
    "ExplosionDetector",
    "ExplosionError",
    "ExplosionMonitor",
    "ExplosionReport",
    "FileFormatError",
    "FrozenLayer",
    "FrozenModel",
    "GlobalScope",
    "Glorot",
    "Gradient",
    "GradientDecomposition",
    "GradientNoise",
    "Guard",
    "He",
    "History",
    "Identity",
    "Inhibit",
    "Iterative",
    "LayerDiagnosis",
    "LayerReport",
    "LayerScope",
    "Linear",
    "Magnitude",
    "Model",
    "NonFiniteError",
    "Normal",
    "NumericalError",
    "OneShot",
    "Orthogonal",
    "ParameterDiagnosis",
    "Polynomial",
    "PruneReport",
    "Pruner",
    "Quantize",
    "RMSprop",
    "Raise",
    "Random",
    "Records",
    "Report",
    "Rollback",
    "Skip",
    "SparseSpectral",
    "StepInfo",
    "StepLR",
    "SweepResult",
    "Taylor",
    "Uniform",
    "VerificationError",
    "VerificationReport",
    "WarmupLR",
    "ZClip",
    "Zero",
    "batches",
    "clip_grad_norm_",
    "clip_grad_value_",
    "datasets",
    "detect_explosions",
    "diagnose",
    "explode",
    "get_costs",
    "get_num_threads",
    "load",
    "measure_costs",
    "plotting",
    "report",
    "set_costs",
    "set_num_threads",
    "show_config",
    "sweep",
    "topk_mask",
    "verify",
]
