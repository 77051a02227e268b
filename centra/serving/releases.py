"""The release that answers what comes, and those before it that still answer what came to them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from centra.serving.served import ServedRelease

__all__ = ["ServedReleases"]

_log = logging.getLogger(__name__)


class ServedReleases:
    """Closes each release when another has taken its place and its last request is done.

    It belongs to an event loop.
    """

    def __init__(self, first: ServedRelease, *, keep: object = None, channel: str = "") -> None:
        """Begin with a release.

        Args:
            first: it.
            keep: a loaded release that is somebody else's to close.
            channel: what the log calls the channel whose releases they are, where it has a name.
        """
        self.current = first
        """What answers new requests."""
        self.swapped = 0
        """How often a release took another's place."""
        self._keep = keep
        self._of = f" of {channel}" if channel else ""
        self._users = {first: 0}
        self._closing: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        """A request begins, and is for the current one."""
        self._users[self.current] += 1

    def end(self, served: ServedRelease) -> None:
        """One of its requests is done."""
        self._users[served] -= 1
        if served is not self.current:
            self._close_unused(served)

    def swap(self, served: ServedRelease) -> None:
        """Let another answer from now on."""
        before, self.current = self.current, served
        self._users.setdefault(served, 0)
        self.swapped += served.release is not before.release
        _log.info("release sha256:%s%s answers from now on", served.digest[:12], self._of)
        if served is not before:
            self._close_unused(before)

    async def close(self) -> None:
        """Close all, when no request is left."""
        for served in [*self._users]:
            self._close_unused(served)
        await asyncio.gather(*self._closing)

    def _close_unused(self, served: ServedRelease) -> None:
        if self._users.get(served) != 0:
            return
        del self._users[served]
        release = served.release
        # The same release may go on under other numbers.
        if release is self._keep or any(other.release is release for other in self._users):
            return
        _log.info("release sha256:%s%s has answered its last request", served.digest[:12], self._of)
        closing = asyncio.get_running_loop().run_in_executor(None, release.close)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
