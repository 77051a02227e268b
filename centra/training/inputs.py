"""What runs read, where every machine that carries them out has it.

Of a work folder in a bucket the data, the teacher and the backbone lie there as blobs, under
``inputs``. Whoever needs one has it of its machine's cache, which asks for it once and checks it
against its digest.
"""

from __future__ import annotations

import json
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.data.inputs import examples_of
from centra.data.rows import PartRows, content_rows, read_part
from centra.data.source import DATA_FIELDS, DataSource
from centra.errors import StoreNotWritableError, UsageError
from centra.store import LocalStore, open_store
from centra.system.files import make_folder, replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.data.source import Part
    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.store import BlobReader, BlobStore
    from centra.store.s3.path import S3Path

__all__ = [
    "DATA_FILES",
    "Blob",
    "DataBlobs",
    "check_mark",
    "input_store",
    "mark_folder",
    "read_split",
    "shared_inputs",
]

DATA_FILES = ("train.jsonl", "dev.jsonl")
"""The parts of data as blobs."""
_MARK = ".shared"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A file by its digest."""

    reader: BlobReader
    digest: Digest

    def fetch(self) -> Path:
        """The file, on this machine; see :meth:`centra.store.BlobReader.fetch`."""
        return self.reader.fetch(self.digest)


@dataclass(frozen=True, kw_only=True)
class DataBlobs:
    """A task's data as they were when they were read first."""

    folder: Path | S3Path | DataSource
    """Where they came from, for people."""
    blobs: Mapping[str, Blob]
    """By their names in it."""


def mark_folder(folder: Path) -> str:
    """Leave in a folder what tells whether another machine has the same; see :func:`check_mark`.

    Raises:
        StoreNotWritableError: it cannot be written.
    """
    mark = folder / _MARK
    try:
        make_folder(folder)
        if not mark.is_file():
            with replacing(mark) as temporary:
                temporary.write_text(uuid.uuid4().hex, encoding="ascii")
        return mark.read_text(encoding="ascii")
    except OSError as error:
        raise StoreNotWritableError(
            f"cannot write {folder}: {error.strerror}", code="folder-not-writable"
        ) from error


def check_mark(folder: Path, expected: str) -> None:
    """Refuse to write into a folder of this machine what another one would look for in its own.

    Args:
        folder: on this machine.
        expected: what :func:`mark_folder` gave on the other.

    Raises:
        UsageError: they are not the same.
    """
    try:
        found = (folder / _MARK).read_text(encoding="ascii")
    except (OSError, ValueError):
        found = None
    if found != expected:
        raise UsageError(
            f"{folder} is not the same folder on {socket.gethostname()} as where this was begun: "
            "machines that train together need one that they share, or s3://BUCKET/KEY",
            code="output-not-shared",
        )


def input_store(work: Path | S3Path) -> BlobStore:
    """The store of what the runs below a work folder read."""
    inputs = work / "inputs"
    return LocalStore(inputs) if isinstance(inputs, Path) else open_store(inputs.url)


def read_split(data: Path | S3Path | DataSource | DataBlobs, part: Part) -> PartRows:
    """The rows of one part of data.

    Raises:
        DataError: they are missing, or cannot be read.
        StoreError: they cannot be reached.
    """
    if isinstance(data, DataBlobs):
        name = f"{part}.jsonl"
        content = data.blobs[name].fetch().read_bytes()
        where = f"{data.folder}/{name}"
        rows = content_rows(content, "jsonl", where, DataSource(place=Path(where)))
        return PartRows(name=where, rows=[*rows])
    return read_part(DataSource.of(data), part)


def shared_inputs(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path | S3Path | DataSource | DataBlobs,
    *,
    work: Path | S3Path,
    one_machine: bool,
) -> tuple[BlobReader, DataSource | DataBlobs]:
    """Where runs read their backbone and their data; what is shared already stays as it is.

    Args:
        backbone: the frozen encoder.
        reader: where its blobs are.
        data: see :func:`centra.data.rows.read_part`.
        work: the folder of the runs.
        one_machine: whether all are carried out on this one.

    Raises:
        DataError: a file is missing, or cannot be read.
        StoreError: data or work cannot be reached.
        StoreNotWritableError: work cannot be written.
    """
    from centra.store.s3 import S3Store

    if not isinstance(data, DataBlobs):
        data = DataSource.of(data)
        if not one_machine:
            data = data.absolute()  # Workers of a cluster have a current folder of their own.
        if not (isinstance(data.place, Path) and isinstance(work, Path)):
            store = input_store(work)
            parts = {"train": read_split(data, "train"), "dev": read_split(data, "dev")}
            data = DataBlobs(
                folder=data,
                blobs={
                    f"{part}.jsonl": Blob(reader=store, digest=store.put(_lines(rows)))
                    for part, rows in parts.items()
                },
            )
    if not (one_machine or isinstance(work, Path) or isinstance(reader, S3Store)):
        store = input_store(work)
        for digest in sorted(backbone.blobs()):
            if not store.has(digest):
                store.put(reader.fetch(digest))
        reader = store
    return reader, data


def _lines(part: PartRows) -> bytes:
    """Rows as JSON lines, once it is known that each is an example."""
    examples_of(part)
    kept = ({name: row[name] for name in DATA_FIELDS if name in row} for _, row in part.rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept).encode()
