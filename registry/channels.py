"""Channels: movable names for releases, and their published pointers in the store.

The database decides; the pointer is its copy, written after the transaction. A pointer that a crash
or a slower writer left behind is put right by the next move, or by :func:`sync`.

A change may say which revision of the channel it expects. Then it is carried out once, however often
it is repeated: at that revision it is made, at the next one, which it has led to, it is found to be
made, and anywhere else it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from centra.errors import (
    CentraError,
    ConflictError,
    FormatError,
    NotAllowedError,
    NotFoundError,
    UsageError,
)
from centra.formats.manifest import DEFAULT_CHANNELS, ChannelPointer
from centra.formats.names import parse_name
from centra.progress import Progress, silent
from centra.releases.find import read_manifest
from registry import owners, policies
from registry.database.listing import by_name, holds, within
from registry.database.models import Channel, ChannelMove, Release
from registry.errors import UnpublishedError
from registry.rules.lineage import Move, MoveKind, rollback_stack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from centra.formats.identities import Digest
    from registry.connection import Registry
    from registry.database.listing import Moment
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "LATEST",
    "ChannelRow",
    "MoveRow",
    "Rollback",
    "SyncRow",
    "advance",
    "channel_row",
    "check_movable",
    "check_publishable",
    "default",
    "history",
    "is_made",
    "list_all",
    "move",
    "moves_of",
    "pointer_fault",
    "publish_move",
    "publish_pointer",
    "rollback",
    "show",
    "sync",
    "unexpected",
]

LATEST = "latest"
"""The channel that follows ``centra compose --release`` of the live set by itself."""


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


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """What rolling back led to."""

    channel: ChannelRow
    before: int
    """The release that it served before."""
    moved: bool
    """False where it had been rolled back already, and where ``published``."""
    published: bool = False
    """Whether the pointer was behind, so that it was published and nothing else was done."""


@dataclass(frozen=True, kw_only=True)
class SyncRow:
    """A channel whose pointer was published again."""

    name: str
    release: int
    revision: int
    stale: bool
    """Whether the pointer was missing, or said something else."""
    found: str | None
    """What was wrong with it."""


def list_all(
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
        return channel_row(_required(uow, name))


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
        "from; see: centra release list, or publish one: centra compose --release"
    )


def move(
    registry: Registry,
    name: str,
    reference: str,
    *,
    expect: int | None = None,
    force: bool = False,
) -> tuple[ChannelRow, bool]:
    """Point a channel at a release; a new name makes a channel.

    Args:
        registry: where.
        name: the channel.
        reference: a release's number, another channel's name, or the start of a digest.
        expect: the revision that the channel must be at, 0 for a new one; see :func:`is_made`.
        force: change other teams' tasks there, too.

    Returns:
        The channel, and whether it moved. Its pointer is published in either case, so repeating
        the command mends one that a crash left behind.

    Raises:
        InvalidNameError, UsageError: the name is not acceptable, all digits, or reserved.
        NotFoundError: there is no such release.
        NotAllowedError: the policy has rules for the channel.
        ForeignTasksError: it would change tasks of other teams, and ``force`` was not given.
        ConflictError: the channel is at another revision than is expected.
        UnpublishedError: it moved, but its pointer could not be written.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used; it did not
            move.
    """
    check_movable(name)

    def decide(uow: UnitOfWork) -> tuple[Release, dict[str, str]]:
        if policies.of_channel(registry, uow, name)[1] is not None:
            raise NotAllowedError(
                f"the policy has rules for the channel {name!r}, so it moves by "
                f"'centra promote {reference} --to {name}' and 'centra rollback {name}' alone"
            )
        release, channel = uow.release(reference), uow.channel(name)
        if is_made(uow, name, MoveKind.MOVE, expect) and channel and channel.release is not release:
            raise unexpected(channel, name, expect)
        return release, owners.check(uow, name, release, None, force=force)

    with registry.read() as uow:
        release, channel = decide(uow)[0], uow.channel(name)
        stays = channel is not None and channel.release is release
    if not stays:
        check_publishable(registry, name)
    with registry.write() as uow:
        release, foreign = decide(uow)
        channel, moved = advance(uow, name, release, MoveKind.MOVE, foreign=foreign)
        row = channel_row(channel)
    if moved:
        publish_move(registry, row)
    else:
        publish_pointer(registry, name)
    return row, moved


def rollback(
    registry: Registry,
    name: str,
    *,
    to: str | None = None,
    serving: str | None = None,
    expect: int | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Rollback:
    """Point a channel at the release it served before, or at another that it has served.

    Only that release is read, so it works however broken the one is that is served now.

    One step down from where? Where nothing says that (``to``, ``serving`` or ``expect``) and the
    pointer is behind, a change was made that its maker may not know of, perhaps this very one: then
    the pointer is published, and nothing else is done.

    Args:
        registry: where.
        name: the channel.
        to: a release's number or the start of a digest; default one step down: twice is two steps.
        serving: roll back only while the channel serves this release, so that a pipeline whose own
            release fails does not take back somebody else's. Repeated, it finds that to be done.
        expect: the revision that the channel must be at; see :func:`is_made`.
        force: change other teams' tasks, too.
        progress: told of each file.

    Raises:
        NotFoundError: no such channel or release, or the channel never served it.
        NotAllowedError: the policy names others as promoters.
        ForeignTasksError: it would change tasks of other teams, and ``force`` was not given.
        BlobNotFoundError, CorruptBlobError, FormatError: the earlier release is damaged itself.
        ConflictError: the channel serves another release than ``serving``, is at another revision
            than is expected, or was moved meanwhile.
        UnpublishedError: it was rolled back, but its pointer could not be written.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used; it was not
            rolled back.
    """
    check_movable(name)
    registry.check_store()
    if to is None and serving is None and expect is None:
        row = show(registry, name)
        if pointer_fault(registry, row):
            publish_pointer(registry, name)
            return Rollback(channel=row, before=row.release, moved=False, published=True)
    with registry.read() as uow:
        channel = _required(uow, name)
        last = _last_move(uow, channel)
        own = None if serving is None else uow.release(serving)
        made = is_made(uow, name, MoveKind.ROLLBACK, expect)
        if expect is None and own is not None and channel.release is not own:
            made = last.kind == MoveKind.ROLLBACK and last.before is own
        before = last.before if made and last.before else channel.release
        other = f"{name} serves release {channel.release.number}, not {serving}; nothing was done"
        if own is not None and before is not own:
            raise ConflictError(other)
        target = _earlier(uow, name, to, channel.revision - 1 if made else channel.revision)
        if made and target is not channel.release:
            raise ConflictError(other) if own else unexpected(channel, name, expect)
        row, number, digest = channel_row(channel), target.number, target.digest
        outcome = Rollback(channel=row, before=before.number, moved=False)
    with registry.read() as uow:
        _permit(registry, uow, name, uow.release(str(number)), force=force)
    if number == row.release:
        publish_pointer(registry, name)
        return outcome
    files = read_manifest(digest, registry.store).files()
    for done, blob in enumerate(files.values(), 1):
        registry.store.fetch(blob)
        progress("hash files", done, len(files))
    check_publishable(registry, name)
    with registry.write() as uow:
        channel = _required(uow, name)
        if channel.revision != row.revision:
            raise ConflictError(
                f"{name} was moved to release {channel.release.number} meanwhile; look again: "
                f"centra channel history {name}"
            )
        target = uow.release(str(number))
        foreign = _permit(registry, uow, name, target, force=force)
        channel, _ = advance(uow, name, target, MoveKind.ROLLBACK, foreign=foreign)
        moved = channel_row(channel)
    # Where the store took the pointer and its answer was lost, one step down is another step.
    repeat = f"Repeat the command with --expect-revision {row.revision}"
    publish_move(registry, moved, repeat=repeat)
    return Rollback(channel=moved, before=row.release, moved=True)


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


def is_made(uow: UnitOfWork, name: str, kind: MoveKind, expect: int | None) -> bool:
    """Whether a change that expects a revision seems to have been made already.

    Args:
        uow: the transaction that the change is, or would be, part of.
        name: the channel.
        kind: what would be done to it.
        expect: the revision that it must be at, 0 for a new one; None for any.

    Returns:
        False at that revision, and True at the next one where the last move was of this kind. The
        caller then knows whether it went to where the change would have gone.

    Raises:
        ConflictError: the channel is at another revision, or was moved in another way.
    """
    channel = uow.channel(name)
    revision = channel.revision if channel else 0
    if expect is None or revision == expect:
        return False
    if channel is None or revision != expect + 1 or _last_move(uow, channel).kind != kind:
        raise unexpected(channel, name, expect)
    return True


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


def advance(
    uow: UnitOfWork,
    name: str,
    release: Release,
    kind: MoveKind,
    *,
    forced: bool = False,
    foreign: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Channel, bool]:
    """Move a channel inside a transaction; it counts its revision only when it really moves.

    Args:
        uow: the transaction.
        name: the channel; a new one is made.
        release: what it is to serve.
        kind: how it comes to that.
        forced: whether the actor overrode that others' changes are undone.
        foreign: tasks of other teams that force is needed for; see :func:`registry.owners.check`.

    Returns:
        The channel, and whether it moved.
    """
    channel = uow.channel(name)
    if channel is not None and channel.release_id == release.id:
        return channel, False
    before = channel.release if channel else None
    if channel is None:
        channel = Channel(name=name, revision=0)
        uow.session.add(channel)
    channel.release = release
    channel.revision += 1
    channel.moved_at = uow.now
    channel.moved_by = str(uow.actor)
    uow.session.flush()
    uow.session.add(
        ChannelMove(
            channel=name,
            revision=channel.revision,
            kind=kind,
            release=release,
            before=before,
            composition=uow.newest_composition(),
            at=uow.now,
            by=str(uow.actor),
        )
    )
    uow.record(
        "channel:move" if kind == MoveKind.PUBLISH else f"channel:{kind}",
        name,
        {
            "from": before.number if before else None,
            "to": release.number,
            "revision": channel.revision,
            **({"forced_over": dict(foreign)} if foreign else {}),
        },
        forced=forced or bool(foreign),
    )
    return channel, True


def check_publishable(registry: Registry, name: str) -> None:
    """Find out whether a channel's pointer can be written, before the channel moves.

    It is written as it stands, which also mends it; where there is none yet, the document that says
    whose store it is stands in for it.

    Raises:
        WrongStoreError, StoreError, StoreNotWritableError, DatabaseError: it cannot.
    """
    registry.check_store()
    with registry.read() as uow:
        there = uow.channel(name) is not None
    if there:
        publish_pointer(registry, name, anew=True)
    elif document := registry.store.read_document():
        registry.store.write_document(document)


def publish_move(
    registry: Registry, row: ChannelRow, *, repeat: str = "Repeat the command"
) -> None:
    """Write the pointer of a channel that has just moved in the database.

    Args:
        registry: where.
        row: the channel as it moved.
        repeat: what to do if that fails.

    Raises:
        UnpublishedError: it could not be written, nor was it.
    """
    try:
        publish_pointer(registry, row.name)
    except CentraError as error:
        try:
            data = registry.store.read_pointer(row.name)
            if data == _pointer(row):
                return  # It was the answer that was lost.
            seen = f"still see revision {_revision(data, row.name)}" if data else "see none yet"
        except CentraError:
            seen = "may still see an earlier one"
        raise UnpublishedError(
            row.name, row.release, row.revision, cause=error, followers=seen, repeat=repeat
        ) from error


def publish_pointer(registry: Registry, name: str, *, anew: bool = False) -> None:
    """Write a channel's pointer as the database has it, until it holds the newest revision.

    Args:
        registry: where.
        name: the channel.
        anew: write it also where it is right.

    Raises:
        NotFoundError: there is no such channel.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    registry.check_store()
    while True:
        row = show(registry, name)
        if anew or pointer_fault(registry, row):
            registry.store.write_pointer(name, _pointer(row))
        # Another mover may have published between our look and our write: look again.
        if show(registry, name).revision == row.revision:
            return


