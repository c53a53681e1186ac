"""Files of frozen models: what comes back predicts with the same bits, and nothing else is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradprune as gp
from cases import CASES, Case
from gradprune import files
from gradprune.forms import frozen_files


def frozen_of(case: Case, precision: str = "float32") -> gp.forms.FrozenModel:
    network = case.network()
    rng = np.random.default_rng(1)
    network.set_masks({name: rng.random(m.shape) < 0.4 for name, m in network.masks.items()})
    model = gp.Model.blank(network.layers, network.input_shape)
    model.set_masks(network.masks)
    model.set_state(network.get_state())
    return model.freeze(precision=precision)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: case.name)
def test_a_loaded_model_predicts_with_the_same_bits(
    tmp_path: Path, case: Case, precision: str
) -> None:
    frozen = frozen_of(case, precision)
    x = np.random.default_rng(2).normal(size=(70, *frozen.input_shape)).astype(np.float32)
    frozen.save(tmp_path / "m.frozen")
    again = gp.load(tmp_path / "m.frozen")
    assert isinstance(again, gp.forms.FrozenModel)
    np.testing.assert_array_equal(again.predict(x), frozen.predict(x))
    assert str(again) == str(frozen)
    assert (again.precision, again.exact, again.error) == (precision, frozen.exact, frozen.error)
    again.save(tmp_path / "again.frozen")
    assert (tmp_path / "again.frozen").read_bytes() == (tmp_path / "m.frozen").read_bytes()


def test_a_file_has_the_size_of_what_lives(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(300), gp.Dense(10)], 784, seed=0, sparsity=0.99)
    model.freeze().save(tmp_path / "m.frozen")
    weights = 784 * 300 + 300 * 10
    parameters = weights // 100 + 310
    size = (tmp_path / "m.frozen").stat().st_size
    assert weights / 8 + 4 * parameters < size < weights / 8 + 4 * parameters + 2000


def small() -> gp.forms.FrozenModel:
    return gp.Model([gp.Dense(3, activation="relu"), gp.Dense(2)], 5, seed=0).freeze()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({".mask": np.zeros(2, np.uint8)}, "the mask is of 16 weights, not 21"),
        ({".values": np.zeros(25, np.float32)}, "damaged description"),
        ({".values": np.zeros(26, np.float64)}, "a frozen model has the arrays"),
        ({".more": np.zeros(1, np.float32)}, "a frozen model has the arrays"),
        ({".mask": np.zeros((1, 3), np.uint8)}, "a frozen model has the arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    content, tensors = frozen_files.described(small()._origin)
    path = tmp_path / "m.frozen"
    path.write_bytes(files.seal(content, tensors | change))
    with pytest.raises(gp.errors.FileFormatError, match=rf"{path}: .*{message}"):
        gp.load(path)


def test_what_is_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path / "m.frozen")
    with pytest.raises(gp.errors.FileFormatError, match="more than the limit of 1,000"):
        gp.load(tmp_path / "m.frozen", max_bytes=1000)


def test_commands_say_that_it_only_predicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gradprune.cli.main import main

    path = tmp_path / "m.frozen"
    small().save(path)
    assert main(["inspect", str(path)]) == 0
    assert "dense1" in capsys.readouterr().out
    assert main(["prune", str(path), "--out", str(tmp_path / "out")]) != 0
    assert "is a frozen model, which only predicts" in capsys.readouterr().err
