"""What nothing reaches in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Moment, schema

if TYPE_CHECKING:
    from registry.storage import gc

__all__ = ["Garbage", "GarbageCollection"]


class Garbage(Document):
    """Something in the store that nothing reaches."""

    kind: str
    """``blob``, or ``leftover``: the temporary file of a killed write."""
    name: str
    """A blob's digest; a leftover's path inside the store."""
    size: int
    """Bytes."""
    updated_at: Moment
    """When it was written."""
    age: int
    """Seconds, by the store's own clock."""

    @classmethod
    def of(cls, garbage: gc.Garbage) -> Garbage:
        """The document of a piece of garbage."""
        return cls(
            kind=garbage.kind,
            name=garbage.name,
            size=garbage.size,
            updated_at=garbage.modified,
            age=garbage.age,
        )


class GarbageCollection(Document):
    """What garbage collection found, or removed."""

    schema_: str = schema("garbage-collection")
    deleted: bool
    """Whether it was to be removed."""
    grace: int
    """Seconds; what is younger is left alone."""
    garbage: list[Garbage]
    """The oldest first: what would be removed; or, where it was deleted, exactly what was."""
    count: int
    """How many pieces."""
    size: int
    """Bytes, of all of them."""
    young_count: int
    """How many more nothing reaches, but are younger than the grace period."""
    young_size: int
    """Bytes, of all of those."""

    @classmethod
    def of(cls, collection: gc.Collection) -> GarbageCollection:
        """The document of a garbage collection."""
        return cls(
            deleted=collection.deleted,
            grace=collection.grace,
            garbage=[Garbage.of(garbage) for garbage in collection.garbage],
            count=collection.count,
            size=collection.bytes,
            young_count=collection.young,
            young_size=collection.young_bytes,
        )
