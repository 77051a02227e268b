"""One batch on its way: the trunk from tap to tap, and each branch from the moment its tap is there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from centra.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.runtime.pool import Pool

__all__ = ["Job", "Outcome", "Profile", "compute", "compute_alone"]

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job(Generic[T]):
    """What is to be done with the hidden states of a tap."""

    name: str
    tap: int
    length: float
    """How long it takes beside others. The longest that can run runs first, but the very first is
    the shortest."""
    run: Callable[[Any], T]


class Outcome(NamedTuple, Generic[T]):
    """What came of a job."""

    job: Job[T]
    value: T | None
    """None where there is an error."""
    error: Exception | None
    """Of the job; or of a step, before the job's tap was there."""
    reached: float
    """When its tap was there, on the clock of :func:`time.perf_counter`."""
    done: float
    """When the job had ended."""


@dataclass
class Profile:
    """How many seconds the parts of requests took."""

    shared: float = 0.0
    """The steps."""
    tasks: dict[str, float] = field(default_factory=dict)
    """The jobs, by name."""


def compute(
    pool: Pool, steps: Iterator[tuple[int, Any]], jobs: Sequence[Job[T]]
) -> Iterator[Outcome[T]]:
    """Run jobs on a pool's threads.

    Args:
        pool: where to; nothing runs in the caller's thread.
        steps: gives each tap that a job names with its hidden states, in some order; is asked for
            no more than these.
        jobs: at least one.

    Yields:
        What came of each job, as soon as it is done. A job that fails keeps no other from its
        result; a step that fails, those whose taps are not there yet.

    Raises:
        UsageError: it was begun in the process that this one was forked from.
    """
    running = _RunningBatch(pool, steps, jobs)
    running.start()
    forks = pool.forks
    try:
        for _ in jobs:
            if pool.forks != forks:
                raise UsageError(
                    "this request was begun in the process that this one was forked from, which "
                    "answers it alone; ask again here",
                    code="begun-before-fork",
                )
            yield running.outcomes.get()
    finally:
        # Whoever stops listening has no use for what is still queued.
        running.listening = False


def compute_alone(
    pool: Pool, steps: Iterator[tuple[int, Any]], jobs: Sequence[Job[T]], profile: Profile
) -> Iterator[Outcome[T]]:
    """Run jobs one after the other, each when its tap is there.

    Args:
        pool, steps, jobs: as for :func:`compute`.
        profile: what each takes is added to it.

    Yields:
        What came of each job.

    Raises:
        Exception: of a step or a job, at once.
    """

    def timed(work: Callable[[], R]) -> tuple[R, float]:
        def run() -> tuple[R, float]:
            start = time.perf_counter()
            return work(), time.perf_counter() - start

        return pool.run(run)

    while True:
        step, seconds = timed(partial(next, steps, None))
        if step is None:
            return
        profile.shared += seconds
        tap, hidden_states = step
        reached = time.perf_counter()
        for job in jobs:
            if job.tap == tap:
                value, seconds = timed(partial(job.run, hidden_states))
                profile.tasks[job.name] = profile.tasks.get(job.name, 0.0) + seconds
                yield Outcome(job, value, None, reached, time.perf_counter())


class _RunningBatch(Generic[T]):
    def __init__(
        self, pool: Pool, steps: Iterator[tuple[int, Any]], jobs: Sequence[Job[T]]
    ) -> None:
        self.outcomes: SimpleQueue[Outcome[T]] = SimpleQueue()
        self.listening = True
        self._pool, self._steps = pool, steps
        self._answering = False
        self._waiting: dict[int, list[Job[T]]] = {}
        for job in jobs:
            self._waiting.setdefault(job.tap, []).append(job)

    def start(self) -> None:
        """Queue the trunk's first step."""
        self._queue_step()

    def _queue_step(self) -> None:
        """Queue the trunk's next step.

        The way through the trunk is the longest, so it comes first, unless there is one thread
        alone: then the sum of all is what it is, and answers may as well leave early.
        """
        self._pool.submit(self._step, math.inf if self._pool.workers > 1 else -math.inf)

    def _step(self) -> None:
        if not self.listening:
            return
        try:
            tap, hidden_states = next(self._steps)
        except Exception as error:  # noqa: BLE001 - for who waits for it
            now = time.perf_counter()
            for job in (job for jobs in self._waiting.values() for job in jobs):
                self.outcomes.put(Outcome(job, None, error, now, now))
            return
        now = time.perf_counter()
        reached = self._waiting.pop(tap)
        if self._waiting:
            self._queue_step()
        if not self._answering:
            # Longest first is for an even end; the first answer need not wait for the longest. Here
            # and now, as queueing it takes a tenth of its time; the others of its tap can wait.
            self._answering = True
            shortest = min(reached, key=lambda job: job.length)
            reached.remove(shortest)
            self._run(shortest, hidden_states, now)
        for job in reached:
            self._pool.submit(partial(self._run, job, hidden_states, now), job.length)

    def _run(self, job: Job[T], hidden_states: Any, reached: float) -> None:
        if self.listening:
            self.outcomes.put(_outcome(job, hidden_states, reached))


def _outcome(job: Job[T], hidden_states: Any, reached: float) -> Outcome[T]:
    try:
        value = job.run(hidden_states)
    except Exception as error:  # noqa: BLE001 - for who waits for it
        error.add_note(f"task {job.name}")
        return Outcome(job, None, error, reached, time.perf_counter())
    return Outcome(job, value, None, reached, time.perf_counter())
