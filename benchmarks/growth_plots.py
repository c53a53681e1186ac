"""Growth as pictures: log-log, lines labelled where they end, the machine's limit below them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gradprune.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    new_figure,
    save_figure,
    styled,
)

Points = list[dict[str, Any]]
Label = tuple[str, str, float]  # text, colour, where it wants to stand

LABEL_GAP = 0.052  # of the axes' height between two labels


def draw_growth(growth: dict[str, Any], out: Path) -> list[Path]:
    """One PNG a question; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    machine = growth["machine"]
    note = (
        f"{machine['cpus']} CPUs, {machine['isa']}; gradprune and torch eager at their best of 1 "
    )
    note += f"and {machine['cpus']} threads; medians"
    files = []
    for name, draw in DRAWINGS.items():
        with styled(own=True):
            figure = new_figure(7.6, 4.6)
            draw(figure.add_subplot(), growth[name])
            figure.supxlabel(note, x=0.99, ha="right", fontsize=7.5, color=GREY)
            file = out / f"growth-{name}.png"
            save_figure(figure, file)
        files.append(file)
    return files


def _update(axes: Axes, points: Points) -> None:
    lines = [
        ("torch eager", ORANGE, _series(points, "parameters", name="torch")),
        ("gradprune", BLUE, _series(points, "parameters", name="gradprune")),
    ]
    limit = ("limit: 32 bytes a\nparameter, streamed", _series(points, "parameters", name="limit"))
    axes.set_title("Clip + Adam, unpruned: time of a step")
    axes.set_xlabel("parameters")
    _draw(axes, lines, limit, _short)


def _parameters(axes: Axes, points: Points) -> None:
    axes.set_title(f"Training step, batch {points[0]['batch']}: time over the size of the net")
    axes.set_xlabel("weights")
    _draw(axes, *_four_lines(points, "parameters"), _short)


def _batch(axes: Axes, points: Points) -> None:
    axes.set_title("Training step, 784-300-100-10: time over the batch")
    axes.set_xlabel("samples a batch")
    _draw(axes, *_four_lines(points, "batch"), "{:g}".format)


def _sparsity(axes: Axes, points: Points) -> None:
    for point in points:
        point["kept"] = 1 - point["sparsity"]
    lines = [
        ("torch eager\n(masked)", ORANGE, _series(points, "kept", name="torch")),
        ("gradprune", BLUE, _series(points, "kept", name="gradprune")),
    ]
    limit = ("limit: multiply-adds\nof kept weights", _floor(points, "kept", name="gradprune"))
    axes.set_title("Training step, 784-300-100-10, batch 128: time over sparsity")
    axes.set_xlabel("weights removed")
    axes.invert_xaxis()
    _draw(axes, lines, limit, lambda kept: f"{100 * (1 - kept):.4g} %")


def _live(axes: Axes, points: Points) -> None:
    lines = [("gradprune", BLUE, _series(points, "live", name="gradprune"))]
    limit = ("limit: multiply-adds\nof live weights", _floor(points, "live", name="gradprune"))
    weights, batch = points[0]["parameters"], points[0]["batch"]
    axes.set_title(
        f"Training step, {_short(weights)} weights, batch {batch}: time over live weights"
    )
    axes.set_xlabel("live weights")
    _draw(axes, lines, limit, _short)


DRAWINGS: dict[str, Callable[[Axes, Points], None]] = {
    "update": _update,
    "parameters": _parameters,
    "batch": _batch,
    "sparsity": _sparsity,
    "live": _live,
}

Series = list[tuple[float, float]]


def _four_lines(points: Points, over: str) -> tuple[list[tuple[str, str, Series]], tuple]:
    """Torch dense and masked, gradprune dense and sparse, and the limit of the dense step."""
    sparse = max(point["sparsity"] for point in points)

    def series(name: str, sparsity: float) -> Series:
        return _series(points, over, name=name, sparsity=sparsity)

    lines = [
        ("torch eager, dense", ORANGE, series("torch", 0.0)),
        (f"torch eager, {sparse:.0%} masked", PURPLE, series("torch", sparse)),
        ("gradprune, dense", BLUE, series("gradprune", 0.0)),
        (f"gradprune, {sparse:.0%} removed", GREEN, series("gradprune", sparse)),
    ]
    return lines, (
        "limit: dense\nmultiply-adds",
        _floor(points, over, name="gradprune", sparsity=0.0),
    )


