"""A figure of matplotlib in words: what is drawn, where, and what it looks like.

Only what the drawing functions decide is told. What matplotlib decides by itself, such as the
places of automatic ticks and the pixels of a layout, differs between its versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pytest

FEW = 24  # numbers that are told one by one


def number(value: float) -> str:
    """Three digits."""
    return f"{float(value):.3g}" if value else "0"


def numbers(values: Iterable[float]) -> str:
    """A few numbers one by one; of many how many, the ends, the mean and the spread."""
    found = np.array(list(values), np.float64)
    if len(found) <= FEW:
        return " ".join(map(number, found))
    ends = [*found[:5], *found[-5:]]
    sums = [np.nanmean(found), np.nanstd(found), np.isnan(found).sum()]
    # What is left of a sum that is 0 by rounding.
    sums = [0.0 if abs(value) < 1e-9 * np.nanmax(abs(found)) else value for value in sums]
    return f"{len(found)}: {' '.join(map(number, ends))}, {' '.join(map(number, sums))}"


def colour(value: Any) -> str:
    """Hexadecimal, with alpha; "none" for nothing."""
    colors: Any = pytest.importorskip("matplotlib.colors")
    array = np.asarray(value) if not isinstance(value, str) else None
    if array is not None and array.size == 0:
        return "none"
    return str(colors.to_hex(value, keep_alpha=True))


def figure(whole: Any) -> str:
    """A figure, its parts and all axes."""
    return "\n".join(_figure(whole)) + "\n"


def _figure(whole: Any) -> Iterator[str]:
    yield f"figure {numbers(whole.get_size_inches())} inches, dpi {number(whole.dpi)}"
    for key, pad in sorted((whole.get_layout_engine().get() or {}).items()):
        if key in {"h_pad", "w_pad"}:
            yield f"  {key} {number(pad)}"
    yield from _parts(whole)


def _parts(whole: Any) -> Iterator[str]:
    if whole.get_suptitle():
        yield f"title above: {text(whole._suptitle)}"
    for part in whole.subfigs:
        yield f"part {numbers(part.bbox_relative.bounds)}"
        yield from _parts(part)
    for one in _own_axes(whole):
        yield from axes(one)


def _own_axes(whole: Any) -> list[Any]:
    of_parts = {id(one) for part in whole.subfigs for one in part.axes}
    return [one for one in whole.axes if id(one) not in of_parts]


def axes(one: Any) -> Iterator[str]:
    """One pair of axes and those inside."""
    if one.get_label() == "<colorbar>":
        yield f"bar of colours: {text(one.yaxis.get_label())}, {numbers(one.get_ylim())}"
        return
    spec = one.get_subplotspec()
    if spec is not None:
        grid = spec.get_gridspec()
        place = f"{spec.num1} of {grid.nrows} x {grid.ncols}"
    else:
        place = f"inset {numbers(one.get_position(original=True).bounds)}"
    yield f"axes {place}, z {number(one.get_zorder())}{'' if one.axison else ', no frame'}"
    # Whether a twin has a background is decided by matplotlib.
    twins = [other for other in one.figure.axes if spec and other.get_subplotspec() is spec]
    if one in twins[:1] and not one.patch.get_visible():
        yield "  no background"
    for side in ("left", "center", "right"):
        if one.get_title(loc=side):
            offset = 72 * one.titleOffsetTrans.get_matrix()[1, 2] / one.figure.dpi
            title = {"left": "_left_title", "center": "title", "right": "_right_title"}[side]
            yield f"  title {side}, {number(offset)} above: {text(getattr(one, title))}"
    for name, axis in (("x", one.xaxis), ("y", one.yaxis)):
        yield f"  {name}: {'; '.join(_axis(one, name, axis))}"
    shown = [f"{name} {colour(s.get_edgecolor())}" for name, s in one.spines.items()
             if s.get_visible()]  # fmt: skip
    yield f"  spines: {', '.join(shown) or 'none'}"
    for line in one.get_lines():
        yield f"  {_line(one, line)}"
    for look, patches in groupby(one.patches, _look_of_patch):
        found = list(patches)
        corners = [np.asarray(patch.get_path().vertices) for patch in found]
        shapes = [patch.get_patch_transform().transform(c) for patch, c in zip(found, corners,
                  strict=True)]  # fmt: skip
        yield f"  {len(found)} patches {look}"
        if all(type(patch).__name__ == "Rectangle" for patch in found):
            bounds = np.array([patch.get_bbox().bounds for patch in found]).T
            for what, values in zip(("x", "y", "width", "height"), bounds, strict=True):
                yield f"    {what} {numbers(values)}"
        else:
            for what, values in zip("xy", np.concatenate(shapes).T, strict=True):
                yield f"    {what} {numbers(values)}"
    for collection in one.collections:
        yield from (f"  {line}" for line in _collection(collection))
    for words in one.texts:
        yield f"  text {text(words)}"
    if (legend := one.get_legend()) is not None:
        yield from (f"  {line}" for line in _legend(one, legend))
    for child in one.child_axes:
        yield from (f"  {line}" for line in axes(child))


def text(words: Any) -> str:
    """A text with its looks, and where it is if it has a place of its own."""
    looks = [number(words.get_fontsize()), str(words.get_fontweight()), colour(words.get_color())]
    if words.get_rotation():
        looks.append(f"turned {number(words.get_rotation())}")
    looks += [words.get_ha(), words.get_va()]
    place = ""
    if hasattr(words, "xyann"):
        place = (
            f" at {numbers(words.xy)} {words.xycoords} + {numbers(words.xyann)} {words.anncoords}"
            f"{'' if words.get_annotation_clip() is None else ', not clipped'}"
        )
    elif words.axes is not None and words in words.axes.texts:
        place = f" at {numbers(words.get_position())}"
    return f"{words.get_text()!r} ({', '.join(looks)}){place}"


def _axis(one: Any, name: str, axis: Any) -> Iterator[str]:
    if axis.get_label().get_text():
        yield f"label {text(axis.get_label())}"
    low, high = getattr(one, f"get_{name}lim")()
    yield f"{number(low)} to {number(high)} {axis.get_scale()}"
    if axis.get_scale() == "function":
        places = axis.get_transform().transform(np.array([0.5, 0.9, 0.99, 1.0]))
        yield f"scaled to {numbers(places)}"
    locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
    kind = type(locator).__name__
    if kind in {"FixedLocator", "NullLocator"}:
        places = list(axis.get_majorticklocs())
        yield f"ticks {numbers(places)} as {' | '.join(formatter.format_ticks(places))}"
    else:
        yield f"ticks {kind}{_subs(locator)}"
        if type(formatter).__name__ in {"FuncFormatter", "EngFormatter"}:
            yield f"numbers as {' | '.join(formatter(value) for value in (0.125, 12.5, 12500))}"
    if type(axis.get_minor_locator()).__name__ == "NullLocator":
        yield "no minor ticks"
    looks = axis.get_tick_params()
    for key in ("length", "color", "labelcolor", "labelrotation", "labelsize"):
        if key in looks:
            yield f"{key} {looks[key] if isinstance(looks[key], str) else number(looks[key])}"
    ticks = axis.get_major_ticks()
    turned = {number(tick.label1.get_rotation()) for tick in ticks} - {"0"}
    if turned:
        yield f"turned {' '.join(sorted(turned))}"
    if any(tick.gridline.get_visible() for tick in ticks):
        yield f"grid {colour(ticks[0].gridline.get_color())}"


def _subs(locator: Any) -> str:
    subs = getattr(locator, "_subs", None)
    return f" {numbers(subs)}" if isinstance(subs, np.ndarray) else ""


def _label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label == "None" or label.startswith("_") else f" {label!r}"


def _looks(artist: Any) -> Iterator[str]:
    if artist.get_alpha() is not None:
        yield f"alpha {number(artist.get_alpha())}"
    if not artist.get_clip_on():
        yield "not clipped"
    if artist.get_rasterized():
        yield "as pixels"
    yield f"z {number(artist.get_zorder())}"


def _line(one: Any, line: Any) -> str:
    looks = [f"{line.get_linestyle()} {number(line.get_linewidth())} {colour(line.get_color())}"]
    if line.get_marker() not in {None, "None", ""}:
        edge = number(line.get_markeredgewidth())
        looks.append(f"marker {line.get_marker()} {number(line.get_markersize())} edge {edge}")
    transform = line.get_transform()
    if transform == one.get_xaxis_transform():
        looks.append("y of the axes")
    elif transform == one.get_yaxis_transform():
        looks.append("x of the axes")
    looks += _looks(line)
    x, y = (np.asarray(values, np.float64) for values in line.get_data(orig=False))
    return f"line{_label(line)} ({', '.join(looks)})\n    x {numbers(x)}\n    y {numbers(y)}"


def _look_of_patch(patch: Any) -> str:
    looks = [f"{colour(patch.get_facecolor())} edge {colour(patch.get_edgecolor())}"]
    looks.append(f"{patch.get_linestyle()} {number(patch.get_linewidth())}")
    looks.append("filled" if patch.get_fill() else "empty")
    if patch.get_hatch():
        looks.append(f"hatch {patch.get_hatch()}")
    looks += _looks(patch)
    return f"{type(patch).__name__}{_label(patch)} ({', '.join(looks)})"


def _collection(collection: Any) -> Iterator[str]:
    counts = collection.get_array()
    looks = [f"width {numbers(np.unique(collection.get_linewidth()))}", *_looks(collection)]
    if counts is not None:
        looks.append(f"{collection.get_cmap().name} {type(collection.norm).__name__}")
    else:
        looks.append(" ".join(map(colour, collection.get_facecolor())))
    yield f"area{_label(collection)} ({', '.join(looks)})"
    if counts is not None:
        yield f"  of {len(counts)}: {number(np.sum(counts))} in all, at most {np.max(counts):g}"
        return
    for path in collection.get_paths():
        corners = np.unique(np.round(path.vertices, 12), axis=0)  # in one order in all versions
        for what, values in zip("xy", corners.T, strict=True):
            yield f"  {what} {numbers(values)}"


def _legend(one: Any, legend: Any) -> Iterator[str]:
    anchor = legend.get_bbox_to_anchor().transformed(one.transAxes.inverted())
    yield (
        f"legend in {legend._ncols} columns, place {legend._loc} of {numbers(anchor.bounds)}, "
        f"pad {number(legend.borderaxespad)}, handles {number(legend.handlelength)}, "
        f"spacing {number(legend.columnspacing)}{', frame' if legend.get_frame_on() else ''}"
    )
    for words, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        size = f", marker {number(handle.get_markersize())}" if hasattr(
            handle, "get_markersize") else ""  # fmt: skip
        yield f"  {words.get_text()!r} {number(words.get_fontsize())}{size}"
