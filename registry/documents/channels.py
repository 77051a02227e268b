"""Channels: which release each serves, what moved it, and what came of a move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.documents.base import Document, Moment, from_field, schema

if TYPE_CHECKING:
    from registry import channels

__all__ = [
    "Channel",
    "ChannelChange",
    "ChannelDetail",
    "ChannelMove",
    "PublishedPointer",
    "Rollback",
]


class Channel(Document):
    """A channel and the release that it serves."""

    schema_: str = schema("channel")
    channel: str
    release: int
    digest: str
    """Of the release's manifest."""
    revision: int
    """Grows by one with each move."""
    updated_at: Moment
    """When it was moved last."""
    updated_by: str

    @classmethod
    def of(cls, row: channels.ChannelRow) -> Channel:
        """The document of a channel."""
        return cls(
            channel=row.name,
            release=row.release,
            digest=row.digest,
            revision=row.revision,
            updated_at=row.moved_at,
            updated_by=row.moved_by,
        )


class ChannelDetail(Channel):
    """A channel, and where servers read it."""

    schema_: str = schema("channel-detail")
    address: str
    """``STORE#CHANNEL``, without passwords."""

    @classmethod
    def at(cls, row: channels.ChannelRow, address: str) -> ChannelDetail:
        """The document of a channel with its address."""
        return cls(**_fields(row), address=address)


class ChannelChange(Channel):
    """A channel that was moved."""

    schema_: str = schema("channel-change")
    changed: bool
    """False where it served this release already."""

    @classmethod
    def made(cls, row: channels.ChannelRow, *, changed: bool) -> ChannelChange:
        """The document of a move."""
        return cls(**_fields(row), changed=changed)


class Rollback(Channel):
    """A channel that was rolled back."""

    schema_: str = schema("rollback")
    from_: int = from_field()
    """The release that it served before."""
    changed: bool
    """False where it had been rolled back already, and where ``published``."""
    published: bool
    """Whether its pointer was behind, so that it was published and nothing else was done."""

    @classmethod
    def made(cls, rollback: channels.Rollback) -> Rollback:
        """The document of a rollback."""
        return cls(
            **_fields(rollback.channel),
            from_=rollback.before,
            changed=rollback.moved,
            published=rollback.published,
        )


class ChannelMove(Document):
    """One step of a channel's history."""

    schema_: str = schema("channel-move")
    revision: int
    kind: str
    """``publish``, ``move``, ``promote`` or ``rollback``."""
    release: int
    """The one that it serves from this step on."""
    from_: int | None = from_field()
    """The release that it served before; null for the first step."""
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, row: channels.MoveRow) -> ChannelMove:
        """The document of a step."""
        return cls(
            revision=row.revision,
            kind=row.kind,
            release=row.release,
            from_=row.before,
            created_at=row.at,
            created_by=row.by,
        )


class PublishedPointer(Document):
    """A channel whose pointer was published as the database has it."""

    schema_: str = schema("published-pointer")
    channel: str
    release: int
    revision: int
    changed: bool
    """Whether the pointer was missing, or said something else."""
    found: str | None
    """What was wrong with it."""

    @classmethod
    def of(cls, row: channels.SyncRow) -> PublishedPointer:
        """The document of a pointer."""
        return cls(
            channel=row.name,
            release=row.release,
            revision=row.revision,
            changed=row.stale,
            found=row.found,
        )


def _fields(row: channels.ChannelRow) -> dict[str, Any]:
    """What any document of a channel begins with, but for its schema."""
    return {name: value for name, value in Channel.of(row) if name != "schema_"}
