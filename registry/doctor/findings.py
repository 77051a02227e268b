"""What checks find, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from registry.texts import first_lines

if TYPE_CHECKING:
    from pathlib import Path

    from centra.progress import Progress
    from registry.connection import Registry
    from registry.storage.scrub import DamagedBlob

__all__ = ["NAMED", "Check", "Finding", "Setup", "State", "well"]

State = Literal["ok", "warning", "problem", "skipped"]

NAMED = 10
"""How many things of a kind are named; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found."""

    text: str
    """In words; where it is several things, a line each."""
    state: State = "problem"
    code: str = "ok"
    """What it is, stable and for programs."""
    data: dict[str, Any] = field(default_factory=dict)
    """What it is about, by name; plain values."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    check: str
    """Its name."""
    findings: list[Finding]
    """At least one."""
    damaged: list[DamagedBlob] = field(default_factory=list)
    """Every blob that was read and is not what it should be."""

    @property
    def state(self) -> State:
        """That of the worst finding."""
        states = {finding.state for finding in self.findings}
        order: tuple[State, ...] = ("problem", "warning", "skipped")
        return next((state for state in order if state in states), "ok")

    @property
    def found(self) -> str:
        """All that was found, in words: the first few, and how many more there are."""
        if len(self.findings) == 1:
            return self.findings[0].text
        return first_lines([finding.text for finding in self.findings], NAMED)


@dataclass(kw_only=True)
class Setup:
    """What is looked at, and what is known of it so far."""

    given: dict[str, str | None]
    """What :meth:`registry.connection.Registry.open` is given: database, store and actor."""
    folder: Path | None
    progress: Progress
    states: dict[str, State] = field(default_factory=dict)
    """By the name of the check."""
    store_unreachable: bool = False
    damaged: list[DamagedBlob] = field(default_factory=list)
    registry: Registry = field(init=False)

    def usable(self, check: str) -> bool:
        """Whether a check found what others need."""
        return self.states[check] in ("ok", "warning")


def well(text: str) -> list[Finding]:
    """The one finding where all is well."""
    return [Finding(state="ok", text=text)]
