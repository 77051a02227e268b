"""Lines of a file in UTF-8, in bounded memory."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

from centra.errors import DataError

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["LARGEST_ROW", "Line", "LineFile", "fault_of"]

LARGEST_ROW = 4 * 2**20
"""Bytes of a row; a longer one is passed over, and is an error."""

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive, or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
}


class Line(NamedTuple):
    """A line of a file."""

    offset: int
    """Where it begins, in bytes."""
    number: int
    """From 1."""
    data: bytes | None
    """With its line end, if it has one; None where it is longer than :data:`LARGEST_ROW`."""


class LineFile:
    """A file of lines that is read from any line on."""

    def __init__(self, file: BufferedReader, name: str) -> None:
        """Look at how it begins.

        Raises:
            DataError: it is no text in UTF-8.
        """
        self._file = file
        file.seek(0)
        head = file.read(16)
        for mark, what in _MARKS.items():
            if head.startswith(mark):
                raise DataError(f"{name}: is {what}; expected text in UTF-8")
        if b"\0" in head[:4]:
            raise DataError(
                f"{name}: holds NUL characters, as UTF-16 without a byte-order mark does; expected "
                "text in UTF-8"
            )
        self.mark = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
        """The byte-order mark that it begins with, if it has one."""
        self.go_to(len(self.mark), 0)

    def go_to(self, offset: int, number: int) -> None:
        """Go on elsewhere.

        Args:
            offset: in bytes, where a line begins.
            number: how many lines are before it.
        """
        self._file.seek(offset)
        self.offset = offset
        self.number = number

    def next(self) -> Line | None:
        """The next line; None at the end."""
        data = self._file.readline(LARGEST_ROW + 1)
        if not data:
            return None
        size, part = len(data), data
        while len(part) >= LARGEST_ROW and not part.endswith(b"\n"):
            part = self._file.readline(LARGEST_ROW)
            size += len(part)
        line = Line(self.offset, self.number + 1, data if size <= LARGEST_ROW else None)
        self.offset += size
        self.number += 1
        return line


def fault_of(data: bytes | None) -> str | None:
    """Why a row is no text; None where it is."""
    if data is None:
        return f"is longer than {LARGEST_ROW:,} bytes"
    if b"\0" in data:
        return "holds NUL characters"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"cannot be read as UTF-8 text ({error.reason} at byte {error.start + 1})"
    return None
