"""Parquet, by pyarrow: tables whose columns have types."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from centra.errors import DataError, UsageError
from centra.scoring.readers import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Position,
    Rows,
    check_columns,
    parse_fields,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from centra.data.inputs import Input
    from centra.kinds.base import ColumnType
    from centra.scoring.answers import AnswerColumns

__all__ = ["ParquetReader", "ParquetWriter"]

_UNIT = 256
"""Rows that are read at once; chunks are made of whole units."""
_GROUP_ROWS, _GROUP_BYTES = 16_384, 8 * 2**20
"""A row group of an output ends with the chunk that takes it to so many rows or bytes."""
_LENGTH = 8
"""Bytes of the number that says how long what follows is."""


class ParquetReader:
    """A Parquet file: rows go on with their columns' types."""

    def __init__(
        self, file: BinaryIO, name: str, named: Mapping[str, str], reserved: Sequence[str]
    ) -> None:
        """Open it; see :func:`centra.scoring.readers.open_reader`.

        Raises:
            DataError: it is no Parquet file, or a column is of another type than texts.
        """
        pa, parquet = _pyarrow()
        file.seek(0, io.SEEK_END)
        self._size = file.tell()
        file.seek(0)
        try:
            # Pages are read as they are needed, and not whole row groups.
            self._file = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
            self.schema: Any = self._file.schema_arrow
            self.columns: list[str] = list(self.schema.names)
        # A name that is no UTF-8 is a ValueError.
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{name}: is no Parquet file ({_line(error)})") from error
        self._name = name
        check_columns(name, self.columns, named, reserved)
        self._named = {field: c for field, c in named.items() if c in self.columns}
        for field, column in self._named.items():
            self._check_type(field, column)
        self.start = Position(offset=0, line=0)

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """See :class:`centra.scoring.readers.Reader`."""
        pa, _ = _pyarrow()
        done = (start or self.start).offset
        waiting: list[Any] = []
        for unit in self._units(done):
            waiting.append(unit)
            rows = sum(len(batch) for batch in waiting)
            if rows >= CHUNK_ROWS or sum(batch.nbytes for batch in waiting) >= CHUNK_BYTES:
                yield self._chunk(pa.Table.from_batches(waiting), done)
                done += rows
                waiting = []
        if waiting:
            yield self._chunk(pa.Table.from_batches(waiting), done)

    def _units(self, skipped: int) -> Iterator[pa.RecordBatch]:
        """The rows after some, so many at once, from the beginning of each row group."""
        pa, _ = _pyarrow()
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if skipped >= rows:
                skipped -= rows
                continue
            try:
                for batch in self._file.iter_batches(_UNIT, row_groups=[group]):
                    if skipped >= len(batch):
                        skipped -= len(batch)
                    else:
                        yield batch.slice(skipped)
                        skipped = 0
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataError(
                    f"{self._name}: row group {group} cannot be read ({_line(error)})"
                ) from error

    def _chunk(self, table: pa.Table, done: int) -> Rows:
        count = len(table)
        places = [f"{self._name}: row {done + i + 1}" for i in range(count)]
        values = {f: _plain(table.column(c)) for f, c in self._named.items()}
        inputs: list[Input | str] = [
            parse_fields({field: column[i] for field, column in values.items()}, where)
            if all(not isinstance(column[i], bytes) for column in values.values())
            else f"{where}: cannot be read as UTF-8 text"
            for i, where in enumerate(places)
        ]
        end = Position(offset=done + count, line=done + count)
        share = end.offset / max(1, self._file.metadata.num_rows)
        read = round(self._size * share)
        return Rows(inputs=inputs, given=table, places=places, end=end, bytes_read=read)

    def _check_type(self, field: str, column: str) -> None:
        pa, _ = _pyarrow()
        found = self.schema.field(column).type
        inner = found.value_type if pa.types.is_dictionary(found) else found
        if field == "tokens":
            lists = pa.types.is_list(inner) or pa.types.is_large_list(inner)
            fits, expected = lists and _is_text(inner.value_type), "lists of strings"
        else:
            fits, expected = _is_text(inner), "strings"
        if not fits:
            raise DataError(f"{self._name}: column {column!r} is {found}; expected {expected}")


class ParquetWriter:
    """Writes answers beside the rows of a Parquet file.

    Until all are there each chunk is a stream of Arrow by itself, with its length before it; nothing
    can be added to a Parquet file that has been ended.
    """

    whole: ClassVar[bool] = False

    def __init__(self, schema: pa.Schema, columns: AnswerColumns) -> None:
        pa, _ = _pyarrow()
        self._columns = columns
        fields = [pa.field(name, _arrow_type(kind)) for name, kind in columns.types.items()]
        self.schema: Any = pa.schema([*schema, *fields], metadata=schema.metadata)

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, rows: Rows, cells: Sequence[Sequence[Any]]) -> bytes:
        """A chunk; see :class:`centra.scoring.writers.Writer`."""
        pa, _ = _pyarrow()
        by_column = zip(*cells, strict=True)
        arrays = [
            pa.array([_cell(kind, value) for value in values], _arrow_type(kind))
            for kind, values in zip(self._columns.types.values(), by_column, strict=True)
        ]
        chunks = [*rows.given.columns, *arrays]
        table = pa.Table.from_arrays(chunks, schema=self.schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as stream:
            stream.write_table(table.combine_chunks())
        data: bytes = sink.getvalue().to_pybytes()
        return len(data).to_bytes(_LENGTH, "little") + data

    def finish(self, source: BinaryIO, target: BinaryIO) -> None:
        """Make a Parquet file of chunks that follow each other; holds one row group at a time."""
        pa, parquet = _pyarrow()
        waiting: list[Any] = []
        with parquet.ParquetWriter(target, self.schema) as writer:
            while head := source.read(_LENGTH):
                data = source.read(int.from_bytes(head, "little"))
                waiting.append(pa.ipc.open_stream(data).read_all())
                rows = sum(len(table) for table in waiting)
                if rows >= _GROUP_ROWS or sum(t.nbytes for t in waiting) >= _GROUP_BYTES:
                    _write_group(writer, waiting)
                    waiting = []
            if waiting:
                _write_group(writer, waiting)


def _write_group(writer: Any, tables: list[pa.Table]) -> None:
    pa, _ = _pyarrow()
    table = pa.concat_tables(tables).unify_dictionaries()
    writer.write_table(table, row_group_size=max(1, len(table)))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed: pip install 'centra[files]'",
            code="extra-missing",
            extra="files",
        ) from error
    return pa, parquet


def _plain(column: Any) -> list[Any]:
    """A column's values; bytes stand for one that is no UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value(cell) for cell in column]
    return values


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return b""


def _is_text(found: Any) -> bool:
    pa, _ = _pyarrow()
    types = pa.types
    return bool(
        types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
    )


def _arrow_type(kind: ColumnType) -> Any:
    pa, _ = _pyarrow()
    span = {
        "label": pa.string(),
        "text": pa.string(),
        "start": pa.int64(),
        "end": pa.int64(),
        "words": pa.list_(pa.int64()),
        "score": pa.float64(),
    }
    return {
        "text": pa.string(),
        "json": pa.string(),
        "number": pa.float64(),
        "count": pa.int64(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
        "spans": pa.list_(pa.struct(list(span.items()))),
    }[kind]


def _cell(kind: ColumnType, value: Any) -> Any:
    if kind == "json" and value is not None:
        return json.dumps(value, ensure_ascii=False)
    return value


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
