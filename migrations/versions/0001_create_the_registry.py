"""Create the registry

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=127), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"], unique=False)
    op.create_index("ix_audit_events_subject", "audit_events", ["subject"], unique=False)

    op.create_table(
        "backbones",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=32), nullable=False),
        sa.Column("num_layers", sa.Integer(), nullable=False),
        sa.Column("hidden_size", sa.Integer(), nullable=False),
        sa.Column("max_length", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name="ck_backbones_digest"),
        sa.CheckConstraint("version >= 1", name="ck_backbones_version"),
        sa.PrimaryKeyConstraint("id", name="pk_backbones"),
        sa.UniqueConstraint("digest", name="uq_backbones_digest"),
        sa.UniqueConstraint("name", "version", name="uq_backbones_name_version"),
    )
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name="ck_releases_digest"),
        sa.CheckConstraint("number >= 1", name="ck_releases_number"),
        sa.ForeignKeyConstraint(["base_id"], ["releases.id"], name="fk_releases_base_id"),
        sa.PrimaryKeyConstraint("id", name="pk_releases"),
        sa.UniqueConstraint("digest", name="uq_releases_digest"),
        sa.UniqueConstraint("number", name="uq_releases_number"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=7), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('active', 'retired')", name="ck_tasks_state"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("name", name="uq_tasks_name"),
    )
    op.create_index("ix_tasks_team", "tasks", ["team"], unique=False)

    op.create_table(
        "channels",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved_by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("revision >= 1", name="ck_channels_revision"),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name="fk_channels_release_id"),
        sa.PrimaryKeyConstraint("name", name="pk_channels"),
    )
    op.create_index("ix_channels_release_id", "channels", ["release_id"], unique=False)

    op.create_table(
        "task_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("minor", sa.Integer(), nullable=False),
        sa.Column("current_of", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("backbone_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("input", sa.String(length=6), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("tap_layer", sa.Integer(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=127), nullable=False),
        sa.CheckConstraint(
            "current_of IS NULL OR current_of = task_id", name="ck_task_versions_current"
        ),
        sa.CheckConstraint("input IN ('single', 'pair')", name="ck_task_versions_input"),
        sa.CheckConstraint(
            "kind IN ('classification', 'multilabel', 'regression', 'tagging')",
            name="ck_task_versions_kind",
        ),
        sa.CheckConstraint("length(digest) = 64", name="ck_task_versions_digest"),
        sa.CheckConstraint("major >= 1 AND minor >= 0", name="ck_task_versions_version"),
        sa.CheckConstraint("tap_layer >= 0 AND depth >= 0", name="ck_task_versions_layers"),
        sa.ForeignKeyConstraint(
            ["backbone_id"], ["backbones.id"], name="fk_task_versions_backbone_id"
        ),
        sa.ForeignKeyConstraint(["current_of"], ["tasks.id"], name="fk_task_versions_current_of"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_versions_task_id"),
        sa.PrimaryKeyConstraint("id", name="pk_task_versions"),
        sa.UniqueConstraint("current_of", name="uq_task_versions_current_of"),
        sa.UniqueConstraint("task_id", "digest", name="uq_task_versions_task_id_digest"),
        sa.UniqueConstraint(
            "task_id", "major", "minor", name="uq_task_versions_task_id_major_minor"
        ),
    )
    op.create_index("ix_task_versions_backbone_id", "task_versions", ["backbone_id"], unique=False)
    op.create_index("ix_task_versions_digest", "task_versions", ["digest"], unique=False)

    op.create_table(
        "release_tasks",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name="fk_release_tasks_release_id"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_release_tasks_task_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["task_versions.id"], name="fk_release_tasks_version_id"
        ),
        sa.PrimaryKeyConstraint("release_id", "task_id", name="pk_release_tasks"),
    )
    op.create_index("ix_release_tasks_version_id", "release_tasks", ["version_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_release_tasks_version_id", table_name="release_tasks")

    op.drop_table("release_tasks")
    op.drop_index("ix_task_versions_digest", table_name="task_versions")
    op.drop_index("ix_task_versions_backbone_id", table_name="task_versions")

    op.drop_table("task_versions")
    op.drop_index("ix_channels_release_id", table_name="channels")

    op.drop_table("channels")
    op.drop_index("ix_tasks_team", table_name="tasks")

    op.drop_table("tasks")
    op.drop_table("releases")
    op.drop_table("backbones")
    op.drop_index("ix_audit_events_subject", table_name="audit_events")
    op.drop_index("ix_audit_events_at", table_name="audit_events")

    op.drop_table("audit_events")
