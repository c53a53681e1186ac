"""A network as a graph of ONNX, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.interop.onnx_graph import INPUT, OUTPUT, Graph, OnnxNode, Produced, check_size
from gradprune.interop.onnx_layers import KINDS, LayerWriter, reshaped
from gradprune.state.locking import locked

__all__ = ["Parameters", "Product", "Written", "plain", "written"]

Floats = NDArray[np.float32]
# Adds a parameter: the graph, its name in the network, its name there, its values.
Parameters = Callable[[Graph, str, str, Floats], str]

_PRODUCTS = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True)
class Product:
    """A product with a weight: the layer, its operation, and its constants.

    The bias of a MatMul is added behind it.
    """

    layer: str
    node: OnnxNode
    weight: str
    bias: str | None


@dataclass
class Written:
    """A network as a graph.

    Attributes:
        graph: the graph.
        products: those of Dense and Conv2D.
    """

    graph: Graph
    products: list[Product] = field(default_factory=list)


def plain(graph: Graph, own: str, name: str, values: Floats) -> str:
    """Add a parameter as a constant."""
    return graph.constant(name, values)


@locked
def written(network: Network, opset: int, parameters: Parameters = plain) -> Written:
    """Write the network as it is now.

    Args:
        network: the network.
        opset: the version of ONNX's operators.
        parameters: how parameters are kept.

    Raises:
        ValueError: it does not fit into a file.
    """
    sizes = [prod(tensor.shape) for tensor in network.arena.tensors]
    check_size(4 * sum(sizes), len(network.steps))
    result = Written(Graph(opset))
    wirings, state = network.wirings(), network.get_state()
    values = [Produced(INPUT, network.input_shape)]  # of each layer, behind the input
    for (layer, sources, shape, output_shape), wiring in zip(network.steps, wirings, strict=True):
        own, name = str(layer.name), str(layer.name).replace("/", ".")
        roles = [parameter.role for parameter in layer.tensors(shape)]
        arrays = wiring.counting({role: state[f"{own}.{role}"] for role in roles})
        add = partial(_add, result.graph, parameters, own, name)
        writer = LayerWriter(result.graph, name, roles, arrays, add)
        read = [values[source + 1] for source in sources]
        offsets = {role: number for number, role in enumerate(roles)}
        for low in layer.lower(shape, offsets):
            if low.type not in KINDS:
                raise ValueError(f"{own} has no form in ONNX: its core layer is {low.type!r}")
            first = len(result.graph.nodes)
            read = [KINDS[low.type](writer, low, read)]
            result.products += _product(own, result.graph, first)
        values.append(reshaped(writer, read[0], output_shape))
    _finish(result.graph, values[-1].name)
    return result


def _add(
    graph: Graph, parameters: Parameters, layer: str, name: str, role: str, values: Floats
) -> str:
    return parameters(graph, f"{layer}.{role}", f"{name}.{role}", values)


def _product(layer: str, graph: Graph, first: int) -> list[Product]:
    """The product among the nodes of a layer of the core, if there is one."""
    own = graph.nodes[first:]
    found = [node for node in own if node.op in _PRODUCTS]
    if not found or found[0].inputs[1] not in {*graph.constants, own[0].outputs[0]}:
        return []
    node = found[0]
    if node.op == "MatMul":
        return [Product(layer, node, own[0].inputs[0], own[2].inputs[1] if own[2:] else None)]
    return [Product(layer, node, node.inputs[1], node.inputs[2] if node.inputs[2:] else None)]


def _finish(graph: Graph, last: str) -> None:
    """Name the output, which is a tensor of its own."""
    if last == INPUT:
        last = graph.node("Identity", last, at="output")
    graph.name_tensor(last, OUTPUT)
