"""What a server refuses, and why: too much at once, too large, too late, or no longer here."""

from __future__ import annotations

from centra.errors import CentraError

__all__ = [
    "CancelledError",
    "ClosedError",
    "DeadlineError",
    "OverloadedError",
    "ServingError",
    "TooLargeError",
]


class ServingError(CentraError):
    """A request that could be answered as it is, and is not."""

    code = "serving"


class OverloadedError(ServingError):
    """More waits already than the queue may hold; the request was refused as a whole."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retry_after = retry_after
        """After how many seconds what waits now will have been answered, as measured."""


class TooLargeError(ServingError):
    """Something is larger than this server takes at any time, however little it has to do."""

    code = "too-large"

    def __init__(self, message: str, *, field: str, limit: int) -> None:
        super().__init__(message, field=field, limit=limit)
        self.field = field
        """What is too large, as a path into the request: ``inputs``, ``inputs[3].text``."""
        self.limit = limit
        """How large it may be, in what it is counted in."""


class DeadlineError(ServingError):
    """The time that the caller gave was over before there was an answer."""

    code = "deadline"


class CancelledError(ServingError):
    """Whoever asked has gone; nobody waits for this answer."""

    code = "cancelled"


class ClosedError(ServingError):
    """No new requests are taken: the batcher ends, or has not begun."""

    code = "closed"
