"""The engine against torch and against the oracle, on every instruction set of this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import ACTIVATIONS as NAMES
from cases import (
    BATCH_SIZES,
    CASES,
    CLIPPERS,
    LOSSES,
    OPTIMIZERS,
    RANDOM_CASES,
    RECORDED,
    RECURRENT_CASES,
    SCHEDULES,
    SEQUENCE,
    STEPS,
    TRAINED,
    Case,
    OptimizerCase,
    ScheduleCase,
    measure,
    train,
)
from gradprune import _core, reference
from processes import on_instruction_set
from twins import (
    clipped,
    doubles,
    reference_layers,
    reference_steps,
    relative_error,
    torch_loss,
    torch_parameters,
    torch_steps,
)

Measured = Mapping[str, NDArray[Any]]

NORM_TYPES = (0.5, 1.0, 1.5, 2.0, 4.0, math.inf)
BY_NAME = {optimizer.name: optimizer for optimizer in OPTIMIZERS}

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
by_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda case: case.name)
by_clipper = pytest.mark.parametrize("clipper", CLIPPERS)


@pytest.fixture(scope="module", params=_core.isas())
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What the engine computes with one instruction set."""
    isa: str = request.param
    if isa == _core.isa():
        return dict(measure())
    path = tmp_path_factory.mktemp(isa) / "measured.npz"
    on_instruction_set(isa, f"import cases; cases.record({str(path)!r})", timeout=120)
    with np.load(path) as stored:
        return dict(stored)


def assert_gradients(
    measured: Measured, case: Case, loss: float, gradients: Mapping[str, NDArray[Any]]
) -> None:
    assert float(measured[f"{case.name}/loss"]) == pytest.approx(loss, rel=1e-5)
    errors = {n: relative_error(measured[f"{case.name}/{n}"], g) for n, g in gradients.items()}
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}


def test_the_cases_reach_everything() -> None:
    activations = {
        layer["activation"]
        for case in RANDOM_CASES
        for layer in reference_layers(case.network().layers)
        if "activation" in layer
    }
    dense = [layer for case in RANDOM_CASES for layer in case.layers if isinstance(layer, gp.Dense)]
    assert activations == set(NAMES)
    assert {case.batch_size for case in RANDOM_CASES} == set(BATCH_SIZES)
    assert {case.loss for case in RANDOM_CASES} == set(LOSSES)
    assert {layer.bias for layer in dense} == {False, True}
    assert {(layer.l1 > 0, layer.l2 > 0) for layer in dense} >= {(True, False), (False, True)}
    assert any(isinstance(layer, gp.Dropout) for case in RANDOM_CASES for layer in case.layers)


# ---- loss and gradients


@by_name
def test_gradients_against_the_oracle(measured: Measured, case: Case) -> None:
    network = case.network()
    x, y = case.batch()
    loss, gradients = reference.loss_and_gradients(
        reference_layers(network.layers),
        doubles(network),
        x.astype(np.float64),
        y.astype(np.float64) if y.dtype == np.float32 else y,
        case.loss,
        seed=case.seed,
    )
    assert_gradients(measured, case, loss, gradients)


@by_name
def test_gradients_against_torch(measured: Measured, torch: Any, case: Case) -> None:
    network = case.network()
    parameters = torch_parameters(torch, network)
    loss = torch_loss(torch, case, reference_layers(network.layers), parameters, case.batch())
    if parameters:
        loss.backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in parameters.items()}
    assert_gradients(measured, case, float(loss.detach()), gradients)


@by_name
def test_outputs_against_the_oracle(measured: Measured, case: Case) -> None:
    network = case.network()
    x = case.batch()[0].astype(np.float64)
    buffers = {name: values.astype(np.float64) for name, values in network.buffers.items()}
    expected = reference.forward(reference_layers(network.layers), doubles(network) | buffers, x)
    assert relative_error(measured[f"{case.name}/outputs"], expected) < 1e-5


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize(
    "case", RANDOM_CASES[::3] + RECURRENT_CASES[::4], ids=lambda case: case.name
)
def test_masked_gradients_against_the_oracle(case: Case, share: float) -> None:
    network, masks = case.network(), case.masks(share)
    parameters = doubles(network)  # the oracle reads removed entries as 0 whatever they hold
    network.set_masks(masks)
    x, y = case.batch()
    loss, gradients = reference.loss_and_gradients(
        reference_layers(network.layers),
        parameters,
        x.astype(np.float64),
        y,
        case.loss,
        masks=masks,
        seed=case.seed,
    )
    assert network.backward(x, y, loss=case.loss) == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert relative_error(network.gradients[name], gradient) < 1e-5, name
        if name in masks:
            assert not network.gradients[name][~masks[name]].any(), name


# ---- fifty steps


@by_clipper
@by_optimizer
def test_training_against_the_oracle(optimizer: OptimizerCase, clipper: str) -> None:
    network, steps = train(optimizer, CLIPPERS[clipper])
    assert (steps > 0) == (clipper != "none"), "the limit is too high to test anything"
    expected = reference_steps(TRAINED, optimizer, CLIPPERS[clipper], steps=STEPS)
    for name, values in network.parameters.items():
        assert relative_error(values, expected[name]) < 1e-4, name


@by_clipper
@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o.in_torch], ids=lambda o: o.name)
def test_training_against_torch(torch: Any, optimizer: OptimizerCase, clipper: str) -> None:
    network, _ = train(optimizer, CLIPPERS[clipper])
    expected = torch_steps(torch, optimizer, CLIPPERS[clipper])
    for name, values in network.parameters.items():
        assert relative_error(values, expected[name]) < 1e-4, name


