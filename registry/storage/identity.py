"""Whether a store is the one that a database writes to.

Both carry the same two identities: the database in the one row of its table ``identity``, made with
the tables, and the store in the document at its root, written before its first blob. Several stores
may name a registry, for a copy does, too: the database alone says which of them it writes to, so one
changed row makes a copy the store, at one moment for everybody.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from centra.errors import FormatError, UnsupportedFormatError
from centra.system.redaction import redacted
from registry.database.address import address_text
from registry.errors import WrongStoreError
from registry.storage.needed import missing_blobs

if TYPE_CHECKING:
    from centra.store import BlobStore
    from centra.store.document import StoreDocument
    from registry.connection import Registry

__all__ = [
    "check_store",
    "is_empty",
    "read_document",
    "short_id",
    "store_address",
    "store_location",
    "write_identity",
]


_log = logging.getLogger(__name__)


def check_store(registry: Registry) -> tuple[tuple[str, str], bool]:
    """Refuse a store that is not the database's own.

    A store without a document passes where it may have one: an empty one of a database that names no
    blob, and one that has every blob that the database names.

    Returns:
        The identities of the registry and of its store, and whether the store says so, too.

    Raises:
        WrongStoreError: it is another registry's, a copy, moved away, or not there at all.
        FormatError: the store's document cannot be read.
        StoreError, DatabaseError: the registry cannot be used.
    """
    with registry.read() as uow:
        own = uow.identity()
    found = read_document(registry.store)
    if found is None:
        _check_first(registry, own[0])
    elif (found.registry, found.store) != own:
        raise _foreign(registry, own[0], found)
    return own, found is not None


def write_identity(store: BlobStore, own: tuple[str, str]) -> None:
    """Let a store say whose it is. Whoever does so at the same moment writes the same bytes.

    Raises:
        StoreNotWritableError, StoreError: the store refused.
    """
    from centra.store.document import StoreDocument

    store.write_document(StoreDocument(registry=own[0], store=own[1]).to_bytes())
    _log.info("%s is the store of registry %s from now on", store_address(store), short_id(own[0]))


def read_document(store: BlobStore) -> StoreDocument | None:
    """What a store says of itself; None for one that says nothing.

    Raises:
        FormatError: it cannot be read.
        StoreError: the store cannot be reached.
    """
    from centra.store.document import StoreDocument

    data = store.read_document()
    if data is None:
        return None
    try:
        return StoreDocument.from_bytes(data, f"store.json in {store_address(store)}")
    except UnsupportedFormatError:
        raise
    except FormatError as error:
        raise FormatError(
            f"{error}. Restore it from a backup",
            code="store-document-unreadable",
            store=store_address(store),
        ) from error


def is_empty(store: BlobStore) -> bool:
    """Whether a store holds neither blobs nor pointers.

    Raises:
        StoreError: the store cannot be reached.
    """
    return next(iter(store.blobs()), None) is None and not store.pointers()


def store_address(store: BlobStore) -> str:
    """A store for people, without its secrets."""
    return redacted(store.url, store.url)


def store_location(store: BlobStore) -> str:
    """Where a store is: its address without what says how to reach it there."""
    parts = urlsplit(store.url)
    if parts.scheme != "s3":
        return store.url
    return f"s3://{parts.netloc.rpartition('@')[2]}{parts.path}"


def short_id(identity: str) -> str:
    """An identity for people."""
    return identity[:8]


def _check_first(registry: Registry, own: str) -> None:
    """Refuse a store without a document that is not this database's for certain."""
    store = registry.store
    if is_empty(store):
        with registry.read() as uow:
            used = bool(uow.digests())
        if used:
            raise _wrong_store(
                registry,
                own,
                "which is empty, while the database names blobs",
                code="store-is-empty",
            )
        return
    missing, count = missing_blobs(registry, store)
    if not count:
        raise _wrong_store(
            registry,
            own,
            "which holds something, while the database names no blob",
            code="store-in-use",
        )
    if missing:
        raise _wrong_store(
            registry,
            own,
            f"which lacks {len(missing)} of the {count} blobs that the database names, such as "
            f"sha256:{min(missing)}",
            code="store-lacks-blobs",
            missing=len(missing),
            count=count,
        )


def _foreign(registry: Registry, own: str, found: StoreDocument) -> WrongStoreError:
    if found.registry != own:
        return _wrong_store(
            registry,
            own,
            f"of registry {short_id(found.registry)}",
            code="store-of-another-registry",
        )
    if found.moved_to is not None:
        return _wrong_store(
            registry,
            own,
            f"moved to {found.moved_to}",
            code="store-moved",
            moved_to=found.moved_to,
        )
    return _wrong_store(registry, own, "a copy of this registry's", code="store-is-copy")


def _wrong_store(
    registry: Registry, own: str, description: str, *, code: str, **data: Any
) -> WrongStoreError:
    def origin(key: str) -> str:
        name = registry.origins.get(key)
        return f" (from {name})" if name else ""

    database, store = address_text(registry.engine.url), store_address(registry.store)
    return WrongStoreError(
        "the store is not the one that this database writes to:\n"
        f"  database {database}{origin('database')}, registry {short_id(own)}\n"
        f"  store {store}{origin('store')}, {description}",
        code=code,
        database=database,
        store=store,
        **data,
    )
