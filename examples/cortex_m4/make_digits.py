"""Trains a small network on handwritten digits, prunes it and writes digits.c and samples.h.

python make_digits.py                 # weights that share 16 values: 4 bits each
python make_digits.py int8            # weights and inputs of 8 bits
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gradprune as gp

HERE = Path(__file__).parent
SAMPLES = 10


def trained(precision: str) -> gp.Model:
    """A network of 64-64-10 with a fifth of its weights."""
    (x, y), _ = gp.datasets.digits()
    model = gp.Model([gp.Dense(64, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
    optimizer = gp.Adam(model, lr=3e-3)
    schedule = gp.Cubic(0.8, start=200, stop=900, every=50)
    pruner = gp.Pruner(model, criterion=gp.Magnitude(), schedule=schedule)
    model.fit(x, y, optimizer=optimizer, pruner=pruner, epochs=30, verbose=0)
    if precision == "codebook":
        gp.Quantizer(model, gp.Codebook(16)).quantize()
        model.fit(x, y, optimizer=optimizer, epochs=5, verbose=0)
    return model


def header(x: np.ndarray, y: np.ndarray) -> str:
    """Samples and their labels as C."""
    rows = ",\n".join("{" + ", ".join(f"{float(v).hex()}f" for v in row) + "}" for row in x)
    return (
        f"#include <stdint.h>\n#define SAMPLES {len(x)}\n"
        f"static const float samples[SAMPLES][{x.shape[1]}] = {{\n{rows}}};\n"
        f"static const uint8_t labels[SAMPLES] = {{{', '.join(map(str, y))}}};\n"
    )


def main(precision: str = "codebook") -> None:
    """Write the files beside this one."""
    model = trained(precision)
    _, (x, y) = gp.datasets.digits()
    print(f"accuracy {model.evaluate(x, y)['accuracy']:.3f}, {model.sparsity:.0%} removed")
    print(model.to_c(HERE / "digits.c", precision=precision))
    (HERE / "samples.h").write_text(header(x[:SAMPLES], y[:SAMPLES]), "ascii")


if __name__ == "__main__":
    main(*sys.argv[1:2])
