"""Publishing a composition: its manifest first, then its rows in one transaction, then the pointer."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from registry.audit import write_witness
from registry.channels.moving import record_move
from registry.channels.pointers import check_publishable, publish_move, publish_pointer
from registry.channels.reading import channel_row
from registry.database.models import Release, ReleaseBase, ReleaseTask
from registry.rules.channels import LATEST
from registry.rules.lineage import MoveKind
from registry.rules.replay import tasks_digest
from registry.storage.claims import storing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ReleaseManifest
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork
    from registry.releases.composition import Composition

__all__ = ["add_release", "newest_composition", "publish_composition", "record_composition"]

_log = logging.getLogger(__name__)


def publish_composition(registry: Registry, composition: Composition) -> Composition | None:
    """Make a composition a release; of the live set, the one that ``latest`` serves.

    Returns:
        The release; None where it was composed of a live set, or onto a release of ``latest``, that
        are not the newest any more.

    Raises:
        UnpublishedError: the release is there and ``latest`` moved, but its pointer could not be
            written.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    began = time.monotonic()
    if composition.live and not _is_served_by_latest(registry, composition):
        check_publishable(registry, LATEST)
    manifest = composition.manifest.to_bytes()
    with storing(registry, {composition.digest: manifest}) as uow:
        if composition.live and not _is_newest(uow, composition):
            return None
        release, new = record_composition(uow, composition)
        number, row, moved = release.number, None, False
        if composition.live:
            channel, moved = record_move(uow, LATEST, release, MoveKind.PUBLISH)
            row = channel_row(channel)
    _log.info(
        "published release %d (sha256:%s) in %.2f s",
        number,
        composition.digest,
        time.monotonic() - began,
    )
    if row is not None and moved:
        publish_move(registry, row)
    elif row is not None:
        publish_pointer(registry, LATEST)
    write_witness(registry, number)
    return dataclasses.replace(composition, release=number, published=new)


def record_composition(uow: UnitOfWork, composition: Composition) -> tuple[Release, bool]:
    """Write a composition's release unless it is there, and what it was composed onto.

    Args:
        uow: the transaction that it becomes part of, for which its manifest was stored; see
            :func:`registry.storage.claims.storing`.
        composition: it.

    Returns:
        The release, and whether it is new.
    """
    known = uow.release_by_digest(composition.digest)
    release = known or add_release(
        uow, composition.manifest, composition.ids, base=composition.base
    )
    _record_base(uow, release, composition.base)
    return release, known is None


def add_release(
    uow: UnitOfWork,
    manifest: ReleaseManifest,
    ids: Mapping[str, tuple[int, int]],
    *,
    base: int | None = None,
) -> Release:
    """Write a release whose manifest is stored, and that is not known yet, under the next number.

    Args:
        uow: the transaction that it becomes part of.
        manifest: its own.
        ids: per task name the ids of the task and of its version.
        base: the number of the release that it was composed onto.
    """
    newest = uow.session.scalar(select(func.max(Release.number))) or 0
    release = Release(
        number=newest + 1,
        digest=manifest.digest,
        base=uow.release(str(base)) if base else None,
        created_at=uow.now,
        created_by=str(uow.actor),
        tasks=[
            ReleaseTask(
                task_id=task_id, version_id=version_id, precision=manifest.tasks[name].precision
            )
            for name, (task_id, version_id) in ids.items()
        ],
    )
    uow.session.add(release)
    uow.session.flush()
    entries = {name: manifest.tasks[name] for name in ids}
    uow.record(
        "release:publish",
        str(release.number),
        {
            "digest": release.digest,
            "base": base,
            "tasks": sorted(ids),
            "holds": tasks_digest(
                {name: (entry.digest, entry.precision) for name, entry in entries.items()}
            ),
        },
    )
    return release


def _is_served_by_latest(registry: Registry, composition: Composition) -> bool:
    with registry.read() as uow:
        latest = uow.channel(LATEST)
        return latest is not None and latest.release.digest == composition.digest


def _is_newest(uow: UnitOfWork, composition: Composition) -> bool:
    """Whether the live set, and the release that it was composed onto, are what they were."""
    if composition.ids != {name: (v.task_id, v.id) for name, v in uow.live().items()}:
        return False
    latest = uow.channel(LATEST)
    if latest is None:
        return composition.base is None
    return latest.release.number == composition.base or latest.release.digest == composition.digest


def _record_base(uow: UnitOfWork, release: Release, number: int | None) -> None:
    """Note that a release was composed onto another: each time, for it tells who built on what."""
    if number is None or number == release.number:
        return
    base = uow.release(str(number))
    newest, newest_of_base = newest_composition(uow, release), newest_composition(uow, base)
    repeated = newest is not None and newest.base_id == base.id
    since = newest.id if newest else 0
    if repeated and (newest_of_base is None or newest_of_base.id < since):
        return  # Nothing that it stands on has been made anew since.
    uow.session.add(ReleaseBase(release_id=release.id, base_id=base.id, at=uow.now))


def newest_composition(uow: UnitOfWork, release: Release) -> ReleaseBase | None:
    """What a release was composed onto last; None where that is not known."""
    query = select(ReleaseBase).where(ReleaseBase.release_id == release.id)
    return uow.session.scalar(query.order_by(ReleaseBase.id.desc()).limit(1))
