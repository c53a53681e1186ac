"""Settings of a training: the same bits as ``fit`` by hand, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import gradprune as gp

DATA, _ = gp.datasets.digits()
X, Y = DATA[0][:100], DATA[1][:100]


def network() -> gp.Model:
    return gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], input_shape=64, seed=1)


def bits(model: gp.Model) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in model.parameters.items()}


@pytest.mark.parametrize("make", [gp.Adam, partial(gp.SGD, momentum=0.9, nesterov=True)])
def test_a_rate_falls_along_a_cosine_over_all_steps(make: Any) -> None:
    augment = gp.augmentation.Flip()
    model, by_hand = (
        gp.Model([gp.Flatten(), gp.Dense(10)], input_shape=(1, 8, 8), seed=1) for _ in range(2)
    )
    x = X.reshape(-1, 1, 8, 8)
    training = gp.training.Training(3, optimizer=make, lr=0.05, batch_size=30, augment=augment)
    assert training.steps(model, len(x)) == 12
    history = training.fit(model, (x, Y), validation_data=(x, Y), seed=7)
    optimizer = make(by_hand, lr=gp.learning_rates.CosineLR(0.05, steps=12))
    expected = by_hand.fit(
        *(x, Y),
        optimizer=optimizer,
        epochs=3,
        batch_size=30,
        augment=augment,
        validation_data=(x, Y),
        seed=7,
        verbose=0,
    )
    assert bits(model) == bits(by_hand)
    assert history["val_loss"] == expected["val_loss"]


def test_the_models_optimizer_goes_on() -> None:
    model = network()
    optimizer = gp.SGD(model, lr=0.1)
    gp.training.Training(2, batch_size=50).fit(model, (X, Y))
    assert model.optimizer is optimizer
    assert optimizer.step_count == 4


def test_no_epochs_train_nothing() -> None:
    model = network()
    before = bits(model)
    assert len(gp.training.Training(0).fit(model, (X, Y))) == 0  # it has no optimizer
    assert bits(model) == before


def test_a_schedule_that_does_not_end_is_told() -> None:
    model = network()
    optimizer = partial(gp.SGD, lr=0.1)
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.Cubic(0.5, start=0, stop=100, every=2)
    )
    with pytest.warns(UserWarning, match="Cubic ends at step 100") as caught:
        gp.training.Training(1, optimizer=optimizer).fit(model, (X, Y), pruner=pruner)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": 0.1}, ValueError, "lr is for an optimizer that is made"),
        ({"lr": -0.1, "optimizer": gp.Adam}, ValueError, "lr must"),
        ({"lr": float("nan"), "optimizer": gp.Adam}, ValueError, "lr must"),
        ({"lr": "0.1", "optimizer": gp.Adam}, TypeError, "lr must"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be a function that makes one"),
    ],
)
def test_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.training.Training(1, **settings)


def test_what_makes_no_optimizer() -> None:
    model = network()
    training = gp.training.Training(1, optimizer=lambda model, lr: lr, lr=0.1)
    with pytest.raises(TypeError, match="optimizer must make an optimizer"):
        training.fit(model, (X, Y))


def test_a_stage_trains_alike() -> None:
    """A stage that trains and the training by itself are the same steps."""
    make = partial(gp.SGD, momentum=0.9, nesterov=True, clip=gp.ClipNorm(1.0))
    training = gp.compression.Training(2, optimizer=make, lr=0.1, batch_size=32)
    assert gp.compression.Training is gp.training.Training
    alone, staged = network(), network()
    training.fit(alone, (X, Y), seed=3)
    gp.compression.Pipeline([gp.compression.FineTune(training)]).run(staged, (X, Y), seed=3)
    assert bits(staged) == bits(alone)
