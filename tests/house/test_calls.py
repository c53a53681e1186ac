"""Calls of constructors that do not fit: what somebody is told."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import gradprune as gp

MODEL = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
rates = gp.learning_rates
CALLS: list[tuple[Callable[[], Any], str]] = [
    # what is missing
    (
        lambda: gp.Pruner(MODEL),
        "needs criterion, which weights matter, such as Magnitude() or Taylor(): write Pruner(mod",
    ),
    (lambda: gp.Pruner(0.9), "write Pruner(model, criterion=...)"),
    (lambda: gp.SGD(MODEL), "write SGD(model, lr=...)"),
    (gp.Adam, "Adam needs model, the network to train: write Adam(model)"),
    (lambda: gp.Quantizer(MODEL), "such as Codebook(16) or Grid(8): write Quantizer(model"),
    (gp.Dense, "Dense needs units, features out: write Dense(units)"),
    (gp.ClipNorm, "write ClipNorm(max_norm)"),
    (lambda: gp.Model([gp.Dense(3)]), "Model needs input_shape, the shape of a sample"),
    (lambda: gp.Cubic(0.9, start=0), "write Cubic(0.9, stop=..., start=0)"),
    # no model
    (lambda: gp.Adam(1e-3), "Adam takes the model first, Adam(model, lr=0.001), got 0.001"),
    (lambda: gp.SGD(0.1, lr=0.1), "SGD(model, lr=0.1), got 0.1"),
    (lambda: gp.AdamW(MODEL.parameters), "AdamW(model, lr=...), got an object of Views"),
    (lambda: gp.RMSprop([MODEL]), "RMSprop(model, lr=...), got an object of list"),
    (lambda: gp.Pruner(0.9, criterion=gp.Magnitude()), "Pruner(model, criterion=...), got 0.9"),
    (lambda: gp.Quantizer(gp.Codebook(), gp.Codebook()), "Quantizer(model, weights), got an obj"),
    # by position, as Keras and torch take it
    (lambda: gp.Dense(10, "relu"), 'write Dense(10, activation="relu")'),
    (lambda: gp.Dense(64, 10), "it finds out what comes in: write Dense(10)"),
    (lambda: gp.LSTM(64, 10), "it finds out what comes in: write LSTM(10)"),
    (lambda: gp.LSTM(64, "tanh"), "takes units by position and the rest by name"),
    (lambda: gp.RNN(64, "relu"), 'write RNN(64, activation="relu")'),
    (lambda: gp.BatchNorm(64), "it finds out what comes in: write BatchNorm()"),
    (lambda: gp.Conv2D(32, 3, 2), "write Conv2D(32, 3, stride=2); it finds out how many"),
    (lambda: gp.Conv2D(32, 3, 2, "same"), 'write Conv2D(32, 3, stride=2, padding="same")'),
    (lambda: gp.MaxPool2D(2, 2), "write MaxPool2D(2, stride=2)"),
    (lambda: gp.Activation("leaky_relu", 0.2), 'write Activation("leaky_relu", slope=0.2)'),
    (lambda: gp.Pruner(MODEL, gp.Magnitude()), "write Pruner(model, criterion=Magnitude())"),
    (lambda: gp.SGD(MODEL, 0.1, 0.9), "write SGD(model, lr=0.1, momentum=0.9)"),
    (lambda: gp.Adam(MODEL, 0.1, weight_decay=1.0), "Adam(model, lr=0.1, weight_decay=1.0)"),
    (lambda: gp.Cubic(0.9, 0, 100), "write Cubic(0.9, start=0, stop=100)"),
    (lambda: gp.Gradient(2.0), "write Gradient(factor=2.0)"),
    (lambda: gp.Taylor(3), "Taylor takes no settings; got 1 by position"),
    (lambda: rates.CosineLR(0.1, 100), "write CosineLR(0.1, steps=100)"),
    (lambda: rates.StepLR(0.1, 30), "write StepLR(0.1, every=30)"),
    (lambda: gp.losses.Huber(2.0), "write Huber(delta=2.0)"),
    (lambda: gp.callbacks.EarlyStopping("loss", 5), 'write EarlyStopping("loss", patience=5)'),
    (lambda: gp.Model([gp.Dense(3)], 4, 0), "write Model(layers, 4, seed=0)"),
    # by other names
    (lambda: gp.Dense(10, act="relu"), "Dense has no 'act': here it is 'activation'"),
    (lambda: gp.Dense(out_features=10), "Dense has no 'out_features': here it is 'units'"),
    (lambda: gp.Dense(10, input_shape=64), "no 'input_shape': it finds out what comes in"),
    (lambda: gp.Conv2D(3, kernel_size=3), "no 'kernel_size': here it is 'kernel'"),
    (lambda: gp.Adam(MODEL, learning_rate=0.1), "no 'learning_rate': here it is 'lr'"),
    (lambda: gp.Cubic(0.9, begin_step=0, stop=9), "no 'begin_step': here it is 'start'"),
    (lambda: gp.SGD(MODEL, lr=0.1, foo=1), "SGD has no 'foo'; it takes model, lr, momentum"),
]


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[said for _, said in CALLS])
def test_a_call_that_does_not_fit_says_how_it_is_written(
    call: Callable[[], Any], said: str
) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert said in str(caught.value)
    assert "__init__" not in str(caught.value)
    assert MODEL.optimizer is None
    assert MODEL.pruner is None


def constructors() -> list[type]:
    homes = (gp, gp.layers, gp.losses, gp.optim, gp.pruning, gp.callbacks, gp.learning_rates)
    found = {
        member
        for home in homes
        for member in vars(home).values()
        if inspect.isclass(member) and member.__module__.startswith("gradprune.")
    }
    plain = (BaseException, tuple)
    return sorted(
        (
            cls
            for cls in found
            if not issubclass(cls, plain) and not inspect.isabstract(cls) and "__init__" in dir(cls)
        ),
        key=lambda cls: cls.__name__,
    )


@pytest.mark.parametrize("cls", constructors(), ids=lambda cls: cls.__name__)
def test_no_constructor_speaks_of_init(cls: type) -> None:
    if cls.__init__ is object.__init__ or getattr(cls, "_is_protocol", False):
        pytest.skip("has no settings")
    with pytest.raises(TypeError) as caught:
        cls(no_such_setting=1)
    assert str(caught.value).startswith(f"{cls.__name__} has no 'no_such_setting'")


def test_errors_from_within_stay_as_they_are() -> None:
    with pytest.raises(TypeError, match="activation must be a name or an Activation"):
        gp.Dense(10, activation=None)  # type: ignore[arg-type]


def test_signatures_and_pickles_are_as_before() -> None:
    assert next(iter(inspect.signature(gp.Dense).parameters)) == "units"
    layer = gp.Dense(3, activation="tanh")
    assert pickle.loads(pickle.dumps(layer)) == layer
