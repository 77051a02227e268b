"""Bearer tokens: who may call, which tasks and channels, how often.

The file holds digests alone, so that whoever reads it can call nothing. A token is 32 random bytes:
there is nothing to guess, so that SHA-256 by itself keeps it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from centra.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from centra.formats.names import parse_name
from centra.formats.toml import read_toml
from centra.serving.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

__all__ = ["Caller", "RateLimitedError", "Tokens", "UnauthorizedError", "add_token"]

_log = logging.getLogger(__name__)

_DIGEST = re.compile("[0-9a-f]{64}")
_FIELDS = {"sha256", "tasks", "channels", "rate"}
_RECHECK = 1.0
"""Seconds after which the file is looked at again."""


class UnauthorizedError(NotAllowedError):
    """The call bears no token that this server knows."""

    code = "unauthorized"


class RateLimitedError(OverloadedError):
    """A token's callers ask for more than it allows."""

    code = "rate-limited"


@dataclass(kw_only=True, eq=False)
class Caller:
    """Who bears a token."""

    name: str
    sha256: str = field(repr=False)
    tasks: frozenset[str] | None = None
    """Those that may be asked for; None for all."""
    channels: frozenset[str] | None = None
    """Likewise, of several that are served."""
    rate: float | None = None
    """Inputs a second; None without limit."""
    _spent: float = 0.0
    _at: float = 0.0

    def allowed(self, tasks: Iterable[str]) -> list[str]:
        """Those of some tasks that may be asked for."""
        return [task for task in tasks if self.tasks is None or task in self.tasks]

    def allowed_channels(self, channels: Iterable[str]) -> list[str]:
        """Those of some channels that may be asked; one without a name may be."""
        return [
            name for name in channels if not name or self.channels is None or name in self.channels
        ]

    def check_channel(self, channel: str) -> None:
        """Refuse a channel that may not be asked.

        Args:
            channel: its name; empty where it has none.

        Raises:
            NotAllowedError: it is not on the token's list.
        """
        if not self.allowed_channels([channel]):
            raise NotAllowedError(
                f"the token {self.name!r} may not ask channel {channel!r}; it may ask "
                f"{', '.join(sorted(self.channels or ())) or 'none'}",
                code="channel-not-allowed",
                channel=channel,
            )

    def check(self, tasks: Iterable[str], field: str = "tasks") -> None:
        """Refuse tasks that may not be asked for.

        Args:
            tasks: what is asked for.
            field: the part of the request that names them.

        Raises:
            NotAllowedError: one of them is not on the token's list.
        """
        for task in tasks:
            if self.tasks is not None and task not in self.tasks:
                raise NotAllowedError(
                    f"{field}: the token {self.name!r} may not ask for task {task!r}",
                    code="task-not-allowed",
                    field=field,
                    task=task,
                )

    def spend(self, inputs: int) -> None:
        """Count inputs against the rate.

        A second's worth may come at once. One request may hold more, when nothing is owed, and is paid
        for afterwards: so many single requests and one of as many inputs cost the same.

        Raises:
            RateLimitedError: earlier inputs are not paid for yet.
        """
        if self.rate is None:
            return
        now = time.monotonic()
        self._spent = max(0.0, self._spent - (now - self._at) * self.rate)
        self._at = now
        most = max(1.0, self.rate)
        over = self._spent + min(inputs, most) - most
        if over > 1e-9:
            raise RateLimitedError(
                f"the token {self.name!r} may ask for {self.rate:g} inputs a second",
                retry_after=over / self.rate,
            )
        self._spent += inputs


