"""What the core's objects refuse: every message of csrc/binding, and nothing is lost or kept.

Python's own modules check their arguments before they call the core, so that most of these calls
can only be made directly.
"""

from __future__ import annotations

import gc
import importlib
import re
import subprocess
import sys
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gradprune import _core as typed_core
from gradprune.layers.base import CoreLayer

_core: Any = typed_core  # it is called with what it does not take

BINDING = Path(__file__).resolve().parents[2] / "csrc" / "binding"
ALWAYS = (1.0,) * 4  # lists at every share
SEGMENTS = [(0, 6, 0, 3), (6, 2, 0, 0)]
LAYERS = [CoreLayer("dense", 3, 2, weight=0, bias=6)]
RULE = (_core.rules["adam"], 0.1, 0.0, False, 0.0, 0.0, False, 0.9, 0.99, 1e-8, 1, 1e30, 1e30)
RULE += (None, None, None)  # no segment is frozen, without decay, or of another rate
NO_CLIP = ((), None, False)
STAGE = (_core.clippers["norm"][0], (1.0, 2.0), 0, None, None, 0.0, None)
MSE = (_core.losses["mse"],)
CROSS_ENTROPY = (_core.losses["cross_entropy"], 0.0, -100)
DISTILLATION = (_core.losses["distillation"], 1.0, 0.5)
NAN = float("nan")


