"""Files of earlier versions predict what they did: ``old/`` holds what those wrote.

There a Dense took all numbers of a sequence or an image, a LayerNorm normalized all numbers of a
sequence, and a model that ended in sequences or images predicted rows. predicted.npz has samples,
targets, and of each model its predictions, its loss and its predictions after one step more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from gradprune import _core
from gradprune.layers.earlier import as_they_were

OLD = Path(__file__).parent / "old"

# Of each file: its layers now, and the shape of a prediction.
NAMES = {
    "seq": (["gru0", "flatten0", "dense0", "layernorm0", "dropout0", "dense1"], (3,)),
    "image": (["conv2d0", "maxpool2d0", "flatten0", "dense0", "dense1"], (4,)),
    "norm": (["lstm0", "layernorm0", "gru0", "dense0"], (2,)),
    "ends_image": (["conv2d0", "batchnorm0", "conv2d1", "flatten0"], (18,)),
    "ends_sequence": (["rnn0", "flatten0"], (24,)),
    "first": (["flatten1", "flatten0", "dense1"], (2,)),  # a Dense is called flatten0
    "branch": (["flatten0", "dense0", "gru0", "add0", "last"], (2,)),
}

Saved = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def saved() -> Saved:
    with np.load(OLD / "predicted.npz") as stored:
        return dict(stored)


def check(saved: Saved, name: str, found: Any) -> None:
    """Compare bits, or on another instruction set than that of the file, numbers."""
    if saved["isa"] == _core.isa():
        np.testing.assert_array_equal(found, saved[name])
    else:
        np.testing.assert_allclose(found, saved[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_goes_on_as_it_was(saved: Saved, name: str, tmp_path: Path) -> None:
    x, y = saved[f"{name}.x"], saved[f"{name}.y"]
    model = gp.load(OLD / f"{name}.safetensors")
    assert isinstance(model, gp.Model)
    assert ([layer.name for layer in model.layers], model.output_shape) == NAMES[name]
    model.save(tmp_path / "again")  # in today's format
    for loaded in (model, gp.load(tmp_path / "again")):
        assert isinstance(loaded, gp.Model)
        check(saved, f"{name}.predicted", loaded.predict(x))
        check(saved, f"{name}.loss", loaded.evaluate(x, y)["loss"])
        gp.verify(loaded, loaded.freeze(), loaded.shrink(), x=x)
        assert loaded.optimizer is not None
        loaded.train_step(x, y, optimizer=loaded.optimizer)
        check(saved, f"{name}.after", loaded.predict(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_model_predicts_what_it_did(saved: Saved, name: str, tmp_path: Path) -> None:
    pytest.importorskip("constriction")
    packed = gp.load(OLD / f"{name}.gpz")
    assert packed.output_shape == NAMES[name][1]
    check(saved, f"{name}.packed", packed.predict(saved[f"{name}.x"]))
    packed.save(tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == (OLD / f"{name}.gpz").read_bytes()
    again = gp.compress(packed.to_model())
    check(saved, f"{name}.packed", again.predict(saved[f"{name}.x"]))


def test_what_has_not_changed_stays() -> None:
    layers = (gp.Flatten(name="a"), gp.Dense(3, name="b"), gp.LayerNorm(name="c"))
    assert as_they_were(layers, (4, 2)) == layers
    images = (gp.LayerNorm(name="a"), gp.GlobalAvgPool(name="b"))
    assert as_they_were(images, (2, 3, 3)) == images
