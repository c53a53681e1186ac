"""Augmentation: what it makes of images, and on what alone that depends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import _core, reference
from gradprune.data.augmentation import Augmenter

IMAGE = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 3, 4)
ALL = [
    gp.augmentation.Shift(2),
    gp.augmentation.Crop((1, 2), mode="reflect"),
    gp.augmentation.Flip(vertical=True),
    gp.augmentation.Rotate(30),
]


def numbers(*values: float) -> NDArray[np.float32]:
    """Of one sample."""
    return np.array([values], np.float32)


def images(n: int = 24, shape: tuple[int, ...] = (2, 6, 5)) -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0.1, 1, (n, *shape)).astype(np.float32)


def applied(
    x: NDArray[np.float32], *augment: gp.augmentation.Augmentation, seed: int = 0, epoch: int = 0
) -> NDArray[np.float32]:
    augmenter = Augmenter(augment, x.shape[1:], seed)
    augmenter.begin(len(x), epoch)
    return augmenter.apply(x.reshape(len(x), -1).copy(), np.arange(len(x))).reshape(x.shape)


# ---- each by itself ----------------------------------------------------------------------------


def test_shift_moves_zeros_in() -> None:
    x = np.broadcast_to(IMAGE, (35, 1, 3, 4))
    grid = [(down, across) for down in range(5) for across in range(7)]
    uniform = (np.array(grid) + 0.5) / [5, 7]
    out = gp.augmentation.Shift((2, 3)).apply(x, uniform.astype(np.float32))
    for (down, across), image in zip(grid, out[:, 0], strict=True):
        expected = np.zeros((7, 10), np.float32)
        expected[2:5, 3:7] = IMAGE[0, 0]
        np.testing.assert_array_equal(image, expected[down : down + 3, across : across + 4])


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("zeros", [[6, 7, 8, 0], [10, 11, 12, 0], [0, 0, 0, 0]]),
        ("edge", [[6, 7, 8, 8], [10, 11, 12, 12], [10, 11, 12, 12]]),
        ("reflect", [[6, 7, 8, 7], [10, 11, 12, 11], [6, 7, 8, 7]]),
    ],
)
def test_crop_cuts_out_of_what_is_padded(mode: str, rows: list[list[float]]) -> None:
    crop = gp.augmentation.Crop(1, mode=mode)
    assert crop.apply(IMAGE.copy(), numbers(0.99, 0.99))[0, 0].tolist() == rows
    np.testing.assert_array_equal(crop.apply(IMAGE.copy(), numbers(0.5, 0.5)), IMAGE)


def test_moves_are_equally_likely() -> None:
    x = np.zeros((2000, 1, 9, 9), np.float32)
    x[:, 0, 4, 4] = 1
    for augmentation in (gp.augmentation.Shift((1, 2)), gp.augmentation.Crop((1, 2))):
        _, _, rows, columns = np.nonzero(applied(x, augmentation))
        counts = Counter(zip(rows.tolist(), columns.tolist(), strict=True))
        assert set(counts) == {(4 + i, 4 + j) for i in (-1, 0, 1) for j in (-2, -1, 0, 1, 2)}
        assert max(abs(count - 2000 / 15) for count in counts.values()) < 5 * (2000 / 15) ** 0.5


def test_flip_mirrors_below_p() -> None:
    x = np.repeat(IMAGE, 4, axis=0)
    uniform = np.array([[0.2, 0.2], [0.2, 0.3], [0.3, 0.2], [0.3, 0.3]], np.float32)
    both = gp.augmentation.Flip(vertical=True, p=0.25).apply(x.copy(), uniform)
    expected = [x[0, 0, ::-1, ::-1], x[0, 0, :, ::-1], x[0, 0, ::-1], x[0, 0]]
    np.testing.assert_array_equal(both[:, 0], expected)
    vertical = gp.augmentation.Flip(horizontal=False, vertical=True, p=0.25).apply(
        x.copy(), uniform
    )
    expected = [x[0, 0, ::-1], x[0, 0], x[0, 0, ::-1], x[0, 0]]
    np.testing.assert_array_equal(vertical[:, 0], expected)
    np.testing.assert_array_equal(applied(images(), gp.augmentation.Flip(p=0)), images())
    np.testing.assert_array_equal(applied(images(), gp.augmentation.Flip(p=1)), images()[..., ::-1])


@pytest.mark.parametrize("direction", [{}, {"horizontal": False, "vertical": True}])
def test_a_share_of_0_flips_nothing_and_of_1_all(direction: dict[str, bool]) -> None:
    x = images(2)
    for p, drawn, flips in ((0.0, 0.0, False), (0.5, 0.5, False), (1.0, 1 - 2.0**-24, True)):
        uniform = np.full((len(x), 2), drawn, np.float32)
        found = gp.augmentation.Flip(p=p, **direction).apply(x.copy(), uniform)
        assert np.array_equal(found, x) is not flips


def test_rotate_by_right_angles() -> None:
    x = images(shape=(3, 7, 7))
    np.testing.assert_array_equal(applied(x, gp.augmentation.Rotate(0)), x)
    for degrees, turns in ((90, 1), (180, 2)):
        turned = gp.augmentation.Rotate(degrees).apply(x, np.ones((len(x), 1), np.float32))
        np.testing.assert_allclose(turned, np.rot90(x, turns, axes=(2, 3)), atol=1e-5)
        back = gp.augmentation.Rotate(degrees).apply(x, np.zeros((len(x), 1), np.float32))
        np.testing.assert_allclose(back, np.rot90(x, -turns, axes=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 5, 12)])
def test_rotate_is_that_of_scipy(shape: tuple[int, ...]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images(9, shape)
    uniform = np.linspace(0, 1, 9, dtype=np.float32)[:, np.newaxis]
    out = gp.augmentation.Rotate(40).apply(x, uniform)
    for image, turned, angle in zip(x, out, np.linspace(-40, 40, 9), strict=True):
        settings: dict[str, Any] = {"reshape": False, "order": 1, "mode": "grid-constant"}
        expected = ndimage.rotate(image, angle, axes=(1, 2), **settings)
        np.testing.assert_allclose(turned, expected, atol=2e-6)


def test_the_core_warps_like_its_twin(rng: np.random.Generator) -> None:
    x = images(6, (2, 4, 70))  # rows longer than a block
    maps = np.array([[1, 0, 0, 0, 1, 0]]) + rng.normal(size=(6, 6)) * [0.3, 0.02, 1, 0.3, 0.02, 9]
    out = np.empty_like(x)
    _core.warp(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), maps, out)
    np.testing.assert_allclose(out, reference.warp(x.astype(np.float64), maps), atol=2e-5)
    assert out.any()


def test_the_core_refuses_shapes_that_do_not_fit() -> None:
    x, maps, out = np.zeros((2, 1, 5, 5), np.float32), np.zeros((2, 6)), np.zeros((2, 1, 3, 3))
    with pytest.raises(TypeError, match="out"):
        _core.warp(x, maps, out)
    for wrong in ((2, 1, 5, 5), (1, 1, 3, 3), (2, 2, 3, 3), (2, 1, 3, 4)):
        with pytest.raises(ValueError, match="border"):
            _core.warp(x, maps, np.zeros(wrong, np.float32))
    with pytest.raises(ValueError, match="maps"):
        _core.warp(x, np.zeros((2, 5)), out.astype(np.float32))


# ---- on what it depends ------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_channels_move_alike(augmentation: gp.augmentation.Augmentation) -> None:
    x = images(shape=(1, 6, 5)).repeat(3, axis=1)
    out = applied(x, augmentation)
    assert not np.array_equal(out, x)
    np.testing.assert_array_equal(out, out[:, :1].repeat(3, axis=1))


@pytest.mark.parametrize("augmentation", [*ALL, ALL], ids=repr)
def test_a_sample_depends_on_its_number_alone(augmentation: Any, rng: np.random.Generator) -> None:
    x = images()
    augmenter = Augmenter(np.atleast_1d(augmentation).tolist(), x.shape[1:], 3)
    augmenter.begin(len(x), 5)
    rows = x.reshape(len(x), -1)
    whole = augmenter.apply(rows.copy(), np.arange(len(x)))
    for size in (1, 7):
        order = rng.permutation(len(x))
        for start in range(0, len(x), size):
            index = order[start : start + size]
            np.testing.assert_array_equal(augmenter.apply(rows[index], index), whole[index])


def test_seed_epoch_and_place_change_what_becomes_of_it() -> None:
    x = images()
    shift = gp.augmentation.Shift(2)
    once = applied(x, shift)
    np.testing.assert_array_equal(applied(x, shift), once)
    assert not np.array_equal(applied(x, shift, seed=1), once)
    assert not np.array_equal(applied(x, shift, epoch=1), once)
    assert not np.array_equal(applied(x, gp.augmentation.Shift(0), shift), once)


# ---- in training -------------------------------------------------------------------------------


def model_of() -> gp.Model:
    layers = [gp.Flatten(), gp.Dense(6, activation="tanh"), gp.Dense(3)]
    model = gp.Model(layers, input_shape=(2, 6, 5), seed=0)
    gp.Adam(model, lr=0.01)
    return model


X, Y = images(), np.arange(24) % 3


def fit(model: gp.Model, **settings: Any) -> gp.training.History:
    return model.fit(X, Y, **{"batch_size": 8, "seed": 4, "verbose": 0, "augment": ALL, **settings})


def test_fit_trains_on_augmented_batches() -> None:
    model, twin = model_of(), model_of()
    before = X.copy()
    fit(model, epochs=2)
    np.testing.assert_array_equal(X, before)
    assert twin.optimizer is not None
    for epoch in range(2):
        seen = applied(X, *ALL, seed=4, epoch=epoch)
        for x, y in gp.batches(seen, Y, batch_size=8, seed=4, epoch=epoch):
            twin.train_step(x, y, optimizer=twin.optimizer)
    for name, values in model.parameters.items():
        np.testing.assert_array_equal(values, twin.parameters[name])
    plain = model_of()
    fit(plain, epochs=2, augment=())
    assert not np.array_equal(plain.parameters["dense0.weight"], model.parameters["dense0.weight"])


def test_resumed_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, half = model_of(), model_of()
    fit(whole, epochs=4)
    fit(half, epochs=2)
    half.save(tmp_path / "half.safetensors")
    resumed = gp.load(tmp_path / "half.safetensors")
    assert isinstance(resumed, gp.Model)
    fit(resumed, epochs=2)
    for name, values in whole.parameters.items():
        np.testing.assert_array_equal(values, resumed.parameters[name])


def test_validation_is_not_augmented() -> None:
    model = model_of()
    history = fit(model, validation_data=(X, Y))
    assert history["val_loss"][-1] == model.evaluate(X, Y)["loss"]


def test_one_augmentation_needs_no_list() -> None:
    one, listed = model_of(), model_of()
    fit(one, augment=gp.augmentation.Shift(1))
    fit(listed, augment=[gp.augmentation.Shift(1)])
    for name, values in one.parameters.items():
        np.testing.assert_array_equal(values, listed.parameters[name])


def test_soft_targets_stay_with_their_samples() -> None:
    """With a flip of p = 0, training is what it is without."""
    logits = np.random.default_rng(0).normal(size=(24, 3))
    one, other = model_of(), model_of()
    fit(one, loss=gp.losses.Distillation(logits=logits), augment=gp.augmentation.Flip(p=0))
    fit(other, loss=gp.losses.Distillation(logits=logits), augment=())
    for name, values in one.parameters.items():
        np.testing.assert_array_equal(values, other.parameters[name])


def test_a_pruner_sees_the_batch_of_the_step() -> None:
    seen = []

    class Looks(gp.Pruner):
        wants_batch = True

        def step(self, *, data: Any = None, loss: Any = None) -> None:
            seen.append(data)

    model = model_of()
    fit(model, pruner=Looks(model, criterion=gp.Magnitude()), shuffle=False)
    augmented = applied(X, *ALL, seed=4)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in seen]), augmented)
    np.testing.assert_array_equal(np.concatenate([y for _, y in seen]), Y)


# ---- what is refused ---------------------------------------------------------------------------


def test_features_alone_are_refused() -> None:
    model = gp.Model([gp.Dense(3)], input_shape=784, seed=0)
    x = np.zeros((4, 784), np.float32)
    with pytest.raises(ValueError, match=r"reshape x to \(n, 1, 28, 28\).*input_shape=\(1, 28, 28"):
        model.fit(x, [0, 1, 2, 0], optimizer=gp.Adam(model), augment=gp.augmentation.Shift(2))
    model = gp.Model([gp.Dense(3)], input_shape=3072, seed=0)
    with pytest.raises(ValueError, match=r"\(n, 3, 32, 32\)"):
        model.fit(x, [0, 1, 2, 0], optimizer=gp.Adam(model), augment=gp.augmentation.Shift(2))
    model = gp.Model([gp.Dense(3)], input_shape=7, seed=0)
    with pytest.raises(ValueError, match=r"shape \(channels, height, width\)"):
        model.fit(x, [0, 1, 2, 0], optimizer=gp.Adam(model), augment=gp.augmentation.Shift(2))


@pytest.mark.parametrize(
    "augment", [2, "shift", gp.augmentation.Shift, [gp.augmentation.Shift(1), 3], None]
)
def test_what_is_no_augmentation_is_refused(augment: Any) -> None:
    model = model_of()
    with pytest.raises(TypeError, match="augmentation"):
        fit(model, augment=augment)
    assert model.forward_count == 0


@pytest.mark.parametrize(
    "one", [gp.augmentation.Shift(6), gp.augmentation.Shift((0, 5)), gp.augmentation.Crop((6, 0))]
)
def test_moves_out_of_sight_are_refused(one: gp.augmentation.Augmentation) -> None:
    with pytest.raises(ValueError, match="6 x 5 pixels out of sight"):
        fit(model_of(), augment=one)


def test_settings_are_checked() -> None:
    for wrong in (-1, (1, -1), (1, 2, 3), "1"):
        with pytest.raises(ValueError, match="pixels"):
            gp.augmentation.Shift(wrong)
        with pytest.raises(ValueError, match="padding"):
            gp.augmentation.Crop(wrong)
    with pytest.raises(ValueError, match="mode"):
        gp.augmentation.Crop(1, mode="wrap")
    with pytest.raises(ValueError, match="horizontal, vertical or both"):
        gp.augmentation.Flip(horizontal=False)
    with pytest.raises(ValueError, match="p must be in"):
        gp.augmentation.Flip(p=1.5)
    for degrees in (-1, 181, np.nan):
        with pytest.raises(ValueError, match="degrees"):
            gp.augmentation.Rotate(degrees)


def test_one_of_your_own() -> None:
    class Darker(gp.augmentation.Augmentation):
        draws = 1

        def apply(self, images: NDArray[Any], uniform: NDArray[Any]) -> NDArray[Any]:
            return images * uniform[:, :, np.newaxis, np.newaxis]

    class Smaller(Darker):
        def apply(self, images: NDArray[Any], uniform: NDArray[Any]) -> NDArray[Any]:
            return images[:, :, 1:]

    out = applied(X, Darker())
    uniform = _core.uniform(24, 0, 5 << 61)
    np.testing.assert_array_equal(out, X * uniform[:, np.newaxis, np.newaxis, np.newaxis])
    with pytest.raises(ValueError, match=r"Smaller.*\(8, 2, 6, 5\), got \(8, 2, 5, 5\)"):
        fit(model_of(), augment=[Smaller()])


class Counts(gp.augmentation.Flip):
    """How many images it has seen."""

    seen = 0

    def apply(self, images: NDArray[Any], uniform: NDArray[Any]) -> NDArray[Any]:
        Counts.seen += len(images)
        return super().apply(images, uniform)


def test_stages_of_pipelines_pass_it_on() -> None:
    training = gp.compression.Training(3, augment=Counts(), batch_size=8)
    Counts.seen = 0
    gp.compression.Pipeline([gp.compression.FineTune(training)]).run(model_of(), (X, Y))
    assert Counts.seen == 3 * len(X)
    with pytest.raises(TypeError, match="augmentation"):
        gp.compression.Training(3, augment=2)


def test_experiments_pass_it_on(tmp_path: Path) -> None:
    def build(seed: int) -> gp.Model:
        return gp.Model([gp.Flatten(), gp.Dense(3)], input_shape=X.shape[1:], seed=seed)

    experiment = gp.sweeps.Experiment(
        build, ((X, Y), (X, Y)), dense_epochs=3, epochs=2, batch_size=8, cache=tmp_path
    )
    Counts.seen = 0
    experiment(augment=())
    for epochs in (5, 2):  # a dense model without augmentation is not taken for one with it
        Counts.seen = 0
        experiment(augment=Counts())
        assert Counts.seen == epochs * len(X)
