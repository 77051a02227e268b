"""Any kind of task: which ones there are, Centra's kinds say, and a further one needs no migration

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LISTED = "kind IN ('classification', 'multilabel', 'regression', 'tagging')"
ANY = "length(kind) >= 1"
TABLE = """CREATE TABLE task_versions (
    id INTEGER NOT NULL,
    task_id INTEGER NOT NULL,
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    current_of INTEGER,
    digest VARCHAR(64) NOT NULL,
    size BIGINT NOT NULL,
    backbone_id INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    input VARCHAR(6) NOT NULL,
    labels JSON NOT NULL,
    tap_layer INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    metrics JSON NOT NULL,
    created_at DATETIME NOT NULL,
    created_by VARCHAR(127) NOT NULL,
    CONSTRAINT pk_task_versions PRIMARY KEY (id),
    CONSTRAINT ck_task_versions_ck_task_versions_current CHECK (current_of IS NULL OR current_of = task_id),
    CONSTRAINT ck_task_versions_ck_task_versions_input CHECK (input IN ('single', 'pair')),
    CONSTRAINT ck_task_versions_ck_task_versions_kind CHECK ({check}),
    CONSTRAINT ck_task_versions_ck_task_versions_digest CHECK (length(digest) = 64),
    CONSTRAINT ck_task_versions_ck_task_versions_version CHECK (major >= 1 AND minor >= 0),
    CONSTRAINT ck_task_versions_ck_task_versions_layers CHECK (tap_layer >= 0 AND depth >= 0),
    CONSTRAINT fk_task_versions_backbone_id FOREIGN KEY(backbone_id) REFERENCES backbones (id),
    CONSTRAINT fk_task_versions_current_of FOREIGN KEY(current_of) REFERENCES tasks (id),
    CONSTRAINT fk_task_versions_task_id FOREIGN KEY(task_id) REFERENCES tasks (id),
    CONSTRAINT uq_task_versions_current_of UNIQUE (current_of),
    CONSTRAINT uq_task_versions_task_id_digest UNIQUE (task_id, digest),
    CONSTRAINT uq_task_versions_task_id_major_minor UNIQUE (task_id, major, minor)
)"""


def upgrade() -> None:
    change_check(ANY)


def downgrade() -> None:
    change_check(LISTED)


def change_check(check: str) -> None:
    """Put a condition into the check of a version's kind."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint("ck_task_versions_kind", "task_versions", type_="check")
        op.create_check_constraint("ck_task_versions_kind", "task_versions", check)
        return
    # SQLite changes no constraint: the table is made again, under rows that refer to it. With their
    # foreign keys deferred each of its rows settles those again that the drop has left open.
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM task_versions")
    op.execute("DROP TABLE task_versions")
    op.execute(TABLE.replace("{check}", check))
    op.execute("INSERT INTO task_versions SELECT * FROM kept")
    op.execute("DROP TABLE kept")
    for column in ("backbone_id", "digest"):
        op.create_index(f"ix_task_versions_{column}", "task_versions", [column])
