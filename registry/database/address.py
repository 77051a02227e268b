"""Addresses of databases: a file's path, ``sqlite:///PATH``, or ``postgresql://…``.

A path is taken as it stands: nothing in it is decoded, and no character of it is special, with or
without ``sqlite:///`` before it. What could be either a path or something else is refused, and an
address that is refused is not shown: there may be a password in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from centra.errors import UsageError
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["address_text", "anchored_address", "parse_address"]

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///", re.ASCII | re.IGNORECASE)
_OPTIONS = re.compile(r"\?[a-z_]+=", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(?://)?", re.IGNORECASE)
_KEYWORDS = re.compile(
    r"\s*(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=", re.IGNORECASE
)
_FOREIGN = re.compile(rf"^{_SCHEME.pattern}|^{_KEYWORDS.pattern}|://|:[^/]*@", re.IGNORECASE)
"""What a relative path may not hold, for it could be more than a path."""
_AUTHORITY = re.compile(r"(?:[^:/?#@]*(?::[^@]*)?@)?[^@]*", re.DOTALL)
"""Of a server: at most one @, before which the user is."""
_TOLD = ("host", "port", "sslmode")
"""Options of an address that may be shown."""
_EXPECTED = (
    "expected a file's path (./ before a name that begins like an address), sqlite:///PATH or "
    "postgresql://USER:PASSWORD@HOST/NAME; in a password, @ is written %40 and % is written %25"
)


def parse_address(address: str) -> URL:
    """What SQLAlchemy connects to.

    Raises:
        UsageError: no address, or one of another kind of database; it is not shown.
    """
    if path := _path(address):
        return URL.create("sqlite", database=path[1])
    scheme = _SCHEME.match(address)
    if scheme is None or not scheme[0].endswith("://"):
        raise UsageError(f"the database address is malformed; {_EXPECTED}")
    name = scheme[1].partition("+")[0].lower()
    if name in ("postgresql", "postgres"):
        return _server(address, address[scheme.end() :])
    if name == "sqlite":
        raise UsageError("a registry needs a database file, for example sqlite:///centra.db")
    raise UsageError(f"database {name!r} is not supported; use SQLite or PostgreSQL")


def anchored_address(address: str, folder: Path) -> str:
    """The same address, its path counted from a folder where it is a relative one."""
    path = _path(address)
    if path is None or path[1] in ("", ":memory:"):
        return address
    return f"{path[0]}{folder / path[1]}"


def address_text(url: URL) -> str:
    """A database for people: the path of SQLite's file, or a server's address without secrets."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    told = {key: value for key, value in url.query.items() if key in _TOLD}
    return redacted(url.set(query=told).render_as_string(hide_password=True))


def _path(address: str) -> tuple[str, str] | None:
    """The prefix that says SQLite, or none, and the path behind it; None for another address."""
    if prefix := _SQLITE.match(address):
        path = address[prefix.end() :]
        if path.startswith("file:") or _OPTIONS.search(path):
            raise UsageError(
                "the database address is malformed: behind sqlite:/// comes a path alone, without "
                "options; where the path itself looks like that, leave sqlite:/// away"
            )
        return prefix[0], path
    if address.startswith("~"):
        raise UsageError(
            f"the database's path {address!r}: ~ stands for a home in a shell alone; write the whole "
            "path, or ./~ for a folder of that name"
        )
    if address.startswith("//") or (address[:1] not in ("", "/", ".") and _FOREIGN.search(address)):
        return None
    return "", address


def _server(address: str, rest: str) -> URL:
    try:
        if not _AUTHORITY.fullmatch(rest):
            raise ValueError("@")
        address.encode()  # An environment may hold other bytes.
        url = _plain(make_url(address)).set(drivername="postgresql+psycopg")
        # What else connecting would find wrong with it, and quote.
        (_, given) = url.get_dialect()().create_connect_args(url)
        for host in str(given.get("host", "")).split(","):
            host.encode("utf-8" if host.startswith("/") else "idna")
    except (ArgumentError, ValueError):
        # Without its cause, whose text may quote the address.
        raise UsageError(f"the database address is malformed; {_EXPECTED}") from None
    return url


def _plain(url: URL) -> URL:
    """The same address with user and password where they are known to be what they are.

    They may also be among the options, and win there.
    """
    options = dict(url.query)
    moved: dict[str, str] = {}
    for field, name in (("username", "user"), ("password", "password")):
        value = options.pop(name, None)
        if isinstance(value, str):
            moved[field] = value
    if not moved:
        return url
    return url.set(
        username=moved.get("username", url.username),
        password=moved.get("password", url.password),
        query=options,
    )
