"""Opening a store by its address."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from centra.errors import UsageError
from centra.store.local import LocalStore
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from centra.store.protocol import BlobStore
    from centra.store.s3.path import S3Path

__all__ = ["anchored_store", "cache_folder", "is_in_bucket", "open_path", "open_store"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(//)?", re.IGNORECASE)
_USER = re.compile(r"[^/.:@][^:@]*:[^/@]*@")
"""A user and a password behind a scheme that was forgotten or mistyped."""
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.DOTALL | re.IGNORECASE)
_SLASH = re.compile("%2f|%00", re.IGNORECASE)


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
    scheme = _scheme(url)
    if url and scheme is None:
        return LocalStore(Path(url))
    if scheme and scheme[0].lower() == "s3://":
        from centra.store.s3 import S3Store

        return S3Store(url, cache=LocalStore(cache) if cache else None)
    if (file := _FILE.fullmatch(url)) and not _SLASH.search(url):
        return LocalStore(Path(unquote(file[1])))
    raise UsageError(
        f"store {redacted(url, url)!r}: expected a folder or s3://BUCKET/PREFIX, or file:///FOLDER, "
        "percent-encoded; a folder whose name begins like an address is written ./NAME"
    )


def open_path(path: str | os.PathLike[str] | S3Path) -> Path | S3Path:
    """A file or folder of this machine, or in a bucket, by its address.

    Args:
        path: of this machine, or ``s3://BUCKET/KEY`` with the options of :func:`open_store`. What is
            one already stays as it is.

    Raises:
        UsageError: another scheme, an address in a bucket that has none, or with options that mean nothing.
    """
    if isinstance(path, str) and is_in_bucket(path):
        from centra.store.s3.path import S3Path

        return S3Path(path)
    return Path(path) if isinstance(path, str | os.PathLike) else path


def is_in_bucket(address: str) -> bool:
    """Whether the address of a file or folder leads to a bucket, and not to this machine's disk.

    Raises:
        UsageError: it begins like the address of something else.
    """
    scheme = _ELSEWHERE.match(address)
    if scheme is None or scheme[0].lower() == "s3://":
        return scheme is not None
    raise UsageError(
        f"{redacted(address, address)!r}: expected a path or s3://BUCKET/PREFIX",
        code="unknown-scheme",
        address=redacted(address, address),
    )


def anchored_store(url: str, folder: Path) -> str:
    """The same address, its path counted from a folder where it is a relative one."""
    return url if not url or _scheme(url) else str(folder / url)


def cache_folder() -> Path:
    """Where copies that can be made again are kept: ``$CENTRA_CACHE``, or ``~/.cache/centra``."""
    folder = os.environ.get("CENTRA_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "centra"


def _scheme(url: str) -> re.Match[str] | None:
    if url.startswith("~"):
        raise UsageError(
            f"store {url!r}: ~ stands for a home in a shell alone; write the whole path, or ./~ for a "
            "folder of that name"
        )
    return _SCHEME.match(url) or _USER.match(url)
