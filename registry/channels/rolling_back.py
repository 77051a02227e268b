"""Rolling a channel back to a release that it has served."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import ConflictError, NotAllowedError, NotFoundError
from centra.progress import Progress, silent
from centra.releases.find import read_manifest
from registry import owners, policies
from registry.channels.moving import record_move
from registry.channels.pointers import (
    check_publishable,
    pointer_fault,
    publish_move,
    publish_pointer,
)
from registry.channels.reading import channel_row, get_channel, last_move, moves_of, show
from registry.channels.revisions import already_made, revision_conflict
from registry.rules.channels import check_movable
from registry.rules.lineage import MoveKind, rollback_stack

if TYPE_CHECKING:
    from centra.formats.identities import Digest
    from registry.channels.reading import ChannelRow
    from registry.connection import Registry
    from registry.database.models import Release
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["Rollback", "rollback"]

_log = logging.getLogger(__name__)


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
        expect: the revision that the channel must be at; see
            :func:`registry.channels.revisions.already_made`.
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
    began = time.monotonic()
    with registry.read() as uow:
        plan = _plan(uow, name, to=to, serving=serving, expect=expect)
    with registry.read() as uow:
        _check_allowed(registry, uow, name, uow.release(str(plan.target)), force=force)
    if plan.target == plan.channel.release:
        publish_pointer(registry, name)
        return Rollback(channel=plan.channel, before=plan.before, moved=False)
    _verify_files(registry, plan.digest, progress)
    check_publishable(registry, name)
    with registry.write() as uow:
        channel = get_channel(uow, name)
        if channel.revision != plan.channel.revision:
            raise ConflictError(
                f"{name} was moved to release {channel.release.number} meanwhile",
                code="channel-moved",
                channel=name,
            )
        target = uow.release(str(plan.target))
        foreign = _check_allowed(registry, uow, name, target, force=force)
        channel, _ = record_move(uow, name, target, MoveKind.ROLLBACK, foreign=foreign)
        moved = channel_row(channel)
    # Where the store took the pointer and its answer was lost, one step down is another step.
    publish_move(registry, moved, repeat_expecting=plan.channel.revision)
    _log.info(
        "rolled %s back from release %d to release %d (sha256:%s) in %.2f s",
        name,
        plan.channel.release,
        moved.release,
        moved.digest,
        time.monotonic() - began,
    )
    return Rollback(channel=moved, before=plan.channel.release, moved=True)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What rolling back comes to, as of one moment."""

    channel: ChannelRow
    before: int
    """The release that is, or was, rolled back."""
    target: int
    digest: Digest
    """The target's."""


def _plan(
    uow: UnitOfWork, name: str, *, to: str | None, serving: str | None, expect: int | None
) -> _Plan:
    """Where the channel goes back to; where it went already, if this change was made before."""
    channel = get_channel(uow, name)
    last = last_move(uow, channel)
    expected = None if serving is None else uow.release(serving)
    made = already_made(uow, name, MoveKind.ROLLBACK, expect)
    if expect is None and expected is not None and channel.release is not expected:
        made = last.kind == MoveKind.ROLLBACK and last.before is expected
    before = last.before if made and last.before else channel.release
    serves_another = ConflictError(
        f"{name} serves release {channel.release.number}, not {serving}; nothing was done",
        code="serves-another",
        channel=name,
    )
    if expected is not None and before is not expected:
        raise serves_another
    target = _earlier_release(uow, name, to, channel.revision - 1 if made else channel.revision)
    if made and target is not channel.release:
        raise serves_another if expected else revision_conflict(channel, name, expect)
    return _Plan(
        channel=channel_row(channel),
        before=before.number,
        target=target.number,
        digest=target.digest,
    )


def _verify_files(registry: Registry, digest: str, progress: Progress) -> None:
    """Hash all that the release is made of: it is to be served."""
    files = read_manifest(digest, registry.store).files()
    for done, blob in enumerate(files.values(), 1):
        registry.store.fetch(blob)
        progress("hash files", done, len(files))


def _check_allowed(
    registry: Registry, uow: UnitOfWork, name: str, target: Release, *, force: bool
) -> dict[str, str]:
    """Whom a rollback needs, as :func:`registry.owners.check` does; no gate is asked."""
    _, rules = policies.of_channel(registry, uow, name)
    if rules is not None and not rules.may_move(uow.actor):
        raise NotAllowedError(
            f"{uow.actor} may not move the channel {name!r}; its promoters are {rules.movers_text}",
            code="not-a-promoter",
            channel=name,
        )
    return owners.check(uow, name, target, rules, force=force)


def _earlier_release(uow: UnitOfWork, name: str, to: str | None, revision: int) -> Release:
    """The release to roll back to from a revision of a channel."""
    moves = moves_of(uow, name, revision)
    if to is not None:
        release = uow.release(to)
        if release.number not in {move.release for move in moves}:
            raise NotFoundError(
                f"{name} never served release {release.number}",
                code="never-served",
                channel=name,
                release=to,
            )
        return release
    served = rollback_stack(moves)
    if len(served) < 2:
        raise NotFoundError(f"{name} served nothing before release {served[-1]}", channel=name)
    return uow.release(str(served[-2]))
