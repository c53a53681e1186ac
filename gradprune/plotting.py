"""Plots: what happened in training, what was removed, and why.

One function a picture, each returning it. With ``ax`` it is drawn into axes of yours. Figures are
made without pyplot, so nothing global changes and nothing has to be closed; in a notebook a figure
that is the value of a cell is shown. Needs matplotlib: ``pip install "gradprune[plot]"``.

>>> import gradprune as gp
>>> (x, y), test = gp.datasets.digits()
>>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64)
>>> optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(1.0))
>>> history = model.fit(x, y, optimizer=optimizer, epochs=3, validation_data=test, verbose=0)
>>> before = {name: model.parameters[name].copy() for name in model.masks}
>>> pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
>>> gp.plotting.plot_decomposition(pruner, data=(x, y)).savefig("parts.png")
>>> report = pruner.prune(0.9, data=(x, y))
>>> gp.plotting.plot_history(history, max_norm=1.0).savefig("history.png")
>>> gp.plotting.plot_weights(before, model).savefig("weights.png")
>>> gp.plotting.plot_sparsity(model).get_xlabel()
'weights kept (%)'
>>> gp.plotting.overview(history, before, model).savefig("overview.png")
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.history import History
from gradprune.pruning.pruner import Pruner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "overview",
    "plot_accuracy",
    "plot_decomposition",
    "plot_history",
    "plot_loss",
    "plot_norms",
    "plot_sparsity",
    "plot_weights",
]

# Okabe and Ito 2008: told apart with every kind of colour vision, and in grey.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, LIGHT = "#666666", "#DDDDDD"

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.dpi": 130,
    "font.size": 9.5,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
_DOTS = 4000  # more dots than this add bytes, not information

Floats: TypeAlias = NDArray[np.float32]
Histories: TypeAlias = History | Sequence[History]


class Pruned(Protocol):
    """What a plot needs of a model."""

    @property
    def parameters(self) -> Mapping[str, Floats]: ...
    @property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]: ...


# ---- in time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Timeline:
    """One or more histories end to end, on an axis of epochs."""

    epochs: list[dict[str, float]]
    ends: NDArray[np.float64]  # of each row of epochs
    steps: dict[str, NDArray[Any]]
    step_ends: NDArray[np.float64]
    phases: list[float]  # where each history but the first starts
    sparsity: list[tuple[float, float]]  # (from here on, sparsity)

    @property
    def end(self) -> float:
        """Where it all ends."""
        return float(max(self.ends.max(initial=0), self.step_ends.max(initial=0)))

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(positions, values) of the epochs that have it."""
        has = [name in row for row in self.epochs]
        values = [row[name] for row in self.epochs if name in row]
        return self.ends[np.array(has, np.bool_)], np.array(values, np.float64)


def _timeline(history: Histories) -> _Timeline:
    histories = [history] if isinstance(history, History) else list(history)
    if not any(h.step_count or len(h) for h in histories):
        raise ValueError("the history is empty: nothing was trained")
    rows: list[dict[str, float]] = []
    ends: list[float] = []
    step_ends: list[NDArray[np.float64]] = []
    phases: list[float] = []
    sparsity: list[tuple[float, float]] = []
    start = 0.0
    for number, h in enumerate(histories):
        if number:
            phases.append(start)
        position = np.zeros(h.step_count)
        done, at = 0, start
        lengths = [int(row.get("steps", 0)) for row in h.epochs]
        for row, length in zip(h.epochs, lengths, strict=True):
            position[done : done + length] = at + np.arange(1, length + 1) / max(length, 1)
            done, at = done + length, at + 1
            rows.append(row)
            ends.append(at)
        left = h.step_count - done  # of an epoch that was interrupted
        if left:
            whole = max([*lengths, left])
            position[done:] = at + np.arange(1, left + 1) / whole
            at = float(position[-1])
        for count, value in h.sparsity_changes:
            sparsity.append((float(position[count - 1]) if count else start, value))
        step_ends.append(position)
        start = at
    columns = [h.steps for h in histories]
    steps = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    return _Timeline(rows, np.array(ends), steps, np.concatenate(step_ends), phases, sparsity)


