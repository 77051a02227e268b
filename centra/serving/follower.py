"""Following a channel: its pointer is read again and again, and what it names is made ready.

A release takes over only when it has been pulled, verified, loaded and warmed; until then, and where
any of that fails, the one before goes on. So does it while the store cannot be reached.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import (
    CentraError,
    CorruptBlobError,
    NotFoundError,
    StoreError,
    first_line,
)
from centra.releases.find import ChannelSource, open_source
from centra.serving.preparing import LoadOptions, prepare_release
from centra.serving.served import ServedRelease
from centra.system.memory import trim_memory

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from centra.formats.manifest import ChannelPointer

__all__ = ["TO_END", "Follower", "RefusedRelease", "StoreFault"]

_log = logging.getLogger(__name__)

_OPTIONS = LoadOptions()
_NEVER = float("inf")
_JITTER = 0.2
"""Servers that were started together do not ask together: so much earlier or later, as a share."""
_LONGEST_PAUSE = 300.0
"""Seconds between two attempts at a release whose files may be mended meanwhile, at most."""
TO_END = 2.0
"""Seconds that closing waits for the thread, which may be in the middle of a request to the store."""


@dataclass(frozen=True, kw_only=True)
class RefusedRelease:
    """A release that the channel names and that cannot be served."""

    release: int
    """Its number."""
    digest: str
    revision: int
    """Of the pointer."""
    reason: str
    at: datetime
    """When it was first refused for this reason, in UTC."""


@dataclass(frozen=True, kw_only=True)
class StoreFault:
    """Why it is not known, or cannot be followed, what the channel names."""

    reason: str
    code: str
    """What sort of fault it is, for programs."""
    since: datetime
    """In UTC."""


class Follower:
    """Keeps ready what a channel names. A folder or a digest stays, and is loaded alone."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        options: LoadOptions = _OPTIONS,
        on_ready: Callable[[ServedRelease], None],
        interval: float = 5.0,
    ) -> None:
        """Say what is followed; nothing is read yet.

        Args:
            source: as for :func:`centra.load_release`.
            options: how releases are loaded.
            on_ready: told of every later release once it can answer, in the follower's thread or
                in one that calls :meth:`check_now`; to close the one before is up to it, when
                nobody asks that any more. A release that only got other numbers comes as another
                record of the same loaded release.
            interval: seconds between two looks at the pointer, more or less.
        """
        self.refused: RefusedRelease | None = None
        """What the channel names now, where it cannot be served; what was served before goes on."""
        self.store_error: StoreFault | None = None
        """What keeps it from knowing better: see :class:`StoreFault`."""
        self.refusals = 0
        """How many releases were refused."""
        self._source, self._options = source, options
        self._on_ready = on_ready
        self._interval = interval
        self._channel: ChannelSource | None = None
        self._served: ServedRelease | None = None
        self._attempts = 0
        self._next_attempt = 0.0
        self._untrimmed = False
        self._checking = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="centra-follower", daemon=True)

    def load(self) -> ServedRelease:
        """Load what the source names now, before anything else.

        Raises:
            CentraError: it cannot be served; see :func:`prepare_release`. There is no other that
                could go on.
        """
        location = open_source(self._source)
        if isinstance(location, ChannelSource):
            pointer = location.read()
            self._channel, location = location, location.locate(pointer)
        release = prepare_release(location, self._options)
        self._settle_on(ServedRelease.of(location, release))
        return self.served

    def start(self) -> None:
        """Follow from now on, in a thread of its own; what has been loaded does not change before."""
        if self.follows:
            self._thread.start()

    @property
    def served(self) -> ServedRelease:
        """What was loaded, or handed over, last."""
        assert self._served is not None, "load() comes first"
        return self._served

    @property
    def follows(self) -> bool:
        """Whether the source is a channel, which moves."""
        return self._channel is not None

    def check_now(self) -> None:
        """Look at the pointer now, in this thread; it returns when what it names is served or refused.

        What was refused is tried again, if that can help.
        """
        self._check(patient=False)

    def close(self) -> None:
        """Follow no more. What is served stays with whom it was handed to."""
        self._closing.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(TO_END)

    def _run(self) -> None:
        while not self._closing.wait(self._pause()):
            try:
                self._check()
            except Exception:  # noqa: BLE001 - following goes on, whatever a callback does
                _log.exception("following the channel failed; it goes on")

    def _pause(self) -> float:
        return self._interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311

    def _check(self, *, patient: bool = True) -> None:
        """Look at the pointer, and take what it names if that is not served yet.

        Args:
            patient: let a release alone whose next attempt is not due.
        """
        channel = self._channel
        if channel is None:
            return
        with self._checking:
            self._give_memory_back()
            try:
                pointer = channel.read()
            except Exception as error:  # noqa: BLE001 - what is served goes on, whatever it is
                self._store_failed(first_line(error), _code(error))
                return
            if reason := self._earlier(pointer):
                self._store_failed(reason, "earlier-revision")
            elif pointer.manifest == self.served.digest:
                self._store_answers()
                self._keep(pointer)
            elif self._worth_an_attempt(pointer, patient=patient):
                self._take(channel, pointer)
            else:
                self._store_answers()

    def _earlier(self, pointer: ChannelPointer) -> str | None:
        """Why a pointer is not followed: it is of before what is served. None where it may be."""
        served = self.served
        if pointer.name != served.channel or served.revision is None:
            return None
        if pointer.revision > served.revision:
            return None
        if pointer.revision == served.revision and pointer.manifest == served.digest:
            return None
        return (
            f"channel {pointer.name} is at revision {pointer.revision} and names release "
            f"{pointer.release}, but revision {served.revision} has been served, which named release "
            f"{served.number}: revisions only grow, so the store holds an older copy. The channel is "
            "followed again from a later revision on, or from a restart"
        )

    def _keep(self, pointer: ChannelPointer) -> None:
        """The release that is served is named, perhaps by other numbers."""
        self._clear_refusal()
        served = self.served
        renamed = dataclasses.replace(
            served,
            number=pointer.release,
            versions={
                task: str(version)
                for task, version in pointer.versions.items()
                if task in served.tasks
            },
            channel=pointer.name,
            revision=pointer.revision,
        )
        if _names(renamed) != _names(served):
            self._hand_over(renamed)

    def _worth_an_attempt(self, pointer: ChannelPointer, *, patient: bool) -> bool:
        refused = self.refused
        if refused is None or (refused.revision, refused.digest) != (
            pointer.revision,
            pointer.manifest,
        ):
            self._attempts, self._next_attempt = 0, 0.0
            return True
        return time.monotonic() >= self._next_attempt if patient else self._next_attempt < _NEVER

    def _take(self, channel: ChannelSource, pointer: ChannelPointer) -> None:
        """Make ready what a pointer names, and hand it over."""
        try:
            location = channel.locate(pointer)
            release = prepare_release(location, self._options, base=self.served.release)
        except StoreError as error:
            self._store_failed(first_line(error), _code(error))
            return
        except Exception as error:  # noqa: BLE001 - no release may end what is served
            if self._closing.is_set():
                return  # What it was to replace may be closed already.
            self._store_answers()
            self._refuse(pointer, error)
            return
        if self._closing.is_set():
            release.close()
            return
        self._store_answers()
        self._clear_refusal()
        self._untrimmed = True
        self._hand_over(ServedRelease.of(location, release))

    def _settle_on(self, served: ServedRelease) -> None:
        self._served = served
        if self._channel is not None:
            # One that has served production does not fall back to latest.
            names = self._channel.names
            kept = names[: names.index(str(served.channel)) + 1]
            self._channel = dataclasses.replace(self._channel, names=kept)

    def _hand_over(self, served: ServedRelease) -> None:
        self._settle_on(served)
        _log.info(
            "channel %s, revision %s: release %s (sha256:%s) is ready",
            served.channel,
            served.revision,
            served.number,
            served.digest,
        )
        self._on_ready(served)

    def _refuse(self, pointer: ChannelPointer, error: Exception) -> None:
        reason = first_line(error)
        refused = RefusedRelease(
            release=pointer.release,
            digest=pointer.manifest,
            revision=pointer.revision,
            reason=reason,
            at=datetime.now(UTC),
        )
        self._attempts += 1
        self._next_attempt = _NEVER
        if _may_be_mended(error):
            pause = min(_LONGEST_PAUSE, self._interval * 2**self._attempts)
            self._next_attempt = time.monotonic() + pause
        if self.refused is not None and _same_refusal(self.refused, refused):
            return
        if self.refused is None or self.refused.revision != refused.revision:
            self.refusals += 1
        self.refused = refused
        _log.error(
            "channel %s, revision %d: release %d (sha256:%s) is refused, release %s goes on: %s",
            pointer.name,
            pointer.revision,
            pointer.release,
            pointer.manifest,
            self.served.number,
            reason,
            exc_info=None if isinstance(error, CentraError) else error,
        )

    def _clear_refusal(self) -> None:
        self.refused, self._attempts, self._next_attempt = None, 0, 0.0

    def _store_failed(self, reason: str, code: str) -> None:
        before = self.store_error
        since = before.since if before else datetime.now(UTC)
        self.store_error = StoreFault(reason=reason, code=code, since=since)
        if before is None or before.code != code:
            _log.warning("the channel cannot be followed for now: %s", reason)

    def _store_answers(self) -> None:
        if self.store_error is not None:
            seconds = (datetime.now(UTC) - self.store_error.since).total_seconds()
            _log.info("the channel is followed again, after %.0f s", seconds)
            self.store_error = None

    def _give_memory_back(self) -> None:
        """Once after a release has gone, which may be some time after another took over."""
        if self._untrimmed:
            self._untrimmed = False
            trim_memory()


def _names(served: ServedRelease) -> tuple[object, ...]:
    return served.number, served.versions, served.channel, served.revision


def _same_refusal(one: RefusedRelease, other: RefusedRelease) -> bool:
    return dataclasses.replace(one, at=other.at) == other


def _may_be_mended(error: Exception) -> bool:
    """Whether a release can become good although its digest stays: by a file or a signature."""
    from centra.releases.signing import SignatureError

    if isinstance(error, NotFoundError):
        return error.code != "no-such-task"
    return isinstance(error, CorruptBlobError | SignatureError)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, CentraError) else type(error).__name__
