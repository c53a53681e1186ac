"""Torch modules in and out: the same numbers, names and gradients, and clear refusals."""

from __future__ import annotations

import copy
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune.errors import UnsupportedOperationError
from torch_modules import MODULES, random_module, settled, words

NETWORKS = int(os.environ.get("GRADPRUNE_NETWORKS", "12"))
Array = NDArray[np.float32]


@pytest.fixture(autouse=True)
def quiet(torch: Any) -> None:
    torch.manual_seed(0)


def samples(shape: tuple[int, ...], n: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)


def outputs(torch: Any, module: Any, x: Array) -> Array:
    with torch.no_grad():
        found: Array = module(torch.from_numpy(x)).numpy()
    return found


def error(found: Array, expected: Array) -> float:
    largest = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0)) / (largest or 1.0)


def check_round_trip(torch: Any, module: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    """Errors of the import and of the way back, relative to the largest output."""
    model = gp.from_torch(module, shape)
    x = samples(shape)
    expected = outputs(torch, module, x)
    assert model.output_shape == (expected.shape[1:] or (1,))
    predicted = model.predict(x)
    back = model.to_torch()
    assert set(back.state_dict()) == set(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name].numpy(), tensor.numpy(), name)
    return error(predicted, expected), error(outputs(torch, back, x), predicted)


@pytest.mark.parametrize("name", MODULES)
def test_modules_as_people_write_them(torch: Any, name: str) -> None:
    module, shape = MODULES[name](torch)
    there, back = check_round_trip(torch, settled(torch, module, 1), shape)
    assert max(there, back) <= 1e-5


def test_random_modules(torch: Any) -> None:
    """As many as GRADPRUNE_NETWORKS says."""
    found = {}
    for seed in range(NETWORKS):
        module, shape = random_module(torch, seed)
        found[seed] = check_round_trip(torch, settled(torch, module, seed), shape)
    worst = np.max(list(found.values()), axis=0)
    print(f"{NETWORKS} modules: import {worst[0]:.1e}, back {worst[1]:.1e}")  # noqa: T201
    assert {seed: errors for seed, errors in found.items() if max(errors) > 1e-5} == {}


def test_random_modules_in_onnxruntime(
    torch: Any, onnx: Any, onnxruntime: Any, tmp_path: Path
) -> None:
    """The same modules as files of ONNX, run by onnxruntime and read back."""
    worst = 0.0
    for seed in range(NETWORKS):
        module, shape = random_module(torch, seed)
        model = gp.from_torch(settled(torch, module, seed), shape)
        x = samples(shape, 9, seed)
        model.to_onnx(tmp_path / "m.onnx")
        again = gp.from_onnx(tmp_path / "m.onnx")
        errors = gp.verify(model, tmp_path / "m.onnx", again, x=x).errors
        worst = max(worst, *errors.values())
    print(f"{NETWORKS} modules in onnxruntime: {worst:.1e}")  # noqa: T201


# ---- what comes along


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "rnn", "mlp"])
def test_training_goes_on_as_in_torch(torch: Any, name: str) -> None:
    """The gradients of the same batch, and the running statistics behind it."""
    module, shape = MODULES[name](torch)
    settled(torch, module, 2)
    for part in module.modules():  # which draw other masks
        if isinstance(part, torch.nn.Dropout):
            part.eval().p = 0.0
    model = gp.from_torch(module, shape)
    x = samples(shape, 8)
    y = np.random.default_rng(1).normal(size=(8, *model.output_shape)).astype(np.float32)
    value = model.backward(x, y, loss="mse")
    made = module.train()(torch.from_numpy(x))
    loss = torch.nn.functional.mse_loss(made, torch.from_numpy(y))
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = torch_names(model, model.gradients)
    assert gradients.keys() == dict(module.named_parameters()).keys()
    for parameter, expected in module.named_parameters():
        largest = max(float(p.grad.abs().max()) for p in module.parameters())
        difference = np.abs(gradients[parameter] - expected.grad.numpy()).max()
        assert difference <= 1e-5 * largest, parameter
    for buffer, values in torch_names(model, model.buffers).items():
        assert error(values, dict(module.named_buffers())[buffer].numpy()) <= 1e-5, buffer


