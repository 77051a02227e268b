"""Whether two versions differ on data by more than chance would have it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

__all__ = ["Interval", "McNemar", "bootstrap", "mcnemar"]

_EXACT = 1000
"""Up to so many rows that only one side has right, the binomial distribution itself is summed."""
_WORK = 1_000_000
"""So many rows are scored on each side in all, within the bounds of :data:`_RESAMPLES`."""
_RESAMPLES = (200, 1000)
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """McNemar's test of two versions on the same rows."""

    won: int
    """Rows that only the new version has right."""
    lost: int
    """Rows that only the old version has right."""
    p_value: float
    """How probable as uneven a split is, or a more uneven one, where both are equally good."""
    exact: bool
    """Whether it is the binomial distribution's own; else the chi-square one's, with Edwards'
    correction."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How much a metric changes, and between what that lies."""

    before: float
    after: float
    low: float
    """Of the difference, with 95 % confidence."""
    high: float

    @property
    def significant(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """Test whether two versions are equally often right.

    Args:
        before, after: whether each has a row right; the same rows in the same order.
    """
    pairs = [*zip(before, after, strict=True)]
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    total = won + lost
    if total <= _EXACT:
        tail = sum(math.comb(total, k) for k in range(min(won, lost) + 1))
        # Whole numbers, for neither the sum nor 2**total need fit a float.
        p_value = min(2 * tail / 2**total, 1.0)
    else:
        statistic = max(abs(won - lost) - 1, 0) ** 2 / total
        p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar(won=won, lost=lost, p_value=p_value, exact=total <= _EXACT)


def bootstrap(
    rows: int,
    before: Callable[[np.ndarray], Mapping[str, float]],
    after: Callable[[np.ndarray], Mapping[str, float]],
) -> dict[str, Interval]:
    """Paired percentile intervals of the differences of metrics, by drawing rows anew.

    Args:
        rows: how many there are.
        before, after: the metrics of rows by their places, of which some come more than once.

    Returns:
        By metric. The draws are seeded, so that the same answers give the same interval.
    """
    import numpy as np

    least, most = _RESAMPLES
    everything = np.arange(rows)
    first, second = before(everything), after(everything)
    names = [name for name in first if name in second]
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(min(max(_WORK // rows, least), most)):
        drawn = np.sort(generator.integers(0, rows, rows))
        one, other = before(drawn), after(drawn)
        differences.append([other.get(name, 0.0) - one.get(name, 0.0) for name in names])
    edges = [100 * (1 - _CONFIDENCE) / 2, 100 * (1 + _CONFIDENCE) / 2]
    low, high = np.percentile(np.array(differences), edges, axis=0)
    return {
        name: Interval(
            before=first[name], after=second[name], low=float(low[i]), high=float(high[i])
        )
        for i, name in enumerate(names)
    }
