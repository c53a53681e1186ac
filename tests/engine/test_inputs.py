"""What a network takes as inputs and targets, and what it refuses, with nothing changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import TRAINED, random_batch
from gradprune.engine.network import Network
from gradprune.losses.table import get_loss
from state import everything
from steps import X, Y


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        (6, (5, 6)),
        (np.int64(6), (5, 6)),
        ((6,), (5, 6)),
        ((2, 3), (5, 2, 3)),
        ([1, 2, 3], (5, 1, 2, 3)),
    ],
)
def test_input_shapes(shape: Any, given: tuple[int, ...]) -> None:
    network = Network([gp.Flatten(), *TRAINED.layers], shape, seed=7)
    x = X[:5].reshape(given)
    twin = Network(TRAINED.layers, 6, seed=7)
    np.testing.assert_array_equal(network.predict(x), twin.predict(X[:5]))
    assert network.backward(x, Y[:5]) == twin.backward(X[:5], Y[:5])
    if len(given) > 2:
        with pytest.raises(ValueError, match=r"x must have shape \(n, .*\), got \(5, 6\)"):
            network.predict(X[:5])


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        ((), ValueError),
        ((3, 0), ValueError),
        (2.5, TypeError),
        ((2.5,), TypeError),
        ("ab", TypeError),
        (None, TypeError),
    ],
)
def test_refused_input_shapes(shape: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Network([gp.Dense(3)], shape)


WHOLE = np.random.default_rng(0).integers(0, 2, (33, 6))


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint8),
        lambda x: x.astype(np.bool_),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: tuple(map(tuple, x.tolist())),
        lambda x: np.asfortranarray(x, np.float32),
        lambda x: np.repeat(x.astype(np.float32), 2, axis=0)[::2],
        lambda x: x.astype(np.float32)[:, ::-1][:, ::-1],
    ],
)
def test_inputs_of_any_type(network: Network, convert: Callable[[NDArray[Any]], Any]) -> None:
    x, twin = convert(WHOLE), TRAINED.network()
    labels = np.arange(33) % 4
    expected = twin.predict(WHOLE.astype(np.float32))
    np.testing.assert_array_equal(network.predict(x), expected)
    assert network.backward(x, labels) == twin.backward(WHOLE.astype(np.float32), labels)
    assert network.arena.grads.tobytes() == twin.arena.grads.tobytes()


def test_unaligned_inputs(network: Network) -> None:
    raw = np.zeros(X.nbytes + 1, np.uint8)
    x = raw[1:].view(np.float32).reshape(X.shape)
    x[...] = X
    assert not x.flags.aligned
    np.testing.assert_array_equal(network.predict(x), network.predict(X))


def test_inputs_are_left_as_they_are(network: Network) -> None:
    x, y = X.copy(), Y.copy()
    x.flags.writeable = y.flags.writeable = False
    network.train_step(x, y, optimizer=gp.SGD(network, lr=0.1))
    network.predict(x)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64, list])
def test_labels_of_any_integer_type(network: Network, dtype: Any) -> None:
    labels = Y.tolist() if dtype is list else Y.astype(dtype)
    assert network.backward(X, labels) == TRAINED.network().backward(X, Y)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_one_output_takes_a_flat_target(loss: str) -> None:
    network = Network([gp.Dense(1)], 6, seed=1)
    y = Y % 2
    flat = network.backward(X, y, loss=loss)
    assert network.backward(X, y[:, np.newaxis], loss=loss) == flat


NAN_AT_3_2 = X.copy()
NAN_AT_3_2[3, 2] = math.nan
INF_AT_0_5 = X.astype(np.float64)
INF_AT_0_5[0, 5] = -1e300  # finite, but not as a float32
LATE = np.zeros((3000, 6))
LATE[2999, 1] = math.inf


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[:, :5], ValueError, r"x must have shape \(n, 6\), got \(32, 5\)"),
        (X[0], ValueError, r"x must have shape \(n, 6\), got \(6,\)"),
        (X[np.newaxis], ValueError, r"x must have shape \(n, 6\), got \(1, 32, 6\)"),
        (3.0, ValueError, r"x must have shape \(n, 6\)"),
        (X.astype(complex), TypeError, "x must hold real numbers, got dtype complex128"),
        (X.astype(str), TypeError, "x must hold real numbers, got dtype <U"),
        (X.astype(object), TypeError, "x must hold real numbers, got dtype object"),
        (None, TypeError, "x must hold real numbers"),
        (NAN_AT_3_2, ValueError, r"x\[3, 2\] is nan: every value must be finite"),
        (INF_AT_0_5, ValueError, r"x\[0, 5\] is -1e\+300, which does not fit float32"),
        (LATE, ValueError, r"x\[2999, 1\] is inf"),
    ],
)
def test_refused_inputs(network: Network, x: Any, error: type[Exception], message: str) -> None:
    optimizer = gp.Adam(network)
    network.train_step(X, Y, optimizer=optimizer)
    before = everything(network, optimizer)
    y = np.zeros(len(x), int) if isinstance(x, np.ndarray) else Y
    with pytest.raises(error, match=message):
        network.predict(x)
    with pytest.raises(error, match=message):
        network.backward(x, y)
    with pytest.raises(error, match=message):
        network.train_step(x, y, optimizer=optimizer)
    with pytest.raises(error, match=message):
        network.loss_and_outputs(x, y, get_loss("cross_entropy"))
    assert everything(network, optimizer) == before


VALUES = np.zeros((32, 4))
BAD_VALUES = np.where(np.arange(128).reshape(32, 4) == 9, math.nan, 0.0)


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        ("cross_entropy", Y[:31], ValueError, "x and y must have the same length, got 32 and 31"),
        (
            "cross_entropy",
            Y.astype(float),
            TypeError,
            "cross_entropy takes integer labels.*float64",
        ),
        ("cross_entropy", np.eye(4)[Y], TypeError, r"one-hot targets become labels by y\.argmax"),
        (
            "cross_entropy",
            np.eye(4, dtype=int)[Y],
            ValueError,
            r"shape \(n,\), got shape \(32, 4\)",
        ),
        (
            "cross_entropy",
            np.where(np.arange(32) == 5, 4, Y),
            ValueError,
            r"y\[5\] is 4: .* in 0..3",
        ),
        (
            "cross_entropy",
            np.where(np.arange(32) == 7, -1, Y),
            ValueError,
            r"y\[7\] is -1: .* 0..3",
        ),
        ("cross_entropy", np.full(32, 2**64 - 1, np.uint64), ValueError, "labels must be in 0..3"),
        ("mse", VALUES[:, :3], ValueError, r"targets must have shape \(n, 4\), got \(32, 3\)"),
        ("mse", Y, ValueError, r"targets must have shape \(n, 4\), got \(32,\)"),
        ("bce", BAD_VALUES, ValueError, r"y\[2, 1\] is nan: every value must be finite"),
        ("mse", VALUES + 1e39, ValueError, r"y\[0, 0\] is 1e\+39, which does not fit float32"),
        ("bce", VALUES.astype(str), TypeError, "y must hold real numbers"),
        ("hinge", Y, ValueError, "unknown loss 'hinge'; known are"),
    ],
)
def test_refused_targets(
    network: Network, loss: str, y: Any, error: type[Exception], message: str
) -> None:
    optimizer = gp.Adam(network)
    network.train_step(X, Y, optimizer=optimizer)
    before = everything(network, optimizer)
    with pytest.raises(error, match=message):
        network.backward(X, y, loss=loss)
    with pytest.raises(error, match=message):
        network.train_step(X, y, optimizer=optimizer, loss=loss)
    assert everything(network, optimizer) == before


def test_a_late_bad_label_changes_nothing() -> None:
    """In the third block, when the gradients of two are done."""
    network = TRAINED.network()
    x, y = random_batch("cross_entropy", 2500, 6, 4)
    network.backward(x, y)
    before = everything(network)
    y[2400] = 4
    with pytest.raises(ValueError, match=r"y\[2400\] is 4"):
        network.backward(x, y)
    assert everything(network) == before


def test_empty_batches(network: Network) -> None:
    assert network.predict(X[:0]).shape == (0, 4)
    with pytest.raises(ValueError, match="the batch is empty"):
        network.backward(X[:0], Y[:0])


# ---- what labels could mean ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -9, 2], r"y\[1\] is -9: .* 0\.\.3, .*; if -9 marks samples without a label, leave"),
        ([0, 1, -1], r"y\[2\] is -1: .*; if -1 marks .*CrossEntropy\(ignore_index=-1\)"),
        ([1, -1, 1], r"y\[1\] is -1: .*; of -1 and 1 make 0 and 1 by \(y \+ 1\) // 2"),
        ([1, 2, 3, 4], r"y\[3\] is 4: .*; labels count from 0: pass y - 1"),
        ([0, 10, 20], r"y\[1\] is 10: .*; number classes by np.unique\(y, return_inverse=True\)"),
        ([-3, -2, 0], r"y\[0\] is -3: .*; number classes by np.unique"),
        ([0, 1, 2, 3, 4], r"y\[4\] is 4: .*; 5 different labels need as many outputs"),
        (np.array([0, 2**63], np.uint64), r"y\[1\] is 9223372036854775808: labels must be in"),
        ([0.0, 1.0, 3.0], "dtype float64; whole numbers become labels by y.astype"),
        ([0.5, 1.0, 3.0], 'dtype float64; for a regression pass loss="mse"'),
        (["cat", "dog"], r"dtype <U3; names become labels by np.unique\(y, return_inverse"),
        (np.array(["cat", "dog"], object), "dtype object; names become labels by np.unique"),
        (np.eye(4, dtype=int), r"shape \(4, 4\); one-hot targets become labels by y.argmax"),
        (np.eye(4), "dtype float64; one-hot targets become labels by y.argmax"),
        ([[0], [1]], r"shape \(2, 1\); one column becomes labels by y.ravel\(\)"),
    ],
)
def test_labels_say_what_they_could_mean(labels: Any, message: str) -> None:
    model = gp.Model([gp.Dense(4)], 6, seed=0)
    optimizer = gp.SGD(model, lr=0.1)
    x, y = X[: len(labels)], np.asarray(labels)
    before = everything(model)
    calls: list[Callable[[], object]] = [
        lambda: model.fit(x, y, optimizer=optimizer, verbose=0),
        lambda: model.backward(x, y),
        lambda: model.train_step(x, y, optimizer=optimizer),
        lambda: model.evaluate(x, y),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert everything(model) == before


def test_labels_of_validation_data_are_named() -> None:
    model = gp.Model([gp.Dense(4)], 6, seed=0)
    data = (X[:3], np.array([0, 1, -1]))
    with pytest.raises(ValueError, match=r"y of validation_data\[2\] is -1: labels must be in"):
        model.fit(*data_of(), optimizer=gp.SGD(model, lr=0.1), validation_data=data, verbose=0)


def data_of() -> tuple[NDArray[Any], NDArray[Any]]:
    return X[:5], np.array([0, 1, 2, 3, 0])


def test_a_number_beyond_float32_is_named_as_it_was_given() -> None:
    model = gp.Model([gp.Dense(2)], input_shape=4, seed=0)
    x = np.zeros((5, 4))
    x[2, 1] = -1e300
    said = r"x\[2, 1\] is -1e\+300, which does not fit float32: its largest number is 3\.403e\+38"
    for call in (
        lambda: model.predict(x),
        lambda: model.predict(x.tolist()),
        lambda: model.backward(x, [0] * 5, loss="cross_entropy"),
        lambda: model.freeze().predict(x),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    x[2, 1] = np.inf
    with pytest.raises(ValueError, match=r"x\[2, 1\] is inf: every value must be finite"):
        model.predict(x)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_an_infinite_parameter_says_what_float32_can_hold() -> None:
    model = gp.Model([gp.Dense(2)], input_shape=4, seed=0)
    model.parameters["dense0.weight"][1, 2] = 1e300
    with pytest.raises(gp.errors.NonFiniteError, match="is inf, as numbers beyond"):
        model.evaluate(np.ones((5, 4)), [0] * 5)