def torch_names(model: gp.Model, arrays: Any) -> dict[str, Array]:
    """Arrays by the names that torch has for them."""
    found = {}
    for name, array in arrays.items():
        layer, _, role = name.partition(".")
        kind = type(next(one for one in model.layers if one.name == layer)).__name__
        if kind in {"RNN", "GRU", "LSTM"}:
            owner, _, level = layer.rpartition("/")
            is_stack = level.startswith("l") and level[1:2].isdigit()
            layer, role = (owner, f"{role}_{level}") if is_stack else (layer, f"{role}_l0")
        found[f"{layer}.{role}".replace("/", ".")] = array
    return found


def test_the_module_is_left_as_it_is(torch: Any) -> None:
    prune = importlib.import_module("torch.nn.utils.prune")

    module, shape = MODULES["lenet"](torch)
    prune.random_unstructured(module.conv2, "weight", 0.5)
    module(torch.zeros(2, *shape))  # its weight is now computed, which deepcopy refuses
    seen: list[str] = []
    module.fc2.register_forward_hook(lambda *_: seen.append("fc2"))
    module.train()
    module.conv1.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    masked = module.conv2.weight
    model = gp.from_torch(module, shape)
    assert [part.training for part in module.modules()] == modes
    assert module.conv2.weight is masked
    assert prune.is_pruned(module)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)
    np.testing.assert_array_equal(
        model.masks["conv2.weight"], module.conv2.weight_mask.numpy() != 0
    )
    x = samples(shape)
    assert error(model.predict(x), outputs(torch, module.eval(), x)) <= 1e-5
    seen.clear()
    module(torch.zeros(2, *shape))
    assert seen == ["fc2"]


def test_masks_there_and_back(torch: Any) -> None:
    """Of a stack of layers, too; a copy of the result trains on with its zeros."""
    prune = importlib.import_module("torch.nn.utils.prune")

    module, shape = MODULES["stacked gru"](torch)
    settled(torch, module, 0)
    prune.l1_unstructured(module.rnn, "weight_hh_l1", 0.7)
    prune.l1_unstructured(module.fc, "weight", 5)
    model = gp.from_torch(module, shape)
    assert {n: int((~m).sum()) for n, m in model.masks.items() if not m.all()} == {
        "rnn/l1.weight_hh": round(0.7 * 75),
        "fc.weight": 5,
    }
    back = copy.deepcopy(model.to_torch(masks=True))
    assert set(back.state_dict()) == set(module.state_dict())
    x = samples(shape)
    assert error(outputs(torch, back, x), outputs(torch, module, x)) <= 1e-5
    optimizer = torch.optim.Adam(back.train().parameters())
    back(torch.from_numpy(x)).square().sum().backward()
    optimizer.step()
    back.eval()
    again = gp.from_torch(back, shape)
    for name, mask in model.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)
    assert not np.array_equal(again.parameters["fc.weight"], model.parameters["fc.weight"])
    plain = model.to_torch()
    assert not prune.is_pruned(plain)
    zeros = gp.from_torch(plain, shape, zeros_are_removed=True)
    np.testing.assert_array_equal(zeros.masks["fc.weight"], model.masks["fc.weight"])
    assert gp.from_torch(plain, shape).sparsity == 0


def test_filters_that_are_gone_before_a_normalization(torch: Any) -> None:
    """In torch they still are what the normalization makes of nothing."""
    prune = importlib.import_module("torch.nn.utils.prune")

    module, shape = MODULES["vgg"](torch)
    settled(torch, module, 3)
    prune.ln_structured(module.features[4], "weight", 0.5, n=2, dim=0)
    model = gp.from_torch(module, shape)
    x = samples(shape)
    assert error(model.predict(x), outputs(torch, module, x)) <= 1e-5
    model.set_mask("features/0.weight", np.zeros((4, 1, 3, 3)))  # silent here
    assert error(outputs(torch, model.to_torch(), x), model.predict(x)) <= 1e-5


