"""What is written where the mask removes a weight reaches nothing.

The views are live and writable, so anything may stand in a removed place until the next call. Of
two equal models one gets junk there, through views that are held; whatever is asked of both must
give the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.engine.replicas import replicate
from pruning_models import CRITERIA

JUNK = (7.0, math.nan, -math.inf)
rng = np.random.default_rng(0)
X = rng.standard_normal((40, 12)).astype(np.float32)
Y = rng.integers(0, 5, 40)


def made(share: float) -> gp.Model:
    """A model that was trained with masks: optimizer with moments, gradients, a pruner."""
    layers = [gp.Dense(16, activation="relu"), gp.Dense(8, activation="tanh"), gp.Dense(5)]
    model = gp.Model(layers, input_shape=12, seed=3)
    keep = np.random.default_rng(1)
    model.set_masks({n: keep.random(mask.shape) >= share for n, mask in model.masks.items()})
    optimizer = gp.Adam(model, lr=0.01, clip=gp.ClipNorm(1.0))
    for _ in range(3):
        model.train_step(X, Y, optimizer=optimizer)
    model.backward(X, Y)
    return model


def spoil(model: gp.Model, junk: float) -> list[Any]:
    """Junk in every removed place; the views are returned, for somebody to hold."""
    views = []
    for mapping in (model.parameters, model.gradients):
        for name, mask in model.masks.items():
            views.append(mapping[name])
            views[-1][~mask] = junk
    return views


def whole(model: gp.Model) -> list[bytes]:
    """Everything a model has, bit by bit."""
    state = [array.tobytes() for array in (*model.parameters.values(), *model.gradients.values())]
    assert model.optimizer is not None
    return [*state, *(moment.tobytes() for moment in model.optimizer.moments)]


def everything_kept(model: gp.Model) -> Any:
    removed = {name: ~mask for name, mask in model.masks.items()}
    model.set_masks({name: np.ones_like(mask) for name, mask in removed.items()})
    for name, gone in removed.items():
        assert not model.parameters[name][gone].any(), name
        assert not model.gradients[name][gone].any(), name
    return whole(model)


def a_step_of_what_came_back(model: gp.Model) -> Any:
    everything_kept(model)
    assert model.optimizer is not None
    model.train_step(X, Y, optimizer=model.optimizer)
    return whole(model)


def file(model: gp.Model, tmp_path: Path) -> Any:
    model.save(tmp_path / "model.safetensors")
    return (tmp_path / "model.safetensors").read_bytes()


def packed(model: gp.Model, tmp_path: Path) -> Any:
    gp.compress(model).save(tmp_path / "model.gpz")
    return (tmp_path / "model.gpz").read_bytes()


def frozen(model: gp.Model) -> Any:
    forms = [model.freeze(precision=precision) for precision in ("float32", "int8")]
    return [form.predict(X).tobytes() for form in forms], [str(form) for form in forms]


def passes(model: gp.Model) -> Any:
    outputs = model.predict(X)
    value = model.backward(X, Y)
    assert model.optimizer is not None
    info = model.optimizer.step()
    return outputs.tobytes(), value, info, whole(model)


def a_step_on_the_gradient(model: gp.Model) -> Any:
    assert model.optimizer is not None
    return model.optimizer.step(), whole(model)


def shrunk(model: gp.Model) -> Any:
    small = model.shrink()
    return whole(small), str(small.shrink_report)


def exchanged(regrowth: Any) -> Callable[[gp.Model], Any]:
    def regrow(model: gp.Model) -> Any:
        pruner = gp.Pruner(
            model, criterion=gp.Magnitude(), regrowth=regrowth, probe_data=(X, Y), seed=5
        )
        report = pruner.step()
        assert report is not None
        return str(report), whole(model)

    return regrow


def pruned(criterion: Any) -> Callable[[gp.Model], Any]:
    def prune(model: gp.Model) -> Any:
        pruner = gp.Pruner(model, criterion=criterion, probe_data=(X, Y))
        pruner.step()
        return str(pruner.prune(count=10, data=(X, Y))), whole(model)

    return prune


def rewound(model: gp.Model) -> Any:
    start = gp.pruning.Rewind(model)
    everything_kept(model)
    start.restore()
    return whole(model)


def best_restored(model: gp.Model) -> Any:
    stopping = gp.callbacks.EarlyStopping(monitor="loss", restore_best=True)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[stopping])
    everything_kept(model)
    return whole(model)


def averaged(model: gp.Model) -> Any:
    mean = gp.callbacks.WeightAveraging()
    context: Any = SimpleNamespace(model=model)
    mean.on_train_begin(context)
    mean.on_epoch_end(context)
    mean.on_train_end(context)
    return whole(model)


def quantized(scheme: Any) -> Callable[[gp.Model], Any]:
    def quantize(model: gp.Model) -> Any:
        report = gp.Quantizer(model, scheme).quantize()
        return str(report), whole(model)

    return quantize


def corrected(model: gp.Model) -> Any:
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    return str(pruner.prune(count=8, data=(X, Y), correct=gp.pruning.LeastSquares())), whole(model)


def reports(model: gp.Model) -> Any:
    return (
        str(model.summary()),
        str(gp.diagnose(model, X, Y)),
        str(gp.sensitivity(model, X, Y, sparsities=(0.5,))),
        str(model.evaluate(X, Y)),
        gp.verify(model, model.freeze(), model.shrink(), gp.compress(model), x=X).errors,
    )


def exploded(model: gp.Model) -> Any:
    return str(gp.explode(model, X, Y, max_steps=3, epsilon=0.5)), whole(model)


def copied(model: gp.Model) -> Any:
    twin = replicate(model)
    return [array.tobytes() for array in twin.parameters.values()]


def norms(model: gp.Model) -> Any:
    arrays = list(model.gradients.values())
    return gp.clip_grad_norm_(arrays, 0.1), whole(model)


USES: dict[str, Callable[..., Any]] = {
    "set_masks": everything_kept,
    "set_masks and a step": a_step_of_what_came_back,
    "save": file,
    "compress": packed,
    "freeze": frozen,
    "passes": passes,
    "step": a_step_on_the_gradient,
    "shrink": shrunk,
    "SET": exchanged(gp.SET(every=1, stop=9)),
    "RigL": exchanged(gp.RigL(every=1, stop=9)),
    "Rewind": rewound,
    "EarlyStopping": best_restored,
    "WeightAveraging": averaged,
    "Codebook": quantized(gp.Codebook(4)),
    "Grid": quantized(gp.Grid(bits=4)),
    "LeastSquares": corrected,
    "reports": reports,
    "explode": exploded,
    "replicate": copied,
    "norms": norms,
    **{str(criterion): pruned(criterion) for criterion in CRITERIA},
}


@pytest.mark.parametrize("share", [0.4, 0.9])  # whole matrices and lists of live weights
@pytest.mark.parametrize("use", USES)
def test_junk_in_removed_places_reaches_nothing(use: str, share: float, tmp_path: Path) -> None:
    ask = USES[use]
    places = (tmp_path,) if ask in (file, packed) else ()
    expected = ask(made(share), *places)
    for junk in JUNK:
        for holds in (True, False):
            model = made(share)
            held = spoil(model, junk)
            if not holds:
                held.clear()
            assert ask(model, *places) == expected, junk


def test_a_removed_weight_that_was_written_into_comes_back_as_0() -> None:
    model = gp.Model([gp.Dense(2)], input_shape=2, seed=0)
    view, gradient = model.parameters["dense0.weight"], model.gradients["dense0.weight"]
    model.set_mask("dense0.weight", [[1, 0], [1, 1]])
    view[0, 1] = gradient[0, 1] = 7.0
    model.set_mask("dense0.weight", [[1, 1], [1, 1]])
    assert view[0, 1] == gradient[0, 1] == 0.0


def test_a_moment_that_was_written_into_comes_back_as_0() -> None:
    for share in (0.4, 0.9):
        model = made(share)
        assert model.optimizer is not None
        gone = np.flatnonzero(model.arena.mask == 0)
        for moment in model.optimizer.core_moments:
            model.arena.core.unpack(moment)
            moment[gone] = 7.0
            model.arena.core.pack(moment)
        for moment in model.optimizer.moments:
            assert not moment[gone].any()
        everything_kept(model)
        for moment in model.optimizer.moments:
            assert not moment[gone].any()


def test_a_new_sight_of_the_parameters_shows_what_counts() -> None:
    model = made(0.4)
    spoil(model, math.nan)
    for mapping in (model.parameters, model.gradients, model.arena.state):
        for name, mask in model.masks.items():
            assert not mapping[name][~mask].any()
    spoil(model, math.nan)
    gone = np.flatnonzero(model.arena.mask == 0)
    assert not model.arena.params[gone].any()
    spoil(model, math.nan)
    assert not model.arena.grads[gone].any()


@pytest.mark.parametrize("scheme", [gp.Grid(bits=3), gp.Codebook(5, ste=True)])
def test_the_float_weight_behind_a_quantized_one_goes_with_it(scheme: Any) -> None:
    """Removed and kept again before anything looks; that it is quantized to 0 must not matter."""
    model = made(0.4)
    assert model.optimizer is not None
    quantizer = gp.Quantizer(model, scheme)
    quantizer.quantize()
    model.train_step(X, Y, optimizer=model.optimizer)
    name = "dense0.weight"
    values, mask = model.parameters[name], model.masks[name].copy()
    nearest = np.abs(values[mask]).min()  # what a weight that is back becomes
    gone = mask & (np.abs(values) == nearest)
    assert gone.sum() > 10
    model.set_mask(name, mask & ~gone)
    model.set_mask(name, mask)
    latents = [a for key, a in quantizer.tensors().items() if key.endswith("latent")]
    assert any(latent.any() for latent in latents)
    assert not latents[0][: values.size].reshape(values.shape)[gone].any()
