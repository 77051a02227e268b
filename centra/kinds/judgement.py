"""What an answer is worth beside what was wanted, in terms that reports of all kinds share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "Judgement", "Pair"]

Fault = Literal["missed", "spurious", "wrong label", "wrong bounds", "wrong label and bounds"]
"""What is wrong: something wanted is not there, something is there that was not wanted, or what is
there has another label or other bounds."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A label that was wanted, beside the one that was answered."""

    wanted: str | None
    """None where nothing was wanted."""
    answered: str | None
    """None where nothing was answered."""
    fault: Fault | None = None
    """None where it is right."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One answer beside its example."""

    right: bool | None
    """Whether it is all that was wanted, and no more; None where answers are only more or less near."""
    cost: float
    """How bad it is; the worst errors of a report have the highest. 0 for what is right."""
    wanted: str
    """For people."""
    answered: str
    pairs: tuple[Pair, ...] = ()
    """Of labels and spans."""
    claims: tuple[tuple[float, bool], ...] = ()
    """Each score that says how probable something is, with whether it was so."""
    decisions: tuple[tuple[float, bool], ...] = ()
    """What a threshold could keep back: the score of each label or span, with whether it is right."""
    deviation: float | None = None
    """How far a number is above the one that was wanted."""
