"""Correction: what is left of a layer makes up for what was removed.

Layer by layer, from the input on: the outputs that the layer had in the network of before are
fitted from the inputs that it gets in the pruned one, by the weights it has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.compiled import silent_rows
from gradprune.engine.replicas import Replicable, output_of
from gradprune.foundation.checks import positive, settle
from gradprune.layers.coupling import normalized_products
from gradprune.layers.graph import plan
from gradprune.state.locking import Locked, locked

__all__ = ["LeastSquares"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Doubles = NDArray[np.float64]


class Correctable(Replicable, Locked, Protocol):
    """What is corrected."""

    def rows(self, x: ArrayLike) -> Floats: ...


@dataclass(frozen=True)
class LeastSquares:
    """Corrects each unit by least squares: min over d of |X d - r|^2 + damping s |d|^2.

    d is on the kept weights and the bias. X (n, in) are the layer's inputs in the pruned network,
    of which every step of a sequence is a row, r (n,) is what the unit's output has lost by
    pruning, here and before, and s is the mean of diag(X^T X). With a bias X has a column of ones
    more. Each unit's system is solved in double precision: in^3 / 3 operations where little is
    removed, next to nothing where much is.

    Args:
        damping: positive; the larger, the closer the weights stay to what they were. Inputs that
            are 0 in all samples leave their weights alone.

    Source: the optimal brain surgeon's update (Hassibi and Stork 1993) for the squared error of a
    layer's output, as in Optimal Brain Compression and SparseGPT (Frantar and Alistarh 2022,
    2023), for all removed weights at once.

    >>> x = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], np.float32)
    >>> change = LeastSquares(damping=1e-9).solve(
    ...     x, 5 * x[:, :1], np.array([[True, False]]), bias=False
    ... )
    >>> change.round(3).tolist()
    [[5.0, 0.0]]
    """

    damping: float = field(default=0.01, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, positive, "damping")

    def solve(self, x: Floats, lost: Floats, keep: Flags, *, bias: bool) -> Doubles:
        """Return the change of the weights, (out, in) or (out, in + 1) with a bias, 0 if removed.

        Args:
            x: (n, in) inputs of the layer.
            lost: (n, out) wanted outputs minus those there are.
            keep: (out, in) what is not removed.
            bias: whether a bias is fitted too.
        """
        inputs = x.astype(np.float64)
        scale = self.damping * float(np.square(inputs).sum()) / max(inputs.shape[1], 1)
        if bias:
            inputs = np.column_stack([inputs, np.ones(len(inputs))])
            keep = np.column_stack([keep, np.ones(len(keep), np.bool_)])
        gram, right = inputs.T @ inputs, inputs.T @ lost.astype(np.float64)
        # All inputs 0: the smallest scale there is that leaves the system regular.
        gram[np.diag_indices_from(gram)] += scale or 1.0
        change = np.zeros(keep.shape)
        for unit, chosen in enumerate(keep):
            places = np.flatnonzero(chosen)
            if places.size:
                system = gram[np.ix_(places, places)]
                change[unit, places] = np.linalg.solve(system, right[places, unit])
        return change


@locked
def corrected(
    model: Correctable, keep: Mapping[str, Flags], x: ArrayLike, correction: LeastSquares
) -> tuple[dict[str, Floats], list[str]]:
    """Return parameters of Dense layers after the correction; the model is not changed.

    Args:
        model: as it is before weights are removed.
        keep: name of a prunable parameter to its new mask; others are left alone.
        x: samples to fit to, (n, *input_shape).
        correction: how.

    Returns:
        Name to new values, and the names of pruned parameters that are left as they are, because
        their layer is no Dense.

    Raises:
        ValueError: x does not fit, or an activation or a result is not finite.
    """
    flat = model.rows(x)
    if len(flat) == 0:
        raise ValueError("the correction needs at least one sample")
    inputs = flat.reshape(-1, *model.input_shape)
    made: list[tuple[Floats, Floats]] = []  # outputs of the layers so far, before and after
    changed: dict[str, Floats] = {}
    left: list[str] = []
    masks = {**model.arena.masks, **keep}
    steps = plan(model.layers, model.input_shape)
    products = normalized_products(steps)
    for i, step in enumerate(steps):
        layer = step.layer
        read = [(inputs, inputs) if source < 0 else made[source] for source in step.sources]
        before, after = [old for old, _ in read], [new for _, new in read]
        own = {p.role: f"{layer.name}.{p.role}" for p in layer.tensors(step.shape)}
        values: dict[str, Any] = {name: model.arena.state[name] for name in own.values()}
        masked = {
            name: value * keep[name] if name in keep else value for name, value in values.items()
        }
        gone = [name for name, value in values.items() if (masked[name] != value).any()]
        is_pruned = bool(gone) or any(old is not new for old, new in read)
        if is_pruned and layer.is_product and own["weight"] in keep:
            weight, bias = own["weight"], own.get("bias")
            rows_before, rows_after = (a[0].reshape(-1, step.shape[-1]) for a in (before, after))
            lost = rows_before @ values[weight].T - rows_after @ masked[weight].T
            _check_finite(str(layer.name), lost)
            change = correction.solve(rows_after, lost, keep[weight], bias=bias is not None)
            _check_finite(str(layer.name), change)
            width = rows_after.shape[1]
            masked[weight] = changed[weight] = np.asarray(
                masked[weight] + change[:, :width], np.float32
            )
            if bias is not None:
                masked[bias] = changed[bias] = np.asarray(
                    values[bias] + change[:, width], np.float32
                )
        else:
            left += gone
        product = model.layers[products[i]] if i in products else None
        outputs = [
            output_of(
                step,
                {role: now[name] for role, name in own.items()},
                given,
                None if product is None else silent_rows(product, kept),
            )
            for now, given, kept in (
                (values, before, model.arena.masks),
                (masked, after, masks),
            )[: 1 + is_pruned]
        ]
        made.append((outputs[0], outputs[-1]))
    return changed, left


def _check_finite(layer: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"the correction of {layer} is not finite: its inputs or weights overflow")
