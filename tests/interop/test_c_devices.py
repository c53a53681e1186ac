"""Files of C on other processors: ARM and RISC-V in qemu, and a Cortex-M4 without a system.

Where compilers for them or qemu are missing these tests are skipped; CI installs them from Debian.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import gradprune as gp
from c_networks import FLAGS, has_the_bits, products_network
from cases import IMAGE_CASES, RECURRENT_CASES
from gradprune.engine.network import Network
from gradprune.interop.c_export import to_c
from gradprune.quantization.mixed_precision import Rounding, on_integers
from random_networks import NETWORKS, random_network, samples

Floats = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "cortex_m4"
TARGETS = {
    "arm": ("arm-linux-gnueabihf-gcc", "qemu-arm"),
    "riscv64": ("riscv64-linux-gnu-gcc", "qemu-riscv64"),
}
BARE = "arm-none-eabi-gcc"
needs_bare = pytest.mark.skipif(shutil.which(BARE) is None, reason=f"there is no {BARE}")
needs_board = pytest.mark.skipif(
    None in {shutil.which(tool) for tool in (BARE, "qemu-system-arm", "make")}
    or not EXAMPLE.exists(),
    reason="there is no compiler for it, no qemu or no example",
)

MAIN = """\
#include <stdio.h>
#include <stdlib.h>
{headers}
static void serve(void (*predict)(const float *, float *), size_t inputs, size_t outputs)
{{
    float *x = malloc(inputs * sizeof *x), *y = malloc(outputs * sizeof *y);
    for (int sample = 0; x && y && sample < {samples}; sample++) {{
        if (fread(x, sizeof *x, inputs, stdin) != inputs) exit(1);
        predict(x, y);
        if (fwrite(y, sizeof *y, outputs, stdout) != outputs) exit(2);
    }}
    free(x);
    free(y);
}}
int main(void)
{{
{calls}
    return 0;
}}
"""
SAMPLES = 6


def run(
    folder: Path, target: str, models: Mapping[str, Network], x: Mapping[str, Floats]
) -> dict[str, Floats]:
    """What the files in a folder predict on a processor, from one program."""
    compiler, machine = TARGETS[target]
    calls = "".join(f"    serve({n}_predict, {n}_INPUTS, {n}_OUTPUTS);\n" for n in models)
    headers = "".join(f'#include "{name}.h"\n' for name in models)
    main = folder / "main.c"
    main.write_text(MAIN.format(headers=headers, calls=calls, samples=SAMPLES), "ascii")
    program = folder / "program"
    files = [str(folder / f"{name}.c") for name in models]
    command = [compiler, *FLAGS, "-O1", "-static", str(main), *files, "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    given = b"".join(x[name].tobytes() for name in models)
    made = subprocess.run([machine, program], input=given, capture_output=True, check=True).stdout
    found, numbers = {}, np.frombuffer(made, np.float32)
    for name, model in models.items():
        size = SAMPLES * model.outputs
        found[name] = numbers[:size].reshape(SAMPLES, *model.output_shape)
        numbers = numbers[size:]
    assert numbers.size == 0
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_other_processors_predict_the_same(target: str, tmp_path: Path) -> None:
    """Numbers and codes within 1e-5 of the model; integers with the bits of the frozen model."""
    if None in {shutil.which(tool) for tool in TARGETS[target]}:
        pytest.skip(f"there is no compiler or no qemu for {target}")
    networks: dict[str, tuple[gp.Model, Floats]] = {
        f"products{number}": products_network(number) for number in range(6)
    }
    for number in range(NETWORKS):
        model = random_network(number)
        networks[f"random{number}"] = model, samples(model, number, SAMPLES)
    exact = 0
    for first in range(0, len(networks), 50):
        models: dict[str, Network] = {}
        x: dict[str, Floats] = {}
        wanted: dict[str, Floats] = {}
        folder = tmp_path / str(first)
        folder.mkdir()
        bits = set()
        for name, (model, given) in list(networks.items())[first : first + 50]:
            frozen = model.freeze(precision="int8")
            integers = on_integers(model, Rounding(frozen.exact, frozen.error))
            if integers and has_the_bits(model, integers):
                bits.add(f"{name}_int8")
            shared = model.copy()
            if shared.masks:
                gp.Quantizer(shared, gp.Codebook(6)).quantize()
            for precision, own, form in (
                ("float32", model, model),
                ("int8", model, frozen),
                ("codebook", shared, shared),
            ):
                if precision == "codebook" and not shared.masks:
                    continue
                key = f"{name}_{precision}"
                to_c(own, folder / f"{key}.c", name=None, precision=precision)
                models[key], x[key], wanted[key] = own, given, form.predict(given)
        found = run(folder, target, models, x)
        for key, made in found.items():
            if key in bits:
                assert made.tobytes() == wanted[key].tobytes(), key
            size = max(np.abs(wanted[key]).max(), 1e-30)
            limit = 0.05 if key.endswith("int8") else 1e-5
            assert np.abs(made - wanted[key]).max() <= limit * size, key
        exact += len(bits)
    assert exact >= 5


@needs_bare
@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4"])
def test_microcontrollers_compile_it_without_a_warning(cpu: str, tmp_path: Path) -> None:
    cases = [*RECURRENT_CASES[:3], *IMAGE_CASES[:4]]
    models: dict[str, Network] = {case.name: case.network() for case in cases}
    models |= {f"products{number}": products_network(number)[0] for number in range(2)}
    for name, model in models.items():
        for precision in ("float32", "int8"):
            file = tmp_path / f"{name}_{precision}.c"
            to_c(model, file, name=None, precision=precision)
            command = [BARE, f"-mcpu={cpu}", "-mthumb", *FLAGS, "-Os", "-c", str(file)]
            subprocess.run([*command, "-o", os.devnull], check=True)


def made(folder: Path, *arguments: str) -> str:
    """What make prints in a folder."""
    path = os.pathsep.join([str(Path(gp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["make", "-s", f"PYTHON={sys.executable}", *arguments],
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs_board
def test_the_example_for_a_cortex_m4_runs(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    text = made(folder, "run")
    assert " of 10 are right; ticks a sample: " in text
    assert text.count(" is predicted as ") == 10
    assert "digits.elf" in made(folder, "size")


@needs_board
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_layers_of_all_kinds_predict_there(precision: str, tmp_path: Path) -> None:
    """What needs math.h and a stack, too."""
    layers = [
        gp.Conv1D(6, 3, padding="same"),
        gp.BatchNorm(),
        gp.Activation("tanh"),
        gp.LSTM(8),
        gp.Dense(20, activation="gelu"),
        gp.Dense(10),
    ]
    model = gp.Model(layers, input_shape=(7, 4), seed=0)
    gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    model.to_c(folder / "digits.c", precision=precision)
    x = np.random.default_rng(0).normal(size=(9, 7, 4)).astype(np.float32)
    form = model.freeze(precision=precision)
    labels = form.predict(x).argmax(axis=1)
    rows = ",".join("{" + ",".join(f"{float(v).hex()}f" for v in row.flat) + "}" for row in x)
    (folder / "samples.h").write_text(
        f"#include <stdint.h>\n#define SAMPLES {len(x)}\n"
        f"static const float samples[SAMPLES][28] = {{{rows}}};\n"
        f"static const uint8_t labels[SAMPLES] = {{{','.join(map(str, labels))}}};\n"
    )
    assert f"{len(x)} of {len(x)} are right" in made(folder, "--old-file=make_digits.py", "run")
