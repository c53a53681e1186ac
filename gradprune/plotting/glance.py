"""Everything at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gradprune.plotting.history import plot_accuracy, plot_loss, plot_norms
from gradprune.plotting.style import legend_above, new_figure, styled
from gradprune.plotting.timeline import Histories, timeline
from gradprune.plotting.weights import Floats, Pruned, draw_histogram, pair_weights, plot_sparsity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overview"]


def overview(
    history: Histories,
    before: Mapping[str, Floats],
    model: Pruned,
    *,
    max_norm: float | None = None,
    title: str = "",
) -> Figure:
    """Draw four panels: training and sparsity, gradient norm, weights, what each layer keeps.

    Args:
        history: what ``fit`` returned, or several of them in order.
        before: name to weights before pruning, as for ``plot_weights``; all layers are counted
            together.
        model: the pruned model.
        max_norm: the limit of the clipper.
        title: above it all.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the history is empty, or no parameter is in both.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> before = {name: model.parameters[name].copy() for name in model.masks}
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    >>> figure = plotting.overview(history, before, model, max_norm=1.0)
    >>> len(figure.axes) >= 4
    True
    """
    time = timeline(history)
    layers = pair_weights(before, model)
    old = np.concatenate([weights.ravel() for _, weights, _, _ in layers])
    new = np.concatenate([weights.ravel() for _, _, weights, _ in layers])
    kept = np.concatenate([mask.ravel() for *_, mask in layers])
    with styled(True):
        figure = new_figure(11.0, 7.2)
        (first, second), (third, fourth) = figure.subplots(2, 2)
        (plot_accuracy if len(time.column("accuracy")[1]) else plot_loss)(history, ax=first)
        first.set_title("Training", pad=20)
        plot_norms(history, max_norm=max_norm, ax=second)
        second.set_title("Gradient norm, before clipping", pad=20)
        draw_histogram(third, old, new, kept, 80)
        third.set_title("Weights of all layers", pad=20)
        third.set_xlabel("value of the weight")
        third.set_ylabel("weights")
        legend_above(third)
        plot_sparsity(model, ax=fourth)
        fourth.set_title("Weights kept", pad=20)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return figure
