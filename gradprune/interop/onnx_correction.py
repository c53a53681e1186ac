"""What brings products on integers nearer to those of float32.

A batch normalization behind a product is folded into it, or it would come between the integers.
Rounding a weight moves the mean of an output, because inputs have a mean: what it moves is measured
and taken from the bias. Source: Nagel et al. 2019, "Data-Free Quantization through Weight
Equalization and Bias Correction", section 4.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_graph import Graph
from gradprune.interop.onnx_network import Product, Written

__all__ = ["corrected", "without_normalization"]

# Of tensors, with the axis of their channels: the mean of each channel.
Means = Callable[[Graph, Mapping[str, int]], list[NDArray[np.float64]]]

_SWEEPS = 3


def without_normalization(given: Written) -> Written:
    """Return the graph with normalizations folded into the products before them.

    Products have a bias then, unless they are those of sequences.
    """
    made = copy.deepcopy(given)
    graph, products = made.graph, []
    for product in made.products:
        node, bias = product.node, product.bias
        if node.op != "MatMul" and bias is None:
            rows = len(graph.constants[product.weight])
            bias = graph.constant(f"{product.layer}.bias", np.zeros(rows, np.float32))
            node.inputs.append(bias)
        whole = replace(product, bias=bias)
        readers = graph.readers(node.outputs[0])
        if node.op != "MatMul" and len(readers) == 1 and readers[0].op == "BatchNormalization":
            _fold(graph, whole, readers[0].inputs[1:], float(readers[0].attributes["epsilon"]))
            node.outputs = readers[0].outputs
            graph.nodes.remove(readers[0])
        products.append(whole)
    made.products = products
    return made


def _fold(graph: Graph, product: Product, names: Sequence[str], eps: float) -> None:
    """Make a normalization part of a product."""
    assert product.bias is not None
    gamma, beta, mean, variance = (graph.constants.pop(name).astype(np.float64) for name in names)
    factor = gamma / np.sqrt(variance + eps)
    weight, bias = graph.constants[product.weight], graph.constants[product.bias]
    scaled = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    graph.constants[product.weight] = scaled.astype(np.float32)
    graph.constants[product.bias] = ((bias - mean) * factor + beta).astype(np.float32)


def corrected(
    given: Written, layers: Collection[str], quantized: Callable[[Written], Graph], means: Means
) -> Graph:
    """Return the graph on integers, with biases that make up for what rounding does to the means.

    All are corrected at once, a few times: what one makes up for changes what comes behind it.

    Args:
        given: the graph with float32 numbers.
        layers: those on integers.
        quantized: makes the graph on integers.
        means: runs a graph and gives the means of the channels of tensors.
    """
    chosen = [own for own in given.products if own.layer in layers and own.bias is not None]
    tensors = {own.node.outputs[0]: 1 if own.node.op == "Conv" else -1 for own in chosen}
    if not chosen:
        return quantized(given)
    made = replace(given, graph=copy.deepcopy(given.graph))
    expected = means(given.graph, tensors)
    for _ in range(_SWEEPS):
        found = means(quantized(made), tensors)
        for product, mean, wanted in zip(chosen, found, expected, strict=True):
            assert product.bias is not None
            bias = made.graph.constants[product.bias]
            made.graph.constants[product.bias] = (bias - (mean - wanted)).astype(np.float32)
    return quantized(made)
