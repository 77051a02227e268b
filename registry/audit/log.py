"""Reading the log of changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from registry.database.listing import within
from registry.database.models import AuditEvent

if TYPE_CHECKING:
    from datetime import datetime

    from registry.connection import Registry
    from registry.database.listing import Moment

__all__ = ["Event", "events"]


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
