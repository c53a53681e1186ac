"""Bidirectional: two recurrent layers, named and computed as torch's and Keras's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.tracing import trace

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 7, 3), np.float32)
CELLS = (gp.RNN, gp.LSTM, gp.GRU)


def from_torch(torch: Any, model: gp.Model, module: Any) -> None:
    """The module's weights, layer by layer and direction by direction."""
    state = {}
    for name in model.parameters:
        layer, role = name.split(".")
        number = layer.partition("/")[0].removeprefix("bidirectional")
        suffix = "_reverse" if layer.endswith("/backward") else ""
        state[name] = module.state_dict()[f"{role}_l{number}{suffix}"].numpy()
    model.set_state(state)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_it_is_torchs(torch: Any, cell: Any, layers: int) -> None:
    """Outputs at all steps of the last layer, and its last states."""
    module = getattr(torch.nn, cell.__name__)(
        3, 5, num_layers=layers, bidirectional=True, batch_first=True
    )
    y, states = module(torch.tensor(X))
    h = (states[0] if isinstance(states, tuple) else states)[-2:]  # forward, backward
    last = torch.cat(list(h), dim=1).detach().numpy()
    for sequences, expected in ((True, y.detach().numpy()), (False, last)):
        several = [gp.Bidirectional(cell(5, return_sequences=True))] * (layers - 1)
        model = gp.Model([*several, gp.Bidirectional(cell(5, return_sequences=sequences))], (7, 3))
        from_torch(torch, model, module)
        for form in (model, model.freeze()):
            for x, wanted in ((X, expected), (X[:1], expected[:1])):
                np.testing.assert_allclose(form.predict(x), wanted, rtol=2e-5, atol=2e-6)


def test_its_parts_have_names_of_their_own() -> None:
    layers = [gp.Bidirectional(gp.LSTM(4, return_sequences=True)), gp.Bidirectional(gp.GRU(2))]
    model = gp.Model([*layers, gp.Dense(2)], (7, 3), seed=0)
    assert [layer.name for layer in model.layers] == [
        "bidirectional0/forward",
        "bidirectional0/reversed",
        "bidirectional0/backward",
        "bidirectional0/restored",
        "bidirectional0",
        "bidirectional1/forward",
        "bidirectional1/reversed",
        "bidirectional1/backward",
        "bidirectional1",
        "dense0",
    ]
    forward, backward = (
        model.parameters[f"bidirectional0/{way}.weight_ih"] for way in ("forward", "backward")
    )
    assert not np.array_equal(forward, backward)
    named = gp.Model([gp.Bidirectional(gp.GRU(2), name="both")], (7, 3))
    assert "both/backward.weight_hh" in named.parameters


def graph(seed: int = 0) -> gp.Model:
    """Read twice, and reading what is not the layer before."""
    x = gp.Input((7, 3))
    y = gp.Bidirectional(gp.GRU(4, return_sequences=True))(x)
    assert y.shape == (7, 8)
    z = gp.Dense(8, activation="tanh")(x) + y
    last = gp.Bidirectional(gp.LSTM(3))(z)
    both = gp.Concat()([last, gp.GlobalMaxPool()(y)])
    return gp.Model(x, gp.Dense(4)(both), seed=seed)


def test_the_functional_graph_has_the_same_parts(tmp_path: Path) -> None:
    model = graph()
    y = RNG.integers(0, 4, 40)
    traced = trace(model, X, y)
    assert model.backward(X, y) == pytest.approx(traced.loss, rel=1e-6)
    for name, gradient in model.gradients.items():
        np.testing.assert_allclose(gradient, traced.gradients[name], rtol=1e-4, atol=2e-6)
    gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit()).prune(0.4)
    model.pruner = None
    model.save(tmp_path / "model.safetensors")
    small = model.shrink()
    loaded = gp.load(tmp_path / "model.safetensors")
    assert loaded.layers == model.layers
    gp.verify(model, model.freeze(), small, small.freeze(), loaded, model.copy(), x=X)
    pytest.importorskip("constriction")
    gp.compress(model).save(tmp_path / "model.gpz")
    gp.verify(model, gp.load(tmp_path / "model.gpz"), x=X)


def test_units_of_one_direction_can_go() -> None:
    model = gp.Model([gp.Bidirectional(gp.GRU(4, return_sequences=True)), gp.Dense(2)], (7, 3))
    for role in ("weight_ih", "weight_hh"):
        name = f"bidirectional0/backward.{role}"
        mask = model.masks[name].copy().reshape(3, 4, -1)
        mask[:, [1, 2]] = False
        if role == "weight_hh":
            mask[:, :, [1, 2]] = False
        model.set_mask(name, mask.reshape(model.masks[name].shape))
    mask = model.masks["dense0.weight"].copy()
    mask[:, [5, 6]] = False
    model.set_mask("dense0.weight", mask)
    small = model.shrink()
    assert small.parameters["bidirectional0/backward.weight_ih"].shape == (6, 3)
    assert small.parameters["bidirectional0/forward.weight_ih"].shape == (12, 3)
    gp.verify(model, small, x=X)


def test_it_trains() -> None:
    model = gp.Model([gp.Bidirectional(gp.LSTM(8)), gp.Dense(2)], (7, 3), seed=0)
    y = (X[:, 0, 0] > 0).astype(np.int64)  # the first step, which the backward one sees last
    optimizer = gp.Adam(model, lr=0.02)
    losses, _ = model.train_steps(X, y, optimizer=optimizer, n=60)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gp.Bidirectional(gp.Dense(3)), TypeError, "layer must be an RNN, LSTM or GRU"),
        (lambda: gp.Bidirectional(gp.GRU), TypeError, "layer must be an RNN, LSTM or GRU"),
        (lambda: gp.Bidirectional(gp.GRU(3, name="a")), ValueError, "gets its name from it"),
        (
            lambda: gp.Model([gp.Bidirectional(gp.GRU(3))], 5),
            ValueError,
            "takes samples of shape",
        ),
    ],
)
def test_what_it_refuses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
