"""Answers beside the rows of a Parquet file, by pyarrow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from centra.data.parquet import pyarrow_modules

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from centra.data.readers import Rows
    from centra.kinds.base import ColumnType
    from centra.scoring.answers import AnswerColumns

__all__ = ["ParquetWriter"]

_GROUP_ROWS, _GROUP_BYTES = 16_384, 8 * 2**20
"""A row group of an output ends with the chunk that takes it to so many rows or bytes."""
_LENGTH = 8
"""Bytes of the number that says how long what follows is."""


class ParquetWriter:
    """Writes answers beside the rows of a Parquet file.

    Until all are there each chunk is a stream of Arrow by itself, with its length before it; nothing
    can be added to a Parquet file that has been ended.
    """

    whole: ClassVar[bool] = False

    def __init__(self, schema: pa.Schema, columns: AnswerColumns) -> None:
        pa, _ = pyarrow_modules()
        self._columns = columns
        fields = [pa.field(name, _arrow_type(kind)) for name, kind in columns.types.items()]
        self.schema: Any = pa.schema([*schema, *fields], metadata=schema.metadata)

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, rows: Rows, cells: Sequence[Sequence[Any]]) -> bytes:
        """A chunk; see :class:`centra.scoring.writers.Writer`."""
        pa, _ = pyarrow_modules()
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
        pa, parquet = pyarrow_modules()
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
    pa, _ = pyarrow_modules()
    table = pa.concat_tables(tables).unify_dictionaries()
    writer.write_table(table, row_group_size=max(1, len(table)))


def _arrow_type(kind: ColumnType) -> Any:
    pa, _ = pyarrow_modules()
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
