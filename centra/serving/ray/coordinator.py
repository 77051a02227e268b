"""The coordinator of an application: a Ray actor that knows its replicas, and rolls their releases.

It holds nothing that is lost with it. Ray starts it again where it dies, and then it is told anew:
by Ray's own store who serves, and by their next reports what, and how they stand. Who lives is
asked of Ray.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from centra.serving.ray.roll import Answer, Roll, RolledChannel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from centra.formats.manifest import ChannelPointer
    from centra.serving.ray.rollout import Order, ReplicaState

__all__ = ["Coordinator", "ReplicaReport", "find_coordinator", "open_coordinator"]

_log = logging.getLogger(__name__)

_NAMESPACE = "centra"
"""Of its name, and of what it keeps in Ray's store."""
_MOST_CALLS = 10_000
"""Replicas that may wait for news at once."""
_LOOK = 5.0
"""Seconds between two questions to Ray, who lives."""
_LOOK_SOON = 0.5
"""The same while somebody is waited for."""
_UNUSED = 6
"""So many looks in a row at which no replica lives end it; the next replica makes another."""


@dataclass(frozen=True, kw_only=True)
class ReplicaReport:
    """What a replica says of itself to the others."""

    id: str
    node: str
    """Its address."""
    url: str | None
    """Where it answers past Ray's proxy; None where it does not."""
    grpc: str | None
    """The same for gRPC, as ``HOST:PORT``."""
    digest: str
    """Of what it serves."""
    revision: int | None
    refused: str | None
    """Why all of them do not serve what the channel names; None where they do."""
    metrics: str
    """As OpenMetrics."""


class Coordinator:
    """What replicas of an application know of each other; its methods are called by Ray.

    Replicas are named as their Ray actors are.
    """

    def __init__(self, application: str) -> None:
        """Begin, or begin again.

        Args:
            application: its name.
        """
        self._application = application
        self._rolls: dict[str, Roll] = {}
        self._reports: dict[str, ReplicaReport] = {}
        self._present: set[str] = set()
        self._following: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._unused: dict[str, int] = {}

    async def join(
        self, followed: RolledChannel, replica: str, loaded: ChannelPointer | None
    ) -> Order:
        """What a replica is to do that does not serve yet; see :meth:`Roll.join`.

        Raises:
            CentraError: as there.
        """
        self._present.add(replica)
        return await self._roll(followed).join(replica, loaded)

    async def report(
        self, followed: RolledChannel, replica: str, number: int, state: ReplicaState
    ) -> Answer:
        """What a replica is to do; see :meth:`Roll.report`."""
        self._present.add(replica)
        return await self._roll(followed).report(replica, number, state)

    async def leave(self, followed: RolledChannel, replica: str) -> None:
        """A replica follows this channel no more, and has nothing to tell."""
        self._reports.pop(replica, None)
        await self._roll(followed).leave(replica)

    async def check_now(self, followed: RolledChannel) -> None:
        """See :meth:`Roll.check_now`."""
        await self._roll(followed).check_now()

    async def tell(self, replica: str, report: ReplicaReport) -> None:
        """A replica says what the others may know of it."""
        self._begin()
        self._present.add(replica)
        self._reports[replica] = report

    async def replicas(self) -> list[ReplicaReport]:
        """What each replica said last, by id."""
        return sorted(self._reports.values(), key=lambda report: report.id)

    async def metrics(self) -> dict[str, str]:
        """The metrics that each replica said last, by its id."""
        return {report.id: report.metrics for report in self._reports.values()}

    def _begin(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def _roll(self, followed: RolledChannel) -> Roll:
        self._begin()
        # The address may hold a secret.
        source = hashlib.sha256(followed.source.encode()).hexdigest()
        key = f"{self._application}/{source}/{followed.place}"
        if key not in self._rolls:
            roll = Roll(followed, members=_read(key), note_members=partial(_write, key))
            self._rolls[key] = roll
            self._following[key] = asyncio.create_task(roll.follow())
        self._rolls[key].followed = followed
        return self._rolls[key]

    async def _watch(self) -> None:
        while True:
            waiting = any(roll.rolling for roll in self._rolls.values())
            await asyncio.sleep(_LOOK_SOON if waiting else _LOOK)
            try:
                await self._look_who_lives()
            except Exception:  # noqa: BLE001 - it goes on
                _log.exception("Ray did not say which replicas live; it is asked again")

    async def _look_who_lives(self) -> None:
        known = self._present.union(*(roll.members for roll in self._rolls.values()))
        living = await asyncio.to_thread(_living_actors)
        for replica in known - living:
            _log.info("replica %s has ended", replica)
            self._present.discard(replica)
            self._reports.pop(replica, None)
            for roll in self._rolls.values():
                await roll.gone(replica)
        for key, roll in [*self._rolls.items()]:
            if self._long_unused(key, used=roll.used):
                del self._rolls[key]
                self._following.pop(key).cancel()
        used = self._present or any(roll.used for roll in self._rolls.values())
        if self._long_unused("", used=bool(used)):
            self._end()

    def _long_unused(self, key: str, *, used: bool) -> bool:
        self._unused[key] = 0 if used else self._unused.get(key, 0) + 1
        return self._unused[key] >= _UNUSED

    def _end(self) -> None:
        import ray

        _log.info("no replica lives: the coordinator ends")
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def open_coordinator(application: str) -> Any:
    """The coordinator's actor; it is made where there is none.

    Args:
        application: its name. All its replicas get the same actor.
    """
    import ray

    actor = ray.remote(Coordinator).options(
        name=_name(application),
        namespace=_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=_MOST_CALLS,
        num_cpus=0,
    )
    return actor.remote(application)


def find_coordinator(application: str) -> Any:
    """The coordinator's actor, for who is no replica: one that it made would never end.

    Raises:
        ValueError: no replica has made one.
    """
    import ray

    return ray.get_actor(_name(application), namespace=_NAMESPACE)


def _name(application: str) -> str:
    import centra

    # Replicas of another Centra have their own, and roll apart until they are replaced.
    return f"coordinator of {application} by Centra {centra.__version__}"


def _living_actors() -> set[str]:
    from ray.util import list_named_actors

    actors: list[Any] = list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors}


def _read(key: str) -> list[str]:
    """Who was noted to serve, in Ray's own store: it outlasts this actor, and ends with the cluster."""
    from ray.experimental.internal_kv import _internal_kv_get

    data = _internal_kv_get(key, namespace=_NAMESPACE)
    members: list[str] = json.loads(data) if data else []
    return members


async def _write(key: str, members: Iterable[str]) -> None:
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    if listed := sorted(members):
        data = json.dumps(listed)
        await asyncio.to_thread(_internal_kv_put, key, data, namespace=_NAMESPACE)
    else:
        await asyncio.to_thread(_internal_kv_del, key, namespace=_NAMESPACE)
