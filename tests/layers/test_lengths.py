"""Sequences of several lengths, padded behind: against torch, and against each sample alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp

Floats = NDArray[np.float32]
Network = Callable[[int], gp.Model]  # of sequences of so many steps

N, STEPS, FEATURES = 9, 6, 3
LENGTHS = np.array([6, 1, 4, 2, 6, 3, 5, 1, 4])


def stack(*layers: Callable[[], gp.layers.Layer]) -> Network:
    return lambda steps: gp.Model([make() for make in layers], (steps, FEATURES), seed=3)


def branches(steps: int) -> gp.Model:
    x = gp.Input((steps, FEATURES))
    there = gp.GRU(4, return_sequences=True)(x)
    both = gp.Concat()([there, gp.Dense(4, activation="relu")(x)])
    return gp.Model(x, gp.LSTM(3)(gp.Dense(4)(both) + there), seed=2)


def sums(steps: int) -> gp.Model:
    """Both ends of a sequence, of states that go both ways, turned and cut."""
    x = gp.Input((steps, FEATURES))
    both = gp.layers.Bidirectional(gp.LSTM(3, return_sequences=True))(x)
    turned = gp.layers.Reverse()(gp.layers.Slice(1, 5)(both))
    ends = gp.Concat()([gp.GlobalAvgPool()(turned), gp.layers.GlobalMaxPool()(both)])
    return gp.Model(x, gp.Dense(2)(ends), seed=4)


# Networks that end in a number of each sample, and in one of each step.
LAST: dict[str, Network] = {
    "rnn": stack(lambda: gp.RNN(4), lambda: gp.Dense(2)),
    "relu": stack(lambda: gp.RNN(4, activation="relu"), lambda: gp.Dense(2)),
    "lstm": stack(lambda: gp.LSTM(5, truncation=2), lambda: gp.Dense(2)),
    "gru": stack(lambda: gp.GRU(12, bias=False), lambda: gp.Dense(2)),
    "deep": stack(
        lambda: gp.Dense(4, activation="tanh"),
        gp.LayerNorm,
        lambda: gp.LSTM(4, return_sequences=True),
        lambda: gp.GRU(3, return_sequences=True),
        lambda: gp.Activation("relu"),
        lambda: gp.RNN(2),
    ),
    "branches": branches,
    "both ways": stack(lambda: gp.layers.Bidirectional(gp.GRU(4)), lambda: gp.Dense(2)),
    "sums": sums,
    "largest": stack(gp.layers.GlobalMaxPool),
    "mean": stack(gp.GlobalAvgPool, lambda: gp.Dense(2)),
    "convolution": stack(
        lambda: gp.Conv1D(4, 3, padding="causal", activation="relu"),
        lambda: gp.Conv1D(5, 1),
        gp.layers.GlobalMaxPool,
    ),
    "convolution and mean": stack(
        lambda: gp.Conv1D(4, 2, dilation=2, padding="causal", bias=False), gp.GlobalAvgPool
    ),
}
EACH: dict[str, Network] = {
    "states": stack(lambda: gp.GRU(2, return_sequences=True)),
    "dense": stack(lambda: gp.LSTM(4, return_sequences=True), lambda: gp.Dense(2)),
    "states both ways": stack(
        lambda: gp.layers.Bidirectional(gp.RNN(3, return_sequences=True)),
        lambda: gp.layers.Bidirectional(gp.GRU(2, return_sequences=True)),
    ),
    "turned": stack(gp.layers.Reverse, lambda: gp.Conv1D(2, 3, padding="causal")),
    "plain": stack(lambda: gp.Dense(2, activation="sigmoid")),
}
ALL = LAST | EACH


def samples(model: gp.Model, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, *model.input_shape)).astype(np.float32)
    y = rng.uniform(0.1, 0.9, size=(N, *model.output_shape)).astype(np.float32)
    return x, y


def alone(network: Network, model: gp.Model, steps: int) -> gp.Model:
    """The network with the same parameters, of sequences of so many steps."""
    other = network(steps)
    for name, values in model.parameters.items():
        other.parameters[name][...] = values
    return other


def copied(model: gp.Model) -> dict[str, Floats]:
    return {name: values.copy() for name, values in model.gradients.items()}


@pytest.mark.parametrize("kind", ALL)
def test_a_sample_is_what_it_is_alone(kind: str) -> None:
    network = ALL[kind]
    model = network(STEPS)
    x, _ = samples(model)
    outputs = model.predict(x, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        [expected] = alone(network, model, length).predict(x[row : row + 1, :length])
        found = outputs[row]
        if kind in EACH:
            assert not found[length:].any()
            found = found[:length]
        assert np.allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ALL)
def test_frozen_models_take_lengths(kind: str) -> None:
    model = ALL[kind](STEPS)
    x, _ = samples(model)
    x, lengths = np.tile(x, (8, 1, 1)), np.tile(LENGTHS, 8)
    frozen = model.freeze()
    for n in (1, 2, N, len(x)):  # rows, and lanes
        expected = model.predict(x[:n], lengths=lengths[:n])
        found = frozen.predict(x[:n], lengths=lengths[:n])
        assert np.allclose(found, expected, rtol=0, atol=2e-6)
        other = x[:n].copy()
        for row, length in enumerate(lengths[:n]):
            other[row, length:] = 1e30
        assert frozen.predict(other, lengths=lengths[:n]).tobytes() == found.tobytes()
    assert frozen.predict(x[:0], lengths=lengths[:0]).shape == (0, *model.output_shape)
    with pytest.raises(ValueError, match=r"lengths\[0\] is 7"):
        frozen.predict(x[:1], lengths=[7])
    with pytest.raises(ValueError, match=r"x\[0"):
        frozen.predict(np.full((1, STEPS, FEATURES), np.nan), lengths=[2])


@pytest.mark.parametrize("loss", ["mse", "bce", "mae", "huber"])
@pytest.mark.parametrize("kind", ALL)
def test_a_loss_is_the_mean_over_what_counts(kind: str, loss: str) -> None:
    network = ALL[kind]
    model = network(STEPS)
    x, y = samples(model, 1)
    weights = np.linspace(0.5, 2.0, N)
    counts = weights * (LENGTHS if kind in EACH else 1)
    total, gradients = 0.0, {name: np.zeros(g.shape) for name, g in model.gradients.items()}
    for row, length in enumerate(LENGTHS):
        single = alone(network, model, length)
        target = y[row : row + 1, :length] if kind in EACH else y[row : row + 1]
        total += counts[row] * single.backward(x[row : row + 1, :length], target, loss=loss)
        for name, gradient in single.gradients.items():
            gradients[name] += counts[row] * gradient
    value = model.backward(x, y, loss=loss, lengths=LENGTHS, sample_weight=weights)
    assert value == pytest.approx(total / counts.sum(), rel=1e-5)
    for name, gradient in model.gradients.items():
        expected = gradients[name] / counts.sum()
        assert np.allclose(gradient, expected, rtol=0, atol=1e-6), name


@pytest.mark.parametrize("kind", ALL)
def test_padding_changes_no_bit(kind: str) -> None:
    model = ALL[kind](STEPS)
    x, y = samples(model, 2)
    other = x.copy()
    for row, length in enumerate(LENGTHS):
        other[row, length:] = 1e38 * (-1) ** row
    value = model.backward(x, y, loss="mse", lengths=LENGTHS)
    gradients, outputs = copied(model), model.predict(x, lengths=LENGTHS)
    assert model.backward(other, y, loss="mse", lengths=LENGTHS) == value
    assert outputs.tobytes() == model.predict(other, lengths=LENGTHS).tobytes()
    for name, gradient in model.gradients.items():
        assert gradient.tobytes() == gradients[name].tobytes(), name


@pytest.mark.parametrize("kind", ALL)
def test_whole_sequences_have_gradients_as_without_lengths(kind: str) -> None:
    model = ALL[kind](STEPS)
    x, y = samples(model, 3)
    value = model.backward(x, y, loss="mse")
    gradients, outputs = copied(model), model.predict(x)
    whole = [STEPS] * N
    assert model.backward(x, y, loss="mse", lengths=whole) == pytest.approx(value, rel=1e-6)
    assert model.predict(x, lengths=whole).tobytes() == outputs.tobytes()
    for name, gradient in model.gradients.items():
        assert np.array_equal(gradient, gradients[name]), name


@pytest.mark.parametrize("kind", ["lstm", "dense", "deep"])
def test_steps_have_the_same_bits_one_by_one_and_many_in_a_call(kind: str) -> None:
    one, many, threads = ALL[kind](STEPS), ALL[kind](STEPS), ALL[kind](STEPS)
    x, y = (np.tile(values, (20, *(1 for _ in values.shape[1:]))) for values in samples(one, 4))
    lengths = np.tile(LENGTHS, 20)
    index = np.random.default_rng(0).integers(0, len(x), (3, 70))
    optimizer = gp.Adam(one, lr=0.01)
    losses = [
        one.train_step(x[i], y[i], optimizer=optimizer, loss="mse", lengths=lengths[i])[0]
        for i in index
    ]
    before = gp.get_num_threads()
    for model, number in ((many, before), (threads, 1)):
        gp.set_num_threads(number)
        found, _ = model.train_steps(
            x, y, index=index, optimizer=gp.Adam(model, lr=0.01), loss="mse", lengths=lengths
        )
        assert found.tolist() == losses
        for name, values in model.parameters.items():
            assert values.tobytes() == one.parameters[name].tobytes(), name
    gp.set_num_threads(before)


def test_accumulated_passes_are_those_of_one_batch() -> None:
    model = EACH["dense"](STEPS)
    x, y = samples(model, 5)
    value = model.backward(x, y, loss="mse", lengths=LENGTHS)
    gradients = copied(model)
    gp.SGD(model, lr=0.0).step()
    model.backward(x[:3], y[:3], lengths=LENGTHS[:3])
    joined = model.backward(x[3:], y[3:], lengths=LENGTHS[3:], accumulate=True)
    assert joined == pytest.approx(value, rel=1e-6)
    for name, gradient in model.gradients.items():
        assert np.allclose(gradient, gradients[name], rtol=0, atol=1e-6), name


def test_many_samples_pass_in_blocks() -> None:
    model = EACH["dense"](STEPS)
    x, y = (np.tile(values, (130, 1, 1)) for values in samples(model, 6))
    lengths = np.tile(LENGTHS, 130)  # 1170: more than a block
    value = model.backward(x, y, loss="mse", lengths=lengths)
    gradients = copied(model)
    assert value == pytest.approx(model.backward(x[:N], y[:N], lengths=LENGTHS), rel=1e-6)
    for name, gradient in model.gradients.items():
        assert np.allclose(gradient, gradients[name], rtol=0, atol=1e-6), name


def test_sparse_layers_leave_padding_out() -> None:
    network = ALL["deep"]
    model = network(STEPS)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.8)
    x, _ = samples(model, 7)
    outputs = model.predict(x, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        single = alone(network, model, length)
        for name, mask in model.masks.items():
            single.set_mask(name, mask)
        assert np.allclose(outputs[row], single.predict(x[row : row + 1, :length])[0], atol=2e-6)


def test_an_embedding_reads_padded_indexes() -> None:
    layers = [gp.Embedding(10, 4), gp.LSTM(3), gp.Dense(2)]
    model = gp.Model(layers, STEPS, seed=0)
    x = np.random.default_rng(0).integers(1, 10, (N, STEPS))
    padded = np.where(np.arange(STEPS) < LENGTHS[:, np.newaxis], x, 0)
    assert np.array_equal(model.predict(x, lengths=LENGTHS), model.predict(padded, lengths=LENGTHS))
    model.backward(x, np.zeros((N, 2)), loss="mse", lengths=LENGTHS)
    assert not model.gradients["embedding0.weight"][0].any()


def test_a_loss_function_gets_the_lengths() -> None:
    def squares(outputs: Floats, targets: Floats, lengths: Any = None) -> tuple[float, Floats]:
        counts = np.arange(STEPS) < lengths[:, np.newaxis]
        error = (outputs - targets) * counts[..., np.newaxis]
        size = counts.sum() * outputs.shape[-1]
        return float(np.square(error).sum() / size), 2 * error / size

    def plain(outputs: Floats, targets: Floats) -> tuple[float, Floats]:
        error = outputs - targets
        return float(np.square(error).mean()), 2 * error / error.size

    for kind, loss in (("dense", squares), ("lstm", plain)):
        model = ALL[kind](STEPS)
        x, y = samples(model, 8)
        value = model.backward(x, y, loss="mse", lengths=LENGTHS)
        gradients = copied(model)
        assert model.backward(x, y, loss=loss, lengths=LENGTHS) == pytest.approx(value, rel=1e-5)
        for name, gradient in model.gradients.items():
            assert np.allclose(gradient, gradients[name], rtol=0, atol=1e-6), name
    model = EACH["dense"](STEPS)
    with pytest.raises(TypeError, match="give it an argument lengths"):
        model.backward(x, samples(model)[1], loss=plain, lengths=LENGTHS)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_last_state_is_that_of_packed_sequences(kind: str, torch: Any) -> None:
    model = gp.Model([getattr(gp, kind)(5), gp.Dense(2)], (STEPS, FEATURES), seed=0)
    module = model.to_torch()
    recurrent = next(m for m in module.modules() if isinstance(m, getattr(torch.nn, kind)))
    dense = next(m for m in module.modules() if isinstance(m, torch.nn.Linear))
    x, y = samples(model, 9)
    series = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        series, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    _, state = recurrent(packed)
    outputs = dense((state[0] if kind == "LSTM" else state)[-1])
    loss = torch.nn.functional.mse_loss(outputs, torch.tensor(y))
    loss.backward()
    assert np.allclose(model.predict(x, lengths=LENGTHS), outputs.detach().numpy(), atol=1e-5)
    value = model.backward(x, y, loss="mse", lengths=LENGTHS)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    name = kind.lower()
    for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        expected = getattr(recurrent, f"{role}_l0").grad.numpy()
        assert np.allclose(model.gradients[f"{name}0.{role}"], expected, atol=1e-5), role


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        ([6, 1], ValueError, r"lengths must have shape \(9,\), a number of steps for each sample"),
        ([[6]] * N, ValueError, r"lengths must have shape \(9,\).* got \(9, 1\)"),
        ([6] * 8 + [0], ValueError, r"lengths\[8\] is 0: a sample has 1 to 6 steps"),
        ([-1] + [6] * 8, ValueError, r"lengths\[0\] is -1: a sample has 1 to 6 steps"),
        ([7] * N, ValueError, r"lengths\[0\] is 7: a sample has 1 to 6 steps"),
        ([6.0] * N, TypeError, "lengths must be integers, numbers of steps, got dtype float64"),
        (["6"] * N, TypeError, "lengths must be integers, numbers of steps, got dtype <U1"),
        ([True] * N, TypeError, "lengths must be integers"),
        (6, ValueError, r"lengths must have shape \(9,\)"),
    ],
)
def test_bad_lengths_are_refused(lengths: Any, error: type[Exception], words: str) -> None:
    model = LAST["lstm"](STEPS)
    x, y = samples(model)
    optimizer = gp.SGD(model, lr=0.1)
    before = model.get_state()
    for call in (
        lambda: model.predict(x, lengths=lengths),
        lambda: model.backward(x, y, loss="mse", lengths=lengths),
        lambda: model.train_step(x, y, optimizer=optimizer, loss="mse", lengths=lengths),
        lambda: model.train_steps(x, y, optimizer=optimizer, loss="mse", lengths=lengths),
    ):
        with pytest.raises(error, match=words):
            call()
    for name, values in model.get_state().items():
        assert np.array_equal(values, before[name])


def test_models_without_time_refuse_lengths() -> None:
    for layers, shape in (
        ([gp.Dense(2)], 4),
        ([gp.Conv2D(2, 3), gp.Flatten(), gp.Dense(2)], (1, 6, 6)),
    ):
        model = gp.Model(layers, shape)
        with pytest.raises(ValueError, match="lengths are of sequences, samples of shape"):
            model.predict(np.zeros((1, *model.input_shape)), lengths=[1])


@pytest.mark.parametrize(
    "layer",
    [
        gp.Conv1D(3, 3),
        gp.layers.MaxPool1D(2),
        gp.layers.AvgPool1D(2),
        gp.BatchNorm(),
        gp.Flatten(),
        gp.layers.Reshape((FEATURES, STEPS)),
        gp.layers.Permute(),
    ],
)
def test_layers_that_would_read_padding_refuse_lengths(layer: gp.layers.Layer) -> None:
    model = gp.Model([layer, gp.Flatten(), gp.Dense(2)], (STEPS, FEATURES))
    name = type(layer).__name__.lower()
    with pytest.raises(ValueError, match=f"^{name}0 takes no lengths: "):
        model.predict(np.zeros((1, STEPS, FEATURES)), lengths=[2])


def test_a_sequence_that_is_not_the_inputs_has_no_lengths() -> None:
    layers = [gp.GRU(STEPS * 2), gp.layers.Reshape((STEPS, 2)), gp.GRU(3)]
    model = gp.Model(layers, (STEPS, FEATURES))
    with pytest.raises(ValueError, match="gru1 does not read the steps of the input"):
        model.predict(np.zeros((1, STEPS, FEATURES)), lengths=[2])


@pytest.mark.parametrize("kind", ["both ways", "states both ways"])
def test_directions_are_those_of_packed_sequences(kind: str, torch: Any) -> None:
    rnn = torch.nn.utils.rnn
    sequences = kind == "states both ways"
    layer = gp.layers.Bidirectional(gp.LSTM(4, return_sequences=sequences))
    model = gp.Model([layer], (STEPS, FEATURES), seed=0)
    lstm = torch.nn.LSTM(FEATURES, 4, batch_first=True, bidirectional=True)
    roles = [
        (f"{role}_l0{end}", f"bidirectional0/{way}.{role}")
        for end, way in (("", "forward"), ("_reverse", "backward"))
        for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    with torch.no_grad():
        for name, own in roles:
            getattr(lstm, name).copy_(torch.tensor(model.parameters[own]))
    x, y = samples(model, 10)
    packed = rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    outputs, (state, _) = lstm(packed)
    if sequences:
        outputs, _ = rnn.pad_packed_sequence(outputs, batch_first=True, total_length=STEPS)
        counts = torch.tensor(np.arange(STEPS) < LENGTHS[:, np.newaxis])
        loss = torch.nn.functional.mse_loss(outputs[counts], torch.tensor(y)[counts])
    else:
        outputs = torch.cat((state[0], state[1]), dim=1)
        loss = torch.nn.functional.mse_loss(outputs, torch.tensor(y))
    loss.backward()
    assert np.allclose(model.predict(x, lengths=LENGTHS), outputs.detach().numpy(), atol=1e-5)
    assert model.backward(x, y, loss="mse", lengths=LENGTHS) == pytest.approx(loss.item(), rel=1e-5)
    for name, own in roles:
        assert np.allclose(model.gradients[own], getattr(lstm, name).grad.numpy(), atol=1e-5), own


def trained(model: gp.Model, x: Floats, y: Floats, **settings: Any) -> gp.History:
    optimizer = gp.Adam(model, lr=0.01)
    return model.fit(x, y, optimizer=optimizer, loss="mse", verbose=0, **settings)


def test_fit_takes_lengths_as_steps_do() -> None:
    one, other = EACH["dense"](STEPS), EACH["dense"](STEPS)
    x, y = samples(one, 11)
    history = trained(
        *(one, x, y),
        lengths=LENGTHS,
        batch_size=4,
        epochs=2,
        shuffle=False,
        validation_data=(x, y, None, LENGTHS),
    )
    optimizer = gp.Adam(other, lr=0.01)
    for _ in range(2):
        for start in (0, 4, 8):
            rows = slice(start, start + 4)
            other.train_step(
                x[rows], y[rows], optimizer=optimizer, loss="mse", lengths=LENGTHS[rows]
            )
    for name, values in one.parameters.items():
        assert values.tobytes() == other.parameters[name].tobytes(), name
    assert history["val_loss"][-1] == other.evaluate(x, y, lengths=LENGTHS)["loss"]
    assert other.evaluate(x, y, lengths=LENGTHS)["loss"] != other.evaluate(x, y)["loss"]


def test_parts_of_fit_keep_their_lengths() -> None:
    one, other, together = (EACH["dense"](STEPS) for _ in range(3))
    x, y = samples(one, 12)
    padded = x.copy()
    for row, length in enumerate(LENGTHS):
        padded[row, length:] = 1e20
    settings: dict[str, Any] = {"lengths": LENGTHS, "validation_split": 0.3, "batch_size": 2}
    first, second = trained(one, x, y, **settings), trained(other, padded, y, **settings)
    assert first["val_loss"] == second["val_loss"]
    history = trained(together, x, y, **settings, accumulate=2)
    assert history["val_loss"] != first["val_loss"]


def test_labels_of_sequences_are_counted() -> None:
    model = gp.Model([gp.LSTM(4), gp.Dense(3)], (STEPS, FEATURES), seed=0)
    x, _ = samples(model, 13)
    y = np.arange(N) % 3
    weights = {0: 2.0, 1: 1.0, 2: 0.5}
    optimizer = gp.Adam(model, lr=0.05)
    model.fit(
        x, y, optimizer=optimizer, lengths=LENGTHS, epochs=60, class_weight=weights, verbose=0
    )
    measured = model.evaluate(x, y, lengths=LENGTHS)
    predicted = model.predict(x, lengths=LENGTHS).argmax(axis=1)
    assert measured["accuracy"] == pytest.approx(float((predicted == y).mean()))
    assert measured["accuracy"] == 1


def test_statistics_are_those_of_the_steps_that_count() -> None:
    def network(steps: int) -> gp.Model:
        return gp.Model([gp.Standardize(), gp.GRU(2), gp.Dense(1)], (steps, FEATURES), seed=0)

    model, other = network(STEPS), network(STEPS)
    x, _ = samples(model, 14)
    y = np.zeros((N, 1), np.float32)
    counted = np.concatenate([x[row, :length] for row, length in enumerate(LENGTHS)])
    trained(model, x, y, lengths=LENGTHS)
    other.adapt(x, lengths=LENGTHS, sample_weight=np.full(N, 2.0))
    for adapted in (model, other):
        mean, scale = (adapted.buffers[f"standardize0.{role}"] for role in ("mean", "scale"))
        assert np.allclose(mean, counted.mean(axis=0), atol=1e-6)
        assert np.allclose(scale, counted.std(axis=0), atol=1e-6)


def test_what_asks_for_samples_of_its_own_refuses_lengths() -> None:
    model = gp.Model([gp.LSTM(4), gp.Dense(3)], (STEPS, FEATURES), seed=0)
    x, _ = samples(model, 15)
    y = np.arange(N) % 3
    optimizer = gp.Adam(model)
    distillation = gp.losses.Distillation(model.freeze())
    with pytest.raises(TypeError, match="asks its teacher without lengths"):
        model.fit(x, y, optimizer=optimizer, loss=distillation, lengths=LENGTHS, verbose=0)
    answers = model.freeze().predict(x, lengths=LENGTHS)
    model.backward(x, y, loss=gp.losses.Distillation(logits=answers), lengths=LENGTHS)
    pruner = gp.Pruner(
        model, criterion=gp.pruning.Wanda(), schedule=gp.Cubic(0.5, start=0, stop=1, every=1)
    )
    with pytest.raises(ValueError, match=r"Wanda would try weights out on .* without their"):
        model.fit(x, y, optimizer=optimizer, pruner=pruner, lengths=LENGTHS, verbose=0)
    with pytest.raises(TypeError, match="sample_weight, lengths"):
        model.fit(x, y, optimizer=optimizer, validation_data=(x, y, None, LENGTHS, 1), verbose=0)
    with pytest.raises(ValueError, match="lengths of validation_data must have shape"):
        model.fit(x, y, optimizer=optimizer, validation_data=(x, y, None, [1]), verbose=0)


@pytest.mark.parametrize("kind", ["plain", "lstm"])
def test_accuracy_and_metrics_are_of_the_steps_that_count(kind: str) -> None:
    def share(targets: Floats, outputs: Floats, sample_weight: Any = None) -> float:
        assert len(targets) == len(outputs) == len(sample_weight)
        right = (targets > 0.5) == (outputs > (0.5 if kind == "plain" else 0))
        return float(np.average(right.mean(axis=1), weights=sample_weight))

    model = ALL[kind](STEPS)
    x, y = samples(model, 16)
    weights = np.linspace(0.5, 2.0, N)
    settings: dict[str, Any] = {"metrics": [share], "sample_weight": weights, "lengths": LENGTHS}
    found = model.evaluate(x, y, loss="bce", **settings)
    assert found["share"] == pytest.approx(found["accuracy"], rel=1e-6)
    history = model.fit(
        *(x, y),
        optimizer=gp.SGD(model, lr=0.0),
        loss="bce",
        validation_data=(x, y, weights, LENGTHS),
        verbose=0,
        **settings,
    )
    for name in ("share", "val_share", "accuracy", "val_accuracy"):
        assert history[name][-1] == pytest.approx(found["share"], rel=1e-6)
