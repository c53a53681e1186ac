"""The stages of a pipeline: prune, shrink, quantize, fine-tune and encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from gradprune.analysis.verification import VerificationError, verify
from gradprune.compression.compressing import compress
from gradprune.compression.gpz import check_packable
from gradprune.compression.stage import PipelineError, Progress, Property, Stage
from gradprune.foundation.checks import as_array, fraction, instance, settle, whole
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.pruner import Pruner
from gradprune.pruning.schedules import Cubic
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.quantizer import Quantizer
from gradprune.quantization.schemes import Scheme
from gradprune.training.settings import Training

__all__ = ["Encode", "FineTune", "Prune", "QuantizeWeights", "Shrink"]

_COMPARED = 256  # samples on which a smaller model has to predict the same
_ROUNDING = 1e-3  # relative; normalization by a small variance makes more of the last bits
_EVENTS = 50  # of a schedule that is not told how many


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

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> from gradprune.compression import Pipeline, Prune
    >>> Pipeline([Prune(0.75, scope="layer")]).run(model, (x, y)).model.sparsity
    0.75
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
            progress.check_training(self.training, pruner)
        else:  # the criterion may look at the data
            x, y = progress.data
            progress.model.checked_batch(x, y, progress.model.loss_for(None))

    def run(self, progress: Progress) -> None:
        """See Stage."""
        pruner = self._pruner(progress)
        if self._trains:
            assert self.training is not None
            progress.train(self.training, pruner)
        else:
            progress.reports.append(pruner.prune(self.sparsity, data=progress.data))

    @property
    def _trains(self) -> bool:
        return self.training is not None and self.training.epochs > 0

    def _pruner(self, progress: Progress) -> Pruner:
        schedule = None
        if self.training is not None and self.training.epochs:
            samples = len(as_array("x", progress.data[0]))
            steps = self.training.steps(progress.model, samples)
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

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> from gradprune.compression import Pipeline, Prune, Shrink
    >>> result = Pipeline([Prune(0.5, granularity=gp.Unit()), Shrink()]).run(model, (x, y))
    >>> result.model.parameters["dense0.weight"].shape
    (7, 64)
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

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> from gradprune.compression import Pipeline, QuantizeWeights
    >>> result = Pipeline([QuantizeWeights(gp.Codebook(8))]).run(model, (x, y))
    >>> result.stages[-1].values  # 8 in each of two layers
    16
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
    """Trains the model further; masks and quantizer hold.

    Args:
        training: the settings of training, a ``Training``.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> from gradprune.compression import FineTune, Pipeline, Prune, Training
    >>> training = Training(2, optimizer=gp.Adam, lr=3e-3)
    >>> result = Pipeline([Prune(0.5), FineTune(training)]).run(model, (x, y))
    >>> result.model.sparsity
    0.5
    """

    training: Training

    def __post_init__(self) -> None:
        instance("training", self.training, Training, "Training(2)")

    def check(self, progress: Progress) -> None:
        """See Stage."""
        progress.check_training(self.training)

    def run(self, progress: Progress) -> None:
        """See Stage."""
        progress.train(self.training)


@dataclass(frozen=True)
class Encode(Stage):
    """Makes the packed file; see ``gp.compress``.

    >>> import constriction
    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> from gradprune.compression import Encode, Pipeline, Prune
    >>> result = Pipeline([Prune(0.9), Encode()]).run(model, (x, y))
    >>> result.packed.nbytes == result.stages[-1].nbytes
    True
    """

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
