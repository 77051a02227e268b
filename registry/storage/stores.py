"""The registry's store as a whole: whose it is, copying it, moving it, and taking a copy for it.

Copying adds and never deletes. Moving is copying until nothing is left to copy, and one changed row:
from then on whoever still writes to the old store is refused, and nobody was able to write there
anything that was not copied.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import ConflictError, StoreNotWritableError
from centra.progress import Progress, silent
from centra.store import open_store
from registry import channels
from registry.database.models import AuditHead, Identity
from registry.errors import IncompleteError
from registry.storage.copying import copy_content
from registry.storage.gc import subject
from registry.storage.identity import is_empty, read_document, short_id, store_address
from registry.storage.needed import missing_blobs

if TYPE_CHECKING:
    from centra.store import BlobStore
    from registry.connection import Registry

__all__ = [
    "Adopted",
    "Copied",
    "Moved",
    "StoreDetail",
    "adopt",
    "copy",
    "move",
    "show",
]

_log = logging.getLogger(__name__)

_PASSES = 20
"""How often a move copies again because somebody changed something meanwhile."""


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
    found = read_document(store)
    sizes = [blob.size for blob in store.blobs()]
    return StoreDetail(
        address=store_address(store),
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
    began = time.monotonic()
    content = copy_content(registry, store, progress)
    elapsed = time.monotonic() - began
    _log.info(
        "copied %d blobs, %d bytes, to %s in %.1f s",
        content.blobs,
        content.bytes,
        store_address(store),
        elapsed,
        extra={"count": content.blobs, "bytes": content.bytes, "seconds": elapsed},
    )
    return Copied(
        address=store_address(store),
        store=identity,
        blobs=content.blobs,
        bytes=content.bytes,
        signatures=content.signatures,
        pointers=content.pointers,
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
            content = copy_content(registry, store, progress)
            blobs, size = blobs + content.blobs, size + content.bytes
            with registry.write() as uow:
                if uow.session.get_one(AuditHead, 1).count != seen:
                    continue  # Every change has its event, and may have brought blobs.
                uow.session.get_one(Identity, 1).store_id = identity
                old, new = subject(registry.store), subject(store)
                uow.record("store:move", old, {"to": new, "store": identity})
            _log.info("the store is now %s", store_address(store))
            break
        else:
            raise ConflictError(
                f"others changed something each of {_PASSES} times that all was copied; try again",
                code="changed-meanwhile",
            )
    # The pointers as the database has them, whatever was published to the old store meanwhile.
    channels.sync(dataclasses.replace(registry, store=store))
    return Moved(
        address=store_address(store),
        changed=changed,
        blobs=blobs,
        bytes=size,
        left=_point_to_new(registry, store),
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
        found = read_document(store)
        if found is not None and found.registry != own:
            raise _of_another_registry(store, found.registry)
    missing, count = missing_blobs(registry, store)
    if changed:
        if missing and not incomplete:
            raise IncompleteError(
                f"{store_address(store)} lacks {len(missing)} of the {count} blobs that the database "
                f"names, such as sha256:{min(missing)}",
                code="store-incomplete",
                store=store_address(store),
                missing=len(missing),
            )
        if found is None:
            found = StoreDocument(registry=own, store=uuid.uuid4().hex)
            store.write_document(found.to_bytes())
        with registry.write(any_store=True) as uow:
            uow.session.get_one(Identity, 1).store_id = found.store
            uow.record(
                "store:adopt", subject(store), {"store": found.store, "missing": len(missing)}
            )
        _log.info("the store is now %s", store_address(store))
        if found.moved_to is not None:
            store.write_document(found.model_copy(update={"moved_to": None}).to_bytes())
    channels.sync(dataclasses.replace(registry))
    return Adopted(address=store_address(store), changed=changed, missing=len(missing))


def _is_own(registry: Registry, store: BlobStore) -> bool:
    with registry.read() as uow:
        own = uow.identity()
    found = read_document(store)
    return found is not None and (found.registry, found.store) == own


def _of_another_registry(store: BlobStore, registry: str) -> ConflictError:
    return ConflictError(
        f"{store_address(store)} is the store of registry {short_id(registry)}; nothing was done. Choose "
        "another place; or where no database of that registry is in use any more, remove the "
        "store.json in it",
        code="store-of-another-registry-given",
        store=store_address(store),
        registry=registry,
    )


def _target(registry: Registry, target: str) -> tuple[BlobStore, str]:
    """The store to copy to, which says from now on whose it is, and its identity."""
    from centra.store.document import StoreDocument

    store = open_store(target)
    with registry.read() as uow:
        own = uow.identity()
    found = read_document(store)
    if found is None and not is_empty(store):
        raise ConflictError(
            f"{store_address(store)} holds something and says not whose; choose an empty place",
            code="store-of-nobody",
            store=store_address(store),
        )
    if found is not None and found.registry != own[0]:
        raise _of_another_registry(store, found.registry)
    if found is not None and found.store == own[1]:
        raise ConflictError(
            f"{store_address(store)} is the registry's own store; choose another place",
            code="store-is-own",
            store=store_address(store),
        )
    wanted = StoreDocument(registry=own[0], store=found.store if found else uuid.uuid4().hex)
    if found is None or found.moved_to is not None:
        store.write_document(wanted.to_bytes())
    return store, wanted.store


def _point_to_new(registry: Registry, new: BlobStore) -> bool:
    """Let the store that the settings name say that it was moved, unless it is the new one."""
    found = read_document(registry.store)
    with registry.read() as uow:
        own = uow.identity()
    if found is None or found.registry != own[0] or found.store == own[1]:
        return True
    try:
        left = found.model_copy(update={"moved_to": store_address(new)})
        registry.store.write_document(left.to_bytes())
    except StoreNotWritableError:
        return False
    return True
