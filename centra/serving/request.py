"""One request on its way, as whoever asked sees it: answers as they come, or all of them in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from centra.serving.errors import CancelledError
from centra.serving.lane import Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from centra.runtime.queries import EncodedQuery, Query
    from centra.serving.served import ServedRelease

__all__ = ["InputAnswer", "QueuedInput", "Request", "TaskAnswer", "Timing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswer:
    """What one task says to one input, or why an input has no answer."""

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
    """Why the input as a whole has no answer, or none but those above."""
    truncated: dict[str, int] | None = None
    """Where not all of it was read: how many tokens were ``given``, and how many ``kept``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where the time of a request went, in seconds: that of its last answer, as all wait for that."""

    tokenise: float
    """From being sent until all inputs were tokenised."""
    queue: float
    """From then until the batch began."""
    trunk: float
    """From then until the hidden states that the task reads were there."""
    branch: float
    """From then until the answer was there."""


@dataclass(frozen=True, eq=False, slots=True)
class QueuedInput:
    """One input of a request, ready to be computed."""

    request: Request
    place: int
    encoded: EncodedQuery


class Request:
    """What was sent with one :meth:`centra.serving.batcher.Batcher.submit`.

    One release answers all of it. It belongs to the batcher's event loop. Read its answers by
    ``async for``, each as soon as its branch is done, or all by :meth:`collect`. If the task that
    waits for them is cancelled, so is the request.
    """

    def __init__(
        self,
        served: ServedRelease,
        queries: Sequence[Query],
        *,
        timeout: float | None,
        done: Callable[[Request], None],
        channel: str = "",
    ) -> None:
        self.served = served
        """The release that answers it."""
        self.channel = channel
        """The name of the channel that it is for; empty where there is one, which has no name."""
        self.queries = queries
        self.began = time.monotonic()
        """When it was sent, by :func:`time.monotonic`; so are the times below."""
        self.ready: float | None = None
        """When all its inputs were tokenised."""
        self.computed: tuple[float, float, float] | None = None
        """Of the last answer: when its batch began, the trunk's seconds, and when it was there."""
        self.took: dict[str, list[tuple[float, float, float]]] = {}
        """Of each task, batch by batch: when the batch began, the seconds until the hidden states were
        there that the task reads, and from then until its answers were."""
        self.serialised = 0.0
        """Seconds that writing the answers down took, as whoever sends them over a network says."""
        deadline = None if timeout is None else self.began + timeout
        self.ticket: Ticket[QueuedInput] = Ticket(served, len(queries), deadline, channel)
        """Its place in the queue."""
        self.admitted = False
        """Whether its inputs were tokenised, and fit into the queue."""
        self.tokens = 0
        """That are computed for it, over all backbones."""
        self.failure: Exception | None = None
        """Why it ended before it was answered, where it did: late, cancelled, refused."""
        self._done = done
        self._inputs = [InputAnswer() for _ in queries]
        self._left = [1] * len(queries)
        self._open = len(queries)
        self._streams: list[deque[TaskAnswer]] = []
        self._wakeups: list[asyncio.Future[None]] = []

    @property
    def finished(self) -> bool:
        """Whether every input has its answers, or will not have them."""
        return not self._open

    @property
    def errors(self) -> Iterator[Exception]:
        """Of its inputs and of tasks on them, as far as they are known."""
        for said in self._inputs:
            if said.error is not None:
                yield said.error
            yield from said.errors.values()

    @property
    def refused(self) -> bool:
        """Whether it ended before it was admitted, by no will of its sender."""
        gone = isinstance(self.failure, CancelledError)
        return not (self.failure is None or self.admitted or gone)

    @property
    def streams(self) -> bool:
        """Whether somebody reads each answer as it comes."""
        return bool(self._streams)

    @property
    def answers(self) -> list[InputAnswer]:
        """What was said so far, in the order of the inputs."""
        return self._inputs

    @property
    def timing(self) -> Timing:
        """Where the time went so far."""
        ready = self.began if self.ready is None else self.ready
        begun, trunk, done = self.computed or (ready, 0.0, ready)
        return Timing(
            tokenise=ready - self.began,
            queue=begun - ready,
            trunk=trunk,
            branch=done - begun - trunk,
        )

    async def __aiter__(self) -> AsyncIterator[TaskAnswer]:
        """Each answer, in the order in which they come."""
        stream = deque(self._so_far())
        self._streams.append(stream)
        while True:
            while stream:
                yield stream.popleft()
            if self.finished:
                return
            await self._change()

    async def collect(self) -> list[InputAnswer]:
        """All answers, in the order of the inputs."""
        while not self.finished:
            await self._change()
        return self._inputs

    def cancel(self) -> None:
        """Give up: the client has gone, and what is not computed yet is dropped."""
        self.fail(CancelledError("the request was cancelled"))

    # What follows is for the batcher.

    async def admission(self) -> None:
        """Wait until it is admitted.

        Raises:
            ServingError: it was not.
        """
        while not self.admitted and not self.finished:
            await self._change()
        if self.refused:
            assert self.failure is not None
            raise self.failure

    def admit(self) -> None:
        """Let its sender go on."""
        self.admitted = self.failure is None
        self.wake()

    def tokenised(self, place: int, encoded: EncodedQuery | Exception) -> None:
        """Note what tokenising an input gave; an error is its answer."""
        if self.finished:
            return
        if isinstance(encoded, Exception):
            self._say(TaskAnswer(place=place, task=None, error=encoded))
            self._close(place)
            return
        self._left[place] = len(encoded.tasks)
        self.tokens += encoded.tokens
        for row in encoded.rows.values():
            cut = self._inputs[place].truncated
            if row.given and (cut is None or len(row.input_ids) < cut["kept"]):
                cut = {"given": row.given, "kept": len(row.input_ids)}
                self._inputs[place].truncated = cut

    def answered(
        self, place: int, task: str, answer: dict[str, Any] | None, error: Exception | None = None
    ) -> None:
        """Note what a task says, once; what comes too late is ignored."""
        if self.finished:
            return
        if error is not None:
            self._inputs[place].errors[task] = error
        elif answer is not None:
            self._inputs[place].answers[task] = answer
        if self._streams:
            self._say(TaskAnswer(place=place, task=task, answer=answer, error=error))
        self._left[place] -= 1
        if not self._left[place]:
            self._close(place)

    def missing(self, place: int, tasks: Sequence[str]) -> list[str]:
        """Which of the tasks of an input have said nothing."""
        if self.finished or not self._left[place]:
            return []
        said = self._inputs[place]
        return [task for task in tasks if task not in said.answers and task not in said.errors]

    def fail(self, error: Exception) -> None:
        """End it now; inputs that still lack answers have this error."""
        if self.finished:
            return
        self.failure = error
        for place, left in enumerate(self._left):
            if left:
                self._say(TaskAnswer(place=place, task=None, error=error))
        self._end()

    def wake(self) -> None:
        """Let those who wait look again."""
        wakeups, self._wakeups = self._wakeups, []
        for future in wakeups:
            if not future.done():
                future.set_result(None)

    def _say(self, answer: TaskAnswer) -> None:
        if answer.task is None:
            self._inputs[answer.place].error = answer.error
        for stream in self._streams:
            stream.append(answer)

    def _so_far(self) -> Iterator[TaskAnswer]:
        for place, said in enumerate(self._inputs):
            for task, answer in said.answers.items():
                yield TaskAnswer(place=place, task=task, answer=answer)
            for task, error in said.errors.items():
                yield TaskAnswer(place=place, task=task, error=error)
            if said.error is not None:
                yield TaskAnswer(place=place, task=None, error=said.error)

    def _close(self, place: int) -> None:
        self._left[place] = 0
        self._open -= 1
        if not self._open:
            self._end()

    def _end(self) -> None:
        self._open = 0
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
