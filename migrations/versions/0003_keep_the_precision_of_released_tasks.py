"""The precision in which a release holds each task

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One statement, which both databases know: SQLite cannot add a constraint later.
    op.execute(
        "ALTER TABLE release_tasks ADD COLUMN precision VARCHAR(4) NOT NULL DEFAULT 'fp32' "
        "CONSTRAINT ck_release_tasks_precision CHECK (precision IN ('fp32', 'int8'))"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE release_tasks DROP COLUMN precision")
