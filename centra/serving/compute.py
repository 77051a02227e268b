"""The thread that computes: it takes a batch, runs it, and sends each answer to whoever asked."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from centra.serving.errors import ServingError
from centra.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.runtime.queries import TaskResult
    from centra.serving.mailbox import Mailbox
    from centra.serving.queue import InputQueue
    from centra.serving.request import QueuedInput, Request
    from centra.serving.served import ServedRelease
    from centra.serving.shape import BatchShape

__all__ = ["BatchRecord", "ComputeThread", "Observer", "TaskRecord", "tell"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """What a task's branch did in a batch."""

    task: str
    answered: int
    failed: int
    seconds: float
    """Of the branch."""


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """A batch that has been computed."""

    served: ServedRelease
    channel: str = ""
    """The name of the channel that was asked; empty where it has none."""
    inputs: int
    tokens: int
    seconds: float
    trunk_seconds: float
    """Until the deepest tap was reached."""
    tasks: Sequence[TaskRecord]
    failed: bool
    """Whether it ended in an error before all tasks were done."""


class Observer(Protocol):
    """Is told of what happens in a batcher. It must be quick; what it raises is logged."""

    def batch_done(self, batch: BatchRecord) -> None:
        """A batch was computed; told in the thread that did."""
        ...

    def request_done(self, request: Request) -> None:
        """A request has its answers, or ``failure`` says why not; told on the event loop."""
        ...

    def refused(self, error: ServingError) -> None:
        """A request was refused before it was taken in; told on the event loop."""
        ...


class ComputeThread:
    """Computes what waits in a queue, batch by batch, until the queue is closed and empty."""

    def __init__(
        self,
        queue: InputQueue[QueuedInput],
        mailbox: Mailbox,
        *,
        shape: Callable[[ServedRelease], BatchShape],
        observer: Observer | None,
    ) -> None:
        self._queue, self._mailbox = queue, mailbox
        self._shape, self._observer = shape, observer
        self._thread = threading.Thread(target=self._work, name="centra-batcher", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _work(self) -> None:
        while batch := self._queue.take(self._shape):
            self._run([item for item in batch if not item.request.finished])

    def _run(self, batch: list[QueuedInput]) -> None:
        if not batch:
            return
        served = batch[0].request.served
        start = time.monotonic()
        trunk, failure = 0.0, None
        tasks: list[TaskRecord] = []
        try:
            for result in served.release.answer([item.encoded for item in batch]):
                trunk = max(trunk, result.trunk_seconds)
                tasks.append(_record(result))
                if result.error is not None:
                    log_failure(_log, f"task {result.task} failed", result.error)
                deliver = partial(_deliver, batch, result, start, time.monotonic())
                self._mailbox.post(deliver, wake=any(item.request.streams for item in batch))
        except Exception as error:  # noqa: BLE001 - sent to whoever asked
            log_failure(_log, f"a batch of {len(batch)} inputs failed", error)
            failure = error
        tokens = sum(item.encoded.tokens for item in batch)
        seconds = time.monotonic() - start
        self._queue.computed(len(batch), tokens, seconds)
        self._mailbox.post(partial(_finish, batch, failure))
        if self._observer is not None:
            record = BatchRecord(
                served=served,
                channel=batch[0].request.channel,
                inputs=len(batch),
                tokens=tokens,
                seconds=seconds,
                trunk_seconds=trunk,
                tasks=tasks,
                failed=failure is not None,
            )
            tell(self._observer.batch_done, record)


def tell(observe: Callable[[T], None], what: T) -> None:
    """Tell an observer; whatever it does, others go on."""
    try:
        observe(what)
    except Exception:  # noqa: BLE001 - of any sort
        _log.exception("an observer failed")


def _record(result: TaskResult) -> TaskRecord:
    return TaskRecord(
        task=result.task,
        answered=len(result.answers),
        failed=len(result.places) if result.error else 0,
        seconds=result.branch_seconds,
    )


def _deliver(batch: Sequence[QueuedInput], result: TaskResult, start: float, now: float) -> None:
    """On the event loop: give each request what a task says to it."""
    took = (start, result.trunk_seconds, result.branch_seconds)
    for request in {batch[place].request for place in result.places}:
        request.took.setdefault(result.task, []).append(took)
    for i, place in enumerate(result.places):
        item = batch[place]
        item.request.computed = (start, result.trunk_seconds, now)
        if result.error is None:
            item.request.answered(item.place, result.task, result.answers[i])
        else:
            item.request.answered(item.place, result.task, None, result.error)
    _wake_streaming(batch)


def _finish(batch: Sequence[QueuedInput], failure: Exception | None) -> None:
    """On the event loop: whatever has no answer now will have none."""
    for item in batch:
        for task in item.request.missing(item.place, item.encoded.tasks):
            error = failure or ServingError("the release gave no answer", code="no-answer")
            item.request.answered(item.place, task, None, error)
    _wake_streaming(batch)


def _wake_streaming(batch: Sequence[QueuedInput]) -> None:
    for request in {item.request for item in batch if item.request.streams}:
        request.wake()