def pointer_fault(registry: Registry, row: ChannelRow) -> str | None:
    """What is wrong with a channel's pointer in the store; None where it is as this row says.

    Raises:
        StoreError: the store cannot be reached.
    """
    data = registry.store.read_pointer(row.name)
    if data == _pointer(row):
        return None
    if data is None:
        return "is missing"
    differs = "is not as the database has it"
    try:
        found = ChannelPointer.from_bytes(data, "it")
    except FormatError:
        return f"{differs}: it cannot be read"
    if found.name != row.name:
        return f"{differs}: it names the channel {found.name!r}"
    return f"{differs}: it says release {found.release}, revision {found.revision}"


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
        fault = pointer_fault(registry, row)
        publish_pointer(registry, row.name)
        now = show(registry, row.name)
        synced.append(
            SyncRow(
                name=now.name,
                release=now.release,
                revision=now.revision,
                stale=fault is not None,
                found=fault,
            )
        )
    return synced


def _pointer(row: ChannelRow) -> bytes:
    return ChannelPointer(
        name=row.name, revision=row.revision, release=row.release, manifest=row.digest
    ).to_bytes()


def _revision(data: bytes, name: str) -> int:
    return ChannelPointer.of_channel(data, name, f"{name}.json").revision


def unexpected(channel: Channel | None, name: str, expect: int | None) -> ConflictError:
    """The refusal of a change that expects another revision."""
    found = (
        f"{name} is at revision {channel.revision} and serves release {channel.release.number}"
        if channel
        else f"there is no channel {name!r} yet, which is revision 0"
    )
    return ConflictError(
        f"{found}; expected revision {expect}. Nothing was done; look again: "
        f"centra channel history {name}"
    )