@pytest.mark.parametrize(("optimizer", "clipper"), RECORDED, ids=lambda v: getattr(v, "name", v))
def test_training_on_every_instruction_set(
    measured: Measured, optimizer: OptimizerCase, clipper: str
) -> None:
    expected = reference_steps(TRAINED, optimizer, CLIPPERS[clipper], steps=STEPS)
    for name, values in expected.items():
        key = f"{optimizer.name}+{clipper}/{name}"
        assert relative_error(measured[key], values) < 1e-4, name


def test_recurrent_training_on_every_instruction_set(measured: Measured, torch: Any) -> None:
    clip = CLIPPERS["norm2"]
    expected = reference_steps(SEQUENCE, OPTIMIZERS[0], clip, steps=STEPS)
    for name, values in torch_steps(torch, OPTIMIZERS[0], clip, SEQUENCE).items():
        assert relative_error(measured[f"sequence/{name}"], expected[name]) < 1e-4, name
        assert relative_error(values, expected[name]) < 1e-9, name


@by_optimizer
def test_masked_training_against_the_oracle(optimizer: OptimizerCase) -> None:
    network, masks, clip = TRAINED.network(), TRAINED.masks(0.6), gp.ClipNorm(0.2)
    network.set_masks(masks)
    made = optimizer.make(network, clip=clip)
    for step in range(20):
        network.train_step(*TRAINED.batch(step % 5), optimizer=made)
    expected = reference_steps(TRAINED, optimizer, clip, steps=20, masks=masks)
    for name, values in network.parameters.items():
        assert relative_error(values, expected[name]) < 1e-4, name


# ---- learning rates


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: case.name)
def test_learning_rates_against_torch(torch: Any, case: ScheduleCase) -> None:
    twin = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # torch warns of its own chaining
        scheduler = case.in_torch(torch.optim.lr_scheduler, twin)
        for step in range(case.steps):
            assert case.schedule(step) == pytest.approx(twin.param_groups[0]["lr"], rel=1e-9), step
            twin.step()
            scheduler.step()


# ---- clipping of any arrays


def random_arrays(seed: int, scale: float) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = [(), (1,), (3, 5), (65,), (2, 3, 4), (0, 4), (700,)]
    return [np.asarray(scale * rng.standard_normal(shape), np.float32) for shape in shapes]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("p", NORM_TYPES)
def test_clip_grad_norm_against_torch(torch: Any, p: float, scale: float) -> None:
    arrays = [array for array in random_arrays(0, scale) if array.size]  # torch: no empty ones
    tensors = [torch.zeros(array.shape, requires_grad=True) for array in arrays]
    for tensor, array in zip(tensors, arrays, strict=True):
        tensor.grad = torch.tensor(array)
    expected = torch.nn.utils.clip_grad_norm_(tensors, 2.0, p)
    assert gp.clip_grad_norm_(arrays, 2.0, p) == pytest.approx(float(expected), rel=1e-5)
    for tensor, array in zip(tensors, arrays, strict=True):
        np.testing.assert_allclose(array, tensor.grad.numpy(), rtol=1e-5, atol=1e-7 * scale)


@pytest.mark.parametrize("limit", [1e-3, 0.5, 10.0])
def test_clip_grad_value_against_torch(torch: Any, limit: float) -> None:
    arrays = random_arrays(1, 1.0)
    arrays[3][7] = math.nan
    tensors = [torch.zeros(array.shape, requires_grad=True) for array in arrays]
    for tensor, array in zip(tensors, arrays, strict=True):
        tensor.grad = torch.tensor(array)
    torch.nn.utils.clip_grad_value_(tensors, limit)
    gp.clip_grad_value_(arrays, limit)
    for tensor, array in zip(tensors, arrays, strict=True):
        np.testing.assert_array_equal(array, tensor.grad.numpy())


@pytest.mark.parametrize("p", NORM_TYPES)
def test_clip_grad_norm_against_the_oracle(p: float) -> None:
    arrays = random_arrays(2, 1.0)
    before = [array.astype(np.float64) for array in arrays]
    expected, norm = reference.clip_grad_norm(before, 2.0, p)
    assert gp.clip_grad_norm_(arrays, 2.0, p) == pytest.approx(norm, rel=1e-6)
    for array, values in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, values, rtol=1e-6)


@by_clipper
def test_a_plain_step_is_the_clipped_gradient(clipper: str) -> None:
    """SGD at rate 1 from 0 shows what the optimizer saw, also by which groups."""
    network, clip = TRAINED.network(), CLIPPERS[clipper]
    network.backward(*TRAINED.batch())
    gradients = {name: 3 * g.astype(np.float64) for name, g in network.gradients.items()}
    for name, values in network.parameters.items():
        values[...] = 0.0
        network.gradients[name][...] = gradients[name]
    info = gp.SGD(network, lr=1.0, clip=clip).step()
    for name, expected in clipped(clip, gradients).items():
        np.testing.assert_allclose(-network.parameters[name], expected, rtol=2e-6, err_msg=name)
    p = getattr(clip, "norm_type", 2.0)
    norm = reference.total_norm(list(gradients.values()), p)
    assert info.norm == pytest.approx(norm, rel=1e-6)
    assert info.clipped == (clipper != "none")
