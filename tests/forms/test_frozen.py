"""Frozen models predict what the model did, on every path, from many threads, and never change."""

from __future__ import annotations

import copy
import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradprune as gp
from cases import ACTIVATIONS, IMAGE_CASES, Case
from frozen_nets import BATCHES, REMOVED, net, pruned, samples
from gradprune import _core
from processes import on_instruction_set, python

# ---- the same predictions


@pytest.mark.parametrize("removed", REMOVED)
@pytest.mark.parametrize("n", BATCHES)
def test_predicts_what_the_model_does(n: int, removed: float) -> None:
    model = net(removed=removed)
    x = samples(n)
    frozen = model.freeze()
    assert frozen.predict(x).dtype == np.float32
    assert frozen.predict(x).shape == (n, 10)
    gp.verify(model, frozen, x=x)


@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("removed", [0.0, 0.9])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str, removed: float, n: int) -> None:
    layers = [
        gp.Activation("tanh"),  # first, with no layer to be computed with
        gp.Dense(40, activation=activation, bias=False),
        gp.Activation("leaky_relu", slope=0.3),
        gp.Dense(5, activation=activation),
    ]
    model = pruned(gp.Model(layers, input_shape=19, seed=2), removed)
    gp.verify(model, model.freeze(), x=samples(n, 19))


@pytest.mark.parametrize("n", [1, 2, 5, 17, 40])
@pytest.mark.parametrize("removed", [0.0, 0.9])
@pytest.mark.parametrize(
    "layer",
    [
        gp.Dense(7, activation="relu"),
        gp.Activation("tanh"),
        gp.Dropout(0.5),
        gp.BatchNorm(),
        gp.LayerNorm(),
        gp.LayerNorm(axes="all"),
    ],
    ids=lambda layer: layer.label,
)
def test_layers_at_every_step(layer: gp.layers.Layer, removed: float, n: int) -> None:
    """First, where they get samples as they are, and behind a layer."""
    for before in ([], [gp.Dense(6)]):
        model = gp.Model([*before, layer, gp.Flatten(), gp.Dense(3)], input_shape=(4, 5), seed=2)
        for name, values in model.arena.state.items():
            noise = samples(1, values.size).reshape(values.shape)
            values[...] += noise**2 if name.endswith("var") else 0.1 * noise
        model = pruned(model, removed)
        gp.verify(model, model.freeze(), x=samples(n, 20).reshape(n, 4, 5))


@pytest.mark.parametrize("n", [1, 20])
def test_a_removed_layer_gives_its_bias(n: int) -> None:
    model = net(removed=0.0)
    model.set_mask("dense1.weight", np.zeros((33, 90)))
    frozen = model.freeze()
    assert frozen.layers[2].kept == 0
    y = frozen.predict(samples(n))
    assert (y == y[0]).all()
    gp.verify(model, frozen, x=samples(n))


@pytest.mark.parametrize("removed", [0.0, 0.9])
@pytest.mark.parametrize("case", IMAGE_CASES, ids=lambda case: case.name)
def test_images(case: Case, removed: float) -> None:
    model = pruned(gp.Model(case.layers, case.features, seed=case.seed), removed)
    frozen = model.freeze()
    x = np.random.default_rng(1).standard_normal((70, *model.input_shape), np.float32)
    for n in (1, 2, 17, 70):
        gp.verify(model, frozen, x=x[:n])


@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=4),
    activations=st.lists(st.sampled_from(ACTIVATIONS), min_size=3, max_size=3),
    removed=st.floats(0, 1),
    n=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_random_networks(
    widths: list[int], activations: list[str], removed: float, n: int, seed: int
) -> None:
    layers = [gp.Dense(w, activation=a) for w, a in zip(widths[1:], activations, strict=False)]
    model = pruned(gp.Model(layers, input_shape=widths[0], seed=seed), removed, seed)
    gp.verify(model, model.freeze(), x=samples(n, widths[0], seed))


ISA_SCRIPT = """
import numpy as np
import gradprune as gp
from gradprune import _core
from frozen_nets import BATCHES, REMOVED, net, samples

assert _core.isa() == {isa!r}
for removed in REMOVED:
    model = net(removed=removed)
    for n in BATCHES:
        gp.verify(model, model.freeze(), x=samples(n))
print("done")
"""


@pytest.mark.parametrize("isa", _core.isas())
def test_every_instruction_set(isa: str) -> None:
    assert on_instruction_set(isa, ISA_SCRIPT.format(isa=isa)) == "done"


