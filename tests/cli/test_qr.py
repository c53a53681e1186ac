"""A network in a QR code: written, read back, and nothing done before what is missing is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import gradprune as gp
from gradprune.cli import qr
from gradprune.cli.main import main

pytest.importorskip("constriction")


def test_what_was_written_is_read(tmp_path: Path, segno: Any, zxingcpp: Any) -> None:
    full = bytes(range(256)) * 11 + bytes(137)
    for data, version in ((b"\0gpz\xff", "1-L"), (full, "40-L")):
        assert qr.write_qr(data, tmp_path / "m.png") == version
        assert qr.read_qr(tmp_path / "m.png") == data
    with pytest.raises(ValueError, match="at most 2,953 bytes, got 2,954"):
        qr.write_qr(full + b"1", tmp_path / "n.png")


def test_demo(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, segno: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--model", "6", "--epochs", "3", "--out", "out", "--qr", "m.png"]) == 0
    text = capsys.readouterr().out
    assert "bytes in a QR code" in text
    assert "what was read classifies" in text
    packed = gp.load("m.gpz")
    assert packed.nbytes <= qr.LARGEST_CODE
    if qr.read_qr("m.png") is not None:
        assert qr.read_qr("m.png") == bytes(packed)
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    assert qr.read_qr("m.png") is None


def test_what_is_missing_is_said_first(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "segno", None)
    assert main(["demo", "--qr", "m.png"]) == 1
    assert 'pip install "gradprune[qr]"' in capsys.readouterr().err
    assert not Path("gradprune-demo").exists()
