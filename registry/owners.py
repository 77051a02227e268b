"""Whose tasks a channel may change: each team its own, unless the policy or force says otherwise.

Composing a release changes nobody; moving a channel does. So this is asked where one moves, in the
transaction that moves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.errors import NotAllowedError
from centra.formats.manifest import changes
from registry.database.models import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from registry.database.models import Release
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lifecycle import Actor
    from registry.rules.policy import ChannelPolicy

__all__ = ["ForeignTasksError", "changed_tasks", "check", "check_tasks"]


class ForeignTasksError(NotAllowedError):
    """Moving a channel would change tasks of other teams; they are in ``tasks``, with their teams."""

    code = "foreign-tasks"

    def __init__(
        self, channel: str, tasks: Mapping[str, str], actor: Actor, releasers: Iterable[str]
    ) -> None:
        lines = "\n".join(f"  {task}, of team {team}" for task, team in tasks.items())
        who = f"you are {actor}" if actor.team else "you have not said who you are"
        super().__init__(
            f"this would change tasks of other teams on {channel}, and {who}:\n{lines}",
            channel=channel,
            tasks=dict(tasks),
            actor=str(actor) if actor.team else None,
            releasers=[*releasers],
        )
        self.tasks = tasks


def check(
    uow: UnitOfWork, channel: str, release: Release, rules: ChannelPolicy | None, *, force: bool
) -> dict[str, str]:
    """Refuse to let a channel serve a release where that changes other teams' tasks.

    Args:
        uow: the transaction that moves the channel, or looks whether it could.
        channel: its name; one that is not there yet serves nobody, and may begin with anything.
        release: what it is to serve.
        rules: the policy's for this channel.
        force: change them all the same.

    Returns:
        The tasks that force is needed for, each with its team; for the audit log.

    Raises:
        ForeignTasksError: there are some, without force.
    """
    row = uow.channel(channel)
    tasks = changed_tasks(uow, row.release, release) if row else []
    return check_tasks(uow, channel, tasks, rules, force=force)


def check_tasks(
    uow: UnitOfWork,
    channel: str,
    tasks: Iterable[str],
    rules: ChannelPolicy | None,
    *,
    force: bool,
) -> dict[str, str]:
    """The same for tasks that a channel is to serve otherwise than now, by name."""
    if rules is not None and (rules.overwrite or rules.may_change_every_task(uow.actor)):
        return {}
    query = select(Task.name, Task.team).where(Task.name.in_([*tasks])).order_by(Task.name)
    foreign: dict[str, str] = {
        name: team for name, team in uow.session.execute(query) if team != uow.actor.team
    }
    if foreign and not force:
        releasers = rules.releasers if rules is not None and rules.releasers else ()
        raise ForeignTasksError(channel, foreign, uow.actor, releasers)
    return foreign


def changed_tasks(uow: UnitOfWork, before: Release, after: Release) -> list[str]:
    """The tasks that differ between two releases: there or not, in version, or in precision."""
    return [
        change.task
        for change in changes(uow.released_versions(before), uow.released_versions(after))
    ]
