"""The oracle's optimizers against torch and cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradprune import reference
from oracle_checks import generator

Step = Any

OPTIMIZERS: list[tuple[str, Step, dict[str, Any], dict[str, Any]]] = [
    ("SGD", reference.sgd_step, {"lr": 0.1}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "weight_decay": 0.05}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {}),
    (
        "SGD",
        reference.sgd_step,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {},
    ),
    ("Adam", reference.adam_step, {}, {}),
    ("Adam", reference.adam_step, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-2}, {}),
    ("Adam", reference.adam_step, {"lr": 0.1, "weight_decay": 0.05}, {}),
    ("AdamW", reference.adam_step, {"lr": 0.1, "weight_decay": 0.05}, {"decoupled": True}),
    ("RMSprop", reference.rmsprop_step, {}, {}),
    ("RMSprop", reference.rmsprop_step, {"lr": 0.1, "alpha": 0.8, "eps": 1e-2}, {}),
    ("RMSprop", reference.rmsprop_step, {"momentum": 0.9, "weight_decay": 0.05}, {}),
]


@pytest.mark.parametrize(("name", "step", "settings", "ours_only"), OPTIMIZERS)
def test_optimizer_against_torch(
    torch: Any, name: str, step: Step, settings: dict[str, Any], ours_only: dict[str, Any]
) -> None:
    rng = generator(9)
    params = rng.standard_normal((3, 4))
    tensor = torch.tensor(params, requires_grad=True)
    theirs = getattr(torch.optim, name)([tensor], **settings)
    state: dict[str, Any] = {}
    for t in range(1, 8):
        grads = rng.standard_normal((3, 4)) * t
        tensor.grad = torch.tensor(grads)
        theirs.step()
        params, state = step(params, grads, state, step=t, **settings, **ours_only)
        np.testing.assert_allclose(params, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "step", "settings", "ours_only"), OPTIMIZERS)
def test_optimizer_keeps_inputs_dtype_and_mask(
    name: str, step: Step, settings: dict[str, Any], ours_only: dict[str, Any]
) -> None:
    rng = generator(10)
    start = rng.standard_normal(9).astype(np.float32)
    mask = np.arange(9) % 3 > 0
    settings = {"lr": 0.1, **settings, **ours_only}
    params, live = start.copy(), start[mask]
    state: dict[str, Any] = {}
    live_state: dict[str, Any] = {}
    for t in range(1, 4):
        if t == 2:  # as after a pruning event: what a removed entry holds must not matter
            params = np.where(mask, params, np.float32(5))
            state = {k: np.where(mask, v, np.float32(5)) for k, v in state.items()}
        grads = rng.standard_normal(9).astype(np.float32)
        spoiled = np.where(mask, grads, np.float32(math.nan))
        before = [a.tobytes() for a in (params, spoiled, *state.values())]
        result = step(params, spoiled, state, step=t, mask=mask, **settings)
        assert before == [a.tobytes() for a in (params, spoiled, *state.values())]
        params, state = result
        live, live_state = step(live, grads[mask], live_state, step=t, **settings)
        for key, value in {"params": params, **state}.items():
            assert value.dtype == np.float32
            assert np.all(value[~mask] == 0), key
        np.testing.assert_array_equal(params[mask], live)


def test_optimizers_worked_by_hand() -> None:
    w, g = np.array([2.0]), np.array([0.5])
    decayed, _ = reference.sgd_step(w, g, {}, lr=0.1, weight_decay=0.5, decoupled=True)
    np.testing.assert_allclose(decayed, 2 * (1 - 0.05) - 0.05)
    # b: 0.5 then 0.9 * 0.5 + 0.5 * 0.5 = 0.7; dampening spares the first step
    first, state = reference.sgd_step(w, g, {}, step=1, lr=1.0, momentum=0.9, dampening=0.5)
    second, state = reference.sgd_step(first, g, state, step=2, lr=1.0, momentum=0.9, dampening=0.5)
    np.testing.assert_allclose([first[0], second[0], state["momentum"][0]], [1.5, 0.8, 0.7])
    # zeros instead of no state, as a flat buffer has them, start alike
    zeros = {"momentum": np.zeros(1)}
    again, _ = reference.sgd_step(w, g, zeros, step=1, lr=1.0, momentum=0.9, dampening=0.5)
    np.testing.assert_array_equal(again, first)
    # the first Adam step is lr * sign(g) whatever the size of g
    moved, _ = reference.adam_step(w, np.array([1e4]), {}, step=1, lr=0.25)
    np.testing.assert_allclose(moved, 1.75)


@pytest.mark.parametrize(
    ("step", "settings"), [(step, settings) for _, step, settings, _ in OPTIMIZERS]
)
@pytest.mark.parametrize("mask", [None, np.array([True, False, True])])
def test_what_is_returned_is_nobody_elses(step: Step, settings: Any, mask: Any) -> None:
    """Gradients that are written in place the next time leave the state as it is."""
    given = [np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, -1.0])]
    before = [array.copy() for array in given]
    params, state = step(*given, {}, step=1, mask=mask, **settings)
    params, state = step(*given, state, step=2, mask=mask, **settings)
    first = step(*given, {}, step=1, mask=mask, **settings)
    for made, kept in ((params, state), first):
        for array in (made, *kept.values()):
            assert not any(np.shares_memory(array, own) for own in given)
    for array, old in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, old)
