"""The command lines of the studies, run from the root of a checkout."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import studies

ROOT = Path(studies.__file__).resolve().parents[1]
NAMES = ("criteria", "devices", "lenet", "lenet5", "resnet", "scaling", "temporal_order")


def test_every_study_is_here() -> None:
    found = {
        path.stem
        for path in Path(studies.__file__).parent.glob("*.py")
        if "def main(" in path.read_text(encoding="utf-8")
    }
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_says_how_to_run_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        import_module(f"studies.{name}").main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: python -m studies.{name}" in text
    assert "--quick" in text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_understood_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"studies.{name}").main(["--nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_python_m_runs_a_study() -> None:
    command = [sys.executable, "-m", "studies.lenet", "--help"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m studies.lenet --quick" in found.stdout


@pytest.mark.parametrize(
    ("options", "name"), [([], "criteria.jsonl"), (["--quick"], "criteria-quick.jsonl")]
)
def test_the_journal_of_criteria_has_its_name(
    options: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def stop(plan: object, journal: Path, **settings: object) -> None:
        asked.append(journal.name)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("studies.criteria.run", stop)
    assert import_module("studies.criteria").main(options) == 130
    assert asked == [name]
