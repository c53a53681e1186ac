"""Networks as files of ONNX."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.foundation.checks import check_finite, whole
from gradprune.foundation.disk import check_writable, write_atomically
from gradprune.interop.onnx_correction import corrected, without_normalization
from gradprune.interop.onnx_graph import (
    INPUT,
    OUTPUT,
    Graph,
    check_opset,
    import_onnx,
    import_onnxruntime,
)
from gradprune.interop.onnx_int8 import Range, measured, on_integers
from gradprune.interop.onnx_network import Written, written
from gradprune.interop.onnx_qonnx import quantized_parameters
from gradprune.quantization.mixed_precision import (
    fewest_exact,
    largest_outputs,
    layers_normalized_behind,
    relative_error,
)
from gradprune.state.threads import get_num_threads
from gradprune.training.trainee import Trainee

__all__ = ["PRECISIONS", "OnnxReport", "to_onnx"]

PRECISIONS = ("float32", "int8", "qonnx")

_TOLERANCES = {"float32": 1e-5, "int8": 0.05, "qonnx": 1e-5}
_BATCH = 256  # samples that are measured at once

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OnnxReport:
    """What ``Model.to_onnx`` wrote; ``print`` shows it.

    Attributes:
        path: the file.
        precision: as asked for.
        nbytes: the size of the file.
        integers: the names of the layers whose products run on integers, or whose weights are
            quantized.
        exact: the names of the layers that stay float32 so that the error is small enough.
        error: of "int8", what was measured: the largest error relative to the largest output of
            16 samples; else 0.
        tolerance: for ``gp.verify``, an error relative to the largest output: 1e-5, and 0.05 with
            "int8".
    """

    path: str
    precision: str
    nbytes: int
    integers: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    error: float = 0.0
    tolerance: float = 1e-5

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.precision}, {self.nbytes:,} bytes"]
        if self.precision == "int8":
            lines.append(f"on integers: {', '.join(self.integers) or 'nothing'}")
            lines.append(f"largest error by rounding {self.error:.2g} of the largest output")
        if self.exact:
            lines.append(f"float32 so that it is no more: {', '.join(self.exact)}")
        return "\n".join(lines)

    __repr__ = __str__


def to_onnx(
    model: Trainee,
    path: str | os.PathLike[str],
    *,
    precision: str,
    x: ArrayLike | None,
    opset: SupportsIndex,
) -> OnnxReport:
    """Write a model to a file of ONNX; see ``Model.to_onnx``."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    import_onnx()
    version = whole("opset", opset)
    check_opset(version)
    check_writable(path)
    if precision == "int8":
        return _write_int8(model, path, version, _samples(model, x))
    if x is not None:
        raise ValueError(f'x is for precision="int8", not {precision!r}')
    if precision == "float32":
        return _write(model, path, precision, written(model, version).graph)
    quantizer = model.quantizer
    if quantizer is None or not quantizer.is_active:
        raise ValueError(
            'precision="qonnx" writes quantized weights, and the model has none: call '
            "gp.Quantizer(model, gp.Grid(4)).quantize() first"
        )
    with model.lock:
        parameters = quantized_parameters(quantizer, model.masks.__contains__)
        graph = written(model, version, parameters).graph
        layers = dict.fromkeys(name.partition(".")[0] for name in quantizer.quantized)
    return _write(model, path, precision, graph, integers=tuple(layers))


def _samples(model: Trainee, x: ArrayLike | None) -> Floats:
    """The samples that scales and errors are measured on, as they go into the file."""
    if x is None:
        raise ValueError(
            'precision="int8" measures the range of each tensor: x must be samples such as will be '
            "predicted, a few hundred do"
        )
    import_onnxruntime()
    rows = model.rows(x)
    if len(rows) == 0:
        raise ValueError("x must hold at least one sample")
    check_finite("x", rows)
    model.check_finite()
    return rows.reshape(-1, *model.input_shape)


