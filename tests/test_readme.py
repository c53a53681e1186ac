"""The README's scripts run as they stand, and its two commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


SCRIPTS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SCRIPTS[0], "README.md", "exec"), {})
    accuracies = re.search(r"accuracy (\S+) dense, (\S+) with 95.0%", capsys.readouterr().out)
    assert accuracies is not None
    dense, pruned = map(float, accuracies.groups())
    assert dense > 0.96
    assert pruned > 0.92


def test_the_script_for_images_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SCRIPTS) == 2
    exec(compile(SCRIPTS[1], "README.md", "exec"), {})
    found = re.search(r"accuracy (\S+), shrunk from 5,066 to 2,630", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 0.92


def test_its_commands_are_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE))
    assert commands == {"demo", "test"}
    assert commands <= targets


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"`((?:csrc|gradprune|tests|docs)/[\w./]+\w)`", text)
    for link in links:
        assert (ROOT / document).parent.joinpath(link).exists(), link
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "gradprune" / path).exists(), path
