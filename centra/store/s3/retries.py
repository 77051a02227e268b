"""Requests to a server that are made again while what went wrong may pass."""

from __future__ import annotations

import random
import time
from itertools import count
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONNECT_TIMEOUT", "READ_TIMEOUT", "GaveUpError", "with_retries"]

CONNECT_TIMEOUT, READ_TIMEOUT = 3, 20
"""Seconds after which an attempt is given up: without a connection, and without any byte."""

_PATIENCE, _TO_CONNECT = 45, 8
"""Seconds after which no further attempt is made: in general, and where nobody is reached."""

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5
"""Seconds between attempts, at most."""

_STATUSES = {429, 500, 502, 503, 504}
_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InvalidDigest",
    "MalformedXML",  # As we send none such, it was changed on the way.
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
"""What may pass besides, whatever the status."""

_T = TypeVar("_T")


class GaveUpError(Exception):
    """A request that was made again and again to no avail; its cause is what went wrong last."""

    def __init__(self, request: str, attempts: int, seconds: float) -> None:
        super().__init__(request)
        self.request = request
        self.attempts = attempts
        self.seconds = seconds


def with_retries(name: str, request: Callable[[], _T]) -> _T:
    """Make a request of botocore's, and again as long as it makes sense.

    The waits grow, and are drawn at random up to their longest, so that many clients which failed at
    once do not come back at once. A request must be one that may be made twice: a lost answer does
    not say that nothing was done.

    Args:
        name: the request's, for people.
        request: makes it, and reads its answer to the end.

    Raises:
        GaveUpError: it took too long; whatever else the request raises goes on as it is.
    """
    began = time.monotonic()
    for attempt in count(1):
        try:
            return request()
        except Exception as error:
            patience = _patience(error)
            if patience is None:
                raise
            wait = random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt))  # noqa: S311
            elapsed = time.monotonic() - began
            if elapsed + wait > patience:
                raise GaveUpError(name, attempt, elapsed) from error
        time.sleep(wait)
    raise AssertionError  # It counts on for ever.


def _patience(error: Exception) -> float | None:
    """For how many seconds a request is made again after an error; None where that is no use."""
    from botocore.exceptions import (
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ProxyConnectionError,
        SSLError,
    )
    from botocore.exceptions import ConnectionError as AnyConnectionError
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        passes = status in _STATUSES or error.response["Error"]["Code"] in _CODES
        return _PATIENCE if passes else None
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return None
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError):
        return _TO_CONNECT
    # ResponseParserError and ValueError: of an answer that was changed on the way.
    broken = (AnyConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)
    return _PATIENCE if isinstance(error, (*broken, ConnectionError, ValueError)) else None
