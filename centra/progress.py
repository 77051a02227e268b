"""How work tells of its progress and of what people should know: plain callables, no printing."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "Remark", "silent", "unheard"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while work goes on; ``done == total`` ends it."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing: the default wherever a :data:`Progress` is taken."""


Remark = Callable[[str], None]
"""Called with a sentence on something that people should know though it stops nothing."""


def unheard(text: str) -> None:
    """Tell nobody: the default wherever a :data:`Remark` is taken."""
