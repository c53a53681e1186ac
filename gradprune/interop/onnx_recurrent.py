"""Recurrent operators of ONNX: gates in another order, all directions in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.interop.onnx_calls import OnnxCall
from gradprune.interop.values import BATCH, RefusedError, Value

__all__ = ["recurrent"]

Array = NDArray[Any]

# Gates of ONNX, i, o, f, c and z, r, h, in torch's order i, f, g, o and r, z, n.
_GATES = {"RNN": (0,), "LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
_FUNCTIONS = {
    "RNN": [["tanh"], ["relu"]],
    "LSTM": [["sigmoid", "tanh", "tanh"]],
    "GRU": [["sigmoid", "tanh"]],
}


def recurrent(call: OnnxCall) -> list[Any]:
    """Make what RNN, LSTM and GRU give: the states of all steps, and the last ones."""
    x, cell = call.value(), call.op
    direction = call.get("direction", "forward")
    ways = 2 if direction == "bidirectional" else 1
    functions = [name.lower() for name in call.get("activations", _FUNCTIONS[cell][0] * ways)]
    own = functions[: len(functions) // ways]
    if own * ways != functions or own not in _FUNCTIONS[cell]:
        raise RefusedError(f"its activations are {functions}, expected one of {_FUNCTIONS[cell]}")
    if call.get("layout", 0) or x.axes[1:2] != (BATCH,) or len(x.axes) != 3:
        raise RefusedError("it takes (time, samples, features)")
    if "clip" in call.attributes or call.get("input_forget", 0) or not call.zeros(7):
        raise RefusedError("clip, input_forget and peepholes have no counterpart")
    if cell == "GRU" and not call.get("linear_before_reset", 0):
        raise RefusedError("only linear_before_reset=1 is known, torch's formula")
    if call.has(4):
        raise RefusedError("sequences of different lengths are not known")
    if not call.zeros(5) or (cell == "LSTM" and not call.zeros(6)):
        raise RefusedError("the state before the first step must be 0")
    if any(call.outputs[2:]):
        raise RefusedError(
            "its third output, the last state of the cells, is read; it has no counterpart"
        )
    weights = _parameters(call, ways)
    units, steps = weights[0]["weight_hh"].shape[1], x.shape[0]
    if direction == "reverse":
        x = call.builder.flip(x, 0)
    made = call.builder.recurrent(
        x,
        cell,
        weights,
        bidirectional=ways == 2,
        activation=own[-1],
        name=call.owner,
    )
    states = made.sequence
    if direction == "reverse":
        states = call.builder.flip(states, 0)
    if not call.outputs[0]:
        return [None, made.last]
    if ways == 1:
        return [Value(states.node, (states.axes[0], None, *states.axes[1:])), made.last]
    apart = call.builder.reshape(states, (steps, BATCH, 2, units))
    return [call.builder.permute(apart, (0, 2, 1, 3)), made.last]


def _parameters(call: OnnxCall, ways: int) -> list[dict[str, Array]]:
    """The roles of each direction and their arrays, gates in torch's order."""
    order = _GATES[call.op]
    given = {"weight_ih": call.array(1), "weight_hh": call.array(2)}
    units = given["weight_hh"].shape[-1]
    rows = len(order) * units
    biases = call.array(3) if call.has(3) else None
    if (
        any(array.ndim != 3 or array.shape[:2] != (ways, rows) for array in given.values())
        or units < 1
        or (biases is not None and biases.shape != (ways, 2 * rows))
    ):
        raise RefusedError("its weights do not have the shapes that they should have")
    found = []
    for way in range(ways):
        part = {role: array[way] for role, array in given.items()}
        if biases is not None:
            part |= {"bias_ih": biases[way, :rows], "bias_hh": biases[way, rows:]}
        found.append({role: _torch_order(array, order) for role, array in part.items()})
    return found


def _torch_order(array: Array, order: tuple[int, ...]) -> Array:
    parts = np.split(array, len(order))
    return np.concatenate([parts[gate] for gate in order])
