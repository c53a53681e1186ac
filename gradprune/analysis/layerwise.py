"""Where two forms begin to differ: the first layer whose outputs are not the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.network import Network
from gradprune.interop.predictors import Layerwise, Predictor

__all__ = ["first_difference", "outputs_of"]


def first_difference(
    reference: Predictor, other: Predictor, x: ArrayLike, tolerance: float
) -> str | None:
    """Return the name of the first layer of both that differs by more than the tolerance.

    Layers are told apart by their names; those whose outputs have another shape, as after
    ``shrink``, or that the other form does not keep apart, are not compared.

    Args:
        reference: the form whose outputs count as right.
        other: the form that is compared with it.
        x: samples, as both forms take them.
        tolerance: the largest error allowed, relative to the largest output of the layer.

    Returns:
        None if no layer is found, or one of the forms cannot be looked into.
    """
    expected, actual = outputs_of(reference, x), outputs_of(other, x)
    for name, right in expected.items():
        found = actual.get(name)
        if found is None or found.shape != right.shape:
            continue
        size = float(np.abs(right).max(initial=0.0)) or 1.0
        if not np.abs(found - right).max(initial=0.0) <= tolerance * size:
            return name
    return None


def outputs_of(form: Predictor, x: ArrayLike) -> dict[str, NDArray[Any]]:
    """Return the outputs of a form's layers in forward order, as far as it tells them.

    A product with an activation is left out, because other libraries keep both apart.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2), gp.Activation("relu")], input_shape=3, seed=0)
    >>> list(outputs_of(model, [[1, 2, 3]]))
    ['dense0', 'activation0']
    """
    if isinstance(form, Layerwise):
        return form.layer_outputs(x)
    if not isinstance(form, Network):
        return {}
    state, masks = form.get_state(), form.masks
    found: dict[str, NDArray[Any]] = {}
    for end, step in enumerate(form.steps):
        if step.layer.tensors(step.shape) and step.layer.without_activation() != step.layer:
            continue
        needed = {end}
        for position in range(end, -1, -1):
            if position in needed:
                needed |= {source for source in form.steps[position].sources if source >= 0}
        layers = [form.layers[position] for position in sorted(needed)]
        part = Network.blank(layers, form.input_shape)
        part.set_masks({name: masks[name] for name in part.masks})
        part.set_state({name: state[name] for name in part.get_state()})
        found[str(step.layer.name)] = part.predict(x)
    return found
