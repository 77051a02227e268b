"""Reading every blob that the database names where it lies: what is damaged, who needs it, the mend.

A run that is stopped goes on where it was: what it found right is noted beside the cached blobs, with
size and time, until a run comes to its end.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select

from centra.checkpoints.backbone import check_backbone
from centra.errors import NotFoundError, VerificationError
from centra.formats.backbone import BackboneSpec
from centra.progress import Progress, silent
from centra.store import cache_folder
from registry.database.models import Backbone, Release, ReleaseTask, Task, TaskVersion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.store import BlobProblem, StoredBlob
    from registry.connection import Registry

__all__ = ["DamagedBlob", "Need", "Scrub", "needs", "scrub", "senseless"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A blob that the database says is there, and why."""

    what: str
    """What it belongs to: a version of a task, a backbone or a release."""
    digest: str
    mend: str
    size: int | None = None
    """Bytes, where they are known."""
    least: int = 0
    """So many bytes it must have for what its backbone says of it."""
    fault: str | None = None
    """What is wrong with it, where that is known already."""
    backbone: str | None = None
    """The digest of the backbone that it is part of."""
    layer: int = 0
    """The lowest tap that reads it, where it is part of a backbone."""


@dataclass(frozen=True, kw_only=True)
class DamagedBlob:
    """A blob that is not what its name says, or not there."""

    digest: str
    fault: BlobProblem
    needed_by: list[str]
    """All that cannot do without it: backbones, versions of tasks, releases."""
    mends: list[str]
    """What puts it back; any of them does."""


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
    store = registry.store
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
            fault = store.find_problem(digest)
            if fault:
                damaged.append(_damaged(registry, digest, fault, found[digest]))
            elif blob:
                _add_to_note(note, _line(blob))
        progress("hash blobs", done, len(found))
    with suppress(OSError):
        note.unlink()
    return Scrub(count=len(found), known=known, damaged=damaged)


def needs(registry: Registry) -> Iterator[Need]:
    """Every blob that the database names, once for each thing that it belongs to.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    number = (Task.name, TaskVersion.major, TaskVersion.minor)
    with registry.read() as uow:
        backbones = uow.backbones()
        versions = uow.session.execute(
            select(*number, TaskVersion.digest, TaskVersion.size)
            .join(TaskVersion.task)
            .order_by(*number)
        ).all()
        releases = uow.session.execute(
            select(Release.number, Release.digest).order_by(Release.number)
        ).all()
    for row in backbones:
        mend = f"centra backbone register {row.name} SOURCE, again from {row.source}"
        fault, layers, weights = None, dict[str, int](), dict[str, int]()
        try:
            parts = BackboneSpec.parts(row.digest, registry.store)
        except NotFoundError:
            parts = {row.digest}
        except VerificationError:
            parts, fault = {row.digest}, "is damaged"
        if len(parts) > 1:
            try:
                spec = BackboneSpec.fetch(row.digest, registry.store)
                weights = spec.weights()
                layers = {layer: number for number, layer in reversed([*enumerate(spec.layers, 1)])}
            except VerificationError as error:
                fault = f"makes no sense: {error}"
                mend = _leave(row.reference)
        for digest in sorted(parts):
            yield Need(
                what=f"backbone {row.reference}",
                digest=digest,
                mend=mend,
                least=weights.get(digest, 0),
                fault=fault if digest == row.digest else None,
                backbone=row.digest,
                layer=layers.get(digest, 0),
            )
    for name, major, minor, digest, size in versions:
        yield Need(
            what=f"task {name}@{major}.{minor}",
            digest=digest,
            size=size,
            mend=f"centra task update {name} FILE, with the file of {major}.{minor}",
        )
    for release, digest in releases:
        yield Need(
            what=f"release {release}",
            digest=digest,
            mend=f"centra compose --base {release} --release",
        )


def senseless(registry: Registry) -> dict[str, str]:
    """The backbones that are not what they say of themselves, though each blob is whole, and the mends.

    Raises:
        BlobNotFoundError, StoreError, DatabaseError: the registry cannot be used.
    """
    wrong = {}
    with registry.read() as uow:
        digests = {row.reference: row.digest for row in uow.backbones()}
    for reference, digest in digests.items():
        try:
            check_backbone(BackboneSpec.fetch(digest, registry.store), registry.store)
        except VerificationError as error:
            wrong[f"backbone {reference} makes no sense: {error}"] = _leave(reference)
    return wrong


def _leave(backbone: str) -> str:
    return f"centra backbone retire {backbone}, and move its tasks to another"


def _damaged(registry: Registry, digest: str, fault: BlobProblem, found: list[Need]) -> DamagedBlob:
    """Say who cannot do without a blob: what it belongs to, and what is built on that."""
    number = (Task.name, TaskVersion.major, TaskVersion.minor)
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
            select(*number)
            .join(TaskVersion.task)
            .join(TaskVersion.backbone)
            .where(built_on)
            .order_by(*number)
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
    users = [need.what for need in found]
    users += [f"task {name}@{major}.{minor}" for name, major, minor in versions]
    users += [f"release {release}" for release in releases]
    return DamagedBlob(
        digest=digest,
        fault=fault,
        needed_by=list(dict.fromkeys(users)),
        mends=list(dict.fromkeys(need.mend for need in found)),
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