def _series(points: Points, over: str, **chosen: object) -> Series:
    """(x, microseconds) of the points with these values."""
    own = [p for p in points if all(p[key] == value for key, value in chosen.items())]
    return sorted((point[over], point["median"]) for point in own)


def _floor(points: Points, over: str, **chosen: object) -> Series:
    own = [p for p in points if all(p[key] == value for key, value in chosen.items())]
    return sorted((point[over], point["floor"]) for point in own if point["floor"])


def _draw(
    axes: Axes,
    lines: list[tuple[str, str, Series]],
    limit: tuple[str, Series],
    tick: Callable[[float], str],
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylabel("time")
    labels: list[Label] = []
    right = 0 if axes.xaxis_inverted() else -1
    for text, colour, series in lines:
        if series:
            # Masks hardly change the cost, so that line lies on another.
            dashes = (0, (2, 2)) if "% masked" in text else "-"
            axes.plot(
                *zip(*series, strict=True),
                color=colour,
                marker="o",
                markersize=3.5,
                lw=1.8,
                ls=dashes,
            )
            labels.append((text, colour, series[right][1]))
    text, series = limit
    if series:
        xs, ys = zip(*series, strict=True)
        axes.plot(xs, ys, color=GREY, lw=1.3, ls=(0, (4, 2)))
        labels.append((text, GREY, series[right][1]))
    bottom, top = axes.get_ylim()
    if series and not text.startswith("limit: dense"):  # nobody gets below it
        axes.fill_between(xs, bottom, ys, color=LIGHT, alpha=0.5, lw=0)
        axes.set_ylim(bottom, top)
    ticks = sorted({x for _, _, line in lines for x, _ in line})
    axes.xaxis.set_major_locator(FixedLocator(_spaced(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _duration(y)))
    _label(axes, labels)


def _spaced(ticks: list[float]) -> list[float]:
    """Of the measured places those that are far enough from each other to be written."""
    chosen: list[float] = []
    span = (ticks[-1] / ticks[0]) ** (1 / 12)
    for place in reversed(ticks):
        if not chosen or chosen[-1] / place >= span:
            chosen.append(place)
    return chosen


def _label(axes: Axes, labels: list[Label]) -> None:
    """Names to the right of the lines' ends, moved apart where they would overlap."""
    to_axes = axes.transScale + axes.transLimits
    wanted = sorted((to_axes.transform((1, y))[1], text, colour) for text, colour, y in labels)
    sizes = [LABEL_GAP * (1 + 0.8 * text.count("\n")) for _, text, _ in wanted]
    heights = _apart([height for height, _, _ in wanted], sizes)
    for (_, text, colour), height in zip(wanted, heights, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8.5,
            linespacing=1.05,
        )


def _apart(wanted: list[float], sizes: list[float]) -> list[float]:
    """The places nearest to the wanted ones, in order, at which nothing overlaps.

    Neighbours that collide become a pile around the mean of what its members want.
    """
    piles: list[tuple[float, list[int]]] = []  # where the middle of the pile is, and of whom
    for i, place in enumerate(wanted):
        middle, pile = place, [i]
        while piles:
            below, others = piles[-1]
            if below + _height(sizes, others) / 2 <= middle - _height(sizes, pile) / 2:
                break
            piles.pop()
            pile = others + pile
            middle = sum(wanted[j] for j in pile) / len(pile)
        piles.append((middle, pile))
    places = []
    for middle, pile in piles:
        bottom = middle - _height(sizes, pile) / 2
        for i in pile:
            places.append(bottom + sizes[i] / 2)
            bottom += sizes[i]
    return places


def _height(sizes: list[float], pile: list[int]) -> float:
    return sum(sizes[i] for i in pile)


def _duration(microseconds: float) -> str:
    for factor, unit in ((1e-6, "s"), (1e-3, "ms")):
        if microseconds * factor >= 1:
            return f"{microseconds * factor:g} {unit}"
    return f"{microseconds:g} µs"


def _short(number: float) -> str:
    for factor, unit in ((1e-6, "M"), (1e-3, "k")):
        if number * factor >= 1:
            return f"{number * factor:.3g}{unit}"
    return f"{number:g}"
