"""Trade-off curves: what accuracy is left at which size, with the spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.plotting.style import BLUE, GREEN, GREY, ORANGE, PURPLE, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_tradeoff"]

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#882255", "#44AA99")
_LABELS = {
    "kept": "weights kept (%)",
    "weights": "weights kept",
    "parameters": "parameters kept",
    "macs": "multiply-accumulates a sample",
    "nbytes": "bytes of the frozen model",
    "accuracy": "accuracy (%)",
    "pruned_accuracy": "accuracy before training on (%)",
}
_ACCURACIES = ("accuracy", "pruned_accuracy")
_TICKS = (0, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_PERFECT = 1 - 1e-4  # the log of an error of 0 has no place

Floats = NDArray[np.float64]


class Results(Protocol):
    """What is needed of a sweep's result."""

    factors: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: list[dict[str, Any]]


def plot_tradeoff(
    result: Results,
    *,
    x: str = "kept",
    y: str = "accuracy",
    by: str = "criterion",
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean of a metric over the seeds, with a band of a standard deviation.

    The smaller x, the further to the right, on a logarithmic axis. An accuracy is drawn on an axis
    on which its error is logarithmic: 90, 99 and 99.9 % are equally far apart. Where the result has
    the "change" against a dense model, that model is a dotted line.

    Args:
        result: of ``gp.sweep``. Beside ``by`` and "seed" one factor at most may have several
            levels, that which makes the points of a line; choose by ``result.where(...)``.
        x: a metric, positive: "kept", "macs", "nbytes", ...
        y: a metric.
        by: the factor of the lines.
        ax: axes to draw into; None: new ones.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        KeyError: there is no such factor or metric.
        ValueError: a line would have several values at a point, or there is nothing to draw.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> def trial(sparsity, criterion, seed):
    ...     return {"kept": 1 - sparsity, "accuracy": 0.98 - 0.1 * sparsity - 0.01 * seed}
    >>> result = gp.sweep(
    ...     trial, {"sparsity": [0.5, 0.9], "criterion": ["magnitude"], "seed": [0, 1]}, verbose=0
    ... )
    >>> plotting.plot_tradeoff(result).get_xscale()
    'log'
    """
    lines = _lines(result, x, y, by)
    is_accuracy = y in _ACCURACIES
    with drawing(ax, 4.0) as axes:
        colours = cycle(_COLOURS)
        ends = []
        for name, (at, mean, deviation) in lines.items():
            colour, style = _look(name) or (next(colours), "-")
            factor = 100 if x == "kept" else 1
            axes.plot(factor * at, mean, style, color=colour, marker="o", markersize=3.5, lw=1.5)
            low, high = mean - deviation, mean + deviation
            if is_accuracy:
                low, high = low.clip(0, _PERFECT), high.clip(0, _PERFECT)
            axes.fill_between(factor * at, low, high, color=colour, alpha=0.15, lw=0)
            ends.append((float(mean[0]), name, colour))
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xlabel(_LABELS.get(x, x))
        axes.set_ylabel(_LABELS.get(y, y))
        _name_ticks(axes, [factor * at for at, _, _ in lines.values()], x)
        dense = _dense(result) if y == "accuracy" else None
        if dense is not None:
            axes.axhline(dense, color=GREY, lw=1, ls=":")
            ends.append((dense, "dense", GREY))
        if is_accuracy:
            shown = [mean for _, mean, _ in lines.values()]
            _scale_by_error(axes, np.append(np.concatenate(shown), dense or shown[0][:1]))
        _label(axes, ends)
    return axes


def _lines(result: Results, x: str, y: str, by: str) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Level of ``by`` to x, mean and deviation of its points, by rising x."""
    if by not in result.factors:
        raise KeyError(f"{by!r} is no factor; factors are {', '.join(result.factors)}")
    for name in (x, y):
        if name not in result.metrics:
            raise KeyError(f"{name!r} is no metric; metrics are {', '.join(result.metrics)}")
    rows = [row for row in result.rows if _is_number(row[x]) and _is_number(row[y])]
    if not rows:
        raise ValueError(f"no trial has both {x} and {y}")
    others = [name for name in result.factors if name not in {by, "seed"}]
    several = [name for name in others if len({row[name] for row in rows}) > 1]
    if len(several) > 1:
        raise ValueError(
            f"{' and '.join(several)} both have several levels; choose, "
            f"such as result.where({several[0]}={rows[0][several[0]]!r})"
        )
    groups: dict[str, dict[object, list[tuple[float, float]]]] = {}
    for row in rows:
        point = row[several[0]] if several else None
        groups.setdefault(str(row[by]), {}).setdefault(point, []).append((row[x], row[y]))
    return {name: _points(group) for name, group in groups.items()}


def _points(
    group: Mapping[object, Sequence[tuple[float, float]]],
) -> tuple[Floats, Floats, Floats]:
    points = []
    for pairs in group.values():
        places, values = np.array(pairs, np.float64).T
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        points.append((places.mean(), values.mean(), spread))
    at, mean, deviation = np.array(sorted(points), np.float64).T
    return at, mean, deviation


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _look(name: str) -> tuple[str, str] | None:
    """The style of the baselines, which look the same in every plot."""
    word = name.partition("(")[0].lower()
    return {"magnitude": ("black", "-"), "random": (GREY, "--")}.get(word)


def _dense(result: Results) -> float | None:
    """Mean accuracy of the dense models, of which each is counted once a seed."""
    if "change" not in result.metrics:
        return None
    found: dict[object, float] = {
        row.get("seed"): row["accuracy"] - row["change"]
        for row in result.rows
        if _is_number(row["accuracy"]) and _is_number(row["change"])
    }
    return sum(found.values()) / len(found)


def _name_ticks(axes: Axes, at: Sequence[Floats], x: str) -> None:
    """Ticks where the points are, if they are the same for all lines; else at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    if x == "kept" and all(len(a) == len(at[0]) and np.allclose(a, at[0], rtol=0.05) for a in at):
        axes.xaxis.set_major_locator(FixedLocator(at[0].tolist()))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    percent = FuncFormatter(lambda value, _: f"{value:.3g}")
    axes.xaxis.set_major_formatter(percent if x == "kept" else EngFormatter(sep=""))


def _scale_by_error(axes: Axes, values: Floats) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    def forward(accuracy: Floats) -> Floats:
        return -np.log10(1 - np.clip(accuracy, -9, _PERFECT))

    def backward(scaled: Floats) -> Floats:
        return 1 - 10.0**-scaled

    axes.set_yscale("function", functions=(forward, backward))
    low, high = forward(np.array([values.min(), values.max()]))
    room = 0.08 * max(high - low, 0.05)
    axes.set_ylim(*backward(np.array([low - room, high + room])))
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names beside the ends of the lines, moved apart where they would overlap."""
    height = axes.get_window_extent().height / axes.figure.dpi  # inches
    gap = 0.14 / height
    places: list[float] = []
    ordered = sorted(ends)
    for value, _, _ in ordered:
        place = float(axes.transAxes.inverted().transform(axes.transData.transform((1, value)))[1])
        places.append(max(place, places[-1] + gap) if places else place)
    for i in reversed(range(len(places))):  # no higher than the axes, and apart from the one above
        places[i] = min(places[i], 1.0 if i + 1 == len(places) else places[i + 1] - gap)
    for place, (_, name, colour) in zip(places, ordered, strict=True):
        axes.annotate(
            name,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )
