"""Packages that some tests compare or work with and that the extra ``test`` does not bring.

A test takes the fixture of the package's name (conftest.py); it is skipped where the package is
missing, and `pytest -m peers` chooses it.
"""

from __future__ import annotations

PEERS = {
    *(
        "dask",
        "mpi4py",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "pandas",
        "pyarrow",
        "qonnx",
        "segno",
        "skl2onnx",
        "tensorboardX",
        "torch",
        "zxingcpp",
    ),
}
