"""A size or a time in place of a sparsity."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.datasets import load_digits

import gradprune as gp
from gradprune.sklearn import SparseMLPClassifier
from gradprune.sklearn.budgets import Microseconds

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_digits(return_X_y=True)


def fitted(**settings: Any) -> SparseMLPClassifier:
    chosen = {"hidden_layer_sizes": (30,), "max_iter": 20, "random_state": 0, **settings}
    return SparseMLPClassifier(**chosen).fit(X[:800], Y[:800])


def test_the_packed_file_is_as_small_as_asked() -> None:
    est = fitted(target_bytes=2000, n_iter_no_change=3, max_iter=40)
    size = gp.compress(est.model_).nbytes
    assert 1800 < size <= 2000
    assert est.search_[-1].measured == size
    assert [trial.trained for trial in est.search_] == sorted(t.trained for t in est.search_)
    assert est.score(X[800:], Y[800:]) > 0.85
    again = fitted(target_bytes=2000, n_iter_no_change=3, max_iter=40)
    assert again.search_ == est.search_
    assert gp.compress(again.model_).data == gp.compress(est.model_).data


def test_a_budget_that_all_weights_meet_removes_none() -> None:
    est = fitted(target_bytes=100_000)
    assert est.sparsity_ == 0
    assert len(est.search_) == 2


def test_a_budget_that_nothing_meets_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"target_bytes=40 is less than the \d+ bytes of a net"):
        fitted(target_bytes=40)


def test_less_of_a_network_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time that is counted: nothing here depends on the machine."""
    monkeypatch.setattr(
        Microseconds, "measure", lambda self, model: sum(m.sum() for m in model.masks.values())
    )
    est = fitted(target_us=500)
    assert (est.search_[-1].sparsity, est.search_[-1].measured) == (0.8, 444)
    assert [trial.sparsity for trial in est.search_[:4]] == [0.0, 0.5, pytest.approx(0.7), 0.8]
    est = fitted(target_us=10)
    assert est.search_[-1].hidden_layer_sizes == (7,)
    assert est.model_.layers[0].units == 7
    est.set_params(warm_start=True).fit(X[:800], Y[:800])
    assert est.model_.layers[0].units == 7
    with pytest.raises(ValueError, match=r"cannot be met here.*units \(1,\)"):
        fitted(target_us=0.5)


def test_a_sample_is_timed() -> None:
    est = fitted(target_us=10_000)
    assert 0 < est.search_[-1].measured < 10_000
    assert est.search_[-1].unit == "us"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sparsity": 0.5, "target_bytes": 99}, "give one of sparsity and target_bytes"),
        ({"target_us": 5, "target_bytes": 99}, "give one of target_bytes and target_us"),
        ({"schedule": gp.OneShot(0.5), "target_us": 9}, "give one of target_us and a schedule"),
    ],
)
def test_one_word_decides_what_is_removed(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(**settings)


def test_pieces_take_a_sparsity() -> None:
    with pytest.raises(ValueError, match="partial_fit takes a sparsity"):
        SparseMLPClassifier(target_bytes=2000).partial_fit(X, Y, classes=range(10))
