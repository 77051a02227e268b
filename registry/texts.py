"""Texts for people that errors and findings share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["files_text", "first_lines"]


def first_lines(texts: Iterable[str], limit: int = 50) -> str:
    """The first few, a line each, and how many more there are."""
    lines = list(texts)
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([*lines[:limit], *more])


def files_text(count: int, size: int) -> str:
    """A number of files and their bytes."""
    return f"{count} file{'' if count == 1 else 's'}, {size:,} bytes"
