"""The oracle against torch, finite differences and cases worked by hand.

Everything else is tested against the oracle, so nothing here may lean on the rest of gradprune.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradprune import reference

NORM_TYPES = (0.5, 1.5, 2.0, 4.0, math.inf)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slope_along(
    f: Callable[[NDArray[np.float64]], float],
    x: NDArray[np.float64],
    direction: NDArray[np.float64],
) -> float:
    """Central difference of f at x along a direction."""
    h = 1e-6
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)


# ---- the package itself


def modules() -> list[str]:
    return [f"gradprune.reference.{m.name}" for m in pkgutil.iter_modules(reference.__path__)]


@pytest.mark.parametrize("name", modules())
def test_oracle_imports_numpy_and_the_standard_library_only(name: str) -> None:
    source = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
    allowed = {"__future__", "collections", "dataclasses", "math", "numpy", "typing"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or str(node.module).split(".")[0] in allowed


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_public_function_has_an_example() -> None:
    for name in reference.__all__:
        thing = getattr(reference, name)
        if callable(thing) and not isinstance(thing, type):
            assert ">>>" in str(thing.__doc__), name


# ---- random numbers


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    index = counter[0] | counter[1] << 32
    stream = counter[2] | counter[3] << 32
    block = reference.philox4x32([index], stream, key[0] | key[1] << 32)
    assert block.dtype == np.uint32
    assert block.tolist() == [list(expected)]


def test_philox_blocks_do_not_depend_on_their_company() -> None:
    indices = [0, 1, 2**32 - 1, 2**32, 2**63 + 5]
    together = reference.philox4x32(np.array(indices, dtype=np.uint64), stream=3, seed=7)
    alone = [reference.philox4x32([i], stream=3, seed=7)[0] for i in indices]
    np.testing.assert_array_equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) == len(indices)


@pytest.mark.parametrize(("stream", "seed"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_philox_refuses_numbers_beyond_64_bits(stream: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= (stream|seed) < 2\*\*64"):
        reference.philox4x32([0], stream, seed)


def test_uniform_is_the_words_scaled() -> None:
    expected = [w >> 8 for w in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]
    drawn = reference.uniform(4, seed=0, stream=0)
    assert drawn.dtype == np.float32
    assert [float(u) * 2**24 for u in drawn] == expected
    np.testing.assert_array_equal(reference.words(3, seed=0) >> 8, expected[:3])


@pytest.mark.parametrize("draw", [reference.uniform, reference.normal])
def test_a_shorter_draw_is_a_prefix(draw: Callable[..., NDArray[np.float32]]) -> None:
    long = draw(23, seed=5, stream=9)
    for n in range(23):
        short = draw(n, seed=5, stream=9)
        assert short.shape == (n,)
        assert short.dtype == np.float32
        np.testing.assert_array_equal(short, long[:n])
    assert not np.array_equal(long, draw(23, seed=6, stream=9))
    assert not np.array_equal(long, draw(23, seed=5, stream=10))


def test_uniform_moments() -> None:
    u = reference.uniform(1 << 18, seed=1, stream=2).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.003
    assert abs(u.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


def test_normal_is_box_muller_on_pairs_of_words() -> None:
    w = reference.words(4, seed=3, stream=4).tolist()
    expected = []
    for a, b in ((w[0], w[1]), (w[2], w[3])):
        r = math.sqrt(-2 * math.log(((a >> 8) + 1) * 2**-24))
        angle = 2 * math.pi * (b >> 8) * 2**-24
        expected += [r * math.cos(angle), r * math.sin(angle)]
    np.testing.assert_allclose(reference.normal(4, seed=3, stream=4), expected, rtol=1e-7)


def test_normal_moments() -> None:
    z = reference.normal(1 << 18, seed=1, stream=0).astype(np.float64)
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03
    assert abs((z**4).mean() - 3) < 0.1


def test_permutation_is_fisher_yates_from_the_top() -> None:
    n, seed, stream = 7, 11, 13
    w = reference.words(2 * (n - 1), seed, stream).tolist()
    expected = list(range(n))
    for i in range(n - 1, 0, -1):
        k = n - 1 - i
        x = w[2 * k] + 2**32 * w[2 * k + 1]
        j = x * (i + 1) // 2**64
        expected[i], expected[j] = expected[j], expected[i]
    drawn = reference.permutation(n, seed, stream)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100])
def test_permutation_holds_every_number_once(n: int) -> None:
    assert sorted(reference.permutation(n, seed=1).tolist()) == list(range(n))


def test_permutations_are_equally_likely() -> None:
    draws = [tuple(reference.permutation(3, seed=s).tolist()) for s in range(1200)]
    counts = [draws.count(order) for order in set(draws)]
    assert len(counts) == 6
    # chi-square with 5 degrees of freedom: 20.5 is the 0.1 % point
    assert sum((c - 200) ** 2 / 200 for c in counts) < 20.5


def test_dropout_mask_element_by_element() -> None:
    drawn = reference.dropout_mask(3, 5, 0.25, seed=9, step=1000, layer=2)
    u = reference.uniform(15, seed=9, stream=1000 * 65536 + 2)
    assert drawn.dtype == np.float32
    assert drawn.shape == (3, 5)
    for sample in range(3):
        for feature in range(5):
            kept = u[sample * 5 + feature] >= 0.25
            assert drawn[sample, feature] == (np.float32(1 / 0.75) if kept else 0)


def test_dropout_keeps_an_element_that_equals_the_rate() -> None:
    u = reference.uniform(12, seed=9, stream=1)
    for rate in u:
        drawn = reference.dropout_mask(1, 12, float(rate), seed=9, step=0, layer=1)
        np.testing.assert_array_equal(drawn[0] > 0, u >= rate)


def test_dropout_keeps_its_share_and_the_mean() -> None:
    drawn = reference.dropout_mask(200, 300, 0.9, seed=0, step=0, layer=0)
    assert abs(np.mean(drawn == 0) - 0.9) < 0.005
    assert abs(drawn.mean(dtype=np.float64) - 1) < 0.05
    np.testing.assert_array_equal(
        reference.dropout_mask(4, 4, 0.0, seed=0, step=0, layer=0), np.ones((4, 4))
    )


def test_dropout_streams_differ_by_step_and_layer() -> None:
    draws = {
        reference.dropout_mask(8, 8, 0.5, seed=0, step=step, layer=layer).tobytes()
        for step in range(3)
        for layer in range(3)
    }
    assert len(draws) == 9


@pytest.mark.parametrize(
    ("rate", "step", "layer"), [(1.0, 0, 0), (-0.1, 0, 0), (math.nan, 0, 0), (0.5, -1, 0)]
)
def test_dropout_refuses(rate: float, step: int, layer: int) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= (rate|step)"):
        reference.dropout_mask(2, 2, rate, seed=0, step=step, layer=layer)


# ---- dense and activations


def torch_activation(torch: Any, name: str, z: Any, slope: float) -> Any:
    functional = torch.nn.functional
    return {
        "identity": lambda: z * 1,
        "relu": lambda: functional.relu(z),
        "leaky_relu": lambda: functional.leaky_relu(z, slope),
        "tanh": lambda: torch.tanh(z),
        "sigmoid": lambda: torch.sigmoid(z),
        "gelu": lambda: functional.gelu(z),
        "softmax": lambda: torch.softmax(z, -1),
    }[name]()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", reference.ACTIVATION_NAMES)
def test_activation_against_torch(torch: Any, name: str, dtype: Any) -> None:
    rng = generator()
    z = (3 * rng.standard_normal((6, 5))).astype(dtype)
    z[0] = [0.0, -0.0, 1.0, -1.0, 0.5]
    z[1] = [-90.0, 90.0, 1e-30, -1e-30, 20.0]
    dy = rng.standard_normal((6, 5)).astype(dtype)
    tz = torch.tensor(z, requires_grad=True)
    ty = torch_activation(torch, name, tz, 0.2)
    ty.backward(torch.tensor(dy))
    y = reference.activation_forward(name, z, slope=0.2)
    dz = reference.activation_backward(name, z, y, dy, slope=0.2)
    assert y.dtype == dz.dtype == dtype
    tolerance: dict[str, Any] = (
        {"rtol": 2e-6, "atol": 1e-6} if dtype == np.float32 else {"atol": 1e-14}
    )
    np.testing.assert_allclose(y, ty.detach().numpy(), **tolerance)
    np.testing.assert_allclose(dz, tz.grad.numpy(), **tolerance)


@pytest.mark.parametrize("name", reference.ACTIVATION_NAMES)
def test_activation_gradient_by_differences(name: str) -> None:
    rng = generator(1)
    z, dy = rng.standard_normal((2, 4, 6))
    y = reference.activation_forward(name, z)
    dz = reference.activation_backward(name, z, y, dy)
    for _ in range(3):
        direction = rng.standard_normal(z.shape)
        measured = slope_along(
            lambda z: float(np.sum(dy * reference.activation_forward(name, z))), z, direction
        )
        assert measured == pytest.approx(float(np.sum(dz * direction)), rel=1e-6)


def test_activation_at_zero_and_in_the_tails() -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert reference.activation_backward("relu", zero, zero, one) == 0
    assert reference.activation_backward("leaky_relu", zero, zero, one, slope=0.3) == 0.3
    far = np.array([-1e5, 1e5])
    np.testing.assert_array_equal(reference.activation_forward("sigmoid", far), [0, 1])
    np.testing.assert_array_equal(reference.activation_forward("softmax", far), [0, 1])
    # Phi(-8) = 6.220960574271785e-16 would be lost in 1 + erf
    gelu = reference.activation_forward("gelu", np.array([-8.0]))
    np.testing.assert_allclose(gelu, -8 * 6.220960574271785e-16, rtol=1e-12)


def test_activation_keeps_nan() -> None:
    z = np.array([[math.nan, 1.0]])
    for name in reference.ACTIVATION_NAMES:
        assert np.isnan(reference.activation_forward(name, z)[0, 0]), name


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match="activation is 'swish', expected one of identity, relu"):
        reference.activation_forward("swish", np.zeros(1))


def test_dense_against_torch(torch: Any) -> None:
    rng = generator()
    x, w, b, dy = (rng.standard_normal(s) for s in ((7, 4), (3, 4), (3,), (7, 3)))
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    tz = torch.nn.functional.linear(tx, tw, tb)
    tz.backward(torch.tensor(dy))
    np.testing.assert_allclose(reference.dense_forward(x, w, b), tz.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(
        reference.dense_forward(x, w, None), tz.detach().numpy() - b, atol=1e-14
    )
    gradients = reference.dense_backward(x, w, dy)
    for ours, theirs in zip(gradients, (tx, tw, tb), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-14)


# ---- losses


def example_target(loss: str, shape: tuple[int, int], seed: int = 0) -> NDArray[Any]:
    rng = generator(seed)
    if loss == "cross_entropy":
        return rng.integers(0, shape[1], shape[0])
    return rng.random(shape) if loss == "bce" else rng.standard_normal(shape)


def torch_loss(torch: Any, loss: str, z: Any, target: NDArray[Any]) -> Any:
    functional = torch.nn.functional
    f = {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy_with_logits,
    }[loss]
    return f(z, torch.tensor(target))


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_against_torch(torch: Any, loss: str, scale: float) -> None:
    z = scale * generator(2).standard_normal((6, 4))
    target = example_target(loss, (6, 4))
    tz = torch.tensor(z, requires_grad=True)
    theirs = torch_loss(torch, loss, tz, target)
    theirs.backward()
    ours, dz = reference.loss_forward_backward(loss, z, target)
    assert ours == pytest.approx(theirs.item(), rel=1e-13)
    np.testing.assert_allclose(dz, tz.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_gradient_by_differences(loss: str) -> None:
    rng = generator(3)
    z, target = rng.standard_normal((5, 3)), example_target(loss, (5, 3))
    _, dz = reference.loss_forward_backward(loss, z, target)
    for _ in range(3):
        direction = rng.standard_normal(z.shape)
        measured = slope_along(
            lambda z: reference.loss_forward_backward(loss, z, target)[0], z, direction
        )
        assert measured == pytest.approx(float(np.sum(dz * direction)), rel=1e-6)


@pytest.mark.parametrize("loss", reference.LOSS_NAMES)
def test_loss_in_float32(loss: str) -> None:
    z, target = generator(4).standard_normal((5, 3)), example_target(loss, (5, 3))
    single, dz = reference.loss_forward_backward(loss, z.astype(np.float32), target)
    double, wide = reference.loss_forward_backward(loss, z, target)
    assert dz.dtype == np.float32
    assert single == pytest.approx(double, rel=1e-6)
    np.testing.assert_allclose(dz, wide, atol=1e-7)


def test_losses_worked_by_hand() -> None:
    loss, dz = reference.loss_forward_backward(
        "cross_entropy", np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, 0])
    )
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    np.testing.assert_allclose(dz, [[0.125, -0.125], [-0.25, 0.25]])
    loss, dz = reference.loss_forward_backward("mse", np.array([[3.0, 1.0]]), np.ones((1, 2)))
    assert loss == 2.0
    np.testing.assert_array_equal(dz, [[2.0, 0.0]])
    loss, dz = reference.loss_forward_backward("bce", np.zeros((1, 2)), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(math.log(2))
    np.testing.assert_array_equal(dz, [[-0.25, 0.25]])


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        ("hinge", np.zeros((2, 3)), "loss is 'hinge', expected one of cross_entropy, mse, bce"),
        ("mse", np.zeros(2), r"mse got a target of shape \(2,\), expected \(2, 3\)"),
        ("cross_entropy", np.array([0, 3]), "labels run from 0 to 3, expected 0 to 2"),
        ("cross_entropy", np.array([-1, 0]), "labels run from -1 to 0"),
        ("cross_entropy", np.zeros(2), "of float64, expected"),
        ("cross_entropy", np.zeros((2, 3), dtype=int), r"labels \(2, 3\)"),
    ],
)
def test_loss_refuses(loss: str, target: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference.loss_forward_backward(loss, np.zeros((2, 3)), target)


def test_regularization() -> None:
    w = np.array([[1.0, -2.0], [0.0, 0.5]])
    penalty, dw = reference.regularization(w, l1=0.1, l2=0.01)
    assert penalty == pytest.approx(0.1 * 3.5 + 0.01 * 5.25)
    np.testing.assert_allclose(dw, [[0.12, -0.14], [0.0, 0.11]])
    assert reference.regularization(w.astype(np.float32), l1=0.1, l2=0.01)[1].dtype == np.float32


# ---- the network


def dense(name: str, activation: str = "identity", **settings: Any) -> dict[str, Any]:
    return {
        "type": "dense",
        "weight": f"{name}.weight",
        "bias": f"{name}.bias",
        "activation": activation,
        **settings,
    }


STACKS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "classifier": ([dense("a", "relu"), dense("b", "tanh"), dense("c")], "cross_entropy"),
    "fused softmax": ([dense("a", "gelu"), dense("b", "softmax")], "cross_entropy"),
    "fused sigmoid": ([dense("a", "sigmoid"), dense("b", "sigmoid")], "bce"),
    "softmax of its own": (
        [
            dense("a", "leaky_relu", slope=0.2),
            dense("b"),
            {"type": "activation"} | {"activation": "softmax"},
        ],
        "cross_entropy",
    ),
    "softmax inside": ([dense("a", "softmax"), dense("b", "softmax")], "mse"),
    "sigmoid under mse": ([dense("a", "sigmoid")], "mse"),
    "sigmoid under cross entropy": ([dense("a", "sigmoid")], "cross_entropy"),
    "penalties": ([dense("a", "tanh", l1=0.01, l2=0.1), dense("b", l2=0.3)], "mse"),
    "dropout": (
        [
            {"type": "dropout", "rate": 0.2, "index": 0},
            dense("a", "tanh"),
            {"type": "dropout", "rate": 0.5, "index": 3},
            dense("b"),
        ],
        "mse",
    ),
    "dropout last": ([dense("a"), {"type": "dropout", "rate": 0.5, "index": 1}], "bce"),
    "no bias": ([{"type": "dense", "weight": "a.weight", "bias": None}], "mse"),
}


def example_parameters(
    layers: list[dict[str, Any]], features: int = 5, hidden: int = 4, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    rng = generator(seed)
    parameters: dict[str, NDArray[np.float64]] = {}
    for layer in layers:
        if layer["type"] == "dense":
            parameters[layer["weight"]] = rng.standard_normal((hidden, features))
            if layer["bias"] is not None:
                parameters[layer["bias"]] = rng.standard_normal(hidden)
            features = hidden
    return parameters


def example_masks(parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    rng = generator(8)
    return {n: rng.random(p.shape) < 0.6 for n, p in parameters.items() if n.endswith("weight")}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_network_gradient_by_differences(stack: str, masked: bool) -> None:
    layers, loss = STACKS[stack]
    rng = generator(5)
    x, y = rng.standard_normal((6, 5)), example_target(loss, (6, 4))
    parameters = example_parameters(layers)
    masks = example_masks(parameters) if masked else None
    settings: dict[str, Any] = {"masks": masks, "seed": 3, "step": 17}
    _, gradients = reference.loss_and_gradients(layers, parameters, x, y, loss, **settings)
    assert list(gradients) == list(parameters)
    for name, value in parameters.items():

        def loss_at(moved: NDArray[np.float64], name: str = name) -> float:
            there = {**parameters, name: moved}
            return reference.loss_and_gradients(layers, there, x, y, loss, **settings)[0]

        direction = rng.standard_normal(value.shape)
        expected = float(np.sum(gradients[name] * direction))
        assert slope_along(loss_at, value, direction) == pytest.approx(expected, rel=2e-6, abs=1e-9)
        if masks and name in masks:
            assert np.all(gradients[name][~masks[name]] == 0)
            assert np.any(gradients[name] != 0)


@pytest.mark.parametrize("stack", [s for s in STACKS if "dropout" not in s])
def test_network_against_torch(torch: Any, stack: str) -> None:
    layers, loss = STACKS[stack]
    x, y = generator(5).standard_normal((6, 5)), example_target(loss, (6, 4))
    parameters = example_parameters(layers)
    tensors = {n: torch.tensor(p, requires_grad=True) for n, p in parameters.items()}
    fused = {"cross_entropy": "softmax", "bce": "sigmoid"}.get(loss)
    t, penalty = torch.tensor(x), 0
    for layer in layers:
        if layer["type"] == "dense":
            weight = tensors[layer["weight"]]
            t = torch.nn.functional.linear(t, weight, tensors.get(layer["bias"]))
            penalty += layer.get("l1", 0) * weight.abs().sum()
            penalty += layer.get("l2", 0) * (weight**2).sum()
        name = layer.get("activation", "identity")
        if not (layer is layers[-1] and name == fused):
            t = torch_activation(torch, name, t, layer.get("slope", 0.01))
    theirs = torch_loss(torch, loss, t, y) + penalty
    theirs.backward()
    ours, gradients = reference.loss_and_gradients(layers, parameters, x, y, loss)
    assert ours == pytest.approx(theirs.item(), rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, tensors[name].grad.numpy(), atol=1e-13)


@pytest.mark.parametrize(("activation", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "bce")])
def test_fusing_changes_the_output_only(activation: str, loss: str) -> None:
    plain, fused = [dense("a", "relu"), dense("b")], [dense("a", "relu"), dense("b", activation)]
    parameters = example_parameters(plain)
    x, y = generator(6).standard_normal((6, 5)), example_target(loss, (6, 4))
    z, probabilities = (reference.forward(s, parameters, x) for s in (plain, fused))
    np.testing.assert_array_equal(probabilities, reference.activation_forward(activation, z))
    results = [reference.loss_and_gradients(s, parameters, x, y, loss) for s in (plain, fused)]
    assert results[0][0] == results[1][0]
    for name in parameters:
        np.testing.assert_array_equal(results[0][1][name], results[1][1][name])


def test_removed_entries_are_never_read() -> None:
    layers, loss = STACKS["penalties"]
    parameters = example_parameters(layers)
    masks = example_masks(parameters)
    zeroed = {n: np.where(masks[n], p, 0) if n in masks else p for n, p in parameters.items()}
    spoiled = {
        n: np.where(masks[n], p, math.nan) if n in masks else p for n, p in parameters.items()
    }
    x, y = generator(6).standard_normal((6, 5)), example_target(loss, (6, 4))
    expected, dense_gradients = reference.loss_and_gradients(layers, zeroed, x, y, loss)
    bytes_mask = {n: m.astype(np.uint8) for n, m in masks.items()}
    got, gradients = reference.loss_and_gradients(layers, spoiled, x, y, loss, masks=bytes_mask)
    assert got == expected
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, masks.get(name, True) * dense_gradients[name])
    np.testing.assert_array_equal(
        reference.forward(layers, spoiled, x, masks=masks), reference.forward(layers, zeroed, x)
    )


def test_dropout_in_the_network() -> None:
    layers = [{"type": "dropout", "rate": 0.5, "index": 4}]
    x = generator().standard_normal((3, 5))
    np.testing.assert_array_equal(reference.forward(layers, {}, x), x)
    np.testing.assert_array_equal(
        reference.forward(layers, {}, x, training=True, seed=2, step=7),
        x * reference.dropout_mask(3, 5, 0.5, seed=2, step=7, layer=4),
    )
    still, _ = reference.loss_and_gradients(layers, {}, x, x, "mse", training=False)
    moved, _ = reference.loss_and_gradients(layers, {}, x, x, "mse")
    assert still == 0
    assert moved > 0


def test_shared_and_unused_parameters() -> None:
    layers = [dense("a"), dense("a")]
    parameters = example_parameters(layers, features=4) | {"idle": np.ones(2)}
    x = generator(7).standard_normal((6, 4))
    y = np.zeros((6, 4))
    _, gradients = reference.loss_and_gradients(layers, parameters, x, y, "mse")
    np.testing.assert_array_equal(gradients["idle"], [0, 0])
    split = [dense("a"), dense("b")]
    twins = {n.replace("a.", f"{k}."): p for k in "ab" for n, p in parameters.items()}
    _, apart = reference.loss_and_gradients(split, twins, x, y, "mse")
    np.testing.assert_allclose(gradients["a.weight"], apart["a.weight"] + apart["b.weight"])


def test_network_in_float32() -> None:
    layers = [dense("a", "gelu", l1=0.1, l2=0.1), {"type": "dropout", "rate": 0.5, "index": 1}]
    layers += [dense("b", "leaky_relu")]
    parameters = example_parameters(layers)
    single = {n: p.astype(np.float32) for n, p in parameters.items()}
    x, y = generator(7).standard_normal((6, 5)), generator(8).standard_normal((6, 4))
    x32 = x.astype(np.float32)
    masks = example_masks(parameters)
    loss, gradients = reference.loss_and_gradients(layers, single, x32, y, "mse", masks)
    wide, expected = reference.loss_and_gradients(layers, parameters, x, y, "mse", masks)
    assert loss == pytest.approx(wide, rel=1e-5)
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert reference.forward(layers, single, x32, masks=masks).dtype == np.float32


def test_unknown_layer() -> None:
    with pytest.raises(ValueError, match="layer 1 is of type 'conv', expected dense"):
        reference.forward(
            [{"type": "activation", "activation": "tanh"}, {"type": "conv"}], {}, np.zeros((1, 2))
        )


def test_empty_network() -> None:
    x = np.array([[2.0]])
    assert reference.forward([], {}, x) is x
    assert reference.loss_and_gradients([], {}, x, np.zeros((1, 1)), "mse") == (4.0, {})


# ---- optimizers

Step = Any

OPTIMIZERS: list[tuple[str, Step, dict[str, Any], dict[str, Any]]] = [
    ("SGD", reference.sgd_step, {"lr": 0.1}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "weight_decay": 0.05}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, {}),
    ("SGD", reference.sgd_step, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {}),
    (
        "SGD",
        reference.sgd_step,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {},
    ),
    ("Adam", reference.adam_step, {}, {}),
    ("Adam", reference.adam_step, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-2}, {}),
    ("Adam", reference.adam_step, {"lr": 0.1, "weight_decay": 0.05}, {}),
    ("AdamW", reference.adam_step, {"lr": 0.1, "weight_decay": 0.05}, {"decoupled": True}),
    ("RMSprop", reference.rmsprop_step, {}, {}),
    ("RMSprop", reference.rmsprop_step, {"lr": 0.1, "alpha": 0.8, "eps": 1e-2}, {}),
    ("RMSprop", reference.rmsprop_step, {"momentum": 0.9, "weight_decay": 0.05}, {}),
]


@pytest.mark.parametrize(("name", "step", "settings", "ours_only"), OPTIMIZERS)
def test_optimizer_against_torch(
    torch: Any, name: str, step: Step, settings: dict[str, Any], ours_only: dict[str, Any]
) -> None:
    rng = generator(9)
    params = rng.standard_normal((3, 4))
    tensor = torch.tensor(params, requires_grad=True)
    theirs = getattr(torch.optim, name)([tensor], **settings)
    state: dict[str, Any] = {}
    for t in range(1, 8):
        grads = rng.standard_normal((3, 4)) * t
        tensor.grad = torch.tensor(grads)
        theirs.step()
        params, state = step(params, grads, state, step=t, **settings, **ours_only)
        np.testing.assert_allclose(params, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "step", "settings", "ours_only"), OPTIMIZERS)
def test_optimizer_keeps_inputs_dtype_and_mask(
    name: str, step: Step, settings: dict[str, Any], ours_only: dict[str, Any]
) -> None:
    rng = generator(10)
    start = rng.standard_normal(9).astype(np.float32)
    mask = np.arange(9) % 3 > 0
    settings = {"lr": 0.1, **settings, **ours_only}
    params, live = start.copy(), start[mask]
    state: dict[str, Any] = {}
    live_state: dict[str, Any] = {}
    for t in range(1, 4):
        if t == 2:  # as after a pruning event: what a removed entry holds must not matter
            params = np.where(mask, params, np.float32(5))
            state = {k: np.where(mask, v, np.float32(5)) for k, v in state.items()}
        grads = rng.standard_normal(9).astype(np.float32)
        spoiled = np.where(mask, grads, np.float32(math.nan))
        before = [a.tobytes() for a in (params, spoiled, *state.values())]
        result = step(params, spoiled, state, step=t, mask=mask, **settings)
        assert before == [a.tobytes() for a in (params, spoiled, *state.values())]
        params, state = result
        live, live_state = step(live, grads[mask], live_state, step=t, **settings)
        for key, value in {"params": params, **state}.items():
            assert value.dtype == np.float32
            assert np.all(value[~mask] == 0), key
        np.testing.assert_array_equal(params[mask], live)


def test_optimizers_worked_by_hand() -> None:
    w, g = np.array([2.0]), np.array([0.5])
    decayed, _ = reference.sgd_step(w, g, {}, lr=0.1, weight_decay=0.5, decoupled=True)
    np.testing.assert_allclose(decayed, 2 * (1 - 0.05) - 0.05)
    # b: 0.5 then 0.9 * 0.5 + 0.5 * 0.5 = 0.7; dampening spares the first step
    first, state = reference.sgd_step(w, g, {}, step=1, lr=1.0, momentum=0.9, dampening=0.5)
    second, state = reference.sgd_step(first, g, state, step=2, lr=1.0, momentum=0.9, dampening=0.5)
    np.testing.assert_allclose([first[0], second[0], state["momentum"][0]], [1.5, 0.8, 0.7])
    # zeros instead of no state, as a flat buffer has them, start alike
    zeros = {"momentum": np.zeros(1)}
    again, _ = reference.sgd_step(w, g, zeros, step=1, lr=1.0, momentum=0.9, dampening=0.5)
    np.testing.assert_array_equal(again, first)
    # the first Adam step is lr * sign(g) whatever the size of g
    moved, _ = reference.adam_step(w, np.array([1e4]), {}, step=1, lr=0.25)
    np.testing.assert_allclose(moved, 1.75)


# ---- clipping


def example_gradients(dtype: Any = np.float64) -> list[NDArray[Any]]:
    rng = generator(11)
    return [(10 * rng.standard_normal(s)).astype(dtype) for s in ((4, 3), (4,), (2, 4), (0,))]


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_norm_is_uniform_and_bounded(p: float, dtype: Any) -> None:
    gradients = example_gradients(dtype)
    before = [g.copy() for g in gradients]
    clipped, norm = reference.clip_grad_norm(gradients, 2.0, p)
    assert norm == pytest.approx(reference.total_norm(before, p))
    assert norm > 2
    after = reference.total_norm(clipped, p)
    # the threshold, not the unit ball
    assert 2 * (1 - 1e-6) < after <= 2
    for old, new, kept in zip(before, clipped, gradients, strict=True):
        assert new.dtype == dtype
        np.testing.assert_array_equal(kept, old)
        np.testing.assert_allclose(new / old, 2 / (norm + 1e-6), rtol=2e-7)


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("max_norm", [2.0, 1e6])
def test_clip_by_norm_against_torch(torch: Any, p: float, max_norm: float) -> None:
    gradients = example_gradients()[:3]
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in gradients]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = torch.tensor(gradient)
    theirs = torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type=p)
    clipped, norm = reference.clip_grad_norm(gradients, max_norm, p)
    assert norm == pytest.approx(theirs.item(), rel=1e-12)
    for tensor, ours in zip(tensors, clipped, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-12)


def test_norms_worked_by_hand() -> None:
    arrays = [np.array([3.0, 0.0]), np.array([[-4.0]])]
    assert reference.total_norm(arrays) == 5
    assert reference.total_norm(arrays, 1) == 7
    assert reference.total_norm(arrays, math.inf) == 4
    assert reference.total_norm([np.array([1.0, 4.0])], 0.5) == pytest.approx(9)
    assert reference.total_norm([]) == 0
    assert reference.total_norm([np.zeros(3)], 0.5) == 0
    assert reference.clip_grad_norm([], 1.0) == ([], 0.0)


@pytest.mark.parametrize("p", NORM_TYPES)
@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_norm_neither_overflows_nor_underflows(p: float, size: float) -> None:
    ones = reference.total_norm([np.array([1.0, -2.0, 3.0])], p)
    assert reference.total_norm([size * np.array([1.0, -2.0, 3.0])], p) == pytest.approx(
        size * ones, rel=1e-12
    )


def test_finite_gradients_survive_a_norm_beyond_float32() -> None:
    huge = [np.full(4, 3e38, dtype=np.float32)]
    clipped, norm = reference.clip_grad_norm(huge, 1.0)
    assert norm == pytest.approx(6e38, rel=1e-6)
    np.testing.assert_allclose(clipped[0], 0.5, rtol=1e-6)


def test_norms_that_are_not_finite() -> None:
    nan, inf = np.array([1.0, math.nan]), np.array([-math.inf, 1.0])
    for p in NORM_TYPES:
        assert math.isnan(reference.total_norm([nan], p))
        assert math.isnan(reference.total_norm([inf, nan], p))
        assert reference.total_norm([inf], p) == math.inf
    for bad in (nan, inf):
        clipped, _ = reference.clip_grad_norm([bad], 1.0)
        assert clipped[0].tobytes() == bad.tobytes()


def test_scale_one_leaves_the_bits() -> None:
    gradients = [np.array([0.6, -0.8]), np.array([-0.0])]
    clipped, norm = reference.clip_grad_norm(gradients, 1.0)
    assert norm == 1
    for old, new in zip(gradients, clipped, strict=True):
        assert new is not old
        assert new.tobytes() == old.tobytes()
    assert reference.clip_scale(1.0, 1.0) == 1
    assert reference.clip_scale(3.0, 2.0) == 2 / 3.000001
    assert reference.clip_scale(3.0, 0.0) == 0
    # next to the limit: the epsilon may not lift the factor over 1
    assert reference.clip_scale(math.nextafter(1.0, 2.0), 1.0) < 1


def test_clip_by_value() -> None:
    g = np.array([-3.0, -0.5, 0.0, 0.5, math.inf, math.nan], dtype=np.float32)
    (clipped,) = reference.clip_grad_value([g], 1.0)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, np.array([-1, -0.5, 0, 0.5, 1, math.nan]))
    assert g[0] == -3


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_clipping_refuses(bad: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0"):
        reference.clip_grad_norm([np.ones(1)], bad)
    with pytest.raises(ValueError, match="expected at least 0"):
        reference.clip_grad_value([np.ones(1)], bad)
    for p in (bad, 0.0):
        with pytest.raises(ValueError, match="expected a number above 0 or inf"):
            reference.total_norm([np.ones(1)], p)


# ---- selection


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_topk_against_a_sort_of_pairs(dtype: Any) -> None:
    rng = generator(12)
    choices = np.array([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf], dtype=dtype)
    for n in (0, 1, 2, 5, 40, 300):
        scores = rng.choice(choices, n)
        order = sorted(range(n), key=lambda i: (-scores[i], i))
        for k in {0, n // 3, n // 2, max(n - 1, 0), n}:
            kept = reference.topk_mask(scores, k)
            assert kept.dtype == np.bool_
            assert np.flatnonzero(kept).tolist() == sorted(order[:k])


def test_topk_keeps_the_shape_and_reads_in_c_order() -> None:
    scores = np.asfortranarray([[1.0, 1.0], [1.0, 2.0]])
    np.testing.assert_array_equal(reference.topk_mask(scores, 2), [[True, False], [False, True]])
    np.testing.assert_array_equal(
        reference.topk_mask(np.array([-0.0, 0.0, -0.0]), 2), [True, True, False]
    )


def test_topk_refuses() -> None:
    with pytest.raises(ValueError, match="score 1 is NaN"):
        reference.topk_mask(np.array([1.0, math.nan]), 1)
    for k in (-1, 3):
        with pytest.raises(ValueError, match=f"k is {k}, expected 0 <= k <= 2"):
            reference.topk_mask(np.ones(2), k)


# ---- pruning


def pruned(weights: list[NDArray[np.float64]], removed: int) -> list[list[Any]]:
    """Global magnitude pruning of some matrices, as the arena does it: flat, in order."""
    flat = np.concatenate([w.ravel() for w in weights])
    mask = reference.prune_mask(reference.magnitude(flat), flat != math.inf, removed)
    parts = np.split(np.where(mask, flat, 0), np.cumsum([w.size for w in weights])[:-1])
    return [part.reshape(w.shape).tolist() for part, w in zip(parts, weights, strict=True)]


MATRIX = np.array([[1.0, 2, 3, 4], [-4, -3, -2, -1]])


def test_magnitude_by_hand() -> None:
    once = [[0, 2, 3, 4], [-4, -3, -2, 0]]
    assert pruned([MATRIX], 2) == [once]
    mask = reference.prune_mask(reference.magnitude(MATRIX), np.ones((2, 4), dtype=bool), 2)
    again = reference.prune_mask(reference.magnitude(MATRIX * mask), mask, 4)
    assert (MATRIX * again).tolist() == [[0, 0, 3, 4], [-4, -3, 0, 0]]


def test_global_magnitude_by_hand() -> None:
    once = [[0, 2, 3, 4], [-4, -3, -2, 0]]
    assert pruned([MATRIX, np.array([[0, 0.1, -2]])], 4) == [once, [[0, 0, -2]]]


def test_ties_never_prune_too_much() -> None:
    mask = reference.prune_mask(np.ones(10), np.ones(10, dtype=bool), 7)
    assert mask.tolist() == [True] * 3 + [False] * 7


def test_what_is_removed_stays_removed() -> None:
    mask = np.array([1, 0, 1, 0, 1], dtype=np.uint8)
    # the removed entries have the best scores, one of them no score at all
    scores = np.array([1.0, 9.0, 3.0, math.nan, 2.0])
    assert reference.prune_mask(scores, mask, 3).tolist() == [False, False, True, False, True]
    assert reference.prune_mask(scores, mask, 1).tolist() == mask.astype(bool).tolist()
    assert not reference.prune_mask(scores, mask, 5).any()
    assert mask.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="removed is 6, expected 0 <= removed <= 5"):
        reference.prune_mask(scores, mask, 6)


def test_magnitude_against_torch(torch: Any) -> None:
    prune = pytest.importorskip("torch.nn.utils.prune")
    layer = torch.nn.Linear(6, 5)
    weight = generator(13).standard_normal((5, 6)).astype(np.float32)
    layer.weight.data = torch.tensor(weight)
    prune.l1_unstructured(layer, "weight", amount=0.4)
    mask = reference.prune_mask(
        reference.magnitude(weight),
        np.ones((5, 6), dtype=bool),
        reference.removed_count(0.4, weight.size),
    )
    np.testing.assert_array_equal(mask, layer.weight_mask.numpy() == 1)


def test_removed_count() -> None:
    assert reference.removed_count(0.4, 17) == 7
    assert reference.removed_count(0.2, 10) == 2
    assert reference.removed_count(0.9999, 10) == 10
    assert reference.removed_count(0.9999, 10, keep=1) == 9
    assert reference.removed_count(1.0, 0, keep=1) == 0
    # Python rounds halves to even
    assert [reference.removed_count(0.5, n) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected 0 <= sparsity <= 1"):
            reference.removed_count(bad, 10)


def test_one_to_ten_at_a_fifth() -> None:
    scores = reference.magnitude(np.arange(1.0, 11.0))
    everything = np.ones(10, dtype=bool)
    two = reference.prune_mask(scores, everything, reference.removed_count(0.2, 10))
    assert np.flatnonzero(~two).tolist() == [0, 1]
    nearly = reference.prune_mask(scores, everything, reference.removed_count(0.9999, 10, keep=1))
    assert np.flatnonzero(nearly).tolist() == [9]


def test_moments_are_means_over_batches() -> None:
    batches = generator(14).standard_normal((6, 3, 4))
    mean: NDArray[Any] = np.zeros((3, 4))
    mean_square: NDArray[Any] = mean
    for count, g in enumerate(batches, start=1):
        mean, mean_square = reference.moments_accumulate(mean, mean_square, g, count)
        np.testing.assert_allclose(mean, batches[:count].mean(axis=0), atol=1e-15)
        np.testing.assert_allclose(mean_square, (batches[:count] ** 2).mean(axis=0), atol=1e-15)
    single = np.zeros(2, dtype=np.float32)
    for moment in reference.moments_accumulate(single, single, single + 1, 1):
        assert moment.dtype == np.float32
        assert moment.tolist() == [1, 1]


def test_scores_by_hand() -> None:
    w, m = np.array([2.0, -3.0, 0.0, 1.0]), np.array([0.5, 1.0, 7.0, -4.0])
    assert reference.magnitude(w).tolist() == [2, 3, 0, 1]
    assert reference.gradient(m).tolist() == [0.5, 1, 7, 4]
    assert reference.gradient(m, factor=-2.0).tolist() == [-1, -2, -14, -8]
    assert reference.taylor(w, m).tolist() == [1, 3, 0, 4]
    parts = reference.gradient_decomposition(w, m, np.array([0.5, 1.0, 50.0, 18.0]))
    assert parts.signal.tolist() == [-1, 3, 0, 4]
    assert parts.curvature.tolist() == [1, 4.5, 0, 9]
    assert parts.scores.tolist() == [0, 7.5, 0, 13]
    # m^2 / (F - m^2): 0.25 / 0.25, 1 / 0, 49 / 1, 16 / 2
    assert parts.snr.tolist() == [1, math.inf, 49, 8]


def test_snr_without_variance() -> None:
    zero = reference.gradient_decomposition(np.ones(1), np.zeros(1), np.zeros(1))
    assert zero.snr.tolist() == [0]
    # F a rounding error below m^2 is no variance
    below = reference.gradient_decomposition(np.ones(1), np.ones(1), np.array([1 - 1e-16]))
    assert below.snr.tolist() == [math.inf]


def test_scores_predict_the_change_of_the_loss() -> None:
    rng = generator(15)
    w, c, h = rng.standard_normal((3, 8))

    def loss(w: NDArray[np.float64], curvature: NDArray[np.float64]) -> float:
        return float(np.sum(c * w + 0.5 * curvature * w**2))

    flat = np.zeros(8)
    linear = reference.taylor(w, c)
    quadratic = reference.gradient_decomposition(w, c + h * w, h).scores
    for i in range(8):
        without = np.where(np.arange(8) == i, 0.0, w)
        assert linear[i] == pytest.approx(abs(loss(without, flat) - loss(w, flat)))
        assert quadratic[i] == pytest.approx(abs(loss(without, h) - loss(w, h)))


def test_random_scores() -> None:
    np.testing.assert_array_equal(reference.random(9, 3, 4), reference.uniform(9, 3, 4))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.2), (100, 0.2), (102, 0.4928), (105, 0.725), (110, 0.8), (999, 0.8)],
)
def test_polynomial_sparsity_by_hand(step: int, expected: float) -> None:
    s = reference.polynomial_sparsity(step, sparsity=0.8, start=100, stop=110, initial=0.2)
    assert s == pytest.approx(expected)


def test_polynomial_sparsity_powers() -> None:
    # half way through 0..20, which is what jaxpruner calls step 9
    assert reference.polynomial_sparsity(10, sparsity=0.5, start=0, stop=20) == 0.4375
    linear = reference.polynomial_sparsity(5, sparsity=0.8, start=0, stop=20, power=1)
    assert linear == pytest.approx(0.2)
    jump = [reference.polynomial_sparsity(t, sparsity=0.8, start=5, stop=5) for t in (4, 5, 6)]
    assert jump == [0, 0.8, 0.8]


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_two_rounds_of_a_fraction(p: float) -> None:
    total = 1 - (1 - p) ** 2
    kept = [1 - reference.iterative_sparsity(r, sparsity=total, rounds=2) for r in range(4)]
    assert kept == pytest.approx([1, 1 - p, (1 - p) ** 2, (1 - p) ** 2])
