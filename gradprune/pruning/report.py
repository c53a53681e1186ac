"""What a pruning event did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed

__all__ = ["LayerReport", "PruneReport"]


@dataclass(frozen=True)
class LayerReport:
    """The counts of one parameter after a pruning event.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5).per_layer["dense0.weight"]
    LayerReport(kept=5, total=12, removed_now=7, grown_now=0)
    """

    kept: int
    total: int
    removed_now: int
    grown_now: int = 0

    @property
    def sparsity(self) -> float:
        """The share of its weights that is removed."""
        return (self.total - self.kept) / self.total


@dataclass(frozen=True, repr=False)
class PruneReport(Displayed):
    """The report of a pruning event; counts are of the weights the pruner covers.

    Attributes:
        requested: the sparsity asked for; for ``count``, ``fraction`` and ``threshold`` the one
            that they amount to.
        removed, kept, total: weights, those removed earlier included.
        per_layer: name of a pruned parameter, as in ``model.masks``, to its ``LayerReport``.
        skipped: name of a parameter that was left alone or not pruned as asked, to the reason.
        notes: whatever else is worth knowing, such as why achieved is not requested.
        warnings: layers about to collapse: fewer weights than outputs, no way through.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    >>> report.removed, report.kept, report.total
    (10, 10, 20)
    >>> list(report.per_layer)
    ['dense0.weight', 'dense1.weight']
    """

    requested: float
    removed: int
    kept: int
    total: int
    per_layer: Mapping[str, LayerReport]
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def achieved(self) -> float:
        """The sparsity there is now: removed / total."""
        return self.removed / self.total

    @property
    def removed_now(self) -> int:
        """The number of weights removed by this event."""
        return sum(layer.removed_now for layer in self.per_layer.values())

    @property
    def grown_now(self) -> int:
        """The number of weights that came back in this event, at 0."""
        return sum(layer.grown_now for layer in self.per_layer.values())

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        rows = [["parameter", "total", "kept", "sparsity", "removed now"]]
        for name, layer in self.per_layer.items():
            counts = f"{layer.total:,}", f"{layer.kept:,}"
            rows.append([name, *counts, f"{layer.sparsity:.2%}", f"{layer.removed_now:,}"])
        if self.grown_now:
            grown = ["grown now", *(f"{layer.grown_now:,}" for layer in self.per_layer.values())]
            rows = [[*row, cell] for row, cell in zip(rows, grown, strict=True)]
        head = f"sparsity {self.achieved:.2%} (requested {self.requested:.2%})"
        head += f", {self.kept:,} of {self.total:,} weights kept"
        lines: list[str | Table] = [head, Table(rows[0], rows[1:])]
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return lines
