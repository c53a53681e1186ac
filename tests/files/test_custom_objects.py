"""Settings of a user's own classes: saved by name and fields, found again in custom_objects."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import files
from gradprune.errors import FileFormatError
from gradprune.registry import SETTINGS, Registry, classes_in, written
from setting_examples import GIVEN

# Each call of fit knows of its own steps.
pytestmark = pytest.mark.filterwarnings("ignore:Steps ends at step 9")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = RNG.integers(3, size=60)


@dataclass(frozen=True)
class Power(gp.pruning.Criterion):
    """|w|^exponent, each weighted by its sign."""

    exponent: float = 2.0
    signs: dict[str, tuple[float, ...]] = field(default_factory=dict)
    needs_gradients = False

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        return np.where(weights < 0, 0.5, 1.0).astype(np.float32) * np.abs(weights) ** self.exponent


@dataclass(frozen=True)
class Steps(gp.pruning.Schedule):
    """A sparsity for each of some steps."""

    table: tuple[tuple[int, float], ...]

    def sparsity_at(self, step: int) -> float:
        return max([0.0, *(sparsity for at, sparsity in self.table if at <= step)])

    def is_event(self, step: int) -> bool:
        return step in dict(self.table)

    @property
    def last_event(self) -> int:
        return self.table[-1][0]


@dataclass(frozen=True)
class Halves(gp.learning_rates.LearningRate):
    lr: float
    inner: Power = Power()  # a setting of one's own in another one

    def __call__(self, step: int) -> float:
        return self.lr / (1 + step)


@dataclass(frozen=True)
class Even(gp.pruning.GlobalScope):
    pass


@dataclass(frozen=True)
class Pairs(gp.pruning.Unit):
    pass


@dataclass(frozen=True)
class Grow(gp.pruning.SET):
    pass


@dataclass(frozen=True)
class Tight(gp.clipping.ClipNorm):
    note: str | None = None


@dataclass(frozen=True)
class Ones(gp.initializers.Initializer):
    value: float = 1.0

    def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> NDArray[np.float32]:
        return np.full(shape, self.value, np.float32)


@dataclass(frozen=True)
class Wide(gp.Dense):
    pass


@dataclass(frozen=True, kw_only=True)
class Labels(gp.losses.CrossEntropy):
    note: float = float("inf")


OWN: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (Power, Steps, Halves, Even, Pairs, Grow, Tight, Ones, Wide, Labels)
}


def trained(epochs: int = 2) -> gp.Model:
    """A model all of whose settings are of classes of one's own."""
    layers = [Wide(8, activation="relu", initializer=Ones(0.25)), gp.Dense(3)]
    model = gp.Model(layers, input_shape=6, seed=1)
    optimizer = gp.SGD(model, lr=Halves(0.1), clip=[gp.ClipValue(2.0), Tight(1.0, note="a")])
    pruner = gp.Pruner(
        model,
        criterion=Power(1.5, signs={"dense0": (1.0, float("nan"))}),
        scope=Even(),
        granularity=gp.Element(),
        schedule=Steps(((2, 0.25), (9, 0.5))),
        regrowth=Grow(stop=20, every=3),
    )
    model.fit(X, Y, optimizer=optimizer, pruner=pruner, loss=Labels(), epochs=epochs, verbose=0)
    return model


def test_all_settings_come_back_and_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "m")
    again = gp.load(tmp_path / "m", custom_objects=OWN)
    assert isinstance(again, gp.Model)
    assert again.layers == model.layers
    assert again.loss == Labels()
    assert again.pruner is not None
    assert repr(again.pruner.criterion) == repr(model.pruner.criterion)  # type: ignore[union-attr]
    assert again.pruner.schedule == Steps(((2, 0.25), (9, 0.5)))
    for each in (model, again):
        each.fit(X, Y, pruner=each.pruner, epochs=3, verbose=0)
    assert again.arena.params.tobytes() == model.arena.params.tobytes()
    assert again.sparsity == model.sparsity == 0.5
    again.save(tmp_path / "again")
    model.save(tmp_path / "m")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_a_checkpoint_holds_them(tmp_path: Path) -> None:
    model = trained(epochs=1)
    checkpoint = gp.callbacks.Checkpoint(tmp_path / "m")
    model.fit(X, Y, callbacks=[checkpoint], verbose=0)
    assert gp.load(tmp_path / "m", custom_objects=OWN).epoch == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"Distillation"}))
