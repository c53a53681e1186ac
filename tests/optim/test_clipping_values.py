"""Clippers: cases worked by hand, what they remember, what they refuse, what a step says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from cases import TRAINED
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.optim.clipping import AdaGC, Clipper

Clip = Clipper | Sequence[Clipper] | None


def one_row(weight: list[float], gradient: list[float]) -> Network:
    """A Dense(1) without bias."""
    network = Network([gp.Dense(1, bias=False)], len(weight))
    network.parameters["dense0.weight"][...] = weight
    network.gradients["dense0.weight"][...] = gradient
    return network


def used(network: Network, clip: Clip) -> tuple[NDArray[np.float32], gp.optim.StepInfo]:
    """What one step's rule sees of the first weight, and what the step says."""
    optimizer = gp.SGD(network, lr=0.1, clip=clip)
    optimizer.keep_clipped = True
    info = optimizer.step()
    return optimizer.clipped_gradients["dense0.weight"], info


def feed(optimizer: gp.SGD, norm: float) -> gp.optim.StepInfo:
    """A step with a gradient of this norm, which moves nothing."""
    grads = optimizer.model.arena.grads
    grads[...] = 0.0
    grads[0] = norm
    return optimizer.step()


# ---- AGC


def test_agc_by_hand() -> None:
    network = Network([gp.Dense(3, name="a"), gp.Dense(1, name="b")], 2)
    network.arena.params[...] = 0.0
    network.parameters["a.weight"][...] = [[3, 4], [0, 0], [30, 40]]  # most 0.5, 1e-4, 5
    network.gradients["a.weight"][...] = [[0, 2], [3e-4, 4e-4], [3, 0]]
    network.parameters["a.bias"][...] = [0.0, 6.0, 8.0]  # one unit: most 1
    network.gradients["a.bias"][...] = [0.0, 3.0, 4.0]
    network.gradients["b.weight"][...] = 7.0
    optimizer = gp.SGD(network, lr=0.1, clip=gp.AGC(0.1, exclude="b"))
    optimizer.keep_clipped = True
    info = optimizer.step()
    clipped = optimizer.clipped_gradients
    expected = [[0, 0.5], [0.6e-4, 0.8e-4], [3, 0]]
    np.testing.assert_allclose(clipped["a.weight"], expected, rtol=1e-6)
    np.testing.assert_allclose(clipped["a.bias"], [0, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(clipped["b.weight"], 7.0)
    assert info.clipped
    assert info.scale == pytest.approx(0.2)
    after = math.sqrt(0.25 + 1e-8 + 9 + 1 + 3 * 49)
    assert info.norm_after == pytest.approx(after, rel=1e-6)


def test_agc_of_rows_longer_than_a_block(rng: np.random.Generator) -> None:
    weight, gradient = rng.standard_normal((2, 3, 2500))
    network = Network([gp.Dense(3)], 2500)
    network.parameters["dense0.weight"][...] = weight
    network.gradients["dense0.weight"][...] = gradient
    clipped, _ = used(network, gp.AGC(0.3))
    np.testing.assert_allclose(clipped, reference.agc(weight, gradient, 0.3), rtol=1e-5)


def test_agc_excludes_layers_and_parameters_that_exist() -> None:
    network = TRAINED.network()
    for wrong in ("dense9", ("dense0", "dense0.kernel")):
        with pytest.raises(ValueError, match="no layer or parameter to exclude is called"):
            gp.SGD(network, lr=0.1, clip=gp.AGC(exclude=wrong))
    assert network.optimizer is None
    gp.SGD(network, lr=0.1, clip=gp.AGC(exclude=["dense0.weight", "dense2"]))
    with pytest.raises(TypeError, match="exclude must hold names"):
        gp.AGC(exclude=(1,))


# ---- AutoClip and ZClip


def test_autoclip_by_hand() -> None:
    optimizer = gp.SGD(one_row([0, 0], [0, 0]), lr=0.0, clip=gp.AutoClip(50))
    infos = [feed(optimizer, norm) for norm in (1.0, 3.0, 2.0, 8.0)]
    limits = (1.0, 2.0, 2.0, 2.5)  # medians of 1; 1 3; 1 2 3; 1 2 3 8
    for info, limit in zip(infos, limits, strict=True):
        assert info.norm_after == pytest.approx(min(info.norm, limit), rel=1e-5)
    assert [info.clipped for info in infos] == [False, True, False, True]


def test_autoclip_is_numpys_percentile_of_a_long_history(rng: np.random.Generator) -> None:
    norms = rng.lognormal(size=300).astype(np.float32).astype(np.float64)
    for clip in (gp.AutoClip(10), gp.AutoClip(37.5, window=70), gp.AutoClip(90, window=1)):
        optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=clip)
        limits = reference.autoclip_limits(norms.tolist(), clip.percentile, clip.window)
        for norm, limit in zip(norms, limits, strict=True):
            info = feed(optimizer, norm)
            assert info.scale == reference.clip_scale(float(norm), limit)


def test_zclip_by_hand() -> None:
    clip = gp.ZClip(2.0, alpha=0.5, warmup=2)
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=clip)
    assert not feed(optimizer, 1.0).clipped
    assert not feed(optimizer, 3.0).clipped  # mean 2, variance 1
    info = feed(optimizer, 12.0)  # score 10: limit 2 + 2 * 2 / 10
    assert info.clipped
    assert info.norm_after == pytest.approx(2.4, rel=1e-5)
    count, mean, variance, pending = optimizer.chain.tensors()["clip0.norms"]
    assert (count, pending) == (2, 0)
    assert mean == pytest.approx(2.2, rel=1e-5)  # (2 + 2.4) / 2
    assert variance == pytest.approx(0.52, rel=1e-5)  # (1 + (2.4 - 2.2)^2) / 2


