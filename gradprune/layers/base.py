"""The base class of layers, and the wiring between their inputs and outputs.

A layer says which parameters it has, how it is lowered to the core's layers and how its units
can be cut, and it answers all that others ask about layers; it holds no arrays. To add one: a class
with its ``tensors``, ``lower``, ``wiring`` and ``trace`` in this package, and one C file in
csrc/layers. Nobody else asks which class a layer has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.foundation.checks import flag, settle
from gradprune.foundation.represented import Represented
from gradprune.layers.initializers import Initializer
from gradprune.layers.tracing import Backward, Doubles, Place, Traced

__all__ = [
    "ACTIVATIONS",
    "AllInputs",
    "CoreLayer",
    "Entries",
    "Flags",
    "Layer",
    "Masks",
    "Parameter",
    "Shape",
    "Source",
    "Wiring",
]

# Number by number; softmax is a layer of the core of its own.
ACTIVATIONS = _core.layer_types["activation"]

Shape = tuple[int, ...]
Flags = NDArray[np.bool_]
Masks = Mapping[str, Flags]
Entries = Mapping[str, tuple[Flags, ...]]

_LONGEST_NAME = 255


class CoreLayer(NamedTuple):
    """gp_layer_spec of gradprune.h; offsets of -1 mean "none".

    >>> import gradprune as gp
    >>> layer = gp.Dense(2).lower((3,), {"weight": 0, "bias": 6})[0]
    >>> layer.type, layer.inputs, layer.outputs
    ('dense', 3, 2)
    """

    type: str  # a file of csrc/layers
    inputs: int
    outputs: int
    back: tuple[int, ...] = (1,)  # reads the layers so many before it
    weight: int = -1
    bias: int = -1
    l1: float = 0.0
    l2: float = 0.0
    buffers: int = -1
    steps: int = 1  # of a sequence, at which it does the same
    settings: tuple[float | str, ...] = ()  # numbers and words that the type reads itself


class Parameter(NamedTuple):
    """A parameter or buffer of a layer: role, shape, prunable, and how it starts (None: zeros).

    >>> import gradprune as gp
    >>> [(p.role, p.shape, p.prunable) for p in gp.Dense(2).tensors((3,))]
    [('weight', (2, 3), True), ('bias', (2,), False)]
    """

    role: str
    shape: Shape
    prunable: bool
    initializer: Initializer | None
    blocks: int = 1  # of rows, each drawn by itself
    uses: int = 1  # how often a sample multiplies by each weight
    trainable: bool = True  # False: a buffer, which passes in training write


@dataclass(frozen=True, eq=False)
class Source:
    """A node on which a layer is called, and which the call returns: ``Node`` of the graph.

    Attributes:
        layer: whose output it is, None for an input.
        sources: what that layer reads.
        shape: the shape of a sample.

    >>> import gradprune as gp
    >>> node = gp.Dense(4)(gp.Input(3))
    >>> isinstance(node, gp.layers.Source), node.shape, node.sources[0].layer
    (True, (4,), None)
    """

    layer: Layer | None
    sources: tuple[Source, ...]
    shape: Shape

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({'input' if self.layer is None else self.layer}, shape={self.shape})"


_Source = TypeVar("_Source", bound=Source)
_Scalar = TypeVar("_Scalar", bound=np.generic)


def _name(name: str, value: object) -> str:
    """What a layer may be called: what tables can show, without the dot before a role."""
    if not isinstance(value, str):
        raise TypeError(f"a layer's {name} must be text, got {value!r}")
    if not value or len(value) > _LONGEST_NAME:
        size = f"1 to {_LONGEST_NAME} characters, got {len(value)}"
        raise ValueError(f"a layer's {name} must be of {size}")
    if "." in value or not value.isprintable():
        how = "must hold no dot and printable characters alone"
        raise ValueError(f"a layer's {name} {how}, got {value!r}")
    return str(value)


@dataclass(frozen=True)
class Layer(Represented, ABC):
    """The base class of layers; ``name`` is None until a network gives one.

    ``inputs`` are the names of the layers it reads, () for the one before; calls on what ``Input``
    and other calls return set it. With ``trainable=False`` steps leave the layer's parameters as
    they are; see ``Network.set_trainable``. Shapes are those of a sample, such as (features,) or
    (time, features).

    >>> import gradprune as gp
    >>> layer = gp.Dense(2, activation="relu", name="last")
    >>> isinstance(layer, gp.layers.Layer), layer.output_shape((3,))
    (True, (2,))
    >>> [(tensor.role, tensor.shape) for tensor in layer.tensors((3,))]
    [('weight', (2, 3)), ('bias', (2,))]
    """

    name: str | None = field(default=None, kw_only=True)
    inputs: tuple[str, ...] = field(default=(), kw_only=True, repr=False)
    trainable: bool = field(default=True, kw_only=True, repr=False)

    arity: ClassVar[int | None] = 1  # how many layers it reads; None: two or more
    # Whether a unit of its output is a unit of what it reads; of all that it reads at once, if
    # there are several.
    keeps_units: ClassVar[bool] = True
    # Whether rows of its "weight" are units of its output.
    has_units: ClassVar[bool] = True
    # Whether its output is f(W x + b), x all features of a sample or step, W its "weight" and b its
    # "bias": its units may change places, and they can be fitted by least squares.
    is_product: ClassVar[bool] = False
    # Whether a channel of it is silent if the mask removes all weights of the unit before it.
    has_silent_channels: ClassVar[bool] = False
    # Whether the core computes it on sequences that lie as (features, time), see ``lower_turned``.
    is_turned: ClassVar[bool] = False
    # Whether it divides each sample by its own deviation, which makes small errors large.
    normalizes_samples: ClassVar[bool] = False
    # Whether it reads the input of the network and has buffers that ``measured`` finds on samples,
    # "count" among them, which is 0 until then.
    measures_samples: ClassVar[bool] = False
    acts_by_step: ClassVar[bool] = False  # whether what it makes of a step reads no later one
    padding_fault: ClassVar[str] = "what pads a sequence would get into its other numbers"
    reads_lengths: ClassVar[bool] = False  # whether the core tells it how long sequences are
    # Its place in packed files, which never changes, and its fields in the order of their bits
    # there: new ones go last. None: it cannot be packed.
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = None

    def __post_init__(self) -> None:
        settle(self, _name, "name")
        settle(self, flag, "trainable")
        inputs: object = self.inputs
        if not isinstance(inputs, tuple) or not all(isinstance(name, str) for name in inputs):
            raise TypeError(f"inputs must be a tuple of names of layers, got {inputs!r}")
        object.__setattr__(self, "inputs", tuple(map(str, inputs)))

    def __call__(self, *nodes: _Source | Sequence[_Source]) -> _Source:
        """Return the node that this layer makes of nodes, or of a list of them; see ``Input``.

        Raises:
            TypeError, ValueError: the layer reads another number of inputs, or does not take their
                shapes.
        """
        given: tuple[Any, ...] = nodes
        if len(nodes) == 1 and isinstance(nodes[0], list | tuple):
            given = tuple(nodes[0])
        if not all(isinstance(node, Source) for node in given):
            raise TypeError(
                f"{type(self).__name__} is called on what Input or another layer's call returns, "
                f"got {', '.join(type(node).__name__ for node in given)}"
            )
        shape = self.merge([node.shape for node in given])
        made: _Source = type(given[0])(self, given, self.output_shape(shape))
        return made

    def merge(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape into the layer, from the shapes of all that it reads.

        Raises:
            ValueError: it does not read so many layers, or takes no such shapes together.
        """
        if len(shapes) != self.arity and (self.arity is not None or len(shapes) < 2):
            what = type(self).__name__ if self.name is None else self.name
            number = "one input" if self.arity == 1 else f"{self.arity or 'two or more'} inputs"
            raise ValueError(f"{what} reads {number}, got {len(shapes)}")
        return shapes[0]

    def gather(self, inputs: Sequence[NDArray[_Scalar]]) -> NDArray[_Scalar]:
        """Return what the layer computes with, from all that it reads: (n, *shape) each.

        A layer that reads several does nothing besides.
        """
        return inputs[0]

    def scatter(self, values: NDArray[_Scalar], shapes: Sequence[Shape]) -> list[NDArray[_Scalar]]:
        """Split (n, *shape) into what belongs to each layer that it reads, (n, *its shape)."""
        return [values for _ in shapes]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output shape; raise a ValueError if the layer does not take the input."""
        return shape

    def tensors(self, shape: Shape) -> list[Parameter]:
        """Return parameters and buffers for an input of this shape, in forward order."""
        return []

    @property
    def activation_name(self) -> str:
        """The name of the activation that makes its output, "" if it has none."""
        return ""

    @property
    def output_slope(self) -> float | None:
        """The steepest slope of the last of the core's layers for it.

        None if that is no activation.
        """
        return None

    @property
    def is_linear(self) -> bool:
        """Whether its output is a plain product, W x + b."""
        return False

    @property
    def indexes(self) -> int | None:
        """The number of rows that what it reads names, by whole numbers below it, or None.

        Such a layer reads the input of the network.
        """
        return None

    @property
    def is_elementwise(self) -> bool:
        """Whether ``activation_name`` of a number at its place is all that predictions take of it.

        Without a name it is the number itself.
        """
        return False

    @property
    def label(self) -> str:
        """A word or two about the layer, for tables."""
        return type(self).__name__

    def unit_groups(self) -> int:
        """Return into how many parts units fall that go together with the part that they read."""
        return 1

    def without_activation(self) -> Layer:
        """Return the layer without the activation that makes its output."""
        return self

    def with_units(self, units: int) -> Layer:
        """Return a layer with as many units and otherwise the same, if ``is_product``."""
        raise TypeError(f"the units of {self.name or type(self).__name__} cannot be sorted")

    def linear_form(self, shape: Shape) -> Layer:
        """Return the layer without all that is not linear in its inputs, or not of its weights.

        For weights and inputs of at least 0 relu is the identity, which every activation becomes.

        Raises:
            ValueError: the layer has parameters and no such form.
        """
        if self.tensors(shape):
            kind = type(self).__name__
            raise ValueError(f"there is no flow through {self.name}: {kind} has no linear form")
        return self

    def squared_inputs(self, x: Doubles, states: Doubles) -> dict[str, Doubles]:
        """Return, by role, the sum of the squares of all that each prunable weight multiplies.

        They are of the layer's input (batch, ...) and ``Traced.states`` of it.
        """
        return {}

    def read_rows(self, x: Doubles, values: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """Return, by role, the vectors (groups of rows, uses, columns) that weights multiply."""
        return {}

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """Compute what the engine computes in training, in double precision.

        ``gp.diagnose`` and some criteria ask for it. Formulas come from ``gradprune.reference``,
        which is imported in the function.

        Args:
            parameters: role to values, 0 where removed.
            x: what ``gather`` returns.
            place: where and when the layer runs.

        Raises:
            ValueError: the layer does not say how it is traced.
        """
        if self.arity == 1:
            raise ValueError(f"{type(self).__name__} does not say how it is traced")
        return Traced(x, x, lambda dy: Backward(dy, dy, {}))  # gathering is all that it does

    def measured(self, x: NDArray[np.float32], weights: Doubles | None) -> dict[str, Doubles]:
        """Return the buffers that samples give, by role, of a layer that ``measures_samples``.

        Args:
            x: (n, *shape), all finite.
            weights: (n,) what each sample counts; None: all the same.
        """
        raise TypeError(f"{type(self).__name__} measures no samples")

    def absorbed(
        self, values: Mapping[str, Doubles], shape: Shape, mean: Doubles, scale: Doubles
    ) -> tuple[Layer, Mapping[str, Doubles]] | None:
        """Return what makes of x the same as this layer of (x - mean) / scale, channel by channel.

        Args:
            values: role to parameter, 0 where removed.
            shape: of a sample.
            mean: (channels,), as of a ``Standardize``.
            scale: likewise.

        Returns:
            A layer with weights of the same shapes, and its parameters; None: there is none.
        """
        return None

    def keeps_steps(self, shape: Shape) -> bool | None:
        """Return whether its output has the same steps; None: padding would get into others."""
        return self.acts_by_step or None

    def smallest_batch(self, shape: Shape) -> int:
        """Return how many samples a training batch needs."""
        return 1

    def role(self, *, is_bias: bool, is_second: bool) -> str:
        """Return the role of a weight or bias, of the first or of the second weight matrix."""
        return "bias" if is_bias else "weight"

    @abstractmethod
    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """Return the core's layers; offsets maps a role to its place in the arena."""

    def parts(self, source: str) -> tuple[Layer, ...]:
        """Return the layers that a network has in its place; the last one has its name.

        Args:
            source: the name of the layer that it reads, or ``INPUT`` of the graph.
        """
        return (self,)

    def lower_turned(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """Return the core's layers between sequences that lie as (features, time).

        They run if what the layer reads comes from a layer that ``is_turned``. [] if there are
        none: the sequence is turned back before the layer.
        """
        return []

    def wiring(self, shape: Shape) -> Wiring:
        """Return which outputs depend on which inputs.

        ``AllInputs`` means that nothing can be cut.
        """
        return AllInputs(self, shape)


class Wiring(ABC):
    """Says which outputs of a layer depend on which inputs, and cuts units.

    This is all that ``Model.shrink`` knows of a layer. Flags of features have the shape of a
    sample, such as (features,) or (time, features). A layer that says nothing is ``AllInputs``: it
    reads all inputs and keeps all outputs, which is always right.

    Args:
        layer: the layer.
        shape: the shape of a sample into it.

    ``live`` maps the role of a prunable parameter to its mask. ``known`` has the shape of the
    input: the value of a feature that no sample can change, NaN where samples differ.

    The network sets two attributes. ``silent``, of a BatchNorm: which rows of the weights whose
    product it gets are all removed; None if it gets something else. ``rows_count``, of the layer
    with these weights: whether a BatchNorm asks so, in which case a row that has a live weight
    has to keep one, or it would become silent.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> wiring = gp.Dense(2).wiring((3,))
    >>> live = {"weight": np.array([[True, False, False], [True, True, False]])}
    >>> wiring.reads(live, np.full(3, np.nan), np.array([True, True]))
    array([ True,  True, False])
    """

    def __init__(self, layer: Layer, shape: Shape) -> None:
        self.layer = layer
        self.shape = shape
        self.output_shape = layer.output_shape(shape)
        self.silent: Flags | None = None
        self.rows_count = False

    @abstractmethod
    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """Return which outputs no sample can change."""

    @abstractmethod
    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """Return which outputs stay if ``wanted`` have to: these, and what depends on them."""

    @abstractmethod
    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """Return which inputs the kept outputs need, except those that ``fold`` makes up for."""

    @abstractmethod
    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """Return the layer with these inputs and outputs alone.

        Returns:
            The layer, and role to flags along the leading axes of the parameter, 1 where its
            entries stay; roles that are not named stay whole.
        """

    def passed(self, inputs: Flags, needed: Flags) -> Flags:
        """Return which outputs stay if these inputs do and these outputs have to.

        A layer that cannot drop outputs by itself has those of its inputs.
        """
        return needed

    def joined(self, inputs: Flags) -> Flags:
        """Return which inputs stay if these have to: those, and what cannot go without them."""
        return inputs

    def counting(self, values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the parameters, by role, as the layer computes with them where it stands."""
        return values

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """Return what to add to parameters in place of inputs that go.

        Args:
            values: role to parameter, before the cut.
            gone: values of the inputs that go, 0 elsewhere.

        Returns:
            Role to what is added to it, before the cut.
        """
        return {}


class AllInputs(Wiring):
    """The wiring of a layer of which nothing can be cut.

    >>> import numpy as np
    >>> import gradprune as gp
    >>> wiring = gp.layers.AllInputs(gp.Dense(2), (3,))
    >>> wiring.kept({}, np.array([True, False]))
    array([ True,  True])
    """

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        return np.zeros(self.output_shape, np.bool_)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.output_shape, np.bool_)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        return np.ones(self.shape, np.bool_)

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        return self.layer, {}
