"""Recurrent layers: RNN, LSTM and GRU, trained by backpropagation through time.

A sample is (time, features), the state before the first step 0. Weights, biases and the order of
gates are torch's, so they travel both ways.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune.foundation.checks import LARGEST_SIZE, choice, flag, not_negative, settle, whole
from gradprune.layers.base import (
    CoreLayer,
    Entries,
    Flags,
    Layer,
    Masks,
    Parameter,
    Shape,
    Wiring,
)
from gradprune.layers.initializers import Glorot, Initializer, Orthogonal
from gradprune.layers.tracing import Backward, Doubles, Place, Traced
from gradprune.layers.wiring import at_least_one

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


_PACKED = (
    *("units", "name", "return_sequences", "truncation", "bias"),
    *("initializer", "recurrent_initializer", "l1", "l2", "orthogonality"),
)


class _Step(NamedTuple):
    """A step of a cell. zi = W_ih x_t + b_ih, zh = W_hh h_(t-1) + b_hh."""

    h: Doubles
    c: Doubles  # of the LSTM alone
    # dh, dc -> dzi, dzh, what reaches h_(t-1) past W_hh, dc_(t-1)
    backward: Callable[[Doubles, Doubles], tuple[Doubles, Doubles, Doubles, Doubles]]


@dataclass(frozen=True)
class Recurrent(Layer):
    """The base class of recurrent layers.

    Args:
        units: size of the state.
        return_sequences: give the state after every step, (time, units), rather than the last one,
            (units,).
        truncation: backpropagation through time is cut into pieces of so many steps: gradients do
            not pass from step k * truncation to the one before. None: they pass all the way.
        bias: whether there are ``bias_ih`` and ``bias_hh``; they start at 0.
        initializer: the initializer of ``weight_ih``, gate by gate; None means Glorot.
        recurrent_initializer: that of ``weight_hh``, gate by gate; None means orthogonal.
        l1, l2: add l1 * sum|W| + l2 * sum W^2 over both weights to the loss.
        orthogonality: adds orthogonality * sum over gates of |W_hh^T W_hh - 1|^2 (Frobenius) to
            the loss; Vorontsov et al. 2017's soft constraint.
        name: given by the network as "rnn0", "lstm0", ... if None.

    >>> isinstance(GRU(5), Recurrent), GRU(5, return_sequences=True).output_shape((7, 3))
    (True, (7, 5))
    """

    reads_lengths: ClassVar[bool] = True
    _cell: ClassVar[str]
    _has_cells: ClassVar[bool] = False
    _gates: ClassVar[int]

    units: int
    return_sequences: bool = field(default=False, kw_only=True)
    truncation: int | None = field(default=None, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)
    recurrent_initializer: Initializer | None = field(default=None, kw_only=True)
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)
    orthogonality: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "units", "truncation", least=1, most=LARGEST_SIZE)
        settle(self, flag, "return_sequences", "bias")
        settle(self, not_negative, "l1", "l2", "orthogonality", single=True)
        for role in ("initializer", "recurrent_initializer"):
            given = getattr(self, role)
            if given is not None and not isinstance(given, Initializer):
                raise TypeError(f"{role} must be an initializer or None, got {given!r}")

    def output_shape(self, shape: Shape) -> Shape:
        """See Layer."""
        steps, _ = self._steps(shape)
        return (steps, self.units) if self.return_sequences else (self.units,)

    def keeps_steps(self, shape: Shape) -> bool | None:
        """See Layer."""
        return self.return_sequences

    def tensors(self, shape: Shape) -> list[Parameter]:
        """See Layer."""
        steps, features = self._steps(shape)
        gates = self._gates
        rows = gates * self.units
        first = self.initializer or Glorot()
        second = self.recurrent_initializer or Orthogonal()
        parameters = [
            Parameter("weight_ih", (rows, features), True, first, gates, steps),
            Parameter("weight_hh", (rows, self.units), True, second, gates, steps),
        ]
        if self.bias:
            parameters += [
                Parameter("bias_ih", (rows,), False, self._bias_initializer()),
                Parameter("bias_hh", (rows,), False, None),
            ]
        return parameters

    def lower(self, shape: Shape, offsets: Mapping[str, int]) -> list[CoreLayer]:
        """See Layer."""
        steps, _ = self._steps(shape)
        return [
            CoreLayer(
                "recurrent",
                prod(shape),
                prod(self.output_shape(shape)),
                weight=offsets["weight_ih"],
                bias=offsets.get("bias_ih", -1),
                l1=self.l1,
                l2=self.l2,
                settings=(
                    self._cell,
                    self._function(),
                    steps,
                    self.return_sequences,
                    self.truncation or 0,
                    offsets["weight_hh"],
                    offsets.get("bias_hh", -1),
                    self.orthogonality,
                    self._omega(),
                ),
            )
        ]

    def wiring(self, shape: Shape) -> Wiring:
        """See Layer."""
        return _RecurrentWiring(self, shape)

    def role(self, *, is_bias: bool, is_second: bool) -> str:
        """See Layer."""
        role = super().role(is_bias=is_bias, is_second=is_second)
        return f"{role}_hh" if is_second else f"{role}_ih"

    def squared_inputs(self, x: Doubles, states: Doubles) -> dict[str, Doubles]:
        """See Layer. W_hh multiplies the state of every step but the last one."""
        read = {"weight_ih": x, "weight_hh": states[:, :-1, : self.units]}
        rows = (self.gates * self.units, 1)
        return {role: np.tile(np.square(v).sum(axis=(0, 1)), rows) for role, v in read.items()}

    def read_rows(self, x: Doubles, values: Mapping[str, Doubles]) -> dict[str, Doubles]:
        """See Layer. W_hh multiplies the states before each step, 0 before the first."""
        states = self.trace(values, x, Place(0, 0, None)).states[:, :-1, : self.units]
        read = {"weight_ih": x, "weight_hh": np.pad(states, ((0, 0), (1, 0), (0, 0)))}
        return {role: v.reshape(1, -1, v.shape[2]) for role, v in read.items()}

    def trace(self, parameters: Mapping[str, Doubles], x: Doubles, place: Place) -> Traced:
        """See Layer.

        By backpropagation through time; ``omega`` acts as in the engine, on the gradient of W_hh.
        """
        from gradprune import reference

        w, u = parameters["weight_ih"], parameters["weight_hh"]
        b_ih, b_hh = (parameters.get(role, np.zeros(len(w))) for role in ("bias_ih", "bias_hh"))
        series = x.reshape(len(x), -1, w.shape[1])
        times = range(series.shape[1])
        zero: Doubles = np.zeros((len(x), self.units))
        steps: list[_Step] = []
        for t in times:
            h, c = (steps[-1].h, steps[-1].c) if steps else (zero, zero)
            steps.append(self._step(series[:, t] @ w.T + b_ih, h @ u.T + b_hh, h, c))
        states = np.stack([done.h for done in steps], axis=1)
        cells = np.stack([done.c for done in steps], axis=1)
        penalty = 0.0
        penalties: dict[str, Doubles] = {}
        for role, weight in (("weight_ih", w), ("weight_hh", u)):
            value, penalties[role] = reference.regularization(weight, l1=self.l1, l2=self.l2)
            penalty += value
        value, slope = reference.orthogonality(u)
        penalty += self.orthogonality * value
        penalties["weight_hh"] += self.orthogonality * slope

        def backward(dy: Doubles) -> Backward:
            gradients = {role: value.copy() for role, value in penalties.items()}
            biases = {"bias_ih": np.zeros(len(w)), "bias_hh": np.zeros(len(w))}
            dx, dstates, dcells = (np.zeros(like.shape) for like in (series, states, cells))
            if self.return_sequences:
                dstates += dy.reshape(states.shape)
            else:
                dstates[:, -1] += dy
            dc, term = zero, 0.0
            for t in reversed(times):
                dcells[:, t] = dc
                dzi, dzh, past, dc = steps[t].backward(dstates[:, t], dc)
                gradients["weight_ih"] += dzi.T @ series[:, t]
                dx[:, t] = dzi @ w
                biases["bias_ih"] += dzi.sum(axis=0)
                biases["bias_hh"] += dzh.sum(axis=0)
                if t == 0:
                    break
                gradients["weight_hh"] += dzh.T @ states[:, t - 1]
                if self.truncation and t % self.truncation == 0:
                    dc = zero
                    continue
                back = dzh @ u
                dstates[:, t - 1] += back + past
                if self._omega():
                    before = states[:, t - 1]
                    terms, direction = reference.omega_terms(dzh, back, before, self._function())
                    term += self._omega() * float(terms.mean())
                    gradients["weight_hh"] += self._omega() / len(x) * (dzh.T @ direction)
            if self.bias:
                gradients |= biases
            all_states = np.concatenate((dstates, dcells), axis=2) if self._has_cells else dstates
            return Backward(dx.reshape(x.shape), all_states, gradients, term)

        output = states if self.return_sequences else states[:, -1]
        all_states = np.concatenate((states, cells), axis=2) if self._has_cells else states
        return Traced(output, all_states, backward, penalty)

    @abstractmethod
    def _step(self, zi: Doubles, zh: Doubles, h: Doubles, c: Doubles) -> _Step:
        """Return a step of the cell from the state h, and c of an LSTM."""

    @property
    def gates(self) -> int:
        """The number of rows of the weights that a unit has."""
        return self._gates

    def _steps(self, shape: Shape) -> tuple[int, int]:
        if len(shape) != 2:
            raise ValueError(
                f"{self.name or type(self).__name__} takes samples of shape (time, features), "
                f"got {shape}"
            )
        return shape[0], shape[1]

    @abstractmethod
    def _function(self) -> str:
        """The activation of the state."""

    def _omega(self) -> float:
        return 0.0

    def _bias_initializer(self) -> Initializer | None:
        return None


class _RecurrentWiring(Wiring):
    """A unit reads what its rows of all gates read, and its own state.

    A unit goes if nobody reads its state: neither the next layer nor a unit that stays. A unit
    that no sample can change, but that others of the layer read, stays too: before the first step
    its state is 0, so no bias could make up for it.
    """

    layer: Recurrent

    def constant(self, live: Masks, known: NDArray[Any]) -> Flags:
        """See Wiring."""
        varies = np.isnan(known).any(axis=0)
        moving: Flags = np.any(self._reads(live["weight_ih"])[:, varies], axis=1)
        moving = _closure(moving, self._reads(live["weight_hh"]))
        return np.broadcast_to(~moving, self.output_shape)

    def kept(self, live: Masks, wanted: Flags) -> Flags:
        """See Wiring."""
        units = at_least_one(self._units(wanted))
        read_by = self._reads(live["weight_hh"]).T
        return np.broadcast_to(_closure(units, read_by), self.output_shape)

    def reads(self, live: Masks, known: NDArray[Any], kept: Flags) -> Flags:
        """See Wiring."""
        folds = (known == known[0]).all(axis=0) & (self.layer.bias | (known[0] == 0))
        read = self._reads(live["weight_ih"])[self._units(kept)].any(axis=0)
        return np.broadcast_to(read & ~folds, self.shape)

    def joined(self, inputs: Flags) -> Flags:
        """See Wiring. Others may read numbers of the same sequences one by one."""
        return np.broadcast_to(inputs.any(axis=0), inputs.shape).copy()

    def cut(self, inputs: Flags, outputs: Flags) -> tuple[Layer, Entries]:
        """See Wiring."""
        units = self._units(outputs)
        rows = np.tile(units, self.layer.gates)
        entries: dict[str, tuple[Flags, ...]] = {
            "weight_ih": (rows, np.any(inputs, axis=0)),
            "weight_hh": (rows, units),
        }
        if self.layer.bias:
            entries |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if inputs.all() and units.all():
            return self.layer, entries
        count = int(np.count_nonzero(units))  # an initializer may be for the old shape alone
        layer = replace(self.layer, units=count, initializer=None, recurrent_initializer=None)
        return layer, entries

    def fold(self, values: Mapping[str, NDArray[Any]], gone: NDArray[Any]) -> dict[str, Any]:
        """See Wiring."""
        columns = np.flatnonzero(gone[0])
        added = values["weight_ih"][:, columns] @ gone[0, columns]
        return {"bias_ih": added} if self.layer.bias else {}

    def _reads(self, mask: Flags) -> Flags:
        """(units, columns): what each unit reads through any of its gates."""
        read: Flags = np.any(mask.reshape(self.layer.gates, self.layer.units, -1), axis=0)
        return read

    def _units(self, outputs: Flags) -> Flags:
        """(units,): those with one of these outputs, at any step."""
        units: Flags = np.any(outputs.reshape(-1, self.layer.units), axis=0)
        return units


def _closure(chosen: Flags, follows: Flags) -> Flags:
    """All that is chosen, or follows (i from j where ``follows[i, j]``) from what is."""
    while True:
        grown = chosen | follows[:, chosen].any(axis=1)
        if np.array_equal(grown, chosen):
            return chosen
        chosen = grown


@dataclass(frozen=True)
class RNN(Recurrent):
    """Elman's network: h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh).

    Args:
        activation: f, "tanh" or "relu".
        omega: weight of Pascanu's regularizer, which keeps the gradient's norm as it travels back:
            adds omega * mean over samples of sum_t (|dE/da_t W_hh diag f'(a_(t-1))| / |dE/da_t|
            - 1)^2 to the loss of training, a_t the argument of f. Its gradient reaches W_hh alone,
            with everything but the W_hh that is written here held constant, as in the paper;
            steps whose gradient has vanished (below 1e-30) are left out, and so is the term when
            the loss is only evaluated.
        units, return_sequences, truncation, bias, initializer: see ``Recurrent``.
        recurrent_initializer, l1, l2, orthogonality, name: see ``Recurrent``.

    Source: Elman 1990; torch.nn.RNN; Pascanu, Mikolov and Bengio 2013, "On the difficulty of
    training recurrent neural networks", equations 9 and 10.

    >>> RNN(50, activation="relu").output_shape((28, 6))
    (50,)
    """

    _cell = "rnn"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        3,
        (*_PACKED, "activation", "omega", "inputs", "trainable"),
    )
    _gates = 1

    activation: str = field(default="tanh", kw_only=True)
    omega: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, choice, "activation", known=("tanh", "relu"))
        settle(self, not_negative, "omega", single=True)

    def _function(self) -> str:
        return self.activation

    def _omega(self) -> float:
        return self.omega

    @property
    def activation_name(self) -> str:
        """See Layer."""
        return self.activation

    def linear_form(self, shape: Shape) -> Layer:
        """See Layer."""
        return replace(self, activation="relu", l1=0.0, l2=0.0, orthogonality=0.0, omega=0.0)

    def _step(self, zi: Doubles, zh: Doubles, h: Doubles, c: Doubles) -> _Step:
        from gradprune import reference

        after = reference.activation_forward(self.activation, zi + zh)

        def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
            dz = reference.rnn_backward(after, dh, self.activation)
            return dz, dz, np.zeros_like(dh), dc

        return _Step(after, c, backward)


@dataclass(frozen=True)
class LSTM(Recurrent):
    """Long short-term memory: c_t = f c_(t-1) + i g, h_t = o tanh(c_t).

    i, f, o = sigmoid and g = tanh of their rows of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh; the rows
    are ordered i, f, g, o.

    Args:
        forget_bias: what the rows of f in ``bias_ih`` start at; 1 lets a new network remember
            (Jozefowicz et al. 2015, as in Keras).
        units, return_sequences, truncation, bias, initializer: see ``Recurrent``.
        recurrent_initializer, l1, l2, orthogonality, name: see ``Recurrent``.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000; torch.nn.LSTM.

    >>> LSTM(128, return_sequences=True).output_shape((28, 28))
    (28, 128)
    """

    _cell = "lstm"
    _has_cells = True
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (
        4,
        (*_PACKED, "forget_bias", "inputs", "trainable"),
    )
    _gates = 4

    forget_bias: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, not_negative, "forget_bias", single=True)

    def _function(self) -> str:
        return "tanh"

    def _bias_initializer(self) -> Initializer | None:
        return _ForgetBias(self.forget_bias)

    def _step(self, zi: Doubles, zh: Doubles, h: Doubles, c: Doubles) -> _Step:
        from gradprune import reference

        gates, after, state = reference.lstm_forward(zi + zh, c)

        def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
            dz, dc_before = reference.lstm_backward(gates, c, after, dh, dc)
            return dz, dz, np.zeros_like(dh), dc_before

        return _Step(state, after, backward)


@dataclass(frozen=True)
class _ForgetBias(Initializer):
    """The second of four quarters is gain, the rest 0."""

    gain: float

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        """See Initializer."""
        bias = np.zeros(shape, np.float32)
        bias[shape[0] // 4 : shape[0] // 2] = self.gain
        return bias


@dataclass(frozen=True)
class GRU(Recurrent):
    """Gated recurrent unit: h_t = (1 - z) n + z h_(t-1).

    r, z = sigmoid of their rows of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh; n = tanh(W_in x_t + b_in
    + r (W_hn h_(t-1) + b_hn)); the rows are ordered r, z, n. Arguments: see ``Recurrent``.

    Source: Cho et al. 2014; torch.nn.GRU.

    >>> GRU(16).tensors((10, 4))[0].shape
    (48, 4)
    """

    _cell = "gru"
    packed: ClassVar[tuple[int, tuple[str, ...]] | None] = (5, (*_PACKED, "inputs", "trainable"))
    _gates = 3

    def _function(self) -> str:
        return "tanh"

    def _step(self, zi: Doubles, zh: Doubles, h: Doubles, c: Doubles) -> _Step:
        from gradprune import reference

        both = 2 * self.units  # r and z, which take input and state alike
        q = zh[:, both:]
        z = np.concatenate((zi[:, :both] + zh[:, :both], zi[:, both:]), axis=1)
        gates, after = reference.gru_forward(z, q, h)

        def backward(dh: Doubles, dc: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
            dz, dq, past = reference.gru_backward(gates, q, h, dh)
            return dz, np.concatenate((dz[:, :both], dq), axis=1), past, dc

        return _Step(after, c, backward)
