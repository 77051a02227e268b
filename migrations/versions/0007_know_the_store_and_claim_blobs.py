"""Which registry and which store this is, and what operations are about to do with blobs

Revision ID: 0007
Revises: 0004
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = op.create_table(
        "identity",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("registry_id", sa.String(length=32), nullable=False),
        sa.Column("store_id", sa.String(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_identity_single"),
        sa.CheckConstraint(
            "length(registry_id) = 32 AND length(store_id) = 32", name="ck_identity_length"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_identity"),
    )
    registry_id, store_id = uuid.uuid4().hex, uuid.uuid4().hex
    op.bulk_insert(identity, [{"id": 1, "registry_id": registry_id, "store_id": store_id}])
    op.create_table(
        "blob_claims",
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=7), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(digest) = 64", name="ck_blob_claims_digest"),
        sa.CheckConstraint(
            "purpose IN ('store', 'remove', 'removed')", name="ck_blob_claims_purpose"
        ),
        sa.PrimaryKeyConstraint("operation", "digest", name="pk_blob_claims"),
    )


def downgrade() -> None:
    op.drop_table("blob_claims")
    op.drop_table("identity")
