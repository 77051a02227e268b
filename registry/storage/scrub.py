"""Reading every blob that the database names where it lies: what is damaged, and who needs it.

A run that is stopped goes on where it was: what it found right is noted beside the cached blobs, with
size and time, until a run comes to its end.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select

from centra.checkpoints.backbone import check_backbone
from centra.errors import VerificationError
from centra.formats.backbone import BackboneSpec
from centra.progress import Progress, silent
from centra.store import cache_folder
from registry.database.models import Backbone, Release, ReleaseTask, Task, TaskVersion
from registry.storage.needed import Need, needs

if TYPE_CHECKING:
    from pathlib import Path

    from centra.store import BlobProblem, StoredBlob
    from registry.connection import Registry

__all__ = ["DamagedBlob", "Scrub", "invalid_backbones", "scrub"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DamagedBlob:
    """A blob that is not what its name says, or not there."""

    digest: str
    problem: BlobProblem
    needed_by: list[str]
    """All that cannot do without it: backbones, versions of tasks, releases."""
    needs: list[Need]
    """What it belongs to; any of these can put it back."""


@dataclass(frozen=True, kw_only=True)
class Scrub:
    """What reading all blobs came to."""

    count: int
    """How many there are."""
    known: int
    """How many of them an earlier run found right that was stopped."""
    damaged: list[DamagedBlob]


def scrub(registry: Registry, progress: Progress = silent) -> Scrub:
    """Hash every blob that the database names where it lies, whatever copies there are.

    Args:
        registry: where.
        progress: told of each blob.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    began, store = time.monotonic(), registry.store
    there = {blob.digest: blob for blob in store.blobs()}
    found: dict[str, list[Need]] = {}
    for need in needs(registry):
        found.setdefault(need.digest, []).append(need)
    note = cache_folder() / "scrub" / hashlib.sha256(store.url.encode()).hexdigest()
    right = _read_note(note)
    damaged, known = [], 0
    for done, digest in enumerate(sorted(found), 1):
        blob = there.get(digest)
        if blob and _line(blob) in right:
            known += 1
        else:
            problem = store.find_problem(digest)
            if problem:
                damaged.append(_damaged(registry, digest, problem, found[digest]))
            elif blob:
                _add_to_note(note, _line(blob))
        progress("hash blobs", done, len(found))
    with suppress(OSError):
        note.unlink()
    elapsed = time.monotonic() - began
    _log.info(
        "read %d blobs in %.1f s, %d of them damaged",
        len(found) - known,
        elapsed,
        len(damaged),
        extra={"count": len(found) - known, "damaged": len(damaged), "seconds": elapsed},
    )
    return Scrub(count=len(found), known=known, damaged=damaged)


def invalid_backbones(registry: Registry) -> dict[str, str]:
    """The backbones that are not what they say of themselves, though each blob is whole, and why.

    Raises:
        BlobNotFoundError, StoreError, DatabaseError: the registry cannot be used.
    """
    wrong = {}
    with registry.read() as uow:
        digests = {row.reference: row.digest for row in uow.backbones()}
    for reference, digest in digests.items():
        try:
            spec = BackboneSpec.fetch(digest, registry.store)
            check_backbone(spec, registry.store, tokenizer_tried=True)
        except VerificationError as error:
            wrong[reference] = str(error)
    return wrong


def _damaged(
    registry: Registry, digest: str, problem: BlobProblem, found: list[Need]
) -> DamagedBlob:
    """Say who cannot do without a blob: what it belongs to, and what is built on that."""
    reference = (Task.name, TaskVersion.number)
    built_on = or_(
        TaskVersion.digest == digest,
        *(
            and_(Backbone.digest == need.backbone, TaskVersion.tap_layer >= need.layer)
            for need in found
            if need.backbone
        ),
    )
    with registry.read() as uow:
        versions = uow.session.execute(
            select(*reference)
            .join(TaskVersion.task)
            .join(TaskVersion.backbone)
            .where(built_on)
            .order_by(*reference)
        ).all()
        releases = uow.session.scalars(
            select(Release.number)
            .join(Release.tasks)
            .join(ReleaseTask.version)
            .join(TaskVersion.backbone)
            .where(built_on)
            .distinct()
            .order_by(Release.number)
        ).all()
    users = [need.owner for need in found]
    users += [f"task {name}@{number}" for name, number in versions]
    users += [f"release {release}" for release in releases]
    return DamagedBlob(
        digest=digest,
        problem=problem,
        needed_by=list(dict.fromkeys(users)),
        needs=found,
    )


def _line(blob: StoredBlob) -> str:
    """A blob as a note names it: written anew, it is another line."""
    return f"{blob.digest} {blob.size} {blob.modified.isoformat()}"


def _read_note(note: Path) -> set[str]:
    try:
        return set(note.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return set()  # None, or none that can be read: all are read anew.


def _add_to_note(note: Path, line: str) -> None:
    with suppress(OSError):  # Then a run that is stopped begins anew.
        note.parent.mkdir(parents=True, exist_ok=True)
        with note.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
