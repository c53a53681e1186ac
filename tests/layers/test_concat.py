"""Concat: outputs side by side, in every form of a network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.tracing import trace

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(70, 3, 8, 8)).astype(np.float32)
SERIES = RNG.normal(size=(40, 5, 3)).astype(np.float32)


def of_images() -> gp.Model:
    x = gp.Input((3, 8, 8))
    first = gp.Conv2D(4, 3, padding="same", activation="relu")(x)
    both = gp.Concat()([first, gp.Conv2D(5, 1)(x), x])
    y = gp.Conv2D(6, 3, activation="relu")(both)
    return gp.Model(x, gp.Dense(4)(gp.Flatten()(y)), seed=0)


def of_series() -> gp.Model:
    x = gp.Input((5, 3))
    first, second = (
        layer(x) for layer in (gp.GRU(4, return_sequences=True), gp.LSTM(2, return_sequences=True))
    )
    return gp.Model(x, gp.Dense(4)(gp.RNN(6)(gp.Concat()(first, second))), seed=1)


def of_features() -> gp.Model:
    x = gp.Input(6)
    y = gp.Dense(5, activation="relu")(x)
    return gp.Model(x, gp.Dense(4)(gp.Concat()([y, x, y])), seed=2)


CASES = [(of_images, IMAGES), (of_series, SERIES), (of_features, IMAGES.reshape(-1, 6)[:70])]
cases = pytest.mark.parametrize(("make", "x"), CASES, ids=["images", "series", "features"])


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([3, 4], (7,)),
        ([3, 4, 3], (10,)),
        ([(5, 2), (5, 3)], (5, 5)),
        ([(2, 7, 6), (1, 7, 6)], (3, 7, 6)),
    ],
)
def test_shapes(shapes: list[Any], expected: tuple[int, ...]) -> None:
    assert gp.Concat()([gp.Input(shape) for shape in shapes]).shape == expected


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([3], "reads two or more inputs, got 1"),
        ([(5, 2), (4, 2)], r"differ in the features.*got \(5, 2\) and \(4, 2\)"),
        ([(2, 7, 6), (2, 7, 5)], "differ in the features"),
        ([3, (3, 1)], "differ in the features"),
    ],
)
def test_shapes_that_do_not_go_together(shapes: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp.Concat()([gp.Input(shape) for shape in shapes])


@cases
def test_gradients_are_those_of_the_trace(make: Any, x: Any) -> None:
    model = make()
    y = np.arange(len(x)) % 4
    traced = trace(model, x, y, loss="cross_entropy")
    assert model.backward(x, y, loss="cross_entropy") == pytest.approx(traced.loss, rel=1e-6)
    for name, gradient in traced.gradients.items():
        np.testing.assert_allclose(model.gradients[name], gradient, atol=2e-6)


def test_images_as_torch_has_them(torch: Any) -> None:
    model = of_images()
    y = np.arange(70) % 4
    p = {k: torch.tensor(np.array(v), requires_grad=True) for k, v in model.parameters.items()}
    f, x = torch.nn.functional, torch.tensor(IMAGES)

    def conv(number: int, given: Any, padding: int = 0) -> Any:
        name = f"conv2d{number}"
        return f.conv2d(given, p[f"{name}.weight"], p[f"{name}.bias"], padding=padding)

    both = torch.cat([conv(0, x, 1).relu(), conv(1, x), x], dim=1)
    out = f.linear(conv(2, both).relu().flatten(1), p["dense0.weight"], p["dense0.bias"])
    loss = f.cross_entropy(out, torch.tensor(y))
    loss.backward()
    assert model.backward(IMAGES, y, loss="cross_entropy") == pytest.approx(loss.item(), rel=1e-6)
    for name, tensor in p.items():
        np.testing.assert_allclose(model.gradients[name], tensor.grad.numpy(), atol=2e-6)


@cases
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_every_form_predicts_the_same(make: Any, x: Any, sparsity: float, tmp_path: Path) -> None:
    model = make()
    rng = np.random.default_rng(3)
    model.set_masks({n: rng.random(mask.shape) >= sparsity for n, mask in model.masks.items()})
    model.save(tmp_path / "m.safetensors")
    gp.compress(model).save(tmp_path / "m.gpz")
    forms = [model.freeze(), model.shrink(), model.copy(), gp.compress(model)]
    files = [gp.load(tmp_path / name) for name in ("m.safetensors", "m.gpz")]
    expected = model.predict(x)
    for form in [*forms, *files]:
        for n in (1, 3, len(x)):
            np.testing.assert_allclose(form.predict(x[:n]), expected[:n], atol=3e-6)


def test_dead_units_of_what_it_reads_go_with_their_columns() -> None:
    model = of_images()
    for name, dead in (("conv2d0.weight", [1, 2]), ("conv2d1.weight", [4])):
        mask = np.array(model.masks[name])
        mask[dead] = False
        model.set_mask(name, mask)
        model.parameters[name.replace("weight", "bias")][dead] = 0.0
    unread = np.array(model.masks["conv2d2.weight"])
    unread[:, 5] = False  # the second channel of conv2d1
    model.set_mask("conv2d2.weight", unread)
    small = model.shrink()
    shapes = {name: value.shape for name, value in small.parameters.items()}
    assert shapes["conv2d0.weight"] == (2, 3, 3, 3)
    assert shapes["conv2d1.weight"] == (3, 3, 1, 1)
    assert shapes["conv2d2.weight"] == (6, 2 + 3 + 3, 3, 3)
    np.testing.assert_allclose(small.predict(IMAGES), model.predict(IMAGES), atol=2e-6)


def test_summary_and_diagnosis_know_it() -> None:
    model = of_images()
    assert "Concat of conv2d0 + conv2d1 + .input" in str(model.summary())
    diagnosis = gp.diagnose(model, IMAGES, np.arange(70) % 4, loss="cross_entropy")
    assert "concat0" in [layer.name for layer in diagnosis.layers]


def test_features_as_torch_has_them(torch: Any) -> None:
    model, x = of_features(), IMAGES.reshape(-1, 6)[:70]
    target = np.arange(70) % 4
    p = {k: torch.tensor(np.array(v), requires_grad=True) for k, v in model.parameters.items()}
    f, given = torch.nn.functional, torch.tensor(x)
    y = f.linear(given, p["dense0.weight"], p["dense0.bias"]).relu()
    both = torch.cat([y, given, y], dim=1)
    out = f.linear(both, p["dense1.weight"], p["dense1.bias"])
    loss = f.cross_entropy(out, torch.tensor(target))
    loss.backward()
    assert model.backward(x, target, loss="cross_entropy") == pytest.approx(loss.item(), rel=1e-6)
    for name, tensor in p.items():
        np.testing.assert_allclose(model.gradients[name], tensor.grad.numpy(), atol=2e-6)


def test_sequences_as_torch_has_them(torch: Any) -> None:
    model, target = of_series(), np.arange(40) % 4
    cells = {
        "gru0": torch.nn.GRU(3, 4, batch_first=True),
        "lstm0": torch.nn.LSTM(3, 2, batch_first=True),
        "rnn0": torch.nn.RNN(6, 6, batch_first=True),
        "dense0": torch.nn.Linear(6, 4),
    }
    for name, module in cells.items():
        for role, parameter in module.named_parameters():
            value = model.parameters[f"{name}.{role.removesuffix('_l0')}"]
            parameter.data = torch.tensor(np.array(value))
    x = torch.tensor(SERIES)
    both = torch.cat([cells["gru0"](x)[0], cells["lstm0"](x)[0]], dim=2)
    out = cells["dense0"](cells["rnn0"](both)[0][:, -1])
    loss = torch.nn.functional.cross_entropy(out, torch.tensor(target))
    loss.backward()
    found = model.backward(SERIES, target, loss="cross_entropy")
    assert found == pytest.approx(loss.item(), rel=1e-6)
    for name, module in cells.items():
        for role, parameter in module.named_parameters():
            gradient = model.gradients[f"{name}.{role.removesuffix('_l0')}"]
            np.testing.assert_allclose(gradient, parameter.grad.numpy(), atol=2e-6)


@cases
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_verify_takes_all_forms(make: Any, x: Any, sparsity: float, tmp_path: Path) -> None:
    model = make()
    rng = np.random.default_rng(4)
    model.set_masks({n: rng.random(mask.shape) >= sparsity for n, mask in model.masks.items()})
    model.save(tmp_path / "m.safetensors")
    integers = model.freeze(precision="int8")
    forms = (model.freeze(), integers, model.shrink(), model.copy(), gp.compress(model))
    gp.verify(model, *forms, gp.load(tmp_path / "m.safetensors"), x=x)
    assert integers.predict(x[:1]).tobytes() == integers.predict(x)[:1].tobytes()


@cases
def test_units_behind_it_are_removed_whole(make: Any, x: Any) -> None:
    model = make()
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit())
    pruner.prune(0.5)
    units = [mask.reshape(len(mask), -1) for mask in map(np.array, model.masks.values())]
    assert all((unit.all(axis=1) | ~unit.any(axis=1)).all() for unit in units)
    small = model.shrink()
    assert any(not unit.any(axis=1).all() for unit in units)
    np.testing.assert_allclose(small.predict(x), model.predict(x), atol=3e-6)


@cases
def test_bits_do_not_depend_on_threads_or_copies(make: Any, x: Any) -> None:
    y, before = np.arange(len(x)) % 4, gp.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            gp.set_num_threads(threads)
            model = make()
            gp.Adam(model, lr=1e-2)
            for again in range(4):
                model = pickle.loads(pickle.dumps(model)) if again == 2 else model
                model.train_step(x, y, optimizer=model.optimizer)
            found.append([value.tobytes() for value in model.parameters.values()])
    finally:
        gp.set_num_threads(before)
    assert found[0] == found[1]
