"""How much of each layer can go: sensitivity curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    drawing,
    legend_above,
    literal,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_sensitivity"]

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, "black")
_MARKERS = "os^Dv<>"


class Curves(Protocol):
    """What is drawn, such as a ``Sensitivity``."""

    @property
    def sparsities(self) -> tuple[float, ...]: ...
    @property
    def losses(self) -> Mapping[str, NDArray[np.float64]]: ...
    @property
    def accuracies(self) -> Mapping[str, NDArray[np.float64]]: ...
    @property
    def loss(self) -> float: ...
    @property
    def accuracy(self) -> float | None: ...


def plot_sensitivity(curves: Curves, *, ax: Axes | None = None) -> Axes:
    """Draw accuracy, or loss, against the sparsity of one parameter alone, a line for each.

    Args:
        curves: what ``gp.sensitivity`` gave.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> curves = gp.sensitivity(model, *test, sparsities=[0.5, 0.9])
    >>> len(plotting.plot_sensitivity(curves).get_lines()) >= 2
    True
    """
    is_accuracy = curves.accuracy is not None
    rows = curves.accuracies if is_accuracy else curves.losses
    scale = 100.0 if is_accuracy else 1.0
    level = curves.loss if curves.accuracy is None else scale * curves.accuracy
    places = [100 * sparsity for sparsity in curves.sparsities]
    with drawing(ax) as axes:
        axes.axhline(level, color=GREY, linewidth=1.0, linestyle="--", label="as it is")
        for i, (name, values) in enumerate(rows.items()):
            axes.plot(
                places,
                (scale * values).tolist(),
                color=_COLORS[i % len(_COLORS)],
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=4,
                linewidth=1.3,
                label=literal(name),
            )
        axes.set_xlabel("sparsity of one parameter alone (%)")
        axes.set_ylabel("accuracy (%)" if is_accuracy else "loss")
        legend_above(axes)
    return axes
