"""Trying a tokenizer that comes from outside, in a process of its own.

A ``tokenizer.json`` is a program of sorts: patterns, and rules that rewrite a text. One that never
ends, takes all memory or makes the library panic must not do so where a registry is written, and its
fault must be found before a release has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from centra.errors import FormatError
from centra.formats.documents import sha256

__all__ = ["try_tokenizer"]

_SECONDS = 60
_MEMORY = 1 << 30
_PER_BYTE = 64
"""Of memory for each byte of the file, beside the rest; real ones take a third of it."""


def try_tokenizer(data: bytes, where: str) -> None:
    """Load a tokenizer and let it cut some texts, within limits on time and memory.

    The same bytes are tried once in a process.

    Args:
        data: a ``tokenizer.json``.
        where: what to call it in errors.

    Raises:
        FormatError: it cannot be loaded, fails on texts, or goes beyond the limits, which are named.
    """
    digest = sha256(data)
    if digest not in _faults:
        _faults[digest] = _fault(data)
    if fault := _faults[digest]:
        raise FormatError(f"{where}: {fault}")


_faults: dict[str, str | None] = {}
"""What is wrong with those that have been tried, by digest; None where nothing is."""


def _fault(data: bytes) -> str | None:
    memory = _MEMORY + _PER_BYTE * len(data)
    program = Path(__file__).with_name("child.py")
    try:
        # It imports what we would, and nothing from the program's own folder.
        done = subprocess.run(  # noqa: S603 - this interpreter, and a program of ours
            [sys.executable, "-P", str(program), str(_SECONDS), str(memory)],
            input=data,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=2 * _SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its tokenizer did not come to an end in {2 * _SECONDS} s with a few texts"
    told = done.stdout.decode(errors="backslashreplace")
    match done.returncode:
        case 0:
            return None
        case 3 if "memory" not in told.lower():
            return (
                f"no usable tokenizer (its tokenizer.json cannot be loaded: {told}; save it again)"
            )
        case 4 if "memory" not in told.lower():
            return f"its tokenizer fails on texts ({told})"
        case code if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"its tokenizer takes more than {_SECONDS} s of a processor for a few texts"
        case _:
            return (
                f"its tokenizer takes more than {memory / 1e9:.1f} GB of memory for a few texts, or "
                "crashes"
            )
