"""Which tables a database has, and bringing them to those that this code works with."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from sqlalchemy import Connection, Engine, Pool, text

from registry.database.engine import translated, writing
from registry.database.sqlite import check_exists
from registry.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "SCHEMA",
    "alembic_config",
    "check_schema",
    "current",
    "differences",
    "revision",
    "upgrade",
]

_log = logging.getLogger(__name__)

_migrated_pools: WeakSet[Pool] = WeakSet()
"""The pools of connections to databases that have been seen to have a migration."""

SCHEMA = "0009"
"""The migration that this code works with; a test holds it against the newest migration."""


def check_schema(connection: Connection) -> None:
    """Refuse a database whose tables this code does not know.

    Raises:
        DatabaseError: saying which migration it is at, and which is needed.
    """
    found = revision(connection)
    if found == SCHEMA:
        return
    if found is None:
        raise DatabaseError("the database has no Centra tables yet", code="database-empty")
    if found < SCHEMA:
        raise DatabaseError(
            f"the database is at migration {found}, this Centra needs {SCHEMA}",
            code="database-older",
            found=found,
            needed=SCHEMA,
        )
    raise DatabaseError(
        f"the database is at migration {found}, newer than this Centra's {SCHEMA}; upgrade Centra",
        code="database-newer",
        found=found,
        needed=SCHEMA,
    )


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None before the first."""
    # Alembic is asked only to migrate: importing it would double the time of a listing. Looking for
    # the table takes longer than most transactions, so it is done once for the connections of a pool.
    pool = connection.engine.pool
    if pool not in _migrated_pools:
        if not connection.dialect.has_table(connection, "alembic_version"):
            return None
        _migrated_pools.add(pool)
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
        began = time.monotonic()
        try:
            command.upgrade(alembic_config(connection), "head")
        except CommandError as error:
            raise DatabaseError(
                f"the database is at migration {found}, which this Centra does not know; "
                "is it another program's?",
                code="database-foreign",
                found=found,
            ) from error
        if found != SCHEMA:
            elapsed = time.monotonic() - began
            _log.info(
                "migrated the database from %s to %s in %.2f s",
                found or "nothing",
                SCHEMA,
                elapsed,
                extra={"before": found, "after": SCHEMA, "seconds": elapsed},
            )


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


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for this database."""
    from alembic.config import Config

    config = Config()
    # Beside this package, whatever else is called 'migrations'. In Alembic's settings % is special.
    folder = str(Path(__file__).absolute().parents[2] / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
