"""Exporting: writing tasks, or a release, with all that they need, to one file."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.names import parse_task_reference
from centra.progress import Progress, silent
from centra.releases.find import read_manifest
from centra.system.files import file_digest
from registry.transfer import archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.identities import Digest, ReleaseNumber, VersionNumber
    from centra.formats.manifest import ReleaseManifest
    from registry.connection import Registry
    from registry.database.models import TaskVersion
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["Exported", "export_file"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written to a file."""

    digest: Digest
    """The file's own."""
    size: int
    """Bytes."""
    tasks: dict[str, VersionNumber]
    """Per task the version."""
    release: ReleaseNumber | None


def export_file(
    registry: Registry,
    file: str | Path,
    *,
    references: Sequence[str] = (),
    release: str | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write tasks, or a release with its tasks and signatures, and their backbones to a file.

    Args:
        registry: where from.
        file: where to; replaced if it exists.
        references: the tasks: ``name``, its current version, or ``name@major.minor``.
        release: or else a release: number, channel, or the start of a digest.
        progress: told of each blob.

    Raises:
        UsageError: neither is given, or both, or two versions of one task.
        NotFoundError: there is no such task, version or release.
        StoreNotWritableError: the file cannot be written.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: the registry cannot be used.
    """
    if bool(references) == (release is not None):
        raise UsageError("say what to export: tasks, or one release", code="export-of-what")
    file, since = Path(file), time.monotonic()
    selection = _select(registry, references, release)
    signatures = _intact_signatures(registry, selection.manifest)
    export = _describe(registry, selection, signatures)
    archive.write(file, export, registry.store, signatures=signatures, progress=progress)
    exported = Exported(
        digest=file_digest(file),
        size=file.stat().st_size,
        tasks=selection.numbers,
        release=selection.release,
    )
    _log.info("exported %s: %d bytes in %.1f s", file, exported.size, time.monotonic() - since)
    return exported


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """What is to be exported, as the database has it."""

    backbones: dict[Digest, archive.ExportedBackbone]
    tasks: dict[str, archive.ExportedTask]
    numbers: dict[str, VersionNumber]
    """Per task the version."""
    release: ReleaseNumber | None
    manifest: Digest | None
    """The release's digest."""


def _select(registry: Registry, references: Sequence[str], release: str | None) -> _Selection:
    with registry.read() as uow:
        row = uow.release(release) if release is not None else None
        versions = uow.versions_of(row) if row else _versions(uow, references)
        return _Selection(
            backbones={
                version.backbone.digest: archive.ExportedBackbone(
                    name=version.backbone.name, source=version.backbone.source
                )
                for version in versions.values()
            },
            tasks={
                name: archive.ExportedTask(team=version.task.team, module=version.digest)
                for name, version in versions.items()
            },
            numbers={name: version.number for name, version in versions.items()},
            release=row.number if row else None,
            manifest=row.digest if row else None,
        )


def _versions(uow: UnitOfWork, references: Sequence[str]) -> dict[str, TaskVersion]:
    versions: dict[str, TaskVersion] = {}
    for reference in references:
        name, number = parse_task_reference(reference)
        if name in versions:
            raise UsageError(
                f"task {name} is named twice; a file holds one version of a task",
                code="task-named-twice",
                task=name,
            )
        versions[name] = uow.version(name, number)
    return versions


def _intact_signatures(registry: Registry, manifest: Digest | None) -> dict[Digest, bytes]:
    """A release's signatures by their digests; a damaged one is no use elsewhere."""
    from centra.formats.documents import sha256
    from centra.releases.signing import SignatureError, check_subject

    if manifest is None:
        return {}
    subject: ReleaseManifest = read_manifest(manifest, registry.store)
    intact = {}
    for data in registry.store.signatures(manifest):
        with suppress(SignatureError):
            check_subject(subject, data)
            intact[sha256(data)] = data
    return intact


def _describe(
    registry: Registry, selection: _Selection, signatures: dict[Digest, bytes]
) -> archive.Export:
    """The document that says what the file holds."""
    from centra.formats.backbone import BackboneSpec

    store = registry.store
    blobs = {task.module for task in selection.tasks.values()}
    for digest in selection.backbones:
        blobs |= BackboneSpec.fetch(digest, store).blobs()
    release = None
    if selection.manifest is not None:
        blobs.add(selection.manifest)
        release = archive.ExportedRelease(manifest=selection.manifest, signatures=tuple(signatures))
    return archive.Export.sealed(
        backbones=selection.backbones,
        tasks=selection.tasks,
        release=release,
        blobs={digest: store.fetch(digest).stat().st_size for digest in blobs}
        | {digest: len(data) for digest, data in signatures.items()},
    )
