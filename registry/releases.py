"""Releases: composing the live set, publishing, comparing, verifying, loading.

Composing reads straight down: resolve which versions, merge and check them, prove parity of what
no release held before, then blobs, one transaction, pointer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.compose import check_parity, merge
from centra.errors import UsageError
from centra.names import split_reference
from centra.progress import Progress, silent
from centra.release import LayerAccount, ReleaseManifest, changes
from centra.runtime.loading import find_release, read_manifest
from registry.channels import LATEST, advance, publish_pointer
from registry.models import Release, ReleaseTask

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import centra.runtime
    from centra.blobs import BlobReader
    from registry.connection import Registry
    from registry.models import TaskVersion
    from registry.unit_of_work import UnitOfWork

__all__ = [
    "Change",
    "Composition",
    "ReleaseDetail",
    "ReleaseDifference",
    "ReleaseRow",
    "Unchanged",
    "Verification",
    "compose",
    "diff",
    "is_address",
    "list_all",
    "load",
    "pull",
    "show",
    "verify",
]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one task between two releases."""

    task: str
    change: str
    """``added``, ``updated``, ``redefined`` or ``removed``."""
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A set of versions that has been merged and checked, and perhaps published."""

    release: int | None
    """The number of the release that holds exactly this; None before it is published."""
    digest: str
    published: bool
    """Whether a new release was made."""
    base: int | None
    changes: list[Change]
    layers: LayerAccount
    tasks: dict[str, str]
    """Per task the version."""
    manifest: ReleaseManifest
    parity: dict[str, float]
    """Per task whose parity was checked now, the largest difference of logits."""


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A release as listed."""

    number: int
    digest: str
    tasks: int
    channels: list[str]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class ReleaseDetail:
    """A release with what it holds."""

    number: int
    digest: str
    base: int | None
    channels: list[str]
    tasks: dict[str, str]
    """Per task the version."""
    layers: LayerAccount
    manifest: ReleaseManifest
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A task whose module is the same file in both releases."""

    task: str
    version: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ReleaseDifference:
    """Two releases side by side."""

    before: int
    after: int
    changes: list[Change]
    unchanged: list[Unchanged]
    """Same digest, so the same bytes; and the frozen layers they read have the same digests."""
    layers_before: LayerAccount
    layers_after: LayerAccount


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A release whose every blob was hashed and every task run on its probe."""

    digest: str
    files: int
    size: int
    """Bytes."""
    parity: dict[str, float]
    """Per task the largest difference of logits."""


