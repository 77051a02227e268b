"""One request on its way, as whoever asked sees it: answers as they come, or all of them in order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from centra.serving.errors import CancelledError
from centra.serving.queue import Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from centra.runtime.queries import EncodedQuery, Query
    from centra.serving.served import ServedRelease

__all__ = ["InputAnswer", "QueuedInput", "Request", "TaskAnswer", "Timing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswer:
    """What one task says to one input, or why an input has no answer at all."""

    place: int
    """Of the input in its request, from 0."""
    task: str | None
    """None where the error is the input's as a whole."""
    answer: dict[str, Any] | None = None
    error: Exception | None = None


@dataclass(kw_only=True, slots=True)
class InputAnswer:
    """Everything that is said to one input."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By task; see :class:`centra.runtime.queries.TaskResult`."""
    errors: dict[str, Exception] = field(default_factory=dict)
    """By task, of those that failed."""
    error: Exception | None = None
    """Why the input as a whole has no answer."""
    truncated: dict[str, int] | None = None
    """Where not all of it was read: how many tokens were ``given``, and how many ``kept``."""


@dataclass(kw_only=True, slots=True)
class Timing:
    """Where the time of a request went, in seconds; of its last answer, as all wait for that."""

    tokenise: float = 0.0
    """From being sent until all inputs were tokenised."""
    queue: float = 0.0
    """From then until the batch began."""
    trunk: float = 0.0
    """From then until the hidden states that the task reads were there."""
    branch: float = 0.0
    """From then until the answer was there."""


@dataclass(frozen=True, eq=False, slots=True)
class QueuedInput:
    """One input of a request, ready to be computed."""

    request: Request
    place: int
    encoded: EncodedQuery


class Request:
    """What was sent with one :meth:`centra.serving.Batcher.submit`; all of it is answered by one release.

    It belongs to the batcher's event loop. Read its answers by ``async for``, each as soon as its
    branch is done, or by :meth:`collect`. If the task that waits for them is cancelled, so is the
    request.
    """

    def __init__(
        self,
        served: ServedRelease,
        queries: Sequence[Query],
        *,
        deadline: float | None,
        done: Callable[[Request], None],
    ) -> None:
        self.served = served
        """The release that answers it."""
        self.timing = Timing()
        self.queries = queries
        self.began = time.monotonic()
        """When it was sent, by :func:`time.monotonic`."""
        self.ticket: Ticket[QueuedInput] = Ticket(served, len(queries), deadline)
        self.failure: Exception | None = None
        """Why inputs were left without an answer, where they were: late, cancelled, refused."""
        self.admitted = False
        """Whether its inputs are tokenised and wait, or more."""
        self.streams = False
        """Whether somebody reads each answer when it comes."""
        self._done = done
        self._answers: list[TaskAnswer] = []
        self._missing: list[set[str] | None] = [None] * len(queries)
        self._truncated: list[dict[str, int] | None] = [None] * len(queries)
        self._open = len(queries)
        self._wakeups: list[asyncio.Future[None]] = []

    @property
    def finished(self) -> bool:
        """Whether every input has its answers, or will not have them."""
        return not self._open

    async def __aiter__(self) -> AsyncIterator[TaskAnswer]:
        """Each answer, in the order in which they come."""
        self.streams = True
        read = 0
        while True:
            while read < len(self._answers):
                yield self._answers[read]
                read += 1
            if self.finished:
                return
            await self._change()

    async def collect(self) -> list[InputAnswer]:
        """All answers, in the order of the inputs."""
        while not self.finished:
            await self._change()
        inputs = [InputAnswer(truncated=truncated) for truncated in self._truncated]
        for item in self._answers:
            found = inputs[item.place]
            if item.task is None:
                found.error = item.error
            elif item.error is not None:
                found.errors[item.task] = item.error
            elif item.answer is not None:
                found.answers[item.task] = item.answer
        return inputs

    def cancel(self) -> None:
        """Give up: the client has gone, and what is not computed yet is dropped."""
        self.fail(CancelledError("the request was cancelled"))

    def fail(self, error: Exception) -> None:
        """End it now; inputs that still lack answers have this error instead."""
        if self.finished:
            return
        self.failure = error
        for place, missing in enumerate(self._missing):
            if missing is None or missing:
                self._answers.append(TaskAnswer(place=place, task=None, error=error))
        self._end()

    def tokenised(self, place: int, encoded: EncodedQuery | Exception) -> None:
        """Note what tokenising an input gave; an error is its answer."""
        if self.finished:
            return
        if isinstance(encoded, Exception):
            self._missing[place] = set()
            self._answers.append(TaskAnswer(place=place, task=None, error=encoded))
            self._close_input()
            return
        self._missing[place] = set(encoded.tasks)
        for row in encoded.rows.values():
            cut = self._truncated[place]
            if row.given and (cut is None or len(row.input_ids) < cut["kept"]):
                self._truncated[place] = {"given": row.given, "kept": len(row.input_ids)}

    def answered(self, answer: TaskAnswer) -> None:
        """Note an answer of a task; one that comes too late is ignored."""
        missing = self._missing[answer.place]
        if self.finished or missing is None or answer.task not in missing:
            return
        missing.discard(answer.task)
        self._answers.append(answer)
        if not missing:
            self._close_input()

    async def admission(self) -> None:
        """Wait until it is admitted.

        Raises:
            ServingError: it was not.
        """
        while not self.admitted and not self.finished:
            await self._change()
        if not self.admitted:
            assert self.failure is not None
            raise self.failure

    def admit(self) -> None:
        """Let its sender go on."""
        self.admitted = True
        self.wake()

    def missing(self, place: int) -> list[str]:
        """The tasks that have not answered an input."""
        return sorted(self._missing[place] or ())

    def wake(self) -> None:
        """Let those who wait look again."""
        wakeups, self._wakeups = self._wakeups, []
        for future in wakeups:
            if not future.done():
                future.set_result(None)

    def _close_input(self) -> None:
        self._open -= 1
        if not self._open:
            self._end()

    def _end(self) -> None:
        self._open = 0
        self._missing = [set() for _ in self._missing]
        self._done(self)
        self.wake()

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._wakeups.append(future)
        try:
            await future
        except asyncio.CancelledError:
            self.cancel()
            raise
