"""Following the chain of events from the first one to the log's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import DataError

from registry.database.models import AuditEvent, AuditHead
from registry.errors import AuditError
from registry.rules.chain import START, chain_digest
from registry.rules.replay import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.database.unit_of_work import UnitOfWork

__all__ = ["broken_at", "read_chain"]


def read_chain(uow: UnitOfWork) -> tuple[list[Change], list[str]]:
    """The events, and the chain's digests: before the first event, and after each.

    Raises:
        AuditError: an event is missing, or is not the one that was written.
    """
    digests, changes = [START], list[Change]()
    # Row by row: one that cannot be read must not hide which one it is.
    query = select(AuditEvent.__table__).order_by(AuditEvent.id)
    rows = iter(uow.session.connection().execute(query))
    while (event := _next_row(rows, len(digests))) is not None:
        number = len(digests)
        if event.id != number:
            raise broken_at(number, "is missing")
        digests.append(_link(digests[-1], event))
        if event.digest != digests[-1]:
            raise broken_at(event.id, "was changed, or one before it was")
        changes.append(
            Change(
                id=event.id,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                details=event.details,
            )
        )
    count, head = len(changes), uow.session.get(AuditHead, 1)
    if head is None or head.count > count:
        raise broken_at(count + 1, "is missing")
    if head.count < count:
        raise broken_at(head.count + 1, "was not written by Centra: the log ended before it")
    if head.digest != digests[-1]:
        raise broken_at(count, "is not the one that the log ended with")
    return changes, digests


def _next_row(rows: Iterator[Any], number: int) -> Any:
    try:
        return next(rows, None)
    except (ValueError, TypeError, RecursionError, DataError) as error:
        cause = error.orig if isinstance(error, DataError) else error
        raise broken_at(number, f"cannot be read ({cause})") from error


def _link(previous: str, event: Any) -> str:
    try:
        return chain_digest(previous, event)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise broken_at(event.id, f"cannot be read ({error})") from error


def broken_at(event: int, cause: str) -> AuditError:
    """The error for the first event that does not fit."""
    return AuditError(
        f"audit event {event}: {cause}. Nothing from there on can be trusted; compare with a "
        "backup of the database.",
        event=event,
    )
