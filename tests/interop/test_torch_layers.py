"""Sparse layers inside torch: the numbers of masked dense ones, and everything that modules do.

The judge computes in double with dense weights that are 0 where removed.
"""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.importing import from_torch


@pytest.fixture(scope="module")
def sparse(torch: Any) -> Any:
    """``gradprune.torch``, which needs torch to be imported."""
    return importlib.import_module("gradprune.torch")


def masked(torch: Any, layer: Any, sparsity: float, seed: int = 0) -> Any:
    """The layer with a mask of torch.nn.utils.prune."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(layer.weight.shape, generator=generator) >= sparsity
    return torch.nn.utils.prune.custom_from_mask(layer, "weight", mask)


def network(torch: Any, sparsity: float = 0.9) -> Any:
    """Convolutions and dense layers with masks, with the same numbers at every call."""
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(32, 20),
        nn.Tanh(),
        nn.Linear(20, 10),
    )
    for i, layer in enumerate(net):
        if hasattr(layer, "weight"):
            masked(torch, layer, sparsity, i)
    return net


def agrees(torch: Any, found: Any, expected: Any, scale: float = 1.0) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-6 * scale)


def check_against_dense(torch: Any, layer: Any, x: Any, function: Any) -> None:
    """Outputs and all gradients; ``function(x, weight, bias)`` is the judge's."""
    x = x.detach().requires_grad_()
    exact = [
        tensor.detach().double().requires_grad_()
        for tensor in (x, layer.weight, *([] if layer.bias is None else [layer.bias]))
    ]
    y, expected = layer(x), function(*exact)
    assert y.shape == expected.shape
    assert y.dtype is torch.float32
    agrees(torch, y.detach(), expected.detach(), layer.weight[0].numel() ** 0.5)
    dy = torch.randn(y.shape)
    y.backward(dy)
    expected.backward(dy.double())
    size = max(x.numel() ** 0.5, 1.0)
    agrees(torch, x.grad, exact[0].grad, len(layer.weight) ** 0.5)
    agrees(torch, layer.values.grad, exact[1].grad.flatten()[layer.indices.long()], size)
    if layer.bias is not None:
        agrees(torch, layer.bias.grad, exact[2].grad, size)


