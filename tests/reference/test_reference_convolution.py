"""The oracle's convolution and pooling against torch, finite differences and cases by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradprune import reference
from oracle_checks import generator, slope_along

# Images, filters (O, C / groups, U, V), and how they slide.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((3, 2, 5, 6), (4, 2, 3, 2), {}),
    "one": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "stride": ((2, 3, 8, 7), (2, 3, 2, 3), {"stride": (3, 2)}),
    "padding": ((2, 2, 4, 5), (3, 2, 3, 3), {"padding": (2, 1), "stride": 2}),
    "dilation": ((2, 2, 7, 8), (3, 2, 3, 2), {"dilation": (2, 3)}),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((2, 4, 5, 6), (8, 1, 3, 2), {"groups": 4, "stride": 2}),
    "same": ((2, 2, 5, 6), (3, 2, 4, 3), {"padding": "same", "dilation": (1, 2)}),
    "valid": ((2, 2, 5, 6), (3, 2, 4, 3), {"padding": "valid"}),
    "all": (
        (2, 4, 9, 8),
        (6, 2, 2, 3),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (3, 2), "groups": 2},
    ),
}
POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 4, 6), {"kernel": 2}),
    "overlap": ((2, 3, 7, 6), {"kernel": (3, 2), "stride": 1}),
    "gaps": ((2, 3, 7, 8), {"kernel": (1, 2), "stride": (2, 3)}),
    "padding": ((2, 3, 5, 6), {"kernel": 3, "stride": 2, "padding": (1, 0)}),
    "valid": ((2, 3, 5, 6), {"kernel": (2, 4), "padding": "valid"}),
}
by_convolution = pytest.mark.parametrize("name", CONVOLUTIONS)
by_pool = pytest.mark.parametrize("name", POOLS)
by_kind = pytest.mark.parametrize("kind", reference.POOLING_NAMES)


def example(name: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    """x, weight, bias, settings."""
    rng = generator(3)
    images, filters, settings = CONVOLUTIONS[name]
    x, weight = rng.standard_normal(images), rng.standard_normal(filters)
    return x, weight, rng.standard_normal(len(weight)), settings


@by_convolution
def test_convolution_against_torch(torch: Any, name: str) -> None:
    x, weight, bias, settings = example(name)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, weight, bias))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it copies for some of "same"
        tz = torch.nn.functional.conv2d(tx, tw, tb, **settings)
    dz = generator(4).standard_normal(tz.shape)
    tz.backward(torch.tensor(dz))
    z = reference.conv2d_forward(x, weight, bias, **settings)
    np.testing.assert_allclose(z, tz.detach().numpy(), atol=1e-13)
    plain = reference.conv2d_forward(x, weight, None, **settings)
    np.testing.assert_allclose(plain + bias[:, None, None], z, atol=1e-13)
    gradients = reference.conv2d_backward(x, weight, dz, **settings)
    for ours, theirs in zip(gradients, (tx, tw, tb), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-13)


@by_convolution
def test_convolution_gradients_by_differences(name: str) -> None:
    *arguments, settings = example(name)
    z = reference.conv2d_forward(*arguments, **settings)
    dz = generator(4).standard_normal(z.shape)
    gradients = reference.conv2d_backward(*arguments[:2], dz, **settings)
    for place, gradient in enumerate(gradients):

        def loss(moved: Any, place: int = place) -> float:
            changed = [*arguments[:place], moved, *arguments[place + 1 :]]
            return float((reference.conv2d_forward(*changed, **settings) * dz).sum())

        direction = generator(place).standard_normal(gradient.shape)
        measured = slope_along(loss, arguments[place], direction)
        assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-6, abs=1e-7)


@by_pool
@by_kind
def test_pooling_against_torch(torch: Any, kind: str, name: str) -> None:
    images, settings = POOLS[name]
    x = generator(5).standard_normal(images)
    tx = torch.tensor(x, requires_grad=True)
    pool = getattr(torch.nn.functional, {"max": "max_pool2d", "mean": "avg_pool2d"}[kind])
    padding = settings.get("padding", 0)
    ty = pool(tx, settings["kernel"], settings.get("stride"), 0 if padding == "valid" else padding)
    dy = generator(6).standard_normal(ty.shape)
    ty.backward(torch.tensor(dy))
    y = reference.pool2d_forward(x, kind, **settings)
    np.testing.assert_allclose(y, ty.detach().numpy(), atol=1e-14)
    dx = reference.pool2d_backward(x, dy, kind, **settings)
    np.testing.assert_allclose(dx, tx.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("padding", ["same", (1, 2), ((0, 1), (2, 0))])
@by_kind
def test_pooling_gradients_by_differences(kind: str, padding: Any) -> None:
    rng = generator(7)
    x, direction = rng.standard_normal((2, 3, 2, 5, 7))
    settings: dict[str, Any] = {"kernel": (2, 3), "stride": (1, 2), "padding": padding}
    dy = rng.standard_normal(reference.pool2d_forward(x, kind, **settings).shape)
    dx = reference.pool2d_backward(x, dy, kind, **settings)

    def loss(moved: Any) -> float:
        return float((reference.pool2d_forward(moved, kind, **settings) * dy).sum())

    expected = float((dx * direction).sum())
    assert slope_along(loss, x, direction) == pytest.approx(expected, rel=1e-6, abs=1e-7)


# ---- by hand


def row(*numbers: float) -> Any:
    """An image of one row."""
    return np.array(numbers, np.float64).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [21, 32, 43, 54]),  # 1 + 2 * 10, ...
        ({"stride": (1, 3)}, [21, 54]),
        ({"dilation": (1, 3)}, [41, 52]),
        ({"padding": ((0, 0), (1, 0))}, [10, 21, 32, 43, 54]),
        ({"padding": ((0, 0), (0, 2))}, [21, 32, 43, 54, 5, 0]),
        ({"padding": (0, 1), "stride": 2}, [10, 32, 54]),
        ({"padding": "same"}, [21, 32, 43, 54, 5]),  # the odd zero is behind
        ({"padding": "same", "stride": 2}, [21, 43, 5]),
        ({"padding": "same", "stride": 3}, [21, 54]),
        ({"padding": "same", "dilation": 2}, [20, 31, 42, 53, 4]),
        ({"padding": "same", "dilation": 3}, [30, 41, 52, 3, 4]),
    ],
    ids=str,
)
def test_one_row_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    z = reference.conv2d_forward(row(1, 2, 3, 4, 5), row(1, 10), None, **settings)
    np.testing.assert_array_equal(z.ravel(), expected)


def test_groups_see_nothing_of_each_other() -> None:
    x, weight, bias, _ = example("groups")
    z = reference.conv2d_forward(x, weight, bias, groups=3)
    alone = [
        reference.conv2d_forward(x[:, 2 * g : 2 * g + 2], weight[3 * g : 3 * g + 3], None)
        for g in range(3)
    ]
    np.testing.assert_allclose(z, np.concatenate(alone, axis=1) + bias[:, None, None], atol=1e-13)


def test_a_kernel_as_large_as_the_image_is_a_dense_layer() -> None:
    rng = generator(8)
    x, weight, dz = (rng.standard_normal(s) for s in ((5, 3, 4, 2), (6, 3, 4, 2), (5, 6, 1, 1)))
    z = reference.conv2d_forward(x, weight, None)
    flat, rows = x.reshape(5, -1), weight.reshape(6, -1)
    np.testing.assert_allclose(z[:, :, 0, 0], reference.dense_forward(flat, rows, None))
    dx, dweight, dbias = reference.conv2d_backward(x, weight, dz)
    expected = reference.dense_backward(flat, rows, dz[:, :, 0, 0])
    ours = dx.reshape(5, -1), dweight.reshape(6, -1), dbias
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, theirs)


def test_what_pads_is_left_out_of_the_largest_and_0_in_the_mean() -> None:
    x = row(-4, -8)
    settings: dict[str, Any] = {"kernel": (1, 2), "stride": 1, "padding": (0, 1)}
    largest = reference.pool2d_forward(x, "max", **settings)
    np.testing.assert_array_equal(largest.ravel(), [-4, -4, -8])
    mean = reference.pool2d_forward(x, "mean", **settings)
    np.testing.assert_array_equal(mean.ravel(), [-2, -6, -4])
    dy = row(1, 10, 100)
    np.testing.assert_array_equal(
        reference.pool2d_backward(x, dy, "max", **settings).ravel(), [11, 100]
    )
    np.testing.assert_array_equal(
        reference.pool2d_backward(x, dy, "mean", **settings).ravel(), [5.5, 55]
    )


def test_of_equal_numbers_the_first_gets_the_gradient() -> None:
    x = np.array([[[[1.0, 7.0, 0.0], [7.0, 7.0, 7.0]]]])
    dx = reference.pool2d_backward(x, row(1, 10), "max", 2, stride=1)
    np.testing.assert_array_equal(dx[0, 0], [[0, 11, 0], [0, 0, 0]])


@by_kind
def test_float32_stays_float32(kind: str) -> None:
    x, weight, bias, settings = example("all")
    narrow = [a.astype(np.float32) for a in (x, weight, bias)]
    z = reference.conv2d_forward(*narrow, **settings)
    np.testing.assert_allclose(z, reference.conv2d_forward(x, weight, bias, **settings), rtol=1e-4)
    y = reference.pool2d_forward(z, kind, 2, padding=1)
    dz = reference.pool2d_backward(z, y, kind, 2, padding=1)
    gradients = reference.conv2d_backward(*narrow[:2], dz, **settings)
    assert {a.dtype for a in (z, y, dz, *gradients)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "call",
    [
        lambda x: reference.conv2d_forward(x, np.ones((1, 1, 3, 3)), None),
        lambda x: reference.conv2d_forward(x, np.ones((1, 1, 2, 2)), None, dilation=(1, 4)),
        lambda x: reference.pool2d_forward(x, "max", (1, 5)),
    ],
)
def test_kernels_that_do_not_fit(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"does not fit into \(1, 1, 2, 4\)"):
        call(np.ones((1, 1, 2, 4)))


def test_unknown_pooling() -> None:
    with pytest.raises(ValueError, match="pooling is 'sum', expected one of max, mean"):
        reference.pool2d_forward(np.ones((1, 1, 2, 2)), "sum", 2)


# ---- in a network


def convolution(name: str, activation: str = "identity", **settings: Any) -> dict[str, Any]:
    names = {"weight": f"{name}.weight", "bias": f"{name}.bias"}
    return {"type": "convolution", **names, "activation": activation, **settings}


NETWORK: list[dict[str, Any]] = [
    convolution("a", "tanh", stride=(1, 2), padding="same", l1=0.01, l2=0.1),
    {"type": "pooling", "pooling": "max", "kernel": (2, 1), "padding": (1, 0)},
    convolution("b", "gelu", groups=2, dilation=(1, 2)),
    {"type": "dropout", "rate": 0.3, "index": 5},
    {"type": "pooling", "pooling": "mean", "kernel": 2, "stride": 1},
    convolution("c", "leaky_relu", slope=0.2, padding=((1, 0), (0, 1))),
    {"type": "pooling", "pooling": "mean", "kernel": None},
    {"type": "flatten"},
    {"type": "activation", "activation": "softmax"},
]
SHAPES = {"a": (4, 3, 2, 3), "b": (6, 2, 2, 2), "c": (5, 6, 2, 1)}


@pytest.mark.parametrize("masked", [False, True])
def test_network_gradient_by_differences(masked: bool) -> None:
    rng = generator(9)
    parameters = {}
    for name, shape in SHAPES.items():
        parameters[f"{name}.weight"] = 0.5 * rng.standard_normal(shape)
        parameters[f"{name}.bias"] = rng.standard_normal(shape[0])
    masks = {n: rng.random(p.shape) < 0.6 for n, p in parameters.items() if "weight" in n}
    x, y = rng.standard_normal((4, 3, 5, 8)), rng.integers(0, 5, 4)
    settings: dict[str, Any] = {"masks": masks if masked else None, "seed": 3, "step": 17}
    assert reference.forward(NETWORK, parameters, x).shape == (4, 5)
    _, gradients = reference.loss_and_gradients(
        NETWORK, parameters, x, y, "cross_entropy", **settings
    )
    for name, value in parameters.items():

        def loss_at(moved: Any, name: str = name) -> float:
            there = {**parameters, name: moved}
            return reference.loss_and_gradients(NETWORK, there, x, y, "cross_entropy", **settings)[
                0
            ]

        direction = rng.standard_normal(value.shape)
        expected = float(np.sum(gradients[name] * direction))
        assert slope_along(loss_at, value, direction) == pytest.approx(expected, rel=1e-5, abs=1e-9)
        if masked and name in masks:
            assert not gradients[name][~masks[name]].any()


def test_images_as_outputs() -> None:
    """A convolution may be the last layer; then the loss flattens, and sigmoid is fused."""
    rng = generator(10)
    layers = [convolution("a", "sigmoid")]
    parameters = {"a.weight": rng.standard_normal((2, 1, 2, 2)), "a.bias": np.zeros(2)}
    x = rng.standard_normal((3, 1, 3, 4))
    z = reference.conv2d_forward(x, *parameters.values())
    target = rng.random((3, 12))
    expected, dz = reference.loss_forward_backward("bce", z.reshape(3, -1), target)
    loss, gradients = reference.loss_and_gradients(layers, parameters, x, target, "bce")
    assert loss == expected
    _, dweight, dbias = reference.conv2d_backward(x, parameters["a.weight"], dz.reshape(z.shape))
    np.testing.assert_array_equal(gradients["a.weight"], dweight)
    np.testing.assert_array_equal(gradients["a.bias"], dbias)
    np.testing.assert_array_equal(reference.forward(layers, parameters, x), reference.sigmoid(z))
