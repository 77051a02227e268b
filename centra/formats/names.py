"""Names that people type: tasks, backbones, channels, teams, and references such as ``intent@2.1``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from centra.errors import InvalidNameError
from centra.formats.identities import Name, TaskName, VersionNumber

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["distinct_names", "parse_name", "parse_task_name", "parse_task_reference"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TAKEN = ("id", "error")


def parse_name(text: str, noun: str = "name") -> Name:
    """Check a name and give it its type.

    Args:
        text: what the user typed.
        noun: what it is called in the error, e.g. ``"task name"``.

    Raises:
        InvalidNameError: anything but 1 to 63 lower-case letters, digits, ``_``, ``-`` and ``.``,
            starting with a letter or digit and without ``..``. So no name leaves its folder.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise InvalidNameError(
            noun,
            text,
            "1 to 63 characters of a-z, 0-9, '_', '-' and '.', starting with a letter or digit",
        )
    return Name(text)


def parse_task_name(text: str) -> TaskName:
    """Check the name of a new task.

    Raises:
        InvalidNameError: as for :func:`parse_name`; or it is ``id`` or ``error``, which stand beside
            the tasks' answers where predictions are printed.
    """
    if text in _TAKEN:
        raise InvalidNameError(
            "task name",
            text,
            f"another than {' and '.join(_TAKEN)}, which stand beside the tasks' answers where "
            "predictions are printed",
        )
    return TaskName(parse_name(text, "task name"))


def parse_task_reference(text: str) -> tuple[TaskName, VersionNumber | None]:
    """Read ``NAME`` or ``NAME@MAJOR.MINOR``: a task, and which of its versions where that is said.

    Raises:
        InvalidNameError: the name or the number is malformed.
    """
    name, at, version = text.partition("@")
    task = TaskName(parse_name(name, "task name"))
    return task, VersionNumber.parse(version) if at else None


def distinct_names(names: Collection[str] | str) -> list[str]:
    """Some names, each once, in their order; a string is one name."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))
