"""What a load came to: how many were answered, how soon, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Histogram", "Latencies", "LoadReport"]

_LONGEST = 3600 * 10**6
"""Microseconds; whatever lasts longer counts as so long."""
_DIGITS = 3
"""That a value keeps."""
_TICKS = 4
"""Points of a curve in each half of what is left to 100 %."""


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Seconds of something that happened often, from an HDR histogram: good to 0.1 %."""

    count: int
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    curve: tuple[tuple[float, float], ...]
    """Percentiles, closer and closer to 100, and the seconds within which so many in a hundred were."""


class Histogram:
    """Seconds that are recorded one by one."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(1, _LONGEST, _DIGITS)

    def record(self, seconds: float) -> None:
        """Count one more."""
        self._counts.record_value(min(_LONGEST, max(1, round(seconds * 1e6))))

    def summary(self) -> Latencies | None:
        """What was recorded; None for nothing."""
        counts = self._counts
        if not counts.get_total_count():
            return None

        def at(percentile: float) -> float:
            return float(counts.get_value_at_percentile(percentile)) / 1e6

        return Latencies(
            count=counts.get_total_count(),
            mean=counts.get_mean_value() / 1e6,
            median=at(50),
            p90=at(90),
            p95=at(95),
            p99=at(99),
            p99_9=at(99.9),
            max=at(100),
            curve=tuple(self._curve()),
        )

    def _curve(self) -> Iterator[tuple[float, float]]:
        for step in self._counts.get_percentile_iterator(_TICKS):
            yield step.percentile_level_iterated_to, step.value_iterated_to / 1e6


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What :func:`centra.bench.load.run_load` found. All times are in seconds."""

    url: str
    rate: float | None
    """Requests per second that were planned; None for a closed loop."""
    clients: int
    seconds: float
    """From the first request that counts until the last answer."""
    planned: int
    """Requests that were due, in a closed loop those that were sent. Each is one of the next four."""
    answered: int
    """Whole and without an error."""
    rejected: int
    """Answered with 429: the server has too much to do."""
    failed: int
    """Answered with another error, or not at all; see ``errors``."""
    unsent: int
    """Still waited for a client that is free when the time was over."""
    errors: dict[str, int] = field(default_factory=dict)
    """What the failed ones met and how often: a status, ``timeout``, ``connection``, ``not whole``."""
    first_error: str | None = None
    """What the first one that failed or was rejected was told."""
    requests_per_second: float
    """That were answered; so are the next two."""
    inputs_per_second: float
    answers_per_second: float
    latency: Latencies | None
    """From the moment when a request was due until its answer was read, of those that were answered. Those
    that never were count with the time that they waited, which is less than they would have taken."""
    lateness: Latencies | None
    """How long after its moment a request was sent although a client was free: the generator's own fault."""
    waited: int
    """Requests that were sent late because all clients still waited for answers."""
    processor_share: float
    """Of one processor, that the generator took. Close to 1, it measures itself."""
    parts: dict[str, Latencies]
    """What the server says that its parts took, by ``Server-Timing``."""
    releases: dict[str, int]
    """How many requests each release has answered, by digest."""
