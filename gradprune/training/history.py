"""What happened in a run of training: one row an epoch, a few numbers a step.

Steps are appended to plain typed arrays, which costs a microsecond or two each; everything
else is derived from them when somebody asks.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.optim.optimizers import Taken
from gradprune.pruning.report import PruneReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["Event", "History"]

_TYPES = {  # those of Taken, and samples
    "loss": "d",
    "norm": "d",
    "scale": "d",
    "clipped": "B",
    "applied": "B",
    "lr": "d",
    "norm_after": "d",
    "samples": "q",
    "correct": "d",
    "weight": "d",
}
_FLAGS = {"clipped", "applied"}
_SHOWN = 12  # rows of a table; more are cut in the middle


class Event(NamedTuple):
    """Something that happened at one step: see ``History.events``.

    >>> import gradprune as gp
    >>> Event(step=7, kind="spike", norm=12.0, ratio=30.0)
    Event(step=7, kind='spike', norm=12.0, ratio=30.0)
    """

    step: int  # of this run, the first is 0
    kind: str  # "explosion", "prune jump", "zeroed" or "rollback"
    norm: float  # of the gradient before clipping; NaN if the step was left out before it was known
    ratio: float = math.nan  # norm over the median before it


class History(Displayed):
    """The numbers of one ``fit``; ``print`` shows a table.

    Attributes:
        epochs: one dict for each complete epoch, with

            - epoch: how many the model has been trained for; steps: of this epoch;
            - loss: mean over the samples, of the steps that were taken; accuracy: likewise, if
              the loss has one; both by the weights of samples, if they have some;
            - norm_mean, norm_max: of the gradient's norm before clipping; clip_rate: share of the
              steps that were clipped; skipped: steps left out by the guard;
            - lr: of the last step; sparsity: at the end; seconds: of the pass, validation excluded;
            - val_loss, val_accuracy: if there was validation data;
            - own metrics, passed to ``fit``: name, and val_name if there was validation data.
        interrupted: whether Ctrl-C ended the run.
        sparsity_changes: (number of steps before it, sparsity from then on), the start included.
        prune_reports: (number of steps before it, report) of each event of the pruner.
        events: in order: what the guard ``Zero`` or ``Rollback`` did and what ``ExplosionMonitor``
            saw, an ``Event`` each.

    ``history["loss"]`` is a column, ``history.history`` all of them, as in Keras.

    >>> history = History()
    >>> history.add_epoch({"epoch": 1, "loss": 0.25})
    >>> history["loss"], len(history)
    ([0.25], 1)
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.interrupted = False
        self.sparsity_changes: list[tuple[int, float]] = []
        self.events: list[Event] = []
        self.prune_reports: list[tuple[int, PruneReport]] = []
        self._steps: dict[str, array[Any]] = {n: array(code) for n, code in _TYPES.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Complete steps, whatever another thread adds meanwhile."""
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, list)}
        count = min(map(len, self._steps.values()))
        steps = {name: column[:count] for name, column in self._steps.items()}
        return {**vars(self), **lists, "_steps": steps}

    # ---- writing -------------------------------------------------------------------------------

    def add_steps(self, taken: Taken, samples: Sequence[int]) -> None:
        """Record steps, and how many samples each one had."""
        for name, numbers in taken._asdict().items():
            self._steps[name].extend(numbers)
        self._steps["samples"].extend(samples)

    def add_sparsity(self, sparsity: float) -> None:
        """Record that the sparsity is this from here on."""
        self.sparsity_changes.append((self.step_count, sparsity))

    def add_report(self, report: PruneReport) -> None:
        """Record what the pruner did after the last step."""
        self.prune_reports.append((self.step_count, report))

    def add_event(self, kind: str, norm: float, ratio: float = math.nan) -> Event:
        """Record what happened at the last step."""
        event = Event(self.step_count - 1, kind, norm, ratio)
        self.events.append(event)
        return event

    def add_epoch(self, row: dict[str, float]) -> None:
        """Record a complete epoch."""
        self.epochs.append(row)

    # ---- reading -------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """The number of steps recorded, those left out by a guard included."""
        return len(self._steps["loss"])

    @property
    def steps(self) -> dict[str, NDArray[Any]]:
        """The numbers of the steps by name, (step_count,) each: copies of what is recorded.

        loss, norm (before clipping), norm_after, scale (of clipping), lr, sparsity (after the
        step) are float64; clipped, applied bool; samples int64. correct is the weight of what is
        right and weight that of all samples, float64; without weights, their numbers.
        """
        columns = {name: self._column(name, 0) for name in _TYPES}
        sparsity = np.zeros(self.step_count)
        for start, value in self.sparsity_changes:
            # A change after n steps shows in the step that made it, which is number n - 1.
            sparsity[max(start - 1, 0) :] = value
        return {**columns, "sparsity": sparsity}

    def _column(self, name: str, start: int) -> NDArray[Any]:
        # The slice is a copy: a view of the array itself would forbid it to grow.
        values = np.frombuffer(self._steps[name][start:], _TYPES[name])
        return values.view(np.bool_) if name in _FLAGS else values

    def totals(self, start: int) -> dict[str, float]:
        """Return means and counts of the steps from number ``start`` on, as in ``epochs``.

        loss and accuracy are means by weight, and with the norms are of applied steps alone;
        NaN if there are none.
        """
        applied = self._column("applied", start)
        weight = self._column("weight", start)[applied]
        norms = self._column("norm", start)[applied]
        total = float(weight.sum())
        if total == 0:
            means = dict.fromkeys(("loss", "accuracy", "norm_mean", "norm_max"), math.nan)
        else:
            means = {
                "loss": float((self._column("loss", start)[applied] * weight).sum()) / total,
                "accuracy": float(self._column("correct", start)[applied].sum()) / total,
                "norm_mean": float(norms.mean()),
                "norm_max": float(norms.max()),
            }
        clipped = self._column("clipped", start)
        return {
            "steps": len(applied),
            **means,
            "clip_rate": float(clipped.mean()) if len(clipped) else 0.0,
            "skipped": int(len(applied) - applied.sum()),
            "lr": self._steps["lr"][-1] if len(applied) else math.nan,
        }

    @property
    def history(self) -> dict[str, list[float]]:
        """The numbers of the epochs by name, one for each epoch."""
        return {name: self[name] for name in (self.epochs[0] if self.epochs else ())}

    def __getitem__(self, name: str) -> list[float]:
        try:
            return [row[name] for row in self.epochs]
        except KeyError:
            known = list(self.epochs[0])
            raise KeyError(f"no column {name!r}; there are {known}") from None

    def __len__(self) -> int:
        return len(self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists and numbers, for JSON.

        >>> sorted(History().to_dict())
        ['epochs', 'events', 'interrupted', 'sparsity_changes', 'steps']
        """
        return {
            "epochs": [dict(row) for row in self.epochs],
            "steps": {name: values.tolist() for name, values in self.steps.items()},
            "sparsity_changes": [list(change) for change in self.sparsity_changes],
            "events": [event._asdict() for event in self.events],
            "interrupted": self.interrupted,
        }

    def __repr__(self) -> str:
        state = ", interrupted" if self.interrupted else ""
        return f"<History: {len(self)} epochs, {self.step_count} steps{state}>"

    def shown(self) -> list[str | Table]:
        """See Displayed; of many epochs, the first and the last."""
        if not self.epochs:
            return [repr(self)]
        names = list(self.epochs[0])
        rows = [[_cell(row, name) for name in names] for row in self.epochs]
        if len(rows) > _SHOWN:
            half = _SHOWN // 2
            rows = [*rows[:half], ["..."] + [""] * (len(names) - 1), *rows[-half:]]
        return [Table(names, rows, words=()), repr(self)]

    def plot(
        self, *, max_norm: float | None = None, figure: Figure | SubFigure | None = None
    ) -> Figure:
        """Draw loss, accuracy and gradient norm; see ``gp.plotting.plot_history``."""
        from gradprune.plotting.history import plot_history

        return plot_history(self, max_norm=max_norm, figure=figure)


def _cell(row: Mapping[str, float], name: str) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
