"""Rows of tables: by column what each has, its cells as the values that they stand for."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

from centra.data.readers import open_reader
from centra.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.data.formats import DataFormat
    from centra.data.source import DataSource

__all__ = ["TYPED_FORMATS", "table_rows"]

TYPED_FORMATS: tuple[DataFormat, ...] = ("parquet", "arrow")
"""Whose columns have types."""
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_SHOWN = 40


def table_rows(
    data: bytes, form: DataFormat, where: str, source: DataSource, *, labelled: bool
) -> list[tuple[str, Any]]:
    """The rows of a table, whose cells have the types that their column's values show.

    Args:
        data, form, where, source, labelled: see :func:`centra.data.rows.content_rows`.

    Returns:
        See :class:`centra.data.rows.FileRows`.

    Raises:
        DataError: it cannot be read as a whole, or lacks a column.
    """
    reader = open_reader(
        io.BytesIO(data),
        form,
        where,
        columns=source.columns,
        labelled=True,
        encoding=source.encoding,
    )
    named = {field: c for field, c in reader.named.items() if c in reader.columns}
    if labelled and not {"label", "labels"} & named.keys():
        shown = ", ".join(reader.columns[:10]) + (" …" if len(reader.columns) > 10 else "")
        raise DataError(
            f"{where}: has no column 'label', nor 'labels'; it has {shown}",
            code="no-label-column",
            file=where,
        )
    is_text = form not in TYPED_FORMATS
    rows: list[tuple[str, Any]] = []
    for place, row in reader.values():
        try:
            rows.append((place, _typed(row, named, place, is_text=is_text)))
        except DataError as error:
            rows.append((place, error))
    objects = [row for _, row in rows if isinstance(row, dict)]
    labels = [row["label"] for row in objects if row.get("label") is not None]
    if is_text and all(_NUMBER.fullmatch(label) for label in labels):
        for row in objects:
            if row.get("label") is not None:
                row["label"] = json.loads(row["label"].removeprefix("+"))
    return rows


def _typed(row: Any, named: Mapping[str, str], where: str, *, is_text: bool) -> dict[str, Any]:
    """A row of a table, its lists as such.

    Raises:
        DataError: it cannot be read, has no text, or a cell that is no list.
    """
    if isinstance(row, DataError):
        raise row
    found: dict[str, Any] = row
    if found.get("text_pair", "") is None:
        del found["text_pair"]
    for field in ("text", "tokens"):
        if field not in found:
            continue
        value = found[field]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise DataError(
                f"{where}: column {named[field]!r} is empty; fill it, or leave the row out",
                code="empty-text",
            )
    if is_text:
        for field in {"tokens", "labels"} & found.keys():
            found[field] = _list(found[field], named[field], where)
    return found


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
