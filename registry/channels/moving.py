"""Moving a channel to a release, in the database and then in the store."""

from __future__ import annotations

import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from centra.errors import NotAllowedError
from registry import owners, policies
from registry.channels.pointers import check_publishable, publish_move, publish_pointer
from registry.channels.reading import channel_row
from registry.channels.revisions import already_made, revision_conflict
from registry.database.models import Channel, ChannelMove
from registry.rules.channels import check_movable
from registry.rules.lineage import MoveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.channels.reading import ChannelRow
    from registry.connection import Registry
    from registry.database.models import Release
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["move", "record_move"]

_log = logging.getLogger(__name__)


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
        expect: the revision that the channel must be at, 0 for a new one; see
            :func:`registry.channels.revisions.already_made`.
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
    began = time.monotonic()

    def decide(uow: UnitOfWork) -> tuple[Release, dict[str, str]]:
        if policies.of_channel(registry, uow, name)[1] is not None:
            raise NotAllowedError(
                f"the policy has rules for the channel {name!r}, so it moves by promotion and "
                "rollback alone",
                code="channel-has-rules",
                channel=name,
                release=reference,
            )
        release, channel = uow.release(reference), uow.channel(name)
        if (
            already_made(uow, name, MoveKind.MOVE, expect)
            and channel
            and channel.release is not release
        ):
            raise revision_conflict(channel, name, expect)
        return release, owners.check(uow, name, release, None, force=force)

    with registry.read() as uow:
        release, channel = decide(uow)[0], uow.channel(name)
        stays = channel is not None and channel.release is release
    if not stays:
        check_publishable(registry, name)
    with registry.write() as uow:
        release, foreign = decide(uow)
        channel, moved = record_move(uow, name, release, MoveKind.MOVE, foreign=foreign)
        row = channel_row(channel)
    if moved:
        publish_move(registry, row)
        _log.info(
            "moved %s to release %d (sha256:%s) in %.2f s",
            name,
            row.release,
            row.digest,
            time.monotonic() - began,
        )
    else:
        publish_pointer(registry, name)
    return row, moved


def record_move(
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
