"""Sparse layers inside torch: the live weights alone, on the kernels of the core.

One line makes the pruned layers of a module sparse; torch's own optimizers, ``clip_grad_norm_`` and
loops go on as they are:

>>> import torch
>>> import gradprune as gp
>>> from torch.nn.utils import prune
>>> model = torch.nn.Sequential(
...     torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 10)
... )
>>> prune.l1_unstructured(model[0], "weight", 0.95)
Linear(in_features=784, out_features=300, bias=True)
>>> gp.torch.sparsify(model)[0]
SparseLinear(in_features=784, out_features=300, bias=True, live=11760 of 235200)
>>> optimizer = torch.optim.Adam(model.parameters())

Needs torch: ``pip install "gradprune[torch]"``. float32 on the CPU.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - to say what is missing before anything else fails
except ImportError as error:
    raise ImportError('gradprune.torch needs torch: pip install "gradprune[torch]"') from error

from gradprune.torch.conversion import dense_state_dict, densify, sparsify
from gradprune.torch.sparse import SparseConv2d, SparseLayer, SparseLinear

__all__ = [
    "SparseConv2d",
    "SparseLayer",
    "SparseLinear",
    "dense_state_dict",
    "densify",
    "sparsify",
]
