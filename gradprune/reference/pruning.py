"""What to remove (scores, lowest first), how much (schedules), and the mask that results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Mask
from .rng import uniform
from .select import topk_mask


def moments_accumulate(
    mean: Floats, mean_square: Floats, gradient: Floats, count: int
) -> tuple[Floats, Floats]:
    """Running ``m = mean_b g_b`` and ``F = mean_b g_b^2`` after one more batch.

    ``m += (g - m) / count`` and ``F += (g^2 - F) / count``.

    Args:
        mean: m over the batches so far, zeros at first.
        mean_square: F over the batches so far, zeros at first.
        gradient: g of the new batch, of the shape of mean.
        count: batches with the new one, at least 1.

    Returns:
        m and F with the batch included.

    Example:
        >>> zero = np.zeros(1)
        >>> m, f = moments_accumulate(zero, zero, np.array([1.0]), 1)
        >>> moments_accumulate(m, f, np.array([3.0]), 2)
        (array([2.]), array([5.]))
    """
    return (
        mean + (gradient - mean) / count,
        mean_square + (gradient * gradient - mean_square) / count,
    )


def random(n: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Scores that know nothing: uniform in [0, 1), the baseline.

    Args:
        n: how many.
        seed: 64-bit key.
        stream: 64-bit stream number.

    Returns:
        (n,) float32.

    Example:
        >>> random(3, seed=0).shape
        (3,)
    """
    return uniform(n, seed, stream)


def magnitude(weight: Floats) -> Floats:
    """``|w|``.

    Args:
        weight: w, any shape.

    Returns:
        Scores of the shape of weight.

    Example:
        >>> magnitude(np.array([-2.0, 1.0]))
        array([2., 1.])

    Source: Han et al. 2015.
    """
    return np.abs(weight)


def gradient(mean: Floats, factor: float = 1.0) -> Floats:
    """``factor |m|``; a factor of -1 removes the largest gradients first.

    Args:
        mean: m, mean gradient over the batches, any shape.
        factor: sign and scale.

    Returns:
        Scores of the shape of mean.

    Example:
        >>> gradient(np.array([-2.0, 1.0]), factor=-1.0)
        array([-2., -1.])
    """
    return factor * np.abs(mean)


def taylor(weight: Floats, mean: Floats) -> Floats:
    """``|w m|``: the first-order change of the loss when w goes to zero.

    Args:
        weight: w, any shape.
        mean: m, mean gradient over the batches, of the shape of weight.

    Returns:
        Scores of the shape of weight.

    Example:
        >>> taylor(np.array([2.0, -1.0]), np.array([0.5, 3.0]))
        array([1., 3.])

    Source: Molchanov et al. 2019.
    """
    return np.abs(weight * mean)


def movement(weight: Floats, gradient: Floats) -> Floats:
    """``-w g`` of a step; the score is its mean over steps.

    Args:
        weight: w, at which the gradient was taken, any shape.
        gradient: g, of the shape of weight.

    Returns:
        What one step adds, of the shape of weight.

    Example:
        >>> movement(np.array([2.0, -1.0]), np.array([0.5, 3.0]))
        array([-1.,  3.])

    Source: Sanh, Wolf and Rush 2020.
    """
    return -weight * gradient


def fisher(weight: Floats, mean_square: Floats) -> Floats:
    """``w^2 F / 2``: the second-order change of the loss where the gradient is 0.

    Args:
        weight: w, any shape.
        mean_square: F, mean squared gradient, of the shape of weight.

    Returns:
        Scores of the shape of weight.

    Example:
        >>> fisher(np.array([2.0, -1.0]), np.array([0.5, 4.0]))
        array([1., 2.])

    Source: LeCun et al. 1990 with the Fisher diagonal (Theis et al. 2018).
    """
    return 0.5 * weight * weight * mean_square


def grasp(weight: Floats, product: Floats) -> Floats:
    """``w (H g)``: minus the first-order change of ``|g|^2 / 2`` when w goes to zero.

    Args:
        weight: w, any shape.
        product: H g, Hessian times gradient, of the shape of weight.

    Returns:
        Scores of the shape of weight.

    Example:
        >>> grasp(np.array([2.0, -1.0]), np.array([0.5, 3.0]))
        array([ 1., -3.])

    Source: Wang, Zhang and Grosse 2020, with the other sign.
    """
    return weight * product


