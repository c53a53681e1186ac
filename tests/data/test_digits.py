"""The digits that come with gradprune."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gradprune.data import datasets


def test_digits_are_whole_and_unchanged() -> None:
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert x_train.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert np.unique(x * 16).tolist() == list(range(17))
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # A fingerprint that the split does not change: the sum of all levels, and class by class.
    assert int((x * 16).sum()) == 561718
    assert len(np.unique(np.column_stack([x, y]), axis=0)) == 1797


def test_digits_split_is_the_same_everywhere() -> None:
    (_, y_train), (x_test, y_test) = datasets.digits()
    digest = hashlib.sha256((x_test * 16).astype(np.uint8).tobytes()).hexdigest()
    assert digest == "11c59c33afae2682530d8eed5ed25c5a5cdd698bcab5becbd5b54570a44e87d6"
    assert y_test[:12].tolist() == [0, 2, 9, 1, 0, 1, 8, 7, 2, 3, 6, 9]
    (_, again), (x_again, _) = datasets.digits(seed=0)
    np.testing.assert_array_equal(x_again, x_test)
    np.testing.assert_array_equal(again, y_train)
    _, (x_other, _) = datasets.digits(seed=1)
    assert not np.array_equal(x_other, x_test)


@pytest.mark.parametrize("test_size", [1, 10, 123, 360, 900, 1796])
def test_digits_split_is_stratified(test_size: int) -> None:
    (_, y_train), (_, y_test) = datasets.digits(test_size=test_size, seed=5)
    assert len(y_test) == test_size
    assert len(y_train) == 1797 - test_size
    counts = np.bincount(y_test, minlength=10)
    exact = np.bincount(np.concatenate([y_train, y_test])) * test_size / 1797
    assert np.abs(counts - exact).max() < 1


def test_digits_as_images() -> None:
    (x_train, _), (x_test, _) = datasets.digits(flatten=False)
    (flat, _), _ = datasets.digits()
    assert x_train.shape == (1437, 8, 8)
    assert x_test.shape == (360, 8, 8)
    np.testing.assert_array_equal(x_train.reshape(1437, 64), flat)


def test_digits_equal_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    x, y = sklearn.load_digits(return_X_y=True)
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    ours = np.concatenate([np.column_stack([x_train * 16, y_train])])
    ours = np.concatenate([ours, np.column_stack([x_test * 16, y_test])])
    theirs = np.column_stack([x, y])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


@pytest.mark.parametrize("test_size", [0, -1, 1797])
def test_digits_refuses_a_size(test_size: int) -> None:
    with pytest.raises(ValueError, match="test_size must be at least 1 and below 1797"):
        datasets.digits(test_size=test_size)


def test_digits_refuses_other_arguments() -> None:
    with pytest.raises(TypeError, match=r"test_size must be an integer, got 0\.2"):
        datasets.digits(test_size=0.2)
    with pytest.raises(ValueError, match="seed must be"):
        datasets.digits(seed=-1)
