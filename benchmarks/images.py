"""LeNet-5, as Caffe has it: a training step, and predictions of the frozen network.

All have the same weights and images of numbers in [0, 1); after a step the second filters must
agree, of predictions the outputs. A step is cross entropy, clip by norm 1 and Adam. Torch gets
images in both of its layouts (channels last is often faster), eager and compiled; of a sparse
network, of which the same share of every weight is removed at random, it multiplies the gradients
by the masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts

if TYPE_CHECKING:
    import torch

    import gradprune as gp

SHAPES = {
    "conv0": (20, 1, 5, 5),
    "conv1": (50, 20, 5, 5),
    "dense0": (500, 800),
    "dense1": (10, 500),
}
CLASSES = 10
LR = 1e-3


def _draw(sparsity: float) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
    """Weights, 0 where removed, and masks; biases are 0."""
    rng = np.random.default_rng(0)
    weights, masks = {}, {}
    for name, shape in SHAPES.items():
        weight = rng.standard_normal(shape, dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        mask = np.ones(weight.size, np.bool_)
        mask[rng.permutation(mask.size)[: round(sparsity * mask.size)]] = False
        masks[name] = mask.reshape(shape)
        weights[name] = weight * masks[name]
    return weights, masks


def _batch(batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return rng.random((batch, 1, 28, 28), dtype=np.float32), rng.integers(0, CLASSES, batch)


def _gradprune_model(sparsity: float) -> gp.Model:
    import gradprune as gp

    weights, masks = _draw(sparsity)
    layers = [
        gp.Conv2D(20, 5, name="conv0"),
        gp.MaxPool2D(2),
        gp.Conv2D(50, 5, name="conv1"),
        gp.MaxPool2D(2),
        gp.Flatten(),
        gp.Dense(500, activation="relu", name="dense0"),
        gp.Dense(CLASSES, name="dense1"),
    ]
    model = gp.Model(layers, input_shape=(1, 28, 28), seed=0)
    for name, weight in weights.items():
        model.parameters[f"{name}.weight"][...] = weight
    if sparsity:
        model.set_masks({f"{name}.weight": mask for name, mask in masks.items()})
    return model


def _torch_network(sparsity: float) -> tuple[torch.nn.Sequential, list[torch.Tensor]]:
    """The network and the masks of its weights."""
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, CLASSES),
    )
    weights, masks = _draw(sparsity)
    with torch.no_grad():
        for module, weight in zip((net[0], net[2], net[5], net[7]), weights.values(), strict=True):
            module.weight.copy_(torch.from_numpy(weight))
            module.bias.zero_()
    return net, [torch.from_numpy(mask.astype(np.float32)) for mask in masks.values()]


# ---- a training step -----------------------------------------------------------------------------


def gradprune_step(*, threads: int, batch: int, sparsity: float) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    model = _gradprune_model(sparsity)
    optimizer = gp.Adam(model, lr=LR, clip=gp.ClipNorm(1.0))
    x, y = _batch(batch)

    def run() -> None:
        model.train_step(x, y, optimizer=optimizer)

    return run, lambda: model.parameters["conv1.weight"].astype(np.float64)


def torch_step(*, threads: int, layout: str, compiled: bool, batch: int, sparsity: float) -> Work:
    import torch

    torch.set_num_threads(threads)
    net, factors = _torch_network(sparsity)
    x, y = (torch.from_numpy(array) for array in _batch(batch))
    if layout == "channels last":
        net = net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    parameters = list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(x), y)

    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(loss, dynamic=False)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        if sparsity:
            torch._foreach_mul_([weight.grad for weight in parameters[::2]], factors)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    return run, lambda: net[2].weight.detach().contiguous().numpy().astype(np.float64)


# ---- predictions ---------------------------------------------------------------------------------


def gradprune_predict(*, threads: int, batch: int, sparsity: float) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    x, _ = _batch(batch)
    frozen = _gradprune_model(sparsity).freeze()
    return lambda: frozen.predict(x), lambda: frozen.predict(x).astype(np.float64)


def torch_predict(
    *, threads: int, layout: str, compiled: bool, batch: int, sparsity: float
) -> Work:
    import torch

    torch.set_num_threads(threads)
    net = _torch_network(sparsity)[0].eval()
    x = torch.from_numpy(_batch(batch)[0])
    if layout == "channels last":
        net = net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    if compiled:
        torch._dynamo.reset()
        net = torch.compile(net, fullgraph=True, dynamic=False)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return net(x)

    return run, lambda: run().numpy().astype(np.float64)


def _onnx_model(sparsity: float) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weights, _ = _draw(sparsity)
    constants = []
    for name, weight in weights.items():
        constants.append(numpy_helper.from_array(weight, f"{name}.weight"))
        zeros = np.zeros(len(weight), np.float32)
        constants.append(numpy_helper.from_array(zeros, f"{name}.bias"))
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    steps = [
        ("Conv", "conv0", {"kernel_shape": [5, 5]}),
        ("MaxPool", "", pool),
        ("Conv", "conv1", {"kernel_shape": [5, 5]}),
        ("MaxPool", "", pool),
        ("Flatten", "", {}),
        ("Gemm", "dense0", {"transB": 1}),
        ("Relu", "", {}),
        ("Gemm", "dense1", {"transB": 1}),
    ]
    nodes = []
    for i, (kind, name, settings) in enumerate(steps):
        inputs = [f"x{i}", *([f"{name}.weight", f"{name}.bias"] if name else [])]
        nodes.append(helper.make_node(kind, inputs, [f"x{i + 1}"], **settings))
    source, target = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("x0", (1, 28, 28)), (f"x{len(steps)}", (CLASSES,)))
    )
    graph = helper.make_graph(nodes, "lenet5", [source], [target], constants)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def onnxruntime_predict(*, threads: int, batch: int, sparsity: float) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _onnx_model(sparsity), options, providers=["CPUExecutionProvider"]
    )
    x, _ = _batch(batch)
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run() -> np.ndarray:
        return session.run([target], {source: x})[0]

    return run, lambda: run().astype(np.float64)


# ---- who takes part ------------------------------------------------------------------------------


def _torch_contestants(setup: object) -> list[Contestant]:
    return [
        Contestant(
            "torch",
            setup,
            n,
            f"{'compiled' if compiled else 'eager'}{', channels last' * (layout != 'plain')}",
            ("torch",),
            (("layout", layout), ("compiled", compiled)),
        )
        for layout in ("plain", "channels last")
        for compiled in (False, True)
        for n in thread_counts()
    ]


def step_contestants() -> list[Contestant]:
    ours = [
        Contestant("gradprune", gradprune_step, n, needs=("gradprune",)) for n in thread_counts()
    ]
    return ours + _torch_contestants(torch_step)


def predict_contestants() -> list[Contestant]:
    ours = [
        Contestant("gradprune", gradprune_predict, n, needs=("gradprune",)) for n in thread_counts()
    ]
    needs = ("onnx", "onnxruntime")
    peers = [
        Contestant("onnxruntime", onnxruntime_predict, n, needs=needs) for n in thread_counts()
    ]
    return ours + _torch_contestants(torch_predict) + peers
