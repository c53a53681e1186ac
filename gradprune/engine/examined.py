"""Checks of samples before a call, and of the network's numbers after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.compiled import Compiled
from gradprune.errors import ExplosionError, NonFiniteError, NumericalError
from gradprune.foundation.checks import check_finite, check_indexes, flag, real_array, whole
from gradprune.foundation.habits import shape_hint
from gradprune.layers.graph import plan
from gradprune.losses.base import Loss, SoftTarget, Target
from gradprune.losses.targets import check_labels
from gradprune.state.batching import cuts
from gradprune.state.locking import locked

__all__ = ["Examined"]

Floats = NDArray[np.float32]


class Examined(Compiled):
    """A compiled network that checks what it is given, and names the first number that is bad."""

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

    def steps_per_epoch(
        self,
        samples: SupportsIndex,
        batch_size: SupportsIndex = 32,
        *,
        accumulate: SupportsIndex = 1,
    ) -> int:
        """Return how many steps ``fit`` takes over so many samples, for schedules.

        ceil(samples / batch_size) batches, ``accumulate`` of them a step. There is one batch less
        if the last one would have one sample and ``BatchNorm`` needs two, so that it joins the
        batch before.

        >>> from gradprune.engine.network import Network
        >>> from gradprune.layers import BatchNorm, Dense
        >>> [Network([layer], 3).steps_per_epoch(65, 32) for layer in (Dense(2), BatchNorm())]
        [3, 2]
        """
        count, size = whole("samples", samples, least=1), whole("batch_size", batch_size, least=1)
        batches = len(cuts(count, size, self.smallest_batch))
        return -(-batches // whole("accumulate", accumulate, least=1))

    def check_batch_size(self, size: int) -> None:
        """Raise a ValueError if a batch has too few samples to normalize over."""
        if (
            size < 2 and self._first_normalization is not None
        ):  # in each step: layers are asked last
            raise ValueError(
                f"{self._first_normalization} normalizes by the variance of a batch: it needs more "
                "than one number of each channel in training, got a batch of one sample"
            )

    # ---- the state by name ---------------------------------------------------------------------

    @locked
    def get_state(self) -> dict[str, Floats]:
        """Return copies of all parameters and buffers by name, 0 where a weight is removed.

        >>> from gradprune.engine.network import Network
        >>> from gradprune.layers import Dense
        >>> {name: values.shape for name, values in Network([Dense(2)], 3).get_state().items()}
        {'dense0.weight': (2, 3), 'dense0.bias': (2,)}
        """
        return {name: values.copy() for name, values in self.arena.state.items()}

    def set_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Replace all parameters and buffers by what ``get_state`` gives; on an error, none.

        Masks stay: a removed weight stays 0 whatever ``state`` has in its place. Moments of the
        optimizer stay, too.

        Args:
            state: name to an array of its shape.

        Raises:
            KeyError: a name is missing, or a name is unknown.
            ValueError: a shape is wrong, or a number is not finite.
            TypeError: an array does not hold real numbers.
        """
        shapes = {tensor.name: tensor.shape for tensor in self.arena.tensors}
        shapes |= {name: values.shape for name, values in self.buffers.items()}
        missing, unknown = shapes.keys() - state.keys(), state.keys() - shapes.keys()
        if missing or unknown:
            raise KeyError(
                f"the state must have the names of get_state(): missing are {sorted(missing)}, "
                f"unknown are {sorted(unknown)}"
            )
        arrays = {name: real_array(name, state[name]) for name in shapes}
        for name, array in arrays.items():
            if array.shape != shapes[name]:
                raise ValueError(f"{name} must have shape {shapes[name]}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds a number that is not finite")
        with self.lock:
            for name, values in self.arena.state.items():
                values[...] = arrays[name]

    @locked
    def set_trainable(self, names: str | Iterable[str], trainable: bool) -> None:
        """Freeze layers, or let them train again; as ``trainable=`` of a layer does.

        Steps leave the parameters of a frozen layer as they are: no update, no weight decay, and
        its gradients are not part of the norm that clippers and guards use. ``backward`` fills
        these gradients all the same. Moments do not change. A frozen ``BatchNorm`` uses its running
        statistics in training, too, and does not update them, as in Keras. Masks can be changed.
        Copies, files and ``shrink`` keep the setting, which is ``layer.trainable`` in
        ``model.layers``.

        Args:
            names: the name of a layer, or several; "bidirectional0" stands for both directions.
            trainable: whether steps change the layers; False freezes them.

        Raises:
            KeyError: there is no such layer.

        >>> from gradprune.engine.network import Network
        >>> from gradprune.layers import Dense
        >>> from gradprune.optim import SGD
        >>> network = Network([Dense(4), Dense(1)], 2, seed=0)
        >>> network.set_trainable("dense0", False)
        >>> before = network.get_state()
        >>> _ = network.train_step([[1, 2]], [0], loss="mse", optimizer=SGD(network, lr=0.1))
        >>> [bool((before[n] == values).all()) for n, values in network.parameters.items()]
        [True, True, False, False]
        """
        wanted = {names} if isinstance(names, str) else set(names)
        known = [str(layer.name) for layer in self.layers]
        wholes = {name.partition("/")[0] for name in known}
        if unknown := wanted - {*known, *wholes}:
            raise KeyError(f"no layer is called {sorted(unknown)}; there are {known}")
        value = flag("trainable", trainable)
        self.layers = tuple(
            replace(layer, trainable=value)
            if {str(layer.name), str(layer.name).partition("/")[0]} & wanted
            else layer
            for layer in self.layers
        )
        self.steps = plan(self.layers, self.input_shape)
        self._compile()

    @property
    def input_below(self) -> int | None:
        """What the numbers of a sample are below, if they name rows; else None."""
        return min((s.layer.indexes for s in self.steps if s.layer.indexes), default=None)

    # ---- samples -------------------------------------------------------------------------------

    def rows(self, x: ArrayLike) -> Floats:
        """Return x as C-contiguous float32 (n, features)."""
        array = real_array("x", x)
        if array.shape[1:] != self.input_shape or array.ndim == 0:
            wanted = ", ".join(["n", *map(str, self.input_shape)])
            hint = shape_hint(array.shape, self.input_shape)
            raise ValueError(f"x must have shape ({wanted}), got {array.shape}{hint}")
        return array.reshape(len(array), prod(self.input_shape))

    def batch(
        self, x: ArrayLike, y: ArrayLike | SoftTarget | None, loss: Loss
    ) -> tuple[Floats, Target]:
        """Return x and y as the core takes them; a TypeError or ValueError says what is wrong."""
        inputs = self.rows(x)
        if len(inputs) == 0:
            raise ValueError("the batch is empty")
        targets = loss.target(inputs.reshape(-1, *self.input_shape), y, self.output_shape)
        rows = len(targets.labels if isinstance(targets, SoftTarget) else targets)
        if len(inputs) != rows:
            raise ValueError(f"x and y must have the same length, got {len(inputs)} and {rows}")
        return inputs, targets

    def check_finite(self) -> None:
        """Raise a NonFiniteError that names the first weight or buffer that is not finite.

        What a removed weight holds does not count.
        """
        with self.lock:
            if self.arena.core.values_are_finite():
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
        if self.input_below is None:
            check_finite(f"x{suffix}", inputs)
        else:
            check_indexes(f"x{suffix}", inputs, self.input_below)
        labels = targets.labels if isinstance(targets, SoftTarget) else targets
        if loss.is_classification:
            check_labels(labels, self.outputs, f"y{suffix}", ignored=loss.ignored)
        else:
            check_finite(f"y{suffix}", labels)
        return inputs, targets

    def find_fault(self, norm: float = math.nan) -> NumericalError:
        """Return the first bad number of the last backward pass, as an error to raise.

        A number is bad if it is not finite or beyond the limits of the optimizer's guard. Numbers
        are checked in the order of computation: for each layer its parameters and then its output,
        the loss, the gradients from the last layer back. A finite number gives an ExplosionError.

        Args:
            norm: the norm of the gradient; if finite and every number is good it is to blame.
        """
        if self._agreed is not None:
            return self._agreed
        with self.lock:
            fault = self._net.fault(self.arena.core)
            if fault is None:
                return self._norm_fault(norm)
        phase, position, is_bias, is_recurrent, row, column, step, value = fault
        kind = ExplosionError if math.isfinite(value) else NonFiniteError
        if position < 0:
            text = self._loss_fault or f"the loss is {self.last_loss}"
            return NonFiniteError(text, phase=phase, value=value)
        layer = self._core_names[position]
        if phase == "forward":
            what = f"{value:.9g}" if math.isfinite(value) else "not finite"
            shape = self._shape_behind(position)
            if position in self._turned:
                column, step = divmod(column, self._turned[position])
            elif step < 0 and len(shape) == 2:
                step, column = divmod(column, shape[1])
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

    def _shape_behind(self, position: int) -> tuple[int, ...]:
        """Return the shape of what one of the core's layers makes."""
        name = self._core_names[position]
        return next(step.output_shape for step in self.steps if step.layer.name == name)

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
