"""The second opinions: a network in gradprune.reference and in torch, both in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from cases import STEPS, TRAINED, Case, OptimizerCase
from gradprune import reference
from gradprune.clipping import Clipper
from gradprune.layers import Layer
from gradprune.network import Network

Doubles = dict[str, NDArray[np.float64]]

FUSED = {"cross_entropy": "softmax", "bce": "sigmoid"}
STEP_OF: dict[str, Callable[..., tuple[Any, dict[str, Any]]]] = {
    "SGD": reference.sgd_step,
    "Adam": reference.adam_step,
    "AdamW": partial(reference.adam_step, decoupled=True),
    "RMSprop": reference.rmsprop_step,
}


def doubles(network: Network) -> Doubles:
    return {name: values.astype(np.float64) for name, values in network.parameters.items()}


def relative_error(ours: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference over the largest entry expected."""
    difference = float(np.abs(ours.astype(np.float64) - expected).max(initial=0.0))
    largest = float(np.abs(expected).max(initial=0.0))
    return difference / largest if largest else difference


# ---- gradprune.reference


def reference_layers(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """The layers of a network (they have names) as the oracle's dicts."""
    plain: list[dict[str, Any]] = []
    number = 0  # of the layer in the C network: a Dense with an activation is two
    for layer in layers:
        if isinstance(layer, gp.Dense):
            activation = layer.activation_layer()
            plain.append(
                {
                    "type": "dense",
                    "weight": f"{layer.name}.weight",
                    "bias": f"{layer.name}.bias" if layer.bias else None,
                    "activation": activation.function,
                    "slope": activation.slope,
                    "l1": layer.l1,
                    "l2": layer.l2,
                }
            )
            number += 1 + (activation.function != "identity")
        elif isinstance(layer, gp.Activation):
            plain.append({"type": "activation", "activation": layer.function, "slope": layer.slope})
            number += layer.function != "identity"
        elif isinstance(layer, gp.Dropout):
            plain.append({"type": "dropout", "rate": layer.rate, "index": number})
            number += 1
        else:
            raise AssertionError(f"the twins do not know {layer!r}")
    return plain


def groups_of(clip: Clipper, names: Sequence[str]) -> list[list[str]]:
    """Names of the parameters that are clipped together."""
    if isinstance(clip, gp.ClipNorm):
        return [list(names)]
    if isinstance(clip, gp.ClipNormPerParameter):
        return [[name] for name in names]
    assert isinstance(clip, gp.ClipNormPerLayer)
    layers = dict.fromkeys(name.partition(".")[0] for name in names)
    return [[name for name in names if name.startswith(f"{layer}.")] for layer in layers]


def clipped(clip: Clipper | None, gradients: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The gradients as a clipped step sees them."""
    result = dict(gradients)
    if clip is None:
        return result
    if isinstance(clip, gp.ClipValue):
        names = list(gradients)
        values = reference.clip_grad_value(list(gradients.values()), clip.clip_value)
        return dict(zip(names, values, strict=True))
    assert isinstance(clip, gp.ClipNorm | gp.ClipNormPerLayer | gp.ClipNormPerParameter)
    for group in groups_of(clip, list(gradients)):
        values, _ = reference.clip_grad_norm(
            [gradients[name] for name in group], clip.max_norm, clip.norm_type
        )
        result.update(zip(group, values, strict=True))
    return result


def reference_steps(
    case: Case,
    optimizer: OptimizerCase,
    clip: Clipper | None,
    *,
    steps: int,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Doubles:
    """Parameters after so many steps of the oracle, batch ``step % 5`` each."""
    network = case.network()
    layers, parameters = reference_layers(network.layers), doubles(network)
    masks = masks or {}
    states: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for step in range(steps):
        x, y = case.batch(step % 5)
        _, gradients = reference.loss_and_gradients(
            layers,
            parameters,
            x.astype(np.float64),
            y,
            case.loss,
            masks=masks,
            seed=case.seed,
            step=step,
        )
        for name, gradient in clipped(clip, gradients).items():
            parameters[name], states[name] = STEP_OF[optimizer.kind](
                parameters[name],
                gradient,
                states[name],
                step=step + 1,
                mask=masks.get(name),
                **optimizer.settings,
            )
    return parameters


# ---- torch


def torch_activation(torch: Any, function: str, slope: float, z: Any) -> Any:
    functions = {
        "identity": lambda: z,
        "relu": lambda: torch.relu(z),
        "leaky_relu": lambda: torch.nn.functional.leaky_relu(z, slope),
        "tanh": lambda: torch.tanh(z),
        "sigmoid": lambda: torch.sigmoid(z),
        "gelu": lambda: torch.nn.functional.gelu(z),
        "softmax": lambda: torch.softmax(z, dim=-1),
    }
    return functions[function]()


def torch_loss(
    torch: Any, case: Case, layers: Sequence[Mapping[str, Any]], parameters: Any, batch: Any
) -> Any:
    """The mean loss with penalties, over the oracle's dicts; dropout as the oracle draws it."""
    inputs, targets = batch
    x = torch.tensor(inputs, dtype=torch.float64)
    penalty: Any = 0.0
    for layer in layers:
        if layer["type"] == "dropout":
            mask = reference.dropout_mask(*x.shape, layer["rate"], case.seed, 0, layer["index"])
            x = x * torch.tensor(mask, dtype=torch.float64)
            continue
        if layer["type"] == "dense":
            weight = parameters[layer["weight"]]
            bias = parameters[layer["bias"]] if layer["bias"] else None
            x = torch.nn.functional.linear(x, weight, bias)
            if layer["l1"] or layer["l2"]:
                penalty += layer["l1"] * weight.abs().sum() + layer["l2"] * (weight**2).sum()
        if not (layer is layers[-1] and layer["activation"] == FUSED.get(case.loss)):
            x = torch_activation(torch, layer["activation"], layer["slope"], x)
    if case.loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(x, torch.tensor(targets)) + penalty
    y = torch.tensor(targets, dtype=torch.float64)
    if case.loss == "mse":
        return torch.nn.functional.mse_loss(x, y) + penalty
    return torch.nn.functional.binary_cross_entropy_with_logits(x, y) + penalty


def torch_parameters(torch: Any, network: Network) -> dict[str, Any]:
    return {
        name: torch.tensor(values, requires_grad=True) for name, values in doubles(network).items()
    }


def torch_steps(torch: Any, optimizer: OptimizerCase, clip: Clipper | None) -> Doubles:
    """Parameters of TRAINED after STEPS steps of torch, batch ``step % 5`` each."""
    network = TRAINED.network()
    layers, parameters = reference_layers(network.layers), torch_parameters(torch, network)
    twin = getattr(torch.optim, optimizer.kind)(parameters.values(), **optimizer.settings)
    for step in range(STEPS):
        twin.zero_grad()
        torch_loss(torch, TRAINED, layers, parameters, TRAINED.batch(step % 5)).backward()
        if isinstance(clip, gp.ClipValue):
            torch.nn.utils.clip_grad_value_(parameters.values(), clip.clip_value)
        elif isinstance(clip, gp.ClipNorm | gp.ClipNormPerLayer | gp.ClipNormPerParameter):
            for group in groups_of(clip, list(parameters)):
                tensors = [parameters[name] for name in group]
                torch.nn.utils.clip_grad_norm_(tensors, clip.max_norm, clip.norm_type)
        twin.step()
    return {name: tensor.detach().numpy() for name, tensor in parameters.items()}
