"""Breaking a process at one of its changing system calls; ``shim.c`` does it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["Call", "Fault", "Mode", "arm", "built", "preload", "read_log"]

Mode = Literal["before", "half", "after", "full", "pause"]

_SOURCE = Path(__file__).with_name("shim.c")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a process at which of its changing calls; see ``shim.c``."""

    mode: Mode
    call: int
    """Counted from 1."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A changing system call that a process made."""

    name: str
    size: int
    """The bytes it was to move; 0 for calls that move none."""
    path: str
    """``socket`` for a socket."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """How a kill at this call can differ from those at its neighbours."""
        parts: tuple[Mode, ...] = ("before", "half") if self.size > 1 else ("before",)
        # A server works on what was sent; a file that was changed waits for the next change.
        return (*parts, "after") if self.path == "socket" else parts


@cache
def built() -> Path | None:
    """The shared library; None where there is no C compiler, or it cannot build one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"centra-torture-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"shim-{digest}.so"
    if not library.is_file():
        made = library.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", made, _SOURCE, "-ldl"],
            check=False,
            capture_output=True,
        )
        if done.returncode:
            return None
        made.replace(library)
    return library


def preload() -> dict[str, str]:
    """The variable that loads the library into a process that is started; none without it."""
    library = built()
    return {"LD_PRELOAD": str(library)} if library else {}


def arm() -> None:
    """In a process that was forked from one with the library: begin, as the environment says."""
    ctypes.CDLL(None).torture_arm()


def read_log(log: Path) -> list[Call]:
    """The calls that a process has made, in their order."""
    if not log.exists():
        return []
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    return [Call(name=line[1], size=int(line[2]), path=line[3]) for line in lines if len(line) == 4]
