"""How much memory a network needs, known before any of it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import SupportsIndex

from gradprune import _core
from gradprune.engine.lowering import lowered
from gradprune.foundation.checks import whole
from gradprune.layers.base import Shape
from gradprune.layers.graph import Step, named_layers, plan, sample_shape

__all__ = ["LARGEST", "check_size", "needed_bytes"]

# For a parameter: itself, its gradient, mask and two moments are 17 bytes; the rest is what reading
# a packed file or freezing takes for a while.
_PARAMETER = 48
_BASE = 96 << 20  # bytes that the network of a file may need however small the file is,
_PER_BYTE = 16 << 10  # and how many more for each byte that it has
LARGEST = 2**46  # bytes of any network: processes have no more addresses; sums in C do not overflow


def needed_bytes(steps: Sequence[Step]) -> int:
    """Return the bytes that a network needs to be trained, or run, one sample after the other.

    They hold parameters with gradient, mask and moments, the values between layers, lists of
    distances and other tables. Every layer states its need, and nothing is allocated.

    Args:
        steps: the steps of the network, see ``plan``.
    """
    tensors = {str(step.layer.name): step.layer.tensors(step.shape) for step in steps}
    parameters = _PARAMETER * sum(prod(p.shape) for own in tensors.values() for p in own)
    features = sum(prod(step.shape) + prod(step.output_shape) for step in steps)
    if parameters + 4 * features > LARGEST:
        return parameters + 4 * features
    nowhere = {name: {parameter.role: 0 for parameter in own} for name, own in tensors.items()}
    fixed, sample = _core.Net([low for _, low in lowered(steps, nowhere).layers]).needs
    return parameters + fixed + sample


def check_size(
    layers: object,
    input_shape: Shape,
    nbytes: int,
    max_bytes: SupportsIndex | None,
    *,
    besides: Callable[[Sequence[Step]], int] = lambda steps: 0,
) -> tuple[Step, ...]:
    """Return the plan of a file's network, if it is no larger than the limit.

    Args:
        layers: as the file says.
        input_shape: likewise.
        nbytes: the size in bytes of the file.
        max_bytes: the limit; None: 96 MiB and 16 KiB more for each byte of the file.
        besides: what reading a file of this format takes more, counted as bytes.

    Raises:
        ValueError: it is larger, or there is no such network.
    """
    limit = _BASE + _PER_BYTE * nbytes
    if max_bytes is not None:
        limit = whole("max_bytes", max_bytes)
    steps = plan(named_layers(layers), sample_shape(input_shape))
    needed = needed_bytes(steps) + besides(steps)
    if needed > limit:
        raise ValueError(
            f"the network needs {needed:,} bytes, more than the limit of {limit:,} for a file of "
            f"{nbytes:,} bytes; max_bytes sets another one"
        )
    return steps
