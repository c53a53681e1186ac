"""What every layer answers.

A layer says which parameters it has, how it is lowered to the core's layers and how its units
can be cut; it holds no arrays. To add one: a class with its ``tensors``, ``lower`` and ``wiring``
in this package, and one C file in csrc/layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, NamedTuple, TypeVar

from gradprune.foundation.checks import settle
from gradprune.layers.initializers import Initializer
from gradprune.layers.wiring import Whole, Wiring

__all__ = ["ACTIVATIONS", "CoreLayer", "CoreType", "Layer", "Parameter", "Shape", "Source"]

# gp_activation of gradprune.h. softmax is a layer of the core of its own.
ACTIVATIONS = {"identity": 0, "relu": 1, "leaky_relu": 2, "tanh": 3, "sigmoid": 4, "gelu": 5}

Shape = tuple[int, ...]

_LONGEST_NAME = 255


class CoreType(IntEnum):
    """gp_layer_type of gradprune.h."""

    DENSE = 0
    ACTIVATION = 1
    SOFTMAX = 2
    DROPOUT = 3
    RECURRENT = 4
    CONVOLUTION = 5
    POOLING = 6
    ADD = 7
    BATCHNORM = 8
    LAYERNORM = 9


class CoreLayer(NamedTuple):
    """gp_layer_spec of gradprune.h; offsets of -1 mean "none"."""

    type: int
    inputs: int
    outputs: int
    back: int = 1  # reads the layer so many before it
    other: int = 0  # Add: and this one
    weight: int = -1
    bias: int = -1
    l1: float = 0.0
    l2: float = 0.0
    activation: int = 0
    slope: float = 0.0
    rate: float = 0.0
    cell: int = 0
    steps: int = 0
    sequences: bool = False
    truncation: int = 0
    recurrent_weight: int = -1
    recurrent_bias: int = -1
    orthogonality: float = 0.0
    omega: float = 0.0
    window: tuple[object, ...] = ()  # gp_window, see window.py; () for other layers
    buffers: int = -1
    momentum: float = 0.0
    eps: float = 0.0


class Parameter(NamedTuple):
    """A parameter or buffer of a layer: role, shape, prunable, and how it starts (None: zeros)."""

    role: str
    shape: Shape
    prunable: bool
    initializer: Initializer | None
    blocks: int = 1  # of rows, each drawn by itself
    uses: int = 1  # how often a sample multiplies by each weight
    trainable: bool = True  # False: a buffer, which passes in training write


@dataclass(frozen=True, eq=False)
class Source:
    """What a layer is called on, and what the call returns: ``Node`` of the graph.

    Attributes:
        layer: whose output it is, None for an input.
        sources: what that layer reads.
        shape: of a sample.
    """

    layer: Layer | None
    sources: tuple[Source, ...]
    shape: Shape

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({'input' if self.layer is None else self.layer}, shape={self.shape})"


_Source = TypeVar("_Source", bound=Source)


def _name(name: str, value: object) -> str:
    """What a layer may be called: what tables can show, without the dot before a role."""
    if not isinstance(value, str):
        raise TypeError(f"a layer's {name} must be text, got {value!r}")
    if not value or len(value) > _LONGEST_NAME:
        raise ValueError(
            f"a layer's {name} must be of 1 to {_LONGEST_NAME} characters, got {len(value)}"
        )
    if "." in value or not value.isprintable():
        raise ValueError(
            f"a layer's {name} must hold no dot and printable characters alone, got {value!r}"
        )
    return str(value)


@dataclass(frozen=True)
class Layer(ABC):
    """What every layer answers. ``name`` is None until a network gives one.

    ``inputs`` are the names of the layers it reads, () for the one before; calls on what ``Input``
    and other calls return set it. Shapes are those of a sample, such as (features,) or (time,
    features).
    """

    name: str | None = field(default=None, kw_only=True)
    inputs: tuple[str, ...] = field(default=(), kw_only=True, repr=False)

    arity: ClassVar[int] = 1  # how many layers it reads

    def __post_init__(self) -> None:
        settle(self, _name, "name")
        inputs: object = self.inputs
        if not isinstance(inputs, tuple) or not all(isinstance(name, str) for name in inputs):
            raise TypeError(f"inputs must be a tuple of names of layers, got {inputs!r}")
        object.__setattr__(self, "inputs", tuple(map(str, inputs)))

    def __call__(self, *nodes: _Source) -> _Source:
        """What this layer makes of other nodes; see ``gradprune.Input``.

        Raises:
            TypeError, ValueError: these are not as many nodes as the layer reads, or it does not
                take their shapes.
        """
        if not all(isinstance(node, Source) for node in nodes):
            raise TypeError(
                f"{type(self).__name__} is called on what Input or another layer's call returns, "
                f"got {', '.join(type(node).__name__ for node in nodes)}"
            )
        shape = self.merge([node.shape for node in nodes])
        return type(nodes[0])(self, nodes, self.output_shape(shape))

    def merge(self, shapes: Sequence[Shape]) -> Shape:
        """The shape into the layer, from those of all that it reads.

        Raises:
            ValueError: it does not read so many layers, or takes no such shapes together.
        """
        if len(shapes) != self.arity:
            what = type(self).__name__ if self.name is None else self.name
            number = "one input" if self.arity == 1 else f"{self.arity} inputs"
            raise ValueError(f"{what} reads {number}, got {len(shapes)}")
        return shapes[0]

    def output_shape(self, shape: Shape) -> Shape:
        """Shape out for shape in; a ValueError if the layer does not take it."""
        return shape

    def tensors(self, shape: Shape) -> list[Parameter]:
        """Parameters and buffers for an input of this shape, in forward order."""
        return []

    @abstractmethod
    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """The core's layers; offsets maps a role to its place in the arena."""

    def wiring(self, shape: Shape) -> Wiring:
        """Which outputs depend on which inputs, and how units are cut; ``Whole``: not at all."""
        return Whole(self, shape)
