"""One transaction, and the questions a use case may ask in it.

A read sees one consistent state. A write ends by itself: committed when its block ends, rolled back
when it raises; its audit event lies inside it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import false, func, select
from sqlalchemy.orm import aliased, contains_eager

from centra.errors import NotFoundError
from registry.database.models import (
    AuditEvent,
    AuditHead,
    Backbone,
    Channel,
    Identity,
    Release,
    ReleaseBase,
    ReleaseTask,
    Task,
    TaskVersion,
    UtcTime,
    now,
)
from registry.errors import TaskNotFoundError
from registry.rules.chain import chain_digest
from registry.rules.lifecycle import TaskState
from registry.rules.lineage import Composed
from registry.rules.released_version import ReleasedVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from centra.formats.identities import Digest, VersionNumber
    from centra.formats.precision import Precision
    from registry.rules.lifecycle import Actor

__all__ = ["UnitOfWork"]

_NEW_VERSIONS = ("task:register", "task:update", "task:redefine")
"""The actions that make a version of a task."""


class UnitOfWork:
    """The registry's content as seen and changed by one transaction."""

    def __init__(self, session: Session, actor: Actor) -> None:
        self.session = session
        self.actor = actor

    @cached_property
    def now(self) -> datetime:
        """The time of this transaction, for every row that it writes, and to count back from.

        PostgreSQL's own, or of SQLite this machine's: one clock, whoever writes. And never earlier
        than the last event, so that times only grow along the log, also where a clock was set back.
        """
        with self.session.no_autoflush:  # What is being made may lack just this time.
            return self._now()

    def clock(self) -> datetime:
        """What time it is now by the database's clock: PostgreSQL's own, of SQLite this machine's."""
        if self.session.get_bind().dialect.name == "postgresql":
            # Not the time of the transaction's begin: it may have waited for its turn since.
            return self.session.scalar(select(func.clock_timestamp(type_=UtcTime))) or now()
        return now()

    def _now(self) -> datetime:
        here = self.clock()
        ended = select(AuditHead.count).where(AuditHead.id == 1).scalar_subquery()
        last = self.session.scalar(select(AuditEvent.at).where(AuditEvent.id == ended))
        return here if last is None else max(here, last)

    def record(
        self, action: str, subject: str, details: dict[str, Any], *, forced: bool = False
    ) -> None:
        """Write the audit event of a change, in the change's own transaction.

        Args:
            action: ``noun:verb``, e.g. ``task:register``.
            subject: the name of what changed.
            details: plain values.
            forced: whether the actor overrode an ownership check.
        """
        head = self.session.get_one(AuditHead, 1)
        event = AuditEvent(
            id=head.count + 1,
            at=self.now,
            actor=str(self.actor),
            action=action,
            subject=subject,
            details=details,
            forced=forced,
        )
        # Writers take turns, so nobody else links to the same head.
        head.count, head.digest = event.id, chain_digest(head.digest, event)
        event.digest = head.digest
        self.session.add(event)

    def identity(self) -> tuple[str, str]:
        """This registry's identity, and that of the store that it writes to."""
        found = self.session.get_one(Identity, 1)
        return found.registry_id, found.store_id

    def digests(self) -> set[str]:
        """All digests that rows name: of versions, releases and backbones, without their parts."""
        columns = (TaskVersion.digest, Release.digest, Backbone.digest)
        return {digest for column in columns for digest in self.session.scalars(select(column))}

    def task(self, name: str) -> Task:
        """The task of this name.

        Raises:
            TaskNotFoundError: there is none.
        """
        task = self.find_task(name)
        if task is None:
            raise TaskNotFoundError(f"there is no task {name!r}", task=name)
        return task

    def find_task(self, name: str) -> Task | None:
        """The task of this name, or None."""
        return self.session.scalar(select(Task).where(Task.name == name))

    def version(self, name: str, number: VersionNumber | None) -> TaskVersion:
        """A version of a task; the current one where no number is given.

        Raises:
            TaskNotFoundError: there is no such task or version.
        """
        task = self.task(name)
        if number is None:
            return self.current(task)
        query = select(TaskVersion).where(
            TaskVersion.task_id == task.id, TaskVersion.number == number
        )
        found = self.session.scalar(query)
        if found is not None:
            return found
        known = ", ".join(str(version.number) for version in task.versions)
        raise TaskNotFoundError(
            f"task {name} has no version {number}; it has {known}",
            code="version-not-found",
            task=name,
            version=str(number),
        )

    def version_by_digest(self, task: Task, digest: Digest) -> TaskVersion | None:
        """The version of a task that is the module of this digest, or None."""
        query = select(TaskVersion).where(
            TaskVersion.task_id == task.id, TaskVersion.digest == digest
        )
        return self.session.scalar(query)

    def current(self, task: Task) -> TaskVersion:
        """The version in force."""
        return self.session.scalars(
            select(TaskVersion).where(TaskVersion.current_of == task.id)
        ).one()

    def live(self) -> dict[str, TaskVersion]:
        """The live set: the current version of every active task, by name."""
        rows = self.session.scalars(
            select(TaskVersion)
            .join(TaskVersion.task)
            .options(contains_eager(TaskVersion.task))
            .where(Task.state == TaskState.ACTIVE, TaskVersion.current_of.is_not(None))
            .order_by(Task.name)
        )
        return {version.task.name: version for version in rows}

    def backbone(self, reference: str) -> Backbone:
        """A backbone by ``name`` (its newest version) or ``name@version``.

        Raises:
            NotFoundError: there is none.
        """
        name, at, version = reference.partition("@")
        query = select(Backbone).where(Backbone.name == name).order_by(Backbone.version.desc())
        if at:
            number = int(version) if version.isdecimal() and len(version) < 10 else 0
            query = query.where(Backbone.version == number)
        found = self.session.scalars(query).first()
        if found is None:
            raise NotFoundError(
                f"there is no backbone {reference!r}", code="backbone-not-found", backbone=reference
            )
        return found

    def backbone_by_digest(self, digest: str) -> Backbone | None:
        """The backbone of this digest, or None."""
        return self.session.scalar(select(Backbone).where(Backbone.digest == digest))

    def backbones(self) -> list[Backbone]:
        """All backbones, by name, the newest version of each first."""
        query = select(Backbone).order_by(Backbone.name, Backbone.version.desc())
        return list(self.session.scalars(query))

    def channel(self, name: str) -> Channel | None:
        """The channel of this name, or None."""
        return self.session.get(Channel, name)

    def release(self, reference: str) -> Release:
        """A release by its number, a channel's name, or the start of its digest.

        Raises:
            NotFoundError: there is none, or several digests start so.
        """
        if reference.isdecimal() and len(reference) < 10:
            query = select(Release).where(Release.number == int(reference))
        elif channel := self.channel(reference):
            return channel.release
        elif len(reference) >= 8 and set(reference) <= set("0123456789abcdef"):
            query = select(Release).where(Release.digest.startswith(reference))
        else:
            query = select(Release).where(false())
        found = list(self.session.scalars(query.limit(2)))
        if len(found) != 1:
            raise NotFoundError(
                f"there is no release {reference!r}; expected a number, a channel or a digest of "
                "at least 8 digits (a release folder is written ./NAME)",
                code="release-not-found",
                release=reference,
            )
        return found[0]

    def release_by_digest(self, digest: str) -> Release | None:
        """The release of this digest, or None."""
        return self.session.scalar(select(Release).where(Release.digest == digest))

    def tasks_of(self, release: Release) -> dict[str, tuple[TaskVersion, Precision]]:
        """What a release holds: a version and its precision per task name."""
        rows = self.session.execute(
            select(TaskVersion, ReleaseTask.precision)
            .join(ReleaseTask, ReleaseTask.version_id == TaskVersion.id)
            .join(TaskVersion.task)
            .options(contains_eager(TaskVersion.task))
            .where(ReleaseTask.release_id == release.id)
            .order_by(Task.name)
        )
        return {version.task.name: (version, precision) for version, precision in rows}

    def versions_of(self, release: Release) -> dict[str, TaskVersion]:
        """The versions alone."""
        return {name: version for name, (version, _) in self.tasks_of(release).items()}

    def released_versions(self, release: Release) -> dict[str, ReleasedVersion]:
        """The same as plain values."""
        return {
            name: ReleasedVersion(
                number=version.number,
                digest=version.digest,
                contract=version.contract,
                precision=precision,
            )
            for name, (version, precision) in self.tasks_of(release).items()
        }

    def compositions(self) -> dict[int, list[Composed]]:
        """Per release number what it was composed onto, the latest first."""
        release, base = aliased(Release), aliased(Release)
        query = (
            select(release.number, base.number, ReleaseBase.id)
            .select_from(ReleaseBase)
            .join(release, ReleaseBase.release_id == release.id)
            .join(base, ReleaseBase.base_id == base.id)
            .order_by(ReleaseBase.id.desc())
        )
        found: dict[int, list[Composed]] = {}
        for number, onto, order in self.session.execute(query):
            found.setdefault(number, []).append(Composed(base=onto, order=order))
        return found

    def newest_composition(self) -> int:
        """The order of the newest composition of any release; 0 before the first."""
        return self.session.scalar(select(func.max(ReleaseBase.id))) or 0

    def with_checked_parity(self, versions: Iterable[TaskVersion]) -> set[int]:
        """Ids of those versions whose parity has been checked.

        It was when the module came in, as the log then says; or before the first release that holds
        it.
        """
        ids = {version.id: version for version in versions}
        query = select(ReleaseTask.version_id).where(ReleaseTask.version_id.in_(ids)).distinct()
        held = set(self.session.scalars(query))
        others = {i: version for i, version in ids.items() if i not in held}
        events = select(AuditEvent.subject, AuditEvent.details).where(
            AuditEvent.subject.in_({version.task.name for version in others.values()}),
            AuditEvent.action.in_(_NEW_VERSIONS),
            AuditEvent.details["digest"].as_string().in_({v.digest for v in others.values()}),
        )
        said = {
            (name, details["digest"])
            for name, details in self.session.execute(events)
            if "parity" in details
        }
        return held | {i for i, v in others.items() if (v.task.name, v.digest) in said}

    def source_of(self, version: TaskVersion) -> str | None:
        """Where a version's module was fetched from, as the log says; None where it lay with its owner."""
        events = select(AuditEvent.details).where(
            AuditEvent.subject == version.task.name,
            AuditEvent.action.in_(_NEW_VERSIONS),
            AuditEvent.details["digest"].as_string() == version.digest,
        )
        details = self.session.scalars(events).first()
        return None if details is None else details.get("source")
