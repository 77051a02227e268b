"""What a server counts, for Prometheus.

Counting happens with each request and is plain additions; the series are made when they are asked for.
So there is no series but of what is served now: with a release that lacks a task, the task's series are
gone, and no request can make one.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.serving.series import Histogram, counters, gauges, histograms, info

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from prometheus_client.core import Metric

__all__ = ["PARTS", "Metrics", "Standing"]

PARTS = ("tokenise", "queue", "trunk", "branch", "serialise")
"""What the time of a request is made of, in order."""

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    *(0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192),
)
_TOKENS = tuple(2.0**n for n in range(3, 16))
_INPUTS = tuple(2.0**n for n in range(10))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a server stands at the moment."""

    release: int | None
    digest: str
    channel: str | None
    revision: int | None
    since: datetime
    engine: str
    modules: Mapping[str, str]
    """Of each task that is served: the start of its module's digest."""
    versions: Mapping[str, str]
    """Of tasks, where they are known."""
    queue_tokens: int = 0
    queue_inputs: int = 0
    queue_age: float = 0.0
    """Seconds that the oldest has waited."""
    store_reachable: bool | None = None
    """None where no channel is followed, and nobody asks the store."""
    swapped: int = 0
    """How many releases took another's place."""
    refused: int = 0
    """How many were not taken."""
    refusing: bool = False
    """Whether the channel names one of these now."""
    shadow: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Per task how many answers were compared with the shadow's, and how many of these differed."""


class Metrics:
    """The counts of one server. It counts from any thread, and shares nothing with another server.

    Args:
        standing: how the server stands; asked whenever the series are.
    """

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._request_seconds: dict[str, Histogram] = {}
        self._errors: Counter[str] = Counter()
        self._part_seconds = {part: Histogram(_SECONDS) for part in PARTS}
        self._batch_tokens, self._batch_inputs = Histogram(_TOKENS), Histogram(_INPUTS)
        self._tokens = self._inputs = 0
        self._tasks: dict[str, _TaskCounts] = {}

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

    def count_error(self, reason: str) -> None:
        """A request, or a part of one, was refused or failed.

        Args:
            reason: the error's code, one of those in the source.
        """
        with self._lock:
            self._errors[reason] += 1

    def count_parts(self, seconds: Mapping[str, float]) -> None:
        """What parts of a request took, by :data:`PARTS`."""
        with self._lock:
            for part, spent in seconds.items():
                self._part_seconds[part].observe(spent)

    def count_batch(self, tokens: int, inputs: int) -> None:
        """A batch was computed."""
        with self._lock:
            self._tokens += tokens
            self._inputs += inputs
            self._batch_tokens.observe(tokens)
            self._batch_inputs.observe(inputs)

    def count_answers(self, task: str, *, answered: int, failed: int, seconds: float) -> None:
        """A branch ran on the inputs of a batch.

        Args:
            task: a loaded one.
            answered, failed: how many inputs.
            seconds: that it took.
        """
        with self._lock:
            counts = self._tasks.setdefault(task, _TaskCounts())
            counts.answered += answered
            counts.failed += failed
            counts.seconds += seconds

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """All series, and the content type that they are in.

        Args:
            accept: the header of who asks: OpenMetrics, or the text that Prometheus has always read.
        """
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def collect(self) -> Iterator[Metric]:
        """All series, in the terms of Prometheus' library."""
        standing = self._standing()
        yield from _of_release(standing)
        yield from _of_queue(standing)
        yield from _of_shadow(standing)
        with self._lock:
            counted = [*self._of_requests(), *self._of_batches(), *self._of_tasks(standing.modules)]
        yield from counted

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


def _of_release(standing: Standing) -> Iterator[Metric]:
    import platform

    import centra

    yield info(
        "centra_build",
        "The server itself.",
        version=centra.__version__,
        python=platform.python_version(),
        engine=standing.engine,
    )
    yield info(
        "centra_release",
        "What is served now.",
        release=_or_nothing(standing.release),
        digest=standing.digest,
        channel=_or_nothing(standing.channel),
    )
    yield gauges(
        "centra_task_info",
        "A task of the release that is served now: always 1.",
        ("task", "version", "module"),
        [
            ((task, standing.versions.get(task, ""), module), 1)
            for task, module in standing.modules.items()
        ],
    )
    for name, help_text, value in (
        ("release_number", "Of what is served now; none where it is not known.", standing.release),
        ("channel_revision", "That the server has come to; none without one.", standing.revision),
        ("release_since_seconds", "When it was taken, in Unix time.", standing.since.timestamp()),
        (
            "release_refused",
            "1 while the channel names a release that is refused.",
            standing.refusing,
        ),
        (
            "store_up",
            "1 where the store was reached when it was last asked.",
            standing.store_reachable,
        ),
    ):
        values = [] if value is None else [((), float(value))]
        yield gauges(f"centra_{name}", help_text, (), values)
    for name, help_text, count in (
        ("releases_swapped", "Releases that took another's place.", standing.swapped),
        ("releases_refused", "Releases that were not taken.", standing.refused),
    ):
        yield counters(f"centra_{name}", help_text, (), [((), count)])


def _of_queue(standing: Standing) -> Iterator[Metric]:
    for name, help_text, value in (
        ("queue_tokens", "Tokens that wait to be computed.", standing.queue_tokens),
        ("queue_inputs", "Inputs that wait to be computed.", standing.queue_inputs),
        ("queue_age_seconds", "How long the oldest of them has waited.", standing.queue_age),
    ):
        yield gauges(f"centra_{name}", help_text, (), [((), value)])


def _of_shadow(standing: Standing) -> Iterator[Metric]:
    counts = {task: both for task, both in standing.shadow.items() if task in standing.modules}
    for place, (name, help_text) in enumerate(
        (
            ("shadow_answers", "Answers that were compared with the shadow's."),
            ("shadow_differences", "Answers that the shadow gives differently."),
        )
    ):
        values = [((task,), both[place]) for task, both in counts.items()]
        yield counters(f"centra_{name}", help_text, ("task",), values)


def _or_nothing(value: object) -> str:
    return "" if value is None else str(value)
