"""A network as a file of C99 and its header."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from gradprune.engine.network import Network
from gradprune.errors import NonFiniteError, UnsupportedOperationError
from gradprune.interop import c_functions
from gradprune.interop.c_folding import fold, folded_norms
from gradprune.interop.c_layers import KINDS, CWriter, Named, Writing, copied
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
def c_text(
    network: Network,
    name: str,
    header: str,
    *,
    precision: str,
    integers: Collection[int],
) -> CText:
    """Write the network as it is now.

    Args:
        network: the network.
        name: what names of the file begin with.
        header: the name of the header.
        precision: what the header says of it; with "codebook" weights of few values become codes.
        integers: the layers of the core that run on integers.

    Raises:
        NonFiniteError: a parameter is not finite.
        UnsupportedOperationError: layers have no form in C, all of which it names.
    """
    writing = _operations(network, precision == "codebook", integers)
    places = placed(writing.sizes, writing.operations)
    layers = tuple(
        CLayer(operation.layer, operation.form, operation.nbytes, _FLOAT * used)
        for operation, used in zip(writing.operations, places.used, strict=True)
    )
    return CText(
        _source(network, name, header, writing, places, layers),
        _header(network, name, header, precision, places, sum(layer.flash for layer in layers)),
        layers,
        places.floats,
    )


def _operations(network: Network, codes: bool, integers: Collection[int]) -> Writing:
    writing = Writing(codes, Names())
    for reserved in c_functions.RESERVED:
        writing.names.new(reserved)
    numbers = _numbers(network)
    layers = {str(layer.name): type(layer).__name__ for layer in network.layers}
    core = [low for _, low in network.core_layers]
    folded = {} if codes else folded_norms(core, numbers)
    values = {-1: writing.value(prod(network.input_shape))}
    refused: list[tuple[str, str, str]] = []
    for position, (name, low) in enumerate(network.core_layers):
        reads = [values[position - back] for back in low.back]
        if low.type not in KINDS:
            refused.append((name, layers[name], f"it computes {low.type}"))
            values[position] = writing.value(low.outputs)
        elif position in folded.values():
            values[position] = reads[0]
        else:
            norm = core[folded[position]] if position in folded else None
            made, own = (low, numbers) if norm is None else fold(low, norm, numbers)
            writer = CWriter(writing, name, own, position in integers)
            values[position] = KINDS[low.type](writer, made, reads)
    if refused:
        raise UnsupportedOperationError.of(refused, "C")
    output = values[len(network.core_layers) - 1]
    if not writing.operations or writing.operations[-1].write != output:
        last = CWriter(writing, network.core_layers[-1][0], {})
        copied(last, writing.sizes[output], [output])
    return writing


def _numbers(network: Network) -> dict[int, Named]:
    """The parameters and buffers by their place, as the layers compute with them.

    Raises:
        NonFiniteError: one of them is not finite.
    """
    state = network.get_state()
    for parameter, array in state.items():
        if not np.isfinite(array).all():
            index = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            value = float(array[index])
            raise NonFiniteError.of_parameter("writing C", parameter, index, value)
    found = {}
    for step, wiring in zip(network.steps, network.wirings(), strict=True):
        roles = [parameter.role for parameter in step.layer.tensors(step.shape)]
        names = {role: f"{step.layer.name}.{role}" for role in roles}
        counting = wiring.counting({role: state[name] for role, name in names.items()})
        for role, name in names.items():
            found[network.arena.offsets[name]] = Named(role, counting[role])
    return found


def _header(
    network: Network, name: str, header: str, precision: str, places: Places, flash: int
) -> str:
    guard = f"{sanitized(header).upper()}_"
    inputs, outputs = network.input_shape, network.output_shape
    return f"""\
/* {name}: a network written by gradprune, {precision} */
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
