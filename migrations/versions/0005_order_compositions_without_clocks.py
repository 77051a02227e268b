"""The order of compositions, and how far it had come at each move of a channel

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)

# Until now only clocks told the order, and each client had its own. Numbers of releases were given
# in turns, so a composition came after all releases with numbers up to those that it is about.
_CARRY_OVER = """
    WITH made AS (
        SELECT id, MAX(created_at) OVER (ORDER BY number) AS at FROM releases
    )
    INSERT INTO release_bases (release_id, base_id, at)
    SELECT release_id, base_id, at FROM (
        SELECT
            before.release_id AS release_id,
            before.base_id AS base_id,
            CASE
                WHEN before.at >= release.at AND before.at >= base.at THEN before.at
                WHEN release.at >= base.at THEN release.at
                ELSE base.at
            END AS at,
            before.at AS said
        FROM release_bases_before AS before
        JOIN made AS release ON release.id = before.release_id
        JOIN made AS base ON base.id = before.base_id
    ) AS carried
    ORDER BY at, CASE WHEN release_id > base_id THEN release_id ELSE base_id END, said
"""

# A release that was moved to had been made, whatever the clocks say.
_SEEN = """
    UPDATE channel_moves SET composition = COALESCE(
        (
            SELECT MAX(release_bases.id) FROM release_bases
            WHERE release_bases.at <= channel_moves.at
            OR release_bases.id = (
                SELECT MIN(first.id) FROM release_bases AS first
                JOIN releases ON releases.id = first.release_id
                WHERE releases.id = channel_moves.release_id AND releases.base_id IS NOT NULL
            )
        ),
        0
    )
"""


def upgrade() -> None:
    _set_aside()
    op.create_table(
        "release_bases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        *_keys(),
        sa.PrimaryKeyConstraint("id", name="pk_release_bases"),
    )
    op.execute(_CARRY_OVER)
    op.drop_table("release_bases_before")
    op.create_index("ix_release_bases_release_id", "release_bases", ["release_id"], unique=False)
    # One statement, which both databases know: SQLite cannot add a constraint later.
    op.execute(
        "ALTER TABLE channel_moves ADD COLUMN composition INTEGER NOT NULL DEFAULT 0 "
        "CONSTRAINT ck_channel_moves_composition CHECK (composition >= 0)"
    )
    op.execute(_SEEN)


def downgrade() -> None:
    op.drop_column("channel_moves", "composition")
    op.drop_index("ix_release_bases_release_id", table_name="release_bases")
    _set_aside()
    op.create_table(
        "release_bases",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        *_keys(),
        sa.PrimaryKeyConstraint("release_id", "at", name="pk_release_bases"),
    )
    op.execute(
        "INSERT INTO release_bases (release_id, at, base_id) "
        "SELECT release_id, at, MAX(base_id) FROM release_bases_before GROUP BY release_id, at"
    )
    op.drop_table("release_bases_before")


def _set_aside() -> None:
    """Rename the table as it is, with what PostgreSQL names for a whole schema."""
    op.rename_table("release_bases", "release_bases_before")
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER INDEX pk_release_bases RENAME TO pk_release_bases_before")


def _keys() -> list[sa.schema.SchemaItem]:
    return [
        sa.ForeignKeyConstraint([f"{name}_id"], ["releases.id"], name=f"fk_release_bases_{name}_id")
        for name in ("release", "base")
    ]
