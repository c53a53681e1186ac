"""Tables of samples: what is read, what is refused, and the commands that take them."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.cli.main import main
from gradprune.data.tabular import read_features, read_table
from gradprune.errors import FileFormatError


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "a.csv") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def test_labels_of_text_become_classes_in_sorted_order() -> None:
    file = write('\ufeffa,kind,b\r\n1,pear,-2.5\r\n\r\n3,apple,1e3\r\n0,"fig, ripe",4\r\n')
    x, y, classes = read_table(file, "kind")
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert x.tolist() == [[1, -2.5], [3, 1000], [0, 4]]
    assert classes == ("apple", "fig, ripe", "pear")
    assert y.tolist() == [2, 0, 1]
    assert read_features(file, "kind").tolist() == x.tolist()


def test_integers_stay_labels() -> None:
    assert read_table(write("y,a\n2,1\n0,5\n"), "y")[1].tolist() == [2, 0]
    assert read_table(write("y,a\n2.0,1\n0.0,5\n"), "y")[2] == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'y': it has 'a', 'b'"),
        ("a,c,y\n1,red,0\n", "something else: 'c'; encode or drop"),
        ("a,c,y\n1,,0\n", "missing or not finite in 'c'"),
        ("a,y\ninf,0\n", "missing or not finite in 'a'"),
        ("a,y\n1e300,0\n", "float32"),
        ("a,y\n1,0.5\n", "'y': labels must be integers from 0, or text"),
        ("a,y\n1,-1\n", "'y': label -1, expected 0 or more"),
        ("a,y\n1,9999999\n", "'y': label 9999999, expected at most"),
        ("a,y\n1,\n", "labels are missing"),
        ("a,y\n1,x\n1, \n", "1 labels are missing"),
        ("a,y\n1,0\n2\n", "row 2 has 1 values, but the first line names 2"),
        ("a,a,y\n1,2,0\n", "two columns 'a'"),
        ("y\n0\n", "no column of features"),
        ("a,y\n", "no samples"),
        ("", "no samples"),
        ('a,y\n"1,0\n', "is no .csv file"),
    ],
)
def test_other_tables_are_refused(text: str, message: str) -> None:
    with pytest.raises(FileFormatError, match=r"a\.csv") as caught:
        read_table(write(text), "y")
    assert message in str(caught.value)


def test_one_long_cell_takes_its_own_room_alone() -> None:
    rows = "".join(f"{i},{i % 2}\n" for i in range(2000))
    file = write(f"a,y\n{rows}1,{'z' * 10**5}\n")
    tracemalloc.start()
    _, _, classes = read_table(file, "y")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(classes) == 3
    assert most < 10**7


def test_damaged_text() -> None:
    Path("a.csv").write_bytes(b"a,y\n\xff,0\n")
    with pytest.raises(FileFormatError, match="UTF-8"):
        read_table("a.csv", "y")


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pandas pyarrow"):
        read_table("a.parquet", "y")


def test_parquet(pandas: Any, pyarrow: Any) -> None:
    assert pyarrow is not None
    frame = pandas.DataFrame({"a": [1, 2], "y": ["q", "p"], "b": [0.5, 1.5]})
    frame.to_parquet("a.parquet")
    x, y, classes = read_table("a.parquet", "y")
    assert x.tolist() == [[1, 0.5], [2, 1.5]]
    assert (y.tolist(), classes) == ([1, 0], ("p", "q"))
    with pytest.raises(FileFormatError, match="something else: 'y'"):
        read_features("a.parquet")
    frame["y"] = ["q", None]
    frame.to_parquet("a.parquet")
    with pytest.raises(FileFormatError, match="1 labels are missing"):
        read_table("a.parquet", "y")
    write("nothing", "b.parquet")
    with pytest.raises(FileFormatError, match="damaged"):
        read_features("b.parquet")


def test_commands_take_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 2},{'yes' if i % 2 else 'no'},{i / 100}" for i in range(100)]
    write("\n".join(["a,kind,b", *rows]))
    table = ["--data", "a.csv", "--target", "kind"]
    train = ["train", *table, "--model", "4", "--epochs", "20", "--out", "m.safetensors"]
    assert main(train) == 0
    text = capsys.readouterr().out
    assert "classes of kind: 0 no, 1 yes\n" in text
    assert "test accuracy 100 % on 20 samples of a.csv" in text
    assert gp.load("m.safetensors").outputs == 2
    assert main(["prune", "m.safetensors", *table, "--sparsity", "0.2"]) == 0
    assert main(["verify", "m.safetensors", "m.safetensors", *table]) == 0
    np.savez("a.npz", x=np.eye(20), kind=np.arange(20) % 2)
    npz = ["train", "--data", "a.npz", "--target", "kind", "--epochs", "1", "--out", "n"]
    assert main(npz) == 0
    capsys.readouterr()
    assert main(["train", "--data", "a.csv", "--out", "n"]) == 1
    assert "add --target COLUMN" in capsys.readouterr().err
    assert main(["train", "--target", "kind", "--out", "n"]) == 1
    assert "--data FILE, which is missing" in capsys.readouterr().err
