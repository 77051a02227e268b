"""Copying all that a registry reaches from its store to another, each blob checked on its way."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.errors import NotFoundError, VerificationError
from centra.store import open_store
from centra.store.s3 import S3Store
from registry.database.models import Release
from registry.errors import IncompleteError
from registry.storage.needed import named_blobs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.progress import Progress
    from centra.store import BlobStore
    from registry.connection import Registry

__all__ = ["CopiedContent", "copy_content"]


@dataclass(frozen=True, kw_only=True)
class CopiedContent:
    """How much was copied, because it was not there."""

    blobs: int
    bytes: int
    signatures: int
    pointers: int


def copy_content(registry: Registry, target: BlobStore, progress: Progress) -> CopiedContent:
    """Copy to a store all that the registry reaches and that is not there.

    Raises:
        IncompleteError: blobs are missing or damaged; all others were copied.
        StoreError, StoreNotWritableError, DatabaseError: one of them cannot be used.
    """
    source = registry.store
    # Read first: what they point at is copied before they are.
    pointers = {name: source.read_pointer(name) for name in source.pointers()}
    with registry.read() as uow:
        releases = list(uow.session.scalars(select(Release.digest)))
    needed = named_blobs(registry, source)
    needed |= _foreign_releases(source, pointers, needed)
    sizes = {blob.digest: blob.size for blob in source.blobs()}
    present = {blob.digest: blob.size for blob in target.blobs()}
    left = sorted(d for d in needed if d not in present or present[d] != sizes.get(d, present[d]))
    size = _copy_blobs(source, target, left, progress)
    signatures = 0
    for release in releases:
        found = target.signatures(release)
        for data in source.signatures(release):
            if data not in found:
                target.write_signature(release, data)
                signatures += 1
    seen = target.witnesses()
    for witness in source.witnesses():
        if witness not in seen:
            target.write_witness(witness)
    changed = [name for name in pointers if _copy_pointer(target, name, pointers[name])]
    return CopiedContent(blobs=len(left), bytes=size, signatures=signatures, pointers=len(changed))


def _copy_blobs(
    source: BlobStore, target: BlobStore, digests: Collection[str], progress: Progress
) -> int:
    size, lost = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        # A whole store need not go through the cache of what is used.
        cached = isinstance(source, S3Store)
        reader = open_store(source.url, cache=Path(scratch)) if cached else source
        for done, digest in enumerate(digests, 1):
            try:
                path = reader.fetch(digest)
                target.put(path)
            except (NotFoundError, VerificationError) as error:
                lost.append(error)
            else:
                size += path.stat().st_size
            if isinstance(reader, S3Store):
                reader.cache.remove(digest)
            progress("copy blobs", done, len(digests))
    if lost:
        raise IncompleteError(
            f"{len(lost)} of {len(digests)} blobs could not be copied; all others were. "
            f"The first: {lost[0]}",
            code="blobs-not-copied",
            missing=len(lost),
            count=len(digests),
        )
    return size


def _foreign_releases(
    source: BlobStore, pointers: Mapping[str, bytes | None], known: Collection[str]
) -> set[str]:
    """What pointers name of releases that the database does not know."""
    from centra.formats.manifest import ChannelPointer, ReleaseManifest

    found: set[str] = set()
    for name, data in pointers.items():
        if data is None:
            continue
        manifest = ChannelPointer.from_bytes(data, f"{name}.json").manifest
        if manifest not in known:
            path = source.fetch(manifest)
            release = ReleaseManifest.from_bytes(path.read_bytes(), str(path))
            found |= {manifest, *release.files().values()}
    return found


def _copy_pointer(target: BlobStore, name: str, data: bytes | None) -> bool:
    from centra.formats.manifest import ChannelPointer

    present = target.read_pointer(name)
    if data is None or present == data:
        return False
    if present is not None:
        with suppress(VerificationError):
            newer = ChannelPointer.from_bytes(present, name).revision
            if newer > ChannelPointer.from_bytes(data, name).revision:
                return False  # By another copying that began later.
    target.write_pointer(name, data)
    return True
