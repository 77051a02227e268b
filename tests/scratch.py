"""Makes the folder that a test run writes to, and prints it: ``python -m tests.scratch``.

Tests write and sync thousands of small files, and nothing of it is to outlive a power cut. So it is
in memory where there is plenty, and in the usual place for temporary files otherwise.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from centra.system.memory import available_memory

__all__ = ["make"]

_IN_MEMORY = Path("/dev/shm")
_NEEDED = 8 << 30
"""Several times what a run of all tests writes."""


def make(memory: Path = _IN_MEMORY) -> Path:
    """A new folder, for ``TMPDIR``, that everybody may traverse.

    Its path is short, as that of a Unix socket has to be.
    """
    place = memory if (available_memory() or 0) >= _NEEDED and _suits(memory) else None
    folder = Path(tempfile.mkdtemp(prefix="", dir=place))
    folder.chmod(0o755)
    return folder


def _suits(place: Path) -> bool:
    """Whether there is room, and it holds programs and extended attributes: the S3 server needs them."""
    try:
        found = os.statvfs(place)
        with tempfile.NamedTemporaryFile(dir=place) as file:
            os.setxattr(file.name, "user.centra", b"")
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= _NEEDED and not found.f_flag & os.ST_NOEXEC


if __name__ == "__main__":
    print(make())
