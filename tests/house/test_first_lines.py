"""The first lines that users of Keras, torch and scikit-learn type: each works, or is answered.

What does not work says in one sentence what to write.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp

api: Any = gp  # whose types would refuse most lines
(X, Y), _ = gp.datasets.digits()
X, Y = X[:64], Y[:64]


def model(outputs: int = 10, inputs: Any = 64) -> Any:
    layers = [gp.Dense(8, activation="relu"), gp.Dense(outputs)]
    return gp.Model(layers, input_shape=inputs, seed=0)


def images() -> gp.Model:
    return gp.Model([gp.Conv2D(2, 3), gp.Flatten(), gp.Dense(10)], input_shape=(1, 8, 8), seed=0)


def fit(x: Any, y: Any = None, *, of: Any = None, **settings: Any) -> Any:
    chosen = of or model()
    return chosen.fit(x, y, **{"optimizer": gp.Adam(chosen), "verbose": 0, **settings})


class DataLoader:
    """As torch's: batches, and no array."""

    def __iter__(self) -> Any:
        return iter([(X, Y)])


class Dataset:
    def __getitem__(self, place: int) -> Any:
        return X[place], Y[place]


class KerasCallback:
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...


class Derived(gp.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...  # type: ignore[override]


def clipped() -> float:
    chosen = model()
    chosen.backward(X, Y)
    norm = gp.clip_grad_norm_(chosen.gradients, 1e-3)
    total = sum(float((g**2).sum()) for g in chosen.gradients.values()) ** 0.5
    assert norm > 1e-3 == pytest.approx(total, rel=1e-2)
    return norm


def bounded() -> None:
    chosen = model()
    chosen.backward(X, Y)
    gp.clip_grad_value_(chosen.gradients, 1e-4)
    largest = max(float(np.abs(g).max()) for g in chosen.gradients.values())
    assert largest == pytest.approx(1e-4)


def twice_pruned() -> str:
    chosen = model()
    gp.Pruner(chosen, criterion=gp.Magnitude()).prune(0.9)
    units = gp.Pruner(chosen, criterion=gp.Magnitude(), granularity=gp.Unit())
    text = str(units.prune(0.5))
    assert "weights are already removed, more than the" in text
    return text


def loaded(name: str, data: bytes, folder: Path) -> Any:
    (folder / name).write_bytes(data)
    return gp.load(folder / name)


def zipped(name: str, folder: Path) -> Any:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("archive/data.pkl", "x")
    return gp.load(folder / name)


LOADER = "DataLoader: write model.fit(x, y, batch_size=32), or go over its batches"
MAPPING = "write model.parameters.values(); optimizers take the model, gp.Adam(model)"
Line = tuple[str, Callable[[], Any], str | None]
LINES: list[Line] = [
    # building
    ("Sequential", lambda: api.Sequential([api.Dense(3)]), "write gp.Model([gp.Dense(30,"),
    ("Linear(64, 10)", lambda: api.Linear(64, 10), "write gp.Dense(10)"),
    ("nn.Linear", lambda: api.nn.Linear(64, 10), "layers are here: gp.Dense"),
    ("Dense(64, 10)", lambda: api.Dense(64, 10), "write Dense(10)"),
    ("Dense input_shape", lambda: api.Dense(3, input_shape=(64,)), "it finds out what comes in"),
    ("Dense activation", lambda: api.layers.Dense(3, activation="softmax"), None),
    ("no shape", lambda: api.Model([api.Dense(3)]), "Model needs input_shape"),
    ("add", lambda: model().add(api.Dense(3)), "write gp.Model([...], input_shape=...)"),
    ("compile", lambda: model().compile(), "pass optimizer= and loss= to model.fit"),
    (
        "channels last shape",
        lambda: api.Model([api.Conv2D(4, 3)], input_shape=(28, 28, 1)),
        "write input_shape=(1, 28, 28) and x.transpose(0, 3, 1, 2)",
    ),
    ("StandardScaler", lambda: api.StandardScaler, "write gp.Standardize()"),
    ("summary", lambda: str(model().summary()), None),
    # optimizers
    ("Adam(model)", lambda: api.Adam(model(), lr=1e-3), None),
    ("Adam(parameters)", lambda: api.Adam(model().parameters), "Adam(model, lr=...)"),
    ("Adam(parameters())", lambda: api.Adam(model().parameters()), MAPPING),
    ("learning_rate", lambda: api.Adam(model(), learning_rate=0.1), "here it is 'lr'"),
    ("zero_grad", lambda: api.Adam(model()).zero_grad(), "there is nothing to zero"),
    ("optimizer.lr", lambda: setattr(api.Adam(model()), "lr", 0.1), None),
    ("param_groups", lambda: api.Adam(model()).param_groups, "write optimizer.lr"),
    # fit
    ("fit", lambda: fit(X, Y), None),
    ("fit without optimizer", lambda: model().fit(X, Y), "pass optimizer=Adam(model)"),
    ("fit optimizer name", lambda: fit(X, Y, optimizer="adam"), "write optimizer=gp.Adam(model)"),
    (
        "fit optimizer class",
        lambda: fit(X, Y, optimizer=api.Adam),
        "write optimizer=gp.Adam(model)",
    ),
    ("fit loader", lambda: fit(DataLoader()), LOADER),
    ("fit data set", lambda: fit(Dataset()), "Dataset: write model.fit(x, y, batch_size=32)"),
    ("fit pair", lambda: fit((X, Y)), "write model.fit(*data, ...)"),
    ("fit lists", lambda: fit(X.tolist(), Y.tolist()), None),
    ("fit bytes", lambda: fit((16 * X).astype(np.uint8), Y), None),
    ("fit float64", lambda: fit(X.astype(np.float64), Y.astype(np.int32)), None),
    ("fit validation_split", lambda: fit(X, Y, validation_split=0.25)["val_accuracy"], None),
    ("fit validation x", lambda: fit(X, Y, validation_data=X), "must be a pair (x, y)"),
    ("Keras callback", lambda: fit(X, Y, callbacks=[KerasCallback()]), "gp.callbacks.Callback"),
    ("Keras hooks", lambda: fit(X, Y, callbacks=[Derived()]), "write context.epoch and context.l"),
    (
        "callback class",
        lambda: fit(X, Y, callbacks=[api.callbacks.EarlyStopping]),
        "write EarlyStopping(...)",
    ),
    (
        "one callback",
        lambda: fit(X, Y, callbacks=api.callbacks.EarlyStopping("loss")),
        "write callbacks=[callback]",
    ),
    ("history", lambda: fit(X, Y).history["loss"], None),
    # targets
    (
        "float labels",
        lambda: fit(X, Y.astype(float)),
        "numbers become labels by y.astype(int)",
    ),
    ("text labels", lambda: fit(X, np.array(["a", "b"])[Y % 2]), "np.unique(y, return_inverse=T"),
    ("one-hot", lambda: fit(X, np.eye(10)[Y]), "become labels by y.argmax(axis=1)"),
    ("one-hot integers", lambda: fit(X, np.eye(10, dtype=int)[Y]), "by y.argmax(axis=1)"),
    ("a column of labels", lambda: fit(X, Y[:, None]), "one column becomes labels by y.ravel()"),
    ("a column of numbers", lambda: fit(X, Y[:, None] / 9, of=model(1), loss="mse"), None),
    ("regression", lambda: fit(X, Y / 9, of=model(1)), 'for numbers pass loss="mse"'),
    (
        "Keras loss",
        lambda: fit(X, Y, loss="sparse_categorical_crossentropy"),
        'write loss="cross_entropy"',
    ),
    ("scikit-learn loss", lambda: fit(X, Y / 9, loss="squared_error"), 'write loss="mse"'),
    # samples
    ("predict one", lambda: model().predict(X[0]), "one sample is x[None]"),
    ("frozen predicts one", lambda: model().freeze().predict(X[0]), "one sample is x[None]"),
    (
        "channels last",
        lambda: images().predict(np.zeros((2, 8, 8, 1))),
        "write x.transpose(0, 3, 1, 2)",
    ),
    ("no channels", lambda: images().predict(np.zeros((2, 8, 8))), "x.reshape(-1, 1, 8, 8)"),
    ("images", lambda: model().predict(np.zeros((2, 8, 8))), "write x.reshape(len(x), -1), or"),
    # torch's and scikit-learn's methods
    ("train()", lambda: model().train(), "there are no modes"),
    ("eval()", lambda: model().eval(), "there are no modes"),
    ("model(x)", lambda: model()(X), "write model.predict(x)"),
    ("to", lambda: model().to("cuda"), "models compute on the CPU"),
    ("state_dict", lambda: model().state_dict(), "write model.get_state()"),
    ("load_state_dict", lambda: model().load_state_dict({}), "write model.set_state(state)"),
    ("weights", lambda: model().weights, "model.parameters and model.buffers map names"),
    ("get_weights", lambda: model().get_weights(), "write model.get_state()"),
    ("layer.weight", lambda: model().layers[0].weight, "arrays are in model.parameters"),
    ("predict_proba", lambda: model().predict_proba(X), "write model.predict(x)"),
    ("score", lambda: model().score(X, Y), 'write model.evaluate(x, y)["accuracy"]'),
    ("clip_grad_norm_", clipped, None),
    ("clip_grad_value_", bounded, None),
    ("clip_grad_norm_(model)", lambda: api.clip_grad_norm_(model(), 1.0), "model.gradients"),
    ("parameters()", lambda: api.clip_grad_norm_(model().parameters(), 1.0), MAPPING),
    (
        "prune(90)",
        lambda: api.Pruner(model(), criterion=api.Magnitude()).prune(90),
        "% pass 0.9",
    ),
    ("units after weights", twice_pruned, None),
]


@pytest.mark.parametrize(("name", "line", "said"), LINES, ids=[name for name, *_ in LINES])
def test_a_first_line(name: str, line: Callable[[], Any], said: str | None) -> None:
    if said is None:
        line()
        return
    with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
        line()
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_there_are_sixty_of_them() -> None:
    assert len(LINES) >= 60


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("m.h5", b"\x89HDF\r\n\x1a\n", "a file of Keras: write it as ONNX"),
        ("m", b"\x89HDF\r\n\x1a\n", "a file of Keras: write it as ONNX"),
        ("m.pkl", b"\x80\x04\x95", "a pickle: unpickle it"),
        ("m", b"\x80\x04\x95", "a pickle: unpickle it"),
        ("m.npy", b"\x93NUMPY", "a file of NumPy's arrays: np.load"),
        ("m.onnx", b"\x08\x0a\x12", "a file of ONNX: gp.from_onnx"),
        ("m", b"\x08\x0a\x12", "a file of ONNX: gp.from_onnx"),
    ],
)
def test_files_of_others_are_known(name: str, start: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(gp.errors.FileFormatError) as caught:
        loaded(name, start + bytes(50), tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.pt", "a file of torch: gp.from_torch"),
        ("m.keras", "a file of Keras: write it as ONNX"),
        ("m.npz", "a file of NumPy's arrays: np.load"),
        ("m", "a zip archive, as torch, Keras and NumPy"),
    ],
)
def test_archives_of_others_are_known(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(gp.errors.FileFormatError, match=said):
        zipped(name, tmp_path)


def test_frames_and_tensors(pandas: Any, torch: Any) -> None:
    fit(pandas.DataFrame(X), pandas.Series(Y))
    fit(torch.tensor(X), torch.tensor(Y))
    with pytest.raises(ValueError, match='CrossEntropyLoss: write loss="cross_entropy"'):
        fit(X, Y, loss=torch.nn.CrossEntropyLoss())
    with pytest.raises(TypeError, match=r"DataLoader: write model\.fit"):
        fit(torch.utils.data.DataLoader(list(zip(X, Y, strict=True))))
