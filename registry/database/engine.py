"""Engines, and how their transactions begin.

Writers take turns: a writing transaction begins with ``BEGIN IMMEDIATE`` on SQLite and with one
advisory lock on PostgreSQL. They last milliseconds, because blobs are stored before. So version
and release numbers have neither gaps nor duplicates, and every decision holds until it is written.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, Pool, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError

from centra.system.forks import after_fork_in_child
from centra.system.redaction import redacted
from registry.database.address import address_text, parse_address
from registry.database.sqlite import LOCK_WAIT_S, UNWRITABLE, is_unwritable, sqlite_engine
from registry.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["make_engine", "translated", "writing"]

_LOCK = 0x43454E545241  # "CENTRA"


def make_engine(address: str) -> Engine:
    """An engine for a database address.

    Args:
        address: a file's path, ``sqlite:///PATH``, or ``postgresql://USER:PASSWORD@HOST/NAME``; see
            :mod:`registry.database.address`.

    Raises:
        UsageError: another kind of database, or no address at all.
    """
    url = parse_address(address)
    engine = sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
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
        advice = f". {UNWRITABLE}" if is_unwritable(error.orig) else ""
        raise DatabaseError(f"database {address_text(engine.url)}: {cause}{advice}") from error


def _leave_connections(engine: Engine) -> None:
    """Begin anew in a forked process: its parent's connections must be neither used nor closed."""
    _left.append(engine.pool)
    engine.dispose(close=False)


_left: list[Pool] = []


def _postgresql(url: URL) -> Engine:
    # A connection may have broken while the blobs of a large release were read.
    engine = create_engine(url, connect_args={"connect_timeout": 10}, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        else:
            # All queries of a read see one state, as on SQLite. A writer needs none of this: what
            # it sees must be what the one before it left, and nobody else writes.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    return engine
