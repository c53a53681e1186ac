"""What all plots look like, and the figures they are drawn in. Only here is matplotlib loaded."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradprune.foundation.disk import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LIGHT",
    "ORANGE",
    "PURPLE",
    "drawing",
    "import_matplotlib",
    "legend_above",
    "literal",
    "new_figure",
    "percent",
    "picture",
    "root_of",
    "save_figure",
    "styled",
]

# Okabe and Ito 2008: told apart with every kind of colour vision, and in grey.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, LIGHT = "#666666", "#DDDDDD"

_SETTINGS = {
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

_LEGEND = 4  # entries that fit into a row


def literal(text: str) -> str:
    """A name, such as a layer's, as a label that is shown as it is and not read as mathematics."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a .png, .svg or .pdf file, as a whole or not at all.

    The same figure gives the same bytes: no date is written.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, picture(figure, Path(path).suffix.lower()[1:]))


def picture(figure: Figure, kind: str) -> bytes:
    """Return the bytes of a figure's file of a kind: "png", "svg" or "pdf"."""
    content = io.BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(content, format=kind, dpi=150, metadata=metadata)
    return content.getvalue()


def import_matplotlib() -> Any:
    """Return matplotlib; ImportError with the words to install it."""
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradprune[plot]"') from error


@contextmanager
def styled(own: bool) -> Iterator[None]:
    """Our style while drawing a figure of our own; figures of others keep theirs."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(_SETTINGS if own else {}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot does not know of, so nobody has to close it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if "ipykernel" in sys.modules:  # makes notebooks show figures that are the value of a cell
        importlib.import_module("matplotlib_inline.backend_inline")
    layout = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.07)  # inches
    return Figure(figsize=(width, height), layout=layout)


@contextmanager
def drawing(ax: Axes | None, height: float = 3.4) -> Iterator[Axes]:
    """Axes of others as they are, or those of a new figure, in our style."""
    with styled(ax is None):
        yield new_figure(7.0, height).add_subplot() if ax is None else ax


def root_of(figure: Figure | SubFigure) -> Figure:
    """Return the figure that a part belongs to."""
    root: Figure = figure.figure  # get_figure(root=True) is as new as matplotlib 3.10
    return root


def legend_above(axes: Axes) -> None:
    """Draw a legend above the axes, where there is no data; in two rows if it is long."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    legend = axes.legend(
        handles,
        labels,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(handles) if len(handles) <= _LEGEND else -(-len(handles) // 2),
        borderaxespad=0.1,
        handlelength=1.6,
        columnspacing=1.2,
    )
    for shown in legend.get_lines():
        if shown.get_marker() == ".":  # points of a cloud are too small to tell their colour
            shown.set_markersize(2.5 * shown.get_markersize())


def percent(value: float) -> str:
    """Format a share with three digits: 5.00 %, 42.7 %, 100 %."""
    return f"{value:.3g} %" if value >= 99.95 else f"{value:#.3g} %"
