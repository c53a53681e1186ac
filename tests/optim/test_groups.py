"""Parameter groups: frozen layers, weight decay without biases, learning rates by layer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.engine.tracing import trace
from state import threads

RNG = np.random.default_rng(7)
X = RNG.normal(size=(70, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 70)

Make = Callable[..., Any]
OPTIMIZERS: dict[str, tuple[Make, Make]] = {
    "sgd": (gp.SGD, reference.sgd_step),
    "adam": (gp.Adam, reference.adam_step),
    "rmsprop": (gp.RMSprop, reference.rmsprop_step),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02, "decoupled": True},
    "adam": {"lr": 0.01, "weight_decay": 0.02, "decoupled": True},
    "rmsprop": {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.02},
}
SCALE = {"dense0": 0.1, "dense1": 0.0, "dense2.bias": 3.0}


def network(frozen: tuple[str, ...] = (), sparsity: float = 0.0, **settings: Any) -> gp.Model:
    layers = [
        gp.Dense(40, activation="tanh"),
        gp.Dense(30, activation="relu", trainable="dense1" not in frozen),
        gp.BatchNorm(trainable="batchnorm0" not in frozen),
        gp.Dense(4),
    ]
    model = gp.Model(layers, input_shape=6, seed=1, **settings)
    if sparsity:
        gp.Pruner(model, criterion=gp.Magnitude(), min_kept=1).prune(sparsity)
    return model


def bits(model: gp.Model) -> bytes:
    assert model.optimizer is not None
    parts = [*model.get_state().values(), *model.optimizer.moments]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_the_twin_for_each_parameter(name: str, sparsity: float) -> None:
    make, twin = OPTIMIZERS[name]
    model = network(("dense1",), sparsity)
    optimizer = make(model, **SETTINGS[name], decay_biases=False, lr_scale=SCALE)
    values = {n: v.astype(np.float64) for n, v in model.parameters.items()}
    states: dict[str, Any] = {n: {} for n in values}
    for step in range(1, 5):
        model.backward(X, Y)
        gradients = {n: g.astype(np.float64) for n, g in model.gradients.items()}
        info = optimizer.step()
        live = np.concatenate([g.ravel() for n, g in gradients.items() if "dense1" not in n])
        assert info.norm == pytest.approx(float(np.linalg.norm(live)), rel=1e-5)
        for n, value in values.items():
            if n.startswith("dense1"):
                continue
            settings = dict(SETTINGS[name])
            settings["lr"] *= SCALE.get(n, SCALE.get(n.partition(".")[0], 1.0))
            if n not in model.masks:
                settings["weight_decay"] = 0.0
            mask = model.masks.get(n)
            values[n], states[n] = twin(
                value, gradients[n], states[n], step=step, mask=mask, **settings
            )
            np.testing.assert_allclose(model.parameters[n], values[n], rtol=2e-5, atol=1e-6)
    for n, moment in zip(
        ["dense1.weight", "dense1.bias"],
        [model.arena.views(m) for m in optimizer.moments],
        strict=False,
    ):
        assert not moment[n].any()
    assert optimizer.norms()["dense1.weight"] == 0.0


def test_groups_that_say_nothing_change_no_bit() -> None:
    plain, grouped = network(), network()
    optimizers = (
        gp.AdamW(plain, lr=0.01),
        gp.AdamW(grouped, lr=0.01, decay_biases=True, lr_scale={"dense0": 1.0}),
    )
    for model, optimizer in zip((plain, grouped), optimizers, strict=True):
        model.fit(X, Y, optimizer=optimizer, epochs=3, verbose=0)
    assert bits(plain) == bits(grouped)


@pytest.mark.parametrize(
    "clip",
    [
        None,
        gp.ClipNorm(0.05),
        gp.clipping.ClipNormPerLayer(0.02),
        gp.clipping.AGC(),
        gp.clipping.AdaGC(),
        (gp.clipping.Centralize(), gp.ClipNorm(0.05)),
    ],
    ids=repr,
)
def test_a_frozen_layer_is_as_if_it_were_not_there(clip: Any) -> None:
    """To the clippers: the others get what they would get if its gradient were 0."""
    frozen, zeroed = network(("dense1", "batchnorm0")), network(("batchnorm0",))
    ours, theirs = (gp.SGD(model, lr=0.1, clip=clip) for model in (frozen, zeroed))
    ours.keep_clipped = True
    for _ in range(3):
        frozen.backward(X, Y)
        zeroed.backward(X, Y)
        for name, gradient in zeroed.gradients.items():
            if name.startswith(("dense1", "batchnorm0")):
                gradient[...] = 0
        info = ours.step(), theirs.step()
        if not isinstance(clip, gp.clipping.AGC):
            assert info[0].norm == pytest.approx(info[1].norm, rel=1e-6)
        assert not ours.clipped_gradients["dense1.weight"].any()
        for name, values in zeroed.parameters.items():
            np.testing.assert_allclose(frozen.parameters[name], values, rtol=1e-5, atol=1e-7)


def test_what_is_frozen_counts_for_no_guard() -> None:
    model = network(("dense1",))
    optimizer = gp.Adam(model, guard=gp.guards.Raise(max_norm=1e3))
    model.backward(X, Y)
    model.gradients["dense1.weight"][0, 0] = np.nan
    assert optimizer.step().applied


def test_the_same_bits_however_steps_are_taken(tmp_path: Path) -> None:
    results = set()
    order = [np.random.default_rng(i).permutation(70)[:32] for i in range(5)]
    for sparsity in (0.9,):
        for number in (1, 2, 3, 4):
            single, many, apart = (network(("dense1",), sparsity) for _ in range(3))
            for model in (single, many, apart):
                gp.AdamW(model, clip=gp.ClipNorm(0.1), decay_biases=False, lr_scale=SCALE)
            with threads(number):
                for rows in order:
                    single.train_step(X[rows], Y[rows], optimizer=single.optimizer)
                    apart.backward(X[rows], Y[rows])
                    apart.optimizer.step()
                many.train_steps(X, Y, index=order, optimizer=many.optimizer)
            results |= {bits(model) for model in (single, many, apart)}
    assert len(results) == 1
    path = tmp_path / "groups.safetensors"
    many.save(path)
    others = [many.copy(), pickle.loads(pickle.dumps(many)), gp.load(path)]
    for model in (many, *others):
        assert [layer.trainable for layer in model.layers] == [True, False, True, True]
        assert model.optimizer is not None
        assert model.optimizer.settings()["lr_scale"] == SCALE
        model.train_steps(X, Y, index=order, optimizer=model.optimizer)
    assert len({bits(model) for model in (many, *others)}) == 1


def test_a_smaller_model_has_the_same_groups() -> None:
    model = network(("dense1",))
    mask = np.ones((40, 6), bool)
    mask[:13] = False
    model.set_mask("dense0.weight", mask)
    optimizer = gp.AdamW(model, lr=0.01, decay_biases=False, lr_scale=SCALE)
    model.train_step(X, Y, optimizer=optimizer)
    small = model.shrink()
    assert small.parameters["dense1.weight"].shape == (30, 27)
    assert [layer.trainable for layer in small.layers] == [True, False, True, True]
    before = small.get_state()
    small.train_step(X, Y, optimizer=small.optimizer)
    after = small.get_state()
    same = [n for n in after if np.array_equal(after[n], before[n])]
    assert same == ["dense1.weight", "dense1.bias"]
    assert gp.verify(model, model.freeze(), gp.compress(model), x=X)


def test_layers_are_frozen_and_let_go() -> None:
    model = network()
    optimizer = gp.AdamW(model, lr=0.01, weight_decay=0.1)
    model.train_step(X, Y, optimizer=optimizer)
    model.set_trainable(["dense0", "batchnorm0"], False)
    before = model.get_state()
    model.fit(X, Y, optimizer=optimizer, epochs=2, verbose=0)
    after = model.get_state()
    still = {n for n in after if np.array_equal(after[n], before[n])}
    assert still == {n for n in after if n.startswith(("dense0", "batchnorm0"))}
    model.set_trainable("batchnorm0", True)
    model.train_step(X, Y, optimizer=optimizer)
    assert not np.array_equal(
        model.buffers["batchnorm0.running_mean"], after["batchnorm0.running_mean"]
    )
    np.testing.assert_array_equal(model.parameters["dense0.weight"], after["dense0.weight"])
    with pytest.raises(KeyError, match="no layer is called"):
        model.set_trainable("dense9", False)
    with pytest.raises(TypeError, match="trainable must be True or False"):
        model.set_trainable("dense0", 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trainable must be True or False"):
        gp.Dense(3, trainable=None)  # type: ignore[arg-type]


def test_both_directions_are_frozen() -> None:
    model = gp.Model([gp.Bidirectional(gp.GRU(3), trainable=False), gp.Dense(2)], (5, 4))
    x, y = np.ones((3, 5, 4)), [0, 1, 0]
    before = model.get_state()
    model.train_step(x, y, optimizer=gp.SGD(model, lr=0.1))
    assert [n for n, v in model.get_state().items() if not np.array_equal(v, before[n])] == [
        "dense0.weight",
        "dense0.bias",
    ]
    model.set_trainable("bidirectional0", True)
    model.train_step(x, y, optimizer=model.optimizer)
    after = model.get_state()
    assert not any(np.array_equal(after[n], before[n]) for n in after if n.endswith(".weight"))


def test_a_frozen_normalization_is_that_of_the_twin() -> None:
    """Its running statistics do not depend on the batch, so one sample is a batch, too."""
    model = network(("batchnorm0",))
    model.buffers["batchnorm0.running_mean"][:] = 0.3
    model.buffers["batchnorm0.running_var"][:] = 0.5
    for rows in (70, 1):
        expected = trace(model, X[:rows], Y[:rows])
        loss = model.backward(X[:rows], Y[:rows])
        assert loss == pytest.approx(expected.loss, rel=1e-5)
        for name, gradient in expected.gradients.items():
            np.testing.assert_allclose(model.gradients[name], gradient, rtol=1e-4, atol=1e-6)
    assert model.smallest_batch == 1
    assert np.all(model.buffers["batchnorm0.running_mean"] == np.float32(0.3))


def test_bad_settings_are_refused() -> None:
    model = network()
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"lr_scale": {"dense9": 1.0}}, ValueError, "lr_scale names"),
        ({"lr_scale": {"dense0": -1.0}}, ValueError, "must not be negative"),
        ({"lr_scale": {"dense0": "a"}}, TypeError, "must be a number"),
        ({"lr_scale": 0.1}, TypeError, "lr_scale must map"),
        ({"decay_biases": 1}, TypeError, "decay_biases must be True or False"),
    ]
    for settings, error, text in bad:
        for make in (gp.SGD, gp.Adam, gp.AdamW, gp.RMSprop):
            with pytest.raises(error, match=text):
                make(model, lr=0.1, **settings)
    assert model.optimizer is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parity_with_torch(torch: Any, name: str) -> None:
    """By param_groups and requires_grad."""
    model = gp.Model(
        [gp.Dense(16, activation="tanh"), gp.Dense(8, activation="tanh"), gp.Dense(4)], 6, seed=1
    )
    module = model.to_torch()
    model.set_trainable("dense1", False)
    lr, decay = 0.01, 0.05
    scale = {"dense0": 0.1, "dense2": 1.0}
    groups = []
    for n, parameter in module.named_parameters():
        layer = n.rpartition(".")[0].rpartition(".")[2]
        if layer == "dense1":
            parameter.requires_grad_(False)
            continue
        groups.append(
            {
                "params": [parameter],
                "lr": lr * scale[layer],
                "weight_decay": 0.0 if n.endswith("bias") else decay,
            }
        )
    kinds = {
        "sgd": (gp.SGD, torch.optim.SGD, {"momentum": 0.9}),
        "adam": (gp.AdamW, torch.optim.AdamW, {}),
        "rmsprop": (gp.RMSprop, torch.optim.RMSprop, {}),
    }
    ours, theirs, settings = kinds[name]
    optimizer = ours(
        model,
        lr=lr,
        weight_decay=decay,
        decay_biases=False,
        lr_scale=scale,
        **settings,
        clip=gp.ClipNorm(0.5),
    )
    other = theirs(groups, **({"lr": lr} | settings))
    for _ in range(20):
        model.train_step(X, Y, optimizer=optimizer)
        other.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(Y)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        other.step()
    expected = module(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-5)


def test_every_layer_says_so() -> None:
    network_ = Network([gp.Dense(3, trainable=False), gp.BatchNorm(trainable=False)], 4)
    assert network_.arena.frozen is not None
    assert network_.arena.frozen.all()
