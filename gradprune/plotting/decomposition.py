"""Why weights are removed: the parts of the gradient decomposition."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import as_array
from gradprune.plotting.style import BLUE, GREEN, ORANGE, new_figure, percent, root_of, styled
from gradprune.pruning.pruner import Pruner
from gradprune.state.batching import cuts

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_decomposition"]

Floats: TypeAlias = NDArray[np.float32]


def plot_decomposition(
    pruner: Pruner,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    loss: str | None = None,
    batch_size: int = 128,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw the parts of the gradient decomposition of the live weights, in three panels.

    The distributions of signal |w m|, curvature w^2 F / 2 and importance |-w m + w^2 F / 2|;
    signal against curvature, with the line on which they are equal; the signal-to-noise ratio
    m^2 / (F - m^2), with the ratio 1 / (batches - 1) that gradients of pure noise would have.

    Args:
        pruner: a pruner with any criterion.
        data: (x, y) to measure the gradient on; None: what ``pruner.step`` observed since the
            last pruning event.
        loss: the loss of the pass over ``data``.
        batch_size: samples a batch of it.
        figure: an empty figure to draw into; a new one if None.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no data given and no gradients observed, or fewer than two batches.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import gradprune as gp
    >>> from gradprune import plotting
    >>> (x, y), test = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    >>> pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
    >>> figure = plotting.plot_decomposition(pruner, data=(x, y))
    >>> len(figure.axes)
    4
    """
    batches = (
        pruner.statistics.count
        if data is None
        else len(cuts(len(as_array("y", data[1])), batch_size, pruner.model.smallest_batch))
    )
    with pruner.lock:
        parts = pruner.decomposition(data=data, loss=loss, batch_size=batch_size)
        masks = {name: mask.copy() for name, mask in pruner.model.arena.masks.items()}
    if batches < 2:
        raise ValueError(f"the decomposition needs at least 2 batches, got {batches}")

    def gather(role: str) -> Floats:
        chosen = [getattr(part, role)[masks[name]] for name, part in parts.items()]
        return np.concatenate(chosen)

    signal, curvature, importance = map(gather, ("signal", "curvature", "importance"))
    ratio = gather("snr")
    with styled(figure is None):
        whole = new_figure(10.0, 3.3) if figure is None else figure
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
            right.plot([], [], " ", label=f"0, not shown: {percent(100 * zeros)}")
        right.set_xscale("log")
        right.set_xlabel("m² / (F - m²)")
        right.set_ylabel("weights")
        right.set_title(f"Signal to noise, {batches} batches")
        right.set_ylim(top=right.get_ylim()[1] * 1.3)  # room for the legend
        right.legend(loc="upper left", handlelength=1.8)
    return root_of(whole)


def _log_edges(values: Floats, bins: int = 70) -> list[float]:
    """Edges of equal ratio over the positive, finite values; without the last thousandth below."""
    positive = values[(values > 0) & np.isfinite(values)].astype(np.float64)
    if not positive.size:
        return [0.1, 1.0, 10.0]
    low, high = float(np.quantile(positive, 0.002)), float(positive.max())
    edges: list[float] = np.geomspace(low, max(high, low * 1.01) * 1.01, bins + 1).tolist()
    return edges
