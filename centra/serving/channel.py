"""A channel as whoever follows it reads it: what of its pointer is followed, and what is amiss."""

from __future__ import annotations

import dataclasses
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import first_line
from centra.serving.refusals import error_code

if TYPE_CHECKING:
    from centra.formats.manifest import ChannelPointer
    from centra.releases.find import ChannelSource, ReleaseLocation

__all__ = ["FollowedChannel", "StoreFault", "jittered"]

_log = logging.getLogger(__name__)

_JITTER = 0.2
"""Servers that were started together do not ask together: so much earlier or later, as a share."""


@dataclass(frozen=True, kw_only=True)
class StoreFault:
    """Why it is not known, or cannot be followed, what the channel names."""

    reason: str
    code: str
    """What sort of fault it is, for programs."""
    since: datetime
    """In UTC."""


class FollowedChannel:
    """Reads a channel's pointer. Revisions only grow, so an earlier one is not followed."""

    def __init__(self, source: ChannelSource) -> None:
        """Nothing is read yet.

        Args:
            source: where the channel is.
        """
        self.store_error: StoreFault | None = None
        """What keeps it from knowing better: see :class:`StoreFault`."""
        self.taken: ChannelPointer | None = None
        """What was taken over last."""
        self._source = source

    @property
    def names(self) -> tuple[str, ...]:
        """The channel; where it is not settled yet, of several the first that there is."""
        return self._source.names

    def first(self) -> ChannelPointer:
        """The pointer, for who has nothing else to serve.

        Raises:
            CentraError: see :meth:`ChannelSource.read`.
        """
        return self._source.read()

    def locate(self, pointer: ChannelPointer) -> ReleaseLocation:
        """The release that a pointer names.

        Raises:
            CentraError: see :meth:`ChannelSource.locate`.
        """
        return self._source.locate(pointer)

    def read(self) -> ChannelPointer | None:
        """The pointer as it is now; None where ``store_error`` says why it is not followed."""
        try:
            pointer = self._source.read()
        except Exception as error:  # noqa: BLE001 - what is served goes on, whatever it is
            self.failed(first_line(error), error_code(error))
            return None
        if reason := self._earlier(pointer):
            self.failed(reason, "earlier-revision")
            return None
        return pointer

    def take(self, pointer: ChannelPointer) -> None:
        """Note what is taken over: from now on no earlier one is followed."""
        self.taken = pointer
        # One that has served production does not fall back to latest.
        names = self.names
        if pointer.name in names:
            kept = names[: names.index(pointer.name) + 1]
            self._source = dataclasses.replace(self._source, names=kept)

    def failed(self, reason: str, code: str) -> None:
        """The channel cannot be followed for now."""
        before = self.store_error
        since = before.since if before else datetime.now(UTC)
        self.store_error = StoreFault(reason=reason, code=code, since=since)
        if before is None or before.code != code:
            _log.warning("the channel cannot be followed for now: %s", reason)

    def answers(self) -> None:
        """The channel can be followed."""
        if self.store_error is not None:
            seconds = (datetime.now(UTC) - self.store_error.since).total_seconds()
            _log.info("the channel is followed again, after %.0f s", seconds)
            self.store_error = None

    def _earlier(self, pointer: ChannelPointer) -> str | None:
        """Why a pointer is not followed: it is of before what is served. None where it may be."""
        taken = self.taken
        if taken is None or pointer.name != taken.name or pointer.revision > taken.revision:
            return None
        if (pointer.revision, pointer.manifest) == (taken.revision, taken.manifest):
            return None
        return (
            f"channel {pointer.name} is at revision {pointer.revision} and names release "
            f"{pointer.release}, but revision {taken.revision} has been served, which named release "
            f"{taken.release}: revisions only grow, so the store holds an older copy. The channel is "
            "followed again from a later revision on, or from a restart"
        )


def jittered(interval: float) -> float:
    """A pause of about this long, in seconds."""
    return interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
