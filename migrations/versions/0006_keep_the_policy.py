"""The policy, in versions that are only ever added to

Revision ID: 0006
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("version >= 1", name="ck_policies_version"),
        sa.CheckConstraint("length(digest) = 64", name="ck_policies_digest"),
        sa.PrimaryKeyConstraint("version", name="pk_policies"),
    )
    for statement in _GUARDS[op.get_context().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("policies")  # With its triggers.
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION centra_refuse_policy_change()")


_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER policies_no_{change.lower()} BEFORE {change} ON policies "
        "BEGIN SELECT RAISE(ABORT, 'versions of the policy are append-only'); END"
        for change in ("UPDATE", "DELETE")
    ]
    + [
        # REPLACE deletes without asking the trigger above.
        (
            "CREATE TRIGGER policies_no_replace BEFORE INSERT ON policies "
            "WHEN EXISTS (SELECT 1 FROM policies WHERE version = NEW.version) "
            "BEGIN SELECT RAISE(ABORT, 'versions of the policy are append-only'); END"
        )
    ],
    "postgresql": [
        """
        CREATE FUNCTION centra_refuse_policy_change() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''versions of the policy are append-only''; END'
        """,
        """
        CREATE TRIGGER policies_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON policies
        FOR EACH STATEMENT EXECUTE FUNCTION centra_refuse_policy_change()
        """,
    ],
}
