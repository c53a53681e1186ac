"""An ONNX graph while it is written: nodes and constants, of which the file is made at the end."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradprune import _core
from gradprune.layers.base import Shape

__all__ = ["Graph", "OnnxNode", "Produced", "import_onnx", "import_onnxruntime", "import_qonnx"]

QONNX = "qonnx.custom_op.general"
INPUT, OUTPUT = "x", "y"

_OLDEST = 17  # of the operator sets, which has LayerNormalization
_MOST_BYTES = 2**31 - 1  # of a protobuf
_ROOM = 2**20  # of these for all that is not a number of a parameter
_ONE_NODE = 1000  # bytes


class Produced(NamedTuple):
    """A tensor of the graph: its name, and the shape of a sample."""

    name: str
    shape: Shape


@dataclass
class OnnxNode:
    """An operation."""

    op: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""


class Graph:
    """Nodes in an order in which they can run, and arrays.

    Attributes:
        opset: the version of ONNX's operators.
        nodes: in order.
        constants: name to array.
        properties: what the file says about itself besides.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[OnnxNode] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.properties: dict[str, str] = {}
        self._taken = {INPUT, OUTPUT}

    def unused(self, wanted: str) -> str:
        """Return this name, or one like it if it is taken; nobody else gets it."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add an array; return the name that it has."""
        own = self.unused(name)
        self.constants[own] = np.asarray(array, order="C")
        return own

    def node(self, op: str, *inputs: str, at: str, domain: str = "", **attributes: Any) -> str:
        """Add an operation with one output; return the name of this.

        Args:
            op: the operator.
            inputs: names of tensors, "" for one that is left out.
            at: what it belongs to, such as the name of a layer.
            domain: of the operator, "" for ONNX's own.
            attributes: the operator's.
        """
        name = self.unused(f"{at}.{op.lower()}")
        self.nodes.append(OnnxNode(op, [*inputs], [name], name, attributes, domain))
        return name

    def name_tensor(self, old: str, new: str) -> None:
        """Give a tensor that a node makes another name."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
            node.outputs = [new if name == old else name for name in node.outputs]

    def readers(self, tensor: str) -> list[OnnxNode]:
        """Return the nodes that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]

    def to_bytes(self, shape: Shape, output_shape: Shape, outputs: Sequence[str] = ()) -> bytes:
        """Return the file, checked by ``onnx.checker`` unless it has further outputs.

        Args:
            shape: of a sample.
            output_shape: of a prediction.
            outputs: further tensors to give out.

        Raises:
            ValueError: it would be larger than a protobuf can be.
        """
        onnx = import_onnx()
        check_size(sum(array.nbytes for array in self.constants.values()), len(self.nodes))
        helper, of_array = onnx.helper, onnx.numpy_helper.from_array
        nodes = [
            helper.make_node(
                node.op,
                node.inputs,
                node.outputs,
                name=node.name,
                domain=node.domain,
                **node.attributes,
            )
            for node in self.nodes
        ]
        kind = onnx.TensorProto.FLOAT
        described = [
            helper.make_tensor_value_info(name, kind, ["batch", *sizes])
            for name, sizes in ((INPUT, shape), (OUTPUT, output_shape))
        ]
        more = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(
            nodes,
            "gradprune",
            described[:1],
            [*described[1:], *more],
            [of_array(array, name) for name, array in self.constants.items()],
        )
        domains = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        model = helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports, ignore_unknown=True),
            producer_name="gradprune",
            producer_version=_core.version,
        )
        helper.set_model_props(model, self.properties)
        if not outputs:  # of the shapes of others nothing is said
            onnx.checker.check_model(model, full_check=True)
        written: bytes = model.SerializeToString()
        return written


def check_size(nbytes: int, nodes: int) -> None:
    """Raise a ValueError if arrays of so many bytes, and nodes, do not fit into one file."""
    if nbytes + _ONE_NODE * nodes + _ROOM > _MOST_BYTES:
        raise ValueError(
            f"an ONNX file holds less than 2 GiB, and this network's parameters take {nbytes:,} "
            "bytes; shrink() makes it smaller if units are dead"
        )


def check_opset(opset: int) -> None:
    """Raise a ValueError if this package does not write such a file."""
    newest = import_onnx().defs.onnx_opset_version()
    if not _OLDEST <= opset <= newest:
        raise ValueError(
            f"opset must be from {_OLDEST} to {newest}, what the installed onnx knows, got {opset}"
        )


def import_onnx() -> Any:
    """Return the package onnx with what is used of it, or say how it is installed."""
    try:
        for module in ("checker", "defs", "helper", "numpy_helper"):
            importlib.import_module(f"onnx.{module}")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError('ONNX files need onnx: pip install "gradprune[onnx]"') from error


def import_onnxruntime() -> Any:
    """Return the package onnxruntime, or say how it is installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            'ONNX files are run by onnxruntime: pip install "gradprune[onnx]"'
        ) from error


def import_qonnx() -> tuple[Any, Any, Any]:
    """Return qonnx's ModelWrapper, InferShapes and execute_onnx, or say how to install it."""
    try:
        return (
            importlib.import_module("qonnx.core.modelwrapper").ModelWrapper,
            importlib.import_module("qonnx.transformation.infer_shapes").InferShapes,
            importlib.import_module("qonnx.core.onnx_exec").execute_onnx,
        )
    except ImportError as error:
        raise ImportError("files of QONNX are run by qonnx: pip install qonnx") from error
