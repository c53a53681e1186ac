"""What a release is made of agrees with itself: versions, workflows, targets."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import gradprune as gp
from documents import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_version_and_day_are_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    release_check = importlib.import_module("release_check")
    assert list(release_check.versions(gp.__version__)) == []
    assert len(list(release_check.versions("0.0.0"))) == 3


def test_what_the_sdist_has_to_have_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    release_check = importlib.import_module("release_check")
    names = (*release_check.IN_SDIST, *release_check.IN_WHEEL)
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_workflows_call_targets_of_the_makefile() -> None:
    folder = ROOT / ".github" / "workflows"
    if not folder.exists():
        pytest.skip("the sdist has no workflows")
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    called: set[str] = set()
    for path in Path(folder).glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        for words in re.findall(r"(?:run: make|target:) ([a-z -]+)$", text, flags=re.MULTILINE):
            called |= set(words.split())
    assert called - targets == set()
    assert {"test", "test-peers", "lint", "docs", "check-c", "release-check"} <= called
