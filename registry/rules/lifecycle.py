"""The decisions on tasks, without disk or database: who may, and which version comes next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.identities import VersionNumber
from centra.formats.names import parse_name
from registry.errors import NotOwnerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from centra.formats.identities import Name

__all__ = [
    "Actor",
    "BackboneState",
    "TaskState",
    "VersionChange",
    "check_owner",
    "next_version",
]


class TaskState(StrEnum):
    """Whether a task belongs to the live set."""

    ACTIVE = "active"
    RETIRED = "retired"


class BackboneState(StrEnum):
    """Whether a backbone takes new modules."""

    ACTIVE = "active"
    RETIRED = "retired"


class VersionChange(StrEnum):
    """How a module becomes a version of a task."""

    REGISTER = "register"
    """The first version of a new task."""
    UPDATE = "update"
    """The next minor version, under the same contract."""
    REDEFINE = "redefine"
    """The next major version, under another contract."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts, as the caller says; the database's credentials are what really guards it."""

    person: str
    team: Name | None = None

    @classmethod
    def parse(cls, text: str) -> Actor:
        """Read ``team/person``.

        Raises:
            UsageError: anything else.
        """
        team, slash, person = text.partition("/")
        person = person.strip()
        if not slash or not person.isprintable() or "/" in person or not 0 < len(person) <= 63:
            raise UsageError(f"actor {text!r}: expected TEAM/PERSON, for example nlu/ada")
        return cls(team=parse_name(team, "team name"), person=person)

    def __str__(self) -> str:
        return f"{self.team}/{self.person}" if self.team else self.person


def next_version(
    existing: Iterable[VersionNumber], current: VersionNumber, *, redefined: bool
) -> VersionNumber:
    """The number of a new version.

    Args:
        existing: the versions so far, or of all majors and of the current one the newest.
        current: the one in force, which a pin may have set back.
        redefined: whether the contract changes: a new major; otherwise the next minor of the
            current major.
    """
    if redefined:
        return VersionNumber(max(existing).major + 1, 0)
    of_this_major = [number for number in existing if number.major == current.major]
    return VersionNumber(current.major, max(of_this_major).minor + 1)


def check_owner(task: str, team: str, actor: Actor, *, force: bool) -> bool:
    """Whether force is what allows the actor to change the task.

    Returns:
        False for an actor of the owning team, True for another who forces it.

    Raises:
        NotOwnerError: another team, or nobody in particular, without force.
    """
    if actor.team == team:
        return False
    if not force:
        raise NotOwnerError(task, team, str(actor) if actor.team else None)
    return True
