"""Graphs of ONNX whose products run on 8-bit integers, in the form that onnxruntime recognizes.

Around each product stand QuantizeLinear and DequantizeLinear (QDQ): its input is rounded to bytes,
one scale and zero point for all samples; its weight is in the file as int8 with a scale for each
output, its bias as int32. onnxruntime replaces such a group by one operation on integers:
QLinearConv, QGemm or MatMulIntegerToFloat. What a convolution makes is rounded, too, behind a relu
if one follows.

Tensors that a maximum or a change of shape only passes on keep their scale, so that these run on
bytes, too.

CPUs without VNNI add two products of bytes in 16 bits, and what does not fit is cut off in silence.
So weights have 7 bits, -64..64, with which it always fits.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_graph import INPUT, Graph, OnnxNode
from gradprune.interop.onnx_network import Product, Written

__all__ = ["Range", "measured", "on_integers"]

Range = tuple[float, float]

_PASSING = {"MaxPool", "GlobalMaxPool", "Flatten", "Reshape", "Squeeze", "Transpose"}
_BOUNDING = {"Relu", "Clip"}  # behind which a convolution is rounded
_MOST = 64  # of a weight: two of them times 255 are less than 2**15
_MARGIN = 1.1  # of ranges, since other samples go a little beyond, and would be cut off
_LEAST = 1e-30  # of scales
_BIAS = 2.0**30  # a bias is less than so many of its units


def measured(written: Written) -> list[str]:
    """Return the tensors of which it must be known in which range their numbers are."""
    graph, names = written.graph, dict[str, None]()
    for product in written.products:
        names[_root(graph, product.node.inputs[0])] = None
        if product.node.op == "Conv":
            names[_root(graph, _rounded_output(graph, product.node))] = None
    return list(names)


def on_integers(written: Written, ranges: Mapping[str, Range], layers: Collection[str]) -> Graph:
    """Return the graph with the products of these layers on integers.

    Args:
        written: the network with float32 numbers.
        ranges: of each tensor that ``measured`` names the least and the largest number.
        layers: the names of layers with a product.
    """
    graph = copy.deepcopy(written.graph)
    nodes = {node.name: node for node in graph.nodes}
    rounded: dict[str, tuple[str, str]] = {}  # tensor to its scale and zero point
    for product in written.products:
        if product.layer not in layers:
            continue
        node = nodes[product.node.name]
        tensors = [node.inputs[0]]
        if node.op == "Conv":
            tensors.append(_rounded_output(graph, node))
        for tensor in tensors:
            root = _root(graph, tensor)
            if root not in rounded:
                rounded[root] = _add_range(graph, root, ranges[root])
            rounded[tensor] = rounded[root]
        scale = float(graph.constants[rounded[tensors[0]][0]])
        _round_weight(graph, node, product, scale)
    for tensor, parameters in rounded.items():
        _round_tensor(graph, tensor, parameters)
    return graph


def _root(graph: Graph, tensor: str) -> str:
    """The tensor whose numbers these are."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    while tensor in makers and makers[tensor].op in _PASSING:
        tensor = makers[tensor].inputs[0]
    return tensor


def _rounded_output(graph: Graph, node: OnnxNode) -> str:
    """What is rounded of the output of a convolution."""
    tensor = node.outputs[0]
    readers = graph.readers(tensor)
    if len(readers) == 1 and readers[0].op in _BOUNDING:
        return readers[0].outputs[0]
    return tensor


def _add_range(graph: Graph, tensor: str, given: Range) -> tuple[str, str]:
    """Add scale and zero point of a tensor, whose range with 0 takes all 256 numbers."""
    low, high = (_MARGIN * bound for bound in (min(given[0], 0.0), max(given[1], 0.0)))
    scale = np.float32((high - low) / 255)
    if scale < _LEAST:
        scale = np.float32(1)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    return (
        graph.constant(f"{tensor}.scale", np.array(scale)),
        graph.constant(f"{tensor}.zero_point", np.array(zero)),
    )


def _round_tensor(graph: Graph, tensor: str, parameters: tuple[str, str]) -> None:
    """Round a tensor for all that read it."""
    quantize = OnnxNode(
        "QuantizeLinear",
        [tensor, *parameters],
        [graph.unused(f"{tensor}.quantized")],
        graph.unused(f"{tensor}.quantizelinear"),
    )
    dequantize = OnnxNode(
        "DequantizeLinear",
        [quantize.outputs[0], *parameters],
        [graph.unused(f"{tensor}.rounded")],
        graph.unused(f"{tensor}.dequantizelinear"),
    )
    if tensor == INPUT:
        for node in graph.readers(tensor):
            node.inputs = [
                dequantize.outputs[0] if name == tensor else name for name in node.inputs
            ]
        graph.nodes[:0] = [quantize, dequantize]
        return
    position, maker = next((i, n) for i, n in enumerate(graph.nodes) if tensor in n.outputs)
    exact, dequantize.outputs = dequantize.outputs[0], [tensor]
    maker.outputs = [exact if name == tensor else name for name in maker.outputs]
    quantize.inputs[0] = exact
    graph.nodes[position + 1 : position + 1] = [quantize, dequantize]


def _round_weight(graph: Graph, node: OnnxNode, product: Product, scale: float) -> None:
    """Keep the weight of a product as int8 and its bias as int32."""
    weight = graph.constants.pop(product.weight)
    bias = None
    if product.bias is not None and node.op != "MatMul":
        bias = graph.constants.pop(product.bias)
    units = _units(weight, bias, scale)
    shape = (-1, *(1,) * (weight.ndim - 1))
    codes = np.clip(np.rint(weight / units.reshape(shape)), -_MOST, _MOST).astype(np.int8)
    axis = 0
    if node.op == "MatMul":  # whose weight is turned in the file
        turned = next(n for n in graph.nodes if product.weight in n.inputs)
        graph.nodes.remove(turned)
        codes, axis = codes.T, 1
    node.inputs[1] = _dequantized(graph, node, product.weight, codes, units, axis)
    if bias is not None:
        assert product.bias is not None
        products = (units * np.float32(scale)).astype(np.float32)
        numbers = np.rint(bias / products.astype(np.float64)).astype(np.int32)
        node.inputs[2] = _dequantized(graph, node, product.bias, numbers, products, 0)


def _units(
    weight: NDArray[np.float32], bias: NDArray[np.float32] | None, scale: float
) -> NDArray[np.float32]:
    """The scale of each row, by its largest weight and so that its bias is a number of int32."""
    units = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64) / _MOST
    if bias is not None:
        units = np.maximum(units, np.abs(bias) / (scale * _BIAS))
    return np.where(units < _LEAST, 1.0, units).astype(np.float32)


def _dequantized(
    graph: Graph,
    node: OnnxNode,
    name: str,
    codes: NDArray[np.int8] | NDArray[np.int32],
    units: NDArray[np.float32],
    axis: int,
) -> str:
    """Add what was a constant as integers and what makes numbers of them, before the node."""
    graph.constants[name] = np.ascontiguousarray(codes)
    scale = graph.constant(f"{name}.scale", units)
    zero = graph.constant(f"{name}.zero_point", np.zeros(len(units), codes.dtype))
    made = graph.unused(f"{name}.dequantized")
    maker = OnnxNode(
        "DequantizeLinear",
        [name, scale, zero],
        [made],
        graph.unused(f"{name}.dequantizelinear"),
        {"axis": axis},
    )
    graph.nodes.insert(graph.nodes.index(node), maker)
    return made
