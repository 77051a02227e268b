"""Rules as TOML, as ``centra policy apply`` takes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from registry.settings import toml_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["toml"]


def toml(table: Mapping[str, Any]) -> str:
    """A table of plain values as TOML: each table that it holds under a header of its own."""
    return "\n".join(_lines(table)).strip("\n")


def _lines(table: Mapping[str, Any], *path: str) -> Iterator[str]:
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    values = {name: value for name, value in table.items() if name not in tables}
    # A table that holds only tables goes without saying; an empty one does not.
    if path and (values or not tables):
        yield f"\n[{'.'.join(path)}]"
    for name, value in values.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in tables.items():
        yield from _lines(value, *path, _key(name))


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml_text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return toml_text(value)
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            inner = (f"{_key(name)} = {_value(item)}" for name, item in value.items())
            return f"{{ {', '.join(inner)} }}"
        case _:
            return repr(value)
