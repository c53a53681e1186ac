"""The network: layers compiled for the C engine over one arena."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.engine.memory import LARGEST, lowered, needed_bytes
from gradprune.errors import ExplosionError, NonFiniteError, NumericalError
from gradprune.foundation import streams
from gradprune.foundation.checks import check_finite, real_array, seed_number, whole
from gradprune.layers.base import Flags, Layer, Masks, Wiring
from gradprune.layers.coupling import normalized_products
from gradprune.layers.graph import (
    Node,
    named_layers,
    plan,
    sample_shape,
    sequence,
)
from gradprune.losses.base import Loss, LossLike, SoftTarget, Target
from gradprune.losses.cross_entropy import CrossEntropy
from gradprune.losses.table import get_loss, loss_name
from gradprune.losses.targets import check_labels
from gradprune.optim.guards import Guard
from gradprune.optim.optimizers.base import Around, Optimizer, Paced, StepInfo
from gradprune.state.arena import Arena, Tensor
from gradprune.state.batching import cuts
from gradprune.state.copying import Whole
from gradprune.state.costs import Costs, to_costs
from gradprune.state.locking import locked

__all__ = ["Network"]

Floats = NDArray[np.float32]

# Attributes that ``_build`` makes.
_DERIVED = {
    *("steps", "output_shape", "outputs", "arena", "parameters", "buffers", "masks"),
    *("core_layers", "_core_names", "_net", "_guard"),
}
_BLOCK_STREAMS = 1 << 32  # between those of two blocks of one parameter


class Network(Whole):
    """Layers over one arena: forward and backward passes, steps and masks.

    Args:
        layers: such as ``Dense``, ``Conv2D``, ``BatchNorm`` or ``LSTM``, each of which reads the
            one before it unless its ``inputs`` name others; or an ``Input``.
        input_shape: features of a sample, or its shape: (time, features) for recurrent layers; or
            what the last layer's call on it returned.
        seed: the seed of initial weights and dropout, 0 <= seed < 2**64.
        loss: what it is trained and measured by; see the attribute.

    Attributes:
        layers: the layers, each with a name.
        buffers: name to float32 view of what is not trained: running means and variances of
            ``BatchNorm``. Passes in training change them.
        masks: name of a prunable parameter to read-only bool view, True = kept.
        optimizer: the last optimizer made for this network.
        pruner: the last pruner made for this network.
        quantizer: the last quantizer made for this network; steps go through it.
        last_loss: the loss of the last backward pass.
        exploded: whether a layer's output went beyond the guard's limit in it.
        refused: whether the optimizer's guard has left out the step of the last backward pass;
            its gradients are then not to be learned from.
        forward_count: training passes so far; addresses dropout's masks.
        steps: the layers in order, with what each reads and the shapes around it.
        core_layers: (name, what the core runs) in order; a Dense and its activation are two.
    """

    slots = ("quantizer", "optimizer", "pruner")

    def __init__(
        self,
        layers: Sequence[Layer] | Node,
        input_shape: SupportsIndex | Sequence[int] | Node,
        *,
        seed: int = 0,
        loss: LossLike | None = None,
    ) -> None:
        if isinstance(layers, Node) or isinstance(input_shape, Node):
            layers, input_shape = sequence(layers, input_shape)
        self.layers = named_layers(layers)
        self.input_shape = sample_shape(input_shape)
        self.seed = seed_number(seed)
        self._begin()
        self._build()
        self.loss = loss
        self.initialize()

    @classmethod
    def blank(cls, layers: Sequence[Layer], input_shape: Sequence[int], *, seed: int = 0) -> Self:
        """Make a network with parameters and buffers of 0, to be filled with those of a file."""
        network = cls.__new__(cls)
        network.layers = named_layers(layers)
        network.input_shape = sample_shape(input_shape)
        network.seed = seed_number(seed)
        network._begin()
        network._build()
        return network

    def _begin(self) -> None:
        """What there is before anything has happened."""
        self.optimizer: Optimizer | None = None
        self.pruner: Paced | None = None
        self.quantizer: Around | None = None
        self._loss: Loss | None = None
        self.last_loss = 0.0
        self.exploded = False
        self.refused = False
        self.forward_count = 0

    def _build(self) -> None:
        """The arena and the core's network."""
        self.steps = plan(self.layers, self.input_shape)
        tensors: list[Tensor] = []
        for layer, _, shape, _ in self.steps:
            group = len({tensor.group for tensor in tensors})
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
        self.arena = Arena(tensors)
        if (needed := needed_bytes(self.steps)) > LARGEST:
            raise MemoryError(f"the network needs {needed:,} bytes for one sample")
        self.buffers = self.arena.buffers
        self.masks = self.arena.masks

        offsets: dict[str, dict[str, int]] = {step.layer.name or "": {} for step in self.steps}
        for name, offset in self.arena.offsets.items():
            layer_name, _, role = name.partition(".")
            offsets[layer_name][role] = offset
        self.core_layers = core = lowered(self.steps, offsets)
        self._core_names = [name for name, _ in core]
        self._net = _core.Net([low for _, low in core])
        self._guard: Guard | None = None  # whose limits the core knows

    @locked
    def initialize(self) -> None:
        """Draw all weights anew from the seed, and forget running statistics; masks stay."""
        number = 0
        for layer, _, shape, _ in self.steps:
            for parameter in layer.tensors(shape):
                view = self.arena.state[f"{layer.name}.{parameter.role}"]
                if parameter.initializer is None:
                    view[...] = 0.0
                else:
                    rows, columns = parameter.shape[0], prod(parameter.shape[1:])
                    for block, values in enumerate(np.split(view, parameter.blocks)):
                        with np.errstate(over="ignore"):  # reported below
                            drawn = parameter.initializer.sample(
                                (rows // parameter.blocks, columns),
                                seed=self.seed,
                                stream=streams.INITIAL_WEIGHTS.at(number + block * _BLOCK_STREAMS),
                            )
                        values[...] = drawn.reshape(values.shape)
                    if not math.isfinite(_core.norm(view, 2.0)):
                        raise ValueError(
                            f"{parameter.initializer} starts {layer.name}.{parameter.role} with "
                            "numbers that are not finite"
                        )
                number += 1
        self.arena.settle()

    @property
    def parameters(self) -> Mapping[str, Floats]:
        """The parameters by name: float32 views, in forward order, whose writes count.

        The views are real and writable: what is written counts at the next call. What is written
        where the mask removes a weight is gone at the next call, or when this is asked for again.
        """
        return self.arena.parameters

    # ---- copies, see ``copying`` ------------------------------------------------------------

    def copy(self) -> Self:
        """Return an independent model in the same state, which trains on with the same bits.

        Optimizer, pruner and quantizer are copied, too: ``model.copy().optimizer`` belongs to the
        copy. ``copy.copy``, ``copy.deepcopy``, ``pickle`` and joblib take the same: weights, masks,
        gradients, moments, what clippers, guards and schedules remember, statistics, history and
        all counters, and objects of classes of your own. A copy of an optimizer, pruner or
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
        self._build()
        self.arena.restore(arrays)

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """A re-entrant lock: while a thread holds it, no other one changes the model.

        Every method that changes the state, or reads it as a whole, takes it itself. Hold it around
        several calls that belong together, and around what reads or writes a view.

        >>> from gradprune.layers import Dense
        >>> network = Network([Dense(2)], 3)
        >>> with network.lock:
        ...     weights = network.parameters["dense0.weight"].copy()
        """
        return self.arena.lock

    @property
    def gradients(self) -> Mapping[str, Floats]:
        """The gradients by name: float32 views, filled by ``backward``, 0 where removed.

        ``train_step`` and ``fit`` do not write the gradients of sparse layers there until they are
        asked for here: after them, ask again rather than read an array taken before.
        """
        return self.arena.gradients

    @property
    def costs(self) -> Costs:
        """The table of shares up to which a layer runs on lists of its live weights.

        A model begins with what ``gp.costs.get_costs`` gives and keeps it; copies, ``shrink`` and
        the
        file take it along. It decides about the last bits of results. A new one, a ``Costs`` or
        four shares, counts from the next call on.

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
        ``train_step`` and ``fit`` remember the one that they were given; None until then, which
        stands for "cross_entropy". It may be set.
        """
        return None if self._loss is None else loss_name(self._loss)

    @loss.setter
    def loss(self, loss: LossLike | None) -> None:
        self._loss = None if loss is None else self.loss_for(loss).lasting

    def loss_for(self, loss: LossLike | None) -> Loss:
        """Return the loss that is given, else the model's, else cross entropy.

        Raises:
            ValueError: there is no such loss, or it is not one for so many outputs.
        """
        chosen = get_loss(loss) if loss is not None else self._loss or CrossEntropy()
        chosen.check(self.outputs)
        return chosen

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is removed."""
        return self.arena.sparsity

    @property
    def ends_with_softmax(self) -> bool:
        """Whether predictions are probabilities."""
        return self.core_layers[-1][1].type == "softmax"

    def set_mask(self, name: str, mask: ArrayLike) -> None:
        """Replace one mask; see ``set_masks``."""
        self.set_masks({name: mask})

    def set_masks(self, masks: Mapping[str, ArrayLike]) -> None:
        """Replace masks, all or none; weights, gradients and moments change in the same call.

        Args:
            masks: parameter name to an array of its shape, 1 = kept.

        Raises:
            KeyError: not a prunable parameter.
            ValueError: a wrong shape or a value that is not 0 or 1.
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

    # ---- calls into the core -----------------------------------------------------------------

    def backward(self, x: ArrayLike, y: ArrayLike | None, *, loss: LossLike | None = None) -> float:
        """Run a forward and a backward pass: fill ``gradients`` and return the mean loss.

        Dropout is active. Gradients of removed weights are exactly 0.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            y: cross_entropy: (n,) integer labels; mse and bce: (n, outputs) real numbers, or (n,)
                if there is one output.
            loss: "cross_entropy", "mse" or "bce", or a loss such as ``CrossEntropy`` or
                ``Distillation``, which ``model.loss`` remembers; None: ``model.loss``.

        Returns:
            The mean loss, l1 and l2 penalties of the layers included.

        Raises:
            TypeError, ValueError: an array or name is not as above; nothing is changed.
        """
        chosen = self.loss_for(loss)
        inputs, targets = self.batch(x, y, chosen)
        guard = None if self.optimizer is None else self.optimizer.guard
        with self.lock:
            self._pass(inputs, targets, None, chosen, guard)
            self._loss = chosen.lasting
            return self.last_loss

    @locked
    def _pass(
        self,
        inputs: Floats,
        targets: Target,
        index: NDArray[np.int64] | None,
        loss: Loss,
        guard: Guard | None,
    ) -> int:
        """``backward`` on rows of arrays; the number of samples classified correctly."""
        self.check_batch_size(len(inputs if index is None else index))
        self._watch(guard)
        self.refused = False
        try:
            self.last_loss, correct = self._net.backward(
                self.arena.core, inputs, targets, index, loss.core, self.seed, self.forward_count
            )
        except ValueError:
            self._check_labels(targets)
            raise
        self.exploded = self._net.exploded
        self.forward_count += 1
        return correct

    def train_step(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        optimizer: Optimizer,
        loss: LossLike | None = None,
    ) -> tuple[float, StepInfo]:
        """Run ``backward`` and ``optimizer.step()`` in one call of the core, with the same bits.

        Returns:
            (mean loss before the step, what the step did).
        """
        chosen = self.loss_for(loss)
        inputs, targets = self.batch(x, y, chosen)
        with self.lock:
            value, _, info = self.train_on(inputs, targets, None, chosen, optimizer)
            self._loss = chosen.lasting
        return value, info

    def train_on(
        self,
        inputs: Floats,
        targets: Target,
        index: NDArray[np.int64] | None,
        loss: Loss,
        optimizer: Optimizer,
    ) -> tuple[float, int, StepInfo]:
        """Run ``train_step`` on rows ``index`` of arrays that ``batch`` has prepared.

        While the weights are quantized in two calls of the core: the quantizer comes in between.

        Returns:
            (mean loss, samples classified correctly, what the step did).
        """
        if optimizer.model is not self:
            raise ValueError("the optimizer was made for another model")
        with self.arena.lock:
            if self.quantizer is not None and self.quantizer.is_active:
                correct = self._pass(inputs, targets, index, loss, optimizer.guard)
                info = optimizer.step()
                return self.last_loss, correct, info
            self.check_batch_size(len(inputs if index is None else index))
            lr = optimizer.lr
            clip, rule = optimizer.begin()
            self._watch(optimizer.guard)
            try:
                self.last_loss, correct, done = self._net.train(
                    self.arena.core,
                    inputs,
                    targets,
                    index,
                    loss.core,
                    self.seed,
                    self.forward_count,
                    clip,
                    rule,
                    optimizer.core_moments,
                    optimizer.parameter_norms,
                )
            except ValueError:
                self._check_labels(targets)
                raise
            self.exploded = self._net.exploded
            self.forward_count += 1
            return self.last_loss, correct, optimizer.finish(done, lr)

    def _watch(self, guard: Guard | None) -> None:
        """Tell the core the limits of this guard."""
        if guard is not self._guard:
            max_activation, max_gradient, _ = (math.inf,) * 3 if guard is None else guard.limits
            self._net.set_limits(max_activation, max_gradient)
            self._guard = guard

    def predict(self, x: ArrayLike) -> Floats:
        """Return the outputs for samples, without dropout.

        Args:
            x: (n, *input_shape) real numbers, all finite.

        Returns:
            (n, outputs) float32.
        """
        inputs = self.rows(x)
        out = np.empty((len(inputs), self.outputs), np.float32)
        with self.lock:
            self._net.predict(self.arena.core, inputs, out)
        return out

    def loss_and_outputs(
        self, x: ArrayLike, y: ArrayLike | SoftTarget | None, loss: Loss
    ) -> tuple[float, int, Floats]:
        """Return (mean loss with penalties, samples that are right, outputs), without dropout."""
        inputs, targets = self.batch(x, y, loss)
        out = np.empty((len(inputs), self.outputs), np.float32)
        with self.lock:
            try:
                value, correct = self._net.evaluate(
                    self.arena.core, inputs, targets, loss.core, out
                )
            except ValueError:
                self._check_labels(targets)
                raise
        return value, correct, out

    def _check_labels(self, targets: Target) -> None:
        """What the core has refused: a label beyond the outputs says what it could mean."""
        labels = targets.labels if isinstance(targets, SoftTarget) else targets
        if labels.dtype == np.int64:
            check_labels(labels, self.outputs)

    @locked
    def is_sparse(self, layer: str, *, batch_size: int = 64) -> bool:
        """Return whether a layer runs on lists of its live weights, because they are few enough.

        ``costs`` says what is few enough.
        """
        return any(
            name == layer and self._net.is_sparse(self.arena.core, position, batch_size)
            for position, (name, _) in enumerate(self.core_layers)
        )

    @property
    def smallest_batch(self) -> int:
        """The samples that a training batch needs: 2 if a layer normalizes over it, else 1."""
        return 1 if self._first_normalization is None else 2

    @property
    def _first_normalization(self) -> str | None:
        """The first layer that has one number of a channel in each sample."""
        return next(
            (str(s.layer.name) for s in self.steps if s.layer.smallest_batch(s.shape) > 1), None
        )

    def steps_per_epoch(self, samples: SupportsIndex, batch_size: SupportsIndex = 32) -> int:
        """Return how many steps ``fit`` takes over so many samples, for schedules.

        ceil(samples / batch_size); one less if a last batch would have one sample and
        ``BatchNorm`` needs two, so that it joins the batch before.

        >>> from gradprune.layers import BatchNorm, Dense
        >>> [Network([layer], 3).steps_per_epoch(65, 32) for layer in (Dense(2), BatchNorm())]
        [3, 2]
        """
        count, size = whole("samples", samples, least=1), whole("batch_size", batch_size, least=1)
        return len(cuts(count, size, self.smallest_batch))

    def check_batch_size(self, size: int) -> None:
        """Raise a ValueError if a batch has too few samples to normalize over."""
        if size < self.smallest_batch:
            raise ValueError(
                f"{self._first_normalization} normalizes by the variance of a batch: it needs more "
                "than one number of each channel in training, got a batch of one sample"
            )

    # ---- checks --------------------------------------------------------------------------------

    def rows(self, x: ArrayLike) -> Floats:
        """Return x as C-contiguous float32 (n, features)."""
        array = real_array("x", x)
        if array.shape[1:] != self.input_shape or array.ndim == 0:
            wanted = ", ".join(["n", *map(str, self.input_shape)])
            raise ValueError(f"x must have shape ({wanted}), got {array.shape}")
        return array.reshape(len(array), prod(self.input_shape))

    def batch(
        self, x: ArrayLike, y: ArrayLike | SoftTarget | None, loss: Loss
    ) -> tuple[Floats, Target]:
        """Return x and y as the core takes them; a TypeError or ValueError says what is wrong."""
        inputs = self.rows(x)
        if len(inputs) == 0:
            raise ValueError("the batch is empty")
        targets = loss.target(inputs.reshape(-1, *self.input_shape), y, self.outputs)
        rows = len(targets.labels if isinstance(targets, SoftTarget) else targets)
        if len(inputs) != rows:
            raise ValueError(f"x and y must have the same length, got {len(inputs)} and {rows}")
        return inputs, targets

    def check_finite(self) -> None:
        """Raise a NonFiniteError that names the first weight or buffer that is not finite.

        What a removed weight holds does not count.
        """
        with self.lock:
            self.arena.settle()
            if math.isfinite(_core.norm(self.arena.params, 2.0)):
                return
            for name, values in self.arena.state.items():
                bad = ~np.isfinite(values)
                if bad.any():
                    index = tuple(map(int, np.unravel_index(bad.argmax(), bad.shape)))
                    raise NonFiniteError.of_parameter(
                        "parameter", name, index, float(values[index])
                    )

    def checked_batch(
        self, x: ArrayLike, y: ArrayLike | SoftTarget | None, loss: Loss, suffix: str = ""
    ) -> tuple[Floats, Target]:
        """Check every value as ``batch`` does its shapes, before any work starts.

        Args:
            x: as for ``batch``.
            y: likewise.
            loss: the loss of the targets.
            suffix: what messages say behind the names x and y.
        """
        inputs, targets = self.batch(x, y, loss)
        check_finite(f"x{suffix}", inputs)
        labels = targets.labels if isinstance(targets, SoftTarget) else targets
        if loss.is_classification:
            check_labels(labels, self.outputs, f"y{suffix}")
        else:
            check_finite(f"y{suffix}", labels)
        return inputs, targets

    def find_fault(self, norm: float = math.nan) -> NumericalError:
        """Return the first bad number of the last backward pass, as an error to raise.

        Bad is what is not finite or beyond the limits of the optimizer's guard, in the order of
        computation: for each layer its parameters and then its output, the loss, the gradients
        from the last layer back. An ExplosionError if the number is finite.

        Args:
            norm: the norm of the gradient; if finite and every number is good it is to blame.
        """
        with self.lock:
            fault = self._net.fault(self.arena.core)
            if fault is None:
                return self._norm_fault(norm)
        phase, position, is_bias, is_recurrent, row, column, step, value = fault
        kind = ExplosionError if math.isfinite(value) else NonFiniteError
        if position < 0:
            return NonFiniteError(f"the loss is {self.last_loss}", phase=phase, value=value)
        layer = self._core_names[position]
        if phase == "forward":
            what = f"{value:.9g}" if math.isfinite(value) else "not finite"
            place = f"feature {column}" if step < 0 else f"step {step}, unit {column}"
            return kind(
                f"forward: output of {layer} is {what} at sample {row}, {place}",
                phase=phase,
                layer=layer,
                index=(row, column) if step < 0 else (row, step, column),
                step=None if step < 0 else step,
                value=value,
            )
        owner = next(own for own in self.layers if own.name == layer)
        name = f"{layer}.{owner.role(is_bias=bool(is_bias), is_second=bool(is_recurrent))}"
        index = self._place(name, 0 if is_bias else row, column)
        what = name if phase == "parameter" else f"gradient of {name}"
        return kind(
            f"{phase}: {what}[{', '.join(map(str, index))}] is {value:.9g}",
            phase=phase,
            layer=layer,
            parameter=name,
            index=index,
            value=value,
        )

    def _place(self, name: str, row: int, column: int) -> tuple[int, ...]:
        """Where a parameter has what the core calls a row and a column of its matrix."""
        shape = self.parameters[name].shape
        return tuple(map(int, np.unravel_index(row * prod(shape[1:]) + column, shape)))

    @locked
    def _norm_fault(self, norm: float) -> NumericalError:
        """The gradient's norm, with the largest entry; if not finite the entries were mended."""
        if not math.isfinite(norm):
            return NonFiniteError("the gradient's norm is not finite", phase="backward")
        grads = self.arena.grads
        position = int(np.abs(grads).argmax())
        tensor = next(
            t for t in self.arena.stored if position < self.arena.offsets[t.name] + t.size
        )
        place = np.unravel_index(position - self.arena.offsets[tensor.name], tensor.shape)
        index, value = tuple(map(int, place)), float(grads[position])
        return ExplosionError(
            f"backward: the gradient's norm is {norm:.9g}; its largest entry, "
            f"{tensor.name}[{', '.join(map(str, index))}], is {value:.9g}",
            phase="backward",
            layer=tensor.name.partition(".")[0],
            parameter=tensor.name,
            index=index,
            value=value,
        )


def silent_rows(layer: Layer, masks: Masks) -> Flags:
    """Return which rows of the layer's W are all removed."""
    mask = masks[f"{layer.name}.weight"]
    kept: Flags = np.any(mask.reshape(len(mask), -1), axis=1)
    return ~kept
