"""Intervals and tests: for rates of success, and for differences of pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["PairedDifference", "fisher_exact", "paired_difference", "wilson_interval"]

_Z = 1.959963984540054  # of 95 %


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate, which is sensible at 0 and 1 too.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = successes / n.

    Source: E. B. Wilson 1927.

    >>> [round(bound, 3) for bound in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials")
    p, z2 = successes / trials, _Z**2
    middle = p + z2 / (2 * trials)
    spread = _Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    # At 0 and at 1 the bound is exact; the formula's rounding may miss it.
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == trials else (middle + spread) / scale
    return low, high


def fisher_exact(successes: int, trials: int, other_successes: int, other_trials: int) -> float:
    """Two-sided p-value of Fisher's exact test: are the two success rates the same?

    The sum over all 2 x 2 tables with these margins that are at most as likely as this one.

    Source: R. A. Fisher 1922.

    >>> round(fisher_exact(3, 4, 1, 4), 4)  # a lady, eight cups of tea
    0.4857
    """
    for won, all_ in ((successes, trials), (other_successes, other_trials)):
        if not 0 <= won <= all_:
            raise ValueError(f"{won} successes in {all_} trials")
    won = successes + other_successes
    ways = [
        math.comb(trials, k) * math.comb(other_trials, won - k)
        for k in range(max(0, won - other_trials), min(trials, won) + 1)
    ]
    here = math.comb(trials, successes) * math.comb(other_trials, other_successes)
    return sum(way for way in ways if way <= here) / sum(ways)  # integers: no rounding


class PairedDifference(NamedTuple):
    """What ``paired_difference`` found."""

    mean: float
    low: float  # of the 95 % interval
    high: float
    p_value: float  # two-sided, of no difference


def paired_difference(values: Sequence[float], others: Sequence[float]) -> PairedDifference:
    """Mean of values - others with its 95 % interval, by Student's t over the pairs.

    d -+ t s / sqrt(n), s the standard deviation of the differences, n - 1 degrees of freedom. If
    all differences are equal, p is 0, or 1 where they are 0.

    Source: Student 1908.

    >>> found = paired_difference([0.7, -1.6, -0.2, -1.2, -0.1], [0.0] * 5)
    >>> round(found.mean, 2), round(found.low, 2), round(found.high, 2), round(found.p_value, 2)
    (-0.48, -1.62, 0.66, 0.31)

    Raises:
        ValueError: not at least two pairs.
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    n = len(differences)
    if n < 2:
        raise ValueError(f"a difference needs at least two pairs, got {n}")
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    if error == 0:
        return PairedDifference(mean, mean, mean, float(mean == 0))
    half = _quantile(n - 1) * error
    return PairedDifference(mean, mean - half, mean + half, _two_sided(mean / error, n - 1))


def _two_sided(t: float, freedom: int) -> float:
    """P(|T| > |t|): the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    cosine = math.cos(angle)
    is_odd = freedom % 2
    term = total = math.sin(angle) * (cosine if is_odd else 1.0)
    for k in range(2 + is_odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if is_odd:
        inside = 2 / math.pi * (angle + (total if freedom > 1 else 0.0))
    else:
        inside = total
    return max(1.0 - inside, 0.0)


def _quantile(freedom: int) -> float:
    """The t with P(|T| > t) = 0.05, by bisection."""
    low, high = 0.0, 16.0  # 12.7 with one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, freedom) > 0.05 else (low, middle)
    return low
