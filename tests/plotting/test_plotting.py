"""Plots: what is drawn is what was recorded, and nothing else of matplotlib changes."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import plotting
from gradprune.optim.optimizers import StepInfo, Taken
from gradprune.plotting import tradeoff
from gradprune.plotting.forms import plot_bars
from gradprune.training.history import History

mpl = pytest.importorskip("matplotlib")
Axes = pytest.importorskip("matplotlib.axes").Axes
Figure = pytest.importorskip("matplotlib.figure").Figure


class Run(NamedTuple):
    dense: History
    pruned: History
    before: dict[str, NDArray[np.float32]]
    model: gp.Model
    pruner: gp.Pruner


STEPS = 10  # an epoch


@pytest.fixture(scope="module")
def run() -> Run:
    (x, y), (x_test, y_test) = gp.datasets.digits()
    x, y = x[: 50 * STEPS], y[: 50 * STEPS]
    model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    optimizer = gp.SGD(model, lr=0.2, momentum=0.9, clip=gp.ClipNorm(0.7))
    settings = {"batch_size": 50, "validation_data": (x_test, y_test), "verbose": 0}
    dense = model.fit(x, y, optimizer=optimizer, epochs=3, **settings)
    before = {name: model.parameters[name].copy() for name in model.masks}
    schedule = gp.LinearSchedule(0.8, start=0, stop=20, every=5)
    pruner = gp.Pruner(model, criterion=gp.GradientDecomposition(), schedule=schedule)
    pruned = model.fit(x, y, optimizer=optimizer, epochs=4, pruner=pruner, **settings)
    return Run(dense, pruned, before, model, pruner)


def lines(axes: Axes) -> dict[str, NDArray[np.float64]]:
    """Label to (2, n) coordinates."""
    return {str(line.get_label()): np.array(line.get_data()) for line in axes.get_lines()}


def twin_of(axes: Axes) -> Axes:
    twins = [a for a in axes.figure.axes if a is not axes and a.bbox.bounds == axes.bbox.bounds]
    assert len(twins) == 1
    return twins[0]


def test_loss_is_that_of_the_epochs(run: Run) -> None:
    drawn = lines(plotting.plot_loss(run.dense))
    np.testing.assert_array_equal(drawn["training"], [[1, 2, 3], run.dense["loss"]])
    np.testing.assert_array_equal(drawn["validation"], [[1, 2, 3], run.dense["val_loss"]])
    assert "sparsity, pruning events" not in drawn


def test_histories_are_drawn_end_to_end(run: Run) -> None:
    axes = plotting.plot_loss([run.dense, run.pruned])
    at, values = lines(axes)["training"]
    assert at.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert values.tolist() == run.dense["loss"] + run.pruned["loss"]
    assert axes.get_xlim() == (0, 7)
    assert axes.get_yscale() == "log"


def test_sparsity_is_on_the_right(run: Run) -> None:
    axes = plotting.plot_accuracy([run.dense, run.pruned])
    steps, ticks = twin_of(axes).get_lines()
    # Events at steps 5, 10, 15 and 20 of the second history, which begins at epoch 3.
    assert np.asarray(ticks.get_xdata()).tolist() == [3.5, 4.0, 4.5, 5.0]
    at, percent = np.array(steps.get_data())
    assert at.tolist() == [0, 3, 3.5, 4.0, 4.5, 5.0, 7.0]
    np.testing.assert_allclose(percent, [0, 0, 20, 40, 60, 80, 80], atol=0.05)
    assert lines(axes)["training"][1].tolist() == [
        100 * value for value in run.dense["accuracy"] + run.pruned["accuracy"]
    ]


def test_clipped_steps_are_marked(run: Run) -> None:
    axes = plotting.plot_norms(run.dense, max_norm=0.7)
    clipped = run.dense.steps["clipped"]
    assert 0 < clipped.sum() < len(clipped)
    drawn = lines(axes)
    marked = next(data for label, data in drawn.items() if label.startswith("clipped"))
    at = np.arange(1, 3 * STEPS + 1) / STEPS
    np.testing.assert_allclose(marked, [at[clipped], run.dense.steps["norm"][clipped]])
    np.testing.assert_allclose(drawn["steps"], [at[~clipped], run.dense.steps["norm"][~clipped]])
    assert drawn["limit 0.7"][1].tolist() == [0.7, 0.7]
    share = 100 * clipped.mean()
    assert f"clipped steps ({share:#.3g} %)" in drawn


def test_steps_left_out_are_marked() -> None:
    history = History()
    for step in range(6):
        fine = step != 2
        norm = 1.0 if fine else np.nan
        history.add_steps(Taken.one((0.5, 1.0, 2.0), StepInfo(norm, 1.0, False, fine, 0.1)), [2])
    drawn = lines(plotting.plot_norms(history))
    assert drawn["left out (1)"][0].tolist() == [0.5]
    assert drawn["steps"].shape == (2, 5)


def test_an_interrupted_epoch_is_shorter(run: Run) -> None:
    history = History()
    for _ in range(7):
        history.add_steps(Taken.one((0.5, 1.0, 2.0), StepInfo(1.0, 1.0, False, True, 0.1)), [2])
    history.add_epoch({"epoch": 1, "steps": 4, "loss": 0.5})
    at = lines(plotting.plot_norms(history))["steps"][0]
    assert at.tolist() == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def test_history_has_three_panels(run: Run) -> None:
    figure = plotting.plot_history([run.dense, run.pruned])
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["loss", "accuracy (%)", "gradient norm", "sparsity (%)"]


def test_regression_has_no_accuracy() -> None:
    model = gp.Model([gp.Dense(1)], input_shape=1, seed=0)
    x = np.linspace(-1, 1, 20)[:, np.newaxis]
    history = model.fit(x, 2 * x, optimizer=gp.SGD(model, lr=0.1), loss="mse", verbose=0)
    figure = plotting.plot_history(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "gradient norm"]
    with pytest.raises(ValueError, match="no accuracy"):
        plotting.plot_accuracy(history)


def test_weights_are_counted_and_zeros_stand_apart(run: Run) -> None:
    figure = plotting.plot_weights(run.before, run.model, bins=10)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(run.model.masks)
    for axes, (name, mask) in zip(figure.axes, run.model.masks.items(), strict=True):
        grey = [p for p in axes.patches if p.get_label() != "after" and hasattr(p, "get_height")]
        assert sum(p.get_height() for p in grey) == run.before[name].size
        bar = axes.child_axes[0]
        kept, removed = (patch.get_height() for patch in bar.patches)
        assert kept == pytest.approx(mask.mean())
        assert removed == pytest.approx(1 - mask.mean())
        texts = [text.get_text() for text in bar.texts]
        assert texts[0] == f"{100 * mask.mean():#.3g} %\nkept"


def test_weights_of_a_dict_are_removed_where_zero() -> None:
    before = {"a": np.full((2, 4), 0.5, np.float32), "b": np.ones(3, np.float32)}
    after = {"a": before["a"].copy(), "b": before["b"]}
    after["a"][0] = 0
    figure = plotting.plot_weights(before, after)
    assert len(figure.axes) == 1  # a bias is no weight matrix
    assert [text.get_text() for text in figure.axes[0].child_axes[0].texts] == [
        "50.0 %\nkept",
        "50.0 %\nremoved",
    ]


def test_weights_must_fit(run: Run) -> None:
    with pytest.raises(ValueError, match="no weights are in both"):
        plotting.plot_weights({"x": np.ones((2, 2), np.float32)}, run.model)
    with pytest.raises(ValueError, match=r"dense0\.weight must have one shape"):
        plotting.plot_weights({"dense0.weight": np.ones((2, 2), np.float32)}, run.model)


def test_sparsity_bars_are_labelled_with_counts(run: Run) -> None:
    axes = plotting.plot_sparsity(run.model)
    masks = run.model.masks
    kept = [int(mask.sum()) for mask in masks.values()]
    sizes = [mask.size for mask in masks.values()]
    texts = [text.get_text().split(" (")[0] for text in axes.texts]
    assert texts == [
        *(f"{k:,} of {n:,}" for k, n in zip(kept, sizes, strict=True)),
        f"{sum(kept):,} of {sum(sizes):,}",
    ]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [*masks, "all"]
    widths = [patch.get_width() for patch in axes.patches]
    assert widths[: len(texts)] == [100] * len(texts)
    shares = [100 * k / n for k, n in zip(kept, sizes, strict=True)]
    assert widths[len(texts) : -1] == pytest.approx(shares)


def test_decomposition_draws_live_weights(run: Run) -> None:
    (x, y), _ = gp.datasets.digits()
    figure = plotting.plot_decomposition(run.pruner, data=(x[:300], y[:300]), batch_size=50)
    left, middle, right = figure.axes[:3]
    assert right.get_title(loc="left") == "Signal to noise, 6 batches"
    assert lines(right)["pure noise: 1/5"][0].tolist() == [0.2, 0.2]
    parts = run.pruner.decomposition(data=(x[:300], y[:300]), batch_size=50)
    live = np.concatenate([parts[name].signal[run.model.masks[name]] for name in parts])
    counted = sum(p.get_height() for p in left.patches if hasattr(p, "get_height"))
    assert 0.98 * np.count_nonzero(live) <= counted <= np.count_nonzero(live)
    assert middle.get_xscale() == middle.get_yscale() == "log"


def test_decomposition_needs_gradients() -> None:
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    pruner = gp.Pruner(model, criterion=gp.Magnitude())
    with pytest.raises(ValueError, match="gradients"):
        plotting.plot_decomposition(pruner)
    x, y = np.ones((4, 3)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="at least 2 batches, got 1"):
        plotting.plot_decomposition(pruner, data=(x, y))


def test_overview_is_a_picture(run: Run, tmp_path: object) -> None:
    figure = plotting.overview(
        [run.dense, run.pruned], run.before, run.model, max_norm=0.7, title="all"
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == [
        "Training",
        "Gradient norm, before clipping",
        "Weights of all layers",
        "Weights kept",
    ]
    path = f"{tmp_path}/overview.png"
    figure.savefig(path)
    with open(path, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_draws_into_axes_of_others(run: Run) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    assert plotting.plot_loss(run.dense, ax=axes) is axes
    assert plotting.plot_sparsity(run.model, ax=figure.add_subplot()).figure is figure
    left, right = Figure().subfigures(1, 2)
    assert plotting.plot_history(run.dense, figure=left) is left.figure
    assert len(left.axes) == 3
    assert right.axes == []


def test_nothing_of_matplotlib_changes(run: Run) -> None:
    settings = dict(mpl.rcParams)
    plotting.plot_history(run.dense)
    assert dict(mpl.rcParams) == settings
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_empty_history_is_refused() -> None:
    for plot in (plotting.plot_history, plotting.plot_loss, plotting.plot_norms):
        with pytest.raises(ValueError, match="history is empty"):
            plot(History())


def test_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "gradprune\[plot\]"'):
        plotting.plot_history(run.dense)


def test_events_are_marked() -> None:
    history = History()
    for step in range(8):
        history.add_steps(Taken.one((0.5, 1.0, 2.0), StepInfo(1.0, 1.0, False, True, 0.1)), [2])
        if step in {1, 3}:
            history.add_event("explosion", 9.0, 9.0)
        if step == 5:
            history.add_event("rollback", np.nan)
    history.add_epoch({"epoch": 1, "steps": 8, "loss": 0.5})
    drawn = lines(plotting.plot_norms([history, history]))
    assert drawn["explosion (4)"][0].tolist() == [0.25, 0.5, 1.25, 1.5]
    assert drawn["rollback (2)"][0].tolist() == [0.75, 1.75]
    assert "prune jump (0)" not in drawn


def test_a_long_legend_is_no_wider_than_the_axes() -> None:
    history = History()
    for step in range(600):
        history.add_steps(
            Taken.one((0.5, 1.0, 2.0), StepInfo(1.0, 1.0, step % 2 == 0, True, 0.1)), [2]
        )
        if step in {100, 200}:
            history.add_event("explosion" if step == 100 else "prune jump", 9.0, 9.0)
    history.add_epoch({"epoch": 1, "steps": 600, "loss": 0.5})
    axes = plotting.plot_norms(history, max_norm=1.0)
    legend = axes.get_legend()
    axes.figure.draw_without_rendering()
    assert legend is not None
    assert len(legend.get_texts()) == 6
    assert legend.get_window_extent().width <= axes.get_window_extent().width


@pytest.mark.parametrize("count", [1, 4, 30])
def test_bars_are_as_wide_in_every_picture(count: int) -> None:
    names = [f"form {i}" for i in range(count)]
    axes = plot_bars(dict.fromkeys(names, 2.0), ["2"] * count, title="sizes", ax=None)
    figure = axes.figure
    assert isinstance(figure, Figure)
    assert figure.get_size_inches().tolist() == pytest.approx([7.0, 0.8 + 0.35 * count])
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    assert [bar.get_width() for bar in axes.patches] == [2.0] * count


def test_one_trial_has_no_spread() -> None:
    """With one seed the band has no width; with more it is that of a sample's deviation."""
    one, three = ({0.5: [(0.4, y) for y in values]} for values in ([0.8], [0.7, 0.8, 0.9]))
    assert [part.tolist() for part in tradeoff._points(one)] == [[0.4], [0.8], [0.0]]
    at, mean, spread = tradeoff._points(three)
    np.testing.assert_allclose([at[0], mean[0], spread[0]], [0.4, 0.8, 0.1])
