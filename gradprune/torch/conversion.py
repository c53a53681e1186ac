"""Modules of torch with sparse layers for their pruned ones, and back."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from gradprune.foundation.checks import flag, fraction
from gradprune.torch.carrying import Optimizers, check_carried, replace_parameter, several
from gradprune.torch.sparse import SparseConv2d, SparseLayer, SparseLinear

__all__ = ["dense_state_dict", "densify", "sparsify"]

# What passes without a word from one module to the one that takes its place.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def sparsify(
    module: nn.Module,
    *,
    threshold: float = 0.8,
    optimizer: Optimizers = None,
    inplace: bool = True,
) -> Any:
    """Replace the pruned ``Linear`` and ``Conv2d`` layers of a module by sparse ones.

    Which weights are removed say the masks of ``torch.nn.utils.prune``, else the weights that are
    exactly 0. A removed weight is gone: it has no gradient, no moment in the optimizer and no
    product. What is trained after is what masked training would have trained, up to rounding.

    Layers stay as they are of which a smaller share is removed, since dense products are faster
    there; of a subclass of ``Linear`` or ``Conv2d``; those whose weight belongs to another layer,
    too, or has a parametrization; and convolutions whose ``padding_mode`` is not "zeros". A mask of
    a bias is applied and forgotten: biases are dense.

    Args:
        module: changed in place, as torch's own tools do, unless ``inplace`` is False. A module
            that is itself such a layer is not changed: use what is returned.
        threshold: a layer is replaced if at least this share of its weights is removed. From 80 %
            on sparse layers are faster than masked ones.
        optimizer: one or several that train the module already: they go on with the live weights,
            and what they keep of these stays. Without, make optimizers after this call. Those of
            torch can that keep numbers for each weight: all but Adafactor, LBFGS, Muon and
            SparseAdam, which are refused before anything changes.
        inplace: whether the module itself is changed, or a deep copy.

    Returns:
        The module, or its copy.

    Raises:
        TypeError: a layer to be replaced is not float32 on the CPU; this is no module, or no
            optimizer.
        ValueError: an optimizer of the module was to go on with a copy, or cannot go on; or the
            threshold is not in [0, 1].

    >>> model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[:, 1:].zero_()
    >>> sparsify(model)
    Sequential(
      (0): SparseLinear(in_features=6, out_features=4, bias=True, live=4 of 24)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    _require_module(module)
    threshold, inplace = fraction("threshold", threshold), flag("inplace", inplace)
    optimizers = several(optimizer)
    if not inplace and optimizers:
        raise ValueError("an optimizer of the module cannot go on with a copy: inplace=True")
    shared = _shared_weights(module)
    made: dict[nn.Module, SparseLayer] = {}
    for path, layer in module.named_modules():  # all are made before one is replaced
        found = _masked(layer)
        if found is None or id(found[0]) in shared:
            continue
        weight, mask = found
        removed = 1.0 - float(mask.count_nonzero()) / max(mask.numel(), 1)
        if removed >= threshold and mask.numel():
            made[layer] = _sparse(layer, path, weight, mask)
    check_carried(optimizers, [_weight_of(layer) for layer in made])
    for layer, sparse in made.items():
        _hand_over(layer, sparse, optimizers)
    return _replaced(module, made) if inplace else _copied(module, made)


def densify(module: nn.Module, *, masks: bool = False, inplace: bool = True) -> Any:
    """Replace sparse layers by ``Linear`` and ``Conv2d`` again, 0 where weights are removed.

    Args:
        module: changed in place unless ``inplace`` is False; a sparse layer itself is not changed:
            use what is returned.
        masks: whether the layers get masks of ``torch.nn.utils.prune``, so that removed weights
            stay 0 in training.
        inplace: whether the module itself is changed, or a deep copy.

    Returns:
        The module, or its copy. Optimizers are to be made anew.

    Raises:
        TypeError: it is no module.

    >>> densify(SparseLinear(4, 2, mask=torch.eye(2, 4)))
    Linear(in_features=4, out_features=2, bias=True)
    """
    _require_module(module)
    masks, inplace = flag("masks", masks), flag("inplace", inplace)
    made: dict[nn.Module, nn.Module] = {}
    for layer in module.modules():
        if isinstance(layer, SparseLayer):
            made[layer] = dense = layer.to_dense()
            if masks:
                prune.custom_from_mask(dense, "weight", layer.mask)
            _hand_hooks(layer, dense)
    return _replaced(module, made) if inplace else _copied(module, made)


def dense_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the ``state_dict`` of the module as it would be dense.

    It is loaded, strictly, by the module that was made sparse; sparse layers load it, too.

    Raises:
        TypeError: it is no module.

    >>> sorted(dense_state_dict(nn.Sequential(SparseLinear(4, 2, mask=torch.eye(2, 4)))))
    ['0.bias', '0.weight']
    """
    _require_module(module)
    entries: dict[str, torch.Tensor] = dict(module.state_dict())
    for path, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, SparseLayer):
            prefix = f"{path}." if path else ""
            del entries[f"{prefix}indices"]
            weight = {f"{prefix}values": layer.weight.detach()}
            entries = {
                key.removesuffix("values") + "weight" if key in weight else key: weight.get(
                    key, value
                )
                for key, value in entries.items()
            }
    return entries


def _require_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")


def _masked(layer: nn.Module) -> tuple[nn.Parameter, torch.Tensor] | None:
    """The weight and its mask, of a layer that can be replaced."""
    if type(layer) not in {nn.Linear, nn.Conv2d} or parametrize.is_parametrized(layer):
        return None
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return None
    if isinstance(mask := getattr(layer, "weight_mask", None), torch.Tensor):
        return layer.weight_orig, mask != 0
    weight = layer._parameters.get("weight")  # a hook of somebody else may compute it
    return None if weight is None else (weight, weight.detach() != 0)


def _shared_weights(module: nn.Module) -> set[int]:
    """Parameters that several layers have, under whatever name."""
    users = Counter(
        id(parameter)
        for layer in module.modules()
        for parameter in set(layer._parameters.values())
        if parameter is not None
    )
    return {one for one, count in users.items() if count > 1}


def _sparse(layer: nn.Module, path: str, weight: nn.Parameter, mask: torch.Tensor) -> SparseLayer:
    if weight.dtype is not torch.float32 or not weight.is_cpu:
        raise TypeError(
            f"{path or type(layer).__name__} is {weight.dtype} on {weight.device}: sparse layers "
            "run on torch.float32 on the CPU"
        )
    kind = SparseLinear if type(layer) is nn.Linear else SparseConv2d
    bias = layer.bias_orig * layer.bias_mask if hasattr(layer, "bias_mask") else layer.bias
    made: SparseLayer = kind.from_dense(layer, weight=weight, bias=bias, mask=mask)
    made.train(layer.training)
    return made


def _weight_of(layer: nn.Module) -> Any:
    """The parameter that a dense layer is trained by."""
    weight = getattr(layer, "weight_orig", None)
    return layer._parameters["weight"] if weight is None else weight


def _hand_over(layer: nn.Module, sparse: SparseLayer, optimizers: tuple[Any, ...]) -> None:
    """What belongs to the dense layer's parameters, and its hooks."""
    weight = _weight_of(layer)
    places = sparse.indices.long()
    if weight.grad is not None:
        sparse.values.grad = weight.grad.to_dense().flatten()[places]
    replace_parameter(
        optimizers, weight, sparse.values, weight.shape, lambda kept: kept.flatten()[places]
    )
    bias = getattr(layer, "bias_orig", layer.bias)
    if sparse.bias is not None:
        sparse.bias.grad = bias.grad
        replace_parameter(optimizers, bias, sparse.bias, bias.shape, lambda kept: kept)
    _hand_hooks(layer, sparse)


def _hand_hooks(before: nn.Module, after: nn.Module) -> None:
    for table in _HOOKS:
        kept = {
            number: hook
            for number, hook in getattr(before, table).items()
            if not isinstance(hook, prune.BasePruningMethod)
        }
        getattr(after, table).update(kept)
    after._is_full_backward_hook = before._is_full_backward_hook


def _replaced(module: nn.Module, made: dict[Any, Any]) -> nn.Module:
    for owner in list(module.modules()):
        for name, child in list(owner._modules.items()):
            if child in made:
                owner._modules[name] = made[child]
    return made.get(module, module)


def _copied(module: nn.Module, made: dict[Any, Any]) -> nn.Module:
    """A deep copy in which those layers are replaced."""
    known = {id(layer): other for layer, other in made.items()}
    for layer in module.modules():  # masks of torch leave tensors that it refuses to copy
        for value in layer.__dict__.values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                known[id(value)] = value.detach().clone()
    return copy.deepcopy(module, known)
