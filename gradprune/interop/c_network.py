"""A network as a file of C99 and its header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from gradprune.engine.network import Network
from gradprune.errors import NonFiniteError, UnsupportedOperationError
from gradprune.interop import c_functions
from gradprune.interop.c_layers import KINDS, CWriter, Writing, copied
from gradprune.interop.c_program import Places, Statement, placed
from gradprune.interop.c_text import Names, folded, sanitized, wrapped
from gradprune.state.locking import locked

__all__ = ["CLayer", "CText", "c_text"]

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class CLayer:
    """What a layer became.

    Attributes:
        name: the layer.
        form: how its weights are kept, or what it does.
        flash: bytes of its constants, size_t being of 32 bits.
        ram: bytes of the workspace that are in use while it runs.
    """

    name: str
    form: str
    flash: int
    ram: int


@dataclass(frozen=True)
class CText:
    """A network in C.

    Attributes:
        source: the text of the file.
        header: the text of its header.
        layers: what became of the layers; those that do nothing are left out.
        work: floats of the workspace.
    """

    source: str
    header: str
    layers: tuple[CLayer, ...]
    work: int


@locked
def c_text(network: Network, name: str, header: str, *, codes: bool) -> CText:
    """Write the network as it is now.

    Args:
        network: the network.
        name: what names of the file begin with.
        header: the name of the header.
        codes: whether weights of few values become codes.

    Raises:
        NonFiniteError: a parameter is not finite.
        UnsupportedOperationError: layers have no form in C, all of which it names.
    """
    writing = _operations(network, codes)
    places = placed(writing.sizes, writing.operations)
    layers = tuple(
        CLayer(operation.layer, operation.form, operation.nbytes, _FLOAT * used)
        for operation, used in zip(writing.operations, places.used, strict=True)
    )
    return CText(
        _source(network, name, header, writing, places, layers),
        _header(network, name, header, places, sum(layer.flash for layer in layers)),
        layers,
        places.floats,
    )


def _operations(network: Network, codes: bool) -> Writing:
    writing = Writing(codes, Names())
    for reserved in c_functions.RESERVED:
        writing.names.new(reserved)
    state = network.get_state()
    for parameter, array in state.items():
        if not np.isfinite(array).all():
            index = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            value = float(array[index])
            raise NonFiniteError.of_parameter("writing C", parameter, index, value)
    values = {-1: writing.value(prod(network.input_shape))}
    refused: list[tuple[str, str, str]] = []
    for number, (step, wiring) in enumerate(zip(network.steps, network.wirings(), strict=True)):
        layer, sources, shape, _ = step
        name = str(layer.name)
        roles = [parameter.role for parameter in layer.tensors(shape)]
        arrays = wiring.counting({role: state[f"{name}.{role}"] for role in roles})
        writer = CWriter(writing, name, roles, arrays)
        lows = layer.lower(shape, {role: number for number, role in enumerate(roles)})
        reads = [values[source] for source in sources]
        unknown = {low.type for low in lows} - KINDS.keys()
        if unknown:
            refused.append((name, type(layer).__name__, f"it computes {', '.join(unknown)}"))
            reads, lows = [writing.value(prod(step.output_shape))], []
        for low in lows:
            reads = [KINDS[low.type](writer, low, reads)]
        values[number] = reads[0]
    if refused:
        raise UnsupportedOperationError.of(refused, "C")
    made = values[len(network.steps) - 1]
    if not writing.operations or writing.operations[-1].write != made:
        last = CWriter(writing, str(network.steps[-1].layer.name), [], {})
        copied(last, writing.sizes[made], [made])
    return writing


def _header(network: Network, name: str, header: str, places: Places, flash: int) -> str:
    guard = f"{sanitized(header).upper()}_"
    inputs, outputs = network.input_shape, network.output_shape
    return f"""\
/* {name}: a network written by gradprune */
#ifndef {guard}
#define {guard}

#define {name}_INPUTS {prod(inputs)} /* floats of x, of the shape {_shape(inputs)} */
#define {name}_OUTPUTS {prod(outputs)} /* floats of y, of the shape {_shape(outputs)} */
#define {name}_WORK {max(places.floats, 1)} /* floats of the workspace */
#define {name}_FLASH {flash} /* bytes of constants */

#ifdef __cplusplus
extern "C" {{
#endif

/* Predicts y of one sample x; they must not overlap. The workspace is on the stack. */
void {name}_predict(const float *x, float *y);

/* The same in a workspace of {name}_WORK floats, whose content does not matter. */
void {name}_predict_in(const float *x, float *y, float *work);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _source(
    network: Network,
    name: str,
    header: str,
    writing: Writing,
    places: Places,
    layers: Sequence[CLayer],
) -> str:
    functions = writing.functions.values()
    headers = ["#include <stddef.h>", "#include <stdint.h>"]
    if any(function.math for function in functions):
        headers.insert(0, "#include <math.h>")
    flash = sum(layer.flash for layer in layers)
    title = wrapped(
        f"{name}: a network written by gradprune, {network.input_shape} to "
        f"{network.output_shape}. {flash} bytes of constants, {_FLOAT * places.floats} bytes of "
        "workspace. Constants are hexadecimal, which no compiler rounds."
    )
    constants = [
        f"{_comment(operation, layer)}\n" + "".join(a.definition for a in operation.arrays)
        for operation, layer in zip(writing.operations, layers, strict=True)
        if operation.arrays
    ]
    lines: list[str] = []
    before = None
    for number, operation in enumerate(writing.operations):
        text = operation.text(
            [places.pointers[value] for value in operation.reads],
            places.pointers[operation.write],
            places.scratch[number],
        )
        heading = [f"/* {_named(operation.layer)} */"] if operation.layer != before else []
        lines += [*heading, *text.splitlines()]
        before = operation.layer
    unused = [] if places.floats else ["(void)work;"]
    body = "\n".join(folded(f"    {line}") for line in [*unused, *lines])
    return f"""\
{title}
{chr(10).join(headers)}

#include "{header}"

{chr(10).join(function.text for function in functions)}
{chr(10).join(constants)}
void {name}_predict_in(const float *x, float *y, float *work)
{{
{body}
}}

void {name}_predict(const float *x, float *y)
{{
    float work[{name}_WORK];
    {name}_predict_in(x, y, work);
}}
"""


def _comment(operation: Statement, layer: CLayer) -> str:
    return wrapped(
        f"{_named(operation.layer)}: {operation.form}; flash {layer.flash} bytes, "
        f"RAM {layer.ram} bytes"
    )


def _named(layer: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in " _-.") else "_" for c in layer)
