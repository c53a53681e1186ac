"""Settings: numbers of NumPy are numbers, extremes train or are refused, by name."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradprune as gp
from gradprune import registry
from gradprune.errors import NumericalError
from gradprune.layers.base import Layer
from setting_examples import GIVEN

EXAMPLES = int(os.environ.get("GRADPRUNE_EXAMPLES", "60"))

OTHERS: dict[str, tuple[type, dict[str, Any]]] = {  # that are not saved with a model
    "CrossEntropy": (gp.losses.CrossEntropy, {}),
    "Crop": (gp.augmentation.Crop, {"padding": (1, 2)}),
    "Distillation": (gp.losses.Distillation, {"teacher": abs}),
    "Flip": (gp.augmentation.Flip, {}),
    "LeastSquares": (gp.pruning.LeastSquares, {}),
    "Prune": (gp.compression.Prune, {"sparsity": 0.5}),
    "Rotate": (gp.augmentation.Rotate, {"degrees": 15.0}),
    "Shift": (gp.augmentation.Shift, {"pixels": 1}),
    "Training": (gp.compression.Training, {"epochs": 2}),
}
CLASSES = {name: (cls, GIVEN.get(name, {})) for name, cls in registry.SETTINGS.items()} | OTHERS


def with_numpy(value: Any, kind: Callable[[Any], Any]) -> Any:
    """The same with NumPy's scalars for Python's numbers."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, tuple):
        return tuple(with_numpy(item, kind) for item in value)
    if isinstance(value, dict):
        return {np.str_(name): with_numpy(item, kind) for name, item in value.items()}
    if isinstance(value, int):
        return np.array(value) if kind is np.asarray else np.int16(value)
    return kind(value) if isinstance(value, float) else value


def is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, (*value.keys(), *value.values())))
    if dataclasses.is_dataclass(value) or callable(value):
        return True
    return type(value) in (int, float, bool, str, type(None))


def values_of(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """All settings by name: those given, the others as they are by default."""
    defaults = {
        field.name: field.default
        if field.default is not dataclasses.MISSING
        else field.default_factory()  # type: ignore[misc]
        for field in dataclasses.fields(cls)
        if field.name not in given
    }
    return {**defaults, **given}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.longdouble, np.asarray])
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_settings_hold_plain_numbers(name: str, kind: Callable[[Any], Any]) -> None:
    cls, given = CLASSES[name]
    plain = values_of(cls, given)
    made = cls(**{key: with_numpy(value, kind) for key, value in plain.items()})
    for field in dataclasses.fields(cls):
        value = getattr(made, field.name)
        assert is_plain(value), (field.name, value)
        if isinstance(plain[field.name], float) and math.isfinite(plain[field.name]):
            assert value == float(kind(plain[field.name])), field.name
        elif plain[field.name] is not None:
            assert value == plain[field.name], field.name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_settings_refuse_what_is_no_number(name: str) -> None:
    cls, given = CLASSES[name]
    plain = values_of(cls, given)
    for key, value in plain.items():
        if not isinstance(value, int | float):
            continue
        bad = [np.array([value]), "1", np.complex64(1), [value]]
        bad += ["yes", None, 2] if isinstance(value, bool) else [True, np.True_, math.nan]
        for other in bad:
            with pytest.raises((TypeError, ValueError)) as caught:
                cls(**{**plain, key: other})
            assert key in str(caught.value)


def test_arrays_and_lists_are_pairs() -> None:
    for pair in ([1, 2], np.array([1, 2]), (np.int8(1), np.int8(2))):
        layer = gp.Conv2D(2, pair, padding=[pair, pair])
        assert layer == gp.Conv2D(2, (1, 2), padding=((1, 2), (1, 2)))
        assert hash(layer) == hash(gp.Conv2D(2, (1, 2), padding=((1, 2), (1, 2))))


def test_numbers_of_the_standard_library() -> None:
    layer = gp.Dense(2, l2=Fraction(1, 4))
    assert layer.l2 == 0.25
    assert type(layer.l2) is float
    with pytest.raises(ValueError, match="l2 must be finite"):
        gp.Dense(2, l2=10**400)


OPTIMIZERS: list[tuple[type[gp.Optimizer], dict[str, Any]]] = [
    (gp.SGD, {"lr": 0.5, "momentum": 0.5, "nesterov": True, "weight_decay": 0.125}),
    (gp.SGD, {"lr": 0.5, "momentum": 0.5, "dampening": 0.25, "decoupled": True}),
    (gp.Adam, {"lr": 0.5, "betas": (0.5, 0.75), "eps": 0.125, "decoupled": True}),
    (gp.AdamW, {"lr": 0.5, "weight_decay": 0.125}),
    (gp.RMSprop, {"lr": 0.5, "alpha": 0.5, "eps": 0.125, "momentum": 0.25}),
]


