"""The decisions on tasks, without disk or database: who may, which version comes next, what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.names import parse_name
from registry.errors import NotOwnerError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Actor", "Contract", "ContractDifference", "check_owner", "compare", "next_version"]

Contract = tuple[str, str, tuple[str, ...]]
"""Kind, input and labels in their order: what callers of a task rely on."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts, as the caller says; the database's credentials are what really guards it."""

    person: str
    team: str | None = None

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


@dataclass(frozen=True, kw_only=True)
class ContractDifference:
    """How a new version's contract differs from the current one."""

    kind: tuple[str, str] | None = None
    """Before and after, where it differs."""
    input: tuple[str, str] | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    """Labels that another took the place of, in an otherwise equal list; a guess, but a good one."""
    reordered: bool = False
    """The same labels in another order."""

    def __bool__(self) -> bool:
        return any((self.kind, self.input, self.added, self.removed, self.renamed, self.reordered))

    def lines(self) -> list[str]:
        """One line for each difference, for people."""
        lines = []
        for what, change in (("kind", self.kind), ("input", self.input)):
            if change:
                lines.append(f"{what}: {change[0]} → {change[1]}")
        for what, labels in (("added", self.added), ("removed", self.removed)):
            if labels:
                lines.append(f"labels {what}: {', '.join(labels)}")
        if self.renamed:
            pairs = ", ".join(f"{old} → {new}" for old, new in self.renamed)
            lines.append(f"labels renamed: {pairs}")
        if self.reordered:
            lines.append("labels: the same, in another order")
        return lines


def compare(old: Contract, new: Contract) -> ContractDifference:
    """The difference between two contracts; false where there is none."""
    before, after = old[2], new[2]
    added = tuple(label for label in after if label not in before)
    removed = tuple(label for label in before if label not in after)
    renamed: tuple[tuple[str, str], ...] = ()
    pairs = [(a, b) for a, b in zip(before, after, strict=False) if a != b]
    if len(before) == len(after) and {(a, b) for a, b in pairs} == set(
        zip(removed, added, strict=False)
    ):
        renamed, added, removed = tuple(pairs), (), ()
    return ContractDifference(
        kind=(old[0], new[0]) if old[0] != new[0] else None,
        input=(old[1], new[1]) if old[1] != new[1] else None,
        added=added,
        removed=removed,
        renamed=renamed,
        reordered=before != after and set(before) == set(after),
    )


def next_version(
    existing: Iterable[tuple[int, int]], current: tuple[int, int], *, redefined: bool
) -> tuple[int, int]:
    """The number of a new version.

    Args:
        existing: all versions so far.
        current: the one in force, which a pin may have set back.
        redefined: whether the contract changes: a new major; otherwise the next minor of the
            current major.
    """
    if redefined:
        return max(major for major, _ in existing) + 1, 0
    return current[0], max(minor for major, minor in existing if major == current[0]) + 1


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
