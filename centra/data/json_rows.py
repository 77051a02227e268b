"""JSON lines, and lines of plain text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.data.lines import LineFile, fault_of
from centra.data.readers import (
    Position,
    check_columns,
    chunks_of_lines,
    parse_fields,
)
from centra.formats.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BufferedReader

    from centra.data.inputs import Input
    from centra.data.lines import Line
    from centra.data.readers import Rows

__all__ = ["JsonReader"]

_EMPTY = b"{}"


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
    ) -> None:
        """Open it; see :func:`centra.data.readers.open_reader`.

        Args:
            file, name, named, reserved: as there.
            plain: each line is a text, whatever it begins with.
        """
        self._lines = LineFile(file, name)
        self._name, self.named, self._plain = name, named, plain
        self._reserved: frozenset[str] = frozenset()
        self.start = Position(offset=self._lines.offset, line=0)
        self.columns = self._first_keys()
        if self.columns:
            check_columns(name, self.columns, named, reserved)
        self._reserved = frozenset(reserved)

    def read(self, start: Position | None = None) -> Iterator[Rows]:
        """See :class:`centra.data.readers.Reader`."""
        start = start or self.start
        self._lines.go_to(start.offset, start.line)
        yield from chunks_of_lines(self._lines, self._rows())

    def fields(self) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
        """See :class:`centra.data.readers.Reader`."""
        self._lines.go_to(self.start.offset, self.start.line)
        for place, found, _ in self._found():
            yield place, found

    def _rows(self) -> Iterator[tuple[str, Input | str, bytes]]:
        for place, found, given in self._found():
            yield place, found if isinstance(found, str) else parse_fields(found, place), given

    def _found(self) -> Iterator[tuple[str, dict[str, Any] | str, bytes]]:
        while (line := self._lines.next()) is not None:
            if line.data is not None and not self._plain and not line.data.strip():
                continue
            place = f"{self._name}:{line.number}"
            yield place, *self._row(line, place)

    def _row(self, line: Line, where: str) -> tuple[dict[str, Any] | str, bytes]:
        """A line's fields or error, and the object that goes on."""
        fault = fault_of(line.data)
        if fault is not None or line.data is None:
            return f"{where}: {fault}", _EMPTY
        if self._plain:
            text = line.data.decode().removesuffix("\n").removesuffix("\r")
            return {"text": text}, _json_bytes({"text": text})
        value = self._object(line.data, where)
        if isinstance(value, str):
            return value, _EMPTY
        if taken := [key for key in value if key in self._reserved]:
            kept = {key: part for key, part in value.items() if key not in self._reserved}
            return f"{where}: has {taken[0]!r}, which the answers have, too", _json_bytes(kept)
        fields = {field: value.get(column) for field, column in self.named.items()}
        return fields, line.data.strip()

    def _object(self, data: bytes, where: str) -> dict[str, Any] | str:
        try:
            value = parse_json(data.decode().strip())
        except ValueError as error:
            return f"{where}: not JSON ({error})"
        if not isinstance(value, dict):
            return f"{where}: expected a JSON object, found {str(value)[:40]!a}"
        return value

    def _first_keys(self) -> list[str]:
        """The keys of the objects of the first chunk."""
        keys: dict[str, None] = {}
        for rows in self.read():
            for row in rows.given:
                keys |= dict.fromkeys(json.loads(row))
            break
        return [*keys]


def _json_bytes(value: Any) -> bytes:
    # Half of a character, which JSON can name and UTF-8 cannot, stays as it is named.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
