"""Names of layers: what a layer may be called works everywhere, all else is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune import files
from gradprune.cli import tables

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = RNG.integers(3, size=40)

# Words that files, tables, packed files or the package itself give a meaning to.
WORDS = [
    "mask",
    "optimizer",
    "pruner",
    "quantizer",
    "__metadata__",
    "gradprune",
    "moment0",
    "clip0",
    "mean",
    "before",
    "weights",
    "biases",
    "weight",
    "bias",
    "input",
    "output",
    "class",
    "name",
    "self",
    "total",
    "all",
    "global",
    "layer",
    "relu",
    "same",
    "dense1",
    "architecture",
    "positions of x",
    "end of x",
]
STRANGE = [
    "__proto__",
    "a b",
    " ",
    "[red]x[/red]",
    "[/x]",
    "$a$",
    "$\\frac$",
    "<script>",
    "%s{0}",
    "a/b",
    "/x",
    "a,b;c",
    "a:b=c",
    '"quoted"',
    "ü",
    "\u00fc",
    "u\u0308",
    "层",
    "🙂",
    "-",
    "0",
    "x" * 255,
    "层" * 255,
]


def network(name: str, *, branches: bool) -> gp.Model:
    """A network in which a layer with parameters and one without have the name, or nearly."""
    if branches:
        x = gp.Input(6)
        a = gp.Dense(5, activation="relu", name=name)(x)
        b = gp.Dense(5, name=f"{name[:250]}_b")(a)
        return gp.Model(x, gp.Dense(3, name="last")(a + b), seed=0)
    layers = [
        gp.Dense(5, name=name),
        gp.Activation("relu", name=f"{name[:250]}_b"),
        gp.Dense(4, name="third"),
        gp.Activation("tanh"),
        gp.Dense(3, name="last"),
    ]
    return gp.Model(layers, input_shape=6, seed=0)


@pytest.mark.parametrize(
    ("name", "branches"),
    [(name, i % 2 == 1) for i, name in enumerate([*WORDS, *STRANGE])]
    + [("quantizer", True), ("input", True), ("mask", True)],
)
def test_every_name_goes_everywhere(tmp_path: Path, name: str, *, branches: bool) -> None:
    model = network(name, branches=branches)
    optimizer = gp.Adam(model, clip=gp.AutoClip(), guard=gp.guards.Skip())
    pruner = gp.Pruner(
        model,
        criterion=gp.Taylor(),
        schedule=gp.Cubic(0.5, start=1, stop=4),
        scope="layer",
        exclude="last",
    )
    model.fit(X, Y, optimizer=optimizer, pruner=pruner, batch_size=10, verbose=0)
    gp.Quantizer(model, weights=gp.Codebook(3), exclude=name).quantize()
    assert f"{name}.weight" in model.parameters
    model.save(tmp_path / "model")
    loaded = gp.load(tmp_path / "model")
    assert loaded.layers == model.layers
    assert files._tensors(loaded).keys() == files._tensors(model).keys()
    for key, array in files._tensors(model).items():
        np.testing.assert_array_equal(files._tensors(loaded)[key], array, err_msg=key)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()

    packed = gp.compress(model)
    packed.save(tmp_path / "packed")
    unpacked = gp.load(tmp_path / "packed")
    assert isinstance(unpacked, gp.compression.PackedModel)
    assert unpacked.layers == packed.layers
    assert name in [layer.name for layer in packed.layers]
    small = model.shrink()
    gp.verify(model, loaded, packed, unpacked, small, model.freeze(), x=X)

    assert name in str(model.summary())
    console = tables.make_console((tmp_path / "text").open("w", encoding="utf-8"))
    console.width = 2000
    console.print(tables.summary_table(model.summary()))
    console.print(tables.packed_table(packed))
    console.file.close()
    text = (tmp_path / "text").read_text(encoding="utf-8")
    assert f"positions of {name}.weight" in text
    line = next(line for line in text.splitlines() if f"values of {name}.weight" in line)
    live = int(packed.masks[f"{name}.weight"].sum())
    size = packed.parts[f"values of {name}.weight"]
    assert line.split()[-1] == f"{8 * size / live:.2f}"


@pytest.mark.parametrize("name", ["quantizer", "a,b;c", '"quoted"', "层", "<script>"])
def test_names_as_factors_of_a_sweep(tmp_path: Path, name: str) -> None:
    def trial(seed: int, layer: str) -> dict[str, float]:
        model = gp.Model([gp.Dense(2, name=layer)], input_shape=6, seed=seed)
        model.save(tmp_path / "model")
        return {"total": float(gp.load(tmp_path / "model").predict(X).sum())}

    factors = {"layer": [name, "dense0"], "seed": [0, 1]}
    result, again = (
        gp.sweep(trial, factors, journal=tmp_path / "rows", verbose=0) for _ in range(2)
    )
    assert result.column("layer") == [name, name, "dense0", "dense0"]
    assert again.column("total") == result.column("total")
    result.to_csv(tmp_path / "table")
    assert (tmp_path / "table").read_text(encoding="utf-8").count("dense0") == 2


@pytest.mark.parametrize("name", ["$\\frac$"])
def test_names_in_pictures(name: str) -> None:
    pytest.importorskip("matplotlib")
    from gradprune.plotting.style import picture

    before, model = (network(name, branches=False) for _ in range(2))
    for figure in (
        gp.plotting.plot_weights(before.parameters, model),
        gp.diagnose(model, X, Y).plot(),
    ):
        figure.set_layout_engine("none")  # takes seconds
        assert name in picture(figure, "svg").decode()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ValueError),
        ("a.b", ValueError),
        (".", ValueError),
        (".mask", ValueError),
        ("x" * 256, ValueError),
        ("a\nb", ValueError),
        ("a\0b", ValueError),
        ("\x1b[31m", ValueError),
        ("\ud800", ValueError),
        ("\u202e", ValueError),
        (5, TypeError),
        (b"x", TypeError),
        (("x",), TypeError),
        (True, TypeError),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda **named: gp.Dense(2, **named),
        lambda **named: gp.Conv2D(2, 3, **named),
        lambda **named: gp.LSTM(2, **named),
        gp.BatchNorm,
        gp.Standardize,
        gp.Flatten,
        gp.Add,
    ],
)
def test_other_names_are_refused_when_the_layer_is_made(
    make: Any, name: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="a layer's name must"):
        make(name=name)


def test_a_layer_called_input_is_not_the_input(tmp_path: Path) -> None:
    x = gp.Input(3)
    y = gp.Dense(3, name="input", bias=False)(x)
    z = gp.Dense(3, name="next", bias=False)(y)
    model = gp.Model(x, x + (y + z), seed=0)
    first, second = model.parameters["input.weight"], model.parameters["next.weight"]
    first[...], second[...] = 2 * np.eye(3), 5 * np.eye(3)
    expected = X[:, :3] + 2 * X[:, :3] + 10 * X[:, :3]
    np.testing.assert_allclose(model.predict(X[:, :3]), expected, rtol=1e-6)
    model.save(tmp_path / "model")
    gp.compress(model).save(tmp_path / "packed")
    for path in ("model", "packed"):
        found = gp.load(tmp_path / path).predict(X[:, :3])
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_input_may_be_called_input_where_no_layer_is() -> None:
    """As files say that were written before."""
    layers = [gp.Dense(3, name="a"), gp.Add(inputs=("input", "a"))]
    model = gp.Model(layers, input_shape=3, seed=0)
    new = gp.Model([layers[0], gp.Add(inputs=(".input", "a"))], input_shape=3, seed=0)
    assert model.predict(X[:, :3]).tobytes() == new.predict(X[:, :3]).tobytes()
