"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradprune.foundation.checks import fraction, not_negative, positive
from gradprune.optim.clipping.base import Clipper
from gradprune.optim.guards import Guard
from gradprune.optim.learning_rates import RateLike, as_given
from gradprune.optim.optimizers.base import Optimizer, Rule, Trainable

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """RMSprop: steps scaled by a running mean of the squared gradient.

    v = alpha v + (1-alpha) g^2; u = g / (sqrt(v) + eps); with momentum m = momentum m + u and
    w -= lr m, else w -= lr u. Source: Tieleman and Hinton 2012; torch.optim.RMSprop.

    Args:
        model: the network to train.
        lr: a number, a schedule, or a function of the number of steps taken.
        alpha: in [0, 1).
        eps: positive.
        momentum: in [0, 1].
        weight_decay: joins the gradient.
        clip: a clipper, a sequence of them applied in order, or None.
        guard: what to do about numbers that are not finite or explode; None means ``Raise()``.
        decay_biases: whether weight decay takes biases, and factors and offsets of normalizations.
        lr_scale: name of a layer or parameter to what its learning rate is multiplied by, such as
            {"dense0": 0.1}; a parameter's own comes before its layer's.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.RMSprop(model, lr=0.01, momentum=0.9)
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    >>> info.lr
    0.01
    """

    def __init__(
        self,
        model: Trainable,
        *,
        lr: RateLike = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip: Clipper | Sequence[Clipper] | None = None,
        guard: Guard | None = None,
        decay_biases: bool = True,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        rule = Rule(
            "rmsprop",
            weight_decay=not_negative("weight_decay", weight_decay, single=True),
            momentum=fraction("momentum", momentum),
            beta2=fraction("alpha", alpha, one=False),
            eps=positive("eps", eps, single=True),
        )
        moments = 2 if momentum else 1
        super().__init__(
            model,
            lr=lr,
            rule=rule,
            moments=moments,
            clip=clip,
            guard=guard,
            decay_biases=decay_biases,
            lr_scale=lr_scale,
        )

    def settings(self) -> dict[str, Any]:
        """See Optimizer."""
        return {
            "lr": as_given(self.schedule),
            "alpha": self.rule.beta2,
            "eps": self.rule.eps,
            "momentum": self.rule.momentum,
            "weight_decay": self.rule.weight_decay,
            **self.groups.settings(),
        }