def test_exported_models_are_plain_modules(torch: Any) -> None:
    module, shape = MODULES["resnet"](torch)
    model = gp.from_torch(settled(torch, module, 0), shape)
    back = model.to_torch()
    x = samples(shape)
    expected = outputs(torch, back, x)
    file = io.BytesIO()
    torch.save(back, file)
    file.seek(0)
    for twin in (copy.deepcopy(back), torch.load(file, weights_only=False)):
        np.testing.assert_array_equal(outputs(torch, twin, x), expected)
    assert not back.training
    assert {type(part).__module__.split(".")[0] for part in back.children()} == {"torch"}
    module.load_state_dict(back.state_dict())
    traced = torch.export.export(back.eval(), (torch.from_numpy(x),)).module()
    np.testing.assert_array_equal(outputs(torch, traced, x), expected)
    assert back.train()(torch.from_numpy(x)).requires_grad


def test_shrunk_saved_and_loaded_models_keep_the_names(torch: Any, tmp_path: Path) -> None:
    module, shape = MODULES["vgg"](torch)
    model = gp.from_torch(settled(torch, module, 0), shape)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), granularity=gp.Unit())
    pruner.prune(0.5)
    small = model.shrink()
    small.save(tmp_path / "small")
    loaded = gp.load(tmp_path / "small")
    assert isinstance(loaded, gp.Model)
    back = loaded.to_torch()
    assert set(back.state_dict()) == set(module.state_dict())
    assert back.get_submodule("classifier.0").out_features < 16
    x = samples(shape)
    assert error(outputs(torch, back, x), small.predict(x)) <= 1e-5


@pytest.mark.parametrize("name", ["a b", 'quo"te', "/x", "a//b", "train", "forward", "0", "é", "$"])
def test_names_of_all_kinds(torch: Any, name: str) -> None:
    layers = [gp.Dense(3, name=name), gp.Dense(2, name=f"{name}/b", activation="relu")]
    model = gp.Model(layers, 4, seed=0)
    back = model.to_torch(masks=True)
    x = samples((4,))
    assert error(outputs(torch, back, x), model.predict(x)) <= 1e-5
    assert len(back.state_dict()) == 4


