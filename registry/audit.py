"""The log of changes: each event is chained to the one before it, and none is ever changed.

Writing is :meth:`registry.unit_of_work.UnitOfWork.record`, in the change's own transaction. The
database itself refuses to update or delete an event. An event's digest covers its content and the
digest before it, and the log's head holds the last one, so that a row which somebody changed, took
out or put in behind the database's back shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import DataError

from centra.errors import VerificationError
from registry.chain import START, chain_digest
from registry.listing import within
from registry.models import AuditEvent, AuditHead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from registry.connection import Registry
    from registry.listing import Moment

__all__ = ["AuditError", "Event", "events", "verify"]


class AuditError(VerificationError):
    """The log is not as it was written; says from which event on."""

    def __init__(self, event: int, cause: str) -> None:
        super().__init__(
            f"audit event {event}: {cause}. Nothing from there on can be trusted; compare with a "
            "backup of the database."
        )
        self.event = event


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    forced: bool
    details: dict[str, Any]
    digest: str


def events(
    registry: Registry,
    *,
    task: str | None = None,
    actor: str | None = None,
    since: Moment | None = None,
) -> list[Event]:
    """The log, oldest first.

    Args:
        registry: where.
        task: keep the changes of this task.
        actor: keep the changes by this actor (``team/person``), or by this team (``team``).
        since: keep what happened at this time or later; or how long ago.

    Raises:
        TaskNotFoundError: there is no such task.
        DatabaseError: the registry cannot be used.
    """
    query = select(AuditEvent).order_by(AuditEvent.id)
    with registry.read() as uow:
        if task is not None:
            query = query.where(
                AuditEvent.subject == uow.task(task).name, AuditEvent.action.startswith("task:")
            )
        if actor is not None:
            query = query.where(
                (AuditEvent.actor == actor)
                | AuditEvent.actor.startswith(f"{actor}/", autoescape=True)
            )
        query = within(uow, query, AuditEvent.at, since, None)
        return [
            Event(
                id=event.id,
                at=event.at,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                forced=event.forced,
                details=event.details,
                digest=event.digest,
            )
            for event in uow.session.scalars(query)
        ]


def verify(registry: Registry) -> tuple[int, str]:
    """Follow the chain from the first event to the head.

    Returns:
        How many events there are, and the digest of the last. Kept elsewhere, it also shows a log
        that somebody wrote anew as a whole.

    Raises:
        AuditError: an event was changed, taken out or put in; the first that does not fit is named.
        DatabaseError: the registry cannot be used.
    """
    count, digest = 0, START
    # Row by row: one that cannot be read must not hide which one it is.
    query = select(AuditEvent.__table__).order_by(AuditEvent.id)
    with registry.read() as uow:
        rows = iter(uow.session.connection().execute(query))
        while (event := _next_row(rows, count + 1)) is not None:
            if event.id != count + 1:
                raise AuditError(count + 1, "is missing")
            digest = _link(digest, event)
            if event.digest != digest:
                raise AuditError(event.id, "was changed, or one before it was")
            count = event.id
        head = uow.session.get(AuditHead, 1)
        if head is None or head.count > count:
            raise AuditError(count + 1, "is missing")
        if head.count < count:
            raise AuditError(head.count + 1, "was not written by Centra: the log ended before it")
        if head.digest != digest:
            raise AuditError(count, "is not the one that the log ended with")
    return count, digest


def _next_row(rows: Iterator[Any], number: int) -> Any:
    try:
        return next(rows, None)
    except (ValueError, TypeError, RecursionError, DataError) as error:
        cause = error.orig if isinstance(error, DataError) else error
        raise AuditError(number, f"cannot be read ({cause})") from error


def _link(previous: str, event: Any) -> str:
    try:
        return chain_digest(previous, event)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(event.id, f"cannot be read ({error})") from error
