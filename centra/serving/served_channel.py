"""One source that a server answers from: its release, what follows it, and what compares with it."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from centra.errors import CentraError
from centra.serving.errors import ClosedError
from centra.serving.follower import Follower, Following
from centra.serving.releases import ServedReleases
from centra.serving.served import ServedRelease

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.runtime.release import Release
    from centra.serving.mailbox import Mailbox
    from centra.serving.preparing import LoadOptions
    from centra.serving.request import Request
    from centra.serving.shadow import Shadow

__all__ = ["NOT_OPEN", "ServedChannel"]

NOT_OPEN = "no new requests are taken: the batcher ends, or has not begun"


class ServedChannel:
    """Answers with what a source names, from when it is opened until it is closed.

    It belongs to the event loop that opens it.
    """

    def __init__(
        self,
        name: str,
        source: str | os.PathLike[str] | Release,
        *,
        options: LoadOptions,
        follow: bool = True,
        interval: float = 5.0,
        make_follower: Callable[..., Following] = Follower,
        shadow: Shadow | None = None,
    ) -> None:
        """Say what is served; nothing is read yet.

        Args:
            name: what callers choose it by; empty where it is the only one and has none.
            source, follow, interval, make_follower: as for :class:`centra.serving.Batcher`.
            options: how its releases are loaded.
            shadow: what is told of its answers.
        """
        self.name = name
        self.shadow = shadow
        """What compares with another release, where that is asked for."""
        self.follower: Following | None = None
        """What follows the source, where it is a channel and is followed."""
        self._source, self._options = source, options
        self._follow, self._interval = follow, interval
        self._make_follower = make_follower
        self._releases: ServedReleases | None = None

    @property
    def served(self) -> ServedRelease:
        """What new requests are answered by.

        Raises:
            ClosedError: it is not open.
        """
        return self._open.current

    @property
    def swapped(self) -> int:
        """How often a release took another's place."""
        return self._open.swapped

    async def open(self, mailbox: Mailbox) -> None:
        """Load what the source names.

        Args:
            mailbox: of the event loop.

        Raises:
            CentraError: see :func:`centra.load_release`; the text begins with the channel's name.
        """
        try:
            first = await asyncio.to_thread(self._load, mailbox)
        except CentraError as error:
            if self.name:
                error.args = (f"channel {self.name}: {error}",)
            raise
        self._releases = ServedReleases(first, keep=self._source, channel=self.name)

    def start(self) -> None:
        """Follow the source from now on, and compare."""
        if self.follower is not None:
            self.follower.start()
        if self.shadow is not None:
            self.shadow.start()

    def begin(self) -> None:
        """A request begins, and is for the current release."""
        self._open.begin()

    def end(self, request: Request) -> None:
        """A request of this channel is done."""
        self._open.end(request.served)
        if self.shadow is not None and request.failure is None:
            for query, said in zip(request.queries, request.answers, strict=True):
                if said.answers:
                    self.shadow.offer(query, said.answers, request.served)

    def swap(self, served: ServedRelease) -> None:
        """Let another release answer all requests from now on.

        The one before is closed when the last of its requests is done.
        """
        self._open.swap(served)

    async def follow_no_more(self) -> None:
        """Let what is served stay."""
        if self.follower is not None:
            await asyncio.to_thread(self.follower.close)

    async def close(self) -> None:
        """Close its releases, when no request is left."""
        if self.shadow is not None:
            await asyncio.to_thread(self.shadow.close)
        releases, self._releases = self._releases, None
        if releases is not None:
            await releases.close()

    @property
    def _open(self) -> ServedReleases:
        if self._releases is None:
            raise ClosedError(NOT_OPEN)
        return self._releases

    def _load(self, mailbox: Mailbox) -> ServedRelease:
        if not isinstance(self._source, str | os.PathLike):
            return ServedRelease(
                release=self._source,
                number=None,
                versions={},
                channel=None,
                revision=None,
                since=datetime.now(UTC),
            )
        follower = self._make_follower(
            self._source,
            options=self._options,
            # In the follower's thread.
            on_ready=lambda served: mailbox.post(partial(self._take_over, served)),
            interval=self._interval,
        )
        served = follower.load()
        if self._follow and follower.follows:
            self.follower = follower
        else:
            follower.close()
        return served

    def _take_over(self, served: ServedRelease) -> None:
        """Let a release answer from now on, if it is not too late for that."""
        if self._releases is not None:
            self._releases.swap(served)
        else:
            served.release.close()
