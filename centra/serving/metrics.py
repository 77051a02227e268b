"""What a server counts, for Prometheus.

Counting happens with each request and is plain additions; the series are made when they are asked for.
So there is no series but of what is served now: with a release that lacks a task, the task's series are
gone, and no request can make one.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from centra.errors import CentraError
from centra.serving.series import ByChannel, Histogram, counters, histograms
from centra.serving.standing import of_standings

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

    It counts from any thread, and shares nothing with another server of the process. Channels are
    told apart by their names; a server of one that has none, and calls that are of none, say ``""``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: defaultdict[str, _ChannelCounts] = defaultdict(_ChannelCounts)
        self._errors: Counter[str] = Counter()
        self._batch_tokens, self._batch_inputs = Histogram(_TOKENS), Histogram(_INPUTS)

    def batch_done(self, batch: BatchRecord) -> None:
        """A batch was computed."""
        with self._lock:
            self._batch_tokens.observe(batch.tokens)
            self._batch_inputs.observe(batch.inputs)
            channel = self._channels[batch.channel]
            channel.tokens += batch.tokens
            channel.inputs += batch.inputs
            for task in batch.tasks:
                counts = channel.tasks.setdefault(task.task, _TaskCounts())
                counts.answered += task.answered
                counts.failed += task.failed
                counts.seconds += task.seconds

    def request_done(self, request: Request) -> None:
        """A request has its answers, or was given up."""
        timing = request.timing
        with self._lock:
            if request.failure is None and request.computed is not None:
                parts = self._channels[request.channel].part_seconds
                parts["tokenise"].observe(timing.tokenise)
                parts["queue"].observe(timing.queue)
                parts["trunk"].observe(timing.trunk)
                parts["branch"].observe(timing.branch)
            for error in request.errors:
                self._errors[reason_of(error)] += 1

    def refused(self, error: ServingError) -> None:
        """A request was not taken in."""
        self.count_error(error)

    def count_request(self, route: str, outcome: str, seconds: float, *, channel: str = "") -> None:
        """A request was answered, or refused.

        Args:
            route: as the server declares it: what callers write makes no series.
            outcome: one of a few words.
            seconds: until the last byte of the answer went.
            channel: that it was about; of those that are served.
        """
        with self._lock:
            counts = self._channels[channel]
            counts.requests[route, outcome] += 1
            if route not in counts.request_seconds:
                counts.request_seconds[route] = Histogram(_SECONDS)
            counts.request_seconds[route].observe(seconds)

    def count_error(self, error: Exception) -> None:
        """A request was refused or failed, of which the batcher does not know."""
        with self._lock:
            self._errors[reason_of(error)] += 1

    def count_serialised(self, seconds: float, *, channel: str = "") -> None:
        """Answers were written down for who asked, which took so long."""
        with self._lock:
            self._channels[channel].part_seconds["serialise"].observe(seconds)

    def text(self, standings: Sequence[Standing], accept: str = "") -> tuple[bytes, str]:
        """All series, and the content type that they are in.

        Args:
            standings: how the channels of the server stand.
            accept: the header of who asks: OpenMetrics, or the text that Prometheus has always read.
        """
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Families([*of_standings(standings), *self._counted(standings)]))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _counted(self, standings: Sequence[Standing]) -> list[Metric]:
        labels = ByChannel(named=any(standing.name for standing in standings))
        with self._lock:
            for standing in standings:
                self._channels[standing.name].keep(standing.modules)
            return [
                *self._of_requests(labels),
                *self._of_batches([standing.name for standing in standings], labels),
                *self._of_tasks(labels),
            ]

    def _of_requests(self, labels: ByChannel) -> Iterator[Metric]:
        yield counters(
            "centra_requests",
            "Requests that were answered or refused.",
            labels.names("route", "outcome"),
            [
                (labels.key(name, *key), count)
                for name, channel in self._channels.items()
                for key, count in channel.requests.items()
            ],
        )
        yield histograms(
            "centra_request_seconds",
            "From a request's arrival to the last byte of its answer.",
            labels.names("route"),
            [
                (labels.key(name, route), seconds)
                for name, channel in self._channels.items()
                for route, seconds in channel.request_seconds.items()
            ],
        )
        yield counters(
            "centra_errors",
            "What was refused or failed, by the code that the answer has, too.",
            ("reason",),
            [((reason,), count) for reason, count in self._errors.items()],
        )

    def _of_batches(self, served: Sequence[str], labels: ByChannel) -> Iterator[Metric]:
        channels = {name: self._channels[name] for name in served}
        yield histograms(
            "centra_part_seconds",
            "What the parts of a request took; trunk and branch of the batch that it was in.",
            labels.names("part"),
            [
                (labels.key(name, part), seconds)
                for name, channel in channels.items()
                for part, seconds in channel.part_seconds.items()
            ],
        )
        for unit in ("tokens", "inputs"):
            yield counters(
                f"centra_{unit}",
                f"{unit.capitalize()} that were computed.",
                labels.names(),
                [(labels.key(name), getattr(one, unit)) for name, one in channels.items()],
            )
        for unit, histogram in (("tokens", self._batch_tokens), ("inputs", self._batch_inputs)):
            yield histograms(
                f"centra_batch_{unit}", f"The {unit} of a batch.", (), [((), histogram)]
            )

    def _of_tasks(self, labels: ByChannel) -> Iterator[Metric]:
        for name, help_text, counts in (
            ("answers", "Inputs that a task answered.", "answered"),
            ("answer_errors", "Inputs that a task failed to answer.", "failed"),
            ("branch_seconds", "Time in a task's branch, over all its batches.", "seconds"),
        ):
            values = [
                (labels.key(channel_name, task), getattr(found, counts))
                for channel_name, channel in self._channels.items()
                for task, found in channel.tasks.items()
            ]
            yield counters(f"centra_{name}", help_text, labels.names("task"), values)


@dataclass
class _TaskCounts:
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass
class _ChannelCounts:
    """What is counted for one channel."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By route and outcome."""
    request_seconds: dict[str, Histogram] = field(default_factory=dict)
    """By route."""
    part_seconds: dict[str, Histogram] = field(
        default_factory=lambda: {part: Histogram(_SECONDS) for part in PARTS}
    )
    tokens: int = 0
    inputs: int = 0
    tasks: dict[str, _TaskCounts] = field(default_factory=dict)

    def keep(self, served: Collection[str]) -> None:
        """Have counts of the tasks that are served; what was counted for others is forgotten."""
        self.tasks = {task: self.tasks.get(task) or _TaskCounts() for task in served}


class _Families:
    """Series that were made already, as Prometheus' library asks for them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def reason_of(error: Exception) -> str:
    """The code of an error: one of those in the source, so that they are few."""
    return error.code if isinstance(error, CentraError) else "internal"
