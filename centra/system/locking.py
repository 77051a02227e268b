"""Folders that one process writes at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_locked", "locked"]

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, level: int = logging.WARNING) -> Iterator[None]:
    """Let nobody else lock a folder meanwhile, no other thread either; who is killed lets go of it.

    Args:
        folder: must be there.
        level: of the log's line where somebody else has it.

    Raises:
        OSError: the folder cannot be read.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.log(level, "%s: another process writes it; waiting", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # Some network file systems have no such locks.
        try:
            yield
        finally:
            # Closing is not enough: a process that was forked meanwhile has it open, too.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether somebody has a folder locked, or could: on a file system without locks nobody knows.

    Raises:
        OSError: the folder cannot be read.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
