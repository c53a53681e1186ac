"""What somebody is told who looks for what other libraries' objects have."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import numpy as np
import pytest

import gradprune as gp
from gradprune import signposts
from gradprune.registry import SETTINGS
from setting_examples import GIVEN

MODEL = gp.Model([gp.Dense(3, activation="relu"), gp.Dense(2)], input_shape=4, seed=0)
OPTIMIZER = gp.SGD(MODEL, lr=0.1)
LAYERS = [
    cls(**GIVEN.get(name, {})) for name, cls in SETTINGS.items() if issubclass(cls, gp.layers.Layer)
]
OBJECTS = (
    (MODEL, signposts.MODEL_ATTRIBUTES),
    (OPTIMIZER, signposts.OPTIMIZER_ATTRIBUTES),
    (MODEL.layers[0], signposts.LAYER_ATTRIBUTES),
)


@pytest.mark.parametrize(
    ("thing", "name"), [(thing, name) for thing, hints in OBJECTS for name in hints]
)
def test_an_attribute_of_other_libraries_says_what_to_write(thing: object, name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(thing, name)
    text = str(caught.value)
    assert text.startswith(f"{type(thing).__name__!r} object has no attribute {name!r}: ")
    assert caught.value.name == name
    if thing is not MODEL.layers[0]:  # which is frozen as a whole
        with pytest.raises(AttributeError) as refused:
            setattr(thing, name, 1)
        assert str(refused.value) == text
    assert not hasattr(thing, name)
    assert name not in dir(thing)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("forward", "write model.predict(x)"),
        ("compile", "pass optimizer= and loss= to model.fit"),
        ("state_dict", "write model.get_state()"),
        ("load_state_dict", "write model.set_state(state)"),
        ("train", "there are no modes"),
        ("eval", "there are no modes"),
        ("zero_grad", "model.backward replaces the gradients"),
        ("weights", "model.parameters"),
        ("train_on_batch", "write model.train_step(x, y, optimizer=optimizer)"),
    ],
)
def test_what_is_said_of_a_model(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(MODEL, name)
    assert said in str(caught.value)


def test_what_is_set_as_elsewhere_says_what_to_write() -> None:
    for name in ("learning_rate", "Lr", "LR", "param_groups"):
        with pytest.raises(AttributeError, match=r"write optimizer\.lr, such as optimizer\.lr = "):
            setattr(OPTIMIZER, name, 0.5)
    with pytest.raises(AttributeError, match=r"optimizer\.lr = 1e-4"):
        OPTIMIZER.param_groups[0]["lr"] = 0.5  # type: ignore[attr-defined]
    for name in ("momentum", "weight_decay", "betas"):
        with pytest.raises(AttributeError, match=r"make another optimizer"):
            setattr(OPTIMIZER, name, 0.5)
    assert OPTIMIZER.lr == 0.1


def test_classes_of_others_may_have_what_ours_have_not() -> None:
    class Own(gp.SGD):
        def __init__(self, model: gp.Model) -> None:
            super().__init__(model, lr=0.1, momentum=0.5)
            self.momentum = 0.5

    assert Own(MODEL.copy()).momentum == 0.5

    @dataclass(frozen=True)
    class Wide(gp.Dense):
        weights: int = field(kw_only=True)

    assert Wide(3, weights=4).weights == 4


def test_settings_of_layers_are_not_assigned() -> None:
    layer = MODEL.layers[0]
    with pytest.raises(FrozenInstanceError, match=r"write model\.set_trainable\('dense0', False\)"):
        layer.trainable = False  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="make another layer"):
        layer.units = 3  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError, match=r"set_trainable\('dense0', False\)"):
        gp.LSTM(3).trainable = False  # type: ignore[misc]
    for name in ("freeze_layer", "freeze_layers", "trainable"):
        with pytest.raises(AttributeError, match="set_trainable"):
            getattr(MODEL, name)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layers_that_are_frozen_say_so(layer: gp.layers.Layer) -> None:
    assert "trainable" not in repr(layer)
    assert repr(replace(layer, trainable=False)) == f"{repr(layer)[:-1]}, trainable=False)"


def test_calls_that_are_none() -> None:
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(TypeError, match=r"a model is not called: write model\.predict\(x\)"):
        MODEL(x)  # type: ignore[operator]
    for mapping in (MODEL.parameters, MODEL.gradients):
        with pytest.raises(TypeError, match=r"not methods: .* optimizers take the model"):
            mapping()  # type: ignore[operator]


def test_arrays_are_replaced_by_arrays_of_their_shape() -> None:
    """Nothing is broadcast, nothing is replaced on an error."""
    model = MODEL.copy()
    before = model.get_state()
    for mapping in (model.parameters, model.gradients):
        for name, values in mapping.items():
            for bad in (1.0, values[:1], values[np.newaxis], values.ravel()[:1]):
                with pytest.raises(ValueError, match=rf"{name} must have shape \({len(values)},"):
                    mapping[name] = bad  # type: ignore[index]
            with pytest.raises(TypeError, match=f"{name} must hold real numbers"):
                mapping[name] = np.full(values.shape, "a")  # type: ignore[index]
        with pytest.raises(KeyError, match="'nothing' is none of"):
            mapping["nothing"] = 1.0  # type: ignore[index]
    for name, values in before.items():
        np.testing.assert_array_equal(model.get_state()[name], values)
    for name, values in before.items():
        if name in model.parameters:
            model.parameters[name] = (values + 1).tolist()  # type: ignore[index]
            np.testing.assert_array_equal(model.parameters[name], values + 1)


def test_other_attributes_fail_as_ever() -> None:
    for thing in (MODEL, OPTIMIZER, MODEL.layers[0]):
        with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'") as caught:
            thing.nothing_like_it  # type: ignore[attr-defined]  # noqa: B018
        assert caught.value.name == "nothing_like_it"


def test_an_error_within_a_property_is_not_hidden() -> None:
    class Odd(gp.Model):
        @property
        def odd(self) -> int:
            return self.nothing_at_all  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="nothing_at_all"):
        Odd([gp.Dense(1)], 2).odd  # noqa: B018


def test_attributes_of_ones_own_win() -> None:
    class Own(gp.Model):
        def forward(self) -> str:
            return "own"

    model = Own([gp.Dense(1)], 2)
    assert model.forward() == "own"
    assert "forward" in dir(model)
    model.train = 3  # type: ignore[attr-defined]
    assert vars(model)["train"] == 3


def test_what_is_there_is_reached_as_fast_as_ever() -> None:
    for thing, _ in OBJECTS:
        assert not hasattr(type(thing), "__getattr__")


def test_copies_and_pickles_are_as_before() -> None:
    for twin in (copy.deepcopy(MODEL), pickle.loads(pickle.dumps(MODEL)), MODEL.copy()):
        np.testing.assert_array_equal(twin.arena.params, MODEL.arena.params)
        assert isinstance(twin.optimizer, gp.SGD)