def synflow(weights: Sequence[Floats]) -> list[Floats]:
    """``|w| dR/d|w| / R`` with ``R = 1^T |W_L| ... |W_1| 1``.

    Args:
        weights: of dense layers that follow each other, (out, in) each.

    Returns:
        Scores of each, with a sum of 1; zeros if R is 0.

    Example:
        >>> synflow([np.array([[1.0, 3.0]]), np.array([[1.0], [-1.0]])])
        [array([[0.25, 0.75]]), array([[0.5],
               [0.5]])]

    Source: Tanaka et al. 2020.
    """
    sizes = [np.abs(weight) for weight in weights]
    forward = [np.ones(sizes[0].shape[1])]
    for size in sizes:
        forward.append(size @ forward[-1])
    total = forward[-1].sum()
    if total == 0:
        return [np.zeros_like(size) for size in sizes]
    back = np.ones(sizes[-1].shape[0])
    scores: list[Floats] = []
    for size, into in zip(reversed(sizes), reversed(forward[:-1]), strict=True):
        scores.insert(0, back[:, None] * size * into / total)
        back = size.T @ back
    return scores


def exchange(mask: Mask, drop: Floats, grow: Floats, count: int) -> NDArray[np.bool_]:
    """The mask after ``count`` weights went, lowest of drop first, and as many came.

    What comes has the highest of grow among all that do not survive.

    Args:
        mask: kept entries, (n,).
        drop: (n,) scores; those of removed entries are ignored.
        grow: (n,) scores.
        count: at most the entries kept.

    Returns:
        The new mask.

    Example:
        >>> exchange(np.array([1, 1, 0], bool), np.array([1.0, 2, 0]), np.array([0.0, 0, 3]), 1)
        array([False,  True,  True])

    Source: SET, Mocanu et al. 2018; RigL, Evci et al. 2020.
    """
    live: list[int] = np.flatnonzero(mask).tolist()
    kept = sorted(live, key=lambda i: (-drop[i], i))
    survivors = kept[: len(kept) - count]
    others = sorted(set(range(len(mask))) - set(survivors), key=lambda i: (-grow[i], i))
    changed = np.zeros(len(mask), np.bool_)
    changed[np.array([*survivors, *others[:count]], np.intp)] = True
    return changed


class GradientDecomposition(NamedTuple):
    """The score of ``gradient_decomposition`` and its parts, all of the shape of the weight."""

    scores: Floats
    signal: Floats
    curvature: Floats
    snr: Floats


def gradient_decomposition(
    weight: Floats, mean: Floats, mean_square: Floats
) -> GradientDecomposition:
    """``|-w m + w^2 F / 2|``: the second-order change of the loss, empirical Fisher diagonal.

    Parts: ``signal = -w m``, ``curvature = w^2 F / 2``, ``snr = m^2 / (F - m^2)``, where F - m^2
    is the variance of the batch gradients; without variance it is inf, or 0 if m is 0 too.

    Args:
        weight: w, any shape.
        mean: m, mean gradient over the batches, of the shape of weight.
        mean_square: F, mean squared gradient over the batches, likewise.

    Returns:
        scores, signal, curvature and snr.

    Example:
        >>> parts = gradient_decomposition(np.array([2.0]), np.array([1.0]), np.array([3.0]))
        >>> [float(part[0]) for part in parts]
        [4.0, -2.0, 6.0, 0.5]

    Source: LeCun et al. 1990 with the Fisher diagonal for the Hessian (Theis et al. 2018).
    """
    signal = -weight * mean
    curvature = 0.5 * weight * weight * mean_square
    power = mean * mean
    # rounding can take F a little below m^2
    variance = np.maximum(mean_square - power, 0)
    snr = np.where(power > 0, np.inf, np.zeros_like(power))
    np.divide(power, variance, out=snr, where=variance > 0)
    return GradientDecomposition(np.abs(signal + curvature), signal, curvature, snr)


def polynomial_sparsity(
    step: int,
    *,
    sparsity: float,
    start: int,
    stop: int,
    power: float = 3.0,
    initial: float = 0.0,
) -> float:
    """``s = sf + (si - sf) (1 - clip((t - t0) / (t1 - t0), 0, 1))^power``.

    Power 1 is linear, power 3 the cubic of Zhu and Gupta 2017.

    Args:
        step: t.
        sparsity: sf, from stop on.
        start: t0.
        stop: t1; equal to start it is one jump.
        power: the exponent.
        initial: si, up to start.

    Returns:
        The sparsity due at the step.

    Example:
        >>> polynomial_sparsity(5, sparsity=0.5, start=0, stop=10)
        0.4375
    """
    progress = 1.0 if step >= stop else max(step - start, 0) / max(stop - start, 1)
    return float(sparsity + (initial - sparsity) * (1.0 - progress) ** power)


def iterative_sparsity(completed: int, *, sparsity: float, rounds: int) -> float:
    """``1 - (1 - s)^(r / rounds)``: each round removes the same share of what is left.

    Args:
        completed: r, rounds completed; more than rounds count as rounds.
        sparsity: s, after the last round.
        rounds: how many.

    Returns:
        The sparsity due after round r.

    Example:
        >>> round(iterative_sparsity(1, sparsity=0.75, rounds=2), 12)
        0.5
    """
    share = min(max(completed, 0), rounds) / rounds
    return 1.0 - float((1.0 - sparsity) ** share)


