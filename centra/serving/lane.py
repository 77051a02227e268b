"""What waits of one channel, and how a batch takes from its requests in turn."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.serving.shape import BatchShape

__all__ = ["Lane", "Ticket"]

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
    lane: str = ""
    """The channel that it is for, of those that the queue was made with."""
    inputs: deque[tuple[T, int]] = field(default_factory=deque)
    """What waits of it, each with its tokens."""
    entered: float = field(default_factory=time.monotonic)
    present: bool = False
    """Whether it is in the queue."""


class Lane(Generic[T]):
    """The requests of one channel. It locks nothing: the queue does."""

    def __init__(self) -> None:
        self.waiting: deque[Ticket[T]] = deque()
        """Those whose inputs are ready to be computed."""
        self.arriving: dict[Ticket[T], None] = {}
        """Those whose inputs are being tokenised."""
        self.inputs = 0
        """Of all of them."""
        self.ready = 0
        """Inputs that are tokenised."""
        self.tokens = 0
        """Of these."""

    @property
    def tickets(self) -> Iterator[Ticket[T]]:
        """All requests."""
        yield from self.waiting
        yield from self.arriving

    def arrive(self, ticket: Ticket[T]) -> None:
        """Take a request in, before its inputs are tokenised."""
        self.arriving[ticket] = None
        self.inputs += ticket.count
        ticket.present = True

    def turn_away(self, ticket: Ticket[T]) -> None:
        """Forget one that has arrived."""
        del self.arriving[ticket]
        self.inputs -= ticket.count
        ticket.present = False

    def admit(self, ticket: Ticket[T], inputs: Sequence[tuple[T, int]]) -> None:
        """Let one that has arrived wait with these inputs."""
        self.turn_away(ticket)
        ticket.present = True
        ticket.inputs.extend(inputs)
        self.inputs += len(inputs)
        self.ready += len(inputs)
        self.tokens += sum(tokens for _, tokens in inputs)
        self.waiting.append(ticket)

    def leave(self, ticket: Ticket[T]) -> None:
        """Drop what waits of a request, wherever it is."""
        if ticket in self.arriving:
            self.turn_away(ticket)
        else:
            self.waiting.remove(ticket)
            self._forget(ticket)

    def pick(self, shape: Callable[[Any], BatchShape], now: float) -> list[T]:
        """Take from the requests in turn, beginning with the one at the front.

        Args:
            shape: what a batch of a group is to be like.
            now: the moment; requests whose deadline is over are dropped.

        Returns:
            Inputs of requests of one group; none where all were too late.
        """
        batch: _Batch[T] | None = None
        passed: list[Ticket[T]] = []
        while self.waiting and (batch is None or batch.open):
            ticket = self.waiting.popleft()
            if ticket.deadline is not None and ticket.deadline <= now:
                self._forget(ticket)
                continue
            batch = batch or _Batch(ticket.group, shape(ticket.group))
            before = len(ticket.inputs)
            self.tokens -= batch.take_turn(ticket)
            self.inputs -= before - len(ticket.inputs)
            self.ready -= before - len(ticket.inputs)
            if not ticket.inputs:
                ticket.present = False
            elif not batch.open:
                self.waiting.appendleft(ticket)
            elif batch.suits(ticket):
                self.waiting.append(ticket)
            else:
                passed.append(ticket)
        self.waiting.extendleft(reversed(passed))
        return batch.items if batch else []

    def _forget(self, ticket: Ticket[T]) -> None:
        self.inputs -= len(ticket.inputs)
        self.ready -= len(ticket.inputs)
        self.tokens -= sum(tokens for _, tokens in ticket.inputs)
        ticket.inputs.clear()
        ticket.present = False


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
