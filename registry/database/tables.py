"""What the tables hold, as :mod:`registry.rules.replay` has it from the log."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.formats.identities import VersionNumber
from registry.database.models import (
    Backbone,
    Channel,
    ChannelMove,
    Evaluation,
    PolicyVersion,
    Release,
    ReleaseTask,
    Task,
    TaskVersion,
)
from registry.rules.replay import (
    backbone_content,
    measurement_content,
    numbered,
    tasks_digest,
    version_content,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.database.unit_of_work import UnitOfWork

__all__ = ["read"]

_Rows = dict[str, dict[str, Any]]


def read(uow: UnitOfWork) -> _Rows:
    """Every row that the log tells of, by what it is: ``task intent``, ``release 3``.

    Columns, not entities: a registry may hold a hundred thousand versions.
    """
    versions = _versions(uow)
    numbers = {row.id: row.number for row in uow.session.execute(select(Release.__table__))}
    return {
        **_backbones(uow),
        **_tasks(uow, versions),
        **{f"version {name}@{number}": values for _, name, number, values in versions.values()},
        **_releases(uow, versions, numbers),
        **_channels(uow, numbers),
        **_measurements(uow, versions, numbers),
        **_policies(uow),
    }


def _backbones(uow: UnitOfWork) -> _Rows:
    return {
        f"backbone {row.name}@{row.version}": {
            "digest": row.digest,
            "state": str(row.state),
            "created_by": row.created_by,
            **backbone_content(row),
        }
        for row in uow.session.execute(select(Backbone.__table__))
    }


_Version = tuple[int | None, str, str, dict[str, Any]]
"""The task that it is the current version of, its task's name, its number, its values."""


def _versions(uow: UnitOfWork) -> dict[int, _Version]:
    query = (
        select(TaskVersion.__table__, Task.name.label("task"), Backbone.digest.label("backbone"))
        .join(Task, TaskVersion.task_id == Task.id)
        .join(Backbone, TaskVersion.backbone_id == Backbone.id)
        .order_by(TaskVersion.id)
    )
    return {
        row.id: (
            row.current_of,
            row.task,
            str(VersionNumber(row.major, row.minor)),
            {
                "digest": row.digest,
                "created_by": row.created_by,
                **version_content(row, row.backbone),
            },
        )
        for row in uow.session.execute(query)
    }


def _tasks(uow: UnitOfWork, versions: dict[int, _Version]) -> _Rows:
    current = {of: number for of, _, number, _ in versions.values() if of is not None}
    return {
        f"task {row.name}": {
            "team": row.team,
            "state": str(row.state),
            "current": current.get(row.id),
        }
        for row in uow.session.execute(select(Task.__table__))
    }


def _releases(uow: UnitOfWork, versions: dict[int, _Version], numbers: dict[int, int]) -> _Rows:
    held = dict(_held(uow, versions))
    return {
        f"release {row.number}": {
            "digest": row.digest,
            "base": numbers.get(row.base_id),
            "created_by": row.created_by,
            "tasks": sorted(held.get(row.id, {})),
            "holds": tasks_digest(held.get(row.id, {})),
        }
        for row in uow.session.execute(select(Release.__table__))
    }


def _held(
    uow: UnitOfWork, versions: dict[int, _Version]
) -> Iterator[tuple[int, dict[str, tuple[str, str]]]]:
    """Per release, what it holds of each task."""
    modules = {id_: (name, values["digest"]) for id_, (_, name, _, values) in versions.items()}
    query = select(ReleaseTask.release_id, ReleaseTask.version_id, ReleaseTask.precision)
    rows = uow.session.execute(query.order_by(ReleaseTask.release_id))
    for release, group in groupby(rows, key=lambda row: row[0]):
        found: dict[str, tuple[str, str]] = {}
        for _, version, precision in group:
            name, digest = modules[version]
            found[name] = (digest, precision)
        yield release, found


def _channels(uow: UnitOfWork, numbers: dict[int, int]) -> _Rows:
    channels = {
        f"channel {row.name}": {
            "release": numbers[row.release_id],
            "revision": row.revision,
            "moved_by": row.moved_by,
        }
        for row in uow.session.execute(select(Channel.__table__))
    }
    moves = {
        f"move {row.revision} of channel {row.channel}": {
            "kind": str(row.kind),
            "release": numbers[row.release_id],
            "before": numbers.get(row.before_id),
            "by": row.by,
        }
        for row in uow.session.execute(select(ChannelMove.__table__))
    }
    return channels | moves


def _policies(uow: UnitOfWork) -> _Rows:
    from centra.formats.documents import canonical_json, sha256

    # What it demands, and not what is written beside it.
    return {
        f"policy {row.version}": {
            "digest": sha256(canonical_json(row.rules)),
            "created_by": row.created_by,
        }
        for row in uow.session.execute(select(PolicyVersion.__table__))
    }


def _measurements(uow: UnitOfWork, versions: dict[int, _Version], numbers: dict[int, int]) -> _Rows:
    found: _Rows = {}
    for row in uow.session.execute(select(Evaluation.__table__).order_by(Evaluation.id)):
        _, task, version, _ = versions[row.version_id]
        name = (
            f"measurement of {task}@{version} in release {numbers[row.release_id]} "
            f"on {row.data[:12]}"
        )
        found[numbered(found, name)] = {
            "engine": row.engine,
            "by": row.by,
            "metrics": row.metrics,
            "examples": row.examples,
            **measurement_content(row.summary, row.outcomes),
        }
    return found