def removed_count(sparsity: float, n: int, *, keep: int = 0) -> int:
    """``round(s n)``, half to even, but leaving at least ``keep``.

    Args:
        sparsity: s, 0 <= s <= 1.
        n: entries in all, removed ones included.
        keep: floor under what is left.

    Returns:
        How many entries are removed in all.

    Raises:
        ValueError: if the sparsity is out of range.

    Example:
        >>> removed_count(0.4, 17), removed_count(0.9999, 10, keep=1)
        (7, 9)
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity <= 1")
    return max(min(round(sparsity * n), n - keep), 0)


def prune_mask(scores: Floats, mask: Mask, removed: int) -> NDArray[np.bool_]:
    """The mask with ``removed`` entries gone in all, lowest live scores first.

    Ties keep the lower index; what is removed stays removed, and if that is already more than
    asked for nothing changes.

    Args:
        scores: any shape; those of removed entries are ignored.
        mask: kept entries, of the shape of scores.
        removed: how many entries are to be gone, 0 <= removed <= scores.size.

    Returns:
        The new mask.

    Raises:
        ValueError: if removed is out of range or a live score is NaN.

    Example:
        >>> prune_mask(np.array([1.0, 2.0, 1.0]), np.ones(3, dtype=bool), 1)
        array([ True,  True, False])
    """
    if not 0 <= removed <= mask.size:
        raise ValueError(f"removed is {removed}, expected 0 <= removed <= {mask.size}")
    kept = np.ravel(mask).astype(np.bool_)
    live = np.flatnonzero(kept)
    count = min(mask.size - removed, live.size)
    kept[live] = topk_mask(np.ravel(scores)[live], count)
    return kept.reshape(np.shape(mask))


def _blocks(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Places of the blocks of a matrix in C order; the last ones may be smaller."""
    for top in range(0, shape[0], rows):
        for left in range(0, shape[1], columns):
            yield slice(top, top + rows), slice(left, left + columns)


def block_scores(scores: Floats, mask: Mask, rows: int, columns: int) -> Floats:
    """``sum(s_i, i live) / #live`` of every block of ``rows x columns``, -inf where nothing lives.

    Args:
        scores: of the weights, (out, in).
        mask: kept entries, of the shape of scores.
        rows: consecutive outputs of a block.
        columns: consecutive inputs of a block.

    Returns:
        (blocks,), block rows first; the mean is taken in double precision.

    Example:
        >>> matrix = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> block_scores(matrix, np.ones((3, 2), dtype=bool), 2, 1)
        array([2., 3., 5., 6.])

    Source: average pooling of tfmot's ``prune_low_magnitude``, over live weights.
    """
    means = []
    for place in _blocks(scores.shape, rows, columns):
        live = [
            float(s) for s, kept in zip(scores[place].flat, mask[place].flat, strict=True) if kept
        ]
        means.append(sum(live) / len(live) if live else -np.inf)
    return np.array(means, dtype=scores.dtype)


def prune_blocks(
    scores: Sequence[Floats], masks: Sequence[Mask], removed: int, rows: int, columns: int
) -> list[NDArray[np.bool_]]:
    """Masks of matrices ranked together, with at most ``removed`` entries gone in all.

    Block by block, the lowest ``block_scores`` first and of equals the last one first: the last
    live block of a matrix is passed over; the first other one that is more than what is left to
    remove ends it.

    Args:
        scores: of the weights of each matrix, (out, in).
        masks: kept entries of each.
        removed: how many entries may be gone in all afterwards.
        rows: consecutive outputs of a block.
        columns: consecutive inputs of a block.

    Returns:
        The new masks.

    Example:
        >>> scores = np.array([[1.0, 3.0], [1.0, 0.0], [2.0, 9.0]])
        >>> prune_blocks([scores], [np.ones((3, 2), dtype=bool)], 3, 2, 1)[0].astype(int)
        array([[0, 1],
               [0, 1],
               [1, 1]])
    """
    kept = [np.array(mask, dtype=np.bool_) for mask in masks]
    ranking = []
    for m, (matrix, mask) in enumerate(zip(scores, kept, strict=True)):
        means = block_scores(matrix, mask, rows, columns)
        places = _blocks(matrix.shape, rows, columns)
        ranking += [
            (float(mean), -m, -i, place)
            for i, (mean, place) in enumerate(zip(means, places, strict=True))
            if mask[place].any()
        ]
    budget = removed - sum(mask.size - int(mask.sum()) for mask in kept)
    for _, minus_m, _, place in sorted(ranking, key=lambda entry: entry[:3]):
        mask = kept[-minus_m]
        size = int(mask[place].sum())
        if size == mask.sum():
            continue
        if size > budget:
            break
        mask[place] = False
        budget -= size
    return kept