def test_a_subclass_of_every_setting_comes_back(name: str) -> None:
    own = dataclasses.make_dataclass(
        f"My{name}",
        [("note", str, field(default="", kw_only=True))],
        bases=(SETTINGS[name],),
        frozen=True,
    )
    made = own(**GIVEN.get(name, {}), note="mine")
    text = json.dumps(Registry().encode(made))
    again = Registry({own.__name__: own}).decode(json.loads(text))
    assert type(again) is own
    assert again == made


def test_without_the_class_the_error_says_what_to_pass(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.Pruner(model, criterion=Power())
    model.save(tmp_path / "m")
    for given in (None, {}, {"Other": Power}):
        with pytest.raises(
            gp.errors.FileFormatError, match=r"'Power'.*custom_objects=\{'Power'"
        ) as caught:
            gp.load(tmp_path / "m", custom_objects=given)
        assert str(tmp_path / "m") in str(caught.value)


def test_a_class_may_have_moved_to_another_name(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.Pruner(model, criterion=Power(3.0))
    model.save(tmp_path / "m")

    @dataclass(frozen=True)
    class Renamed(Power):
        pass

    again = gp.load(tmp_path / "m", custom_objects={"Power": Renamed})
    assert again.pruner.criterion == Renamed(3.0)  # type: ignore[union-attr]


# ---- what is refused -----------------------------------------------------------------------------


class Plain(gp.pruning.Criterion):
    needs_gradients = False

    def scores(self, weights: Any, statistics: Any, draw: Any) -> Any:
        return np.abs(weights)


class Inherits(gp.pruning.Magnitude):  # its own settings would be lost
    def __init__(self, factor: float = 1.0) -> None:
        self.__dict__["factor"] = factor


@dataclass
class Thawed(Plain):
    factor: float = 1.0


@dataclass(frozen=True)
class Holds(Plain):
    what: Any = None


@dataclass(frozen=True)
class Needs(Plain):
    given: dataclasses.InitVar[int]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (Plain, r"Plain.*@dataclass\(frozen=True\) with a field for each setting"),
        (Inherits, r"Inherits is no frozen dataclass; make it one by @dataclass\(frozen=True\)"),
        (Thawed, r"Thawed is no frozen dataclass"),
        (lambda: Holds(np.zeros(2)), "ndarray"),
        (lambda: Holds({1: 2}), "keys are not all text"),
        (lambda: Holds(Plain()), "Plain"),
        (lambda: Holds(Power), "ABCMeta is none of these"),
        (lambda: Needs(3), "Needs cannot be made again from its fields"),
    ],
)
def test_what_could_not_be_made_again_is_refused(
    tmp_path: Path, make: Callable[[], Any], match: str
) -> None:
    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.SGD(model, lr=0.1)
    gp.Pruner(model, criterion=make())
    with pytest.raises(TypeError, match=match):
        model.save(tmp_path / "m")
    before = model.arena.params.copy()
    with pytest.raises(TypeError, match=match):
        model.fit(X, Y, callbacks=[gp.callbacks.Checkpoint(tmp_path / "m")], verbose=0)
    assert model.arena.params.tobytes() == before.tobytes()
    assert list(tmp_path.iterdir()) == []


