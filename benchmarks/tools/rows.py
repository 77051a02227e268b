"""A registry's history in bulk: the rows and events that the registry itself would have written.

Every task is registered, updated, redefined, updated again and retired, as :mod:`registry.tasks`
does it, but in one transaction and without module files: the digests are made up, so that none of
these versions can be composed.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from centra.formats.contract import Contract
from centra.formats.identities import VersionNumber
from centra.kinds import KINDS, kind_named
from registry.database.models import AuditEvent, AuditHead, Backbone, Task, TaskVersion, now
from registry.rules.chain import chain_digest
from registry.rules.replay import version_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["NUMBERS", "BulkTask", "fill"]

NUMBERS = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "2.0", "2.1", "2.2")
"""The versions of each task, in their order; the last is the current one."""

_METRICS = 2
"""So many of its kind's metrics a version reports."""
_STEP = timedelta(milliseconds=20)


@dataclass(frozen=True, kw_only=True)
class BulkTask:
    """A task to be; teams and kinds go round, so that each team has tasks of every kind."""

    number: int
    teams: int

    @property
    def name(self) -> str:
        """Sorts by number."""
        return f"bulk-{self.number:06}"

    @property
    def team(self) -> str:
        """One of so many."""
        return f"team-{self.number % self.teams:03}"

    @property
    def kind(self) -> str:
        """One of those that there are."""
        kinds = sorted(KINDS)
        return kinds[self.number // self.teams % len(kinds)]

    @property
    def actor(self) -> str:
        """Who made it, of its own team."""
        return f"{self.team}/benchmark"

    def labels(self, major: int) -> list[str]:
        """Of the first or the second contract: a redefinition brings one more."""
        if not kind_named(self.kind).has_labels:
            return []
        count = 2 + self.number % 9 + major
        if kind_named(self.kind).reads_every_token:
            return ["O", *(f"{mark}-slot{i}" for i in range(count) for mark in "BI")]
        return [f"label-{i}" for i in range(count)]

    def input(self, major: int) -> str:
        """A regression has no labels that could change: its input does."""
        return "pair" if not kind_named(self.kind).has_labels and major > 1 else "single"


def fill(registry: Registry, tasks: Sequence[BulkTask]) -> None:
    """Write tasks with their versions and events, as if each change had been made by itself.

    Args:
        registry: holds one backbone and no task.
        tasks: what to write; they end up retired.
    """
    with registry.write() as uow:
        backbone = uow.backbones()[0]
        start = now() - len(tasks) * (len(NUMBERS) + 1) * _STEP
        times = iter(start + i * _STEP for i in range(len(tasks) * (len(NUMBERS) + 1)))
        values = [_task(task) for task in tasks]
        versions, events = [], []
        for task, row in zip(tasks, values, strict=True):
            own = list(_versions(task, backbone, times))
            row["created_at"] = own[0]["created_at"]
            versions.append(own)
            retired = _event(task, next(times), "task:retire", _last(own))
            events += [*_changes(task, own, backbone.digest), retired]
        ids = uow.session.scalars(
            insert(Task).returning(Task.id, sort_by_parameter_order=True), values
        )
        for task_id, own in zip(ids.all(), versions, strict=True):
            for version in own:
                version["task_id"] = task_id
                version["current_of"] = task_id if version is own[-1] else None
        uow.session.execute(insert(TaskVersion), [version for own in versions for version in own])
        _record(uow, events)


def _task(task: BulkTask) -> dict[str, Any]:
    return {"name": task.name, "team": task.team, "state": "retired"}


def _versions(
    task: BulkTask, backbone: Backbone, times: Iterator[datetime]
) -> Iterator[dict[str, Any]]:
    chance = random.Random(task.number)  # noqa: S311 - figures that look like figures
    for number in NUMBERS:
        parsed = VersionNumber.parse(number)
        yield {
            "major": parsed.major,
            "minor": parsed.minor,
            "digest": hashlib.sha256(f"{task.name}@{number}".encode()).hexdigest(),
            "size": chance.randrange(30_000_000, 90_000_000),
            "backbone_id": backbone.id,
            "kind": task.kind,
            "input": task.input(parsed.major),
            "labels": task.labels(parsed.major),
            "tap_layer": chance.randrange(backbone.num_layers),
            "depth": 1,
            "metrics": {
                name: round(chance.uniform(0.6, 1), 6)
                for name in kind_named(task.kind).metrics[:_METRICS]
            },
            "created_at": next(times),
            "created_by": task.actor,
        }


def _changes(
    task: BulkTask, versions: Sequence[dict[str, Any]], backbone: str
) -> Iterator[dict[str, Any]]:
    """The events of registering, updating and redefining, with what each of them tells."""
    before: dict[str, Any] | None = None
    for version in versions:
        content = version_content(SimpleNamespace(**version), backbone)
        details = {"version": _number(version), "digest": version["digest"], "content": content}
        details["parity"] = 0.0
        if before is None:
            action, details = "task:register", {**details, "team": task.team}
        elif version["major"] == before["major"]:
            action, details = "task:update", {**details, "from": _number(before)}
        else:
            difference = _contract(before).difference(_contract(version)).lines()
            action = "task:redefine"
            details = {**details, "from": _number(before), "difference": difference}
        yield _event(task, version["created_at"], action, details)
        before = version


def _event(task: BulkTask, at: datetime, action: str, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": at,
        "actor": task.actor,
        "action": action,
        "subject": task.name,
        "forced": False,
        "details": details,
    }


def _record(uow: UnitOfWork, events: Sequence[dict[str, Any]]) -> None:
    """Chain the events to the log's end, as :meth:`UnitOfWork.record` does one by one."""
    head = uow.session.get_one(AuditHead, 1)
    for event in events:
        event["id"] = head.count + 1
        event["digest"] = chain_digest(head.digest, AuditEvent(**event))
        head.count, head.digest = event["id"], event["digest"]
    uow.session.execute(insert(AuditEvent), events)


def _last(versions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"version": _number(versions[-1])}


def _number(version: dict[str, Any]) -> str:
    return f"{version['major']}.{version['minor']}"


def _contract(version: dict[str, Any]) -> Contract:
    return Contract(kind=version["kind"], input=version["input"], labels=tuple(version["labels"]))
