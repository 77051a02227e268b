"""Channels: movable names for releases, and their published pointers in the store.

The database decides; the pointer is its copy, written after the transaction. A pointer that a crash
or a slower writer left behind is put right by the next move, or by :func:`sync`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from centra.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from centra.names import parse_name
from centra.progress import Progress, silent
from centra.release import DEFAULT_CHANNELS, ChannelPointer
from centra.runtime.loading import read_manifest
from registry.lineage import Move, MoveKind, stack
from registry.listing import by_name, holds, within
from registry.models import Channel, ChannelMove, Release

if TYPE_CHECKING:
    from datetime import datetime

    from registry.connection import Registry
    from registry.unit_of_work import UnitOfWork

__all__ = [
    "LATEST",
    "ChannelRow",
    "MoveRow",
    "SyncRow",
    "advance",
    "check_movable",
    "default",
    "history",
    "is_published",
    "list_all",
    "move",
    "moves_of",
    "publish_pointer",
    "rollback",
    "show",
    "sync",
]

LATEST = "latest"
"""The channel that follows ``centra compose --release`` of the live set by itself."""


@dataclass(frozen=True, kw_only=True)
class ChannelRow:
    """A channel and the release it serves."""

    name: str
    release: int
    digest: str
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


@dataclass(frozen=True, kw_only=True)
class SyncRow:
    """A channel whose pointer was published again."""

    name: str
    release: int
    revision: int
    stale: bool
    """Whether the pointer was missing, or said something else."""


def list_all(
    registry: Registry,
    *,
    release: str | None = None,
    task: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[ChannelRow]:
    """Channels, by name.

    Args:
        registry: where.
        release: keep the channels that serve this release: a number or the start of a digest.
        task: keep the channels that serve this task, or this version of it: ``name@major.minor``.
        since, until: keep what last moved at ``since`` or later, and before ``until``.

    Raises:
        NotFoundError: there is no such release, task or version.
        InvalidNameError: the task's name is not acceptable.
        DatabaseError: the registry cannot be used.
    """
    query = within(select(Channel), Channel.moved_at, since, until)
    query = query.order_by(by_name(registry, Channel.name)).options(joinedload(Channel.release))
    with registry.read() as uow:
        if release is not None:
            query = query.where(Channel.release_id == uow.release(release).id)
        if task is not None:
            query = query.where(holds(uow, Channel.release_id, task))
        return [_row(channel) for channel in uow.session.scalars(query)]


def show(registry: Registry, name: str) -> ChannelRow:
    """One channel.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        return _row(_required(uow, name))


def default(registry: Registry) -> ChannelRow:
    """The channel that is meant where no release is named: ``production``, or else ``latest``.

    Raises:
        NotFoundError: there is neither.
    """
    with registry.read() as uow:
        for name in DEFAULT_CHANNELS:
            if channel := uow.channel(name):
                return _row(channel)
    raise NotFoundError(
        f"no release is named, and there is no channel {' or '.join(DEFAULT_CHANNELS)} to take one "
        "from; see: centra release list, or publish one: centra compose --release"
    )


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
        NotAllowedError: the policy has gates for the channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    check_movable(name)
    if name in registry.policy.channels:
        raise NotAllowedError(
            f"the channel {name!r} has a policy in centra.toml, so it moves by "
            f"'centra promote {reference} --to {name}' and 'centra rollback {name}' alone"
        )
    with registry.write() as uow:
        channel, moved = advance(uow, name, uow.release(reference), "move")
        row = _row(channel)
    publish_pointer(registry, name)
    return row, moved


