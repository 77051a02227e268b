"""The process's memory."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["trim_memory"]


def trim_memory() -> None:
    """Give what the C library keeps of freed memory back to the system, where it can be asked to.

    Costs a few milliseconds, and what is needed again must be had anew.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)
