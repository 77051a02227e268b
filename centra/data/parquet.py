"""Parquet, by pyarrow: tables whose columns have types."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from centra.data.readers import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    FIELDS,
    Position,
    Rows,
    check_columns,
    json_value,
    other_columns,
    parse_fields,
)
from centra.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa


__all__ = ["UNIT_ROWS", "ParquetReader", "pyarrow_modules"]

UNIT_ROWS = 256
"""Rows that are read at once; chunks are made of whole units."""


class ParquetReader:
    """A Parquet file: rows go on with their columns' types."""

    format: ClassVar[str] = "Parquet"
    """For people."""

    def __init__(
        self, file: BinaryIO, name: str, named: Mapping[str, str], reserved: Sequence[str]
    ) -> None:
        """Open it; see :func:`centra.data.readers.open_reader`.

        Raises:
            DataError: it is no Parquet file, or a column is of another type than texts.
        """
        pa, _ = pyarrow_modules()
        file.seek(0, io.SEEK_END)
        self._size = file.tell()
        file.seek(0)
        try:
            self.schema: Any = self._open(file)
            self.columns: list[str] = list(self.schema.names)
        # A name that is no UTF-8 is a ValueError.
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{name}: is no {self.format} file ({_line(error)})") from error
        self._name = name
        check_columns(name, self.columns, named, reserved)
        self.named = {field: c for field, c in named.items() if c in self.columns}
        for field, column in self.named.items():
            if field in FIELDS:
                self._check_type(field, column)
        self._others = [
            column
            for column in other_columns(self.columns, named)
            if _is_plain(self.schema.field(self.columns.index(column)).type)
        ]
        self.start = Position(offset=0, line=0)

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """See :class:`centra.data.readers.Reader`."""
        pa, _ = pyarrow_modules()
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

    def values(self) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
        """See :class:`centra.data.readers.Reader`; of other columns those of texts and numbers."""
        pa, _ = pyarrow_modules()
        done = 0
        for unit in self._units(0):
            table = pa.Table.from_batches([unit])
            others = {column: _plain(table.column(column)) for column in self._others}
            for i, (place, fields) in enumerate(self._fields(table, done)):
                if isinstance(fields, str):
                    yield place, DataError(fields, code="unreadable-text")
                else:
                    yield place, {**fields, **{c: json_value(v[i]) for c, v in others.items()}}
            done += len(unit)

    def _open(self, file: BinaryIO) -> Any:
        """Open the file; gives its schema."""
        _, parquet = pyarrow_modules()
        # Pages are read as they are needed, and not whole row groups.
        self._file = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
        return self._file.schema_arrow

    def _read_by(self, rows: int) -> int:
        """How many bytes were read by the end of so many rows."""
        share: float = rows / max(1, self._file.metadata.num_rows)
        return round(self._size * share)

    def _units(self, skipped: int) -> Iterator[pa.RecordBatch]:
        """The rows after some, so many at once, from the beginning of each row group."""
        pa, _ = pyarrow_modules()
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if skipped >= rows:
                skipped -= rows
                continue
            try:
                for batch in self._file.iter_batches(UNIT_ROWS, row_groups=[group]):
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
        found = [*self._fields(table, done)]
        places = [where for where, _ in found]
        inputs = [
            fields if isinstance(fields, str) else parse_fields(fields, where)
            for where, fields in found
        ]
        end = Position(offset=done + count, line=done + count)
        read = self._read_by(end.offset)
        return Rows(inputs=inputs, given=table, places=places, end=end, bytes_read=read)

    def _fields(self, table: pa.Table, done: int) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """What errors call each row, and by field what it has."""
        values = {f: _plain(table.column(c)) for f, c in self.named.items()}
        for i in range(len(table)):
            where = f"{self._name}: row {done + i + 1}"
            fields = {field: column[i] for field, column in values.items()}
            broken = any(isinstance(value, bytes) for value in fields.values())
            yield where, f"{where}: cannot be read as UTF-8 text" if broken else fields

    def _check_type(self, field: str, column: str) -> None:
        pa, _ = pyarrow_modules()
        found = self.schema.field(column).type
        inner = found.value_type if pa.types.is_dictionary(found) else found
        if field == "tokens":
            lists = pa.types.is_list(inner) or pa.types.is_large_list(inner)
            fits, expected = lists and _is_text(inner.value_type), "lists of strings"
        else:
            fits, expected = _is_text(inner), "strings"
        if not fits:
            raise DataError(f"{self._name}: column {column!r} is {found}; expected {expected}")


def pyarrow_modules() -> tuple[Any, Any]:
    """pyarrow, and its module for Parquet.

    Raises:
        UsageError: they are not installed.
    """
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


def _is_plain(found: Any) -> bool:
    """Whether a type is one of texts, numbers, or yes and no."""
    pa, _ = pyarrow_modules()
    types = pa.types
    inner = found.value_type if types.is_dictionary(found) else found
    numbers = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    return bool(numbers or _is_text(inner))


def _is_text(found: Any) -> bool:
    pa, _ = pyarrow_modules()
    types = pa.types
    return bool(
        types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
    )


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
