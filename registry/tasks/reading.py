"""Reading tasks: the list, one with its versions, its history, and how two versions differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.errors import UsageError
from centra.formats.names import parse_task_reference
from registry import audit
from registry.database.listing import by_name, is_backbone, metric, paged, within
from registry.database.models import Backbone, Task, TaskVersion
from registry.versions import VersionRow, compare_modules, version_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from centra.formats.contract import ContractDifference
    from centra.formats.decision import DecisionChange
    from centra.formats.identities import TaskName, VersionNumber
    from registry.audit import Event
    from registry.connection import Registry
    from registry.database.listing import MetricBound, Moment
    from registry.rules.lifecycle import TaskState

__all__ = ["TaskDetail", "TaskDifference", "TaskRow", "diff", "history", "list_tasks", "show"]


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task with its current version, as listed."""

    name: TaskName
    team: str
    state: TaskState
    version: VersionNumber
    kind: str
    input: str
    backbone: str
    tap_layer: int
    depth: int
    metrics: dict[str, float]
    created_at: datetime
    """When this version was made."""


@dataclass(frozen=True, kw_only=True)
class TaskDetail:
    """A task with all its versions."""

    name: TaskName
    team: str
    state: TaskState
    current: VersionNumber
    versions: list[VersionRow]


@dataclass(frozen=True, kw_only=True)
class TaskDifference:
    """How two versions of a task differ."""

    task: TaskName
    before: VersionRow
    after: VersionRow
    contract: ContractDifference
    decision: list[DecisionChange]
    tensors_changed: list[str]
    tensors_same: int


def list_tasks(
    registry: Registry,
    *,
    team: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    backbone: str | None = None,
    metrics: Sequence[MetricBound] = (),
    since: Moment | None = None,
    until: Moment | None = None,
    sort: str = "name",
    reverse: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> list[TaskRow]:
    """Tasks with their current versions.

    Args:
        registry: where.
        team, kind, state: keep only these.
        backbone: keep tasks on this backbone, ``name`` or ``name@version``.
        metrics: keep tasks whose current version reports each metric within its bound.
        since, until: keep tasks whose current version was made at ``since`` or later, and before
            ``until``; times, or how long ago.
        sort: ``name`` or ``team`` from a to z, ``created`` with the newest version first, or a
            metric, the highest first and tasks that do not report it last; ties go by name.
        reverse: turn that round; ties still go by name, and what is not reported still comes last.
        limit, offset: give at most so many, after leaving out so many.

    Raises:
        UsageError: a metric's name, the limit or the offset is not acceptable.
        DatabaseError: the registry cannot be used.
    """
    encoder, encoder_version = Backbone.name.label("encoder"), Backbone.version.label("of_encoder")
    query = (
        # Columns, not entities: no labels are read, and no object is made for a row.
        select(
            *(Task.name, Task.team, Task.state, TaskVersion.number),
            *(TaskVersion.kind, TaskVersion.input, encoder, encoder_version, TaskVersion.tap_layer),
            *(TaskVersion.depth, TaskVersion.metrics, TaskVersion.created_at),
        )
        .join(TaskVersion, TaskVersion.current_of == Task.id)
        .join(TaskVersion.backbone)
        .where(*(bound.holds(registry, TaskVersion.metrics) for bound in metrics))
    )
    for column, wanted in ((Task.team, team), (Task.state, state), (TaskVersion.kind, kind)):
        if wanted is not None:
            query = query.where(column == wanted)
    if backbone is not None:
        query = query.where(is_backbone(backbone))
    if kind or backbone or metrics or since or until or sort not in ("name", "team"):
        # The join says so too; said again, it leads databases past all earlier versions.
        query = query.where(TaskVersion.current_of > 0)
    first = _order(registry, sort, reverse=reverse)
    query = paged(query.order_by(first, by_name(registry, Task.name)), limit, offset)
    with registry.read() as uow:
        query = within(uow, query, TaskVersion.created_at, since, until)
        return [
            TaskRow(
                name=row.name,
                team=row.team,
                state=row.state,
                version=row.number,
                kind=row.kind,
                input=row.input,
                backbone=f"{row.encoder}@{row.of_encoder}",
                tap_layer=row.tap_layer,
                depth=row.depth,
                metrics=row.metrics,
                created_at=row.created_at,
            )
            for row in uow.session.execute(query)
        ]


def show(registry: Registry, reference: str) -> TaskDetail:
    """A task with its versions, or with the one that ``name@major.minor`` names.

    Raises:
        TaskNotFoundError: there is no such task or version.
        DatabaseError: the registry cannot be used.
    """
    name, number = parse_task_reference(reference)
    with registry.read() as uow:
        task = uow.task(name)
        versions = task.versions if number is None else [uow.version(name, number)]
        return TaskDetail(
            name=task.name,
            team=task.team,
            state=task.state,
            current=uow.current(task).number,
            versions=[version_row(version) for version in versions],
        )


def history(registry: Registry, name: str) -> list[Event]:
    """What happened to a task, the oldest first.

    Raises:
        TaskNotFoundError: there is no such task.
        DatabaseError: the registry cannot be used.
    """
    return audit.events(registry, task=name)


def diff(registry: Registry, before: str, after: str) -> TaskDifference:
    """Compare two versions of one task, down to which tensors differ.

    Args:
        registry: where.
        before, after: ``name@major.minor``; ``name`` alone is the current version.

    Raises:
        UsageError: two different tasks.
        TaskNotFoundError: there is no such task or version.
        BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: they cannot be read.
    """
    (name, first), (other, second) = (
        parse_task_reference(reference) for reference in (before, after)
    )
    if name != other:
        raise UsageError(f"{before} and {after} are different tasks; compare versions of one")
    with registry.read() as uow:
        old, new = uow.version(name, first), uow.version(name, second)
        rows = version_row(old), version_row(new)
        contract = old.contract.difference(new.contract)
    modules = compare_modules(registry.store, rows[0].digest, rows[1].digest)
    return TaskDifference(
        task=name,
        before=rows[0],
        after=rows[1],
        contract=contract,
        decision=modules.decision,
        tensors_changed=modules.tensors_changed,
        tensors_same=modules.tensors_same,
    )


def _order(registry: Registry, sort: str, *, reverse: bool) -> ColumnElement[Any]:
    """What tasks are ordered by first; see :func:`list_tasks`."""
    match sort:
        case "name" | "team":
            named = Task.name if sort == "name" else Task.team
            column: ColumnElement[Any] = by_name(registry, named)
            descending = reverse
        case "created":
            column, descending = TaskVersion.id.expression, not reverse
        case _:
            column, descending = metric(registry, TaskVersion.metrics, sort), not reverse
    return (column.desc() if descending else column.asc()).nulls_last()
