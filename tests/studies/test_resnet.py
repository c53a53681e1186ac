"""The residual network and its experiment, in small: blobs in place of clothes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.data import datasets
from studies import resnet


def blobs(**settings: Any) -> Any:
    """Three kinds of images that are easy to tell apart."""
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(3), 200)
    x = rng.normal(0, 0.3, (600, 28, 28)).astype(np.float32)
    for kind in range(3):  # wide, tall, or everywhere: neither shift nor flip changes that
        x[y == kind, 8 : (20 if kind else 11), 8 : (11 if kind == 1 else 20)] += 2.0
    return (x[:500], y[:500]), (x[500:], y[500:])


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "fashion_mnist", blobs)


def test_the_network() -> None:
    model = gp.models.resnet(2, filters=(4, 8), stride=1, input_shape=(3, 9, 10), classes=5)
    convolutions = [layer for layer in model.layers if isinstance(layer, gp.Conv2D)]
    assert len(convolutions) == 1 + 2 * 2 * 2 + 1
    assert sum(isinstance(layer, gp.Add) for layer in model.layers) == 4
    assert model.output_shape == (5,)
    shapes = [step.output_shape for step in model.steps if isinstance(step.layer, gp.Add)]
    assert shapes == [(4, 9, 10)] * 2 + [(8, 5, 5)] * 2
    with pytest.raises(ValueError, match="blocks"):
        gp.models.resnet(0)


def test_rows_are_what_they_say() -> None:
    recipe = resnet.ResNetRecipe(filters=(4, 8), epochs=4, pruning_epochs=4, batch_size=50)
    lines: list[str] = []
    rows = {row.form: row for row in resnet.run(recipe, report=lines.append)}
    dense, weights, filters, shrunk = rows.values()
    assert list(rows) == [
        "dense",
        "weights removed",
        "filters removed",
        "filters removed, shrunk",
    ]
    assert len(lines) == 12
    assert dense.images == 100
    assert dense.errors < 20
    assert weights.kept == round(0.1 * dense.kept)
    assert 0.5 * dense.kept <= filters.kept < 0.6 * dense.kept
    assert shrunk.errors == filters.errors
    assert dense.macs > filters.macs >= shrunk.macs > weights.macs
    assert dense.nbytes >= filters.nbytes > shrunk.nbytes


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--validate", "--journal", str(journal)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "HELD_OUT", 100)
        assert resnet.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "filters removed, shrunk" in printed
    assert "left out of training" in printed
    assert len(journal.read_text().splitlines()) == 4
