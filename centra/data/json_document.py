"""One JSON document whose rows are in a list."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from centra.errors import DataError
from centra.formats.strict_json import parse_foreign, parse_items

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_json_document", "json_items", "what_document"]

_EXPECTED = "expected a list of objects, one for each example"
_SPACE = re.compile(r"[ \t\r\n]*")


def is_json_document(text: str) -> bool:
    """Whether a text is one JSON object that has its rows in a list, and no row itself."""
    try:
        value = parse_foreign(text, len(text))
    except ValueError:
        return False
    lists = isinstance(value, dict) and any(isinstance(one, list) for one in value.values())
    return lists and not {"text", "tokens", "label", "labels"} & value.keys()


def what_document(text: str) -> str | None:
    """What a text is as a whole, if it is one JSON document, and what to do; for people."""
    try:
        value = parse_foreign(text, len(text))
    except ValueError:
        return None
    if isinstance(value, dict):
        return "is one JSON object over several lines; write it on one (jq -c .)"
    if isinstance(value, list):
        return (
            f"is one JSON array of {len(value)} items; write each on a line of its own (jq -c '.[]'), or "
            "name the file .json"
        )
    return None


def json_items(where: str, text: str) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """The items of a JSON array, or of the one array that a JSON object holds.

    Args:
        where: what errors call the file.
        text: its text.

    Yields:
        The place of each, as file and line for errors, and the object; or that it is none.

    Raises:
        DataError: it is no JSON, or holds another thing; line and column are named.
    """
    start = 0
    try:
        if text.lstrip()[:1] == "{":
            whole = parse_foreign(text, len(text))
            lists = [name for name, value in whole.items() if isinstance(value, list)]
            if len(lists) != 1:
                raise DataError(
                    f"{where}: is an object with {len(lists)} lists ({', '.join(lists)}); {_EXPECTED}"
                )
            start = _place_of(text, lists[0])
        else:
            start = text.index("[")
            text = text if start == 0 else "\n" * text[:start].count("\n") + text[start:]
            start = text.index("[")
        items = [(f"{where}:{line}", value) for line, value in parse_items(text, start)]
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}:{error.lineno}: column {error.colno}: not JSON ({error.msg}); {_EXPECTED}"
        ) from error
    except ValueError as error:
        place = str(error).removeprefix("line ")
        raise DataError(f"{where}:{place}; {_EXPECTED}") from error
    for place, value in items:
        if isinstance(value, dict):
            yield place, value
        else:
            yield place, DataError(f"{place}: found {str(value)[:40]!r}; {_EXPECTED}")


def _place_of(text: str, name: str) -> int:
    """Where the value of a key of an object begins: the last one, as JSON is read."""
    decoder = json.JSONDecoder()
    found, place = 0, text.index("{") + 1
    while text[place := _after_space(text, place)] != "}":
        key, place = decoder.raw_decode(text, place)
        place = _after_space(text, text.index(":", place) + 1)
        found = place if key == name else found
        _, place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
        place += text[place] == ","
    return found


def _after_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # matches anything
