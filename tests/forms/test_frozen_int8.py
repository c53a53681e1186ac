"""Frozen models on 8-bit integers: the oracle's bits, in every batch, on every instruction set."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import gradprune as gp
from conftest import SEED
from frozen_nets import net_of_dense as net
from frozen_nets import pruned, samples
from gradprune import _core, reference
from gradprune.quantization import mixed_precision
from processes import on_instruction_set
from random_networks import NETWORKS, random_network
from random_networks import samples as random_samples


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
            assert layer.many == "int8" or layer.name in frozen.exact
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
from frozen_nets import net_of_dense as net
from frozen_nets import samples
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


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 60)),
    scales=st.tuples(st.sampled_from([1e-3, 1.0, 1e4]), st.sampled_from([1e-3, 1.0, 1e4])),
    outlier=st.booleans(),
    is_positive=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_layer_is_within_its_bound(
    size: tuple[int, int],
    scales: tuple[float, float],
    outlier: bool,
    is_positive: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = (scales[0] * rng.standard_normal((30, size[0]))).astype(np.float32)
    weight = (scales[1] * rng.standard_normal(size[::-1])).astype(np.float32)
    if outlier:
        x[:, 0] *= 100
        weight[0, :] *= 100
    x = np.abs(x) if is_positive else x
    y = reference.int8_rows(x, weight, np.zeros(size[1], np.float32))
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    bound = reference.int8_bound(x, weight)
    assert (np.abs(y - exact) <= bound * (1 + 1e-6) + 1e-6 * np.abs(exact)).all()
    assert (bound <= (size[0] + 1) * scales[0] * scales[1] * 1e4).all()


# ---- which layers stay in float32 ----------------------------------------------------------------


def test_random_networks_are_within_the_tolerance() -> None:
    """`GRADPRUNE_NETWORKS` is how many, `GRADPRUNE_TEST_SEED` which."""
    failed, integers = [], 0
    for number in range(NETWORKS):
        model = random_network(number, SEED)
        frozen = model.freeze(precision="int8")
        integers += sum(layer.many == "int8" for layer in frozen.layers)
        try:
            gp.verify(model, frozen, x=random_samples(model, number, 64))
        except gp.analysis.VerificationError as error:
            failed.append(f"network {number}: {error}")
    assert not failed, f"{len(failed)} of {NETWORKS}\n" + "\n".join(failed[:10])
    assert integers >= NETWORKS // 4


def narrow() -> gp.Model:
    """Two units in the middle, few weights: hardly a sample gets through, and some loudly."""
    rng = np.random.default_rng(522)
    x = gp.Input(24)
    y = gp.Dense(40, activation="leaky_relu", bias=False)(x)
    y = gp.Dense(2, activation="gelu")(gp.Dense(40, activation="leaky_relu")(y))
    y = gp.Dense(40, bias=False)(y) + gp.Dense(40, activation="relu")(y)
    model = gp.Model(x, gp.Dense(3)(y), seed=522)
    kept = {"dense0.weight": 0.9, "dense1.weight": 0.12, "dense5.weight": 0.12}
    model.set_masks(
        {n: rng.random(mask.shape) < kept.get(n, 0.3) for n, mask in model.masks.items()}
    )
    for name, values in model.parameters.items():
        drawn = rng.uniform(-1, 1.5, values.shape) if name not in model.masks else 2 * values
        values[...] = drawn
    return model


def worst_of_64(frozen: Any) -> float:
    """The largest error of 200 groups of 64 samples, relative to the largest output of each."""
    x = np.random.default_rng(0).standard_normal((64 * 200, *frozen.input_shape), np.float32)
    exact = narrow().freeze().predict(x)
    off, size = (np.abs(a).max(axis=1).reshape(200, 64) for a in (frozen.predict(x) - exact, exact))
    return float((off.max(axis=1) / size.max(axis=1)).max())


def test_a_rare_sample_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rounded coarsely, and 384 samples hold none of its kind."""
    assert worst_of_64(narrow().freeze(precision="int8")) <= 0.05
    monkeypatch.setattr(mixed_precision, "_MOST", 64)
    assert worst_of_64(narrow().freeze(precision="int8")) > 0.06


def normalized() -> gp.Model:
    layers = [gp.Dense(40), gp.LayerNorm(), gp.Dense(30, activation="relu"), gp.Dense(4)]
    return gp.Model(layers, input_shape=20, seed=0)


def test_a_layer_before_a_layernorm_stays_float32() -> None:
    """A sample of hardly any variance: what rounding does to it, normalization makes large."""
    model = normalized()
    model.parameters["dense0.weight"][...] = model.parameters["dense0.weight"][:1]
    model.parameters["dense0.weight"][...] += 1e-3 * np.arange(40, dtype=np.float32)[:, None] / 40
    frozen = model.freeze(precision="int8")
    assert frozen.exact == ("dense0",)
    assert [layer.many for layer in frozen.layers if layer.many] == ["dense", "int8", "int8"]
    assert 0 < frozen.error <= 0.03
    assert str(frozen).splitlines()[-1] == "float32 so that it is no more: dense0"
    gp.verify(model, frozen, x=samples(64, 20))


def test_a_branch_around_a_layernorm_does_not_hide_it() -> None:
    x = gp.Input(20)
    hidden = gp.Dense(30, activation="relu")(x)
    outputs = gp.Dense(3)(hidden + gp.Dense(30)(gp.LayerNorm()(gp.Dense(30)(hidden))))
    frozen = gp.Model(x, outputs, seed=0).freeze(precision="int8")
    assert frozen.exact == ("dense0", "dense1")


def saturated() -> gp.Model:
    """Outputs of a tanh whose argument reaches hundreds, between -1 and 1 for a few samples."""
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(3, activation="tanh")], 20, seed=0)
    model.parameters["dense1.weight"][...] *= 100
    return model


def test_layers_that_do_harm_stay_float32() -> None:
    model = saturated()
    frozen = model.freeze(precision="int8")
    assert "dense1" in frozen.exact
    assert frozen.error <= 0.03
    assert "float32" not in str(net().freeze(precision="int8"))
    gp.verify(model, frozen, x=samples(2000, 20))


def test_the_error_is_measured_on_samples_of_the_user() -> None:
    model, x = saturated(), samples(100, 20)
    assert model.freeze(precision="int8", x=1e-4 * x).exact == ()
    frozen = model.freeze(precision="int8", x=x)
    assert frozen.exact != ()
    assert model.freeze(precision="int8", x=x.tolist()).exact == frozen.exact
    again = pickle.loads(pickle.dumps(frozen))
    assert (again.exact, again.error) == (frozen.exact, frozen.error)
    np.testing.assert_array_equal(again.predict(x), frozen.predict(x))


@pytest.mark.parametrize(
    ("x", "precision", "message"),
    [
        (np.ones((0, 20)), "int8", "at least one sample"),
        (np.ones((3, 19)), "int8", r"x must have shape \(n, 20\)"),
        (np.full((3, 20), np.nan), "int8", "nan|finite"),
        (np.ones((3, 20)), "float32", 'x is for precision="int8"'),
    ],
)
def test_samples_that_do_not_fit(x: Any, precision: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saturated().freeze(precision=precision, x=x)


def test_outputs_that_are_all_0_say_nothing() -> None:
    """Nobody knows by how much a relu output is off that was never seen."""
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(2, activation="relu")], 20, seed=0)
    model.parameters["dense1.bias"][...] = -1000
    assert model.freeze(precision="int8").exact == ("dense0", "dense1")


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
