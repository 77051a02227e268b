"""How work tells of its progress and of what people should know: plain callables, no printing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

__all__ = ["Notice", "Progress", "Remark", "silent", "unheard"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while work goes on; ``done == total`` ends it."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing: the default wherever a :data:`Progress` is taken."""


class Notice(str):
    """What a :data:`Remark` is told where whoever shows it may know what to do about it."""

    __slots__ = ("code",)
    code: str

    def __new__(cls, text: str, *, code: str) -> Self:
        """Make a notice: a sentence, and a code for programs, as errors have it."""
        notice = super().__new__(cls, text)
        notice.code = code
        return notice

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        # Training runs tell theirs from other processes.
        return (str(self),), {"code": self.code}


Remark = Callable[[str], None]
"""Called with a sentence on something that people should know though it stops nothing."""


def unheard(text: str) -> None:
    """Tell nobody: the default wherever a :data:`Remark` is taken."""
