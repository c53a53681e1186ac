"""What was removed: the weights before and after, and what is left of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradprune.plotting.style import (
    BLUE,
    GREY,
    LIGHT,
    drawing,
    legend_above,
    literal,
    new_figure,
    percent,
    root_of,
    styled,
)
from gradprune.state.locking import Locked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_sparsity", "plot_weights"]

Floats: TypeAlias = NDArray[np.float32]


class Pruned(Locked, Protocol):
    """What a plot needs of a model."""

    @property
    def parameters(self) -> Mapping[str, Floats]:
        """Name to values."""

    @property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """Name of a prunable parameter to what is left of it."""


def plot_weights(
    before: Mapping[str, Floats],
    after: Pruned | Mapping[str, Floats],
    *,
    bins: int = 80,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw how the weights of each layer are distributed, before and after pruning.

    Removed weights are no part of the histogram, where they would hide all else: a bar beside it
    shows the shares kept and removed.

    Args:
        before: name to weights, e.g. ``{n: model.parameters[n].copy() for n in model.masks}``.
        after: the model, or such a dict; in a dict a weight is removed if it is 0.
        bins: the number of bins of each histogram.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure, a row for each layer.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no parameter is in both, or shapes differ.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> before = {name: model.parameters[name].copy() for name in model.masks}
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    >>> figure = plotting.plot_weights(before, model)
    >>> len(figure.axes) >= len(before)
    True
    """
    layers = pair_weights(before, after)
    with styled(figure is None):
        whole = new_figure(7.0, 0.6 + 1.55 * len(layers)) if figure is None else figure
        axes = whole.subplots(len(layers), 1, squeeze=False)[:, 0]
        for ax, (name, old, new, kept) in zip(axes, layers, strict=True):
            draw_histogram(ax, old, new, kept, bins)
            ax.set_title(literal(name))
            ax.set_ylabel("weights")
        axes[-1].set_xlabel("value of the weight")
        legend_above(axes[0])
    return root_of(whole)


def plot_sparsity(model: Pruned, *, ax: Axes | None = None) -> Axes:
    """Draw the share of its weights that each layer keeps, with the counts.

    Args:
        model: pruned or not.
        ax: where to draw; a new figure if None.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the model has nothing to prune.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    >>> plotting.plot_sparsity(model).get_xlabel()
    'weights kept (%)'
    """
    if not model.masks:
        raise ValueError("the model has no prunable parameters")
    with model.lock:
        counts = [(name, int(mask.sum()), mask.size) for name, mask in model.masks.items()]
    counts.append(("all", sum(kept for _, kept, _ in counts), sum(size for *_, size in counts)))
    with drawing(ax, height=0.9 + 0.42 * len(counts)) as axes:
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
                f"{kept:,} of {size:,} ({percent(share)})",
                va="center",
                ha="right" if inside else "left",
                color="white" if inside else "black",
                fontsize=8.5,
            )
        axes.set_yticks(places, [literal(name) for name, *_ in counts])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("weights kept (%)")
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return axes


def pair_weights(
    before: Mapping[str, Floats], after: Pruned | Mapping[str, Floats]
) -> list[tuple[str, Floats, Floats, NDArray[np.bool_]]]:
    """Return (name, before, after, kept) of each layer; biases are left out."""
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


def draw_histogram(
    axes: Axes, old: Floats, new: Floats, kept: NDArray[np.bool_], bins: int
) -> None:
    """Draw both distributions on common bins, and a bar of the shares on the right."""
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
            f"{percent(100 * part)}\n{word}",
            va="center",
            fontsize=8.5,
        )
