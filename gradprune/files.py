"""Files: a model with everything it needs to go on, in the safetensors format.

Tensors: every parameter and buffer under its name, masks as ``.mask.<name>`` (uint8), the
optimizer's moments as ``.optimizer.moment<i>``, what clippers keep as
``.optimizer.clip<i>.<name>``, the pruner's statistics as ``.pruner.<name>`` and the quantizer's
codes as ``.quantizer.<name>``. The name of a layer holds no dot, so no parameter's name begins with
one, and none can be mistaken for another tensor, whatever layers are called. All else is one JSON
text in the metadata, under the key "gradprune": settings of layers, optimizer,
pruner and quantizer as {"class": name, field: value, ...}, counters, and a SHA-256 over that text
and all tensors.

A file is data. Classes are looked up in a registry (`gradprune/registry.py`), nothing is ever
unpickled or imported by name, and nothing is allocated before the sizes are known to fit what the
file holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Never, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.engine.memory import check_size
from gradprune.errors import FileFormatError
from gradprune.foundation.checks import not_negative, seed_number, whole
from gradprune.foundation.disk import read, write_atomically
from gradprune.layers.earlier import as_they_were
from gradprune.pruning.pruner import Pruner
from gradprune.quantization.quantizer import Quantizer
from gradprune.registry import OPTIMIZERS, CustomObjects, Registry
from gradprune.state.costs import Costs
from gradprune.state.headroom import require
from gradprune.state.locking import locked
from gradprune.training.trainee import Trainee

__all__ = [
    "Content",
    "Tensors",
    "check_savable",
    "described",
    "load",
    "parse",
    "save",
    "seal",
    "sizes",
    "state_of",
]

Content = dict[str, Any]
Tensors = dict[str, NDArray[Any]]
_Other = TypeVar("_Other")
_Model = TypeVar("_Model", bound=Trainee)

_FORMAT = 3
_DOTTED = 2  # before it names of tensors that are no parameter began without the dot
_BY_STEP = 3  # before it layers flattened sequences, see ``layers.earlier``
_MASK, _OPTIMIZER, _PRUNER, _QUANTIZER = ".mask.", ".optimizer.", ".pruner.", ".quantizer."
_KEY = "gradprune"
# What tensors that are no parameter are for, by how their names begin.
_PARTS = {_MASK: "masks", _OPTIMIZER: "optimizer", _PRUNER: "pruner", _QUANTIZER: "quantizer"}


# ---- writing -----------------------------------------------------------------------------------


def save(model: Trainee, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
    """Write a model to a file; see ``Model.save``."""
    content, tensors = state_of(model)
    if not training_state:
        content |= {"optimizer": None, "pruner": None}
        left_out = (_OPTIMIZER, _PRUNER)
        tensors = {name: a for name, a in tensors.items() if not name.startswith(left_out)}
    write_atomically(path, seal(content, tensors))


def check_savable(model: Trainee) -> None:
    """Raise a TypeError if something of a model is of a class that a file cannot hold."""
    _describe(model)


@locked
def state_of(model: Trainee) -> tuple[dict[str, Any], Tensors]:
    """Return (description, arrays) of a model as it is between two steps; all are copies."""
    return _describe(model), _tensors(model)


@locked
def _tensors(model: Trainee) -> Tensors:
    """Every array of a model, by its name in the file."""
    tensors: Tensors = {name: view.copy() for name, view in model.arena.state.items()}
    tensors |= {f"{_MASK}{name}": mask.astype(np.uint8) for name, mask in model.masks.items()}
    if model.optimizer is not None:
        for i, moment in enumerate(model.optimizer.moments):
            tensors[f"{_OPTIMIZER}moment{i}"] = moment
        for name, array in model.optimizer.chain.tensors().items():
            tensors[f"{_OPTIMIZER}{name}"] = array
    if model.pruner is not None:
        tensors |= {f"{_PRUNER}{name}": array for name, array in model.pruner.tensors().items()}
    if model.quantizer is not None:
        tensors |= {f"{_QUANTIZER}{name}": a for name, a in model.quantizer.tensors().items()}
    return tensors


def _describe(model: Trainee) -> Content:
    """All of a model that is not an array."""
    optimizer, pruner, quantizer = model.optimizer, model.pruner, model.quantizer
    encode = Registry().encode  # one for all, so that no two classes have one name
    if optimizer is not None and OPTIMIZERS.get(type(optimizer).__name__) is not type(optimizer):
        raise TypeError(f"cannot save an optimizer of class {type(optimizer).__name__}")
    return {
        "model": {
            "layers": encode(model.layers),
            "input_shape": encode(model.input_shape),
            "seed": model.seed,
            "epoch": model.epoch,
            "forward_count": model.forward_count,
            "last_loss": encode(model.last_loss),
            "costs": encode(model.costs.most),
            "loss": encode(model.loss),
            **({"notes": encode(model.notes)} if model.notes else {}),
        },
        "optimizer": None
        if optimizer is None
        else {
            "class": type(optimizer).__name__,
            "settings": {key: encode(value) for key, value in optimizer.settings().items()},
            "clip": encode(optimizer.clip),
            "guard": encode(optimizer.guard),
            "state": {name: encode(number) for name, number in optimizer.state().items()},
        },
        "pruner": None
        if pruner is None
        else {
            "settings": {
                "criterion": encode(pruner.criterion),
                "scope": encode(pruner.scope),
                "granularity": encode(pruner.granularity),
                "schedule": encode(pruner.schedule),
                "regrowth": encode(pruner.regrowth),
                "exclude": encode(pruner.exclude),
                "min_kept": encode(pruner.min_kept),
                "seed": pruner.seed,
                "gradients": pruner.gradients,
            },
            "state": pruner.state(),
        },
        "quantizer": None
        if quantizer is None
        else {
            "settings": {
                "weights": encode(quantizer.weights),
                "exclude": encode(quantizer.exclude),
                "biases": encode(quantizer.biases),
            },
            "state": quantizer.state(),
        },
    }


def _digest(content: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the description and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def seal(content: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Return the bytes of a file."""
    from safetensors.numpy import save as serialize

    content = {"format": _FORMAT, "version": _core.version, **content}
    text = json.dumps({**content, "sha256": _digest(content, tensors)}, sort_keys=True)
    # One key, since safetensors writes several in a random order; this way a model that is saved
    # twice gives the same bytes.
    nbytes = sum(array.nbytes for array in tensors.values())
    require(3 * nbytes + 8 * len(text))  # each tensor as bytes, all of them, and again for Python
    data: bytes = serialize(tensors, metadata={_KEY: text})
    return data


