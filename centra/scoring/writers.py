"""Files of answers: an input's rows as they were given, and beside each what was answered.

What a writer makes of one chunk does not depend on any other, so that a file is its head and its
chunks one after the other, whoever made them and when; and ends with one more step.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

from centra.data.csv_rows import CsvReader, csv_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.readers import Reader, Rows
    from centra.kinds.base import ColumnType
    from centra.scoring.answers import AnswerColumns

__all__ = ["Writer", "make_writer"]


class Writer(Protocol):
    """Makes the bytes of a file of answers."""

    whole: ClassVar[bool]
    """Whether the head and the chunks, one after the other, are the file already."""

    def head(self) -> bytes:
        """What comes before the first chunk."""

    def encode(self, rows: Rows, cells: Sequence[Sequence[Any]]) -> bytes:
        """A chunk.

        Args:
            rows: as they were read.
            cells: of each row what :meth:`centra.scoring.answers.AnswerColumns.cells` gives.
        """

    def finish(self, source: BinaryIO, target: BinaryIO) -> None:
        """Make the file.

        Args:
            source: the head and all chunks in their order.
            target: gets the file, from its beginning to its end.
        """


def make_writer(reader: Reader, columns: AnswerColumns) -> Writer:
    """What writes the answers to a file in the file's own format.

    Args:
        reader: of the file.
        columns: those that its rows get.
    """
    if isinstance(reader, CsvReader):
        return _CsvWriter(reader, columns)
    # Only who reads Parquet has the libraries for it.
    from centra.data.json_rows import JsonReader

    if isinstance(reader, JsonReader):
        return _JsonWriter(columns)
    from centra.data.parquet import ParquetReader
    from centra.scoring.parquet import ParquetWriter

    assert isinstance(reader, ParquetReader)
    return ParquetWriter(reader.schema, columns)


class _TextWriter:
    """A writer of a format in which the chunks one after the other are the file."""

    whole: ClassVar[bool] = True

    def finish(self, source: BinaryIO, target: BinaryIO) -> None:
        """Copy it."""
        shutil.copyfileobj(source, target, 2**20)


class _JsonWriter(_TextWriter):
    """Adds keys at the end of each object."""

    def __init__(self, columns: AnswerColumns) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, rows: Rows, cells: Sequence[Sequence[Any]]) -> bytes:
        """Lines."""
        lines = []
        for given, row in zip(rows.given, cells, strict=True):
            added = json.dumps(dict(zip(self._columns.names, row, strict=True)), ensure_ascii=False)
            kept = given[:-1].rstrip()
            comma = b"" if kept == b"{" else b", "
            lines.append(kept + comma + added[1:].encode() + b"\n")
        return b"".join(lines)


class _CsvWriter(_TextWriter):
    """Adds cells at the end of each row; lists and objects as JSON."""

    def __init__(self, reader: CsvReader, columns: AnswerColumns) -> None:
        self._columns = columns
        self._header = reader.header
        self._delimiter = reader.delimiter
        self._line_end = reader.line_end.encode()

    def head(self) -> bytes:
        """The names of the columns."""
        return self._line(self._header, self._columns.names)

    def encode(self, rows: Rows, cells: Sequence[Sequence[Any]]) -> bytes:
        """Rows."""
        kinds = [*self._columns.types.values()]
        return b"".join(
            self._line(given, [_cell(*pair) for pair in zip(kinds, row, strict=True)])
            for given, row in zip(rows.given, cells, strict=True)
        )

    def _line(self, given: bytes, added: Sequence[str]) -> bytes:
        cells = csv_line(added, self._delimiter)
        return b"".join((given, self._delimiter.encode(), cells, self._line_end))


def _cell(kind: ColumnType, value: Any) -> str:
    if value is None:
        return ""
    if kind in ("text", "number", "count"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
