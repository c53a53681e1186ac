"""The exact k largest of n random scores: ``gp.topk_mask`` against ``np.partition``.

The peer's work is the smaller one: it finds the k-th largest score but makes no mask. Scores are
absolute values of normal numbers, as magnitude pruning ranks them, and k is a tenth of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from side_by_side import Contestant, Work, thread_counts


def _scores(count: int) -> NDArray[np.float32]:
    return np.abs(np.random.default_rng(0).standard_normal(count, dtype=np.float32))


def gradprune_select(*, threads: int, count: int) -> Work:
    import gradprune as gp

    gp.set_num_threads(threads)
    scores = _scores(count)

    def result() -> NDArray[np.float64]:
        kept = scores[gp.topk_mask(scores, count // 10)]
        return np.array([kept.min()], np.float64) if len(kept) == count // 10 else np.zeros(1)

    return lambda: gp.topk_mask(scores, count // 10), result


def numpy_select(*, threads: int, count: int) -> Work:
    del threads  # it has one
    scores = _scores(count)
    place = count - count // 10
    return (
        lambda: np.partition(scores, place),
        lambda: np.partition(scores, place)[place : place + 1].astype(np.float64),
    )


def contestants() -> list[Contestant]:
    them = [
        Contestant("gradprune", gradprune_select, n, needs=("gradprune",)) for n in thread_counts()
    ]
    return [*them, Contestant("numpy", numpy_select, 1, "partition")]
