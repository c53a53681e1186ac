"""A torch module as a graph of aten operations: ``torch.export`` on a copy in eval mode.

The copy is the user's module no longer: its prune masks are taken off and kept, and whatever hooks
and modes the original has are left alone. A large prime number of samples is traced, so that an
axis of that size is that of the samples; nothing of that size is ever computed.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import UnsupportedOperationError
from gradprune.layers.graph import sample_shape

__all__ = ["TracedModule", "check_values", "said", "torch_package", "trace"]

_PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069, 1087, 1091)


def torch_package(what: str) -> Any:
    """Return torch, or raise an ImportError that says how to install it.

    Args:
        what: needs it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(f'{what} needs torch: pip install "gradprune[torch]"') from error
    return torch


class TracedModule(NamedTuple):
    """A module that was traced.

    Attributes:
        module: the copy, without prune masks, in eval mode.
        graph: of aten operations, a torch.fx.Graph.
        arrays: name of a placeholder to the name and the values of a parameter, buffer or constant.
        masks: name of a parameter to its prune mask.
        samples: the size of the axis of the samples.
    """

    module: Any
    graph: Any
    arrays: dict[str, tuple[str, NDArray[Any]]]
    masks: dict[str, NDArray[np.bool_]]
    samples: int


def trace(module: Any, input_shape: SupportsIndex | Sequence[int]) -> TracedModule:
    """Trace a module; it is left as it is.

    Raises:
        TypeError: it is no nn.Module, or holds numbers that are not float32.
        ValueError: it fails on samples of this shape.
        UnsupportedOperationError: torch.export cannot trace it.
    """
    torch = torch_package("gp.from_torch")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    shape = sample_shape(input_shape)
    _check_tensors(torch, module)
    own = _without_sparse_layers(_copied(torch, module))
    masks = dict(_without_masks(own))
    own.eval().requires_grad_(True)
    tensors = [tensor for _, tensor in (*own.named_parameters(), *own.named_buffers())]
    sizes = {size for tensor in tensors for size in tensor.shape} | {*shape}
    samples = next(p for p in _PRIMES if not any(size % p == 0 for size in sizes if size))
    whole = any(isinstance(part, torch.nn.Embedding) for part in own.modules())
    dtype = torch.int64 if whole else torch.float32
    try:
        x = torch.empty((samples, *shape), dtype=dtype)
    except RuntimeError as error:
        raise ValueError(f"samples of shape {shape} do not fit into memory: {error}") from error
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(own, (x,), strict=False)
    except Exception as error:
        _check_runs(own, torch.zeros((2, *shape), dtype=dtype), shape)
        raise UnsupportedOperationError.of(
            [("", "forward", f"torch.export cannot trace it: {said(error)}")]
        ) from error
    return TracedModule(own, program.graph, _arrays(program), masks, samples)


def _check_runs(module: Any, x: Any, shape: tuple[int, ...]) -> None:
    """Raise a ValueError if the module itself fails, as with samples of another shape."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(x)
    except Exception as error:
        raise ValueError(
            f"the module fails on samples of input_shape {shape}, without a batch axis: "
            f"{said(error)}"
        ) from error


def said(error: Exception) -> str:
    """The kind of an error and the first line of its text."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"


def _check_tensors(torch: Any, module: Any) -> None:
    """Raise a TypeError or ValueError that names tensors which cannot be taken."""
    check_values(torch, module)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    other = [
        f"{name} is {str(t.dtype).removeprefix('torch.')}"
        for name, t in tensors
        if (t.is_floating_point() or t.is_complex()) and t.dtype != torch.float32
    ]
    if other:
        raise TypeError(
            f"parameters and buffers must be float32; write module.float(): {', '.join(other)}"
        )


def check_values(torch: Any, module: Any) -> None:
    """Raise a ValueError that names parameters and buffers which have no values."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    lazy = [n for n, t in tensors if isinstance(t, torch.nn.parameter.UninitializedTensorMixin)]
    if lazy:
        raise ValueError(f"{', '.join(lazy)} have no values yet: run the module once")
    meta = [name for name, tensor in tensors if tensor.is_meta]
    if meta:
        raise ValueError(f"{', '.join(meta)} hold no numbers: they are on the device meta")


def _copied(torch: Any, module: Any) -> Any:
    """Return a copy on the CPU; what was computed of parameters is copied as values."""
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in (*vars(part).values(), *vars(part).get("_flat_weights", ()))
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    return copy.deepcopy(module, computed).cpu()


def _without_sparse_layers(module: Any) -> Any:
    """Make layers with masks of those of gradprune.torch, if anybody has made some."""
    if "gradprune.torch" in sys.modules:
        from gradprune.torch.conversion import densify

        module = densify(module, masks=True)
    return module


def _without_masks(module: Any) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Make plain parameters of pruned ones; yield their names and masks."""
    from torch.nn.utils import prune

    for path, part in module.named_modules():
        masked = [n.removesuffix("_mask") for n in part._buffers if n.endswith("_mask")]
        for name in masked:
            if f"{name}_orig" not in part._parameters:
                continue
            mask = part._buffers[f"{name}_mask"].detach().numpy().copy() != 0
            prune.remove(part, name)
            yield f"{path}.{name}" if path else name, mask


def _arrays(program: Any) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return what the placeholders of a program hold, but for the input."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {**program.constants, **program.state_dict}
    return {node: (name, tensors[name].detach().numpy()) for node, name in names.items()}
