"""Threads that take the most urgent job first."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pool"]


class Pool:
    """A fixed number of threads, started when they are first needed."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        """How many jobs run at once."""
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="centra")
        self._jobs: list[tuple[float, int, Callable[[], Any]]] = []
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
        # Not this job but the most urgent one when a thread is free.
        self._executor.submit(self._next)

    def _next(self) -> None:
        with self._lock:
            *_, job = heapq.heappop(self._jobs)
        job()
