"""Frozen models on 8-bit integers: the oracle's bits, in every batch, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import gradprune as gp
from gradprune import _core, reference
from processes import on_instruction_set
from test_frozen import pruned, samples


def net(*, removed: float = 0.0, seed: int = 0, features: int = 70) -> gp.Model:
    layers = [gp.Dense(90, activation="relu"), gp.Dense(33, activation="leaky_relu"), gp.Dense(10)]
    return pruned(gp.Model(layers, input_shape=features, seed=seed), removed, seed)


def expected(model: gp.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the oracle."""
    values = list(model.parameters.values())
    masks = list(model.masks.values())
    for i, activation in enumerate(("relu", "leaky_relu", "identity")):
        weight = np.where(masks[i], values[2 * i], np.float32(0))
        x = reference.int8_rows(x, weight, values[2 * i + 1])
        x = reference.activation_forward(activation, x, slope=0.01)
    return x


@pytest.mark.parametrize("removed", [0.0, 0.5])
@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 65, 300])
def test_the_oracle_has_the_same_bits(n: int, removed: float) -> None:
    model, x = net(removed=removed), samples(n)
    x[::2] = np.abs(x[::2])  # with and without negative numbers
    frozen = model.freeze(precision="int8")
    np.testing.assert_array_equal(frozen.predict(x), expected(model, x))
    gp.verify(model, frozen, x=x, tolerance=frozen.tolerance)


@given(
    widths=st.lists(st.integers(1, 150), min_size=2, max_size=3),
    n=st.integers(1, 70),
    size=st.sampled_from([1e-38, 1e-31, 1e-3, 1.0, 1e20]),
    seed=st.integers(0, 1000),
)
def test_random_layers(widths: list[int], n: int, size: float, seed: int) -> None:
    model = gp.Model([gp.Dense(w) for w in widths[1:]], input_shape=widths[0], seed=seed)
    pruned(model, 0.2, seed)
    y = x = samples(n, widths[0], seed) * np.float32(size)
    values = list(model.parameters.values())
    for weight, bias in zip(values[::2], values[1::2], strict=True):
        y = reference.int8_rows(y, weight, bias)
    for layer in (frozen := model.freeze(precision="int8")).layers:
        if layer.kept * 10 > layer.weights:
            assert layer.many == "int8"
    if all(layer.many == "int8" for layer in frozen.layers):
        np.testing.assert_array_equal(frozen.predict(x), y)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    frozen, x = net().freeze(precision="int8"), samples(200)
    together = frozen.predict(x)
    before = gp.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gp.set_num_threads(threads)
            for n in (1, 4, 16, 33, 100):
                parts = [frozen.predict(x[i : i + n]) for i in range(0, 200, n)]
                np.testing.assert_array_equal(np.concatenate(parts), together)
    finally:
        gp.set_num_threads(before)


ISA_SCRIPT = """
from test_frozen_int8 import net, samples
print(net().freeze(precision="int8").predict(samples(40)).tobytes().hex())
"""


@pytest.mark.parametrize("isa", _core.isas()[:-1])
def test_the_same_bits_on_every_instruction_set(isa: str) -> None:
    here = net().freeze(precision="int8").predict(samples(40)).tobytes().hex()
    assert on_instruction_set(isa, ISA_SCRIPT) == here


def test_description() -> None:
    model = net()
    frozen, plain = model.freeze(precision="int8"), model.freeze()
    assert [(layer.few, layer.many) for layer in frozen.layers] == [("int8", "int8")] * 3
    assert (frozen.precision, plain.precision) == ("int8", "float32")
    assert frozen.tolerance > plain.tolerance
    first = frozen.layers[0]
    assert first.kept == 6300
    assert first.nbytes == 64 + 3 * 4 * 96 + 90 * 128  # scales, sums, biases; rows of 128 bytes
    assert frozen.nbytes < plain.nbytes / 2
    with pytest.raises(AttributeError, match="cannot be changed"):
        frozen.precision = "float32"


def test_few_live_weights_stay_on_lists() -> None:
    model = net()
    rng = np.random.default_rng(0)
    model.set_mask("dense0.weight", rng.random((90, 70)) < 0.04)
    first, second, _ = model.freeze(precision="int8").layers
    assert (first.few, first.many) == ("sparse", "sparse")
    assert (second.few, second.many) == ("int8", "int8")


def test_recurrent_layers_stay_float32() -> None:
    model = gp.Model([gp.LSTM(8), gp.Dense(3)], input_shape=(5, 4), seed=0)
    frozen = model.freeze(precision="int8")
    assert [layer.many for layer in frozen.layers] == ["dense", "int8"]
    x = np.random.default_rng(0).standard_normal((20, 5, 4))
    gp.verify(model, frozen, x=x, tolerance=frozen.tolerance)


@pytest.mark.parametrize("n", [1, 20, 300])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(value: float, n: int) -> None:
    frozen, x = net().freeze(precision="int8"), samples(n)
    x[n // 2, 69] = value
    with pytest.raises(ValueError, match=rf"x\[{n // 2}, 69\] is .*: every value must be finite"):
        frozen.predict(x)


@pytest.mark.parametrize("n", [1, 20])
def test_overflow_inside_is_not_hidden(n: int) -> None:
    model = net()
    model.parameters["dense0.weight"][...] = 3e38
    x = np.full((n, 70), 10, np.float32)
    assert np.isnan(model.freeze(precision="int8").predict(x)).all()


@pytest.mark.parametrize("precision", ["int4", "INT8", "", None, 8])
def test_other_precisions_are_refused(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"precision must be one of .*'int8'"):
        net().freeze(precision=precision)


def test_accuracy_of_a_trained_network() -> None:
    (x, y), (x_test, y_test) = gp.datasets.digits()
    layers = [gp.Dense(64, activation="relu"), gp.Dense(32, activation="relu"), gp.Dense(10)]
    model = gp.Model(layers, input_shape=64, seed=0)
    model.fit(x, y, optimizer=gp.Adam(model, lr=3e-3), epochs=8, verbose=0, seed=0)
    frozen = model.freeze(precision="int8")
    right = [(m.predict(x_test).argmax(1) == y_test).mean() for m in (model, frozen)]
    assert right[0] > 0.9
    assert abs(right[0] - right[1]) < 0.01
    gp.verify(model, frozen, x=x_test, tolerance=frozen.tolerance)
