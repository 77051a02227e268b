"""The tables. Whatever must always hold is a constraint here, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column, relationship

from centra.formats.contract import Contract
from centra.formats.identities import (  # noqa: TC001 - SQLAlchemy reads the annotations
    Digest,
    Name,
    ReleaseNumber,
    TaskName,
    VersionNumber,
)
from centra.formats.precision import Precision
from registry.rules.lifecycle import BackboneState, TaskState
from registry.rules.lineage import MoveKind

__all__ = [
    "AuditEvent",
    "AuditHead",
    "Backbone",
    "Base",
    "BlobClaim",
    "Channel",
    "ChannelMove",
    "EnumText",
    "Evaluation",
    "Identity",
    "PolicyVersion",
    "Release",
    "ReleaseBase",
    "ReleaseTask",
    "Task",
    "TaskVersion",
    "UtcTime",
    "now",
]


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, on SQLite, which forgets zones, and on PostgreSQL, which has its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> datetime | None:
        """Write a time in UTC: SQLite would keep the digits and forget the zone."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        """Give what the database returned our zone."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class EnumText(TypeDecorator[StrEnum]):
    """A text column that holds an enum's values; which those are is a constraint of its table."""

    impl = String
    cache_ok = True

    def __init__(self, values: type[StrEnum], length: int) -> None:
        super().__init__(length)
        self._values = values

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        """Write the plain text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, _dialect: Any) -> Any:
        """The enum's member; a text that no member has stays as it is, for verifying names it."""
        return next((member for member in self._values if member == value), value)


