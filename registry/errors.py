"""The registry's own branch of the tree in :mod:`centra.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    "IncompleteError",
    "NotOwnerError",
    "TaskExistsError",
    "TaskNotFoundError",
    "UnpublishedError",
    "UnreadableError",
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

    code = "database"


class TaskNotFoundError(NotFoundError):
    """No task, or no version of it, has this name."""

    code = "task-not-found"


class TaskExistsError(ConflictError):
    """A task of this name is registered already, with other bytes."""

    code = "task-exists"


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

    code = "not-owner"

    def __init__(self, task: str, team: str, actor: str | None) -> None:
        who = f"you are {actor}" if actor else "you have not said who you are"
        super().__init__(
            f"task {task} belongs to team {team}, and {who}", task=task, team=team, actor=actor
        )
        self.team = team


class UnpublishedError(StoreError):
    """A channel has moved in the database, but its pointer in the store could not be written.

    Args:
        channel: its name.
        release: what it serves now in the database.
        revision: its own.
        cause: why the pointer could not be written.
        followers: what those see who follow the pointer.
        repeat_expecting: the revision to expect where the change is repeated; None where it can be
            repeated as it was.
    """

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
    """The store is not the one that the database writes to; its code says whose it is."""

    code = "store-mismatch"


class IncompleteError(ConflictError):
    """A store lacks blobs that the database names."""

    code = "store-incomplete"


class UnreadableError(VerificationError):
    """Something that says which blobs must stay cannot be read, so nothing may be removed."""

    code = "needs-unreadable"

    def __init__(self, owner: str, cause: Exception, *, code: str, **data: Any) -> None:
        super().__init__(
            f"cannot tell which blobs {owner} needs, so nothing may be removed: {cause}",
            code=code,
            **data,
        )
