"""Modules that keep the live weights of a layer alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from gradprune import _core
from gradprune.foundation.checks import whole
from gradprune.layers.base import CoreLayer
from gradprune.layers.window import Window, fitting
from gradprune.torch.carrying import Optimizers, carried, replace_data, replace_parameter, several
from gradprune.torch.product import product

__all__ = ["SparseConv2d", "SparseLayer", "SparseLinear"]

_PLAIN = (torch.Tensor, nn.Parameter)
_MOST_SIZES = 8  # of images for which a convolution keeps what it has prepared


class SparseLayer(nn.Module):
    """What `SparseLinear` and `SparseConv2d` share: live weights, side by side.

    Attributes:
        values: the parameter, float32 (live,): the live weights row by row. Optimizers and
            ``clip_grad_norm_`` see these alone.
        bias: a parameter, or None.
        indices: a buffer, int32 (live,): the place of each of them in the flat dense weight,
            ascending. `set_mask` changes it.

    ``state_dict`` holds ``values``, ``indices`` and ``bias``; ``load_state_dict`` takes that, and
    also the dense layer's ``weight`` (or ``weight_orig`` and ``weight_mask`` of
    ``torch.nn.utils.prune``). So loaded, the layer computes what the saved one did: the mask comes
    with ``indices`` or ``weight_mask``; a dense ``weight`` that is 0 wherever the layer's own mask
    removes leaves that mask as it is, and any other one brings its own, ``weight != 0``.

    >>> import torch
    >>> layer = SparseLinear(4, 2, mask=torch.eye(2, 4))
    >>> isinstance(layer, SparseLayer), layer.values.shape, layer.indices.tolist()
    (True, torch.Size([2]), [0, 5])
    """

    values: nn.Parameter
    indices: torch.Tensor
    bias: nn.Parameter | None
    weight_shape: tuple[int, ...]

    _dense: ClassVar[type[nn.Module]]  # the class of torch that it is the sparse form of

    @classmethod
    def from_dense(
        cls,
        dense: nn.Module,
        *,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        mask: torch.Tensor | ArrayLike | None = None,
    ) -> Self:
        """Return the sparse layer of a dense one, with copies of its numbers.

        Args:
            dense: gives the settings.
            weight: the dense layer's, if None.
            bias: the dense layer's, if None.
            mask: True or 1 where a weight lives; without, weights that are not 0 live.
        """
        if not isinstance(dense, cls._dense):
            raise TypeError(
                f"{cls.__name__}.from_dense takes a torch.nn.{cls._dense.__name__}, got "
                f"{type(dense).__name__}"
            )
        made = cls.__new__(cls)
        weight = dense.weight if weight is None else weight
        made._take(
            dense,
            weight,
            dense.bias if bias is None else bias,
            weight.detach() != 0 if mask is None else mask,
        )
        return made

    def _take(
        self, dense: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None, mask: Any
    ) -> None:
        nn.Module.__init__(self)
        self._take_settings(dense)
        self.weight_shape = tuple(weight.shape)
        # by the shape of what follows the batch: the layer in the core, and that of the outputs
        self._solos: dict[tuple[int, ...], tuple[_core.Solo, tuple[int, ...]]] = {}
        kept = self._flat_mask(mask).to(weight.device)
        places = kept.nonzero().flatten()
        self.register_buffer("indices", places.to(torch.int32))
        self.values = nn.Parameter(
            weight.detach().flatten()[places].clone(), requires_grad=weight.requires_grad
        )
        if bias is None:
            self.register_parameter("bias", None)
        else:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)

    def _take_settings(self, dense: Any) -> None:
        """What the dense layer has besides numbers."""
        raise NotImplementedError

    # ---- masks ----------------------------------------------------------------------------------

    @property
    def mask(self) -> torch.Tensor:
        """Which weights live: bool, of the dense weight's shape. A copy."""
        kept = torch.zeros(prod(self.weight_shape), dtype=torch.bool, device=self.indices.device)
        kept[self.indices.long()] = True
        return kept.reshape(self.weight_shape)

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight, 0 where removed: a copy through which gradients reach ``values``."""
        flat = self.values.new_zeros(prod(self.weight_shape))
        return flat.scatter(0, self.indices.long(), self.values).reshape(self.weight_shape)

    @property
    def sparsity(self) -> float:
        """The share of weights that are removed."""
        live: int = self.indices.numel()
        return 1.0 - live / max(prod(self.weight_shape), 1)

    def set_mask(self, mask: torch.Tensor | ArrayLike, *, optimizer: Optimizers = None) -> None:
        """Let other weights live, in place.

        Weights that live before and after keep their values and gradients; those that come back
        start at 0, gradient included. ``values`` stays the same ``Parameter``, of another length,
        so optimizers need not be made anew. What an optimizer keeps of each weight has the old
        length: pass the optimizer, and its moments go with the weights that stay and are 0 for
        those that come back.

        Args:
            mask: True or 1 where a weight lives; of the dense weight's shape.
            optimizer: one or several that work on ``values``; without, an optimizer that keeps
                moments refuses its next step, since they have another length.

        >>> layer = SparseLinear(4, 2, mask=torch.eye(2, 4))
        >>> layer.set_mask(torch.ones(2, 4))
        >>> layer.values.shape
        torch.Size([8])
        """
        optimizers = several(optimizer, (self.values,))
        flat = self._flat_mask(mask).to(self.indices.device)
        self._set_indices(flat.nonzero().flatten(), optimizers)

    def regrow(self, where: torch.Tensor | ArrayLike, *, optimizer: Optimizers = None) -> None:
        """Let removed weights live again, from 0, in place: `set_mask` with them added.

        Args:
            where: True or 1 where a weight is to live, of the dense weight's shape; others stay as
                they are.
            optimizer: as in `set_mask`.
        """
        self.set_mask(self.mask | self._shaped_mask(where), optimizer=optimizer)

    def _shaped_mask(self, mask: Any) -> torch.Tensor:
        try:
            kept = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"a mask is a tensor or an array of 0 and 1: {error}") from error
        if tuple(kept.shape) != self.weight_shape:
            raise ValueError(
                f"the mask must have the weight's shape {self.weight_shape}, "
                f"got {tuple(kept.shape)}"
            )
        if kept.dtype is torch.bool:
            return kept
        live = kept != 0
        if not bool((live == kept).all()):
            raise ValueError("a mask holds 0 and 1, or False and True, alone")
        return live

    def _flat_mask(self, mask: Any) -> torch.Tensor:
        return self._shaped_mask(mask).flatten()

    def _set_indices(self, places: torch.Tensor, optimizers: tuple[Any, ...]) -> None:
        old, new = self.indices.long(), places.long()
        values, shape = self.values, self.values.shape
        if torch.equal(old, new):
            return
        gradient = values.grad
        replace_data(values, carried(values.data, old, new))
        if gradient is not None:
            values.grad = carried(gradient, old, new)
        self.indices = new.to(torch.int32)
        self._solos = {}
        replace_parameter(optimizers, values, values, shape, lambda kept: carried(kept, old, new))

    # ---- calls ----------------------------------------------------------------------------------

    def _core_layer(self, sample: tuple[int, ...]) -> tuple[CoreLayer, tuple[int, ...]]:
        """The layer of the core for samples of this shape, and the shape of its outputs."""
        raise NotImplementedError

    def _call(self, x: torch.Tensor, leading: int) -> torch.Tensor:
        """The outputs of samples behind so many axes."""
        sample = x.shape[leading:]
        solo, outputs = self._solos.get(sample) or self._prepare(sample)
        values, bias = self._parameters["values"], self._parameters["bias"]
        return product(x, values, bias, solo, (*x.shape[:leading], *outputs))

    def _prepare(self, sample: tuple[int, ...]) -> tuple[_core.Solo, tuple[int, ...]]:
        """At the first call and whenever the mask is another."""
        for name, tensor in (("values", self.values), ("bias", self.bias)):
            if tensor is not None:
                self._require_cpu_floats(name, tensor)
        mask = np.zeros(prod(self.weight_shape), np.uint8)
        mask[self.indices.numpy()] = 1
        layer, outputs = self._core_layer(sample)
        made = _core.Solo([layer], mask), outputs
        solos = list(self._solos.items())[-_MOST_SIZES + 1 :]
        self._solos = {**dict(solos), sample: made}
        return made

    def _inputs(self, x: torch.Tensor) -> torch.Tensor:
        """What the core can read, or an error."""
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{type(self).__name__} takes a torch.Tensor, got {type(x).__name__}")
        if x.dtype is not torch.float32 or not x.is_cpu:
            if not (x.is_cpu and torch.is_autocast_enabled("cpu")):
                self._require_cpu_floats("the input", x)
            x = x.float()
        if type(x) not in _PLAIN:
            raise TypeError(
                f"{type(self).__name__} takes plain tensors, got a {type(x).__name__}; "
                "gradprune.torch.densify makes a module that can be exported and traced"
            )
        return x.contiguous().resolve_neg()

    def _require_cpu_floats(self, name: str, tensor: torch.Tensor) -> None:
        if tensor.dtype is not torch.float32 or not tensor.is_cpu:
            raise TypeError(
                f"{type(self).__name__} runs on torch.float32 on the CPU, {name} is "
                f"{tensor.dtype} on {tensor.device}; gradprune.torch.densify makes the module "
                "dense again"
            )

    # ---- copies and files -----------------------------------------------------------------------

    def _apply(self, *args: Any, **keywords: Any) -> Any:
        self._solos = {}  # it may be of another type or elsewhere now
        return super()._apply(*args, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_solos": {}}

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        try:
            self._sparse_entries(own, prefix)
        except ValueError as error:
            error_msgs.append(f"{prefix.removesuffix('.')}: {error}")
            return
        self._solos = {}
        super()._load_from_state_dict(
            own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _sparse_entries(self, own: dict[str, Any], prefix: str) -> None:
        """Let the entries be those of this layer, and make room for as many weights."""
        weight, mask = own.pop(f"{prefix}weight", None), own.pop(f"{prefix}weight_mask", None)
        if mask is not None:
            weight = own.pop(f"{prefix}weight_orig", weight)
        values, indices = own.get(f"{prefix}values"), own.get(f"{prefix}indices")
        if weight is not None:
            if values is not None or indices is not None:
                raise ValueError("weight and values are both there: which is meant?")
            indices = self._places_of(weight, mask)
            values = weight.detach().flatten()[indices.long()]
        if values is None or indices is None:
            return  # torch says what is missing
        n = indices.numel()
        places = indices.detach().long().flatten()
        if indices.dtype.is_floating_point or indices.ndim != 1 or values.shape != (n,):
            raise ValueError(
                f"values and indices must be vectors of one length, indices whole numbers, got "
                f"{tuple(values.shape)} and {tuple(indices.shape)} of {indices.dtype}"
            )
        if n and not (
            int(places[0]) >= 0
            and bool((places[1:] > places[:-1]).all())
            and int(places[-1]) < prod(self.weight_shape)
        ):
            raise ValueError(
                f"indices must ascend and lie in a weight of shape {self.weight_shape}"
            )
        own[f"{prefix}values"], own[f"{prefix}indices"] = values, places.to(torch.int32)
        if n != self.indices.numel():
            replace_data(self.values, self.values.data.new_zeros(n))
            self.indices = self.indices.new_zeros(n)

    def _places_of(self, weight: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Where the weights of a dense layer live."""
        if tuple(weight.shape) != self.weight_shape:
            raise ValueError(
                f"weight must have shape {self.weight_shape}, got {tuple(weight.shape)}"
            )
        if mask is not None:
            return self._flat_mask(mask).nonzero().flatten().to(torch.int32)
        flat = weight.detach().flatten() != 0
        outside = flat.to(self.indices.device, copy=True)
        outside[self.indices.long()] = False
        if not bool(outside.any()):
            return self.indices.clone()
        return flat.nonzero().flatten().to(torch.int32)

    def _live(self) -> str:
        return f"live={self.indices.numel()} of {prod(self.weight_shape)}"