def test_adagc_by_hand() -> None:
    """Norms 4, 1 and 6 with a warm-up of two; then three times the mean is the limit."""
    clip = AdaGC(lambda_rel=3.0, lambda_abs=2.0, beta=0.5, warmup=2)
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=clip)
    assert feed(optimizer, 4.0).norm_after == pytest.approx(2.0, rel=1e-6)
    assert not feed(optimizer, 1.0).clipped
    info = feed(optimizer, 6.0)
    assert (info.clipped, info.scale) == (True, pytest.approx(0.5, rel=1e-6))
    count, mean, pending = optimizer.chain.tensors()["clip0.norms"]
    assert (count, mean, pending) == (3, pytest.approx(2.0, rel=1e-6), 0)  # (1 + 3) / 2


def test_adagc_clips_each_parameter_by_its_own_mean() -> None:
    model = gp.Model([gp.Dense(1)], 1, seed=0)
    clip = AdaGC(lambda_rel=1.0, lambda_abs=100.0, beta=0.0, warmup=1)
    optimizer = gp.SGD(model, lr=0.0, clip=clip)
    optimizer.keep_clipped = True
    for weight, bias in ((2.0, 3.0), (4.0, 1.0), (4.0, 3.0)):
        model.arena.gradients["dense0.weight"][...] = weight
        model.arena.gradients["dense0.bias"][...] = bias
        optimizer.step()
    clipped = [float(g.item()) for g in optimizer.clipped_gradients.values()]
    assert clipped == pytest.approx([2.0, 1.0], rel=1e-5)


ADAPTIVE = [gp.AutoClip(10), gp.ZClip(1.0, warmup=2), AdaGC(lambda_abs=10.0, warmup=2)]


@pytest.mark.parametrize("clip", ADAPTIVE, ids=str)
def test_a_limit_of_0_does_not_end_the_training(clip: Clipper) -> None:
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=clip)
    for _ in range(10):
        feed(optimizer, 0.0)
    assert feed(optimizer, 5.0).norm_after == 5.0


def test_the_whole_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradprune.optim.clipping.following._MOST_NORMS", 100)
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=gp.AutoClip(0))
    for norm in range(1, 251):
        info = feed(optimizer, float(norm))
        assert info.norm_after == pytest.approx(max(1, norm - 99), rel=1e-5)
    np.testing.assert_array_equal(optimizer.chain.tensors()["clip0.norms"], [*range(151, 251), 0.0])


@pytest.mark.parametrize("make", [gp.AutoClip, gp.ZClip, AdaGC])
def test_rebaseline_forgets(make: Any) -> None:
    fresh = gp.SGD(one_row([0], [0]), lr=0.0, clip=make())
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=make())
    for norm in (5.0, 6.0, 1.0):
        feed(optimizer, norm)
    optimizer.rebaseline()
    for norm in np.linspace(1, 3, 40):
        assert feed(optimizer, norm) == feed(fresh, norm)


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("make", [gp.AutoClip, gp.ZClip])
def test_rebaseline_on_prune(make: Any, ask: bool) -> None:
    network = one_row([1, 1, 1], [0, 0, 0])
    optimizer = gp.SGD(network, lr=0.0, clip=make(rebaseline_on_prune=ask))
    for _ in range(30):
        feed(optimizer, 1.0)
    network.set_mask("dense0.weight", [[1, 1, 1]])  # no change is no pruning
    assert feed(optimizer, 100.0).clipped
    network.set_mask("dense0.weight", [[1, 0, 1]])
    network.set_mask("dense0.weight", [[1, 1, 0]])  # as many removed as before
    assert feed(optimizer, 100.0).clipped == (not ask)
    assert optimizer.clip_rate == (1 + (not ask)) / 32


