"""The registry's own branch of the tree in :mod:`centra.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.errors import (
    CentraError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
    StoreError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.contract import ContractDifference

__all__ = [
    "AuditError",
    "ContractChangedError",
    "DatabaseError",
    "NotOwnerError",
    "TaskExistsError",
    "TaskNotFoundError",
    "UnpublishedError",
    "WrongStoreError",
]


class AuditError(VerificationError):
    """The log is not as it was written, or the tables are not as the log says."""

    code = "audit-log"

    def __init__(
        self, message: str, *, event: int | None = None, findings: Sequence[str] = ()
    ) -> None:
        super().__init__(message, event=event, findings=list(findings))
        self.event = event
        """The first event that does not fit, where it is one."""


class DatabaseError(CentraError):
    """The database cannot be reached, or its tables are not those this Centra works with."""


class TaskNotFoundError(NotFoundError):
    """No task, or no version of it, has this name."""


class TaskExistsError(ConflictError):
    """A task of this name is registered already, with other bytes."""


class ContractChangedError(ConflictError):
    """An update whose kind, input or labels differ from the task's."""

    code = "contract-changed"

    def __init__(self, task: str, difference: ContractDifference) -> None:
        super().__init__(
            f"task {task}: an update must keep kind, input and labels, but\n"
            + "\n".join(f"  {line}" for line in difference.lines()),
            task=task,
            difference=difference.lines(),
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


class UnpublishedError(StoreError):
    """A channel has moved in the database, but its pointer in the store could not be written."""

    code = "unpublished"

    def __init__(
        self,
        channel: str,
        release: int,
        revision: int,
        *,
        cause: CentraError,
        followers: str,
        repeat_expecting: int | None = None,
    ) -> None:
        super().__init__(
            f"{channel} serves release {release} in the database (revision {revision}), but its "
            f"pointer could not be published: {cause}\nFollowers {followers}.",
            channel=channel,
            release=release,
            revision=revision,
            repeat_expecting=repeat_expecting,
        )
        self.channel = channel
        self.revision = revision


class WrongStoreError(ConflictError):
    """The store is not the one that the database writes to."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found}\nNothing was done; {mend}")
        self.found = found
        self.mend = mend
