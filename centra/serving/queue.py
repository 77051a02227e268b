"""The bounded queue between requests and batches.

A request enters with the number of its inputs, is filled once they are tokenised, and leaves in
parts: each batch takes from the requests in turn, so that a large one keeps no small one waiting and
none waits for ever. One rule bounds it for all: a request fits as a whole, or is refused as a whole.

A batch is taken when the one before is done, unless more inputs are as good as there.

Each channel has a lane. The lanes take turns, a batch each; and a lane that holds less than its share
of the queue is let in although others have filled it. So none keeps another from being answered.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from centra.serving.errors import OverloadedError, TooLargeError
from centra.serving.lane import Lane
from centra.serving.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from centra.serving.lane import Ticket
    from centra.serving.shape import BatchShape

__all__ = ["InputQueue", "Waiting"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits of one channel."""

    inputs: int
    """Those that are being tokenised included."""
    tokens: int
    age: float
    """For how many seconds the oldest request has waited; 0 where none does."""


class InputQueue(Generic[T]):
    """Inputs of many requests that wait to be computed. Any thread may use it."""

    def __init__(
        self,
        *,
        inputs: int,
        tokens: int,
        seconds: float = math.inf,
        lanes: Collection[str] = ("",),
    ) -> None:
        """Make an empty queue.

        Args:
            inputs: how many it holds, those that are being tokenised included.
            tokens: how many tokens it holds.
            seconds: it takes no more while what waits takes longer than this.
            lanes: the channels that requests are for. One of several may have its share of each
                bound waiting, or one request, whatever the others have.
        """
        self._most_inputs, self._most_tokens, self._most_seconds = inputs, tokens, seconds
        self._changed = threading.Condition()
        self._lanes: dict[str, Lane[T]] = {name: Lane() for name in lanes}
        self._turns = deque(self._lanes.values())
        self._share = 1 / len(self._lanes)
        self._enough = 0
        self._closed = False
        self._rate = self._full_rate = 0.0
        self._usual = 0
        self._pace = Pace()

    @property
    def inputs(self) -> int:
        """How many wait, those that are being tokenised included."""
        return sum(lane.inputs for lane in self._lanes.values())

    @property
    def tokens(self) -> int:
        """How many tokens wait."""
        return sum(lane.tokens for lane in self._lanes.values())

    @property
    def tokens_per_second(self) -> float | None:
        """How many are computed while there is something to compute; None before the first."""
        return self._rate or None

    @property
    def seconds(self) -> float:
        """How long what waits will take, by the pace of large batches; 0 before the first of them."""
        return self._seconds(self.tokens)

    @property
    def age(self) -> float:
        """For how many seconds the oldest request has waited; 0 where none does."""
        return max(self.waiting(lane).age for lane in self._lanes)

    def waiting(self, lane: str) -> Waiting:
        """What waits in a lane."""
        found = self._lanes[lane]
        with self._changed:
            entered = [ticket.entered for ticket in found.tickets]
        age = time.monotonic() - min(entered) if entered else 0.0
        return Waiting(inputs=found.inputs, tokens=found.tokens, age=age)

    def enter(self, ticket: Ticket[T]) -> None:
        """Take a request in, before its inputs are tokenised.

        Raises:
            TooLargeError: it has more inputs than the queue ever holds.
            OverloadedError: it has more than fit now.
        """
        if ticket.count > self._most_inputs:
            raise TooLargeError(
                f"the request has {ticket.count} inputs, and {self._most_inputs} may wait at most",
                field="inputs",
                limit=self._most_inputs,
            )
        lane = self._lanes[ticket.lane]
        with self._changed:
            if not (
                self._may_enter(self.inputs + ticket.count, self.tokens)
                or self._may_enter(lane.inputs + ticket.count, lane.tokens, self._share)
                or not lane.inputs
            ):
                raise self._overloaded()
            lane.arrive(ticket)

    def fill(self, ticket: Ticket[T], inputs: Sequence[tuple[T, int]]) -> None:
        """Give a request its tokenised inputs, which may be fewer than it entered with.

        Does nothing where it has left.

        Raises:
            TooLargeError: they have more tokens than the queue ever holds; the request has left.
            OverloadedError: they have more than fit now; the request has left.
        """
        tokens = sum(count for _, count in inputs)
        lane = self._lanes[ticket.lane]
        with self._changed:
            if not ticket.present:
                return
            fits = (
                self.tokens + tokens <= self._most_tokens
                or lane.tokens + tokens <= self._share * self._most_tokens
                or (not lane.tokens and tokens <= self._most_tokens)
            )
            if not fits or not inputs:
                lane.turn_away(ticket)
                self._changed.notify_all()
                if tokens > self._most_tokens:
                    raise TooLargeError(
                        f"the request has {tokens} tokens, and {self._most_tokens} may wait at most",
                        field="inputs",
                        limit=self._most_tokens,
                    )
                if inputs:
                    raise self._overloaded()
                return
            lane.admit(ticket, inputs)
            now = time.monotonic()
            self._pace.arrived(len(inputs), now)
            # Whoever waits for many is not woken for each.
            if not self._pause(now):
                self._changed.notify_all()

    def leave(self, ticket: Ticket[T]) -> None:
        """Drop what waits of a request; does nothing where nothing does."""
        with self._changed:
            if ticket.present:
                self._lanes[ticket.lane].leave(ticket)

    def take(self, shape: Callable[[Any], BatchShape]) -> list[T]:
        """Wait for inputs, and take what is computed together next.

        Args:
            shape: what a batch of a group is to be like.

        Returns:
            Inputs of requests of one group; none once the queue is closed and empty.
        """
        with self._changed:
            while True:
                lane = next((lane for lane in self._turns if lane.waiting), None)
                if lane is not None:
                    self._enough = self._usual = shape(lane.waiting[0].group).tokens
                    now = time.monotonic()
                    if pause := self._pause(now):
                        self._changed.wait(pause)
                    elif batch := lane.pick(shape, now):
                        self._turns.remove(lane)
                        self._turns.append(lane)
                        return batch
                elif self._closed:
                    return []
                else:
                    self._enough = 0
                    self._changed.wait()

    def computed(self, inputs: int, tokens: int, seconds: float) -> None:
        """Be told how long the batch took that has just ended."""
        rate = tokens / max(seconds, 1e-6)
        with self._changed:
            self._rate = _smoothed(self._rate, rate)
            if 2 * tokens >= self._usual:
                # Small ones are slower by the token, and say nothing about a long queue.
                self._full_rate = _smoothed(self._full_rate, rate)
            self._pace.batch_done(inputs, seconds, time.monotonic())

    def close(self) -> None:
        """Let :meth:`take` end when nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pause(self, now: float) -> float:
        """For how long the next batch waits for more: not while another lane waits for its own."""
        lanes = [lane for lane in self._lanes.values() if lane.waiting]
        if self._closed or len(lanes) > 1 or self.tokens >= self._enough:
            return 0.0
        return self._pace.pause(sum(lane.ready for lane in lanes), now)

    def _may_enter(self, inputs: int, tokens: int, share: float = 1.0) -> bool:
        """Whether so many inputs may wait, and more tokens than there are, within a share."""
        return (
            inputs <= share * self._most_inputs
            and tokens < share * self._most_tokens
            and self._seconds(tokens) <= share * self._most_seconds
        )

    def _seconds(self, tokens: int) -> float:
        return tokens / self._full_rate if self._full_rate else 0.0

    def _overloaded(self) -> OverloadedError:
        rate, tokens = self._full_rate or self._rate, self.tokens
        seconds = tokens / rate if rate else 1.0
        return OverloadedError(
            f"{self.inputs} inputs of {tokens} tokens wait already, for about {seconds:.1f} "
            f"s; at most {self._most_inputs} inputs, {self._most_tokens} tokens and "
            f"{self._most_seconds:g} s may",
            retry_after=min(60.0, max(0.05, seconds)),
        )


def _smoothed(before: float, now: float) -> float:
    return before + 0.2 * (now - before) if before else now