@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (16, 16), (33, 20), (65, 130)])
@pytest.mark.parametrize("batch", [(), (0,), (1,), (3,), (17,), (64,), (65,), (130,), (4, 5)])
def test_linear_is_the_masked_dense_layer(
    torch: Any, sparse: Any, sizes: tuple[int, int], batch: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    for sparsity, bias in ((0.0, True), (0.8, True), (0.9, False), (1.0, True)):
        mask = torch.rand(sizes[1], sizes[0]) >= sparsity
        layer = sparse.SparseLinear(*sizes, bias=bias, mask=mask)
        x = torch.randn(*batch, sizes[0])
        check_against_dense(torch, layer, x, torch.nn.functional.linear)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "padding": (1, 0), "stride": (1, 2), "bias": False},
    {"kernel_size": 3, "padding": "same", "dilation": (1, 2)},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": 3, "groups": 2, "padding": 1, "stride": 2},
    {"kernel_size": 1, "groups": 4},
    {"kernel_size": (8, 7), "padding": "valid"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_convolution_is_the_masked_dense_layer(
    torch: Any, sparse: Any, settings: dict[str, Any]
) -> None:
    torch.manual_seed(2)
    dense = torch.nn.Conv2d(4, 12, **settings)
    own = {name: settings.get(name, default) for name, default in (("groups", 1), ("stride", 1))}
    own |= {"padding": settings.get("padding", 0), "dilation": settings.get("dilation", 1)}
    for sparsity in (0.0, 0.8, 1.0):
        mask = torch.rand(dense.weight.shape) >= sparsity
        layer = sparse.SparseConv2d(4, 12, **settings, mask=mask)
        for batch in ((), (0,), (1,), (17,), (70,)):
            check_against_dense(
                torch,
                layer,
                torch.randn(*batch, 4, 8, 7),
                lambda x, weight, bias=None: torch.nn.functional.conv2d(x, weight, bias, **own),
            )
            layer.zero_grad()


def test_any_layout_gives_the_same(torch: Any, sparse: Any) -> None:
    torch.manual_seed(3)
    layer = sparse.SparseLinear(6, 4, mask=torch.rand(4, 6) > 0.5)
    x = torch.randn(9, 6)
    y = layer(x)
    y.sum().backward()  # its gradient is one number with strides of 0
    gradient = layer.values.grad.clone()
    layer.zero_grad()
    wide = torch.randn(9, 12)
    wide[:, ::2] = x
    for other in (x.t().contiguous().t(), wide[:, ::2]):
        assert not other.is_contiguous()
        again = layer(other)
        assert torch.equal(again, y)
        (again.t() * torch.ones(4, 9)).sum().backward()
        assert torch.equal(layer.values.grad, gradient)
        layer.zero_grad()
    images = sparse.SparseConv2d(3, 5, 3, mask=torch.rand(5, 3, 3, 3) > 0.5)
    x = torch.randn(2, 3, 8, 8)
    last = x.to(memory_format=torch.channels_last)
    assert torch.equal(images(last), images(x))


def test_same_bits_at_any_number_of_threads(torch: Any, sparse: Any) -> None:
    found: list[list[Any]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(4)
            layers = torch.nn.Sequential(
                sparse.SparseConv2d(3, 16, 3, mask=torch.rand(16, 3, 3, 3) > 0.5),
                torch.nn.Flatten(),
                sparse.SparseLinear(16 * 36, 200, mask=torch.rand(200, 16 * 36) > 0.9),
            )
            for batch in (5, 64, 200):
                x = torch.randn(batch, 3, 8, 8, requires_grad=True)
                layers(x).square().sum().backward()
                found.append([x.grad, *(p.grad.clone() for p in layers.parameters())])
    finally:
        torch.set_num_threads(before)
    for others in (found[3:6], found[6:]):
        for own, other in zip(found[:3], others, strict=True):
            assert all(map(torch.equal, own, other))


def test_nan_and_infinity_pass_where_live_weights_meet_them(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 3, bias=False, mask=torch.eye(3))
    y = layer(torch.tensor([[float("nan"), float("inf"), 1.0]]))
    assert y.isnan().tolist() == [[True, False, False]]
    assert y.isinf().tolist() == [[False, True, False]]


# ---- what is refused -----------------------------------------------------------------------------


def test_float32_on_the_cpu_alone(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"the input is torch.float64 on cpu"):
        layer(torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"the input is torch.float32 on meta"):
        layer(torch.zeros(1, 3, device="meta"))
    layer(torch.zeros(1, 3))
    with pytest.raises(TypeError, match=r"values is torch.float64 on cpu"):
        layer.double()(torch.zeros(1, 3))
    assert layer.float()(torch.zeros(1, 3)).shape == (1, 2)
    dense = torch.nn.Sequential(torch.nn.Linear(3, 2).half())
    with torch.no_grad():
        dense[0].weight.zero_()
    with pytest.raises(TypeError, match=r"0 is torch.float16 on cpu"):
        sparse.sparsify(dense)


def test_bad_shapes_and_masks(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"the last axis must be 3"):
        layer(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"shape \(2, 3\), got \(3, 2\)"):
        layer.set_mask(torch.ones(3, 2))
    with pytest.raises(ValueError, match="0 and 1"):
        layer.set_mask(torch.full((2, 3), 0.5))
    images = sparse.SparseConv2d(3, 2, 3, mask=torch.ones(2, 3, 3, 3))
    with pytest.raises(ValueError, match=r"takes images \(batch, 3, height, width\)"):
        images(torch.zeros(4, 2, 8, 8))
    with pytest.raises(ValueError, match="does not fit"):
        images(torch.zeros(4, 3, 2, 8))
    with pytest.raises(ValueError, match='"zeros"'):
        sparse.SparseConv2d(3, 2, 3, padding_mode="reflect", mask=torch.ones(2, 3, 3, 3))


def test_what_is_exported_is_to_be_dense(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.eye(2, 3))
    with pytest.raises(TypeError, match=r"FakeTensor; gradprune.torch.densify"):
        torch.export.export(layer, (torch.zeros(1, 3),))


def test_twice_differentiated_is_refused(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    x = torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        slope.sum().backward()


def test_what_needs_no_gradient_gets_none(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    x = torch.randn(4, 3)
    layer(x).sum().backward()
    assert x.grad is None
    layer.zero_grad()
    layer.values.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.values.grad is None
    assert layer.bias.grad.tolist() == [4.0, 4.0]
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    with torch.no_grad():
        assert not layer.requires_grad_()(x).requires_grad


def test_changed_inputs_are_noticed(torch: Any, sparse: Any) -> None:
    """As by any function of torch: what backward needs was changed in place."""
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    x = torch.randn(4, 3)
    y = layer(x).sum()
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


# ---- from dense and back -------------------------------------------------------------------------


def test_sparsify_takes_masks_and_zeros(torch: Any, sparse: Any) -> None:
    net = network(torch)
    x = torch.randn(7, 1, 8, 8)
    expected = net(x)
    own = sparse.sparsify(net, threshold=0.7, inplace=False)
    assert not any(isinstance(layer, sparse.SparseLayer) for layer in net.modules())
    assert sparse.sparsify(net, threshold=0.7) is net
    for found in (net, own):
        kinds = [type(layer).__name__ for layer in found if not list(layer.children())]
        assert kinds[0::3][:2] == ["SparseConv2d", "SparseConv2d"]
        assert kinds[6::2] == ["SparseLinear", "SparseLinear"]
        torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-5)
    plain = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    with torch.no_grad():
        plain[0].weight[:, 1:] = 0
        plain[1].weight[0] = 0
    sparse.sparsify(plain)
    assert isinstance(plain[0], sparse.SparseLinear)  # 80 % are 0
    assert type(plain[1]) is torch.nn.Linear  # a third
    assert plain[0].indices.tolist() == [0, 5, 10, 15]


def test_a_layer_itself_is_returned(torch: Any, sparse: Any) -> None:
    layer = masked(torch, torch.nn.Linear(5, 4), 0.9).eval().requires_grad_(False)
    found = sparse.sparsify(layer)
    assert isinstance(found, sparse.SparseLinear)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    back = sparse.densify(found)
    assert type(back) is torch.nn.Linear
    assert not back.training
    assert not back.weight.requires_grad
    assert torch.equal(back.weight, layer.weight_orig * layer.weight_mask)


def test_densify_with_masks(torch: Any, sparse: Any) -> None:
    net = sparse.densify(sparse.sparsify(network(torch), threshold=0.0), masks=True)
    before = network(torch)
    for own, other in zip(net, before, strict=True):
        if hasattr(own, "weight"):
            assert torch.equal(own.weight_mask, other.weight_mask)
            assert torch.equal(own.weight, other.weight)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net(x), before(x))


def test_layers_that_stay_dense(torch: Any, sparse: Any) -> None:
    nn = torch.nn

    class Own(nn.Linear):  # type: ignore[misc]
        """Its forward may be anything."""

    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    reflect = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    net = nn.ModuleList([first, second, Own(4, 4), normed, reflect, nn.Bilinear(2, 2, 2)])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    kinds = [type(layer) for layer in net]
    sparse.sparsify(net)
    assert [type(layer) for layer in net] == kinds


def test_a_layer_that_is_used_twice_stays_one(torch: Any, sparse: Any) -> None:
    layer = masked(torch, torch.nn.Linear(4, 4), 0.9)
    net = torch.nn.ModuleDict({"a": layer, "b": torch.nn.Sequential(layer)})
    sparse.sparsify(net)
    assert isinstance(net["a"], sparse.SparseLinear)
    assert net["b"][0] is net["a"]
    assert sorted(sparse.dense_state_dict(net)) == ["a.bias", "a.weight", "b.0.bias", "b.0.weight"]


def test_hooks_and_pruned_biases_come_along(torch: Any, sparse: Any) -> None:
    layer = masked(torch, torch.nn.Linear(4, 3), 0.9)
    torch.nn.utils.prune.custom_from_mask(layer, "bias", torch.tensor([1.0, 0.0, 1.0]))
    seen: list[int] = []
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    net = sparse.sparsify(torch.nn.Sequential(layer))
    net(torch.zeros(1, 4))
    assert seen == [1]
    handle.remove()
    assert net[0].bias[1] == 0.0
    assert net[0].bias[0] != 0.0


# ---- training ------------------------------------------------------------------------------------


def optimizers(torch: Any) -> dict[str, Any]:
    return {
        "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, foreach=True),
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    }


def train(torch: Any, net: Any, optimizer: Any, steps: int, seed: int = 0) -> list[float]:
    """Losses of some steps, clipped by norm."""
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(32, 1, 8, 8, generator=generator)
        y = torch.randint(10, (32,), generator=generator)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_training_is_that_of_masked_layers(torch: Any, sparse: Any, name: str) -> None:
    dense, net = network(torch), sparse.sparsify(network(torch), threshold=0.0)
    make = optimizers(torch)[name]
    expected = train(torch, dense, make(dense.parameters()), 10)
    assert train(torch, net, make(net.parameters()), 10) == pytest.approx(expected, rel=1e-4)
    x = torch.randn(16, 1, 8, 8)
    torch.testing.assert_close(net(x), dense(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_an_optimizer_goes_on(torch: Any, sparse: Any, name: str) -> None:
    """Its moments of live weights are handed over in the middle of the training."""
    dense, net = network(torch), network(torch)
    make = optimizers(torch)[name]
    theirs, own = make(dense.parameters()), make(net.parameters())
    train(torch, dense, theirs, 5)
    train(torch, net, own, 5)
    sparse.sparsify(net, threshold=0.0, optimizer=own)
    expected = train(torch, dense, theirs, 5, seed=1)
    assert train(torch, net, own, 5, seed=1) == pytest.approx(expected, rel=1e-4)
    assert {id(p) for g in own.param_groups for p in g["params"]} == {
        id(p) for p in net.parameters()
    }


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_mask_is_changed_in_place(torch: Any, sparse: Any, name: str) -> None:
    layer = sparse.SparseLinear(6, 4, mask=torch.eye(4, 6))
    optimizer = optimizers(torch)[name](layer.parameters())
    x = torch.randn(5, 6)

    def step() -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss  # whose graph is alive while the mask changes

    loss = step()
    values, kept = layer.values, layer.values.detach().clone()
    state = copy.deepcopy(optimizer.state[values])
    mask = torch.eye(4, 6).bool()
    mask[0, 0] = False
    mask[3, 4] = mask[0, 1] = True
    layer.set_mask(mask, optimizer=optimizer)
    assert layer.values is values
    assert torch.equal(layer.mask, mask)
    assert layer.values.tolist() == [0.0, *kept[1:].tolist(), 0.0]
    assert layer.values.grad.shape == (5,)
    for key, numbers in optimizer.state[values].items():
        if key != "step":
            assert numbers.tolist() == [0.0, *state[key][1:].tolist(), 0.0]
    assert step() != loss
    layer.regrow(torch.ones(4, 6), optimizer=optimizer)
    assert layer.values.shape == (24,)
    assert layer.mask.all()
    step()
    assert layer.values.count_nonzero() == 24
    layer.set_mask(torch.zeros(4, 6), optimizer=optimizer)
    step()
    assert layer.sparsity == 1.0


def test_without_the_optimizer_a_step_says_so(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(6, 4, mask=torch.eye(4, 6))
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    layer.set_mask(torch.ones(4, 6))
    layer(torch.ones(1, 6)).sum().backward()
    with pytest.raises(RuntimeError, match="size"):
        optimizer.step()


def test_accuracy_is_that_of_masked_training(torch: Any, sparse: Any) -> None:
    """An MLP on digits, by a loop of torch and Adam."""
    (x, y), (x_test, y_test) = (tuple(map(torch.from_numpy, part)) for part in gp.datasets.digits())
    accuracy = []
    for is_sparse in (False, True):
        torch.manual_seed(0)
        nn = torch.nn
        net = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
        for layer in (net[0], net[2]):
            nn.utils.prune.random_unstructured(layer, "weight", 0.9)
        if is_sparse:
            sparse.sparsify(net)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(25):
            for index in torch.randperm(len(y)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[index]), y[index]).backward()
                optimizer.step()
        accuracy.append((net(x_test).argmax(1) == y_test).double().mean().item())
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.02)
    assert accuracy[1] > 0.85


# ---- copies and files ----------------------------------------------------------------------------


def copies(torch: Any, net: Any) -> list[Any]:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return [
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        torch.load(file, weights_only=False),
    ]


def test_what_is_kept_for_calls_is_for_few_sizes(torch: Any, sparse: Any) -> None:
    """Of images those of the last 8 sizes, each of them in one place."""
    layer = sparse.SparseConv2d(2, 3, 3, mask=torch.ones(3, 2, 3, 3))
    sizes = [(2, 5, 5 + i) for i in range(9)]
    for size in (*sizes, sizes[-1], sizes[-1]):
        layer(torch.randn(1, *size))
    assert [tuple(size) for size in layer._solos] == sizes[1:]


def test_copies_are_independent(torch: Any, sparse: Any) -> None:
    net = sparse.sparsify(network(torch), threshold=0.0)
    x = torch.randn(4, 1, 8, 8)
    y = net(x)  # what is kept for calls is not copied
    for other in copies(torch, net):
        assert torch.equal(other(x), y)
        train(torch, other, torch.optim.SGD(other.parameters(), lr=0.1), 1)
        assert not torch.equal(other(x), y)
    assert torch.equal(net(x), y)


def test_state_of_another_mask(torch: Any, sparse: Any) -> None:
    saved = sparse.sparsify(network(torch, 0.8), threshold=0.0)
    net = sparse.sparsify(network(torch, 0.95), threshold=0.0)
    x = torch.randn(4, 1, 8, 8)
    net(x)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    values = net[0].values
    net.load_state_dict(torch.load(file, weights_only=True))
    assert net[0].values is values
    assert torch.equal(net(x), saved(x))
    assert torch.equal(net[0].mask, saved[0].mask)
    train(torch, net, torch.optim.Adam(net.parameters()), 1)


def test_state_of_the_dense_module_both_ways(torch: Any, sparse: Any) -> None:
    dense, net = network(torch, 0.8), sparse.sparsify(network(torch, 0.95), threshold=0.0)
    x = torch.randn(4, 1, 8, 8)
    expected = dense(x)
    net.load_state_dict(dense.state_dict())  # weight_orig, weight_mask
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(net[0].mask, dense[0].weight_mask.bool())
    for layer in dense:
        if hasattr(layer, "weight_mask"):
            torch.nn.utils.prune.remove(layer, "weight")
    other = sparse.sparsify(network(torch, 0.95), threshold=0.0)
    other.load_state_dict(dense.state_dict())  # weight, 0 where removed
    assert torch.equal(other(x), net(x))
    plain = copy.deepcopy(dense)
    for parameter in plain.parameters():
        parameter.detach().zero_()
    plain.load_state_dict(sparse.dense_state_dict(net))
    assert torch.equal(plain(x), expected)
    assert sparse.dense_state_dict(net).keys() == plain.state_dict().keys()


def test_a_weight_within_the_mask_leaves_the_mask(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(2)})
    assert layer.mask.all()
    assert torch.equal(layer.weight, weight)
    layer.set_mask(torch.eye(2, 3))
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(2)})
    assert torch.equal(layer.mask, weight != 0)


