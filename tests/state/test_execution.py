"""However a layer is run - whole, on lists, in fours of rows, frozen - the results are the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from gradprune import _core, reference
from processes import on_instruction_set
from state import threads

WHOLE, LISTS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
SPARSITIES = (0.0, 0.5, 0.9, 0.99, 1.0)
BATCHES = (1, 7, 32, 64, 65, 513)
SIZES = (37, 53, 31, 7)


def masks_of(sizes: tuple[int, ...], sparsity: float, *, four: bool, seed: int) -> list[np.ndarray]:
    """Random masks; with ``four``, four rows at a time share their columns."""
    rng = np.random.default_rng(seed)
    masks = []
    for inputs, outputs in itertools.pairwise(sizes):
        rows = -(-outputs // 4) if four else outputs
        mask = rng.random((rows, inputs)) >= sparsity
        masks.append(np.repeat(mask, 4, axis=0)[:outputs] if four else mask)
    return masks


def model_of(sizes: tuple[int, ...], masks: list[np.ndarray], seed: int = 0) -> gp.Model:
    hidden = [gp.Dense(units, activation="relu") for units in sizes[1:-1]]
    model = gp.Model([*hidden, gp.Dense(sizes[-1])], input_shape=sizes[0], seed=seed)
    model.set_masks(dict(zip(model.masks, masks, strict=True)))
    return model


def batch_of(n: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, sizes[0]), np.float32), rng.integers(0, sizes[-1], n)


def assert_close(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    error = np.abs(got - wanted).max(initial=0.0)
    assert error <= 1e-5 * max(np.abs(wanted).max(initial=0.0), 1e-2), what


def compare_executions() -> None:
    """Predictions and gradients of every way to run, at every sparsity and batch."""
    for sparsity in SPARSITIES:
        for four in (False, True):
            masks = masks_of(SIZES, sparsity, four=four, seed=1)
            gp.costs.set_costs(WHOLE)
            whole = model_of(SIZES, masks)
            gp.costs.set_costs(LISTS)
            lists = model_of(SIZES, masks)
            assert not whole.is_sparse("dense0")
            assert lists.is_sparse("dense0") == (sparsity > 0)
            frozen = lists.freeze()
            for n in BATCHES:
                what = f"{_core.isa()}, sparsity {sparsity}, batch {n}, fours {four}"
                x, y = batch_of(n, SIZES)
                assert_close(lists.predict(x), whole.predict(x), what)
                assert_close(frozen.predict(x), whole.predict(x), f"frozen, {what}")
                assert lists.backward(x, y) == pytest.approx(whole.backward(x, y), rel=1e-5)
                for name, gradient in whole.gradients.items():
                    assert_close(lists.gradients[name], gradient, f"{name}, {what}")


@pytest.mark.parametrize("isa", _core.isas())
def test_sparse_and_dense_execution_agree(isa: str) -> None:
    on_instruction_set(isa, "import test_execution; test_execution.compare_executions()")


@given(st.data())
def test_random_networks_are_the_references(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3), "widths")
    sizes = (*widths, data.draw(st.integers(2, 40), "classes"))
    sparsity = data.draw(st.floats(0, 1), "sparsity")
    n, count = data.draw(st.integers(1, 200), "batch"), data.draw(st.integers(1, 5), "threads")
    seed = data.draw(st.integers(0, 2**32), "seed")
    gp.costs.set_costs(data.draw(st.sampled_from([LISTS, (0.3, 0.9, 0.1, 0.6)]), "costs"))
    masks = masks_of(sizes, sparsity, four=data.draw(st.booleans(), "fours"), seed=seed)
    model = model_of(sizes, masks, seed)
    twin = [
        {
            "type": "dense",
            "weight": f"dense{i}.weight",
            "bias": f"dense{i}.bias",
            "activation": "relu" if i + 2 < len(sizes) else "identity",
            "slope": 0.01,
            "l1": 0.0,
            "l2": 0.0,
        }
        for i in range(len(sizes) - 1)
    ]
    x, y = batch_of(n, sizes)
    parameters = {name: values.astype(np.float64) for name, values in model.parameters.items()}
    with threads(count):
        loss, outputs = model.backward(x, y), model.predict(x)
    expected, gradients = reference.loss_and_gradients(
        twin,
        parameters,
        x.astype(np.float64),
        y,
        "cross_entropy",
        masks=dict(model.masks),
        seed=0,
        step=0,
    )
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    wanted = reference.forward(twin, parameters, x.astype(np.float64))
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        assert_close(model.gradients[name], gradient, name)


def test_blocks_run_in_fours_with_the_same_bits_at_any_thread_count() -> None:
    gp.costs.set_costs(LISTS)
    model = model_of(SIZES, masks_of(SIZES, 0.0, four=False, seed=0))
    gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Block(4, 1)).prune(0.8)
    for n in (20, 128, 300):
        x, y = batch_of(n, SIZES)
        results = []
        for count in (1, 2, 3, 4):
            with threads(count):
                results.append((model.backward(x, y), model.arena.grads.tobytes()))
        assert all(result == results[0] for result in results)
