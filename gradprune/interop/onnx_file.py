"""Files of ONNX as a stranger may have written them: parsed, and every array checked, or refused.

A protobuf is data: nothing in it is executed. What a tensor says of its size is compared with the
bytes that the file has for it before an array is made. Arrays in files beside it (external data)
are read from the file's own folder alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import FileFormatError
from gradprune.foundation.disk import read
from gradprune.interop.onnx_graph import import_onnx

__all__ = ["OnnxFile", "opened"]

_MOST_BYTES = 2**31 - 1  # of a protobuf
_OLDEST = 11  # of the operator sets that are read
_MOST_AXES = 64

# Of onnx.TensorProto: the number of a type to the array's, and the field of its numbers where they
# are not raw bytes.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    2: ("|u1", "int32_data"),
    3: ("|i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
}
_FLOAT16 = 10
_EXTERNAL = 1  # of onnx.TensorProto.DataLocation


class OnnxFile:
    """A parsed file.

    Attributes:
        graph: its GraphProto.
        opset: the version of ONNX's operators.
        nbytes: its size, with that of the files beside it that were read.
        where: its name, for messages.
    """

    def __init__(self, data: bytes, where: str, folder: Path | None) -> None:
        onnx = import_onnx()
        self.where, self.nbytes, self._folder = where, len(data), folder
        try:
            model = onnx.ModelProto.FromString(data)
        except Exception as error:  # of protobuf, whose class depends on its version
            raise FileFormatError(f"{where} is no ONNX file, or is damaged: {error}") from None
        if not model.HasField("graph") or not model.graph.node or not model.graph.output:
            raise FileFormatError(f"{where} is no ONNX file: it holds no graph")
        versions = [own.version for own in model.opset_import if own.domain in {"", "ai.onnx"}]
        if not versions or min(versions) < _OLDEST:
            raise FileFormatError(
                f"{where} needs operators of version {min(versions, default=0)}; {_OLDEST} and "
                "later ones are read"
            )
        if any(isinstance(text, bytes) for text in _texts(model.graph)):
            raise FileFormatError(f"{where} is damaged: a name in it is not in UTF-8")
        self.graph: Any = model.graph
        self.opset: int = max(versions)

    def array(self, tensor: Any) -> NDArray[Any]:
        """Return the numbers of a TensorProto.

        Raises:
            FileFormatError: it says of itself what is not so.
        """
        name = tensor.name or "a constant"
        if tensor.data_type not in _TYPES:
            raise FileFormatError(f"{self.where}: {name} has numbers of an unknown type")
        dtype, field = _TYPES[tensor.data_type]
        shape = tuple(tensor.dims)
        if len(shape) > _MOST_AXES or min(shape, default=0) < 0:
            raise FileFormatError(f"{self.where}: {name} has the shape {shape[:_MOST_AXES]}")
        count, size = prod(shape), np.dtype(dtype).itemsize
        if tensor.data_location == _EXTERNAL:
            data = self._outside(tensor, count * size)
        elif tensor.HasField("raw_data"):
            data = tensor.raw_data
        else:
            numbers = getattr(tensor, field)
            if len(numbers) != count:
                raise FileFormatError(
                    f"{self.where}: {name} has {len(numbers):,} numbers, and shape {shape}"
                )
            if tensor.data_type == _FLOAT16:
                return np.array(numbers, np.int32).astype(np.uint16).view(dtype).reshape(shape)
            array = np.array(numbers, np.float64 if field == "double_data" else None)
            return array.astype(dtype).reshape(shape)
        if len(data) != count * size:
            raise FileFormatError(
                f"{self.where}: {name} has {len(data):,} bytes, and shape {shape} of {size} bytes "
                "each"
            )
        return np.frombuffer(data, dtype).reshape(shape)

    def _outside(self, tensor: Any, nbytes: int) -> bytes:
        """The bytes of a tensor in a file beside this one."""
        own: Mapping[str, str] = {entry.key: entry.value for entry in tensor.external_data}
        location = own.get("location", "")
        if self._folder is None:
            raise FileFormatError(
                f"{self.where}: {tensor.name} is in another file, {location!r}, so pass the path"
            )
        folder = os.path.realpath(self._folder)
        path = os.path.realpath(os.path.join(folder, location))
        if os.path.isabs(location) or os.path.commonpath([folder, path]) != folder:
            raise FileFormatError(
                f"{self.where}: {tensor.name} is outside of the file's folder, in {location!r}"
            )
        try:
            offset, length = int(own.get("offset", 0)), int(own.get("length", nbytes))
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FileFormatError(f"{self.where}: {location!r} is no regular file")
                if length != nbytes or not 0 <= offset <= status.st_size - length:
                    raise FileFormatError(
                        f"{self.where}: {tensor.name} takes {nbytes:,} bytes, and {location!r} has "
                        f"{status.st_size:,}, of which {length:,} from {offset:,} on are its"
                    )
                file.seek(offset)
                self.nbytes += length
                return file.read(length)
        except (OSError, ValueError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(
                f"{self.where}: {tensor.name} is in {location!r}: {error}"
            ) from error


def _texts(graph: Any) -> Iterator[object]:
    """The names in a graph; protobuf gives bytes for those that are no text."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (own.name for own in node.attribute)
        yield from (text for own in node.metadata_props for text in (own.key, own.value))
    for put in (*graph.input, *graph.output):
        yield put.name
        yield from (dim.dim_param for dim in put.type.tensor_type.shape.dim)
    tensors = [*graph.initializer]
    tensors += [own.t for node in graph.node for own in node.attribute if own.HasField("t")]
    for tensor in tensors:
        yield tensor.name
        yield from (text for own in tensor.external_data for text in (own.key, own.value))


def opened(source: str | os.PathLike[str] | bytes) -> OnnxFile:
    """Read a file, or the bytes of one.

    Raises:
        OSError: it cannot be read.
        FileFormatError: it is no file of ONNX, is damaged, or says of itself what is not so.
        TypeError: it is neither a path nor bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return OnnxFile(_small(bytes(source), "the file"), "the file", None)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"from_onnx takes a path or bytes, got {type(source).__name__}")
    path = Path(source)
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise FileFormatError(f"{path} is larger than 2 GiB, as no file of ONNX is")
    return OnnxFile(_small(read(path), str(path)), str(path), path.parent)


def _small(data: bytes, where: str) -> bytes:
    if len(data) > _MOST_BYTES:
        raise FileFormatError(f"{where} is larger than 2 GiB, as no file of ONNX is")
    return data
