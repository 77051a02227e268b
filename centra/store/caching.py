"""Verified local copies of blobs that lie elsewhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, BinaryIO

from centra.errors import BlobNotFoundError, CorruptBlobError, StoreError
from centra.system.files import make_folder, replacing
from centra.system.locking import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store.local import LocalStore

__all__ = ["fetch_through"]

_log = logging.getLogger(__name__)


def fetch_through(
    cache: LocalStore, digest: str, shown: str, download: Callable[[BinaryIO], str | None]
) -> Path:
    """A blob's copy in a cache, which is brought there where it is missing or damaged.

    A verified copy is used without a request; of several who want it, one asks.

    Args:
        cache: of the copies.
        digest: the blob's.
        shown: where it comes from, for people.
        download: writes the blob into a file and gives the digest of what it wrote, or None where
            there is no such blob.

    Raises:
        BlobNotFoundError: there is none.
        CorruptBlobError: what came is another one.
        StoreError: the cache cannot be written; and what ``download`` raises.
    """
    if (copy := _cached(cache, digest)) is not None:
        return copy
    path = cache.path(digest)
    try:
        make_folder(path.parent)
        with locked(path.parent, logging.DEBUG):
            if (copy := _cached(cache, digest)) is not None:
                return copy
            with replacing(path) as temporary, temporary.open("wb") as file:
                actual = download(file)
                if actual is None:
                    raise BlobNotFoundError(digest, shown)
                if actual != digest:
                    raise CorruptBlobError(digest, actual, f"{shown} blob {digest}")
    except OSError as error:
        raise StoreError(
            f"cannot write to the cache {cache.root}: {error.strerror}. "
            "Check its permissions and free space.",
            code="cache-not-writable",
            folder=str(cache.root),
        ) from error
    _log.debug("fetched blob sha256:%s from %s", digest, shown)
    return path


def _cached(cache: LocalStore, digest: str) -> Path | None:
    try:
        return cache.fetch(digest)
    except (BlobNotFoundError, CorruptBlobError):
        return None
