"""Rows of labelled data, from files and folders of every format: by field what each row has.

Each row comes with its place, as errors call it, and one that cannot be read with its error beside those
that can: a check tells of them all, and who learns or measures refuses the first.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeGuard

from centra.data.content import read_content
from centra.data.encodings import decode, encoding_read
from centra.data.formats import DATA_SUFFIXES
from centra.data.json_document import is_json_document, json_items
from centra.data.readers import TORN_ROW, open_reader
from centra.data.source import DATA_FIELDS, HubData
from centra.data.table_rows import TYPED_FORMATS, table_rows
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from centra.data.formats import DataFormat
    from centra.data.source import DataSource, Part
    from centra.store.s3.path import S3Path

    Row = tuple[str, Any]

__all__ = [
    "FileRows",
    "PartRows",
    "content_rows",
    "has_part",
    "is_undivided",
    "part_names",
    "read_file",
    "read_files",
    "read_part",
    "torn_text",
]

_NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val", "dev_matched", "validation_matched"),
    "test": ("test", "test_matched"),
}
"""What the files and splits of each part are called, without suffix, the likeliest first."""
_TRAIN = "expected JSON lines in train.jsonl and dev.jsonl, or the same in another format"
_SHARD = re.compile(r"(?P<name>.+)-\d+-of-\d+")
_NAMED = 3
"""So many rows that are left out are named."""


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """The rows of one file, or of a split of ``datasets``."""

    name: str
    """Its path or address, for people."""
    rows: list[Row]
    """The place of each, and its fields: an object with the names of :data:`DATA_FIELDS` and of other
    columns, but of JSON whatever stands there. Of a row that cannot be read its
    :class:`centra.errors.DataError` instead."""
    encoding: str | None = None
    """That it was read in, as Python names it; None where it is no text."""

    @property
    def torn(self) -> list[str]:
        """The places of the rows that are left out; see :data:`centra.data.readers.TORN_ROW`."""
        return [place for place, row in self.rows if _is_torn(row)]

    @property
    def kept(self) -> list[Row]:
        """The other rows."""
        return [(place, row) for place, row in self.rows if not _is_torn(row)]


@dataclass(frozen=True, kw_only=True)
class PartRows:
    """The rows of one part of data, which can all be read."""

    name: str
    """Of its file, for people."""
    rows: list[Row]
    """See :class:`FileRows`."""
    remarks: tuple[str, ...] = ()
    """What was left out."""

    @classmethod
    def of(cls, files: Sequence[FileRows]) -> PartRows:
        """The rows of files.

        Raises:
            DataError: a row cannot be read.
        """
        rows = [row for file in files for row in file.kept]
        for _, row in rows:
            if isinstance(row, DataError):
                raise row
        remarks = tuple(_remark(file) for file in files if file.torn)
        return cls(name=files[0].name, rows=rows, remarks=remarks)


def torn_text(file: FileRows) -> str:
    """How many rows of a file are left out, in a sentence."""
    count = len(file.torn)
    return (
        f"{count} of {len(file.rows):,} rows {'is' if count == 1 else 'are'} left out, torn as in GLUE (too "
        "few cells, too many, or an empty one)"
    )


def _remark(file: FileRows) -> str:
    shown = ", ".join(file.torn[:_NAMED]) + (" …" if len(file.torn) > _NAMED else "")
    return f"{torn_text(file)}: {shown}"


def read_part(source: DataSource, part: Part, *, labelled: bool = True) -> PartRows:
    """The rows to learn from, or those to measure on.

    Args:
        source, part, labelled: see :func:`read_files`.

    Raises:
        DataError: there is none, or several could be it; or a row cannot be read. File, line and
            column are named.
        UsageError, StoreError: see :func:`read_files`.
    """
    files = read_files(source, part, labelled=labelled)
    if not files:
        place = source.place
        assert not isinstance(place, HubData)
        name = part_names(source, part)[0]
        name = name if PurePath(name).suffix in DATA_SUFFIXES else f"{name}.jsonl"
        read_content(place / name, _TRAIN)  # It says what is there.
        raise DataError(f"{place}: has no part {part}; {_TRAIN}")
    return PartRows.of(files)


def read_files(source: DataSource, part: Part, *, labelled: bool = True) -> list[FileRows]:
    """The files of a part, with the rows that can be read and the errors of the others.

    Of a part that is not there they are none. Of a folder they are ``train.*``, ``dev.*`` (also ``validation.*``) or ``test.*``, in any format; of a
    data set of ``datasets`` the split of such a name; of a file the file itself.

    Args:
        source: where, and how to read it.
        part: which.
        labelled: whether a table must have a column of labels.

    Raises:
        DataError: several files could be it, or one cannot be read as a whole.
        UsageError: a package is not installed.
        StoreError: a bucket cannot be reached.
    """
    place, names = source.place, part_names(source, part)
    if isinstance(place, HubData) or _is_saved(place):
        from centra.data.hub import dataset_rows, has_split

        if part != "train" and part not in source.splits and not has_split(place, names):
            return []
        columns = {field: source.columns.get(field, field) for field in DATA_FIELDS}
        rows: list[Row] = [*dataset_rows(place, names, columns)]
        return [FileRows(name=f"{place} ({part})", rows=rows)]
    files = _part_files(place, names)
    if files is None:
        return [read_file(place, source, labelled=labelled)]
    return [read_file(place / name, source, labelled=labelled) for name in files]


def has_part(source: DataSource, part: Part) -> bool:
    """Whether a folder or data set has a part, other than a file of plain text; of a file False.

    Raises:
        UsageError: ``datasets`` is not installed.
        DataError: it does not find the data set; or several files could be the part.
    """
    place, names = source.place, part_names(source, part)
    if isinstance(place, HubData) or _is_saved(place):
        from centra.data.hub import has_split

        return part == "train" or (not is_undivided(source) and has_split(place, names))
    files = _part_files(place, names)
    return bool(files) and not any(name.endswith(".txt") for name in files or ())


def is_undivided(source: DataSource) -> bool:
    """Whether data are one file, or a data set that was saved without splits."""
    place = source.place
    if isinstance(place, HubData):
        return False
    if _is_saved(place):
        from centra.data.hub import is_undivided

        return is_undivided(place)
    return _part_files(place, ()) is None


def read_file(file: Path | S3Path, source: DataSource, *, labelled: bool = True) -> FileRows:
    """The rows of a file, in the format that its suffix says; JSON lines for any other suffix.

    Args:
        file: the file.
        source: how to read it.
        labelled: whether a table must have a column of labels.

    Raises:
        DataError, UsageError, StoreError: see :func:`read_files`.
    """
    form = DATA_SUFFIXES.get(PurePath(file.name).suffix.lower(), "jsonl")
    data = read_content(file, _TRAIN if form == "jsonl" else "expected a file of examples")
    rows = [*content_rows(data, form, str(file), source, labelled=labelled)]
    encoding = None if form in TYPED_FORMATS else encoding_read(data, source.encoding)
    return FileRows(name=str(file), rows=rows, encoding=encoding)


def content_rows(
    data: bytes, form: DataFormat, where: str, source: DataSource, *, labelled: bool = True
) -> Iterable[Row]:
    """The rows of what is in a file; see :class:`FileRows`.

    Args:
        data: its bytes.
        form: its format.
        where: what errors call it.
        source: how to read it.
        labelled: whether a table must have a column of labels.

    Raises:
        DataError: it cannot be read as a whole.
    """
    if form in ("csv", "tsv", *TYPED_FORMATS):
        return table_rows(data, form, where, source, labelled=labelled)
    if form in ("conll", "conllu"):
        from centra.data.conll import conll_rows

        text = decode(data, where, source.encoding)
        return conll_rows(text, where, source.columns, universal=form == "conllu")
    if form == "json":
        text = decode(data, where, source.encoding)
        if text.lstrip()[:1] == "[" or is_json_document(text):
            return _renamed(json_items(where, text), where, source.columns)
    reader = open_reader(io.BytesIO(data), "jsonl", where, labelled=True, encoding=source.encoding)
    return _renamed(reader.values(), where, source.columns)


def part_names(source: DataSource, part: Part) -> tuple[str, ...]:
    """What the files, without suffix, and splits of a part may be called, the likeliest first."""
    return (source.splits[part],) if part in source.splits else _NAMES[part]


def _is_saved(place: Path | S3Path) -> TypeGuard[Path]:
    from centra.data.hub import is_saved_dataset

    return isinstance(place, Path) and is_saved_dataset(place)


def _part_files(place: Path | S3Path, names: Sequence[str]) -> list[str] | None:
    """The files of a part in a folder, several where it was written in shards; None of a file.

    Raises:
        DataError: there is one in each of several formats.
    """
    if isinstance(place, Path):
        if not place.is_dir():
            return None if place.exists() or place.suffix in DATA_SUFFIXES else []
        inside = {path.name for path in place.iterdir() if path.is_file()}
    else:
        inside = {name for name in place.names() if "/" not in name}
        if not inside and PurePath(place.name).suffix in DATA_SUFFIXES:
            return None
    by_stem: dict[str, list[str]] = {}
    for name in sorted(inside):
        path = PurePath(name)
        if path.suffix.lower() in DATA_SUFFIXES:
            shard = _SHARD.fullmatch(path.stem)
            by_stem.setdefault(shard["name"] if shard else path.stem, []).append(name)
    for name in names:
        if name in inside:
            return [name]
        found = by_stem.get(name, [])
        if f"{name}.jsonl" in found:
            return [f"{name}.jsonl"]
        if len(found) > 1 and not all(_SHARD.fullmatch(PurePath(one).stem) for one in found):
            raise DataError(
                f"{place}: {' and '.join(found)} could each be {name!r}; leave one of them there, or "
                "say which by its whole name",
                code="several-files",
            )
        if found:
            return found
    return []


def _is_torn(row: Any) -> bool:
    return isinstance(row, DataError) and row.code == TORN_ROW


def _renamed(rows: Iterable[Row], where: str, columns: Mapping[str, str]) -> list[Row]:
    """Objects with the names of fields instead of those that they have."""
    found = [*rows]
    if not columns or not found:
        return found
    objects = [fields for _, fields in found if isinstance(fields, Mapping)]
    for field, column in columns.items():
        if objects and not any(column in fields for fields in objects):
            raise DataError(
                f"{where}: no row has {column!r} for {field!r}; the first has {', '.join(objects[0])}",
                code="no-column",
            )
    return [
        (place, _with_fields(fields, columns) if isinstance(fields, Mapping) else fields)
        for place, fields in found
    ]


def _with_fields(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    taken = {*columns.values(), *columns}
    kept = {name: value for name, value in fields.items() if name not in taken}
    return kept | {field: fields[c] for field, c in columns.items() if c in fields}
