"""Series in the terms of Prometheus' library, made of plain values when they are asked for."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

__all__ = ["ByChannel", "Histogram", "counters", "gauges", "histograms", "info"]


@dataclass(frozen=True, kw_only=True)
class ByChannel:
    """The labels of series that are of a channel: its name first, where channels have names."""

    named: bool

    def names(self, *labels: str) -> tuple[str, ...]:
        """The names of the labels."""
        return ("channel", *labels) if self.named else labels

    def key(self, channel: str, *values: str) -> tuple[str, ...]:
        """The values of the labels, for a channel."""
        return (channel, *values) if self.named else values

    def of(self, channel: str) -> dict[str, str]:
        """The label of a channel alone."""
        return {"channel": channel} if self.named else {}


class Histogram:
    """How many observations fell under each bound, and their sum.

    It locks nothing: whoever shares it between threads does.

    Args:
        bounds: growing; an observation that equals one is under it.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def sum(self) -> float:
        """Of all observations."""
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound, and the infinite one, with how many observations are not above it."""
        from prometheus_client.utils import floatToGoString

        names = [str(floatToGoString(bound)) for bound in (*self._bounds, math.inf)]
        return [*zip(names, map(float, accumulate(self._counts)), strict=True)]


def counters(
    name: str,
    help_text: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    """Counters of one name.

    Args:
        name: without ``_total``, which is added.
        help_text: what they count.
        labels: their names.
        values: those of the labels, each with how much was counted.
    """
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def gauges(
    name: str,
    help_text: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    """Gauges of one name; see :func:`counters`."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def histograms(
    name: str,
    help_text: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[Sequence[str], Histogram]],
) -> Metric:
    """Histograms of one name; see :func:`counters`."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, help_text, labels=labels)
    for key, histogram in values:
        family.add_metric(key, histogram.buckets(), histogram.sum)
    return family


def info(name: str, help_text: str, *described: Mapping[str, str]) -> Metric:
    """Series that are always 1, for what their labels say.

    Args:
        name: without ``_info``, which is added.
        help_text: what they describe.
        described: the labels of each.
    """
    from prometheus_client.core import InfoMetricFamily

    family = InfoMetricFamily(name, help_text, labels=())
    for labels in described:
        family.add_metric((), dict(labels))
    return family
