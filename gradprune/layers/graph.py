"""Which layer reads which: layers in an order in which they can run, each with what it reads.

A network is a sequence of layers. One whose ``inputs`` are empty reads the layer before it; else it
reads the layers that they name, ``INPUT`` for the network's input. ``Input`` and calls of layers on
what they return write such a sequence for a network that branches.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, SupportsIndex

from gradprune.foundation.checks import whole
from gradprune.layers.add import Add
from gradprune.layers.base import Layer, Shape, Source

__all__ = ["Input", "Node"]

INPUT = ".input"  # as no layer may be called
OLD_INPUT = "input"  # what files of before say; no layer after it has this name there


class Node(Source):
    """The result of ``Input`` and of calls of layers; ``a + b`` is ``Add()(a, b)``.

    >>> Input(4) + Input(4)
    Node(Add(name=None), shape=(4,))
    """

    def __add__(self, other: Node) -> Node:
        return Add()(self, other)


def Input(shape: SupportsIndex | Sequence[int]) -> Node:  # noqa: N802 - a node, as in Keras
    """The input of a network that branches: layers are called on it, and on what they return.

    What is returned holds no numbers: it knows its ``shape``, that of a sample, and what was called
    on what. ``Model(inputs, outputs)`` makes the network; layers without a name get one there, in
    the order in which they run. A layer with parameters is called once, any node read by several.

    Args:
        shape: features of a sample, or its shape, such as (channels, height, width).

    Raises:
        TypeError, ValueError: sizes are not positive whole numbers, or there are none.

    >>> import gradprune as gp
    >>> x = gp.Input(4)
    >>> y = gp.Dense(4, activation="relu")(x)
    >>> model = gp.Model(x, gp.Dense(2)(x + y), seed=0)
    >>> [layer.name for layer in model.layers], model.layers[1].inputs
    (['dense0', 'add0', 'dense1'], ('.input', 'dense0'))
    """
    return Node(None, (), sample_shape(shape))


def sample_shape(shape: SupportsIndex | Sequence[int]) -> Shape:
    """Return the shape of a sample as a tuple, from a number or a shape."""
    if not isinstance(shape, SupportsIndex | Iterable):
        raise TypeError(f"input_shape must be a number of features or a shape, got {shape!r}")
    sizes = (shape,) if isinstance(shape, SupportsIndex) else tuple(shape)
    if not sizes:
        raise ValueError("input_shape must name at least one size")
    return tuple(whole("input_shape", size, least=1) for size in sizes)


def sequence(inputs: object, outputs: object) -> tuple[tuple[Layer, ...], Shape]:
    """Return the layers that lead from one node to another, in an order in which they can run.

    Raises:
        TypeError: these are no nodes.
        ValueError: ``outputs`` needs another input, does not need this one, or a layer with
            parameters is called twice.
    """
    if not isinstance(inputs, Node) or not isinstance(outputs, Node):
        raise TypeError(
            "a model is Model(layers, input_shape), or Model(inputs, outputs) of what Input and "
            f"calls of layers return, got {inputs!r} and {outputs!r}"
        )
    if inputs.layer is not None:
        raise ValueError(f"a network begins with an Input, got {inputs}")
    order = _in_order(outputs)
    missing = [node for node in order if node.layer is None and node is not inputs]
    if missing or inputs not in order or outputs is inputs:
        raise ValueError("outputs must come from inputs, through layers, and from nothing else")
    nodes = [node for node in order if node.layer is not None]
    own = [node.layer for node in nodes if node.layer is not None]
    for i, node in enumerate(nodes):
        if own[i].tensors(node.sources[0].shape) and any(own[i] is other for other in own[:i]):
            raise ValueError(f"{own[i]!r} is called twice: layers do not share parameters")
    names: dict[Source, str] = {inputs: INPUT}
    names |= dict(zip(nodes, (str(x.name) for x in named_layers(own)), strict=True))
    previous: list[Source] = [inputs, *nodes]
    return tuple(
        dataclasses.replace(
            layer,
            name=names[node],
            inputs=()
            if node.sources == (previous[i],)
            else tuple(names[source] for source in node.sources),
        )
        for i, (layer, node) in enumerate(zip(own, nodes, strict=True))
    ), inputs.shape


def _in_order(last: Source) -> list[Source]:
    """All that a node needs and then itself, every node behind those that it reads."""
    order: dict[Source, None] = {}
    waiting = [last]
    while waiting:
        node = waiting[-1]
        left = [source for source in node.sources if source not in order]
        if left:
            waiting += reversed(left)
        else:
            order[waiting.pop()] = None
    return list(order)


def named_layers(layers: object) -> tuple[Layer, ...]:
    """Return the layers with names: "dense0", "dense1", ... by type where none was given."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a sequence of layers such as Dense, got {layers!r}")
    layers = tuple(layers)
    if not layers:
        raise ValueError("a network needs at least one layer")
    seen: Counter[str] = Counter()
    named = []
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            ends = "; Model(inputs, outputs) takes one of each" if isinstance(layer, Node) else ""
            raise TypeError(
                f"layers[{position}] must be a layer such as Dense, got {layer!r}{ends}"
            )
        kind = type(layer).__name__.lower()
        named.append(
            layer if layer.name else dataclasses.replace(layer, name=f"{kind}{seen[kind]}")
        )
        seen[kind] += 1
    names = [layer.name for layer in named]
    if len(set(names)) < len(names):
        raise ValueError(f"layer names must differ, got {names}")
    return tuple(named)


