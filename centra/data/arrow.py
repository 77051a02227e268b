"""Arrow files, by pyarrow: streams, as ``datasets`` saves them, and files that can be read from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from centra.data import parquet
from centra.data.parquet import ParquetReader, pyarrow_modules
from centra.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

__all__ = ["ArrowReader"]

_FILE = b"ARROW1"


class ArrowReader(ParquetReader):
    """An Arrow file: rows go on with their columns' types, into Parquet."""

    format: ClassVar[str] = "Arrow"

    def _open(self, file: BinaryIO) -> Any:
        self._source = file
        self._is_stream = file.read(len(_FILE)) != _FILE
        return self._begun().schema

    def _begun(self) -> Any:
        pa, _ = pyarrow_modules()
        self._source.seek(0)
        return (pa.ipc.open_stream if self._is_stream else pa.ipc.open_file)(self._source)

    def _read_by(self, rows: int) -> int:  # noqa: ARG002 - how many there are is not known
        return self._source.tell()

    def _units(self, skipped: int) -> Iterator[pa.RecordBatch]:
        pa, _ = pyarrow_modules()
        try:
            for batch in self._batches():
                rows = parquet.UNIT_ROWS
                for start in range(min(skipped, len(batch)), len(batch), rows):
                    yield batch.slice(start, rows)
                skipped -= min(skipped, len(batch))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{self._name}: cannot be read ({first_line(error)})") from error

    def _batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._begun()
        if self._is_stream:
            yield from reader
        else:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
