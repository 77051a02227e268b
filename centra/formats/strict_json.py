"""JSON from outside: bounded, and with one meaning for every reader, or refused.

JSON leaves open what a key means that stands twice, and Python reads numbers that JSON does not have.
What one reader checks would then not be what another one uses.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LARGEST", "parse_document", "parse_foreign", "parse_items", "parse_json", "too_deep"]

LARGEST = 1 << 25
"""Bytes of a document; a release of a thousand tasks with a thousand labels each has as many."""
_DEPTH = 64
"""Levels of nesting; honest files have under ten."""
_DIGITS = 17
"""Of a whole number: beyond 2^53 readers differ."""
_SUSPECT = re.compile(r"\\u[dD][89a-fA-F]")
"""What may stand for half of a character."""
_SPACE = re.compile(r"[ \t\r\n]*")
_BROKEN = re.compile("[\ud800-\udfff]")


def parse_document(data: bytes, largest: int = LARGEST) -> Any:
    """The value of a document in one of Centra's own formats.

    Args:
        data: the JSON text in UTF-8.
        largest: so many bytes it may have.

    Raises:
        ValueError: it is longer, or no JSON in UTF-8; see also :func:`parse_json`. Or a number is
            too large, or a text holds half of a character, which no file takes.
    """
    if len(data) > largest:
        raise ValueError(f"has {len(data):,} bytes, and at most {largest:,} are read")
    text = data.decode()
    value = _loads(text, parse_int=_integer)
    if _SUSPECT.search(text):
        for part in _texts(value):
            if broken := _BROKEN.search(part):
                raise ValueError(f"a text holds {broken[0]!a}, half of a character")
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON; an object names a key twice, of which JSON would drop one; it has
            NaN, an infinite number, or one of too many digits; or it is nested too deep.
    """
    return _loads(text)


def parse_foreign(text: str, largest: int = LARGEST) -> Any:
    """The value of a JSON text that other programs wrote for themselves, as they read it.

    Args:
        text: the JSON text.
        largest: so many characters it may have.

    Raises:
        ValueError: it is longer, no JSON, or nested too deep.
    """
    if len(text) > largest:
        raise ValueError(f"has {len(text):,} characters, and at most {largest:,} are read")
    try:
        value = json.loads(text)
    except RecursionError:
        raise _deep() from None
    return _bounded(value)


def parse_items(text: str, start: int = 0) -> Iterator[tuple[int, Any]]:
    """The items of a JSON array, each with the number of the line that it begins on.

    Args:
        text: the JSON text.
        start: where the array begins.

    Raises:
        ValueError: see :func:`parse_json`; line and column are named.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_float=_float, parse_constant=_constant
    )
    place = _SPACE.match(text, start + 1).end()  # type: ignore[union-attr]  # matches anything
    line, counted = 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line}: {error or 'is nested too deep'}") from error
        yield line, _bounded(value)
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
        match text[place : place + 1]:
            case ",":
                place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
            case "]":
                pass
            case _:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    rest = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
    if rest < len(text) and not start:
        raise json.JSONDecodeError("Extra data", text, rest)


def too_deep(value: Any) -> bool:
    """Whether dicts and lists are nested in each other deeper than any reader should follow."""
    level = [value]
    for _ in range(_DEPTH + 1):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _loads(text: str, **hooks: Any) -> Any:
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_constant=_constant, **hooks
        )
    except RecursionError:
        raise _deep() from None
    return _bounded(value)


def _bounded(value: Any) -> Any:
    if too_deep(value):
        raise _deep()
    return value


def _deep() -> ValueError:
    return ValueError(f"is nested deeper than {_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!a} stands twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS or abs(number := int(text)) > 1 << 53:
        raise ValueError(f"the number {text[:20]}… is too large")
    return number


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no finite number here")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


def _parts(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, the keys of objects too."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            yield part
        if isinstance(part, dict):
            yield from part
        todo += _parts(part)
