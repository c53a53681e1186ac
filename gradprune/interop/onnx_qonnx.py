"""Quantized weights in QONNX, for tools that make circuits: bit widths, scales and zero points.

A weight on a grid is its value behind a ``Quant`` (``BipolarQuant`` for 1 bit) of the domain
``qonnx.custom_op.general``. QONNX has no node for shared values that are no grid: these are codes
of 8 or 16 bits and a ``Gather`` of the codebook. What comes out is the weight, bit for bit.

Source: Pappalardo et al. 2022, "QONNX: Representing Arbitrary-Precision Quantized Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_graph import QONNX, Graph
from gradprune.quantization.grids import Grid
from gradprune.quantization.quantizer import Quantizer
from gradprune.quantization.schemes import Coding

__all__ = ["quantized_parameters"]

Floats = NDArray[np.float32]

_INT64 = 7  # of onnx.TensorProto


def quantized_parameters(
    quantizer: Quantizer, prunable: Callable[[str], bool]
) -> Callable[[Graph, str, str, Floats], str]:
    """Return what adds a parameter to a graph: with its quantization where there is one.

    Args:
        quantizer: one that has quantized.
        prunable: whether a parameter is prunable, by its name.
    """

    def add(graph: Graph, own: str, name: str, values: Floats) -> str:
        if own not in quantizer.quantized:
            return graph.constant(name, values)
        coding = quantizer.coding(own)
        if not np.array_equal(coding.decode(), values):  # a channel that is silent
            return graph.constant(name, values)
        scheme = quantizer.weights if prunable(own) else quantizer.biases
        if isinstance(scheme, Grid):
            return _on_grid(graph, name, values, scheme, coding)
        return _shared(graph, name, coding)

    return add


def _on_grid(graph: Graph, name: str, values: Floats, grid: Grid, coding: Coding) -> str:
    assert coding.scale is not None
    assert coding.zero_point is not None
    shape = (-1, *(1,) * (values.ndim - 1)) if len(coding.scale) > 1 else ()
    scales = np.where(coding.scale > 0, coding.scale, np.float32(1))  # all weights are 0
    tensor = graph.constant(name, values)
    scale = graph.constant(f"{name}.scale", scales.reshape(shape))
    if grid.bits == 1 and values.all():
        return graph.node("BipolarQuant", tensor, scale, at=name, domain=QONNX)
    zero = graph.constant(f"{name}.zero_point", coding.zero_point.astype(np.float32).reshape(shape))
    # Of 1 bit a removed weight is a third value: these are the numbers of 2 bits.
    bits = graph.constant(f"{name}.bits", np.array(max(grid.bits, 2), np.float32))
    return graph.node(
        "Quant",
        tensor,
        scale,
        zero,
        bits,
        at=name,
        domain=QONNX,
        signed=int(grid.symmetric),
        narrow=int(grid.symmetric),
        rounding_mode="ROUND",
    )


def _shared(graph: Graph, name: str, coding: Coding) -> str:
    """Codes, and the values that they stand for, with 0 as one more for what is removed."""
    assert coding.values is not None
    values = np.pad(coding.values, [(0, 0)] * (coding.values.ndim - 1) + [(0, 1)])
    count = values.shape[-1]
    codes = np.where(coding.codes < 0, count - 1, coding.codes)
    kind = np.uint8 if count <= 2**8 else np.uint16
    rows = codes if values.ndim == 1 else codes.reshape(len(codes), -1)
    table = graph.constant(f"{name}.values", values)
    stored = graph.constant(f"{name}.codes", rows.astype(kind))
    index = graph.node("Cast", stored, at=name, to=_INT64)
    if values.ndim == 1:
        return graph.node("Gather", table, index, at=name, axis=0)
    found = graph.node("GatherElements", table, index, at=name, axis=1)
    if rows.shape == codes.shape:
        return found
    return graph.node(
        "Reshape", found, graph.constant(f"{name}.shape", np.array(codes.shape)), at=name
    )
