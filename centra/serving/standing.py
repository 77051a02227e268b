"""How a server stands at the moment, and the series of it: what is served, what waits, what is amiss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from centra.serving.series import counters, gauges, info

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from prometheus_client.core import Metric

    from centra.serving.batcher import Batcher
    from centra.serving.follower import Following
    from centra.serving.shadow import Shadow

__all__ = ["Standing", "of_standing"]


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
    """Whether the channel could be read and followed when it was last looked at; None where no channel is followed, and nobody asks the store."""
    swapped: int = 0
    """How many releases took another's place."""
    refused: int = 0
    """How many were not taken."""
    refusing: bool = False
    """Whether the channel names one of these now."""
    shadow: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Per task how many answers were compared with the shadow's, and how many of these differed."""

    @classmethod
    def of(cls, batcher: Batcher) -> Self:
        """How the server of a batcher stands."""
        served, queue = batcher.served, batcher.queue
        return cls(
            release=served.number,
            digest=served.digest,
            channel=served.channel,
            revision=served.revision,
            since=served.since,
            engine=served.release.engine,
            modules={task: served.module(task) for task in served.tasks},
            versions=served.versions,
            queue_tokens=queue.tokens,
            queue_inputs=queue.inputs,
            queue_age=queue.age,
            swapped=batcher.swapped,
            **_followed(batcher.follower),
            shadow=_compared(batcher.shadow),
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


def of_standing(standing: Standing) -> Iterator[Metric]:
    """The series of how a server stands."""
    yield from _of_release(standing)
    yield from _of_queue(standing)
    yield from _of_shadow(standing)


def _of_release(standing: Standing) -> Iterator[Metric]:
    import platform

    import centra

    build = {
        "version": centra.__version__,
        "python": platform.python_version(),
        "engine": standing.engine,
    }
    release = {
        "release": _or_nothing(standing.release),
        "digest": standing.digest,
        "channel": _or_nothing(standing.channel),
    }
    tasks = [
        {"task": task, "version": standing.versions.get(task, ""), "module": module}
        for task, module in standing.modules.items()
    ]
    yield info("centra_build", "The server itself.", build)
    yield info("centra_release", "What is served now.", release)
    yield info("centra_task", "A task of what is served now.", *tasks)
    for name, help_text, value in (
        ("release_number", "Of what is served now; none where it is not known.", standing.release),
        ("channel_revision", "That the server has come to; none without one.", standing.revision),
        (
            "release_timestamp_seconds",
            "Since when it is served, in Unix time.",
            standing.since.timestamp(),
        ),
        (
            "release_refused",
            "1 while the channel names a release that is refused.",
            standing.refusing,
        ),
        (
            "store_up",
            "1 where the channel could be followed when it was last looked at.",
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