def compose(
    registry: Registry,
    *,
    base: str | None = None,
    replace: Sequence[str] = (),
    publish: bool = False,
    allow_two_backbones: bool = False,
    progress: Progress = silent,
) -> Composition:
    """Merge the live set, or a release with some tasks replaced, and publish it if asked.

    Args:
        registry: where.
        base: a release to start from, instead of the live set: number, channel or digest.
        replace: versions to put in, ``name@major.minor``, whatever the live set says.
        publish: make it a release and move the channel ``latest`` to it; otherwise this is a plan.
        allow_two_backbones: see :func:`centra.compose.merge`.
        progress: told of each step.

    Returns:
        What the release holds and how it differs from ``base``, or from ``latest`` without one.
        The same set of modules is the same release: publishing it again makes no new one.

    Raises:
        UsageError: nothing to compose, or a malformed reference.
        NotFoundError: no such base, task or version.
        ComposeError: the set cannot be merged, or parity failed; task and cause are named.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        start, versions = _resolve(uow, base, replace)
        before = uow.released(start) if start else {}
        found = [
            Change(
                task=change.task,
                change=change.change,
                before=before[change.task].number if change.task in before else None,
                after=versions[change.task].number if change.task in versions else None,
            )
            for change in changes(before, versions)
        ]
        modules = {name: version.digest for name, version in versions.items()}
        numbers = {name: version.number for name, version in versions.items()}
        ids = {name: (version.task_id, version.id) for name, version in versions.items()}
        proven = uow.proven(versions.values())
        start_number = start.number if start else None
    manifest = merge(
        modules, registry.store, allow_two_backbones=allow_two_backbones, progress=progress
    )
    unproven = [name for name in versions if ids[name][1] not in proven]
    parity = check_parity(manifest, registry.store, unproven, progress)
    number, made = _known(registry, manifest), False
    if publish:
        registry.store.put(manifest.to_bytes())
        number, made = _record(registry, manifest, ids, start_number)
        publish_pointer(registry, LATEST)
    return Composition(
        release=number,
        digest=manifest.digest,
        published=made,
        base=start_number,
        changes=found,
        layers=manifest.account,
        tasks=numbers,
        manifest=manifest,
        parity=parity,
    )


def list_all(registry: Registry) -> list[ReleaseRow]:
    """All releases, the newest first."""
    query = (
        select(Release, func.count(ReleaseTask.task_id))
        .join(ReleaseTask)
        .group_by(Release.id)
        .order_by(Release.number.desc())
    )
    with registry.read() as uow:
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
        tasks = {name: version.number for name, version in uow.released(release).items()}
        base = release.base.number if release.base else None
        names = _channel_names(uow).get(release.id, [])
    manifest = read_manifest(release.digest, registry.store)
    return ReleaseDetail(
        number=release.number,
        digest=release.digest,
        base=base,
        channels=names,
        tasks=tasks,
        layers=manifest.account,
        manifest=manifest,
        created_at=release.created_at,
        created_by=release.created_by,
    )


def diff(registry: Registry, before: str, after: str) -> ReleaseDifference:
    """Which tasks changed between two releases, and the proof for all others.

    The comparison is of digests in the two manifests, which are themselves checked against theirs:
    equal digests are equal bytes, of the module and of every frozen layer below its tap.

    Raises:
        NotFoundError, CorruptBlobError, StoreError, DatabaseError: as :func:`show`.
    """
    old, new = show(registry, before), show(registry, after)
    found = changes(old.manifest.tasks, new.manifest.tasks)
    changed = {change.task for change in found}
    return ReleaseDifference(
        before=old.number,
        after=new.number,
        changes=[
            Change(
                task=change.task,
                change=change.change,
                before=old.tasks.get(change.task),
                after=new.tasks.get(change.task),
            )
            for change in found
        ],
        unchanged=[
            Unchanged(task=name, version=new.tasks[name], digest=entry.digest)
            for name, entry in sorted(new.manifest.tasks.items())
            if name not in changed
        ],
        layers_before=old.layers,
        layers_after=new.layers,
    )


def is_address(reference: str) -> bool:
    """Whether this names a release folder or a store, which needs no registry, not a release."""
    return any(mark in reference for mark in "/#") or reference in (".", "..")


def verify(registry: Registry | None, reference: str, progress: Progress = silent) -> Verification:
    """Hash every blob of a release and run every task on its probe.

    Args:
        registry: where; None where the reference is an address.
        reference: a number, a channel, the start of a digest, or the address of a release folder or
            a store, as :func:`centra.load_release` takes it; see :func:`is_address`.
        progress: told of each step.

    Raises:
        NotFoundError: there is no such release.
        BlobNotFoundError, CorruptBlobError, FormatError: a file is missing or damaged.
        ComposeError: a task's parity fails.
        StoreError, DatabaseError: the registry cannot be used.
    """
    manifest, reader = _find(registry, reference)
    files = manifest.files()
    size = 0
    for done, digest in enumerate(files.values(), 1):
        size += reader.fetch(digest).stat().st_size
        progress("hash files", done, len(files))
    parity = check_parity(manifest, reader, list(manifest.tasks), progress)
    return Verification(digest=manifest.digest, files=len(files), size=size, parity=parity)


def pull(
    registry: Registry | None, reference: str, folder: Path, progress: Progress = silent
) -> tuple[str, int]:
    """Materialise a release as a folder; only files that are not there yet are copied.

    Returns:
        The release's digest, and the bytes written.

    Raises:
        NotFoundError: there is no such release.
        FormatError: the folder holds something that is no release.
        StoreNotWritableError: the folder cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be read.
    """
    from centra.folder import write_folder

    manifest, reader = _find(registry, reference)
    return manifest.digest, write_folder(manifest, reader, folder, progress)


def load(
    registry: Registry | None,
    reference: str,
    *,
    tasks: Collection[str] | None = None,
    progress: Progress = silent,
) -> centra.runtime.Release:
    """Load a release for answering; ``reference`` as for :func:`verify`.

    Raises:
        NotFoundError: there is no such release or task.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be
            read.
    """
    from centra.runtime import Release as Merged

    manifest, reader = _find(registry, reference)
    return Merged.load(manifest, reader, tasks=tasks, progress=progress)


def _resolve(
    uow: UnitOfWork, base: str | None, replace: Sequence[str]
) -> tuple[Release | None, dict[str, TaskVersion]]:
    """The release to compare with, and the version of each task to compose."""
    if base is not None:
        start: Release | None = uow.release(base)
        versions = uow.released(uow.release(base))
    else:
        latest = uow.channel(LATEST)
        start = latest.release if latest else None
        versions = uow.live()
    for reference in replace:
        name, number = split_reference(reference, "task name")
        if number is None:
            raise UsageError(f"say which version of {name}: {name}@MAJOR.MINOR")
        versions[name] = uow.version(name, number)
    return start, versions


def _known(registry: Registry, manifest: ReleaseManifest) -> int | None:
    with registry.read() as uow:
        release = uow.release_by_digest(manifest.digest)
        return release.number if release else None


def _record(
    registry: Registry,
    manifest: ReleaseManifest,
    ids: Mapping[str, tuple[int, int]],
    base: int | None,
) -> tuple[int, bool]:
    """Write the release's row unless it is there, and move ``latest``; its number, and if new."""
    with registry.write() as uow:
        # Again, and now it stays: garbage collection removes in writing transactions alone.
        registry.store.put(manifest.to_bytes())
        release = uow.release_by_digest(manifest.digest)
        made = release is None
        if release is None:
            newest = uow.session.scalar(select(func.max(Release.number))) or 0
            release = Release(
                number=newest + 1,
                digest=manifest.digest,
                base=uow.release(str(base)) if base else None,
                created_by=str(uow.actor),
                tasks=[
                    ReleaseTask(task_id=task_id, version_id=version_id)
                    for task_id, version_id in ids.values()
                ],
            )
            uow.session.add(release)
            uow.session.flush()
            uow.record(
                "release:publish",
                str(release.number),
                {"digest": release.digest, "base": base, "tasks": sorted(ids)},
            )
        advance(uow, LATEST, release, "publish")
        return release.number, made


def _channel_names(uow: UnitOfWork) -> dict[int, list[str]]:
    from registry.models import Channel

    names: dict[int, list[str]] = {}
    for channel in uow.session.scalars(select(Channel).order_by(Channel.name)):
        names.setdefault(channel.release_id, []).append(channel.name)
    return names


def _find(registry: Registry | None, reference: str) -> tuple[ReleaseManifest, BlobReader]:
    """A release by the address of a folder or store, or by its name in the registry."""
    if registry is None or is_address(reference):
        return find_release(reference)
    with registry.read() as uow:
        digest = uow.release(reference).digest
    return read_manifest(digest, registry.store), registry.store
