"""Train, clip and prune neural networks on the CPU.

One C engine over flat buffers: a removed weight stays removed, through every optimizer and every
file, and clipping sees live weights only. See README.md for a first script, docs/ for the rest.
"""

from gradprune import (
    augmentation,
    callbacks,
    clipping,
    datasets,
    errors,
    guards,
    initializers,
    learning_rates,
    losses,
    models,
    plotting,
)
from gradprune.analysis.diagnosis import Diagnosis, LayerDiagnosis, ParameterDiagnosis, diagnose
from gradprune.analysis.explosion_monitor import (
    ExplosionDetector,
    ExplosionMonitor,
    detect_explosions,
)
from gradprune.analysis.explosion_phase import ExplosionReport, explode
from gradprune.analysis.reports import Report, report
from gradprune.analysis.sensitivity import Sensitivity, sensitivity
from gradprune.analysis.verification import VerificationError, VerificationReport, verify
from gradprune.compression.gpz import PackedModel, compress
from gradprune.compression.pipeline import (
    Encode,
    FineTune,
    Pipeline,
    PipelineError,
    PipelineResult,
    Prune,
    Quantization,
    Shrink,
    Stage,
    StageReport,
    Training,
)
from gradprune.data.augmentation import Augmentation, Crop, Flip, Rotate, Shift
from gradprune.errors import (
    DatasetNotFoundError,
    ExplosionError,
    FileFormatError,
    NonFiniteError,
    NumericalError,
)
from gradprune.forms.frozen import FrozenLayer, FrozenModel
from gradprune.forms.shrinking import LayerShrink, ShrinkReport
from gradprune.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    LayerNorm,
    MaxPool2D,
)
from gradprune.layers.initializers import (
    Glorot,
    He,
    Identity,
    Normal,
    Orthogonal,
    SparseSpectral,
    Uniform,
)
from gradprune.loading import load
from gradprune.losses.cross_entropy import CrossEntropy
from gradprune.losses.distillation import Distillation
from gradprune.model import Model
from gradprune.optim.clipping import (
    AGC,
    AutoClip,
    Centralize,
    ClipNorm,
    ClipNormPerLayer,
    ClipNormPerParameter,
    ClipValue,
    GradientNoise,
    Inhibit,
    QuantizeGradient,
    ZClip,
    clip_grad_norm_,
    clip_grad_value_,
)
from gradprune.optim.guards import Guard, Raise, Rollback, Skip, Zero
from gradprune.optim.learning_rates import ConstantLR, CosineLR, StepLR, WarmupLR
from gradprune.optim.optimizers import SGD, Adam, AdamW, RMSprop, StepInfo
from gradprune.pruning.adaptive import AdaptiveSchedule
from gradprune.pruning.correction import LeastSquares
from gradprune.pruning.criteria import (
    Explosion,
    Fisher,
    Gradient,
    GradientDecomposition,
    GraSP,
    Magnitude,
    Movement,
    Random,
    SynFlow,
    Taylor,
)
from gradprune.pruning.granularity import NM, Block, Element, InputUnit, Unit
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.regrowth import SET, RigL
from gradprune.pruning.report import LayerReport, PruneReport
from gradprune.pruning.rewinding import Rewind
from gradprune.pruning.schedules import Cubic, Iterative, Linear, OneShot, Polynomial
from gradprune.pruning.scopes import ERK, Budgets, GlobalScope, LayerScope
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.grids import Grid
from gradprune.quantization.quantizer import Quantizer
from gradprune.quantization.report import ParameterReport, QuantizationReport
from gradprune.quantization.schemes import Coding
from gradprune.state.batching import batches
from gradprune.state.costs import Costs, get_costs, measure_costs, set_costs
from gradprune.state.selection import topk_mask
from gradprune.state.threads import get_num_threads, set_num_threads, show_config
from gradprune.sweeps.experiment import Experiment
from gradprune.sweeps.records import Aggregate, Records
from gradprune.sweeps.sweep import SweepResult, sweep
from gradprune.training.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    WeightAveraging,
)
from gradprune.training.history import Event, History

__version__ = "0.1.0"

__all__ = [
    "AGC",
    "ERK",
    "GRU",
    "LSTM",
    "NM",
    "RNN",
    "SET",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AdaptiveSchedule",
    "Add",
    "Aggregate",
    "Augmentation",
    "AutoClip",
    "AvgPool2D",
    "BatchNorm",
    "Block",
    "Budgets",
    "CSVLogger",
    "Callback",
    "Centralize",
    "Checkpoint",
    "ClipNorm",
    "ClipNormPerLayer",
    "ClipNormPerParameter",
    "ClipValue",
    "Codebook",
    "Coding",
    "Concat",
    "ConstantLR",
    "Conv2D",
    "CosineLR",
    "Costs",
    "Crop",
    "CrossEntropy",
    "Cubic",
    "DatasetNotFoundError",
    "Dense",
    "Diagnosis",
    "Distillation",
    "Dropout",
    "EarlyStopping",
    "Element",
    "Encode",
    "Event",
    "Experiment",
    "Explosion",
    "ExplosionDetector",
    "ExplosionError",
    "ExplosionMonitor",
    "ExplosionReport",
    "FileFormatError",
    "FineTune",
    "Fisher",
    "Flatten",
    "Flip",
    "FrozenLayer",
    "FrozenModel",
    "GlobalAvgPool",
    "GlobalScope",
    "Glorot",
    "GraSP",
    "Gradient",
    "GradientDecomposition",
    "GradientNoise",
    "Grid",
    "Guard",
    "He",
    "History",
    "Identity",
    "Inhibit",
    "Input",
    "InputUnit",
    "Iterative",
    "LayerDiagnosis",
    "LayerNorm",
    "LayerReport",
    "LayerScope",
    "LayerShrink",
    "LeastSquares",
    "Linear",
    "Magnitude",
    "MaxPool2D",
    "Model",
    "Movement",
    "NonFiniteError",
    "Normal",
    "NumericalError",
    "OneShot",
    "Orthogonal",
    "PackedModel",
    "ParameterDiagnosis",
    "ParameterReport",
    "Pipeline",
    "PipelineError",
    "PipelineResult",
    "Polynomial",
    "Prune",
    "PruneReport",
    "Pruner",
    "Quantization",
    "QuantizationReport",
    "QuantizeGradient",
    "Quantizer",
    "RMSprop",
    "Raise",
    "Random",
    "Records",
    "Report",
    "Rewind",
    "RigL",
    "Rollback",
    "Rotate",
    "Sensitivity",
    "Shift",
    "Shrink",
    "ShrinkReport",
    "Skip",
    "SparseSpectral",
    "Stage",
    "StageReport",
    "StepInfo",
    "StepLR",
    "SweepResult",
    "SynFlow",
    "Taylor",
    "Training",
    "Uniform",
    "Unit",
    "VerificationError",
    "VerificationReport",
    "WarmupLR",
    "WeightAveraging",
    "ZClip",
    "Zero",
    "augmentation",
    "batches",
    "callbacks",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clipping",
    "compress",
    "datasets",
    "detect_explosions",
    "diagnose",
    "errors",
    "explode",
    "get_costs",
    "get_num_threads",
    "guards",
    "initializers",
    "learning_rates",
    "load",
    "losses",
    "measure_costs",
    "models",
    "plotting",
    "report",
    "sensitivity",
    "set_costs",
    "set_num_threads",
    "show_config",
    "sweep",
    "topk_mask",
    "verify",
]
