"""What a refused call is told: one problem document (RFC 9457) for every door.

``type`` and ``code`` are for programs, ``detail`` is for people, ``field`` names the part of the
request that is wrong, and ``request_id`` is what the server's log calls the call.
"""

from __future__ import annotations

import dataclasses
import http
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from centra.errors import CentraError, DataError, NotAllowedError, NotFoundError, UsageError
from centra.serving.errors import (
    ClosedError,
    DeadlineError,
    OverloadedError,
    TooLargeError,
)
from centra.serving.tokens import UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROBLEM_JSON", "BodyError", "Problem", "SlowBodyError"]

PROBLEM_JSON = "application/problem+json"

_STATUS: tuple[tuple[type[CentraError], int], ...] = (
    (OverloadedError, 429),
    (DeadlineError, 504),
    (TooLargeError, 413),
    (ClosedError, 503),
    (NotFoundError, 404),
    (NotAllowedError, 403),
    (DataError, 422),
    (UsageError, 422),
)
_BY_CODE = {"release-closed": 503, "several-channels": 400}
_SECRET = "the server failed at this call; its log says more under the request's id"  # noqa: S105 - no password


class BodyError(DataError):
    """The body of a call is wrong as a whole."""

    code = "invalid-body"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code, **({"field": field} if field else {}))


class SlowBodyError(CentraError):
    """The body did not arrive in time."""

    code = "slow-body"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem document, and how it is sent."""

    status: int
    code: str
    detail: str
    field: str | None = None
    """The part of the request that is wrong, as a path: ``inputs[3].text``."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further members."""

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """What a caller is told of an error; nothing of one that nobody foresaw."""
        if not isinstance(error, CentraError):
            return cls(status=500, code="internal", detail=_SECRET)
        named = error.data.get("field")
        return cls(
            status=_status(error),
            code=error.code,
            detail=str(error),
            field=named if isinstance(named, str) else None,
            headers=_headers(error),
        )

    def document(self, request_id: str | None = None) -> dict[str, Any]:
        """Its members."""
        members = {
            "type": f"urn:centra:problem:{self.code}",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "field": self.field,
            "request_id": request_id,
            **self.extra,
        }
        return {name: value for name, value in members.items() if value is not None}

    def response(self, path: str, request_id: str | None = None) -> Response:
        """An HTTP response: the document, or what the protocol that the path belongs to says.

        Args:
            path: of the call.
            request_id: the call's.
        """
        status, content, media_type = self.status, self.document(request_id), PROBLEM_JSON
        if path == "/v2" or path.startswith("/v2/"):
            # The Open Inference Protocol has a document of its own, and one status for bad requests.
            status = 400 if status == 422 else status
            content, media_type = {"error": self.detail}, "application/json"
        return Response(
            orjson.dumps(content),
            status_code=status,
            headers=dict(self.headers),
            media_type=media_type,
        )


def _status(error: CentraError) -> int:
    if isinstance(error, UnauthorizedError):
        return 401
    if isinstance(error, SlowBodyError):
        return 408
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _headers(error: CentraError) -> dict[str, str]:
    if isinstance(error, OverloadedError):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, UnauthorizedError):
        return {"WWW-Authenticate": "Bearer"}
    return {}
