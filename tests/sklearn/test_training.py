"""What scikit-learn's tests expect of its MLP, as far as it applies."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neural_network import MLPClassifier

import gradprune as gp
from gradprune.sklearn import SparseMLPClassifier, SparseMLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6))
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0.5)
VALUES = X @ RNG.normal(size=6) + 20


def classifier(**settings: Any) -> SparseMLPClassifier:
    chosen = {"hidden_layer_sizes": (16,), "sparsity": 0.5, "max_iter": 20, "random_state": 0}
    return SparseMLPClassifier(**{**chosen, **settings})


def regressor(**settings: Any) -> SparseMLPRegressor:
    chosen = {"hidden_layer_sizes": (16,), "sparsity": 0.5, "max_iter": 20, "random_state": 0}
    return SparseMLPRegressor(**{**chosen, **settings})


def test_the_loss_falls_at_every_pass() -> None:
    est = classifier(sparsity=0.0, max_iter=30).fit(X, Y)
    assert (np.diff(est.loss_curve_) < 0).all()
    assert len(est.loss_curve_) == est.n_iter_ == 30
    assert est.loss_ == est.loss_curve_[-1] == est.best_loss_
    assert est.t_ == 30 * len(X)


def test_the_loss_is_that_of_scikit_learn() -> None:
    """With all weights, and the penalty of alpha; the first pass is measured before its step."""
    for y in (Y, Y > 0, np.stack([Y > 0, Y > 1], axis=1).astype(int)):
        est = classifier(sparsity=0.0, alpha=5.0, max_iter=1, standardize=False).fit(X, y)
        before = classifier(
            sparsity=0.0, alpha=0.0, max_iter=1, standardize=False, learning_rate_init=1e-30
        ).fit(X, y)
        penalty = 2.5 * sum((weight**2).sum() for weight in before.coefs_) / len(X)
        peer = MLPClassifier((16,), alpha=5.0, max_iter=1, learning_rate_init=1e-30).fit(X, y)
        peer.coefs_, peer.intercepts_ = before.coefs_, before.intercepts_
        given = peer.predict_proba(X)
        if y.ndim == 2:
            loss = -np.where(y, np.log(given), np.log(1 - given)).sum(axis=1).mean()
        else:
            loss = log_loss(y, given)
        assert est.loss_ == pytest.approx(loss + penalty, rel=1e-5)
        np.testing.assert_allclose(given, before.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("batch_size", ["auto", 32])
def test_pieces_are_passes(batch_size: Any) -> None:
    """partial_fit does what fit does, bit for bit, pruning included."""
    for make, y in ((classifier, Y), (regressor, VALUES)):
        whole = make(batch_size=batch_size, tol=0.0, n_iter_no_change=99).fit(X, y)
        pieces = make(batch_size=batch_size)
        words = {"classes": np.unique(y)} if make is classifier else {}
        for _ in range(20):
            pieces.partial_fit(X, y, **words)
        np.testing.assert_array_equal(pieces.predict(X), whole.predict(X))
        assert pieces.loss_curve_ == whole.loss_curve_
        assert pieces.sparsity_ == whole.sparsity_ == pytest.approx(0.5, abs=0.01)
        assert (pieces.n_iter_, whole.n_iter_) == (1, 20)


def test_pieces_need_the_classes() -> None:
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(X, Y)
    est = classifier().partial_fit(X, Y, classes=[0, 1, 2, 3])
    est.partial_fit(X[:5], [0] * 5)
    assert est.predict_proba(X).shape == (120, 4)
    with pytest.raises(ValueError, match="not the same as on last call to partial_fit"):
        est.partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        est.partial_fit(X, Y + 2)
    with pytest.raises(ValueError, match="does not support early_stopping"):
        classifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])


def test_a_weight_is_a_repetition() -> None:
    weights = RNG.integers(0, 4, len(X))
    times = np.repeat(np.arange(len(X)), weights)
    for make, y, words in (
        (classifier, Y, {}),
        (classifier, Y, {"class_weight": "balanced"}),
        (classifier, Y, {"class_weight": {0: 2.0, 1: 0.5}}),
        (regressor, VALUES, {}),
    ):
        weighted = make(batch_size=400, **words)
        with pytest.warns(UserWarning, match="batch_size=400 is larger than"):
            weighted.fit(X, y, sample_weight=weights)
        with pytest.warns(UserWarning, match="batch_size=400 is larger than"):
            repeated = make(batch_size=400, **words).fit(X[times], y[times])
        np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))
        np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-12)


def test_classes_of_weight_0_are_not_learned() -> None:
    est = classifier(max_iter=100, learning_rate_init=0.05).fit(X, Y, sample_weight=Y != 2)
    assert set(est.predict(X)) == {0, 1}
    np.testing.assert_array_equal(est.classes_, [0, 1, 2])
    with pytest.raises(ValueError, match=r"no sample counts|at least one non-zero"):
        est.fit(X, Y, sample_weight=np.zeros(len(X)))
    with pytest.raises(ValueError, match="Negative values"):
        est.fit(X, Y, sample_weight=-np.ones(len(X)))


def test_balanced_classes() -> None:
    y = (X[:, 0] > 1.2).astype(int)
    plain, balanced = classifier().fit(X, y), classifier(class_weight="balanced").fit(X, y)
    assert balanced.predict(X).sum() > plain.predict(X).sum()
    with pytest.raises(ValueError, match="needs all samples"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1])


def test_several_labels_a_sample() -> None:
    x, y = make_multilabel_classification(n_samples=100, random_state=0)
    settings = {"max_iter": 150, "batch_size": 20, "learning_rate_init": 0.02}
    est = classifier(**settings).fit(x, y)
    assert est.score(x, y) > 0.9
    assert est.predict(x).shape == est.predict_proba(x).shape == y.shape
    np.testing.assert_array_equal(est.predict(x), est.predict_proba(x) > 0.5)
    assert est.out_activation_ == "logistic"
    pieces = classifier(**settings)
    for _ in range(150):
        pieces.partial_fit(x, y, classes=range(5))
    assert pieces.loss_curve_[: est.n_iter_] == est.loss_curve_


def test_probabilities() -> None:
    for y, kind in ((Y, "softmax"), (Y > 0, "logistic")):
        est = classifier().fit(X, y)
        given = est.predict_proba(X)
        np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(est.classes_[given.argmax(axis=1)], est.predict(X))
        np.testing.assert_array_equal(est.predict_log_proba(X), np.log(given))
        assert est.out_activation_ == kind


@pytest.mark.parametrize("names", [["b", "a", "c"], [True, False, True], [-1, 1, 5]])
def test_classes_of_all_kinds(names: list[Any]) -> None:
    y = np.array(names)[Y]
    est = classifier().fit(X, y)
    np.testing.assert_array_equal(est.classes_, np.unique(y))
    assert est.predict(X).dtype == y.dtype
    if isinstance(names[0], str):
        plain = classifier().fit(X, np.searchsorted(est.classes_, y))
        np.testing.assert_array_equal(plain.predict_proba(X), est.predict_proba(X))


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 3)])
def test_values_of_all_shapes(shape: tuple[int, ...]) -> None:
    y = VALUES[:, None] * [1, 2, -1] if shape[1:] == (3,) else VALUES.reshape(shape)
    est = regressor(sparsity=0.0, learning_rate_init=0.05, max_iter=100)
    if shape[1:] == (1,):
        with pytest.warns(UserWarning, match="column-vector"):
            est.fit(X, y)
    else:
        est.fit(X, y)
    assert est.predict(X).shape == ((120, 3) if shape[1:] == (3,) else (120,))
    assert est.score(X, y) > 0.99
    assert est.out_activation_ == "identity"


def test_a_regression_is_learned() -> None:
    x, y = make_regression(n_samples=200, n_features=10, bias=5.0, noise=1.0, random_state=7)
    est = regressor(max_iter=200, batch_size=20, learning_rate_init=0.01).fit(x, y)
    assert est.score(x, y) > 0.98


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_features_and_targets_does_not_matter(scale: float) -> None:
    est = regressor(max_iter=100, learning_rate_init=0.02)
    score = est.fit(X, VALUES).score(X, VALUES)
    other = regressor(max_iter=100, learning_rate_init=0.02)
    moved = 1e4 + X * 8
    assert other.fit(moved, scale * VALUES).score(moved, scale * VALUES) == pytest.approx(
        score, abs=0.01
    )


def test_training_ends_when_the_loss_does() -> None:
    est = classifier(max_iter=500, tol=0.1, sparsity=0.0, n_iter_no_change=3).fit(X, Y)
    assert est.n_iter_ == 5  # the first, and 4 that improve it by less than tol
    assert min(est.loss_curve_[1:]) > est.loss_curve_[0] - 0.11


def test_nothing_ends_before_the_last_weights_are_removed() -> None:
    est = classifier(max_iter=100, tol=10.0, n_iter_no_change=3).fit(X, Y)
    assert est.sparsity_ == pytest.approx(0.5, abs=0.01)
    assert 50 <= est.n_iter_ <= 55


def test_training_that_has_not_converged_is_warned_of() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=2 passes are over"):
        classifier(max_iter=2).fit(X, Y)


def test_early_stopping() -> None:
    for make, y in ((classifier, Y), (regressor, VALUES)):
        est = make(
            max_iter=300, early_stopping=True, learning_rate_init=0.02, n_iter_no_change=5
        ).fit(X, y)
        assert est.n_iter_ < 300
        assert len(est.validation_scores_) == est.n_iter_
        assert est.best_validation_score_ == max(est.validation_scores_[150:])
        assert est.best_loss_ is None
        assert est.sparsity_ == pytest.approx(0.5, abs=0.01)
        plain = make().fit(X, y)
        assert (plain.best_validation_score_, plain.validation_scores_) == (None, None)


def test_early_stopping_keeps_enough() -> None:
    with pytest.raises(ValueError, match="The least populated class"):
        classifier(early_stopping=True).fit(X, [0] * 119 + [1])
    with pytest.raises(ValueError, match="validation set is too small"):
        regressor(early_stopping=True, validation_fraction=0.005).fit(X, VALUES)


def test_a_warm_start_goes_on() -> None:
    est = classifier(warm_start=True, max_iter=5)
    for turn in range(1, 4):
        est.fit(X, Y)
        assert est.n_iter_ == 5
        assert len(est.loss_curve_) == 5 * turn
    cold = classifier(max_iter=5).fit(X, Y).fit(X, Y)
    assert cold.loss_ > est.loss_
    assert len(cold.loss_curve_) == 5
    est.set_params(sparsity=0.8).fit(X, Y)
    assert est.sparsity_ == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("y", [Y > 0, Y + (Y == 2), np.minimum(np.arange(120), 3)])
def test_a_warm_start_keeps_its_classes(y: Any) -> None:
    est = classifier(warm_start=True).fit(X, Y)
    before = est.predict_proba(X)
    with pytest.raises(ValueError, match="can only be used where `y` has the same classes"):
        est.fit(X, y)
    with pytest.raises(ValueError, match="warm_start goes on with hidden_layer_sizes"):
        est.set_params(hidden_layer_sizes=(5,)).fit(X, Y)
    np.testing.assert_array_equal(est.predict_proba(X), before)


def test_a_fit_after_another_begins_anew() -> None:
    est = classifier().fit(X[:, :4], Y > 0)
    est.fit(X, Y)
    np.testing.assert_array_equal(est.predict(X), classifier().fit(X, Y).predict(X))


def test_random_states() -> None:
    same = [classifier(random_state=np.random.RandomState(3)).fit(X, Y) for _ in range(2)]
    np.testing.assert_array_equal(*(est.predict_proba(X) for est in same))
    est = classifier(random_state=np.random.RandomState(3))
    first = est.fit(X, Y).predict_proba(X)
    assert (est.fit(X, Y).predict_proba(X) != first).any()
    classifier(random_state=None).fit(X, Y)


def test_order_and_repetition_change_no_bit_of_a_full_batch() -> None:
    order = RNG.permutation(len(X))
    for make, y in ((classifier, Y), (regressor, VALUES)):
        one, other = make().fit(X, y), make().fit(X[order], y[order])
        np.testing.assert_array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize("hidden", [5, (), [8, 4], np.array([6])])
def test_units(hidden: Any) -> None:
    est = classifier(hidden_layer_sizes=hidden).fit(X, Y)
    sizes = [6, *np.atleast_1d(np.asarray(hidden, int)), 3]
    assert [weight.shape for weight in est.coefs_] == list(pairwise(sizes))
    assert [bias.shape for bias in est.intercepts_] == [(size,) for size in sizes[1:]]
    assert est.n_layers_ == len(sizes)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_activations(activation: str) -> None:
    est = classifier(activation=activation, max_iter=100, learning_rate_init=0.02).fit(X, Y)
    peer = MLPClassifier((16,), activation=activation, max_iter=1).fit(X, Y)
    peer.coefs_, peer.intercepts_ = est.coefs_, est.intercepts_
    np.testing.assert_allclose(peer.predict_proba(X), est.predict_proba(X), atol=1e-5)
    assert accuracy_score(Y, est.predict(X)) > 0.75


@pytest.mark.parametrize("criterion", ["taylor", gp.GradientDecomposition(), "random", "synflow"])
@pytest.mark.parametrize("schedule", ["linear", "one_shot", None])
def test_criteria_and_schedules(criterion: Any, schedule: str | None) -> None:
    est = classifier(criterion=criterion, schedule=schedule, max_iter=30).fit(X, Y)
    assert est.sparsity_ == pytest.approx(0.5, abs=0.01)


def test_a_schedule_of_ones_own() -> None:
    schedule = gp.Cubic(0.75, start=2, stop=12, every=2)
    est = classifier(sparsity=None, schedule=schedule).fit(X, Y)
    assert est.sparsity_ == pytest.approx(0.75, abs=0.01)
    late = gp.Cubic(0.75, start=2, stop=1000)
    with pytest.warns(UserWarning, match="1000"):
        classifier(sparsity=None, schedule=late).fit(X, Y)


def test_clipped_gradients() -> None:
    free, held = classifier().fit(X, Y), classifier(max_norm=1e-3).fit(X, Y)
    assert (free.predict_proba(X) != held.predict_proba(X)).any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": "swish"}, "activation must be one of 'relu', 'tanh'"),
        ({"hidden_layer_sizes": (0,)}, "each of hidden_layer_sizes must be at least 1"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\)"),
        ({"criterion": "size"}, "criterion must be one of"),
        ({"schedule": "cosine"}, "schedule must be one of 'cubic', 'linear', 'one_shot'"),
        ({"batch_size": "all"}, "batch_size must be one of 'auto'"),
        ({"validation_fraction": 0.0}, "validation_fraction must be above 0"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
        ({"class_weight": "even"}, "class_weight"),
        ({"alpha": -1}, "alpha must not be negative"),
        ({"learning_rate_init": 0}, "learning_rate_init must be positive"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        classifier(**settings).fit(X, Y)


def test_lines_a_pass(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(verbose=True, max_iter=2, early_stopping=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["Iteration 1", "Iteration 2"]
    assert "validation score" in lines[0]


def test_an_error_on_the_way_leaves_what_was_fitted() -> None:
    est = classifier().fit(X, Y)
    before = est.predict(X)
    bad = X.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        est.fit(bad, Y)
    with pytest.raises(ValueError, match="contains NaN"):
        est.predict(bad)
    np.testing.assert_array_equal(est.predict(X), before)
