"""Immutable blobs named by their SHA-256 digest, and the few movable pointers beside them.

A store is a local folder or an S3 bucket with a prefix::

    blobs/sha256/ab/abcd...   immutable, written once
    channels/NAME.json        a pointer with a revision that only grows
    signatures/abcd.../*.json the signatures of a release, under its manifest's digest
    store.json                whose store it is; see :class:`centra.store.document.StoreDocument`
    witnesses/120-abcd....txt how far the registry's log had come, and the digest of its last event

Whatever is read is checked against its digest first. No store needs conditional writes: a blob's
name is its content, so writing it twice is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from centra.formats.identities import Digest

__all__ = ["BlobProblem", "BlobReader", "BlobStore", "BlobWriter", "StoredBlob", "Witness"]

Witness = tuple[int, str]
"""How many events a registry's log had, and the digest of the last."""

BlobProblem = Literal["missing", "damaged"]
"""What can be wrong with a blob."""


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob as a listing shows it, not checked."""

    digest: str
    size: int
    """Bytes."""
    modified: datetime
    """When it was last written, in UTC by the store's clock."""


class BlobReader(Protocol):
    """Anything that can hand out verified files by digest: a store, or a release on disk."""

    def fetch(self, digest: str) -> Path:
        """A local file whose bytes have just been checked against this digest.

        Raises:
            BlobNotFoundError: there is no such blob.
            CorruptBlobError: its bytes do not hash to the digest.
            StoreError: the store cannot be reached.
        """
        ...

    def signatures(self, manifest: str) -> list[bytes]:
        """The signatures of a release, the oldest first; none of them has been verified.

        Args:
            manifest: the digest of the release's manifest.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...


class BlobWriter(Protocol):
    """Anything that takes files."""

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        """Store a file or bytes, once, and return the digest.

        What is there already is read, and replaced where it is damaged: putting the original again
        is the mend.

        Args:
            source: a file, or its bytes.
            digest: its own, where the caller has taken it and nobody else can change the file since;
                so it is not hashed again, neither before it is written nor after.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...


class BlobStore(BlobReader, BlobWriter, Protocol):
    """Where a registry keeps its bytes."""

    url: str
    """How to open this store again with :func:`centra.store.open_store`."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there, without reading it.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def find_problem(self, digest: str) -> BlobProblem | None:
        """What is wrong with a blob, which is read to its end where it lies; None where it is right.

        No local copy is trusted for it.

        Raises:
            StoreError: the store cannot be reached, or answers something else each time.
        """
        ...

    def stat(self, digest: str) -> StoredBlob | None:
        """A blob's size and time, without reading it; None where it is not there.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def clock(self) -> datetime:
        """What time it is now, in UTC by the clock that also dates the blobs.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def blobs(self) -> Iterator[StoredBlob]:
        """Every blob that is there, in no particular order.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def remove(self, digest: str) -> None:
        """Remove a blob, if it is there; only garbage collection does.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def pointers(self) -> list[str]:
        """The channels that have a pointer document, sorted.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def read_pointer(self, channel: str) -> bytes | None:
        """The pointer document of a channel, or None where there is none yet.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def write_pointer(self, channel: str, data: bytes) -> None:
        """Replace the pointer document of a channel.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def read_document(self) -> bytes | None:
        """The document that says whose store this is, or None where there is none yet.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def witnesses(self) -> list[Witness]:
        """What this store has seen of the registry's log, in the log's order.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def write_document(self, data: bytes) -> None:
        """Replace the document that says whose store this is.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def write_witness(self, witness: Witness) -> None:
        """Keep how far the log had come; nothing but its name says it, so none replaces another.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...

    def write_signature(self, manifest: str, data: bytes) -> None:
        """Add a signature to those of a release; one that is there already is not added twice.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...
