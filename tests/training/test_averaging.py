"""The exponential moving average of the parameters."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp

RNG = np.random.default_rng(2)
X = RNG.normal(size=(96, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 96)


def network(**settings: Any) -> gp.Model:
    layers = [gp.Dense(12, activation="relu"), gp.BatchNorm(), gp.Dense(3)]
    model = gp.Model(layers, input_shape=5, seed=1, **settings)
    gp.SGD(model, lr=0.2)
    return model


class Watch(gp.callbacks.Callback):
    """The state after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def on_step_end(self, context: Any) -> None:
        self.states.append(context.model.get_state())


@pytest.mark.parametrize(("warmup", "every"), [(True, 1), (False, 1), (True, 4)])
def test_it_is_the_average_of_the_steps(warmup: bool, every: int) -> None:
    model, plain, watch = network(), network(), Watch()
    average = gp.callbacks.ExponentialMovingAverage(0.8, warmup=warmup, every=every)
    model.fit(X, Y, epochs=4, callbacks=[average], verbose=0)
    plain.fit(X, Y, epochs=4, callbacks=[watch], verbose=0)
    seen = watch.states[every - 1 :: every]
    assert average.count == len(seen) == 12 // every
    expected = {name: values.astype(np.float64) for name, values in seen[0].items()}
    for count, state in enumerate(seen, 1):
        decay = min(0.8, (1 + count) / (10 + count)) if warmup else 0.8
        for name, values in state.items():
            expected[name] = decay * expected[name] + (1 - decay) * values
    for name, values in model.get_state().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-8)


def test_training_goes_on_as_without_it_and_validation_measures_it() -> None:
    model, plain = network(), network()
    average = gp.callbacks.ExponentialMovingAverage(0.9, replace=False)
    ours = model.fit(X, Y, epochs=3, callbacks=[average], validation_data=(X, Y), verbose=0)
    theirs = plain.fit(X, Y, epochs=3, validation_data=(X, Y), verbose=0)
    assert ours["loss"] == theirs["loss"]
    assert ours["val_loss"] != theirs["val_loss"]
    for name, values in plain.get_state().items():
        np.testing.assert_array_equal(model.get_state()[name], values)
    average.apply(model)
    assert model.evaluate(X, Y)["loss"] == ours["val_loss"][-1]


def test_masks_are_respected() -> None:
    model = network()
    pruner = gp.Pruner(
        model, criterion=gp.Magnitude(), schedule=gp.pruning.Cubic(0.8, start=2, stop=6, every=2)
    )
    average = gp.callbacks.ExponentialMovingAverage(0.9)
    model.fit(X, Y, epochs=3, pruner=pruner, callbacks=[average], verbose=0)
    assert model.sparsity == pytest.approx(0.8, abs=0.01)
    for name, mask in model.masks.items():
        assert not model.parameters[name][~mask].any()
        assert np.count_nonzero(model.parameters[name]) == np.count_nonzero(mask)
    model.set_masks({name: np.ones_like(mask) for name, mask in model.masks.items()})
    before = model.get_state()
    average.apply(model)  # what is kept again begins with what it has
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])


def test_it_is_resumed(tmp_path: Path) -> None:
    """In the same process, from a pickle and from arrays: the bits of an unbroken run."""

    def made() -> gp.callbacks.ExponentialMovingAverage:
        return gp.callbacks.ExponentialMovingAverage(0.9, replace=False, every=2)

    whole, whole_average = network(), made()
    whole.fit(X, Y, epochs=4, callbacks=[whole_average], verbose=0)
    model, average = network(), made()
    model.fit(X, Y, epochs=2, callbacks=[average], verbose=0)
    model.save(tmp_path / "model.safetensors")
    np.savez(tmp_path / "average.npz", **average.get_state())
    pickled, from_file = pickle.loads(pickle.dumps(average)), made()
    with np.load(tmp_path / "average.npz") as arrays:
        from_file.set_state(dict(arrays))
    for other in (average, pickled, from_file):
        again = gp.load(tmp_path / "model.safetensors")
        again.fit(X, Y, epochs=2, callbacks=[other], verbose=0)
        for key, values in whole_average.get_state().items():
            np.testing.assert_array_equal(other.get_state()[key], values)


def test_what_cannot_be_is_refused() -> None:
    for bad in (1.0, -0.1, "a"):
        with pytest.raises((TypeError, ValueError), match="decay"):
            gp.callbacks.ExponentialMovingAverage(bad)  # type: ignore[arg-type]
    average = gp.callbacks.ExponentialMovingAverage()
    network().fit(X, Y, callbacks=[average], verbose=0)
    other = gp.Model([gp.Dense(3)], input_shape=5, seed=0)
    with pytest.raises(ValueError, match="another model's"):
        other.fit(X, Y, optimizer=gp.SGD(other, lr=0.1), callbacks=[average], verbose=0)
    state = average.get_state()
    with pytest.raises(ValueError, match="not the state"):
        average.set_state(state | {"average": state["average"] * np.nan})
    quantized = network()
    gp.Quantizer(quantized, gp.quantization.Grid(8)).quantize()
    with pytest.raises(ValueError, match="quantized"):
        quantized.fit(X, Y, callbacks=[gp.callbacks.ExponentialMovingAverage()], verbose=0)
