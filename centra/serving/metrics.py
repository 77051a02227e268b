"""What a server counts, for Prometheus.

Counting happens with each request and is plain additions; the series are made when they are asked for.
So there is no series but of what is served now: with a release that lacks a task, the task's series are
gone, and no request can make one.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import CentraError
from centra.serving.series import Histogram, counters, histograms
from centra.serving.standing import of_standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from prometheus_client.core import Metric

    from centra.serving.compute import BatchRecord
    from centra.serving.errors import ServingError
    from centra.serving.request import Request
    from centra.serving.standing import Standing

__all__ = ["PARTS", "Metrics", "reason_of"]

PARTS = ("tokenise", "queue", "trunk", "branch", "serialise")
"""What the time of a request is made of, in order."""

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    *(0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192),
)
_TOKENS = tuple(2.0**n for n in range(3, 16))
_INPUTS = tuple(2.0**n for n in range(10))


class Metrics:
    """The counts of one server, told by its batcher and by whoever answers over the network.

    It counts from any thread, and shares nothing with another server of the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._request_seconds: dict[str, Histogram] = {}
        self._errors: Counter[str] = Counter()
        self._part_seconds = {part: Histogram(_SECONDS) for part in PARTS}
        self._batch_tokens, self._batch_inputs = Histogram(_TOKENS), Histogram(_INPUTS)
        self._tokens = self._inputs = 0
        self._tasks: dict[str, _TaskCounts] = {}

    def batch_done(self, batch: BatchRecord) -> None:
        """A batch was computed."""
        with self._lock:
            self._tokens += batch.tokens
            self._inputs += batch.inputs
            self._batch_tokens.observe(batch.tokens)
            self._batch_inputs.observe(batch.inputs)
            for task in batch.tasks:
                counts = self._tasks.setdefault(task.task, _TaskCounts())
                counts.answered += task.answered
                counts.failed += task.failed
                counts.seconds += task.seconds

    def request_done(self, request: Request) -> None:
        """A request has its answers, or was given up."""
        timing = request.timing
        with self._lock:
            if request.failure is None and request.computed is not None:
                self._part_seconds["tokenise"].observe(timing.tokenise)
                self._part_seconds["queue"].observe(timing.queue)
                self._part_seconds["trunk"].observe(timing.trunk)
                self._part_seconds["branch"].observe(timing.branch)
            for error in request.errors:
                self._errors[reason_of(error)] += 1

    def refused(self, error: ServingError) -> None:
        """A request was not taken in."""
        self.count_error(error)

    def count_request(self, route: str, outcome: str, seconds: float) -> None:
        """A request was answered, or refused.

        Args:
            route: as the server declares it: what callers write makes no series.
            outcome: one of a few words.
            seconds: until the last byte of the answer went.
        """
        with self._lock:
            self._requests[route, outcome] += 1
            if route not in self._request_seconds:
                self._request_seconds[route] = Histogram(_SECONDS)
            self._request_seconds[route].observe(seconds)

    def count_error(self, error: Exception) -> None:
        """A request was refused or failed, of which the batcher does not know."""
        with self._lock:
            self._errors[reason_of(error)] += 1

    def count_serialised(self, seconds: float) -> None:
        """Answers were written down for who asked, which took so long."""
        with self._lock:
            self._part_seconds["serialise"].observe(seconds)

    def text(self, standing: Standing, accept: str = "") -> tuple[bytes, str]:
        """All series, and the content type that they are in.

        Args:
            standing: how the server stands.
            accept: the header of who asks: OpenMetrics, or the text that Prometheus has always read.
        """
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Families([*of_standing(standing), *self._counted(standing.modules)]))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _counted(self, served: Collection[str]) -> list[Metric]:
        with self._lock:
            return [*self._of_requests(), *self._of_batches(), *self._of_tasks(served)]

    def _of_requests(self) -> Iterator[Metric]:
        yield counters(
            "centra_requests",
            "Requests that were answered or refused.",
            ("route", "outcome"),
            self._requests.items(),
        )
        yield histograms(
            "centra_request_seconds",
            "From a request's arrival to the last byte of its answer.",
            ("route",),
            [((route,), seconds) for route, seconds in self._request_seconds.items()],
        )
        yield counters(
            "centra_errors",
            "What was refused or failed, by the code that the answer has, too.",
            ("reason",),
            [((reason,), count) for reason, count in self._errors.items()],
        )
        yield histograms(
            "centra_part_seconds",
            "What the parts of a request took; trunk and branch of the batch that it was in.",
            ("part",),
            [((part,), seconds) for part, seconds in self._part_seconds.items()],
        )

    def _of_batches(self) -> Iterator[Metric]:
        yield counters("centra_tokens", "Tokens that were computed.", (), [((), self._tokens)])
        yield counters("centra_inputs", "Inputs that were computed.", (), [((), self._inputs)])
        for unit, histogram in (("tokens", self._batch_tokens), ("inputs", self._batch_inputs)):
            yield histograms(
                f"centra_batch_{unit}", f"The {unit} of a batch.", (), [((), histogram)]
            )

    def _of_tasks(self, served: Collection[str]) -> Iterator[Metric]:
        """The series of the tasks that are served; what was counted for others is forgotten."""
        self._tasks = {task: self._tasks.get(task) or _TaskCounts() for task in served}
        for name, help_text, counts in (
            ("answers", "Inputs that a task answered.", "answered"),
            ("answer_errors", "Inputs that a task failed to answer.", "failed"),
            ("branch_seconds", "Time in a task's branch, over all its batches.", "seconds"),
        ):
            values = [((task,), getattr(found, counts)) for task, found in self._tasks.items()]
            yield counters(f"centra_{name}", help_text, ("task",), values)


@dataclass
class _TaskCounts:
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0


class _Families:
    """Series that were made already, as Prometheus' library asks for them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def reason_of(error: Exception) -> str:
    """The code of an error: one of those in the source, so that they are few."""
    return error.code if isinstance(error, CentraError) else "internal"
