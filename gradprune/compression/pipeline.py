"""Pipelines: prune, shrink, quantize, fine-tune, encode, each stage keeping what the former did.

A stage says what it achieves and which achievements of others it would undo. A pipeline refuses an
order in which something would be undone when it is made, before anything is trained, and looks
after every stage whether what was achieved is still there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from time import perf_counter
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.analysis.verification import VerificationError, verify
from gradprune.compression.gpz import PackedModel, check_packable, compress
from gradprune.data.augmentation import Augmentation, augmentations
from gradprune.foundation.checks import as_array, fraction, instance, seed_number, settle, whole
from gradprune.foundation.columns import aligned
from gradprune.losses.base import LossLike
from gradprune.losses.table import get_loss
from gradprune.model import Model
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.report import PruneReport
from gradprune.pruning.schedules import Cubic
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.quantizer import Quantizer
from gradprune.quantization.schemes import Scheme
from gradprune.state.locking import locked
from gradprune.training.loop import train
from gradprune.training.preparation import Run, prepare

__all__ = [
    "Encode",
    "FineTune",
    "Pipeline",
    "PipelineError",
    "PipelineResult",
    "Property",
    "Prune",
    "QuantizeWeights",
    "Shrink",
    "Stage",
    "StageReport",
    "Training",
]

Data = tuple[ArrayLike, ArrayLike]
MakeOptimizer = Callable[[Model], Optimizer]
_COMPARED = 256  # samples on which a smaller model has to predict the same
_ROUNDING = 1e-3  # relative; normalization by a small variance makes more of the last bits

_EVENTS = 50  # of a schedule that is not told how many
_NOTHING: Mapping[Property, str] = MappingProxyType({})


class Property(Enum):
    """A property that a stage may achieve, and that later stages have to keep."""

    ZEROS = "removed weights"
    SHAPES = "shapes of the parameters"
    CLUSTERS = "shared values"
    GRID = "values on a grid"
    FILE = "file"


class PipelineError(RuntimeError):
    """Says which stage has undone what an earlier one achieved, and where."""


@dataclass
class Progress:
    """The state on which stages work.

    Attributes:
        model: as it is by now.
        data: (x, y) to train on.
        packed: the file, once there is one.
        seed, verbose: the seed and output of training, as for ``fit``.
        reports: what the stage that runs has to say, for the result.
    """

    model: Model
    data: Data
    packed: PackedModel | None = None
    seed: int = 0
    verbose: int = 0
    reports: list[Any] = field(default_factory=list)


class Stage(ABC):
    """A step of a pipeline; a stage of your own has the same methods.

    Attributes:
        undoes: what earlier stages have achieved and this one would not keep, with the reason.
    """

    undoes: ClassVar[Mapping[Property, str]] = _NOTHING

    @property
    def achieves(self) -> Property | None:
        """The property that later stages have to keep, or None."""
        return None

    def check(self, progress: Progress) -> None:  # noqa: B027 - own stages may have nothing to say
        """Raise what ``run`` would; called for all stages, in order, before the first one runs.

        Args:
            progress: with a copy of the model, which may be changed but need not be trained.
        """

    @abstractmethod
    def run(self, progress: Progress) -> None:
        """Change the model."""


@dataclass(frozen=True)
class Training:
    """The settings by which a stage trains.

    Args:
        epochs: passes over the data.
        optimizer: makes the optimizer of the stage, such as ``lambda model: gp.SGD(model,
            lr=0.1)``; None: the model's goes on. A pipeline tries it on a copy of the model before
            anything runs.
        batch_size, loss, augment: as for ``fit``.

    Raises:
        TypeError, ValueError: a setting is not as above.
    """

    epochs: int
    optimizer: MakeOptimizer | None = field(default=None, kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    loss: LossLike | None = field(default=None, kw_only=True)
    augment: Augmentation | Sequence[Augmentation] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        settle(self, whole, "epochs")
        settle(self, whole, "batch_size", least=1)
        augmentations(self.augment)
        if self.loss is not None:
            get_loss(self.loss)
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                "optimizer must be a function that makes one, such as lambda model: "
                f"gp.SGD(model, lr=0.1), got {self.optimizer!r}"
            )

    def check(self, progress: Progress, pruner: Pruner | None = None) -> None:
        """Raise what ``fit`` would, and warn of what the pruner's schedule will not do."""
        if self.epochs:
            self._prepared(progress, pruner).warn(stacklevel=5)

    def fit(self, progress: Progress, pruner: Pruner | None = None) -> None:
        """Train the model."""
        if self.epochs:
            history = train(self._prepared(progress, pruner))
            progress.reports += [report for _, report in history.prune_reports]

    def _prepared(self, progress: Progress, pruner: Pruner | None) -> Run:
        model = progress.model
        made: object = None if self.optimizer is None else self.optimizer(model)
        if self.optimizer is not None and not isinstance(made, Optimizer):
            raise TypeError(f"optimizer must make an optimizer, got {made!r} from it")
        x, y = progress.data
        return prepare(
            model,
            x,
            y,
            optimizer=made if isinstance(made, Optimizer) else None,
            loss=self.loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            pruner=pruner,
            seed=progress.seed,
            augment=self.augment,
            verbose=progress.verbose,
        )


