"""The table of losses in the core, and what Python knows of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import _core, reference
from gradprune.losses.base import Loss
from gradprune.losses.table import LOSSES, get_loss

SOURCES = Path(__file__).parents[2] / "csrc" / "losses"
X, Y = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), np.float32([[1], [0], [1], [0]])


def concrete(cls: type[Loss]) -> Iterator[type[Loss]]:
    for child in cls.__subclasses__():
        if child.__module__.startswith("gradprune."):
            yield from ([child] if hasattr(child, "name") else [])
            yield from concrete(child)


def test_the_core_has_a_row_for_each_file() -> None:
    stems = {path.stem for path in SOURCES.glob("*.c")}
    assert _core.losses.keys() == stems
    assert sorted(_core.losses.values()) == list(range(len(stems)))


def test_every_row_has_a_class_and_a_twin() -> None:
    assert {cls.row or cls.name for cls in concrete(Loss)} == _core.losses.keys()
    computed = _core.losses.keys() - {"given"}  # whose twin is the user's function
    assert set(reference.LOSS_NAMES) == computed


def test_python_says_what_the_core_fuses() -> None:
    fused = {"SOFTMAX": "softmax", "SIGMOID": "sigmoid"}
    for cls in concrete(Loss):
        text = (SOURCES / f"{cls.row or cls.name}.c").read_text()
        found = re.search(r"\.fuses = GP_FUSES_(\w+)", text)
        assert cls.fuses == (fused[found[1]] if found else None), cls


def model() -> gp.Model:
    return gp.Model([gp.Dense(1)], input_shape=3, seed=0)


def test_a_loss_of_ones_own() -> None:
    class Doubled(Loss):
        """Mean squared error of targets twice as large."""

        name = "doubled"
        row = "mse"

        def target(self, x: Any, y: Any, outputs: int) -> Any:
            return np.ascontiguousarray(2 * np.asarray(y), np.float32)

    own, twin = model(), model()
    assert own.backward(X, Y, loss=Doubled()) == twin.backward(X, 2 * Y, loss="mse")
    for name, gradient in own.gradients.items():
        np.testing.assert_array_equal(gradient, twin.gradients[name])


def test_a_loss_without_a_row() -> None:
    class Hinge(Loss):
        name = "hinge"

        def target(self, x: Any, y: Any, outputs: int) -> Any:
            return y

    with pytest.raises(
        TypeError, match=r"the core does not compute 'hinge'; set Hinge\.row to one"
    ):
        model().backward(X, Y, loss=Hinge())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ((), "unknown loss"),
        ((-1,), "unknown loss"),
        ((len(_core.losses),), "unknown loss"),
        ((_core.losses["mse"], 1.0), "mse takes 0 settings, got 1"),
        ((_core.losses["cross_entropy"], 0.1), "cross_entropy takes 2 settings, got 1"),
        ((_core.losses["distillation"], 1.0), "distillation takes 2 settings, got 1"),
    ],
)
def test_the_core_refuses_a_loss(loss: tuple[float, ...], message: str) -> None:
    network = model()
    with pytest.raises(ValueError, match=message):
        network._net.backward(network.arena.core, X, Y, None, loss, 0, 0)


def test_the_core_refuses_settings_out_of_range() -> None:
    network, labels = model(), np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="bad argument"):
        network._net.backward(
            network.arena.core, X, labels, None, (_core.losses["cross_entropy"], 1.5, -100), 0, 0
        )
    with pytest.raises(TypeError, match="must be real number"):
        network._net.backward(
            network.arena.core, X, labels, None, (_core.losses["cross_entropy"], "a", -100), 0, 0
        )


@pytest.mark.parametrize("name", LOSSES)
def test_strings_are_losses(name: str) -> None:
    assert get_loss(name).name == name


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.0, 1.5, 2.5], r"y\[1\] is 1.5: targets of bce must be in \[0, 1\]; .* loss is \"mse\""),
        ([[0.0], [1.0], [-0.25]], r"y\[2, 0\] is -0.25: targets of bce must be in \[0, 1\]"),
        ([-1, 1, 1], r"y\[0\] is -1: .*; of -1 and 1 make 0 and 1 by \(y \+ 1\) / 2"),
        ([0, 1, 2], r"y\[2\] is 2: .* an output for each class and loss=\"cross_entropy\""),
        ([0.0, 1.0, 1e9], r"y\[2\] is 1e\+09"),
    ],
)
def test_bce_refuses_what_is_no_probability(y: Any, message: str) -> None:
    model = gp.Model([gp.Dense(1)], input_shape=2, seed=0)
    optimizer = gp.SGD(model, lr=0.1)
    x, before = np.ones((3, 2), np.float32), model.arena.params.copy()
    fitting = {"optimizer": optimizer, "loss": "bce"}
    calls: list[Callable[[], object]] = [
        lambda: model.backward(x, y, loss="bce"),
        lambda: model.train_step(x, y, **fitting),
        lambda: model.fit(x, y, **fitting, verbose=0),
        lambda: model.fit(x, [0, 1, 0], **fitting, validation_data=(x, y), verbose=0, callbacks=()),
        lambda: model.evaluate(x, y, loss="bce"),
        lambda: gp.diagnose(model, x, y, loss="bce"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(model.arena.params, before)


@pytest.mark.parametrize("y", [[0, 1, 1], [True, False, True], [0.0, 0.3, 1.0], [[0.5]] * 3])
def test_bce_takes_labels_and_probabilities(y: Any) -> None:
    model = gp.Model([gp.Dense(1)], input_shape=2, seed=0)
    x = np.ones((3, 2), np.float32)
    target = np.array(y, np.float64).reshape(3, 1)
    z = model.predict(x).astype(np.float64)
    expected, _ = reference.loss_forward_backward("bce", z, target)
    assert model.backward(x, y, loss="bce") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("function", [gp.Model.fit, gp.Model.backward, gp.sensitivity])
def test_documentation_lists_every_loss(function: Callable[..., object]) -> None:
    text = function.__doc__ or ""
    assert [name for name in LOSSES if f'"{name}"' not in text] == []
    assert "{" not in text.replace("{...", "")
