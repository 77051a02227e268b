"""What the library logs, on standard error: remarks for people, or more of it, as text or as JSON.

Without any option, warnings are remarks. ``-v`` adds what was stored, published, loaded and removed, and
``-vv`` the steps on the way; then each line says when it was, how grave it is and who says so. With
``--log-format json`` every line is one JSON object, for programs that collect logs.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from centra.system.redaction import hidden
from cli.output import json_text, remark

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMATS", "configure_logging"]

FORMATS = ("text", "json")

_PACKAGES = ("centra", "registry")
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""By how often ``-v`` is given."""
_ALWAYS_TOLD = (
    "centra.releases.find",
    "centra.serving.endpoint",
    "centra.serving.ray.running",
    "centra.serving.ray.standing",
    "centra.serving.server",
)
"""These loggers' INFO is a remark, too: which release was taken where none is named; where a server
listens and what it serves."""
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""What every record has; the rest was given as ``extra``."""


def configure_logging(verbosity: int, form: str, addresses: Sequence[str]) -> None:
    """Show what the library logs.

    Args:
        verbosity: how often ``-v`` was given.
        form: one of :data:`FORMATS`.
        addresses: those whose secrets are hidden in what is shown.
    """
    handler: logging.Handler
    if form == "json":
        handler = _JsonLines(addresses)
    elif verbosity:
        handler = _TextLines(addresses)
    else:
        handler = _Remarks(addresses)
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(level)
        logger.handlers = [handler]
    for name in _ALWAYS_TOLD:
        logging.getLogger(name).setLevel(min(level, logging.INFO))


class _Remarks(logging.Handler):
    """Makes a remark of each record."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__()
        self._addresses = addresses
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record on standard error."""
        remark(self.hidden(record.getMessage()))

    def hidden(self, text: str) -> str:
        """A text without the secrets of the addresses in use."""
        return hidden(text, *self._addresses)

    def traceback(self, record: logging.LogRecord) -> str | None:
        """The traceback of the exception that was logged, if one was."""
        if not record.exc_info:
            return None
        return self.hidden(self._formatter.formatException(record.exc_info))


class _TextLines(_Remarks):
    """A line for each record: time, level, logger and message."""

    def emit(self, record: logging.LogRecord) -> None:
        message, traceback = self.hidden(record.getMessage()), self.traceback(record)
        remark(f"{_time(record)} {record.levelname:<7} {record.name}: {message}")
        if traceback:
            remark(traceback)


class _JsonLines(_Remarks):
    """A JSON object in one line for each record, with what was given as ``extra``."""

    def emit(self, record: logging.LogRecord) -> None:
        content: dict[str, Any] = {
            "timestamp": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.hidden(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):  # Ray adds to every record.
                plain = isinstance(value, bool | int | float) or value is None
                content[name] = value if plain else self.hidden(str(value))
        if traceback := self.traceback(record):
            content["exception"] = traceback
        click.echo(json_text(content), err=True)


def _time(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
