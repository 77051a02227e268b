"""Names that people type: tasks, backbones, channels, teams, and references such as ``intent@2.1``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType

from centra.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Name", "parse_name", "parse_task_name", "parse_version", "several", "split_reference"]

Name = NewType("Name", str)
"""A checked name: safe in a path, a URL and a shell."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TAKEN = ("id", "error")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


def parse_name(text: str, what: str = "name") -> Name:
    """Check a name and give it its type.

    Args:
        text: what the user typed.
        what: the noun for the error, e.g. ``"task name"``.

    Raises:
        InvalidNameError: anything but 1 to 63 lower-case letters, digits, ``_``, ``-`` and ``.``,
            starting with a letter or digit and without ``..``. So no name leaves its folder.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise InvalidNameError(
            what,
            text,
            "1 to 63 characters of a-z, 0-9, '_', '-' and '.', starting with a letter or digit",
        )
    return Name(text)


def parse_task_name(text: str) -> Name:
    """Check the name of a new task.

    Raises:
        InvalidNameError: as for :func:`parse_name`; or it is ``id`` or ``error``, which stand beside
            the tasks' answers in what ``centra predict`` prints.
    """
    if text in _TAKEN:
        raise InvalidNameError(
            "task name",
            text,
            f"another than {' and '.join(_TAKEN)}, which stand beside the tasks' answers in what "
            "'centra predict --json' prints",
        )
    return parse_name(text, "task name")


def parse_version(text: str) -> tuple[int, int]:
    """Parse ``"2.1"`` into ``(2, 1)``.

    Raises:
        InvalidNameError: the text is not two whole numbers with a dot between them.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise InvalidNameError("version", text, "MAJOR.MINOR, for example 2.1")
    return int(match[1]), int(match[2])


def split_reference(text: str, what: str) -> tuple[Name, str | None]:
    """Split ``NAME`` or ``NAME@VERSION`` into the checked name and the version's text, if any.

    Raises:
        InvalidNameError: the name is not acceptable.
    """
    name, at, version = text.partition("@")
    return parse_name(name, what), version if at else None


def several(names: Collection[str] | str) -> list[str]:
    """Some names, each once, in their order; a string is one name."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))
