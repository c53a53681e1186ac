"""What each part of the packed file's coder saves, on one saved model.

python benchmarks/gpz_parts.py model.safetensors
"""

from __future__ import annotations

import lzma
import sys
import zlib

import numpy as np

import gradprune as gp
from gradprune.compression.gpz import PackedModel
from gradprune.compression.range_coder import Encoder


def entropy(counts: np.ndarray) -> float:
    """Bytes of symbols with these counts, each coded by itself at its frequency."""
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


def zero_order(model: gp.Model) -> tuple[float, float]:
    """Bytes of positions and of values with codebooks, by layer."""
    positions = values = 0.0
    for name, view in model.parameters.items():
        live = model.masks.get(name, view != 0)
        book, counts = np.unique(view[live], return_counts=True)
        positions += entropy(np.bincount(live.ravel().astype(int), minlength=2))
        values += entropy(counts) + 4 * len(book)
    return positions, values


def sparse_rows(model: gp.Model) -> bytes:
    """Compressed sparse rows: counts and columns of 16 bits, codes of 8, codebooks of float32."""
    out = []
    for name, view in model.parameters.items():
        live = model.masks.get(name, view != 0)
        rows = np.atleast_2d(live)
        book, codes = np.unique(view[live], return_inverse=True)
        codes = codes.astype(np.uint8 if len(book) <= 256 else np.uint16)
        out += [rows.sum(axis=1).astype("<u2"), np.nonzero(rows)[1].astype("<u2"), codes, book]
    return b"".join(array.tobytes() for array in out)


def adaptive(model: gp.Model) -> float:
    """The range coder with counts alone: bits of the masks, symbols of the codebooks."""
    encoder = Encoder()
    size = 0.0
    for name, view in model.parameters.items():
        live = model.masks.get(name, view != 0)
        encoder.adaptive(2, live.ravel().astype(np.int64), live.size)
        book, codes = np.unique(view[live], return_inverse=True)
        encoder.adaptive(len(book), codes.astype(np.int64), codes.size)
        size += 4 * len(book)
    return size + encoder.total / 8


def main() -> int:
    loaded = gp.load(sys.argv[1])
    model = loaded.to_model() if isinstance(loaded, PackedModel) else loaded
    exact, packed = gp.compress(model, canonical=False), gp.compress(model)
    small = packed.to_model()
    positions, values = zero_order(model)
    rows = sparse_rows(model)
    lines = {
        "float32 parameters": 4.0 * model.arena.size,
        "sparse rows": float(len(rows)),
        "sparse rows, zlib": float(len(zlib.compress(rows, 9))),
        "sparse rows, lzma": float(len(lzma.compress(rows, preset=9))),
        "adaptive counts": adaptive(model),
        "entropy of order 0": positions + values,
        "  without dead units": sum(zero_order(small)),
        "gpz, canonical=False": float(exact.nbytes),
        "gpz": float(packed.nbytes),
    }
    for name, size in lines.items():
        print(f"{name:24}{size:12,.0f} bytes  {lines['float32 parameters'] / size:8.1f} x")
    live = sum(int(mask.sum()) for mask in packed.masks.values())
    print(f"\npositions {positions:,.0f} bytes at order 0 of the whole matrices")
    for part, size in packed.parts.items():
        print(f"  {part:32}{size:8,}")
    print(f"{8 * packed.nbytes / live:.2f} bits for each of {live:,} live weights, all included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
