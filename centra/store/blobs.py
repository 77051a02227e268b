"""Immutable blobs named by their SHA-256 digest, and the few movable pointers beside them.

A store is a local folder or an S3 bucket with a prefix::

    blobs/sha256/ab/abcd...   immutable, written once
    channels/NAME.json        a pointer with a revision that only grows
    signatures/abcd.../*.json the signatures of a release, under its manifest's digest
    store.json                whose store it is; see :class:`centra.store.identity.StoreDocument`
    witnesses/120-abcd....txt how far the registry's log had come, and the digest of its last event

Whatever is read is checked against its digest first. No store needs conditional writes: a blob's
name is its content, so writing it twice is harmless.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import unquote

from centra.errors import UsageError
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

__all__ = [
    "BlobReader",
    "BlobStore",
    "BlobWriter",
    "Fault",
    "StoredBlob",
    "Witness",
    "anchored_store",
    "cache_folder",
    "is_digest",
    "is_signature_name",
    "open_store",
    "parse_witnesses",
    "signature_name",
    "witness_file",
]

Witness = tuple[int, str]
"""How many events a registry's log had, and the digest of the last."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}\.json")
_WITNESS = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{64})\.txt")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(//)?", re.IGNORECASE)
_USER = re.compile(r"[^/.:@][^:@]*:[^/@]*@")
"""A user and a password behind a scheme that was forgotten or mistyped."""
_FILE = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.DOTALL | re.IGNORECASE)
_SLASH = re.compile("%2f|%00", re.IGNORECASE)


Fault = Literal["missing", "damaged"]
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

    def put(self, source: Path | bytes) -> str:
        """Store a file or bytes, once, and return the digest.

        What is there already is read, and replaced where it is damaged: putting the original again
        is the mend.

        Raises:
            StoreNotWritableError: the store or the credentials are read-only.
            StoreError: the store cannot be reached.
        """
        ...


class BlobStore(BlobReader, BlobWriter, Protocol):
    """Where a registry keeps its bytes."""

    url: str
    """How to open this store again with :func:`open_store`."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there, without reading it.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    def fault(self, digest: str) -> Fault | None:
        """What is wrong with a blob, read to its end where it lies, whatever copies there are.

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


def open_store(url: str, *, cache: Path | None = None) -> BlobStore:
    """Open a store from its address.

    Args:
        url: a folder's path, ``file:///folder``, or ``s3://bucket/prefix``. Path and prefix are taken
            as they stand; only ``file:`` is percent-encoded. Credentials, region and endpoint come
            from the standard AWS settings; ``?endpoint_url=``, ``?region=`` and
            ``?addressing_style=path|virtual`` after the S3 address override them.
        cache: where an S3 store keeps verified local copies; default ``$CENTRA_CACHE`` or
            ``~/.cache/centra``.

    Raises:
        UsageError: another scheme or machine, an S3 address without a bucket, or options after it
            that mean nothing.
    """
    from centra.store.local import LocalStore

    scheme = _scheme(url)
    if url and scheme is None:
        return LocalStore(Path(url))
    if scheme and scheme[0].lower() == "s3://":
        from centra.store.s3 import S3Store

        return S3Store(url, cache=LocalStore(cache or cache_folder()))
    if (file := _FILE.fullmatch(url)) and not _SLASH.search(url):
        return LocalStore(Path(unquote(file[1])))
    raise UsageError(
        f"store {redacted(url, url)!r}: expected a folder or s3://BUCKET/PREFIX, or file:///FOLDER, "
        "percent-encoded; a folder whose name begins like an address is written ./NAME"
    )


def anchored_store(url: str, folder: Path) -> str:
    """The same address, its path counted from a folder where it is a relative one."""
    return url if not url or _scheme(url) else str(folder / url)


def _scheme(url: str) -> re.Match[str] | None:
    if url.startswith("~"):
        raise UsageError(
            f"store {url!r}: ~ stands for a home in a shell alone; write the whole path, or ./~ for a "
            "folder of that name"
        )
    return _SCHEME.match(url) or _USER.match(url)


def cache_folder() -> Path:
    """Where copies that can be made again are kept: ``$CENTRA_CACHE``, or ``~/.cache/centra``."""
    folder = os.environ.get("CENTRA_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "centra"


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 digest in lower-case hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def signature_name(data: bytes) -> str:
    """The file name of a signature in a store."""
    return f"{hashlib.sha256(data).hexdigest()}.json"


def witness_file(witness: Witness) -> tuple[str, bytes]:
    """The file of a witness in a store: its name, which says all, and the same for people."""
    count, digest = witness
    return f"{count}-{digest}.txt", f"{count}:{digest}\n".encode()


def parse_witnesses(names: Iterable[str]) -> list[Witness]:
    """Of the files beside a store's witnesses those that are some, in the log's order."""
    found = (_WITNESS.fullmatch(name) for name in names)
    return sorted((int(match[1]), match[2]) for match in found if match)


def is_signature_name(name: str) -> bool:
    """Whether a file beside a store's signatures is one."""
    return _SIGNATURE.fullmatch(name) is not None