@pytest.mark.parametrize(("cls", "given"), OPTIMIZERS)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.asarray])
def test_optimizers_hold_plain_numbers(
    cls: type[gp.Optimizer], given: dict[str, Any], kind: Callable[[Any], Any], tmp_path: Any
) -> None:
    model = gp.Model([gp.Dense(np.int64(2))], input_shape=np.int32(3), seed=np.uint64(5))
    numpy = {key: with_numpy(value, kind) for key, value in given.items()}
    optimizer = cls(model, **numpy)
    assert optimizer.settings() == cls(model, **given).settings()
    assert all(is_plain(value) for value in optimizer.settings().values())
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    model.fit(
        x, y, optimizer=cls(model, **numpy), epochs=np.int8(2), batch_size=np.uint8(3), verbose=0
    )
    model.save(tmp_path / "m.safetensors")
    again = gp.load(tmp_path / "m.safetensors")
    assert again.optimizer is not None
    assert again.optimizer.settings() == optimizer.settings()
    assert again.predict(x).tobytes() == model.predict(x).tobytes()


def test_pruner_and_quantizer_with_numpy_numbers(tmp_path: Any) -> None:
    model = gp.Model([gp.Dense(np.int64(8), l2=np.float32(0.5)), gp.Dense(2)], 4, seed=0)
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        schedule=gp.Cubic(np.float32(0.5), start=np.int64(0), stop=np.int64(4)),
        min_kept=np.float32(0.25),
        seed=np.uint64(3),
    )
    assert type(pruner.min_kept) is float
    assert type(pruner.seed) is int
    assert pruner.prune(np.float32(0.5)).achieved == 0.5
    assert pruner.prune(count=np.int8(4)).removed == 28
    gp.Quantizer(model, gp.Codebook(np.int64(4), ste=np.False_)).quantize()
    model.save(tmp_path / "m.safetensors")
    x = np.ones((2, 4), np.float32)
    assert gp.load(tmp_path / "m.safetensors").predict(x).tobytes() == model.predict(x).tobytes()
    np.testing.assert_allclose(gp.compress(model).predict(x), model.predict(x), rtol=1e-6)


# ---- layers --------------------------------------------------------------------------------------

IMAGE, SEQUENCE, FEATURES = (2, 5, 4), (3, 4), (4,)
AFFINE = {"l1": 0.0, "l2": 0.0, "bias": True}
RECURRENT = {"units": 3, "truncation": 2, "orthogonality": 0.0, "return_sequences": False, **AFFINE}
WINDOW = {"kernel": 2, "stride": 1, "padding": 0}
LAYERS: list[tuple[type[Layer], tuple[int, ...], dict[str, Any]]] = [
    (gp.Dense, FEATURES, {"units": 3, **AFFINE}),
    (gp.Activation, FEATURES, {"function": "leaky_relu", "slope": 0.1}),
    (gp.Dropout, FEATURES, {"rate": 0.5}),
    (gp.BatchNorm, FEATURES, {"momentum": 0.1, "eps": 1e-5}),
    (gp.LayerNorm, FEATURES, {"eps": 1e-5}),
    (gp.Conv2D, IMAGE, {"filters": 4, "groups": 2, "dilation": 1, **WINDOW, **AFFINE}),
    (gp.MaxPool2D, IMAGE, WINDOW),
    (gp.AvgPool2D, IMAGE, WINDOW),
    (gp.RNN, SEQUENCE, {"omega": 0.0, **RECURRENT}),
    (gp.LSTM, SEQUENCE, {"forget_bias": 1.0, **RECURRENT}),
    (gp.GRU, SEQUENCE, RECURRENT),
]
STARTS = (
    gp.initializers.He,
    gp.initializers.Glorot,
    gp.initializers.Orthogonal,
    gp.initializers.Normal,
    gp.initializers.Uniform,
)
FLOAT = np.finfo(np.float32)
REALS = (
    *(0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e-3, 1e3, 1e-300, 1e300, 1 - 1e-9, 1 - 2.0**-24, 1e-9),
    *(1 - 2.0**-25, 1 - 2.0**-53, float(FLOAT.tiny), float(FLOAT.tiny) / 2, float(FLOAT.max)),
    *(float(FLOAT.max) * 2, 1e-45, math.inf, -math.inf, math.nan, 5e-324),
)
WHOLES = (-1, 0, 1, 2, 3, 4, 5, 6, 7, 2**62, 2**63 - 1, 2**63, 2**64, 2**70)
KINDS = (np.float16, np.float32, np.float64, np.longdouble, np.asarray, float)
INTEGERS = (np.int8, np.uint8, np.int32, np.int64, np.uint64, np.asarray, int)


