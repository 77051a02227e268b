"""Starting processes that nothing in the working folder or on PYTHONPATH can change."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROGRAM", "apart", "is_program"]

PROGRAM = "_centra_command"
"""What settles, in a process of the program, where the package ``centra`` is; see there."""


def is_program() -> bool:
    """Whether this process is the program, and not somebody's script."""
    return PROGRAM in sys.modules


@contextmanager
def apart() -> Iterator[None]:
    """Start processes that do not look for Python's own modules in the working folder.

    Nor on PYTHONPATH, where this is the program: they are told its search path in another way.
    """
    changed = {"PYTHONSAFEPATH": "1"}
    if is_program() and "PYTHONPATH" in os.environ:
        changed["PYTHONPATH"] = ""  # As good as none.
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
