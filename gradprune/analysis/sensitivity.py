"""Sensitivity: how much of each layer can go before the model notices.

One parameter at a time is pruned on a replica and measured, so the model is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.network import Network
from gradprune.engine.replicas import replicate
from gradprune.foundation import checks
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.losses.base import LossLike
from gradprune.losses.table import lists_losses
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.criteria.order import Magnitude
from gradprune.pruning.pruner import Pruner
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Sensitivity", "sensitivity"]

_SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_MAGNITUDE = Magnitude()


@dataclass(frozen=True, repr=False, eq=False)
class Sensitivity(Displayed):
    """Accuracy and loss when one parameter alone is pruned; ``print`` shows a table.

    Attributes:
        sparsities: (s,) the sparsities that were tried, ascending.
        losses: name of a prunable parameter to (s,) mean losses.
        accuracies: likewise; empty unless it is a classification.
        loss, accuracy: those of the unpruned model; accuracy is None unless it is a
            classification.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> curves = gp.sensitivity(model, *test, sparsities=[0.5, 0.9])
    >>> curves.sparsities, list(curves.losses)
    ((0.5, 0.9), ['dense0.weight', 'dense1.weight'])
    >>> curves.accuracies["dense0.weight"].shape
    (2,)
    """

    sparsities: tuple[float, ...]
    losses: Mapping[str, NDArray[np.float64]]
    accuracies: Mapping[str, NDArray[np.float64]]
    loss: float
    accuracy: float | None

    def suggest(
        self, *, max_drop: SupportsFloat | None = None, max_rise: SupportsFloat | None = None
    ) -> dict[str, float]:
        """Return for each parameter the highest sparsity up to which all tried are good enough.

        Effects add up, so the model that takes all suggestions loses more than each alone does.

        Args:
            max_drop: the largest drop of accuracy, in [0, 1]; give this or
            max_rise: the largest rise of the loss, in relation to the loss there is.

        Returns:
            Parameter name to sparsity, 0.0 where the lowest that was tried is too much.

        Raises:
            ValueError: not exactly one of the two, or no accuracy was measured.
        """
        if (max_drop is None) == (max_rise is None):
            raise ValueError("give exactly one of max_drop and max_rise")
        if max_rise is not None:
            limit = self.loss * (1 + checks.not_negative("max_rise", max_rise))
            good = {name: values <= limit for name, values in self.losses.items()}
        else:
            assert max_drop is not None
            if self.accuracy is None:
                raise ValueError("no accuracy was measured: give max_rise, of the loss")
            # A little less, so that a drop of exactly so much passes in spite of rounding.
            least = self.accuracy - checks.fraction("max_drop", max_drop) - 1e-9
            good = {name: values >= least for name, values in self.accuracies.items()}
        suggested = {}
        for name, fine in good.items():
            count = int(fine.argmin()) if not fine.all() else fine.size
            suggested[name] = self.sparsities[count - 1] if count else 0.0
        return suggested

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """See ``gp.plotting.plot_sensitivity``."""
        from gradprune.plotting.sensitivity import plot_sensitivity

        return plot_sensitivity(self, ax=ax)

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        what, values = "accuracy", self.accuracies
        text = "" if self.accuracy is None else f"accuracy {self.accuracy:.2%}, "
        if self.accuracy is None:
            what, values = "loss", self.losses
        columns = [what, *(f"{sparsity:.4g}" for sparsity in self.sparsities)]
        rows = []
        for name, row in values.items():
            cells = (f"{v:.2%}" if what == "accuracy" else f"{v:.4g}" for v in row.tolist())
            rows.append([name, *cells])
        head = f"{text}loss {self.loss:.4g} as it is; at a sparsity of one parameter alone:"
        return [head, Table(columns, rows)]


@lists_losses
def sensitivity(
    model: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    sparsities: Sequence[SupportsFloat] = _SPARSITIES,
    criterion: Criterion = _MAGNITUDE,
    loss: LossLike | None = None,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    batch_size: int = 128,
    exclude: str | Sequence[str] = (),
    seed: int = 0,
) -> Sensitivity:
    """Prune each parameter by itself to some sparsities and measure: curves for budgets by layer.

    Everything happens on a replica; not a bit of the model changes. Weights that are already
    removed stay removed, so a sparsity below the present one changes nothing. The cost is one
    evaluation for each parameter and sparsity, besides what the criterion costs.

    Args:
        model: the network to examine.
        x: samples to measure on, which were not trained on.
        y: their targets.
        sparsities: the sparsities of the pruned parameter, each in [0, 1].
        criterion: decides which weights are removed first.
        loss: {losses}; None: ``model.loss``.
        data: (x, y) for criteria that need gradients or try weights out; None: x and y.
        batch_size: samples per batch of ``data``.
        exclude: names of layers or parameters not to examine.
        seed: the seed of the criterion's random numbers.

    Returns:
        Losses, accuracies and suggestions; ``print`` shows a table.

    Raises:
        TypeError, ValueError: an argument is not as above.
        NonFiniteError: as for ``Pruner.prune``.

    Source: per-layer sensitivity of Han et al. 2015, Li et al. 2017.

    >>> import gradprune as gp
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model, lr=0.01), epochs=5, verbose=0)
    >>> curves = gp.sensitivity(model, *test, sparsities=(0.5, 0.9))
    >>> str(curves).splitlines()[1].split()
    ['accuracy', '0.5', '0.9']
    >>> budgets = curves.suggest(max_drop=0.02)
    >>> list(budgets)
    ['dense0.weight', 'dense1.weight']
    """
    chosen = model.loss_for(loss)
    levels = sorted({checks.fraction("sparsities", sparsity) for sparsity in sparsities})
    if not levels:
        raise ValueError("sparsities must not be empty")
    scored = (x, y) if data is None else data
    value, accuracy = _measure(model, x, y, chosen)

    names = list(model.masks)
    Pruner(_copy(model), criterion=criterion, exclude=exclude)  # says what is wrong with exclude
    left_out = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    examined = [n for n in names if n not in left_out and n.partition(".")[0] not in left_out]
    losses: dict[str, Any] = {}
    accuracies: dict[str, Any] = {}
    for name in examined:
        rows = []
        for level in levels:
            replica = _copy(model)
            others = [other for other in names if other != name]
            pruner = Pruner(replica, criterion=criterion, exclude=others, seed=seed)
            pruner.prune(level, data=scored, loss=chosen, batch_size=batch_size)
            rows.append(_measure(replica, x, y, chosen))
        losses[name] = np.array([row[0] for row in rows])
        if accuracy is not None:
            accuracies[name] = np.array([row[1] for row in rows], np.float64)
    return Sensitivity(tuple(levels), losses, accuracies, value, accuracy)


@locked
def _copy(model: Network) -> Any:
    """A replica with the model's masks, which takes a pruner."""
    replica = replicate(model)
    replica.set_masks(model.masks)
    return replica


def _measure(model: Network, x: ArrayLike, y: ArrayLike, loss: Any) -> tuple[float, float | None]:
    value, accuracy, _ = model.loss_and_outputs(x, y, loss)
    return value, accuracy if loss.has_accuracy else None
