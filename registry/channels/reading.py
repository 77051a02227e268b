"""Listing channels, showing one, and what it has served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from centra.errors import NotFoundError
from centra.formats.manifest import DEFAULT_CHANNELS
from registry.database.listing import by_name, holds, within
from registry.database.models import Channel, ChannelMove, Release
from registry.rules.lineage import Move, MoveKind

if TYPE_CHECKING:
    from datetime import datetime

    from centra.formats.identities import Digest
    from registry.connection import Registry
    from registry.database.listing import Moment
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "ChannelRow",
    "MoveRow",
    "channel_row",
    "default",
    "get_channel",
    "history",
    "last_move",
    "list_channels",
    "moves_of",
    "show",
]


@dataclass(frozen=True, kw_only=True)
class ChannelRow:
    """A channel and the release it serves."""

    name: str
    release: int
    digest: Digest
    revision: int
    moved_at: datetime
    moved_by: str


@dataclass(frozen=True, kw_only=True)
class MoveRow:
    """One step of a channel's history."""

    revision: int
    kind: MoveKind
    release: int
    before: int | None
    at: datetime
    by: str


def list_channels(
    registry: Registry,
    *,
    release: str | None = None,
    task: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> list[ChannelRow]:
    """Channels, by name.

    Args:
        registry: where.
        release: keep the channels that serve this release: a number or the start of a digest.
        task: keep the channels that serve this task, or this version of it: ``name@major.minor``.
        since, until: keep what last moved at ``since`` or later, and before ``until``; times,
            or how long ago.

    Raises:
        NotFoundError: there is no such release, task or version.
        InvalidNameError: the task's name is not acceptable.
        DatabaseError: the registry cannot be used.
    """
    query = select(Channel).order_by(by_name(registry, Channel.name))
    query = query.options(joinedload(Channel.release))
    with registry.read() as uow:
        query = within(uow, query, Channel.moved_at, since, until)
        if release is not None:
            query = query.where(Channel.release_id == uow.release(release).id)
        if task is not None:
            query = query.where(holds(uow, Channel.release_id, task))
        return [channel_row(channel) for channel in uow.session.scalars(query)]


def show(registry: Registry, name: str) -> ChannelRow:
    """One channel.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        return channel_row(get_channel(uow, name))


def default(registry: Registry) -> ChannelRow:
    """The channel that is meant where no release is named: ``production``, or else ``latest``.

    Raises:
        NotFoundError: there is neither.
    """
    with registry.read() as uow:
        for name in DEFAULT_CHANNELS:
            if channel := uow.channel(name):
                return channel_row(channel)
    raise NotFoundError(
        f"no release is named, and there is no channel {' or '.join(DEFAULT_CHANNELS)} to take one "
        "from",
        code="no-default-channel",
    )


def history(registry: Registry, name: str) -> list[MoveRow]:
    """All that a channel has served, the newest first.

    Raises:
        NotFoundError: there is no such channel.
    """
    query = (
        select(ChannelMove)
        .where(ChannelMove.channel == name)
        .order_by(ChannelMove.revision.desc())
        .options(joinedload(ChannelMove.release), joinedload(ChannelMove.before))
    )
    with registry.read() as uow:
        get_channel(uow, name)
        return [
            MoveRow(
                revision=move.revision,
                kind=move.kind,
                release=move.release.number,
                before=move.before.number if move.before else None,
                at=move.at,
                by=move.by,
            )
            for move in uow.session.scalars(query)
        ]


def get_channel(uow: UnitOfWork, name: str) -> Channel:
    """The channel of this name.

    Raises:
        NotFoundError: there is none.
    """
    channel = uow.channel(name)
    if channel is None:
        raise NotFoundError(f"there is no channel {name!r}", code="channel-not-found", channel=name)
    return channel


def last_move(uow: UnitOfWork, channel: Channel) -> ChannelMove:
    """The move that led to what a channel serves."""
    return uow.session.get_one(ChannelMove, (channel.name, channel.revision))


def moves_of(uow: UnitOfWork, name: str, until: int | None = None) -> list[Move]:
    """A channel's history as plain values, the oldest first; as of a revision, or all of it."""
    query = (
        select(ChannelMove.kind, Release.number)
        .join(Release, ChannelMove.release_id == Release.id)
        .where(ChannelMove.channel == name)
        .order_by(ChannelMove.revision)
    )
    if until is not None:
        query = query.where(ChannelMove.revision <= until)
    return [Move(kind=kind, release=number) for kind, number in uow.session.execute(query)]


def channel_row(channel: Channel) -> ChannelRow:
    """A channel as plain values."""
    return ChannelRow(
        name=channel.name,
        release=channel.release.number,
        digest=channel.release.digest,
        revision=channel.revision,
        moved_at=channel.moved_at,
        moved_by=channel.moved_by,
    )
