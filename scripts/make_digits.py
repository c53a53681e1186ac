"""Write gradprune/data/digits.npz, the data set that is embedded in the package.

Source: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak,
1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0), as carried by
scikit-learn in the file behind ``sklearn.datasets.load_digits``: 1,797 lines of 64 grey levels
0..16 and a label 0..9. The values are unchanged and in their original order; only the container
differs (text there, uint8 arrays ``x`` and ``y`` here).

Run ``python scripts/make_digits.py`` with scikit-learn installed. The archive carries no time
stamps; the checksums printed are of the arrays, since zlib versions may compress differently.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parents[1] / "gradprune" / "data" / "digits.npz"


def main() -> None:
    source = resources.files("sklearn.datasets.data") / "digits.csv.gz"
    table = np.loadtxt(
        gzip.decompress(source.read_bytes()).decode("ascii").splitlines(), delimiter=","
    )
    if table.shape != (1797, 65) or table.min() != 0 or table[:, :64].max() != 16:
        raise SystemExit(
            f"unexpected table: shape {table.shape}, range {table.min()}..{table.max()}"
        )
    rows = table.astype(np.uint8)
    if not np.array_equal(rows, table):
        raise SystemExit("unexpected table: not all values are small integers")
    x = np.ascontiguousarray(rows[:, :64])
    y = np.ascontiguousarray(rows[:, 64])
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, x=x, y=y)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
    for name, array in (("x", x), ("y", y)):
        print(f"{name} {array.shape} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()