def now() -> datetime:
    """The current time in UTC, by this machine's clock; see :attr:`UnitOfWork.now` for rows."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Common to all tables: predictable constraint names, for migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


_DIGEST = String(64)
_NAME = String(63)


class Backbone(Base):
    """One version of a frozen encoder: ``minilm@1``."""

    __tablename__ = "backbones"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        CheckConstraint("length(digest) = 64", name="digest"),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("state IN ('active', 'retired')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[Name] = mapped_column(_NAME)
    version: Mapped[int]
    state: Mapped[BackboneState] = mapped_column(
        EnumText(BackboneState, 7), default=BackboneState.ACTIVE
    )
    """No module may be registered on a retired one."""
    digest: Mapped[Digest] = mapped_column(_DIGEST, unique=True)
    family: Mapped[str] = mapped_column(String(32))
    num_layers: Mapped[int]
    hidden_size: Mapped[int]
    max_length: Mapped[int]
    source: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    created_by: Mapped[str] = mapped_column(String(127))

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


class Task(Base):
    """A name owned by a team. Active tasks with their current version are the live set."""

    __tablename__ = "tasks"
    __table_args__ = (CheckConstraint("state IN ('active', 'retired')", name="state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[TaskName] = mapped_column(_NAME, unique=True)
    team: Mapped[str] = mapped_column(_NAME, index=True)
    state: Mapped[TaskState] = mapped_column(EnumText(TaskState, 7), default=TaskState.ACTIVE)
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    versions: Mapped[list[TaskVersion]] = relationship(
        foreign_keys="TaskVersion.task_id",
        back_populates="task",
        order_by="TaskVersion.major, TaskVersion.minor",
    )


class TaskVersion(Base):
    """One immutable version of a task: its module's digest, and what its spec says."""

    __tablename__ = "task_versions"
    __table_args__ = (
        UniqueConstraint("task_id", "major", "minor"),
        UniqueConstraint("task_id", "digest"),
        CheckConstraint("current_of IS NULL OR current_of = task_id", name="current"),
        CheckConstraint("length(digest) = 64", name="digest"),
        CheckConstraint("major >= 1 AND minor >= 0", name="version"),
        CheckConstraint("tap_layer >= 0 AND depth >= 0", name="layers"),
        # Which kinds there are, centra.kinds says, and every door asks it.
        CheckConstraint("length(kind) >= 1", name="kind"),
        CheckConstraint("input IN ('single', 'pair')", name="input"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    major: Mapped[int]
    minor: Mapped[int]
    current_of: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"), unique=True)
    """The task, where this is its current version: unique, so that each task has one at most."""
    digest: Mapped[Digest] = mapped_column(_DIGEST, index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    backbone_id: Mapped[int] = mapped_column(ForeignKey("backbones.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    input: Mapped[str] = mapped_column(String(6))
    labels: Mapped[list[str]] = mapped_column(JSON)
    tap_layer: Mapped[int]
    depth: Mapped[int]
    metrics: Mapped[dict[str, float]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    created_by: Mapped[str] = mapped_column(String(127))

    task: Mapped[Task] = relationship(foreign_keys=[task_id], back_populates="versions")
    backbone: Mapped[Backbone] = relationship(lazy="joined")
    number: Mapped[VersionNumber] = composite("major", "minor")

    @property
    def reference(self) -> str:
        """``task@major.minor``."""
        return f"{self.task.name}@{self.number}"

    @property
    def contract(self) -> Contract:
        """What a caller relies on."""
        return Contract.of(self)


class Release(Base):
    """A published composition, numbered from 1 and identified by its manifest's digest."""

    __tablename__ = "releases"
    __table_args__ = (
        CheckConstraint("length(digest) = 64", name="digest"),
        CheckConstraint("number >= 1", name="number"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[ReleaseNumber] = mapped_column(Integer, unique=True)
    digest: Mapped[Digest] = mapped_column(_DIGEST, unique=True)
    base_id: Mapped[int | None] = mapped_column(ForeignKey("releases.id"))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    created_by: Mapped[str] = mapped_column(String(127))

    base: Mapped[Release | None] = relationship(remote_side="Release.id")
    tasks: Mapped[list[ReleaseTask]] = relationship(back_populates="release")


class ReleaseBase(Base):
    """A composition: of which release, and onto which other.

    The same set of modules is the same release, so one may have been composed several times.
    """

    __tablename__ = "release_bases"

    id: Mapped[int] = mapped_column(primary_key=True)
    """Grows from each composition to the next: writers take turns, so this is their order."""
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), index=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("releases.id"))
    at: Mapped[datetime] = mapped_column(UtcTime)


class ReleaseTask(Base):
    """Which version of a task a release holds, and in which precision."""

    __tablename__ = "release_tasks"
    __table_args__ = (CheckConstraint("precision IN ('fp32', 'int8')", name="precision"),)

    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("task_versions.id"), index=True)
    precision: Mapped[Precision] = mapped_column(EnumText(Precision, 4), default=Precision.FP32)

    release: Mapped[Release] = relationship(back_populates="tasks")
    version: Mapped[TaskVersion] = relationship()


class Channel(Base):
    """A movable name for a release; its revision only grows."""

    __tablename__ = "channels"
    __table_args__ = (CheckConstraint("revision >= 1", name="revision"),)

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), index=True)
    revision: Mapped[int]
    moved_at: Mapped[datetime] = mapped_column(UtcTime)
    moved_by: Mapped[str] = mapped_column(String(127))

    release: Mapped[Release] = relationship()


class ChannelMove(Base):
    """One move of a channel: what it served from then on, and what before."""

    __tablename__ = "channel_moves"
    __table_args__ = (
        CheckConstraint("revision >= 1", name="revision"),
        CheckConstraint("composition >= 0", name="composition"),
        CheckConstraint("kind IN ('publish', 'move', 'promote', 'rollback')", name="kind"),
    )

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    """The channel's revision after the move."""
    kind: Mapped[MoveKind] = mapped_column(EnumText(MoveKind, 8))
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), index=True)
    before_id: Mapped[int | None] = mapped_column(ForeignKey("releases.id"))
    composition: Mapped[int]
    """The newest composition of any release by then, as :attr:`ReleaseBase.id`; 0 where there was
    none. So it can be told what the release stood on when it was moved there."""
    at: Mapped[datetime] = mapped_column(UtcTime)
    by: Mapped[str] = mapped_column(String(127))

    release: Mapped[Release] = relationship(foreign_keys=[release_id])
    before: Mapped[Release | None] = relationship(foreign_keys=[before_id])


class Identity(Base):
    """Which registry this is, and which store it writes to: one row."""

    __tablename__ = "identity"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        CheckConstraint("length(registry_id) = 32 AND length(store_id) = 32", name="length"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    registry_id: Mapped[str] = mapped_column(String(32))
    store_id: Mapped[str] = mapped_column(String(32))
    """What the document at the store's root must say, too; see :mod:`registry.storage.identity`."""


class BlobClaim(Base):
    """What an operation is about to do with a blob, or has done; see :mod:`registry.storage.claims`."""

    __tablename__ = "blob_claims"
    __table_args__ = (
        CheckConstraint("length(digest) = 64", name="digest"),
        CheckConstraint("purpose IN ('store', 'remove', 'removed')", name="purpose"),
    )

    operation: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    purpose: Mapped[str] = mapped_column(String(7))
    at: Mapped[datetime] = mapped_column(UtcTime)
    """By the database's clock."""
    size: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of a blob whose removal the log does not show yet."""


class Evaluation(Base):
    """A version measured on data, inside a release: one run of ``centra release evaluate``."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("length(data) = 64", name="data"),
        CheckConstraint("examples >= 1", name="examples"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), index=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("task_versions.id"), index=True)
    data: Mapped[str] = mapped_column(_DIGEST)
    """The fingerprint of the examples that it was measured on."""
    engine: Mapped[str | None] = mapped_column(String(127))
    """What computed it, with its version; None where it was measured before this was recorded."""
    examples: Mapped[int]
    metrics: Mapped[dict[str, float]] = mapped_column(JSON)
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)
    """See :class:`centra.evaluation.summary.Summary`; None where it was measured before one was kept."""
    outcomes: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    """See :mod:`centra.evaluation.outcomes`; None where it was measured before they were kept, or where
    they are too many."""
    at: Mapped[datetime] = mapped_column(UtcTime)
    by: Mapped[str] = mapped_column(String(127))

    release: Mapped[Release] = relationship()
    version: Mapped[TaskVersion] = relationship()