def with_parts(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return layers that have names, with their parts in place of those that stand for several."""
    parts: list[Layer] = []
    before = INPUT
    for layer in layers:
        parts += layer.parts(layer.inputs[0] if layer.inputs else before)
        before = str(layer.name)
    return named_layers(parts)


class Step(NamedTuple):
    """A layer in its network: what it reads, and the shapes.

    Attributes:
        layer: the layer, with its name.
        sources: positions of the layers it reads, -1 for the network's input.
        shape: the shape of a sample into it.
        output_shape: the shape of a sample out of it.
    """

    layer: Layer
    sources: tuple[int, ...]
    shape: Shape
    output_shape: Shape


def plan(layers: Sequence[Layer], input_shape: Shape) -> tuple[Step, ...]:
    """Return what each layer of a network reads, and the shapes between them.

    Args:
        layers: with names.
        input_shape: the shape of a sample.

    Raises:
        ValueError: a layer reads what does not come before it, or does not take its shape, or
            nothing reads a layer that is not the last.
    """
    positions = {INPUT: -1, OLD_INPUT: -1}
    steps: list[Step] = []
    read: set[int] = set()
    for position, layer in enumerate(layers):
        unknown = [name for name in layer.inputs if name not in positions]
        if unknown:
            raise ValueError(f"{layer.name} reads {unknown}, which do not come before it")
        sources = tuple(positions[name] for name in layer.inputs) or (position - 1,)
        if layer.indexes is not None and sources != (-1,):
            raise ValueError(f"{layer.name} looks up what the network's input names: it is first")
        if layer.measures_samples and sources != (-1,):
            raise ValueError(
                f"{layer.name} standardizes the network's input: it is the first layer; behind "
                "others write gp.BatchNorm()"
            )
        read |= set(sources)
        shapes = [input_shape if source < 0 else steps[source].output_shape for source in sources]
        shape = layer.merge(shapes)
        steps.append(Step(layer, sources, shape, layer.output_shape(shape)))
        positions[str(layer.name)] = position
    idle = [str(layer.name) for i, layer in enumerate(layers[:-1]) if i not in read]
    if idle:
        raise ValueError(f"nothing reads the output of {', '.join(idle)}")
    return tuple(steps)
