"""Whether a store is the one that a database writes to.

Both carry the same two identities: the database in the one row of its table ``identity``, made with
the tables, and the store in the document at its root, written before its first blob. Several stores
may name a registry, for a copy does, too: the database alone says which of them it writes to, so one
changed row makes a copy the store, at one moment for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from centra.errors import FormatError, NotFoundError, UnsupportedFormatError, VerificationError
from centra.system.redaction import redacted
from registry.database.address import shown
from registry.errors import WrongStoreError

if TYPE_CHECKING:
    from centra.store import BlobStore
    from centra.store.document import StoreDocument
    from registry.connection import Registry

__all__ = [
    "address",
    "bind",
    "check",
    "document",
    "is_empty",
    "location",
    "missing",
    "named",
    "short",
]


def check(registry: Registry) -> tuple[tuple[str, str], bool]:
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
    found = document(registry.store)
    if found is None:
        _check_first(registry, own[0])
    elif (found.registry, found.store) != own:
        raise _foreign(registry, own[0], found)
    return own, found is not None


def bind(store: BlobStore, own: tuple[str, str]) -> None:
    """Let a store say whose it is. Whoever does so at the same moment writes the same bytes.

    Raises:
        StoreNotWritableError, StoreError: the store refused.
    """
    from centra.store.document import StoreDocument

    store.write_document(StoreDocument(registry=own[0], store=own[1]).to_bytes())


def document(store: BlobStore) -> StoreDocument | None:
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
        return StoreDocument.from_bytes(data, f"store.json in {address(store)}")
    except UnsupportedFormatError:
        raise
    except FormatError as error:
        raise FormatError(
            f"{error}. Restore it from a backup; or remove it, and then: centra store adopt"
        ) from error


def is_empty(store: BlobStore) -> bool:
    """Whether a store holds neither blobs nor pointers.

    Raises:
        StoreError: the store cannot be reached.
    """
    return next(iter(store.blobs()), None) is None and not store.pointers()


def named(registry: Registry, reader: BlobStore) -> set[str]:
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


def missing(registry: Registry, store: BlobStore) -> tuple[set[str], int]:
    """The blobs that a database names and a store lacks, and how many it names.

    Raises:
        StoreError, DatabaseError: the registry cannot be used.
    """
    wanted = named(registry, store)
    return wanted - {blob.digest for blob in store.blobs()}, len(wanted)


def address(store: BlobStore) -> str:
    """A store for people, without its secrets."""
    return redacted(store.url, store.url)


def location(store: BlobStore) -> str:
    """Where a store is: its address without what says how to reach it there."""
    parts = urlsplit(store.url)
    if parts.scheme != "s3":
        return store.url
    return f"s3://{parts.netloc.rpartition('@')[2]}{parts.path}"


def short(identity: str) -> str:
    """An identity for people."""
    return identity[:8]


def _check_first(registry: Registry, own: str) -> None:
    """Refuse a store without a document that is not this database's for certain."""
    store = registry.store
    if is_empty(store):
        with registry.read() as uow:
            used = bool(uow.digests())
        if used:
            raise _wrong(
                registry,
                own,
                "which is empty, while the database names blobs",
                "mount the store, or correct its address; where it is lost, restore it, or make a "
                "copy of it the store: centra store adopt",
            )
        return
    lost, count = missing(registry, store)
    if not count:
        raise _wrong(
            registry,
            own,
            "which holds something, while the database names no blob",
            "correct the address; or where nobody else writes to this store: centra store adopt",
        )
    if lost:
        raise _wrong(
            registry,
            own,
            f"which lacks {len(lost)} of the {count} blobs that the database names, such as "
            f"sha256:{min(lost)}",
            "correct the address; or where it is this registry's store all the same: "
            "centra store adopt --incomplete",
        )


def _foreign(registry: Registry, own: str, found: StoreDocument) -> WrongStoreError:
    if found.registry != own:
        return _wrong(
            registry,
            own,
            f"of registry {short(found.registry)}",
            "set database and store to those of one registry",
        )
    if found.moved_to is not None:
        return _wrong(
            registry, own, f"moved to {found.moved_to}", f"set the store to {found.moved_to}"
        )
    return _wrong(
        registry,
        own,
        "a copy of this registry's",
        "set the store to the one that the copy was made of; or where the copy is to take its "
        "place: centra store adopt",
    )


def _wrong(registry: Registry, own: str, whose: str, mend: str) -> WrongStoreError:
    def said(key: str) -> str:
        origin = registry.origins.get(key)
        return f" (from {origin})" if origin else ""

    return WrongStoreError(
        "the store is not the one that this database writes to:\n"
        f"  database {shown(registry.engine.url)}{said('database')}, registry {short(own)}\n"
        f"  store {address(registry.store)}{said('store')}, {whose}",
        mend,
    )