# ---- reading -----------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str],
    kind: type[_Model],
    custom_objects: CustomObjects | None = None,
) -> _Model:
    """Read what ``save`` wrote; see ``gradprune.load``.

    Args:
        path: the file.
        kind: the class of the model.
        custom_objects: name to class of settings that are not gradprune's own.
    """
    registry = Registry(custom_objects)
    nothing_else: Mapping[str, Callable[[Content, Tensors], Never]] = {}
    return parse(read(path), path, kind, registry, others=nothing_else)


def parse(
    data: bytes,
    path: str | os.PathLike[str],
    kind: type[_Model],
    registry: Registry,
    max_bytes: SupportsIndex | None = None,
    others: Mapping[str, Callable[[Content, Tensors], _Other]] = MappingProxyType({}),
) -> _Model | _Other:
    """Return what is in the bytes of a file.

    Args:
        data: the bytes.
        path: the name of the file, for errors.
        kind: the class of a model.
        registry: the classes that the file may name.
        max_bytes: see ``gradprune.load``.
        others: key of a description to a function that makes something else of it and the arrays.
    """
    try:
        content, tensors = _open(data)
        for key, build in others.items():
            if key in content:
                return build(content[key], tensors)
        return _build(content, tensors, kind, registry, len(data), max_bytes)
    except FileFormatError as error:
        error.args = (f"{os.fspath(path)}: {error}",)
        raise
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile description makes a constructor say
        raise FileFormatError(f"{os.fspath(path)}: damaged description: {error!r}") from error


