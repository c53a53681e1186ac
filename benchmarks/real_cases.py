"""Networks of other libraries, in and out: trained there, imported, pruned, fine-tuned, exported.

Five are torch's and learn from MNIST; the DS-CNN gets the same images, resized to the 49 × 10
numbers of keyword spotting, because no recorded speech is at hand. The sixth is scikit-learn's
MLPClassifier on its data set of breast cancer, imported from ONNX. Each is trained briefly, loses
90 % of its weights on a cubic schedule while it is fine-tuned, and is shrunk. What is measured is
the frozen model against onnxruntime with the ONNX file of the very same network.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

if TYPE_CHECKING:
    import gradprune as gp

Data = tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]  # for training, for testing

SPARSITY = 0.9
BATCH_SIZE = 64


@dataclass(frozen=True)
class Plan:
    """How long everybody is trained."""

    samples: int = 6000
    epochs: int = 2  # before pruning; five times as many with it


@dataclass(frozen=True)
class RealCase:
    """A network and what it learns from."""

    name: str
    shape: tuple[int, ...]  # of a sample
    module: str = ""  # of torch_networks; "": scikit-learn's

    def missing(self) -> str | None:
        """Return the first module that it needs and that is not installed."""
        needs = ("torch", "onnx") if self.module else ("skl2onnx", "sklearn", "onnx")
        return next((name for name in needs if importlib.util.find_spec(name) is None), None)

    def data(self, plan: Plan, files: list[str] | None = None) -> Data:
        """Return samples and labels to train and to test on."""
        if not self.module:
            return _cancer()
        import gradprune as gp

        if files is None:
            (x, y), (x_test, y_test) = gp.datasets.mnist()
        else:
            (x, y), (x_test, y_test) = gp.datasets.from_folder(Path(files[0]).parent)
        return (
            (_shaped(x[: plan.samples], self.shape), y[: plan.samples]),
            (_shaped(x_test[:2000], self.shape), y_test[:2000]),
        )


CASES = (
    RealCase("VGG", (1, 28, 28), "VGG"),
    RealCase("ResNet", (1, 28, 28), "ResNet"),
    RealCase("MobileNet", (1, 28, 28), "MobileNet"),
    RealCase("LSTM", (28, 28), "RowLSTM"),
    RealCase("DS-CNN", (1, 49, 10), "DSCNN"),
    RealCase("MLP", (30,)),
)


def _shaped(x: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Square images in another shape; of another size by the nearest pixels."""
    size = math.isqrt(x[0].size)
    images = x.reshape(-1, size, size)
    height, width = shape[-2:]
    rows, columns = np.arange(height) * size // height, np.arange(width) * size // width
    return np.ascontiguousarray(images[:, rows][:, :, columns]).reshape(-1, *shape)


def _cancer() -> Data:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order].astype(np.int64)
    return (x[:400], y[:400]), (x[400:], y[400:])


def trained_module(case: RealCase, data: Data, plan: Plan) -> Any:
    """Return the torch module after some epochs of Adam."""
    import torch
    import torch_networks
    from torch.nn import functional

    torch.manual_seed(0)
    module = getattr(torch_networks, case.module)()
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    x, y = map(torch.from_numpy, data[0])
    for _ in range(plan.epochs):
        for index in torch.randperm(len(x)).split(BATCH_SIZE):
            optimizer.zero_grad()
            functional.cross_entropy(module(x[index]), y[index]).backward()
            optimizer.step()
    return module.eval()


def trained_onnx(data: Data, plan: Plan) -> bytes:
    """Return scikit-learn's network, trained and converted."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    (x, y), _ = data
    mlp = MLPClassifier((64, 32), max_iter=20 * plan.epochs, random_state=0)
    with warnings.catch_warnings(action="ignore"):  # it goes on being trained here
        mlp.fit(x, y)
    converted: bytes = to_onnx(mlp, x[:1]).SerializeToString()
    return converted


def imported(case: RealCase, data: Data, plan: Plan) -> tuple[Any, gp.Model]:
    """Return what was trained elsewhere, and the model that is made of it."""
    import gradprune as gp

    if case.module:
        module = trained_module(case, data, plan)
        return module, gp.from_torch(module, case.shape)
    converted = trained_onnx(data, plan)
    return converted, gp.from_onnx(converted)


def pruned(model: gp.Model, data: Data, plan: Plan) -> gp.Model:
    """Remove 90 % of the weights while it is fine-tuned; return the shrunk model."""
    import gradprune as gp

    (x, y), _ = data
    epochs = 5 * plan.epochs
    steps = epochs * -(-len(x) // BATCH_SIZE)
    rate = gp.learning_rates.CosineLR(3e-3, steps=steps)
    optimizer = gp.Adam(model, lr=rate, clip=gp.ClipNorm(1.0))
    schedule = gp.Cubic(SPARSITY, start=0, stop=steps // 2, every=max(steps // 40, 1))
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    model.fit(
        x, y, optimizer=optimizer, epochs=epochs, batch_size=BATCH_SIZE, pruner=pruner, verbose=0
    )
    return model.shrink()


# ---- measured against onnxruntime ----------------------------------------------------------------


def frozen_predict(*, threads: int, folder: str, shape: tuple[int, ...], batch: int) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    frozen = gp.load(Path(folder) / "m.frozen")
    x = _samples(shape, batch)
    return lambda: frozen.predict(x), lambda: frozen.predict(x).astype(np.float64)


def onnx_predict(*, threads: int, folder: str, shape: tuple[int, ...], batch: int) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        Path(folder) / "m.onnx", options, providers=["CPUExecutionProvider"]
    )
    x = _samples(shape, batch)

    def run() -> NDArray[np.float32]:
        y: NDArray[np.float32] = session.run(None, {"x": x})[0]
        return y

    return run, lambda: run().astype(np.float64)


def _samples(shape: tuple[int, ...], batch: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random((batch, *shape), dtype=np.float32)


def contestants() -> list[Contestant]:
    """Return the frozen model and onnxruntime, at one thread and at all."""
    return [
        Contestant(name, setup, threads, needs=(name,))
        for name, setup in (("gradprune", frozen_predict), ("onnxruntime", onnx_predict))
        for threads in thread_counts()
    ]


@contextmanager
def files_of(small: gp.Model) -> Iterator[str]:
    """Yield a folder that holds the model as m.frozen and m.onnx."""
    with tempfile.TemporaryDirectory() as folder:
        small.freeze().save(Path(folder) / "m.frozen")
        small.to_onnx(Path(folder) / "m.onnx")
        yield folder
