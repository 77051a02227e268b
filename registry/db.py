"""Engines, transactions and migrations.

Writers take turns: a writing transaction begins with ``BEGIN IMMEDIATE`` on SQLite and with one
advisory lock on PostgreSQL. They last milliseconds, because blobs are stored before. So version
and release numbers have neither gaps nor duplicates, and every decision holds until it is written.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from centra.errors import UsageError
from registry.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

__all__ = [
    "SCHEMA",
    "check_schema",
    "differences",
    "make_engine",
    "revision",
    "translated",
    "upgrade",
    "writing",
]

SCHEMA = "0001"
"""The migration that this code works with; a test holds it against the newest migration."""

_LOCK = 0x43454E545241  # "CENTRA"
_WAIT_S = 60


def make_engine(url: str) -> Engine:
    """An engine for a database address.

    Args:
        url: ``sqlite:///FILE``, ``postgresql://USER:PASSWORD@HOST/NAME``, or a file's path.

    Raises:
        UsageError: another kind of database, or no address at all.
    """
    try:
        parsed = make_url(url if "://" in url else f"sqlite:///{url}")
    except ArgumentError as error:
        raise UsageError(f"database address {url!r} is malformed") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            return _postgresql(parsed)
    raise UsageError(
        f"database {parsed.get_backend_name()!r} is not supported; use SQLite or PostgreSQL"
    )


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the writer's turn when they begin."""
    return engine.execution_options(writes=True)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors of reaching or using the database into :class:`DatabaseError`."""
    try:
        yield
    except (OperationalError, ProgrammingError) as error:
        address = engine.url.render_as_string(hide_password=True)
        cause = str(error.orig).strip().split("\n")[0]
        raise DatabaseError(f"database {address}: {cause}") from error


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


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest migration; harmless when it is there already.

    Two upgrades at once take turns, and the second finds nothing to do.

    Raises:
        DatabaseError: the database cannot be reached or refuses.
    """
    from alembic import command

    with translated(engine), writing(engine).begin() as connection:
        found = revision(connection)
        if found is not None and found > SCHEMA:
            check_schema(connection)
        command.upgrade(_alembic(connection), "head")


def differences(engine: Engine) -> list[str]:
    """How the database's tables differ from the models; empty when they agree.

    Raises:
        DatabaseError: the database cannot be reached or is not at the newest migration.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from registry.models import Base

    with translated(engine), engine.connect() as connection:
        check_schema(connection)
        context = MigrationContext.configure(connection)
        return [str(difference) for difference in compare_metadata(context, Base.metadata)]


def _alembic(connection: Connection) -> Config:
    from alembic.config import Config

    import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def _sqlite(url: Any) -> Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError("a registry needs a database file, for example sqlite:///centra.db")
    engine = create_engine(url, connect_args={"timeout": _WAIT_S})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: _begin says how each one begins.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: Any) -> Engine:
    engine = create_engine(url, connect_args={"connect_timeout": 10})

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT_S}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    return engine
