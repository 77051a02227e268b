"""Comma-separated values, and those that tabs or semicolons separate."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, Literal

from centra.data.glue import glue_layout
from centra.data.lines import LARGEST_ROW, LineFile, fault_of
from centra.data.readers import (
    TORN_ROW,
    Position,
    check_columns,
    chunks_of_lines,
    other_columns,
    parse_fields,
)
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BufferedReader

    from centra.data.inputs import Input
    from centra.data.readers import Rows

__all__ = ["CsvReader", "csv_line"]

_DELIMITERS = (",", ";", "\t", "|")
_PART_OF_NAMES = "_-. \"'"
"""What a column's name may have besides letters and digits."""


class CsvReader:
    """A table as text: the first row names the columns.

    A row goes on as it was written, byte for byte. Of one that is not as CSV should be goes on what
    can be read of its first line. An empty cell is no text. Cells hold no lists, so that a column
    ``tokens`` is like any other.
    """

    def __init__(
        self,
        file: BufferedReader,
        name: str,
        named: Mapping[str, str],
        reserved: Sequence[str],
        *,
        delimiter: str,
        labelled: bool = False,
    ) -> None:
        """Open it; see :func:`centra.data.readers.open_reader`.

        Args:
            file, name, named, reserved: as there.
            delimiter: what most probably separates cells.
            labelled: whether its rows are examples. Then a row may have ``tokens``, and columns may
                be given by their numbers where the first row names none.
        """
        # A limit of the process, which is lower; no row of a file has more.
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST_ROW))
        self._lines = LineFile(file, name)
        self._name = name
        header = self._lines.next()
        data = b"" if header is None else header.data
        if (fault := fault_of(data)) is not None or data is None:
            raise DataError(f"{name}:1: {fault}; expected the names of the columns")
        if not data.strip():
            raise DataError(f"{name}:1: is empty; expected the names of the columns")
        self.line_end = "\r\n" if data.endswith(b"\r\n") else "\n"
        text = data.decode()
        self._quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
        self.delimiter, self.columns = _header(text, named, delimiter)
        headerless = labelled and _are_numbers(named, self.columns)
        layout = glue_layout(text, self.columns, named) if delimiter == "\t" else None
        # A few rows of QQP are torn as they come.
        self._is_glue = layout is not None
        if layout is not None:
            # The files of GLUE have tabs and quotation marks as they come.
            self.delimiter, self.columns = "\t", text.rstrip("\r\n").split("\t")
            self._quoting = csv.QUOTE_NONE
            named = {**named, **layout}
            headerless = _are_numbers(named, self.columns)
        if headerless and not labelled:
            raise DataError(f"{name}:1: is a row; expected the names of the columns")
        if headerless:
            self.columns = [str(number) for number in range(1, len(self.columns) + 1)]
        try:
            next(self._reader(iter([text.rstrip("\r\n")])))
        except csv.Error as error:  # What the answers add would not be part of it.
            fault = f"not CSV ({error})"
            if "\r" in text.rstrip("\r\n"):
                fault = "its lines end in carriage returns alone; save it with line feeds"
            raise DataError(
                f"{name}:1: {fault}; expected the names of the columns, on one line"
            ) from error
        self.header = self._lines.mark + data.rstrip(b"\r\n")
        """The first row, with the byte-order mark that tells Excel of UTF-8."""
        self.named = named if labelled else {**named, "tokens": named["text"]}
        """By field the name of its column, in files of GLUE, too."""
        check_columns(name, self.columns, self.named, reserved)
        self._places = {
            field: self.columns.index(column)
            for field, column in named.items()
            if column in self.columns and (labelled or field != "tokens")
        }
        if headerless:
            self._lines.go_to(len(self._lines.mark), 0)
        self._others = {
            column: self.columns.index(column) for column in other_columns(self.columns, named)
        }
        self.start = Position(offset=self._lines.offset, line=self._lines.number)

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """See :class:`centra.data.readers.Reader`."""
        start = start or self.start
        self._lines.go_to(start.offset, start.line)
        yield from chunks_of_lines(self._lines, self._rows())

    def values(self) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
        """See :class:`centra.data.readers.Reader`."""
        self._lines.go_to(self.start.offset, self.start.line)
        for number, cells, data in self._records():
            place = f"{self._name}:{number}"
            yield place, self._value(cells, data, place)

    def _value(
        self, cells: list[str] | str, data: bytes | None, where: str
    ) -> dict[str, Any] | DataError:
        """What a record has, by field and by other column, or what is wrong with it."""
        if fault := fault_of(data):
            return DataError(f"{where}: {fault}", code="unreadable-text")
        mend = "mend the row, or leave it out"
        if torn := self._torn(data or b""):
            return DataError(f"{where}: {torn}", code="bad-row")
        if isinstance(cells, str):
            return DataError(f"{where}: {cells}; {mend}", code="bad-row")
        if uneven := self._uneven(cells):
            code = TORN_ROW if self._is_glue else "bad-row"
            return DataError(f"{where}: {uneven}; {mend}", code=code)
        for field, place in self._places.items() if self._is_glue else ():
            if not cells[place].strip():
                return DataError(f"{where}: column {self.named[field]!r} is empty", code=TORN_ROW)
        places = {**self._places, **self._others}
        return {name: cells[place] or None for name, place in places.items()}

    def _rows(self) -> Iterator[tuple[str, Input | str, bytes]]:
        for number, cells, data in self._records():
            place = f"{self._name}:{number}"
            found, given = self._row(cells, data, place)
            yield place, found if isinstance(found, str) else parse_fields(found, place), given

    def _torn(self, data: bytes) -> str | None:
        """Why a record of several lines is none: each of them is a row by itself.

        Texts that are quoted have line breaks and commas, but hardly ever a tab in each line.
        """
        if self.delimiter != "\t":
            return None
        lines = data.decode(errors="replace").splitlines()
        if len(lines) > 1 and all(
            len(line.split(self.delimiter)) == len(self.columns) for line in lines
        ):
            return (
                f"a quotation mark opens here and closes {len(lines) - 1} lines below, and each of these "
                "lines is a row by itself; write it twice, within quotation marks, where it is part of the text"
            )
        return None

    def _records(self) -> Iterator[tuple[int, list[str] | str, bytes | None]]:
        """Each record's first line, its cells or what is wrong with it, and its bytes."""
        record = _Record(self._lines)
        reader = self._reader(record)
        while True:
            record.begin()
            try:
                cells = next(reader, None)
            except (csv.Error, _TooLongError) as error:
                first = record.lines[0]
                # A quotation mark that nothing closes costs its own line, and no other.
                record.go_back()
                reader = self._reader(record)
                yield first.number, f"not CSV ({error})", first.data
                continue
            if cells is None:
                return
            if cells:  # A blank line has none.
                data = b"".join(line.data or b"" for line in record.lines)
                yield record.lines[0].number, cells, data

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, strict=True, quoting=self._quoting)

    def _row(
        self, cells: list[str] | str, data: bytes | None, where: str
    ) -> tuple[dict[str, str | None] | str, bytes]:
        """A record's fields or error, and what goes on of it."""
        fault = fault_of(data) or (cells if isinstance(cells, str) else None)
        if fault is None:
            fault = self._uneven(cells)
        if fault is not None or isinstance(cells, str) or data is None:
            return f"{where}: {fault}", self._mended(data)
        fields = {field: cells[place] or None for field, place in self._places.items()}
        return fields, data.rstrip(b"\r\n")

    def _uneven(self, cells: Sequence[str]) -> str | None:
        """Whether a record has another number of cells than there are columns."""
        if len(cells) == len(self.columns):
            return None
        return f"has {len(cells)} cells, and the header has {len(self.columns)}"

    def _mended(self, data: bytes | None) -> bytes:
        """A row with as many cells as the header has, of whatever can be read."""
        text = (data or b"").replace(b"\0", b"").decode(errors="backslashreplace")
        # A carriage return within a cell is none of CSV, unless it is quoted.
        cells = _cells(text, self.delimiter) or _cells(
            text.rstrip("\r\n").replace("\r", " "), self.delimiter
        )
        cells = (cells + [""] * len(self.columns))[: len(self.columns)]
        return csv_line(cells, self.delimiter)


