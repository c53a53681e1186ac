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
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.engine.summary import summarize
from gradprune.foundation import streams
from gradprune.layers.base import CoreLayer
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from gradprune.engine.network import Network

__all__ = ["LIMIT", "Rounding", "choose_layers"]

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

    sizes = list(map(_largest, map(frozen(core).predict, sets)))
    expected = list(map(frozen(head).predict, sets))
    errors: dict[Places, float] = {}

    def error(exact: Places) -> float:
        if exact not in errors:
            predicted = map(frozen(head, 1, exact).predict, sets)
            errors[exact] = slope * max(map(_error, predicted, expected, sizes))
        return errors[exact]

    everything = frozen(core, 1)
    integers = [i for i in range(len(core)) if everything.describe(i)[4]]
    amplified = _normalized_behind(network)
    exact = tuple(i for i in integers if amplified[i])
    left = [i for i in integers if not amplified[i]]
    if left and error(exact) > LIMIT:
        alone = {i: error(tuple(j for j in integers if j != i)) for i in left}
        left.sort(key=lambda i: (alone[i], i))
        while left and error(exact) > LIMIT:
            exact = tuple(sorted((*exact, left.pop())))
    names = tuple(network.core_layers[i][0] for i in exact)
    return Rounding(names, error(exact) if left else 0.0)


def _random_samples(network: Network) -> list[Floats]:
    features = prod(network.input_shape)
    macs = summarize(network).total.macs_dense
    n = min(max(_FEWEST, min(_MOST, _MACS // max(1, macs))), max(1, _NUMBERS // features))
    normal = _core.normal(n * features, 0, streams.FREEZING.at(0)).reshape(n, features)
    return [np.float32(size) * x for size in _SIZES for x in (normal, np.abs(normal))]


def _largest(outputs: Floats | None) -> list[float]:
    """Return the largest output of each group, or infinity."""
    assert outputs is not None
    groups = np.split(outputs, range(_GROUP, len(outputs), _GROUP))
    return [
        float(np.abs(np.nan_to_num(group, nan=np.inf, posinf=np.inf, neginf=np.inf)).max())
        for group in groups
    ]


def _error(predicted: Floats | None, expected: Floats | None, sizes: list[float]) -> float:
    """The largest relative to the largest output of its group; of what is finite in float32."""
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


def _normalized_behind(network: Network) -> list[bool]:
    """Return for each layer of the core whether a sample is normalized on a way to the outputs."""
    normalize = {layer.name for layer in network.layers if layer.normalizes_samples}
    found = [False] * len(network.core_layers)
    for i, (name, low) in reversed(list(enumerate(network.core_layers))):
        below = found[i] or name in normalize
        for back in low.back:
            if i >= back:
                found[i - back] |= below
    return found