def plot_loss(history: Histories, *, ax: Axes | None = None) -> Axes:
    """Loss in training and validation, log scale; sparsity on the right if there is any.

    Args:
        history: what ``fit`` returned, or several of them in order.
        ax: where to draw; a new figure if None.

    Returns:
        The axes; ``.figure`` is the figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.
    """
    time = _timeline(history)
    with _drawing(ax) as axes:
        if _curves(axes, time, "loss", 1.0) > 0:
            axes.set_yscale("log")
        axes.set_ylabel("loss")
        _add_sparsity(axes, time)
        _finish(axes, time)
    return axes


def plot_accuracy(history: Histories, *, ax: Axes | None = None) -> Axes:
    """Accuracy in training and validation; sparsity on the right if there is any.

    Args:
        history: what ``fit`` returned, or several of them in order.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty or has no accuracy.
    """
    time = _timeline(history)
    if not len(time.column("accuracy")[1]):
        raise ValueError("the history has no accuracy: the loss was not a classification's")
    with _drawing(ax) as axes:
        _accuracy(axes, time, sparsity=True)
    return axes


def _accuracy(axes: Axes, time: _Timeline, *, sparsity: bool = False) -> None:
    _curves(axes, time, "accuracy", 100.0)
    axes.set_ylabel("accuracy (%)")
    if sparsity:
        _add_sparsity(axes, time)
    _finish(axes, time)


