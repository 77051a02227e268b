"""Threads that take the most urgent job first, and share the work of one job where they can."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from centra.system.forks import after_fork_in_child, computing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Pool"]

A = TypeVar("A")
B = TypeVar("B")


class Pool:
    """Up to a fixed number of threads, started when they are needed; in a forked process anew."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        """How many jobs run at once."""
        self.forks = 0
        """How many forks lie between this process and the one that made the pool."""
        self._begin()
        after_fork_in_child(self, Pool.renew)

    def _begin(self) -> None:
        self._running = 0
        self._tickets: SimpleQueue[Literal["work", "end"]] = SimpleQueue()
        self._jobs: list[tuple[float, int, Callable[[], Any]]] = []
        self._busy = 0
        self._own = threading.local()
        self._count = count()
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], Any], urgency: float) -> None:
        """Queue a job; of those that wait, the one of the greatest urgency runs first.

        Args:
            job: must not raise; nobody would hear of it.
            urgency: among equals, the one that came first goes first.
        """
        with self._lock:
            heapq.heappush(self._jobs, (-urgency, next(self._count), job))
            if self._running < min(self.workers, self._busy + len(self._jobs)):
                threading.Thread(target=self._work, name="centra", daemon=True).start()
                self._running += 1
            # Not for this job but for the most urgent one when a thread is free.
            self._tickets.put("work")

    def run(self, job: Callable[[], A]) -> A:
        """Run a job in one of the threads, and wait for it.

        The caller must not be one of them.

        Raises:
            Exception: that the job raised.
        """
        done: SimpleQueue[tuple[A | None, Exception | None]] = SimpleQueue()

        def work() -> None:
            try:
                done.put((job(), None))
            except Exception as error:  # noqa: BLE001 - raised again by the caller
                done.put((None, error))

        self.submit(work, math.inf)
        value, error = done.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def end_threads(self) -> None:
        """End the threads once what is queued is done; a later job starts others."""
        with self._lock:
            for _ in range(self._running):
                self._tickets.put("end")
            self._running = 0

    def renew(self) -> None:
        """Begin anew in a forked process: the threads, and what they had to do, stay in the other."""
        self.forks += 1
        self._begin()

    @property
    def free_threads(self) -> int:
        """How many threads could share some work now: the caller's, and those with nothing to do.

        A caller that is not of the pool stands in for one that is.
        """
        with self._lock:
            idle = self.workers - self._busy - len(self._jobs)
        return max(1, idle + getattr(self._own, "jobs", 0))

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """Apply a function to items, in the caller's thread and in those that have nothing to do.

        The caller waits for no thread that has not begun, so it may be one of the pool's own.

        Args:
            function: called from several threads at once.
            items: taken in order.

        Raises:
            Exception: of the first item that failed, when all are done.
        """
        if len(items) == 1:
            return [function(items[0])]
        todo = deque(enumerate(items))
        done: SimpleQueue[tuple[int, Any, Exception | None]] = SimpleQueue()

        def work() -> None:
            while True:
                try:
                    place, item = todo.popleft()
                except IndexError:
                    return
                try:
                    done.put((place, function(item), None))
                except Exception as error:  # noqa: BLE001 - raised again by the caller
                    done.put((place, None, error))

        for _ in range(min(len(items), self.free_threads) - 1):
            self.submit(work, math.inf)
        work()
        results = sorted((done.get() for _ in items), key=lambda result: result[0])
        for _, _, error in results:
            if error is not None:
                raise error
        return [value for _, value, _ in results]

    def _work(self) -> None:
        self._own.jobs = 1
        while self._tickets.get() == "work":
            with computing:
                with self._lock:
                    *_, job = heapq.heappop(self._jobs)
                    self._busy += 1
                job()
                del job  # Waiting must not keep alive what it was for.
                with self._lock:
                    self._busy -= 1