def test_shapes_of_samples() -> None:
    layers = [gp.Flatten(), gp.Dense(4, activation="softmax")]
    model = gp.Model(layers, input_shape=(3, 2, 2), seed=0)
    x = np.random.default_rng(0).random((6, 3, 2, 2))
    frozen = model.freeze()
    assert frozen.input_shape == (3, 2, 2)
    assert frozen.outputs == 4
    gp.verify(model, frozen, x=x)
    gp.verify(model, frozen, x=x.tolist())


@pytest.mark.parametrize("n", [0, 5, 80])
def test_other_arrays_are_converted(n: int) -> None:
    frozen = net().freeze()
    x = samples(n)
    expected = frozen.predict(x)
    wide = np.zeros((n, 140), np.float32)
    wide[:, ::2] = x
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    others = [x.astype(np.float64), wide[:, ::2], np.asfortranarray(x), x.astype(">f4"), shifted]
    for other in others:
        np.testing.assert_array_equal(frozen.predict(other), expected)
    assert expected.shape == (n, 10)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_bits(threads: int) -> None:
    frozen = net().freeze()
    x = samples(700)
    before = gp.get_num_threads()
    try:
        gp.set_num_threads(1)
        expected = frozen.predict(x)
        gp.set_num_threads(threads)
        for _ in range(10):
            np.testing.assert_array_equal(frozen.predict(x), expected)
    finally:
        gp.set_num_threads(before)


# ---- it never changes


def test_later_training_changes_nothing() -> None:
    model = net()
    frozen, x = model.freeze(), samples(50)
    few, many = frozen.predict(x[:1]), frozen.predict(x)
    y = np.arange(50) % 10
    model.fit(x, y, optimizer=gp.Adam(model), epochs=2, verbose=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.99)
    assert np.abs(model.predict(x) - many).max() > 0.01
    np.testing.assert_array_equal(frozen.predict(x[:1]), few)
    np.testing.assert_array_equal(frozen.predict(x), many)
    del model
    np.testing.assert_array_equal(frozen.predict(x), many)


def test_what_was_written_into_a_removed_weight_does_not_exist() -> None:
    model = net(removed=0.9)
    expected = model.freeze().predict(samples(20))
    for name, mask in model.masks.items():
        model.parameters[name][~mask] = np.nan
    np.testing.assert_array_equal(model.freeze().predict(samples(20)), expected)


