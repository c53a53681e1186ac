"""One step of each optimizer, as pure functions with torch's formulas.

Every function takes one array of any shape (the flat arena or a single parameter) and returns a
new one: ``(params, grads, state, step=..., mask=...) -> (params, state)``.  Steps count from 1
and the first state is ``{}``.  Gradients come in clipped; a removed entry leaves with weight and
state exactly zero, and whatever its gradient held is never read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .arrays import Floats, Mask

State = Mapping[str, Floats]


def _keep(values: Floats, mask: Mask | None) -> Floats:
    return values if mask is None else np.where(mask, values, np.zeros_like(values))


def sgd_step(
    params: Floats,
    grads: Floats,
    state: State,
    *,
    step: int = 1,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    mask: Mask | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """``b = momentum b + (1 - dampening) g`` (first step: ``b = g``); ``w -= lr b``.

    Nesterov steps by ``g + momentum b``.  Weight decay is ``g += wd w``, or decoupled
    ``w *= 1 - lr wd`` before the step.

    Args:
        params: w, any shape.
        grads: g, of the shape of params.
        state: {} or {"momentum"}.
        step: from 1; step 1 starts the momentum afresh.
        lr: learning rate.
        momentum: factor of the old direction.
        dampening: share of the gradient kept out of it.
        nesterov: whether to look ahead.
        weight_decay: wd.
        decoupled: whether decay bypasses the gradient.
        mask: kept entries.

    Returns:
        New params and state; without momentum the state is empty.

    Example:
        >>> sgd_step(np.array([1.0]), np.array([0.5]), {}, lr=0.1)
        (array([0.95]), {})

    Source: torch.optim.SGD; Sutskever et al. 2013.
    """
    w, g = _keep(params, mask), _keep(grads, mask)
    if decoupled:
        w = w * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + weight_decay * w
    if not momentum:
        return w - lr * g, {}
    if step == 1 or "momentum" not in state:
        b = g.copy()
    else:
        b = momentum * _keep(state["momentum"], mask) + (1 - dampening) * g
    return w - lr * (g + momentum * b if nesterov else b), {"momentum": b}


def adam_step(
    params: Floats,
    grads: Floats,
    state: State,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    mask: Mask | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """``w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)``.

    With ``m = b1 m + (1 - b1) g`` and ``v = b2 v + (1 - b2) g^2``.  Weight decay is
    ``g += wd w``, or decoupled (AdamW) ``w *= 1 - lr wd`` before the step.

    Args:
        params: w, any shape.
        grads: g, of the shape of params.
        state: {} or {"m", "v"}.
        step: t, from 1.
        lr: learning rate.
        betas: b1 and b2.
        eps: added to the root.
        weight_decay: wd.
        decoupled: whether decay bypasses the gradient.
        mask: kept entries.

    Returns:
        New params and state.

    Example:
        >>> w, state = adam_step(np.array([1.0]), np.array([3.0]), {}, step=1, lr=0.5)
        >>> w.round(6), sorted(state)
        (array([0.5]), ['m', 'v'])

    Source: torch.optim.Adam and AdamW; Kingma and Ba 2015; Loshchilov and Hutter 2019.
    """
    w, g = _keep(params, mask), _keep(grads, mask)
    zero = np.zeros_like(w)
    b1, b2 = betas
    if decoupled:
        w = w * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + weight_decay * w
    m = b1 * _keep(state.get("m", zero), mask) + (1 - b1) * g
    v = b2 * _keep(state.get("v", zero), mask) + (1 - b2) * g * g
    denominator = np.sqrt(v) / (1 - b2**step) ** 0.5 + eps
    return w - lr / (1 - b1**step) * m / denominator, {"m": m, "v": v}


def rmsprop_step(
    params: Floats,
    grads: Floats,
    state: State,
    *,
    step: int = 1,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """``w -= lr g / (sqrt(v) + eps)`` with ``v = alpha v + (1 - alpha) g^2``.

    With momentum ``b = momentum b + g / (sqrt(v) + eps)`` and ``w -= lr b``; weight decay is
    ``g += wd w``.

    Args:
        params: w, any shape.
        grads: g, of the shape of params.
        state: {} or {"v"}, with momentum also {"momentum"}.
        step: from 1; taken so that all optimizers are called alike, the formula needs none.
        lr: learning rate.
        alpha: decay of the mean square.
        eps: added to the root.
        momentum: factor of the old direction.
        weight_decay: wd.
        mask: kept entries.

    Returns:
        New params and state.

    Example:
        >>> w, state = rmsprop_step(np.array([1.0]), np.array([3.0]), {}, lr=0.05)
        >>> w.round(6), sorted(state)
        (array([0.5]), ['v'])

    Source: torch.optim.RMSprop; Hinton's lecture 6e, 2012.
    """
    w, g = _keep(params, mask), _keep(grads, mask)
    zero = np.zeros_like(w)
    if weight_decay:
        g = g + weight_decay * w
    v = alpha * _keep(state.get("v", zero), mask) + (1 - alpha) * g * g
    direction = g / (np.sqrt(v) + eps)
    if not momentum:
        return w - lr * direction, {"v": v}
    b = momentum * _keep(state.get("momentum", zero), mask) + direction
    return w - lr * b, {"v": v, "momentum": b}
