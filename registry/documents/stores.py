"""The registry's store: what it says of itself, and what copying and moving it led to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from registry.storage import stores

__all__ = ["AdoptedStore", "MovedStore", "Store", "StoreCopy"]


class Store(Document):
    """A store, and what it says of itself."""

    schema_: str = schema("store")
    address: str
    """Without passwords."""
    own: bool
    """Whether it is the one that the database writes to."""
    store: str | None
    """Its identity; null where it says nothing."""
    registry: str | None
    """The identity of its registry; likewise."""
    moved_to: str | None
    """The address of the store that took its place."""
    database: str
    """The identity of the database's registry."""
    blobs: int
    """How many."""
    size: int
    """Bytes, of all blobs."""
    pointers: int
    """How many channels' pointers it holds."""

    @classmethod
    def of(cls, detail: stores.StoreDetail) -> Store:
        """The document of a store."""
        return cls(
            address=detail.address,
            own=detail.own,
            store=detail.store,
            registry=detail.registry,
            moved_to=detail.moved_to,
            database=detail.database,
            blobs=detail.blobs,
            size=detail.bytes,
            pointers=detail.pointers,
        )


class StoreCopy(Document):
    """What copying a store led to."""

    schema_: str = schema("store-copy")
    address: str
    """Of the copy."""
    store: str
    """The copy's identity."""
    blobs: int
    """How many were not there."""
    size: int
    """Bytes, of those blobs."""
    signatures: int
    """How many were copied."""
    pointers: int
    """How many were copied."""

    @classmethod
    def of(cls, copied: stores.Copied) -> StoreCopy:
        """The document of a copy."""
        return cls(
            address=copied.address,
            store=copied.store,
            blobs=copied.blobs,
            size=copied.bytes,
            signatures=copied.signatures,
            pointers=copied.pointers,
        )


class MovedStore(Document):
    """What moving a store led to."""

    schema_: str = schema("moved-store")
    address: str
    """Where the database writes to now."""
    changed: bool
    """False where it did so before."""
    blobs: int
    """How many were copied now."""
    size: int
    """Bytes, of those blobs."""
    left: bool
    """Whether the old store says where it was moved to; it does not where it cannot be written."""

    @classmethod
    def of(cls, moved: stores.Moved) -> MovedStore:
        """The document of a move."""
        return cls(
            address=moved.address,
            changed=moved.changed,
            blobs=moved.blobs,
            size=moved.bytes,
            left=moved.left,
        )


class AdoptedStore(Document):
    """What making a store the registry's led to."""

    schema_: str = schema("adopted-store")
    address: str
    changed: bool
    """False where it was it before."""
    missing: int
    """How many blobs it lacks that the database names."""

    @classmethod
    def of(cls, adopted: stores.Adopted) -> AdoptedStore:
        """The document of an adoption."""
        return cls(address=adopted.address, changed=adopted.changed, missing=adopted.missing)
