"""Any kind of task: which ones there are, Centra's kinds say, and a further one needs no migration

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LISTED = "kind IN ('classification', 'multilabel', 'regression', 'tagging')"
ANY = "length(kind) >= 1"


def upgrade() -> None:
    change_check(LISTED, ANY)


def downgrade() -> None:
    change_check(ANY, LISTED)


def change_check(before: str, after: str) -> None:
    """Put another condition into the check of a version's kind."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint("ck_task_versions_kind", "task_versions", type_="check")
        op.create_check_constraint("ck_task_versions_kind", "task_versions", after)
        return
    if context.is_offline_mode():
        raise CommandError("0008 makes a table again on SQLite; run: centra db upgrade")
    connection = op.get_bind()
    # SQLite changes no constraint: the table is made again, under rows that refer to it. With their
    # foreign keys deferred each of its rows settles those again that the drop has left open.
    connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
    query = sa.text(
        "SELECT type, sql FROM sqlite_master WHERE tbl_name = 'task_versions' AND sql IS NOT NULL"
    )
    statements = connection.execute(query).all()
    (table,) = (sql for kind, sql in statements if kind == "table")
    if before not in table:
        raise CommandError(f"task_versions has no check {before}")
    rows = "CREATE TEMPORARY TABLE kept AS SELECT * FROM task_versions"
    for sql in (
        rows,
        "DROP TABLE task_versions",
        table.replace(before, after),
        "INSERT INTO task_versions SELECT * FROM kept",
        "DROP TABLE kept",
        *(sql for kind, sql in statements if kind != "table"),
    ):
        connection.exec_driver_sql(sql)
