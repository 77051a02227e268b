"""The path of a call, without what stands before a route."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["route_of", "split_channel"]

_PREFIX = "/channels/"


def split_channel(scope: Scope) -> tuple[str | None, str]:
    """The channel that a call's path begins with, ``/channels/NAME``, and what follows.

    Args:
        scope: of the call; where the application is mounted somewhere, ``root_path`` says where.

    Returns:
        None where it names none; and the path of a route, or nothing.
    """
    path, root = scope["path"], scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    if not path.startswith(_PREFIX):
        return None, path
    name, slash, rest = path[len(_PREFIX) :].partition("/")
    return name, slash + rest


def route_of(scope: Scope) -> str:
    """The path of a route that a call is for, whichever channel it names."""
    return split_channel(scope)[1]