def test_a_history_survives_the_file(tmp_path: Path) -> None:
    """More norms than the first room, and a window that has gone round."""
    for clip in (gp.AutoClip(10), gp.AutoClip(20, window=77)):
        model = gp.Model([gp.Dense(1, bias=False)], 1, seed=0)
        optimizer = gp.SGD(model, lr=0.0, clip=clip)
        for norm in np.random.default_rng(1).lognormal(size=150):
            feed(optimizer, norm)
        model.save(tmp_path / "m.safetensors")
        again = gp.load(tmp_path / "m.safetensors").optimizer
        assert isinstance(again, gp.SGD)
        for norm in np.random.default_rng(2).lognormal(size=150):
            assert feed(optimizer, norm) == feed(again, norm)


@pytest.mark.parametrize(
    ("clip", "norms"),
    [
        (gp.ZClip(), [1.0, 2.0, -1.0, 0.0]),
        (gp.ZClip(), [1.0, 2.0, 0.0]),
        (gp.ZClip(), [1.0, 2.0, 1.0, 0.5]),
        (gp.AutoClip(window=3), [1.0, 2.0, 3.0, 4.0, 0.0]),
        (gp.AutoClip(), [1.0, math.nan, 0.0]),
        (gp.AutoClip(), [-1.0, 0.0]),
        (gp.AutoClip(), []),
        (AdaGC(), [1.0, 0.0]),
        (AdaGC(), [1.0, 2.0, 3.0, 0.0]),
        (AdaGC(), [1.0, -2.0, 0.0]),
        (AdaGC(), [1.0, math.inf, 0.0]),
    ],
)
def test_a_state_that_cannot_be_is_refused(clip: Clipper, norms: list[float]) -> None:
    optimizer = gp.SGD(one_row([0], [0]), lr=0.0, clip=clip)
    before = optimizer.chain.tensors()["clip0.norms"]
    with pytest.raises(ValueError, match=r"norm|count"):
        optimizer.chain.load({"clip0.norms": np.array(norms)})
    np.testing.assert_array_equal(optimizer.chain.tensors()["clip0.norms"], before)


# ---- inhibition


def test_inhibition_by_hand() -> None:
    clipped, info = used(one_row([0] * 4, [-1, 3, 0, 0.5]), gp.Inhibit(1.0))
    np.testing.assert_allclose(clipped, [[-0.5, 0.75, 0, 1 / 3]], rtol=1e-6)
    assert (info.clipped, info.scale) == (True, 1.0)
    clipped, info = used(one_row([0] * 2, [0.5, -20]), gp.Inhibit(2.0, form="tanh"))
    np.testing.assert_allclose(clipped, [[2 * math.tanh(0.25), -2]], rtol=1e-6)
    clipped, info = used(one_row([0] * 2, [3, 4]), gp.Inhibit(20.0, on="norm"))
    np.testing.assert_allclose(clipped, [[2.4, 3.2]], rtol=1e-6)  # 20 * 5 / 25 = 4
    assert info.norm_after == pytest.approx(4)
    assert (info.clipped, info.scale) == (False, pytest.approx(0.8))
    _, info = used(one_row([0] * 2, [3, 4]), gp.Inhibit(2.5, form="tanh", on="norm"))
    assert info.norm_after == pytest.approx(2.5 * math.tanh(2))
    assert info.clipped


# ---- quantization


def test_quantization_by_hand() -> None:
    clipped, _ = used(one_row([0] * 3, [1, -5, 0]), gp.QuantizeGradient("sign"))
    np.testing.assert_allclose(clipped, [[2, -2, 0]])
    clipped, _ = used(one_row([0] * 4, [0.9, -3.0, 1.6, 0.4]), gp.QuantizeGradient("kbit", bits=3))
    np.testing.assert_allclose(clipped, [[1, -3, 2, 0]], rtol=1e-6)
    clipped, _ = used(one_row([0] * 3, [3, -4, 0]), gp.QuantizeGradient(levels=5))
    np.testing.assert_allclose(clipped, [[3, -4, 0]], rtol=1e-6)  # |g| = 5: exactly on levels


