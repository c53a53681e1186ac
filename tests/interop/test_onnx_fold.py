"""Operations on constants of an ONNX graph, each by hand; ONNX itself is not needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradprune.interop.onnx_fold import _FOLDS, SAMPLES, Budget, Filled, FoldError, folded, is_known

A = np.array([[1, 2, 3], [4, 5, 6]])
HALVES = np.array([0.25, -4.0], np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# An operation, its inputs, its attributes, and what it makes.
CASES: list[tuple[str, list[Any], dict[str, Any], Any]] = [
    ("Abs", [HALVES], {}, [0.25, 4.0]),
    ("Add", [A, ints(10, 20, 30)], {}, [[11, 22, 33], [14, 25, 36]]),
    ("Cast", [HALVES], {"to": 7}, [0, -4]),
    ("Concat", [A, A[:1]], {"axis": 0}, [[1, 2, 3], [4, 5, 6], [1, 2, 3]]),
    ("Concat", [A[:, :1], A[:, 2:]], {"axis": -1}, [[1, 3], [4, 6]]),
    ("ConstantOfShape", [ints(3)], {"value": ints(7)}, [7, 7, 7]),
    ("ConstantOfShape", [ints(64)], {"value": ints(7)}, [7] * 64),
    ("ConstantOfShape", [ints(65)], {"value": ints(7)}, Filled(7.0)),
    ("ConstantOfShape", [ints(2, 2)], {"value": ints(7)}, Filled(7.0)),
    ("ConstantOfShape", [ints(2)], {"value": HALVES[:1]}, Filled(0.25)),
    ("ConstantOfShape", [ints(2)], {}, Filled(0.0)),
    ("DequantizeLinear", [np.int8([[1, -2], [3, 4]]), np.float32(0.5)], {}, [[0.5, -1], [1.5, 2]]),
    (
        "DequantizeLinear",
        [np.uint8([[1, 2], [3, 4]]), np.float32([0.5, 2]), np.uint8([1, 3])],
        {},
        [[0, -2], [1, 2]],
    ),
    (
        "DequantizeLinear",
        [np.uint8([[1, 2], [3, 4]]), np.float32([0.5, 2]), np.uint8([1, 3])],
        {"axis": 0},
        [[0, 0.5], [0, 2]],
    ),
    ("Div", [ints(7, -7, 7, -7), ints(2, 2, -2, -2)], {}, [3, -3, -3, 3]),
    ("Div", [HALVES, np.float32(2)], {}, [0.125, -2]),
    ("Equal", [ints(1, 2), ints(1, 3)], {}, [True, False]),
    ("Expand", [ints(1, 2), ints(2, 1)], {}, [[1, 2], [1, 2]]),
    ("Expand", [ints(5, 5), ints(SAMPLES, 2)], {}, Filled(5.0)),
    ("Flatten", [np.arange(8).reshape(2, 2, 2)], {}, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("Flatten", [np.arange(4).reshape(2, 2)], {"axis": 0}, [[0, 1, 2, 3]]),
    ("Gather", [A, ints(1)], {}, [[4, 5, 6]]),
    ("Gather", [A, ints(2, 0)], {"axis": 1}, [[3, 1], [6, 4]]),
    ("Identity", [A], {}, A.tolist()),
    ("Max", [ints(1, 5), ints(3, 2)], {}, [3, 5]),
    ("Min", [ints(1, 5), ints(3, 2)], {}, [1, 2]),
    ("Mul", [ints(3, 5), ints(2)], {}, [6, 10]),
    ("Neg", [HALVES], {}, [-0.25, 4]),
    ("Pow", [ints(3, 5), ints(2)], {}, [9, 25]),
    ("Range", [np.int64(2), np.int64(9), np.int64(3)], {}, [2, 5, 8]),
    ("Range", [np.int64(2), np.int64(8), np.int64(3)], {}, [2, 5]),
    ("Range", [np.int64(5), np.int64(0), np.int64(-2)], {}, [5, 3, 1]),
    ("Range", [np.int64(5), np.int64(5), np.int64(1)], {}, []),
    ("ReduceProd", [A], {}, [[720]]),
    ("ReduceProd", [A], {"keepdims": 0}, 720),
    ("ReduceProd", [A, ints(1)], {"keepdims": 0}, [6, 120]),
    ("ReduceProd", [A], {"axes": [0]}, [[4, 10, 18]]),
    ("Reshape", [A, ints(3, 2)], {}, [[1, 2], [3, 4], [5, 6]]),
    ("Reshape", [A, ints(0, -1, 1)], {}, [[[1], [2], [3]], [[4], [5], [6]]]),
    ("Reshape", [np.zeros((0, 2)), ints(3, 0)], {"allowzero": 1}, [[], [], []]),
    ("Slice", [A, ints(1), ints(3)], {}, [[4, 5, 6]]),
    ("Slice", [A, ints(1), ints(3), ints(1)], {}, [[2, 3], [5, 6]]),
    ("Slice", [A, ints(0), ints(3), ints(-1), ints(2)], {}, [[1, 3], [4, 6]]),
    ("Slice", [A, ints(-1), ints(-9), ints(1), ints(-1)], {}, [[3, 2, 1], [6, 5, 4]]),
    ("Slice", [A, ints(-1), ints(-3), ints(1), ints(-1)], {}, [[3, 2], [6, 5]]),
    ("Slice", [A], {"starts": [1], "ends": [2], "axes": [1]}, [[2], [5]]),
    ("Split", [A, ints(1, 2)], {"axis": 1}, [[[1], [4]], [[2, 3], [5, 6]]]),
    ("Split", [A], {"split": [2, 0]}, [A.tolist(), []]),
    ("Sqrt", [np.array([9.0, 0.25])], {}, [3, 0.5]),
    ("Squeeze", [A[None, :, :, None]], {}, A.tolist()),
    ("Squeeze", [A[None, :, :, None], ints(0)], {}, A[:, :, None].tolist()),
    ("Squeeze", [A[None, :, :, None]], {"axes": [3]}, A[None].tolist()),
    ("Sub", [ints(3, 5), ints(2)], {}, [1, 3]),
    ("Transpose", [A], {}, A.T.tolist()),
    ("Transpose", [A[None]], {"perm": [1, 0, 2]}, A[:, None].tolist()),
    ("Unsqueeze", [A, ints(0, 3)], {}, A[None, :, :, None].tolist()),
    ("Unsqueeze", [ints(7)], {"axes": [-1]}, [[7]]),
    ("Where", [np.array([True, False]), ints(1, 2), ints(3, 4)], {}, [1, 4]),
]


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [part.tolist() for part in value]
    return value if isinstance(value, Filled) else value.tolist()


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(CASES)],
)
def test_by_hand(op: str, inputs: list[Any], attributes: dict[str, Any], expected: Any) -> None:
    inputs = [np.asarray(value) for value in inputs]
    assert is_known(op)
    assert plain(folded(op, inputs, attributes, Budget(10**6))) == expected


def test_every_operation_has_its_case() -> None:
    assert {case[0] for case in CASES} == set(_FOLDS)
    assert not is_known("Relu")
    assert folded("Relu", [A], {}, Budget(0)) is None


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("Add", [A], {}, "needs a constant"),
        ("Add", [A, None], {}, "needs a constant"),
        ("Add", [A, ints(1, 2)], {}, "broadcast"),
        ("Cast", [A], {"to": 8}, "casts to type 8"),
        ("Concat", [A, A], {"axis": 2}, "has axis 2 of 2"),
        ("Concat", [A, A], {"axis": -3}, "has axis -3 of 2"),
        ("ConstantOfShape", [ints(2)], {"value": HALVES}, "more than a number"),
        ("DequantizeLinear", [A, HALVES], {"block_size": 2}, "scales for blocks"),
        ("Div", [A, ints(0)], {}, "divides by 0"),
        ("Expand", [ints(1, 2), ints(SAMPLES, 2)], {}, "repeats numbers for each sample"),
        ("Slice", [A, ints(0)], {}, "needs where it starts and ends"),
        ("Split", [A], {}, "needs the sizes of its parts"),
        ("Split", [A, ints(2, 2)], {}, r"splits 2 into \[2, 2\]"),
        ("Split", [A, ints(3, -1)], {}, r"splits 2 into \[3, -1\]"),
        ("Unsqueeze", [A], {}, "needs its axes"),
        ("Unsqueeze", [A, ints(*range(9))], {}, "needs its axes"),
        ("Add", [Filled(1.0), A], {}, "whose shape is not known"),
        ("Concat", [Filled(1.0), Filled(2.0)], {"axis": 0}, "whose shape is not known"),
    ],
)
def test_what_cannot_be_computed(
    op: str, inputs: list[Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FoldError, match=message):
        folded(op, inputs, attributes, Budget(10**6))


def test_a_tensor_of_one_number_stays_one() -> None:
    number = Filled(2.0)
    for op in ("Cast", "Expand", "Reshape", "Slice", "Tile", "Transpose", "Unsqueeze"):
        assert folded(op, [number, ints(3)], {}, Budget(0)) == number
    assert folded("Concat", [number, Filled(2.0)], {"axis": 0}, Budget(0)) == number


@pytest.mark.parametrize(
    ("op", "inputs", "nbytes"),
    [
        ("Add", [ints(1, 2, 3), ints(1)], 24),
        ("Neg", [ints(1, 2, 3)], 24),
        ("Gather", [A, ints(0, 1, 0, 1)], 96),
        ("Expand", [HALVES, ints(5, 2)], 40),
        ("Range", [np.int64(0), np.int64(10), np.int64(2)], 40),
        ("Where", [ints(1, 0), ints(1), A[:, :2]], 32),
        ("DequantizeLinear", [ints(1, 2, 3), np.float32(1)], 24),
    ],
)
def test_what_is_made_is_counted_before_it_is_made(op: str, inputs: list[Any], nbytes: int) -> None:
    inputs = [np.asarray(value) for value in inputs]
    budget = Budget(nbytes)
    folded(op, inputs, {}, budget)
    assert budget.left == 0
    with pytest.raises(FoldError, match="out of proportion"):
        folded(op, inputs, {}, Budget(nbytes - 1))
