"""Which values few bits stand for: k-means on a line, grids, and how they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradprune as gp
from cases import TRAINED
from gradprune import reference
from gradprune.quantization import kmeans as lines
from gradprune.quantization.kmeans import kmeans
from state import snapshot

NUMBERS = st.lists(
    st.floats(-100, 100, width=32) | st.integers(-3, 3).map(float), min_size=1, max_size=12
)


def cost(values: Any, clusters: int) -> float:
    centroids, codes = kmeans(values, clusters)
    assert len(centroids) == min(clusters, np.unique(values).size)
    assert (np.diff(centroids) > 0).all()
    assert set(codes) == set(range(len(centroids)))
    return float(np.sum((values - centroids[codes]) ** 2))


@given(NUMBERS, st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_kmeans_is_optimal(numbers: list[float], clusters: int) -> None:
    values = np.float32(numbers)
    best = reference.kmeans_cost(values, clusters)
    assert cost(values, clusters) == pytest.approx(best, rel=1e-9, abs=1e-7)


def test_kmeans_is_optimal_where_levels_are_deep() -> None:
    values = np.random.default_rng(0).standard_t(3, 60).astype(np.float32)
    for clusters in (1, 2, 5, 16, 59, 60, 80):
        best = reference.kmeans_cost(values, clusters)
        assert cost(values, clusters) == pytest.approx(best, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("clusters", [2, 8, 16])
@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "far"])
def test_kmeans_of_many_values_is_nearly_optimal(
    kind: str, clusters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where tails are heavy: bins of equally many values cost up to 57 % more there."""
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.normal(size=6000),
        "laplace": rng.laplace(size=6000),
        "heavy": rng.standard_t(3, 6000),
        "far": np.append(rng.normal(size=6000), [-1e6, 1e6, 1.01e6]),
    }[kind].astype(np.float32)
    best = cost(values, clusters)
    monkeypatch.setattr(lines, "_EXACT", 500)
    assert best * (1 - 1e-9) <= cost(values, clusters) <= 1.0004 * best


def test_lloyd_keeps_every_cluster() -> None:
    """A step that would leave one without points is not taken."""
    x, weight = np.array([17.0, 18, 26, 28]), np.array([3.0, 3, 5, 1])
    starts = np.array([0, 1, 3])  # means 17, 23 and 28: nothing is nearest to 23
    np.testing.assert_array_equal(lines._lloyd(x, weight, starts), starts)
    x, weight = np.array([0.0, 1, 10, 11]), np.ones(4)
    np.testing.assert_array_equal(lines._lloyd(x, weight, np.array([0, 1])), [0, 2])