def described(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Tensors]:
    """Return (description, arrays) of a file without making anything of a user's own classes.

    Raises:
        OSError, FileFormatError: as ``gradprune.load``.
    """
    try:
        return _open(read(path))
    except FileFormatError as error:
        error.args = (f"{os.fspath(path)}: {error}",)
        raise


def sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the bytes of each part of a model's file; they add up to its size.

    Raises:
        OSError, FileFormatError: as ``gradprune.load``.
    """
    _, tensors = described(path)
    parts = dict.fromkeys(("weights", *_PARTS.values()), 0)
    for name, array in tensors.items():
        part = next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), "weights")
        parts[part] += array.nbytes
    return {**parts, "description": os.path.getsize(path) - sum(parts.values())}


def _open(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Description and tensors of a file whose hash is right."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        text = header.get("__metadata__", {}).get(_KEY)
    except (ValueError, AttributeError, RecursionError) as error:
        raise FileFormatError("truncated, or not a safetensors file") from error
    if text is None:
        raise FileFormatError("a safetensors file, but not one of gradprune's")
    content = json.loads(text)
    if content["format"] not in range(1, _FORMAT + 1):
        raise FileFormatError(
            f"format {content['format']!r} is not one that this gradprune {_core.version} reads, "
            f"1 to {_FORMAT}"
        )
    require(len(data) + 16 * min(size, len(data)))
    try:
        tensors: Tensors = deserialize(data)
    except SafetensorError as error:
        raise FileFormatError(f"truncated or damaged: {error}") from error
    stated = content.pop("sha256")
    if stated != _digest(content, tensors):
        raise FileFormatError("damaged: the contents do not match their SHA-256")
    if content["format"] < _DOTTED:
        groups = tuple(group[1:] for group in (_MASK, _OPTIMIZER, _PRUNER, _QUANTIZER))
        tensors = {
            f".{name}" if name.startswith(groups) else name: array
            for name, array in tensors.items()
        }
    return content, tensors


def _build(
    content: dict[str, Any],
    tensors: Tensors,
    kind: type[_Model],
    registry: Registry,
    nbytes: int,
    max_bytes: SupportsIndex | None,
) -> _Model:
    """The model of a description; tensors must be exactly its own."""
    described = content["model"]
    layers, input_shape = (
        registry.decode(described["layers"]),
        registry.decode(described["input_shape"]),
    )
    if content["format"] < _BY_STEP:
        layers = as_they_were(layers, input_shape)
    for layer, _, shape, _ in check_size(layers, input_shape, nbytes, max_bytes):
        for parameter in layer.tensors(shape):
            _take(tensors, f"{layer.name}.{parameter.role}", np.dtype(np.float32), parameter.shape)
    model = kind.blank(layers, input_shape, seed=seed_number(described["seed"]))
    if "costs" in described:  # the first files had none
        model.costs = Costs(registry.decode(described["costs"]), "the model's file")
    if content["optimizer"] is not None:
        _build_optimizer(model, content["optimizer"], registry)
        own = _below(_OPTIMIZER, tensors)
        assert model.optimizer is not None
        model.optimizer.chain.load(own)  # first of all, since norms may be any number
    if content["pruner"] is not None:
        _build_pruner(model, content["pruner"], tensors, registry)

    quantized = _below(_QUANTIZER, tensors)
    tensors = {n: array for n, array in tensors.items() if not n.startswith(_QUANTIZER)}
    wanted = _tensors(model)
    if tensors.keys() != wanted.keys():
        missing, extra = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
        raise FileFormatError(f"tensors missing: {missing}, unexpected: {extra}")
    for name, array in wanted.items():
        _take(tensors, name, array.dtype, array.shape)

    for name in model.masks:
        if tensors[f"{_MASK}{name}"].max(initial=0) > 1:
            raise FileFormatError(f"the mask of {name} holds something else than 0 and 1")
    model.set_masks({name: tensors[f"{_MASK}{name}"] for name in model.masks})
    _fill(model, tensors)
    if model.optimizer is not None:
        count = len(model.optimizer.core_moments)
        model.optimizer.load_moments([tensors[f"{_OPTIMIZER}moment{i}"] for i in range(count)])
        model.optimizer.chain.load(_below(_OPTIMIZER, tensors))
        model.optimizer.load_state(_optimizer_state(content["optimizer"]["state"]))
    _build_quantizer(model, content.get("quantizer"), quantized, registry)
    model.epoch = whole("epoch", described["epoch"])
    model.forward_count = whole("forward_count", described["forward_count"])
    model.last_loss = float(registry.decode(described["last_loss"]))
    model.loss = registry.decode(described.get("loss"))  # which earlier versions did not write
    model.notes = registry.decode(described.get("notes", {"class": "dict", "items": []}))
    if not isinstance(model.notes, dict):
        raise FileFormatError(f"notes must be a dict, got {model.notes!r}")
    return model


@locked
def _fill(model: Trainee, tensors: Tensors) -> None:
    """Parameters and buffers from the tensors of their names."""
    for name, view in model.arena.state.items():
        view[...] = tensors[name]


def _build_optimizer(model: Trainee, described: dict[str, Any], registry: Registry) -> None:
    """An optimizer as described; it makes itself the model's."""
    name = described["class"]
    if name not in OPTIMIZERS:
        raise FileFormatError(f"unknown optimizer {name!r}")
    settings = {key: registry.decode(value) for key, value in described["settings"].items()}
    clip, guard = registry.decode(described["clip"]), registry.decode(described["guard"])
    OPTIMIZERS[name](model, **settings, clip=clip, guard=guard)


def _build_pruner(
    model: Trainee, described: dict[str, Any], tensors: Tensors, registry: Registry
) -> None:
    """A pruner as described; it makes itself the model's. It knows which tensors it needs."""
    settings = {key: registry.decode(value) for key, value in described["settings"].items()}
    own = _below(_PRUNER, tensors)
    Pruner(model, **settings).load_state(_counters(described["state"]), own)


def _build_quantizer(
    model: Trainee, described: dict[str, Any] | None, own: Tensors, registry: Registry
) -> None:
    """A quantizer as described, if one is; weights and masks are set by now."""
    known: set[str] = set()
    if described is not None:
        settings = {key: registry.decode(value) for key, value in described["settings"].items()}
        quantizer = Quantizer(model, **settings)
        quantizer.load_state(_counters(described["state"]), own)
        known = set(quantizer.tensors())
    if own.keys() != known:
        raise FileFormatError(f"unexpected tensors of a quantizer: {sorted(own.keys() ^ known)}")


def _below(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors whose names begin so, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _take(
    tensors: Tensors, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """The tensor, which must be of this type and shape."""
    if name not in tensors:
        raise FileFormatError(f"tensor {name} is missing")
    array = tensors[name]
    if array.dtype != dtype or array.shape != shape:
        raise FileFormatError(
            f"tensor {name} must be {dtype} {shape}, got {array.dtype} {array.shape}"
        )
    return array


def _optimizer_state(state: dict[str, Any]) -> dict[str, float]:
    """Counters, and the numbers that are not whole."""
    counters = dict(state)
    factor = not_negative("lr_factor", counters.pop("lr_factor", 1.0))
    course = {name: counters.pop(name) for name in state if name.startswith("course.")}
    numbers = {name: float(Registry().decode(number)) for name, number in course.items()}
    return {**_counters(counters), "lr_factor": factor, **numbers}


def _counters(state: dict[str, Any]) -> dict[str, int]:
    return {name: whole(name, value) for name, value in state.items()}
