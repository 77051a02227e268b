"""The log of changes, and what checking it led to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.documents.base import Document, Moment, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry import audit

__all__ = ["AcceptedBackup", "Event", "LogVerification", "RestoredGuards"]


class Event(Document):
    """One change."""

    schema_: str = schema("event")
    id: int
    """Its place in the log, from 1."""
    created_at: Moment
    created_by: str
    action: str
    """What was done: ``task:update``."""
    subject: str
    """The name of what was changed: a task, a channel, a release's number …"""
    forced: bool
    """Whether it was another team's to do."""
    details: dict[str, Any]
    """What the log keeps of this action, as it was recorded."""
    digest: str
    """Of this event and, by the digest before, of all that came before it."""

    @classmethod
    def of(cls, event: audit.Event) -> Event:
        """The document of an event."""
        return cls(
            id=event.id,
            created_at=event.at,
            created_by=event.actor,
            action=event.action,
            subject=event.subject,
            forced=event.forced,
            details=event.details,
            digest=event.digest,
        )


class LogVerification(Document):
    """A log that is as it was written, and tables that are as it says."""

    schema_: str = schema("log-verification")
    events: int
    """How many."""
    digest: str
    """Of the last event."""
    witness: str
    """``COUNT:DIGEST``: kept elsewhere, it shows later whether this very log was cut or rewritten."""
    witnesses: int
    """How many witnesses agree: the store's, and those that were asked for."""
    void: dict[int, list[str]]
    """The store's witnesses that do not count, by the event that says so."""
    rows: int
    """How many rows are as the log says."""
    partly: int
    """Of how many of them the log does not say every value."""

    @classmethod
    def of(cls, verified: audit.Verified) -> LogVerification:
        """The document of a verification."""
        return cls(
            events=verified.events,
            digest=verified.digest,
            witness=verified.witness,
            witnesses=verified.witnesses,
            void=verified.void,
            rows=verified.rows,
            partly=verified.partly,
        )


class AcceptedBackup(Document):
    """What saying that an older backup was restored led to."""

    schema_: str = schema("accepted-backup")
    changed: bool
    void: list[str]
    """The store's witnesses that do not count from now on, ``COUNT:DIGEST``."""

    @classmethod
    def of(cls, void: Sequence[str]) -> AcceptedBackup:
        """The document of the witnesses that are void now."""
        return cls(changed=bool(void), void=list(void))


class RestoredGuards(Document):
    """What putting the database's triggers back led to."""

    schema_: str = schema("restored-guards")
    changed: bool
    restored: list[str]
    """The triggers that were put back."""

    @classmethod
    def of(cls, restored: Sequence[str]) -> RestoredGuards:
        """The document of the triggers that were put back."""
        return cls(changed=bool(restored), restored=list(restored))
