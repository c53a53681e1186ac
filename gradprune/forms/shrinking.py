"""Shrinking: a model from which dead units are really removed.

Passes over the layers find dead units. They look at masks, never at values, since a kept weight
that happens to be 0 can still be trained. The forward pass finds units that no sample can change,
because no live weight reads anything that varies. The backward pass finds units that a remaining
unit reads, except constants that later biases can replace; it is repeated where outputs are added,
since the same units of all of them stay. Units that are not read are removed, and with them those
that are dead as a result. A layer's ``Wiring`` says which of its units depend on which.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.replicas import output_of
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.layers.base import Entries, Layer, Shape, Wiring
from gradprune.layers.graph import Step
from gradprune.layers.wiring import roles_by_layer
from gradprune.state.locking import locked
from gradprune.training.trainee import Trainee

__all__ = ["LayerShrink", "ShrinkReport"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
_Model = TypeVar("_Model", bound=Trainee)

_PRUNER = "the pruner stays with the larger model, of whose weights its budgets are shares"


@dataclass(frozen=True)
class LayerShrink:
    """What happened to a layer with parameters; outputs are features, as in ``summary``.

    Attributes:
        name: the name of the layer.
        outputs: the number of outputs before.
        constant: outputs removed because no sample could change them; biases now hold their effect.
        unread: outputs removed because nothing that stays reads them.
        parameters, parameters_kept: entries, removed weights included, before and after.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> model.parameters["dense0.weight"][0] = 0.0
    >>> pruned = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.2)
    >>> layer = model.shrink().shrink_report.layers[0]
    >>> layer.name, layer.outputs, layer.parameters, layer.parameters_kept
    ('dense0', 4, 16, 12)
    """

    name: str
    outputs: int
    constant: int
    unread: int
    parameters: int
    parameters_kept: int

    @property
    def kept(self) -> int:
        """The number of outputs that are left."""
        return self.outputs - self.constant - self.unread


@dataclass(frozen=True, repr=False)
class ShrinkReport(Displayed):
    """The report of ``model.shrink()``; ``print`` shows a table.

    Attributes:
        layers: one LayerShrink for each layer with parameters.
        live_inputs: bool, shape of a sample of the larger model: which inputs something reads; the
            first feature, or channel of an image, if nothing does.
        notes: the state that the smaller model did not take over.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> pruned = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit()).prune(0.5)
    >>> report = model.shrink().shrink_report
    >>> [layer.name for layer in report.layers], report.live_inputs.shape
    (['dense0', 'dense1'], (3,))
    """

    layers: tuple[LayerShrink, ...]
    live_inputs: Flags
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """One line that says how much smaller the model is."""
        before = sum(layer.parameters for layer in self.layers)
        after = sum(layer.parameters_kept for layer in self.layers)
        read = int(np.count_nonzero(self.live_inputs))
        return (
            f"shrunk from {before:,} to {after:,} parameters; "
            f"{read:,} of {self.live_inputs.size:,} inputs are read"
        )

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        columns = ("layer", "outputs", "kept", "constant", "unread", "parameters", "kept")
        rows: list[tuple[str, ...]] = []
        for layer in self.layers:
            outputs = (layer.outputs, layer.kept, layer.constant, layer.unread)
            numbers = (*outputs, layer.parameters, layer.parameters_kept)
            rows.append((layer.name, *(f"{number:,}" for number in numbers)))
        return [self.headline, Table(columns, rows), *(f"note: {n}" for n in self.notes)]


@locked
def shrink(
    model: Trainee, factory: Callable[..., _Model], *, inputs: bool
) -> tuple[_Model, ShrinkReport]:
    """Return the smaller model and what was removed; see ``Model.shrink``.

    Args:
        model: is left as it is.
        factory: called with layers, input_shape and seed; makes the model to be filled.
        inputs: whether inputs that nothing reads go too.
    """
    values = roles_by_layer(model.layers, _masked(model.arena.state, model.masks))
    live = roles_by_layer(model.layers, model.masks)
    wirings = model.wirings()
    known, outputs = _known(model, wirings, values, live)
    kept, live_inputs = _kept(model, wirings, live, known, inputs=inputs)

    layers: list[Layer] = []
    entries: dict[str, tuple[Flags, ...]] = {}
    folded: dict[str, Any] = {}
    for i, (wiring, step) in enumerate(zip(wirings, model.steps, strict=True)):
        name = str(wiring.layer.name)
        stay = _gathered(step, kept)
        layer, cuts = wiring.cut(stay, kept[i])
        layers.append(layer)
        entries |= {f"{name}.{role}": flags for role, flags in cuts.items()}
        gone = np.where(stay | np.isnan(known[i]), 0.0, known[i].astype(np.float64))
        if gone.any():
            added = wiring.fold(values[name], gone)
            folded |= {f"{name}.{role}": array for role, array in added.items()}

    small = factory(layers, _cut_shape(model.input_shape, kept[-1]), seed=model.seed)
    small.costs = model.costs
    small.set_masks({name: _cut(mask, name, entries) for name, mask in model.masks.items()})
    state = dict(model.arena.state)
    for name, array in folded.items():
        state[name] = (state[name] + array).astype(np.float32)
    _copy(state, small.arena.state, entries)
    _copy(model.gradients, small.gradients, entries)
    small.arena.keep_clipped = model.arena.keep_clipped
    for counter in (
        "epoch",
        "forward_count",
        "last_loss",
        "gathered",
        "exploded",
        "refused",
        "loss",
    ):
        setattr(small, counter, getattr(model, counter))
    small.notes = copy.deepcopy(model.notes)
    if model.optimizer is not None:
        _carry_optimizer(model, small, entries)

    rows = tuple(
        _row(model, small, wiring, kept[i], outputs[i])
        for i, wiring in enumerate(wirings)
        if values[str(wiring.layer.name)]
    )
    notes = () if model.pruner is None else (_PRUNER,)
    return small, ShrinkReport(rows, live_inputs, notes)


# ---- what stays ----------------------------------------------------------------------------------


def _known(
    model: Trainee,
    wirings: Sequence[Wiring],
    values: Mapping[str, Arrays],
    live: Mapping[str, Arrays],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Before and behind each layer: values that no sample can change, NaN where they vary.

    The engine computes them, a layer at a time, so that they have the bits of a prediction.
    """
    known: list[NDArray[Any]] = []
    made: list[NDArray[Any]] = []
    for wiring, step in zip(wirings, model.steps, strict=True):
        name = str(step.layer.name)
        varies = np.full(model.input_shape, np.nan, np.float32)
        read = [varies if source < 0 else made[source] for source in step.sources]
        known.append(step.layer.gather([each[np.newaxis] for each in read])[0])
        constant = wiring.constant(live[name], known[-1])
        found = np.full(step.output_shape, np.nan, np.float32)
        if constant.any():
            samples = [np.nan_to_num(each, nan=0.0)[np.newaxis] for each in read]
            outputs = output_of(step, values[name], samples, wiring.silent)[0]
            np.copyto(found, outputs, where=constant & np.isfinite(outputs))
        made.append(found)
    return known, made


