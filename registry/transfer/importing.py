"""Importing: taking over what a file of another registry holds.

It reads straight down: unpack and check the whole file, decide, claim and store the blobs, decide again
inside the writing transaction, write all rows. What is there already stays as it is, so the same file
can be imported twice.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.formats.identities import Name, TaskName
from centra.formats.names import parse_name
from centra.progress import Progress, silent
from centra.store import LocalStore
from registry.audit import write_witness
from registry.backbones.changing import add_backbone
from registry.releases.publishing import add_release
from registry.storage.claims import storing
from registry.tasks.versioning import (
    AddedVersion,
    VersionRequest,
    add_version,
    check_owner,
    plan_version,
)
from registry.transfer.content import Content, read_content

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from centra.formats.identities import Digest, ReleaseNumber, VersionNumber
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lifecycle import TaskState, VersionChange

__all__ = ["Imported", "ImportedBackbone", "ImportedRelease", "ImportedTask", "import_file"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImportedBackbone:
    """A backbone of a file, as it is called here."""

    backbone: str
    changed: bool
    """False where it was registered already."""


@dataclass(frozen=True, kw_only=True)
class ImportedTask:
    """A task of a file, and the version that it is here."""

    task: TaskName
    version: VersionNumber
    change: VersionChange | None
    """How it became that version; None where it was registered already."""
    forced: bool
    current: VersionNumber
    """The version that is current here: another one only where this was registered already."""
    state: TaskState
    """The task's here: retired only where this was registered already."""


@dataclass(frozen=True, kw_only=True)
class ImportedRelease:
    """The release of a file, and its number here."""

    release: ReleaseNumber
    digest: Digest
    changed: bool
    """False where it was published already."""
    signatures: int
    """How many it did not have before."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What importing a file led to."""

    digest: Digest
    """The file's own."""
    changed: bool
    backbones: list[ImportedBackbone]
    tasks: list[ImportedTask]
    release: ImportedRelease | None


def import_file(
    registry: Registry,
    file: str | Path,
    *,
    team: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Take over what a file holds: backbones, tasks, and the release if there is one.

    A backbone that is not there becomes its name's next version. A task that is not there becomes
    1.0 of its team's, other bytes become the next version. A release keeps its digest and gets the
    next number; no channel moves. All of it happens, or nothing.

    Args:
        registry: where to.
        file: what :func:`export_file` wrote.
        team: the owner of tasks that are not there; default the team that owned them there.
        force: act for other teams.
        progress: told of each step.

    Raises:
        InvalidNameError: the team's name is not acceptable.
        NotFoundError: there is no such file.
        FormatError, IncompatibleError, CorruptBlobError, SignatureError: the file is damaged, or
            contradicts itself; nothing is stored.
        ComposeError: a task fails parity; nothing is stored.
        NotOwnerError: the actor is of another team.
        ConflictError: a task or a backbone is retired here.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    owner = None if team is None else parse_name(team, "team name")
    file, since = Path(file), time.monotonic()
    registry.check_store()  # What cannot be used must show before the long work does.
    with registry.read() as uow:
        known_backbones = {row.digest for row in uow.backbones()}
    with tempfile.TemporaryDirectory() as folder:
        content = read_content(file, LocalStore(Path(folder)), known_backbones, progress)
        requests = {
            name: VersionRequest(
                task=TaskName(Name(name)), team=owner or Name(task.team), force=force
            )
            for name, task in content.export.tasks.items()
        }
        with registry.read() as uow:
            _check_requests(uow, requests, content)
            unproven = _unproven(uow, content)
        content = content.proven(unproven, progress)
        signatures = _store_signatures(registry, content)
        sources = {digest: content.store.path(digest) for digest in content.blobs}
        with storing(registry, sources, progress) as uow:
            imported = _write(uow, content, requests, signatures)
        if imported.release is not None:
            write_witness(registry, imported.release.release)
    if imported.changed:
        _log.info(
            "imported %s: %d bytes in %.1f s", file, file.stat().st_size, time.monotonic() - since
        )
    return imported


def _check_requests(
    uow: UnitOfWork, requests: Mapping[str, VersionRequest], content: Content
) -> None:
    """Refuse what cannot be taken in before anything is run or stored."""
    for name, module in content.modules.items():
        if plan_version(uow, requests[name], module).change:
            check_owner(uow, requests[name])


def _unproven(uow: UnitOfWork, content: Content) -> list[str]:
    """The tasks whose very bytes have not been proven here yet."""
    known = {
        name: version
        for name, module in content.modules.items()
        if (task := uow.find_task(name)) and (version := uow.version_by_digest(task, module.digest))
    }
    proven = uow.with_checked_parity(known.values())
    return [n for n in content.modules if n not in known or known[n].id not in proven]


def _store_signatures(registry: Registry, content: Content) -> list[Digest]:
    """Store the signatures that are not there; their digests."""
    if content.manifest is None:
        return []
    there = registry.store.signatures(content.manifest.digest)
    added = {d: data for d, data in content.signatures.items() if data not in there}
    for data in added.values():
        registry.store.write_signature(content.manifest.digest, data)
    return list(added)


def _write(
    uow: UnitOfWork,
    content: Content,
    requests: Mapping[str, VersionRequest],
    signatures: Sequence[Digest],
) -> Imported:
    """Write the rows of what has been stored, and the event."""
    added_backbones = [
        _write_backbone(uow, content, digest) for digest in sorted(content.backbones)
    ]
    added_versions = {
        name: add_version(uow, requests[name], module) for name, module in content.modules.items()
    }
    release = _write_release(uow, content, added_versions, signatures)
    imported_tasks = [_imported_task(uow, added) for added in added_versions.values()]
    imported = Imported(
        digest=content.digest,
        changed=bool(signatures)
        or any(backbone.changed for backbone in added_backbones)
        or any(task.change for task in imported_tasks)
        or (release is not None and release.changed),
        backbones=added_backbones,
        tasks=imported_tasks,
        release=release,
    )
    if imported.changed:
        uow.record(
            "registry:import",
            f"sha256:{content.digest}",
            {
                "backbones": [b.backbone for b in added_backbones if b.changed],
                "tasks": {task.task: str(task.version) for task in imported_tasks if task.change},
                "release": release.release if release else None,
                "signatures": list(signatures),
            },
            forced=any(task.forced for task in imported_tasks),
        )
    return imported


def _write_backbone(uow: UnitOfWork, content: Content, digest: Digest) -> ImportedBackbone:
    row = uow.backbone_by_digest(digest)
    if row is not None:
        return ImportedBackbone(backbone=row.reference, changed=False)
    exported = content.export.backbones[digest]
    row = add_backbone(uow, exported.name, content.backbones[digest], source=exported.source)
    return ImportedBackbone(backbone=row.reference, changed=True)


def _imported_task(uow: UnitOfWork, added: AddedVersion) -> ImportedTask:
    version = added.version
    return ImportedTask(
        task=version.task.name,
        version=version.number,
        change=added.change,
        forced=added.forced,
        current=uow.current(version.task).number,
        state=version.task.state,
    )


def _write_release(
    uow: UnitOfWork,
    content: Content,
    added: Mapping[str, AddedVersion],
    signatures: Sequence[Digest],
) -> ImportedRelease | None:
    if content.manifest is None:
        return None
    published = uow.release_by_digest(content.manifest.digest)
    ids = {name: (a.version.task_id, a.version.id) for name, a in added.items()}
    release = published or add_release(uow, content.manifest, ids)
    return ImportedRelease(
        release=release.number,
        digest=content.manifest.digest,
        changed=published is None,
        signatures=len(signatures),
    )