class SparseLinear(SparseLayer):
    """``torch.nn.Linear`` with the live weights alone: y = x W^T + b.

    Args:
        in_features, out_features, bias: as of ``torch.nn.Linear``.
        mask: True or 1 where a weight lives, of shape (out_features, in_features). Values start
            as those of ``torch.nn.Linear`` with the same seed.

    >>> layer = SparseLinear(8, 3, mask=torch.eye(3, 8))
    >>> layer(torch.zeros(5, 2, 8)).shape
    torch.Size([5, 2, 3])
    """

    _dense = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mask: torch.Tensor | ArrayLike,
    ) -> None:
        whole("in_features", in_features), whole("out_features", out_features)
        dense = nn.Linear(in_features, out_features, bias)
        self._take(dense, dense.weight, dense.bias, mask)

    def _take_settings(self, dense: nn.Linear) -> None:
        self.in_features, self.out_features = dense.in_features, dense.out_features

    def to_dense(self) -> nn.Linear:
        """Return ``torch.nn.Linear`` with zeros for removed weights; nothing is shared."""
        dense = nn.Linear(self.in_features, self.out_features, self.bias is not None, "meta")
        return _filled(self, dense)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (..., out_features), of samples (..., in_features)."""
        x = self._inputs(x)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"SparseLinear({self.in_features}, {self.out_features}) got samples of shape "
                f"{tuple(x.shape)}: the last axis must be {self.in_features}"
            )
        return self._call(x, x.ndim - 1)

    def _core_layer(self, sample: tuple[int, ...]) -> tuple[CoreLayer, tuple[int, ...]]:
        outputs = self.out_features
        return CoreLayer("dense", self.in_features, outputs, weight=0), (outputs,)

    def extra_repr(self) -> str:
        """Return what ``torch.nn.Linear`` says, and how many weights live."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {self._live()}"
        )