def test_bad_state_is_refused(torch: Any, sparse: Any) -> None:
    net = torch.nn.Sequential(sparse.SparseLinear(3, 2, mask=torch.ones(2, 3)))
    good = {name: value.clone() for name, value in net.state_dict().items()}
    for change, said in (
        ({"0.indices": torch.tensor([0, 1, 2, 3, 4, 6])}, "lie in a weight of shape"),
        ({"0.indices": torch.tensor([0, 1, 2, 3, 5, 4])}, "ascend"),
        ({"0.indices": torch.zeros(6)}, "whole numbers"),
        ({"0.values": torch.zeros(5)}, "one length"),
        ({"0.weight": torch.zeros(2, 3)}, "which is meant"),
        ({"0.other": torch.zeros(2, 3)}, "Unexpected key"),
    ):
        with pytest.raises(RuntimeError, match=said):
            net.load_state_dict({**good, **change})
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*0.values"):
        net.load_state_dict({"0.bias": torch.zeros(2)})
    with pytest.raises(RuntimeError, match=r"shape \(2, 3\)"):
        net.load_state_dict({"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(2)})
    found = net.state_dict()  # torch loads what is sound, here the bias
    assert all(torch.equal(found[name], good[name]) for name in ("0.values", "0.indices"))


def test_workers_of_a_loader_run_layers(torch: Any, sparse: Any) -> None:
    """They are forked while this process has threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        layer = sparse.SparseLinear(300, 200, mask=torch.rand(200, 300) > 0.9)
        x = torch.randn(400, 300)
        with torch.no_grad():
            y = layer(x)

            class Results(torch.utils.data.Dataset):  # type: ignore[misc]
                def __len__(self) -> int:
                    return 4

                def __getitem__(self, i: int) -> Any:
                    with torch.no_grad():
                        return layer(x)

            loader = torch.utils.data.DataLoader(
                Results(), batch_size=None, num_workers=2, multiprocessing_context="fork"
            )
            assert all(torch.equal(other, y) for other in loader)
    finally:
        torch.set_num_threads(before)


def test_autocast_runs_in_float32(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.ones(2, 3))
    x = torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float()))
        assert layer(x.bfloat16()).dtype is torch.float32


def test_the_dense_weight_is_differentiable(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(3, 2, mask=torch.eye(2, 3))
    layer.weight.square().sum().backward()
    assert torch.equal(layer.values.grad, 2 * layer.values.detach())
    assert torch.equal(layer.weight != 0, torch.eye(2, 3).bool())


def test_layers_say_what_they_are(torch: Any, sparse: Any) -> None:
    mask = np.ones((4, 1, 3, 3), np.bool_)
    mask[0] = False
    conv = sparse.SparseConv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False, mask=mask)
    assert repr(conv) == (
        "SparseConv2d(2, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=2, "
        "bias=False, live=27 of 36)"
    )
    torch.manual_seed(5)
    dense = torch.nn.Conv2d(2, 4, 3, groups=2)
    torch.manual_seed(5)
    own = sparse.SparseConv2d(2, 4, 3, groups=2, mask=mask)
    assert torch.equal(own.weight, dense.weight * torch.from_numpy(mask))


def test_from_torch_reads_sparse_layers(torch: Any, sparse: Any) -> None:
    net = sparse.sparsify(network(torch), threshold=0.0)
    model = from_torch(net, (1, 8, 8))
    x = torch.randn(4, 1, 8, 8)
    np.testing.assert_allclose(model.predict(x.numpy()), net(x).detach(), rtol=1e-4, atol=1e-5)
    removed = [1 - mask.mean() for mask in model.masks.values()]
    assert removed == pytest.approx([layer.sparsity for layer in net if hasattr(layer, "sparsity")])
    assert isinstance(net[0], sparse.SparseConv2d)


def test_hooks_of_every_kind_go_with_a_layer(torch: Any, sparse: Any) -> None:
    """torch notes beside a hook what it is called with, and whether it is a full one."""
    calls: list[Any] = []

    def forward(module: Any, inputs: Any, keywords: Any, outputs: Any) -> None:
        calls.append(("forward", len(inputs), tuple(outputs.shape)))

    def before(module: Any, inputs: Any, keywords: Any) -> None:
        calls.append(("before", len(inputs), keywords))

    def backward(module: Any, inputs: Any, outputs: Any) -> None:
        calls.append(("backward", inputs[0].shape, outputs[0].shape))

    def run(layer: Any) -> list[Any]:
        calls.clear()
        layer(torch.ones(3, 4, requires_grad=True)).sum().backward()
        return calls.copy()

    layer = masked(torch, torch.nn.Linear(4, 5), 0.9)
    layer.register_forward_hook(forward, with_kwargs=True, always_call=True)
    layer.register_forward_pre_hook(before, with_kwargs=True)
    layer.register_full_backward_hook(backward)
    expected = run(layer)
    assert len(expected) == 3
    made = sparse.sparsify(layer, threshold=0.5)
    assert run(made) == expected
    assert run(sparse.densify(made)) == expected


def test_optimizers_may_come_from_a_generator(torch: Any, sparse: Any) -> None:
    net = network(torch)
    optimizers = [torch.optim.Adam(net.parameters()), torch.optim.SGD(net.parameters(), lr=0.1)]
    sparse.sparsify(net, threshold=0.5, optimizer=(each for each in optimizers))
    own = {id(parameter) for parameter in net.parameters()}
    for optimizer in optimizers:
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == own


@pytest.mark.parametrize("wrong", ["adam", 3, "several"])
def test_what_is_no_optimizer_changes_nothing(torch: Any, sparse: Any, wrong: Any) -> None:
    net = network(torch)
    adam = torch.optim.Adam(net.parameters())
    before, params = list(net), [*adam.param_groups[0]["params"]]
    optimizer = [adam, None] if wrong == "several" else wrong
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        sparse.sparsify(net, threshold=0.5, optimizer=optimizer)
    assert [*net] == before
    assert all(a is b for a, b in zip(params, adam.param_groups[0]["params"], strict=True))
    layer = sparse.SparseLinear(4, 2, mask=torch.eye(2, 4))
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        layer.set_mask(torch.ones(2, 4), optimizer=optimizer)
    assert layer.values.shape == (2,)


@pytest.mark.parametrize("call", ["sparsify", "densify", "dense_state_dict"])
def test_what_is_no_module_is_named(sparse: Any, call: str) -> None:
    for wrong in (None, {}, "m.pt"):
        with pytest.raises(TypeError, match=rf"module must be .* got {type(wrong).__name__}"):
            getattr(sparse, call)(wrong)


def test_what_is_no_tensor_is_named(torch: Any, sparse: Any) -> None:
    layer = sparse.SparseLinear(4, 2, mask=torch.eye(2, 4))
    with pytest.raises(TypeError, match=r"takes a torch\.Tensor, got ndarray"):
        layer(np.zeros((3, 4), np.float32))
    for wrong in ("all", None):
        with pytest.raises(TypeError, match="a mask is"):
            layer.set_mask(wrong)


def test_tensors_that_torch_shows_negated(torch: Any, sparse: Any) -> None:
    """Of a conjugate the imaginary part is a view with a note to negate it."""
    dense = torch.nn.Linear(4, 2)
    layer = sparse.SparseLinear.from_dense(dense)
    numbers = torch.complex(torch.ones(3, 4), torch.arange(12.0).reshape(3, 4))
    x = numbers.conj().imag
    assert x.is_neg()
    torch.testing.assert_close(layer(x), dense(x))
    for each in (layer, dense):
        y = each(torch.ones(3, 4))
        torch.autograd.backward(y, torch._neg_view(torch.ones(3, 2)))
    torch.testing.assert_close(layer.values.grad, dense.weight.grad.flatten())
