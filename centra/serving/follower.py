"""Following a channel: its pointer is read again and again, and what it names is made ready.

A release takes over only when it has been pulled, verified, loaded and warmed; until then, and where
any of that fails, the one before goes on. So does it while the store cannot be reached.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from centra.errors import CentraError, StoreError, first_line
from centra.releases.find import ChannelSource, open_source
from centra.serving.channel import FollowedChannel, StoreFault, jittered
from centra.serving.preparing import LoadOptions, prepare_release
from centra.serving.refusals import Refusals, RefusedRelease, error_code, may_be_mended
from centra.serving.served import ServedRelease
from centra.system.memory import trim_memory

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from centra.formats.manifest import ChannelPointer

__all__ = ["TO_END", "Follower", "Following"]

_log = logging.getLogger(__name__)

_OPTIONS = LoadOptions()
TO_END = 2.0
"""Seconds that closing waits for the thread, which may be in the middle of a request to the store."""


class Following(Protocol):
    """Keeps ready what a source names, and says what it could not take; see :class:`Follower`."""

    @property
    def follows(self) -> bool:
        """Whether the source is a channel, which moves."""
        ...

    @property
    def refused(self) -> RefusedRelease | None:
        """What the channel names now, where it cannot be served; what was served before goes on."""
        ...

    @property
    def refusals(self) -> int:
        """How many releases were refused."""
        ...

    @property
    def store_error(self) -> StoreFault | None:
        """Why it is not known, or cannot be followed, what the channel names."""
        ...

    def load(self) -> ServedRelease:
        """Load what is to be served first.

        Raises:
            CentraError: it cannot be served.
        """
        ...

    def start(self) -> None:
        """Follow from now on; every later release is handed to ``on_ready``."""
        ...

    def close(self) -> None:
        """Follow no more. What is served stays with whom it was handed to."""
        ...


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
        self._source, self._options = source, options
        self._on_ready = on_ready
        self._interval = interval
        self._channel: FollowedChannel | None = None
        self._served: ServedRelease | None = None
        self._refusals = Refusals(interval)
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
            self._channel = FollowedChannel(location)
            pointer = self._channel.first()
            location = self._channel.locate(pointer)
        release = prepare_release(location, self._options)
        self._served = ServedRelease.of(location, release)
        if self._channel is not None:
            self._channel.take(pointer)
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

    @property
    def refused(self) -> RefusedRelease | None:
        """What the channel names now, where it cannot be served; what was served before goes on."""
        return self._refusals.refused

    @property
    def refusals(self) -> int:
        """How many releases were refused."""
        return self._refusals.count

    @property
    def store_error(self) -> StoreFault | None:
        """What keeps it from knowing better: see :class:`StoreFault`."""
        return None if self._channel is None else self._channel.store_error

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
        while not self._closing.wait(jittered(self._interval)):
            try:
                self._check()
            except Exception:  # noqa: BLE001 - following goes on, whatever a callback does
                _log.exception("following the channel failed; it goes on")

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
            pointer = channel.read()
            if pointer is None:
                return
            if pointer.manifest == self.served.digest:
                channel.answers()
                self._keep(channel, pointer)
            elif self._refusals.worth_an_attempt(pointer, patient=patient):
                self._take(channel, pointer)
            else:
                channel.answers()

    def _keep(self, channel: FollowedChannel, pointer: ChannelPointer) -> None:
        """The release that is served is named, perhaps by other numbers."""
        self._refusals.clear()
        served = self.served
        renamed = served.named_by(pointer)
        if _names(renamed) != _names(served):
            self._hand_over(channel, pointer, renamed)

    def _take(self, channel: FollowedChannel, pointer: ChannelPointer) -> None:
        """Make ready what a pointer names, and hand it over."""
        try:
            location = channel.locate(pointer)
            release = prepare_release(location, self._options, base=self.served.release)
        except StoreError as error:
            channel.failed(first_line(error), error_code(error))
            return
        except Exception as error:  # noqa: BLE001 - no release may end what is served
            if self._closing.is_set():
                return  # What it was to replace may be closed already.
            channel.answers()
            self._refuse(pointer, error)
            return
        if self._closing.is_set():
            release.close()
            return
        channel.answers()
        self._refusals.clear()
        self._untrimmed = True
        self._hand_over(channel, pointer, ServedRelease.of(location, release))

    def _hand_over(
        self, channel: FollowedChannel, pointer: ChannelPointer, served: ServedRelease
    ) -> None:
        self._served = served
        channel.take(pointer)
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
        if not self._refusals.add(pointer, reason, mendable=may_be_mended(error)):
            return
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

    def _give_memory_back(self) -> None:
        """Once after a release has gone, which may be some time after another took over."""
        if self._untrimmed:
            self._untrimmed = False
            trim_memory()


def _names(served: ServedRelease) -> tuple[object, ...]:
    return served.number, served.versions, served.channel, served.revision