def _kept(
    model: Trainee,
    wirings: Sequence[Wiring],
    live: Mapping[str, Arrays],
    known: Sequence[NDArray[Any]],
    *,
    inputs: bool,
) -> tuple[dict[int, Flags], Flags]:
    """Features that stay, behind each layer and, at -1, of the input; and which inputs are read.

    Outputs that are added keep the same features: what one of them has to keep, all do. That
    may be more than what is read, so both passes are repeated until nothing is added.
    """
    steps = model.steps
    wanted: dict[int, Flags] = {-1: np.zeros(model.input_shape, np.bool_)}
    wanted |= {i: np.zeros(step.output_shape, np.bool_) for i, step in enumerate(steps)}
    wanted[len(steps) - 1][...] = True
    while True:
        needed: dict[int, Flags] = {}
        for i, step in reversed(list(enumerate(steps))):
            own = live[str(step.layer.name)]
            needed[i] = wirings[i].kept(own, wanted[i])
            for source, part in _parts(step, wirings[i].reads(own, known[i], needed[i]), wanted):
                wanted[source] |= part
        read = wanted[-1].copy()
        if not read.any():  # a network has an input
            read[0 if read.ndim == 3 else (..., 0)] = True
        kept: dict[int, Flags] = {-1: read if inputs else np.ones_like(read)}
        settled = True
        for i, step in enumerate(steps):
            together = wirings[i].joined(_gathered(step, kept))
            for source, part in _parts(step, together, kept):
                if not np.array_equal(kept[source], part):
                    wanted[source] |= part
                    settled = False
            kept[i] = wirings[i].passed(together, needed[i])
        if settled:
            return kept, read


