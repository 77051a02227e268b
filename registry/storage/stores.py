"""The registry's store as a whole: whose it is, copying it, moving it, and taking a copy for it.

Copying adds and never deletes. Moving is copying until nothing is left to copy, and one changed row:
from then on whoever still writes to the old store is refused, and nobody was able to write there
anything that was not copied.
"""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.errors import ConflictError, NotFoundError, StoreNotWritableError, VerificationError
from centra.progress import Progress, silent
from centra.store import open_store
from centra.store.s3 import S3Store
from registry import channels
from registry.database.models import AuditHead, Identity, Release
from registry.storage.gc import subject
from registry.storage.identity import address, document, is_empty, missing, named, short

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from centra.store import BlobStore
    from registry.connection import Registry

__all__ = [
    "Adopted",
    "Copied",
    "IncompleteError",
    "Moved",
    "StoreDetail",
    "adopt",
    "copy",
    "move",
    "show",
]

_PASSES = 20
"""How often a move copies again because somebody changed something meanwhile."""


class IncompleteError(ConflictError):
    """A store lacks blobs that the database names."""


@dataclass(frozen=True, kw_only=True)
class StoreDetail:
    """A store, and what it says of itself."""

    address: str
    own: bool
    """Whether it is the one that the database writes to."""
    store: str | None
    """Its identity; None where it says nothing."""
    registry: str | None
    """The identity of its registry; likewise."""
    moved_to: str | None
    """The store that took its place."""
    database: str
    """The identity of the database's registry."""
    blobs: int
    bytes: int
    pointers: int


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What copying a store led to."""

    address: str
    """Of the copy."""
    store: str
    """The copy's identity."""
    blobs: int
    """How many were not there."""
    bytes: int
    signatures: int
    pointers: int


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What moving a store led to."""

    address: str
    """Where the database writes to now."""
    changed: bool
    """False where it did so before."""
    blobs: int
    """How many were copied by this call."""
    bytes: int
    left: bool
    """Whether the old store says where it was moved to; it does not where it cannot be written."""


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What making a store the registry's led to."""

    address: str
    changed: bool
    """False where it was it before."""
    missing: int
    """How many blobs it lacks that the database names."""


def show(registry: Registry) -> StoreDetail:
    """The store that the settings name, whosever it is.

    Raises:
        FormatError: its document cannot be read.
        StoreError, DatabaseError: the registry cannot be used.
    """
    store = registry.store
    with registry.read() as uow:
        own = uow.identity()
    found = document(store)
    sizes = [blob.size for blob in store.blobs()]
    return StoreDetail(
        address=address(store),
        own=found is not None and (found.registry, found.store) == own,
        store=found.store if found else None,
        registry=found.registry if found else None,
        moved_to=found.moved_to if found else None,
        database=own[0],
        blobs=len(sizes),
        bytes=sum(sizes),
        pointers=len(store.pointers()),
    )


def copy(registry: Registry, target: str, progress: Progress = silent) -> Copied:
    """Copy all that the registry reaches to another store, each blob checked on its way.

    What is there already is not copied again, so a copy can be repeated, and goes on where it was
    stopped. Nothing is deleted. Servers can read from a copy; nothing else writes to it.

    Args:
        registry: where from.
        target: the copy's address; see :func:`centra.store.open_store`.
        progress: told of each blob.

    Raises:
        WrongStoreError: the registry's own store is not what the settings name.
        ConflictError: the target is the store itself, another registry's, or says not whose it is.
        IncompleteError: blobs are missing or damaged; all others were copied.
        StoreError, StoreNotWritableError, DatabaseError: one of them cannot be used.
    """
    registry.check_store()
    store, identity = _target(registry, target)
    blobs, size, signatures, pointers = _copy(registry, store, progress)
    return Copied(
        address=address(store),
        store=identity,
        blobs=blobs,
        bytes=size,
        signatures=signatures,
        pointers=pointers,
    )


def move(registry: Registry, target: str, progress: Progress = silent) -> Moved:
    """Copy the store, and let the database write to the copy from then on.

    Killed at any moment, the registry has one whole store, and repeating it finishes. Others may write
    meanwhile: what they write before the change is copied, and afterwards they are refused until their
    settings name the new store.

    Args:
        registry, target, progress: as for :func:`copy`.

    Raises:
        WrongStoreError, ConflictError, IncompleteError: as for :func:`copy`; nothing was changed.
        StoreError, StoreNotWritableError, DatabaseError: one of them cannot be used.
    """
    blobs = size = 0
    store = open_store(target)
    changed = not _is_own(registry, store)
    if changed:
        registry.check_store()
        store, identity = _target(registry, target)
        for _ in range(_PASSES):
            with registry.read() as uow:
                seen = uow.session.get_one(AuditHead, 1).count
            more = _copy(registry, store, progress)
            blobs, size = blobs + more[0], size + more[1]
            with registry.write() as uow:
                if uow.session.get_one(AuditHead, 1).count != seen:
                    continue  # Every change has its event, and may have brought blobs.
                uow.session.get_one(Identity, 1).store_id = identity
                old, new = subject(registry.store), subject(store)
                uow.record("store:move", old, {"to": new, "store": identity})
            break
        else:
            raise ConflictError(
                f"others changed something each of {_PASSES} times that all was copied; try again"
            )
    # The pointers as the database has them, whatever was published to the old store meanwhile.
    channels.sync(dataclasses.replace(registry, store=store))
    return Moved(
        address=address(store),
        changed=changed,
        blobs=blobs,
        bytes=size,
        left=_leave(registry, store),
    )


