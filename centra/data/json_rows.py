"""JSON lines, and lines of plain text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.data.json_document import what_document
from centra.data.lines import LineFile, fault_of
from centra.data.readers import (
    Position,
    check_columns,
    chunks_of_lines,
    parse_fields,
)
from centra.errors import DataError
from centra.formats.strict_json import LARGEST, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BufferedReader

    from centra.data.inputs import Input
    from centra.data.lines import Line
    from centra.data.readers import Rows

__all__ = ["JsonReader"]

_EMPTY = b"{}"
_EXPECTED = "expected JSON lines: one object a line, in UTF-8"


class JsonReader:
    """A file of JSON objects, one a line; blank lines are passed over.

    An object goes on as it was written, byte for byte, so that no number loses a digit. Of what is no
    object nothing goes on but its error.
    """

    def __init__(
        self,
        file: BufferedReader,
        name: str,
        named: Mapping[str, str],
        reserved: Sequence[str],
        *,
        plain: bool = False,
        labelled: bool = False,
    ) -> None:
        """Open it; see :func:`centra.data.readers.open_reader`.

        Args:
            file, name, named, reserved, labelled: as there. Keys of examples are not looked at.
            plain: each line is a text, whatever it begins with.
        """
        self._lines = LineFile(file, name, "expected lines of text" if plain else _EXPECTED)
        self._name, self.named, self._plain = name, named, plain
        self.start = Position(offset=self._lines.offset, line=0)
        self._reserved: frozenset[str] = frozenset()
        self.columns: list[str] = []
        if not plain:
            self._check_lines(file)
        if not labelled:
            self.columns = self._first_keys()
        if self.columns:
            check_columns(name, self.columns, named, reserved)
        self._reserved = frozenset(reserved)

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """See :class:`centra.data.readers.Reader`."""
        start = start or self.start
        self._lines.go_to(start.offset, start.line)
        yield from chunks_of_lines(self._lines, self._rows())

    def values(self) -> Iterator[tuple[str, Any]]:
        """Of each row what errors call it, and its value, which need be no object; or its error."""
        self._lines.go_to(self.start.offset, self.start.line)
        for place, value, _ in self._found():
            yield place, value

    def _rows(self) -> Iterator[tuple[str, Input | str, bytes]]:
        for place, value, given in self._found():
            yield place, *self._row(value, place, given)

    def _found(self) -> Iterator[tuple[str, Any, bytes]]:
        while (line := self._lines.next()) is not None:
            if line.data is not None and not self._plain and not line.data.strip():
                continue
            place = f"{self._name}:{line.number}"
            yield place, *self._value(line, place)

    def _value(self, line: Line, where: str) -> tuple[Any, bytes]:
        """A line's value or error, and the object that goes on."""
        fault = fault_of(line.data)
        if line.data is None:
            return DataError(f"{where}: {fault}"), _EMPTY
        if fault is not None:
            return DataError(f"{where}: {fault}; {_EXPECTED}", code="unreadable-text"), _EMPTY
        text = line.data.decode()
        if self._plain:
            row = {"text": text.removesuffix("\n").removesuffix("\r")}
            return row, _json_bytes(row)
        try:
            return parse_json(text.strip()), line.data.strip()
        except ValueError as error:
            return DataError(f"{where}: {_no_json(text.strip(), error)}; {_EXPECTED}"), _EMPTY

    def _row(self, value: Any, where: str, given: bytes) -> tuple[Input | str, bytes]:
        """A row's input or error, and the object that goes on."""
        if isinstance(value, DataError):
            return str(value), given
        if not isinstance(value, dict):
            return f"{where}: expected a JSON object, found {str(value)[:40]!a}", _EMPTY
        if taken := [key for key in value if key in self._reserved]:
            kept = {key: part for key, part in value.items() if key not in self._reserved}
            return f"{where}: has {taken[0]!r}, which the answers have, too", _json_bytes(kept)
        fields = {field: value.get(column) for field, column in self.named.items()}
        return parse_fields(fields, where), given

    def _check_lines(self, file: BufferedReader) -> None:
        """Refuse a file that is one JSON document, and not a value a line.

        Raises:
            DataError: it is.
        """
        self._lines.go_to(self.start.offset, self.start.line)
        _, first, _ = next(self._found(), ("", {}, b""))
        if isinstance(first, dict):
            return
        file.seek(self.start.offset)
        try:
            text = file.read(LARGEST + 1).decode().strip()
        except UnicodeDecodeError:
            return
        several = "\n" in text or isinstance(first, list)
        if len(text) <= LARGEST and several and (whole := what_document(text)):
            raise DataError(f"{self._name}: {whole}; {_EXPECTED}", code="json-document")

    def _first_keys(self) -> list[str]:
        """The keys of the objects of the first chunk."""
        keys: dict[str, None] = {}
        for rows in self.read():
            for row in rows.given:
                keys |= dict.fromkeys(json.loads(row))
            break
        return [*keys]


def _no_json(line: str, error: ValueError) -> str:
    """Why a line is not JSON."""
    if line[0] not in '[{"':
        return f"not JSON: {line[:40]!r} looks like a table or plain text"
    if line in ("{", "["):
        return "not JSON: a value goes on over several lines"
    return f"not JSON ({error})"


def _json_bytes(value: Any) -> bytes:
    # Half of a character, which JSON can name and UTF-8 cannot, stays as it is named.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
