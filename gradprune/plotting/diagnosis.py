"""Where gradients grow or fade on their way back, and how large the next step is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gradprune.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    legend_above,
    literal,
    new_figure,
    root_of,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_diagnosis"]

_MOST_TICKS = 16  # names of layers that can be read beside each other


class Signals(Protocol):
    """What is drawn of a layer, such as a ``LayerDiagnosis``."""

    @property
    def name(self) -> str: ...
    @property
    def activation(self) -> float: ...
    @property
    def gradient(self) -> float: ...
    @property
    def dead(self) -> float | None: ...
    @property
    def saturated(self) -> float | None: ...
    @property
    def gradient_steps(self) -> tuple[float, ...]: ...


class Sizes(Protocol):
    """What is drawn of a parameter, such as a ``ParameterDiagnosis``."""

    @property
    def name(self) -> str: ...
    @property
    def norm(self) -> float: ...
    @property
    def spectral_norm(self) -> float | None: ...
    @property
    def gradient_norm(self) -> float: ...
    @property
    def update_ratio(self) -> float | None: ...


class Diagnosed(Protocol):
    """What is drawn, such as a ``Diagnosis``."""

    @property
    def layers(self) -> Sequence[Signals]: ...
    @property
    def parameters(self) -> Sequence[Sizes]: ...


def plot_diagnosis(diagnosis: Diagnosed, *, figure: Figure | SubFigure | None = None) -> Figure:
    """Draw what ``gp.diagnose`` found, in three panels; a fourth for recurrent layers.

    Activations (rms) and the gradient of the loss with respect to them, layer by layer, log
    scale: level lines are healthy, slopes are explosion or vanishing. Norms of each weight's
    gradient and of the next step, as parts of the weight's norm, with the usual 1/1000. Shares of
    dead and saturated units. For recurrent layers there is the gradient at each time step.

    Args:
        diagnosis: from ``gp.diagnose``.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> figure = plotting.plot_diagnosis(gp.diagnose(model, x[:100], y[:100]))
    >>> len(figure.axes)
    3
    """
    series = [row for row in diagnosis.layers if row.gradient_steps]
    with styled(figure is None):
        whole = new_figure(10.0, 6.4 if series else 3.5) if figure is None else figure
        grid = whole.subplots(*((2, 2) if series else (1, 3))).ravel()
        _layers(grid[0], diagnosis)
        _weights(grid[1], diagnosis)
        _idle(grid[2], diagnosis)
        if series:
            _time(grid[3], series)
    return root_of(whole)


def _positive(values: tuple[float, ...] | list[float]) -> np.ndarray:
    """For a log scale: NaN, which is not drawn, in place of what is not positive and finite."""
    array = np.array(values, np.float64)
    array[~(np.isfinite(array) & (array > 0))] = np.nan
    return array


def _layers(axes: Axes, diagnosis: Diagnosed) -> None:
    rows = diagnosis.layers
    places = np.arange(len(rows))
    for values, color, marker, name in (
        ([row.activation for row in rows], BLUE, "o", "activation"),
        ([row.gradient for row in rows], ORANGE, "s", "gradient"),
    ):
        shown = _positive(values)
        axes.plot(places, shown, color=color, marker=marker, markersize=3.5, label=name)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:  # noise must not look like a slope
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 10, middle * 10)
    axes.set_ylabel("of the outputs, a sample")
    axes.set_title("Signals through the layers", pad=20)
    _name_layers(axes, [row.name for row in rows])
    legend_above(axes)


def _weights(axes: Axes, diagnosis: Diagnosed) -> None:
    rows = [row for row in diagnosis.parameters if row.spectral_norm is not None and row.norm > 0]
    places = np.arange(len(rows))
    gradient = _positive([row.gradient_norm / row.norm for row in rows])
    axes.plot(
        places,
        gradient,
        color=ORANGE,
        marker="s",
        markersize=3.5,
        linestyle="none",
        label="gradient",
    )
    if any(row.update_ratio is not None for row in rows):
        step = _positive([row.update_ratio or 0.0 for row in rows])
        axes.plot(
            places, step, color=GREEN, marker="o", markersize=4, linestyle="none", label="next step"
        )
        axes.axhline(1e-3, color=GREY, linewidth=1.0, linestyle="--", label="1/1000")
    axes.set_yscale("log")
    axes.set_ylabel("part of the weights' norm")
    axes.set_title("Gradients and steps", pad=20)
    _name_layers(axes, [row.name.removesuffix(".weight") for row in rows])
    legend_above(axes)


def _idle(axes: Axes, diagnosis: Diagnosed) -> None:
    rows = diagnosis.layers
    places = np.arange(len(rows))
    for role, color in (("dead", PURPLE), ("saturated", GREEN)):
        shares = [getattr(row, role) for row in rows]
        known = [i for i, share in enumerate(shares) if share is not None]
        if known:
            heights = [100 * shares[i] for i in known]
            axes.bar(places[known], heights, color=color, label=role)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel("units (%)")
    axes.set_title("Idle units", pad=20)
    _name_layers(axes, [row.name for row in rows])
    legend_above(axes)


def _time(axes: Axes, series: Sequence[Signals]) -> None:
    for row, color in zip(series, cycle((BLUE, ORANGE, GREEN, PURPLE)), strict=False):
        steps = np.arange(1, len(row.gradient_steps) + 1)
        axes.plot(steps, _positive(row.gradient_steps), color=color, label=literal(row.name))
    axes.set_yscale("log")
    axes.set_xlabel("time step")
    axes.set_ylabel("gradient of the state")
    axes.set_title("Gradients through time", pad=20)
    legend_above(axes)


def _name_layers(axes: Axes, names: list[str]) -> None:
    every = -(-len(names) // _MOST_TICKS)
    axes.set_xticks(np.arange(len(names))[::every], list(map(literal, names[::every])), rotation=90)
