"""Diagnosis: do gradients explode or vanish, are units dead or saturated, and what may help.

One pass over a batch is recomputed in NumPy and double precision (`gradprune/engine/tracing.py`),
because the engine does not return activations. The next step of the optimizer is taken on a copy,
and the model itself is only read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.analysis.measures import norm, ratio, rms, sample_norm, spectral_norm
from gradprune.engine.network import Network
from gradprune.engine.replicas import replicate
from gradprune.engine.summary import summarize
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.layers.base import Layer
from gradprune.losses.base import LossLike
from gradprune.optim.guards import Skip
from gradprune.quantization.quantizer import Quantizer
from gradprune.state.locking import locked

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from gradprune.engine.tracing import Trace

__all__ = ["Diagnosis", "LayerDiagnosis", "ParameterDiagnosis", "diagnose"]

Doubles = NDArray[np.floating[Any]]

GROWTH_LIMIT = 100.0  # from one end of the network, or of time, to the other
IDLE_LIMIT = 0.5  # share of a layer that is dead or saturated
UPDATE_LIMIT = 0.1  # a step that moves weights by more of their norm
SATURATED = 0.99  # |tanh|, or 2 sigmoid - 1 in absolute value, beyond it


@dataclass(frozen=True)
class LayerDiagnosis:
    """The measurements of a layer.

    Here B is the number of samples, a the output of the layer, l_b the loss of sample b, and rms
    the root mean square.

    Attributes:
        name, kind: as in ``model.summary()``.
        activation: rms of a.
        activation_growth: rms(a) / rms(input).
        gradient: sqrt(mean_b ||dl_b/da_b||^2).
        gradient_growth: ``gradient`` at the layer's input / ``gradient`` at its output: how much
            the layer's Jacobian lengthens the gradient in the backward pass.
        dead: share of the units that are 0 for all samples (and time steps); None unless relu.
        saturated: share of the activations beyond 0.99 of their limits; None unless tanh or
            sigmoid.
        activation_steps, gradient_steps: for a recurrent layer, ``activation`` and ``gradient`` of
            its state at each time step (h, and for an LSTM also c); the gradient includes all
            paths from the state to the loss. Empty for other layers.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> diagnosis = gp.diagnose(model, [[1.0, 2.0, 3.0]], [1])
    >>> [(layer.name, layer.kind) for layer in diagnosis.layers]
    [('dense0', 'Dense, relu'), ('dense1', 'Dense')]
    """

    name: str
    kind: str
    activation: float
    activation_growth: float
    gradient: float
    gradient_growth: float
    dead: float | None = None
    saturated: float | None = None
    activation_steps: tuple[float, ...] = ()
    gradient_steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class ParameterDiagnosis:
    """The measurements of a parameter.

    Attributes:
        name: as in ``model.parameters``.
        norm: its Euclidean norm.
        spectral_norm: the largest singular value of the parameter as a matrix (outputs, inputs);
            None for a bias.
        gradient_norm: the norm of its gradient.
        update_ratio: norm of the optimizer's next step / norm; None without an optimizer, or if
            the norm is 0.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> diagnosis = gp.diagnose(model, [[1.0, 2.0, 3.0]], [1])
    >>> [row.name for row in diagnosis.parameters if row.norm > 0]
    ['dense0.weight', 'dense1.weight']
    """

    name: str
    norm: float
    spectral_norm: float | None
    gradient_norm: float
    update_ratio: float | None


@dataclass(frozen=True, repr=False)
class Diagnosis(Displayed):
    """The result of ``gp.diagnose``; ``print`` shows tables and advice.

    Attributes:
        loss: the mean loss, penalties included.
        samples: the number of samples in the batch.
        gradient_norm: the norm of the gradient of all parameters.
        activation_growth: rms of the last layer's input / rms of the first layer's input.
        gradient_growth: gradient of the first layer's input / that of the last layer's output:
            the product of the layers' growths.
        layers: from input to output.
        parameters: in forward order.
        lr: the learning rate of the optimizer's next step, or None.
        findings: "exploding", "vanishing", "dead", "saturated", "large step", "not finite"; or
            nothing.
        advice: a sentence or two for each finding, or one that all is well.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> diagnosis = gp.diagnose(model, [[1.0, 2.0, 3.0]], [1])
    >>> diagnosis.samples, diagnosis.lr
    (1, None)
    >>> len(diagnosis.layers), len(diagnosis.parameters)
    (2, 4)
    """

    loss: float
    samples: int
    gradient_norm: float
    activation_growth: float
    gradient_growth: float
    layers: tuple[LayerDiagnosis, ...]
    parameters: tuple[ParameterDiagnosis, ...]
    lr: float | None
    overflow: str | None = None  # the first layer with an output beyond float32

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of what is wrong, such as "exploding", to test for."""
        return tuple(dict.fromkeys(finding for finding, _ in _examine(self)))

    @property
    def advice(self) -> list[str]:
        """Sentences that say what is wrong and what may help."""
        sentences = [sentence for _, sentence in _examine(self)]
        return sentences or [
            (
                f"Healthy: from output to input the gradient changes by a factor of "
                f"{_number(self.gradient_growth)}, and few units are dead or saturated."
            )
        ]

    def plot(self, *, figure: Figure | SubFigure | None = None) -> Figure:
        """See ``gp.plotting.plot_diagnosis``."""
        from gradprune.plotting.diagnosis import plot_diagnosis

        return plot_diagnosis(self, figure=figure)

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        layers = [
            (
                row.name,
                row.kind,
                _number(row.activation),
                _number(row.activation_growth),
                _number(row.gradient),
                _number(row.gradient_growth),
                _share(row.dead),
                _share(row.saturated),
            )
            for row in self.layers
        ]
        parameters = [
            (
                row.name,
                _number(row.norm),
                _number(row.spectral_norm),
                _number(row.gradient_norm),
                _number(row.update_ratio),
            )
            for row in self.parameters
        ]
        return [
            (
                f"loss {_number(self.loss)} of {self.samples:,} samples, "
                f"gradient norm {_number(self.gradient_norm)}"
            ),
            Table(_LAYER_COLUMNS, layers, words={0, 1}),
            Table(_PARAMETER_COLUMNS, parameters),
            *self.advice,
        ]


