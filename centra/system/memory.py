"""The process's memory."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from centra.system.cgroups import memory_limit

__all__ = ["available_memory", "trim_memory"]


def available_memory(root: Path = Path("/")) -> int | None:
    """How much memory this process may take, in bytes; None where nothing says.

    It is what the machine has available or, where that is less, what its container allows.

    Args:
        root: of the file system that holds ``proc`` and the control groups' mounts.
    """
    known = (limit for limit in (_machine(root), memory_limit(root)) if limit is not None)
    return min(known, default=None)


def trim_memory() -> None:
    """Give what the C library keeps of freed memory back to the system, where it can be asked to.

    Costs a few milliseconds, and what is needed again must be had anew.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)


def _machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        match line.split():
            case ["MemAvailable:", kibibytes, "kB"] if kibibytes.isdecimal():
                return 1024 * int(kibibytes)
    return None
