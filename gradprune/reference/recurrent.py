"""RNN, LSTM and GRU over time, backward through time, and what regularizes them.

Shapes: B batch, T steps, F features, H units, G gates (1, 4, 3).  The state before the first step
is 0.  Gates are ordered as in torch: LSTM i, f, g, o; GRU r, z, n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Floats
from .layers import activation_backward, activation_forward, sigmoid

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
"""Gates of each cell the oracle knows."""

_VANISHED = 1e-30


# ---- one step


def lstm_forward(z: Floats, c_before: Floats) -> tuple[Floats, Floats, Floats]:
    """``c = f c_before + i g``, ``h = o tanh(c)``.

    Args:
        z: (B, 4 H), the gates before their activation.
        c_before: (B, H).

    Returns:
        The gates i, f, g, o (B, 4 H), c (B, H) and h (B, H).

    Example:
        >>> _, c, h = lstm_forward(np.array([[50.0, -50.0, 50.0, 50.0]]), np.array([[7.0]]))
        >>> c.round(6), h.round(4)
        (array([[1.]]), array([[0.7616]]))
    """
    i, f, g, o = np.split(z, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * c_before + i * g
    return np.concatenate([i, f, g, o], axis=1), c, o * np.tanh(c)


def lstm_backward(
    gates: Floats, c_before: Floats, c: Floats, dh: Floats, dc: Floats
) -> tuple[Floats, Floats]:
    """The gradients of the gates before their activation, and of c_before.

    Args:
        gates: (B, 4 H), those of ``lstm_forward``.
        c_before: (B, H).
        c: (B, H).
        dh: (B, H), the gradient of h.
        dc: (B, H), what reaches c from the step after.

    Returns:
        dz (B, 4 H) and dc_before (B, H).

    Example:
        >>> one = np.ones((1, 2))
        >>> dz, dc = lstm_backward(np.full((1, 8), 0.5), one, one, one, one)
        >>> dz.shape, dc.shape
        ((1, 8), (1, 2))
    """
    i, f, g, o = np.split(gates, 4, axis=1)
    y = np.tanh(c)
    dc = dc + dh * o * (1 - y * y)
    dz = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g)]
    return np.concatenate([*dz, dh * y * o * (1 - o)], axis=1), dc * f


def gru_forward(z: Floats, q: Floats, h_before: Floats) -> tuple[Floats, Floats]:
    """``n = tanh(z_n + r q)``, ``h = (1 - z) n + z h_before``.

    Args:
        z: (B, 3 H), r and z before their activation, and what n gets from the input.
        q: (B, H), what n gets from the state.
        h_before: (B, H).

    Returns:
        The gates r, z, n (B, 3 H) and h (B, H).

    Example:
        >>> gates, h = gru_forward(np.zeros((1, 3)), np.zeros((1, 1)), np.ones((1, 1)))
        >>> gates, h
        (array([[0.5, 0.5, 0. ]]), array([[0.5]]))
    """
    r, u, n = np.split(z, 3, axis=1)
    r, u = sigmoid(r), sigmoid(u)
    n = np.tanh(n + r * q)
    return np.concatenate([r, u, n], axis=1), (1 - u) * n + u * h_before


def gru_backward(
    gates: Floats, q: Floats, h_before: Floats, dh: Floats
) -> tuple[Floats, Floats, Floats]:
    """The gradients of ``gru_forward``'s arguments.

    Args:
        gates: (B, 3 H), those of ``gru_forward``.
        q: (B, H).
        h_before: (B, H).
        dh: (B, H), the gradient of h.

    Returns:
        dz (B, 3 H), dq (B, H) and dh_before (B, H), the latter without what goes through W_hh.

    Example:
        >>> one = np.ones((1, 2))
        >>> [d.shape for d in gru_backward(np.full((1, 6), 0.5), one, one, one)]
        [(1, 6), (1, 2), (1, 2)]
    """
    r, u, n = np.split(gates, 3, axis=1)
    dn = dh * (1 - u) * (1 - n * n)
    dz = [dn * q * r * (1 - r), dh * (h_before - n) * u * (1 - u), dn]
    return np.concatenate(dz, axis=1), dn * r, dh * u


def rnn_backward(h: Floats, dh: Floats, activation: str = "tanh") -> Floats:
    """``dz = dh f'(z)`` by means of ``h = f(z)``.

    Args:
        h: (B, H).
        dh: (B, H).
        activation: tanh or relu.

    Returns:
        dz, (B, H).

    Example:
        >>> rnn_backward(np.array([[0.5, 0.0]]), np.ones((1, 2)))
        array([[0.75, 1.  ]])
    """
    return activation_backward(activation, h, h, dh)  # relu: h > 0 where z > 0


def omega_terms(
    dz: Floats, back: Floats, h: Floats, activation: str = "tanh"
) -> tuple[Floats, Floats]:
    """Pascanu's regularizer between two steps: ``(|back f'(h)| / |dz| - 1)^2``.

    Its gradient holds everything constant but the W_hh written in ``back = dz W_hh``.

    Args:
        dz: (B, H), the gradient of the later step's argument of f.
        back: (B, H), ``dz W_hh``.
        h: (B, H), the state of the earlier step.
        activation: f, tanh or relu.

    Returns:
        The terms (B,), and (B, H) numbers x such that the terms' gradient is ``dz^T x``. Both are
        0 for samples with |dz| below 1e-30.

    Example:
        >>> term, x = omega_terms(np.array([[3.0, 4.0]]), np.array([[10.0, 0.0]]), np.zeros((1, 2)))
        >>> term, x
        (array([1.]), array([[0.4, 0. ]]))
    """
    slope = activation_backward(activation, h, h, np.ones_like(h))
    v = back * slope
    norm, norm_before = np.linalg.norm(dz, axis=1), np.linalg.norm(v, axis=1)
    counts = norm > _VANISHED
    ratio = np.divide(norm_before, norm, out=np.ones_like(norm), where=counts)
    factor = np.divide(
        2 * (ratio - 1), norm * norm_before, out=np.zeros_like(norm), where=counts & (v != 0).any(1)
    )
    return (ratio - 1) ** 2, factor[:, np.newaxis] * v * slope


# ---- all steps


class States(NamedTuple):
    """What a forward pass leaves: of every step (B, T, ...) the gates, c or q (or nothing), h."""

    gates: Floats
    inner: Floats
    h: Floats


class RecurrentGradients(NamedTuple):
    """Gradients of a recurrent layer, and what ``omega`` adds to the loss."""

    dx: Floats
    dweight_ih: Floats
    dweight_hh: Floats
    dbias_ih: Floats
    dbias_hh: Floats
    penalty: float


def recurrent_forward(
    cell: str,
    x: Floats,
    weight_ih: Floats,
    weight_hh: Floats,
    bias_ih: Floats | None = None,
    bias_hh: Floats | None = None,
    activation: str = "tanh",
) -> States:
    """The states of a cell over time, as torch.nn.RNN, LSTM and GRU compute them.

    Args:
        cell: rnn, lstm or gru.
        x: (B, T, F).
        weight_ih: (G H, F).
        weight_hh: (G H, H).
        bias_ih: (G H,) or None.
        bias_hh: (G H,) or None.
        activation: of rnn, tanh or relu.

    Returns:
        Gates (B, T, G H), c of lstm or q of gru (B, T, H), h (B, T, H).

    Raises:
        ValueError: if the cell is unknown.

    Example:
        >>> one = np.ones((1, 1))
        >>> recurrent_forward("rnn", np.ones((1, 3, 1)), one, one, activation="relu").h.ravel()
        array([1., 2., 3.])
    """
    if cell not in GATES:
        raise ValueError(f"cell is {cell!r}, expected one of {', '.join(GATES)}")
    batch, steps, _ = x.shape
    units = weight_hh.shape[1]
    h = c = np.zeros((batch, units), x.dtype)
    kept: list[tuple[Floats, Floats, Floats]] = []
    for t in range(steps):
        z, s = x[:, t] @ weight_ih.T, h @ weight_hh.T
        if bias_ih is not None:
            z = z + bias_ih
        if bias_hh is not None:
            s = s + bias_hh
        if cell == "lstm":
            gates, c, h = lstm_forward(z + s, c)
            kept.append((gates, c, h))
        elif cell == "gru":
            both, q = z.copy(), s[:, 2 * units :]
            both[:, : 2 * units] += s[:, : 2 * units]
            gates, h = gru_forward(both, q, h)
            kept.append((gates, q, h))
        else:
            h = activation_forward(activation, z + s)
            kept.append((h, h, h))
    gates, inner, h = (np.stack(part, axis=1) for part in zip(*kept, strict=True))
    return States(gates, inner, h)


def recurrent_backward(
    cell: str,
    x: Floats,
    weight_ih: Floats,
    weight_hh: Floats,
    states: States,
    dh: Floats,
    activation: str = "tanh",
    truncation: int | None = None,
    omega: float = 0.0,
) -> RecurrentGradients:
    """Backpropagation through time.

    Args:
        cell: rnn, lstm or gru.
        x: (B, T, F).
        weight_ih: (G H, F).
        weight_hh: (G H, H).
        states: of ``recurrent_forward``.
        dh: (B, T, H), the gradient of every step's output; 0 where there is none.
        activation: of rnn, tanh or relu.
        truncation: no gradient passes from step k * truncation to the one before; None: all do.
        omega: of rnn: adds omega * mean over samples of the sum over steps of ``omega_terms``.

    Returns:
        dx (B, T, F), the gradients of weights and biases, and what omega adds to the loss.

    Example:
        >>> x, one = np.ones((1, 3, 1)), np.ones((1, 1))
        >>> states = recurrent_forward("rnn", x, one, one, activation="relu")
        >>> last = np.array([[[0.0], [0.0], [1.0]]])
        >>> g = recurrent_backward("rnn", x, one, one, states, last, "relu")
        >>> g.dweight_ih, g.dweight_hh  # h_3 = 3 w, and w_hh (1 + w_hh (1 + w_hh))
        (array([[3.]]), array([[3.]]))
    """
    batch, steps, _ = x.shape
    units = weight_hh.shape[1]
    nothing = np.zeros((batch, units), x.dtype)
    dx = np.zeros_like(x)
    dweight_ih, dweight_hh = np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    dbias_ih, dbias_hh = np.zeros_like(weight_ih[:, 0]), np.zeros_like(weight_hh[:, 0])
    penalty = 0.0
    back = dc = nothing  # to h and c from the step after
    for t in reversed(range(steps)):
        gates, h = states.gates[:, t], states.h[:, t]
        before = states.h[:, t - 1] if t else nothing
        d, straight = dh[:, t] + back, nothing
        if cell == "lstm":
            c_before = states.inner[:, t - 1] if t else nothing
            dz, dc = lstm_backward(gates, c_before, states.inner[:, t], d, dc)
            ds = dz
        elif cell == "gru":
            dz, dq, straight = gru_backward(gates, states.inner[:, t], before, d)
            ds = np.concatenate([dz[:, : 2 * units], dq], axis=1)
        else:
            dz = ds = rnn_backward(h, d, activation)
        dx[:, t] = dz @ weight_ih
        dweight_ih += dz.T @ x[:, t]
        dweight_hh += ds.T @ before
        dbias_ih += dz.sum(axis=0)
        dbias_hh += ds.sum(axis=0)
        back = straight + ds @ weight_hh
        if t == 0 or (truncation and t % truncation == 0):
            back = dc = nothing
        elif omega:
            term, direction = omega_terms(dz, back, before, activation)
            penalty += omega * float(term.sum()) / batch
            dweight_hh += omega / batch * (dz.T @ direction)
    return RecurrentGradients(dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, penalty)


def orthogonality(weight_hh: Floats) -> tuple[float, Floats]:
    """``sum over gates of |W^T W - 1|^2`` (Frobenius) and its gradient ``4 W (W^T W - 1)``.

    Args:
        weight_hh: (G H, H), gate below gate.

    Returns:
        The value in float64 and the gradient of the shape of weight_hh.

    Example:
        >>> orthogonality(np.array([[2.0], [1.0]]))
        (9.0, array([[24.],
               [ 0.]]))
    """
    units = weight_hh.shape[1]
    value, slopes = 0.0, []
    for w in np.split(weight_hh, len(weight_hh) // units):
        error = w.T @ w - np.eye(units, dtype=w.dtype)
        value += float((error.astype(np.float64) ** 2).sum())
        slopes.append(4 * w @ error)
    return value, np.concatenate(slopes)
