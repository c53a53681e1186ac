"""Frozen models: an immutable copy of a network for inference, each layer packed for speed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.lengths import lengths_of
from gradprune.engine.network import Network
from gradprune.engine.summary import summarize
from gradprune.forms.frozen_files import FrozenSource, Origin, write
from gradprune.forms.standardization import folded
from gradprune.foundation.checks import real_array
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.foundation.habits import shape_hint
from gradprune.layers.graph import plan
from gradprune.quantization.mixed_precision import Rounding
from gradprune.state.arena import unpacked_mask
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from gradprune.interop.c_export import CReport

__all__ = ["FrozenLayer", "FrozenModel"]

# The codes of the core, in order, and how far predictions may be from the network's.
_PRECISIONS = ("float32", "int8")
_TOLERANCES = {"float32": 1e-5, "int8": 0.05}
_UNROUNDED = Rounding((), 0.0)

_HEADINGS = ("layer", "type", "outputs", "weights", "kept", "bytes", "few samples", "many samples")


@dataclass(frozen=True)
class FrozenLayer:
    """The sizes and kernels of a layer of a frozen model.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> [(layer.name, layer.weights, layer.kept) for layer in model.freeze().layers]
    [('dense0', 12, 12), ('dense1', 8, 8)]
    """

    name: str
    kind: str
    outputs: int  # features a sample
    weights: int
    kept: int  # weights that are not removed
    nbytes: int
    few: str  # kernel for few samples, "dense", "sparse" or "int8"; "" where there are no weights
    many: str  # kernel for many samples
    parameters: int = 0  # that are not removed, biases included
    macs_dense: int = 0  # multiply-accumulates a sample
    macs_effective: int = 0  # those of kept weights


class FrozenModel(Displayed):
    """An immutable copy of a network for inference; ``model.freeze()`` makes it.

    Weights are packed so that each layer runs fastest, once for calls with a few samples and once
    for many. Activations are fused with the layer before them, normalizations with the layer before
    or after them; dropout is left out. Training, pruning or writing into the original model does
    not change the frozen one. Any number of threads may call ``predict`` at once.

    It can be pickled, and is frozen again where it is read, for the CPU there: so it also holds the
    float32 weights that are not removed, 4 bytes each, beside ``nbytes``.

    With precision "int8" a Dense layer has 8-bit weights with a scale per row, and in every call
    its inputs become bytes with a scale per sample, or per step of a sequence. Products and sums
    are exact integers; their result is float32 again. The layer's output for a sample does not
    depend on its batch and, except for tanh, sigmoid, gelu, silu and elu, not on the instruction
    set. Layers with so few weights left that lists of them are faster, with more than 65,536
    inputs, and recurrent ones stay float32. Formulas are in docs/math.md, times in
    docs/performance.md.

    How far rounding to bytes moves the outputs is measured when the model is frozen: the largest
    error of the input of the last activation, times the steepest slope of that activation, relative
    to the largest output of 16 samples. If the error is above 0.03, the Dense layers that
    contribute most to it stay float32 until it is not. So do all Dense layers before a LayerNorm,
    which makes any error large for samples of a small variance.

    Attributes:
        precision: "float32" or "int8".
        exact: names of the Dense layers that stay float32 for that reason.
        error: the error that was measured, at most 0.03; 0 if no layer runs on integers.
        tolerance: for ``gp.verify`` against the model, an error relative to the largest output of
            the samples there: 1e-5, or 0.05 with int8, which leaves room for other samples than
            those measured on.
        layers: one FrozenLayer for each layer.
        input_shape: shape of a sample.
        output_shape: shape of a prediction.
        outputs: the number of values of a prediction.
        nbytes: bytes of the packed weights and what goes with them.
        ends_with_softmax: whether predictions are probabilities.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(3, activation="relu"), gp.Dense(2)], input_shape=4, seed=0)
    >>> print(model.freeze())
    layer   type         outputs  weights  kept  bytes  few samples  many samples
    dense0  Dense, relu        3       12    12    512  dense        dense
    dense1  Dense              2        6     6    448  dense        dense
    """

    __slots__ = (
        "_core",
        "_source",
        "ends_with_softmax",
        "error",
        "exact",
        "input_shape",
        "layers",
        "nbytes",
        "output_shape",
        "outputs",
        "precision",
        "tolerance",
    )

    layers: tuple[FrozenLayer, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    outputs: int
    nbytes: int
    ends_with_softmax: bool
    precision: str
    exact: tuple[str, ...]
    error: float
    tolerance: float
    _core: _core.Frozen
    _source: FrozenSource

    def __init__(
        self, network: Network, precision: str = "float32", rounding: Rounding = _UNROUNDED
    ) -> None:
        if precision not in _PRECISIONS:
            raise ValueError(f"precision must be one of {_PRECISIONS}, got {precision!r}")
        code = _PRECISIONS.index(precision)
        computed = folded(network) if precision == "float32" else network
        core = computed.core_layers
        exact = tuple(position for position, (name, _) in enumerate(core) if name in rounding.exact)
        with network.lock:
            frozen = _core.Frozen([layer for _, layer in core], computed.arena.core, code, exact)
            layers = _layers(network, computed, frozen)
            source = FrozenSource.of(network)
        for name, value in (
            ("_core", frozen),
            ("_source", source),
            ("ends_with_softmax", network.ends_with_softmax),
            ("input_shape", network.input_shape),
            ("layers", layers),
            ("nbytes", frozen.nbytes),
            ("output_shape", network.output_shape),
            ("outputs", network.outputs),
            ("precision", precision),
            ("exact", rounding.exact),
            ("error", rounding.error),
            ("tolerance", _TOLERANCES[precision]),
        ):
            object.__setattr__(self, name, value)

    def predict(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return outputs for samples, without dropout; C-contiguous float32 is fastest.

        Args:
            x: (n, *input_shape) real numbers, all finite; n may be 0.
            lengths: (n,) how many steps of each sequence count, as for ``Model.predict``.

        Returns:
            (n, *output_shape) float32, as the network's to rounding.

        Raises:
            TypeError, ValueError: x is not as above.

        >>> import numpy as np
        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2, activation="softmax")], input_shape=3, seed=0)
        >>> x = np.ones((5, 3), np.float32)
        >>> bool(np.allclose(model.freeze().predict(x), model.predict(x)))
        True
        """
        out = self._core.predict(x) if lengths is None else None
        if out is None:  # not yet an array as the core takes it
            rows = self._rows(x)
            if lengths is None:
                out = self._core.predict(rows)
            else:
                steps = plan(self._source.layers, self.input_shape)
                ends = lengths_of(lengths, len(rows), steps, self.input_shape)
                out = self._core.predict(rows, ends)
            assert out is not None
        return out if out.shape[1:] == self.output_shape else out.reshape(-1, *self.output_shape)

    def _rows(self, x: ArrayLike) -> NDArray[np.float32]:
        array = real_array("x", x)
        if array.shape[1:] != self.input_shape or array.ndim == 0:
            wanted = ", ".join(["n", *map(str, self.input_shape)])
            hint = shape_hint(array.shape, self.input_shape)
            raise ValueError(f"x must have shape ({wanted}), got {array.shape}{hint}")
        return array.reshape(len(array), prod(self.input_shape))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a frozen model cannot be changed, not its {name!r} either")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a frozen model cannot be changed, not its {name!r} either")

    def __copy__(self) -> Self:
        return self  # nothing can change

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which ``gp.load`` reads.

        The file holds what the model was made from: layers, a bit of mask for each weight, and the
        weights that are not removed in float32. Where it is read the model is frozen again, for
        the CPU there. The file is replaced as a whole or, on an error, left as it was.

        Args:
            path: the file.

        Raises:
            OSError: the file cannot be written.
            TypeError: a layer is of a class of your own that is no frozen dataclass.

        >>> import gradprune as gp
        >>> gp.Model([gp.Dense(2)], input_shape=3, seed=0).freeze().save("m.frozen")
        >>> gp.load("m.frozen").precision
        'float32'
        """
        write(path, self._origin)

    def to_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        precision: str | None = None,
    ) -> CReport:
        """Write the model to a file of C99 and its header; see ``Model.to_c``.

        Args:
            path: the file, which ends in ".c"; the header ends in ".h".
            name: what the names of functions begin with; None: the name of the file.
            precision: "float32", "int8" or "codebook"; None: the one that the model has.

        Returns:
            What was written, with the form and the bytes of each layer.

        Raises:
            OSError, TypeError, ValueError, UnsupportedOperationError: as ``Model.to_c``.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
        >>> model.freeze(precision="int8").to_c("m.c").precision
        'int8'
        """
        from gradprune.interop import c_export

        chosen = self.precision if precision is None else precision
        rounding = self._origin.rounding if chosen == self.precision == "int8" else None
        network = _network(self._source)
        return c_export.to_c(network, path, name=name, precision=chosen, rounding=rounding)

    @property
    def _origin(self) -> Origin:
        return Origin(self._source, self.precision, Rounding(self.exact, self.error))

    def __reduce__(self) -> tuple[Any, ...]:
        return freeze, tuple(self._origin)

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        rows = [_cells(layer) for layer in self.layers]
        lines: list[str | Table] = [Table(_HEADINGS, rows, words={0, 1, 6, 7})]
        if self.precision == "int8":
            lines.append(f"largest error by rounding {self.error:.2g} of the largest output")
        if self.exact:
            lines.append(f"float32 so that it is no more: {', '.join(self.exact)}")
        return lines


def freeze(source: FrozenSource, precision: str, rounding: Rounding) -> FrozenModel:
    """Return a frozen model from what it was made from, see ``Origin``."""
    return FrozenModel(_network(source), precision, rounding)


def _network(source: FrozenSource) -> Network:
    """The network that was frozen."""
    network = Network.blank(
        source.layers, source.input_shape, start=partial(unpacked_mask, source.mask)
    )
    arena = network.arena
    with arena.lock:
        arena.core.put_values(source.params)
    return network


@locked
def _layers(network: Network, computed: Network, frozen: _core.Frozen) -> tuple[FrozenLayer, ...]:
    """What became of each layer, of which ``frozen`` has those that are ``computed``."""
    positions = {
        name: position
        for position, (name, core) in enumerate(computed.core_layers)
        if 0 <= core.weight < network.arena.prunable_size
    }
    layers = []
    for row in summarize(network).layers:
        weights = kept = nbytes = 0
        few = many = ""
        if row.name in positions:
            position = positions[row.name]
            weights = sum(m.size for name, m in network.masks.items() if _layer(name) == row.name)
            kept, nbytes, few_listed, many_listed, is_int8 = frozen.describe(position)
            whole = "int8" if is_int8 else "dense"
            few, many = ("sparse" if listed else whole for listed in (few_listed, many_listed))
        layers.append(
            FrozenLayer(
                row.name,
                row.kind,
                row.outputs,
                weights,
                kept,
                nbytes,
                few,
                many,
                parameters=row.kept,
                macs_dense=row.macs_dense,
                macs_effective=row.macs_effective,
            )
        )
    return tuple(layers)


def _layer(parameter: str) -> str:
    return parameter.partition(".")[0]


def _cells(row: FrozenLayer) -> tuple[str, ...]:
    numbers = (row.outputs, row.weights, row.kept, row.nbytes)
    return (row.name, row.kind, *(f"{number:,}" for number in numbers), row.few, row.many)
