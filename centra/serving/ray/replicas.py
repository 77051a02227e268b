"""The replicas of an application as one of them knows them: they roll together, and say how they are."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from centra.errors import UsageError
from centra.releases.find import ChannelSource, open_source
from centra.serving.follower import Follower
from centra.serving.ray.client import CoordinatorClient
from centra.serving.ray.replica import RolledReplica
from centra.serving.ray.roll import RolledChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.serving.follower import Following
    from centra.serving.preparing import LoadOptions
    from centra.serving.ray.coordinator import ReplicaReport
    from centra.serving.served import ServedRelease

__all__ = ["Replicas"]

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Seconds between two reports: so old may be what others say of a replica."""


class Replicas:
    """Makes what follows channels in a replica, and asks and tells the other replicas."""

    def __init__(self, application: str) -> None:
        """Find the coordinator, or make it; call it in a replica.

        Args:
            application: whose replicas roll together.

        Raises:
            UsageError: this is no named actor of Ray.
        """
        import ray

        name = ray.get_runtime_context().get_actor_name()
        if not name:
            raise UsageError("only a named actor of Ray can be a replica", code="no-replica")
        self._name: str = name
        self._coordinator = CoordinatorClient(application)
        self._followed: Counter[str] = Counter()

    def follower(
        self,
        source: str | os.PathLike[str],
        *,
        options: LoadOptions,
        on_ready: Callable[[ServedRelease], None],
        interval: float,
    ) -> Following:
        """What follows a source in this replica, for :class:`centra.serving.Batcher`.

        Args:
            source, options, on_ready, interval: as for :class:`Follower`, which it is for a folder
                or a digest: these never move.

        Raises:
            CentraError: as for :func:`centra.releases.find.open_source`.
        """
        found = open_source(source)
        if not isinstance(found, ChannelSource):
            return Follower(source, options=options, on_ready=on_ready, interval=interval)
        source, place = os.fspath(source), self._followed[os.fspath(source)]
        self._followed[source] += 1
        followed = RolledChannel(source=source, names=found.names, interval=interval, place=place)
        return RolledReplica(
            self._coordinator,
            found,
            followed,
            replica=self._name,
            options=options,
            on_ready=on_ready,
        )

    async def tell(self, report: Callable[[], ReplicaReport]) -> None:
        """Tell the others of this replica again and again, until it is cancelled.

        Args:
            report: what there is to tell now.
        """
        while True:
            try:
                await self._ask("tell", self._name, report())
            except Exception:  # noqa: BLE001 - it goes on
                _log.exception("the other replicas could not be told of this one; it goes on")
            await asyncio.sleep(_PAUSE)

    async def reports(self) -> list[ReplicaReport]:
        """What each replica told last, this one too; nothing while the coordinator is restarted."""
        return await self._ask("replicas") or []

    async def metrics(self) -> dict[str, str]:
        """The metrics that each replica told last, by its id, likewise."""
        return await self._ask("metrics") or {}

    async def _ask(self, method: str, *arguments: object) -> Any:
        from ray.exceptions import RayActorError

        try:
            return await asyncio.wrap_future(self._coordinator.call(method, *arguments))
        except RayActorError:
            await asyncio.to_thread(self._coordinator.reopen)
            return None