def floats(*shape: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(n: int) -> np.ndarray:
    return np.ones(n, np.uint8)


def with_bad(value: float, *shape: int) -> np.ndarray:
    array = floats(*shape)
    array[-1, 1] = value
    return array


MASK = np.uint8([1, 0, 1, 0, 0, 1])
ROWS = np.array([0, 1, 1, 0, 1], np.int64)
LABELS = np.int64([1, 0])


class Core(NamedTuple):
    """One of each: a layer of 2 units over 3 inputs, on lists."""

    arena: _core.Arena
    net: _core.Net
    frozen: _core.Frozen


def new_arena(
    params: Any = None,
    grads: Any = None,
    mask: Any = None,
    segments: Any = SEGMENTS,
    costs: Any = ALWAYS,
) -> _core.Arena:
    return _core.Arena(
        floats(8) * MASK_OF_ALL if params is None else params,
        zeros(8) if grads is None else grads,
        MASK if mask is None else mask,
        segments,
        costs,
    )


MASK_OF_ALL = np.append(MASK, [1, 1]).astype(np.float32)


def new_core() -> Core:
    arena = new_arena()
    return Core(arena, _core.Net(LAYERS), _core.Frozen(LAYERS, arena))


def backward(
    core: Core,
    x: Any = None,
    y: Any = None,
    index: Any = None,
    loss: Any = MSE,
    weights: Any = None,
) -> tuple[float, float, float]:
    x, y = (floats(2, 3) if x is None else x), (floats(2, 2) if y is None else y)
    return core.net.backward(core.arena, x, y, index, loss, 0, 0, weights)


def step(
    core: Core,
    clip: Any = NO_CLIP,
    rule: Any = RULE,
    moments: Any = None,
    norms: Any = None,
) -> Any:
    return core.arena.step(clip, rule, (zeros(8), zeros(8)) if moments is None else moments, norms)


def stage(**changed: Any) -> Any:
    """A clip of one stage, some entries of which are others."""
    names = ("code", "settings", "seed", "excluded", "state", "version", "residual")
    assert set(changed) <= set(names)
    entries = dict(zip(names, STAGE, strict=True)) | changed
    return ((tuple(entries.values()),), None, False)


def train(core: Core, rates: Any = (0.1, 0.1), sizes: Any = (2, 3), index: Any = ROWS) -> Any:
    moments = (zeros(8), zeros(8))
    batch = (core.arena, floats(2, 3), floats(2, 2), index, MSE, 0, 0)
    return core.net.train(*batch, NO_CLIP, RULE, moments, None, rates, sizes, 1e9)


def layer(core: Core, **changed: Any) -> Any:
    return _core.Net([LAYERS[0], CoreLayer("dense", 2, 2, weight=0)._replace(**changed)])


def forward_alone(**changed: Any) -> None:
    arguments = {"values": floats(3), "bias": zeros(2), "x": floats(2, 3), "y": zeros(2, 2)}
    _core.Solo(LAYERS, MASK).forward(*(arguments | {"threads": 1} | changed).values())


def read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


# A call, and the whole text of what it raises. Places that say the same have a case each.
CASES: list[tuple[Callable[[Core], Any], type[Exception], str]] = [
    # arrays, of any kind
    (lambda c: _core.norm(zeros(4), "2"), TypeError, "must be real number, not str"),
    (lambda c: _core.norm([1.0], 2.0), TypeError,
     "values must be a NumPy array of float32, got list"),
    (lambda c: _core.norm(np.zeros(2), 2.0), TypeError,
     "values must be of native float32, got dtype float64"),
    (lambda c: _core.norm(np.zeros(2, ">f4"), 2.0), TypeError,
     "values must be of native float32, got dtype >f4"),
    (lambda c: _core.topk_mask(zeros(2, 2), 1), ValueError,
     "scores must have 1 dimension(s), got 2"),
    (lambda c: _core.norm(zeros(4)[::2], 2.0), ValueError,
     "values must be C-contiguous and aligned"),
    (lambda c: _core.norm(np.zeros(9, np.uint8)[1:].view(np.float32), 2.0), ValueError,
     "values must be C-contiguous and aligned"),
    (lambda c: _core.scale_(read_only(zeros(2)), 2.0), ValueError, "values is read-only"),
    (lambda c: _core.warp(zeros(1, 1, 3, 3), zeros(1, 6), zeros(1, 1, 1, 1)),
     TypeError, "maps must be of native float64, got dtype float32"),
    (lambda c: backward(c, index=[0]), TypeError,
     "index must be a NumPy array of int64, got list"),
    (lambda c: _core.mask_([1], zeros(1)), TypeError,
     "mask must be a NumPy array of uint8, got list"),
    # the module
    (lambda c: _core.set_num_threads(0), ValueError, "threads must be in 1..256, got 0"),
    (lambda c: _core.set_num_threads(257), ValueError, "threads must be in 1..256, got 257"),
    (lambda c: _core.uniform(-1, 0, 0), ValueError, "n must not be negative"),
    (lambda c: _core.normal(-1, 0, 0), ValueError, "n must not be negative"),
    (lambda c: _core.permutation(-1, 0, 0), ValueError, "n must not be negative"),
    (lambda c: _core.uniform_at(np.int64([0, -1]), 0, 0), ValueError,
     "places must not be negative"),
    (lambda c: _core.normal_at(np.int64([-1]), 0, 0), ValueError, "places must not be negative"),
    *((lambda c, k=k: _core.subset_(ones(3), k, 0, 0), ValueError,
       f"k must be in 0..3, got {k}") for k in (4, -1)),
    (lambda c: _core.topk_mask(zeros(3), 4), ValueError, "k must be in 0..3, got 4"),
    (lambda c: _core.topk_mask(zeros(3), -1), ValueError, "k must be in 0..3, got -1"),
    (lambda c: _core.topk_mask(np.float32([0, NAN]), 1), ValueError, "scores must not be NaN"),
    (lambda c: _core.norm(zeros(2), 0.0), ValueError, "norm_type must be positive"),
    (lambda c: _core.norm(zeros(2), NAN), ValueError, "norm_type must be positive"),
    (lambda c: _core.mask_(ones(3), zeros(2)), ValueError, "the mask is longer than the values"),
    *((lambda c, sizes=sizes, count=count:
       _core.statistics_(*(zeros(n) for n in sizes), count), ValueError,
       "arrays must be of equal length and count at least 1")
      for sizes, count in (((2, 2, 2), 0), ((2, 3, 2), 1), ((2, 2, 3), 1))),
    *((lambda c, image=image, maps=maps:
       _core.warp(zeros(*image), np.zeros(maps), zeros(2, 1, 3, 4)), ValueError,
       "images need a border of one pixel, and maps the shape (2, 6)")
      for image, maps in (((1, 1, 5, 6), (2, 6)), ((2, 2, 5, 6), (2, 6)), ((2, 1, 4, 6), (2, 6)),
                          ((2, 1, 5, 5), (2, 6)), ((2, 1, 5, 6), (1, 6)), ((2, 1, 5, 6), (2, 5)))),
    (lambda c: _core.warp(zeros(0, 1, 46342, 46342), np.zeros((0, 6)), zeros(0, 1, 46340, 46340)),
     ValueError, "an image has more than 2^31 pixels"),
    *((lambda c, shapes=shapes: _core.gemm(zeros(*shapes[0]), False, zeros(*shapes[1]),
                                           zeros(*shapes[2])),
       ValueError,
       "the shapes do not fit, or the last axis of b is not a multiple of 16, at most 64")
      for shapes in (((2, 4), (1, 3, 16), (1, 2, 16)), ((2, 3), (1, 3, 16), (2, 2, 16)),
                     ((2, 3), (1, 3, 16), (1, 3, 16)), ((2, 3), (1, 3, 16), (1, 2, 32)),
                     ((2, 3), (1, 3, 8), (1, 2, 8)), ((2, 3), (1, 3, 80), (1, 2, 80)))),
    # the arena
    (lambda c: new_arena(segments=()), TypeError,
     "segments must be a list of (offset, length, group, columns)"),
    *((lambda c, rows=rows: new_arena(segments=rows), ValueError,
       "segment 1 does not follow the one before or leaves the buffer")
      for rows in ([(0, 6, 0, 3), (7, 1, 0, 0)], [(0, 6, 0, 3), (-1, 2, 0, 0)],
                   [(0, 6, 0, 3), (6, -1, 0, 0)], [(0, 6, 0, 3), (6, 3, 0, 0)],
                   [(0, 6, 0, 3), (6, 2, -1, 0)], [(0, 6, 0, 3), (6, 2, 2, 0)],
                   [(0, 5, 0, 0), (5, 3, 0, 0)])),
    (lambda c: new_arena(segments=[(0, 6, 0, 4), (6, 2, 0, 0)]), ValueError,
     "segment 0 cannot have rows of 4 entries"),
    (lambda c: new_arena(segments=[(0, 6, 0, -3), (6, 2, 0, 0)]), ValueError,
     "segment 0 cannot have rows of -3 entries"),
    (lambda c: new_arena(segments=[(0, 6, 0, 3)]), ValueError,
     "the segments cover 6 of 8 parameters"),
    (lambda c: new_arena(params=zeros(7)), ValueError,
     "grads must not be longer than params, mask not longer than grads"),
    (lambda c: new_arena(mask=ones(9)), ValueError,
     "grads must not be longer than params, mask not longer than grads"),
    (lambda c: new_arena(segments=[0]), TypeError,
     "a segment is (offset, length, group, columns)"),
    (lambda c: new_arena(segments=[(0, 8)]), TypeError,
     "a segment is (offset, length, group, columns)"),
    (lambda c: new_arena(costs=list(ALWAYS)), TypeError, "costs must be a tuple"),
    (lambda c: new_arena(costs=(0.5, 0.5, 0.5, 1.5)), ValueError,
     "costs must be four shares in [0, 1]"),
    (lambda c: c.arena.set_mask(ones(6), (0.5, NAN, 0.5, 0.5), ()), ValueError,
     "costs must be four shares in [0, 1]"),
    (lambda c: c.arena.set_mask(ones(5), ALWAYS, ()), ValueError,
     "the mask must be as long as the prunable parameters"),
    (lambda c: c.arena.set_mask(ones(6), ALWAYS, [zeros(8)]), TypeError,
     "moments must be a tuple of arrays"),
    (lambda c: c.arena.set_mask(ones(6), ALWAYS, (zeros(8), zeros(7))), ValueError,
     "a moment must be as long as the parameters"),
    (lambda c: c.arena.set_mask(ones(6), ALWAYS, (None,)), TypeError,
     "a moment must be a NumPy array of float32, got NoneType"),
    (lambda c: c.arena.values(2), IndexError, "there is no segment 2"),
    (lambda c: c.arena.gradients(-2), IndexError, "there is no segment -2"),
    (lambda c: c.arena.put_values(zeros(6)), ValueError, "there are 5 live entries, got 6"),
    (lambda c: c.arena.put_gradients(zeros(4)), ValueError, "there are 5 live entries, got 4"),
    (lambda c: c.arena.live_segment(2), IndexError, "there is no segment 2"),
    (lambda c: c.arena.live_segment(-1), IndexError, "there is no segment -1"),
    (lambda c: c.arena.put_segment(2, zeros(2)), IndexError, "there is no segment 2"),
    (lambda c: c.arena.put_segment(0, zeros(4)), ValueError, "there are 3 live entries, got 4"),
    *((lambda c, sizes=sizes, name=name: getattr(c.arena, name)(*map(zeros, sizes)), ValueError,
       "a moment must be as long as the parameters, of which 5 live")
      for sizes in ((7, 5), (8, 6)) for name in ("collect_moment", "put_moment")),
    *((lambda c, sizes=sizes, count=count:
       c.arena.observe(zeros(sizes[0]), zeros(sizes[1]), zeros(sizes[2]), count), ValueError,
       "a moment must be as long as the parameters, and count at least 1")
      for sizes, count in (((7, 8, 8), 1), ((8, 9, 8), 1), ((8, 8, 7), 1), ((8, 8, 8), 0))),
    (lambda c: c.arena.observe(None, None, zeros(8), 1), TypeError,
     "a moment must be a NumPy array of float32, got NoneType"),
    (lambda c: c.arena.pack(zeros(9)), ValueError, "a moment must be as long as the parameters"),
    (lambda c: c.arena.unpack(zeros(7)), ValueError, "a moment must be as long as the parameters"),
    # a step
    (lambda c: step(c, clip=(0, None, False)), TypeError, "clip must be (stages, work, keep)"),
    (lambda c: step(c, clip=((), zeros(7), False)), ValueError, "work must have 8 entries, got 7"),
    (lambda c: step(c, clip=((STAGE,) * 9, None, False)), ValueError, "at most 8 clippers, got 9"),
    (lambda c: step(c, clip=((STAGE[:2],), None, False)), TypeError, "a stage must have 7 entries"),
    (lambda c: step(c, clip=((0,), None, False)), TypeError, "a stage must be a tuple"),
    (lambda c: step(c, clip=stage(settings=(1.0,) * 7)), ValueError,
     "a clipper has at most 6 settings, got 7"),
    (lambda c: step(c, clip=stage(settings=("1",))), TypeError, "must be real number, not str"),
    (lambda c: step(c, clip=stage(excluded=ones(3))), ValueError,
     "excluded must have 2 entries, got 3"),
    (lambda c: step(c, clip=stage(residual=zeros(9))), ValueError,
     "residual must have 8 entries, got 9"),
    (lambda c: step(c, clip=stage(state=zeros(3))), TypeError,
     "state must be of native float64, got dtype float32"),
    (lambda c: step(c, clip=stage(code=-1)), ValueError, "unknown clipper"),
    (lambda c: step(c, clip=stage(code=len(_core.clippers))), ValueError, "unknown clipper"),
    (lambda c: step(c, rule=RULE[:-1]), TypeError, "rule must have 16 entries"),
    (
        lambda c: step(c, rule=(*RULE[:-1], np.ones(9))),
        ValueError,
        "lr_scale must have one entry for each segment",
    ),
    (lambda c: step(c, rule=(-1, *RULE[1:])), ValueError, "unknown kind of rule"),
    (lambda c: step(c, rule=(len(_core.rules), *RULE[1:])), ValueError, "unknown kind of rule"),
    (lambda c: step(c, moments=[zeros(8)]), TypeError,
     "moments must be a tuple of at most 2 arrays"),
    (lambda c: step(c, moments=(zeros(8),) * 3), TypeError,
     "moments must be a tuple of at most 2 arrays"),
    (lambda c: step(c, moments=(zeros(8), zeros(7))), ValueError,
     "a moment must be as long as the parameters"),
    (lambda c: step(c, moments=(zeros(8), 0)), TypeError,
     "a moment must be a NumPy array of float32, got int"),
    (lambda c: step(c, norms=np.zeros(3)), ValueError,
     "norms must have one entry for each segment"),
    (lambda c: step(c, norms=zeros(2)), TypeError,
     "norms must be of native float64, got dtype float32"),
    (lambda c: step(c, moments=()), ValueError, "bad argument"),
    # layers
    (lambda c: _core.Net([1]), TypeError, "layers must be a list of tuples"),
    (lambda c: _core.Net([LAYERS[0][:3]]), TypeError,
     "a layer is (type, inputs, outputs, back, weight, bias, l1, l2, buffers, steps, settings)"),
    (lambda c: layer(c, type="dens"), ValueError,
     "layer 1 has an unknown type, 'dens', no features or no steps"),
    *((lambda c, name=name: layer(c, **{name: 0}), ValueError,
       "layer 1 has an unknown type, 'dense', no features or no steps")
      for name in ("inputs", "outputs", "steps")),
    (lambda c: layer(c, back=(-1,)), ValueError, "layer 1 reads layers that are not before it"),
    (lambda c: layer(c, back=("1",)), TypeError, "an integer is required"),
    (lambda c: layer(c, settings=(1,)), ValueError,
     "layer 1, of type dense, has 0 settings, got 1"),
    (lambda c: layer(c, type="activation", settings=("swish", 0.0)), ValueError,
     "layer 1, of type activation, knows no 'swish'"),
    (lambda c: layer(c, type="activation", settings=(1.5, 0.0)), ValueError,
     "layer 1, of type activation, cannot have the settings (1.5, 0.0)"),
    (lambda c: layer(c, type="activation", settings=(None, 0.0)), TypeError,
     "must be real number, not NoneType"),
    (lambda c: _core.Net([]), ValueError, "bad argument"),
    (lambda c: layer(c, inputs=3), ValueError, "bad argument"),
    # a frozen network
    (lambda c: _core.Frozen([], c.arena), ValueError, "bad argument"),
    (lambda c: _core.Frozen(LAYERS, c.arena, 2), ValueError, "bad argument"),
    (lambda c: _core.Frozen(LAYERS, c.arena, 1, (1,)), IndexError,
     "there is no layer 1 to keep in float32"),
    (lambda c: _core.Frozen(LAYERS, c.arena, 1, ("0",)), TypeError, "an integer is required"),
    *((lambda c, value=value: c.frozen.predict(with_bad(value, 40, 3)), ValueError,
       f"x[39, 1] is {value}: every value must be finite") for value in (NAN, np.inf, -np.inf)),
    (lambda c: c.frozen.predict(floats(2, 3), None, None), TypeError,
     "predict takes x and lengths, got 3 arguments"),
    (lambda c: c.frozen.predict(floats(2, 3), (np.int64([1, 4]), 3, 0)), ValueError,
     "bad argument"),
    # a network's batch
    (lambda c: backward(c, loss=()), ValueError, "unknown loss"),
    (lambda c: backward(c, loss=(-1,)), ValueError, "unknown loss"),
    (lambda c: backward(c, loss=(len(_core.losses),)), ValueError, "unknown loss"),
    (lambda c: backward(c, loss=("mse",)), TypeError,
     "'str' object cannot be interpreted as an integer|an integer is required"),
    (lambda c: backward(c, loss=(*MSE, 1.0)), ValueError, "mse takes 0 settings, got 1"),
    (lambda c: backward(c, loss=(CROSS_ENTROPY[0], "0", -100)), TypeError,
     "must be real number, not str"),
    (lambda c: backward(c, x=floats(2, 4)), ValueError, "x has 4 features, the network takes 3"),
    (lambda c: c.net.predict(c.arena, floats(2, 4), zeros(2, 2)), ValueError,
     "x has 4 features, the network takes 3"),
    (lambda c: backward(c, index=np.int64([0, 2])), IndexError, "index[1] is 2, x has 2 rows"),
    (lambda c: backward(c, index=np.int64([-1])), IndexError, "index[0] is -1, x has 2 rows"),
    (lambda c: backward(c, index=np.int64([])), ValueError, "the batch is empty"),
    (lambda c: backward(c, x=zeros(0, 3), y=zeros(0, 2)), ValueError, "the batch is empty"),
    (lambda c: backward(c, y=floats(2, 3)), ValueError,
     "y has 3 columns, the network gives 2"),
    (lambda c: backward(c, y=floats(3, 2)), ValueError, "x has 2 rows, y has 3"),
    (lambda c: backward(c, y=np.int64([0, 1, 1]), loss=CROSS_ENTROPY), ValueError,
     "x has 2 rows, y has 3"),
    (lambda c: backward(c, y=(np.int64([0]), floats(2, 2)), loss=DISTILLATION), ValueError,
     "x has 2 rows, y has 1"),
    (lambda c: backward(c, y=(LABELS, floats(4, 2)), loss=DISTILLATION), ValueError,
     "x has 2 rows, y has 4"),
    (lambda c: backward(c, y=LABELS, loss=DISTILLATION), TypeError, "y is (labels, values)"),
    (lambda c: backward(c, y=(LABELS,), loss=DISTILLATION), TypeError, "y is (labels, values)"),
    (lambda c: backward(c, weights=np.ones(3)), ValueError, "x has 2 rows, weights has 3"),
    (lambda c: c.net.predict(c.arena, floats(2, 3), zeros(2, 2), (np.int64([1]), 3, 0)),
     ValueError, "x has 2 rows, lengths has 1"),
    (lambda c: c.net.predict(c.arena, floats(2, 3), zeros(2, 2), [1, 2]), TypeError,
     "lengths is (lengths, steps, by_step)"),
    (lambda c: c.net.predict(c.arena, floats(2, 3), zeros(2, 2), (1,)), TypeError,
     "lengths is (lengths, steps, by_step)"),
    *((lambda c, bad=bad: c.net.predict(c.arena, floats(2, 3), zeros(2, 2), bad), ValueError,
       "bad argument")
      for bad in ((np.int64([1, 4]), 3, 0), (np.int64([1, 0]), 3, 0), (np.int64([1, 1]), 2, 0),
                  (np.int64([1, 1]), -1, 0), (np.int64([1, 1]), 3, 1))),
    (lambda c: backward(c, weights=np.zeros(2)), ValueError,
     ("no sample of the batch counts: the weights of its 2 samples sum to 0, or all of its labels "
      "are ignored")),
    (lambda c: backward(c, y=np.int64([0, 2]), loss=CROSS_ENTROPY), ValueError,
     "y[1] is 2: labels must be in 0..1, one for each output"),
    *((lambda c, value=value: backward(c, x=with_bad(value, 2, 3)), ValueError,
       f"x[1, 1] is {value}: every value must be finite") for value in (NAN, np.inf, -np.inf)),
    *((lambda c, value=value: backward(c, y=with_bad(value, 2, 2)), ValueError,
       f"y[1, 1] is {value}: every value must be finite") for value in (NAN, np.inf, -np.inf)),
    (lambda c: backward(c, y=LABELS, loss=(CROSS_ENTROPY[0], 1.5, -100)), ValueError,
     "bad argument"),
    (lambda c: c.net.evaluate(c.arena, with_bad(NAN, 2, 3), floats(2, 2), MSE, None), ValueError,
     "x[1, 1] is nan: every value must be finite"),
    (lambda c: c.net.predict(c.arena, with_bad(NAN, 2, 3), zeros(2, 2)), ValueError,
     "x[1, 1] is nan: every value must be finite"),
    (lambda c: c.net.predict(c.arena, floats(2, 3), zeros(2, 3)), ValueError,
     "out must be of shape (2, 2)"),
    (lambda c: c.net.evaluate(c.arena, floats(2, 3), floats(2, 2), MSE, zeros(3, 2)), ValueError,
     "out must be of shape (2, 2)"),
    # many steps
    (lambda c: train(c, sizes=(5,)), ValueError, "there must be as many sizes as learning rates"),
    (lambda c: train(c, sizes=[2, 3]), ValueError, "there must be as many sizes as learning rates"),
    (lambda c: train(c, sizes=(2, 4)), ValueError,
     "step 1 takes 4 samples, the index has 3 left"),
    (lambda c: train(c, sizes=(0, 5)), ValueError,
     "step 0 takes 0 samples, the index has 5 left"),
    (lambda c: train(c, sizes=(2, "3")), TypeError, "an integer is required"),
    (lambda c: train(c, rates=(0.1, "0.1")), TypeError, "must be real number, not str"),
    (lambda c: train(c, index=None), ValueError, "sizes without an index"),
    # a layer by itself
    *((lambda c, layers=layers: _core.Solo(layers, MASK), ValueError,
       "a layer by itself is one dense layer or convolution whose sizes go together")
      for layers in ([], [*LAYERS, CoreLayer("dense", 2, 2, weight=0)],
                     [CoreLayer("softmax", 2, 2)])),
    *((lambda c, n=n: _core.Solo(LAYERS, ones(n)), ValueError,
       f"mask must have 6 entries, got {n}") for n in (5, 7)),
    *((lambda c, n=n: forward_alone(values=floats(n)), ValueError,
       f"values must have 3 entries, got {n}") for n in (2, 4)),
    (lambda c: forward_alone(bias=floats(3)), ValueError, "bias must have 2 entries, got 3"),
    (lambda c: forward_alone(y=floats(2, 3)), ValueError, "y must have 4 entries, got 6"),
    (lambda c: forward_alone(x=floats(2, 4)), ValueError,
     "x must have samples of 3 numbers, got 8 in all"),
    *((lambda c, threads=threads: forward_alone(threads=threads), ValueError,
       f"threads must be at least 1, got {threads}") for threads in (0, -1)),
]  # fmt: skip

# What cannot be had by a call: the process would have to be started otherwise. See test_fork.py.
ELSEWHERE = {
    "GRADPRUNE_ISA is '%s'; this CPU can run %R",
    # in tests/layers/test_embedding.py
    "%s[%zu, %zu] is %R: every value must be a whole number from 0 to %zu",
}


def state_of(core: Core) -> list[Any]:
    """All that a refused call must leave alone."""
    arena = core.arena
    arrays = [arena.live_values(), arena.live_gradients(), core.frozen.predict(floats(3, 3))]
    assert all(array is not None for array in arrays)
    return [
        *(array.tobytes() for array in arrays if array is not None),
        arena.homes,
        arena.removed,
        _core.get_num_threads(),
    ]


@pytest.fixture
def core() -> Core:
    made = new_core()
    backward(made)
    return made


@pytest.mark.parametrize(
    ("call", "error", "message"), [pytest.param(*case, id=case[2][:60]) for case in CASES]
)
def test_refused(
    core: Core, call: Callable[[Core], Any], error: type[Exception], message: str
) -> None:
    before = state_of(core)
    with pytest.raises(error) as raised:
        call(core)
    assert type(raised.value) is error
    assert str(raised.value) in message.split("|")
    assert state_of(core) == before
    # No lock is held, and the objects work as new ones.
    twin = new_core()
    for each in (core, twin):
        backward(each)
        step(each)
    assert state_of(core) == state_of(twin)


def messages() -> Counter[tuple[str, str]]:
    """What the binding can say, with the exception, and in how many places."""
    found: Counter[tuple[str, str]] = Counter()
    literal = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    for path in BINDING.glob("*.c"):
        text = path.read_text(encoding="utf-8")
        raises = re.findall(rf"PyErr_(?:Format|SetString)\(\s*PyExc_(\w+),\s*{literal}", text)
        known = len(re.findall(r"PyErr_(?:Format|SetString)\(", text))
        assert known - len(raises) == len(re.findall(r"PyErr_SetString\(\w+, [a-z]", text)), path
        raises += [("TypeError", said) for said in re.findall(rf"gp_tuple\(\w+, {literal}\)", text)]
        for parsed in re.findall(rf"PyArg_ParseTuple\(\s*\w+,\s*{literal}", text):
            if ";" in parsed:  # it says what follows
                raises.append(("TypeError", '"' + parsed.partition(";")[2]))
        for error, strings in raises:
            found[error, re.sub(r'"\s*"|"\s*$|^"', "", strings)] += 1
    return found


def test_every_message_has_its_case() -> None:
    """As many different cases as places, so that no place can fall silent."""
    for (error, text), places in messages().items():
        if text in ELSEWHERE:
            continue
        pattern = re.sub(r"%(?:zu|zd|lld|d|s|S|R)", ".+", re.escape(text).replace(r"\%", "%"))
        cases = [
            said
            for _, kind, said in CASES
            if kind.__name__ == error and re.fullmatch(pattern, said)
        ]
        assert len(cases) >= places, f"{error}: {text}"


# ---- what is written to

Array = np.ndarray
# A call, and its arrays by name. Those with a ! are written to: of these alone the core takes none
# that is read-only.
TAKEN: list[tuple[Callable[..., Any], dict[str, Array]]] = [
    (lambda c, places: _core.uniform_at(places, 0, 0), {"places": ROWS}),
    (lambda c, places: _core.normal_at(places, 0, 0), {"places": ROWS}),
    (lambda c, keep: _core.subset_(keep, 1, 0, 0), {"keep!": ones(3)}),
    (lambda c, scores: _core.topk_mask(scores, 1), {"scores": zeros(3)}),
    (lambda c, values: _core.norm(values, 2.0), {"values": zeros(3)}),
    (lambda c, values: _core.scale_(values, 2.0), {"values!": zeros(3)}),
    (lambda c, values: _core.clamp_(values, 2.0), {"values!": zeros(3)}),
    (lambda c, *a: _core.mask_(*a), {"mask": ones(3), "values!": zeros(3)}),
    (
        lambda c, *a: _core.statistics_(*a, 1),
        {"grads": zeros(3), "mean!": zeros(3), "mean_square!": zeros(3)},
    ),
    (
        lambda c, *a: _core.warp(*a),
        {"images": zeros(1, 1, 3, 3), "maps": np.zeros((1, 6)), "out!": zeros(1, 1, 1, 1)},
    ),
    (
        lambda c, a, b, out: _core.gemm(a, False, b, out),
        {"a": zeros(2, 3), "b": zeros(1, 3, 16), "out!": zeros(1, 2, 16)},
    ),
    (
        lambda c, *a: _core.gemm_sum(*a),
        {"a": zeros(1, 2, 16), "b": zeros(1, 3, 16), "out!": zeros(2, 3)},
    ),
    (
        lambda c, *a: new_arena(*a),
        {"params!": floats(8) * MASK_OF_ALL, "grads!": zeros(8), "mask": MASK},
    ),
    (
        lambda c, mask, moment: c.arena.set_mask(mask, ALWAYS, (moment,)),
        {"mask": MASK, "a moment!": zeros(8)},
    ),
    (lambda c, live: c.arena.put_values(live), {"live": zeros(5)}),
    (lambda c, live: c.arena.put_gradients(live), {"live": zeros(5)}),
    (lambda c, live: c.arena.put_segment(0, live), {"live": zeros(3)}),
    (
        lambda c, *a: c.arena.collect_moment(*a),
        {"moment": zeros(8), "the live entries!": zeros(5)},
    ),
    (lambda c, *a: c.arena.put_moment(*a), {"a moment!": zeros(8), "live": zeros(5)}),
    (
        lambda c, *a: c.arena.observe(*a, 1),
        {"gradient": zeros(8), "a moment! 1": zeros(8), "a moment! 2": zeros(8)},
    ),
    (lambda c, moment: c.arena.pack(moment), {"a moment!": zeros(8)}),
    (lambda c, moment: c.arena.unpack(moment), {"a moment!": zeros(8)}),
    (
        lambda c, first, second, norms: step(c, moments=(first, second), norms=norms),
        {"a moment! 1": zeros(8), "a moment! 2": zeros(8), "norms!": np.zeros(2)},
    ),
    (
        lambda c, excluded, work: step(c, clip=(stage(excluded=excluded)[0], work, False)),
        {"excluded": np.zeros(2, np.uint8), "work!": zeros(8)},
    ),
    (lambda c, state: step(c, clip=stage(state=state)), {"state!": np.zeros(2)}),
    (lambda c, residual: step(c, clip=stage(residual=residual)), {"residual!": zeros(8)}),
    (
        backward,
        {"x": floats(2, 3), "y": floats(2, 2), "index": ROWS},
    ),
    (lambda c, weights: backward(c, weights=weights), {"weights": np.ones(2)}),
    (lambda c, y: backward(c, y=y, loss=CROSS_ENTROPY), {"y": LABELS}),
    (lambda c, index: train(c, index=index), {"index": ROWS}),
    (lambda c, *a: c.net.predict(c.arena, *a), {"x": floats(2, 3), "out!": zeros(2, 2)}),
    (
        lambda c, x, y, out: c.net.evaluate(c.arena, x, y, MSE, out),
        {"x": floats(2, 3), "y": floats(2, 2), "out!": zeros(2, 2)},
    ),
    (lambda c, x: c.frozen.predict(x), {"x": floats(2, 3)}),
    (
        lambda c, lengths: c.frozen.predict(floats(2, 3), (lengths, 3, 0)),
        {"lengths": np.ones(2, np.int64)},
    ),
    (lambda c, mask: _core.Solo(LAYERS, mask), {"mask": MASK}),
    (
        lambda c, *a: _core.Solo(LAYERS, MASK).forward(*a, 1),
        {"values": zeros(3), "bias": zeros(2), "x": floats(2, 3), "y!": zeros(2, 2)},
    ),
    (
        lambda c, *a: _core.Solo(LAYERS, MASK).backward(*a, 1),
        {"values": zeros(3), "x": floats(2, 3), "dy": floats(2, 2)}
        | {"dx!": zeros(2, 3), "dvalues!": zeros(3), "dbias!": zeros(2)},
    ),
]


@pytest.mark.parametrize(
    ("call", "arrays", "name"),
    [
        pytest.param(call, arrays, name, id=f"{place}-{name}")
        for place, (call, arrays) in enumerate(TAKEN)
        for name in arrays
    ],
)
def test_only_what_is_written_to_must_be_writable(
    core: Core, call: Callable[..., Any], arrays: dict[str, Array], name: str
) -> None:
    copies = {other: array.copy() for other, array in arrays.items()}
    copies[name] = read_only(copies[name])
    said, is_written, _ = name.partition("!")
    if is_written:
        with pytest.raises(ValueError, match=f"^{said} is read-only$"):
            call(core, *copies.values())
    else:
        call(core, *copies.values())
        assert copies[name].tobytes() == arrays[name].tobytes()


# ---- what is given back


def attempts() -> list[Callable[[Core], Any]]:
    """Calls that allocate, whose own arguments are there before."""
    x, y, out = floats(2, 3), floats(2, 2), zeros(2, 2)
    moments, mask = (zeros(8), zeros(8)), ones(6)
    arrays = (floats(8) * MASK_OF_ALL, zeros(8), MASK)
    clip = stage()
    return [
        lambda c: _core.Arena(*arrays, SEGMENTS, ALWAYS),
        lambda c: _core.Net(LAYERS),
        lambda c: _core.Frozen(LAYERS, c.arena, 0, (0,)),
        lambda c: c.arena.values(-1),
        lambda c: c.arena.gradients(0),
        lambda c: c.arena.homes,
        lambda c: c.arena.set_mask(mask, ALWAYS, moments),
        lambda c: c.arena.live_values(),
        lambda c: c.arena.live_segment(0),
        lambda c: _core.uniform_at(ROWS, 0, 0),
        lambda c: c.arena.step(clip, RULE, moments, None),
        lambda c: c.net.train(
            c.arena, x, y, ROWS, MSE, 0, 0, clip, RULE, moments, None, (0.1, 0.1), (2, 3), 1e9
        ),
        lambda c: c.net.evaluate(c.arena, x, y, MSE, out),
        lambda c: c.net.fault(c.arena),
        lambda c: c.net.needs,
        lambda c: c.frozen.predict(x),
        lambda c: c.frozen.describe(0),
        lambda c: _core.default_costs(),
        lambda c: _core.isas(),
        lambda c: _core.topk_mask(out[0], 1),
    ]


def refusals() -> list[Callable[[Core], Any]]:
    def fails(call: Callable[[Core], Any], error: type[Exception]) -> Callable[[Core], Any]:
        def run(core: Core) -> None:
            with pytest.raises(error):
                call(core)

        return run

    # NumPy itself keeps some memory for each name of a dtype that it makes.
    return [fails(call, error) for call, error, text in CASES if "dtype" not in text]


def kept_by(call: Callable[[Core], Any], repeats: int) -> list[Any]:
    """Where some memory is left for each of so many calls, as Python's allocators count it."""
    snapshots = []
    gc.collect()
    tracemalloc.start()
    try:
        for rounds in (1, repeats):
            for _ in range(rounds):
                call(new_core())
            gc.collect()
            snapshots.append(tracemalloc.take_snapshot())
    finally:
        tracemalloc.stop()
    found = snapshots[1].compare_to(snapshots[0], "lineno")
    return [
        each
        for each in found
        if each.count_diff >= repeats and each.traceback[0].filename == __file__
    ]


@pytest.mark.parametrize("calls", [attempts, refusals])
def test_nothing_is_kept(calls: Callable[[], list[Callable[[Core], Any]]]) -> None:
    """What the binding allocates, locks among it, goes with its object, and when it refuses."""
    listed = calls()

    def call_all(core: Core) -> None:
        for call in listed:
            call(core)

    call_all(new_core())  # caches, such as those of exceptions' texts
    assert kept_by(call_all, 10) == []


def test_every_allocation_may_fail() -> None:
    """Each of Python's in turn: MemoryError, and nothing is kept; then the call succeeds."""
    testcapi: Any = pytest.importorskip("_testcapi")

    def fail(call: Callable[[Core], Any], core: Core) -> int:
        """How many allocations there are, each of which has failed once."""
        for allowed in range(100):
            try:
                testcapi.set_nomemory(allowed, allowed + 1)
                call(core)
            except MemoryError:
                testcapi.remove_mem_hooks()
                backward(core)  # it works, and no lock is held
            else:
                return allowed
            finally:
                testcapi.remove_mem_hooks()
        raise AssertionError("there is no end of allocations")

    calls = attempts()
    assert sum(fail(call, new_core()) for call in calls) > 20

    def fail_all(_: Core) -> None:
        for call in calls:
            fail(call, new_core())

    assert kept_by(fail_all, 5) == []


class Owned(np.ndarray):
    """An array that may know who uses it."""

    owner: _core.Arena


@pytest.mark.parametrize("which", ["params", "grads", "mask"])
def test_the_collector_sees_through_an_arena(which: str) -> None:
    """An arena and an array that refer to each other go when nobody else does."""
    arrays = {"params": zeros(8), "grads": zeros(8), "mask": MASK.copy()}
    array = arrays[which] = arrays[which].view(Owned)
    array.owner = new_arena(**arrays)
    gone = weakref.ref(array)
    del array, arrays
    gc.collect()
    assert gone() is None


# ---- the module


def test_the_number_of_threads_is_read_back() -> None:
    before = _core.get_num_threads()
    try:
        for threads in (1, 3, 256, 2):
            _core.set_num_threads(threads)
            assert _core.get_num_threads() == threads
    finally:
        _core.set_num_threads(before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc lists threads")
def test_calls_use_as_many_threads_as_were_set() -> None:
    script = """
import os
import numpy as np
from gradprune import _core
a, b = np.ones((256, 256), np.float32), np.ones((8, 256, 64), np.float32)
before = len(os.listdir("/proc/self/task"))
for threads in (1, 2, 4):
    _core.set_num_threads(threads)
    _core.gemm(a, False, b, np.empty((8, 256, 64), np.float32))
    print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert found.split() == ["0", "1", "3"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc lists threads")
def test_threads_end_with_their_module() -> None:
    script = """
import gc, importlib.util, os
import numpy as np
import gradprune

before = len(os.listdir("/proc/self/task"))
path = gradprune._core.__file__
spec = importlib.util.spec_from_file_location("gradprune._core", path)
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
core.set_num_threads(3)
core.gemm(np.ones((256, 256), np.float32), False, np.ones((8, 256, 64), np.float32),
          np.empty((8, 256, 64), np.float32))
print(len(os.listdir("/proc/self/task")) - before)
del core
gc.collect()
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert found.split() == ["2", "0"]


def test_tables_are_the_files_of_their_folders() -> None:
    sources = BINDING.parent
    for name in ("clippers", "losses"):
        files = sorted(path.stem for path in (sources / name).glob("*.c"))
        assert list(getattr(_core, name)) == files
    assert list(_core.layer_types) == sorted(path.stem for path in (sources / "layers").glob("*.c"))
    assert [code for code, _, _ in _core.clippers.values()] == list(range(len(_core.clippers)))
    for codes in (_core.losses, _core.rules):
        assert list(codes.values()) == list(range(len(codes)))
    assert importlib.import_module("gradprune").__version__ == _core.version
