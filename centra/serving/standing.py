"""How a server stands at the moment, and the series of it: what is served, what waits, what is amiss.

Where channels have names, each series says by a label ``channel`` which it is of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from centra.serving.series import ByChannel, counters, gauges, info

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from prometheus_client.core import Metric

    from centra.serving.batcher import Batcher
    from centra.serving.follower import Following
    from centra.serving.served_channel import ServedChannel
    from centra.serving.shadow import Shadow

__all__ = ["Standing", "of_standings", "standings_of"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a channel of a server stands at the moment."""

    name: str = ""
    """What callers choose it by; empty where it is the only one and has none."""
    release: int | None
    digest: str
    channel: str | None
    """Whose pointer names the release."""
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
    """Whether the channel could be read and followed when it was last looked at; None where no channel is followed, and nobody asks the store."""
    swapped: int = 0
    """How many releases took another's place."""
    refused: int = 0
    """How many were not taken."""
    refusing: bool = False
    """Whether the channel names one of these now."""
    shadow: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Per task how many answers were compared with the shadow's, and how many of these differed."""

    @property
    def timestamp(self) -> float:
        """Since when the release is served, in Unix time."""
        return self.since.timestamp()


def standings_of(batcher: Batcher) -> list[Standing]:
    """How each channel of a batcher stands."""
    return [_standing(batcher, channel) for channel in batcher.channels.values()]


def _standing(batcher: Batcher, channel: ServedChannel) -> Standing:
    served, waiting = channel.served, batcher.queue.waiting(channel.name)
    return Standing(
        name=channel.name,
        release=served.number,
        digest=served.digest,
        channel=served.channel,
        revision=served.revision,
        since=served.since,
        engine=served.release.engine,
        modules={task: served.module(task) for task in served.tasks},
        versions=served.versions,
        queue_tokens=waiting.tokens,
        queue_inputs=waiting.inputs,
        queue_age=waiting.age,
        swapped=channel.swapped,
        **_followed(channel.follower),
        shadow=_compared(channel.shadow),
    )


def _followed(follower: Following | None) -> dict[str, Any]:
    if follower is None:
        return {}
    return {
        "store_reachable": follower.store_error is None,
        "refused": follower.refusals,
        "refusing": follower.refused is not None,
    }


def _compared(shadow: Shadow | None) -> dict[str, tuple[int, int]]:
    if shadow is None:
        return {}
    tasks = shadow.report()["tasks"]
    return {task: (found["compared"], found["different"]) for task, found in tasks.items()}


def of_standings(standings: Sequence[Standing]) -> Iterator[Metric]:
    """The series of how a server stands.

    Args:
        standings: of each of its channels.
    """
    labels = ByChannel(named=any(standing.name for standing in standings))
    yield from _of_releases(standings, labels)
    yield from _of_queue(standings, labels)
    yield from _of_shadows(standings, labels)


def _of_releases(standings: Sequence[Standing], labels: ByChannel) -> Iterator[Metric]:
    import platform

    import centra

    build = {
        "version": centra.__version__,
        "python": platform.python_version(),
        "engine": standings[0].engine,
    }
    tasks = [
        {
            **labels.of(standing.name),
            "task": task,
            "version": standing.versions.get(task, ""),
            "module": module,
        }
        for standing in standings
        for task, module in standing.modules.items()
    ]
    yield info("centra_build", "The server itself.", build)
    releases = [_release_labels(standing, labels) for standing in standings]
    yield info("centra_release", "What is served now.", *releases)
    yield info("centra_task", "A task of what is served now.", *tasks)
    for name, help_text, value in (
        ("release_number", "Of what is served now; none where it is not known.", "release"),
        ("channel_revision", "That the server has come to; none without one.", "revision"),
        ("release_timestamp_seconds", "Since when it is served, in Unix time.", "timestamp"),
        ("release_refused", "1 while the channel names a release that is refused.", "refusing"),
        (
            "store_up",
            "1 where the channel could be followed when it was last looked at.",
            "store_reachable",
        ),
    ):
        values = [
            (labels.key(standing.name), float(found))
            for standing in standings
            if (found := getattr(standing, value)) is not None
        ]
        yield gauges(f"centra_{name}", help_text, labels.names(), values)
    for name, help_text, value in (
        ("releases_swapped", "Releases that took another's place.", "swapped"),
        ("releases_refused", "Releases that were not taken.", "refused"),
    ):
        counts = [(labels.key(one.name), getattr(one, value)) for one in standings]
        yield counters(f"centra_{name}", help_text, labels.names(), counts)


def _release_labels(standing: Standing, labels: ByChannel) -> dict[str, str]:
    """With names, the label ``channel`` is the name, and ``follows`` whose pointer is followed."""
    pointer = "follows" if labels.named else "channel"
    return {
        "release": _or_nothing(standing.release),
        "digest": standing.digest,
        **labels.of(standing.name),
        pointer: _or_nothing(standing.channel),
    }


def _of_queue(standings: Sequence[Standing], labels: ByChannel) -> Iterator[Metric]:
    for name, help_text in (
        ("queue_tokens", "Tokens that wait to be computed."),
        ("queue_inputs", "Inputs that wait to be computed."),
        ("queue_age_seconds", "How long the oldest of them has waited."),
    ):
        field_name = name.removesuffix("_seconds")
        values = [(labels.key(one.name), getattr(one, field_name)) for one in standings]
        yield gauges(f"centra_{name}", help_text, labels.names(), values)


def _of_shadows(standings: Sequence[Standing], labels: ByChannel) -> Iterator[Metric]:
    for place, (name, help_text) in enumerate(
        (
            ("shadow_answers", "Answers that were compared with the shadow's."),
            ("shadow_differences", "Answers that the shadow gives differently."),
        )
    ):
        values = [
            (labels.key(standing.name, task), both[place])
            for standing in standings
            for task, both in standing.shadow.items()
            if task in standing.modules
        ]
        yield counters(f"centra_{name}", help_text, labels.names("task"), values)


def _or_nothing(value: object) -> str:
    return "" if value is None else str(value)
