"""What came of each row of a measurement, and a summary of its report

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("summary", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("evaluations", sa.Column("outcomes", sa.LargeBinary, nullable=True))


def downgrade() -> None:
    op.drop_column("evaluations", "outcomes")
    op.drop_column("evaluations", "summary")
