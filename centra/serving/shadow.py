"""A second release that answers a share of the requests too, to learn how its answers differ.

No client waits for it or hears of it: it takes inputs that have been answered, when nothing else is
to be computed, and counts what it compares. What it has no time for is dropped.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from centra.errors import first_line
from centra.kinds import kind_named
from centra.serving.follower import TO_END, Follower
from centra.serving.preparing import LoadOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from centra.runtime.queries import Query
    from centra.serving.served import ServedRelease

__all__ = ["Shadow"]

_log = logging.getLogger(__name__)

_OPTIONS = LoadOptions()
_WAITING = 256
"""Inputs that wait to be compared, at most."""
_LOOK_AGAIN = 0.005
"""Seconds until it is asked again whether there is something better to do."""


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """An input that clients have the answers to."""

    query: Query
    answers: Mapping[str, Mapping[str, Any]]
    served: ServedRelease


@dataclass
class _TaskCount:
    """What was found of one task."""

    compared: int = 0
    different: int = 0
    errors: int = 0
    only_served: int = 0
    only_shadow: int = 0
    distances: float = 0.0
    largest: float = 0.0

    def compare(self, distance: float | None) -> None:
        self.compared += 1
        if distance is None:
            self.different += 1
        else:
            self.distances += distance
            self.largest = max(self.largest, distance)

    def report(self) -> dict[str, Any]:
        same = self.compared - self.different
        return {
            "compared": self.compared,
            "same": same,
            "different": self.different,
            "errors": self.errors,
            "only_served": self.only_served,
            "only_shadow": self.only_shadow,
            "score_difference": {"mean": self.distances / same, "largest": self.largest}
            if same
            else None,
        }


@dataclass
class _Comparison:
    """What was found of two releases."""

    served: ServedRelease
    shadow: ServedRelease
    inputs: int = 0
    tasks: dict[str, _TaskCount] = field(default_factory=dict)

    def count(self, task: str) -> _TaskCount:
        return self.tasks.setdefault(task, _TaskCount())


class Shadow:
    """Follows a source as :class:`Follower` does, and compares its answers with those of clients."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        share: float = 1.0,
        options: LoadOptions = _OPTIONS,
        busy: Callable[[], bool] = lambda: False,
        interval: float = 5.0,
    ) -> None:
        """Say what is compared; nothing is read yet.

        Args:
            source: as for :func:`centra.load_release`.
            share: of the inputs that are answered, between 0 and 1.
            options: how its releases are loaded; with those of the other release, so that they
                share what both hold, and its threads.
            busy: whether there is something better to do for these threads; asked often.
            interval: seconds between two looks at the pointer, more or less.
        """
        self.share = share
        self.dropped = 0
        """Inputs that there was no time for."""
        self.failure: str | None = None
        """Why its first release could not be loaded; it is tried again."""
        self.loaded = threading.Event()
        """Set once there is a release to compare with."""
        self.follower = Follower(
            source, options=options, on_ready=self._take_over, interval=interval
        )
        self._busy, self._interval = busy, interval
        self._served: ServedRelease | None = None
        self._answered: queue.Queue[_Answered | None] = queue.Queue(_WAITING)
        self._comparison: _Comparison | None = None
        self._computing, self._counting = threading.Lock(), threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="centra-shadow", daemon=True)

    def start(self) -> None:
        """Load its release, and compare from then on, in a thread of its own.

        What cannot be loaded is reported, and keeps nobody from serving.
        """
        self._thread.start()

    def close(self) -> None:
        """End it, and give back what it holds; what waits is dropped."""
        self._closing.set()
        self.follower.close()
        if self._thread.is_alive():
            self._thread.join(TO_END)

    @property
    def served(self) -> ServedRelease | None:
        """Its release; None until it is loaded."""
        return self._served

    def offer(
        self, query: Query, answers: Mapping[str, Mapping[str, Any]], served: ServedRelease
    ) -> None:
        """Tell of an input that has been answered; returns at once.

        Args:
            query: it.
            answers: the answers that its client got, by task.
            served: the release that gave them.
        """
        shadow = self._served
        if shadow is None or shadow.digest == served.digest:  # A release agrees with itself.
            return
        if random.random() >= self.share:  # noqa: S311 - nobody guesses it
            return
        try:
            self._answered.put_nowait(_Answered(query=query, answers=answers, served=served))
        except queue.Full:
            self.dropped += 1

    def report(self) -> dict[str, Any]:
        """What was found since both releases are what they are now, as plain values.

        Per task: how many answers were ``compared``, how many of them say the ``same`` (see
        :meth:`centra.kinds.base.Kind.distance`) and how many something ``different``; how far the
        scores of the same answers are apart; how often the shadow failed with ``errors``, and how
        often one of the two has no such task.
        """
        shadow, refused, fault = self._served, self.follower.refused, self.follower.store_error
        with self._counting:
            found = self._comparison
            return {
                "release": shadow and {"release": shadow.number, "digest": shadow.digest},
                "channel": shadow and shadow.channel,
                "revision": shadow and shadow.revision,
                "share": self.share,
                "failure": self.failure,
                "refused": refused and {"release": refused.release, "reason": refused.reason},
                "store_error": fault and fault.reason,
                "against": found
                and {"release": found.served.number, "digest": found.served.digest},
                "inputs": found.inputs if found else 0,
                "dropped": self.dropped,
                "tasks": {task: count.report() for task, count in sorted(found.tasks.items())}
                if found
                else {},
            }

    def _take_over(self, served: ServedRelease) -> None:
        """Compare with another release from the next input on."""
        with self._computing:
            before, self._served = self._served, served
            if before is not None and before.release is not served.release:
                before.release.close()

    def _run(self) -> None:
        if not self._load():
            return
        while not self._closing.is_set():
            answered = self._next()
            if answered is not None:
                try:
                    self._compare(answered)
                except Exception as error:  # noqa: BLE001 - comparing goes on
                    # Without its text, which may quote the input.
                    _log.error("the shadow could not compare an input: %s", type(error).__name__)
                finally:
                    self._answered.task_done()
        with self._computing:
            if self._served is not None:
                self._served.release.close()

    def _load(self) -> bool:
        """Load its first release as soon as there is one; False where it is closed before."""
        while not self._closing.is_set():
            try:
                self._served = self.follower.load()
            except Exception as error:  # noqa: BLE001 - what is served does not depend on it
                reason = first_line(error)
                if reason != self.failure:
                    _log.error("the shadow's release cannot be loaded: %s", reason)
                self.failure = reason
                self._closing.wait(self._interval)
            else:
                self.failure = None
                self.loaded.set()
                self.follower.start()
                return True
        return False

    def _next(self) -> _Answered | None:
        """An input to compare, when there is nothing better to do; None after a while without."""
        try:
            answered = self._answered.get(timeout=1.0)
        except queue.Empty:
            return None
        while self._busy() and not self._closing.wait(_LOOK_AGAIN):
            pass
        return answered

    def _compare(self, answered: _Answered) -> None:
        served = answered.served
        with self._computing:
            shadow = self._served
            if shadow is None or shadow.digest == served.digest:
                return
            names = _names(answered, shadow)
            answers, failed = _ask(replace(answered.query, tasks=names), shadow)
        with self._counting:
            found = self._comparison_of(served, shadow)
            if found is None:
                return
            found.inputs += 1
            for task in failed:
                found.count(task).errors += 1
            for task in answered.answers.keys() - answers.keys() - failed:
                found.count(task).only_served += 1
            for task in answers.keys() - {*served.tasks}:
                found.count(task).only_shadow += 1
            for task in answers.keys() & answered.answers.keys():
                one, other = (r.release.manifest.tasks[task].kind for r in (served, shadow))
                answer = answered.answers[task]
                kind = kind_named(other)
                distance = kind.distance(answer, answers[task]) if one == other else None
                found.count(task).compare(distance)

    def _comparison_of(self, served: ServedRelease, shadow: ServedRelease) -> _Comparison | None:
        """Where to count, begun anew with another release; None for one that answers no more."""
        found = self._comparison
        if found is not None and found.shadow.release is shadow.release:
            if found.served.release is served.release:
                return found
            if found.served.since > served.since:
                return None
        self._comparison = _Comparison(served, shadow)
        return self._comparison


def _names(answered: _Answered, shadow: ServedRelease) -> tuple[str, ...] | None:
    """The tasks that the shadow is asked for: of those that were named, what takes such an input."""
    if answered.query.tasks is None:
        return None
    entries, known = answered.served.release.manifest.tasks, shadow.release.manifest.tasks
    return tuple(
        task
        for task in answered.query.tasks
        if task in shadow.tasks and task in entries and known[task].input == entries[task].input
    )


def _ask(query: Query, shadow: ServedRelease) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """What the shadow answers, by task, and the tasks that it fails at."""
    if query.tasks == ():
        return {}, set()
    (encoded,) = shadow.release.encode([query])
    if isinstance(encoded, Exception):
        return {}, {*(query.tasks or ())}
    answers, failed = {}, set()
    for result in shadow.release.answer([encoded]):
        if result.error is not None:
            failed.add(result.task)
        else:
            (answers[result.task],) = result.answers
    return answers, failed
