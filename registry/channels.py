"""Channels: movable names for releases, and their published pointers in the store.

The database decides; the pointer is its copy, written after the transaction. A pointer that a crash
or a slower writer left behind is put right by the next move, or by moving the channel again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select

from centra.errors import NotFoundError, UsageError
from centra.names import parse_name
from centra.release import ChannelPointer
from registry.models import Channel, ChannelMove

if TYPE_CHECKING:
    from datetime import datetime

    from registry.connection import Registry
    from registry.models import Release
    from registry.unit_of_work import UnitOfWork

__all__ = ["LATEST", "ChannelRow", "advance", "list_all", "move", "publish_pointer", "show"]

MoveKind = Literal["publish", "move", "promote", "rollback"]
LATEST = "latest"
"""The channel that follows ``centra compose --release`` by itself."""


@dataclass(frozen=True, kw_only=True)
class ChannelRow:
    """A channel and the release it serves."""

    name: str
    release: int
    digest: str
    revision: int
    moved_at: datetime
    moved_by: str


def list_all(registry: Registry) -> list[ChannelRow]:
    """All channels, by name."""
    with registry.read() as uow:
        return [_row(c) for c in uow.session.scalars(select(Channel).order_by(Channel.name))]


def show(registry: Registry, name: str) -> ChannelRow:
    """One channel.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        channel = uow.channel(name)
        if channel is None:
            raise NotFoundError(f"there is no channel {name!r}; see: centra channel list")
        return _row(channel)


def move(registry: Registry, name: str, reference: str) -> tuple[ChannelRow, bool]:
    """Point a channel at a release; a new name makes a channel.

    Args:
        registry: where.
        name: the channel.
        reference: a release's number, another channel's name, or the start of a digest.

    Returns:
        The channel, and whether it moved. Its pointer is published in either case, so repeating
        the command mends one that a crash left behind.

    Raises:
        InvalidNameError, UsageError: the name is not acceptable, all digits, or reserved.
        NotFoundError: there is no such release.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    parse_name(name, "channel name")
    if name == LATEST:
        raise UsageError(f"the channel {LATEST!r} follows 'centra compose --release' by itself")
    if name.isdecimal():
        raise UsageError(f"channel {name!r}: a name of digits alone would read as a release number")
    with registry.write() as uow:
        channel, moved = advance(uow, name, uow.release(reference), "move")
        row = _row(channel)
    publish_pointer(registry, name)
    return row, moved


def advance(uow: UnitOfWork, name: str, release: Release, kind: MoveKind) -> tuple[Channel, bool]:
    """Move a channel inside a transaction; it counts its revision only when it really moves."""
    channel = uow.channel(name)
    if channel is not None and channel.release_id == release.id:
        return channel, False
    before = channel.release if channel else None
    if channel is None:
        channel = Channel(name=name, release=release, revision=1, moved_by=str(uow.actor))
        uow.session.add(channel)
    else:
        channel.release = release
        channel.revision += 1
        channel.moved_by = str(uow.actor)
    uow.session.flush()
    uow.session.add(
        ChannelMove(
            channel=name,
            revision=channel.revision,
            kind=kind,
            release=release,
            before=before,
            by=str(uow.actor),
        )
    )
    uow.record(
        "channel:move" if kind == "publish" else f"channel:{kind}",
        name,
        {
            "from": before.number if before else None,
            "to": release.number,
            "revision": channel.revision,
        },
    )
    return channel, True


def publish_pointer(registry: Registry, name: str) -> None:
    """Write a channel's pointer as the database has it, until it holds the newest revision.

    Raises:
        NotFoundError: there is no such channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    while True:
        row = show(registry, name)
        pointer = ChannelPointer(
            name=name, revision=row.revision, release=row.release, manifest=row.digest
        ).to_bytes()
        if registry.store.read_pointer(name) != pointer:
            registry.store.write_pointer(name, pointer)
        # Another mover may have published between our look and our write: look again.
        if show(registry, name).revision == row.revision:
            return


def _row(channel: Channel) -> ChannelRow:
    return ChannelRow(
        name=channel.name,
        release=channel.release.number,
        digest=channel.release.digest,
        revision=channel.revision,
        moved_at=channel.moved_at,
        moved_by=channel.moved_by,
    )