_LAYER_COLUMNS = (
    "layer",
    "type",
    "activation",
    "growth",
    "gradient",
    "growth back",
    "dead",
    "saturated",
)
_PARAMETER_COLUMNS = ("parameter", "norm", "spectral norm", "gradient norm", "step / norm")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


# ---- measuring ---------------------------------------------------------------------------------


@locked
def diagnose(
    model: Network, x: ArrayLike, y: ArrayLike | None, *, loss: LossLike | None = None
) -> Diagnosis:
    """Measure activations, gradients, weights and the next step on a batch.

    Activations and gradients are recomputed in NumPy and double precision, with the dropout that
    the next training pass would draw. The update is that of the model's optimizer with its moments
    and clipping, taken on a copy. Parameters, gradients, moments and counters of the model
    stay as they are, to the bit. A few hundred samples are enough.

    Args:
        model: any network; its last optimizer, if any, takes the step.
        x: (n, *input_shape) real numbers, all finite.
        y: targets, as for ``model.backward``.
        loss: as for ``model.backward``.

    Returns:
        The diagnosis: numbers, ``advice``, ``plot()``; ``print`` shows it.

    Raises:
        TypeError, ValueError: an argument is not as above.

    >>> import gradprune as gp
    >>> (x, y), _ = gp.datasets.digits()
    >>> deep = [
    ...     gp.Dense(50, activation="relu", initializer=gp.initializers.He(3.0)) for _ in range(12)
    ... ]
    >>> model = gp.Model([*deep, gp.Dense(10)], input_shape=64, seed=0)
    >>> diagnosis = gp.diagnose(model, x[:200], y[:200])
    >>> "exploding" in diagnosis.findings
    True
    """
    from gradprune.engine.tracing import live_values, trace  # with the oracle: for those who ask

    run = trace(model, x, y, loss=loss)
    kinds = {row.name: row.kind for row in summarize(model).layers}
    layers = tuple(
        _layer(model, i, run, kinds[str(layer.name)]) for i, layer in enumerate(model.layers)
    )
    ratios = _update_ratios(model, x, y, loss)
    with np.errstate(all="ignore"):
        parameters = tuple(
            ParameterDiagnosis(
                name,
                norm(values),
                spectral_norm(values) if values.ndim > 1 else None,
                norm(run.gradients[name]),
                ratios.get(name),
            )
            for name, values in live_values(model).items()
        )
        largest = float(np.finfo(np.float32).max)
        overflow = next(
            (
                row.name
                for row, done in zip(layers, run.layers, strict=True)
                if not np.abs(done.output).max() <= largest
            ),
            None,
        )
    return Diagnosis(
        loss=run.loss,
        samples=len(run.inputs[0]),
        gradient_norm=math.hypot(*(row.gradient_norm for row in parameters)),
        activation_growth=ratio(rms(run.inputs[-1]), rms(run.inputs[0])),
        gradient_growth=ratio(sample_norm(run.dinput), sample_norm(run.doutputs[-1])),
        layers=layers,
        parameters=parameters,
        lr=None if model.optimizer is None else model.optimizer.lr,
        overflow=overflow,
    )