class _TooLongError(Exception):
    """A record has no end within the bytes that are read of one."""


class _Record:
    """Lines for a reader of CSV, which takes as many as a record has."""

    def __init__(self, source: LineFile) -> None:
        self._source = source
        self.begin()

    def begin(self) -> None:
        """Let a record begin."""
        self.lines: list[_Line] = []
        self._size = 0

    def go_back(self) -> None:
        """Let the record end with its first line."""
        first = self.lines[0]
        self._source.go_to(first.end, first.number)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._source.next()
        if line is None:
            raise StopIteration
        self.lines.append(_Line(line.number, line.data, self._source.offset))
        self._size += len(line.data or b"")
        if line.data is None or self._size > LARGEST_ROW:
            raise _TooLongError(f"no end within {LARGEST_ROW:,} bytes")
        return line.data.decode(errors="surrogateescape")


class _Line:
    def __init__(self, number: int, data: bytes | None, end: int) -> None:
        self.number, self.data, self.end = number, data, end


def csv_line(cells: Sequence[str], delimiter: str) -> bytes:
    """A row of CSV, without a line end."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(cells)
    return text.getvalue().encode()


def _header(text: str, named: Mapping[str, str], usual: str) -> tuple[str, list[str]]:
    """What separates cells, and the columns.

    Spreadsheets in half of the world write semicolons. It is what makes a column of the name of the
    texts; or else what is usual, where that makes columns, and what makes the most of them.
    """
    odd = (char for char in text.rstrip("\r\n") if not (char.isalnum() or char in _PART_OF_NAMES))
    for delimiter in dict.fromkeys((usual, *_DELIMITERS, *odd)):
        names = _cells(text, delimiter)
        if {named["text"], named["tokens"]} & {*names}:
            return delimiter, names
    found = usual if len(_cells(text, usual)) > 1 else _most_cells(text)
    return found, _cells(text, found)


def _most_cells(text: str) -> str:
    return max(_DELIMITERS, key=lambda delimiter: len(_cells(text, delimiter)))


def _are_numbers(named: Mapping[str, str], columns: Sequence[str]) -> bool:
    """Whether columns are given by their numbers, and not by names that the first row has."""
    given = [column for field, column in named.items() if column != field]
    return (
        bool(given)
        and all(re.fullmatch("[1-9][0-9]{0,3}", c) for c in given)
        and not ({*given} & {*columns})
    )


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []
