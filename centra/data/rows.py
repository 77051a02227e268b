"""Rows of labelled data, from files and folders of every format: by field what each row has.

Each row comes with its place, as errors call it, and all rows of a file are read before any is given: a
file of which one row cannot be read is refused.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

from centra.data.encodings import decode
from centra.data.formats import DATA_SUFFIXES
from centra.data.source import DATA_FIELDS, DataSource, HubData
from centra.errors import DataError
from centra.formats.jsonl import is_json_document, read_data, read_json_items, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from centra.data.formats import FileFormat
    from centra.data.source import Part
    from centra.store.s3.path import S3Path

    Row = tuple[str, Any]

__all__ = ["PartRows", "file_rows", "has_part", "read_part"]

_NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val", "dev_matched", "validation_matched"),
}
"""What the files and splits of each part are called, without suffix, the likeliest first."""
_SHARD = re.compile(r"(?P<name>.+)-\d+-of-\d+")
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class PartRows:
    """The rows of one part of data."""

    name: str
    """Of its file, for people."""
    rows: list[Row]
    """The place of each, and its fields: an object with the names of :data:`DATA_FIELDS`, but of JSON
    whatever stands there."""


def read_part(source: DataSource, part: Part, *, labelled: bool = True) -> PartRows:
    """The rows to learn from, or those to measure on.

    Of a folder they are those of ``train.*`` or ``dev.*`` (also ``validation.*``), in any format; of a
    data set of ``datasets`` the split of such a name; of a file the file's own.

    Args:
        source: where, and how to read it.
        part: which.
        labelled: whether a table must have a column of labels.

    Raises:
        DataError: there is none, or several could be it; or a row cannot be read. File, line and
            column are named.
        UsageError: a package is not installed.
        StoreError: a bucket cannot be reached.
    """
    place = source.place
    names = _names(source, part)
    if isinstance(place, HubData) or (isinstance(place, Path) and _is_saved(place)):
        from centra.data.hub import dataset_rows

        columns = {field: source.columns.get(field, field) for field in DATA_FIELDS}
        rows: list[Row] = [*dataset_rows(place, names, columns)]
        return PartRows(name=f"{place} ({part})", rows=rows)
    files = _part_files(place, names)
    if files is None:
        return PartRows(name=str(place), rows=file_rows(place, source, labelled=labelled))
    found = [place / name for name in files] or [place / f"{names[0]}.jsonl"]
    rows = [row for file in found for row in file_rows(file, source, labelled=labelled)]
    return PartRows(name=str(found[0]), rows=rows)


def has_part(source: DataSource, part: Part) -> bool:
    """Whether a folder has a file of a part, other than one of plain text; of a file False."""
    place, names = source.place, _names(source, part)
    if isinstance(place, HubData):
        return True
    if isinstance(place, Path) and _is_saved(place):
        return part == "train" or any((place / name).is_dir() for name in names)
    files = _part_files(place, names)
    return bool(files) and not any(name.endswith(".txt") for name in files or ())


def file_rows(file: Path | S3Path, source: DataSource, *, labelled: bool = True) -> list[Row]:
    """The rows of a file, in the format that its suffix says; JSON lines for any other suffix.

    Args:
        file: the file.
        source: how to read it.
        labelled: whether a table must have a column of labels.

    Raises:
        DataError, UsageError, StoreError: see :func:`read_part`.
    """
    where, data = str(file), _content(file)
    columns = source.columns
    form = DATA_SUFFIXES.get(PurePath(file.name).suffix.lower(), "jsonl")
    if form in ("csv", "tsv", "parquet"):
        return _table_rows(data, cast("FileFormat", form), where, source, labelled=labelled)
    if form in ("conll", "conllu"):
        from centra.data.conll import conll_rows

        text = decode(data, where, source.encoding)
        return [*conll_rows(text, where, columns, universal=form == "conllu")]
    if source.encoding is not None:
        data = decode(data, where, source.encoding).encode()
    if form == "json":
        text = decode(data, where)
        if text.lstrip()[:1] == "[" or is_json_document(text):
            return _renamed(read_json_items(where, text), where, columns)
    return _renamed(read_jsonl(cast("Path", file), data), where, columns)


def _names(source: DataSource, part: Part) -> tuple[str, ...]:
    return (source.splits[part],) if part in source.splits else _NAMES[part]


def _is_saved(folder: Path) -> bool:
    from centra.data.hub import is_saved_dataset

    return is_saved_dataset(folder)


def _content(file: Path | S3Path) -> bytes:
    if isinstance(file, Path):
        if DATA_SUFFIXES.get(file.suffix.lower(), "jsonl") == "jsonl":
            return read_data(file)
        return read_data(file, "expected a file of examples")
    data = file.read_bytes()
    if data is None:
        found = sorted({each.partition("/")[0] for each in file.parent.names()})
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise DataError(
            f"{file}: no such file; {file.parent} holds {shown or 'nothing'}; expected train.jsonl and "
            "dev.jsonl, or the same in another format"
        )
    return data


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


def _table_rows(
    data: bytes, form: FileFormat, where: str, source: DataSource, *, labelled: bool
) -> list[Row]:
    """The rows of a table, whose cells have the types that their column's values show."""
    from centra.data.readers import open_reader

    is_text = form != "parquet"
    if is_text:
        data = decode(data, where, source.encoding).encode()
    reader = open_reader(io.BytesIO(data), form, where, columns=source.columns, labelled=True)
    named = {field: c for field, c in reader.named.items() if c in reader.columns}
    if labelled and not {"label", "labels"} & named.keys():
        shown = ", ".join(reader.columns[:10]) + (" …" if len(reader.columns) > 10 else "")
        raise DataError(
            f"{where}: has no column 'label', nor 'labels'; it has {shown}",
            code="no-label-column",
            file=where,
        )
    rows: list[tuple[str, dict[str, Any]]] = []
    for place, fields in reader.fields():
        if isinstance(fields, str):
            raise DataError(f"{fields}; mend the row, or leave it out", code="bad-row")
        found = dict(fields)
        if found.get("text_pair", "") is None:
            del found["text_pair"]
        for field in ("text", "tokens"):
            if field not in found:
                continue
            value = found[field]
            if value is None or (isinstance(value, str) and not value.strip()):
                raise DataError(
                    f"{place}: column {named[field]!r} is empty; fill it, or leave the row out",
                    code="bad-row",
                )
        if is_text:
            for field in {"tokens", "labels"} & found.keys():
                found[field] = _list(found[field], named[field], place)
        rows.append((place, found))
    labels = [found["label"] for _, found in rows if found.get("label") is not None]
    if is_text and all(_NUMBER.fullmatch(label) for label in labels):
        for _, found in rows:
            if found.get("label") is not None:
                found["label"] = json.loads(found["label"].removeprefix("+"))
    return [*rows]


def _list(cell: str | None, column: str, where: str) -> Any:
    """A cell that holds a list, as JSON."""
    if cell is None:
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        value = None
    if not isinstance(value, list):
        shown = cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]} …"
        raise DataError(
            f'{where}: column {column!r}: {shown!r} is no list; write it as JSON: ["a", "b"]',
            code="bad-row",
        )
    return value


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
