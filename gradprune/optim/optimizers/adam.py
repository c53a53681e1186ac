"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradprune.foundation.checks import flag, fraction, not_negative, positive
from gradprune.optim.clipping.base import Clipper
from gradprune.optim.guards import Guard
from gradprune.optim.learning_rates import RateLike, as_given
from gradprune.optim.optimizers.base import Optimizer, Rule, Trainable

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and its square.

    m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2;
    w -= lr / (1-beta1^t) * m / (sqrt(v) / sqrt(1-beta2^t) + eps).
    Source: Kingma and Ba 2015; torch.optim.Adam.

    Args:
        model: the network to train.
        lr: a number, a schedule, or a function of the number of steps taken.
        betas: (beta1, beta2), each in [0, 1).
        eps: positive.
        weight_decay: joins the gradient, or with ``decoupled`` shrinks the weight.
        decoupled: AdamW's weight decay.
        clip: a clipper, a sequence of them applied in order, or None.
        guard: what to do about numbers that are not finite or explode; None means ``Raise()``.
        decay_biases: whether weight decay takes biases, and factors and offsets of normalizations.
        lr_scale: name of a layer or parameter to what its learning rate is multiplied by, such as
            {"dense0": 0.1}; a parameter's own comes before its layer's.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.Adam(model, lr=1e-3, clip=gp.ClipNorm(1.0))
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    >>> optimizer.step_count, optimizer.lr
    (1, 0.001)
    """

    def __init__(
        self,
        model: Trainable,
        *,
        lr: RateLike = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        clip: Clipper | Sequence[Clipper] | None = None,
        guard: Guard | None = None,
        decay_biases: bool = True,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError) as error:
            raise TypeError(f"betas must be a pair of numbers, got {betas!r}") from error
        rule = Rule(
            "adam",
            weight_decay=not_negative("weight_decay", weight_decay, single=True),
            decoupled=flag("decoupled", decoupled),
            beta1=fraction("betas[0]", beta1, one=False),
            beta2=fraction("betas[1]", beta2, one=False),
            eps=positive("eps", eps, single=True),
        )
        super().__init__(
            model,
            lr=lr,
            rule=rule,
            moments=2,
            clip=clip,
            guard=guard,
            decay_biases=decay_biases,
            lr_scale=lr_scale,
        )

    def settings(self) -> dict[str, Any]:
        """See Optimizer."""
        return {
            "lr": as_given(self.schedule),
            "betas": (self.rule.beta1, self.rule.beta2),
            "eps": self.rule.eps,
            "weight_decay": self.rule.weight_decay,
            "decoupled": self.rule.decoupled,
            **self.groups.settings(),
        }


class AdamW(Adam):
    """Adam with decoupled weight decay: w *= 1 - lr * weight_decay, then Adam's step.

    Source: Loshchilov and Hutter 2019; torch.optim.AdamW. Arguments as for ``Adam``.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> optimizer = gp.AdamW(model, lr=1e-3, weight_decay=0.1, decay_biases=False)
    >>> loss, info = model.train_step([[1.0, 2.0, 3.0]], [1], optimizer=optimizer)
    >>> info.applied
    True
    """

    def __init__(
        self,
        model: Trainable,
        *,
        lr: RateLike = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        clip: Clipper | Sequence[Clipper] | None = None,
        guard: Guard | None = None,
        decay_biases: bool = True,
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            model,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled=True,
            clip=clip,
            guard=guard,
            decay_biases=decay_biases,
            lr_scale=lr_scale,
        )

    def settings(self) -> dict[str, Any]:
        """See Optimizer."""
        settings = super().settings()
        del settings["decoupled"]
        return settings
