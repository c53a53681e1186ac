"""Pipelines: prune, shrink, quantize, fine-tune, encode; each stage keeps what earlier ones did.

A stage says what it achieves and which achievements of others it would undo. A pipeline refuses an
order in which something would be undone when it is made, before anything is trained, and looks
after every stage whether what was achieved is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from gradprune.compression.gpz import PackedModel
from gradprune.compression.keeping import CHECKS, STATES, values_of
from gradprune.compression.stage import (
    Data,
    PipelineError,
    Progress,
    Property,
    Stage,
)
from gradprune.foundation.checks import instance, seed_number
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.losses.base import LossLike
from gradprune.model import Model
from gradprune.pruning.report import PruneReport
from gradprune.training.settings import Training

__all__ = ["Pipeline", "PipelineResult", "StageReport"]


@dataclass(frozen=True)
class StageReport:
    """The size and accuracy of the model after a stage.

    Attributes:
        stage: name of its class.
        parameters: how many the model has.
        kept: weights that are not removed.
        values: different values among weights that are not removed, all parameters counted apart.
        loss, accuracy: on validation data; None without such data (accuracy also where the loss
            has none).
        nbytes: the size in bytes of the file, once there is one.
        seconds: the time that the stage took.
        reports: the reports of the stage: a ``PruneReport`` for each event, a ``ShrinkReport``, a
            ``QuantizationReport``.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pipeline = gp.compression.Pipeline([gp.compression.Prune(0.8)])
    >>> report = pipeline.run(model, (x, y), validation_data=test).stages[-1]
    >>> report.stage, report.parameters, report.kept, report.nbytes
    ('Prune', 1210, 237, None)
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


@dataclass(frozen=True, repr=False)
class PipelineResult(Displayed):
    """The result of a pipeline; ``print`` shows a line for each stage.

    Attributes:
        model: after the last stage; the model that was given unless a stage made a new one.
        packed: what ``Encode`` made, or None.
        stages: a report for the start, then one for each stage.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> pipeline = gp.compression.Pipeline([gp.compression.Prune(0.8)])
    >>> result = pipeline.run(model, (x, y))
    >>> [(stage.stage, stage.kept) for stage in result.stages], result.packed
    ([('start', 1184), ('Prune', 237)], None)
    """

    model: Model
    packed: PackedModel | None
    stages: tuple[StageReport, ...]

    def shown(self) -> list[str | Table]:
        """See Displayed."""
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
        return [Table(headings, cells), *said]


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
        >>> training = gp.compression.Training(10, optimizer=gp.Adam, lr=3e-3)
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
                fault = CHECKS[what](progress.model, state)
                if fault:
                    raise PipelineError(
                        f"stage {number}, {type(stage).__name__}, has undone the "
                        f"{what.value}: {fault}"
                    )
            # What a stage achieves is what is there after the last that had a hand in it.
            for state_of in STATES.keys() & {*kept, stage.achieves}:
                kept[state_of] = STATES[state_of](progress.model)
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
        values=sum(values_of(model).values()),
        loss=metrics.get("loss"),
        accuracy=metrics.get("accuracy"),
        nbytes=None if progress.packed is None else progress.packed.nbytes,
        seconds=seconds,
        reports=tuple(progress.reports),
    )
