"""Files of C: compiled by the system's compiler without a warning, they predict as the model."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from c_networks import FLAGS, has_the_bits, products_network
from cases import CASES, CONVOLVED_CASES, EDGE_CASES, IMAGE_CASES, RECURRENT_CASES, Case
from gradprune.engine.network import Network
from gradprune.errors import FileFormatError, NonFiniteError, UnsupportedOperationError
from gradprune.interop import c_layers
from gradprune.interop.c_export import to_c
from gradprune.interop.c_predictor import CPredictor
from gradprune.interop.c_weights import stored
from gradprune.quantization.mixed_precision import Rounding, on_integers
from random_networks import NETWORKS, random_network, samples

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no compiler")

Floats = NDArray[np.float32]


def compiled(folder: Path, *more: str) -> ctypes.CDLL:
    """All files of the folder as one library, of a name that no other one has."""
    target = folder / f"all{len(list(folder.glob('*.so')))}.so"
    files = map(str, sorted(folder.glob("*.c")))
    command = [
        str(COMPILER),
        *FLAGS,
        "-O0",
        *more,
        "-fPIC",
        "-shared",
        *files,
        "-o",
        str(target),
        "-lm",
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def predicted(library: ctypes.CDLL, name: str, x: Floats, shape: Sequence[int]) -> Floats:
    """What the function makes of each sample."""
    y = np.full((len(x), *shape), np.nan, np.float32)
    function, pointer = getattr(library, f"{name}_predict"), ctypes.POINTER(ctypes.c_float)
    for given, made in zip(np.ascontiguousarray(x, np.float32), y, strict=True):
        function(given.ctypes.data_as(pointer), made.ctypes.data_as(pointer))
    return y


def written(model: Network, path: Path, precision: str = "float32") -> Any:
    return to_c(model, path, name=None, precision=precision)


def in_float64(text: str) -> list[str]:
    """The constants of a file of C that are double: a small CPU has no instructions for them."""
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.findall(r"(?<![\w.])\d+\.\d*(?:e[+-]?\d+)?(?![\d.ef])", code)


def test_constants_in_float64_are_seen() -> None:
    text = "/* 1.5 */ f(x, 12.0, 1.5f, 1e-05f, 2.5e-3f, 3, -0x1.8p1f) + 2.5e-3 * w1.x;"
    assert in_float64(text) == ["12.0", "2.5e-3"]


def check(folder: Path, models: Mapping[str, tuple[Network, Floats]], *flags: str) -> None:
    """The files of all of them, in one library, predict as they do."""
    library = compiled(folder, *flags)
    for path in folder.glob("*.c"):
        assert in_float64(path.read_text(encoding="utf-8")) == [], path.name
    for name, (model, x) in models.items():
        wanted = model.predict(x)
        error = np.abs(predicted(library, name, x, model.output_shape) - wanted).max()
        assert error <= 1e-5 * np.abs(wanted).max() + 1e-30, name


def of_case(case: Case, share: float) -> tuple[Network, Floats]:
    network = case.network()
    network.set_masks(case.masks(share))
    return network, case.batch()[0][:5]


def test_every_kind_of_layer_is_written_in_float32(tmp_path: Path) -> None:
    chosen: dict[frozenset[type], Case] = {}
    for case in CASES:
        chosen.setdefault(frozenset(map(type, case.layers)), case)
    networks = [of_case(case, 0.5)[0] for case in chosen.values()]
    networks.append(gp.Model([gp.Standardize(), gp.Dense(2)], input_shape=(4, 3)))
    for network in networks:
        written(network, tmp_path / "m.c")
        text = (tmp_path / "m.c").read_text(encoding="utf-8")
        assert in_float64(text) == [], network.layers


CHOSEN = (*EDGE_CASES[:6], *RECURRENT_CASES[:9], *RECURRENT_CASES[-5:], *IMAGE_CASES[:9])


@needs_compiler
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_cases(tmp_path: Path, share: float) -> None:
    cases = (*CHOSEN, *CONVOLVED_CASES[:8])[:: 1 if share else 4]
    models = {case.name: of_case(case, share) for case in cases}
    for name, (model, _) in models.items():
        written(model, tmp_path / f"{name}.c")
    check(tmp_path, models)


@needs_compiler
def test_random_networks(tmp_path: Path) -> None:
    """With emptied rows, channels and layers; every other one after it has shrunk."""
    for first in range(0, NETWORKS, 50):
        folder = tmp_path / str(first)
        folder.mkdir()
        models = {}
        for number in range(first, min(first + 50, NETWORKS)):
            model = random_network(number)
            x = samples(model, number)
            model = model.shrink() if number % 2 else model
            models[f"random{number}"] = (model, x)
            written(model, folder / f"random{number}.c")
        check(folder, models)


@needs_compiler
def test_a_layer_of_the_core_of_each_kind_is_among_them() -> None:
    """So that a new kind gets its case."""
    cases = (*CHOSEN, *CONVOLVED_CASES[:8])
    networks = [case.network() for case in cases] + [random_network(n) for n in range(20)]
    seen = {core.type for network in networks for _, core in network.core_layers}
    assert seen >= c_layers.KINDS.keys() - {"embedding"}


def test_what_a_file_looks_like(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(64, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.95)
    report = model.to_c(tmp_path / "digits.c")
    source, header = (Path(p).read_text("ascii") for p in (report.path, report.header))
    assert "void digits_predict(const float *x, float *y)" in source
    assert "#define digits_INPUTS 64 " in header
    assert "#define digits_OUTPUTS 10 " in header
    assert "malloc" not in source
    assert "math.h" not in source
    assert "/* dense0: sparse, " in source
    assert max(map(len, (source + header).splitlines())) <= 100
    dense = [layer for layer in report.layers if "weights" in layer.form]
    assert [layer.name for layer in dense] == ["dense0", "dense1"]
    live = int(sum(mask.sum() for mask in model.masks.values()))
    assert report.flash >= 5 * live  # a gap and a value each; all biases are 0
    assert report.flash < 5.5 * live + 74
    assert report.ram == 4 * 64  # the output lies in y
    assert "total" in str(report)


def test_dense_where_it_is_smaller(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(50), gp.Dense(3)], input_shape=50, seed=0)
    masks = {name: np.ones_like(mask) for name, mask in model.masks.items()}
    masks["dense0.weight"][:, 5:] = False
    model.set_masks(masks)
    first, second = (layer.form for layer in model.to_c(tmp_path / "m.c").layers)
    assert first == "sparse, 250 of 2500 weights"
    assert second == "dense, 150 of 150 weights"


def test_values_share_their_places(tmp_path: Path) -> None:
    layers = [gp.Dense(100, activation="tanh") for _ in range(6)]
    model = gp.Model([*layers, gp.Dense(2)], input_shape=7, seed=0)
    assert model.to_c(tmp_path / "m.c").ram == 4 * 200


def makes_programs(folder: Path, flags: Sequence[str]) -> bool:
    """Whether the compiler knows these flags and has their libraries."""
    folder.mkdir()
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }", "ascii")
    command = [str(COMPILER), *flags, str(source), "-o", str(folder / "empty")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@needs_compiler
def test_hostile_numbers(tmp_path: Path) -> None:
    """Of NaN, infinities and huge numbers no function makes anything undefined."""
    models = {f"random{n}": random_network(n) for n in range(8)}
    models |= {f"products{n}": products_network(n)[0] for n in range(4)}
    shared = products_network(4)[0]
    gp.Quantizer(shared, gp.Codebook(6)).quantize()
    for name, model in models.items():
        written(model, tmp_path / f"{name}.c", "int8" if "products" in name else "float32")
    models["shared"] = shared
    written(shared, tmp_path / "shared.c", "codebook")
    calls = []
    for name, model in models.items():
        inputs, outputs = int(np.prod(model.input_shape)), int(np.prod(model.output_shape))
        calls.append(f"check({name}_predict, {inputs}, {outputs});")
    main = f"""\
