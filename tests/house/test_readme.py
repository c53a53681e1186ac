"""What the documents say: their scripts run as they stand, their commands and paths exist."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from documents import DOCUMENTS, ROOT, anchors, run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_scripts_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("README.md")
    assert names["dense"] > 0.96
    assert names["pruned"] > names["dense"] - 0.02
    printed = capsys.readouterr().out.splitlines()
    said = re.search(r"^    (accuracy .*)", README, flags=re.MULTILINE)
    assert said is not None
    words = re.compile(r"[\d.]{5}")  # an accuracy may differ by a few samples on another CPU
    assert words.sub("", printed[0]) == words.sub("", said[1])
    assert printed[1:] == []
    assert names["model"].sparsity == pytest.approx(0.95, abs=1e-4)


def test_the_script_for_images_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run("docs/images.md")
    found = re.search(r"accuracy (\S+), shrunk from 5,066 to 2,630", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 0.92


def test_the_script_for_sequences_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run("docs/sequences.md")
    assert float(capsys.readouterr().out.split()[-1]) > 0.8


def test_the_script_that_starts_sparse_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("docs/sparse.md")
    found = re.search(r"accuracy (\S+) at 95\.00%", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 0.9
    assert {home for homes in names["model"].arena.core.homes for home in homes} == {"inside"}


def test_the_script_with_torch_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torch: Any,
    onnx: Any,
    onnxruntime: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run("docs/torch.md")
    assert names["model"].sparsity == pytest.approx(0.9, abs=1e-4)
    assert {"0.weight", "1.running_mean", "7.bias"} <= set(names["module"].state_dict())
    assert "digits8.onnx" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_script_with_scikit_learn_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("docs/sklearn.md")
    assert names["pipeline"].score(names["X_test"], names["y_test"]) > 0.95
    assert names["est"].search_[-1].measured <= 4096
    assert "trained, units (100,)" in capsys.readouterr().out


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no compiler")
def test_the_script_for_devices_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run("docs/devices.md")
    text = capsys.readouterr().out
    assert "4-bit codes of 16 values" not in text  # that file is only verified
    (accuracy,) = re.findall(r"^codes .*?([\d.]+) %", text, flags=re.MULTILINE)
    assert float(accuracy) > 93


def test_a_criterion_of_ones_own_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("docs/extending.md")
    assert names["again"].sparsity == names["model"].sparsity > 0.79


def test_the_comparisons_with_the_twins_pass() -> None:
    names = run("docs/reference.md")
    tests: list[Callable[[], None]] = [names[name] for name in names if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_twins_that_are_listed_exist() -> None:
    from gradprune import reference

    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| \w.*\|$", text, re.MULTILINE)))
    assert len(listed) > 40
    assert [name for name in listed if not hasattr(reference, name)] == []


def test_commands_of_the_readme_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    commands = set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE))
    assert commands == {"demo", "test"}
    assert commands <= targets


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#:]+)", text)
    into = re.findall(r"\]\(([^)#:]*\.md|)#([^)]+)\)", text)
    targets = [(document.parent / link if link else document, anchor) for link, anchor in into]
    assert [anchor for path, anchor in targets if anchor not in anchors(path)] == []
    folders = "benchmarks(?!/results)|csrc|docs|gradprune|notebooks|scripts|studies|tests"
    paths = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./]*\w)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