def test_bins_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots of weight * gap: 0, 1, 1, 2, 2, of which no bin gets more than 3."""
    monkeypatch.setattr(lines, "_EXACT", 2)
    x, weight = np.array([0.0, 1, 2, 3, 7]), np.array([9.0, 1, 1, 4, 1])
    np.testing.assert_array_equal(lines._bin_starts(x, weight), [0, 3])
    monkeypatch.setattr(lines, "_EXACT", 3)
    np.testing.assert_array_equal(lines._bin_starts(x, weight), [0, 3, 4])


def test_kmeans_knows_no_order() -> None:
    values = np.random.default_rng(2).normal(size=400).astype(np.float32)
    order = np.random.default_rng(3).permutation(400)
    (centroids, codes), (again, shuffled) = kmeans(values, 7), kmeans(values[order], 7)
    np.testing.assert_array_equal(centroids, again)
    np.testing.assert_array_equal(codes[order], shuffled)


def network(share: float = 0.0) -> gp.Model:
    model = gp.Model(TRAINED.layers, 6, seed=7)
    if share:
        model.set_masks(TRAINED.masks(share))
    rng = np.random.default_rng(5)
    for name, values in model.parameters.items():
        if name.endswith("bias"):
            values[...] = 0.3 * rng.standard_normal(values.shape)
    return model


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_grids_are_those_of_torch(torch: Any, bits: int, symmetric: bool) -> None:
    model = network(0.3)
    weights = {name: torch.tensor(values.copy()) for name, values in model.parameters.items()}
    gp.Quantizer(
        model,
        gp.Grid(bits, per="row", symmetric=symmetric),
        biases=gp.Grid(bits, symmetric=symmetric),
    ).quantize()
    top = 2 ** (bits - 1) - 1
    low, high = (-top, top) if symmetric else (0, 2**bits - 1)
    for name, values in model.parameters.items():
        coding = model.quantizer.coding(name)
        scale, zero = torch.tensor(coding.scale), torch.tensor(coding.zero_point)
        if name.endswith("bias"):
            expected = torch.fake_quantize_per_tensor_affine(weights[name], scale, zero, low, high)
        else:
            expected = torch.fake_quantize_per_channel_affine(
                weights[name], scale, zero, 0, low, high
            )
        assert values.tobytes() == expected.numpy().tobytes()
        assert low <= coding.codes.min()
        assert coding.codes.max() <= high
        for i, row in enumerate(np.atleast_2d(weights[name].numpy())):
            alive = row[np.atleast_2d(model.masks[name])[i]] if name in model.masks else row
            wanted, point = reference.grid(alive, bits, symmetric=symmetric)
            assert scale[i] == pytest.approx(wanted, rel=1e-6)
            assert zero[i] == point
            twin = reference.fake_quantize(row, scale[i].numpy(), point, bits, symmetric=symmetric)
            np.testing.assert_array_equal(twin, np.atleast_2d(values)[i])


def test_one_bit_is_the_sign_times_the_mean() -> None:
    model = network(0.5)
    before = {name: values.copy() for name, values in model.parameters.items()}
    gp.Quantizer(model, gp.Grid(1)).quantize()
    for name, mask in model.masks.items():
        scale, _ = reference.grid(before[name][mask], 1)
        assert model.quantizer.coding(name).scale == pytest.approx(scale, rel=1e-6)
        twin = reference.fake_quantize(before[name], model.quantizer.coding(name).scale[0], 0, 1)
        np.testing.assert_array_equal(model.parameters[name], np.where(mask, twin, 0))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_is_at_least_as_good_as_max(bits: int, symmetric: bool) -> None:
    errors = {}
    for scale in ("max", "mse"):
        model = network()
        model.parameters["dense0.weight"][0, 0] = 20.0  # one outlier
        report = gp.Quantizer(model, gp.Grid(bits, symmetric=symmetric, scale=scale)).quantize()
        errors[scale] = [own.rms_error for own in report.per_parameter.values()]
    better = np.array(errors["max"]) / errors["mse"]
    assert (better >= 1 - 1e-6).all()
    if bits == 2:
        assert better.max() > 1.05


def test_report() -> None:
    model = network(0.5)
    model.parameters["dense2.weight"][...] = 0.25 * model.masks["dense2.weight"]
    quantizer = gp.Quantizer(model, gp.Codebook(2), exclude=("dense0", "dense1.weight"))
    before = model.parameters["dense2.weight"].copy()
    live = np.flatnonzero(before)
    before.ravel()[live] = [-1.0, *[0.5] * (len(live) - 2), 0.75]
    model.parameters["dense2.weight"][...] = before
    report = quantizer.quantize()
    n = len(live)
    own = report.per_parameter["dense2.weight"]
    center = (0.5 * (n - 2) + 0.75) / (n - 1)
    assert (own.live, own.distinct) == (n, 2)
    assert own.max_error == pytest.approx(0.75 - center, rel=1e-5)
    error = model.parameters["dense2.weight"] - before
    assert own.rms_error == pytest.approx(np.sqrt(np.sum(error**2) / n), rel=1e-4)
    p = 1 / n
    assert own.bits == pytest.approx(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
    assert report.bits == own.live * own.bits
    assert report.skipped == {
        "dense0.weight": "excluded",
        "dense0.bias": "excluded",
        "dense1.weight": "excluded",
        "dense1.bias": "biases are not quantized",
        "dense2.bias": "biases are not quantized",
    }
    assert "skipped dense0.weight: excluded" in str(report)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda m: gp.Codebook(0), ValueError, "clusters must be at least 1"),
        (lambda m: gp.Codebook(257), ValueError, "clusters must be at most 256"),
        (lambda m: gp.Codebook(2.5), TypeError, "clusters must be an integer"),
        (lambda m: gp.Codebook(4, per="layer"), ValueError, "per must be"),
        (lambda m: gp.Grid(9), ValueError, "bits must be at most 8"),
        (lambda m: gp.Grid(0), ValueError, "bits must be at least 1"),
        (lambda m: gp.Grid(4, per="model"), ValueError, "per must be"),
        (lambda m: gp.Grid(4, scale="kl"), ValueError, "scale must be"),
        (lambda m: gp.Grid(1, symmetric=False), ValueError, "1 bit must be symmetric"),
        (lambda m: gp.Quantizer(m, 16), TypeError, "weights must be a scheme"),
        (lambda m: gp.Quantizer(m, gp.Grid(), biases=8), TypeError, "biases must be a scheme"),
        (lambda m: gp.Quantizer(m, gp.Grid(), exclude="dense9"), ValueError, "dense9"),
        (
            lambda m: gp.Quantizer(m, gp.Grid(), exclude=("dense0", "dense1", "dense2")),
            ValueError,
            "nothing to quantize",
        ),
        (lambda m: gp.Quantizer(m, gp.Grid()).coding("dense0.weight"), KeyError, "not quantized"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(network())


@pytest.mark.parametrize("scheme", [gp.Codebook(3), gp.Grid(4)])
def test_a_weight_that_is_not_finite_changes_nothing(scheme: Any) -> None:
    model = network(0.5)
    row, column = np.argwhere(model.masks["dense1.weight"])[4]
    model.parameters["dense1.weight"][row, column] = np.nan
    before = snapshot(model)
    quantizer = gp.Quantizer(model, scheme, biases=gp.Grid())
    with pytest.raises(gp.errors.NonFiniteError, match=r"dense1\.weight") as caught:
        quantizer.quantize()
    assert caught.value.index == (row, column)
    assert snapshot(model) == before
    assert not quantizer.is_active


def test_degenerate_parameters() -> None:
    for scheme in (gp.Codebook(4), gp.Codebook(4, per="row"), gp.Grid(8), gp.Grid(1, per="row")):
        model = network()
        model.parameters["dense0.weight"][...] = 0.0
        model.set_mask("dense1.weight", np.zeros((7, 9)))
        report = gp.Quantizer(model, scheme, biases=scheme).quantize()
        assert report.per_parameter["dense1.weight"].live == 0
        assert (model.parameters["dense0.weight"] == 0).all()
        for name, values in model.parameters.items():
            assert model.quantizer.coding(name).decode().tobytes() == values.tobytes()
