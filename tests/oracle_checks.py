"""What the oracle is checked with: random numbers, differences, torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slope_along(
    f: Callable[[NDArray[np.float64]], float],
    x: NDArray[np.float64],
    direction: NDArray[np.float64],
) -> float:
    """Central difference of f at x along a direction."""
    h = 1e-6
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)


def torch_activation(torch: Any, name: str, z: Any, slope: float) -> Any:
    functional = torch.nn.functional
    return {
        "identity": lambda: z * 1,
        "relu": lambda: functional.relu(z),
        "leaky_relu": lambda: functional.leaky_relu(z, slope),
        "tanh": lambda: torch.tanh(z),
        "sigmoid": lambda: torch.sigmoid(z),
        "gelu": lambda: functional.gelu(z),
        "silu": lambda: functional.silu(z),
        "elu": lambda: functional.elu(z, slope),
        "hardswish": lambda: functional.hardswish(z),
        "relu6": lambda: functional.relu6(z),
        "softmax": lambda: torch.softmax(z, -1),
    }[name]()


LOSS_SETTINGS: dict[str, dict[str, float]] = {
    "distillation": {"temperature": 2.0, "alpha": 0.7},
    "huber": {"delta": 0.75},
}


def example_target(loss: str, shape: tuple[int, int], seed: int = 0) -> Any:
    rng = generator(seed)
    if loss == "cross_entropy":
        return rng.integers(0, shape[1], shape[0])
    if loss == "distillation":
        return rng.integers(0, shape[1], shape[0]), rng.standard_normal(shape)
    return rng.random(shape) if loss == "bce" else rng.standard_normal(shape)


def torch_loss(torch: Any, loss: str, z: Any, target: Any) -> Any:
    functional = torch.nn.functional
    if loss == "distillation":
        labels, logits = map(torch.tensor, target)
        temperature, alpha = LOSS_SETTINGS[loss].values()
        soft = functional.kl_div(
            functional.log_softmax(z / temperature, 1),
            functional.log_softmax(logits / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        hard = functional.cross_entropy(z, labels)
        return (1 - alpha) * hard + alpha * temperature**2 * soft
    f = {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy_with_logits,
        "huber": functional.huber_loss,
        "mae": functional.l1_loss,
    }[loss]
    return f(z, torch.tensor(target), **LOSS_SETTINGS.get(loss, {}))
