"""How a server answers under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from centra.bench.load import report as load

__all__ = ["BenchLoad", "Latencies"]


class Latencies(Document):
    """Seconds of something that happened often, good to 0.1 %."""

    count: int
    mean: float
    median: float
    p90: float
    """The 90th percentile, and so on: so many in a hundred took no longer."""
    p95: float
    p99: float
    p99_9: float
    max: float
    curve: list[tuple[float, float]]
    """Pairs of a percentile, closer and closer to 100, and its seconds."""

    @classmethod
    def of(cls, found: load.Latencies) -> Latencies:
        """The document of some latencies."""
        return cls(
            count=found.count,
            mean=found.mean,
            median=found.median,
            p90=found.p90,
            p95=found.p95,
            p99=found.p99,
            p99_9=found.p99_9,
            max=found.max,
            curve=list(found.curve),
        )


class BenchLoad(Document):
    """How a server answers under load."""

    schema_: str = schema("bench-load")
    url: str
    rate: float | None
    """Requests per second that were planned, on average; null for as fast as the clients can."""
    clients: int
    """The most connections, each with one request at a time."""
    seconds: float
    """From the first request that counts until the last answer."""
    planned: int
    """Requests that were due; without a rate, that were sent. Each was ``answered``, ``rejected``, ``failed``
    or ``unsent``."""
    answered: int
    """Whole and without an error."""
    rejected: int
    """Answered with 429: the server had too much to do."""
    failed: int
    """Answered with another error, or not at all."""
    unsent: int
    """Still waited for a client that is free when the time was over."""
    errors: dict[str, int]
    """What those that failed met, and how often: a status, ``timeout``, ``connection`` or ``not whole``."""
    first_error: str | None
    """What the first one that failed or was rejected was told; null for none."""
    requests_per_second: float
    """That were answered."""
    inputs_per_second: float
    """That were answered."""
    answers_per_second: float
    """Of all tasks together."""
    latency: Latencies | None
    """From the moment when a request was due until its answer was read. Those that never had one count with
    the time that they waited; those that were refused or answered with an error do not. Null for none."""
    lateness: Latencies | None
    """How long after its moment a request was sent though a client was free; null without a rate."""
    waited: int
    """Requests that were sent late because all clients still waited for answers."""
    processor_share: float
    """Of one processor, that this command took; close to 1, it measures itself."""
    parts: dict[str, Latencies]
    """What the server says that its parts took, by the names in its header ``Server-Timing``."""
    releases: dict[str, int]
    """How many requests each release answered, by digest."""

    @classmethod
    def of(cls, report: load.LoadReport) -> BenchLoad:
        """The document of a report."""
        return cls(
            url=report.url,
            rate=report.rate,
            clients=report.clients,
            seconds=report.seconds,
            planned=report.planned,
            answered=report.answered,
            rejected=report.rejected,
            failed=report.failed,
            unsent=report.unsent,
            errors=report.errors,
            first_error=report.first_error,
            requests_per_second=report.requests_per_second,
            inputs_per_second=report.inputs_per_second,
            answers_per_second=report.answers_per_second,
            latency=_latencies(report.latency),
            lateness=_latencies(report.lateness),
            waited=report.waited,
            processor_share=report.processor_share,
            parts={name: Latencies.of(part) for name, part in report.parts.items()},
            releases=report.releases,
        )


def _latencies(found: load.Latencies | None) -> Latencies | None:
    return None if found is None else Latencies.of(found)
