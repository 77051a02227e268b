"""Which blobs must be in the store: what rows name, what belongs to that, and what pointers name.

A release that the database knows consists of versions and backbones that it knows, too; only that of a
foreign pointer must be read for what it lists.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    FormatError,
    InvalidNameError,
    NotFoundError,
    VerificationError,
)
from registry.database.models import Release, Task, TaskVersion
from registry.errors import UnreadableError
from registry.storage import claims

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.formats.identities import Digest
    from centra.store import BlobStore
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "Need",
    "blobs_to_keep",
    "missing_blobs",
    "named_blobs",
    "needed_by_rows",
    "needs",
]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A blob that the database says is there, and why."""

    owner: str
    """What it belongs to: ``task intent@1.2``, ``backbone minilm@1`` or ``release 3``."""
    kind: Literal["task-blob", "backbone-blob", "release-blob", "backbone-invalid"]
    """What the owner is, which says how the blob is put back; the last is a backbone that is whole,
    but not what it says of itself."""
    data: dict[str, Any]
    """Which one: ``task`` and ``version``; ``backbone``, its ``name`` and ``source``; or
    ``release``."""
    digest: str
    size: int | None = None
    """Bytes, where they are known."""
    least: int = 0
    """So many bytes it must have for what its backbone says of it."""
    problem: str | None = None
    """What is wrong with it, where that is known already."""
    backbone: str | None = None
    """The digest of the backbone that it is part of."""
    layer: int = 0
    """The lowest tap that reads it, where it is part of a backbone."""


@dataclass(frozen=True, kw_only=True)
class _Backbone:
    """What is known of a backbone from its document."""

    blobs: set[Digest]
    problem: str | None = None
    valid: bool = True
    weights: dict[str, int] = field(default_factory=dict)
    layers: dict[Digest, int] = field(default_factory=dict)


def needs(registry: Registry) -> Iterator[Need]:
    """Every blob that the database names, once for each thing that it belongs to.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    reference = (Task.name, TaskVersion.number)
    with registry.read() as uow:
        backbones = uow.backbones()
        versions = uow.session.execute(
            select(*reference, TaskVersion.digest, TaskVersion.size)
            .join(TaskVersion.task)
            .order_by(*reference)
        ).all()
        releases = uow.session.execute(
            select(Release.number, Release.digest).order_by(Release.number)
        ).all()
    for row in backbones:
        found = _read_backbone(registry.store, row.digest)
        for digest in sorted(found.blobs):
            yield Need(
                owner=f"backbone {row.reference}",
                kind="backbone-blob" if found.valid else "backbone-invalid",
                data={"backbone": row.reference, "name": row.name, "source": row.source},
                digest=digest,
                least=found.weights.get(digest, 0),
                problem=found.problem if digest == row.digest else None,
                backbone=row.digest,
                layer=found.layers.get(digest, 0),
            )
    for name, number, digest, size in versions:
        yield Need(
            owner=f"task {name}@{number}",
            kind="task-blob",
            data={"task": name, "version": str(number)},
            digest=digest,
            size=size,
        )
    for release, digest in releases:
        yield Need(
            owner=f"release {release}",
            kind="release-blob",
            data={"release": release},
            digest=digest,
        )


def named_blobs(registry: Registry, reader: BlobStore) -> set[str]:
    """The digests of all that the rows of a database name, with the parts of its backbones.

    Args:
        registry: whose database.
        reader: has the documents that say what belongs to a backbone; the parts of one whose document
            it lacks, or has damaged, are not known.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        found, specs = uow.digests(), [backbone.digest for backbone in uow.backbones()]
    if specs:
        from centra.formats.backbone import BackboneSpec

        for digest in specs:
            try:
                found |= BackboneSpec.fetch(digest, reader).blobs()
            except (NotFoundError, VerificationError):
                found.add(digest)
    return found


def missing_blobs(registry: Registry, store: BlobStore) -> tuple[set[str], int]:
    """The blobs that a database names and a store lacks, and how many it names.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    named = named_blobs(registry, store)
    return named - {blob.digest for blob in store.blobs()}, len(named)


def blobs_to_keep(registry: Registry, known: dict[str, set[str]]) -> set[str]:
    """The digests of all blobs that must stay.

    Args:
        registry: its store has the pointers, and the documents that say what belongs to a backbone or
            release.
        known: those documents by their digest, as far as they were read before; filled further.

    Raises:
        UnreadableError: a document or a pointer is missing, damaged or malformed.
        StoreError, DatabaseError: the registry cannot be used.
    """
    store, keep = registry.store, None
    while keep is None:
        with registry.read() as uow:
            unread = [row for row in uow.backbones() if row.digest not in known]
            released = set(uow.session.scalars(select(Release.digest)))
            keep = needed_by_rows(uow, known)
        for row in unread:
            with _readable(
                f"backbone {row.reference}",
                code="backbone-unreadable",
                backbone=row.reference,
                name=row.name,
            ):
                known[row.digest] = _backbone_blobs(store, row.digest)
    for channel in store.pointers():
        with _readable(
            f"the channel pointer {channel}.json", code="pointer-unreadable", channel=channel
        ):
            manifest = _pointed_manifest(store, channel)
            if manifest is None:
                continue  # Removed since it was listed.
            if manifest not in released and manifest not in known:
                known[manifest] = _release_blobs(store, manifest)
        keep |= known.get(manifest, set())
    return keep


def needed_by_rows(uow: UnitOfWork, known: dict[str, set[str]]) -> set[str] | None:
    """What rows name and what is claimed; None where there is a backbone that is not known yet.

    Args:
        uow: the transaction to look in.
        known: what belongs to each backbone, by its digest.
    """
    needed = uow.digests() | claims.claimed_for_storing(uow)
    for row in uow.backbones():
        if row.digest not in known:
            return None
        needed |= known[row.digest]
    return needed


@contextmanager
def _readable(owner: str, *, code: str, **data: Any) -> Iterator[None]:
    try:
        yield
    except (BlobNotFoundError, CorruptBlobError, FormatError, InvalidNameError) as error:
        raise UnreadableError(owner, error, code=code, **data) from error


def _read_backbone(store: BlobStore, digest: Digest) -> _Backbone:
    from centra.formats.backbone import BackboneSpec

    try:
        parts = BackboneSpec.parts(digest, store)
    except NotFoundError:
        return _Backbone(blobs={digest})
    except VerificationError:
        return _Backbone(blobs={digest}, problem="is damaged")
    if len(parts) == 1:
        return _Backbone(blobs=parts)
    try:
        spec = BackboneSpec.fetch(digest, store)
        weights = spec.weights()
    except VerificationError as error:
        return _Backbone(blobs=parts, problem=f"makes no sense: {error}", valid=False)
    layers = {layer: number for number, layer in reversed([*enumerate(spec.layers, 1)])}
    return _Backbone(blobs=parts, weights=weights, layers=layers)


def _backbone_blobs(store: BlobStore, digest: str) -> set[str]:
    from centra.formats.backbone import BackboneSpec

    return {*BackboneSpec.parts(digest, store)}


def _release_blobs(store: BlobStore, manifest: str) -> set[str]:
    from centra.formats.manifest import ReleaseManifest

    path = store.fetch(manifest)
    return {manifest, *ReleaseManifest.from_bytes(path.read_bytes(), str(path)).files().values()}


def _pointed_manifest(store: BlobStore, channel: str) -> str | None:
    from centra.formats.manifest import ChannelPointer

    data = store.read_pointer(channel)
    if data is None:
        return None
    return ChannelPointer.of_channel(data, channel, f"{channel}.json").manifest
