"""What samples count: weights in training and measuring, by each loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import reference
from gradprune.losses.base import Loss
from gradprune.losses.table import get_loss

N, OUTPUTS = 150, 4
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, 6)).astype(np.float32)
LABELS = RNG.integers(0, OUTPUTS, N)
VALUES = RNG.uniform(size=(N, OUTPUTS)).astype(np.float32)
LOGITS = RNG.normal(size=(N, OUTPUTS)).astype(np.float32)
WEIGHTS = np.where(RNG.uniform(size=N) < 0.2, 0.0, RNG.uniform(0.1, 3.0, N))
COUNTS = RNG.integers(0, 4, N)  # whole weights


def taught(rows: Any = slice(None)) -> Loss:
    return gp.losses.Distillation(temperature=2.0, alpha=0.7, logits=LOGITS[rows])


LOSSES: dict[str, Any] = {
    "cross_entropy": "cross_entropy",
    "smoothed": gp.losses.CrossEntropy(label_smoothing=0.2),
    "mse": "mse",
    "mae": "mae",
    "huber": gp.losses.Huber(delta=0.4),
    "bce": "bce",
    "distillation": taught(),
}


def targets(name: str) -> np.ndarray:
    return LABELS if LOSSES[name] != "bce" and get_loss(LOSSES[name]).is_classification else VALUES


def network(last: str | None = None, **settings: Any) -> gp.Model:
    layers = [gp.Dense(8, activation="tanh"), gp.Dense(OUTPUTS, activation=last or "identity")]
    return gp.Model(layers, input_shape=6, seed=1, **settings)


def gradients(model: gp.Model) -> np.ndarray:
    return np.concatenate([g.ravel().astype(np.float64) for g in model.gradients.values()])


LASTS = {
    "mse": ["sigmoid"],
    "bce": ["sigmoid"],
    "cross_entropy": ["softmax"],
    "mae": [],
    "huber": [],
}


def cases() -> list[tuple[str, str | None]]:
    lasts = LASTS | {"smoothed": ["softmax"], "distillation": ["softmax"]}
    return [(name, last) for name in LOSSES for last in [None, *lasts[name]]]


@pytest.mark.parametrize(("name", "last"), cases())
def test_gradients_are_those_of_the_twin(name: str, last: str | None) -> None:
    model, loss = network(last), get_loss(LOSSES[name])
    value = model.backward(X, targets(name), loss=loss, sample_weight=WEIGHTS)
    w0, b0, w1, b1 = (p.astype(np.float64) for p in model.parameters.values())
    hidden = np.tanh(X @ w0.T + b0)
    z = hidden @ w1.T + b1
    fused = last is not None and last == loss.fuses
    outputs = reference.activation_forward(last, z) if last and not fused else z
    target: Any = targets(name)
    expected, dz = reference.loss_forward_backward(
        loss.row or loss.name,
        outputs,
        (target, LOGITS) if name == "distillation" else target,
        sample_weight=WEIGHTS,
        **loss.settings(),
    )
    if last and not fused:
        dz = reference.activation_backward(last, z, outputs, dz)
    dhidden = dz @ w1 * (1 - hidden**2)
    wanted = [dhidden.T @ X, dhidden.sum(0), dz.T @ hidden, dz.sum(0)]
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        gradients(model), np.concatenate([w.ravel() for w in wanted]), atol=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
def test_the_twins_gradient_is_that_of_its_loss(name: str) -> None:
    loss = get_loss(LOSSES[name])
    z = RNG.normal(size=(5, OUTPUTS))
    target: Any = targets(name)[:5]
    if name == "distillation":
        target = target, LOGITS[:5].astype(np.float64)

    def value(logits: np.ndarray) -> tuple[float, np.ndarray]:
        return reference.loss_forward_backward(
            loss.row or loss.name,
            logits,
            target,
            sample_weight=np.array([1.0, 0.0, 2.5, 0.3, 1.0]),
            **loss.settings(),
        )

    _, dz = value(z)
    for place in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-6
        slope = (value(z + step)[0] - value(z - step)[0]) / 2e-6
        assert dz[place] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_torch_agrees(torch: Any, name: str) -> None:
    model, functional = network(), torch.nn.functional
    value = model.backward(X, targets(name), loss=LOSSES[name], sample_weight=WEIGHTS)
    parameters = [torch.tensor(p, requires_grad=True) for p in model.parameters.values()]
    hidden = torch.tanh(torch.tensor(X) @ parameters[0].T + parameters[1])
    z = hidden @ parameters[2].T + parameters[3]
    y = torch.tensor(targets(name))
    if name in ("cross_entropy", "smoothed"):
        smoothing = 0.2 if name == "smoothed" else 0.0
        each = functional.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)
    elif name == "distillation":
        soft = functional.kl_div(
            *(
                functional.log_softmax(z / 2, -1),
                functional.log_softmax(torch.tensor(LOGITS) / 2, -1),
            ),
            reduction="none",
            log_target=True,
        )
        each = 0.3 * functional.cross_entropy(z, y, reduction="none") + 0.7 * 4 * soft.sum(-1)
    elif name == "huber":
        each = functional.huber_loss(z, y, reduction="none", delta=0.4).mean(-1)
    else:
        by_name = {
            "mse": functional.mse_loss,
            "mae": functional.l1_loss,
            "bce": functional.binary_cross_entropy_with_logits,
        }
        each = by_name[name](z, y, reduction="none").mean(-1)
    weights = torch.tensor(WEIGHTS)
    loss = (weights * each).sum() / weights.sum()
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    expected = np.concatenate([p.grad.numpy().ravel() for p in parameters])
    np.testing.assert_allclose(gradients(model), expected, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_of_two_is_the_sample_twice(name: str) -> None:
    heavy, repeated = network(), network()
    rows = np.repeat(np.arange(N), COUNTS)
    loss = taught(rows) if name == "distillation" else LOSSES[name]
    value = heavy.backward(X, targets(name), loss=LOSSES[name], sample_weight=COUNTS)
    expected = repeated.backward(X[rows], targets(name)[rows], loss=loss)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradients(heavy), gradients(repeated), atol=1e-6)
    asked: Any = {"per_class": get_loss(LOSSES[name]).is_classification}
    weighted: Any = heavy.evaluate(
        X, targets(name), loss=LOSSES[name], sample_weight=COUNTS, **asked
    )
    for key, number in repeated.evaluate(X[rows], targets(name)[rows], loss=loss, **asked).items():
        np.testing.assert_allclose(weighted[key], number, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weight", [1.0, 0.3, 1e-300, 7e100])
def test_weights_that_are_the_same_change_no_bit(name: str, weight: float) -> None:
    plain, weighted = network(), network()
    value = plain.backward(X, targets(name), loss=LOSSES[name])
    assert value == weighted.backward(
        X, targets(name), loss=LOSSES[name], sample_weight=np.full(N, weight)
    )
    np.testing.assert_array_equal(gradients(plain), gradients(weighted))


def test_a_sample_that_does_not_count_may_lose_anything() -> None:
    model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, seed=0)
    model.parameters["dense0.weight"][:] = 1
    x, y = [[1.0], [1e38]], [0.0, -3e38]
    assert model.backward(x, y, loss="mse", sample_weight=[1, 0]) == 1.0
    assert model.gradients["dense0.weight"].tolist() == [[2.0]]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_at_any_number_of_threads_and_in_one_call(threads: int) -> None:
    index = np.random.default_rng(3).integers(0, N, (6, 70))
    one, many = network(), network()
    first, second = gp.Adam(one), gp.Adam(many)
    losses = [
        one.train_step(X[rows], LABELS[rows], optimizer=first, sample_weight=WEIGHTS[rows])[0]
        for rows in index
    ]
    before = gp.get_num_threads()
    gp.set_num_threads(threads)
    try:
        taken, _ = many.train_steps(X, LABELS, index=index, optimizer=second, sample_weight=WEIGHTS)
    finally:
        gp.set_num_threads(before)
    assert taken.tolist() == losses
    for name, values in one.parameters.items():
        np.testing.assert_array_equal(values, many.parameters[name])


@pytest.mark.parametrize("quantized", [False, True])
def test_a_step_is_backward_and_step(quantized: bool) -> None:
    apart, together = network(), network()
    first, second = gp.Adam(apart), gp.Adam(together)
    if quantized:
        for model in (apart, together):
            gp.Quantizer(model, gp.Grid(4)).quantize()
    for _ in range(2):
        apart.backward(X, LABELS, sample_weight=WEIGHTS)
        first.step()
        together.train_step(X, LABELS, optimizer=second, sample_weight=WEIGHTS)
        for name, values in apart.parameters.items():
            np.testing.assert_array_equal(values, together.parameters[name])


def test_evaluate_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    model = network()
    found = model.evaluate(X, LABELS, sample_weight=WEIGHTS, per_class=True)
    predicted = model.predict(X).argmax(axis=1)
    precision, recall, _, _ = metrics.precision_recall_fscore_support(
        LABELS, predicted, sample_weight=WEIGHTS, zero_division=0
    )
    logits = model.predict(X).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["loss"] == pytest.approx(
        metrics.log_loss(LABELS, p, sample_weight=WEIGHTS), rel=1e-6
    )
    assert found["accuracy"] == pytest.approx(
        metrics.accuracy_score(LABELS, predicted, sample_weight=WEIGHTS), rel=1e-12
    )
    np.testing.assert_allclose(found["precision"], precision, rtol=1e-12)
    np.testing.assert_allclose(found["recall"], recall, rtol=1e-12)


def test_fit_takes_the_steps_that_weights_say() -> None:
    fitted, by_hand = network(), network()
    optimizers = [gp.SGD(model, lr=0.1) for model in (fitted, by_hand)]
    history = fitted.fit(
        *(X, LABELS),
        optimizer=optimizers[0],
        batch_size=40,
        shuffle=False,
        epochs=1,
        verbose=0,
        sample_weight=WEIGHTS,
    )
    losses, weights = [], []
    for start in range(0, N, 40):
        part = slice(start, start + 40)
        losses.append(
            by_hand.train_step(
                X[part], LABELS[part], optimizer=optimizers[1], sample_weight=WEIGHTS[part]
            )[0]
        )
        weights.append(WEIGHTS[part].sum())
    for name, values in fitted.parameters.items():
        np.testing.assert_array_equal(values, by_hand.parameters[name])
    assert history.steps["loss"].tolist() == losses
    np.testing.assert_allclose(history.steps["weight"], weights, rtol=1e-12)
    assert history["loss"][0] == pytest.approx(np.average(losses, weights=weights))
    steps = history.steps
    assert history["accuracy"][0] == steps["correct"].sum() / steps["weight"].sum()


BAD: list[tuple[Any, type[Exception], str]] = [
    (np.ones(N - 1), ValueError, r"must have shape \(150,\), a number for each sample, got \(149,"),
    (np.ones((N, 1)), ValueError, r"must have shape \(150,\)"),
    (-WEIGHTS, ValueError, r"weights must be finite and not negative"),
    (np.full(N, np.nan), ValueError, r"sample_weight\[0\] is nan"),
    (np.full(N, np.inf), ValueError, r"sample_weight\[0\] is inf"),
    (np.full(N, 1e300), ValueError, r"at most 1e\+200"),
    (["a"] * N, TypeError, "sample_weight must hold real numbers"),
    (np.zeros(N), ValueError, r"no sample of (the batch|x) counts"),
]


@pytest.mark.parametrize(("weights", "error", "message"), BAD)
def test_bad_weights_change_nothing(weights: Any, error: type[Exception], message: str) -> None:
    model = network()
    optimizer = gp.Adam(model)
    before = model.get_state()
    for call in (
        lambda: model.backward(X, LABELS, sample_weight=weights),
        lambda: model.train_step(X, LABELS, optimizer=optimizer, sample_weight=weights),
        lambda: model.train_steps(X, LABELS, optimizer=optimizer, sample_weight=weights),
        lambda: model.fit(X, LABELS, optimizer=optimizer, sample_weight=weights, verbose=0),
        lambda: model.evaluate(X, LABELS, sample_weight=weights),
    ):
        with pytest.raises(error, match=message):
            call()
    assert optimizer.step_count == model.forward_count == 0
    for name, values in model.get_state().items():
        np.testing.assert_array_equal(values, before[name])
