"""Moves of channels, evaluations, retired backbones, and a log that is chained and append-only

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    if context.is_offline_mode() and context.get_starting_revision_argument():
        raise CommandError("0002 computes digests of what is there; run: centra db upgrade")
    # One statement, which both databases know: SQLite cannot add a constraint later.
    op.execute(
        "ALTER TABLE backbones ADD COLUMN state VARCHAR(7) NOT NULL DEFAULT 'active' "
        "CONSTRAINT ck_backbones_state CHECK (state IN ('active', 'retired'))"
    )

    op.create_table(
        "channel_moves",
        sa.Column("channel", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("before_id", sa.Integer(), nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("revision >= 1", name="ck_channel_moves_revision"),
        sa.CheckConstraint(
            "kind IN ('publish', 'move', 'promote', 'rollback')", name="ck_channel_moves_kind"
        ),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name="fk_channel_moves_channel"),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name="fk_channel_moves_release_id"
        ),
        sa.ForeignKeyConstraint(["before_id"], ["releases.id"], name="fk_channel_moves_before_id"),
        sa.PrimaryKeyConstraint("channel", "revision", name="pk_channel_moves"),
    )
    op.create_index("ix_channel_moves_release_id", "channel_moves", ["release_id"], unique=False)

    op.create_table(
        "release_bases",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name="fk_release_bases_release_id"
        ),
        sa.ForeignKeyConstraint(["base_id"], ["releases.id"], name="fk_release_bases_base_id"),
        sa.PrimaryKeyConstraint("release_id", "at", name="pk_release_bases"),
    )
    op.execute(
        "INSERT INTO release_bases (release_id, base_id, at) "
        "SELECT id, base_id, created_at FROM releases WHERE base_id IS NOT NULL"
    )

    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("data", sa.String(length=64), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("by", sa.String(length=127), nullable=False),
        sa.CheckConstraint("length(data) = 64", name="ck_evaluations_data"),
        sa.CheckConstraint("examples >= 1", name="ck_evaluations_examples"),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name="fk_evaluations_release_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["task_versions.id"], name="fk_evaluations_version_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_release_id", "evaluations", ["release_id"], unique=False)
    op.create_index("ix_evaluations_version_id", "evaluations", ["version_id"], unique=False)

    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_audit_head_single"),
        sa.CheckConstraint("length(digest) = 64", name="ck_audit_head_digest"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    _record_moves()
    count, digest = _replace_events(chained=True)
    op.bulk_insert(head, [{"id": 1, "count": count, "digest": digest}])
    for statement in _GUARDS[op.get_context().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    for statement in _UNGUARDS[op.get_context().dialect.name]:
        op.execute(statement)
    _replace_events(chained=False)
    op.drop_table("audit_head")
    op.drop_table("evaluations")
    op.drop_table("release_bases")
    op.drop_table("channel_moves")
    op.execute("ALTER TABLE backbones DROP COLUMN state")


_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER audit_events_no_{change.lower()} BEFORE {change} ON audit_events "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for change in ("UPDATE", "DELETE")
    ]
    + [
        # REPLACE deletes without asking the trigger above.
        (
            "CREATE TRIGGER audit_events_no_replace BEFORE INSERT ON audit_events "
            "WHEN EXISTS (SELECT 1 FROM audit_events WHERE id = NEW.id OR digest = NEW.digest) "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    ],
    "postgresql": [
        """
        CREATE FUNCTION centra_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''the audit log is append-only''; END'
        """,
        """
        CREATE TRIGGER audit_events_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION centra_refuse_change()
        """,
    ],
}

_UNGUARDS = {
    "sqlite": [
        f"DROP TRIGGER audit_events_no_{change}" for change in ("update", "delete", "replace")
    ],
    "postgresql": [
        "DROP TRIGGER audit_events_append_only ON audit_events",
        "DROP FUNCTION centra_refuse_change()",
    ],
}


def _record_moves() -> None:
    """The history of each channel, which until now the log alone told."""
    if context.is_offline_mode():
        return
    connection = op.get_bind()
    names = ("channel", "revision", "kind", "release_id", "before_id", "by")
    moves = sa.table("channel_moves", sa.column("at", TIME), *map(sa.column, names))
    numbers = sa.table("releases", sa.column("id"), sa.column("number"))
    ids = {row.number: row.id for row in connection.execute(sa.select(numbers))}
    events = sa.table(
        "audit_events",
        *(sa.column("id"), sa.column("at", TIME), sa.column("actor"), sa.column("action")),
        *(sa.column("subject"), sa.column("details", sa.JSON())),
    )
    query = sa.select(events).where(events.c.action == "channel:move").order_by(events.c.id)
    for event in connection.execute(query).all():
        connection.execute(
            sa.insert(moves).values(
                channel=event.subject,
                revision=event.details["revision"],
                kind="publish" if event.subject == "latest" else "move",
                release_id=ids[event.details["to"]],
                before_id=ids.get(event.details["from"]),
                at=event.at,
                by=event.actor,
            )
        )


def _replace_events(*, chained: bool) -> tuple[int, str]:
    """Make the log's table anew, because SQLite cannot constrain a column that is there.

    Args:
        chained: whether the new table has digests, and ids without a gap.

    Returns:
        How many events there are, and the digest of the last.
    """
    for index in ("ix_audit_events_at", "ix_audit_events_subject"):
        op.drop_index(index, table_name="audit_events")
    op.rename_table("audit_events", "audit_events_before")
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER INDEX pk_audit_events RENAME TO pk_audit_events_before")
    chain: list[sa.schema.SchemaItem] = [
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name="ck_audit_events_digest"),
        sa.UniqueConstraint("digest", name="uq_audit_events_digest"),
    ]
    events = op.create_table(
        "audit_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=not chained,
            nullable=False,
        ),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String(length=127), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
        *(chain if chained else []),
    )
    count, digest = 0, "0" * 64
    if not context.is_offline_mode():
        before = events.to_metadata(sa.MetaData(), name="audit_events_before")
        columns = [column for column in before.c if column.name != "digest"]
        rows = op.get_bind().execute(sa.select(*columns).order_by(before.c.id))
        for count, row in enumerate(rows.mappings().all(), 1):
            values = dict(row)
            if chained:
                digest = _chain(digest, values | {"id": count})
                values |= {"id": count, "digest": digest}
            op.get_bind().execute(sa.insert(events).values(**values))
    op.drop_table("audit_events_before")
    op.create_index("ix_audit_events_at", "audit_events", ["at"], unique=False)
    op.create_index("ix_audit_events_subject", "audit_events", ["subject"], unique=False)
    return count, digest


def _chain(previous: str, event: dict[str, Any]) -> str:
    at = event["at"] if event["at"].tzinfo else event["at"].replace(tzinfo=UTC)
    link = {
        **event,
        "previous": previous,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
    }
    text = json.dumps(link, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
