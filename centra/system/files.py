"""Files on disk: their digests, text in them, and writing one in a single step."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import StoreNotWritableError, UsageError
from centra.formats.identities import Digest
from centra.system.reading import open_regular, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "check_utf8",
    "check_writable",
    "content_digest",
    "decode_text",
    "encoding_of",
    "file_digest",
    "make_folder",
    "read_text",
    "replacing",
    "sync_folder",
    "temporary_for",
]

_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks, as Excel, Notepad and PowerShell write them."""

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}", re.DOTALL)

_CANNOT_SYNC = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What file systems say that cannot sync a folder, or of a folder that may be written but not read."""


def file_digest(path: Path) -> Digest:
    """The SHA-256 digest of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def content_digest(source: Path | bytes) -> Digest:
    """The SHA-256 digest of a file, or of bytes, in hexadecimal.

    Raises:
        OSError: see :func:`file_digest`.
    """
    if isinstance(source, bytes):
        return Digest(hashlib.sha256(source).hexdigest())
    return file_digest(source)


def check_utf8(path: Path) -> None:
    """Refuse a path that the libraries which read weights and tokenizers cannot open.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{str(path)!r} is not UTF-8, and the libraries that read weights and tokenizers open "
            "no other path; rename the folder, or use another"
        ) from None


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work whose result it is to hold.

    Raises:
        StoreNotWritableError: its folder is missing, or nothing can be made there.
    """
    try:
        _check_replaceable(path)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error


def decode_text(data: bytes) -> str:
    """The text of a file's bytes: UTF-8, or what a byte-order mark says, which is no part of it.

    Every line ends with a line feed, however the file ends them.

    Raises:
        UnicodeDecodeError: it is not.
    """
    return io.StringIO(data.decode(encoding_of(data)), newline=None).read()


def encoding_of(data: bytes) -> str:
    """What a file's byte-order mark says of its encoding, as Python names it; else ``utf-8``."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")


def read_text(path: Path) -> str:
    """The text of a file; see :func:`decode_text`.

    Raises:
        OSError: it cannot be read, or is no regular file.
        UnicodeDecodeError: see :func:`decode_text`.
    """
    return decode_text(read_regular(path))


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, so that a power cut takes none of them away.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make what was created, renamed or removed in a folder outlast a power cut.

    Raises:
        OSError: the disk failed.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _CANNOT_SYNC:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    Readers see the old file or the whole new one, also after a crash; after the block it outlasts a
    power cut.

    Raises:
        OSError: its folder cannot be written, or it is a device, a pipe or a folder.
    """
    _check_replaceable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def temporary_for(name: str) -> str | None:
    """Whose place a temporary file of :func:`replacing` was to take; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def _check_replaceable(path: Path) -> None:
    """Refuse what a file must not take the place of: whoever may write ``/dev`` would lose a device."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
