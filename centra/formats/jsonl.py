"""Files of JSON objects, one a line; what is something else is told what it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.errors import DataError
from centra.formats.strict_json import parse_foreign, parse_items, parse_json
from centra.system.files import decode_text
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_json_document", "read_data", "read_json_items", "read_jsonl"]

_PACKED = {
    b"\x1f\x8b": "compressed by gzip: unpack it with gunzip",
    b"BZh": "compressed by bzip2: unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it with unzstd",
    b"PK\x03\x04": "a zip archive, or a spreadsheet",
    b"PAR1": "a Parquet file: write its rows as JSON lines",
    b"ARROW1": "an Arrow file: write its rows as JSON lines",
    b"SQLite format 3": "an SQLite database",
}
_EXPECTED = "expected JSON lines: one object a line, in UTF-8"
_SHOWN = 5
"""So many names of files are shown."""


def read_jsonl(path: Path, data: bytes | None = None) -> Iterator[tuple[str, Any]]:
    """Read a file of JSON values, one a line; blank lines are passed over.

    Args:
        path: the file.
        data: its bytes, where :func:`read_data` has read them.

    Yields:
        The place, as file and line for errors, and the value.

    Raises:
        DataError: there is no such file, it is no text, or a line is not JSON. A file of another
            sort (one JSON document over all lines, a table, something compressed) is told what it is.
    """
    text = _text(path, read_data(path) if data is None else data)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            raise DataError(_fault(path, text, number, line, error)) from error
        if isinstance(value, list) and (whole := _document(text)):
            raise DataError(f"{path}: {whole}; {_EXPECTED}")
        yield f"{path}:{number}", value


def is_json_document(text: str) -> bool:
    """Whether a text is one JSON object that has its rows in a list, and no row itself."""
    try:
        value = parse_foreign(text, len(text))
    except ValueError:
        return False
    lists = isinstance(value, dict) and any(isinstance(one, list) for one in value.values())
    return lists and not {"text", "tokens", "label", "labels"} & value.keys()


def read_json_items(where: str, text: str) -> list[tuple[str, Any]]:
    """The items of a JSON array, or of the one array that a JSON object holds.

    Args:
        where: what errors call the file.
        text: its text.

    Returns:
        The place of each, as file and line for errors, and the value.

    Raises:
        DataError: it is no JSON, or holds another thing; line and column are named.
    """
    expected = "expected a list of objects, one for each example"
    start = 0
    try:
        if text.lstrip()[:1] == "{":
            whole = parse_foreign(text, len(text))
            lists = [name for name, value in whole.items() if isinstance(value, list)]
            if len(lists) != 1:
                raise DataError(
                    f"{where}: is an object with {len(lists)} lists ({', '.join(lists)}); {expected}"
                )
            start = text.index("[", text.index(json.dumps(lists[0], ensure_ascii=False)))
        else:
            start = text.index("[")
            text = text if start == 0 else "\n" * text[:start].count("\n") + text[start:]
            start = text.index("[")
        items = [(f"{where}:{line}", value) for line, value in parse_items(text, start)]
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}:{error.lineno}: column {error.colno}: not JSON ({error.msg}); {expected}"
        ) from error
    except ValueError as error:
        place = str(error).removeprefix("line ")
        raise DataError(f"{where}:{place}; {expected}") from error
    for place, value in items:
        if not isinstance(value, dict):
            raise DataError(f"{place}: found {str(value)[:40]!r}; {expected}")
    return items


def _missing_file(path: Path, expected: str) -> DataError:
    """That a file of data is not there, and what is in its place."""
    folder = path.parent
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        return DataError(f"{path}: no such file ({folder}: {what}); {expected}")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    return DataError(f"{path}: no such file; {folder} holds {shown or 'nothing'}; {expected}")


def read_data(path: Path, expected: str = _EXPECTED) -> bytes:
    """The bytes of a file of data, for one who takes their fingerprint and then reads them.

    Args:
        path: the file.
        expected: what errors say should be there.

    Raises:
        DataError: it is missing, or cannot be read.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, and cannot be read; {expected}")
    try:
        return read_regular(path)
    except FileNotFoundError as error:
        raise _missing_file(path, expected) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {expected}") from error


def _text(path: Path, data: bytes) -> str:
    for mark, what in _PACKED.items():
        if data.startswith(mark):
            raise DataError(f"{path}: is {what}; {_EXPECTED}")
    try:
        text = decode_text(data)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); {_EXPECTED}") from error
    if "\0" in text:
        raise DataError(
            f"{path}: holds NUL characters, as UTF-16 without a byte-order mark does; {_EXPECTED}"
        )
    return text


def _fault(path: Path, text: str, number: int, line: str, error: Exception) -> str:
    """Why a line is not JSON."""
    if whole := _document(text):
        return f"{path}: {whole}; {_EXPECTED}"
    where = f"{path}:{number}"
    if line.lstrip()[0] not in '[{"':
        return f"{where}: not JSON: {line.strip()[:40]!r} looks like a table or plain text; {_EXPECTED}"
    if line.strip() in ("{", "["):
        return f"{where}: not JSON: a value goes on over several lines; {_EXPECTED}"
    return f"{where}: not JSON ({error}); {_EXPECTED}"


def _document(text: str) -> str | None:
    """What a text is as a whole, if it is one JSON document and no line of an example."""
    try:
        value = parse_foreign(text, len(text))
    except ValueError:
        return None
    if isinstance(value, list):
        return f"is one JSON array of {len(value)} items; write each on a line of its own (jq -c '.[]')"
    return "is one JSON object over several lines; write it on one (jq -c .)"