def adopt(registry: Registry, *, incomplete: bool = False) -> Adopted:
    """Make the store that the settings name the one that the database writes to.

    For a copy that takes the place of a store that was lost, and for a store that says not whose it is.

    Args:
        registry: the database and the store.
        incomplete: although blobs are missing that the database names.

    Raises:
        ConflictError: the store is another registry's.
        IncompleteError: blobs are missing.
        FormatError: the store's document cannot be read.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    from centra.store.document import StoreDocument

    store = registry.store
    if changed := not _is_own(registry, store):
        with registry.read() as uow:
            own, _ = uow.identity()
        found = document(store)
        if found is not None and found.registry != own:
            raise _others(store, found.registry)
    lost, count = missing(registry, store)
    if changed:
        if lost and not incomplete:
            raise IncompleteError(
                f"{address(store)} lacks {len(lost)} of the {count} blobs that the database names, "
                f"such as sha256:{min(lost)}; to take it all the same: "
                "centra store adopt --incomplete"
            )
        if found is None:
            found = StoreDocument(registry=own, store=uuid.uuid4().hex)
            store.write_document(found.to_bytes())
        with registry.write(any_store=True) as uow:
            uow.session.get_one(Identity, 1).store_id = found.store
            uow.record("store:adopt", subject(store), {"store": found.store, "missing": len(lost)})
        if found.moved_to is not None:
            store.write_document(found.model_copy(update={"moved_to": None}).to_bytes())
    channels.sync(dataclasses.replace(registry))
    return Adopted(address=address(store), changed=changed, missing=len(lost))


def _is_own(registry: Registry, store: BlobStore) -> bool:
    with registry.read() as uow:
        own = uow.identity()
    found = document(store)
    return found is not None and (found.registry, found.store) == own


def _others(store: BlobStore, registry: str) -> ConflictError:
    return ConflictError(
        f"{address(store)} is the store of registry {short(registry)}; nothing was done. Choose "
        "another place; or where no database of that registry is in use any more, remove the "
        "store.json in it"
    )


def _target(registry: Registry, target: str) -> tuple[BlobStore, str]:
    """The store to copy to, which says from now on whose it is, and its identity."""
    from centra.store.document import StoreDocument

    store = open_store(target)
    with registry.read() as uow:
        own = uow.identity()
    found = document(store)
    if found is None and not is_empty(store):
        raise ConflictError(
            f"{address(store)} holds something and says not whose; choose an empty place"
        )
    if found is not None and found.registry != own[0]:
        raise _others(store, found.registry)
    if found is not None and found.store == own[1]:
        raise ConflictError(f"{address(store)} is the registry's own store; choose another place")
    wanted = StoreDocument(registry=own[0], store=found.store if found else uuid.uuid4().hex)
    if found is None or found.moved_to is not None:
        store.write_document(wanted.to_bytes())
    return store, wanted.store


def _copy(registry: Registry, target: BlobStore, progress: Progress) -> tuple[int, int, int, int]:
    """Copy what is not there: how many blobs, their bytes, and how many signatures and pointers."""
    source = registry.store
    # Read first: what they point at is copied before they are.
    pointers = {name: source.read_pointer(name) for name in source.pointers()}
    with registry.read() as uow:
        releases = list(uow.session.scalars(select(Release.digest)))
    wanted = named(registry, source)
    wanted |= _unknown(source, pointers, wanted)
    sizes = {blob.digest: blob.size for blob in source.blobs()}
    there = {blob.digest: blob.size for blob in target.blobs()}
    left = sorted(d for d in wanted if d not in there or there[d] != sizes.get(d, there[d]))
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
    return len(left), size, signatures, len(changed)


def _copy_blobs(
    source: BlobStore, target: BlobStore, digests: Collection[str], progress: Progress
) -> int:
    size, lost = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        # A whole store need not go through the cache of what is used.
        own = isinstance(source, S3Store)
        reader = open_store(source.url, cache=Path(scratch)) if own else source
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
            f"To find out who needs them: centra doctor. The first: {lost[0]}"
        )
    return size


def _unknown(
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

    there = target.read_pointer(name)
    if data is None or there == data:
        return False
    if there is not None:
        with suppress(VerificationError):
            newer = ChannelPointer.from_bytes(there, name).revision
            if newer > ChannelPointer.from_bytes(data, name).revision:
                return False  # By another copying that began later.
    target.write_pointer(name, data)
    return True


def _leave(registry: Registry, new: BlobStore) -> bool:
    """Let the store that the settings name say that it was moved, unless it is the new one."""
    found = document(registry.store)
    with registry.read() as uow:
        own = uow.identity()
    if found is None or found.registry != own[0] or found.store == own[1]:
        return True
    try:
        left = found.model_copy(update={"moved_to": address(new)})
        registry.store.write_document(left.to_bytes())
    except StoreNotWritableError:
        return False
    return True