@st.composite
def a_layer(draw: st.DrawFn) -> tuple[type[Layer], tuple[int, ...], dict[str, Any], str]:
    """A layer's class, the shape it gets, its settings, and which of them is unusual."""
    cls, shape, usual = draw(st.sampled_from(LAYERS))
    starts = [name for name in ("initializer", "recurrent_initializer") if name in usual_of(cls)]
    name = draw(st.sampled_from([*usual, *starts]))
    if name in starts:
        gain = draw(st.sampled_from(REALS))
        return cls, shape, {**usual, name: (draw(st.sampled_from(STARTS)), gain)}, name
    value = usual[name]
    if isinstance(value, bool):
        other: Any = draw(st.sampled_from([True, False, np.True_, np.False_, 1, "no", None]))
    elif isinstance(value, int):
        other = draw(st.sampled_from(WHOLES))
        if name in WINDOW or name == "dilation":
            other = draw(st.sampled_from([other, (other, 1), [1, other]]))
    elif isinstance(value, str):
        other = draw(st.sampled_from(["relu", np.str_("tanh"), "nothing", 5, None]))
    else:
        other = draw(st.sampled_from(REALS))
    return cls, shape, {**usual, name: other}, name


def usual_of(cls: type[Layer]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=a_layer(), kind=st.sampled_from(KINDS), integer=st.sampled_from(INTEGERS))
@pytest.mark.filterwarnings("ignore:overflow encountered")  # in casts of this test
def test_a_layer_refuses_a_setting_or_trains(
    made: tuple[type[Layer], tuple[int, ...], dict[str, Any], str],
    kind: Callable[[Any], Any],
    integer: Callable[[Any], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cls, shape, chosen, name = made
    value = chosen[name]
    try:
        if isinstance(value, tuple) and inspect.isclass(value[0]):
            chosen[name] = value[0](kind(value[1]))
        elif isinstance(value, float):
            chosen[name] = kind(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name != "bias":
            try:
                chosen[name] = integer(value)
            except OverflowError:
                chosen[name] = value
        model = gp.Model([cls(**chosen), gp.Flatten(), gp.Dense(2, name="last")], shape, seed=0)
    except (TypeError, ValueError) as error:
        words = {name, name.rpartition("_")[2], "gain", "std", "limit", "window", "activation"}
        if not any(word in str(error) for word in words):
            raise AssertionError(f"{error} does not say what is wrong") from error
        return
    x = np.random.default_rng(0).standard_normal((6, *shape)).astype(np.float32)
    y = np.array([0, 1, 0, 1, 1, 0])
    optimizer = gp.SGD(model, lr=0.01)
    try:
        model.fit(x, y, optimizer=optimizer, batch_size=6, verbose=0)
    except NumericalError as error:  # a penalty or gain near the end of float32's range
        huge = value[1] if isinstance(value, tuple) else value
        if abs(huge) < 1e9:
            raise AssertionError(f"{name}={huge} is moderate") from error
        return
    assert np.isfinite(model.arena.params).all()
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    file = tmp_path_factory.mktemp("settings") / "m.safetensors"
    model.save(file)
    again = gp.load(file)
    assert again.layers == model.layers
    assert again.predict(x).tobytes() == model.predict(x).tobytes()
    gp.verify(model, model.freeze(), model.shrink(), gp.compress(model), x=x)


@pytest.mark.parametrize("rate", [1 - 1e-9, np.float64(1 - 2.0**-26), 1.0, np.float32(1)])
def test_dropout_keeps_something(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must be (below 1 as float32|in \[0, 1\))"):
        gp.Dropout(rate)


def test_an_initializer_beyond_float32_is_named() -> None:
    with pytest.raises(ValueError, match=r"He\(gain=3e\+38\) starts dense0.weight"):
        gp.Model([gp.Dense(2, initializer=gp.initializers.He(3e38))], input_shape=1)


def test_sizes_beyond_memory_are_errors() -> None:
    for units in (2**31, 2**63, 10**30):
        with pytest.raises(ValueError, match="units must be below 2"):
            gp.Dense(units)
    with pytest.raises(MemoryError, match=r"dense1\.weight has"):
        gp.Model([gp.Dense(2**31 - 1), gp.Dense(2**31 - 1)], input_shape=4)
