"""GraSP against double backward, SynFlow's conservation, Movement's weights, rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.pruning.probing import probing
from gradprune.pruning.statistics import Statistics
from gradprune.reference import pruning as oracle
from pruning_models import batch, live, network, same, snapshot


def scores_of(model: Any, criterion: Any, samples: Any) -> np.ndarray:
    pruner = gp.Pruner(model, criterion=criterion)
    with probing(model, pruner._covered.layers, live(model), samples) as probe:
        weights = model.arena.params[:174].copy()
        return criterion.scores(weights, Statistics.zeros(0), np.zeros, probe)


def double_backward(torch: Any, model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """w (H g) of all weights by torch, in double precision."""
    tensors = {
        name: torch.tensor(values.astype(np.float64), requires_grad=name in model.masks)
        for name, values in model.parameters.items()
    }
    functions = {
        "relu": torch.relu,
        "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.01),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "elu": torch.nn.functional.elu,
        "identity": lambda z: z,
    }
    h = torch.tensor(x.astype(np.float64))
    for layer in model.layers:
        name = layer.name
        if isinstance(layer, gp.Conv2D):
            h = torch.nn.functional.conv2d(h, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        elif isinstance(layer, gp.MaxPool2D):
            h = torch.nn.functional.max_pool2d(h, 2)
        elif isinstance(layer, gp.Flatten):
            h = h.flatten(1)
        else:
            h = h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        if hasattr(layer, "activation"):
            h = functions[layer.activation](h)
    weights = [tensors[name] for name in model.masks]
    loss = torch.nn.functional.cross_entropy(h, torch.tensor(y))
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    live = [torch.tensor(mask.astype(np.float64)) for mask in model.masks.values()]
    power = sum((g * (g * m).detach()).sum() for g, m in zip(gradient, live, strict=True))
    product = torch.autograd.grad(power, weights)
    return np.concatenate(
        [
            oracle.grasp(w.detach().numpy(), p.numpy()).ravel()
            for w, p in zip(weights, product, strict=True)
        ]
    )


def assert_double_backward(torch: Any, model: Any, x: np.ndarray, y: np.ndarray) -> None:
    pruner = gp.Pruner(model, criterion=gp.GraSP())
    with probing(model, pruner._covered.layers, live(model), (x, y, "cross_entropy")) as probe:
        weights = model.arena.params[: live(model).size].copy()
        found = gp.GraSP().scores(weights, Statistics.zeros(0), np.zeros, probe)
    expected = double_backward(torch, model, x, y)
    assert np.abs(found - expected)[live(model)].max() < 1e-6 * np.abs(expected).max()
    kept = expected.size // 5  # as selected by either
    assert set(found.argsort()[-kept:]) == set(expected.astype(np.float32).argsort()[-kept:])


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu"]
)
def test_grasp_is_double_backward(torch: Any, activation: str, share: float) -> None:
    layers = [gp.Dense(30, activation=activation), gp.Dense(20, activation=activation), gp.Dense(5)]
    model = gp.Model(layers, 12, seed=0)
    rng = np.random.default_rng(3)
    model.set_masks({name: rng.random(m.shape) >= share for name, m in model.masks.items()})
    assert_double_backward(torch, model, *batch(0, 300))


def test_grasp_is_double_backward_of_images(torch: Any) -> None:
    layers = [gp.Conv2D(5, 3, activation="relu"), gp.MaxPool2D(2), gp.Flatten(), gp.Dense(5)]
    model = gp.Model(layers, (1, 8, 8), seed=0)
    x = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
    assert_double_backward(torch, model, x, np.arange(60) % 5)


def test_a_unit_next_to_its_kink_does_not_show(torch: Any) -> None:
    """The pre-activation of a sample is 0 to within any step of a difference."""
    for side in (1e-9, -1e-9, 1e-11):
        layers = [gp.Dense(6, activation="relu"), gp.Dense(5)]
        model = gp.Model(layers, 12, seed=0)
        x, y = batch(0, 20)
        weight = model.parameters["dense0.weight"].astype(np.float64)
        model.parameters["dense0.bias"][0] = -(x[0].astype(np.float64) @ weight[0])
        rest = x[0].astype(np.float64) @ weight[0] + float(model.parameters["dense0.bias"][0])
        x[0, 0] += np.float32((side - rest) / weight[0, 0])
        assert_double_backward(torch, model, x, y)


def test_synflow_is_conserved_and_equals_the_oracle() -> None:
    model = network(dropout=True)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.4)
    model.parameters["dense0.bias"][:] = 3.0  # takes no part
    matrices = [model.parameters[name].astype(np.float64) for name in model.masks]
    found = scores_of(model, gp.SynFlow(), None)
    parts = np.split(found, [96, 144])
    for part, expected in zip(parts, oracle.synflow(matrices), strict=True):
        assert part.sum() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(part, expected.ravel(), rtol=1e-4, atol=1e-8)
    first, second, third = (p.reshape(m.shape) for p, m in zip(parts, matrices, strict=True))
    np.testing.assert_allclose(first.sum(axis=1), second.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(second.sum(axis=1), third.sum(axis=0), atol=1e-6)


def test_synflow_does_not_overflow_in_deep_networks() -> None:
    model = gp.Model([gp.Dense(64, activation="relu") for _ in range(40)], 64, seed=0)
    for name in model.masks:
        model.parameters[name][:] *= 100.0
    before = model.arena.params.copy()
    report = gp.Pruner(model, criterion=gp.SynFlow()).prune(0.9, rounds=1)
    assert report.achieved == pytest.approx(0.9, abs=1e-5)
    kept = live(model)
    np.testing.assert_array_equal(model.arena.params[: kept.size][kept], before[: kept.size][kept])


def paths(model: Any) -> float:
    """Of how many ways from an input to an output anything is left."""
    ways = np.ones(model.input_shape)
    for mask in model.masks.values():
        ways = mask.astype(float) @ ways
    return float(ways.sum())


def test_synflow_keeps_paths_where_others_collapse() -> None:
    def left(criterion: Any, **options: Any) -> float:
        sizes = [40, 200, 40, 40, 10]
        model = gp.Model([gp.Dense(n, activation="relu") for n in sizes], 60, seed=0)
        x = np.random.default_rng(0).standard_normal((32, 60))
        y = np.arange(32) % 10
        gp.Pruner(model, criterion=criterion).prune(0.998, data=(x, y), **options)
        return paths(model)

    assert left(gp.SynFlow()) > 0
    assert left(gp.Magnitude()) == 0
    assert left(gp.Taylor()) == 0  # SNIP


def test_no_flow_through_gates() -> None:
    model = gp.Model([gp.LSTM(3), gp.Dense(2)], (4, 2), seed=0)
    pruner = gp.Pruner(model, criterion=gp.SynFlow())
    with pytest.raises(ValueError, match="no flow through lstm0: LSTM has no linear form"):
        pruner.prune(0.5)
    assert model.sparsity == 0


def test_movement_uses_the_weights_of_the_gradient() -> None:
    model = network()
    optimizer = gp.SGD(model, lr=0.5)
    pruner = gp.Pruner(model, criterion=gp.Movement())
    mean = np.zeros(174)
    for step in range(3):
        weights = model.arena.params[:174].astype(np.float64)
        model.train_step(*batch(step), optimizer=optimizer)
        mean += oracle.movement(weights, model.arena.grads[:174]) / 3
        pruner.step()
    np.testing.assert_allclose(pruner.statistics.mean, mean, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="observes no gradients alone"):
        pruner.decomposition()
    pruner.prune(0.5)
    expected = oracle.prune_mask(mean, np.ones(174, bool), 87)
    np.testing.assert_array_equal(live(model), expected)


def test_rounds_are_prunings_one_after_the_other() -> None:
    at_once, by_hand = network(), network()
    before = at_once.arena.params.copy()
    pruner = gp.Pruner(at_once, criterion=gp.Taylor())
    report = pruner.prune(0.75, data=batch(1), rounds=2)
    other = gp.Pruner(by_hand, criterion=gp.Taylor())
    for goal in (87, 130):  # half of what is left, each time
        other.prune(count=goal - by_hand.arena.removed, data=batch(1))
    np.testing.assert_array_equal(live(at_once), live(by_hand))
    assert (report.removed, report.removed_now, pruner.events) == (130, 130, 1)
    kept = live(at_once)
    np.testing.assert_array_equal(at_once.arena.params[:174][kept], before[:174][kept])


def test_rounds_need_data_and_a_budget() -> None:
    model = network()
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    model.backward(*batch(0))
    pruner.step()
    before = snapshot(model)
    with pytest.raises(ValueError, match="rounds=3 need data"):
        pruner.prune(0.5, rounds=3)
    with pytest.raises(ValueError, match="threshold has none"):
        pruner.prune(threshold=0.1, rounds=3)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        pruner.prune(0.5, rounds=0, data=batch(0))
    assert same(before, snapshot(model))


def test_probing_needs_no_data_for_the_flow_alone() -> None:
    with pytest.raises(ValueError, match="GraSP tries weights out and there is no data"):
        gp.Pruner(network(), criterion=gp.GraSP()).prune(0.5)
    with pytest.raises(ValueError, match="needs a probe"):
        gp.SynFlow().scores(np.ones(2, np.float32), Statistics.zeros(2), np.zeros)
