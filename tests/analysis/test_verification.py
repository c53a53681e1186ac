"""gp.verify says that models agree, or which one does not, where and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import gradprune as gp


class Fixed:
    """Predicts what it was given."""

    def __init__(self, y: ArrayLike) -> None:
        self.y = np.asarray(y)
        self.tolerance = 1e-5

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        return self.y


X = np.zeros((2, 1))


def test_report() -> None:
    reference = Fixed([[1.0, 2.0], [3.0, -4.0]])
    close = Fixed([[1.0, 2.0], [3.0, -4.002]])
    report = gp.verify(reference, reference, close, x=X, tolerance=1e-3)
    assert list(report.errors) == ["Fixed 1", "Fixed 2"]
    assert report.errors["Fixed 1"] == 0.0
    assert report.errors["Fixed 2"] == pytest.approx(0.0005)
    assert (report.samples, report.tolerances) == (2, {"Fixed 1": 1e-3, "Fixed 2": 1e-3})


def test_each_form_has_its_tolerance() -> None:
    reference, rounded = Fixed([[1.0, 2.0], [3.0, -4.0]]), Fixed([[2.0, 1.9], [3.0, -4.0]])
    with pytest.raises(gp.analysis.VerificationError, match=r"error of 0\.25 .* allowed is 1e-05"):
        gp.verify(reference, rounded, x=X)
    report = gp.verify(reference, reference, (rounded, 0.3), x=X)
    assert report.tolerances == {"Fixed 1": 1e-5, "Fixed 2": 0.3}
    assert report.agreement == {"Fixed 1": 1.0, "Fixed 2": 0.5}
    assert str(report).splitlines() == [
        "model    largest error  allowed  same argmax",
        "Fixed 1              0    1e-05        100 %",
        "Fixed 2           0.25      0.3         50 %",
        "2 samples",
    ]
    rounded.tolerance = 0.3  # as a form with rounded weights says itself
    assert gp.verify(reference, reference, rounded, x=X) == report
    with pytest.raises(gp.analysis.VerificationError, match=r"allowed is 0\.2"):
        gp.verify(reference, rounded, x=X, tolerance=0.2)  # the caller's word is the last
    with pytest.raises(ValueError, match="tolerance"):
        gp.verify(reference, (rounded, -1), x=X)


def test_a_single_output_has_no_argmax() -> None:
    report = gp.verify(Fixed([[1.0]]), Fixed([[1.0]]), x=X)
    assert np.isnan(report.agreement["Fixed 1"])
    assert str(report).splitlines()[1].split() == ["Fixed", "1", "0", "1e-05"]


def test_the_message_names_the_place() -> None:
    reference, other = Fixed([[1.0, 2.0], [3.0, -4.0]]), Fixed([[1.0, 2.0], [3.5, -4.1]])
    with pytest.raises(gp.analysis.VerificationError) as error:
        gp.verify(reference, reference, other, x=X)
    assert str(error.value) == (
        "Fixed 2 differs at sample 1, output 0: 3.5 instead of 3.0, an error of 0.125 of the "
        "largest output, allowed is 1e-05"
    )
    assert isinstance(error.value, AssertionError)


@pytest.mark.parametrize("y", [[[1.0, np.nan]], [[1.0, np.inf]]])
def test_what_is_not_finite_is_not_close(y: ArrayLike) -> None:
    with pytest.raises(gp.analysis.VerificationError, match="sample 0, output 1"):
        gp.verify(Fixed([[1.0, 2.0]]), Fixed(y), x=X)
    with pytest.raises(gp.analysis.VerificationError, match="sample 0, output 1"):
        gp.verify(Fixed(y), Fixed([[1.0, 2.0]]), x=X)
    assert gp.verify(Fixed(y), Fixed(y), x=X).errors["Fixed 1"] == 0.0


def test_zeros_are_measured_absolutely() -> None:
    assert gp.verify(Fixed([[0.0]]), Fixed([[0.0]]), x=X).errors["Fixed 1"] == 0.0
    with pytest.raises(gp.analysis.VerificationError):
        gp.verify(Fixed([[0.0]]), Fixed([[1e-4]]), x=X)


def test_shapes_must_agree() -> None:
    with pytest.raises(
        gp.analysis.VerificationError, match=r"shape \(1, 2\), the reference \(1, 1\)"
    ):
        gp.verify(Fixed([[0.0]]), Fixed([[0.0, 1.0]]), x=X)
    with pytest.raises(gp.analysis.VerificationError, match="differs at sample 1: 3"):
        gp.verify(Fixed([0.0, 2.0]), Fixed([0.0, 3.0]), x=X)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="a model to compare"):
        gp.verify(Fixed([[0.0]]), x=X)
    with pytest.raises(TypeError, match=r"predict method, .* got int"):
        gp.verify(Fixed([[0.0]]), 3, x=X)
    with pytest.raises(ValueError, match="at least one sample"):
        gp.verify(Fixed(np.zeros((0, 2))), Fixed(np.zeros((0, 2))), x=X)
    with pytest.raises(ValueError, match="tolerance"):
        gp.verify(Fixed([[0.0]]), Fixed([[0.0]]), x=X, tolerance=-1)
