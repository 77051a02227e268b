"""Which span of an answer stands for which that was wanted, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.kinds.judgement import Fault, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["match_spans"]

Span = tuple[str, int, int]
"""Its label, where it begins, and where it ends."""


def match_spans(wanted: Sequence[Span], answered: Sequence[Span]) -> tuple[Pair, ...]:
    """Pair the spans of a text, each at most once: the equal, then those that overlap.

    Of those that overlap, first come the ones with the same bounds, then the ones with the same
    label, then those that share the most characters, then the first.

    Returns:
        A pair for each span of either side; one that has no partner is missed or spurious.
    """
    here, there = [*enumerate(wanted)], [*enumerate(answered)]
    choices = sorted(
        (_distance(one, other), i, j)
        for i, one in here
        for j, other in there
        if min(one[2], other[2]) > max(one[1], other[1])
    )
    partners: dict[int, int] = {}
    for _, i, j in choices:
        if i not in partners and j not in partners.values():
            partners[i] = j
    pairs = []
    for i, one in here:
        if i not in partners:
            pairs.append(Pair(wanted=one[0], answered=None, fault="missed"))
            continue
        other = answered[partners[i]]
        pairs.append(Pair(wanted=one[0], answered=other[0], fault=_fault(one, other)))
    taken = {*partners.values()}
    pairs += [
        Pair(wanted=None, answered=other[0], fault="spurious")
        for j, other in there
        if j not in taken
    ]
    return tuple(pairs)


def _distance(one: Span, other: Span) -> tuple[bool, bool, bool, int]:
    """What two overlapping spans are paired by, the nearest first."""
    shared = min(one[2], other[2]) - max(one[1], other[1])
    return one != other, one[1:] != other[1:], one[0] != other[0], -shared


def _fault(one: Span, other: Span) -> Fault | None:
    match one[0] == other[0], one[1:] == other[1:]:
        case True, True:
            return None
        case False, True:
            return "wrong label"
        case True, False:
            return "wrong bounds"
        case _:
            return "wrong label and bounds"
