"""Whether scores are as probable as they say, and what a threshold on them keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Calibration",
    "KeptShare",
    "ScoreBin",
    "calibration_of",
    "distinct_shares",
    "kept_shares",
    "least_threshold",
]

_BINS = 15
_THRESHOLDS = 20


@dataclass(frozen=True, kw_only=True)
class ScoreBin:
    """The scores of one range."""

    low: float
    high: float
    count: int
    score: float
    """Their mean."""
    accuracy: float
    """The share of them that came true."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How scores compare with what came true."""

    error: float
    """The expected calibration error: how far scores are off, the mean over all of them by bins."""
    bins: tuple[ScoreBin, ...]
    """Of equal width, those alone that hold any."""


@dataclass(frozen=True, kw_only=True)
class KeptShare:
    """What a threshold keeps."""

    threshold: float
    coverage: float
    """The share of answers with at least this score."""
    accuracy: float | None
    """The share of these that are right; None where there are none."""


def calibration_of(claims: Sequence[tuple[float, bool]]) -> Calibration:
    """Compare scores with what came true (Guo et al. 2017, section 2), in 15 bins of equal width.

    Args:
        claims: probabilities, each with whether it was so; at least one.
    """
    groups: dict[int, list[tuple[float, bool]]] = {}
    for claim in claims:
        groups.setdefault(min(int(claim[0] * _BINS), _BINS - 1), []).append(claim)
    bins = tuple(
        ScoreBin(
            low=place / _BINS,
            high=(place + 1) / _BINS,
            count=len(group),
            score=sum(score for score, _ in group) / len(group),
            accuracy=sum(true for _, true in group) / len(group),
        )
        for place, group in sorted(groups.items())
    )
    error = sum(one.count * abs(one.score - one.accuracy) for one in bins) / len(claims)
    return Calibration(error=error, bins=bins)


def kept_shares(decisions: Sequence[tuple[float, bool]]) -> tuple[KeptShare, ...]:
    """Coverage and accuracy at thresholds from 0 to 1.

    Args:
        decisions: scores, each with whether it is right.
    """
    if not decisions:
        return ()
    shares = []
    for step in range(_THRESHOLDS + 1):
        threshold = step / _THRESHOLDS
        kept = [right for score, right in decisions if score >= threshold]
        shares.append(
            KeptShare(
                threshold=threshold,
                coverage=len(kept) / len(decisions),
                accuracy=sum(kept) / len(kept) if kept else None,
            )
        )
    return tuple(shares)


def distinct_shares(kept: Sequence[KeptShare]) -> list[KeptShare]:
    """Those thresholds alone from which on less is kept than from the one before."""
    return [
        share
        for before, share in zip((None, *kept), kept, strict=False)
        if before is None or share.coverage != before.coverage
    ]


def least_threshold(claims: Sequence[tuple[float, bool]], precision: float) -> float | None:
    """The lowest score from which on, at least so large a share of claims is true.

    Args:
        claims: scores, each with whether it was so.
        precision: the wanted share.

    Returns:
        Between that score and the next lower one, so that rounding decides nothing; None where no
        threshold reaches the share.
    """
    found, true = None, 0
    ordered = sorted(claims, reverse=True)
    for place, (score, right) in enumerate(ordered, 1):
        true += right
        following = ordered[place][0] if place < len(ordered) else None
        # Equal scores are kept or left together.
        if following != score and true >= precision * place - 1e-9:
            found = score if following is None else (score + following) / 2
    return found