def test_the_mean_of_signs_is_over_live_entries() -> None:
    network = one_row([1, 1, 1, 1], [1, -5, 3, 7])
    network.set_mask("dense0.weight", [[1, 1, 0, 0]])
    clipped, _ = used(network, gp.QuantizeGradient("sign"))
    np.testing.assert_allclose(clipped, [[3, -3, 0, 0]])


def test_error_feedback_by_hand() -> None:
    network = one_row([0, 0], [1, -5])
    optimizer = gp.SGD(network, lr=0.1, clip=gp.QuantizeGradient("sign", error_feedback=True))
    optimizer.keep_clipped = True
    optimizer.step()  # sends 3, -3 and keeps -2, -2
    np.testing.assert_allclose(optimizer.chain.tensors()["clip0.residual"], [-2, -2])
    optimizer.step()  # of -1, -7 sends -4, -4 and keeps 3, -3
    np.testing.assert_allclose(optimizer.clipped_gradients["dense0.weight"], [[-4, -4]])
    np.testing.assert_allclose(optimizer.chain.tensors()["clip0.residual"], [3, -3])
    network.set_mask("dense0.weight", [[1, 0]])
    np.testing.assert_allclose(optimizer.chain.tensors()["clip0.residual"], [3, 0])


@pytest.mark.parametrize("levels", [1, 3, 16])
def test_qsgd_has_no_bias(levels: int) -> None:
    """Of 4000 draws the mean is within five standard errors everywhere."""
    draws = 4000
    gradient = np.random.default_rng(3).standard_normal(40).astype(np.float32)
    network = one_row([0.0] * 40, gradient.tolist())
    optimizer = gp.SGD(network, lr=0.0, clip=gp.QuantizeGradient(levels=levels, seed=11))
    optimizer.keep_clipped = True
    total, squares = np.zeros(40), np.zeros(40)
    for _ in range(draws):
        optimizer.step()
        values = optimizer.clipped_gradients["dense0.weight"][0].astype(np.float64)
        total += values
        squares += values**2
    mean, unit = total / draws, float(np.linalg.norm(gradient)) / levels
    error = np.sqrt(np.maximum(squares / draws - mean**2, 0) / draws)
    assert (np.abs(mean - gradient) <= 5 * error + 1e-6).all()
    np.testing.assert_allclose(np.round(values / unit) * unit, values, atol=1e-5)  # on levels
    assert (squares / draws - mean**2 > 0).any()  # and it is random


def test_seeds_and_steps_give_other_numbers() -> None:
    gradient = np.random.default_rng(3).standard_normal(60).tolist()
    draws = []
    for seed in (0, 1):
        optimizer = gp.SGD(
            one_row([0.0] * 60, gradient), lr=0.0, clip=gp.QuantizeGradient(seed=seed)
        )
        optimizer.keep_clipped = True
        for _ in range(2):
            optimizer.step()
            draws.append(optimizer.clipped_gradients["dense0.weight"].tobytes())
    assert len(set(draws)) == 4


# ---- noise and centralization


def test_noise_has_the_variance_of_its_step() -> None:
    network = one_row([0.0] * 50_000, [1.0] * 50_000)
    optimizer = gp.SGD(network, lr=0.0, clip=gp.GradientNoise(0.04, gamma=0.5))
    optimizer.keep_clipped = True
    for step in range(4):
        optimizer.step()
        noise = optimizer.clipped_gradients["dense0.weight"].astype(np.float64) - 1
        sigma = math.sqrt(0.04 / (1 + step) ** 0.5)
        assert abs(noise.mean()) < 5 * sigma / math.sqrt(noise.size)
        assert noise.std() == pytest.approx(sigma, rel=0.02)
        assert (noise**4).mean() / sigma**4 == pytest.approx(3, rel=0.05)  # normal


def test_centralization_by_hand() -> None:
    network = Network([gp.Dense(3)], 3)
    network.gradients["dense0.weight"][...] = [[1, 2, 6], [4, 1e9, 2], [7, 8, 9]]
    network.gradients["dense0.bias"][...] = [1, 2, 3]
    network.set_mask("dense0.weight", [[1, 1, 1], [1, 0, 1], [0, 1, 0]])
    clipped, info = used(network, gp.Centralize())
    np.testing.assert_allclose(clipped, [[-2, -1, 3], [1, 0, -1], [0, 8, 0]])
    assert info.norm_after == pytest.approx(math.sqrt(14 + 2 + 64 + 14))
    np.testing.assert_array_equal(network.gradients["dense0.weight"][0], [1, 2, 6])


