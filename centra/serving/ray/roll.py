"""A channel that is followed for many replicas: its pointer is read once for all, and they wait here.

It runs on an event loop, and knows nothing of Ray: whoever holds it says which replicas have died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import first_line
from centra.releases.find import ChannelSource, open_source
from centra.serving.channel import FollowedChannel, StoreFault, jittered
from centra.serving.ray.rollout import Failure, Order, ReplicaState, Rollout, Step
from centra.serving.refusals import RefusedRelease, error_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from centra.formats.manifest import ChannelPointer

__all__ = ["Answer", "Roll", "RolledChannel"]

_log = logging.getLogger(__name__)

_LONGEST_WAIT = 5.0
"""Seconds that a replica waits for news, at most; then it is asked again how it stands."""


@dataclass(frozen=True, kw_only=True)
class RolledChannel:
    """What is followed, as each of its replicas says it: so a coordinator that is new knows it, too."""

    source: str
    """As for :func:`centra.load_release`."""
    names: tuple[str, ...]
    """The channel; of several, the first that there is."""
    interval: float
    """Seconds between two looks at the pointer, more or less."""
    place: int = 0
    """Among those of a replica that follow the same source."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a replica is to do, and what all say of the channel."""

    order: Order
    refused: RefusedRelease | None
    store_error: StoreFault | None
    failure: Failure | None
    """What replicas keep, lest a coordinator that begins again tries it in vain."""


class Roll:
    """The roll of one channel."""

    def __init__(
        self,
        followed: RolledChannel,
        *,
        members: Collection[str] = (),
        note_members: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        """Nothing is read yet.

        Args:
            followed: the channel.
            members: the replicas that were noted before a restart.
            note_members: keeps who serves, where it outlasts a restart; a replica begins to serve
                once that is done.
        """
        self.followed = followed
        self._rollout = Rollout(followed.names, interval=followed.interval, members=members)
        self._note_members = note_members
        self._channel: FollowedChannel | None = None
        self._fault: StoreFault | None = None
        self._numbers: dict[str, int] = {}
        self._said: dict[str, tuple[RefusedRelease | None, StoreFault | None]] = {}
        self._joining: set[str] = set()
        self._left: set[str] = set()
        self._looking, self._noting = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def members(self) -> set[str]:
        """The replicas that serve."""
        return self._rollout.members

    @property
    def used(self) -> bool:
        """Whether there is a replica that serves, or is about to."""
        return bool(self.members or self._joining)

    @property
    def rolling(self) -> bool:
        """Whether somebody is waited for."""
        return self._rollout.rolling

    async def follow(self) -> None:
        """Look at the pointer from time to time, until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - it goes on
                _log.exception("following the channel failed; it goes on")
            await asyncio.sleep(jittered(self.followed.interval))

    async def look(self) -> None:
        """Look at the pointer now."""
        async with self._looking:
            channel = await self._open()
            if channel is None:
                return
            if self._rollout.members and self._rollout.taken is not None:
                channel.take(self._rollout.taken)
            pointer = await asyncio.to_thread(channel.read)
            if pointer is not None:
                self._rollout.name(pointer)
                if self._rollout.store_fault is None:
                    channel.answers()
        self._wake()

    async def check_now(self) -> None:
        """Look at the pointer, try again what can be, and return when what it names is served or refused."""
        self._rollout.hurry()
        await self.look()
        while self._rollout.rolling:
            await self._news(_LONGEST_WAIT)

    async def join(self, replica: str, loaded: ChannelPointer | None) -> Order:
        """What a replica is to do that does not serve yet; see :meth:`Rollout.join`.

        Raises:
            CentraError: no replica serves, and it cannot be read what the channel names.
        """
        self._joining.add(replica)
        if self._channel is None:
            await self.look()
        until = _now() + self._longest_wait
        while (order := self._rollout.join(replica, loaded)).step is Step.WAIT:
            if not self._rollout.members and self._rollout.taken is None:
                await self._raise_why()
            if _now() >= until:
                return order
            await self._news(until - _now())
        if order.step is Step.SERVE:
            self._joining.discard(replica)
            await self._note()
        self._wake()
        return order

    async def report(self, replica: str, number: int, state: ReplicaState) -> Answer:
        """A replica says how it stands; it is answered when there is news for it, or after a while.

        Args:
            replica: its name.
            number: of the report; one that arrives late is passed over.
            state: how it stands.
        """
        if replica in self._left or number < self._numbers.get(replica, 0):
            return self._answer(Order(step=Step.WAIT))
        self._numbers[replica] = number
        known = replica in self._rollout.states
        if self._rollout.report(replica, state):
            self._note_fault()
            self._wake()
        if not known:
            await self._note()
        until = _now() + self._longest_wait
        while True:
            current = self._numbers.get(replica) == number
            order = self._rollout.order(replica) if current else Order(step=Step.WAIT)
            answer = self._answer(order)
            news = (answer.refused, answer.store_error)
            if (
                not current
                or order.step is not Step.WAIT
                or self._said.get(replica, (None, None)) != news
                or _now() >= until
            ):
                self._said[replica] = news
                return answer
            await self._news(until - _now())

    async def leave(self, replica: str) -> None:
        """A replica follows no more; what it has sent before may come later than this."""
        await self.gone(replica)
        self._left.add(replica)

    async def gone(self, replica: str) -> None:
        """A replica has died."""
        for known in (self._joining, self._left):
            known.discard(replica)
        self._numbers.pop(replica, None)
        self._said.pop(replica, None)
        if self._rollout.gone(replica):
            if not self._rollout.members:
                # Whoever begins next follows the channel anew, as a server that is restarted does.
                self._channel = self._fault = None
            self._wake()
            await self._note()

    def _answer(self, order: Order) -> Answer:
        return Answer(
            order=order,
            refused=self._rollout.refused,
            store_error=self._channel.store_error if self._channel else self._fault,
            failure=self._rollout.failure,
        )

    @property
    def _longest_wait(self) -> float:
        return min(_LONGEST_WAIT, self.followed.interval)

    async def _note(self) -> None:
        async with self._noting:
            await self._note_members(self._rollout.members)

    def _note_fault(self) -> None:
        """What a replica cannot pull is a fault of the store, as is a pointer that cannot be read."""
        fault = self._rollout.store_fault
        if fault is not None and self._channel is not None:
            self._channel.failed(fault.reason, fault.code)

    async def _open(self) -> FollowedChannel | None:
        if self._channel is None:
            try:
                self._channel = await asyncio.to_thread(_open_channel, self.followed.source)
            except Exception as error:  # noqa: BLE001 - what is served goes on, whatever it is
                if self._fault is None or self._fault.code != error_code(error):
                    _log.warning("the channel cannot be followed for now: %s", first_line(error))
                since = self._fault.since if self._fault else datetime.now(UTC)
                self._fault = StoreFault(
                    reason=first_line(error), code=error_code(error), since=since
                )
        return self._channel

    async def _raise_why(self) -> None:
        """Raise what keeps the pointer from being read, if that is still so."""
        channel = await asyncio.to_thread(_open_channel, self.followed.source)
        self._rollout.name(await asyncio.to_thread(channel.first))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _news(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


def _open_channel(source: str) -> FollowedChannel:
    found = open_source(source)
    assert isinstance(found, ChannelSource), "what never moves is not rolled"
    return FollowedChannel(found)


def _now() -> float:
    return asyncio.get_running_loop().time()
