"""Quantized weights while they are trained: what they learn, and that they stay quantized."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from cases import CHAINS, OPTIMIZERS, SCHEMES, TRAINED
from gradprune import reference
from state import everything, snapshot
from steps import X, Y, step


def network(scheme: Any, biases: Any = None, *, share: float = 0.4) -> gp.Model:
    """A quantized model of which a share is removed."""
    model = gp.Model(TRAINED.layers, 6, seed=7)
    model.set_masks(TRAINED.masks(share))
    gp.Quantizer(model, scheme, biases=biases).quantize()
    return model


def check(model: gp.Model) -> None:
    """Everything that holds after each call."""
    quantizer = model.quantizer
    for name, values in model.parameters.items():
        scheme = quantizer.weights if name in model.masks else quantizer.biases
        if name in model.masks:
            assert not values[~model.masks[name]].any()
        if scheme is None:
            continue
        coding = quantizer.coding(name)
        assert coding.decode().tobytes() == values.tobytes()
        rows = values if scheme.per == "row" and values.ndim > 1 else values.reshape(1, -1)
        masks = model.masks.get(name, np.ones(values.shape, np.bool_)).reshape(rows.shape)
        for row, mask in zip(rows, masks, strict=True):
            most = (
                scheme.clusters
                if isinstance(scheme, gp.Codebook)
                else scheme.highest - scheme.lowest + 1
            )
            assert np.unique(row[mask]).size <= most


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("optimizer", [OPTIMIZERS[1], OPTIMIZERS[6], OPTIMIZERS[10]], ids=str)
def test_training_keeps_it_quantized(name: str, optimizer: Any) -> None:
    model = network(SCHEMES[name], SCHEMES["shared"])
    chosen = optimizer.make(model, clip=gp.ClipNorm(0.3))
    losses = []
    for number in range(12):
        losses.append(model.train_step(X, Y, optimizer=chosen)[0])
        if number == 6:
            gp.Pruner(model, criterion=gp.Random()).prune(0.5)
        check(model)
    assert losses[6] < losses[0]


@pytest.mark.parametrize("name", ["shared", "ste", "grid4"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_clipper(name: str, chain: str) -> None:
    model = network(SCHEMES[name])
    optimizer = gp.Adam(model, lr=0.01, clip=CHAINS[chain])
    for _ in range(3):
        model.train_step(X, Y, optimizer=optimizer)
        check(model)


@pytest.mark.parametrize("name", SCHEMES)
def test_one_call_and_two_are_the_same(name: str) -> None:
    states = []
    for fused in (True, False):
        model = network(SCHEMES[name], gp.Grid(4))
        optimizer = gp.Adam(model, lr=0.01)
        for _ in range(4):
            step(model, optimizer, fused=fused)
        states.append(everything(model, optimizer))
    assert states[0] == states[1]


def test_a_quantizer_that_has_not_quantized_changes_nothing() -> None:
    states = []
    for quantized in (False, True):
        model = gp.Model(TRAINED.layers, 6, seed=7)
        if quantized:
            gp.Quantizer(model, gp.Codebook(4))
        optimizer = gp.Adam(model, lr=0.01)
        for _ in range(3):
            step(model, optimizer, fused=True)
        states.append(everything(model, optimizer))
    assert states[0] == states[1]


# ---- against torch and the twins


def torch_loss(torch: Any, model: gp.Model, weights: dict[str, Any]) -> Any:
    z = torch.tensor(X)
    for layer, function in (
        ("dense0", torch.tanh),
        ("dense1", torch.nn.functional.gelu),
        ("dense2", lambda t: t),
    ):
        z = function(z @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"])
    return torch.nn.functional.cross_entropy(z, torch.tensor(Y))


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_centroids_learn_as_parameters_of_torch_would(torch: Any, kind: str) -> None:
    """Torch's gradient of a centroid is the sum over its members: n times ours."""
    model = network(gp.Codebook(4))
    settings_ = {"lr": 0.05, "momentum": 0.9} if kind == "SGD" else {"lr": 0.01}
    optimizer = getattr(gp, kind)(model, **settings_)
    codings = {name: model.quantizer.coding(name) for name in model.masks}
    tables = {n: torch.tensor(c.values, requires_grad=True) for n, c in codings.items()}
    biases = {
        name: torch.tensor(values.copy(), requires_grad=True)
        for name, values in model.parameters.items()
        if name not in tables
    }
    twin = getattr(torch.optim, kind)([*tables.values(), *biases.values()], **settings_)
    for _ in range(6):
        weights = {
            name: torch.where(
                torch.tensor(codings[name].codes >= 0),
                table[torch.tensor(codings[name].codes).clamp(min=0).long()],
                0.0,
            )
            for name, table in tables.items()
        }
        twin.zero_grad()
        torch_loss(torch, model, weights | biases).backward()
        model.backward(X, Y)
        for name, table in tables.items():
            counts = np.bincount(codings[name].codes[codings[name].codes >= 0], minlength=4)
            table.grad /= torch.tensor(counts)
            shared = reference.share(model.gradients[name], codings[name].codes)
            expected = np.where(
                codings[name].codes >= 0, table.grad.numpy()[codings[name].codes], 0
            )
            np.testing.assert_allclose(shared, expected, rtol=1e-4, atol=1e-7)
        twin.step()
        optimizer.step()
        for name, table in tables.items():
            np.testing.assert_allclose(
                model.quantizer.coding(name).values, table.detach().numpy(), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("symmetric", [True, False])
def test_grids_learn_as_fake_quantized_weights_of_torch_do(torch: Any, symmetric: bool) -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    latent = {
        name: torch.tensor(values.copy(), requires_grad=True)
        for name, values in model.parameters.items()
    }
    scheme = gp.Grid(4, per="row", symmetric=symmetric)
    gp.Quantizer(model, scheme).quantize()
    optimizer = gp.SGD(model, lr=0.1, momentum=0.9)
    twin = torch.optim.SGD(latent.values(), lr=0.1, momentum=0.9)
    for _ in range(6):
        weights = {}
        for name, own in latent.items():
            if name not in model.masks:
                weights[name] = own
                continue
            grids = [reference.grid(row, 4, symmetric=symmetric) for row in own.detach().numpy()]
            weights[name] = torch.fake_quantize_per_channel_affine(
                own,
                torch.tensor([scale for scale, _ in grids]),
                torch.tensor([zero for _, zero in grids], dtype=torch.int32),
                0,
                scheme.lowest,
                scheme.highest,
            )
            np.testing.assert_allclose(
                model.parameters[name], weights[name].detach().numpy(), rtol=1e-4, atol=1e-6
            )
        twin.zero_grad()
        torch_loss(torch, model, weights).backward()
        twin.step()
        model.backward(X, Y)
        for name, own in latent.items():
            np.testing.assert_allclose(model.gradients[name], own.grad, rtol=1e-3, atol=1e-6)
        optimizer.step()


def test_members_of_a_cluster_stay_equal_with_their_moments() -> None:
    model = network(gp.Codebook(4))
    optimizer = gp.Adam(model, lr=0.01)
    codes = {name: model.quantizer.coding(name).codes for name in model.masks}
    for _ in range(5):
        step(model, optimizer, fused=True)
    for moment in optimizer.moments:
        for name, values in model.arena.views(moment).items():
            for code in range(4) if name in codes else ():
                assert np.unique(values[codes[name] == code]).size == 1
    for name, before in codes.items():
        np.testing.assert_array_equal(model.quantizer.coding(name).codes, before)


def test_fixed_codebooks_let_the_rest_learn() -> None:
    model = network(gp.Codebook(4, trained=False))
    before = {name: values.copy() for name, values in model.parameters.items()}
    optimizer = gp.Adam(model, lr=0.01, weight_decay=0.1)
    step(model, optimizer, fused=True)
    for name, values in model.parameters.items():
        assert (values.tobytes() == before[name].tobytes()) == (name in model.masks)


def test_fixed_codebooks_have_no_gradient() -> None:
    """The step's norm, and the moments, are those of the other parameters alone."""
    model = network(gp.Codebook(4, trained=False))
    optimizer = gp.SGD(model, lr=0.01, momentum=0.9, clip=gp.ClipNorm(1e-3))
    model.backward(X, Y)
    others = [values for name, values in model.gradients.items() if name not in model.masks]
    wanted = math.sqrt(sum(float((values.astype(np.float64) ** 2).sum()) for values in others))
    assert optimizer.step().norm == pytest.approx(wanted, rel=1e-6)
    (moment,) = optimizer.moments
    for name, values in model.arena.views(moment).items():
        assert values.any() == (name not in model.masks)


def test_straight_through_weights_change_clusters() -> None:
    model = network(gp.Codebook(4, ste=True))
    before = model.quantizer.coding("dense0.weight").codes
    optimizer = gp.SGD(model, lr=0.5)
    for _ in range(5):
        step(model, optimizer, fused=True)
    assert (model.quantizer.coding("dense0.weight").codes != before).any()


# ---- masks, views, refusals


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_that_come_back_are_quantized(name: str) -> None:
    model = network(SCHEMES[name])
    optimizer = gp.SGD(model, lr=0.1)
    step(model, optimizer, fused=True)
    model.set_masks(TRAINED.masks(0.4, number=1))
    check(model)
    step(model, optimizer, fused=True)
    check(model)


@pytest.mark.parametrize("name", SCHEMES)
def test_what_is_written_counts_and_is_quantized_again(name: str) -> None:
    model = network(SCHEMES[name])
    optimizer = gp.SGD(model, lr=0.0)
    live = np.argwhere(model.masks["dense0.weight"])[3]
    written = model.parameters["dense0.weight"][tuple(live)] = np.float32(3.21)
    before = model.backward(X, Y)
    assert model.parameters["dense0.weight"][tuple(live)] == written
    optimizer.step()
    check(model)
    assert model.backward(X, Y) != before


@pytest.mark.parametrize("name", SCHEMES)
def test_a_refused_step_leaves_everything(name: str) -> None:
    model = network(SCHEMES[name], gp.Grid(3))
    optimizer = gp.Adam(model, lr=0.01, guard=gp.guards.Skip())
    for _ in range(2):
        step(model, optimizer, fused=True)
    model.backward(X, Y)
    good = model.arena.grads.copy()
    place = np.flatnonzero(model.arena.mask)[7]
    model.arena.grads[place] = np.nan
    before, tensors = everything(model, optimizer), model.quantizer.tensors()
    assert not optimizer.step().applied
    assert everything(model, optimizer) == {**before, "skipped": 1}
    assert all(
        array.tobytes() == tensors[key].tobytes()
        for key, array in model.quantizer.tensors().items()
    )
    optimizer = gp.Adam(model, lr=0.01, guard=gp.guards.Raise())
    with pytest.raises(gp.errors.NonFiniteError, match="gradient of"):
        optimizer.step()
    model.arena.grads[...] = good
    assert optimizer.step().applied
    check(model)
    assert model.arena.grads.tobytes() == good.tobytes()  # raw, of the single weights


@pytest.mark.parametrize("name", ["shared", "ste", "grid4"])
def test_zeroed_and_rolled_back_steps_stay_quantized(name: str) -> None:
    model = network(SCHEMES[name])
    optimizer = gp.Adam(model, lr=0.01, guard=gp.guards.Zero())
    model.backward(X, Y)
    model.arena.grads[np.flatnonzero(model.arena.mask)[3]] = np.inf
    assert optimizer.step().applied
    assert optimizer.zeroed == 1
    check(model)

    optimizer = gp.Adam(model, lr=0.01, guard=gp.guards.Rollback(every=2))
    for _ in range(3):
        step(model, optimizer, fused=True)
    model.set_masks(TRAINED.masks(0.8))
    tensors, kept = model.quantizer.tensors(), snapshot(model)  # what the next step starts from
    step(model, optimizer, fused=True)
    assert snapshot(model) != kept
    model.parameters["dense0.weight"][model.masks["dense0.weight"]] = np.nan
    assert not step(model, optimizer, fused=True).applied
    assert snapshot(model) == kept
    for key, array in model.quantizer.tensors().items():
        np.testing.assert_array_equal(array, tensors[key])
    check(model)


@pytest.mark.parametrize("name", SCHEMES)
def test_quantizing_again_starts_from_the_float_weights(name: str) -> None:
    model = network(SCHEMES[name])
    before = model.arena.params.tobytes()
    report = model.quantizer.quantize()
    has_latent = isinstance(SCHEMES[name], gp.Grid) or SCHEMES[name].ste
    assert model.arena.params.tobytes() == before
    assert (max(own.rms_error for own in report.per_parameter.values()) > 0) == has_latent
    assert model.quantizer.count == 2


# ---- files


@pytest.mark.parametrize("name", SCHEMES)
def test_a_loaded_model_trains_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    model = network(SCHEMES[name], SCHEMES["grid8"])
    optimizer = gp.Adam(model, lr=0.01)
    step(model, optimizer, fused=True)
    model.parameters["dense0.weight"][model.masks["dense0.weight"]] *= np.float32(1.01)
    model.save(tmp_path / "m.safetensors")
    loaded = gp.load(tmp_path / "m.safetensors")
    assert loaded.quantizer.weights == SCHEMES[name]
    assert loaded.quantizer.count == 1
    for own in (model, loaded):
        own.set_masks(TRAINED.masks(0.6))
        for _ in range(3):
            step(own, own.optimizer, fused=True)
        check(own)
    assert everything(model, optimizer) == everything(loaded, loaded.optimizer)


def test_a_quantizer_that_has_not_quantized_is_saved(tmp_path: Path) -> None:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    gp.Quantizer(model, gp.Grid(4), exclude="dense0", biases=gp.Codebook(2))
    model.save(tmp_path / "m.safetensors")
    loaded = gp.load(tmp_path / "m.safetensors").quantizer
    assert (loaded.weights, loaded.exclude) == (gp.Grid(4), ("dense0",))
    assert loaded.biases == gp.Codebook(2)
    assert not loaded.is_active


@pytest.mark.parametrize("name", ["shared", "ste", "grid4"])
def test_damaged_state_is_refused(name: str) -> None:
    quantizer = network(SCHEMES[name]).quantizer
    state, tensors = quantizer.state(), quantizer.tensors()
    for key, array in tensors.items():
        others = [array[:-1], array.astype(np.float64)]
        bad = array.copy()
        bad[..., 0] = np.nan if bad.dtype.kind == "f" else 10**6
        for other in (None, *others, bad):
            changed = {k: v for k, v in tensors.items() if k != key}
            if other is not None:
                changed[key] = other
            with pytest.raises(ValueError, match="quantizer"):
                quantizer.load_state(state, changed)
    assert quantizer.is_active


# ---- whatever happens


@given(
    st.sampled_from(sorted(SCHEMES)),
    st.sampled_from(OPTIMIZERS),
    st.lists(
        st.sampled_from(["step", "fused", "prune", "mask", "write", "quantize", "resume"]),
        max_size=8,
    ),
)
@settings(max_examples=12, deadline=None)
def test_invariants(name: str, optimizer_case: Any, calls: list[str]) -> None:
    model = network(SCHEMES[name], gp.Codebook(3))
    optimizer = optimizer_case.make(model, clip=gp.ClipValue(0.02), guard=gp.guards.Skip())
    written = False
    for number, call in enumerate(calls):
        written = call == "write" or (written and call not in ("step", "fused", "quantize"))
        if call in ("step", "fused"):
            step(model, optimizer, fused=call == "fused")
        elif call == "prune":
            gp.Pruner(model, criterion=gp.Magnitude()).prune(fraction=0.1)
        elif call == "mask":
            model.set_masks(TRAINED.masks(0.5, number))
        elif call == "write":
            model.parameters["dense1.weight"][model.masks["dense1.weight"]] += np.float32(0.01)
        elif call == "quantize":
            model.quantizer.quantize()
        else:
            state, tensors = model.quantizer.state(), copy.deepcopy(model.quantizer.tensors())
            model.quantizer.load_state(state, tensors)
        if not written:
            check(model)


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_that_come_back_take_the_nearest_value_at_once(name: str) -> None:
    """In the call that sets the mask: a file or a prediction before the next step has it, too."""
    model = network(SCHEMES[name], share=0.6)
    model.set_masks(TRAINED.masks(0.2))
    check(model)


@pytest.mark.parametrize("name", SCHEMES)
def test_whoever_looks_changes_nothing(name: str) -> None:
    """A value written into a view stays in the model and in what is packed, until a step."""
    model = network(SCHEMES[name])
    live = tuple(np.argwhere(model.masks["dense1.weight"])[0])
    model.parameters["dense1.weight"][live] = 0.7654
    before = everything(model)
    packed = gp.compress(model)
    model.quantizer.coding("dense1.weight")
    model.quantizer.tensors()
    assert everything(model) == before
    gp.verify(model, packed, x=X, tolerance=1e-6)


def test_rewound_weights_are_quantized_anew_from_their_own_values() -> None:
    """A weight that comes back with a value takes the one nearest to it, not to 0."""
    model = network(gp.Codebook(4), share=0.0)
    before = model.arena.params.copy(), model.arena.mask.copy()
    codes = model.quantizer.coding("dense0.weight").codes
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    model.arena.set_flat_mask(before[1], before[0])
    np.testing.assert_array_equal(model.arena.params, before[0])
    np.testing.assert_array_equal(model.quantizer.coding("dense0.weight").codes, codes)


@pytest.mark.parametrize("name", ["shared", "grid4"])
def test_a_diagnosis_takes_the_quantized_step(name: str) -> None:
    model = network(SCHEMES[name])
    optimizer = gp.SGD(model, lr=0.5)
    found = gp.diagnose(model, X, Y)
    before = {key: values.astype(np.float64) for key, values in model.parameters.items()}
    step(model, optimizer, fused=True)
    for own in found.parameters:
        if own.update_ratio is not None:
            change = np.linalg.norm(model.parameters[own.name] - before[own.name])
            ratio = change / np.linalg.norm(before[own.name])
            assert own.update_ratio == pytest.approx(ratio, rel=1e-5)
