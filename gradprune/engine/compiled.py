"""A network compiled for the C engine: layers, the arena with their state, the core's network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.lowering import lowered
from gradprune.engine.memory import LARGEST, needed_bytes
from gradprune.errors import NumericalError
from gradprune.foundation import streams
from gradprune.foundation.checks import seed_number
from gradprune.layers.base import Flags, Layer, Masks, Parameter, Wiring
from gradprune.layers.coupling import normalized_products
from gradprune.layers.graph import (
    Node,
    named_layers,
    plan,
    sample_shape,
    sequence,
    with_parts,
)
from gradprune.losses.base import Loss, LossLike
from gradprune.losses.cross_entropy import CrossEntropy
from gradprune.losses.table import get_loss, loss_name
from gradprune.optim.guards import Guard
from gradprune.optim.optimizers.base import Around, Optimizer, Paced
from gradprune.state.arena import Arena, Tensor, unpacked_mask
from gradprune.state.copying import Whole
from gradprune.state.costs import Costs, to_costs
from gradprune.state.locking import locked

__all__ = ["Compiled", "Start"]

Floats = NDArray[np.float32]
Start = Callable[[Sequence[Tensor]], NDArray[np.uint8] | None]  # the mask to start with

# Attributes that ``_build`` makes.
_DERIVED = {
    *("steps", "output_shape", "outputs", "arena", "parameters", "buffers", "masks"),
    *("core_layers", "_turned", "_core_names", "_net", "_guard"),
}
_BLOCK_STREAMS = 1 << 32  # between those of two blocks of one parameter


class Compiled(Whole):
    """What a network consists of, where it keeps its state, and how it is copied.

    Arguments and attributes are those of ``Network``.
    """

    slots = ("quantizer", "optimizer", "pruner")

    def __init__(
        self,
        layers: Sequence[Layer] | Node,
        input_shape: SupportsIndex | Sequence[int] | Node,
        *,
        seed: int = 0,
        loss: LossLike | None = None,
        start: Start | None = None,
    ) -> None:
        if isinstance(layers, Node) or isinstance(input_shape, Node):
            layers, input_shape = sequence(layers, input_shape)
        self.layers = with_parts(named_layers(layers))
        self.input_shape = sample_shape(input_shape)
        self.seed = seed_number(seed)
        self._begin()
        self._build(start)
        self.loss = loss
        self.initialize()

    @classmethod
    def blank(
        cls,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        *,
        seed: int = 0,
        start: Start | None = None,
    ) -> Self:
        """Make a network with parameters and buffers of 0, to be filled with those of a file."""
        network = cls.__new__(cls)
        network.layers = named_layers(layers)
        network.input_shape = sample_shape(input_shape)
        network.seed = seed_number(seed)
        network._begin()
        network._build(start)
        return network

    def _begin(self) -> None:
        """What there is before anything has happened."""
        self.optimizer: Optimizer | None = None
        self.pruner: Paced | None = None
        self.quantizer: Around | None = None
        self._loss: Loss | None = None
        self.last_loss = 0.0
        self.gathered = 0.0
        self._loss_fault = ""  # what a user's loss function gave that is not finite
        self.exploded = False
        self.refused = False
        self.forward_count = 0
        self._agreed: NumericalError | None = None  # what ranks have found wrong with a step

    def _build(self, start: Start | None) -> None:
        """The arena, with the mask that it starts with, and the core's network."""
        self.steps = plan(self.layers, self.input_shape)
        tensors: list[Tensor] = []
        for layer, _, shape, _ in self.steps:
            group = len({tensor.group for tensor in tensors if tensor.trainable})
            tensors += [
                Tensor(
                    f"{layer.name}.{parameter.role}",
                    parameter.shape,
                    parameter.prunable,
                    group,
                    parameter.trainable,
                )
                for parameter in layer.tensors(shape)
            ]
        self.output_shape = self.steps[-1].output_shape
        self.outputs = prod(self.output_shape)
        self.arena = Arena(tensors, None if start is None else start(tensors))
        if (needed := needed_bytes(self.steps)) > LARGEST:
            raise MemoryError(f"the network needs {needed:,} bytes for one sample")
        self.buffers = self.arena.buffers
        self.masks = self.arena.masks
        self._compile()

    def _compile(self) -> None:
        """Make the core's network of the layers, over the arena."""
        offsets: dict[str, dict[str, int]] = {step.layer.name or "": {} for step in self.steps}
        for name, offset in self.arena.offsets.items():
            layer_name, _, role = name.partition(".")
            offsets[layer_name][role] = offset
        self.core_layers, self._turned = core, _ = lowered(self.steps, offsets)
        self._core_names = [name for name, _ in core]
        self._net = _core.Net([low for _, low in core])
        self._guard: Guard | None = None  # whose limits the core knows
        frozen = {str(layer.name) for layer in self.layers if not layer.trainable}
        self.arena.freeze([tensor.name.partition(".")[0] in frozen for tensor in self.arena.stored])

    @locked
    def initialize(self) -> None:
        """Draw all weights anew from the seed, and forget running statistics; masks stay.

        Live weights get the values that they would get in a network without removed weights. Where
        a matrix has removed weights, only the live ones are drawn if the initializer can do that.
        """
        number = 0
        for layer, _, shape, _ in self.steps:
            for parameter in layer.tensors(shape):
                name = f"{layer.name}.{parameter.role}"
                numbers = self._initial(name, parameter, number)
                if name in self.buffers:
                    self.buffers[name][...] = numbers.reshape(parameter.shape)
                else:
                    self.arena.put_live(name, numbers)
                number += 1

    def _initial(self, name: str, parameter: Parameter, number: int) -> Floats:
        """What a parameter starts with, where it lives."""
        initializer = parameter.initializer
        kept = self.masks.get(name)
        if kept is not None and kept.all():
            kept = None
        if initializer is None:
            size = prod(parameter.shape) if kept is None else int(np.count_nonzero(kept))
            return np.zeros(size, np.float32)
        rows, columns = parameter.shape[0], prod(parameter.shape[1:])
        shape = (rows // parameter.blocks, columns)
        flags = None if kept is None else kept.reshape(parameter.blocks, *shape)
        drawn = []
        for block in range(parameter.blocks):
            stream = streams.INITIAL_WEIGHTS.at(number + block * _BLOCK_STREAMS)
            with np.errstate(over="ignore"):  # reported below
                if flags is None:
                    numbers = initializer.sample(shape, seed=self.seed, stream=stream)
                else:
                    numbers = initializer.sample_live(flags[block], seed=self.seed, stream=stream)
            drawn.append(np.asarray(numbers, np.float32).reshape(-1))
        numbers = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
        if not math.isfinite(_core.norm(numbers, 2.0)):
            raise ValueError(f"{initializer} starts {name} with numbers that are not finite")
        return numbers

    @property
    def parameters(self) -> Mapping[str, Floats]:
        """The parameters by name: float32 views, in forward order, whose writes count.

        Each array is made when it is asked for and shows the model's present values. It may be
        written to: the next call uses the new values, as long as the array is referenced. A value
        that is written to a removed weight is lost at the next call, or when ``parameters`` is read
        again. While no such array is held, sparse layers store their live weights only.
        """
        return self.arena.parameters

    # ---- copies, see ``copying`` ------------------------------------------------------------

    def copy(self) -> Self:
        """Return an independent model in the same state, which trains on with the same bits.

        Optimizer, pruner and quantizer are copied, too: ``model.copy().optimizer`` belongs to the
        copy. ``copy.copy``, ``copy.deepcopy``, ``pickle`` and joblib copy the same state: weights,
        masks, gradients, moments, the states of clippers, guards and schedules, statistics, history
        and all counters, and objects of classes of your own. A copy of an optimizer, pruner or
        quantizer comes with a copy of its model.

        Only unpickle what you trust: reading a pickle can run any code. A file written by ``save``
        is data.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
        >>> optimizer = gp.Adam(model)
        >>> other = model.copy()
        >>> loss = other.train_step([[1, 2, 3]], [0], optimizer=other.optimizer)
        >>> optimizer.step_count, other.optimizer.step_count
        (0, 1)
        """
        return copy.deepcopy(self)

    @property
    def is_whole(self) -> bool:
        """See Whole."""
        return "_net" in vars(self)

    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See Whole."""
        names = vars(self).keys() - _DERIVED
        return {name: getattr(self, name) for name in names}, self.arena.capture()

    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See Whole."""
        self._begin()
        vars(self).update(objects)
        self._build(lambda tensors: unpacked_mask(arrays["mask"], tensors))
        self.arena.restore(arrays)

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """A re-entrant lock: while a thread holds it, no other one changes the model.

        Every method that changes the state, or reads it as a whole, acquires the lock itself. Hold
        it around several calls that belong together, and around code that reads or writes a view.

        >>> from gradprune.engine.network import Network
        >>> from gradprune.layers import Dense
        >>> network = Network([Dense(2)], 3)
        >>> with network.lock:
        ...     weights = network.parameters["dense0.weight"].copy()
        """
        return self.arena.lock

    @property
    def gradients(self) -> Mapping[str, Floats]:
        """The gradients by name: float32 views, filled by ``backward``, 0 where removed.

        As for ``parameters``, an array that is held shows the gradient of the last step.
        """
        return self.arena.gradients

    @property
    def costs(self) -> Costs:
        """The table of shares up to which a layer runs on lists of its live weights.

        A model begins with the table of ``gp.costs.get_costs`` and keeps it; copies, ``shrink`` and
        files keep it too. The choice of kernels changes the last bits of results. A new table, a
        ``Costs`` or four shares, takes effect at the next call.

        >>> from gradprune.engine.network import Network
        >>> from gradprune.layers import Dense
        >>> network = Network([Dense(2)], 4)
        >>> network.set_mask("dense0.weight", [[1, 0, 0, 0], [0, 1, 0, 0]])
        >>> network.costs = (0.0, 0.0, 0.0, 0.3)
        >>> network.is_sparse("dense0", batch_size=64), network.is_sparse("dense0", batch_size=16)
        (True, False)
        """
        return self.arena.costs

    @costs.setter
    def costs(self, table: Costs | Sequence[float]) -> None:
        self.arena.costs = to_costs(table)

    @property
    def loss(self) -> LossLike | None:
        """The loss that the model is trained and measured by if no other one is given.

        A name such as "mse", or a ``CrossEntropy`` with settings of its own. ``backward``,
        ``train_step`` and ``fit`` store the loss that they were given. It is None until then, which
        stands for "cross_entropy". The attribute may be set.
        """
        return None if self._loss is None else loss_name(self._loss)

    @loss.setter
    def loss(self, loss: LossLike | None) -> None:
        self._loss = None if loss is None else self.loss_for(loss).lasting

    def loss_for(self, loss: LossLike | None) -> Loss:
        """Return the loss that is given, else the model's, else cross entropy.

        Raises:
            ValueError: there is no such loss, or it is not one for such outputs.
        """
        chosen = get_loss(loss) if loss is not None else self._loss or CrossEntropy()
        chosen.check(self.output_shape)
        return chosen

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is removed."""
        return self.arena.sparsity

    @property
    def ends_with_softmax(self) -> bool:
        """Whether predictions are probabilities."""
        return self.last_layer.activation_name == "softmax"

    @property
    def last_layer(self) -> Layer:
        """The layer that the core computes last; some that compute nothing may follow."""
        name = self.core_layers[-1][0]
        return next(layer for layer in self.layers if layer.name == name)

    def set_mask(self, name: str, mask: ArrayLike) -> None:
        """Replace one mask; see ``set_masks``."""
        self.set_masks({name: mask})

    def set_masks(self, masks: Mapping[str, ArrayLike]) -> None:
        """Replace masks, all or none; weights, gradients and moments change in the same call.

        Args:
            masks: parameter name to an array of its shape, 1 = kept.

        Raises:
            KeyError: a name is not that of a prunable parameter.
            ValueError: a mask has a wrong shape or a value that is not 0 or 1.
        """
        self.arena.set_masks(masks)

    @locked
    def wirings(self) -> list[Wiring]:
        """The wiring of every layer, in forward order: what its outputs depend on."""
        wirings = [step.layer.wiring(step.shape) for step in self.steps]
        for norm, product in normalized_products(self.steps).items():
            wirings[norm].silent = silent_rows(self.layers[product], self.masks)
            wirings[product].rows_count = True
        return wirings


def silent_rows(layer: Layer, masks: Masks) -> Flags:
    """Return which rows of the layer's W are all removed."""
    mask = masks[f"{layer.name}.weight"]
    kept: Flags = np.any(mask.reshape(len(mask), -1), axis=1)
    return ~kept
