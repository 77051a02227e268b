"""How a release is rolled over replicas: prepared by one after the other, handed over by all.

There is no plan to lose: what each replica is to do follows from what all of them report and from
what the channel names. Nothing here knows of Ray, of stores or of processes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from centra.serving.refusals import Refusals, RefusedRelease

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from centra.formats.manifest import ChannelPointer

__all__ = ["Cause", "Failure", "Order", "ReplicaState", "Rollout", "Step"]

_log = logging.getLogger(__name__)


class Cause(StrEnum):
    """Why a replica could not prepare a release."""

    STORE = "store"
    """The store is away: it says nothing of the release."""
    MENDABLE = "mendable"
    """It can become good although its digest stays."""
    FINAL = "final"
    """It cannot."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An attempt to prepare a release that failed."""

    pointer: ChannelPointer
    """What was to be prepared."""
    attempt: int
    """The number that the order gave it."""
    cause: Cause
    reason: str
    """In words."""
    code: str
    """What sort of fault it is, for programs."""


@dataclass(frozen=True, kw_only=True)
class ReplicaState:
    """What a replica says of itself."""

    serves: ChannelPointer
    preparing: ChannelPointer | None = None
    """What it is at."""
    prepared: ChannelPointer | None = None
    """What could take over at once."""
    failure: Failure | None = None
    """The last that it knows of, its own or another replica's."""


class Step(StrEnum):
    """What a replica is to do."""

    WAIT = "wait"
    LOAD = "load"
    """Before it serves: load a release, and ask again."""
    SERVE = "serve"
    """Before it serves: begin, with what it has loaded."""
    PREPARE = "prepare"
    """Make a release ready beside the one that is served."""
    HAND_OVER = "hand over"
    """Serve what is prepared."""
    ABANDON = "abandon"
    """Give back what is prepared."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A step, and the release that it is about."""

    step: Step
    pointer: ChannelPointer | None = None
    attempt: int = 0
    """Of a preparation: its failure says it again."""


_WAIT = Order(step=Step.WAIT)