class Tokens:
    """The tokens of a file, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            NotFoundError: there is no such file.
            UsageError: it is not as :func:`add_token` writes it.
        """
        self._path = path
        self._stamp = _stamp(path)
        self._callers = _read(path)
        self._checked = time.monotonic()

    def caller(self, authorization: str | None) -> Caller:
        """Who calls.

        Every token is compared, in constant time.

        Args:
            authorization: the header's value, ``Bearer …``.

        Raises:
            UnauthorizedError: there is no token, or none that is known.
        """
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("this server asks for a token: Authorization: Bearer TOKEN")
        given = _digest(token.strip())
        found = None
        for caller in self._callers:
            if hmac.compare_digest(caller.sha256, given):
                found = caller
        if found is None:
            raise UnauthorizedError("this server does not know the token")
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < _RECHECK:
            return
        self._checked = now
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            before = {caller.sha256: caller for caller in self._callers}
            callers = _read(self._path)
        except (NotFoundError, UsageError) as error:
            _log.error("tokens are as they were: %s", error)
            return
        for caller in callers:
            if caller.sha256 in before:
                # What was spent stays spent.
                known = before[caller.sha256]
                caller._spent, caller._at = known._spent, known._at  # noqa: SLF001 - its own module
        self._stamp, self._callers = stamp, callers
        _log.info("read %d tokens from %s", len(callers), self._path)


def add_token(
    path: Path,
    name: str,
    *,
    tasks: Collection[str] = (),
    channels: Collection[str] = (),
    rate: float | None = None,
) -> str:
    """Make a token, and add its digest to a file.

    Args:
        path: of the file; made where there is none.
        name: what logs call its bearer.
        tasks: those that it may ask for; default all.
        channels: those of a server of several that it may ask; default all.
        rate: inputs a second; default without limit.

    Returns:
        The token. It is kept nowhere.

    Raises:
        UsageError: the file is malformed, or a name or the rate is.
        ConflictError: there is a token of that name.
    """
    parse_name(name, "token name")
    for task in tasks:
        parse_name(task, "task name")
    for channel in channels:
        parse_name(channel, "channel name")
    if rate is not None and not 0 < rate < 1e9:
        raise UsageError(f"a rate is a number of inputs a second above 0, not {rate:g}")
    if path.exists() and any(caller.name == name for caller in _read(path)):
        raise ConflictError(
            f"{path}: there is a token {name!r} already; remove its lines first",
            code="token-exists",
            name=name,
        )
    token = f"centra_{secrets.token_urlsafe(32)}"
    lines = [f'["{name}"]', f'sha256 = "{_digest(token)}"']
    for field_name, names in (("tasks", tasks), ("channels", channels)):
        if names:
            quoted = ", ".join(f'"{each}"' for each in sorted(names))
            lines.append(f"{field_name} = [{quoted}]")
    if rate is not None:
        lines.append(f"rate = {rate:g}")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + "\n".join(lines) + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise NotFoundError(
            f"{path}: cannot be read ({error.strerror})", code="no-tokens", path=str(path)
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> list[Caller]:
    try:
        content = read_toml(path)
    except OSError as error:
        raise NotFoundError(
            f"{path}: cannot be read ({error.strerror})", code="no-tokens", path=str(path)
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    return [_caller(f"{path}: [{name}]", name, entry) for name, entry in content.items()]


def _caller(where: str, name: str, entry: Any) -> Caller:
    if not isinstance(entry, dict) or not entry.keys() <= _FIELDS:
        raise UsageError(f"{where}: expected a table of {', '.join(sorted(_FIELDS))}")
    digest, rate = entry.get("sha256"), entry.get("rate")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise UsageError(f"{where}: sha256 must be 64 hexadecimal digits, and not the token itself")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise UsageError(f"{where}: rate must be a number of inputs a second")
    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"{where}: rate must be above 0")
    return Caller(
        name=name,
        sha256=digest,
        tasks=_names(where, "tasks", entry),
        channels=_names(where, "channels", entry),
        rate=rate,
    )


def _names(where: str, field: str, entry: dict[str, Any]) -> frozenset[str] | None:
    names = entry.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{where}: {field} must be a list of names")
    return frozenset(names)