def test_a_chain_goes_in_order() -> None:
    first, info = used(one_row([0] * 2, [3, 4]), [gp.ClipValue(3.0), gp.ClipNorm(1.0)])
    np.testing.assert_allclose(first, np.array([[1, 1]]) / math.sqrt(2), rtol=1e-5)
    assert info.norm == 5.0
    second, info = used(one_row([0] * 2, [3, 4]), [gp.ClipNorm(1.0), gp.ClipValue(0.7)])
    np.testing.assert_allclose(second, [[0.6, 0.7]], rtol=1e-5)
    assert info.norm_after == pytest.approx(math.hypot(0.6, 0.7), rel=1e-5)
    assert info.scale == pytest.approx(0.2, rel=1e-5)


# ---- what an optimizer says


def test_norms_by_name() -> None:
    network = TRAINED.network()
    optimizer = gp.SGD(network, lr=0.1, clip=(gp.Centralize(), gp.ClipNorm(0.1, norm_type=1.0)))
    network.train_step(*TRAINED.batch(), optimizer=optimizer)
    gradients = network.gradients
    expected = {n: float(np.abs(g.astype(np.float64)).sum()) for n, g in gradients.items()}
    assert optimizer.norms() == pytest.approx(expected, rel=1e-6)
    assert list(optimizer.norms()) == list(network.parameters)
    layers = {
        f"dense{i}": expected[f"dense{i}.weight"] + expected[f"dense{i}.bias"] for i in range(3)
    }
    assert optimizer.layer_norms() == pytest.approx(layers, rel=1e-6)


def test_the_clip_rate_counts_steps_taken() -> None:
    optimizer = gp.SGD(
        one_row([0], [0]), lr=0.0, clip=gp.ClipNorm(1.0), guard=gp.guards.Skip(limit=9)
    )
    assert optimizer.clip_rate == 0.0
    for norm in (0.5, 2.0, math.nan, 3.0, 0.1):
        feed(optimizer, norm)
    assert optimizer.clip_rate == 0.5
    state = optimizer.state()
    assert state.pop("clip_count") == 2
    optimizer.load_state(state)  # of a file from before it was counted
    assert optimizer.clip_rate == 0.0


def test_a_value_clip_knows_its_norm_afterwards() -> None:
    _, info = used(one_row([0] * 3, [3, -4, 0.5]), gp.ClipValue(1.0))
    assert info.norm_after == 1.5  # sqrt(1 + 1 + 0.25)


def test_clipped_gradients_have_to_be_asked_for() -> None:
    network = one_row([0], [3])
    optimizer = gp.SGD(network, lr=0.1, clip=gp.ClipNorm(1.0), guard=gp.guards.Skip())
    optimizer.step()
    with pytest.raises(ValueError, match="keep_clipped = True before the step"):
        _ = optimizer.clipped_gradients
    optimizer.keep_clipped = True
    optimizer.step()
    assert optimizer.clipped_gradients["dense0.weight"][0, 0] == pytest.approx(1, rel=1e-6)
    feed(optimizer, math.nan)
    with pytest.raises(ValueError, match="a step that a guard has refused leaves none"):
        _ = optimizer.clipped_gradients


# ---- pruning by what the optimizer saw


def test_a_pruner_observes_raw_or_clipped_gradients(tmp_path: Path) -> None:
    for gradients in ("raw", "clipped"):
        model = gp.Model(TRAINED.layers, TRAINED.features, seed=0)
        optimizer = gp.Adam(model, clip=(gp.Centralize(), gp.ClipNorm(0.05)))
        pruner = gp.Pruner(model, criterion=gp.Gradient(), gradients=gradients)
        raw, clipped = [], []
        optimizer.keep_clipped = True
        model.set_masks(TRAINED.masks(0.5))
        for step in range(3):
            model.train_step(*TRAINED.batch(step), optimizer=optimizer)
            pruner.step()
            size = model.arena.prunable_size
            raw.append(model.arena.grads[:size].copy())
            used_now = optimizer.chain.clipped_gradient()
            assert used_now is not None
            clipped.append(used_now[:size])
        expected = np.mean(raw if gradients == "raw" else clipped, axis=0)
        np.testing.assert_allclose(pruner.statistics.mean, expected, rtol=1e-4, atol=1e-8)
        model.save(tmp_path / "m.safetensors")
        again = gp.load(tmp_path / "m.safetensors")
        assert again.pruner is not None
        assert again.pruner.gradients == gradients
        assert again.arena.keep_clipped == (gradients == "clipped")