class Rollout:
    """What the replicas of a channel serve, and what they are to do next.

    Not for several threads at once.
    """

    def __init__(
        self,
        channels: Sequence[str],
        *,
        interval: float,
        members: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin, or begin again.

        Args:
            channels: the channel's name; of several, an earlier one goes before a later one.
            interval: seconds from a store's fault to the next attempt; from a refusal it is longer.
            members: the replicas that served before a restart. Nothing is decided until each has
                reported, or is gone.
            clock: the time in seconds, from any moment on.
        """
        self.taken: ChannelPointer | None = None
        """What all serve, or have been told to hand over to."""
        self.named: ChannelPointer | None = None
        """What the channel named last."""
        self.failure: Failure | None = None
        """The last one at what the channel names."""
        self._channels = [*channels]
        self._interval, self._clock = interval, clock
        self._refusals = Refusals(interval, clock=clock)
        self._states: dict[str, ReplicaState] = {}
        self._unheard = {*members}
        self._told: dict[str, Order] = {}
        self._next_attempt = 0.0
        self._attempt = 0

    @property
    def members(self) -> set[str]:
        """The replicas that serve, and those that have not said since a restart."""
        return {*self._states, *self._unheard}

    @property
    def states(self) -> dict[str, ReplicaState]:
        """What each replica that serves has said last."""
        return dict(self._states)

    @property
    def refused(self) -> RefusedRelease | None:
        """What the channel names now, where a replica refused it: all go on with what was before."""
        return self._refusals.refused

    @property
    def store_fault(self) -> Failure | None:
        """The failure, where it is the store that was away."""
        found = self.failure
        return found if found is not None and found.cause is Cause.STORE else None

    @property
    def rolling(self) -> bool:
        """Whether replicas have something to do, or it is not known yet."""
        return bool(self._unheard) or (
            any(self._goal(state) != state.serves for state in self._states.values())
            and self._clock() >= self._next_attempt
        )

    def name(self, pointer: ChannelPointer) -> bool:
        """The channel names this; True where that is news. What it named before is rolled no more."""
        if pointer == self.named:
            return False
        self.named, self.failure = pointer, None
        self._refusals.clear()
        self._attempt, self._next_attempt = 0, 0.0
        for state in self._states.values():
            self._learn(state)
        self._commit_if_ready()
        return True

    def hurry(self) -> None:
        """Try again now what waits for another attempt, if that can help."""
        if self.failure is not None and self.failure.cause is not Cause.FINAL:
            self._next_attempt = 0.0

    def join(self, replica: str, loaded: ChannelPointer | None = None) -> Order:
        """What a replica is to do that does not serve yet.

        Args:
            replica: its name.
            loaded: what it has loaded.

        Returns:
            LOAD what the others serve (or, before anybody does, what the channel names, if that is
            known); SERVE what was loaded; or WAIT, and ask again.
        """
        self.gone(replica)  # Where it asks again, because an answer was lost, it does not serve.
        if self._unheard:
            return _WAIT
        pointer = self._to_serve(loaded)
        if pointer is None:
            return _WAIT
        if pointer != loaded:
            return Order(step=Step.LOAD, pointer=pointer)
        self.taken = pointer
        self._states[replica] = ReplicaState(serves=pointer)
        return Order(step=Step.SERVE, pointer=pointer)

    def report(self, replica: str, state: ReplicaState) -> bool:
        """A replica says how it stands; True where that is news. Any earlier order to it is void."""
        self._unheard.discard(replica)
        self._told.pop(replica, None)
        before = self._states.get(replica)
        self._states[replica] = state
        if self.taken is None or self._rank(state.serves) > self._rank(self.taken):
            self.taken = state.serves
        self._learn(state)
        self._commit_if_ready()
        return state != before

    def gone(self, replica: str) -> bool:
        """A replica has ended, or died; True where it was known."""
        known = replica in self.members
        self._unheard.discard(replica)
        self._states.pop(replica, None)
        self._told.pop(replica, None)
        self._commit_if_ready()
        return known

    def order(self, replica: str) -> Order:
        """What a replica is to do that has reported; it holds until its next report."""
        self._told.pop(replica, None)
        self._told[replica] = order = self._order(self._states[replica])
        return order

    def _order(self, state: ReplicaState) -> Order:
        if self._unheard:
            return _WAIT
        goal = self._goal(state)
        if state.prepared is not None and state.prepared != goal:
            return Order(step=Step.ABANDON)
        if goal == state.serves or state.preparing is not None:
            return _WAIT
        if state.prepared is not None:
            ready = goal == self.taken
            return Order(step=Step.HAND_OVER, pointer=goal) if ready else _WAIT
        if self._somebody_prepares() or self._clock() < self._next_attempt:
            return _WAIT
        return Order(step=Step.PREPARE, pointer=goal, attempt=self._attempt)

    def _goal(self, state: ReplicaState) -> ChannelPointer:
        """What a replica should come to serve next: what it serves, where that is right."""
        assert self.taken is not None
        if state.serves != self.taken:
            return self.taken
        return self._target() or self.taken

    def _target(self) -> ChannelPointer | None:
        """What is rolled: what the channel names, where that is later than what is served."""
        named, taken = self.named, self.taken
        if named is None or taken is None or self._rank(named) <= self._rank(taken):
            return None
        if self._refusals.concern(named) and self._clock() < self._next_attempt:
            return None
        return named

    def _to_serve(self, loaded: ChannelPointer | None) -> ChannelPointer | None:
        """What a replica that begins is to serve; None where that is not known yet."""
        if self._states:
            return self.taken
        if self.named is None or self._refusals.concern(self.named):
            # All have died since one refused what is named: what they served is still the best.
            return self.taken or self.named
        # Nobody serves. What was loaded while the channel moved is as good to begin with.
        if loaded is not None and self._rank(loaded) >= self._rank(self.taken):
            return loaded
        return self.named

    def _somebody_prepares(self) -> bool:
        return any(state.preparing is not None for state in self._states.values()) or any(
            order.step is Step.PREPARE for order in self._told.values()
        )

    def _commit_if_ready(self) -> None:
        target = None if self._unheard or not self._states else self._target()
        if target is None or any(state.prepared != target for state in self._states.values()):
            return
        _log.info(
            "channel %s, revision %d: all %d replicas are ready for release %d, and hand over",
            target.name,
            target.revision,
            len(self._states),
            target.release,
        )
        self.taken, self.failure = target, None
        self._refusals.clear()

    def _learn(self, state: ReplicaState) -> None:
        """Take note of a failure, once."""
        failure = state.failure
        if failure is None or failure.attempt < self._attempt:
            return
        if failure.pointer != self.named or self._rank(failure.pointer) <= self._rank(self.taken):
            if failure.pointer == self.taken and state.serves != self.taken:
                self._attempt = failure.attempt + 1
                self._next_attempt = self._clock() + self._interval
                _log.error(
                    "a replica cannot serve what the others serve, and tries again: %s",
                    failure.reason,
                )
            return
        self.failure, self._attempt = failure, failure.attempt + 1
        if failure.cause is Cause.STORE:
            self._next_attempt = self._clock() + self._interval
            return
        mendable = failure.cause is Cause.MENDABLE
        news = self._refusals.add(failure.pointer, failure.reason, mendable=mendable)
        self._next_attempt = self._refusals.next_attempt
        if news:
            _log.error(
                "channel %s, revision %d: release %d (sha256:%s) is refused by a replica and so by "
                "all; what they serve goes on: %s",
                failure.pointer.name,
                failure.pointer.revision,
                failure.pointer.release,
                failure.pointer.manifest,
                failure.reason,
            )

    def _rank(self, pointer: ChannelPointer | None) -> tuple[int, int, bool]:
        """Of two pointers the later one has the higher rank."""
        if pointer is None:
            return (-len(self._channels) - 1, 0, False)
        known = pointer.name in self._channels
        place = self._channels.index(pointer.name) if known else len(self._channels)
        # One of an older format says no versions, and is written again with them.
        return (-place, pointer.revision, bool(pointer.versions))
