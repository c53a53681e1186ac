"""The guides: their scripts and the code in their tables run, and every question has its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradprune as gp
from documents import ROOT, columns, run

GUIDES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*(ROOT / "docs" / "guides").glob("*.md"), *(ROOT / "notebooks").glob("*.zh.md")]
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts may write files, and set the number of threads."""
    monkeypatch.chdir(tmp_path)
    threads = gp.get_num_threads()
    yield
    gp.set_num_threads(threads)


def run_cells(cells: list[str], names: dict[str, Any]) -> int:
    """Run the cells that are code and nothing else, in order; how many these are."""
    codes = [match[1] for cell in cells if (match := re.fullmatch(r"`([^`]+)`", cell))]
    for code in codes:
        exec(compile(code, code, "exec"), names)
    return len(codes)


@pytest.mark.parametrize("guide", GUIDES)
def test_scripts_and_tables_run(guide: str) -> None:
    if guide.endswith("from_sklearn.md"):
        pytest.importorskip("sklearn")
    names = run(guide)
    rows = columns(guide)
    code = run_cells([right for _, right in rows], names)
    assert code >= (9 if "/from_" in guide else 0)


def test_what_the_guide_says_of_torch_runs(torch: Any) -> None:
    names: dict[str, Any] = {"torch": torch, "__name__": "__main__"}
    preparation = """
import copy
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_, prune
from torch.optim.lr_scheduler import CosineAnnealingLR
module = nn.Sequential(nn.Linear(64, 10))
optimizer = torch.optim.Adam(module.parameters())
inputs, labels = torch.zeros(2, 64), torch.tensor([1, 2])
"""
    exec(preparation, names)
    assert run_cells([left for left, _ in columns("docs/guides/from_torch.md")], names) > 25


def test_the_chinese_readme_runs() -> None:
    names = run("README.zh.md")
    assert names["pruned"] > names["dense"] - 0.02


def test_every_workflow_has_its_guide_in_chinese() -> None:
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    guides = re.findall(r"\((\w+)\.ipynb\)\s+·\s+\[导读\]\(\1\.zh\.md\)", text)
    assert len(guides) == 5


def test_twelve_questions_are_two_clicks_away() -> None:
    text = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    questions = re.findall(
        r"^(\d+)\. \*\*.*?\?\*\*(.*?)(?=^\d+\. |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert [int(number) for number, _ in questions] == list(range(1, 13))
    assert [number for number, answer in questions if "](" not in answer] == []
    for first in ("README.md", "README.zh.md"):
        assert "docs/questions.md" in (ROOT / first).read_text(encoding="utf-8")
