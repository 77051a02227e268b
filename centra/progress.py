"""How long work reports its progress: a plain callable, so that no library code prints."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while work goes on; ``done == total`` ends it."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing: the default wherever a :data:`Progress` is taken."""
