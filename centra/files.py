"""Files on disk: their digests, text in them, and writing one in a single step."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import StoreNotWritableError, UsageError
from centra.reading import open_regular, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_utf8", "check_writable", "decode_text", "file_digest", "read_text", "replacing"]

_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks, as Excel, Notepad and PowerShell write them."""


def file_digest(path: Path) -> str:
    """The SHA-256 digest of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return io.StringIO(data.decode(encoding), newline=None).read()


def read_text(path: Path) -> str:
    """The text of a file; see :func:`decode_text`.

    Raises:
        OSError: it cannot be read, or is no regular file.
        UnicodeDecodeError: see :func:`decode_text`.
    """
    return decode_text(read_regular(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    Readers see the old file or the whole new one, also after a crash.

    Raises:
        OSError: its folder cannot be written, or it is a device, a pipe or a folder.
    """
    _check_replaceable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    """Refuse what a file must not take the place of: whoever may write ``/dev`` would lose a device."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
