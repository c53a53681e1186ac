"""Layers with few live weights run on lists of them: same results, derived from the mask alone."""

from __future__ import annotations

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.engine.network import Network
from state import threads

SPARSITIES = [0.0, 0.5, 0.9, 0.99, 1.0]
BATCHES = [1, 7, 32, 64, 65, 513, 1500]


def masked_network(sparsity: float, seed: int = 0) -> Network:
    """37-53-31-7 with random masks; in the last layer nothing is removed."""
    layers = [
        gp.Dense(53, activation="relu", l1=1e-3),
        gp.Dropout(0.2),
        gp.Dense(31, activation="gelu"),
        gp.Dense(7, bias=False),
    ]
    network = Network(layers, 37, seed=seed)
    rng = np.random.default_rng(seed)
    for name in ("dense0.weight", "dense1.weight"):
        network.set_mask(name, rng.random(network.masks[name].shape) >= sparsity)
    for name, values in network.parameters.items():
        if name.endswith("bias"):
            values[...] = 0.1 * rng.standard_normal(values.shape)
    return network


def batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, 37)).astype(np.float32), rng.integers(0, 7, n)


TWIN = [
    {
        "type": "dense",
        "weight": "dense0.weight",
        "bias": "dense0.bias",
        "activation": "relu",
        "slope": 0.01,
        "l1": 1e-3,
        "l2": 0.0,
    },
    {"type": "dropout", "rate": 0.2, "index": 2},
    {
        "type": "dense",
        "weight": "dense1.weight",
        "bias": "dense1.bias",
        "activation": "gelu",
        "slope": 0.01,
        "l1": 0.0,
        "l2": 0.0,
    },
    {
        "type": "dense",
        "weight": "dense2.weight",
        "bias": None,
        "activation": "identity",
        "slope": 0.01,
        "l1": 0.0,
        "l2": 0.0,
    },
]


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_loss_and_gradients_are_the_references(sparsity: float, n: int) -> None:
    network = masked_network(sparsity)
    x, y = batch(n)
    loss = network.backward(x, y)
    expected, gradients = reference.loss_and_gradients(
        TWIN,
        {name: values.astype(np.float64) for name, values in network.parameters.items()},
        x.astype(np.float64),
        y,
        "cross_entropy",
        masks=dict(network.masks),
        seed=network.seed,
        step=0,
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, wanted in gradients.items():
        error = np.abs(network.gradients[name] - wanted).max()
        # Where the sum over the batch cancels, rounding is relative to its terms.
        assert error <= 1e-5 * max(np.abs(wanted).max(), 1e-2), name
    for name, mask in network.masks.items():
        assert (network.gradients[name][~mask] == 0).all()


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_predictions_are_the_references(sparsity: float) -> None:
    network = masked_network(sparsity)
    x, _ = batch(100)
    wanted = reference.forward(TWIN, dict(network.parameters), x.astype(np.float64))
    np.testing.assert_allclose(network.predict(x), wanted, rtol=1e-4, atol=1e-5)


def test_the_summary_says_which_layers_run_sparse() -> None:
    network = masked_network(0.9)
    assert [network.is_sparse(f"dense{i}") for i in range(3)] == [True, True, False]
    assert not masked_network(0.5).is_sparse("dense0")
    assert not network.is_sparse("dropout0")
    model = gp.Model([gp.Dense(10), gp.Dense(2)], 10)
    gp.Pruner(model, criterion=gp.Magnitude(), exclude="dense1").prune(0.9)
    assert [row.kernel for row in model.summary().layers] == ["sparse", "dense"]


def test_the_bits_depend_neither_on_threads_nor_on_the_batch() -> None:
    network = masked_network(0.9)
    x, y = batch(300)
    results = []
    for count in (1, 2, 3, 5):
        with threads(count):
            network.forward_count = 0
            loss = network.backward(x, y)
            results.append((loss, network.arena.grads.tobytes(), network.predict(x).tobytes()))
    assert all(result == results[0] for result in results)
    whole = network.predict(x)
    for size in (1, 5, 17, 64):
        parts = [network.predict(x[start : start + size]) for start in range(0, len(x), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_what_is_written_counts_and_removed_weights_do_not() -> None:
    network = masked_network(0.9)
    x, y = batch(40)
    before = network.predict(x)
    weight, mask = network.parameters["dense1.weight"], network.masks["dense1.weight"]
    weight[~mask] = 5.0
    assert network.predict(x).tobytes() == before.tobytes()
    network.train_step(x, y, optimizer=gp.SGD(network, lr=0.0))
    assert (weight[~mask] == 0).all()
    weight[mask] *= 2
    assert np.abs(network.predict(x) - before).max() > 1e-3


def test_lists_follow_the_mask() -> None:
    network = masked_network(0.9)
    x, _ = batch(40)
    network.predict(x)
    other = masked_network(0.95, seed=1)
    for name, mask in other.masks.items():
        network.set_mask(name, np.ones(mask.shape))
        network.parameters[name][...] = other.parameters[name]
        network.set_mask(name, mask)
    for name, values in other.parameters.items():
        network.parameters[name][...] = values
    assert network.predict(x).tobytes() == other.predict(x).tobytes()


@pytest.mark.parametrize("fused", [True, False])
def test_training_keeps_removed_weights_at_zero(fused: bool) -> None:
    network = masked_network(0.9)
    optimizer = gp.Adam(network, lr=0.01, clip=gp.ClipNorm(1.0))
    x, y = batch(200)
    losses = []
    for _ in range(30):
        if fused:
            losses.append(network.train_step(x, y, optimizer=optimizer)[0])
        else:
            losses.append(network.backward(x, y))
            optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    for name, mask in network.masks.items():
        assert (network.parameters[name][~mask] == 0).all()


def test_fused_and_separate_steps_agree_to_the_bit() -> None:
    one, two = masked_network(0.9), masked_network(0.9)
    fused, separate = gp.Adam(one, clip=gp.ClipNorm(0.1)), gp.Adam(two, clip=gp.ClipNorm(0.1))
    x, y = batch(100)
    for _ in range(5):
        one.train_step(x, y, optimizer=fused)
        two.backward(x, y)
        separate.step()
    assert one.arena.params.tobytes() == two.arena.params.tobytes()
