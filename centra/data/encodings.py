"""The text of files in any encoding; what cannot be read is named by line and column."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from centra.errors import DataError
from centra.system.files import encoding_of

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["as_utf8", "decode", "encoding_read", "undecodable", "what_packed"]

_PACKED = {
    b"\x1f\x8b": "compressed by gzip: unpack it with gunzip",
    b"BZh": "compressed by bzip2: unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it with unzstd",
    b"PK\x03\x04": "a zip archive, or a spreadsheet: save it as CSV",
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"SQLite format 3": "an SQLite database: write its rows as CSV",
}


def what_packed(head: bytes) -> str | None:
    """What a file is that is no text, and what to do about it; None where it may be text.

    Args:
        head: how it begins.
    """
    return next((what for mark, what in _PACKED.items() if head.startswith(mark)), None)


def encoding_read(data: bytes, encoding: str | None = None) -> str:
    """The encoding that a file of text is read in, as Python names it.

    Args:
        data: how it begins.
        encoding: where no byte-order mark says another; None for UTF-8.
    """
    marked = encoding_of(data)
    return marked if marked != "utf-8" else encoding or marked


def as_utf8(file: BufferedReader, where: str, encoding: str | None = None) -> BufferedReader:
    """A file of text as one in UTF-8: the same, or what is in it, in memory.

    Args:
        file: it is open for reading and can seek.
        where, encoding: see :func:`decode`.

    Raises:
        DataError: see :func:`decode`.
    """
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if encoding_read(head, encoding) in ("utf-8", "utf-8-sig"):
        return file
    return io.BufferedReader(io.BytesIO(decode(file.read(), where, encoding).encode()))


def decode(data: bytes, where: str, encoding: str | None = None) -> str:
    """The text of a file, with the line ends that it has.

    Args:
        data: its bytes.
        where: what errors call it.
        encoding: None for what a byte-order mark says, else UTF-8. A mark is no part of the text.

    Raises:
        DataError: it is no text, or in another encoding; line and column are named.
    """
    if what := what_packed(data):
        raise DataError(f"{where}: is {what}", code="not-text", file=where)
    name = encoding_read(data, encoding)
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        line, fault = undecodable(error, name, encoding or "UTF-8")
        raise DataError(
            f"{where}:{line + 1}: {fault}",
            code="unreadable-text",
            file=where,
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{where}:{line}: holds NUL characters, as UTF-16 without a byte-order mark does; say which "
            "encoding it is in, or save it as UTF-8",
            code="unreadable-text",
            file=where,
        )
    return text


def undecodable(
    error: UnicodeDecodeError, name: str = "utf-8", shown: str = "UTF-8"
) -> tuple[int, str]:
    """Where bytes cannot be decoded, and what to do.

    Args:
        error: what decoding them came to.
        name: of the encoding, as Python names it.
        shown: the encoding that they should be in, for people.

    Returns:
        The lines before it, and a sentence that names the column.
    """
    before = error.object[: error.start].decode(name, errors="replace")
    column = len(before) - (before.rfind("\n") + 1) + 1
    return before.count("\n"), (
        f"column {column} cannot be read as {shown} text ({name}: {error.reason}); say which "
        "encoding it is in, or save it as UTF-8"
    )
