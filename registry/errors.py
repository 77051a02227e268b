"""The registry's own branch of the tree in :mod:`centra.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import CentraError, ConflictError, NotAllowedError, NotFoundError

if TYPE_CHECKING:
    from registry.contract import ContractDifference

__all__ = [
    "ContractChangedError",
    "DatabaseError",
    "NotOwnerError",
    "TaskExistsError",
    "TaskNotFoundError",
    "WrongStoreError",
]


class DatabaseError(CentraError):
    """The database cannot be reached, or its tables are not those this Centra works with."""


class TaskNotFoundError(NotFoundError):
    """No task, or no version of it, has this name."""


class TaskExistsError(ConflictError):
    """A task of this name is registered already, with other bytes."""


class ContractChangedError(ConflictError):
    """An update whose kind, input or labels differ from the task's."""

    def __init__(self, task: str, difference: ContractDifference) -> None:
        super().__init__(
            f"task {task}: an update must keep kind, input and labels, but\n"
            + "\n".join(f"  {line}" for line in difference.lines())
            + f"\nIf its callers are ready for that: centra task redefine {task} FILE"
        )
        self.difference = difference


class NotOwnerError(NotAllowedError):
    """The task belongs to another team."""

    def __init__(self, task: str, team: str, actor: str | None) -> None:
        who = (
            f"you are {actor}"
            if actor
            else f"you have not said who you are; set CENTRA_ACTOR={team}/YOU"
        )
        super().__init__(
            f"task {task} belongs to team {team}, and {who}. "
            "Ask that team, or repeat with --force, which the audit log will show."
        )
        self.team = team


class WrongStoreError(ConflictError):
    """The store is not the one that the database writes to."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found}\nNothing was done; {mend}")
        self.found = found
        self.mend = mend