class SparseConv2d(SparseLayer):
    """``torch.nn.Conv2d`` with the live weights alone.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of
            ``torch.nn.Conv2d``.
        padding_mode: "zeros"; others are refused.
        mask: True or 1 where a weight lives, of shape (out_channels, in_channels / groups, kernel
            height, kernel width).

    >>> layer = SparseConv2d(2, 4, 3, padding=1, mask=torch.ones(4, 2, 3, 3))
    >>> layer(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 4, 8, 8])
    """

    _dense = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        mask: torch.Tensor | ArrayLike,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        try:
            dense = nn.Conv2d(*sizes, bias, padding_mode)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"SparseConv2d takes what torch.nn.Conv2d takes: {error}") from error
        self._take(dense, dense.weight, dense.bias, mask)

    def _take_settings(self, dense: nn.Conv2d) -> None:
        if dense.padding_mode != "zeros":
            raise ValueError(f'padding_mode must be "zeros", got {dense.padding_mode!r}')
        self.in_channels, self.out_channels = dense.in_channels, dense.out_channels
        self.kernel_size, self.stride = dense.kernel_size, dense.stride
        self.padding, self.dilation = dense.padding, dense.dilation
        self.groups, self.padding_mode = dense.groups, dense.padding_mode

    def to_dense(self) -> nn.Conv2d:
        """Return ``torch.nn.Conv2d`` with zeros for removed weights; nothing is shared."""
        dense = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bias is not None,
            device="meta",
        )
        return _filled(self, dense)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of images (batch, channels, height, width) or of a single one."""
        x = self._inputs(x)
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"SparseConv2d({self.in_channels}, {self.out_channels}) takes images (batch, "
                f"{self.in_channels}, height, width), got {tuple(x.shape)}"
            )
        return self._call(x, x.ndim - 3)

    def _core_layer(self, sample: tuple[int, ...]) -> tuple[CoreLayer, tuple[int, ...]]:
        if isinstance(self.padding, str):  # "valid", or "same", where the odd zero is behind
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            height, width = reach if self.padding == "same" else (0, 0)
            before, after = (height // 2, width // 2), (-(-height // 2), -(-width // 2))
        else:
            before = after = self.padding
        channels, rows, columns = sample
        window = Window(
            channels,
            rows,
            columns,
            self.kernel_size,
            self.stride,
            self.dilation,
            before,
            after,
            self.groups,
        )
        outputs = (self.out_channels, *fitting(window, tuple(sample)).places)
        settings = window.settings
        layer = CoreLayer("convolution", prod(sample), prod(outputs), weight=0, settings=settings)
        return layer, outputs

    def extra_repr(self) -> str:
        """Return what ``torch.nn.Conv2d`` says, and how many weights live."""
        said = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}"]
        said.append(f"stride={self.stride}")
        said += [f"padding={self.padding}"] if self.padding not in ((0, 0), "valid") else []
        said += [f"dilation={self.dilation}"] if self.dilation != (1, 1) else []
        said += [f"groups={self.groups}"] if self.groups != 1 else []
        said += ["bias=False"] if self.bias is None else []
        return ", ".join([*said, self._live()])


def _filled(layer: SparseLayer, dense: Any) -> Any:
    """The dense layer, without numbers so far, with those of the sparse one."""
    weight = layer.weight.detach()
    dense.weight = nn.Parameter(weight, requires_grad=layer.values.requires_grad)
    if layer.bias is not None:
        dense.bias = nn.Parameter(
            layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad
        )
    return dense.train(layer.training)
