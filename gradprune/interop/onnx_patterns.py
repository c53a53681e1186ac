"""Groups of ONNX operators that are one function: what exporters make of gelu, silu and others.

A group is found from its last operator. Then one operation stands for it, under a name in small
letters that no operator of ONNX has, and the rest of the group is no longer read by anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import isclose, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GraphStep", "Patterns"]

Array = NDArray[Any]


class GraphStep(NamedTuple):
    """An operator of the graph, or a group of them: name, inputs, attributes."""

    op: str
    inputs: Sequence[str]
    attributes: Mapping[str, Any]


class Patterns:
    """Looks for groups in a graph.

    Args:
        makers: tensor to the operator that makes it.
        constant: the number or array of a tensor, None if it is not a constant of the file.
    """

    def __init__(
        self, makers: Mapping[str, GraphStep], constant: Callable[[str], Array | None]
    ) -> None:
        self._makers = {name: step for name, step in makers.items() if _is_whole(step)}
        self._constant = constant

    def match(self, step: GraphStep) -> GraphStep | None:
        """Return the operation for the group that ends with this operator, if it is one."""
        if not _is_whole(step):
            return None
        if step.op == "Mul":
            return self._product(step)
        if step.op == "Div":  # hardswish: x clip(x + 3, 0, 6) / 6
            return self._product(step)
        if step.op == "Concat":
            return self._both_classes(step)
        if step.op == "Add":
            return self._layernorm(step)
        return None

    def _maker(self, tensor: str, op: str) -> GraphStep | None:
        found = self._makers.get(tensor)
        return found if found is not None and found.op == op else None

    def _number(self, tensor: str) -> float | None:
        array = self._constant(tensor)
        return None if array is None or array.size != 1 else float(array.ravel()[0])

    def _factors(self, step: GraphStep, depth: int = 0) -> list[tuple[float, list[str]]]:
        """The number and the one or two tensors that a product is made of: all ways to see it.

        A factor that is a product itself may be one tensor, as in silu(silu(x)), or be taken apart.
        """
        ways: list[list[tuple[float, list[str]]]] = []
        for position, tensor in enumerate(step.inputs):
            divides = step.op == "Div" and position == 1
            own = self._number(tensor)
            if own is not None:
                ways.append([(1 / own if divides and own else own, [])])
                continue
            if divides:
                return []
            ways.append([(1.0, [tensor])])
            inner = self._makers.get(tensor)
            if inner is not None and inner.op in {"Mul", "Div"} and depth < 3:
                ways[-1] += self._factors(inner, depth + 1)
        both = [(m * n, [*some, *more]) for (m, some), (n, more) in product(*ways)]
        return [(number, tensors) for number, tensors in both if 1 <= len(tensors) <= 2]

    def _product(self, step: GraphStep) -> GraphStep | None:
        pairs = ((number, pair) for number, pair in self._factors(step) if len(pair) == 2)
        for number, (x, other) in ((n, way) for n, pair in pairs for way in (pair, pair[::-1])):
            maker = self._makers.get(other)
            if maker is None:
                continue
            if maker.op == "Sigmoid" and maker.inputs[0] == x and number == 1:
                return GraphStep("silu", [x], {})
            if maker.op == "HardSigmoid" and maker.inputs[0] == x and number == 1:
                slope, shift = maker.attributes.get("alpha", 0.2), maker.attributes.get("beta", 0.5)
                if isclose(slope, 1 / 6, rel_tol=1e-5) and shift == 0.5:
                    return GraphStep("hardswish", [x], {})
            if isclose(number, 0.5, rel_tol=1e-6) and self._is_erf(maker, x):
                return GraphStep("gelu", [x], {})
            if isclose(number, 1 / 6, rel_tol=1e-5) and self._is_shifted_clip(maker, x):
                return GraphStep("hardswish", [x], {})
        return None

    def _sum(self, step: GraphStep) -> tuple[str, float] | None:
        """The tensor and the number of a sum."""
        if step.op != "Add" or len(step.inputs) != 2:
            return None
        for x, other in (step.inputs, step.inputs[::-1]):
            if (number := self._number(other)) is not None:
                return x, number
        return None

    def _is_erf(self, maker: GraphStep, x: str) -> bool:
        """Whether it is 1 + erf(x / sqrt(2))."""
        parts = self._sum(maker)
        erf = None if parts is None or parts[1] != 1 else self._maker(parts[0], "Erf")
        inner = None if erf is None else self._makers.get(erf.inputs[0])
        if inner is None or inner.op not in {"Mul", "Div"}:
            return False
        return any(
            tensors == [x] and isclose(number, sqrt(0.5), rel_tol=1e-5)
            for number, tensors in self._factors(inner)
        )

    def _is_shifted_clip(self, maker: GraphStep, x: str) -> bool:
        """Whether it is clip(x + 3, 0, 6)."""
        if maker.op != "Clip":
            return False
        limits = [
            maker.attributes.get(name)
            if len(maker.inputs) <= i or not maker.inputs[i]
            else self._number(maker.inputs[i])
            for i, name in ((1, "min"), (2, "max"))
        ]
        inner = self._makers.get(maker.inputs[0])
        return limits == [0, 6] and inner is not None and self._sum(inner) == (x, 3.0)

    def _both_classes(self, step: GraphStep) -> GraphStep | None:
        """(1 - p, p) with p = sigmoid(z), as scikit-learn's classifiers have it."""
        if len(step.inputs) != 2:
            return None
        rest, p = self._maker(step.inputs[0], "Sub"), self._maker(step.inputs[1], "Sigmoid")
        if rest is None or p is None or list(rest.inputs[1:]) != [step.inputs[1]]:
            return None
        if self._number(rest.inputs[0]) != 1:
            return None
        return GraphStep("both_classes", [p.inputs[0]], {})

    def _layernorm(self, step: GraphStep) -> GraphStep | None:
        """A normalization of the last axis in its parts, as older files have it."""
        for outer, beta in (step.inputs, step.inputs[::-1]):
            scaled = self._maker(outer, "Mul")
            if self._constant(beta) is None or scaled is None:
                continue
            for normal, gamma in (scaled.inputs, scaled.inputs[::-1]):
                divided = self._maker(normal, "Div")
                if self._constant(gamma) is None or divided is None:
                    continue
                found = self._normalized(divided)
                if found is not None:
                    x, eps = found
                    return GraphStep("layernorm", [x, gamma, beta], {"epsilon": eps})
        return None

    def _normalized(self, divided: GraphStep) -> tuple[str, float] | None:
        centered, root = (
            self._maker(divided.inputs[0], "Sub"),
            self._maker(divided.inputs[1], "Sqrt"),
        )
        summed = None if root is None else self._makers.get(root.inputs[0])
        parts = None if summed is None else self._sum(summed)
        if centered is None or parts is None:
            return None
        x = centered.inputs[0]
        mean, variance = self._mean_of(centered.inputs[1]), self._mean_of(parts[0])
        square = None if variance is None else self._maker(variance, "Pow")
        if mean != x or square is None or self._number(square.inputs[1]) != 2:
            return None
        inner = self._maker(square.inputs[0], "Sub")
        return (
            (x, parts[1])
            if inner is not None and list(inner.inputs) == list(centered.inputs)
            else None
        )

    def _mean_of(self, tensor: str) -> str | None:
        """The tensor whose mean over the last axis this is."""
        maker = self._maker(tensor, "ReduceMean")
        if maker is None or not maker.attributes.get("keepdims", 1):
            return None
        axes: Any = maker.attributes.get("axes")
        if axes is None and len(maker.inputs) > 1:
            array = self._constant(maker.inputs[1])
            axes = None if array is None else array.tolist()
        return maker.inputs[0] if axes is not None and list(np.ravel(axes)) == [-1] else None


def _is_whole(step: GraphStep) -> bool:
    """Whether an operator has its inputs, as far as groups have such operators."""
    binary = step.op in {"Add", "Div", "Mul", "Pow", "Sub"}
    return len(step.inputs) == 2 if binary else bool(step.inputs)
