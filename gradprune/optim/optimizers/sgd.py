"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradprune.foundation.checks import flag, fraction, not_negative
from gradprune.optim.clipping.base import Clipper
from gradprune.optim.guards import Guard
from gradprune.optim.learning_rates import RateLike, as_given
from gradprune.optim.optimizers.base import Optimizer, Rule, Trainable

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's look-ahead.

    g += weight_decay * w; m = momentum * m + (1 - dampening) * g (m = g at the first step);
    w -= lr * (g + momentum * m if nesterov else m). Source: torch.optim.SGD.

    Args:
        model: the network to train.
        lr: a number, a schedule such as ``CosineLR(0.1, steps=1000)``, or a function of the
            number of steps taken.
        momentum, dampening: in [0, 1].
        nesterov: needs momentum and no dampening.
        weight_decay: on all parameters; coupled as above, or with ``decoupled`` w *= 1 - lr *
            weight_decay before the step.
        clip: a clipper, a sequence of them applied in order, or None. Clipping comes before
            weight decay.
        guard: what to do about numbers that are not finite or explode; None means ``Raise()``.
        decay_biases: whether weight decay takes biases, and factors and offsets of normalizations.
        lr_scale: name of a layer or parameter to what its learning rate is multiplied by, such as
            {"dense0": 0.1}; a parameter's own comes before its layer's.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.SGD(model, lr=0.1, momentum=0.9, clip=gp.ClipNorm(1.0))
    >>> loss = model.backward([[1.0, 2.0, 3.0]], [1])
    >>> optimizer.step().applied
    True
    """

    def __init__(
        self,
        model: Trainable,
        *,
        lr: RateLike,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        clip: Clipper | Sequence[Clipper] | None = None,
        guard: Guard | None = None,
        decay_biases: bool = True,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        momentum, dampening = fraction("momentum", momentum), fraction("dampening", dampening)
        if flag("nesterov", nesterov) and (momentum == 0 or dampening != 0):
            raise ValueError(
                "nesterov needs momentum above 0 and dampening 0, got "
                f"momentum={momentum:g}, dampening={dampening:g}"
            )
        rule = Rule(
            "sgd",
            weight_decay=not_negative("weight_decay", weight_decay, single=True),
            decoupled=flag("decoupled", decoupled),
            momentum=momentum,
            dampening=dampening,
            nesterov=bool(nesterov),
        )
        moments = 1 if momentum else 0
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
            "momentum": self.rule.momentum,
            "dampening": self.rule.dampening,
            "nesterov": self.rule.nesterov,
            "weight_decay": self.rule.weight_decay,
            "decoupled": self.rule.decoupled,
            **self.groups.settings(),
        }
