"""Logins to OCI registries as ``docker login`` keeps them: in ``config.json``, or with a helper it names."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.errors import StoreError, first_line
from centra.formats.strict_json import parse_foreign
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Login", "find_login"]

_LARGEST = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATIENCE = 30
"""Seconds that a helper has; some of them ask another server."""
_TOKEN = "<token>"  # noqa: S105 - the name of a user that stands for none


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who asks a registry."""

    user: str
    secret: str = field(repr=False)
    refresh_token: bool = False
    """Whether the secret is no password, but a token that gets others."""

    @property
    def basic(self) -> str:
        """The header ``Authorization`` of HTTP's basic authentication."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def find_login(names: Sequence[str]) -> Login | None:
    """The login to a registry; None where there is none, and the registry is asked without.

    It is read from ``config.json`` in ``$DOCKER_CONFIG``, or in ``~/.docker``.

    Args:
        names: under which it may be kept.

    Raises:
        StoreError: the file cannot be read, or its helper fails.
    """
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    config = _read(path)
    helpers = config.get("credHelpers")
    logins = config.get("auths")
    for name in names:
        if isinstance(helpers, dict) and name in helpers:
            return _ask(helpers[name], name, path)
        kept = logins.get(name) if isinstance(logins, dict) else None
        if isinstance(kept, dict) and (login := _kept(kept, name, path)):
            return login
    if "credsStore" in config:
        asked = (_ask(config["credsStore"], name, path) for name in names)
        return next((login for login in asked if login), None)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_foreign(read_regular(path, _LARGEST).decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path}: the logins to registries cannot be read ({first_line(error)})",
            code="login-unreadable",
        ) from error
    return content if isinstance(content, dict) else {}


def _kept(kept: dict[str, Any], name: str, path: Path) -> Login | None:
    """What the file itself holds of a login."""
    if token := kept.get("identitytoken"):
        return Login(user=_TOKEN, secret=str(token), refresh_token=True)
    if encoded := kept.get("auth"):
        try:
            user, colon, secret = base64.b64decode(str(encoded)).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise StoreError(
                f"{path}: the login to {name} is no base64 of USER:PASSWORD; log in again",
                code="login-unreadable",
            )
        return Login(user=user, secret=secret.rstrip("\0"))
    return None


def _ask(helper: object, name: str, path: Path) -> Login | None:
    """What a helper, a program of the user's, holds of a login."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise StoreError(
            f"{path}: {helper!r:.80} is no name of a helper for logins", code="login-unreadable"
        )
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own configuration names it
            [program, "get"],
            input=name.encode(),
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(
            f"{path}: its helper {program} cannot be run ({first_line(error)})",
            code="login-helper-failed",
        ) from error
    if done.returncode:
        return None  # It says so also where it has no login.
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: its helper {program} gave no user and secret for {name}",
            code="login-helper-failed",
        ) from error
    return Login(user=user, secret=secret, refresh_token=user == _TOKEN)