def _layer(model: Network, i: int, run: Trace, kind: str) -> LayerDiagnosis:
    layer, done, back = model.layers[i], run.layers[i], run.backward[i]
    states, dstates = done.states, back.dstates
    with np.errstate(all="ignore"):
        dead, saturated = _idle_units(layer, states)
        is_series = states.ndim == 3
        return LayerDiagnosis(
            name=str(layer.name),
            kind=kind,
            activation=rms(done.output),
            activation_growth=ratio(rms(done.output), rms(run.inputs[i])),
            gradient=sample_norm(run.doutputs[i]),
            gradient_growth=ratio(sample_norm(back.dx), sample_norm(run.doutputs[i])),
            dead=dead,
            saturated=saturated,
            activation_steps=_steps(states, rms) if is_series else (),
            gradient_steps=_steps(dstates, sample_norm) if is_series else (),
        )


def _steps(series: Doubles, measure: Callable[[Doubles], float]) -> tuple[float, ...]:
    return tuple(measure(series[:, t]) for t in range(series.shape[1]))


def _idle_units(layer: Layer, states: Doubles) -> tuple[float | None, float | None]:
    """(share of dead units, share of saturated activations), None where it makes no sense."""
    function = layer.activation_name
    if function in ("relu", "relu6"):
        units = np.moveaxis(states, 1, -1) if states.ndim == 4 else states  # of images: channels
        units = units.reshape(-1, units.shape[-1])
        return float(np.mean(~(units != 0).any(axis=0))), None
    if function == "tanh":
        return None, float(np.mean(np.abs(states) > SATURATED))
    if function == "sigmoid":
        return None, float(np.mean(np.abs(2 * states - 1) > SATURATED))
    return None, None


@locked
def _update_ratios(
    model: Network, x: ArrayLike, y: ArrayLike | None, loss: LossLike | None
) -> dict[str, float]:
    """Name to norm of the next step / norm; a step on a copy of model and optimizer."""
    optimizer = model.optimizer
    if optimizer is None:
        return {}
    twin = replicate(model)
    twin.set_masks(model.masks)
    stepper = type(optimizer)(
        twin, **optimizer.settings(), clip=optimizer.clip, guard=Skip(limit=2**62)
    )
    stepper.load_moments(optimizer.moments)
    stepper.load_state(optimizer.state())
    stepper.chain.load(optimizer.chain.tensors())
    quantizer = model.quantizer
    if isinstance(quantizer, Quantizer):
        Quantizer(
            twin, quantizer.weights, exclude=quantizer.exclude, biases=quantizer.biases
        ).load_state(quantizer.state(), quantizer.tensors())
    twin.backward(x, y, loss=loss)
    before = {name: values.copy() for name, values in twin.parameters.items()}
    if not stepper.step().applied:
        return {}
    return {
        name: norm(values.astype(np.float64) - before[name]) / norm(before[name])
        for name, values in twin.parameters.items()
        if before[name].any()
    }


# ---- advice ------------------------------------------------------------------------------------

Findings = Iterator[tuple[str, str]]  # a word to test for, and sentences to read

_GAIN = "(gain 1 of gp.initializers.He() for relu, of Glorot() or Orthogonal() for others)"


def _examine(found: Diagnosis) -> Findings:
    """All that looks wrong."""
    yield from _not_finite(found)
    yield from _through_layers(found)
    yield from _through_time(found)
    yield from _idle(found)
    yield from _large_steps(found)


def _not_finite(found: Diagnosis) -> Findings:
    if found.overflow is not None:
        text = (
            f"Not finite: the output of {found.overflow} is beyond float32. Nothing can be learned "
            f"before the weights are drawn anew with a smaller gain {_GAIN}."
        )
        yield "not finite", text
    elif not (math.isfinite(found.loss) and math.isfinite(found.gradient_norm)):
        yield "not finite", "Not finite: the loss or a gradient is NaN or infinite."


