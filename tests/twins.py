"""The second opinions: a network in gradprune.reference and in torch, both in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from cases import STEPS, TRAINED, Case, OptimizerCase
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.layers import AvgPool1D, Conv1D, Layer, MaxPool1D, Permute, Reverse, Slice
from gradprune.layers.graph import INPUT
from gradprune.layers.recurrent import Recurrent
from gradprune.optim.clipping import Clipper

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
    ends = {INPUT: -1}  # of each layer: the last of its dicts
    for layer in layers:
        first = len(plain)
        if isinstance(layer, gp.Dense):
            activation = layer.activation_layer()
            plain.append(
                {
                    "type": "dense",
                    "weight": f"{layer.name}.weight",
                    "bias": f"{layer.name}.bias" if layer.bias else None,
                    "activation": activation.function,
                    "slope": activation.factor,
                    "l1": layer.l1,
                    "l2": layer.l2,
                }
            )
            number += 1 + (activation.function != "identity")
        elif isinstance(layer, gp.Conv2D | Conv1D):
            plain.append(convolution_dict(layer))
            number += 1 + (layer.activation_layer().function != "identity")
        elif isinstance(layer, gp.MaxPool2D | gp.AvgPool2D | MaxPool1D | AvgPool1D):
            kind = "max" if isinstance(layer, gp.MaxPool2D | MaxPool1D) else "mean"
            slides = {name: getattr(layer, name) for name in ("kernel", "stride", "padding")}
            plain.append({"type": "pooling", "pooling": kind, **slides})
            number += 1
        elif isinstance(layer, gp.GlobalAvgPool | gp.GlobalMaxPool):
            kind = "mean" if isinstance(layer, gp.GlobalAvgPool) else "max"
            plain.append({"type": "pooling", "pooling": kind, "kernel": None})
            plain.append({"type": "flatten"})
            number += 1
        elif isinstance(layer, gp.BatchNorm):
            roles = ("weight", "bias", "running_mean", "running_var")
            names = {role: f"{layer.name}.{role}" for role in roles}
            read = plain[: 1 + (ends[layer.inputs[0]] if layer.inputs else len(plain) - 1)]
            is_product = read and read[-1]["type"] in ("dense", "convolution")
            is_plain = is_product and read[-1]["activation"] == "identity"
            before = read[-1]["weight"] if is_plain else None
            plain.append({"type": "batchnorm", **names, "eps": layer.eps, "before": before})
            number += 1
        elif isinstance(layer, gp.LayerNorm):
            names = {role: f"{layer.name}.{role}" for role in ("weight", "bias")}
            plain.append({"type": "layernorm", **names, "eps": layer.eps})
            number += 1
        elif isinstance(layer, gp.Standardize):
            names = {role: f"{layer.name}.{role}" for role in ("mean", "scale")}
            plain.append({"type": "standardize", **names})
            number += 1
        elif isinstance(layer, gp.Flatten):
            plain.append({"type": "flatten"})
        elif isinstance(layer, gp.Activation):
            plain.append(
                {"type": "activation", "activation": layer.function, "slope": layer.factor}
            )
            number += layer.function != "identity"
        elif isinstance(layer, gp.Dropout):
            plain.append({"type": "dropout", "rate": layer.rate, "index": number})
            number += 1
        elif isinstance(layer, Recurrent):
            plain.append(recurrent_dict(layer))
            number += 1
        elif isinstance(layer, gp.Embedding):
            own = {"weight": f"{layer.name}.weight", "padding": layer.padding_index}
            plain.append({"type": "embedding", **own, "l1": layer.l1, "l2": layer.l2})
            number += 1
        elif isinstance(layer, Permute):
            plain.append({"type": "permute", "dims": layer.dims})
            number += 1
        elif isinstance(layer, Reverse):
            plain.append({"type": "reverse"})
            number += 1
        elif isinstance(layer, Slice):
            assert layer.axis is not None  # the last one, which the twins cannot know
            own = {"start": layer.start, "stop": layer.stop, "axis": layer.axis}
            plain.append({"type": "slice", **own})
            number += 1
        elif isinstance(layer, gp.Add | gp.Concat):
            plain.append({"type": type(layer).__name__.lower()})
            number += 1
        else:
            raise AssertionError(f"the twins do not know {layer!r}")
        if layer.inputs:
            plain[first]["sources"] = tuple(ends[name] for name in layer.inputs)
        ends[str(layer.name)] = len(plain) - 1
    return plain


def convolution_dict(layer: gp.Conv2D | Conv1D) -> dict[str, Any]:
    activation = layer.activation_layer()
    same = ("stride", "padding", "dilation", "groups", "l1", "l2")
    return {
        "type": "convolution",
        "weight": f"{layer.name}.weight",
        "bias": f"{layer.name}.bias" if layer.bias else None,
        "activation": activation.function,
        "slope": activation.factor,
        **{name: getattr(layer, name) for name in same},
    }


def recurrent_dict(layer: Recurrent) -> dict[str, Any]:
    biases = ("bias_ih", "bias_hh")
    return {
        "type": "recurrent",
        "cell": type(layer).__name__.lower(),
        **{role: f"{layer.name}.{role}" for role in ("weight_ih", "weight_hh")},
        **{role: f"{layer.name}.{role}" if layer.bias else None for role in biases},
        "activation": getattr(layer, "activation", "tanh"),
        "sequences": layer.return_sequences,
        "truncation": layer.truncation,
        "l1": layer.l1,
        "l2": layer.l2,
        "orthogonality": layer.orthogonality,
        "omega": getattr(layer, "omega", 0.0),
    }


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
        "silu": lambda: torch.nn.functional.silu(z),
        "elu": lambda: torch.nn.functional.elu(z, slope),
        "hardswish": lambda: torch.nn.functional.hardswish(z),
        "relu6": lambda: torch.nn.functional.relu6(z),
        "softmax": lambda: torch.softmax(z, dim=-1),
    }
    return functions[function]()


def torch_states(
    torch: Any, layer: Mapping[str, Any], parameters: Any, x: Any, pieces: list[Any]
) -> Any:
    """The states of torch's own module, (B, T, H), truncated by detaching them."""
    roles = {role: layer[role] for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    given = {f"{role}_l0": parameters[name] for role, name in roles.items() if name}
    weight_hh = parameters[layer["weight_hh"]]
    units, steps = weight_hh.shape[1], x.shape[1]
    settings = {"nonlinearity": layer["activation"]} if layer["cell"] == "rnn" else {}
    module = getattr(torch.nn, layer["cell"].upper())(
        x.shape[2], units, batch_first=True, bias=len(given) == 4, dtype=torch.float64, **settings
    )
    h = torch.zeros(1, len(x), units, dtype=torch.float64)
    state = (h, h) if layer["cell"] == "lstm" else h
    states = []
    length = 1 if layer["omega"] else layer["truncation"] or steps
    for t in range(0, steps, length):
        if t % (layer["truncation"] or steps) == 0:
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        if layer["omega"]:
            # the argument of f by itself, for its gradient
            a = sum(
                torch.nn.functional.linear(v, parameters[roles[w]])
                for v, w in ((x[:, t], "weight_ih"), (state[0], "weight_hh"))
            )
            a = a + sum(parameters[roles[b]] for b in ("bias_ih", "bias_hh") if roles[b])
            state = getattr(torch, layer["activation"])(a)[None]
            pieces.append((layer, t, a, state[0]))
            states.append(state[0][:, None])
            continue
        y, state = torch.func.functional_call(module, given, (x[:, t : t + length], state))
        states.append(y)
    return torch.cat(states, 1)


def torch_omega(torch: Any, pieces: list[Any], parameters: Any, loss: Any) -> Any:
    """Pascanu's regularizer by autograd: everything but the W_hh of back = d W_hh is constant."""
    total: Any = 0.0
    if not pieces:
        return total
    slopes = torch.autograd.grad(loss, [a for _, _, a, _ in pieces], retain_graph=True)
    for i, (layer, t, _, _) in enumerate(pieces):
        if t == 0 or (layer["truncation"] and t % layer["truncation"] == 0):
            continue
        d, h = slopes[i], pieces[i - 1][3].detach()
        slope = 1 - h * h if layer["activation"] == "tanh" else (h > 0).double()
        seen = d.norm(dim=1) > 1e-30
        back = (d @ parameters[layer["weight_hh"]] * slope)[seen]
        ratio = back.norm(dim=1) / d[seen].norm(dim=1)
        total = total + layer["omega"] * ((ratio - 1) ** 2).sum() / len(h)
    return total


def torch_orthogonality(torch: Any, weight_hh: Any) -> Any:
    units = weight_hh.shape[1]
    one = torch.eye(units, dtype=torch.float64)
    return sum(((w.T @ w - one) ** 2).sum() for w in weight_hh.split(units))


def torch_padded(torch: Any, layer: Mapping[str, Any], kernel: Any, x: Any, value: float) -> Any:
    """The images with their padding; "same" by TensorFlow's documented rule."""
    padding = layer.get("padding", 0)
    sides = [0, 0, 0, 0]  # torch counts from the last axis
    for axis in range(2):
        size, length = x.shape[2 + axis], as_pair(kernel)[axis]
        if padding == "same":
            stride = as_pair(layer["stride"] or kernel)[axis]
            reach = as_pair(layer.get("dilation", 1))[axis] * (length - 1) + 1
            total = max(reach - (size % stride or stride), 0)
            ends = (total // 2, total - total // 2)
        else:
            ends = as_pair(0 if padding == "valid" else as_pair(padding)[axis])
        sides[2 - 2 * axis : 4 - 2 * axis] = ends
    return torch.nn.functional.pad(x, sides, value=value)


def torch_padded_steps(torch: Any, layer: Mapping[str, Any], kernel: int, x: Any) -> Any:
    """Sequences (batch, features, time) with their padding."""
    padding, reach = layer["padding"], layer["dilation"] * (kernel - 1) + 1
    if padding == "same":
        total = max(reach - (x.shape[2] % layer["stride"] or layer["stride"]), 0)
        sides = (total // 2, total - total // 2)
    elif padding == "causal":
        sides = (reach - 1, 0)
    else:
        sides = as_pair(0 if padding == "valid" else padding)
    return torch.nn.functional.pad(x, sides)


def as_pair(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else (value, value)


def torch_pooled(torch: Any, layer: Mapping[str, Any], x: Any) -> Any:
    functional = torch.nn.functional
    if x.ndim == 3:  # as an image of one channel
        image = dict(layer)
        if layer["kernel"] is not None:
            image["kernel"], image["stride"] = (
                (layer[name] or layer["kernel"], 1) for name in ("kernel", "stride")
            )
            if not isinstance(layer["padding"], str):
                image["padding"] = (as_pair(layer["padding"]), (0, 0))
        else:
            image |= {"kernel": (x.shape[1], 1), "stride": None, "padding": 0}
        return torch_pooled(torch, image, x[:, None])[:, 0]
    if layer["kernel"] is None:
        means, largest = functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d
        return (means if layer["pooling"] == "mean" else largest)(x, 1)
    largest = layer["pooling"] == "max"
    pool = functional.max_pool2d if largest else functional.avg_pool2d
    padded = torch_padded(torch, layer, layer["kernel"], x, -math.inf if largest else 0.0)
    return pool(padded, layer["kernel"], layer["stride"])


def torch_convolved(torch: Any, layer: Mapping[str, Any], parameters: Any, x: Any) -> Any:
    weight = parameters[layer["weight"]]
    bias = parameters[layer["bias"]] if layer["bias"] else None
    settings = {name: layer[name] for name in ("stride", "dilation", "groups")}
    if x.ndim == 3:
        padded = torch_padded_steps(torch, layer, weight.shape[2], x.transpose(1, 2))
        z = torch.nn.functional.conv1d(padded, weight, bias, **settings)
        return z.transpose(1, 2)
    padded = torch_padded(torch, layer, weight.shape[2:], x, 0.0)
    return torch.nn.functional.conv2d(padded, weight, bias, **settings)


def torch_normalized(torch: Any, layer: Mapping[str, Any], parameters: Any, x: Any) -> Any:
    gamma, beta = parameters[layer["weight"]], parameters[layer["bias"]]
    functional = torch.nn.functional
    if layer["type"] == "layernorm":
        return functional.layer_norm(x, tuple(gamma.shape), gamma, beta, layer["eps"])
    turned = x.transpose(1, 2) if x.ndim == 3 else x  # torch has channels before steps
    y = functional.batch_norm(turned, None, None, gamma, beta, training=True, eps=layer["eps"])
    return y.transpose(1, 2) if x.ndim == 3 else y


def torch_forward(
    torch: Any,
    case: Case,
    layers: Sequence[Mapping[str, Any]],
    parameters: Any,
    inputs: NDArray[Any],
    pieces: list[Any],
) -> tuple[Any, Any]:
    """What the loss gets, and the penalties; dropout as the oracle draws it."""
    x = torch.tensor(inputs, dtype=torch.float64)
    penalty: Any = 0.0
    for layer in layers:
        if layer["type"] == "dropout":
            samples, features = x.flatten(1).shape
            mask = reference.dropout_mask(
                samples, features, layer["rate"], case.seed, 0, layer["index"]
            )
            x = x * torch.tensor(mask, dtype=torch.float64).reshape(x.shape)
            continue
        if layer["type"] == "recurrent":
            x = torch_states(torch, layer, parameters, x, pieces)
            x = x if layer["sequences"] else x[:, -1]
            for role in ("weight_ih", "weight_hh"):
                weight = parameters[layer[role]]
                penalty += layer["l1"] * weight.abs().sum() + layer["l2"] * (weight**2).sum()
            weight = parameters[layer["weight_hh"]]
            penalty += layer["orthogonality"] * torch_orthogonality(torch, weight)
            continue
        if layer["type"] == "pooling":
            x = torch_pooled(torch, layer, x)
            continue
        if layer["type"] == "flatten":
            x = x.flatten(1)
            continue
        if layer["type"] == "permute":
            x = x.permute(0, *layer["dims"])
            continue
        if layer["type"] == "reverse":
            x = x.flip(1)
            continue
        if layer["type"] == "slice":
            chosen = slice(layer["start"], layer["stop"])
            x = x[(slice(None),) * layer["axis"] + (chosen,)]
            continue
        if layer["type"] in ("layernorm", "batchnorm"):
            x = torch_normalized(torch, layer, parameters, x)
            continue
        if layer["type"] in ("dense", "convolution"):
            weight = parameters[layer["weight"]]
            if layer["type"] == "dense":
                bias = parameters[layer["bias"]] if layer["bias"] else None
                x = torch.nn.functional.linear(x, weight, bias)
            else:
                x = torch_convolved(torch, layer, parameters, x)
            if layer["l1"] or layer["l2"]:
                penalty += layer["l1"] * weight.abs().sum() + layer["l2"] * (weight**2).sum()
        if not (layer is layers[-1] and layer["activation"] == FUSED.get(case.loss)):
            x = torch_activation(torch, layer["activation"], layer["slope"], x)
    return x.flatten(1), penalty


def torch_loss(
    torch: Any, case: Case, layers: Sequence[Mapping[str, Any]], parameters: Any, batch: Any
) -> Any:
    """The mean loss with penalties, over the oracle's dicts; see ``torch_forward``."""
    inputs, targets = batch
    pieces: list[Any] = []
    x, penalty = torch_forward(torch, case, layers, parameters, inputs, pieces)
    functional = torch.nn.functional
    if case.loss == "cross_entropy":
        loss = functional.cross_entropy(x, torch.tensor(targets))
    elif case.loss == "mse":
        loss = functional.mse_loss(x, torch.tensor(targets, dtype=torch.float64))
    else:
        y = torch.tensor(targets, dtype=torch.float64)
        loss = functional.binary_cross_entropy_with_logits(x, y)
    return loss + penalty + torch_omega(torch, pieces, parameters, loss)


def torch_parameters(torch: Any, network: Network) -> dict[str, Any]:
    return {
        name: torch.tensor(values, requires_grad=True) for name, values in doubles(network).items()
    }


def torch_steps(
    torch: Any, optimizer: OptimizerCase, clip: Clipper | None, case: Case = TRAINED
) -> Doubles:
    """Parameters of a case after STEPS steps of torch, batch ``step % 5`` each."""
    network = case.network()
    layers, parameters = reference_layers(network.layers), torch_parameters(torch, network)
    twin = getattr(torch.optim, optimizer.kind)(parameters.values(), **optimizer.settings)
    for step in range(STEPS):
        twin.zero_grad()
        torch_loss(torch, case, layers, parameters, case.batch(step % 5)).backward()
        if isinstance(clip, gp.ClipValue):
            torch.nn.utils.clip_grad_value_(parameters.values(), clip.clip_value)
        elif isinstance(clip, gp.ClipNorm | gp.ClipNormPerLayer | gp.ClipNormPerParameter):
            for group in groups_of(clip, list(parameters)):
                tensors = [parameters[name] for name in group]
                torch.nn.utils.clip_grad_norm_(tensors, clip.max_norm, clip.norm_type)
        twin.step()
    return {name: tensor.detach().numpy() for name, tensor in parameters.items()}
