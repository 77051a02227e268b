"""``centra db``: migrations."""

from __future__ import annotations

import click

from cli.context import open_registry
from cli.output import remark


@click.group()
def db() -> None:
    """Create and migrate the database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this Centra's migration; harmless to repeat."""
    from registry.database.migrations import SCHEMA
    from registry.database.migrations import upgrade as migrate

    migrate(open_registry().engine)
    remark(f"database is at migration {SCHEMA}")


@db.command()
def check() -> None:
    """Check that the tables are those this Centra works with."""
    from registry.database.migrations import differences
    from registry.errors import DatabaseError

    differing = differences(open_registry().engine)
    if differing:
        raise DatabaseError("the tables differ from this Centra's:\n  " + "\n  ".join(differing))
    remark("database and code agree")


@db.command("current")
def current_command() -> None:
    """Print the migration that the database is at."""
    from registry.database.migrations import current

    click.echo(current(open_registry().engine) or "none")
