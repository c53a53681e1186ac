"""The packed file: the smallest one that still knows the answer.

Layout: "gpz" and the number of the format, 4 bytes; CRC-32 of all that follows, 4 bytes; the
architecture (``architecture``); one stream of the range coder with every parameter in forward
order, first which of its weights are live (``positions``), then their values (``values``).

A file is data: it is parsed by what is written here, nothing is executed or unpickled, and nothing
is allocated before the architecture is known to be no larger than the limit.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from gradprune.compression.architecture import read_architecture, write_architecture
from gradprune.compression.canonical import CanonicalWeights, canonical_weights
from gradprune.compression.curve import CompressionReport
from gradprune.compression.logistic import Bits, Integers, log2
from gradprune.compression.positions import code_positions
from gradprune.compression.range_coder import Coder, Decoder, Encoder
from gradprune.compression.values import Floats, Values, code_values, kinds, ordered
from gradprune.engine.memory import check_size
from gradprune.errors import FileFormatError, NonFiniteError
from gradprune.foundation.checks import real, whole
from gradprune.foundation.disk import write_atomically
from gradprune.layers.base import Layer, Parameter, Shape
from gradprune.layers.earlier import as_they_were
from gradprune.layers.graph import Step, plan

if TYPE_CHECKING:
    from gradprune.interop.c_export import CReport
    from gradprune.model import Model

__all__ = ["PackedModel"]

MAGIC = b"gpz"
_FORMAT = 2
_BY_STEP = 2  # before it layers flattened sequences, see ``layers.earlier``
_HEAD = 8
_WIDE_MATRIX = 1024
# So many bytes of parameters take as long to be read as what one of these takes besides.
_COLUMN = 24 << 10
_TENSOR = 96 << 10


class PackedModel:
    """A model in the bytes of its file; ``gradprune.compress`` and ``gradprune.load`` make it.

    Attributes:
        data: the bytes of the file; ``bytes(packed)`` are the same.
        layers, input_shape, output_shape: of the model, without the units that were dropped.
        parts: name of a part of the file to its bytes; they add up to ``nbytes``. Parts that share
            a byte in the range coder's stream are rounded.
        report: what ``compress`` tried, if it was given data; else None.

    >>> import constriction
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> packed = gp.compress(model)
    >>> len(bytes(packed)) == packed.nbytes
    True
    >>> packed.predict([[1.0, 2.0, 3.0]]).shape
    (1, 2)
    """

    def __init__(
        self, data: bytes, kind: type[Model], *, max_bytes: SupportsIndex | None = None
    ) -> None:
        self.data = data
        self.report: CompressionReport | None = None
        self._kind, self._max_bytes = kind, max_bytes
        self._weights, self.input_shape, self.parts = _decode(data, max_bytes)
        self.layers = self._weights.layers
        try:
            self._frozen = self.to_model().freeze()
            self.output_shape = self._frozen.output_shape
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"damaged architecture: {error}") from error

    @property
    def masks(self) -> Mapping[str, Bits]:
        """The masks by name of the prunable parameter; True means kept."""
        return self._weights.masks

    @property
    def nbytes(self) -> int:
        """The size of the file in bytes."""
        return len(self.data)

    def __reduce__(self) -> tuple[Any, ...]:
        own = {"report": self.report}
        return _unpack, (type(self), self.data, self._kind, self._max_bytes), own

    def __bytes__(self) -> bytes:
        return self.data

    def predict(self, x: ArrayLike) -> Floats:
        """Return outputs (n, *output_shape) for samples (n, *input_shape), as ``FrozenModel``."""
        return self._frozen.predict(x)

    def at(
        self, *, nbytes: SupportsIndex | None = None, max_drop: SupportsFloat | None = None
    ) -> PackedModel:
        """Return another of the files that ``compress`` tried; see ``CompressionReport.choose``.

        Args:
            nbytes: the largest size in bytes.
            max_drop: the largest drop, as in ``CompressionPoint``.

        Raises:
            ValueError: no such file was made, or ``compress`` had no data and tried no other file.
        """
        if self.report is None:
            raise ValueError("no other file was tried: pass data=(x, y) to compress")
        point = self.report.choose(
            nbytes=None if nbytes is None else whole("nbytes", nbytes),
            max_drop=None if max_drop is None else real("max_drop", max_drop),
        )
        packed = type(self)(point.data, self._kind, max_bytes=self._max_bytes)
        packed.report = replace(self.report, chosen=point)
        return packed

    def to_model(self) -> Model:
        """Return an ordinary model, which can be trained, pruned and saved."""
        model = self._kind.blank(self.layers, self.input_shape)
        with model.lock:
            model.set_masks(self._weights.masks)
            for name, values in self._weights.parameters.items():
                model.arena.state[name][...] = values
        return model

    def to_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        precision: str = "float32",
    ) -> CReport:
        """Write the model to a file of C99 and its header; see ``Model.to_c``.

        Args:
            path: the file, which ends in ".c"; the header ends in ".h".
            name: what the names of functions begin with; None: the name of the file.
            precision: "float32", "int8" or "codebook".
        """
        return self.to_model().to_c(path, name=name, precision=precision)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, as a whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(path, self.data)


def _unpack(
    packed: type[PackedModel], data: bytes, kind: type[Model], max_bytes: SupportsIndex | None
) -> PackedModel:
    """A packed model from its bytes."""
    return packed(data, kind, max_bytes=max_bytes)


def check_packable(model: Model) -> None:
    """Raise the error that ``compress`` would raise, except for numbers that are not finite.

    Raises:
        TypeError: a layer's setting is of a class of your own.
        ImportError: constriction is not installed.
    """
    write_architecture(model.layers, model.input_shape)
    Encoder()


def weights_of(model: Model) -> CanonicalWeights:
    """Return copies of a model's weights, those that are removed 0.

    Raises:
        NonFiniteError: a parameter is not finite.
    """
    with model.lock:
        parameters = {name: np.array(view) for name, view in model.arena.state.items()}
        masks = {name: np.array(view) for name, view in model.masks.items()}
        scales = _scales(model)
    for name, array in parameters.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(
                f"{name} holds a number that is not finite", phase="parameter", parameter=name
            )
        if name in masks:
            array[~masks[name]] = 0.0
    return CanonicalWeights(model.layers, parameters, masks, scales)


def encoded(weights: CanonicalWeights, input_shape: Shape, *, canonical: bool) -> bytes:
    """Return the file of these weights; see ``compress``."""
    if canonical:
        weights = canonical_weights(weights, input_shape)
    encoder = Encoder()
    _code(encoder, weights.layers, input_shape, weights)
    body = write_architecture(weights.layers, input_shape) + encoder.data
    return MAGIC + bytes([_FORMAT]) + zlib.crc32(body).to_bytes(4, "little") + body


def _scales(model: Model) -> dict[str, Floats]:
    """Return the scales of the parameters that a quantizer keeps on a grid."""
    scales: dict[str, Floats] = {}
    quantizer = getattr(model, "quantizer", None)
    if quantizer is None:
        return scales
    for name in model.parameters:
        try:
            coding = quantizer.coding(name)
        except KeyError:  # not one of those that it quantizes
            continue
        if coding.scale is not None:
            scales[name] = np.array(coding.scale, np.float32)
    return scales


def _decode(
    data: bytes, max_bytes: SupportsIndex | None
) -> tuple[CanonicalWeights, Shape, dict[str, int]]:
    if data[:3] != MAGIC:
        raise FileFormatError("not a packed model")
    if len(data) <= _HEAD:
        raise FileFormatError("truncated")
    if not 1 <= data[3] <= _FORMAT:
        raise FileFormatError(
            f"format {data[3]} is not one that this gradprune reads, 1 to {_FORMAT}"
        )
    body = data[_HEAD:]
    if zlib.crc32(body) != int.from_bytes(data[4:_HEAD], "little"):
        raise FileFormatError("damaged: the contents do not match their CRC-32")
    layers, input_shape, size = read_architecture(body)
    layers = _check(layers, input_shape, data, max_bytes)
    decoder = Decoder(body[size:])
    weights = _code(decoder, layers, input_shape, None)
    decoder.finish()
    parts = {"magic and format": 4, "CRC-32": 4, "architecture": size}
    parts |= _apportion(decoder.costs, len(body) - size)
    return weights, input_shape, parts


def _apportion(costs: Mapping[str, float], size: int) -> dict[str, int]:
    """Bits of parts as bytes that add up to the size: the largest remainders are rounded up."""
    total = sum(costs.values()) or 1.0
    shares = {name: bits / total * size for name, bits in costs.items()}
    parts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: parts[name] - shares[name])
    for name in by_remainder[: size - sum(parts.values())]:
        parts[name] += 1
    return parts


def _check(
    layers: Sequence[Layer], input_shape: Shape, data: bytes, max_bytes: SupportsIndex | None
) -> tuple[Layer, ...]:
    """The layers with names, as the file meant them, if they are no larger than the limit."""
    try:
        if data[3] < _BY_STEP:
            layers = as_they_were(layers, input_shape)
        steps = check_size(layers, input_shape, len(data), max_bytes, besides=_reading)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"damaged architecture: {error}") from error
    return tuple(step.layer for step in steps)


def _reading(steps: Sequence[Step]) -> int:
    """What reading takes besides memory, counted as bytes: each column is a few calls."""
    tensors = [parameter for s in steps for parameter in s.layer.tensors(s.shape)]
    columns = sum(as_matrix(tensor)[0][1] for tensor in tensors if tensor.prunable)
    return _TENSOR * len(tensors) + _COLUMN * columns


def as_matrix(parameter: Parameter) -> tuple[tuple[int, int], bool]:
    """The shape of a parameter as a matrix, and whether it is turned: a very wide one is."""
    rows, columns = parameter.shape[0], prod(parameter.shape[1:])
    if columns > _WIDE_MATRIX and columns > 32 * rows:
        return (columns, rows), True
    return (rows, columns), False


def _code(
    coder: Coder, layers: Sequence[Layer], input_shape: Shape, given: CanonicalWeights | None
) -> CanonicalWeights:
    """All parameters in forward order, read or written."""
    out = CanonicalWeights(tuple(layers), {}, {}, {})
    books: list[Integers] = []
    sizes: Integers | None = None  # live inputs of each unit before
    for layer, _, shape, _ in plan(layers, input_shape):
        for parameter in layer.tensors(shape):
            name = f"{layer.name}.{parameter.role}"
            values = None if given is None else given.parameters[name]
            mask = None if given is None else given.masks.get(name)
            if mask is None and values is not None:
                mask = ordered(values) != 0
            scale = None if given is None else given.scales.get(name)
            found, live = _code_parameter(coder, name, parameter, values, mask, scale, sizes, books)
            out.parameters[name] = found
            if parameter.prunable:
                out.masks[name] = live
        if layer.is_product:
            sizes = out.masks[f"{layer.name}.weight"].sum(axis=1)
        elif layer.tensors(shape):
            sizes = None
    return out


def _code_parameter(
    coder: Coder,
    name: str,
    parameter: Parameter,
    values: Floats | None,
    mask: Bits | None,
    scale: Floats | None,
    sizes: Integers | None,
    books: list[Integers],
) -> tuple[Floats, Bits]:
    """One parameter as a matrix, and its mask."""
    shape, turned = as_matrix(parameter)
    if turned:
        scale = None if scale is not None and len(scale) > 1 else scale
    if values is not None and mask is not None:
        values, mask = values.reshape(len(values), -1), mask.reshape(len(mask), -1)
        if turned:
            values, mask = values.T, mask.T
    known = np.zeros(shape[1], np.int64)
    if sizes is not None and len(sizes) == shape[1]:
        known = log2(sizes + 1)
    with coder.part(f"positions of {name}"):
        if parameter.prunable:
            live, width = code_positions(coder, shape, mask, known)
        else:
            symbols = None if mask is None else mask.ravel().astype(np.int64)
            live = coder.adaptive(2, symbols, prod(shape)).reshape(shape) == 1
            width = shape[1]
    with coder.part(f"values of {name}"):
        given = None if values is None else _cheapest(values, live, width, books, scale)
        found = code_values(coder, live, width, given, books)
    if turned:
        found, live = found.T, live.T
    return (
        np.ascontiguousarray(found).reshape(parameter.shape),
        np.ascontiguousarray(live).reshape(parameter.shape),
    )


def _cheapest(
    values: Floats, live: Bits, width: int, books: list[Integers], scale: Floats | None
) -> Values:
    """The way of writing the values that takes the fewest bits."""
    choices = kinds(values, live, books, scale)
    if len(choices) == 1:
        return choices[0]

    def cost(choice: Values) -> float:
        encoder = Encoder()
        code_values(encoder, live, width, choice, list(books))
        return encoder.total

    return min(choices, key=cost)
