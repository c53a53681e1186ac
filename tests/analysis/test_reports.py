"""Reports and trade-off curves: what is shown is what was measured."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import gradprune as gp
from gradprune.analysis import reports
from gradprune.interop import board
from gradprune.interop.board import missing_tools
from gradprune.plotting import plot_tradeoff


def swept(
    ways: tuple[str, ...] = ("one-shot",),
    criteria: tuple[str, ...] = ("magnitude", "b"),
    seeds: int = 3,
) -> gp.sweeps.SweepResult:
    """Accuracies that are known: 0.9 and 0.8, a point more or less for each seed."""
    rows = [
        {
            "how": how,
            "criterion": criterion,
            "sparsity": sparsity,
            "seed": seed,
            "accuracy": (0.9 if criterion == "magnitude" else 0.8) + 0.01 * (seed - 1),
            "change": (-0.05 if criterion == "magnitude" else -0.15),
            "kept": 1 - sparsity,
            "weights": round(100 * (1 - sparsity)),
            "macs": round(100 * (1 - sparsity)),
            "seconds": 1.0,
            "error": None,
        }
        for how in ways
        for criterion in criteria
        for sparsity in (0.5, 0.9, 0.99)
        for seed in range(seeds)
    ]
    factors = ["how", "criterion", "sparsity", "seed"]
    return gp.sweeps.SweepResult(factors, ["accuracy", "change", "kept", "weights", "macs"], rows)


# ---- curves


def test_lines_and_bands() -> None:
    axes = plot_tradeoff(swept())
    magnitude, other, dense = axes.get_lines()
    for line, accuracy in ((magnitude, 0.9), (other, 0.8)):
        np.testing.assert_allclose(line.get_xdata(), [1, 10, 50])
        np.testing.assert_allclose(line.get_ydata(), accuracy)
    np.testing.assert_allclose(dense.get_ydata(), 0.95)
    band = np.concatenate([p.vertices for p in axes.collections[0].get_paths()])
    assert band[:, 1].min() == pytest.approx(0.89)
    assert band[:, 1].max() == pytest.approx(0.91)
    assert axes.get_xscale() == "log"
    assert axes.xaxis_inverted()
    assert [text.get_text() for text in axes.texts] == ["b", "magnitude", "dense"]
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["weights kept (%)", "accuracy (%)"]
    assert magnitude.get_color() == "black"


def test_names_are_at_the_ends_of_their_lines() -> None:
    """Where the fewest weights are kept."""
    table = swept()
    for row in table.rows:
        row["accuracy"] -= 0.3 * (row["sparsity"] - 0.5) * (row["criterion"] == "magnitude")
    axes = plot_tradeoff(table)
    ends = {"magnitude": 0.9 - 0.3 * 0.49, "b": 0.8}
    for text in axes.texts:
        if text.get_text() in ends:
            end = axes.transData.transform((1, ends[text.get_text()]))
            assert text.xy == pytest.approx((1, axes.transAxes.inverted().transform(end)[1]))


def test_names_do_not_overlap() -> None:
    names = tuple("abcdefgh")
    axes = plot_tradeoff(swept(criteria=names), x="macs")
    heights = [float(text.xy[1]) for text in axes.texts]
    assert len(heights) == 9
    assert np.diff(heights).min() > 0.04
    assert max(heights) <= 1


def test_a_metric_that_is_no_accuracy() -> None:
    axes = plot_tradeoff(swept(), y="change", x="macs")
    assert axes.get_yscale() == "linear"
    assert len(axes.get_lines()) == 2


def test_curves_that_cannot_be_drawn() -> None:
    both = swept(("one-shot", "iterative"))
    with pytest.raises(ValueError, match=r"how and sparsity .* result.where\(how='one-shot'\)"):
        plot_tradeoff(both)
    with pytest.raises(KeyError, match="'lr' is no factor"):
        plot_tradeoff(both, by="lr")
    with pytest.raises(KeyError, match="'bytes' is no metric"):
        plot_tradeoff(both, x="bytes")
    with pytest.raises(ValueError, match="no trial has both"):
        plot_tradeoff(swept(seeds=0))


# ---- forms


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[Any], NDArray[Any]]:
    _, test = gp.datasets.digits()
    return test


@pytest.fixture(scope="module")
def model() -> gp.Model:
    made = gp.Model([gp.Dense(20, activation="relu"), gp.Dense(10)], 64, seed=0)
    gp.Adam(made)  # its moments are no part of the form
    gp.Pruner(made, criterion=gp.Magnitude()).prune(0.9)
    return made


class Wrong:
    """A form that knows nothing of itself and is a little off."""

    def __init__(self, model: gp.Model) -> None:
        self.model = model

    def predict(self, x: ArrayLike) -> NDArray[np.float32]:
        y = self.model.predict(x)
        return np.roll(y, 1, axis=1) if len(y) > 1 else y


def test_forms(model: gp.Model, data: Any, tmp_path: Path) -> None:
    x, y = data
    found = gp.report(
        {"masked": model, "frozen": model.freeze(), "wrong": Wrong(model)},
        x=x,
        y=y,
        batches=(1,),
        turns=1,
    )
    assert found.forms is not None
    masked, frozen, wrong = found.forms
    twin = gp.Model(model.layers, 64, seed=0)
    twin.set_masks(model.masks)
    twin.save(tmp_path / "alone.safetensors")
    assert masked["file"] == (tmp_path / "alone.safetensors").stat().st_size
    assert (masked["parameters"], masked["macs"], masked["macs_effective"]) == (178, 1480, 148)
    assert masked["memory"] == 4 * (1480 + 30)
    assert {name: frozen[name] for name in ("parameters", "macs", "macs_effective")} == {
        name: masked[name] for name in ("parameters", "macs", "macs_effective")
    }
    model.freeze().save(tmp_path / "alone.frozen")
    size = (tmp_path / "alone.frozen").stat().st_size
    assert (frozen["memory"], frozen["file"]) == (model.freeze().nbytes, size)
    assert masked["accuracy"] == model.evaluate(x, y)["accuracy"]
    assert (masked["error"], masked["agreement"]) == (0.0, 1.0)
    assert frozen["error"] < 1e-5
    assert (wrong["memory"], wrong["macs"]) == (None, None)
    assert wrong["error"] > 0.1
    assert wrong["agreement"] < 0.5
    assert all(row["batch_1"] > 0 for row in found.forms)
    assert "100 %" in str(found)


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no compiler")
def test_files_of_c_tell_flash_and_ram(model: gp.Model, data: Any, tmp_path: Path) -> None:
    written = model.to_c(tmp_path / "m.c")
    found = gp.report({"model": model, "C": tmp_path / "m.c"}, x=data[0], batches=())
    assert found.forms is not None
    plain, c = found.forms
    assert (plain["flash"], plain["ram"]) == (None, None)
    assert (c["flash"], c["ram"]) == (written.flash, written.ram)
    assert written.ram == 4 * 20
    assert "flash" in str(found)
    assert plain["instructions"] is None
    if missing_tools():
        assert c["instructions"] is None
        assert "The instructions of C are not counted: there is no " in str(found)
    else:
        # Each product is a load, a load and a sum at least, and few times that at most.
        products = plain["macs_effective"]
        assert 2 * products < c["instructions"] < 20 * products
        assert "instructions" in str(found)


def test_why_instructions_are_not_counted(
    model: gp.Model, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.to_c(tmp_path / "m.c")
    monkeypatch.setattr(board, "_MACHINE", "no-such-machine")
    found = gp.report({"C": tmp_path / "m.c"}, x=data[0], batches=())
    assert "The instructions of C are not counted: there is no" in str(found)
    assert "no-such-machine." in str(found)


@pytest.mark.skipif(bool(missing_tools()), reason="there is no board")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            # The clock starts again from 100, and that it has begun anew is what the board sees.
            (
                "volatile unsigned *clock = (volatile unsigned *)0xe000e010;\n"
                "clock[1] = clock[2] = 100;\n"
                "for (volatile long n = 0; n < 100000; n++) {} *y = *x;"
            ),
            "a prediction takes more than 670 million instructions",
        ),
        (
            "static const char large[5000000] = {1}; *y = large[(int)*x];",
            "arm-none-eabi-gcc fails: .*will not fit in region `flash'",
        ),
        ("*y = *(volatile float *)0xf0000000;", "qemu-system-arm fails: fault"),
    ],
    ids=["too long", "too large", "a fault"],
)
def test_why_a_board_does_not_run_it(body: str, message: str, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "net.h").write_text("#define net_INPUTS 1\n#define net_OUTPUTS 1\n")
        head = "void net_predict(const float *x, float *y)"
        (folder / "net.c").write_text(f"{head};\n{head}\n{{ (void)x; {body} }}\n")

    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        board.measure(write, np.ones(1, np.float32))


def test_refused_reports(model: gp.Model, data: Any) -> None:
    x, y = data
    with pytest.raises(ValueError, match="needs forms of a model, or a sweep"):
        gp.report()
    with pytest.raises(ValueError, match="pass x"):
        gp.report({"m": model})
    with pytest.raises(ValueError, match="y must be 360 integer labels"):
        gp.report({"m": model}, x=x, y=y[:3])
    with pytest.raises(ValueError, match="batches must be at least 1"):
        gp.report({"m": model}, x=x, batches=(0,))
    with pytest.raises(ValueError, match="curves need the metrics accuracy and one of kept"):
        gp.report(sweep=gp.sweep(lambda a: {"loss": a}, {"a": [1]}, verbose=0))


# ---- the page


class Page(HTMLParser):
    """Tags and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_needs_nothing_else(model: gp.Model, data: Any, tmp_path: Path) -> None:
    found = gp.report(
        {"<script>alert(1)</script>": model},
        x=data[0],
        sweep=swept(("one-shot", "<i>")),
        title="R&D <b>",
        batches=(),
    )
    found.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert [source[:26] for source in page.sources] == ["data:image/svg+xml;base64,"]
    assert not re.search(r"<script|<i>|https?://", text)
    assert "R&D <b>" in page.texts
    assert "<script>alert(1)</script>" in page.texts
    assert "0.900 ± 0.010" in page.texts
    assert "No baseline of random in this sweep." in page.texts
    assert "Only 3 seeds: deviations are rough guesses." in page.texts


def test_pictures(tmp_path: Path) -> None:
    found = gp.report(sweep=swept())
    found.save(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"a report is saved as \.html, \.png"):
        found.save(tmp_path / "report.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["report.png"]


def test_budgets_that_differ_are_named() -> None:
    result = swept()
    result.rows[0]["weights"] += 1
    assert "Budgets differ at sparsity 0.5: compare with care." in gp.report(sweep=result).notes


def test_lines_are_never_those_of_seeds() -> None:
    for factors, expected in (
        (["seed", "lr"], "lr"),
        (["seed", "lr", "criterion"], "criterion"),
    ):
        assert reports._by(gp.sweeps.SweepResult(factors, [], [])) == expected
