"""The bounded queue between requests and batches.

A request enters with the number of its inputs, is filled once they are tokenised, and leaves in
parts: each batch takes from the requests in turn, so that a large one keeps no small one waiting and
none waits for ever. One rule bounds it for all: a request fits as a whole, or is refused as a whole.

A batch is taken when the one before is done, unless more inputs are as good as there.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from centra.serving.errors import OverloadedError, TooLargeError
from centra.serving.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.serving.shape import BatchShape

__all__ = ["InputQueue", "Ticket"]

T = TypeVar("T")

_TURNS = 4
"""Into so many turns a batch is cut: a request that fills more gives way to the others."""


@dataclass(eq=False)
class Ticket(Generic[T]):
    """One request in the queue."""

    group: object
    """A batch holds requests of one group."""
    count: int
    """Inputs that it entered with."""
    deadline: float | None = None
    """After this moment of :func:`time.monotonic` it is not computed any more."""
    inputs: deque[tuple[T, int]] = field(default_factory=deque)
    """What waits of it, each with its tokens."""
    entered: float = field(default_factory=time.monotonic)
    present: bool = False
    """Whether it is in the queue."""


class InputQueue(Generic[T]):
    """Inputs of many requests that wait to be computed. Any thread may use it."""

    def __init__(self, *, inputs: int, tokens: int, seconds: float = math.inf) -> None:
        """Make an empty queue.

        Args:
            inputs: how many it holds, those that are being tokenised included.
            tokens: how many tokens it holds.
            seconds: it takes no more while what waits takes longer than this.
        """
        self._most_inputs, self._most_tokens, self._most_seconds = inputs, tokens, seconds
        self._changed = threading.Condition()
        self._waiting: deque[Ticket[T]] = deque()
        self._arriving: dict[Ticket[T], None] = {}
        self._inputs = self._ready = self._tokens = self._enough = 0
        self._closed = False
        self._rate = self._full_rate = 0.0
        self._usual = 0
        self._pace = Pace()

    @property
    def inputs(self) -> int:
        """How many wait, those that are being tokenised included."""
        return self._inputs

    @property
    def tokens(self) -> int:
        """How many tokens wait."""
        return self._tokens

    @property
    def tokens_per_second(self) -> float | None:
        """How many are computed while there is something to compute; None before the first."""
        return self._rate or None

    @property
    def seconds(self) -> float:
        """How long what waits will take, by the pace of large batches; 0 before the first of them."""
        return self._tokens / self._full_rate if self._full_rate else 0.0

    @property
    def age(self) -> float:
        """For how many seconds the oldest request has waited; 0 where none does."""
        with self._changed:
            entered = [t.entered for t in (*self._waiting, *self._arriving)]
        return time.monotonic() - min(entered) if entered else 0.0

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
        with self._changed:
            full = self._tokens >= self._most_tokens or self.seconds > self._most_seconds
            if full or self._inputs + ticket.count > self._most_inputs:
                raise self._overloaded()
            self._inputs += ticket.count
            self._arriving[ticket] = None
            ticket.present = True

    def fill(self, ticket: Ticket[T], inputs: Sequence[tuple[T, int]]) -> None:
        """Give a request its tokenised inputs, which may be fewer than it entered with.

        Does nothing where it has left.

        Raises:
            TooLargeError: they have more tokens than the queue ever holds; the request has left.
            OverloadedError: they have more than fit now; the request has left.
        """
        tokens = sum(count for _, count in inputs)
        with self._changed:
            if not ticket.present:
                return
            del self._arriving[ticket]
            self._inputs -= ticket.count
            if tokens + self._tokens > self._most_tokens or not inputs:
                ticket.present = False
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
            ticket.inputs.extend(inputs)
            self._inputs += len(inputs)
            self._ready += len(inputs)
            self._tokens += tokens
            self._waiting.append(ticket)
            now = time.monotonic()
            self._pace.arrived(len(inputs), now)
            # Whoever waits for many is not woken for each.
            if self._tokens >= self._enough or not self._pace.pause(self._ready, now):
                self._changed.notify_all()

    def leave(self, ticket: Ticket[T]) -> None:
        """Drop what waits of a request; does nothing where nothing does."""
        with self._changed:
            if not ticket.present:
                return
            if ticket in self._arriving:
                del self._arriving[ticket]
                self._inputs -= ticket.count
            else:
                self._waiting.remove(ticket)
                self._forget(ticket)
            ticket.present = False

    def take(self, shape: Callable[[Any], BatchShape]) -> list[T]:
        """Wait for inputs, and take what is computed together next.

        Args:
            shape: what a batch of a group is to be like.

        Returns:
            Inputs of requests of one group; none once the queue is closed and empty.
        """
        with self._changed:
            while True:
                if self._waiting:
                    self._enough = self._usual = shape(self._waiting[0].group).tokens
                    full = self._closed or self._tokens >= self._enough
                    pause = 0.0 if full else self._pace.pause(self._ready, time.monotonic())
                    if pause:
                        self._changed.wait(pause)
                    elif batch := self._pick(shape):
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

    def _pick(self, shape: Callable[[Any], BatchShape]) -> list[T]:
        """Take from the requests in turn, beginning with the one at the front."""
        now = time.monotonic()
        batch: _Batch[T] | None = None
        passed: list[Ticket[T]] = []
        while self._waiting and (batch is None or batch.open):
            ticket = self._waiting.popleft()
            if ticket.deadline is not None and ticket.deadline <= now:
                ticket.present = False
                self._forget(ticket)
                continue
            batch = batch or _Batch(ticket.group, shape(ticket.group))
            before = len(ticket.inputs)
            self._tokens -= batch.take_turn(ticket)
            self._inputs -= before - len(ticket.inputs)
            self._ready -= before - len(ticket.inputs)
            if not ticket.inputs:
                ticket.present = False
            elif not batch.open:
                self._waiting.appendleft(ticket)
            elif batch.suits(ticket):
                self._waiting.append(ticket)
            else:
                passed.append(ticket)
        self._waiting.extendleft(reversed(passed))
        return batch.items if batch else []

    def _forget(self, ticket: Ticket[T]) -> None:
        self._inputs -= len(ticket.inputs)
        self._ready -= len(ticket.inputs)
        self._tokens -= sum(tokens for _, tokens in ticket.inputs)
        ticket.inputs.clear()

    def _overloaded(self) -> OverloadedError:
        rate = self._full_rate or self._rate
        seconds = self._tokens / rate if rate else 1.0
        return OverloadedError(
            f"{self._inputs} inputs of {self._tokens} tokens wait already, for about {seconds:.1f} "
            f"s; at most {self._most_inputs} inputs, {self._most_tokens} tokens and "
            f"{self._most_seconds:g} s may",
            retry_after=min(60.0, max(0.05, seconds)),
        )


def _smoothed(before: float, now: float) -> float:
    return before + 0.2 * (now - before) if before else now


class _Batch(Generic[T]):
    """A batch while it is put together."""

    def __init__(self, group: object, shape: BatchShape) -> None:
        self.items: list[T] = []
        self.open = True
        """Whether it may take more."""
        self._group, self._shape = group, shape
        self._room = shape.tokens
        self._turn = max(1, shape.tokens // _TURNS)
        self._length: int | None = None

    def suits(self, ticket: Ticket[T]) -> bool:
        """Whether there is something for it in a request."""
        return ticket.group is self._group and any(
            self._length in (None, self._shape.cost(tokens)) for _, tokens in ticket.inputs
        )

    def take_turn(self, ticket: Ticket[T]) -> int:
        """Take some of a request's inputs; how many tokens they have."""
        if ticket.group is not self._group:
            return 0
        others: list[tuple[T, int]] = []
        taken = cost = 0
        while ticket.inputs and cost < self._turn:
            item, tokens = ticket.inputs.popleft()
            more = self._shape.cost(tokens)
            if self._length not in (None, more):
                others.append((item, tokens))
                continue
            if self.items and more > self._room:
                others.append((item, tokens))
                self.open = False
                break
            if self._shape.padded:
                self._length = more
            self.items.append(item)
            self._room -= more
            cost += more
            taken += tokens
        ticket.inputs.extendleft(reversed(others))
        return taken