def _last_move(uow: UnitOfWork, channel: Channel) -> ChannelMove:
    return uow.session.get_one(ChannelMove, (channel.name, channel.revision))


def _required(uow: UnitOfWork, name: str) -> Channel:
    channel = uow.channel(name)
    if channel is None:
        raise NotFoundError(f"there is no channel {name!r}; see: centra channel list")
    return channel


def _permit(
    registry: Registry, uow: UnitOfWork, name: str, target: Release, *, force: bool
) -> dict[str, str]:
    """Whom a rollback needs, as :func:`registry.owners.check` does; no gate is asked."""
    _, rules = policies.of_channel(registry, uow, name)
    if rules is not None and not rules.admits(uow.actor):
        raise NotAllowedError(
            f"{uow.actor} may not move the channel {name!r}; its promoters are {rules.movers}"
        )
    return owners.check(uow, name, target, rules, force=force)


def _earlier(uow: UnitOfWork, name: str, to: str | None, revision: int) -> Release:
    """The release to roll back to from a revision of a channel."""
    moves = moves_of(uow, name, revision)
    if to is not None:
        release = uow.release(to)
        if release.number not in {move.release for move in moves}:
            raise NotFoundError(
                f"{name} never served release {release.number}; see: centra channel history "
                f"{name}, or promote it: centra promote {to} --to {name}"
            )
        return release
    served = rollback_stack(moves)
    if len(served) < 2:
        raise NotFoundError(f"{name} served nothing before release {served[-1]}")
    return uow.release(str(served[-2]))


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