def test_own_classes_do_not_shadow_ours(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Magnitude(Plain):
        pass

    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.Pruner(model, criterion=Magnitude())
    with pytest.raises(TypeError, match="Magnitude is the name of a class of gradprune"):
        model.save(tmp_path / "m")
    for name in ("Magnitude", "Dense", "Adam"):
        with pytest.raises(ValueError, match=f"{name} is the name of a class of gradprune"):
            gp.load(tmp_path / "m", custom_objects={name: Power})


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    def other() -> Any:
        @dataclass(frozen=True)
        class Power(gp.learning_rates.ConstantLR):
            pass

        return Power(0.1)

    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.SGD(model, lr=other())
    gp.Pruner(model, criterion=Power())
    with pytest.raises(TypeError, match="two classes have the name Power"):
        model.save(tmp_path / "m")


@pytest.mark.parametrize(
    "given",
    [[Power], "Power", {"Power": "Power"}, {"Power": Power()}, {1: Power}, {"Plain": Plain}],
)
def test_custom_objects_are_checked_first(tmp_path: Path, given: Any) -> None:
    path = tmp_path / "m"
    gp.Model([gp.Dense(3)], input_shape=6).save(path)
    with pytest.raises(TypeError, match="custom_objects"):
        gp.load(path, custom_objects=given)


def described(custom: Any) -> bytes:
    """A file whose criterion is this, with a right hash."""
    model = gp.Model([gp.Dense(3)], input_shape=6)
    gp.Pruner(model, criterion=Power())
    content, tensors = files.state_of(model)
    content["pruner"]["settings"]["criterion"] = custom
    return files.seal(content, tensors)


@pytest.mark.parametrize(
    "custom",
    [
        {"class": "Power", "exponent": 2.0},  # ours alone are written so
        {"class": "custom", "name": "os.system", "fields": {"command": "ls"}},
        {"class": "custom", "name": "Magnitude", "fields": {}},
        {"class": "custom", "name": ["Power"], "fields": {}},
        {"class": "custom", "name": "Power", "fields": {"command": "ls"}},
        {"class": "custom", "name": "Power", "fields": [1]},
        {"class": "custom", "name": "Power"},
        {"class": "custom"},
        {"class": "custom", "name": "Halves", "fields": {"lr": 0.1}},  # no criterion
        {"class": "custom", "name": "Touchy", "fields": {"limit": -1}},
    ],
)
def test_hostile_settings_are_refused(tmp_path: Path, custom: Any) -> None:
    @dataclass(frozen=True)
    class Touchy(Power):
        limit: int = 0

        def __post_init__(self) -> None:
            raise RuntimeError(f"no limit is {self.limit}")

    path = tmp_path / "m"
    path.write_bytes(described(custom))
    with pytest.raises(gp.errors.FileFormatError) as caught:
        gp.load(path, custom_objects={**OWN, "Touchy": Touchy})
    assert str(path) in str(caught.value)


def test_an_experiment_keeps_a_dense_model_of_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second trial reads it and does not train it once more."""

    def build(seed: int) -> gp.Model:
        return gp.Model([gp.Dense(3, initializer=Ones(0.5))], input_shape=6, seed=seed)

    experiment = gp.sweeps.Experiment(
        build,
        ((X, Y), (X, Y)),
        criterion=Power(),
        dense_clip=Tight(1.0),
        dense_epochs=1,
        epochs=1,
        cache=tmp_path,
    )
    first = experiment(sparsity=0.5)
    assert len(list(tmp_path.iterdir())) == 1
    fits: list[int] = []
    fit = gp.training.Training.fit

    def counted(training: gp.training.Training, *args: Any, **settings: Any) -> Any:
        fits.append(training.epochs)
        return fit(training, *args, **settings)

    monkeypatch.setattr(gp.training.Training, "fit", counted)
    assert experiment(sparsity=0.5)["accuracy"] == first["accuracy"]
    assert fits == [1]


def test_classes_in_a_setting() -> None:
    found = classes_in([gp.Dense(3, initializer=Ones()), {"a": (Halves(0.1), 5)}, Power])
    assert found == {"Ones": Ones, "Halves": Halves, "Power": Power}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a", "'a'"),
        (True, "True"),
        (0.5, "0.5"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, (2.5, "b")), "(1, (2.5, 'b'))"),
        ({}, "{}"),
        ({"a": (1, 2), "b": {"c": None}}, "{'a': (1, 2), 'b': {'c': None}}"),
        (gp.Block(2, 3), "Block(rows=2, columns=3)"),
        (
            Power(1.5, {"+": (1.0,)}),
            "Power(exponent=1.5, signs={'+': (1.0,)})",
        ),
        (Steps(((2, 0.5),)), "Steps(table=((2, 0.5),))"),
    ],
)
def test_settings_as_they_are_written_in_python(value: Any, text: str) -> None:
    """Without their classes: what a file holds is enough."""
    assert written(json.loads(json.dumps(Registry().encode(value)))) == text


def test_files_name_settings_only() -> None:
    """Reports, bases, optimizers and what else is public are nothing that a file may make."""
    packages = (gp.layers, gp.losses, gp.optim, gp.pruning, gp.quantization)
    public = {
        name: member
        for package in packages
        for name, member in vars(package).items()
        if inspect.isclass(member) and name not in SETTINGS
    }
    assert {"Adam", "Pruner", "PruneReport", "Quantizer", "Layer"} <= public.keys()
    for name in public:
        with pytest.raises(FileFormatError, match=f"unknown class '{name}'"):
            Registry().decode({"class": name})
    for cls in SETTINGS.values():
        assert cls.__dataclass_params__.frozen, cls
