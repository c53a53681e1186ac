"""Counts of successes: intervals for a rate, a test of two rates."""

from __future__ import annotations

import math

__all__ = ["fisher_exact", "wilson_interval"]

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