def plot_norms(
    history: Histories, *, max_norm: float | None = None, ax: Axes | None = None
) -> Axes:
    """Norm of the gradient before clipping, step by step, log scale; clipped steps are marked.

    Args:
        history: what ``fit`` returned, or several of them in order.
        max_norm: of the clipper; drawn as a line.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.
    """
    time = _timeline(history)
    norm, at = time.steps["norm"], time.step_ends
    applied, clipped = time.steps["applied"], time.steps["clipped"]
    shown = applied & np.isfinite(norm) & (norm > 0)
    with _drawing(ax) as axes:
        share = _percent(100 * float(clipped.mean()))
        for which, color, name, size in (
            (shown & ~clipped, BLUE, "steps", 2.5),
            (shown & clipped, ORANGE, f"clipped steps ({share})", 4.0),
        ):
            if which.any():
                every = -(-int(which.sum()) // _DOTS)
                axes.plot(
                    at[which][::every],
                    norm[which][::every],
                    linestyle="none",
                    marker=".",
                    markersize=size if len(at) > 500 else 2 * size,
                    alpha=0.5,
                    color=color,
                    markeredgewidth=0,
                    rasterized=True,
                    label=name,
                )
        if (centre := _running_median(at[shown], norm[shown])) is not None:
            axes.plot(*centre, color="black", linewidth=1.1, label="median")
        if max_norm is not None:
            axes.axhline(
                max_norm, color=GREY, linewidth=1.0, linestyle="--", label=f"limit {max_norm:g}"
            )
        axes.set_yscale("log")
        if not applied.all():
            axes.plot(
                at[~applied],
                np.full(int((~applied).sum()), 0.98),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker="x",
                color=PURPLE,
                label=f"left out, not finite ({int((~applied).sum())})",
            )
        axes.set_ylabel("gradient norm")
        _finish(axes, time, dots=True)
    return axes


def plot_history(
    history: Histories,
    *,
    max_norm: float | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Loss, accuracy and gradient norm, one above the other.

    Sparsity is drawn on the right-hand axis of the loss, with a tick at each pruning event.

    Args:
        history: what ``fit`` returned, or several of them in order.
        max_norm: of the clipper; drawn as a line.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure; ``figure.savefig("history.png")`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.
    """
    time = _timeline(history)
    has_accuracy = len(time.column("accuracy")[1]) > 0
    with _style(figure is None):
        whole = _new_figure(7.0, 6.6 if has_accuracy else 4.6) if figure is None else figure
        axes = whole.subplots(3 if has_accuracy else 2, 1, sharex=True)
        plot_loss(history, ax=axes[0])
        if has_accuracy:
            _accuracy(axes[1], time)
        plot_norms(history, max_norm=max_norm, ax=axes[-1])
        for ax in axes[:-1]:
            ax.set_xlabel("")
    return _root(whole)


def _curves(axes: Axes, time: _Timeline, name: str, factor: float) -> float:
    """Training and validation of each epoch; the least value is returned."""
    least = np.inf
    for column, color, label, line in (
        (name, BLUE, "training", "-"),
        (f"val_{name}", ORANGE, "validation", "--"),
    ):
        at, values = time.column(column)
        if len(values):
            axes.plot(
                at,
                values * factor,
                line,
                color=color,
                linewidth=1.5,
                marker="o" if len(values) <= 30 else None,
                markersize=3,
                label=label,
            )
            least = min(least, float(values.min()))
    return least


def _add_sparsity(axes: Axes, time: _Timeline) -> None:
    """A twin axis in green, unless nothing was ever removed."""
    if not any(value > 0 for _, value in time.sparsity):
        return
    twin = axes.twinx()
    at = [position for position, _ in time.sparsity]
    values = [100 * value for _, value in time.sparsity]
    twin.step([*at, time.end], [*values, values[-1]], where="post", color=GREEN, linewidth=1.2)
    twin.fill_between(
        [*at, time.end], [*values, values[-1]], step="post", color=GREEN, alpha=0.08, linewidth=0
    )
    events = [
        p
        for p, (_, old), (_, new) in zip(at[1:], time.sparsity, time.sparsity[1:], strict=False)
        if new != old
    ]
    twin.plot(
        events,
        np.full(len(events), 0.0),
        transform=twin.get_xaxis_transform(),
        linestyle="none",
        marker="|",
        markersize=7,
        color=GREEN,
        clip_on=False,
    )
    twin.set_ylim(0, 105)
    twin.set_ylabel("sparsity (%)", color=GREEN)
    twin.tick_params(axis="y", colors=GREEN)
    twin.grid(visible=False)
    twin.spines["right"].set_visible(True)
    twin.spines["right"].set_color(GREEN)
    # The curves in front of the filled area.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([], [], color=GREEN, linewidth=1.2, marker="|", label="sparsity, pruning events")


def _finish(axes: Axes, time: _Timeline, *, dots: bool = False) -> None:
    for start in time.phases:
        axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, time.end)
    axes.set_xlabel("epoch")
    _legend_above(axes, dots=dots)


def _legend_above(axes: Axes, *, dots: bool = False) -> None:
    """A legend in one row above the axes, where there is no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(handles),
            borderaxespad=0.1,
            handlelength=1.6,
            columnspacing=1.2,
            markerscale=2.5 if dots else 1.0,
        )


def _running_median(
    at: NDArray[np.float64], values: NDArray[np.float64], bins: int = 120
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Medians of about ``bins`` runs of equal length; None if there is too little to sum up."""
    length = len(values) // bins
    if length < 4:
        return None
    whole = len(values) // length * length
    medians = np.median(values[:whole].reshape(-1, length), axis=1)
    return at[:whole].reshape(-1, length).mean(axis=1), medians


# ---- in the network ------------------------------------------------------------------------------


def plot_weights(
    before: Mapping[str, Floats],
    after: Pruned | Mapping[str, Floats],
    *,
    bins: int = 80,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """How the weights of each layer are distributed, before and after pruning.

    Removed weights are no part of the histogram, where they would hide all else: a bar beside it
    shows the shares kept and removed.

    Args:
        before: name to weights, e.g. ``{n: model.parameters[n].copy() for n in model.masks}``.
        after: the model, or such a dict; in a dict a weight is removed if it is 0.
        bins: of each histogram.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure, a row for each layer.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no parameter is in both, or shapes differ.
    """
    layers = _weights(before, after)
    with _style(figure is None):
        whole = _new_figure(7.0, 0.6 + 1.55 * len(layers)) if figure is None else figure
        axes = whole.subplots(len(layers), 1, squeeze=False)[:, 0]
        for ax, (name, old, new, kept) in zip(axes, layers, strict=True):
            _histogram(ax, old, new, kept, bins)
            ax.set_title(name)
            ax.set_ylabel("weights")
        axes[-1].set_xlabel("value of the weight")
        _legend_above(axes[0])
    return _root(whole)


def plot_sparsity(model: Pruned, *, ax: Axes | None = None) -> Axes:
    """The share of its weights that each layer keeps, with the counts.

    Args:
        model: pruned or not.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the model has nothing to prune.
    """
    if not model.masks:
        raise ValueError("the model has no prunable parameters")
    counts = [(name, int(mask.sum()), mask.size) for name, mask in model.masks.items()]
    counts.append(("all", sum(kept for _, kept, _ in counts), sum(size for *_, size in counts)))
    with _drawing(ax, height=0.9 + 0.42 * len(counts)) as axes:
        places = np.arange(len(counts), dtype=np.float64)
        places[-1] += 0.25  # the total stands apart
        shares = [100 * kept / size for _, kept, size in counts]
        axes.barh(places, 100.0, height=0.62, color=LIGHT)
        axes.barh(places, shares, height=0.62, color=[BLUE] * (len(counts) - 1) + [GREY])
        for place, share, (_, kept, size) in zip(places, shares, counts, strict=True):
            inside = share > 55
            axes.text(
                share - 1.5 if inside else share + 1.5,
                float(place),
                f"{kept:,} of {size:,} ({_percent(share)})",
                va="center",
                ha="right" if inside else "left",
                color="white" if inside else "black",
                fontsize=8.5,
            )
        axes.set_yticks(places, [name for name, *_ in counts])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("weights kept (%)")
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return axes


def _percent(value: float) -> str:
    """Three digits: 5.00 %, 42.7 %, 100 %."""
    return f"{value:.3g} %" if value >= 99.95 else f"{value:#.3g} %"


def _weights(
    before: Mapping[str, Floats], after: Pruned | Mapping[str, Floats]
) -> list[tuple[str, Floats, Floats, NDArray[np.bool_]]]:
    """(name, before, after, kept) of each layer; biases are left out."""
    masks: Mapping[str, NDArray[np.bool_]]
    if isinstance(after, Mapping):
        values, masks = after, {name: array != 0 for name, array in after.items()}
    else:
        values, masks = after.parameters, after.masks
    layers = []
    for name, old in before.items():
        if name not in masks or np.ndim(old) < 2:
            continue
        if np.shape(old) != np.shape(values[name]):
            raise ValueError(
                f"{name} must have one shape, got {np.shape(old)} before and "
                f"{np.shape(values[name])} after"
            )
        layers.append((name, np.asarray(old), np.asarray(values[name]), masks[name]))
    if not layers:
        raise ValueError(f"no weights are in both: {list(before)} and {list(values)}")
    return layers


def _histogram(axes: Axes, old: Floats, new: Floats, kept: NDArray[np.bool_], bins: int) -> None:
    """Both distributions on common bins, and a bar of the shares on the right."""
    alive = new[kept]
    limit = float(max(np.abs(old).max(initial=0), np.abs(alive).max(initial=0))) or 1.0
    edges = np.linspace(-limit, limit, bins + 1).tolist()
    axes.hist(old[old != 0], edges, color=LIGHT, label="before")
    axes.hist(alive, edges, color=BLUE, histtype="stepfilled", alpha=0.35, edgecolor="none")
    axes.hist(alive, edges, color=BLUE, histtype="step", linewidth=1.2, label="after")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlim(-limit, limit)
    share = float(kept.mean()) if kept.size else 1.0
    bar = axes.inset_axes((1.02, 0.0, 0.05, 1.0))
    bar.bar(0, share, color=BLUE, alpha=0.6)
    bar.bar(0, 1 - share, bottom=share, color="white", edgecolor=GREY, hatch="////", linewidth=0.6)
    bar.set_axis_off()
    bar.set_ylim(0, 1)
    for height, part, word in ((share / 2, share, "kept"), ((1 + share) / 2, 1 - share, "removed")):
        bar.text(
            0.6,
            min(max(height, 0.1), 0.9),
            f"{_percent(100 * part)}\n{word}",
            va="center",
            fontsize=8.5,
        )


# ---- why -----------------------------------------------------------------------------------------


def plot_decomposition(
    pruner: Pruner,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    loss: str = "cross_entropy",
    batch_size: int = 128,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """The parts of the gradient decomposition of the live weights, in three panels.

    The distributions of signal |w m|, curvature w^2 F / 2 and importance |-w m + w^2 F / 2|;
    signal against curvature, with the line on which they are equal; the signal-to-noise ratio
    m^2 / (F - m^2), with the ratio 1 / (batches - 1) that gradients of pure noise would have.

    Args:
        pruner: of any criterion.
        data: (x, y) to measure the gradient on; None: what ``pruner.step`` observed since the
            last pruning event.
        loss: of the pass over ``data``.
        batch_size: samples a batch of it.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no data given and no gradients observed, or fewer than two batches.
    """
    batches = (
        pruner.statistics.count if data is None else -(-len(np.asarray(data[1])) // batch_size)
    )
    parts = pruner.decomposition(data=data, loss=loss, batch_size=batch_size)
    if batches < 2:
        raise ValueError(f"the decomposition needs at least 2 batches, got {batches}")
    masks = pruner.model.arena.masks

    def gather(role: str) -> Floats:
        chosen = [getattr(part, role)[masks[name]] for name, part in parts.items()]
        return np.concatenate(chosen)

    signal, curvature, importance = map(gather, ("signal", "curvature", "importance"))
    ratio = gather("snr")
    with _style(figure is None):
        whole = _new_figure(10.0, 3.3) if figure is None else figure
        left, middle, right = whole.subplots(1, 3)

        edges = _log_edges(np.concatenate([signal, curvature, importance]))
        left.hist(signal, edges, color=BLUE, alpha=0.4, label="signal |w m|")
        for values, color, name in (
            (curvature, ORANGE, "curvature w²F/2"),
            (importance, "black", "importance"),
        ):
            left.hist(values, edges, histtype="step", color=color, linewidth=1.3, label=name)
        left.set_xscale("log")
        left.set_xlabel("change of the loss")
        left.set_ylabel("weights")
        left.set_title("Parts")
        left.set_ylim(top=left.get_ylim()[1] * 1.45)  # room for the legend
        left.legend(loc="upper left", handlelength=1.4)

        both = (signal > 0) & (curvature > 0)
        cells = middle.hexbin(
            signal[both],
            curvature[both],
            xscale="log",
            yscale="log",
            gridsize=45,
            bins="log",
            cmap="cividis",
            mincnt=1,
            linewidths=0.1,
            rasterized=True,
        )
        low = max(middle.get_xlim()[0], middle.get_ylim()[0])
        high = min(middle.get_xlim()[1], middle.get_ylim()[1])
        if low < high:
            line = ([low, high], [low, high])
            middle.plot(*line, color=ORANGE, linewidth=1.1, linestyle="--", label="equal")
            middle.legend(loc="upper left", handlelength=1.8)
        middle.set_xlabel("signal |w m|")
        middle.set_ylabel("curvature w²F/2")
        middle.set_title("Signal against curvature")
        whole.colorbar(cells, ax=middle, label="weights", pad=0.02)

        right.hist(ratio, _log_edges(ratio), color=GREEN, alpha=0.75)
        zeros = float(np.mean(ratio == 0))
        right.axvline(
            1 / (batches - 1),
            color="black",
            linewidth=1.1,
            linestyle="--",
            label=f"pure noise: 1/{batches - 1}",
        )
        if zeros > 0:
            right.plot([], [], " ", label=f"0, not shown: {_percent(100 * zeros)}")
        right.set_xscale("log")
        right.set_xlabel("m² / (F - m²)")
        right.set_ylabel("weights")
        right.set_title(f"Signal to noise, {batches} batches")
        right.set_ylim(top=right.get_ylim()[1] * 1.3)  # room for the legend
        right.legend(loc="upper left", handlelength=1.8)
    return _root(whole)


def _log_edges(values: Floats, bins: int = 70) -> list[float]:
    """Edges of equal ratio over the positive, finite values; without the last thousandth below."""
    positive = values[(values > 0) & np.isfinite(values)].astype(np.float64)
    if not positive.size:
        return [0.1, 1.0, 10.0]
    low, high = float(np.quantile(positive, 0.002)), float(positive.max())
    edges: list[float] = np.geomspace(low, max(high, low * 1.01) * 1.01, bins + 1).tolist()
    return edges


# ---- everything at a glance ----------------------------------------------------------------------


def overview(
    history: Histories,
    before: Mapping[str, Floats],
    model: Pruned,
    *,
    max_norm: float | None = None,
    title: str = "",
) -> Figure:
    """Four panels: training and sparsity, gradient norm, weights, what is left of each layer.

    Args:
        history: what ``fit`` returned, or several of them in order.
        before: name to weights before pruning, as for ``plot_weights``; all layers are counted
            together.
        model: the pruned model.
        max_norm: of the clipper.
        title: above it all.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty, or no parameter is in both.
    """
    time = _timeline(history)
    layers = _weights(before, model)
    old = np.concatenate([weights.ravel() for _, weights, _, _ in layers])
    new = np.concatenate([weights.ravel() for _, _, weights, _ in layers])
    kept = np.concatenate([mask.ravel() for *_, mask in layers])
    with _style(True):
        figure = _new_figure(11.0, 7.2)
        (first, second), (third, fourth) = figure.subplots(2, 2)
        (plot_accuracy if len(time.column("accuracy")[1]) else plot_loss)(history, ax=first)
        first.set_title("Training", pad=20)
        plot_norms(history, max_norm=max_norm, ax=second)
        second.set_title("Gradient norm, before clipping", pad=20)
        _histogram(third, old, new, kept, 80)
        third.set_title("Weights of all layers", pad=20)
        third.set_xlabel("value of the weight")
        third.set_ylabel("weights")
        _legend_above(third)
        plot_sparsity(model, ax=fourth)
        fourth.set_title("Weights kept", pad=20)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return figure


# ---- figures -------------------------------------------------------------------------------------


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradprune[plot]"') from error


@contextmanager
def _style(own: bool) -> Iterator[None]:
    """Our style while drawing a figure of our own; figures of others keep theirs."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE if own else {}):
        yield


def _new_figure(width: float, height: float) -> Figure:
    """A figure that pyplot does not know of, so nobody has to close it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if "ipykernel" in sys.modules:  # makes notebooks show figures that are the value of a cell
        importlib.import_module("matplotlib_inline.backend_inline")
    layout = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.07)  # inches
    return Figure(figsize=(width, height), layout=layout)


@contextmanager
def _drawing(ax: Axes | None, height: float = 3.4) -> Iterator[Axes]:
    with _style(ax is None):
        yield _new_figure(7.0, height).add_subplot() if ax is None else ax


def _root(figure: Figure | SubFigure) -> Figure:
    """The figure that a part belongs to."""
    root = figure.get_figure(root=True)
    assert root is not None
    return root
