"""Every optimizer of torch goes on with sparse layers as with masked ones, or is refused."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import gradprune as gp
from gradprune.errors import UnsupportedOperationError

REFUSED = {
    "Adafactor": "it keeps means of rows and columns",
    "LBFGS": "it keeps directions over all parameters together",
    "Muon": "it works on matrices alone",
    "SparseAdam": "it takes sparse gradients alone",
}


def optimizers(torch: Any) -> dict[str, Any]:
    """All of torch.optim."""
    found = vars(torch.optim).items()
    base = torch.optim.Optimizer
    return {n: c for n, c in found if inspect.isclass(c) and issubclass(c, base) and c is not base}


def network(torch: Any) -> Any:
    """A network whose first layer is masked."""
    nn, prune = torch.nn, importlib.import_module("torch.nn.utils.prune")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3))
    prune.custom_from_mask(module[0], "weight", (torch.rand(10, 12) < 0.15).float())
    return module


def trained(torch: Any, module: Any, optimizer: Any, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 12, generator=generator)
    y = torch.randn(20, 3, generator=generator)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(module(x), y)
        loss.backward()
        if type(optimizer).__name__ == "SparseAdam":
            for parameter in module.parameters():
                parameter.grad = parameter.grad.to_sparse()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


def test_every_optimizer_goes_on_or_is_refused(torch: Any) -> None:
    found = optimizers(torch)
    assert REFUSED.keys() - {"Muon"} < found.keys()  # which older ones do not have
    for name, kind in found.items():
        for steps in (0, 3):  # with and without a state
            pairs = []
            for _ in range(2):
                module = network(torch)
                trainable = [p for p in module.parameters() if p.ndim == 2 or name != "Muon"]
                optimizer = kind(trainable, lr=0.01)
                trained(torch, module, optimizer, steps)
                pairs.append((module, optimizer))
            masked, _ = pairs[0]
            if name in REFUSED:
                with pytest.raises(ValueError, match=f"{name} cannot go on .* {REFUSED[name]}"):
                    gp.torch.sparsify(module, optimizer=optimizer)
                assert type(module[0]) is torch.nn.Linear
                assert optimizer.param_groups[0]["params"] == trainable
                continue
            gp.torch.sparsify(module, optimizer=optimizer)
            assert isinstance(module[0], gp.torch.SparseLinear)
            for each in pairs:
                trained(torch, *each, 3)
            masked(torch.zeros(1, 12))  # the masked weight is computed in a hook
            torch.testing.assert_close(
                module[0].weight, masked[0].weight, rtol=1e-4, atol=1e-5, msg=name
            )
            torch.testing.assert_close(module[2].weight, masked[2].weight, rtol=1e-4, atol=1e-5)


def test_states_that_others_keep_are_refused(torch: Any) -> None:
    """An optimizer of somebody else, by what it keeps; also where the mask changes."""

    class Rows(torch.optim.SGD):  # type: ignore[misc, name-defined]
        pass

    module = network(torch)
    optimizer = Rows(module.parameters(), lr=0.1)
    optimizer.state[module[0].weight_orig] = {"step": 3, "rows": torch.zeros(10)}
    with pytest.raises(ValueError, match=r"Rows cannot go on .* it keeps rows, which is"):
        gp.torch.sparsify(module, optimizer=optimizer)
    layer = gp.torch.SparseLinear(4, 2, mask=torch.eye(2, 4))
    with pytest.raises(ValueError, match="LBFGS cannot go on"):
        layer.set_mask(torch.ones(2, 4), optimizer=torch.optim.LBFGS(layer.parameters()))
    assert layer.values.shape == (2,)
    layer.set_mask(torch.ones(2, 4), optimizer=torch.optim.Adafactor(layer.parameters()))
    assert layer.values.shape == (8,)


def test_names_that_would_not_come_back_are_refused(torch: Any) -> None:
    nn = torch.nn

    class Keys(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"a/b": nn.Linear(4, 4), "c": nn.Linear(4, 2)})

        def forward(self, x: Any) -> Any:
            return self.parts["c"](self.parts["a/b"](x))

    with pytest.raises(UnsupportedOperationError, match=r'parts\.a/b\.weight holds a "/"'):
        gp.from_torch(Keys(), 4)
