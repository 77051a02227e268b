"""Files of inputs, read in bounded chunks: their rows as they are given, and the input of each.

A row that cannot be read, or is no input, is a text that says so, and the rows after it go on. What
holds for the whole file is refused when it is opened: another encoding, no column with texts, a
column that the answers would need.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from centra.data.conll import conll_rows
from centra.data.content import read_content
from centra.data.encodings import as_utf8, decode
from centra.data.formats import format_of
from centra.data.inputs import Input
from centra.data.json_document import is_json_document, json_items
from centra.data.source import DATA_FIELDS
from centra.errors import ConflictError, DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from centra.data.formats import FileFormat
    from centra.data.lines import LineFile

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_ROWS",
    "FIELDS",
    "TORN_ROW",
    "Position",
    "Reader",
    "Rows",
    "check_columns",
    "chunks_of_lines",
    "json_value",
    "open_reader",
    "other_columns",
    "parse_fields",
    "read_inputs",
]

TORN_ROW = "torn-row"
"""The code of a row of GLUE that its makers have torn: without its error it is left out."""
CHUNK_ROWS = 512
"""Rows of a chunk."""
CHUNK_BYTES = 4 * 2**20
"""A chunk ends with the row that takes it beyond so many bytes."""
FIELDS = ("text", "text_pair", "tokens")
"""What makes an input; each is a column of this name, where no other is named."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place between two rows of a file, from which reading can go on."""

    offset: int
    """Bytes before it; in Parquet rows."""
    line: int
    """Lines before it; in Parquet rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Some rows that follow each other in a file."""

    inputs: Sequence[Input | str]
    """Of each row its input, or what is wrong with the row; the text names file and line."""
    places: Sequence[str]
    """What errors call each row: ``calls.csv:17``."""
    given: Any
    """The rows as they were given: of text formats a list of bytes, without line ends; of Parquet a
    table."""
    end: Position
    """After the last of them."""
    bytes_read: int
    """How much of the file was read by then."""

    def __len__(self) -> int:
        return len(self.inputs)


class Reader(Protocol):
    """A file that has been opened and found readable."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns, in their order; of JSONL the keys of the first rows."""

    @property
    def named(self) -> Mapping[str, str]:
        """By field the name of its column, whether the file has it or not."""

    @property
    def start(self) -> Position:
        """Before the first row."""

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """The rows from a position on, by default from the first, in chunks.

        From the end of a chunk the same chunks follow as would have without a break.
        """

    def values(self) -> Iterator[tuple[str, Any]]:
        """Of each row what errors call it, and what it has by field, and by column beyond those.

        Instead of a row that cannot be read comes its :class:`centra.errors.DataError`. Of JSON lines
        it is the value that stands there, whose keys are columns.
        """


def open_reader(
    file: BinaryIO,
    form: FileFormat,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    reserved: Sequence[str] = (),
    labelled: bool = False,
    encoding: str | None = None,
) -> Reader:
    """Open a file of inputs.

    Args:
        file: it is open for reading and can seek: a file of Python, or of a file system of pyarrow.
        form: its format.
        name: what errors call it.
        columns: the column of a field (see :data:`FIELDS`), where it has another name.
        reserved: the columns that the answers will have.
        labelled: whether its rows are examples, which have the fields of
            :data:`centra.data.source.DATA_FIELDS`.
        encoding: of text; see :func:`centra.data.encodings.decode`. A file in another than UTF-8, one
            JSON document and CoNLL are read into memory.

    Raises:
        DataError: the file is in another encoding, has no column of texts, or is no such file.
        ConflictError: it has a column that the answers will have.
        UsageError: ``columns`` names another field.
    """
    known = DATA_FIELDS if labelled else FIELDS
    unknown = {*(columns or {})} - {*known}
    if unknown:
        raise UsageError(
            f"{min(unknown)!r} is no field of an input; expected one of {', '.join(known)}",
            code="unknown-field",
        )
    named: Mapping[str, str] = {field: (columns or {}).get(field, field) for field in known}
    if form == "parquet":
        from centra.data.parquet import ParquetReader

        return ParquetReader(file, name, named, reserved)
    if form == "arrow":
        from centra.data.arrow import ArrowReader

        return ArrowReader(file, name, named, reserved)
    # pyarrow's files have no lines.
    lines: Any = (
        file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("Any", file))
    )
    lines = as_utf8(lines, name, encoding)
    if form in ("json", "conll", "conllu"):
        lines, named = _as_json_lines(lines.read(), form, name, named)
    if form in ("csv", "tsv"):
        from centra.data.csv_rows import CsvReader

        return CsvReader(
            lines,
            name,
            named,
            reserved,
            delimiter="\t" if form == "tsv" else ",",
            labelled=labelled,
        )
    from centra.data.json_rows import JsonReader

    return JsonReader(lines, name, named, reserved, plain=form == "txt", labelled=labelled)