def _gathered(step: Step, flags: Mapping[int, Flags]) -> Flags:
    """Return the flags of a layer's input from those of all that it reads."""
    found: Flags = step.layer.gather([flags[source][np.newaxis] for source in step.sources])[0]
    return found


def _parts(step: Step, joined: Flags, flags: Mapping[int, Flags]) -> Iterator[tuple[int, Flags]]:
    """Yield what a layer reads, and which of its input's flags belong to that."""
    shapes = [flags[source].shape for source in step.sources]
    parts = step.layer.scatter(joined[np.newaxis], shapes)
    for source, part in zip(step.sources, parts, strict=True):
        yield source, part[0]


def _cut_shape(shape: Shape, kept: Flags) -> Shape:
    """What is live along each axis, such as features of each step or channels of an image.

    (live numbers,) if they do not fill a box.
    """
    axes = range(len(shape))
    sizes = [np.count_nonzero(kept.any(axis=tuple(a for a in axes if a != i))) for i in axes]
    live = int(np.count_nonzero(kept))
    return tuple(map(int, sizes)) if prod(sizes) == live else (live,)


# ---- what comes along ----------------------------------------------------------------------------


def _masked(parameters: Arrays, masks: Arrays) -> Arrays:
    """Copies in which removed weights are 0, whatever was written there."""
    return {
        name: np.where(masks[name], array, np.float32(0)) if name in masks else array
        for name, array in parameters.items()
    }


def _cut(array: NDArray[Any], name: str, entries: Entries) -> NDArray[Any]:
    """The entries that stay, of a parameter or of what has its shape."""
    cut: NDArray[Any] = array[np.ix_(*entries[name])] if name in entries else array
    return cut


def _copy(source: Arrays, target: Arrays, entries: Entries) -> None:
    for name, view in target.items():
        view[...] = _cut(source[name], name, entries)


def _cut_flat(model: Trainee, small: Trainee, flat: Floats, entries: Entries) -> Floats:
    """Return the part of a flat buffer that stays, in the layout of the other arena."""
    cut = np.zeros(small.arena.size, np.float32)
    _copy(model.arena.views(flat), small.arena.views(cut), entries)
    return cut


def _carry_optimizer(model: Trainee, small: Trainee, entries: Entries) -> None:
    """An optimizer in the same state; it makes itself the smaller model's."""
    optimizer = model.optimizer
    assert optimizer is not None
    settings = optimizer.settings()
    carried = type(optimizer)(small, **settings, clip=optimizer.clip, guard=optimizer.guard)
    carried.load_moments([_cut_flat(model, small, m, entries) for m in optimizer.moments])
    carried.chain.load(
        {
            name: _cut_flat(model, small, array, entries) if name.endswith("residual") else array
            for name, array in optimizer.chain.tensors().items()
        }
    )
    carried.load_state(optimizer.state())
    carried.parameter_norms[:] = optimizer.parameter_norms


def _row(
    model: Trainee, small: Trainee, wiring: Wiring, kept: Flags, known: NDArray[Any]
) -> LayerShrink:
    name = str(wiring.layer.name)
    before, after = (
        sum(array.size for array in arrays[name].values())
        for arrays in (roles_by_layer(m.layers, m.parameters) for m in (model, small))
    )
    constant = int(np.count_nonzero(~kept & ~np.isnan(known)))
    unread = int(np.count_nonzero(~kept)) - constant
    return LayerShrink(name, prod(wiring.output_shape), constant, unread, before, after)
