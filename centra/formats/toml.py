"""TOML files that people write: small, and nested no deeper than anything reads them."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from centra.formats.strict_json import too_deep
from centra.system.files import decode_text
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_toml"]

_LARGEST = 1 << 20
_DOTTED = re.compile(
    r"""(?:^|[\s.=\[\]{},])(?:[^\s.=\[\]{},\#]++[ \t]*+\.[ \t]*+){33}""", re.MULTILINE
)
"""A key of very many parts, over each of which the parser goes once more for each that follows."""


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        OSError: it cannot be read, is no regular file, or is far longer than people write them.
        ValueError: it is no TOML in UTF-8, or nested too deep.
    """
    text = decode_text(read_regular(path, _LARGEST))
    try:
        content = None if _DOTTED.search(text) else tomllib.loads(text)
    except RecursionError:
        content = None
    if content is None or too_deep(content):
        raise ValueError("its tables are nested too deep")
    return content
