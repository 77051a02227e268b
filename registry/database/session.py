"""Engines, transactions and migrations.

Writers take turns: a writing transaction begins with ``BEGIN IMMEDIATE`` on SQLite and with one
advisory lock on PostgreSQL. They last milliseconds, because blobs are stored before. So version
and release numbers have neither gaps nor duplicates, and every decision holds until it is written.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, Pool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from centra.errors import UsageError
from centra.system.forks import after_fork_in_child
from centra.system.redaction import redacted
from registry.database.address import parse, shown
from registry.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

__all__ = [
    "SCHEMA",
    "check_exists",
    "check_schema",
    "check_unchanged",
    "current",
    "differences",
    "make_engine",
    "revision",
    "translated",
    "upgrade",
    "writing",
]

SCHEMA = "0007"
"""The migration that this code works with; a test holds it against the newest migration."""

_LOCK = 0x43454E545241  # "CENTRA"
_WAIT_S = 60


def make_engine(address: str) -> Engine:
    """An engine for a database address.

    Args:
        address: a file's path, ``sqlite:///PATH``, or ``postgresql://USER:PASSWORD@HOST/NAME``; see
            :mod:`registry.database.address`.

    Raises:
        UsageError: another kind of database, or no address at all.
    """
    url = parse(address)
    engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
    after_fork_in_child(engine, _leave_connections)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the writer's turn when they begin."""
    return engine.execution_options(writes=True)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors of reaching or using the database into :class:`DatabaseError`."""
    try:
        yield
    except IntegrityError:
        raise  # A constraint held where a decision should have: that is a fault of this code.
    except DBAPIError as error:
        # With a user, and be it none: SQLAlchemy leaves a password out that has nobody.
        known = engine.url.set(username=engine.url.username or "")
        whole = known.render_as_string(hide_password=False)
        cause = redacted(str(error.orig).strip().split("\n")[0], whole)
        mend = f". {_MEND}" if _is_unwritable(error.orig) else ""
        raise DatabaseError(f"database {shown(engine.url)}: {cause}{mend}") from error


def check_exists(engine: Engine) -> None:
    """Refuse an SQLite file that is not there, which connecting would make.

    Raises:
        DatabaseError: naming the file.
    """
    file = engine.url.database
    if engine.dialect.name == "sqlite" and not Path(file or "").exists():
        raise DatabaseError(f"there is no database {file} yet; run: centra db upgrade")


def check_unchanged(connection: Connection) -> None:
    """Refuse what was read from an SQLite file that others wrote meanwhile, unknown to SQLite.

    Raises:
        DatabaseError: saying that it can be read again.
    """
    before = connection.info.get("unguarded")
    file = str(connection.engine.url.database)
    if before is not None and before != _state(file):
        raise DatabaseError(
            f"database {file} was written while it was read, and cannot be locked here; "
            "repeat the command"
        )


def check_schema(connection: Connection) -> None:
    """Refuse a database whose tables this code does not know.

    Raises:
        DatabaseError: saying which migration it is at, which is needed, and what to do.
    """
    found = revision(connection)
    if found == SCHEMA:
        return
    if found is None:
        raise DatabaseError("the database has no Centra tables yet; run: centra db upgrade")
    if found < SCHEMA:
        raise DatabaseError(
            f"the database is at migration {found}, this Centra needs {SCHEMA}; "
            "run: centra db upgrade"
        )
    raise DatabaseError(
        f"the database is at migration {found}, newer than this Centra's {SCHEMA}; upgrade Centra"
    )


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None before the first."""
    # Alembic is asked only to migrate: importing it would double the time of a listing.
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def current(engine: Engine) -> str | None:
    """The migration that a database is at; None before the first.

    Raises:
        DatabaseError: the database is not there or cannot be reached.
    """
    check_exists(engine)
    with translated(engine), engine.connect() as connection:
        return revision(connection)


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest migration; harmless when it is there already.

    Two upgrades at once take turns, and the second finds nothing to do.

    Raises:
        DatabaseError: the database cannot be reached or refuses.
    """
    from alembic import command
    from alembic.util import CommandError

    with translated(engine), writing(engine).begin() as connection:
        found = revision(connection)
        if found is not None and found > SCHEMA:
            check_schema(connection)
        try:
            command.upgrade(_alembic(connection), "head")
        except CommandError as error:
            raise DatabaseError(
                f"the database is at migration {found}, which this Centra does not know; "
                "is it another program's?"
            ) from error


def differences(engine: Engine) -> list[str]:
    """How the database's tables differ from the models; empty when they agree.

    Raises:
        DatabaseError: the database cannot be reached or is not at the newest migration.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from registry.database.models import Base

    check_exists(engine)
    with translated(engine), engine.connect() as connection:
        check_schema(connection)
        context = MigrationContext.configure(connection)
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def _leave_connections(engine: Engine) -> None:
    """Begin anew in a forked process: its parent's connections must be neither used nor closed."""
    _left.append(engine.pool)
    engine.dispose(close=False)


_left: list[Pool] = []


def _alembic(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    # Beside this package, whatever else is called 'migrations'. In Alembic's settings % is special.
    folder = str(Path(__file__).absolute().parents[2] / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError("a registry needs a database file, for example sqlite:///centra.db")
    engine = create_engine(url, connect_args={"timeout": _WAIT_S})

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, arguments: Any, options: Any) -> sqlite3.Connection:
        try:
            return _connected(arguments[0], "PRAGMA journal_mode = WAL", **options)
        except sqlite3.Error as error:
            if not _is_unwritable(error):
                raise
            connection, record.info["unguarded"] = _readable(arguments[0], error, options)
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
                f"{connection.info['unwritable']}. {_MEND}"
            )
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


_MEND = (
    "Nothing was changed. Look for space on its disk, whether that is mounted for writing, and whether "
    "you may write the file and its folder; then repeat the command"
)


def _is_unwritable(error: BaseException | None) -> bool:
    """Whether SQLite could not write what it must, and be it only its notes beside the file."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR"))


def _readable(
    file: str, error: sqlite3.Error, options: Any
) -> tuple[sqlite3.Connection, tuple[Any, ...] | None]:
    """A connection that reads alone, where SQLite cannot write anything beside the file.

    Returns:
        The connection, and where SQLite cannot know of others that write, the file's state.
    """
    place = Path(file).absolute().as_uri()
    try:
        # Where somebody is at work, or was killed, what SQLite needs is there already.
        return _connected(f"{place}?mode=ro", **options, uri=True), None
    except sqlite3.Error:
        state = _state(file)
        if state is None or state[-1]:  # What is in the log and not in the file would be missed.
            raise error from None
        return _connected(f"{place}?mode=ro&immutable=1", **options, uri=True), state


def _state(file: str) -> tuple[Any, ...] | None:
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


def _connected(address: str, *settings: str, **options: Any) -> sqlite3.Connection:
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


def _postgresql(url: URL) -> Engine:
    # A connection may have broken while the blobs of a large release were read.
    engine = create_engine(url, connect_args={"connect_timeout": 10}, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT_S}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        else:
            # All queries of a read see one state, as on SQLite. A writer needs none of this: what
            # it sees must be what the one before it left, and nobody else writes.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    return engine
