"""Whatever predicts: our own models, torch modules, and files, behind one method ``predict``.

``gp.verify`` and ``gp.report`` take all of these. A form that can say what each of its layers makes
of samples is ``Layerwise``; layers are named as in a ``Model``, see ``names``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.errors import FileFormatError
from gradprune.foundation.checks import real_array
from gradprune.foundation.disk import read
from gradprune.interop.c_predictor import CPredictor
from gradprune.interop.onnx_graph import import_onnx, import_onnxruntime, import_qonnx
from gradprune.interop.torch_tracing import check_values, said
from gradprune.state.threads import get_num_threads

__all__ = ["READERS", "Layerwise", "OnnxPredictor", "Predictor", "TorchPredictor", "predictor_of"]

Floats = NDArray[np.float32]
# What graphs take besides float32, as onnxruntime calls it.
_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(double)": np.float64}


class Predictor(Protocol):
    """An object with a method ``predict``."""

    def predict(self, x: ArrayLike, /) -> ArrayLike:
        """Return the outputs for samples, which lie along the first axis."""


@runtime_checkable
class Layerwise(Protocol):
    """A form that can be looked into."""

    def layer_outputs(self, x: ArrayLike, /) -> dict[str, NDArray[Any]]:
        """Return the output of each layer for samples, by the layer's name, in forward order."""


class TorchPredictor:
    """A torch module in eval mode, without gradients; afterwards its mode is what it was.

    Args:
        module: the module, of which float32 samples are asked as in its ``forward``.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.name = type(module).__name__

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters and buffers."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return what ``forward`` does, in the type and on the device of the module's parameters.

        Raises:
            TypeError: it returns something else than a tensor of numbers.
            ValueError: it has no values, or fails on such samples.
        """
        import torch

        check_values(torch, self.module)
        modes = {part: part.training for part in self.module.modules()}
        takes_numbers = any(isinstance(part, torch.nn.Embedding) for part in modes)
        samples = real_array("x", x, np.int64 if takes_numbers else np.float32)
        tensors = [*self.module.parameters(), *self.module.buffers()]
        like = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
        given = torch.tensor(samples, device=like.device)
        given = given if takes_numbers else given.to(like.dtype)
        self.module.eval()
        try:
            with torch.no_grad():
                y = self.module(given)
        except Exception as error:
            raise ValueError(
                f"the module {self.name} fails on samples of shape {samples.shape}: {said(error)}"
            ) from error
        finally:
            for part, mode in modes.items():
                part.training = mode
        if not isinstance(y, torch.Tensor):
            raise TypeError(
                f"the module {self.name} returns a {type(y).__name__}, and one tensor is compared: "
                "wrap it in a module that returns that one"
            )
        found: NDArray[Any] = _plain_numbers(y).numpy()
        return found

    def layer_outputs(self, x: ArrayLike) -> dict[str, NDArray[Any]]:
        """See Layerwise. Modules inside of modules are called by their paths, with "/"."""
        import torch

        found: dict[str, NDArray[Any]] = {}
        if isinstance(self.module, torch.jit.ScriptModule):  # which takes no hooks
            return found

        def keep(path: str) -> Callable[[Any, Any, Any], None]:
            def hook(module: Any, given: Any, output: Any) -> None:
                if hasattr(output, "detach"):
                    found[path.replace(".", "/")] = _plain_numbers(output).numpy()

            return hook

        hooks = [part.register_forward_hook(keep(path)) for path, part in _leaves(self.module)]
        try:
            self.predict(x)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _plain_numbers(tensor: Any) -> Any:
    """Return a tensor on the CPU, of a type that NumPy has."""
    tensor = tensor.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _leaves(module: Any) -> list[tuple[str, Any]]:
    return [(path, part) for path, part in module.named_modules() if not list(part.children())]