def test_whole_numbers_and_their_rows(torch: Any) -> None:
    module, shape = words(torch)
    settled(torch, module, 0)
    model = gp.from_torch(module, shape)
    x = np.random.default_rng(0).integers(20, size=(6, *shape))
    expected = outputs(torch, module, x)
    assert error(model.predict(x), expected) <= 1e-5
    back = model.to_torch()
    assert set(back.state_dict()) == set(module.state_dict())
    assert back.embedding.padding_idx == 0
    for given in (x, x.astype(np.float32)):
        assert error(outputs(torch, back, given), expected) <= 1e-5
    assert error(gp.from_torch(back, shape).predict(x), expected) <= 1e-5


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_one_unit_in_both_directions_comes_back(torch: Any, cell: str) -> None:
    """to_torch writes what each direction ends with as a slice of the last state's features."""
    rnn = getattr(torch.nn, cell)(4, 1, batch_first=True, bidirectional=True)

    class Ends(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = rnn, torch.nn.Linear(2, 3)

        def forward(self, x: Any) -> Any:
            return self.fc(self.rnn(x)[0][:, -1])

    model = gp.from_torch(Ends(), (5, 4))
    again = gp.from_torch(model.to_torch(), (5, 4))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    x = samples((5, 4))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


# ---- what cannot be done


def test_everything_that_is_unknown_is_named_at_once(torch: Any) -> None:
    nn = torch.nn

    class Inner(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(1, 2, 3)
            self.reflected = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")

        def forward(self, x: Any) -> Any:
            return self.reflected(self.up(x)) * 2.0

    module = nn.Sequential(
        nn.Sequential(Inner(), nn.Dropout2d(0.5)),
        nn.Flatten(),
        nn.Linear(2 * 10 * 10, 3),
        nn.LogSoftmax(1),
    )
    with pytest.raises(UnsupportedOperationError) as caught:
        gp.from_torch(module, (1, 8, 8))
    found = [(path, name.partition(".")[0]) for path, name, _ in caught.value.operations]
    assert found == [
        ("0.0.up", "conv_transpose2d"),
        ("0.0.reflected", "pad"),
        ("0.0", "mul"),
        ("0.1", "feature_dropout"),
        ("3", "log_softmax"),
    ]
    for text in ("5 operations have", 'padding_mode "reflect"', 'loss="cross_entropy"', "0.0.up"):
        assert text in str(caught.value)


def refused_modules(torch: Any) -> dict[str, tuple[Any, Any, str]]:
    """Name to a module, the shape of a sample, and what is said of it."""
    nn, F = torch.nn, torch.nn.functional

    class Calls(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)
            self.run = forward

        def forward(self, x: Any) -> Any:
            return self.run(self, x)

    def write_into(module: Any, x: Any) -> Any:
        y = module.fc(x)
        shown = y.view(-1, 4)
        return y.relu_() + shown

    fc = nn.Linear(4, 4)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    return {
        "called twice": (Calls(lambda m, x: m.fc(m.fc(x)), fc=fc), 4, "fc: linear: fc runs twice"),
        "tied weights": (tied, 4, "1.weight is 0.weight, too: layers do not share parameters"),
        "control flow": (
            Calls(lambda m, x: m.fc(x) if x.sum() > 0 else x, fc=fc),
            4,
            "torch.export cannot trace it",
        ),
        "several outputs": (Calls(lambda m, x: (x, m.fc(x)), fc=fc), 4, "return one tensor"),
        "samples are mixed": (Calls(lambda m, x: m.fc(x).mean(0), fc=fc), 4, "mixes the samples"),
        "a constant": (Calls(lambda m, x: m.fc(x) + 1.0, fc=fc), 4, "add.Tensor: .*constant"),
        "a computed weight": (
            Calls(lambda m, x: F.linear(x, m.fc.weight * 2), fc=fc),
            4,
            "its weight is computed",
        ),
        "a state": (
            Calls(lambda m, x: m.rnn(x, torch.ones(1, x.size(0), 4))[0],
                  rnn=nn.GRU(4, 4, batch_first=True)),
            (5, 4),
            "rnn: gru.input: the state before the first step must be 0",
        ),
        "cells": (
            Calls(lambda m, x: m.rnn(x)[1][1][0], rnn=nn.LSTM(4, 4, batch_first=True)),
            (5, 4),
            "rnn: lstm.input: it wants the states of the cells",
        ),
        "steps first": (
            Calls(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(4, 4)), (5, 4), "batch_first does not fit"
        ),
        "a projection": (
            Calls(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(4, 4, batch_first=True, proj_size=2)),
            (5, 4),
            "proj_size has no counterpart",
        ),
        "no statistics": (nn.BatchNorm1d(4, track_running_stats=False), 4, "track_running_stats"),
        "a mean of all": (nn.BatchNorm1d(4, momentum=None), 4, "momentum=None"),
        "tanh gelu": (nn.Sequential(fc, nn.GELU("tanh")), 4, 'approximate="none"'),
        "selu": (nn.Sequential(fc, nn.SELU()), 4, "1: selu: there is no layer for it"),
        "dropout in eval": (Calls(lambda m, x: F.dropout(m.fc(x)), fc=fc), 4, "eval mode"),
        "written into": (Calls(write_into, fc=fc), 4, "writes into a tensor that others show"),
    }  # fmt: skip


def test_refusals_say_where_and_why(torch: Any) -> None:
    for what, (module, shape, text) in refused_modules(torch).items():
        print(what)  # noqa: T201 - which one it is that fails
        with pytest.raises(UnsupportedOperationError, match=text):
            gp.from_torch(module, shape)


@pytest.mark.parametrize(
    ("module", "shape", "kind", "text"),
    [
        ("torch.nn.Linear(3, 2).double()", 3, TypeError, r"weight is float64, bias is float64"),
        ("torch.nn.Linear(3, 2).half()", 3, TypeError, r"write module.float\(\)"),
        ("torch.nn.Linear(3, 2, dtype=torch.complex64)", 3, TypeError, "complex64"),
        ("torch.nn.Linear(3, 2, device='meta')", 3, ValueError, "device meta"),
        ("torch.nn.LazyLinear(2)", 3, ValueError, "no values yet"),
        ("torch.relu", 3, TypeError, "must be a torch.nn.Module"),
        ("torch.jit.script(torch.nn.Linear(3, 2))", 3, TypeError, "torch.nn.Module"),
        ("torch.nn.Linear(3, 2)", (), ValueError, "at least one size"),
        ("torch.nn.Linear(3, 2)", 0, ValueError, "input_shape"),
        ("torch.nn.Linear(3, 2)", 4, ValueError, "fails on samples of input_shape"),
        ("torch.nn.Bilinear(3, 3, 2)", 3, ValueError, "fails on samples of .*input2"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_module_in_float32(
    torch: Any, module: str, shape: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        gp.from_torch(eval(module, {"torch": torch}), shape)


def test_numbers_that_are_not_finite_are_named(torch: Any) -> None:
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"weight holds a number that is not finite"):
        gp.from_torch(module, 3)


def test_a_layer_of_ones_own_has_no_expression(torch: Any) -> None:
    class Own(gp.Activation):
        pass

    class Other(gp.layers.Layer):
        def lower(self, shape: Any, offsets: Any) -> Any:
            return []

    model = gp.Model([gp.Dense(2), Own("relu"), Other(name="mine"), gp.Dense(2)], 3)
    with pytest.raises(UnsupportedOperationError, match="mine: Other: Other has no expression"):
        model.to_torch()


def test_without_torch_an_error_comes_first() -> None:
    code = """
import sys
sys.modules["torch"] = None
import gradprune as gp
for call in (lambda: gp.from_torch(None, 3), gp.Model([gp.Dense(2)], 3).to_torch):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    run = [sys.executable, "-c", code]
    where = Path(gp.__file__).parent.parent
    result = subprocess.run(run, cwd=where, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        'gp.from_torch needs torch: pip install "gradprune[torch]"',
        'model.to_torch needs torch: pip install "gradprune[torch]"',
    ]


@pytest.mark.parametrize("shape", [5, (1, 4), (3, 4, 4)])
def test_a_shape_that_the_module_does_not_take(torch: Any, shape: Any) -> None:
    """The error is that of two samples: it does not speak of how the module is traced."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    with pytest.raises(ValueError, match="fails on samples of input_shape") as caught:
        gp.from_torch(module, shape)
    assert not isinstance(caught.value, UnsupportedOperationError)
    assert "1009" not in str(caught.value)


@pytest.mark.parametrize("shape", [(10**9, 10**9), 10**13])
def test_shapes_beyond_memory(torch: Any, shape: Any) -> None:
    with pytest.raises(ValueError, match="do not fit into memory"):
        gp.from_torch(torch.nn.Identity(), shape)


def test_what_reads_a_refused_operation_is_judged_no_further(torch: Any) -> None:
    """Of a result whose shape is not known, axes are not known either."""
    module = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pytest.raises(UnsupportedOperationError, match="no counterpart"):
        gp.from_torch(module, (5, 4))