def read_inputs(file: Path) -> list[Any]:
    """The inputs of a file as they stand there: texts, or objects with :data:`FIELDS` and other keys.

    Args:
        file: in a format that its suffix says; JSON lines where it has none.

    Raises:
        DataError: a row cannot be read, or the file is none of inputs; or there is no such file.
        UsageError: its suffix stands for no format that is read.
    """
    form = format_of(file.name) if file.suffix else "jsonl"
    reader = open_reader(io.BytesIO(read_content(file, "expected inputs")), form, str(file))
    found = []
    for _, value in reader.values():
        if isinstance(value, DataError):
            raise value
        is_row = isinstance(value, dict)
        found.append({k: v for k, v in value.items() if v is not None} if is_row else value)
    return found


def _as_json_lines(
    data: bytes, form: FileFormat, name: str, named: Mapping[str, str]
) -> tuple[Any, Mapping[str, str]]:
    """A file as JSON lines, each on the line that its row begins on where there is room."""
    text = decode(data, name)
    rows: Iterable[tuple[str, Any]]
    if form == "json":
        if text.lstrip()[:1] != "[" and not is_json_document(text):
            return io.BufferedReader(io.BytesIO(text.encode())), named
        rows = json_items(name, text)
    else:
        given = {field: c for field, c in named.items() if c != field}
        rows = conll_rows(text, name, given, universal=form == "conllu")
        named = {field: field for field in named}
    lines, number = io.BytesIO(), 1
    for place, fields in rows:
        if isinstance(fields, DataError):
            raise fields
        line = int(place.rpartition(":")[2])
        lines.write(b"\n" * (line - number))
        # Half of a character, which JSON can name and UTF-8 cannot, stays as it is named.
        row = json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace")
        lines.write(row + b"\n")
        number = max(line, number) + 1
    return io.BufferedReader(lines), named


def chunks_of_lines(
    lines: LineFile, rows: Iterable[tuple[str, Input | str, bytes]]
) -> Iterator[Rows]:
    """The chunks of a file of lines, from where it stands.

    Args:
        lines: the file, which is read by who iterates over the rows and no further than that.
        rows: what errors call each row, its input or what is wrong with it, and the row as given.
    """
    inputs: list[Input | str] = []
    given: list[bytes] = []
    places: list[str] = []

    def chunk() -> Rows:
        end = Position(offset=lines.offset, line=lines.number)
        return Rows(inputs=inputs, given=given, places=places, end=end, bytes_read=end.offset)

    begun = lines.offset
    for place, value, row in rows:
        places.append(place)
        inputs.append(value)
        given.append(row)
        if len(inputs) >= CHUNK_ROWS or lines.offset - begun >= CHUNK_BYTES:
            yield chunk()
            inputs, given, places, begun = [], [], [], lines.offset
    if inputs:
        yield chunk()


def check_columns(
    name: str, columns: Sequence[str], named: Mapping[str, str], reserved: Sequence[str]
) -> None:
    """Refuse a file for its columns.

    Args:
        name: the file's.
        columns: those that it has.
        named, reserved: see :func:`open_reader`.

    Raises:
        DataError: there is no text, or two columns of one name could be it.
        ConflictError: a column is also one of the answers.
    """
    shown = ", ".join(columns[:10]) + (" …" if len(columns) > 10 else "")
    for field, column in named.items():
        if column != field and column not in columns:
            raise DataError(f"{name}: has no column {column!r}; it has {shown or 'none'}")
        if columns.count(column) > 1:
            raise DataError(f"{name}: has two columns {column!r}")
    wanted = dict.fromkeys((named["text"], named["tokens"]))
    if not wanted.keys() & {*columns}:
        raise DataError(
            f"{name}: has no column {', nor '.join(map(repr, wanted))}; it has {shown or 'none'}",
            code="no-text-column",
            file=name,
        )
    taken = [column for column in columns if column in {*reserved}]
    if taken:
        raise ConflictError(
            f"{name}: has a column {taken[0]!r}, which the answers have, too; rename it or leave it "
            "out",
            code="column-taken",
            file=name,
            columns=taken,
        )


def other_columns(columns: Iterable[str], named: Mapping[str, str]) -> list[str]:
    """The columns of a file that are of no field, and have no field's name.

    Args:
        columns: all.
        named: see :func:`open_reader`.
    """
    taken = {*DATA_FIELDS, *named.values(), ""}
    return [column for column in columns if column not in taken]


def json_value(value: Any) -> Any:
    """A text or number that JSON has, too; None of others, such as the NaN that pandas has for nothing."""
    broken = isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value))
    return None if broken else value


def parse_fields(fields: Mapping[str, Any], where: str) -> Input | str:
    """A row's input, or what is wrong with it.

    Args:
        fields: by field what the row has in its column; None counts as nothing.
        where: what to call the row.
    """
    found = {field: value for field, value in fields.items() if value is not None}
    if not {"text", "tokens"} & found.keys():
        return f"{where}: has no text"
    try:
        return Input.parse(found, where)
    except DataError as error:
        return str(error)
