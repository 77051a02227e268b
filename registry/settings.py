"""Where the registry is and who acts: from arguments, then the environment, then ``centra.toml``."""

from __future__ import annotations

import json
import os
import pwd
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centra.errors import ConflictError, NotFoundError, StoreNotWritableError, UsageError
from centra.formats.toml import read_toml
from centra.store import anchored_store
from centra.system.files import make_folder, replacing
from centra.system.redaction import redacted
from registry.rules.lifecycle import Actor

__all__ = ["CONFIG", "Rules", "Settings", "configured_store", "toml_text", "write_config"]

CONFIG = "centra.toml"
_KEYS = {"database", "store", "actor"}
_TABLES = {"compose", "channels", "policy"}
_ENVIRONMENT = {"database": "CENTRA_DATABASE_URL", "store": "CENTRA_STORE"}
_DEFAULTS = {"database": ".centra/registry.db", "store": ".centra/store"}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules that a ``centra.toml`` proposes; :func:`registry.policies.apply` puts them in force."""

    file: Path
    """Where they stand; relative paths in them count from its folder."""
    tables: dict[str, Any] = field(default_factory=dict)
    """``compose``, ``channels`` and ``policy``, those that are there, as they stand."""

    @classmethod
    def read(cls, file: Path) -> Rules:
        """The rules of a file.

        Raises:
            NotFoundError: there is no such file.
            UsageError: it is no TOML, or holds a setting that there is not.
        """
        if not file.is_file():
            raise NotFoundError(f"{file}: no such file")
        return _rules(file.absolute(), _read(file))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Typed settings; see :meth:`load`."""

    database: str = field(repr=False)
    store: str = field(repr=False)
    actor: Actor
    rules: Rules | None = None
    """Those of ``centra.toml``; None where there is no such file."""
    folder: Path = Path()
    """Where ``centra.toml`` is: its relative paths count from here."""
    origins: dict[str, str] = field(default_factory=dict)
    """What said where the database and the store are: an option, a variable or a file."""

    @classmethod
    def load(
        cls,
        *,
        database: str | None = None,
        store: str | None = None,
        actor: str | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Gather the settings.

        Args:
            database, store, actor: win over everything else.
            folder: where to look for ``centra.toml``, and above; default the current folder.

        The environment's ``CENTRA_DATABASE_URL``, ``CENTRA_STORE`` and ``CENTRA_ACTOR`` come next,
        then ``centra.toml``, whose relative paths count from its own folder. Without an actor, the
        account's name acts for no team.

        Raises:
            NotFoundError: nothing says where the registry is.
            UsageError: ``centra.toml`` or the actor is malformed.
        """
        from registry.database.address import anchored_address

        config = _find((folder or Path.cwd()).absolute())
        file = _read(config) if config else {}
        home = config.parent if config else Path.cwd()
        given = {"database": database, "store": store}
        chosen = {key: given[key] or os.environ.get(name) for key, name in _ENVIRONMENT.items()}
        database = chosen["database"] or anchored_address(file.get("database", ""), home)
        store = chosen["store"] or anchored_store(file.get("store", ""), home)
        actor = actor or os.environ.get("CENTRA_ACTOR") or file.get("actor")
        if not database or not store:
            raise _not_configured("store" if database else "database", config)
        return cls(
            database=database,
            store=store,
            actor=Actor.parse(actor) if actor else Actor(person=_account()),
            rules=_rules(config, file) if config else None,
            folder=home,
            origins={
                key: f"--{key}" if given[key] else name if chosen[key] else str(config)
                for key, name in _ENVIRONMENT.items()
            },
        )


def configured_store(store: str | None = None) -> str:
    """The address of the store alone, as :meth:`Settings.load` finds it.

    For processes that need no database: it imports none.

    Args:
        store: wins over everything else.

    Raises:
        NotFoundError: nothing says where it is.
        UsageError: ``centra.toml`` is malformed.
    """
    address = store or os.environ.get(_ENVIRONMENT["store"])
    config = None if address else _find(Path.cwd())
    if config:
        address = anchored_store(_read(config).get("store", ""), config.parent)
    if not address:
        raise _not_configured("store", config)
    return address


def write_config(folder: Path, *, database: str | None, store: str | None) -> Path:
    """Write ``centra.toml`` for a new registry.

    Args:
        folder: where to put it.
        database, store: addresses; None for what the environment says, which is not written, or
            else for SQLite and a local store under ``.centra/``.

    Returns:
        The file. One that says the same already is left alone.

    Raises:
        ConflictError: there is one that says something else.
        StoreNotWritableError: the folder cannot be written.
    """
    path = folder / CONFIG
    given = {"database": database, "store": store}
    # What the environment says stays there: it may be a secret, and it wins over the file anyway.
    values = {
        key: value or _DEFAULTS[key]
        for key, value in given.items()
        if value or not os.environ.get(_ENVIRONMENT[key])
    }
    if path.is_file():
        found = _read(path)
        if any(not _same(key, value, found.get(key), folder) for key, value in values.items()):
            raise ConflictError(
                f"{path} exists and names another registry ({_addresses_text(found)}); "
                "edit or remove it first"
            )
    text = "".join(f"{key} = {toml_text(value)}\n" for key, value in values.items())
    try:
        # Also where the file came from elsewhere, as with a repository that ignores the folder.
        make_folder(folder / ".centra")
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error
    return path


def _not_configured(missing: str, config: Path | None) -> NotFoundError:
    where = f"{config} names none" if config else f"there is no {CONFIG} here or above"
    return NotFoundError(
        f"no {missing} is configured: {where}", code="registry-not-configured", missing=missing
    )


def _account() -> str:
    """The account's name as the system has it: what the environment says of it is anybody's word.

    A name that would read as another's, or as a team's, is not shown.
    """
    number = f"uid-{os.getuid()}"
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # A container may run under a number that has no name.
        return number
    return name if name.isprintable() and "/" not in name and 0 < len(name) <= 63 else number


def _find(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        # A pipe of that name is refused, and not passed over for another registry above.
        if (place / CONFIG).exists() and not (place / CONFIG).is_dir():
            return place / CONFIG
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_toml(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    for key, value in content.items():
        if key not in _KEYS | _TABLES:
            raise UsageError(
                f"{path}: unknown setting {key!r}; expected {', '.join(sorted(_KEYS | _TABLES))}"
            )
        if key in _KEYS and not isinstance(value, str):
            raise UsageError(redacted(f"{path}: {key} must be a string, found {value!r}"))
        if key in _KEYS and "\0" in value:
            raise UsageError(f"{path}: {key} holds NUL, which no address does")
        if key in _TABLES and not isinstance(value, dict):
            raise UsageError(f"{path}: {key} must be a table, found {value!r:.60}")
    return content


def _rules(file: Path, content: dict[str, Any]) -> Rules:
    return Rules(file=file, tables={name: content[name] for name in _TABLES & content.keys()})


def _same(key: str, value: str, found: str | None, folder: Path) -> bool:
    """Whether a setting in the file means the same as the one that would be written."""
    from registry.database.address import anchored_address, parse_address

    if key != "database" or not found:
        return value == found
    return parse_address(anchored_address(value, folder)) == parse_address(
        anchored_address(found, folder)
    )


def _addresses_text(found: dict[str, Any]) -> str:
    """The addresses of a file, for people."""
    from registry.database.address import address_text, parse_address

    database, store = (str(found.get(key) or "none") for key in ("database", "store"))
    return f"{address_text(parse_address(database))}, {redacted(store, store)}"


def toml_text(value: str) -> str:
    """A TOML string: written like one of JSON, but without surrogate pairs, and without DEL.

    Raises:
        UsageError: it holds what UTF-8 has no bytes for.
    """
    if not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise UsageError(
            f"{value!r} cannot be written to {CONFIG}, which is UTF-8; give it in the environment",
            code="not-utf8",
        )
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
