from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

_Floats: TypeAlias = NDArray[np.float32]
_Clip: TypeAlias = tuple[Any, ...]  # ((stage, ...), work or None, keep), see binding.h
_Done: TypeAlias = tuple[float, float, bool, bool, float]
# loss, correct, weight, norm, scale, clipped, applied, norm_after of each step
_Taken: TypeAlias = tuple[
    list[float],
    list[float],
    list[float],
    list[float],
    list[float],
    list[bool],
    list[bool],
    list[float],
]
_Rule: TypeAlias = tuple[
    int,
    float,
    float,
    bool,
    float,
    float,
    bool,
    float,
    float,
    float,
    int,
    float,
    float,
    NDArray[np.uint8] | None,
    NDArray[np.uint8] | None,
    NDArray[np.float64] | None,
]
# gradprune.layers.base.CoreLayer
_Layer: TypeAlias = tuple[
    str,
    int,
    int,
    tuple[int, ...],
    int,
    int,
    float,
    float,
    int,
    int,
    tuple[float | str, ...],
]
_Target: TypeAlias = NDArray[np.int64] | _Floats | tuple[NDArray[np.int64], _Floats]
_Loss: TypeAlias = tuple[float, ...]  # code, settings
_Weights: TypeAlias = NDArray[np.float64]  # of the samples
_Lengths: TypeAlias = tuple[NDArray[np.int64], int, bool]  # of the samples, steps, by step
_Result: TypeAlias = tuple[float, float, float]  # loss, weight of what is right, weight of all
_Costs: TypeAlias = tuple[float, float, float, float]
_Phase: TypeAlias = Literal["input", "target", "parameter", "forward", "loss", "backward"]

version: Final[str]
layer_types: Final[dict[str, tuple[str, ...]]]  # each with the words among its settings
dropout_streams: Final[int]
noise_streams: Final[int]
timing_streams: Final[int]
losses: Final[Mapping[str, int]]  # name to code; so is rules
clippers: Final[Mapping[str, tuple[int, bool, bool]]]  # code, is a factor, rewrites entries
rules: Final[Mapping[str, int]]

def isa() -> str: ...
def isas() -> list[str]: ...
def get_num_threads() -> int: ...
def set_num_threads(number: int, /) -> None: ...
def default_costs() -> _Costs: ...
def measure_costs() -> _Costs: ...
def uniform(n: int, seed: int, stream: int, /) -> _Floats: ...
def normal(n: int, seed: int, stream: int, /) -> _Floats: ...
def uniform_at(places: NDArray[np.int64], seed: int, stream: int, /) -> _Floats: ...
def normal_at(places: NDArray[np.int64], seed: int, stream: int, /) -> _Floats: ...
def subset_(keep: NDArray[np.uint8], k: int, seed: int, stream: int, /) -> None: ...
def permutation(n: int, seed: int, stream: int, /) -> NDArray[np.int64]: ...
def topk_mask(scores: _Floats, k: int, /) -> NDArray[np.uint8]: ...
def norm(values: _Floats, norm_type: float, /) -> float: ...
def scale_(values: _Floats, factor: float, /) -> None: ...
def clamp_(values: _Floats, limit: float, /) -> None: ...
def mask_(mask: NDArray[np.uint8], values: _Floats, /) -> None: ...
def statistics_(grads: _Floats, mean: _Floats, mean_square: _Floats, count: int, /) -> None: ...
def warp(images: _Floats, maps: NDArray[np.float64], out: _Floats, /) -> None: ...
def gemm(a: _Floats, transposed: bool, b: _Floats, out: _Floats, /) -> None: ...
def gemm_sum(a: _Floats, b: _Floats, out: _Floats, /) -> None: ...

