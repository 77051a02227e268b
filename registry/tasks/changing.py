"""Registering, updating and redefining: the three ways in which a module becomes a version of a task.

All three go one road: check the request, take in and check the module, decide, store it, and write the
version with its audit event in one transaction. That transaction asks and decides again, for others may
have changed the task meanwhile; what was asked before it is there so that no long work is done, and
nothing is stored, for a request that will be refused.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError, CorruptBlobError, FormatError, UsageError
from centra.formats.identities import TaskName
from centra.formats.names import parse_name, parse_task_name
from centra.progress import Progress, silent
from registry.rules.lifecycle import VersionChange
from registry.storage.claims import storing
from registry.tasks.intake import Checkpoint, checked_module
from registry.tasks.outcome import TaskOutcome
from registry.tasks.versioning import (
    VersionRequest,
    add_version,
    check_in_force,
    check_owner,
    plan_version,
)

if TYPE_CHECKING:
    from pathlib import Path

    from centra.formats.decision import DecisionChange
    from centra.formats.identities import Digest
    from centra.formats.task_module import ModuleFile
    from centra.formats.thresholds import Thresholds
    from registry.connection import Registry

__all__ = ["current_digest", "make_version", "redefine", "register", "update"]

_log = logging.getLogger(__name__)


def register(
    registry: Registry,
    name: str,
    source: str | Path,
    *,
    team: str | None = None,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> TaskOutcome:
    """Register a new task with its first version, 1.0.

    Args:
        registry: where.
        name: the task's name.
        source: a task module file, or a fine-tuned Hugging Face checkpoint's folder: a path, or an
            address in MLflow's registry, on the hub or in a bucket; see
            :func:`centra.checkpoints.sources.fetched`.
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
    task = parse_task_name(name)
    owner = parse_name(team, "team name") if team else registry.actor.team
    if owner is None:
        raise UsageError(
            f"task {task}: no team is given that owns it, and the actor is of none",
            code="team-missing",
        )
    request = VersionRequest(task=task, change=VersionChange.REGISTER, team=owner, force=force)
    return make_version(registry, request, source, checkpoint, progress)


def update(
    registry: Registry,
    name: str,
    source: str | Path | None = None,
    *,
    thresholds: Thresholds | None = None,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> TaskOutcome:
    """Give a task new weights under the same contract, or other thresholds: the next minor version.

    Args and errors are those of :func:`register`, and:

    Args:
        source: None for the weights of the current version.
        thresholds: become part of the module's decision. Metrics that it brings from before are left
            out: they were measured on other answers.

    Raises:
        TaskNotFoundError: there is no such task.
        ContractChangedError: kind, input or labels differ; it says how.
        ConflictError: the task is retired, or these bytes are a version that is not current; or the
            current version, of which other thresholds were to be set, is not that any more.
        DataError: the thresholds do not suit the task.
        UsageError: neither weights nor thresholds are given.
    """
    task = TaskName(parse_name(name, "task name"))
    current = None
    if source is None:
        if thresholds is None:
            raise UsageError(f"task {task}: neither a module nor thresholds are given")
        current = current_digest(registry, task)
        source = registry.store.fetch(current)
    request = VersionRequest(task=task, change=VersionChange.UPDATE, force=force, made_from=current)
    return make_version(registry, request, source, checkpoint, progress, thresholds=thresholds)


def redefine(
    registry: Registry,
    name: str,
    source: str | Path,
    *,
    checkpoint: Checkpoint | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> TaskOutcome:
    """Give a task another contract (kind, input or labels): the next major version.

    Args and errors are those of :func:`register`, and:

    Raises:
        TaskNotFoundError: there is no such task.
        ConflictError: the contract is the same, the task is retired, or these bytes are a version
            that is not current.
    """
    task = TaskName(parse_name(name, "task name"))
    request = VersionRequest(task=task, change=VersionChange.REDEFINE, force=force)
    return make_version(registry, request, source, checkpoint, progress)


def make_version(
    registry: Registry,
    request: VersionRequest,
    source: str | Path,
    checkpoint: Checkpoint | None,
    progress: Progress,
    *,
    thresholds: Thresholds | None = None,
) -> TaskOutcome:
    """The road of all three: check, take in, decide, store, write.

    Args:
        registry: where.
        request: what is wanted of the module.
        source, checkpoint, progress, thresholds: as for :func:`register` and :func:`update`, with their
            errors.
    """
    since = time.monotonic()
    registry.check_store()
    with registry.read() as uow:
        check_owner(uow, request)
    with checked_module(
        registry, request.task, source, checkpoint, progress, thresholds=thresholds
    ) as module:
        with registry.read() as uow:
            planned = plan_version(uow, request, module)
            updated = planned.change is VersionChange.UPDATE
            replaced = uow.current(uow.task(request.task)).digest if updated else None
        problem = registry.store.find_problem(module.digest) if planned.existing else None
        decision = _decision_changes(registry, replaced, module) if replaced else ()
        with storing(registry, {module.digest: module.path}) as uow:
            added = add_version(uow, request, module)
            if not added.change and not problem:
                check_in_force(uow, added.version)
            outcome = TaskOutcome(
                task=request.task,
                version=added.version.number,
                changed=added.change is not None,
                forced=added.forced,
                state=added.version.task.state,
                mended=None if added.change else problem,
                decision=decision,
            )
        if outcome.changed:
            _log.info(
                "%s %s@%s: %d bytes in %.1f s",
                request.change,
                outcome.task,
                outcome.version,
                module.size,
                time.monotonic() - since,
            )
    return outcome


def current_digest(registry: Registry, name: TaskName) -> Digest:
    """The digest of the module of a task's current version.

    Raises:
        TaskNotFoundError: there is no such task.
        StoreError, DatabaseError: the registry cannot be used.
    """
    registry.check_store()
    with registry.read() as uow:
        return uow.current(uow.task(name)).digest


def _decision_changes(
    registry: Registry, before: Digest, module: ModuleFile
) -> tuple[DecisionChange, ...]:
    """How a module decides otherwise than the one it replaces; nothing where that one is lost."""
    from centra.formats.task_module import read_spec

    try:
        spec = read_spec(registry.store.fetch(before))
    except (BlobNotFoundError, CorruptBlobError, FormatError):
        return ()
    return tuple(spec.effective_decision.changes(module.spec.effective_decision))