@dataclass(frozen=True)
class Prune(Stage):
    """Removes weights, at once or along a cubic schedule while ``training`` lasts.

    Args:
        sparsity: target in [0, 1], see ``Pruner.prune``.
        criterion, scope, granularity: see ``Pruner``.
        training: the schedule ends with it; None prunes at once.
        every: steps between two events of the schedule; None: about 50 events in all, no more than
            one a step.

    Raises:
        TypeError, ValueError: a setting is not as above.
    """

    undoes: ClassVar[Mapping[Property, str]] = MappingProxyType(
        {
            Property.CLUSTERS: "clusters would be emptied, their values chosen for weights that go",
        }
    )
    sparsity: float
    criterion: Criterion = field(default_factory=Magnitude, kw_only=True)
    scope: str | Scope = field(default="global", kw_only=True)
    granularity: Granularity = field(default_factory=Element, kw_only=True)
    training: Training | None = field(default=None, kw_only=True)
    every: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, fraction, "sparsity")
        settle(self, whole, "every", least=1)
        instance("criterion", self.criterion, Criterion, "Magnitude()")
        instance("granularity", self.granularity, Granularity, "Block(4, 1)")
        get_scope(self.scope)
        if self.training is not None:
            instance("training", self.training, Training, "Training(2)")

    @property
    def achieves(self) -> Property:
        """See Stage."""
        return Property.ZEROS

    def check(self, progress: Progress) -> None:
        """See Stage."""
        pruner = self._pruner(progress)
        if self._trains:
            assert self.training is not None
            self.training.check(progress, pruner)
        else:  # the criterion may look at the data
            x, y = progress.data
            progress.model.checked_batch(x, y, progress.model.loss_for(None))

    def run(self, progress: Progress) -> None:
        """See Stage."""
        pruner = self._pruner(progress)
        if self._trains:
            assert self.training is not None
            self.training.fit(progress, pruner)
        else:
            progress.reports.append(pruner.prune(self.sparsity, data=progress.data))

    @property
    def _trains(self) -> bool:
        return self.training is not None and self.training.epochs > 0

    def _pruner(self, progress: Progress) -> Pruner:
        schedule = None
        if self.training is not None and self.training.epochs:
            samples, size = len(as_array("x", progress.data[0])), self.training.batch_size
            steps = self.training.epochs * progress.model.steps_per_epoch(samples, size)
            every = max(steps // _EVENTS, 1) if self.every is None else self.every
            schedule = Cubic(self.sparsity, start=0, stop=steps, every=every)
        return Pruner(
            progress.model,
            criterion=self.criterion,
            scope=self.scope,
            granularity=self.granularity,
            schedule=schedule,
            seed=progress.seed,
            probe_data=progress.data,
        )


@dataclass(frozen=True)
class Shrink(Stage):
    """Removes dead units as ``Model.shrink`` does; the pipeline goes on with a new model.

    Its predictions for some of the training samples are compared with those of the larger one.

    Raises:
        PipelineError: they differ by more than rounding; the pipeline's model is the larger one.
    """

    undoes: ClassVar[Mapping[Property, str]] = MappingProxyType(
        dict.fromkeys(
            (Property.CLUSTERS, Property.GRID),
            "constants of dead units join biases, which would leave their values",
        )
    )

    @property
    def achieves(self) -> Property:
        """See Stage."""
        return Property.SHAPES

    def run(self, progress: Progress) -> None:
        """See Stage."""
        small = progress.model.shrink()
        x = as_array("x", progress.data[0])[:_COMPARED]
        try:
            verify(progress.model, small, x=x, tolerance=_ROUNDING)
        except VerificationError as error:
            raise PipelineError(f"Shrink has changed predictions: {error}") from error
        progress.model = small
        progress.reports.append(small.shrink_report)


@dataclass(frozen=True)
class QuantizeWeights(Stage):
    """Gives the weights few values, which all later training keeps; see ``Quantizer``.

    Args:
        weights: scheme for prunable parameters, such as ``Codebook(16)`` or ``Grid(8)``.
        biases: scheme for the others; None: they stay float.
        exclude: names of layers or parameters to leave alone.
    """

    undoes: ClassVar[Mapping[Property, str]] = MappingProxyType(
        dict.fromkeys(
            (Property.CLUSTERS, Property.GRID), "all values would be chosen anew, by another rule"
        )
    )
    weights: Scheme
    biases: Scheme | None = field(default=None, kw_only=True)
    exclude: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        instance("weights", self.weights, Scheme, "Codebook(16)")
        if self.biases is not None:
            instance("biases", self.biases, Scheme, "Codebook(16)")

    @property
    def achieves(self) -> Property:
        """See Stage."""
        return Property.CLUSTERS if isinstance(self.weights, Codebook) else Property.GRID

    def check(self, progress: Progress) -> None:
        """See Stage."""
        self._quantizer(progress)

    def run(self, progress: Progress) -> None:
        """See Stage."""
        progress.reports.append(self._quantizer(progress).quantize())

    def _quantizer(self, progress: Progress) -> Quantizer:
        return Quantizer(progress.model, self.weights, biases=self.biases, exclude=self.exclude)


@dataclass(frozen=True)
class FineTune(Stage):
    """Trains on; masks and quantizer hold.

    Args:
        training: how.
    """

    training: Training

    def __post_init__(self) -> None:
        instance("training", self.training, Training, "Training(2)")

    def check(self, progress: Progress) -> None:
        """See Stage."""
        self.training.check(progress)

    def run(self, progress: Progress) -> None:
        """See Stage."""
        self.training.fit(progress)


@dataclass(frozen=True)
class Encode(Stage):
    """Makes the packed file; see ``gp.compress``."""

    @property
    def achieves(self) -> Property:
        """See Stage."""
        return Property.FILE

    def check(self, progress: Progress) -> None:
        """See Stage."""
        check_packable(progress.model)

    def run(self, progress: Progress) -> None:
        """See Stage."""
        progress.packed = compress(progress.model)


# ---- the pipeline --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageReport:
    """The size and accuracy of the model after a stage.

    Attributes:
        stage: name of its class.
        parameters: how many the model has.
        kept: weights that are not removed.
        values: different values among weights that are not removed, all parameters counted apart.
        loss, accuracy: on validation data, None without (accuracy also where there is none).
        nbytes: the size in bytes of the file, once there is one.
        seconds: the stage took.
        reports: what the stage says: a ``PruneReport`` for each event, a ``ShrinkReport``, a
            ``QuantizationReport``.
    """

    stage: str
    parameters: int
    kept: int
    values: int
    loss: float | None
    accuracy: float | None
    nbytes: int | None
    seconds: float
    reports: tuple[Any, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes and warnings of its pruning reports, each text once."""
        texts: dict[str, None] = {}
        for report in self.reports:
            if isinstance(report, PruneReport):
                for text in (*report.notes, *report.warnings):
                    texts.pop(text, None)
                    texts[text] = None
        return tuple(texts)


@dataclass(frozen=True)
class PipelineResult:
    """The result of a pipeline; ``print`` shows a line for each stage.

    Attributes:
        model: after the last stage; the model that was given unless a stage made a new one.
        packed: what ``Encode`` made, or None.
        stages: a report each, before the first one included.
    """

    model: Model
    packed: PackedModel | None
    stages: tuple[StageReport, ...]

    def __str__(self) -> str:
        headings = ("stage", "parameters", "kept", "values", "loss", "accuracy", "bytes", "seconds")
        cells = [
            (
                row.stage,
                f"{row.parameters:,}",
                f"{row.kept:,}",
                f"{row.values:,}",
                "" if row.loss is None else f"{row.loss:.4f}",
                "" if row.accuracy is None else f"{100 * row.accuracy:.2f}%",
                "" if row.nbytes is None else f"{row.nbytes:,}",
                f"{row.seconds:.1f}",
            )
            for row in self.stages
        ]
        last = [row.reports[-1:] for row in self.stages]
        said = [
            f"{row.stage}: {text}"
            for row, reports in zip(self.stages, last, strict=True)
            for text in replace(row, reports=reports).warnings
        ]
        return "\n".join([*aligned([headings, *cells], words={0}), *said])


class Pipeline:
    """Stages in an order in which none undoes what an earlier one achieved.

    Args:
        stages: ``Prune``, ``Shrink``, ``QuantizeWeights``, ``FineTune``, ``Encode``, or your own.

    Raises:
        TypeError: something is not a stage.
        ValueError: there is none, or one would undo what an earlier one achieved; the message
            says which, and why.

    >>> import gradprune as gp
    >>> from gradprune.compression import Pipeline, Prune, QuantizeWeights
    >>> Pipeline([QuantizeWeights(gp.Codebook(8)), Prune(0.9)])
    Traceback (most recent call last):
    ...
    ValueError: stage 2, Prune, would undo the shared values of stage 1, QuantizeWeights: clusters \
would be emptied, their values chosen for weights that go; put Prune before QuantizeWeights
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        if not self.stages:
            raise ValueError("a pipeline needs at least one stage")
        achieved: dict[Property, tuple[int, str]] = {}
        for number, stage in enumerate(self.stages, 1):
            if not isinstance(stage, Stage):
                raise TypeError(f"stage {number} must be a stage such as Prune(0.9), got {stage!r}")
            name = type(stage).__name__
            undone = dict(stage.undoes)
            undone[Property.FILE] = "a file holds the model as it is when it is made"
            for what, reason in undone.items():
                if what in achieved:
                    before, other = achieved[what]
                    advice = f"put {name} before {other}" if name != other else "one is enough"
                    raise ValueError(
                        f"stage {number}, {name}, would undo the {what.value} of stage {before}, "
                        f"{other}: {reason}; {advice}"
                    )
            if stage.achieves is not None:
                achieved[stage.achieves] = number, name

    def run(
        self,
        model: Model,
        data: Data,
        *,
        validation_data: Data | None = None,
        seed: int = 0,
        verbose: int = 0,
    ) -> PipelineResult:
        """Run the stages on a model, which they change, and check each time that all is kept.

        Args:
            model: trained, or to be trained by the stages.
            data: (x, y) to train and score on.
            validation_data: (x, y) to measure on after each stage.
            seed: the seed of training and pruning.
            verbose: as for ``fit``.

        Raises:
            TypeError, ValueError, ImportError: an argument does not fit the model, or a stage could
                not run: nothing is changed.
            PipelineError: a stage has undone what an earlier one achieved.

        >>> import gradprune as gp
        >>> data, test = gp.datasets.digits()
        >>> model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64)
        >>> training = gp.compression.Training(10, optimizer=lambda model: gp.Adam(model, lr=3e-3))
        >>> pipeline = gp.compression.Pipeline(
        ...     [gp.compression.Prune(0.8, training=training), gp.compression.Shrink()]
        ... )
        >>> result = pipeline.run(model, data, validation_data=test)
        >>> result.stages[-1].kept
        474
        """
        told = self._check(model, data, validation_data, seed, verbose)
        model.loss = told
        progress = Progress(model, data, seed=seed, verbose=verbose)
        reports = [_look("start", progress, validation_data, 0.0)]
        kept: dict[Property, Any] = {}
        for number, stage in enumerate(self.stages, 1):
            begun, progress.reports = perf_counter(), []
            stage.run(progress)
            seconds = perf_counter() - begun
            for what, state in kept.items():
                fault = _CHECKS[what](progress.model, state)
                if fault:
                    raise PipelineError(
                        f"stage {number}, {type(stage).__name__}, has undone the "
                        f"{what.value}: {fault}"
                    )
            # What a stage achieves is what is there after the last that had a hand in it.
            for state_of in _STATES.keys() & {*kept, stage.achieves}:
                kept[state_of] = _STATES[state_of](progress.model)
            reports.append(_look(type(stage).__name__, progress, validation_data, seconds))
        return PipelineResult(progress.model, progress.packed, tuple(reports))

    def _check(
        self, model: Model, data: Data, validation_data: Data | None, seed: int, verbose: int
    ) -> LossLike | None:
        """Raise what would fail later, on a copy of the model; the loss it is trained by."""
        instance("model", model, Model, "gp.Model([gp.Dense(10)], 64)")
        pairs: dict[str, object] = {"data": data, "validation_data": validation_data}
        for name, pair in pairs.items():
            if (pair is not None or name == "data") and (
                not isinstance(pair, tuple | list) or len(pair) != 2
            ):
                raise TypeError(f"{name} must be a pair (x, y), got {type(pair).__name__}")
        copy = model.copy()
        if copy.loss is None:
            told = [loss for loss in map(_loss_of, self.stages) if loss is not None]
            copy.loss = told[0] if told else None
        first = copy.loss
        if validation_data is not None:
            copy.checked_batch(*validation_data, copy.loss_for(None), " of validation_data")
        progress = Progress(copy, data, seed=seed_number(seed), verbose=verbose)
        for number, stage in enumerate(self.stages, 1):
            try:
                stage.check(progress)
            except Exception as error:
                error.add_note(f"in stage {number} of the pipeline, {type(stage).__name__}")
                raise
            own = _loss_of(stage)
            if own is not None:
                copy.loss = own
        return first


def _loss_of(stage: Stage) -> LossLike | None:
    """What a stage trains by, if it says so."""
    training = getattr(stage, "training", None)
    return training.loss if isinstance(training, Training) else None


def _look(name: str, progress: Progress, data: Data | None, seconds: float) -> StageReport:
    model = progress.model
    metrics: Mapping[str, Any] = {} if data is None else model.evaluate(*data)
    return StageReport(
        name,
        parameters=model.arena.size,
        kept=model.arena.prunable_size - model.arena.removed,
        values=sum(_values(model).values()),
        loss=metrics.get("loss"),
        accuracy=metrics.get("accuracy"),
        nbytes=None if progress.packed is None else progress.packed.nbytes,
        seconds=seconds,
        reports=tuple(progress.reports),
    )


# ---- what is kept: its state after a stage, and what is wrong with it after a later one ----------


@locked
def _zeros(model: Model) -> dict[str, NDArray[np.bool_]]:
    return {name: mask.copy() for name, mask in model.masks.items()}


@locked
def _revived(model: Model, masks: Mapping[str, NDArray[np.bool_]]) -> str:
    for name, mask in masks.items():
        if name not in model.masks or model.masks[name].shape != mask.shape:
            continue  # a shrunk model has only units with live weights
        back = np.count_nonzero(~mask & model.masks[name])
        if back:
            return f"{back} of {name} came back"
    return ""


@locked
def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in model.parameters.items()}


def _reshaped(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> str:
    found = _shapes(model)
    return "" if found == shapes else f"{found} instead of {dict(shapes)}"


@locked
def _values(model: Model) -> dict[str, int]:
    return {
        name: np.unique(model.parameters[name][mask]).size for name, mask in model.masks.items()
    }


def _spread(model: Model, counts: Mapping[str, int]) -> str:
    for name, count in _values(model).items():
        if count > counts[name]:
            return f"{name} has {count} different values instead of {counts[name]}"
    return ""


def _grids(model: Model) -> None:
    """Grids move with training: the quantizer knows them."""


@locked
def _off_grid(model: Model, state: None) -> str:
    quantizer = model.quantizer
    if quantizer is None:
        return "the model has lost its quantizer"
    for name in quantizer.quantized:
        if not np.array_equal(quantizer.coding(name).decode(), model.parameters[name]):
            return f"{name} is off its grid"
    return ""


_STATES: dict[Property, Callable[[Model], Any]] = {
    Property.ZEROS: _zeros,
    Property.SHAPES: _shapes,
    Property.CLUSTERS: _values,
    Property.GRID: _grids,
}
_CHECKS: dict[Property, Callable[[Model, Any], str]] = {
    Property.ZEROS: _revived,
    Property.SHAPES: _reshaped,
    Property.CLUSTERS: _spread,
    Property.GRID: _off_grid,
}
