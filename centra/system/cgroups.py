"""The limits of the control groups that this process runs in, of version 1, version 2 or both.

A container's ``--cpus`` and ``--memory`` show neither in the processors' affinity nor in the size of
the machine. They are read from the group that ``/proc/self/cgroup`` names, under the mounts that
``/proc/self/mountinfo`` names, and from every group above it: the smallest limit is what holds.
Whatever cannot be read or understood limits nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cpu_quota", "memory_limit"]

_ESCAPED = re.compile(r"\\([0-7]{3})")
_UNLIMITED = 2**60
"""Version 1 says that there is no limit by one that no machine reaches."""
_MEMORY = ("memory.max", "memory.high", "memory.limit_in_bytes")


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many processors' time the groups allow, in processors, e.g. 0.5; None without a limit.

    Args:
        root: of the file system that holds ``proc`` and the mounts.
    """
    quotas = (_quota(group) for group in _groups("cpu", root))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """How much memory the groups allow, in bytes; None without a limit.

    Args:
        root: of the file system that holds ``proc`` and the mounts.
    """
    limits = (_number(_read(group / name)) for group in _groups("memory", root) for name in _MEMORY)
    return min((limit for limit in limits if limit and limit < _UNLIMITED), default=None)


def _quota(group: Path) -> float | None:
    second = _read(group / "cpu.max").split()
    first = [_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    for found in (second, first):
        numbers = [_number(text) for text in found]
        if len(numbers) == 2 and numbers[0] and numbers[1]:
            return numbers[0] / numbers[1]
    return None


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's groups for a controller, each from its own up to the mount."""
    own = dict(_own_groups(root))
    for name, top, point in _mounts(controller, root):
        path = own.get(name)
        if path is None:
            continue
        if ".." in path.split("/"):  # Outside of what this namespace sees.
            below = ""
        elif top in ("/", path) or path.startswith(f"{top}/"):
            below = path.removeprefix(top)
        else:
            continue
        mount = root / point.lstrip("/")
        group = mount / below.lstrip("/")
        yield from (group, *(place for place in group.parents if place.is_relative_to(mount)))


def _own_groups(root: Path) -> Iterator[tuple[str, str]]:
    """Controller, or nothing for version 2, and the path of this process's group."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        match line.split(":", 2):
            case [_, controllers, path]:
                yield from ((controller, path) for controller in controllers.split(","))


def _mounts(controller: str, root: Path) -> Iterator[tuple[str, str, str]]:
    """Controller, or nothing for version 2; which group is mounted, and where."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        match before.split(" "), after.split(" "):
            case [_, _, _, top, point, *_], ["cgroup2", *_]:
                yield "", _plain(top), _plain(point)
            case [_, _, _, top, point, *_], ["cgroup", _, options, *_] if (
                controller in options.split(",")
            ):
                yield controller, _plain(top), _plain(point)


def _plain(text: str) -> str:
    """A field of mountinfo without its escapes for spaces and the like."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _number(text: str) -> int | None:
    """A positive whole number; None for ``max``, ``-1`` and whatever else is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
