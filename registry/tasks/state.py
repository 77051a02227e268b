"""The state of a task: retiring and restoring it, and which of its versions is current."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.names import parse_task_reference
from registry.rules.lifecycle import TaskState, check_owner
from registry.tasks.intake import check_open
from registry.tasks.outcome import TaskOutcome
from registry.tasks.versioning import make_current

if TYPE_CHECKING:
    from registry.connection import Registry

__all__ = ["pin", "restore", "retire"]

_log = logging.getLogger(__name__)


def retire(registry: Registry, name: str, *, force: bool = False) -> TaskOutcome:
    """Take a task out of the live set; its versions and releases stay.

    Raises:
        TaskNotFoundError: there is no such task.
        NotOwnerError: the actor is of another team.
        DatabaseError: the registry cannot be used.
    """
    return _set_state(registry, name, TaskState.RETIRED, force=force)


def restore(registry: Registry, name: str, *, force: bool = False) -> TaskOutcome:
    """Bring a retired task back into the live set.

    Raises:
        TaskNotFoundError, NotOwnerError, DatabaseError: as for :func:`retire`.
        ConflictError: the backbone of its current version is retired.
    """
    return _set_state(registry, name, TaskState.ACTIVE, force=force)


def pin(registry: Registry, reference: str, *, force: bool = False) -> TaskOutcome:
    """Make an earlier (or later) version of a task the current one.

    Args:
        registry: where.
        reference: ``name@major.minor``.
        force: act for another team.

    Raises:
        UsageError: the reference has no version.
        TaskNotFoundError: there is no such task or version.
        NotOwnerError: the actor is of another team.
        ConflictError: the version's backbone is retired.
        DatabaseError: the registry cannot be used.
    """
    name, number = parse_task_reference(reference)
    if number is None:
        raise UsageError(f"say which version: {name}@MAJOR.MINOR", code="version-missing")
    with registry.write() as uow:
        version = uow.version(name, number)
        task, before = version.task, uow.current(version.task)
        forced = check_owner(name, task.team, uow.actor, force=force)
        changed = before is not version
        if changed:
            check_open(version.backbone)
            make_current(uow, version, before)
            details = {"from": str(before.number), "to": str(version.number)}
            uow.record("task:pin", name, details, forced=forced)
        outcome = TaskOutcome(
            task=name,
            version=version.number,
            changed=changed,
            forced=forced and changed,
            state=task.state,
        )
    if outcome.changed:
        _log.info("pinned %s@%s", name, outcome.version)
    return outcome


def _set_state(registry: Registry, name: str, state: TaskState, *, force: bool) -> TaskOutcome:
    verb = "retire" if state == TaskState.RETIRED else "restore"
    with registry.write() as uow:
        task = uow.task(name)
        forced = check_owner(name, task.team, uow.actor, force=force)
        current = uow.current(task)
        changed = task.state != state
        if changed:
            if state == TaskState.ACTIVE:
                check_open(current.backbone)
            task.state = state
            uow.record(f"task:{verb}", name, {"version": str(current.number)}, forced=forced)
        outcome = TaskOutcome(
            task=task.name,
            version=current.number,
            changed=changed,
            forced=forced and changed,
            state=state,
        )
    if outcome.changed:
        _log.info("%sd %s", verb, name)
    return outcome