class PolicyVersion(Base):
    """The rules as they were applied once; the newest are in force.

    The database refuses to update or delete a row.
    """

    __tablename__ = "policies"
    __table_args__ = (
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("length(digest) = 64", name="digest"),
    )

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counts from 1 without a gap."""
    rules: Mapped[dict[str, Any]] = mapped_column(JSON)
    """As :meth:`registry.rules.policy.Policy.rules` gives them."""
    digest: Mapped[str] = mapped_column(_DIGEST)
    """Of the rules as canonical JSON."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    created_by: Mapped[str] = mapped_column(String(127))


class AuditEvent(Base):
    """One change, written in the same transaction as the change itself.

    The database refuses to update or delete a row; see :mod:`registry.audit` for the chain.
    """

    __tablename__ = "audit_events"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    """Counts from 1 without a gap."""
    at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    actor: Mapped[str] = mapped_column(String(127))
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(127), index=True)
    """The task, backbone, release or channel, without a version."""
    forced: Mapped[bool] = mapped_column(default=False)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    digest: Mapped[str] = mapped_column(_DIGEST, unique=True)
    """Over this event and the digest of the one before it."""


class AuditHead(Base):
    """Where the log ends: its one row shows events that were cut off at the end."""

    __tablename__ = "audit_head"
    __table_args__ = (
        CheckConstraint("id = 1", name="single"),
        CheckConstraint("length(digest) = 64", name="digest"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(_DIGEST)
