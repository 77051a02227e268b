"""How Alembic reaches the database: on the caller's connection, or from Centra's own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from alembic import context

from registry.database.engine import make_engine, writing
from registry.database.models import Base, UtcTime
from registry.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our column type into new migrations as what it is in the database."""
    if kind == "type" and isinstance(item, UtcTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=_render,
    )
    # The surrounding transaction holds the writer's turn: of two upgrades started at once, the
    # second begins when the first is done, and reads the state it left.
    context.run_migrations()


if context.is_offline_mode():
    context.configure(
        dialect_name=make_engine(Settings.load().database).dialect.name,
        target_metadata=Base.metadata,
        literal_binds=True,
    )
    context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    engine = make_engine(Settings.load().database)
    with writing(engine).begin() as opened:
        _run(opened)
    engine.dispose()
