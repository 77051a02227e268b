"""SQLite: one writer at a time, and reading where nothing can be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from centra.errors import UsageError
from registry.errors import DatabaseError

__all__ = [
    "LOCK_WAIT_S",
    "UNWRITABLE",
    "check_exists",
    "check_unchanged",
    "is_unwritable",
    "sqlite_engine",
]

LOCK_WAIT_S = 60
"""How long a writer waits for its turn."""

UNWRITABLE = (
    "Nothing was changed. Look for space on its disk, whether that is mounted for writing, and whether "
    "you may write the file and its folder; then repeat the command"
)
"""What can be done about it, wherever SQLite cannot write."""


def sqlite_engine(url: URL) -> Engine:
    """An engine for a database file; where nothing can be written there, it reads alone.

    Raises:
        UsageError: no file, or a database in memory.
    """
    if not url.database or url.database == ":memory:":
        raise UsageError("a registry needs a database file, for example sqlite:///centra.db")
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S})

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, arguments: Any, options: Any) -> sqlite3.Connection:
        try:
            return _connect_to(arguments[0], "PRAGMA journal_mode = WAL", **options)
        except sqlite3.Error as error:
            if not is_unwritable(error):
                raise
            connection, record.info["unguarded"] = _read_only(arguments[0], error, options)
            record.info["unwritable"] = str(error)
            return connection

    @event.listens_for(engine, "checkin")
    def _checkin(_connection: Any, record: Any) -> None:
        if "unwritable" in record.info:
            record.invalidate()  # The next one may do better.

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        if writes and "unwritable" in connection.info:
            raise DatabaseError(
                f"database {url.database} can be read here, but not written: "
                f"{connection.info['unwritable']}. {UNWRITABLE}"
            )
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def check_exists(engine: Engine) -> None:
    """Refuse an SQLite file that is not there, which connecting would make.

    Raises:
        DatabaseError: naming the file.
    """
    file = engine.url.database
    if engine.dialect.name == "sqlite" and not Path(file or "").exists():
        raise DatabaseError(
            f"there is no database {file} yet", code="database-missing", database=str(file)
        )


def check_unchanged(connection: Connection) -> None:
    """Refuse what was read from an SQLite file that others wrote meanwhile, unknown to SQLite.

    Raises:
        DatabaseError: saying that it can be read again.
    """
    before = connection.info.get("unguarded")
    file = str(connection.engine.url.database)
    if before is not None and before != _file_state(file):
        raise DatabaseError(
            f"database {file} was written while it was read, and cannot be locked here; "
            "repeat the command",
            code="database-changed-meanwhile",
            database=file,
        )


def is_unwritable(error: BaseException | None) -> bool:
    """Whether SQLite could not write what it must, and be it only its notes beside the file."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR"))


def _read_only(
    file: str, error: sqlite3.Error, options: Any
) -> tuple[sqlite3.Connection, tuple[Any, ...] | None]:
    """A connection that reads alone, where SQLite cannot write anything beside the file.

    Returns:
        The connection, and where SQLite cannot know of others that write, the file's state.
    """
    place = Path(file).absolute().as_uri()
    try:
        # Where somebody is at work, or was killed, what SQLite needs is there already.
        return _connect_to(f"{place}?mode=ro", **options, uri=True), None
    except sqlite3.Error:
        state = _file_state(file)
        if state is None or state[-1]:  # What is in the log and not in the file would be missed.
            raise error from None
        return _connect_to(f"{place}?mode=ro&immutable=1", **options, uri=True), state


def _file_state(file: str) -> tuple[Any, ...] | None:
    """What changes when an SQLite file or the write-ahead log beside it is written."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    log = Path(f"{file}-wal")
    return (
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        log.stat().st_size if log.exists() else 0,
    )


def _connect_to(address: str, *settings: str, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(address, **options)
    try:
        # The driver must not begin transactions by itself: _begin says how each one begins.
        connection.isolation_level = None
        for setting in ("PRAGMA foreign_keys = ON", *settings, "PRAGMA synchronous = FULL"):
            connection.execute(setting)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
