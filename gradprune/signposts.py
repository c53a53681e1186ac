"""Where a name is that somebody looked for in vain: what ``gradprune.NAME`` says in its error."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import FrozenInstanceError
from types import ModuleType
from typing import Any, NoReturn

from gradprune.foundation.calls import explain_calls

__all__ = [
    "explain",
    "explain_attributes",
    "explain_frozen",
    "explain_homes",
    "refuse_calls",
]

_AVERAGE = "pass callbacks=[gp.callbacks.ExponentialMovingAverage()] to model.fit"
_FREEZING = (
    'write model.set_trainable("dense0", False), or gp.Dense(10, trainable=False); model.freeze() '
    "makes a fast copy that only predicts"
)
# What other libraries call it, and what to write here.
ELSEWHERE = {
    "Linear": "write gp.Dense(10), which finds out how many inputs it has",
    "ReLU": 'write gp.Activation("relu"), or activation="relu" of the layer before',
    "Sequential": 'write gp.Model([gp.Dense(30, activation="relu"), gp.Dense(10)], input_shape=64)',
    "BatchNorm1d": "write gp.BatchNorm()",
    "BatchNorm2d": "write gp.BatchNorm()",
    "BatchNormalization": "write gp.BatchNorm()",
    "Conv2d": "write gp.Conv2D(filters, kernel)",
    "EmbeddingBag": "write gp.Embedding(vocabulary, features) and gp.GlobalAvgPool()",
    "Conv1d": "write gp.Conv1D(filters, kernel), for samples (time, features)",
    "AvgPool1d": "write gp.layers.AvgPool1D(kernel), for samples (time, features)",
    "MaxPool1d": "write gp.layers.MaxPool1D(kernel), for samples (time, features)",
    "AveragePooling1D": "write gp.layers.AvgPool1D(kernel)",
    "MaxPooling1D": "write gp.layers.MaxPool1D(kernel)",
    "GlobalAveragePooling1D": "write gp.GlobalAvgPool()",
    "GlobalMaxPooling1D": "write gp.GlobalMaxPool()",
    "AdaptiveAvgPool1d": "write gp.GlobalAvgPool(), which is AdaptiveAvgPool1d(1) and Flatten",
    "AdaptiveMaxPool1d": "write gp.GlobalMaxPool(), which is AdaptiveMaxPool1d(1) and Flatten",
    "AvgPool2d": "write gp.AvgPool2D(kernel)",
    "MaxPool2d": "write gp.MaxPool2D(kernel)",
    "AveragePooling2D": "write gp.AvgPool2D(kernel)",
    "MaxPooling2D": "write gp.MaxPool2D(kernel)",
    "GlobalAveragePooling2D": "write gp.GlobalAvgPool()",
    "GlobalMaxPooling2D": "write gp.GlobalMaxPool()",
    "GlobalMaxPool2D": "write gp.GlobalMaxPool()",
    "AdaptiveAvgPool2d": "write gp.GlobalAvgPool(), which is AdaptiveAvgPool2d(1) and Flatten",
    "AdaptiveMaxPool2d": "write gp.GlobalMaxPool(), which is AdaptiveMaxPool2d(1) and Flatten",
    "LayerNormalization": "write gp.LayerNorm()",
    "Normalization": "write gp.Standardize(), which model.fit or model.adapt(x) fits",
    "StandardScaler": "write gp.Standardize() as the first layer; model.fit fits it",
    "SimpleRNN": "write gp.RNN(units)",
    "Cropping1D": "write gp.layers.Slice(start, stop, axis=1)",
    "Cropping2D": "write gp.layers.Slice(start, stop, axis=2), and the same with axis=3",
    "Concatenate": "write gp.Concat()([a, b])",
    "LeakyReLU": 'write gp.Activation("leaky_relu")',
    "GELU": 'write gp.Activation("gelu")',
    "SiLU": 'write gp.Activation("silu")',
    "Swish": 'write gp.Activation("silu")',
    "ELU": 'write gp.Activation("elu", alpha=1.0)',
    "Hardswish": 'write gp.Activation("hardswish")',
    "ReLU6": 'write gp.Activation("relu6")',
    "Sigmoid": 'write gp.Activation("sigmoid")',
    "Softmax": 'write gp.Activation("softmax")',
    "Tanh": 'write gp.Activation("tanh")',
    "CrossEntropyLoss": 'write loss="cross_entropy", or gp.losses.CrossEntropy()',
    "MSELoss": 'write loss="mse"',
    "L1Loss": 'write loss="mae"',
    "HuberLoss": "write loss=gp.losses.Huber(delta=1.0)",
    "SmoothL1Loss": "write loss=gp.losses.Huber(delta=1.0)",
    "CosineAnnealingLR": "write gp.learning_rates.CosineLR(lr, steps=...)",
    "ReduceLROnPlateau": "write gp.learning_rates.ReduceOnPlateau(lr)",
    "DataLoader": "pass arrays to model.fit, or go over gp.batches(x, y, batch_size=32)",
    "EMA": _AVERAGE,
    "ModelEMA": _AVERAGE,
    "AveragedModel": "pass callbacks=[gp.callbacks.WeightAveraging()] to model.fit",
    "freeze_layer": _FREEZING,
    "freeze_layers": _FREEZING,
    "load_model": 'write gp.load("model.safetensors")',
    "save_model": 'write model.save("model.safetensors")',
    "TimeDistributed": "layers act on each step of a sequence by themselves: write gp.Dense(units)",
    "BCEWithLogitsLoss": 'write loss="bce"',
    "BCELoss": 'write loss="bce", behind a last sigmoid or on logits',
    "Module": "write gp.Model; there are no classes to derive networks from",
    "compile": "pass optimizer= and loss= to model.fit",
    "no_grad": "gradients are computed by model.backward and model.fit alone",
    "nn": "layers are here: gp.Dense, gp.Conv2D, gp.LSTM",
    "Quantize": "the clipper is gp.QuantizeGradient, the stage gp.compression.QuantizeWeights",
    "Quantization": "the stage is gp.compression.QuantizeWeights",
}

_MAPPINGS = "model.parameters and model.buffers map names to arrays"
_ONE_STEP = "write model.train_step(x, y, optimizer=optimizer)"
_NO_MODE = "there are no modes: fit, backward and train_step train, predict and evaluate do not"
_NO_ZEROING = "there is nothing to zero: model.backward replaces the gradients"
_DEVICE = "models compute on the CPU"
_FLOATS = 'models hold float32; model.freeze(precision="int8") predicts on 8-bit integers'
_RATE = "write optimizer.lr, such as optimizer.lr = 1e-4"
_IN_PARAMETERS = "layers hold settings alone, arrays are in model.parameters: 'dense0.weight', ..."

# What users of torch and Keras look for on an object, and what to write here.
MODEL_ATTRIBUTES = {
    "add": "layers are given as a list: write gp.Model([...], input_shape=...)",
    "apply": "layers take an initializer, such as gp.Dense(10, initializer=gp.initializers.He())",
    "compile": "pass optimizer= and loss= to model.fit",
    "count_params": "write model.summary().total.parameters",
    "cpu": _DEVICE,
    "cuda": _DEVICE,
    "double": _FLOATS,
    "eval": _NO_MODE,
    "fit_generator": f"go over the batches and {_ONE_STEP}",
    "freeze_layer": _FREEZING,
    "freeze_layers": _FREEZING,
    "forward": "write model.predict(x); model.backward(x, y) computes loss and gradients",
    "get_weights": "write model.get_state(), a dict of copies in forward order",
    "half": _FLOATS,
    "load_state_dict": "write model.set_state(state), or read a whole file by gp.load(path)",
    "load_weights": 'write gp.load("model.safetensors")',
    "modules": "write model.layers",
    "named_parameters": "write model.parameters.items()",
    "predict_classes": "write model.predict(x).argmax(axis=1)",
    "predict_on_batch": "write model.predict(x)",
    "predict_proba": 'write model.predict(x); probabilities need a last activation="softmax"',
    "score": 'write model.evaluate(x, y)["accuracy"]',
    "save_weights": 'write model.save("model.safetensors")',
    "set_weights": "write into the arrays, model.parameters[name][...] = values",
    "state_dict": "write model.get_state(), a dict of copies; model.save(path) writes everything",
    "test_on_batch": "write model.evaluate(x, y)",
    "to": _DEVICE,
    "requires_grad_": 'write model.set_trainable(["dense0", "dense1"], False)',
    "train": _NO_MODE,
    "trainable": 'write model.set_trainable(["dense0", "dense1"], False)',
    "train_on_batch": _ONE_STEP,
    "trainable_variables": _MAPPINGS,
    "trainable_weights": _MAPPINGS,
    "variables": _MAPPINGS,
    "weights": _MAPPINGS,
    "zero_grad": _NO_ZEROING,
}
OPTIMIZER_ATTRIBUTES = {
    "add_param_group": "one optimizer has one learning rate for all parameters",
    "apply_gradients": "write model.backward(x, y) and optimizer.step()",
    "learning_rate": _RATE,
    "learning_rates": _RATE,
    "Lr": _RATE,
    "LR": _RATE,
    "load_state_dict": "gp.load(path) reads the optimizer with its model",
    "minimize": "write model.backward(x, y) and optimizer.step(), or model.train_step",
    "param_groups": f"{_RATE}; one optimizer has one learning rate for all parameters",
    "state_dict": "model.save(path) writes the optimizer with its model",
    "zero_grad": _NO_ZEROING,
} | dict.fromkeys(
    (
        *("alpha", "beta1", "beta2", "beta_1", "beta_2", "betas", "centered", "dampening"),
        *("decoupled", "epsilon", "eps", "momentum", "nesterov", "rho", "weight_decay"),
    ),
    "optimizer.settings() has the settings, which stay as they are: to change one make another "
    "optimizer, such as gp.Adam(model, betas=(0.9, 0.99))",
)
LAYER_ATTRIBUTES = {"adapt": "write model.adapt(x); model.fit does it, too"} | dict.fromkeys(
    ("get_weights", "kernel_weights", "set_weights", "trainable_weights", "weight", "weights"),
    _IN_PARAMETERS,
)


def explain(name: str, homes: Mapping[str, Iterable[str]], known: Iterable[str]) -> str:
    """Why there is no such name, and what to write instead.

    Args:
        name: what was looked for.
        homes: the names in each module that has a home for them.
        known: the names that are there.

    >>> explain("Adm", {}, ["Adam", "Dense"])
    "module 'gradprune' has no attribute 'Adm'; is it Adam?"
    """
    text = f"module 'gradprune' has no attribute {name!r}"
    if name in ELSEWHERE:
        return f"{text}: {ELSEWHERE[name]}"
    found = [f"gp.{home}.{name}" for home, names in homes.items() if name in names]
    if found:
        return f"{text}: write {found[0]}"
    places = {known_name: known_name for known_name in known}
    for home, names in homes.items():
        places |= {other: f"{home}.{other}" for other in names if other not in places}
    close = difflib.get_close_matches(name, places, n=1, cutoff=0.75)
    return f"{text}; is it {places[close[0]]}?" if close else text


def explain_homes(homes: Iterable[ModuleType]) -> None:
    """Make the classes in these modules say what is wrong with a call that does not fit."""
    members = (member for home in homes for member in vars(home).values())
    explain_calls(cls for cls in members if inspect.isclass(cls))


class _Signpost:
    """Stands on a class for an attribute that its objects do not have, and says what to write.

    ``__getattr__`` would do the same, and make every attribute that is there slower to reach.
    """

    def __init__(self, hint: str) -> None:
        self.__doc__ = hint

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, thing: object, owner: type) -> object:
        if thing is None or self.name not in vars(thing):
            self._refuse(thing, owner if thing is None else type(thing))
        return vars(thing)[self.name]

    def __set__(self, thing: object, value: object) -> None:
        if type(thing).__module__.startswith("gradprune."):
            self._refuse(thing, type(thing))
        vars(thing)[self.name] = value  # a class of somebody else's may have what ours have not

    def _refuse(self, thing: object, kind: type) -> NoReturn:
        text = f"{kind.__name__!r} object has no attribute {self.name!r}: {self.__doc__}"
        raise AttributeError(text, name=self.name, obj=thing)


def explain_attributes(kind: type, hints: Mapping[str, str]) -> None:
    """Make objects say what to write in place of attributes that they do not have.

    Args:
        kind: their class.
        hints: name to what its error says.
    """

    def without_hints(self: object) -> Iterable[str]:
        listed = object.__dir__(self)
        return [name for name in listed if not isinstance(_found(type(self), name), _Signpost)]

    for name, hint in hints.items():
        post = _Signpost(hint)
        post.__set_name__(kind, name)
        setattr(kind, name, post)
    setattr(kind, "__dir__", without_hints)  # noqa: B010 - mypy minds the other way


def explain_frozen(kinds: Iterable[type]) -> None:
    """Make layers say what to write in place of an assignment to one of their settings."""
    for kind in kinds:
        setattr(kind, "__setattr__", _explained(kind.__setattr__))  # noqa: B010 - mypy minds


def _explained(assign: Callable[..., None]) -> Callable[[Any, str, Any], None]:
    def explained(self: Any, name: str, value: Any) -> None:
        try:
            assign(self, name, value)
        except FrozenInstanceError as error:
            hint = "make another layer, dataclasses.replace(layer, ...), and a model of it"
            if name == "trainable":
                hint = f"write model.set_trainable({self.name or 'dense0'!r}, {value!r})"
            raise FrozenInstanceError(f"{error}: {hint}") from None

    return explained


def _found(kind: type, name: str) -> object:
    """The attribute as it stands in the class, or None."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def refuse_calls(kind: type, text: str) -> None:
    """Make objects that are not called say what to write instead."""

    def refuse(self: object, *args: object, **settings: object) -> NoReturn:
        raise TypeError(text)

    setattr(kind, "__call__", refuse)  # noqa: B010 - mypy minds the other way
