"""Predicting a batch with a sparse network: everybody's outputs must agree.

Gradprune predicts with the frozen model. Torch, eager and compiled, and onnxruntime get the dense
weights with zeros in them; onnxruntime with and without arrays bound beforehand. scipy multiplies
CSR matrices with activations that are laid out for it, features by samples.

On 8-bit integers: the frozen model with precision int8, its own float32, and onnxruntime in float32
and after its dynamic quantization.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
from networks import draw_batch, draw_network, gradprune_model, torch_network
from side_by_side import Contestant, Work, thread_counts


def gradprune_predict(
    *,
    threads: int,
    sizes: tuple[int, ...],
    batch: int,
    sparsity: float,
    precision: str = "float32",
) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    x, _ = draw_batch(sizes, batch)
    frozen = gradprune_model(sizes, sparsity).freeze(precision=precision)
    return lambda: frozen.predict(x), lambda: frozen.predict(x).astype(np.float64)


def torch_predict(
    *, threads: int, setting: str, sizes: tuple[int, ...], batch: int, sparsity: float
) -> Work:
    """Eager, compiled, or compiled with the weights as constants, which the compiler may pack."""
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(draw_batch(sizes, batch)[0])
    net = torch_network(sizes, sparsity)[0].eval()
    if setting != "eager":
        import torch._inductor.config

        torch._dynamo.reset()  # a new case, not another shape of the last one
        torch._inductor.config.freezing = setting == "compiled frozen"
        net = torch.compile(net, fullgraph=True, dynamic=False)

    @torch.inference_mode()
    def run_eager() -> torch.Tensor:
        return net(x)

    @torch.no_grad()  # freezing does not know inference mode
    def run_compiled() -> torch.Tensor:
        return net(x)

    run = run_eager if setting == "eager" else run_compiled
    return run, lambda: run().numpy().astype(np.float64)


def onnx_model(sizes: tuple[int, ...], sparsity: float) -> bytes:
    """Gemm and Relu, written by hand."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    layers = draw_network(sizes, sparsity)
    for i, layer in enumerate(layers):
        constants += [
            numpy_helper.from_array(layer.weight, f"weight{i}"),
            numpy_helper.from_array(layer.bias, f"bias{i}"),
        ]
        names = [f"x{i}", f"weight{i}", f"bias{i}"]
        nodes.append(helper.make_node("Gemm", names, [f"z{i}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"z{i}"], [f"x{i + 1}"]))
    nodes.pop()
    ends = [("x0", sizes[0]), (f"z{len(layers) - 1}", sizes[-1])]
    (inputs, outputs) = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in ends
    )
    graph = helper.make_graph(nodes, "net", [inputs], [outputs], constants)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def quantized(model: bytes) -> bytes:
    """The same with int8 weights and inputs that become bytes in every call."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends preprocessing that changes nothing
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_dynamic(onnx.load_from_string(model), path, weight_type=QuantType.QInt8)
        return path.read_bytes()


def onnxruntime_predict(
    *,
    threads: int,
    setting: str,
    sizes: tuple[int, ...],
    batch: int,
    sparsity: float,
    int8: bool = False,
) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = onnx_model(sizes, sparsity)
    session = onnxruntime.InferenceSession(
        quantized(model) if int8 else model, options, providers=["CPUExecutionProvider"]
    )
    x, _ = draw_batch(sizes, batch)
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    if setting == "bound":
        out = np.empty((batch, sizes[-1]), np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input(source, x)
        binding.bind_output(
            target, "cpu", 0, np.float32, list(out.shape), out.__array_interface__["data"][0]
        )
        # The function holds x, out and session, which the binding does not.
        held = (x, out, session)
        return (
            lambda: held[2].run_with_iobinding(binding),
            lambda: out.astype(np.float64),
        )

    def run() -> np.ndarray:
        return session.run([target], {source: x})[0]

    return run, lambda: run().astype(np.float64)


def scipy_predict(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    import scipy.sparse

    del threads  # it has one
    layers = draw_network(sizes, sparsity)
    weights = [scipy.sparse.csr_array(layer.weight) for layer in layers]
    biases = [layer.bias[:, None] for layer in layers]
    columns = np.ascontiguousarray(draw_batch(sizes, batch)[0].T)

    def run() -> np.ndarray:
        a = columns
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            a = weight @ a
            a += bias
            if i < len(weights) - 1:
                np.maximum(a, 0, out=a)
        return a

    return run, lambda: run().T.astype(np.float64)


def contestants() -> list[Contestant]:
    counts = thread_counts()
    them = [Contestant("gradprune", gradprune_predict, n, needs=("gradprune",)) for n in counts]
    them += [
        Contestant("torch", torch_predict, n, setting, ("torch",), (("setting", setting),))
        for setting in ("eager", "compiled", "compiled frozen")
        for n in counts
    ]
    needs = ("onnx", "onnxruntime")
    them += [
        Contestant("onnxruntime", onnxruntime_predict, n, setting, needs, (("setting", setting),))
        for setting in ("plain", "bound")
        for n in counts
    ]
    return [*them, Contestant("scipy", scipy_predict, 1, "CSR", ("scipy.sparse",))]


def int8_contestants() -> list[Contestant]:
    them = [
        Contestant(name, gradprune_predict, n, "", ("gradprune",), (("precision", precision),))
        for name, precision in (("gradprune", "int8"), ("own float32", "float32"))
        for n in thread_counts()
    ]
    needs = ("onnx", "onnxruntime")
    for name, int8 in (("onnxruntime", False), ("onnxruntime int8", True)):
        for setting in ("plain", "bound"):
            options = (("setting", setting), ("int8", int8))
            them += [
                Contestant(name, onnxruntime_predict, n, setting, needs, options)
                for n in thread_counts()
            ]
    return them
