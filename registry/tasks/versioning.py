"""How a module becomes a version of a task: what it may become, and writing that.

It is decided by :func:`plan_version` alone, whichever way a module comes in: by ``register``, ``update`` and
``redefine``, or with an import, which takes whatever fits. :func:`add_version` does what is planned, in
the transaction that plans it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.errors import ConflictError
from centra.formats.identities import VersionNumber
from registry.database.models import Task, TaskVersion
from registry.errors import ContractChangedError, TaskExistsError
from registry.rules import lifecycle
from registry.rules.lifecycle import TaskState, VersionChange, next_version
from registry.rules.replay import version_content
from registry.tasks.intake import check_open

if TYPE_CHECKING:
    from centra.formats.identities import Name, TaskName
    from centra.formats.task_module import ModuleFile
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "AddedVersion",
    "VersionPlan",
    "VersionRequest",
    "add_version",
    "check_in_force",
    "check_owner",
    "make_current",
    "plan_version",
]


@dataclass(frozen=True, kw_only=True)
class VersionRequest:
    """What somebody wants of a module."""

    task: TaskName
    change: VersionChange | None = None
    """How it is to become a version; None for whatever fits."""
    team: Name | None = None
    """The owner of a new task; None where the task must be there."""
    force: bool = False
    """Act for another team."""
    made_from: str | None = None
    """The digest of the version that the module is the current one's successor of; None for whatever is
    current."""


@dataclass(frozen=True, kw_only=True)
class VersionPlan:
    """What a module becomes."""

    change: VersionChange | None
    """How it becomes a version; None for one that is a version already."""
    existing: TaskVersion | None = None
    """That version."""


@dataclass(frozen=True, kw_only=True)
class AddedVersion:
    """The version that a module has become, or has been before."""

    version: TaskVersion
    change: VersionChange | None
    """How it became that version; None where it was before."""
    forced: bool
    """Whether that took force."""


def check_owner(uow: UnitOfWork, request: VersionRequest) -> bool:
    """Whether force is what allows the actor to do what is wanted.

    Raises:
        TaskNotFoundError: there is no such task, and none is to be made.
        NotOwnerError: the actor is of another team.
    """
    actor, new = uow.actor, request.change is VersionChange.REGISTER
    task = None if new else _requested_task(uow, request)
    if task is not None:
        return lifecycle.check_owner(task.name, task.team, actor, force=request.force)
    assert request.team is not None
    # Whoever has not said otherwise registers a new task in the name of its team.
    return actor.team is not None and lifecycle.check_owner(
        request.task, request.team, actor, force=request.force
    )


def plan_version(uow: UnitOfWork, request: VersionRequest, module: ModuleFile) -> VersionPlan:
    """Decide what a checked module becomes; nothing is changed.

    Raises:
        TaskNotFoundError: there is no such task to update or redefine.
        TaskExistsError: the name of a new task is taken by other bytes, or by another team.
        ContractChangedError: an update has another contract.
        ConflictError: a redefinition has the same; the task or the module's backbone is retired; or
            the version that the module was made from is not current any more.
    """
    task = _requested_task(uow, request)
    existing = None if task is None else uow.version_by_digest(task, module.digest)
    if task is not None and request.change is VersionChange.REGISTER:
        _check_same_task(uow, request, task, existing)
    if existing is not None:
        return VersionPlan(change=None, existing=existing)
    if task is not None and request.made_from is not None:
        _check_still_current(uow, task, request.made_from)
    backbone = uow.backbone_by_digest(module.spec.backbone)
    if backbone is not None:
        check_open(backbone)
    if task is None:
        return VersionPlan(change=VersionChange.REGISTER)
    if task.state == TaskState.RETIRED:
        raise ConflictError(f"task {task.name} is retired", code="task-retired", task=task.name)
    return VersionPlan(change=_fitting_change(uow, request, task, module))


def add_version(uow: UnitOfWork, request: VersionRequest, module: ModuleFile) -> AddedVersion:
    """Make a module a version of a task, unless it is one, and record that.

    Args:
        uow: the transaction that it becomes part of.
        request: what is wanted.
        module: checked and stored; its backbone is registered.

    Raises:
        NotOwnerError, TaskNotFoundError, TaskExistsError, ContractChangedError, ConflictError: see
            :func:`check_owner` and :func:`plan_version`.
    """
    plan = plan_version(uow, request, module)
    if plan.existing is not None:
        return AddedVersion(version=plan.existing, change=None, forced=False)
    forced = check_owner(uow, request)
    if plan.change is VersionChange.REGISTER:
        version = _first_version(uow, request, module, forced=forced)
    else:
        redefined = plan.change is VersionChange.REDEFINE
        version = _further_version(uow, request, module, redefined=redefined, forced=forced)
    return AddedVersion(version=version, change=plan.change, forced=forced)


def check_in_force(uow: UnitOfWork, version: TaskVersion) -> None:
    """Refuse to take a version that is there already for one that the task answers with.

    Raises:
        ConflictError: another version is current, or the task is retired.
    """
    task, current = version.task, uow.current(version.task)
    retired, is_current = task.state == TaskState.RETIRED, current is version
    if not retired and is_current:
        return
    reasons = ["the task is retired"] if retired else []
    if not is_current:
        reasons.append(f"{current.number} is the current version")
    raise ConflictError(
        f"task {task.name}: these bytes are version {version.number} already, but "
        f"{' and '.join(reasons)}",
        code="version-not-in-force",
        task=task.name,
        version=str(version.number),
        current=str(current.number),
        retired=retired,
    )


def make_current(uow: UnitOfWork, version: TaskVersion, before: TaskVersion | None) -> None:
    """Make a version the one that its task answers with, in place of another."""
    if before is not None:
        before.current_of = None
    # In this order: the database allows one current version at any moment.
    uow.session.flush()
    version.current_of = version.task_id
    uow.session.flush()


def _check_still_current(uow: UnitOfWork, task: Task, digest: str) -> None:
    """Refuse what was made from a version that others have replaced meanwhile."""
    current = uow.current(task)
    if current.digest != digest:
        raise ConflictError(
            f"task {task.name} has become {current.number} meanwhile; nothing was changed",
            code="task-changed-meanwhile",
            task=task.name,
            current=str(current.number),
        )


def _requested_task(uow: UnitOfWork, request: VersionRequest) -> Task | None:
    """The task that is meant; None where a new one is to be made."""
    return uow.find_task(request.task) if request.team else uow.task(request.task)


def _check_same_task(
    uow: UnitOfWork, request: VersionRequest, task: Task, existing: TaskVersion | None
) -> None:
    """Refuse to register a task whose name is taken, unless it is this very task."""
    if existing is None:
        number = uow.current(task).number
        raise TaskExistsError(
            f"task {task.name} exists (team {task.team}, version {number})",
            code="task-exists",
            task=task.name,
            team=task.team,
            version=str(number),
        )
    if task.team != request.team:
        raise TaskExistsError(
            f"task {task.name} belongs to team {task.team}, not to {request.team}; these bytes are "
            f"its version {existing.number}. Choose another name, or leave it to that team.",
            code="task-of-another-team",
            task=task.name,
            team=task.team,
            version=str(existing.number),
        )


def _fitting_change(
    uow: UnitOfWork, request: VersionRequest, task: Task, module: ModuleFile
) -> VersionChange:
    """By its contract, a module is an update or a redefinition; refuse the other one."""
    current = uow.current(task)
    difference = current.contract.difference(module.spec.contract)
    if difference and request.change is VersionChange.UPDATE:
        raise ContractChangedError(task.name, difference)
    if not difference and request.change is VersionChange.REDEFINE:
        raise ConflictError(
            f"task {task.name}: kind, input and labels are those of {current.number}, so nothing "
            "is redefined",
            code="contract-unchanged",
            task=task.name,
            version=str(current.number),
        )
    return VersionChange.REDEFINE if difference else VersionChange.UPDATE


def _first_version(
    uow: UnitOfWork, request: VersionRequest, module: ModuleFile, *, forced: bool
) -> TaskVersion:
    task = Task(name=request.task, team=request.team, state=TaskState.ACTIVE, created_at=uow.now)
    uow.session.add(task)
    version = _write_version(uow, task, module, VersionNumber(1, 0))
    make_current(uow, version, None)
    details = {**_event_details(version, module), "team": request.team}
    uow.record("task:register", task.name, details, forced=forced)
    return version


def _further_version(
    uow: UnitOfWork, request: VersionRequest, module: ModuleFile, *, redefined: bool, forced: bool
) -> TaskVersion:
    task = uow.task(request.task)
    before = uow.current(task)
    version = _write_version(uow, task, module, _next_number(uow, before, redefined=redefined))
    make_current(uow, version, before)
    details = {**_event_details(version, module), "from": str(before.number)}
    if redefined:
        details["difference"] = before.contract.difference(version.contract).lines()
    action = "task:redefine" if redefined else "task:update"
    uow.record(action, task.name, details, forced=forced)
    return version


def _next_number(uow: UnitOfWork, before: TaskVersion, *, redefined: bool) -> VersionNumber:
    newest = select(TaskVersion.number).where(TaskVersion.task_id == before.task_id)
    newest = newest.order_by(TaskVersion.major.desc(), TaskVersion.minor.desc()).limit(1)
    # Of the current major, too, which a pin may have set back.
    of_this_major = newest.where(TaskVersion.major == before.major)
    return next_version(
        [uow.session.scalars(query).one() for query in (newest, of_this_major)],
        before.number,
        redefined=redefined,
    )


def _write_version(
    uow: UnitOfWork, task: Task, module: ModuleFile, number: VersionNumber
) -> TaskVersion:
    spec = module.spec
    version = TaskVersion(
        task=task,
        number=number,
        digest=module.digest,
        size=module.size,
        backbone=uow.backbone_by_digest(spec.backbone),
        **spec.contract.to_dict(),
        tap_layer=spec.tap_layer,
        depth=spec.depth,
        metrics=spec.metrics,
        created_at=uow.now,
        created_by=str(uow.actor),
    )
    uow.session.add(version)
    return version


def _event_details(version: TaskVersion, module: ModuleFile) -> dict[str, Any]:
    details: dict[str, Any] = {
        "version": str(version.number),
        "digest": version.digest,
        "content": version_content(version, version.backbone.digest),
    }
    # Who reads the log knows by it that the module was proven: see UnitOfWork.proven.
    if module.parity is not None:
        details["parity"] = module.parity
    if module.source is not None:
        details["source"] = module.source
    return details
