"""Around every call: its id, who calls, the line in the log, and an answer whatever goes wrong."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from centra.errors import CentraError
from centra.serving.errors import CancelledError
from centra.serving.failures import log_failure as log_call_failure
from centra.serving.http.paths import route_of
from centra.serving.http.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from centra.serving.http.call import Serving
    from centra.serving.tokens import Tokens

__all__ = ["OPEN_PATHS", "Envelope", "Guard", "channel_name", "log_failure", "request_id_of"]

_log = logging.getLogger(__name__)

OPEN_PATHS = {"/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"}
"""What needs no token: probes, and pages that hold nothing but what they ask for with a token."""
_OPEN_PREFIXES = ("/static/", "/v2/health/")
_ID = re.compile(r"[!-~]{1,128}")


class Envelope:
    """Gives each call an id, writes its line in the log, and turns errors into problem documents.

    A call's line has no text of what was asked: method, path, status, seconds, number of inputs,
    the token's name, the release, the channel.
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = request_id_of(Headers(scope=scope).get("x-request-id"))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if self._serving.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except (ClientDisconnect, CancelledError):
            _log.debug("%s %s: the client has gone", scope["method"], _path(scope))
        except Exception as error:  # noqa: BLE001 - whatever it is, the call is answered
            if not isinstance(error, CentraError):
                log_failure(error, request_id)
            if status is not None:
                raise _ConnectionLostError from None
            response = Problem.of(error).response(route_of(scope), request_id)
            await response(scope, receive, answer)
        finally:
            if _log.isEnabledFor(logging.INFO):
                _log_call(scope, status, time.perf_counter() - began)


class Guard:
    """Lets nobody through who bears no token that is known."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call.

        Raises:
            UnauthorizedError: it bears none.
        """
        if scope["type"] == "http" and not _is_open(route_of(scope) or "/"):
            given = Headers(scope=scope).get("authorization")
            scope["state"]["caller"] = self._tokens.caller(given)
        await self._app(scope, receive, send)


class _ConnectionLostError(Exception):
    """An answer that had begun could not be ended."""


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(_OPEN_PREFIXES)


def request_id_of(given: str | None) -> str:
    """The id that a caller gave, where it is one that can stand in a header and in a log; or a new one."""
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex


def channel_name(scope: Scope) -> str:
    """The name of the channel that a call was about; empty where it has none, or of other calls."""
    name: str = scope["state"].get("channel_name", "")
    return name


def _path(scope: Scope) -> str:
    """As it was sent, in ASCII: a line feed in it is no line of the log."""
    path: bytes = scope.get("raw_path") or scope["path"].encode("unicode_escape")
    return path[:200].decode("latin-1")


def _log_call(scope: Scope, status: int | None, seconds: float) -> None:
    state, caller = scope["state"], scope["state"].get("caller")
    channel = channel_name(scope)
    path = _path(scope)
    _log.info(
        "%s %s %s in %.1f ms",
        scope["method"],
        path,
        status or "unanswered",
        seconds * 1000,
        extra={
            "request_id": state["request_id"],
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 6),
            **{name: state[name] for name in ("inputs", "release") if name in state},
            **({"channel": channel} if channel else {}),
            **({"token": caller.name} if caller else {}),
        },
    )


def log_failure(error: Exception, request_id: str) -> None:
    """Log that a call failed, and where."""
    log_call_failure(_log, f"request {request_id} failed", error, request_id=request_id)
