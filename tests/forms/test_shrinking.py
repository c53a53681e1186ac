"""Shrinking: the same predictions with fewer units, and training that goes on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from cases import (
    EDGE_CASES,
    IMAGE_CASES,
    OPTIMIZERS,
    RANDOM_CASES,
    RECURRENT_CASES,
    Case,
    OptimizerCase,
    random_batch,
)
from gradprune.layers import Layer
from gradprune.pruning.collapse import live_inputs
from state import everything


def model_of(case: Case) -> gp.Model:
    """The case's network as a model."""
    model = gp.Model(case.layers, case.features, seed=case.seed)
    for name, values in case.network().parameters.items():
        model.parameters[name][...] = values
    return model


def kill_units(model: gp.Model, share: float, seed: int) -> None:
    """Random masks, and of every weight some whole rows and columns."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name, mask in model.masks.items():
        masks[name] = rng.random(mask.shape) >= share
        rest = (1,) * (mask.ndim - 2)
        masks[name] &= rng.random((mask.shape[0], 1, *rest)) >= 0.3
        masks[name] &= rng.random((mask.shape[1], *rest)) >= 0.3
    model.set_masks(masks)


def dense(*layers: Layer, features: int, masks: dict[str, Any], **bias: Any) -> gp.Model:
    """A model with these masks and biases."""
    model = gp.Model(layers, features, seed=1)
    model.set_masks(masks)
    for name, values in bias.items():
        model.parameters[f"{name}.bias"][...] = values
    return model


def removed_outputs(model: gp.Model) -> list[tuple[int, int]]:
    assert model.shrink_report is not None
    return [(layer.constant, layer.unread) for layer in model.shrink_report.layers]


# ---- predictions ---------------------------------------------------------------------------------


# Half of the recurrent ones: twelve of each cell are more than is needed here.
SHRUNK = (
    *RANDOM_CASES,
    *EDGE_CASES,
    *RECURRENT_CASES[:18],
    *RECURRENT_CASES[-2:],
    *IMAGE_CASES[:12],
)


@pytest.mark.parametrize("case", SHRUNK, ids=lambda case: case.name)
def test_the_same_predictions_and_nothing_more_to_remove(case: Case) -> None:
    model = model_of(case)
    kill_units(model, 0.2 if case.seed % 2 else 0.9, case.seed)
    optimizer = gp.Adam(model)
    x, y = random_batch(case.loss, 10, case.features, model.outputs)
    model.train_step(x, y, optimizer=optimizer, loss=case.loss)
    before = everything(model, optimizer)
    small = model.shrink()
    assert everything(model, optimizer) == before
    gp.verify(model, small, x=x)
    assert small.input_shape == model.input_shape
    assert small.arena.size <= model.arena.size
    again = small.shrink()
    assert again.arena.size == small.arena.size
    np.testing.assert_array_equal(again.predict(x), small.predict(x))

    least = model.shrink(inputs=True)
    assert least.shrink_report is not None
    live = least.shrink_report.live_inputs
    taken = x.reshape(10, *model.input_shape)[:, live].reshape(10, *least.input_shape)
    np.testing.assert_allclose(least.predict(taken), small.predict(x), rtol=1e-4, atol=1e-5)


def test_every_kind_of_dead_unit_and_what_dies_with_it() -> None:
    """Units 0 and 1 of dense0: alive; 2: constant; 3: unread; 4: read by an unread one alone."""
    model = dense(
        gp.Dense(5, activation="sigmoid"),
        gp.Dropout(0.5),
        gp.Dense(4),
        gp.Activation("tanh"),
        gp.Dense(2),
        features=3,
        masks={
            "dense0.weight": [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 1]],
            # 0: alive; 1: constant, since it reads a constant one; 2: unread; 3: reads all alive.
            "dense1.weight": [[1, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]],
            "dense2.weight": [[1, 1, 0, 1], [0, 1, 0, 1]],
        },
        dense0=[1, 2, 3, 4, 5],
        dense1=[-1, 1, 2, -2],
        dense2=[0.5, -0.5],
    )
    small = model.shrink()
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert removed_outputs(small) == [(1, 2), (1, 1), (0, 0)]
    w = {name: view.copy() for name, view in model.parameters.items()}
    s = small.parameters
    constant = 1 / (1 + np.exp(-3.0))
    np.testing.assert_array_equal(s["dense0.weight"], w["dense0.weight"][:2])
    np.testing.assert_array_equal(s["dense1.weight"], w["dense1.weight"][[0, 3], :2])
    np.testing.assert_allclose(
        s["dense1.bias"], [-1 + w["dense1.weight"][0, 2] * constant, -2], rtol=1e-6
    )
    second = np.tanh(1 + w["dense1.weight"][1, 2] * constant)
    np.testing.assert_allclose(
        s["dense2.bias"], [0.5, -0.5] + w["dense2.weight"][:, 1] * second, rtol=1e-6
    )
    np.testing.assert_array_equal(small.masks["dense1.weight"], [[1, 1], [1, 1]])
    np.testing.assert_array_equal(small.masks["dense0.weight"], [[1, 0, 0], [0, 1, 0]])
    assert small.shrink_report is not None
    assert small.shrink_report.live_inputs.tolist() == [True, True, False]
    gp.verify(model, small, x=np.eye(3))


def test_without_a_bias_only_zeros_can_go() -> None:
    for bias, removed in (([0.5, -1.0, 0.0], 1), ([0.0, -1.0, 0.0], 2)):
        model = dense(
            gp.Dense(3, activation="relu"),
            gp.Dense(1, bias=False),
            features=2,
            masks={"dense0.weight": [[0, 0], [0, 0], [1, 1]]},
            dense0=bias,
        )
        small = model.shrink()
        assert removed_outputs(small) == [(removed, 0), (0, 0)]
        gp.verify(model, small, x=[[1, 2], [-3, 4]])


@pytest.mark.parametrize("last", [gp.Activation("softmax"), "inside"])
def test_a_softmax_keeps_all_that_goes_into_it(last: Any) -> None:
    inside = last == "inside"
    layers = [gp.Dense(3, activation="softmax" if inside else "identity")]
    layers += [] if inside else [last]
    model = dense(
        *layers, gp.Dense(2), features=2, masks={"dense0.weight": np.eye(3, 2)}, dense0=[0, 0, 1]
    )
    model.set_mask("dense1.weight", [[1, 0, 0], [0, 0, 1]])
    small = model.shrink()
    assert removed_outputs(small) == [(0, 0), (0, 0)]
    gp.verify(model, small, x=np.eye(2))


def test_a_layer_keeps_a_unit_and_the_network_its_outputs() -> None:
    model = gp.Model([gp.Dense(4), gp.Dense(3, activation="tanh"), gp.Dense(2)], 3, seed=0)
    for name in model.parameters:
        if name.endswith("bias"):
            model.parameters[name][...] = 0.3
    for name in model.masks:  # where the paths are cut
        cut = gp.Model(model.layers, 3, seed=0)
        for own, values in model.parameters.items():
            cut.parameters[own][...] = values
        cut.set_mask(name, np.zeros_like(model.masks[name]))
        small = cut.shrink()
        gp.verify(cut, small, x=np.eye(3))
        assert (small.input_shape, small.output_shape) == ((3,), (2,))
        assert not live_inputs(cut, cut.masks).any()
        assert cut.shrink(inputs=True).input_shape in {(1,), (3,)}
    assert live_inputs(model, model.masks).all()


def test_masks_decide_not_values() -> None:
    model = gp.Model([gp.Dense(3), gp.Dense(1)], 2, seed=0)
    model.parameters["dense0.weight"][...] = 0
    assert removed_outputs(model.shrink()) == [(0, 0), (0, 0)]
    model.set_mask("dense0.weight", [[1, 1], [1, 1], [0, 0]])
    model.parameters["dense0.weight"][2] = np.nan  # removed: whatever is written there is not there
    small = model.shrink()
    assert removed_outputs(small) == [(1, 0), (0, 0)]
    assert np.isfinite(small.arena.params).all()


@pytest.mark.parametrize("cell", [gp.RNN, gp.LSTM, gp.GRU])
def test_recurrent_units_that_nobody_reads_go(cell: Any) -> None:
    """Unit 3 feeds itself and is fed by 0; 2 is read by 0 alone; 4 is constant, read by no unit."""
    layers = [cell(5, return_sequences=True), gp.Dropout(0.2), cell(2), gp.Dense(2)]
    model = gp.Model(layers, (4, 3), seed=0)
    for name, values in model.parameters.items():
        if "bias" in name:
            values[...] = np.linspace(0.1, 1, values.size)
    first, second = (str(layer.name) for layer in (model.layers[0], model.layers[2]))
    gates = model.parameters[f"{first}.bias_ih"].size // 5
    ih, hh = np.ones((5, 3), bool), np.zeros((5, 5), bool)
    ih[4] = False
    hh[3, [0, 3]] = hh[0, [2, 0]] = True
    model.set_masks(
        {
            f"{first}.weight_ih": np.tile(ih, (gates, 1)),
            f"{first}.weight_hh": np.tile(hh, (gates, 1)),
            f"{second}.weight_ih": np.tile([[1, 1, 0, 0, 1], [0, 1, 0, 0, 1]], (gates, 1)),
        }
    )
    small = model.shrink()
    # Of the cells only an RNN without a state to read is the same after every step.
    kept = 3 if cell is gp.RNN else 4
    assert small.parameters[f"{first}.weight_hh"].shape == (gates * kept, kept)
    assert small.parameters[f"{second}.weight_ih"].shape == (gates * 2, kept)
    gp.verify(model, small, x=np.random.default_rng(0).standard_normal((6, 4, 3)))


def test_a_dense_layer_folds_what_a_state_has_been_at_every_step() -> None:
    model = gp.Model([gp.LSTM(3, return_sequences=True), gp.Flatten(), gp.Dense(2)], (4, 2))
    model.parameters["lstm0.bias_ih"][...] = 0.7
    ih, hh = np.tile([[1, 1], [0, 0], [1, 0]], (4, 1)), np.tile(np.eye(3), (4, 1))
    model.set_masks({"lstm0.weight_ih": ih, "lstm0.weight_hh": hh})
    small = model.shrink()
    assert removed_outputs(small) == [(4, 0), (0, 0)]
    gp.verify(model, small, x=np.random.default_rng(0).standard_normal((5, 4, 2)))


def test_initializers_that_fit_one_shape_alone() -> None:
    layers = [
        gp.Dense(4, initializer=gp.initializers.Identity()),
        gp.Dense(4, initializer=gp.initializers.SparseSpectral(3)),
        gp.Dense(4, initializer=gp.initializers.Normal(0.5)),
    ]
    model = gp.Model(layers, 4, seed=0)
    mask = np.ones((4, 4), bool)
    mask[:2] = False
    model.set_mask("dense0.weight", mask)
    small = model.shrink()
    gp.verify(model, small, x=np.eye(4))
    made = [layer.initializer for layer in small.layers if isinstance(layer, gp.Dense)]
    assert made == [None, None, gp.initializers.Normal(0.5)]


def test_numbers_that_are_not_finite_stay_where_they_are() -> None:
    model = dense(
        gp.Dense(3, activation="relu"),
        gp.Dense(2),
        features=2,
        masks={"dense0.weight": [[0, 0], [0, 0], [1, 1]]},
        dense0=[1, np.inf, 0],
    )
    model.parameters["dense1.weight"][0, 2] = np.inf
    small = model.shrink()
    assert removed_outputs(small) == [(1, 0), (0, 0)]
    assert np.isfinite(small.parameters["dense1.bias"]).all()


# ---- inputs --------------------------------------------------------------------------------------


def test_inputs_that_nothing_reads() -> None:
    model = gp.Model([gp.Dropout(0.1), gp.Flatten(), gp.Dense(3), gp.Dense(2)], (2, 3))
    mask = np.ones((3, 6), bool)
    mask[:, [1, 2, 3]] = False
    model.set_mask("dense0.weight", mask)
    small = model.shrink(inputs=True)
    assert small.shrink_report is not None
    live = small.shrink_report.live_inputs
    assert live.tolist() == [[True, False, False], [False, True, True]]
    assert small.input_shape == (3,)
    x = np.random.default_rng(0).standard_normal((7, 2, 3))
    np.testing.assert_allclose(small.predict(x[:, live]), model.predict(x), rtol=1e-5)
    assert model.shrink().input_shape == (2, 3)
    gp.verify(model, model.shrink(), x=x)


@pytest.mark.parametrize("reader", [gp.RNN(4), gp.GRU(4)], ids=lambda r: type(r).__name__)
def test_single_numbers_of_a_sequence_that_a_recurrent_layer_reads(reader: Layer) -> None:
    """All steps of a feature stay: 0 for the recurrent layer, 2 for a number at step 1."""
    x = gp.Input((2, 3))
    model = gp.Model(x, reader(x) + gp.Dense(4)(gp.Flatten()(x)), seed=0)
    mask = np.zeros((4, 6), bool)
    mask[1, 5] = True
    own = f"{model.layers[0].name}.weight_ih"
    model.set_masks({"dense0.weight": mask, own: np.ones_like(model.masks[own]) * [1, 0, 0]})
    small = model.shrink(inputs=True)
    assert small.input_shape == (2, 2)
    batch = np.random.default_rng(0).standard_normal((9, 2, 3))
    np.testing.assert_allclose(
        small.predict(batch[:, :, [0, 2]]), model.predict(batch), rtol=1e-5, atol=1e-6
    )


def test_single_pixels_of_images_that_are_normalized() -> None:
    """Whole channels stay: 0 for a pixel behind the normalization, 2 for one before it."""
    x = gp.Input((4, 2, 2))
    normalized = gp.Flatten()(gp.BatchNorm()(x))
    model = gp.Model(x, gp.Dense(2)(normalized) + gp.Dense(2)(gp.Flatten()(x)), seed=0)
    model.buffers["batchnorm0.running_mean"][...] = [1, 2, 3, 4]
    behind, before = np.zeros((2, 2, 16), bool)
    behind[0, 1] = before[1, 9] = True
    model.set_masks({"dense0.weight": behind, "dense1.weight": before})
    small = model.shrink(inputs=True)
    assert small.input_shape == (2, 2, 2)
    batch = np.random.default_rng(0).standard_normal((9, 4, 2, 2))
    np.testing.assert_allclose(
        small.predict(batch[:, [0, 2]]), model.predict(batch), rtol=1e-5, atol=1e-6
    )


# ---- training goes on ----------------------------------------------------------------------------

EXACT = [case for case in OPTIMIZERS if not case.settings.get("weight_decay")]
KEPT = {  # of the model below
    "dense0.weight": np.ix_([0, 2, 3], range(6)),
    "dense0.bias": np.ix_([0, 2, 3]),
    "dense1.weight": np.ix_([1, 2, 3], [0, 2, 3]),
    "dense1.bias": np.ix_([1, 2, 3]),
    "dense2.weight": np.ix_(range(3), [1, 2, 3]),
    "dense2.bias": np.ix_(range(3)),
}


def with_dead_units(constant: float = 0.4) -> gp.Model:
    """Unit 1 of dense0 is constant, 4 unread; of dense1 unit 0 is unread."""
    model = gp.Model(
        [gp.Dense(5, activation="relu"), gp.Dense(4, activation="tanh"), gp.Dense(3)], 6, seed=4
    )
    masks = {
        name: np.random.default_rng(1).random(m.shape) < 0.8 for name, m in model.masks.items()
    }
    masks["dense0.weight"][1] = False
    masks["dense1.weight"][:, 4] = masks["dense2.weight"][:, 0] = False
    model.set_masks(masks)
    model.parameters["dense0.bias"][1] = constant
    return model


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
def test_one_more_step_moves_what_is_left_alike(case: OptimizerCase) -> None:
    model = with_dead_units()
    optimizer = case.make(model, clip=gp.ClipValue(0.05))
    for step in range(4):
        model.train_step(
            *random_batch("cross_entropy", 20, 6, 3, seed=(step,)), optimizer=optimizer
        )
    small = model.shrink()
    assert removed_outputs(small) == [(1, 1), (0, 1), (0, 0)]
    assert small.optimizer is not None
    assert small.optimizer.step_count == 4
    for mine, moment in zip(small.optimizer.moments, optimizer.moments, strict=True):
        for name, place in KEPT.items():
            own, whole = small.arena.views(mine)[name], model.arena.views(moment)[name]
            np.testing.assert_array_equal(own, whole[place])
    before = [{n: v.copy() for n, v in m.parameters.items()} for m in (model, small)]
    last = random_batch("cross_entropy", 20, 6, 3, seed=(9,))
    losses = [m.train_step(*last, optimizer=m.optimizer)[0] for m in (model, small)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    for name, place in KEPT.items():
        moved = (model.parameters[name] - before[0][name])[place]
        assert moved.any()
        # One over a square root of nearly nothing: Adam turns rounding into more of it.
        np.testing.assert_allclose(small.parameters[name] - before[1][name], moved, atol=2e-5)


def test_units_that_cannot_wake_up_make_no_difference_for_good() -> None:
    """A relu below 0 passes no gradient on, so the norm is the same too."""
    model = with_dead_units(constant=-0.1)
    gp.Adam(model, lr=gp.learning_rates.CosineLR(0.01, steps=20), clip=gp.ClipNorm(0.05))
    small = model.shrink()
    for step in range(10):
        data = random_batch("cross_entropy", 20, 6, 3, seed=(step,))
        infos = [m.train_step(*data, optimizer=m.optimizer)[1] for m in (model, small)]
        np.testing.assert_allclose(infos[0].norm, infos[1].norm, rtol=1e-5)
        assert infos[0].clipped
    for name, place in KEPT.items():
        np.testing.assert_allclose(small.parameters[name], model.parameters[name][place], atol=1e-5)


def test_everything_an_optimizer_remembers_comes_along(tmp_path: Path) -> None:
    model = with_dead_units()
    optimizer = gp.SGD(
        model,
        lr=gp.learning_rates.StepLR(0.1, every=3),
        momentum=0.9,
        clip=(gp.AutoClip(50.0), gp.QuantizeGradient(levels=4, error_feedback=True)),
        guard=gp.guards.Rollback(every=2),
    )
    optimizer.keep_clipped = True
    x, y = random_batch("cross_entropy", 50, 6, 3)
    model.fit(x, y, optimizer=optimizer, epochs=2, batch_size=10, verbose=0)
    optimizer.lr_factor = 0.25
    small = model.shrink()
    carried = small.optimizer
    assert isinstance(carried, gp.SGD)
    assert carried.state() == optimizer.state()
    assert (carried.lr, carried.clip, carried.guard) == (
        optimizer.lr,
        optimizer.clip,
        optimizer.guard,
    )
    assert (small.epoch, small.forward_count, small.seed) == (2, 10, 4)
    assert small.last_loss == model.last_loss
    assert carried.keep_clipped
    mine, theirs = carried.chain.tensors(), optimizer.chain.tensors()
    np.testing.assert_array_equal(mine["clip0.norms"], theirs["clip0.norms"])
    residuals = [
        m.arena.views(tensors["clip1.residual"]) for m, tensors in ((small, mine), (model, theirs))
    ]
    for name, place in KEPT.items():
        np.testing.assert_array_equal(residuals[0][name], residuals[1][name][place])
        np.testing.assert_array_equal(small.gradients[name], model.gradients[name][place])
    small.save(tmp_path / "small")
    loaded = gp.load(tmp_path / "small")
    for m in (small, loaded):
        m.fit(x, y, epochs=1, batch_size=10, verbose=0)
    assert small.arena.params.tobytes() == loaded.arena.params.tobytes()


@pytest.mark.parametrize("refuses", [True, False])
def test_what_was_said_of_the_last_step_comes_along(refuses: bool) -> None:
    model = with_dead_units()
    optimizer = gp.SGD(
        model,
        lr=0.1,
        clip=gp.ClipNormPerParameter(0.1),
        guard=gp.guards.Skip(max_activation=1e-3 if refuses else 1e3),
    )
    x, y = random_batch("cross_entropy", 20, 6, 3)
    model.train_step(x, y, optimizer=optimizer)
    assert (model.refused, model.exploded) == (refuses, refuses)
    small = model.shrink()
    assert (small.refused, small.exploded) == (refuses, refuses)
    assert small.optimizer is not None
    assert small.optimizer.skipped == optimizer.skipped == int(refuses)
    np.testing.assert_array_equal(small.optimizer.parameter_norms, optimizer.parameter_norms)
    assert optimizer.parameter_norms.any() != refuses


# ---- the report ----------------------------------------------------------------------------------


def test_report_and_summary() -> None:
    model = with_dead_units()
    gp.Pruner(model, criterion=gp.Magnitude())
    small = model.shrink()
    assert small.pruner is None
    report = small.shrink_report
    assert str(report) == (
        "shrunk from 74 to 45 parameters; 6 of 6 inputs are read\n"
        "layer   outputs  kept  constant  unread  parameters  kept\n"
        "dense0        5     3         1       1          35    21\n"
        "dense1        4     3         0       1          24    12\n"
        "dense2        3     3         0       0          15    12\n"
        "note: the pruner stays with the larger model, of whose weights its budgets are shares"
    )
    assert str(small.summary()).endswith("shrunk from 74 to 45 parameters; 6 of 6 inputs are read")
    assert model.shrink_report is None


# ---- silent channels: asked once, of the network that was trained --------------------------------


def shown(layers: list[Layer], shape: Any, seed: int = 0) -> gp.Model:
    """Of each channel gamma, beta, mean and variance are told apart, and every bias."""
    model = gp.Model(layers, shape, seed=seed)
    rng = np.random.default_rng(seed)
    for name, values in model.arena.state.items():
        if name not in model.masks:
            values[...] = rng.uniform(0.2, 1.5, values.shape)
    return model


def assert_all_forms(model: gp.Model, x: Any) -> gp.Model:
    """Of the shrunk network silent is what was silent before. The shrunk network."""
    small = model.shrink()
    again = small.shrink()
    gp.verify(model, small, again, model.freeze(), small.freeze(), x=x)
    assert again.arena.size == small.arena.size
    if importlib.util.find_spec("constriction"):
        gp.verify(model, gp.compress(model), gp.compress(small), x=x)
    return small


def test_a_unit_whose_inputs_are_constant_is_not_silent() -> None:
    model = shown([gp.Dense(2, activation="sigmoid"), gp.Dense(2), gp.BatchNorm(), gp.Dense(1)], 2)
    model.set_masks({"dense0.weight": [[1, 1], [0, 0]], "dense1.weight": [[1, 0], [0, 1]]})
    p = {name: values.astype(np.float64) for name, values in model.arena.state.items()}
    z = p["dense1.bias"][1] + p["dense1.weight"][1, 1] / (1 + np.exp(-p["dense0.bias"][1]))
    scale = p["batchnorm0.weight"][1] / np.sqrt(p["batchnorm0.running_var"][1] + 1e-5)
    model.set_mask("dense2.weight", [[0, 1]])
    expected = p["dense2.bias"] + p["dense2.weight"][0, 1] * (
        (z - p["batchnorm0.running_mean"][1]) * scale + p["batchnorm0.bias"][1]
    )
    small = assert_all_forms(model, np.eye(2))
    np.testing.assert_allclose(small.predict(np.eye(2)), [expected, expected], rtol=1e-6)
    assert small.masks["dense1.weight"].tolist() == [[True]]


def test_a_unit_that_reads_a_silent_channel_is_not_silent() -> None:
    model = gp.Model(
        [
            *(gp.Dense(2, bias=False), gp.BatchNorm()),
            *(gp.Dense(2, bias=False), gp.BatchNorm()),
            gp.Dense(2),
        ],
        2,
        seed=0,
    )
    model.parameters["batchnorm1.bias"][...] = 1
    model.set_masks({"dense0.weight": [[0, 0], [1, 1]], "dense1.weight": [[1, 0], [0, 1]]})
    small = assert_all_forms(model, [[1, 1]])
    silent = [w.silent.tolist() for w in small.wirings() if w.silent is not None]
    assert silent == [[True, False], [False, False]]


@pytest.mark.parametrize("between", [gp.Flatten(), gp.Activation("identity")], ids=repr)
def test_layers_that_compute_nothing_do_not_hide_a_removed_filter(between: Layer) -> None:
    layers = [gp.Conv2D(3, 1), between, gp.BatchNorm(), gp.Activation("tanh")]
    model = shown([*layers, gp.Flatten(), gp.Dense(2)], (2, 1, 1))
    model.set_mask("conv2d0.weight", np.array([[1, 1], [0, 0], [1, 0]])[:, :, None, None])
    assert model.wirings()[2].silent.tolist() == [False, True, False]
    x = np.random.default_rng(0).standard_normal((9, 2, 1, 1))
    small = assert_all_forms(model, x)
    assert small.parameters["batchnorm0.weight"].shape == (2,)
    model.backward(x, np.zeros((9, 2)), loss="mse")
    assert model.gradients["batchnorm0.bias"][1] == 0


def test_filters_that_read_silent_channels_alone() -> None:
    def conv(filters: int) -> list[Layer]:
        layers = [gp.Conv2D(filters, 3, padding=1, bias=False), gp.BatchNorm()]
        return [*layers, gp.Activation("relu")]

    model = shown([*conv(4), *conv(4), gp.Flatten(), gp.Dense(2)], (2, 5, 5))
    model.parameters["batchnorm1.weight"][...] = 0.01
    first, second = (np.ones(model.masks[f"conv2d{i}.weight"].shape, bool) for i in range(2))
    first[[1, 2]] = False
    second[0, [0, 3]] = second[2, [0, 2, 3]] = second[3] = False
    model.set_masks({"conv2d0.weight": first, "conv2d1.weight": second})
    small = assert_all_forms(model, np.random.default_rng(0).standard_normal((9, 2, 5, 5)))
    # Of the silent ones 1 is all that filters 0 and 2 read; 2 is not needed. Filter 3 is silent.
    assert small.parameters["conv2d0.weight"].shape == (3, 2, 3, 3)
    assert small.parameters["conv2d1.weight"].shape == (3, 3, 3, 3)
    assert small.masks["conv2d1.weight"].any(axis=(2, 3)).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, True, False],
    ]


@pytest.mark.parametrize("sparsity", [0.95, 0.98])
@pytest.mark.parametrize("seed", range(3))
def test_normalized_networks_with_few_weights(sparsity: float, seed: int) -> None:
    units = [gp.Dense(30), gp.BatchNorm(), gp.Activation("relu")]
    model = shown([*units, *units, gp.Dense(10)], 64, seed)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(sparsity)
    small = assert_all_forms(model, np.random.default_rng(0).standard_normal((50, 64)))
    assert small.arena.size < 0.6 * model.arena.size


def test_a_residual_network_with_few_weights() -> None:
    model = gp.models.resnet(filters=(8, 16, 32), input_shape=(1, 8, 8), seed=3)
    rng = np.random.default_rng(3)
    for name, values in model.arena.state.items():
        if name not in model.masks:
            values[...] = rng.uniform(0.2, 1.5, values.shape)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.97)
    small = assert_all_forms(model, rng.standard_normal((9, 1, 8, 8)))
    assert small.arena.size < model.arena.size / 5


def test_normalized_networks_train_on_alike() -> None:
    """A row that reads a constant alone: its channel goes on learning beta, as before."""
    layers = [gp.Dense(4, activation="sigmoid"), gp.Dense(3), gp.BatchNorm(), gp.Dense(2)]
    model = shown(layers, 5)
    first, second = np.ones((4, 5)), np.ones((3, 4))
    first[[1, 2]] = 0  # constant
    second[0] = [0, 1, 1, 0]
    second[2] = 0  # silent
    model.set_masks({"dense0.weight": first, "dense1.weight": second})
    gp.SGD(model, lr=0.1)
    small = model.shrink()
    assert [mask.shape for mask in small.masks.values()] == [(3, 5), (2, 3), (2, 2)]
    for step in range(5):
        x, y = random_batch("mse", 20, 5, 2, seed=(step,))
        for each in (model, small):
            each.train_step(x, y, optimizer=each.optimizer, loss="mse")
    kept = {"weight": [0, 1], "bias": [0, 1], "running_mean": [0, 1], "running_var": [0, 1]}
    for role, channels in kept.items():
        name = f"batchnorm0.{role}"
        np.testing.assert_allclose(
            small.arena.state[name], model.arena.state[name][channels], rtol=1e-4, atol=1e-5
        )
    x = random_batch("mse", 50, 5, 2, seed=(9,))[0]
    gp.verify(model, small, x=x, tolerance=1e-4)


def test_pixels_that_are_normalized_one_by_one_are_never_silent() -> None:
    model = shown([gp.Conv2D(3, 1), gp.Flatten(), gp.BatchNorm(), gp.Dense(2)], (2, 2, 2))
    model.set_mask("conv2d0.weight", np.array([[1, 1], [0, 0], [1, 0]])[:, :, None, None])
    assert model.wirings()[2].silent is None
    x = np.random.default_rng(0).standard_normal((9, 2, 2, 2))
    small = assert_all_forms(model, x)
    assert small.parameters["batchnorm0.weight"].shape == (12,)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, 2), ({"bias": False}, 3), ({"padding": 1}, 3), ({"padding": ((0, 1), (0, 0))}, 3)],
    ids=str,
)
def test_a_constant_channel_goes_where_a_bias_can_make_up_for_it(
    settings: dict[str, Any], kept: int
) -> None:
    """Channel 1 is 0, 2 another constant; at the border of a padded image both are 0."""
    model = gp.Model([gp.Conv2D(4, 1), gp.Conv2D(2, 2, **settings)], (1, 3, 3), seed=0)
    model.set_mask("conv2d0.weight", np.array([1, 0, 0, 1])[:, None, None, None])
    model.parameters["conv2d0.bias"][...] = [1, 0, 2, 3]
    small = model.shrink()
    assert small.parameters["conv2d0.weight"].shape[0] == kept
    gp.verify(model, small, small.freeze(), x=np.random.default_rng(0).random((9, 1, 3, 3)))


def test_an_initializer_of_filters_that_read_fewer_channels() -> None:
    layers = [gp.Conv2D(3, 1), gp.Conv2D(3, 1, initializer=gp.initializers.Identity())]
    model = gp.Model(layers, (2, 2, 2), seed=0)
    model.set_mask("conv2d0.weight", np.array([[1, 1], [0, 0], [1, 0]])[:, :, None, None])
    small = model.shrink()
    assert small.parameters["conv2d1.weight"].shape == (3, 2, 1, 1)
    assert small.layers[1] == gp.Conv2D(3, 1, name="conv2d1")
    assert model.shrink(inputs=True).layers[0] == gp.Conv2D(2, 1, name="conv2d0")


@pytest.mark.parametrize(
    ("layers", "dead"),
    [
        ([gp.Dense(4, activation="relu"), gp.layers.Slice(2, 4), gp.Dense(3)], (2, 3)),
        ([gp.Dense(4), gp.layers.Slice(2), gp.Dense(4), gp.layers.Slice(0, 2)], (2, 3)),
        ([gp.Dense(4), gp.layers.Slice(1, 3), gp.Dense(3)], (0, 1, 2, 3)),
    ],
    ids=["a range", "to the end", "all"],
)
def test_a_slice_of_dead_units_hands_on_one_of_them(
    layers: list[gp.Layer], dead: tuple[int, ...]
) -> None:
    """It failed: a range without a place."""
    model = gp.Model(layers, 5, seed=0)
    mask = np.ones((4, 5))
    mask[list(dead)] = 0
    model.set_mask("dense0.weight", mask)
    model.parameters["dense0.bias"][...] = [1, 2, 3, 4]
    small = assert_all_forms(model, np.random.default_rng(0).standard_normal((9, 5)))
    assert small.steps[1].output_shape == (1,)
