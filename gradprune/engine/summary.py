"""The summary of a network: parameters, multiplications and bytes, dense and effective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from gradprune.engine.network import Network
from gradprune.foundation.columns import Table
from gradprune.foundation.display import Displayed
from gradprune.layers.base import Layer, Parameter
from gradprune.state.costs import Costs
from gradprune.state.locking import locked

__all__ = ["LayerSummary", "Summary", "kind_of", "summarize"]

_HEADINGS = (
    "layer",
    "type",
    "outputs",
    "parameters",
    "kept",
    "MACs",
    "effective",
    "bytes",
    "non-zero",
    "kernel",
)


@dataclass(frozen=True)
class LayerSummary:
    """The counts of a layer, or of all layers."""

    name: str
    kind: str
    outputs: int  # features a sample
    parameters: int
    kept: int  # parameters that are not removed
    macs_dense: int  # multiply-accumulates a sample
    macs_effective: int  # those of kept weights
    bytes_dense: int  # float32
    bytes_nonzero: int  # float32 numbers that are not 0, without their positions
    kernel: str  # how the engine runs it; "" where there is nothing to choose


@dataclass(frozen=True, repr=False)
class Summary(Displayed):
    """The result of ``model.summary()``; ``print`` shows a table, and so does a notebook.

    Attributes:
        layers: one LayerSummary for each layer.
        total: their sums.
        sparsity: share of the prunable weights that is removed.
        costs: the shares of kept weights up to which a layer's kernel is sparse; "kernel" is for
            batches of 64 and more.
        notes: lines below the table, such as what the model was shrunk from.
    """

    layers: tuple[LayerSummary, ...]
    total: LayerSummary
    sparsity: float
    costs: Costs
    notes: tuple[str, ...] = ()

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        rows = [_cells(row) for row in (*self.layers, self.total)]
        table = Table(_HEADINGS, rows, words={0, 1, 9}, total=True)
        lines_below = [f"sparsity {self.sparsity:.2%}"]
        if self.sparsity:
            shares = " / ".join(f"{share:.0%}" for share in self.costs.most)
            lines_below.append(
                f"sparse kernels up to {shares} kept at 16 / 32 / 48 / 64 samples"
                f" ({self.costs.source})"
            )
        return [table, *lines_below, *self.notes]


def _cells(row: LayerSummary) -> tuple[str, ...]:
    numbers = (
        row.outputs,
        row.parameters,
        row.kept,
        row.macs_dense,
        row.macs_effective,
        row.bytes_dense,
        row.bytes_nonzero,
    )
    return (row.name, row.kind, *(f"{number:,}" for number in numbers), row.kernel)


def summarize(network: Network, *, notes: tuple[str, ...] = ()) -> Summary:
    """Count parameters, multiplications and bytes of a network.

    A multiply-accumulate (MAC) is counted for each weight whenever it multiplies: once a sample in
    a Dense layer, once a place in a convolution, once a step of a sequence in a recurrent or
    Dense layer. Biases and activations are not counted.

    >>> from gradprune.layers.dense import Dense
    >>> network = Network([Dense(3, activation="relu"), Dense(2)], input_shape=4)
    >>> network.set_mask("dense0.weight", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    >>> total = summarize(network).total
    >>> total.parameters, total.kept, total.macs_dense, total.macs_effective
    (23, 14, 18, 9)
    """
    rows: list[LayerSummary] = []
    with network.lock:
        for layer, _, shape, output_shape in network.steps:
            rows.append(_row(network, layer, prod(output_shape), layer.tensors(shape)))
        total = _total(rows, network.outputs)
        return Summary(tuple(rows), total, network.sparsity, network.costs, notes)


@locked
def _row(
    network: Network, layer: Layer, outputs: int, tensors: Sequence[Parameter]
) -> LayerSummary:
    parameters = removed = nonzero = macs = removed_macs = 0
    for tensor in tensors:
        if not tensor.trainable:
            continue
        name = f"{layer.name}.{tensor.role}"
        size = prod(tensor.shape)
        parameters += size
        nonzero += int(np.count_nonzero(network.arena.live(name)))
        if tensor.prunable:
            gone = size - int(np.count_nonzero(network.masks[name]))
            removed += gone
            macs += tensor.uses * size
            removed_macs += tensor.uses * gone
    kernel = ""
    if any(tensor.prunable for tensor in tensors):
        kernel = "sparse" if network.is_sparse(str(layer.name)) else "dense"
    return LayerSummary(
        name=str(layer.name),
        kind=kind_of(layer),
        outputs=outputs,
        parameters=parameters,
        kept=parameters - removed,
        macs_dense=macs,
        macs_effective=macs - removed_macs,
        bytes_dense=4 * parameters,
        bytes_nonzero=4 * nonzero,
        kernel=kernel,
    )


def _total(rows: Sequence[LayerSummary], outputs: int) -> LayerSummary:
    return LayerSummary(
        name="total",
        kind="",
        outputs=outputs,
        parameters=sum(row.parameters for row in rows),
        kept=sum(row.kept for row in rows),
        macs_dense=sum(row.macs_dense for row in rows),
        macs_effective=sum(row.macs_effective for row in rows),
        bytes_dense=sum(row.bytes_dense for row in rows),
        bytes_nonzero=sum(row.bytes_nonzero for row in rows),
        kernel="",
    )


def kind_of(layer: Layer) -> str:
    """A word or two about the layer, and what it reads if that is not the layer before."""
    return f"{layer.label} of {' + '.join(layer.inputs)}" if layer.inputs else layer.label
