"""Tasks and their versions: registering, updating, redefining, retiring, and reading them.

Registering reads straight down: check the file, decide, claim and store the blob, decide again inside
the writing transaction, write the row and its audit event. The first decision is there so that nothing
is stored for a request that will be refused; the second is the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import object_session

from centra.errors import ConflictError, UsageError
from centra.formats.names import parse_name, parse_task_name, split_reference
from centra.progress import Progress, silent
from registry.database.listing import by_name, is_backbone, metric, paged, within
from registry.database.models import Backbone, Task, TaskVersion
from registry.errors import ContractChangedError, TaskExistsError
from registry.intake import Checkpoint, check_open, checked_module
from registry.rules.lifecycle import check_owner, next_version
from registry.rules.replay import version_content
from registry.storage.claims import storing
from registry.versions import VersionRow, compare_tensors, version_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import ColumnElement

    from centra.formats.contract import ContractDifference
    from centra.formats.task_module import ModuleFile
    from centra.store import BlobProblem
    from registry.connection import Registry
    from registry.database.listing import MetricBound, Moment
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lifecycle import Actor

__all__ = [
    "Outcome",
    "TaskDetail",
    "TaskDifference",
    "TaskRow",
    "Way",
    "admit",
    "diff",
    "list_all",
    "pin",
    "redefine",
    "register",
    "restore",
    "retire",
    "show",
    "update",
    "way_in",
]

Way = Literal["register", "update", "redefine"]
"""How a module becomes a version of a task."""


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task with its current version, as listed."""

    name: str
    team: str
    state: str
    version: str
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

    name: str
    team: str
    state: str
    current: str
    versions: list[VersionRow]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a change of a task led to."""

    task: str
    version: str
    changed: bool
    """False where the registry said so already."""
    forced: bool = False
    state: str = "active"
    """The task's: a retired one stays out of the live set, whatever version is current."""
    mended: BlobProblem | None = None
    """What was wrong with the version's file, which has been put back."""


@dataclass(frozen=True, kw_only=True)
class TaskDifference:
    """How two versions of a task differ."""

    task: str
    before: VersionRow
    after: VersionRow
    contract: ContractDifference
    tensors_changed: list[str]
    tensors_same: int