def rollback(
    registry: Registry,
    name: str,
    *,
    to: str | None = None,
    serving: str | None = None,
    progress: Progress = silent,
) -> tuple[ChannelRow, int, bool]:
    """Point a channel at the release it served before, or at another that it has served.

    Only that release is read, so it works however broken the one is that is served now.

    Args:
        registry: where.
        name: the channel.
        to: a release's number or the start of a digest; default one step down: twice is two steps.
        serving: roll back only while the channel serves this release, so that a pipeline whose own
            release fails does not take back somebody else's.
        progress: told of each file.

    Returns:
        The channel, the release it served before, and whether it moved.

    Raises:
        NotFoundError: no such channel or release, or the channel never served it.
        NotAllowedError: the policy names others as promoters.
        BlobNotFoundError, CorruptBlobError, FormatError: the earlier release is damaged itself.
        ConflictError: the channel serves another release than ``serving``, or was moved meanwhile.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    check_movable(name)
    policy = registry.policy.channels.get(name)
    if policy is not None and not policy.admits(registry.actor):
        raise NotAllowedError(
            f"{registry.actor} may not move the channel {name!r}; its promoters are "
            f"{', '.join(policy.promoters or [])}"
        )
    registry.check_store()
    with registry.read() as uow:
        channel = _required(uow, name)
        revision, before = channel.revision, channel.release.number
        if serving is not None and uow.release(serving).number != before:
            raise ConflictError(f"{name} serves release {before}, not {serving}; nothing was done")
        target = _earlier(uow, name, to)
        number, digest = target.number, target.digest
    files = read_manifest(digest, registry.store).files()
    for done, blob in enumerate(files.values(), 1):
        registry.store.fetch(blob)
        progress("hash files", done, len(files))
    with registry.write() as uow:
        channel = _required(uow, name)
        if channel.revision != revision:
            raise ConflictError(
                f"{name} was moved to release {channel.release.number} meanwhile; look again: "
                f"centra channel history {name}"
            )
        channel, moved = advance(uow, name, uow.release(str(number)), "rollback")
        row = _row(channel)
    publish_pointer(registry, name)
    return row, before, moved


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
        _required(uow, name)
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


def check_movable(name: str) -> None:
    """Refuse a channel's name that cannot be moved to.

    Raises:
        InvalidNameError, UsageError: it is not acceptable, all digits, or reserved.
    """
    parse_name(name, "channel name")
    if name == LATEST:
        raise UsageError(f"the channel {LATEST!r} follows 'centra compose --release' by itself")
    if name.isdecimal():
        raise UsageError(f"channel {name!r}: a name of digits alone would read as a release number")


def moves_of(uow: UnitOfWork, name: str) -> list[Move]:
    """A channel's history as plain values, the oldest first."""
    query = (
        select(ChannelMove.kind, Release.number)
        .join(Release, ChannelMove.release_id == Release.id)
        .where(ChannelMove.channel == name)
        .order_by(ChannelMove.revision)
    )
    return [Move(kind=kind, release=number) for kind, number in uow.session.execute(query)]


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
    registry.check_store()
    while True:
        row = show(registry, name)
        if not is_published(registry, row):
            registry.store.write_pointer(name, _pointer(row))
        # Another mover may have published between our look and our write: look again.
        if show(registry, name).revision == row.revision:
            return


def is_published(registry: Registry, row: ChannelRow) -> bool:
    """Whether a channel's pointer in the store is as this row says.

    Raises:
        StoreError: the store cannot be reached.
    """
    return registry.store.read_pointer(row.name) == _pointer(row)


def sync(registry: Registry, name: str | None = None) -> list[SyncRow]:
    """Publish the pointer of a channel, or of all, as the database has it; harmless to repeat.

    Args:
        registry: where.
        name: the channel; default all.

    Raises:
        NotFoundError: there is no such channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    synced = []
    for row in list_all(registry) if name is None else [show(registry, name)]:
        stale = not is_published(registry, row)
        publish_pointer(registry, row.name)
        now = show(registry, row.name)
        synced.append(
            SyncRow(name=now.name, release=now.release, revision=now.revision, stale=stale)
        )
    return synced


def _pointer(row: ChannelRow) -> bytes:
    return ChannelPointer(
        name=row.name, revision=row.revision, release=row.release, manifest=row.digest
    ).to_bytes()


def _required(uow: UnitOfWork, name: str) -> Channel:
    channel = uow.channel(name)
    if channel is None:
        raise NotFoundError(f"there is no channel {name!r}; see: centra channel list")
    return channel


def _earlier(uow: UnitOfWork, name: str, to: str | None) -> Release:
    """The release to roll back to."""
    moves = moves_of(uow, name)
    if to is not None:
        release = uow.release(to)
        if release.number not in {move.release for move in moves}:
            raise NotFoundError(
                f"{name} never served release {release.number}; see: centra channel history "
                f"{name}, or promote it: centra promote {to} --to {name}"
            )
        return release
    served = stack(moves)
    if len(served) < 2:
        raise NotFoundError(f"{name} served nothing before release {served[-1]}")
    return uow.release(str(served[-2]))


def _row(channel: Channel) -> ChannelRow:
    return ChannelRow(
        name=channel.name,
        release=channel.release.number,
        digest=channel.release.digest,
        revision=channel.revision,
        moved_at=channel.moved_at,
        moved_by=channel.moved_by,
    )
