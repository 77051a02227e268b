"""What went wrong in an attack, and how to see it again."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["LOSSES", "Loss", "lose"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A promise that did not hold."""

    what: str
    repeat: str
    """The command that shows it again."""


LOSSES: list[Loss] = []
"""All that this process has seen."""


def lose(what: str, repeat: str) -> None:
    """Remember a promise that did not hold, and go on."""
    LOSSES.append(Loss(what=what, repeat=repeat))
    print(f"LOSS: {what}\n  again: {repeat}", file=sys.stderr, flush=True)
