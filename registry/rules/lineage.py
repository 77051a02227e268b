"""Where a release comes from and what a channel has served: pure decisions on plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.rules.released_version import ReleasedVersion

__all__ = [
    "Ancestor",
    "Composed",
    "Move",
    "MoveKind",
    "StaleTask",
    "ancestry",
    "common_ancestor",
    "rollback_stack",
    "stale_tasks",
    "withdrawn_releases",
]


class MoveKind(StrEnum):
    """How a channel comes to serve another release."""

    PUBLISH = "publish"
    """``latest`` follows a release of the live set."""
    MOVE = "move"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step of a channel's history."""

    kind: MoveKind
    release: int


@dataclass(frozen=True, kw_only=True)
class Composed:
    """One composition of a release: onto which other, and its place among all compositions."""

    base: int
    order: int
    """Grows from each composition to the next."""


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A release as one composition made it.

    A set of modules that comes back is the same release again, but made of something else.
    """

    release: int
    order: int | None
    """That of the composition onto another; None where it was composed onto none."""


@dataclass(frozen=True, kw_only=True)
class StaleTask:
    """A task for which a channel serves something that a candidate would undo."""

    task: str
    serving: ReleasedVersion | None
    """The version that the channel serves; None where it does not serve the task."""
    candidate: ReleasedVersion | None
    withdrawn: bool = False
    """Whether the candidate's version came with a release that was rolled back."""

    def __str__(self) -> str:
        if self.withdrawn:
            return f"{self.task} {self.candidate or 'removed'} was rolled back"
        serving, candidate = self.serving or "not served", self.candidate or "without it"
        return f"{self.task} is {serving} there, {candidate} here"


def rollback_stack(moves: Sequence[Move]) -> list[int]:
    """The releases that rollbacks go down through, the one that is served last.

    A rollback takes off what was moved to since; rolling back twice goes back two steps.
    """
    return _replay(moves)[0]


def withdrawn_releases(moves: Sequence[Move]) -> set[int]:
    """The releases that were rolled back and have not been served since."""
    return _replay(moves)[1]


def _replay(moves: Sequence[Move]) -> tuple[list[int], set[int]]:
    served: list[int] = []
    gone: set[int] = set()
    for move in moves:
        if move.kind == MoveKind.ROLLBACK and move.release in served:
            while served[-1] != move.release:
                gone.add(served.pop())
        else:
            served.append(move.release)
    return served, gone - {*served}


def ancestry(
    release: int, compositions: Mapping[int, Sequence[Composed]], until: int | None = None
) -> list[Ancestor]:
    """A release and what it stands on, the nearest first.

    Each step goes to what a release was last composed onto before the step ahead of it was made:
    the order only falls, and the chain ends.

    Args:
        release: where to begin.
        compositions: per release its compositions, the latest first.
        until: as it was when this was the newest composition; default now.
    """
    ancestors: list[Ancestor] = []
    while True:
        composed = compositions.get(release, ())
        last = next((c for c in composed if until is None or c.order <= until), None)
        ancestors.append(Ancestor(release=release, order=last.order if last else None))
        if last is None:
            return ancestors
        release, until = last.base, last.order - 1


def common_ancestor(candidate: Sequence[Ancestor], serving: Sequence[Ancestor]) -> int | None:
    """Where a candidate's ancestry meets that of what is served: an index into the candidate's."""
    for i, ancestor in enumerate(candidate):
        if ancestor in serving or (i and ancestor.release == serving[0].release):
            return i
    return None


def stale_tasks(
    candidate: Mapping[str, ReleasedVersion],
    serving: Mapping[str, ReleasedVersion],
    common: Mapping[str, ReleasedVersion] | None,
    rolled_back: Sequence[Mapping[str, ReleasedVersion]] = (),
) -> list[StaleTask]:
    """The tasks for which serving the candidate would undo what has happened to the channel.

    Args:
        candidate: the tasks of the release that is to be served.
        serving: those of the release that is served.
        common: those of the nearest release that both stand on; None where there is none, so that
            whatever is served has come since.
        rolled_back: those of the candidate's ancestors that were rolled back.
    """
    stale = {}
    base = common or {}
    for task in base.keys() | serving.keys():
        here, there = candidate.get(task), serving.get(task)
        if there != base.get(task) and here != there:
            stale[task] = StaleTask(task=task, serving=there, candidate=here)
    for versions in rolled_back:
        for task in versions.keys() | serving.keys():
            there, here = serving.get(task), candidate.get(task)
            if versions.get(task) != there and here == versions.get(task):
                stale[task] = StaleTask(task=task, serving=there, candidate=here, withdrawn=True)
    return [stale[task] for task in sorted(stale)]
