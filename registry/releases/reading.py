"""Listing releases, and showing one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.releases.find import read_manifest
from registry.channels.reading import get_channel
from registry.database.listing import holds, paged, within
from registry.database.models import Channel, Release, ReleaseTask

if TYPE_CHECKING:
    from datetime import datetime

    from centra.formats.identities import Digest
    from centra.formats.manifest import LayerAccount, ReleaseManifest
    from registry.connection import Registry
    from registry.database.listing import Moment
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["ReleaseDetail", "ReleaseRow", "list_releases", "show"]


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A release as listed."""

    number: int
    digest: Digest
    tasks: int
    channels: list[str]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class ReleaseDetail:
    """A release with what it holds."""

    number: int
    digest: Digest
    base: int | None
    channels: list[str]
    tasks: dict[str, str]
    """Per task the version."""
    backbones: dict[str, str]
    """Per digest of a backbone that it holds layers of, its name: ``minilm@1``."""
    layers: LayerAccount
    manifest: ReleaseManifest
    created_at: datetime
    created_by: str


def list_releases(
    registry: Registry,
    *,
    channel: str | None = None,
    task: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[ReleaseRow]:
    """Releases, the newest first.

    Args:
        registry: where.
        channel: keep the release that this channel serves.
        task: keep the releases that hold this task, or this version of it: ``name@major.minor``.
        since, until: keep what was published at ``since`` or later, and before ``until``; times,
            or how long ago.
        limit, offset: give at most so many, after leaving out so many.

    Raises:
        NotFoundError: there is no such channel, task or version.
        UsageError: the task's name, the limit or the offset is not acceptable.
        DatabaseError: the registry cannot be used.
    """
    tasks = select(func.count()).where(ReleaseTask.release_id == Release.id).scalar_subquery()
    query = select(Release, tasks).order_by(Release.number.desc())
    query = paged(query, limit, offset)
    with registry.read() as uow:
        query = within(uow, query, Release.created_at, since, until)
        if channel is not None:
            query = query.where(Release.id == get_channel(uow, channel).release_id)
        if task is not None:
            query = query.where(holds(uow, Release.id, task))
        names = _channel_names(uow)
        return [
            ReleaseRow(
                number=release.number,
                digest=release.digest,
                tasks=count,
                channels=names.get(release.id, []),
                created_at=release.created_at,
                created_by=release.created_by,
            )
            for release, count in uow.session.execute(query)
        ]


def show(registry: Registry, reference: str) -> ReleaseDetail:
    """One release.

    Args:
        registry: where.
        reference: a number, a channel's name, or the start of a digest.

    Raises:
        NotFoundError: there is none.
        CorruptBlobError, StoreError, DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        release = uow.release(reference)
        versions = uow.versions_of(release)
        tasks = {name: str(version.number) for name, version in versions.items()}
        backbones: dict[str, str] = {
            v.backbone.digest: v.backbone.reference for v in versions.values()
        }
        base = release.base.number if release.base else None
        names = _channel_names(uow).get(release.id, [])
    manifest = read_manifest(release.digest, registry.store)
    return ReleaseDetail(
        number=release.number,
        digest=release.digest,
        base=base,
        channels=names,
        tasks=tasks,
        backbones=backbones,
        layers=manifest.account,
        manifest=manifest,
        created_at=release.created_at,
        created_by=release.created_by,
    )


def _channel_names(uow: UnitOfWork) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for channel in uow.session.scalars(select(Channel).order_by(Channel.name)):
        names.setdefault(channel.release_id, []).append(channel.name)
    return names
