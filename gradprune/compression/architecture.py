"""An architecture in few bytes: layers with their settings, and the shape of the input.

A class is written as a number, which a layer class states in its own ``packed``; a field that has
its default is not written. Numbers and the order of fields never change, so that old files mean
what they meant.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Sequence
from typing import Any

from gradprune import layers as all_layers
from gradprune.errors import FileFormatError
from gradprune.layers import initializers
from gradprune.layers.base import Layer

__all__ = ["read_architecture", "write_architecture"]

_OTHERS: dict[int, tuple[type[Any], tuple[str, ...]]] = {
    6: (initializers.Glorot, ("gain",)),
    7: (initializers.He, ("gain",)),
    8: (initializers.Orthogonal, ("gain",)),
    9: (initializers.Identity, ("gain",)),
    10: (initializers.SparseSpectral, ("nonzeros", "radius")),
    11: (initializers.Normal, ("std",)),
    12: (initializers.Uniform, ("limit",)),
    18: (tuple, ()),  # its values follow their number
}
_CLASSES: dict[int, tuple[type[Any], tuple[str, ...]]] = _OTHERS | {
    cls.packed[0]: (cls, cls.packed[1])
    for cls in vars(all_layers).values()
    if isinstance(cls, type) and issubclass(cls, Layer) and cls.packed is not None
}
_WORDS = (
    *("identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "softmax", "same", "valid"),
    *("silu", "elu", "hardswish", "relu6", "causal"),
)
_NUMBERS = {cls: number for number, (cls, _) in _CLASSES.items()}

# What a value begins with; a whole number n is written as n + _INTEGER.
_NONE, _FALSE, _TRUE, _FLOAT, _WORD, _TEXT, _OBJECT, _INTEGER = range(8)
_DEEPEST = 4
_MOST_LAYERS = 1000
_LONGEST = 8
_LARGEST = 2**48


def write_architecture(layers: Sequence[Layer], input_shape: Sequence[int]) -> bytes:
    """Return the bytes of an architecture.

    Raises:
        TypeError: a setting is of a class that is not gradprune's.
    """
    out = bytearray()
    _write_number(out, len(input_shape))
    for size in input_shape:
        _write_number(out, size)
    _write_number(out, len(layers))
    seen: dict[type[Layer], int] = {}
    for layer in layers:
        kind = type(layer)
        automatic = f"{kind.__name__.lower()}{seen.get(kind, 0)}"
        seen[kind] = seen.get(kind, 0) + 1
        plain = dataclasses.replace(layer, name=None) if layer.name == automatic else layer
        _write_object(out, plain)
    return bytes(out)


def _write_number(out: bytearray, number: int) -> None:
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _write_object(out: bytearray, value: Any) -> None:
    if type(value) not in _NUMBERS:
        raise TypeError(f"cannot pack {value!r}: a file holds only classes of gradprune itself")
    number = _NUMBERS[type(value)]
    if isinstance(value, tuple):
        _write_number(out, number)
        _write_number(out, len(value))
        for item in value:
            _write_value(out, item)
        return
    names = _CLASSES[number][1]
    default = {field.name: field.default for field in dataclasses.fields(value)}
    settings = [(name, getattr(value, name)) for name in names]
    _write_number(out, number)
    _write_number(
        out, sum(1 << i for i, (name, own) in enumerate(settings) if own != default[name])
    )
    for name, own in settings:
        if own != default[name]:
            _write_value(out, own)


def _write_value(out: bytearray, value: Any) -> None:
    if value is None or isinstance(value, bool):
        out.append({None: _NONE, False: _FALSE, True: _TRUE}[value])
    elif isinstance(value, int):
        _write_number(out, value + _INTEGER)
    elif isinstance(value, float):
        out.append(_FLOAT)
        out += struct.pack("<d", value)
    elif isinstance(value, str):
        if value in _WORDS:
            out.append(_WORD)
            _write_number(out, _WORDS.index(value))
        else:
            text = value.encode()
            out.append(_TEXT)
            _write_number(out, len(text))
            out += text
    else:
        out.append(_OBJECT)
        _write_object(out, value)


def read_architecture(data: bytes) -> tuple[tuple[Layer, ...], tuple[int, ...], int]:
    """Return layers, shape of the input and the number of bytes that were read.

    Raises:
        FileFormatError: it is not an architecture.
    """
    reader = _Reader(data)
    try:
        shape = tuple(reader.number() for _ in range(reader.number(8)))
        layers = tuple(reader.object() for _ in range(reader.number(_MOST_LAYERS)))
    except (TypeError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"damaged architecture: {error}") from error
    if not shape or min(shape) < 1 or not layers:
        raise FileFormatError("damaged architecture: no layers, or no input")
    for layer in layers:
        if not isinstance(layer, Layer):
            raise FileFormatError(f"damaged architecture: {layer!r} is not a layer")
    return layers, shape, reader.position


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.position : self.position + count]
        if len(piece) < count:
            raise FileFormatError("truncated within the architecture")
        self.position += count
        return piece

    def number(self, most: int = _LARGEST) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if number > most or shift > 56:
                raise FileFormatError(f"damaged architecture: a number is above {most}")
            if byte < 128:
                return number

    def object(self, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise FileFormatError("damaged architecture: settings are nested within settings")
        number = self.number(max(_CLASSES))
        if number not in _CLASSES:
            raise FileFormatError(f"damaged architecture: there is no class {number}")
        cls, names = _CLASSES[number]
        if cls is tuple:
            return tuple(self.value(depth) for _ in range(self.number(_LONGEST)))
        present = self.number((1 << len(names)) - 1)
        return cls(**{name: self.value(depth) for i, name in enumerate(names) if present >> i & 1})

    def value(self, depth: int) -> Any:
        tag = self.number()
        if tag >= _INTEGER:
            return tag - _INTEGER
        if tag == _FLOAT:
            value = struct.unpack("<d", self.take(8))[0]
            if not math.isfinite(value):
                raise FileFormatError("damaged architecture: a setting is not finite")
            return value
        if tag == _WORD:
            return _WORDS[self.number(len(_WORDS) - 1)]
        if tag == _TEXT:
            return self.take(self.number(1 << 16)).decode()
        if tag == _OBJECT:
            return self.object(depth + 1)
        return {_NONE: None, _FALSE: False, _TRUE: True}[tag]
