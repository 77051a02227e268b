"""The text of files in any encoding; what cannot be read is named by line and column."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING

from centra.errors import DataError

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["as_utf8", "decode"]

_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = {
    b"\x1f\x8b": "compressed by gzip: unpack it with gunzip",
    b"BZh": "compressed by bzip2: unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it with unzstd",
    b"PK\x03\x04": "a zip archive, or a spreadsheet: save it as CSV",
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"SQLite format 3": "an SQLite database: write its rows as CSV",
}


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
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if (marked or encoding or "utf-8") in ("utf-8", "utf-8-sig"):
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
    for mark, what in _PACKED.items():
        if data.startswith(mark):
            raise DataError(f"{where}: is {what}", code="not-text", file=where)
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    name = marked or encoding or "utf-8"
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(name, errors="replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise DataError(
            f"{where}:{line}: column {column} cannot be read as {encoding or 'UTF-8'} text "
            f"({name}: {error.reason}); say which "
            "encoding it is in, or save it as UTF-8",
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
