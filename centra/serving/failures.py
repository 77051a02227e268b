"""What is logged of a failure that nobody foresaw: where it happened, and nothing that it says.

What an exception says may be the text that it stumbled over; only who asks for every step sees it.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

__all__ = ["log_failure"]


def log_failure(log: logging.Logger, what: str, error: BaseException, **extra: Any) -> None:
    """Log an error's type and where it was raised.

    Args:
        log: whose it is.
        what: failed.
        error: why.
        extra: of the record.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s\n%s", what, type(error).__name__, frames, extra=extra)
    log.debug("%s: it said: %s", what, error)