def register(
    registry: Registry,
    name: str,
    source: Path,
    *,
    team: str | None = None,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Register a new task with its first version, 1.0.

    Args:
        registry: where.
        name: the task's name.
        source: a task module file, or a fine-tuned Hugging Face checkpoint's folder.
        team: the owner; default the actor's team.
        checkpoint: how to read a folder.
        force: act for another team.
        progress: told of a checkpoint's conversion.

    Returns:
        The version; unchanged where these bytes are the current version of this active task already.

    Raises:
        InvalidNameError, UsageError: the name or the team is not acceptable or missing.
        FormatError, IncompatibleError: the file cannot be used; nothing is stored.
        ComposeError: on its probe the module does not give the logits that it recorded.
        NotFoundError: there is no such file, or its backbone is not registered.
        TaskExistsError: the name is taken by other bytes, or by another team.
        ConflictError: these bytes are a version already, and not what the task answers with.
        NotOwnerError: the actor is of another team.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    parse_task_name(name)
    owner = parse_name(team, "team name") if team else registry.actor.team
    if owner is None:
        raise UsageError("say which team owns the task: --team TEAM")
    forced = _check_founder(registry.actor, name, owner, force=force)

    def decide(uow: UnitOfWork, module: ModuleFile) -> TaskVersion | None:
        task = uow.find_task(name)
        if task is None:
            return None
        same = _same_bytes(task, module)
        if same is None:
            raise TaskExistsError(
                f"task {name} exists (team {task.team}, version {uow.current(task).number}). "
                f"For new weights with the same labels: centra task update {name} FILE; "
                f"for another label set, kind or input: centra task redefine {name} FILE"
            )
        if task.team != owner:
            raise TaskExistsError(
                f"task {name} belongs to team {task.team}, not to {owner}; these bytes are its "
                f"version {same.number}. Choose another name, or leave it to that team."
            )
        return same

    registry.check_store()
    with checked_module(registry, name, source, checkpoint, progress) as module:
        with registry.read() as uow:
            known = decide(uow, module)
        fault = registry.store.find_problem(module.digest) if known else None
        with storing(registry, {module.digest: module.path}) as uow:
            same = decide(uow, module)
            if same is not None:
                return _repeated(uow, same, fault)
            return _add_task(uow, name, owner, module, forced=forced)


def update(
    registry: Registry,
    name: str,
    source: Path,
    *,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Give a task new weights under the same contract: the next minor version.

    Args and errors are those of :func:`register`, and:

    Raises:
        TaskNotFoundError: there is no such task.
        ContractChangedError: kind, input or labels differ; it says how.
        ConflictError: the task is retired, or these bytes are a version that is not current.
    """
    return _add_version(
        registry,
        name,
        source,
        redefined=False,
        checkpoint=checkpoint,
        force=force,
        progress=progress,
    )


def redefine(
    registry: Registry,
    name: str,
    source: Path,
    *,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Give a task another contract (kind, input or labels): the next major version.

    Args and errors are those of :func:`register`, and:

    Raises:
        TaskNotFoundError: there is no such task.
        ConflictError: the contract is the same, the task is retired, or these bytes are a version
            that is not current.
    """
    return _add_version(
        registry,
        name,
        source,
        redefined=True,
        checkpoint=checkpoint,
        force=force,
        progress=progress,
    )


def way_in(
    uow: UnitOfWork, name: str, module: ModuleFile, *, team: str, force: bool = False
) -> Way | None:
    """How a module of another registry becomes a version of a task; None for one that is one.

    Args:
        uow: the transaction that it would be part of.
        name: the task's name, which need not exist here.
        module: the checked module.
        team: the owner of a new task.
        force: act for another team.

    Raises:
        NotOwnerError: the actor is of another team.
        ConflictError: the task or its backbone is retired.
    """
    task = uow.find_task(name)
    if task is not None and _same_bytes(task, module):
        return None
    backbone = uow.backbone_by_digest(module.spec.backbone)
    if backbone is not None:
        check_open(backbone)
    if task is None:
        _check_founder(uow.actor, name, team, force=force)
        return "register"
    check_owner(name, task.team, uow.actor, force=force)
    _check_active(task)
    return "redefine" if uow.current(task).contract.difference(module.spec.contract) else "update"


def admit(
    uow: UnitOfWork, name: str, module: ModuleFile, *, team: str, force: bool = False
) -> tuple[TaskVersion, Way | None, bool]:
    """Go the :func:`way_in` inside a transaction; the module must be stored, its backbone known.

    Returns:
        The version, how it came in, and whether that took force.

    Raises:
        NotOwnerError, ConflictError: as :func:`way_in`.
    """
    way, forced = way_in(uow, name, module, team=team, force=force), False
    if way == "register":
        forced = _check_founder(uow.actor, name, team, force=force)
        _add_task(uow, name, team, module, forced=forced)
    elif way is not None:
        task = uow.task(name)
        forced = check_owner(name, task.team, uow.actor, force=force)
        _extend_task(uow, task, module, redefined=way == "redefine", forced=forced)
    version = _same_bytes(uow.task(name), module)
    assert version is not None
    return version, way, forced


def retire(registry: Registry, name: str, *, force: bool = False) -> Outcome:
    """Take a task out of the live set; its versions and releases stay.

    Raises:
        TaskNotFoundError: there is no such task.
        NotOwnerError: the actor is of another team.
        DatabaseError: the registry cannot be used.
    """
    return _set_state(registry, name, "retired", "task:retire", force=force)


def restore(registry: Registry, name: str, *, force: bool = False) -> Outcome:
    """Bring a retired task back into the live set; errors as :func:`retire`."""
    return _set_state(registry, name, "active", "task:restore", force=force)


def pin(registry: Registry, reference: str, *, force: bool = False) -> Outcome:
    """Make an earlier (or later) version of a task the current one.

    Args:
        registry: where.
        reference: ``name@major.minor``.
        force: act for another team.

    Raises:
        UsageError: the reference has no version.
        TaskNotFoundError: there is no such task or version.
        NotOwnerError: the actor is of another team.
        DatabaseError: the registry cannot be used.
    """
    name, number = split_reference(reference, "task name")
    if number is None:
        raise UsageError(f"say which version: {name}@MAJOR.MINOR")
    with registry.write() as uow:
        version = uow.version(name, number)
        forced = check_owner(name, version.task.team, uow.actor, force=force)
        before = uow.current(version.task)
        changed = before is not version
        if changed:
            check_open(version.backbone)
            _make_current(uow, version, before)
            uow.record("task:pin", name, {"from": before.number, "to": number}, forced=forced)
        return Outcome(
            task=name,
            version=version.number,
            changed=changed,
            forced=forced and changed,
            state=version.task.state,
        )


def list_all(
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
    encoder, number = Backbone.name.label("encoder"), Backbone.version.label("number")
    query = (
        # Columns, not entities: no labels are read, and no object is made for a row.
        select(
            *(Task.name, Task.team, Task.state, TaskVersion.major, TaskVersion.minor),
            *(TaskVersion.kind, TaskVersion.input, encoder, number, TaskVersion.tap_layer),
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
                version=f"{row.major}.{row.minor}",
                kind=row.kind,
                input=row.input,
                backbone=f"{row.encoder}@{row.number}",
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
    name, number = split_reference(reference, "task name")
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
        split_reference(reference, "task name") for reference in (before, after)
    )
    if name != other:
        raise UsageError(f"{before} and {after} are different tasks; compare versions of one")
    with registry.read() as uow:
        old, new = uow.version(name, first), uow.version(name, second)
        rows = version_row(old), version_row(new)
        contract = old.contract.difference(new.contract)
    changed, same = compare_tensors(registry.store, rows[0].digest, rows[1].digest)
    return TaskDifference(
        task=name,
        before=rows[0],
        after=rows[1],
        contract=contract,
        tensors_changed=changed,
        tensors_same=same,
    )


def _order(registry: Registry, sort: str, *, reverse: bool) -> ColumnElement[Any]:
    """What tasks are ordered by first; see :func:`list_all`."""
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


def _add_version(
    registry: Registry,
    name: str,
    source: Path,
    *,
    redefined: bool,
    checkpoint: Checkpoint | None,
    force: bool,
    progress: Progress,
) -> Outcome:

    def decide(uow: UnitOfWork, module: ModuleFile) -> TaskVersion | None:
        task = uow.task(name)
        check_owner(name, task.team, uow.actor, force=force)
        same = _same_bytes(task, module)
        if same is not None:
            return same
        _check_active(task)
        current = uow.current(task)
        difference = current.contract.difference(module.spec.contract)
        if difference and not redefined:
            raise ContractChangedError(name, difference)
        if redefined and not difference:
            raise ConflictError(
                f"task {name}: kind, input and labels are those of {current.number}, so nothing "
                f"is redefined; use: centra task update {name} FILE"
            )
        return None

    registry.check_store()
    with registry.read() as uow:
        task = uow.task(name)
        check_owner(name, task.team, uow.actor, force=force)
    with checked_module(registry, name, source, checkpoint, progress) as module:
        with registry.read() as uow:
            known = decide(uow, module)
        fault = registry.store.find_problem(module.digest) if known else None
        with storing(registry, {module.digest: module.path}) as uow:
            same = decide(uow, module)
            if same is not None:
                return _repeated(uow, same, fault)
            task = uow.task(name)
            forced = check_owner(name, task.team, uow.actor, force=force)
            return _extend_task(uow, task, module, redefined=redefined, forced=forced)


def _add_task(
    uow: UnitOfWork, name: str, team: str, module: ModuleFile, *, forced: bool
) -> Outcome:
    """Write a new task with its first version."""
    task = Task(name=name, team=team, state="active", created_at=uow.now)
    version = _version(uow, task, module, (1, 0))
    uow.session.add(task)
    _make_current(uow, version, None)
    uow.record("task:register", name, {**_details(version, module), "team": team}, forced=forced)
    return Outcome(task=name, version=version.number, changed=True, forced=forced)


def _extend_task(
    uow: UnitOfWork, task: Task, module: ModuleFile, *, redefined: bool, forced: bool
) -> Outcome:
    """Write a task's next version."""
    before = uow.current(task)
    difference = before.contract.difference(module.spec.contract)
    newest = select(TaskVersion.major, TaskVersion.minor).where(TaskVersion.task_id == task.id)
    newest = newest.order_by(TaskVersion.major.desc(), TaskVersion.minor.desc()).limit(1)
    # Of the current major, too, which a pin may have set back.
    of_this = newest.where(TaskVersion.major == before.major)
    number = next_version(
        [
            (row.major, row.minor)
            for query in (newest, of_this)
            for row in uow.session.execute(query)
        ],
        (before.major, before.minor),
        redefined=redefined,
    )
    version = _version(uow, task, module, number)
    _make_current(uow, version, before)
    uow.record(
        "task:redefine" if redefined else "task:update",
        task.name,
        {
            **_details(version, module),
            "from": before.number,
            **({"difference": difference.lines()} if redefined else {}),
        },
        forced=forced,
    )
    return Outcome(task=task.name, version=version.number, changed=True, forced=forced)


def _check_founder(actor: Actor, name: str, team: str, *, force: bool) -> bool:
    """Whether force is what allows the actor to register a new task for a team."""
    # Whoever has not said otherwise registers a new task in the name of its team.
    return actor.team is not None and check_owner(name, team, actor, force=force)


def _check_active(task: Task) -> None:
    if task.state == "retired":
        raise ConflictError(f"task {task.name} is retired; first: centra task restore {task.name}")


def _set_state(registry: Registry, name: str, state: str, action: str, *, force: bool) -> Outcome:
    with registry.write() as uow:
        task = uow.task(name)
        forced = check_owner(name, task.team, uow.actor, force=force)
        number = uow.current(task).number
        if task.state == state:
            return Outcome(task=name, version=number, changed=False, state=state)
        if state == "active":
            check_open(uow.current(task).backbone)
        task.state = state
        uow.record(action, name, {"version": number}, forced=forced)
        return Outcome(task=name, version=number, changed=True, forced=forced, state=state)


def _same_bytes(task: Task, module: ModuleFile) -> TaskVersion | None:
    session = object_session(task)
    assert session is not None
    return session.scalar(
        select(TaskVersion).where(
            TaskVersion.task_id == task.id, TaskVersion.digest == module.digest
        )
    )


def _repeated(uow: UnitOfWork, same: TaskVersion, fault: BlobProblem | None) -> Outcome:
    """What comes of bytes that are a version already: nothing, where they are what is wanted.

    Args:
        uow: the transaction.
        same: the version.
        fault: what was wrong with its stored file; putting that back is all that is wanted then.

    Raises:
        ConflictError: another version is current, or the task is retired.
    """
    task, current = same.task, uow.current(same.task)
    if fault:
        return Outcome(
            task=task.name, version=same.number, changed=False, state=task.state, mended=fault
        )
    found, mends = [], []
    if task.state == "retired":
        found.append("the task is retired")
        mends.append(f"centra task restore {task.name}")
    if current is not same:
        found.append(f"{current.number} is the current version")
        mends.append(f"centra task pin {same.reference}")
    if found:
        raise ConflictError(
            f"task {task.name}: these bytes are version {same.number} already, but "
            f"{' and '.join(found)}; to change that: {', then '.join(mends)}"
        )
    return Outcome(task=task.name, version=same.number, changed=False)


def _version(
    uow: UnitOfWork,
    task: Task,
    module: ModuleFile,
    number: tuple[int, int],
) -> TaskVersion:
    spec = module.spec
    backbone = uow.backbone_by_digest(spec.backbone)
    if backbone is not None:
        check_open(backbone)
    version = TaskVersion(
        task=task,
        major=number[0],
        minor=number[1],
        digest=module.digest,
        size=module.size,
        backbone=backbone,
        **spec.contract.to_dict(),
        tap_layer=spec.tap_layer,
        depth=spec.depth,
        metrics=spec.metrics,
        created_at=uow.now,
        created_by=str(uow.actor),
    )
    uow.session.add(version)
    return version


def _make_current(uow: UnitOfWork, version: TaskVersion, before: TaskVersion | None) -> None:
    if before is not None:
        before.current_of = None
    # In this order: the database allows one current version at any moment.
    uow.session.flush()
    version.current_of = version.task_id
    uow.session.flush()


def _details(version: TaskVersion, module: ModuleFile) -> dict[str, object]:
    found: dict[str, object] = {
        "version": version.number,
        "digest": version.digest,
        "content": version_content(version, version.backbone.digest),
    }
    # Who reads the log knows by it that the module was proven: see UnitOfWork.proven.
    if module.parity is not None:
        found["parity"] = module.parity
    return found
