"""What happened in training, epoch by epoch and step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    new_figure,
    percent,
    root_of,
    styled,
)
from gradprune.plotting.timeline import Histories, Timeline, timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_accuracy", "plot_history", "plot_loss", "plot_norms"]

_DOTS = 4000  # more dots than this add bytes, not information
_MARKS = {  # kind of event to marker and colour
    "explosion": ("v", ORANGE),
    "prune jump": ("v", GREEN),
    "zeroed": ("o", GREY),
    "rollback": ("<", PURPLE),
}


def plot_loss(history: Histories, *, ax: Axes | None = None) -> Axes:
    """Draw the loss in training and validation, log scale, and the sparsity on the right.

    Args:
        history: what ``fit`` returned, or several of them in order.
        ax: where to draw; a new figure if None.

    Returns:
        The axes; ``.figure`` is the figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> plotting.plot_loss(history).get_yscale()
    'log'
    """
    time = timeline(history)
    with drawing(ax) as axes:
        if _curves(axes, time, "loss", 1.0) > 0:
            axes.set_yscale("log")
        axes.set_ylabel("loss")
        _add_sparsity(axes, time)
        _finish(axes, time)
    return axes


def plot_accuracy(history: Histories, *, ax: Axes | None = None) -> Axes:
    """Draw the accuracy in training and validation, and the sparsity on the right.

    Args:
        history: what ``fit`` returned, or several of them in order.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty or has no accuracy.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> plotting.plot_accuracy(history).get_xlabel()
    'epoch'
    """
    time = timeline(history)
    if not len(time.column("accuracy")[1]):
        raise ValueError("the history has no accuracy: the loss has none")
    with drawing(ax) as axes:
        _accuracy(axes, time, sparsity=True)
    return axes


def plot_norms(
    history: Histories, *, max_norm: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the norm of the gradient before clipping, step by step, log scale.

    Clipped steps, steps that the guard left out and the history's events are marked.

    Args:
        history: what ``fit`` returned, or several of them in order.
        max_norm: the limit of the clipper; drawn as a line.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> plotting.plot_norms(history, max_norm=1.0).get_yscale()
    'log'
    """
    time = timeline(history)
    norm, at = time.steps["norm"], time.step_ends
    applied, clipped = time.steps["applied"], time.steps["clipped"]
    shown = applied & np.isfinite(norm) & (norm > 0)
    with drawing(ax) as axes:
        share = percent(100 * float(clipped.mean()))
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
                label=f"left out ({int((~applied).sum())})",
            )
        _add_events(axes, time)
        axes.set_ylabel("gradient norm")
        _finish(axes, time)
    return axes


def plot_history(
    history: Histories,
    *,
    max_norm: float | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw loss, accuracy and gradient norm, one above the other.

    Sparsity is drawn on the right-hand axis of the loss, with a tick at each pruning event.

    Args:
        history: what ``fit`` returned, or several of them in order.
        max_norm: the limit of the clipper; drawn as a line.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure; ``figure.savefig("history.png")`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> figure = plotting.plot_history(history, max_norm=1.0)
    >>> len(figure.axes) >= 3
    True
    """
    time = timeline(history)
    has_accuracy = len(time.column("accuracy")[1]) > 0
    with styled(figure is None):
        whole = new_figure(7.0, 6.6 if has_accuracy else 4.6) if figure is None else figure
        axes = whole.subplots(3 if has_accuracy else 2, 1, sharex=True)
        plot_loss(history, ax=axes[0])
        if has_accuracy:
            _accuracy(axes[1], time)
        plot_norms(history, max_norm=max_norm, ax=axes[-1])
        for ax in axes[:-1]:
            ax.set_xlabel("")
    return root_of(whole)


def _accuracy(axes: Axes, time: Timeline, *, sparsity: bool = False) -> None:
    _curves(axes, time, "accuracy", 100.0)
    axes.set_ylabel("accuracy (%)")
    if sparsity:
        _add_sparsity(axes, time)
    _finish(axes, time)


def _curves(axes: Axes, time: Timeline, name: str, factor: float) -> float:
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


def _add_sparsity(axes: Axes, time: Timeline) -> None:
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


def _add_events(axes: Axes, time: Timeline) -> None:
    """A row of marks above the norms, one for each event."""
    for kind, (marker, color) in _MARKS.items():
        at = [position for position, other in time.events if other == kind]
        if at:
            axes.plot(
                at,
                np.full(len(at), 0.93),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker=marker,
                markersize=5,
                color=color,
                label=f"{kind} ({len(at)})",
            )


def _finish(axes: Axes, time: Timeline) -> None:
    for start in time.phases:
        axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, time.end)
    axes.set_xlabel("epoch")
    legend_above(axes)


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