def _write_int8(
    model: Trainee, path: str | os.PathLike[str], version: int, x: Floats
) -> OnnxReport:
    with model.lock:
        result = without_normalization(written(model, version))
        amplified = layers_normalized_behind(model)
    run = _Runner(model)
    ranges = _ranges(run, result, x)
    products = [product.layer for product in result.products]
    expected = run(result.graph, x)
    sizes = largest_outputs(expected)

    def integers(exact: Collection[int]) -> list[str]:
        return [name for i, name in enumerate(products) if i not in exact]

    def quantized(exact: Collection[int]) -> Graph:
        chosen = integers(exact)
        return corrected(
            result,
            chosen,
            lambda own: on_integers(own, ranges, chosen),
            lambda graph, tensors: _means(run, graph, tensors, x),
        )

    def error(exact: tuple[int, ...]) -> float:
        return relative_error(run(quantized(exact), x), expected, sizes)

    given = tuple(i for i, name in enumerate(products) if name in amplified)
    exact, worst = fewest_exact(range(len(products)), given, error)
    return _write(
        model,
        path,
        "int8",
        quantized(exact),
        integers=tuple(integers(exact)),
        exact=tuple(products[i] for i in exact),
        error=worst,
    )


class _Runner:
    """Runs graphs of a model in onnxruntime, in batches."""

    def __init__(self, model: Trainee) -> None:
        self.model = model
        self._onnxruntime = import_onnxruntime()
        self._options = self._onnxruntime.SessionOptions()
        self._options.log_severity_level = 3
        self._options.intra_op_num_threads = get_num_threads()

    def __call__(self, graph: Graph, x: Floats) -> Floats:
        """Return the outputs for all samples, (n, outputs)."""
        parts = [batch for (batch,) in self.batches(graph, x, (OUTPUT,))]
        return np.concatenate(parts).reshape(len(x), -1)

    def batches(self, graph: Graph, x: Floats, tensors: Sequence[str]) -> Iterator[list[Floats]]:
        """Yield them batch by batch, of the shapes that they have."""
        more = [name for name in tensors if name not in {INPUT, OUTPUT}]
        data = graph.to_bytes(self.model.input_shape, self.model.output_shape, more)
        session = self._onnxruntime.InferenceSession(
            data, self._options, providers=["CPUExecutionProvider"]
        )
        wanted = [name for name in tensors if name != INPUT] or [OUTPUT]
        for start in range(0, len(x), _BATCH):
            batch = x[start : start + _BATCH]
            found = dict(zip(wanted, session.run(wanted, {INPUT: batch}), strict=True))
            yield [batch if name == INPUT else found[name] for name in tensors]


def _ranges(run: _Runner, result: Written, x: Floats) -> dict[str, Range]:
    """The least and the largest number of each tensor that is to be rounded."""
    tensors = measured(result)
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    for batch in run.batches(result.graph, x, tensors) if tensors else ():
        for name, numbers in zip(tensors, batch, strict=True):
            low[name] = min(low[name], float(numbers.min()))
            high[name] = max(high[name], float(numbers.max()))
    return {name: (low[name], high[name]) for name in tensors}


def _means(
    run: _Runner, graph: Graph, tensors: Mapping[str, int], x: Floats
) -> list[NDArray[np.float64]]:
    """The mean of each channel of tensors, given the axis of their channels."""
    totals, counts = [np.zeros(1) for _ in tensors], [0 for _ in tensors]
    for batch in run.batches(graph, x, [*tensors]):
        for i, (numbers, axis) in enumerate(zip(batch, tensors.values(), strict=True)):
            rows = np.moveaxis(numbers, axis, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            totals[i] = totals[i] + rows.sum(axis=0, dtype=np.float64)
            counts[i] += len(rows)
    return [total / count for total, count in zip(totals, counts, strict=True)]


def _write(
    model: Trainee,
    path: str | os.PathLike[str],
    precision: str,
    graph: Graph,
    *,
    integers: tuple[str, ...] = (),
    exact: tuple[str, ...] = (),
    error: float = 0.0,
) -> OnnxReport:
    tolerance = _TOLERANCES[precision]
    graph.properties |= {
        "gradprune.precision": precision,
        "gradprune.tolerance": repr(tolerance),
        "gradprune.error": repr(error),
    }
    data = graph.to_bytes(model.input_shape, model.output_shape)
    write_atomically(path, data)
    return OnnxReport(os.fspath(path), precision, len(data), integers, exact, error, tolerance)
