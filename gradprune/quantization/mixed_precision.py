"""Which Dense layers of a frozen model may run on 8-bit integers: those that keep it near enough.

Rounding weights and inputs to bytes moves each output of a layer by about a hundredth of the
largest that its weights could make of its inputs (docs/math.md has the bound). What that is in the
network's outputs depends on what follows: behind it a saturated activation, sums that cancel or a
normalization by a small deviation make it more, without a bound. So it is measured, and where it is
too much the layers that do the most harm stay in float32.

What is measured is the error of what goes into the last activation, times the steepest slope of
this. The error behind it would say less: which sample has a saturated output, and which one is just
between two classes, differs from sample to sample, so a few dozen rarely hold the worst. A narrow
network may leave all but one sample in a thousand alone and round that one coarsely; it is also
quick, so it is measured on thousands of random samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.summary import summarize
from gradprune.foundation import streams
from gradprune.layers.base import CoreLayer
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from gradprune.engine.network import Network

__all__ = [
    "LIMIT",
    "Rounding",
    "choose_layers",
    "fewest_exact",
    "largest_outputs",
    "layers_normalized_behind",
    "on_integers",
    "relative_error",
    "samples_to_measure",
]

LIMIT = 0.03  # of an error relative to the largest output of a group of samples

_FEWEST, _MOST = 64, 1024  # random samples of each kind
_MACS = 2**27  # multiply-accumulates that the samples of one kind may need between these
_GROUP = 16  # samples whose largest output an error is compared with
_NUMBERS = 2**22  # fewer samples where they are large
_SIZES = (0.1, 1.0, 10.0)

Floats = NDArray[np.float32]
Places = tuple[int, ...]


class Rounding(NamedTuple):
    """The layers of each precision, and the error that this makes."""

    exact: tuple[str, ...]  # names of Dense layers that stay in float32 for the sake of the error
    error: float  # what was measured of the layers on integers


@locked
def choose_layers(network: Network, x: Floats | None) -> Rounding:
    """Choose which Dense layers stay in float32 if the others run on integers.

    A layer behind which a LayerNorm normalizes does: a sample of small variance, however rare,
    makes any error large. Then follow those that do the most harm, one by one, until the error is
    at most ``LIMIT`` in each group of 16 samples. Where all outputs of a group are 0 nothing can be
    said, and all layers stay in float32.

    Args:
        network: as it is now.
        x: (n, features) samples to measure on; None: random ones, normal and their absolute values,
            of deviations 0.1, 1 and 10, 64 to 1,024 of each as the network is large or small.
    """
    sets = _random_samples(network) if x is None else [x]
    core: list[CoreLayer] = [layer for _, layer in network.core_layers]
    head, slope = core, network.last_layer.output_slope
    if slope is None or core[-1].back != (1,) or len(core) == 1:
        slope = 1.0
    else:
        head = core[:-1]

    def frozen(layers: list[CoreLayer], precision: int = 0, exact: Places = ()) -> _core.Frozen:
        return _core.Frozen([*layers], network.arena.core, precision, exact)

    sizes = list(map(largest_outputs, map(frozen(core).predict, sets)))
    expected = list(map(frozen(head).predict, sets))

    def error(exact: Places) -> float:
        predicted = map(frozen(head, 1, exact).predict, sets)
        return slope * max(map(relative_error, predicted, expected, sizes))

    everything = frozen(core, 1)
    integers = [i for i in range(len(core)) if everything.describe(i)[4]]
    amplified = layers_normalized_behind(network)
    given = tuple(i for i in integers if network.core_layers[i][0] in amplified)
    exact, worst = fewest_exact(integers, given, error)
    return Rounding(tuple(network.core_layers[i][0] for i in exact), worst)


def samples_to_measure(
    network: Network, precision: str, x: ArrayLike | None
) -> NDArray[np.float32] | None:
    """Return samples that were given to measure rounding on, checked.

    Raises:
        TypeError, ValueError: they are none, or the precision is not "int8".
    """
    if x is None:
        return None
    if precision != "int8":
        raise ValueError(f'x is for precision="int8", not {precision!r}')
    samples = network.rows(x)
    if len(samples) == 0:
        raise ValueError("x must hold at least one sample")
    return samples


@locked
def on_integers(network: Network, rounding: Rounding) -> frozenset[int]:
    """Return which layers of the core run on integers in a network that is frozen to int8."""
    core = network.core_layers
    exact = tuple(i for i, (name, _) in enumerate(core) if name in rounding.exact)
    frozen = _core.Frozen([low for _, low in core], network.arena.core, 1, exact)
    return frozenset(i for i in range(len(core)) if frozen.describe(i)[4])


def fewest_exact(
    integers: Sequence[int], exact: Places, error: Callable[[Places], float]
) -> tuple[Places, float]:
    """Choose which layers stay in float32: those that do the most harm, one by one.

    Args:
        integers: the places of the layers that can run on integers.
        exact: those of them that must not.
        error: the error if the layers at these places stay in float32 and the others do not.

    Returns:
        The places of the layers that stay, and the error that is left, at most ``LIMIT``.

    >>> fewest_exact(range(3), (), lambda exact: 0.1 if 1 not in exact else 0.01)
    ((1,), 0.01)
    """
    errors: dict[Places, float] = {}

    def known(places: Places) -> float:
        if places not in errors:
            errors[places] = error(places)
        return errors[places]

    left = [i for i in integers if i not in exact]
    if left and known(exact) > LIMIT:
        alone = {i: known(tuple(j for j in integers if j != i)) for i in left}
        left.sort(key=lambda i: (alone[i], i))
        while left and known(exact) > LIMIT:
            exact = tuple(sorted((*exact, left.pop())))
    return exact, known(exact) if left else 0.0


def _random_samples(network: Network) -> list[Floats]:
    features = prod(network.input_shape)
    macs = summarize(network).total.macs_dense
    n = min(max(_FEWEST, min(_MOST, _MACS // max(1, macs))), max(1, _NUMBERS // features))
    if network.input_below is not None:
        drawn = _core.uniform(n * features, 0, streams.FREEZING.at(0)).reshape(n, features)
        return [np.floor(drawn * np.float32(network.input_below))]
    normal = _core.normal(n * features, 0, streams.FREEZING.at(0)).reshape(n, features)
    return [np.float32(size) * x for size in _SIZES for x in (normal, np.abs(normal))]


def largest_outputs(outputs: Floats | None) -> list[float]:
    """Return the largest output of each group of samples, (n, outputs), or infinity."""
    assert outputs is not None
    groups = np.split(outputs, range(_GROUP, len(outputs), _GROUP))
    return [
        float(np.abs(np.nan_to_num(group, nan=np.inf, posinf=np.inf, neginf=np.inf)).max())
        for group in groups
    ]


def relative_error(
    predicted: Floats | None, expected: Floats | None, sizes: Sequence[float]
) -> float:
    """Return the largest error relative to a size that each group of samples has.

    What is not finite in float32 does not count.
    """
    assert predicted is not None
    assert expected is not None
    finite = np.isfinite(expected)
    off = np.zeros(expected.shape)
    np.subtract(predicted, expected, out=off, where=finite, dtype=np.float64)
    worst = 0.0
    for group, size in zip(np.split(off, range(_GROUP, len(off), _GROUP)), sizes, strict=True):
        most = float(np.abs(group).max())
        worst = max(worst, most / size if size > 0 and math.isfinite(most) else math.inf)
    return worst


def layers_normalized_behind(network: Network) -> set[str]:
    """Return the names of the layers behind which, on a way to the outputs, a sample is normalized.

    Such a layer is among them itself if it has a way to another one.
    """
    normalize = {layer.name for layer in network.layers if layer.normalizes_samples}
    found = [False] * len(network.core_layers)
    for i, (name, low) in reversed(list(enumerate(network.core_layers))):
        below = found[i] or name in normalize
        for back in low.back:
            if i >= back:
                found[i - back] |= below
    return {name for (name, _), behind in zip(network.core_layers, found, strict=True) if behind}