class OnnxPredictor:
    """A file of ONNX, run by onnxruntime, or by qonnx if it is for that.

    It runs on as many threads as ``set_num_threads`` allows when the file is opened.

    Args:
        path: the file, of one input, whose first output is the prediction.

    Raises:
        ImportError: onnxruntime or, for a file of QONNX, qonnx is not installed.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = Path(path).name
        self._data = read(path)
        self.file_bytes = len(self._data)
        model = self._model()
        properties = {p.key: p.value for p in model.metadata_props}
        self.tolerance = float(properties.get("gradprune.tolerance", "1e-5"))
        sizes = tuple(a.dim_value for a in model.graph.input[0].type.tensor_type.shape.dim)[1:]
        # of a sample; None if the file leaves it open
        self.input_shape = sizes if sizes and min(sizes) > 0 else None
        self._is_qonnx = any(node.domain.startswith("qonnx") for node in model.graph.node)
        self._run = self._by_qonnx() if self._is_qonnx else self._by_onnxruntime(self._data)

    def _model(self) -> Any:
        onnx = import_onnx()
        try:
            model = onnx.load_model_from_string(self._data)
        except Exception as error:  # of protobuf, whose class depends on its version
            raise FileFormatError(f"{self.name} is no ONNX file, or is damaged: {error}") from None
        if not model.graph.input or not model.graph.output:
            raise FileFormatError(f"{self.name} is no ONNX file: it has no input or no output")
        return model

    def _by_onnxruntime(self, data: bytes) -> Callable[[Floats], list[NDArray[Any]]]:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = get_num_threads()
        # Its threads would keep CPUs busy while others are measured.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        try:
            session = runtime.InferenceSession(data, options, providers=providers)
        except Exception as error:
            raise FileFormatError(f"onnxruntime does not run {self.name}: {said(error)}") from error
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(given.name for given in inputs)
            raise FileFormatError(f"{self.name} must have one input, got {names or 'none'}")
        given = inputs[0]
        dtype = _DTYPES.get(given.type, np.float32)

        def run(x: Floats) -> list[NDArray[Any]]:
            try:
                outputs: list[NDArray[Any]] = session.run(None, {given.name: x.astype(dtype)})
            except Exception as error:
                sizes = ", ".join(str(size) for size in given.shape)
                raise ValueError(
                    f"{self.name} takes samples of shape ({sizes}) and fails on {x.shape}: "
                    f"{said(error)}"
                ) from error
            return outputs

        return run

    def _by_qonnx(self) -> Callable[[Floats], list[NDArray[Any]]]:
        wrapper, infer_shapes, execute = import_qonnx()
        given = self._model().graph.input[0].name

        def run(x: Floats) -> list[NDArray[Any]]:
            with warnings.catch_warnings(action="ignore"):  # of types that it takes for float32
                model = wrapper(self._model())
                model.set_tensor_shape(given, list(x.shape))  # it knows no batch of any size
                model = model.transform(infer_shapes())
                return list(execute(model, {given: x}).values())

        return run

    def predict(self, x: ArrayLike) -> Floats:
        """Return the first output of the graph."""
        y: Floats = self._run(real_array("x", x))[0]
        return y

    def layer_outputs(self, x: ArrayLike) -> dict[str, NDArray[Any]]:
        """See Layerwise. Of a graph that ``Model.to_onnx`` wrote, else nothing has such a name.

        A file of QONNX keeps its layers to itself.
        """
        if self._is_qonnx:
            return {}
        model = self._model()
        last = {node.name.rpartition(".")[0]: node.output[0] for node in model.graph.node}
        known = {output.name for output in model.graph.output}
        wanted = {layer.replace(".", "/"): name for layer, name in last.items() if layer}
        for name in set(wanted.values()) - known:
            model.graph.output.add(name=name)
        names = [output.name for output in model.graph.output]
        run = self._by_onnxruntime(model.SerializeToString())
        outputs = dict(zip(names, run(np.asarray(x, np.float32)), strict=True))
        return {layer: outputs[name] for layer, name in wanted.items()}


# How files are read, by how their names end; "": those of gradprune, which ``loading`` reads.
READERS: dict[str, Callable[[str | os.PathLike[str]], Predictor]] = {
    ".onnx": OnnxPredictor,
    ".c": CPredictor,
}


def predictor_of(form: Any) -> Predictor:
    """Return what predicts as a form does.

    Args:
        form: anything with ``predict``; a torch module; or the path of a file of ONNX, of C or of
            gradprune.

    Raises:
        TypeError: it is nothing of that kind.
        ImportError: what reads the file is not installed; of a file of C, a compiler.
        OSError, FileFormatError: the file cannot be read.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    >>> predictor_of(model) is model
    True
    >>> model.save("m.safetensors")
    >>> type(predictor_of("m.safetensors")).__name__
    'Model'
    """
    if isinstance(form, str | os.PathLike):
        return READERS.get(Path(form).suffix.lower(), READERS[""])(form)
    if any(kind.__module__ == "torch.nn.modules.module" for kind in type(form).__mro__):
        return TorchPredictor(form)
    if callable(getattr(form, "predict", None)) and not isinstance(form, type):
        predictor: Predictor = form
        return predictor
    raise TypeError(
        "a model must have a predict method, or be a torch module or the path of a file; got "
        f"{f'the class {form.__name__}' if isinstance(form, type) else type(form).__name__}"
    )
