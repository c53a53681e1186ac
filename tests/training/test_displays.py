"""What print, repr and notebooks show of models, of what belongs to them and of reports."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed

Captured = pytest.CaptureFixture[str]
X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


@pytest.fixture(scope="module")
def trained() -> gp.Model:
    layers = [gp.Dense(4, activation="relu", name="a<b>"), gp.Dense(2)]
    model = gp.Model(layers, input_shape=3, seed=0)
    gp.Adam(model, lr=0.01, clip=gp.ClipNorm(1.0))
    gp.Pruner(model, criterion=gp.Taylor())
    gp.Quantizer(model, gp.Codebook(4))
    model.fit(X, Y, epochs=3, verbose=0)
    return model


class _Tags(HTMLParser):
    """Counts tags, and says whether each one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def shown_objects(model: gp.Model) -> dict[str, Any]:
    small = model.shrink()
    return {
        "model": model,
        "optimizer": model.optimizer,
        "pruner": model.pruner,
        "quantizer": model.quantizer,
        "history": model.history,
        "summary": model.summary(),
        "frozen": model.freeze(),
        "shrink": small.shrink_report,
        "prune": gp.Pruner(model.copy(), criterion=gp.Magnitude()).prune(0.5),
        "quantize": gp.Quantizer(model.copy(), gp.Codebook(2)).quantize(),
        "verify": gp.verify(model, model.freeze(), x=X),
        "diagnosis": gp.diagnose(model.copy(), X, Y),
        "sensitivity": gp.sensitivity(model, X, Y, sparsities=(0.5,)),
        "classes": gp.metrics.ClassificationReport.from_labels(Y, Y, 2),
        "report": gp.report({"a<b>": model}, x=X, y=Y, batches=()),
        "sweep": gp.sweep(lambda a: {"b": a}, {"a": [1, 2]}, verbose=0),
    }


def test_notebooks_show_tables(trained: gp.Model) -> None:
    for name, value in shown_objects(trained).items():
        assert isinstance(value, Displayed), name
        page = value._repr_html_()
        tags = _Tags(page)
        assert "table" in tags.seen, name
        assert "b" not in tags.seen, name  # "a<b>" is the name of a layer
    for value in (trained, trained.summary()):
        assert "a&lt;b&gt;" in value._repr_html_()


def test_repr_is_what_print_shows_or_one_line(trained: gp.Model) -> None:
    for name, value in shown_objects(trained).items():
        if name in {"model", "optimizer", "pruner", "quantizer", "history"}:
            assert len(repr(value).splitlines()) == 1
        else:
            assert repr(value) == str(value)


def test_lines_of_a_model_and_its_parts(trained: gp.Model) -> None:
    assert repr(trained) == (
        "<Model of 3: a<b> (Dense, relu) 4, dense1 (Dense) 2; "
        "26 parameters, sparsity 0.00%, 3 epochs>"
    )
    assert repr(trained.optimizer) == (
        "Adam(lr=ConstantLR(lr=0.01), betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, "
        "decoupled=False, decay_biases=True, lr_scale={}, "
        "clip=ClipNorm(max_norm=1.0, norm_type=2.0)), 3 steps"
    )
    assert repr(trained.pruner) == (
        "Pruner(criterion=Taylor(), scope=GlobalScope(), granularity=Element()), "
        "events: 0, steps: 0"
    )
    assert repr(trained.quantizer).startswith("Quantizer(weights=Codebook(clusters=4")
    deep = gp.Model([gp.Dense(2) for _ in range(30)], input_shape=2)
    assert "dense3 (Dense) 2, ... 22 more ..., dense26 (Dense) 2" in repr(deep)


def test_a_table_is_html() -> None:
    page = Table(("name", "n"), [("<x>", "1")])._repr_html_()
    assert _Tags(page).seen.count("td") == 2
    assert '<td style="text-align: right">1</td>' in page
    assert "&lt;x&gt;" in page


def test_history_plots(trained: gp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    assert trained.history is not None
    figure = trained.history.plot(max_norm=1.0)
    assert len(figure.axes) == 3
    with pytest.raises(ValueError, match="empty"):
        type(trained.history)().plot()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"gradprune\[plot\]"):
        trained.history.plot()


def test_a_line_an_epoch_where_nobody_watches(capsys: Captured) -> None:
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    gp.SGD(model, lr=0.1)
    model.fit(X, Y, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    assert [line.partition(": loss")[0] for line in err.splitlines()] == ["epoch 1", "epoch 2"]
    model.fit(X, Y, epochs=1, verbose=2)
    out, err = capsys.readouterr()
    assert out.startswith("epoch 3: loss")
    assert err == ""


def test_a_bar_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    gp.SGD(model, lr=0.1)
    model.fit(X, Y, epochs=1)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "\r" in shown
