"""GlobalMaxPool: the largest number of each channel, in every form of a network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.engine.tracing import trace
from gradprune.layers import GlobalMaxPool

IMAGES = np.random.default_rng(0).normal(size=(70, 3, 8, 7)).astype(np.float32)
LABELS = np.arange(70) % 4


def network(seed: int = 0) -> gp.Model:
    x = gp.Input((3, 8, 7))
    y = gp.Conv2D(6, 3, activation="relu")(x)
    both = gp.Concat()([GlobalMaxPool()(gp.Conv2D(9, 2)(y)), gp.GlobalAvgPool()(y)])
    return gp.Model(x, gp.Dense(4)(gp.Dense(8, activation="relu")(both)), seed=seed)


def pruned(sparsity: float) -> gp.Model:
    model, rng = network(), np.random.default_rng(3)
    model.set_masks({n: rng.random(mask.shape) >= sparsity for n, mask in model.masks.items()})
    return model


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (2, 1, 9), (3, 28, 28)])
def test_forward_and_backward_are_exact(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-3, 4, (20, *shape)).astype(np.float32)  # with equal numbers
    model = gp.Model([GlobalMaxPool()], input_shape=shape)
    np.testing.assert_array_equal(model.predict(x), x.max(axis=(2, 3)))
    np.testing.assert_array_equal(model.freeze().predict(x), x.max(axis=(2, 3)))
    twin = reference.pool2d_forward(x.astype(np.float64), "max", shape[1:])
    np.testing.assert_array_equal(twin[:, :, 0, 0], x.max(axis=(2, 3)))


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_gradients_are_those_of_the_trace(sparsity: float) -> None:
    model = pruned(sparsity)
    traced = trace(model, IMAGES, LABELS, loss="cross_entropy")
    loss = model.backward(IMAGES, LABELS, loss="cross_entropy")
    assert loss == pytest.approx(traced.loss, rel=1e-6)
    for name, gradient in traced.gradients.items():
        np.testing.assert_allclose(model.gradients[name], gradient, atol=2e-6)


def test_gradients_are_torchs_where_numbers_are_equal(torch: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-2, 3, (9, 2, 6, 5)).astype(np.float32)
    target = rng.normal(size=(9, 4)).astype(np.float32)
    model = gp.Model([gp.Conv2D(4, 2), GlobalMaxPool()], input_shape=(2, 6, 5), seed=0)
    model.parameters["conv2d0.weight"][...] = rng.integers(-1, 2, (4, 2, 2, 2))
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 2), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten()
    )
    with torch.no_grad():
        for tensor, values in zip(module.parameters(), model.parameters.values(), strict=True):
            tensor[...] = torch.tensor(np.array(values))
    torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(target)).backward()
    model.backward(x, target, loss="mse")
    gradients = zip(module.parameters(), model.gradients.values(), strict=True)
    for tensor, gradient in gradients:
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.9, 0.98])
def test_every_form_predicts_the_same(sparsity: float, tmp_path: Path) -> None:
    model = pruned(sparsity)
    model.save(tmp_path / "m.safetensors")
    packed = gp.compress(model)
    packed.save(tmp_path / "m.gpz")
    forms = [model.freeze(), model.shrink(), model.copy(), packed]
    forms += [gp.load(tmp_path / name) for name in ("m.safetensors", "m.gpz")]
    expected = model.predict(IMAGES)
    for form in forms:
        for n in (1, 3, len(IMAGES)):
            np.testing.assert_allclose(form.predict(IMAGES[:n]), expected[:n], atol=3e-6)
    gp.verify(model, *forms, model.freeze(precision="int8"), x=IMAGES)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(IMAGES), expected)


def test_dead_channels_go() -> None:
    model = network()
    dead = [1, 2, 7]
    mask = np.array(model.masks["conv2d1.weight"])
    mask[dead] = False
    model.set_mask("conv2d1.weight", mask)
    small = model.shrink()
    assert small.parameters["conv2d1.weight"].shape == (6, 6, 2, 2)
    assert small.parameters["dense0.weight"].shape == (8, 12)
    gp.verify(model, small, x=IMAGES)


def test_it_is_in_the_summary_and_diagnosed() -> None:
    model = network()
    assert "GlobalMaxPool" in str(model.summary())
    diagnosis = gp.diagnose(model, IMAGES, LABELS, loss="cross_entropy")
    assert diagnosis.loss == pytest.approx(model.backward(IMAGES, LABELS, loss="cross_entropy"))
