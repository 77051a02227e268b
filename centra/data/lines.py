"""Lines of a file in UTF-8, in bounded memory."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

from centra.data.encodings import undecodable, what_packed
from centra.errors import DataError

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["LARGEST_ROW", "Line", "LineFile", "fault_of"]

LARGEST_ROW = 4 * 2**20
"""Bytes of a row; a longer one is passed over, and is an error."""


_NUL = "holds NUL characters, as UTF-16 without a byte-order mark does"


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

    def __init__(
        self, file: BufferedReader, name: str, expected: str = "expected text in UTF-8"
    ) -> None:
        """Look at how it begins.

        Args:
            file: it is open for reading and can seek; see :func:`centra.data.encodings.as_utf8`.
            name: what errors call it.
            expected: what errors say should be there.

        Raises:
            DataError: it is no text in UTF-8.
        """
        self._file = file
        file.seek(0)
        head = file.read(16)
        if what := what_packed(head):
            raise DataError(f"{name}: is {what}; {expected}", code="not-text", file=name)
        if b"\0" in head[:4]:
            raise DataError(
                f"{name}:1: {_NUL}; {expected}",
                code="unreadable-text",
                file=name,
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
        below, fault = undecodable(error)
        return f"{f'{below} lines below, ' if below else ''}{fault}"
    return None