def _through_layers(found: Diagnosis) -> Findings:
    depth = max(sum(row.gradient_growth != 1 for row in found.layers), 1)
    texts: dict[str, list[str]] = {"exploding": [], "vanishing": []}
    means = []
    for growth, what, each in (
        (found.gradient_growth, "from output to input the gradient", "gradient_growth"),
        (found.activation_growth, "from input to output the activation", "activation_growth"),
    ):
        rows = [(getattr(row, each), row.name) for row in found.layers]
        rows = [row for row in rows if math.isfinite(row[0])]
        if not rows or not (growth > GROWTH_LIMIT or growth < 1 / GROWTH_LIMIT):
            continue
        explodes = growth > GROWTH_LIMIT
        worst, name = max(rows) if explodes else min(rows)
        means.append(growth ** (1 / depth))
        texts["exploding" if explodes else "vanishing"].append(
            f"{what} {'grows' if explodes else 'shrinks'} by a factor of {_number(growth)}, "
            f"{_number(means[-1])} a layer, most in {name} ({_number(worst)})"
        )
    if texts["exploding"]:
        remedy = (
            f"The gain of the weights is too large: divide it by {_number(max(means))} {_GAIN}, "
            "clip by clip=gp.ClipNorm(1.0), lower lr."
        )
        yield "exploding", f"Exploding: {', and '.join(texts['exploding'])}. {remedy}"
    if texts["vanishing"]:
        remedy = "Nothing gets through: look for dead units, or weights that are all 0."
        if min(means) > 0:
            remedy = (
                "The gain of the weights is too small: multiply it by "
                f"{_number(1 / min(means))} {_GAIN}, or use fewer layers. Clipping does not help."
            )
        yield "vanishing", f"Vanishing: {', and '.join(texts['vanishing'])}. {remedy}"


def _through_time(found: Diagnosis) -> Findings:
    for row in found.layers:
        steps = len(row.gradient_steps)
        growth = ratio(row.gradient_steps[0], row.gradient_steps[-1]) if steps else 1.0
        change = f"over {steps} steps back the gradient of {row.name} changes by a factor of "
        if growth > GROWTH_LIMIT:
            text = (
                f"Exploding in time: {change}{_number(growth)}. Draw its recurrent weights with "
                "gp.initializers.Orthogonal(), clip by clip=gp.ClipNorm(1.0), or shorten its "
                "truncation."
            )
            yield "exploding", text
        elif growth < 1 / GROWTH_LIMIT:
            remedy = (
                "gp.GRU or gp.LSTM, recurrent weights of gp.initializers.Orthogonal(), or omega"
                if row.kind.startswith("RNN")
                else "a larger forget_bias (LSTM), or shorter series"
            )
            text = (
                f"Vanishing in time: {change}{_number(growth)}, so what came first is hardly "
                f"learned. Use {remedy}."
            )
            yield "vanishing", text


def _idle(found: Diagnosis) -> Findings:
    def those(role: str) -> str:
        """The layers where the share is too large, in words."""
        shares = [(getattr(row, role) or 0.0, row.name) for row in found.layers]
        return ", ".join(
            f"{_share(share)} of {name}" for share, name in shares if share > IDLE_LIMIT
        )

    if dead := those("dead"):
        text = (
            f"Dead units: {dead} are 0 for all {found.samples:,} samples and learn nothing. Draw "
            "them anew with biases of 0, lower lr, or use leaky_relu."
        )
        yield "dead", text
    if saturated := those("saturated"):
        text = (
            f"Saturated units: of the activations {saturated} are beyond {SATURATED:.0%} of the "
            "limits, where the slope is near 0. Lower the gain of the weights "
            "(initializer=gp.initializers.Glorot()), scale the inputs, or add l2."
        )
        yield "saturated", text


def _large_steps(found: Diagnosis) -> Findings:
    weights = [row for row in found.parameters if row.spectral_norm is not None]
    ratio, name = max(((row.update_ratio or 0.0, row.name) for row in weights), default=(0.0, ""))
    if found.lr is not None and ratio > UPDATE_LIMIT:
        text = (
            f"Large step: the next one changes {name} by {_number(ratio)} times its norm. Lower "
            f"lr from {_number(found.lr)} to {_number(found.lr * 0.01 / ratio)} or so (a hundredth "
            "a step), or clip by clip=gp.ClipNorm(1.0)."
        )
        yield "large step", text