def test_a_refused_step_is_not_observed() -> None:
    model = gp.Model([gp.Dense(1, bias=False)], 2, seed=0)
    optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(1.0), guard=gp.guards.Skip())
    pruner = gp.Pruner(model, criterion=gp.Gradient(), gradients="clipped")
    for norm, count in ((3.0, 1), (math.nan, 1), (4.0, 2)):
        feed(optimizer, norm)
        pruner.step()
        assert pruner.statistics.count == count
    np.testing.assert_allclose(pruner.statistics.mean, [1.0, 0.0], rtol=1e-6)
    with pytest.raises(ValueError, match='gradients must be "raw" or "clipped"'):
        gp.Pruner(model, criterion=gp.Gradient(), gradients="both")


# ---- refused


def test_one_clipper_by_norm_in_a_chain() -> None:
    network = TRAINED.network()
    for wrong in (
        [gp.ClipNorm(1.0), gp.ClipNormPerLayer(1.0)],
        (gp.AGC(), gp.Centralize(), gp.ZClip()),
        [gp.Inhibit(1.0, on="norm"), gp.AutoClip()],
    ):
        with pytest.raises(ValueError, match=r"2 clippers by norm, .* and .*: the later one"):
            gp.SGD(network, lr=0.1, clip=wrong)
    with pytest.raises(ValueError, match="at most 8 clippers, got 9"):
        gp.SGD(network, lr=0.1, clip=[gp.ClipValue(1.0)] * 9)
    assert network.optimizer is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.AGC(0), "clipping must be positive"),
        (lambda: AdaGC(lambda_rel=0), "lambda_rel must be positive"),
        (lambda: AdaGC(lambda_abs=-1), "lambda_abs must be positive"),
        (lambda: AdaGC(beta=1), "beta must be"),
        (lambda: AdaGC(warmup=0), "warmup must be at least 1"),
        (lambda: gp.AGC(eps=-1), "eps must be positive"),
        (lambda: gp.AutoClip(101), r"percentile must be in \[0, 100\], got 101"),
        (lambda: gp.AutoClip(math.nan), "percentile must be finite"),
        (lambda: gp.AutoClip(window=0), "window must be at least 1"),
        (lambda: gp.AutoClip(window=10**6), "window must be at most 100000"),
        (lambda: gp.ZClip(0), "z must be positive"),
        (lambda: gp.ZClip(alpha=1), r"alpha must be in \[0, 1\)"),
        (lambda: gp.ZClip(warmup=0), "warmup must be at least 1"),
        (lambda: gp.Inhibit(0), "limit must be positive"),
        (lambda: gp.Inhibit(1e-42), "limit must be a normal float32"),
        (lambda: gp.Inhibit(1e39), "limit must be a normal float32"),
        (lambda: gp.Inhibit(1, form="soft"), "form must be one of 'hyperbolic', 'tanh'"),
        (lambda: gp.Inhibit(1, on="rows"), "on must be one of 'elements', 'norm'"),
        (lambda: gp.QuantizeGradient("ternary"), "form must be one of 'qsgd', 'kbit', 'sign'"),
        (lambda: gp.QuantizeGradient("kbit", levels=4), "levels are for the form 'qsgd'"),
        (lambda: gp.QuantizeGradient(bits=4), "bits are for the form 'kbit'"),
        (lambda: gp.QuantizeGradient(levels=0), "levels must be at least 1"),
        (lambda: gp.QuantizeGradient(levels=65537), "levels must be at most 65536"),
        (lambda: gp.QuantizeGradient("kbit", bits=1), "bits must be at least 2"),
        (lambda: gp.QuantizeGradient("kbit", bits=17), "bits must be at most 16"),
        (lambda: gp.QuantizeGradient(seed=2**64), "seed must be below"),
        (lambda: gp.GradientNoise(0), "eta must be positive"),
        (lambda: gp.GradientNoise(gamma=-1), "gamma must not be negative"),
        (lambda: gp.GradientNoise(seed=-1), "seed must be at least 0"),
    ],
)
def test_refused_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
