"""What the command line makes of the library's errors: an exit code, and what to do here and now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import (
    CentraError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["EXIT_CODES", "HINTS", "exit_code", "message"]

EXIT_CODES: dict[type[CentraError], int] = {
    CentraError: 1,
    UsageError: 2,
    NotFoundError: 3,
    NotAllowedError: 4,
    ConflictError: 5,
    VerificationError: 6,
}
"""By the branch of the tree that an error belongs to."""


def _audit_hints(data: Mapping[str, Any]) -> str:
    """What can be done about a log that is not as it was written."""
    hints = {
        "witnesses": "If the database was restored, say so: centra audit accept",
        "guards": "What is missing or altered comes back with: centra audit guard",
    }
    return "\n".join(text for finding, text in hints.items() if finding in data["findings"])


def _version_not_in_force(data: Mapping[str, Any]) -> str:
    steps = [f"centra task restore {data['task']}"] if data["retired"] else []
    if data["current"] != data["version"]:
        steps.append(f"centra task pin {data['task']}@{data['version']}")
    return f"To change that: {', then '.join(steps)}"


HINTS: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "audit-log": _audit_hints,
    "backbone-in-use": (
        "For each task: centra task update NAME FILE; then promote a release that does without it"
    ),
    "backbone-retired": "To bring it back: centra backbone restore {backbone}",
    "cache-not-writable": "Or set CENTRA_CACHE to another folder.",
    "contract-changed": "If its callers are ready for that: centra task redefine {task} FILE",
    "contract-unchanged": "Use: centra task update {task} FILE",
    "database-empty": "Run: centra db upgrade",
    "database-missing": "Run: centra db upgrade",
    "database-older": "Run: centra db upgrade",
    "invalid-witness": "'centra audit verify' prints it.",
    "task-exists": (
        "For new weights with the same labels: centra task update {task} FILE\n"
        "For another label set, kind or input: centra task redefine {task} FILE"
    ),
    "task-retired": "First: centra task restore {task}",
    "team-missing": "Say which team owns the task: --team TEAM",
    "version-not-in-force": _version_not_in_force,
}
"""What to do about an error, by its code: a template for its data, or what makes a text of them."""


def exit_code(error: CentraError) -> int:
    """The exit code of a command that ends in an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def message(error: CentraError) -> str:
    """An error's text, and on a line of its own what to do about it where that is known.

    An error that stands for another, its cause, has the other's hint where it has none itself.
    """
    cause: BaseException | None = error
    while isinstance(cause, CentraError):
        hint = HINTS.get(cause.code)
        if hint is not None:
            text = hint.format_map(cause.data) if isinstance(hint, str) else hint(cause.data)
            return f"{error}\n{text}" if text else str(error)
        cause = cause.__cause__
    return str(error)
