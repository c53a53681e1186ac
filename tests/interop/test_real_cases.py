"""Networks of other libraries in, pruned and fine-tuned on real data, and out again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import gradprune as gp

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = ("VGG", "ResNet", "MobileNet", "LSTM", "DS-CNN", "MLP")


@pytest.fixture
def real_cases(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("real_cases")


def digits_as(shape: tuple[int, ...], count: int, real_cases: Any) -> Any:
    """The handwritten digits that come with the package, enlarged: no other data is at hand."""
    return tuple((real_cases._shaped(x[:count], shape), y[:count]) for x, y in gp.datasets.digits())


@pytest.mark.parametrize("name", NAMES)
def test_in_pruned_and_out(
    name: str, real_cases: Any, torch: Any, onnx: Any, onnxruntime: Any, tmp_path: Path
) -> None:
    case = next(case for case in real_cases.CASES if case.name == name)
    if case.missing():
        pytest.skip(f"needs {case.missing()}")
    plan = real_cases.Plan(samples=256, epochs=1)
    data = digits_as(case.shape, 256, real_cases) if case.module else case.data(plan)
    source, model = real_cases.imported(case, data, plan)
    x = data[1][0][:60]
    if case.module:
        assert max(gp.verify(source, model, x=x).errors.values()) < 1e-5
    small = real_cases.pruned(model, data, plan)
    assert model.sparsity == pytest.approx(0.9, abs=1e-3)
    small.to_onnx(tmp_path / "m.onnx")
    module = small.to_torch()
    again = gp.from_torch(module, case.shape), gp.from_onnx(tmp_path / "m.onnx")
    forms = (small, small.freeze(), module, tmp_path / "m.onnx", *again)
    report = gp.verify(model, *forms, x=x)
    assert max(report.errors.values()) < 1e-5
    if case.module:  # the names of parameters are those that the module came with
        kept = {n for n in module.state_dict() if not n.endswith("num_batches_tracked")}
        assert kept <= set(source.state_dict())