@final
class Arena:
    def __new__(
        cls,
        params: _Floats,
        grads: _Floats,
        mask: NDArray[np.uint8],
        segments: list[tuple[int, int, int, int]],
        costs: _Costs,
    ) -> Arena: ...
    @property
    def removed(self) -> int: ...
    def set_mask(
        self, mask: NDArray[np.uint8], costs: _Costs, moments: tuple[_Floats, ...], /
    ) -> None: ...
    @property
    def homes(self) -> list[tuple[str, str]]: ...
    def values(self, segment: int, /) -> _Floats: ...
    def gradients(self, segment: int, /) -> _Floats: ...
    def live_values(self) -> _Floats: ...
    def live_gradients(self) -> _Floats: ...
    def put_values(self, live: _Floats, /) -> None: ...
    def put_gradients(self, live: _Floats, /) -> None: ...
    def live_segment(self, segment: int, /) -> _Floats: ...
    def put_segment(self, segment: int, live: _Floats, /) -> None: ...
    def collect_moment(self, moment: _Floats, live: _Floats, /) -> None: ...
    def put_moment(self, moment: _Floats, live: _Floats, /) -> None: ...
    def values_are_finite(self) -> bool: ...
    def gradients_are_finite(self) -> bool: ...
    def observe(
        self, gradient: _Floats | None, mean: _Floats, mean_square: _Floats, count: int, /
    ) -> None: ...
    def pack(self, moment: _Floats, /) -> None: ...
    def unpack(self, moment: _Floats, /) -> None: ...
    def step(
        self,
        clip: _Clip,
        rule: _Rule,
        moments: tuple[_Floats, ...],
        norms: NDArray[np.float64] | None,
        /,
    ) -> _Done: ...

@final
class Net:
    def __new__(cls, layers: list[_Layer]) -> Net: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def needs(self) -> tuple[int, int]: ...
    @property
    def exploded(self) -> bool: ...
    def set_limits(self, activation: float, gradient: float, /) -> None: ...
    def backward(
        self,
        arena: Arena,
        x: _Floats,
        y: _Target,
        index: NDArray[np.int64] | None,
        loss: _Loss,
        seed: int,
        step: int,
        weights: _Weights | None = None,
        lengths: _Lengths | None = None,
        /,
    ) -> _Result: ...
    def train(
        self,
        arena: Arena,
        x: _Floats,
        y: _Target,
        index: NDArray[np.int64] | None,
        loss: _Loss,
        seed: int,
        step: int,
        clip: _Clip,
        rule: _Rule,
        moments: tuple[_Floats, ...],
        norms: NDArray[np.float64] | None,
        rates: tuple[float, ...],
        sizes: tuple[int, ...] | None,
        seconds: float,
        weights: _Weights | None = None,
        lengths: _Lengths | None = None,
        /,
    ) -> _Taken: ...
    def predict(
        self, arena: Arena, x: _Floats, out: _Floats, lengths: _Lengths | None = None, /
    ) -> None: ...
    def forward(
        self,
        arena: Arena,
        x: _Floats,
        out: _Floats,
        seed: int,
        step: int,
        lengths: _Lengths | None = None,
        /,
    ) -> None: ...
    def evaluate(
        self,
        arena: Arena,
        x: _Floats,
        y: _Target,
        loss: _Loss,
        out: _Floats | None,
        weights: _Weights | None = None,
        lengths: _Lengths | None = None,
        /,
    ) -> _Result: ...
    def is_sparse(self, arena: Arena, layer: int, samples: int, /) -> bool: ...
    def fault(
        self, arena: Arena, /
    ) -> tuple[_Phase, int, bool, bool, int, int, int, float] | None: ...

@final
class Frozen:
    def __new__(
        cls, layers: list[_Layer], arena: Arena, precision: int = 0, exact: tuple[int, ...] = ()
    ) -> Frozen: ...
    @property
    def nbytes(self) -> int: ...
    def predict(self, x: object, lengths: _Lengths | None = None, /) -> _Floats | None: ...
    def describe(self, layer: int, /) -> tuple[int, int, bool, bool, bool]: ...

@final
class Solo:
    def __new__(cls, layers: list[_Layer], mask: NDArray[np.uint8]) -> Solo: ...
    def forward(
        self, values: _Floats, bias: _Floats | None, x: _Floats, y: _Floats, threads: int, /
    ) -> None: ...
    def backward(
        self,
        values: _Floats,
        x: _Floats,
        dy: _Floats,
        dx: _Floats | None,
        dvalues: _Floats | None,
        dbias: _Floats | None,
        threads: int,
        /,
    ) -> None: ...
