"""Whether two versions differ on data by more than chance would have it.

Of how often they are right by McNemar's test, which Dietterich (1998, "Approximate statistical tests for
comparing supervised classification learning algorithms") recommends where each was trained once; of
any other metric by a paired bootstrap interval (Efron and Tibshirani 1993, "An introduction to the
bootstrap", section 13.3; on metrics of language tasks Koehn 2004, "Statistical significance tests for
machine translation evaluation").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from centra.kinds.base import Kind

__all__ = ["LEVEL", "Interval", "McNemar", "bootstrap", "compare_metric", "mcnemar"]

LEVEL = 0.05
"""A difference is significant whose like would come by chance less often than this."""

_EXACT = 1000
"""Up to so many rows that only one side has right, the binomial distribution itself is summed."""
_WORK = 50_000_000
"""So many rows are scored on each side in all, within the bounds of :data:`_RESAMPLES`."""
_RESAMPLES = (200, 1000)


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
    """Whether it is the binomial distribution's own; else the chi-square one's, with the correction
    for continuity of Edwards (1948)."""

    @property
    def significant(self) -> bool:
        """Whether chance alone would make as uneven a split less often than :data:`LEVEL`."""
        return self.p_value < LEVEL

    def __str__(self) -> str:
        return f"McNemar's p {self.p_value:.2g}, {self.lost} rows lost and {self.won} won"


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

    def __str__(self) -> str:
        return f"{1 - LEVEL:.0%} interval {self.low:+.4f} to {self.high:+.4f}"


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """Test whether two versions are equally often right (McNemar 1947); two-sided.

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


def compare_metric(
    kind: Kind, labels: Sequence[str], metric: str, before: np.ndarray, after: np.ndarray
) -> McNemar | Interval:
    """What shows whether a metric differs: McNemar's test of a share of right rows, else an interval.

    Args:
        kind, labels: the task's.
        metric: one that the outcomes of both tell.
        before, after: outcomes of the same rows in the same order.
    """
    if metric in kind.right_rows(before):
        return mcnemar(*(kind.right_rows(side)[metric].tolist() for side in (before, after)))
    found = bootstrap(
        len(before),
        lambda places: kind.metrics_of(labels, before[places]),
        lambda places: kind.metrics_of(labels, after[places]),
    )
    return found[metric]


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
        drawn = generator.integers(0, rows, rows)
        one, other = before(drawn), after(drawn)
        differences.append([other[name] - one[name] for name in names])
    edges = [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)]
    low, high = np.percentile(np.array(differences), edges, axis=0)
    return {
        name: Interval(
            before=first[name], after=second[name], low=float(low[i]), high=float(high[i])
        )
        for i, name in enumerate(names)
    }
