"""Every picture, in words, as it was last agreed on (seen alike with matplotlib 3.8 to 3.11).

What is drawn is made up here, so that nothing depends on how a model was trained. What has changed
on purpose is written down by

    GRADPRUNE_WRITE_PICTURES=1 python -m pytest tests/plotting/test_pictures.py
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import plotting
from gradprune.analysis.diagnosis import Diagnosis, LayerDiagnosis, ParameterDiagnosis
from gradprune.analysis.reports import Report
from gradprune.analysis.sensitivity import Sensitivity
from gradprune.optim.optimizers import StepInfo, Taken
from gradprune.plotting import history as history_module
from gradprune.sweeps.records import Records
from gradprune.sweeps.sweep import SweepResult
from gradprune.training.history import History

pytest.importorskip("matplotlib")
import drawn

AGREED = Path(__file__).with_name("pictures")


def values(count: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Numbers between 0 and 1."""
    return np.random.default_rng(seed).random(count)


def trained(
    epochs: int,
    steps: int,
    *,
    sparsity: dict[int, float] | None = None,
    accuracy: bool = True,
    rest: int = 0,
    events: bool = False,
) -> History:
    """A history of epochs of so many steps, and the rest of steps of one interrupted."""
    found = History()
    norms = 0.2 + values(epochs * steps + rest, seed=steps)
    for step, norm in enumerate(norms):
        if step in (sparsity or {}):
            found.add_sparsity((sparsity or {})[step])
        is_left_out = events and step % 17 == 3
        shown = np.nan if is_left_out else float(norm)
        found.add_steps(
            Taken.one(
                (0.5, 1.0, 2.0), StepInfo(shown, 1.0, bool(norm > 0.9), not is_left_out, 0.1)
            ),
            [2],
        )
        if events and step % 11 == 5:
            kinds = ("explosion", "prune jump", "zeroed", "rollback")
            found.add_event(kinds[step % 4], 3.0)
        if (step + 1) % steps == 0 and step < epochs * steps:
            epoch = (step + 1) // steps
            row: dict[str, float] = {"epoch": epoch, "steps": steps, "loss": 2.0 / epoch}
            row["val_loss"] = 2.5 / epoch
            if accuracy:
                row |= {"accuracy": 1 - 0.5 / epoch, "val_accuracy": 1 - 0.625 / epoch}
            found.add_epoch(row)
    return found


DENSE = trained(3, 4)
PRUNED = trained(4, 5, sparsity={0: 0.0, 5: 0.25, 10: 0.5, 12: 0.5, 15: 0.75}, rest=2, events=True)


def weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights of two layers, and a bias."""
    shapes = {"a$1.weight": (8, 5), "a$1.bias": (5,), "b.weight": (5, 20)}
    return {
        name: (values(int(np.prod(shape)), seed=seed + i).reshape(shape) - 0.5).astype(np.float32)
        for i, (name, shape) in enumerate(shapes.items())
    }


def pruned_model() -> Any:
    """What a plot needs of a model; one layer keeps a quarter and the other three quarters."""
    after = weights(5)
    masks = {"a$1.weight": values(40) < 0.25, "b.weight": values(100) < 0.75}
    masks = {name: mask.reshape(after[name].shape) for name, mask in masks.items()}
    parameters = {name: array * masks.get(name, True) for name, array in after.items()}
    return SimpleNamespace(parameters=parameters, masks=masks, lock=threading.RLock())


def decomposed(*, zeros: bool) -> Any:
    """What ``plot_decomposition`` needs of a pruner."""
    part = SimpleNamespace()
    part.signal, part.curvature, part.importance, part.snr = (
        10 ** (-4 * values(300, seed=i)) for i in range(4)
    )
    if zeros:
        part.signal[::10] = 0
        part.snr[::4] = 0
    arena = SimpleNamespace(masks={"a.weight": values(300, seed=7) < 0.8})
    return SimpleNamespace(
        statistics=SimpleNamespace(count=6),
        lock=threading.RLock(),
        model=SimpleNamespace(arena=arena),
        decomposition=lambda **_: {"a.weight": part},
    )


def diagnosed(count: int, *, level: bool, steps: int = 0, lr: float | None = 0.1) -> Diagnosis:
    """A diagnosis of so many layers, with level lines or falling ones."""
    factor = 0.9 if level else 0.05
    layers = tuple(
        LayerDiagnosis(
            **_known(
                LayerDiagnosis,
                name=f"dense${i}",
                activation=factor**i,
                gradient=0.5 * factor ** (count - i),
                dead=None if i == 1 else 0.1 * i / count,
                saturated=0.25 if i == 1 else None,
                gradient_steps=tuple(0.5**k for k in range(steps if i else 0)),
            )
        )
        for i in range(count)
    )
    parameters = tuple(
        ParameterDiagnosis(
            **_known(
                ParameterDiagnosis,
                name=f"dense${i}.{kind}",
                norm=2.0 * (i != 2),
                spectral_norm=None if kind == "bias" else 1.5,
                gradient_norm=0.5 + i,
                update_ratio=None if lr is None else 0.001 * (i + 1),
            )
        )
        for i in range(count)
        for kind in ("weight", "bias")
    )
    return Diagnosis(**_known(Diagnosis, layers=layers, parameters=parameters, lr=lr))


def _known(kind: type, **given: Any) -> dict[str, Any]:
    """Arguments of a dataclass: what is given, and 0 for the rest."""
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: given.get(name, 0) for name in fields}


def swept(*, how: tuple[str, ...] = (), same: bool = True) -> SweepResult:
    """A sweep over criteria, sparsities and seeds, with a trial that failed."""
    rows: list[dict[str, Any]] = []
    criteria = ("Magnitude()", "Random()", "Taylor()", "SNIP()")
    for way in how or ("",):
        for c, criterion in enumerate(criteria):
            for s, sparsity in enumerate((0.5, 0.9, 0.98)):
                for seed in range(3):
                    kept = (1 - sparsity) * (1 + (0.01 if same else 0.3) * c)
                    accuracy = 0.99 - 0.01 * 4**s * (c + 1) / 4 - 0.002 * seed * (c + 1)
                    rows.append(
                        {
                            "how": way,
                            "criterion": criterion,
                            "sparsity": sparsity,
                            "seed": seed,
                            "kept": kept,
                            "macs": 1e6 * kept,
                            "accuracy": accuracy,
                            "pruned_accuracy": accuracy - 0.05,
                            "change": accuracy - 0.985 - 0.001 * seed,
                            "seconds": 1.0,
                            "error": None,
                        }
                    )
    metrics = ["kept", "macs", "accuracy", "pruned_accuracy", "change"]
    lost = dict.fromkeys(metrics)
    rows.append({**rows[0], **lost, "error": "ValueError: no"})
    factors = [*(["how"] if how else []), "criterion", "sparsity", "seed"]
    return SweepResult(factors, metrics, rows)


def sensitive(*, accuracy: bool) -> Sensitivity:
    """Curves of six parameters, more than there are colours."""
    sparsities = (0.5, 0.9, 0.98)
    curves = {f"layer${i}": 0.9 - values(3, seed=i) / 2 for i in range(6)}
    return Sensitivity(
        sparsities, curves, curves if accuracy else {}, 0.25, 0.9 if accuracy else None
    )


FORMS = Records(
    ["form", "memory", "file", "accuracy", "agreement", "error", "macs_effective", "batch_1",
     "batch_64"],
    [
        {"form": "dense", "memory": 4000, "file": 4600, "accuracy": 0.9, "agreement": 1.0,
         "error": 0.0, "macs_effective": None, "batch_1": 12.5, "batch_64": 99.5},
        {"form": "frozen", "memory": 1000, "file": None, "accuracy": 0.9, "agreement": 1.0,
         "error": 1e-7, "macs_effective": 1200, "batch_1": 3.5, "batch_64": 20.0},
    ],
)  # fmt: skip


def study() -> Any:
    from studies.criteria import plot

    return plot(swept(how=("gradual", "one-shot")))


PICTURES: dict[str, Callable[[], Any]] = {
    "loss": lambda: plotting.plot_loss(DENSE),
    "loss_pruned": lambda: plotting.plot_loss([DENSE, PRUNED]),
    "accuracy": lambda: plotting.plot_accuracy([DENSE, PRUNED]),
    "accuracy_of_many_epochs": lambda: plotting.plot_accuracy(trained(31, 2)),
    "norms": lambda: plotting.plot_norms(DENSE, max_norm=0.9),
    "norms_with_events": lambda: plotting.plot_norms([PRUNED, PRUNED], max_norm=0.9),
    "norms_of_many_steps": lambda: plotting.plot_norms(trained(2, 350)),
    "history": lambda: plotting.plot_history([DENSE, PRUNED], max_norm=0.9),
    "history_of_a_regression": lambda: plotting.plot_history(trained(2, 3, accuracy=False)),
    "weights": lambda: plotting.plot_weights(weights(1), pruned_model(), bins=6),
    "weights_of_two_dicts": lambda: plotting.plot_weights(weights(1), weights(2)),
    "sparsity": lambda: plotting.plot_sparsity(pruned_model()),
    "decomposition": lambda: plotting.plot_decomposition(decomposed(zeros=False)),
    "decomposition_with_zeros": lambda: plotting.plot_decomposition(decomposed(zeros=True)),
    "diagnosis": lambda: diagnosed(4, level=False).plot(),
    "diagnosis_of_level_signals": lambda: diagnosed(3, level=True, lr=None).plot(),
    "diagnosis_of_many_layers": lambda: diagnosed(20, level=True).plot(),
    "diagnosis_through_time": lambda: diagnosed(3, level=True, steps=5).plot(),
    "sensitivity": lambda: sensitive(accuracy=True).plot(),
    "sensitivity_of_a_loss": lambda: sensitive(accuracy=False).plot(),
    "tradeoff": lambda: plotting.plot_tradeoff(swept()),
    "tradeoff_of_uneven_budgets": lambda: plotting.plot_tradeoff(swept(same=False)),
    "tradeoff_of_work": lambda: plotting.plot_tradeoff(swept(), x="macs", y="change"),
    "overview": lambda: plotting.overview(
        [DENSE, PRUNED], weights(1), pruned_model(), max_norm=0.9, title="all"
    ),
    "overview_of_a_regression": lambda: plotting.overview(
        trained(2, 3, accuracy=False), weights(1), pruned_model()
    ),
    "report": lambda: Report("title", FORMS, swept(how=("gradual", "one-shot")), ()).plot(),
    "report_of_forms": lambda: Report("", FORMS, None, ()).plot(),
    "study_of_criteria": study,
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name: str) -> None:
    made = PICTURES[name]()
    found = drawn.figure(getattr(made, "figure", made))
    path = AGREED / f"{name}.txt"
    if os.environ.get("GRADPRUNE_WRITE_PICTURES"):
        path.write_text(found, encoding="utf-8")
    assert found.splitlines() == path.read_text(encoding="utf-8").splitlines(), __doc__


def test_no_other_pictures() -> None:
    assert {path.stem for path in AGREED.glob("*.txt")} == set(PICTURES)


def test_of_too_many_dots_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_DOTS", 5)
    lines = plotting.plot_norms(trained(1, 26)).get_lines()
    steps = {
        str(line.get_label()).partition(" (")[0]: np.asarray(line.get_xdata(), np.float64)
        for line in lines
    }
    of_all = trained(1, 26).steps["clipped"]
    at = np.arange(1, 27) / 26
    np.testing.assert_allclose(steps["steps"], at[~of_all][:: -(-(~of_all).sum() // 5)])
    np.testing.assert_allclose(steps["clipped steps"], at[of_all][:: -(-of_all.sum() // 5)])


def test_a_model_is_drawn_as_what_stands_for_one_here() -> None:
    model = gp.Model([gp.Dense(5, name="a"), gp.Dense(2, name="b")], input_shape=8, seed=0)
    shown = plotting.plot_sparsity(model)
    assert [words.get_text() for words in shown.texts] == [
        "40 of 40 (100 %)",
        "10 of 10 (100 %)",
        "50 of 50 (100 %)",
    ]
