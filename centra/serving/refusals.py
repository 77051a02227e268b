"""Releases that a channel names and that cannot be served, and when another attempt is worth it.

What can become good although its digest stays is tried again, ever more rarely: a file can be put
back, a signature added. What is a fact of the bytes waits for the channel to move.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from centra.errors import CentraError, CorruptBlobError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.manifest import ChannelPointer

__all__ = ["Refusals", "RefusedRelease", "error_code", "may_be_mended"]

_NEVER = float("inf")
_LONGEST_PAUSE = 300.0
"""Seconds between two attempts at a release whose files may be mended meanwhile, at most."""


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


class Refusals:
    """What is refused now, and when it is tried again."""

    def __init__(self, interval: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing refused.

        Args:
            interval: seconds; the first pause before another attempt is twice as long.
            clock: the time in seconds, from any moment on.
        """
        self.refused: RefusedRelease | None = None
        """What the channel names now, where it cannot be served."""
        self.count = 0
        """How many releases were refused."""
        self._interval, self._clock = interval, clock
        self._attempts = 0
        self.next_attempt = 0.0
        """On the clock; infinite where none can help."""

    def worth_an_attempt(self, pointer: ChannelPointer, *, patient: bool = True) -> bool:
        """Whether to try what a pointer names.

        Args:
            pointer: as it is now.
            patient: let a release alone whose next attempt is not due.
        """
        if not self.concern(pointer):
            self._attempts, self.next_attempt = 0, 0.0
            return True
        return self._clock() >= self.next_attempt if patient else self.next_attempt < _NEVER

    def concern(self, pointer: ChannelPointer) -> bool:
        """Whether it is this pointer whose release is refused."""
        refused = self.refused
        return refused is not None and (refused.revision, refused.digest) == (
            pointer.revision,
            pointer.manifest,
        )

    def add(self, pointer: ChannelPointer, reason: str, *, mendable: bool) -> bool:
        """Refuse what a pointer names.

        Args:
            pointer: it.
            reason: why, in words.
            mendable: whether it can become good although its digest stays.

        Returns:
            Whether that is news.
        """
        refused = RefusedRelease(
            release=pointer.release,
            digest=pointer.manifest,
            revision=pointer.revision,
            reason=reason,
            at=datetime.now(UTC),
        )
        self._attempts += 1
        self.next_attempt = _NEVER
        if mendable:
            pause = min(_LONGEST_PAUSE, self._interval * 2**self._attempts)
            self.next_attempt = self._clock() + pause
        if self.refused is not None and _same(self.refused, refused):
            return False
        if self.refused is None or self.refused.revision != refused.revision:
            self.count += 1
        self.refused = refused
        return True

    def clear(self) -> None:
        """Nothing is refused any more."""
        self.refused, self._attempts, self.next_attempt = None, 0, 0.0


def may_be_mended(error: BaseException) -> bool:
    """Whether a release can become good although its digest stays: by a file or a signature."""
    from centra.releases.signing import SignatureError

    if isinstance(error, NotFoundError):
        return error.code != "no-such-task"
    return isinstance(error, CorruptBlobError | SignatureError)


def error_code(error: BaseException) -> str:
    """What sort of fault an error is, for programs."""
    return error.code if isinstance(error, CentraError) else type(error).__name__


def _same(one: RefusedRelease, other: RefusedRelease) -> bool:
    return dataclasses.replace(one, at=other.at) == other
