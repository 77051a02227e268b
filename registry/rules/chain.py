"""The chain that ties each event of the log to the one before it; pure."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.database.models import AuditEvent

__all__ = ["START", "chain_digest"]

START = "0" * 64
"""What the first event is chained to."""


def chain_digest(previous: str, event: AuditEvent) -> str:
    """The digest of an event: over its content, and over the digest of the one before it."""
    # Late: a listing, which writes nothing, should not wait for pydantic.
    from centra.formats.documents import canonical_json, sha256

    return sha256(
        canonical_json(
            {
                "id": event.id,
                "previous": previous,
                "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "actor": event.actor,
                "action": event.action,
                "subject": event.subject,
                "forced": event.forced,
                "details": event.details,
            }
        )
    )
