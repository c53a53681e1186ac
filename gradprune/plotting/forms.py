"""Forms of one model beside each other: bytes and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradprune.plotting.style import BLUE, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_bars"]


def plot_bars(
    values: Mapping[str, float | None],
    texts: Sequence[str],
    *,
    title: str,
    ax: Axes | None,
) -> Axes:
    """Draw a bar for each name, from top to bottom, with its value in words at the end.

    Args:
        values: name to value, not negative; None: there is none.
        texts: the values in words.
        title: what they are.
        ax: axes to draw into; None: new ones.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
    """
    with drawing(ax, 0.8 + 0.35 * len(values)) as axes:
        lengths = [value or 0.0 for value in values.values()]
        bars = axes.barh(range(len(values)), lengths, color=BLUE, height=0.6)
        axes.bar_label(bars, labels=[f" {text}" for text in texts], fontsize=8.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max([*lengths, 1e-12]))  # room for the words
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title)
    return axes