@pytest.mark.parametrize("name", ["layers", "outputs", "nbytes", "input_shape", "_core", "other"])
def test_attributes_are_fixed(name: str) -> None:
    frozen = net().freeze()
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(frozen, name, 1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        delattr(frozen, name)


def test_copies_are_itself() -> None:
    frozen = net().freeze()
    assert copy.copy(frozen) is frozen
    assert copy.deepcopy([frozen])[0] is frozen


def test_description() -> None:
    frozen = net(removed=0.95).freeze()
    dense0, dropout, _, dense2 = frozen.layers
    assert (dense0.name, dense0.kind, dense0.outputs) == ("dense0", "Dense, relu", 90)
    assert (dense0.weights, dense0.kept) == (
        6300,
        int(net(removed=0.95).masks["dense0.weight"].sum()),
    )
    assert (dense0.few, dense0.many) == ("sparse", "sparse")
    assert (dropout.weights, dropout.kept, dropout.nbytes, dropout.few) == (0, 0, 0, "")
    assert dense2.weights == 330
    assert sum(layer.nbytes for layer in frozen.layers) < frozen.nbytes < 60_000
    assert repr(frozen).splitlines()[1].split()[:3] == ["dense0", "Dense,", "relu"]
    assert net(removed=0.0).freeze().layers[0].few == "dense"


# ---- many callers


def test_eight_threads_at_once() -> None:
    frozen = net().freeze()
    x = samples(300)
    sizes = (1, 2, 16, 17, 100, 300)
    expected = {n: frozen.predict(x[:n]) for n in sizes}
    wrong: list[Any] = []
    start = threading.Barrier(8)

    def call(number: int) -> None:
        start.wait()
        for step in range(60):
            n = sizes[(number + step) % len(sizes)]
            if not np.array_equal(frozen.predict(x[:n]), expected[n]):
                wrong.append((number, n))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORK_SCRIPT = """
import multiprocessing, warnings
warnings.simplefilter("ignore")
import numpy as np
import gradprune as gp
from frozen_nets import net, samples

gp.set_num_threads(2)
frozen, x = net().freeze(), samples(600)
expected = [frozen.predict(x).tobytes(), frozen.predict(x[:1]).tobytes()]

def work(_):
    return [frozen.predict(x).tobytes(), frozen.predict(x[:1]).tobytes()]

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(6)) == [expected] * 6
assert work(0) == expected
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_children_predict() -> None:
    result = python("-c", FORK_SCRIPT, timeout=60)
    assert result.stdout.strip() == "done", result.stderr


# ---- bad input


@pytest.mark.parametrize("n", [1, 20, 300])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(value: float, n: int) -> None:
    model = net()
    frozen, x = model.freeze(), samples(n)
    x[n // 2, 69] = value
    with pytest.raises(ValueError, match="every value must be finite") as ours:
        frozen.predict(x)
    with pytest.raises(ValueError, match="every value must be finite") as theirs:
        model.predict(x)
    assert str(ours.value) == str(theirs.value)
    x[n // 2, 69] = 0
    gp.verify(model, frozen, x=x)


@pytest.mark.parametrize(
    "x",
    [np.zeros((3, 69)), np.zeros((3, 70, 1)), np.zeros(70), np.zeros(()), "text", [[1j] * 70]],
)
def test_bad_arrays_are_refused_as_the_model_does(x: Any) -> None:
    model = net()
    with pytest.raises((TypeError, ValueError)) as ours:
        model.freeze().predict(x)
    with pytest.raises((TypeError, ValueError)) as theirs:
        model.predict(x)
    assert (ours.type, str(ours.value)) == (theirs.type, str(theirs.value))


def test_the_core_checks_its_arguments() -> None:
    model = net()
    layers = [layer for _, layer in model.core_layers]
    with pytest.raises(ValueError, match="bad argument"):
        _core.Frozen([], model.arena.core)
    with pytest.raises(ValueError, match="bad argument"):
        _core.Frozen([layers[0], layers[0]], model.arena.core)
    with pytest.raises(TypeError):
        _core.Frozen(layers, None)
    with pytest.raises(TypeError):
        _core.Frozen([1], model.arena.core)
    frozen = _core.Frozen([tuple(layer) for layer in layers], model.arena.core)
    assert frozen.predict([[1.0]]) is None
    assert frozen.describe(-1) == frozen.describe(99) == (0, 0, False, False, False)


@pytest.mark.parametrize("cell", [gp.RNN, gp.LSTM, gp.GRU])
@pytest.mark.parametrize("kept", [1.0, 0.5, 0.1, 0.0])
@pytest.mark.parametrize("sequences", [False, True])
def test_recurrent_layers(cell: Any, kept: float, sequences: bool) -> None:
    rng = np.random.default_rng(3)
    layers = [cell(21, return_sequences=sequences), gp.Dense(4, activation="tanh"), gp.Dense(3)]
    model = gp.Model(layers, input_shape=(6, 5), seed=1)
    for name, values in model.parameters.items():
        if "bias" in name:
            values[...] = rng.normal(0, 0.3, values.shape)
    model.set_masks({name: rng.random(mask.shape) < kept for name, mask in model.masks.items()})
    frozen = model.freeze()
    x = rng.standard_normal((130, 6, 5)).astype(np.float32)
    for n in (1, 5, 130):
        np.testing.assert_allclose(frozen.predict(x[:n]), model.predict(x[:n]), atol=2e-6)
    first = frozen.layers[0]
    assert first.weights == sum(m.size for n, m in model.masks.items() if n.startswith(first.name))
    assert first.kept == sum(
        int(m.sum()) for n, m in model.masks.items() if n.startswith(first.name)
    )
    assert first.many == ("sparse" if kept < 0.4 else "dense")


@pytest.mark.parametrize("removed", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("cell", [gp.RNN, gp.LSTM, gp.GRU])
def test_few_sequences(cell: Any, removed: float) -> None:
    """Layers that keep the steps, and those that change them, between recurrent ones."""
    layers = [
        gp.Bidirectional(cell(18, return_sequences=True)),
        gp.LayerNorm(),
        gp.Dense(7, activation="relu"),
        gp.layers.Permute((2, 1)),
        gp.layers.Slice(1, 31),
        gp.Dense(16),
        cell(16, bias=False, return_sequences=True),
        gp.layers.Reverse(),
        cell(33),
        gp.Dense(3),
    ]
    model = pruned(gp.Model(layers, input_shape=(35, 5), seed=3), removed)
    frozen = model.freeze()
    for n in range(1, 18):
        gp.verify(model, frozen, x=samples(n, 35 * 5).reshape(n, 35, 5))
