"""Pipelines: orders that would undo something are refused, and achievements are looked after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.compression import keeping
from gradprune.compression.stage import PipelineError, Progress, Property


def sgd(model: gp.Model) -> gp.SGD:
    return gp.SGD(model, lr=0.05, momentum=0.9)


def small_model() -> gp.Model:
    layers = [gp.Dense(24, activation="relu"), gp.Dense(12, activation="relu"), gp.Dense(10)]
    return gp.Model(layers, input_shape=64, seed=1)


@pytest.fixture(scope="module")
def digits() -> Any:
    return gp.datasets.digits()


TRAINING = gp.compression.Training(4, optimizer=sgd)
SHARE = gp.compression.QuantizeWeights(gp.Codebook(4), biases=gp.Codebook(4))
GRID = gp.compression.QuantizeWeights(gp.Grid(4))


def weights(packed: gp.compression.PackedModel) -> list[np.ndarray]:
    parameters = packed.to_model().parameters
    return [parameters[name] for name in packed.masks]


def test_all_stages_one_after_the_other(digits: Any, tmp_path: Path) -> None:
    data, test = digits
    stages = [
        gp.compression.FineTune(TRAINING),
        gp.compression.Prune(0.8, training=gp.compression.Training(8, optimizer=sgd), every=10),
        gp.compression.Shrink(),
        SHARE,
        gp.compression.FineTune(TRAINING),
        gp.compression.Encode(),
    ]
    result = gp.compression.Pipeline(stages).run(small_model(), data, validation_data=test)
    names = ["start", "FineTune", "Prune", "Shrink", "QuantizeWeights", "FineTune", "Encode"]
    assert [row.stage for row in result.stages] == names
    total = 64 * 24 + 24 * 12 + 12 * 10
    assert result.stages[2].kept == total - round(0.8 * total)
    assert result.stages[3].parameters < result.stages[2].parameters
    assert result.stages[3].accuracy == result.stages[2].accuracy  # shrinking changes nothing
    assert [row.values for row in result.stages[4:]] == [12, 12, 12]
    assert result.packed is not None
    result.packed.save(tmp_path / "m.gpz")
    for packed in (result.packed, gp.load(tmp_path / "m.gpz")):
        assert isinstance(packed, gp.compression.PackedModel)
        assert result.stages[-1].nbytes == packed.nbytes == len(bytes(packed))
        assert sum(mask.sum() for mask in packed.masks.values()) == result.stages[-1].kept
        values = [np.unique(array[array != 0]).size for array in weights(packed)]
        assert values == [4, 4, 4]
        assert packed.to_model().evaluate(*test)["accuracy"] == result.stages[-1].accuracy
        outputs = result.model.predict(test[0])
        np.testing.assert_allclose(packed.predict(test[0]), outputs, rtol=0, atol=2e-5)
    assert result.stages[-1].accuracy == result.model.evaluate(*test)["accuracy"]
    assert result.stages[-2].accuracy == result.stages[-1].accuracy
    dense = result.stages[1].accuracy
    assert dense is not None
    assert dense - result.stages[-1].accuracy < 0.05
    lines = str(result).splitlines()
    assert len(lines) == 1 + len(names)
    assert lines[-1].startswith("Encode")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [SHARE, gp.compression.Prune(0.5)],
            "stage 2, Prune, would undo the shared values of stage 1",
        ),
        (
            [SHARE, gp.compression.FineTune(TRAINING), gp.compression.Shrink()],
            "stage 3, Shrink, .* put Shrink before",
        ),
        ([GRID, gp.compression.Shrink()], "undo the values on a grid of stage 1, QuantizeWeights"),
        ([SHARE, GRID], "chosen anew, by another rule; one is enough"),
        (
            [gp.compression.Encode(), gp.compression.FineTune(TRAINING)],
            "undo the file of stage 1, Encode",
        ),
        ([], "at least one stage"),
    ],
)
def test_orders_that_undo_something_are_refused(
    stages: list[gp.compression.Stage], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gp.compression.Pipeline(stages)


def test_what_is_not_a_stage_is_refused() -> None:
    with pytest.raises(TypeError, match="stage 2 must be a stage"):
        gp.compression.Pipeline([gp.compression.Prune(0.5), "encode"])


@pytest.mark.parametrize(
    "stages", [[GRID, gp.compression.Prune(0.5)], [gp.compression.Prune(0.5), GRID]]
)
def test_pruning_leaves_a_grid_alone(stages: list[gp.compression.Stage], digits: Any) -> None:
    data, _ = digits
    result = gp.compression.Pipeline([*stages, gp.compression.FineTune(TRAINING)]).run(
        small_model(), data
    )
    assert result.model.sparsity == pytest.approx(0.5, abs=1e-3)
    assert result.packed is None
    for name in result.model.masks:
        coding = result.model.quantizer.coding(name)
        np.testing.assert_array_equal(coding.decode(), result.model.parameters[name])


@pytest.mark.parametrize("samples", [1, 50, 63, 64, 65, 128, 129])
@pytest.mark.parametrize("epochs", [1, 3])
def test_pruning_ends_with_its_training(samples: int, epochs: int, digits: Any) -> None:
    """A last batch is a step, too, however small; the last step has the last event."""
    (x, y), _ = digits
    steps: list[int] = []

    class Counted(gp.SGD):
        def __init__(self, model: gp.Model) -> None:
            super().__init__(model, lr=0.05)

        def finish(self, *arguments: Any) -> gp.optim.StepInfo:
            steps.append(self.model.arena.removed)
            return super().finish(*arguments)

    model = small_model()
    training = gp.compression.Training(epochs, batch_size=64, optimizer=Counted)
    gp.compression.Pipeline([gp.compression.Prune(0.5, training=training, every=1)]).run(
        model, (x[:samples], y[:samples])
    )
    assert len(steps) == epochs * math.ceil(samples / 64)
    assert model.arena.removed == round(0.5 * model.arena.prunable_size)
    if len(steps) > 1:
        assert 0 < steps[-1] < model.arena.removed  # gradually, and at the last step all


class WritesIntoRemoved(gp.compression.Stage):
    """A stage that leaves the mask alone, but not the weight."""

    def run(self, progress: Progress) -> None:
        name = "dense1.weight"
        place = np.argwhere(~progress.model.masks[name])[0]
        progress.model.parameters[name][tuple(place)] = 0.5


def test_what_a_stage_writes_into_a_removed_weight_reaches_nothing(digits: Any) -> None:
    stages = [gp.compression.Prune(0.5), WritesIntoRemoved(), gp.compression.Encode()]
    model = gp.compression.Pipeline(stages).run(small_model(), digits[0]).model
    for name, mask in model.masks.items():
        assert not model.parameters[name][~mask].any()
    assert model.arena.removed == round(0.5 * model.arena.prunable_size)


class Damage(gp.compression.Stage):
    """A stage that does what it does not say."""

    def __init__(self, what: Property, name: str = "dense0.weight") -> None:
        self.what, self.name = what, name

    def run(self, progress: Progress) -> None:
        model, name = progress.model, self.name
        if self.what is Property.ZEROS:
            model.set_mask(name, np.ones_like(model.masks[name]))
        elif self.what is Property.SHAPES:
            progress.model = small_model()
        else:
            view = model.parameters[name]
            view[model.masks[name]] += np.linspace(0, 1, np.count_nonzero(model.masks[name]))


@pytest.mark.parametrize(
    ("stage", "what", "message"),
    [
        (
            gp.compression.Prune(0.5),
            Property.ZEROS,
            r"removed weights: \d+ of {name} came back",
        ),
        (gp.compression.Shrink(), Property.SHAPES, "shapes of the parameters: "),
        (SHARE, Property.CLUSTERS, r"{name} has \d+ different values instead of 4"),
        (GRID, Property.GRID, "{name} is off its grid"),
    ],
)
@pytest.mark.parametrize("name", ["dense0.weight", "dense2.weight"])
def test_a_stage_that_undoes_something_is_found_out(
    stage: gp.compression.Stage, what: Property, message: str, name: str, digits: Any
) -> None:
    data, _ = digits
    model = small_model()
    if what is Property.SHAPES:
        gp.Pruner(model, criterion=gp.Magnitude()).prune(0.97)
    with pytest.raises(
        gp.compression.PipelineError,
        match=f"stage 2, Damage, has undone the .*{message.format(name=name)}",
    ):
        gp.compression.Pipeline([stage, Damage(what, name)]).run(model, data)


def test_removed_weights_of_a_shrunk_model_are_looked_after() -> None:
    """Parameters that have lost units are left out, not those behind them."""
    layers = [gp.Dense(4), gp.Dense(3), gp.Dense(2)]
    model = gp.Model(layers, input_shape=5, seed=0)
    masks = {name: np.ones_like(mask) for name, mask in model.masks.items()}
    masks["dense0.weight"][0] = masks["dense2.weight"][0] = False
    model.set_masks(masks)
    kept = keeping.STATES[Property.ZEROS](model)
    check = keeping.CHECKS[Property.ZEROS]
    small = gp.Model([gp.Dense(2), *layers[1:]], input_shape=5, seed=0)
    assert check(model, kept) == ""
    assert check(small, kept) == "3 of dense2.weight came back"
    small.set_mask("dense2.weight", masks["dense2.weight"])
    assert check(small, kept) == ""
    fewer = gp.Model([gp.Dense(3, name="dense2")], input_shape=5)
    assert check(fewer, kept) == ""
    model.set_mask("dense0.weight", np.ones((4, 5)))
    assert check(model, kept) == "5 of dense0.weight came back"
    model.set_mask("dense2.weight", np.ones((2, 3)))  # what was kept is another model's
    assert kept["dense2.weight"].tolist() == [[False] * 3, [True] * 3]


def test_criteria_that_need_data_get_it(digits: Any) -> None:
    data, _ = digits
    model = small_model()
    gp.compression.Pipeline([gp.compression.Prune(0.5, criterion=gp.Taylor(), scope="layer")]).run(
        model, data
    )
    assert [int(mask.sum()) for mask in model.masks.values()] == [768, 144, 60]


def test_a_smaller_model_is_compared_with_the_larger_one(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink = gp.Model.shrink

    def wrong(model: gp.Model) -> gp.Model:
        small = shrink(model)
        small.parameters["dense2.bias"][3] += 1
        return small

    monkeypatch.setattr(gp.Model, "shrink", wrong)
    model = small_model()
    with pytest.raises(PipelineError, match=r"Shrink has changed predictions: .* output 3: "):
        gp.compression.Pipeline([gp.compression.Prune(0.9), gp.compression.Shrink()]).run(
            model, digits[0]
        )