#include <math.h>
#include <stdlib.h>
{"".join(f'#include "{name}.h"' + chr(10) for name in models)}
static void check(void (*predict)(const float *, float *), size_t inputs, size_t outputs)
{{
    const float hostile[] = {{NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f}};
    float *x = malloc(inputs * sizeof *x), *y = malloc(outputs * sizeof *y);
    for (size_t k = 0; x && y && k < 7; k++) {{
        for (size_t i = 0; i < inputs; i++) x[i] = hostile[i % 3 ? k : (k + i) % 7];
        predict(x, y);
    }}
    free(x);
    free(y);
}}
int main(void)
{{
    {"".join(calls)}
    return 0;
}}
"""
    (tmp_path / "main.c").write_text(main, "ascii")
    target = tmp_path / "hostile"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if not makes_programs(tmp_path / "empty", sanitizers):
        pytest.skip("the compiler has no sanitizers")
    files = map(str, sorted(tmp_path.glob("*.c")))
    command = [str(COMPILER), *FLAGS, "-O0", *sanitizers, *files, "-o", str(target), "-lm"]
    subprocess.run(command, check=True)
    subprocess.run([target], check=True, timeout=60, env={"ASAN_OPTIONS": "detect_leaks=0"})


@needs_compiler
def test_names_of_layers_do_no_harm(tmp_path: Path) -> None:
    names = ["*/ x", "a/b", "a_b", "int", "7", "pool", "ä??/", "y"]
    model = gp.Model([gp.Dense(2, name=name) for name in names], input_shape=2, seed=0)
    x = np.ones((1, 2), np.float32)
    written(model, tmp_path / "int.c")
    check(tmp_path, {"int": (model, x)})


@needs_compiler
def test_what_does_nothing_copies(tmp_path: Path) -> None:
    model = gp.Model([gp.Flatten(), gp.Dropout(0.5)], input_shape=(3, 2), seed=0)
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    assert written(model, tmp_path / "same.c").ram == 0
    check(tmp_path, {"same": (model, x)})


def test_layers_without_a_form_are_all_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {name: c_layers.KINDS[name] for name in ("dense", "activation")}
    monkeypatch.setattr("gradprune.interop.c_network.KINDS", kinds)
    layers = [gp.GRU(3), gp.Dense(4), gp.LayerNorm(), gp.Dense(2)]
    model = gp.Model(layers, input_shape=(5, 2), seed=0)
    with pytest.raises(UnsupportedOperationError) as caught:
        model.to_c(tmp_path / "m.c")
    assert str(caught.value) == (
        "2 operations have no counterpart in C:\n"
        "  gru0: GRU: it computes recurrent\n"
        "  layernorm0: LayerNorm: it computes layernorm"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    for arguments, message in (
        ({"path": "m.cpp"}, 'path must end in ".c", got'),
        ({"path": "m.c", "name": "2m"}, "name must be letters"),
        ({"path": 'm".c'}, "cannot include"),
        ({"path": "m??-.c"}, "cannot include"),  # a trigraph, which stands for ~
        ({"path": "m.c", "precision": "int4"}, "precision must be one of 'float32', 'int8', "),
        ({"path": "m.c", "x": np.ones((4, 3))}, 'x is for precision="int8"'),
        ({"path": "m.c", "precision": "int8", "x": np.ones((4, 2))}, "x must have shape"),
        ({"path": "m.c", "precision": "codebook"}, "share few values, and the model has none"),
    ):
        with pytest.raises(ValueError, match=message):
            model.to_c(**{**arguments, "path": tmp_path / arguments["path"]})
    with pytest.raises(FileNotFoundError):
        model.to_c(tmp_path / "missing" / "m.c")
    model.parameters["dense0.weight"][1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"dense0.weight\[1, 2\] is nan"):
        model.to_c(tmp_path / "m.c")
    assert list(tmp_path.iterdir()) == []


def quantized(*schemes: Any) -> dict[str, tuple[gp.Model, Floats]]:
    """A network of convolutions, recurrence and products, pruned and quantized."""
    rng = np.random.default_rng(0)
    models: dict[str, tuple[gp.Model, Floats]] = {}
    for number, scheme in enumerate(schemes):
        layers = [gp.Conv1D(24, 3, activation="relu"), gp.LSTM(16), gp.Dense(40), gp.Dense(3)]
        model = gp.Model(layers, input_shape=(9, 20), seed=number)
        gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5 * (number % 2) + 0.4)
        gp.Quantizer(model, scheme).quantize()
        models[f"quantized{number}"] = (model, rng.normal(size=(7, 9, 20)).astype(np.float32))
    return models


SCHEMES = (gp.Codebook(4), gp.Codebook(16), gp.Codebook(200), gp.Codebook(8, per="row"), gp.Grid(4))


@needs_compiler
def test_codebooks(tmp_path: Path) -> None:
    """Weights are exactly those of the model, as codes where that is smaller."""
    models = quantized(*SCHEMES)
    for name, (model, _) in models.items():
        plain = written(model, tmp_path / f"{name}_plain.c")
        report = written(model, tmp_path / f"{name}.c", "codebook")
        assert report.flash <= plain.flash
        if "per='row'" not in str(model.quantizer.weights):  # of rows with few live weights
            assert report.flash < 0.75 * plain.flash
            assert any("codes" in layer.form for layer in report.layers)
    check(tmp_path, models)


@needs_compiler
def test_random_networks_of_shared_values(tmp_path: Path) -> None:
    models = {}
    for number in range(NETWORKS):
        model = random_network(number)
        if model.masks:
            scheme = (gp.Codebook(6), gp.Codebook(40), gp.Codebook(3, per="row"))[number % 3]
            gp.Quantizer(model, scheme).quantize()
            models[f"shared{number}"] = (model, samples(model, number))
            written(model, tmp_path / f"shared{number}.c", "codebook")
    check(tmp_path, models)


@needs_compiler
def test_integers_have_the_bits_of_the_frozen_model(tmp_path: Path) -> None:
    """Of the networks below all that one computes; of others what rounding leaves."""
    models = {f"products{number}": products_network(number) for number in range(12)}
    randoms = [(number, random_network(number)) for number in range(NETWORKS)]
    models |= {f"random{number}": (model, samples(model, number)) for number, model in randoms}
    exact = 0
    for first in range(0, len(models), 50):
        chosen = dict(list(models.items())[first : first + 50])
        folder = tmp_path / str(first)
        folder.mkdir()
        for name, (model, _) in chosen.items():
            written(model, folder / f"{name}.c", "int8")
        library = compiled(folder)
        for name, (model, x) in chosen.items():
            frozen = model.freeze(precision="int8")
            wanted, made = frozen.predict(x), predicted(library, name, x, model.output_shape)
            integers = on_integers(model, Rounding(frozen.exact, frozen.error))
            if has_the_bits(model, integers):
                assert made.tobytes() == wanted.tobytes(), name
                exact += bool(integers)
            error = np.abs(made - wanted).max() / max(np.abs(wanted).max(), 1e-30)
            assert error <= frozen.tolerance, name
    assert exact >= 10


@needs_compiler
def test_integers_are_kept_as_bytes(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(60, activation="relu"), gp.Dense(10)], input_shape=50, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude(), scope="layer").prune(0.7)
    report = model.to_c(tmp_path / "m.c", precision="int8")
    live = {name: int(mask.sum()) for name, mask in model.masks.items()}
    first, _, second = report.layers
    assert first.form == f"int8, sparse, {live['dense0.weight']} of 3000 weights"
    assert second.form == f"int8, sparse, {live['dense1.weight']} of 600 weights"
    # a gap and a byte each; counts and a scale of each row
    assert first.flash == 2 * live["dense0.weight"] + 60 + 4 * 60
    assert first.ram == 4 * 60 + 4 * 13
    assert report.tolerance == 0.05
    x = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    assert gp.verify(model.freeze(precision="int8"), tmp_path / "m.c", x=x)
    assert gp.verify(model, tmp_path / "m.c", x=x)


@needs_compiler
def test_frozen_and_packed_models_write_themselves(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(20, activation="relu"), gp.Dense(3)], input_shape=9, seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    gp.Quantizer(model, gp.Codebook(16)).quantize()
    x = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    frozen, packed = model.freeze(precision="int8"), gp.compress(model)
    for name, given, precision in (("frozen", None, "int8"), ("plain", "float32", "float32")):
        assert frozen.to_c(tmp_path / f"{name}.c", precision=given).precision == precision
        model.to_c(tmp_path / f"{name}_too.c", name=name, precision=precision)
        assert (tmp_path / f"{name}.c").read_text().replace(f"{name}.h", f"{name}_too.h") == (
            tmp_path / f"{name}_too.c"
        ).read_text()
        assert gp.verify(model, tmp_path / f"{name}.c", x=x)
    packed.to_c(tmp_path / "packed.c", precision="codebook")
    assert gp.verify(model, packed, tmp_path / "packed.c", x=x)


@needs_compiler
def test_samples_that_no_byte_can_hold(tmp_path: Path) -> None:
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    model.to_c(tmp_path / "m.c", precision="int8")
    library, frozen = compiled(tmp_path), model.freeze(precision="int8")
    x = np.array([[0, 0, 0], [1e-31, 0, -1e-31], [3e38, -3e38, 0], [1e-45, 1, 2]], np.float32)
    assert predicted(library, "m", x, (2,)).tobytes() == frozen.predict(x).tobytes()
    bad = np.array([[np.nan, 1, 2], [np.inf, 0, 0], [1, -np.inf, np.nan]], np.float32)
    assert np.isnan(predicted(library, "m", bad, (2,))).all()


def test_codes_of_four_bits_where_sixteen_values_do(tmp_path: Path) -> None:
    weight = np.zeros((4, 1000), np.float32)
    weight[:, ::10] = np.arange(1, 101) % 16
    matrix = stored(weight, codes=True)
    assert str(matrix) == "sparse, 376 of 4000 weights, 4-bit codes of 15 values"
    assert matrix.nbytes == 376 + 376 // 2 + 4 * 15 + 4
    weight[0, 0] = 99
    weight[0, 20] = 98
    assert stored(weight, codes=True).form.bits == 8
    full = stored(weight[:, ::10], codes=True)
    assert str(full) == "dense, 376 of 400 weights, 8-bit codes of 18 values"


def test_each_row_has_its_table_where_that_is_smaller() -> None:
    rows = np.arange(1, 301)[:, np.newaxis] * np.ones((1, 50))
    rows[:, ::2] *= -1
    matrix = stored(rows.astype(np.float32), codes=True)
    assert str(matrix) == "dense, 15000 of 15000 weights, 4-bit codes of 2 values a row"
    assert matrix.nbytes == 15000 // 2 + 300 * 2 * 4


@needs_compiler
def test_long_gaps(tmp_path: Path) -> None:
    """Zeros in runs of 254, 255, 256, 510 and more, and rows without weights."""
    weight = np.zeros((9, 1200), np.float32)
    for row, gap in enumerate((0, 253, 254, 255, 256, 509, 510, 511)):
        weight[row, [gap, gap + 1, 1199]] = 1, 2, 3
        weight[row, min(2 * gap + 1, 1198)] = 4
    model = gp.Model([gp.Dense(9)], input_shape=1200, seed=0)
    model.parameters["dense0.weight"][...] = weight
    x = np.random.default_rng(0).normal(size=(3, 1200)).astype(np.float32)
    assert "sparse" in written(model, tmp_path / "gaps.c").layers[0].form
    check(tmp_path, {"gaps": (model, x)})


@needs_compiler
def test_packed_models(tmp_path: Path) -> None:
    pytest.importorskip("constriction")
    model, x = quantized(gp.Codebook(16))["quantized0"]
    packed = gp.compress(model)
    report = packed.to_model().to_c(tmp_path / "packed.c", precision="codebook")
    assert all("codes" in layer.form for layer in report.layers if "weights" in layer.form)
    gp.verify(packed, tmp_path / "packed.c", x=x)


@needs_compiler
def test_embeddings(tmp_path: Path) -> None:
    """Numbers that name no row take the nearest one."""
    layers = [gp.Embedding(11, 5), gp.GRU(4), gp.Dense(2)]
    model = gp.Model(layers, input_shape=6, seed=0)
    x = np.random.default_rng(0).integers(0, 11, (20, 6)).astype(np.float32)
    written(model, tmp_path / "words.c")
    check(tmp_path, {"words": (model, x)})
    library = compiled(tmp_path, "-fsanitize=undefined", "-fno-sanitize-recover=all")
    rows = np.array([[-1, 99, np.inf, -np.inf, np.nan, 10.5]], np.float32)
    near = np.array([[0, 10, 10, 0, 0, 10]], np.float32)
    y = predicted(library, "words", rows, (2,))
    assert np.allclose(y, model.predict(near), atol=1e-5)


# ---- files of C among the forms that gp.verify takes ---------------------------------------------


@needs_compiler
def test_verify(tmp_path: Path) -> None:
    layers = [gp.Conv1D(4, 3, activation="relu"), gp.GRU(5, return_sequences=True)]
    model = gp.Model(layers, input_shape=(6, 3), seed=0)
    x = np.random.default_rng(0).normal(size=(9, 6, 3))
    path = tmp_path / "sequence.c"
    model.to_c(path, name="other")
    report = gp.verify(model, model.freeze(), path, x=x)
    assert report.errors["sequence.c"] < 1e-6
    with pytest.raises(ValueError, match=r"sequence.c takes \(n, 6, 3\), got \(9, 3, 6\)"):
        CPredictor(path).predict(x.reshape(9, 3, 6))
    model.parameters["gru0.weight_ih"][0, 0] += 1
    with pytest.raises(gp.analysis.VerificationError, match=r"sequence\.c differs"):
        gp.verify(model, path, x=x)


@needs_compiler
def test_files_of_c_that_are_not_ours(tmp_path: Path) -> None:
    path, header = tmp_path / "m.c", tmp_path / "m.h"
    with pytest.raises(FileNotFoundError):
        CPredictor(path)
    gp.Model([gp.Dense(2)], input_shape=3, seed=0).to_c(path)
    text, known = path.read_text("ascii"), header.read_text("ascii")
    path.write_text(text.replace("float", "flaot"), "ascii")
    with pytest.raises(FileFormatError, match=r"m\.c: \w+ fails: .*flaot"):
        CPredictor(path)
    path.write_text(text.replace("m_predict(", "p("), "ascii")
    header.write_text(known.replace("m_predict(", "p("), "ascii")
    with pytest.raises(FileFormatError, match="there is no function m_predict"):
        CPredictor(path)
    header.write_text("int x;", "ascii")
    with pytest.raises(FileFormatError, match=r"none that Model\.to_c writes"):
        CPredictor(path)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradprune.interop.c_predictor.shutil.which", lambda name: None)
    model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
    model.to_c(tmp_path / "m.c")
    with pytest.raises(ImportError, match="there is none of cc, gcc, clang: install one"):
        gp.verify(model, tmp_path / "m.c", x=np.ones((1, 3)))
