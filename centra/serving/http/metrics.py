"""``GET /metrics`` for Prometheus, and the counting of calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from centra.serving.errors import CancelledError
from centra.serving.http.call import serving_of
from centra.serving.http.middleware import channel_name
from centra.serving.http.problems import Problem
from centra.serving.standing import standings_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from centra.serving.metrics import Metrics

__all__ = ["Counting", "router"]

router = APIRouter()

_OUTCOMES = {401: "unauthorized", 403: "forbidden", 429: "overloaded", 504: "late"}
_UNKNOWN = "other"
"""The route of paths that there are not: what callers make up is no label."""


@router.get("/metrics", tags=["probes"], summary="For Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What the server has counted, and how it stands; OpenMetrics where that is asked for."""
    serving, accept = serving_of(request), request.headers.get("accept", "")
    if serving.all_metrics is not None:
        text, content_type = await serving.all_metrics(accept)
    else:
        text, content_type = serving.metrics.text(standings_of(serving.batcher), accept)
    return Response(text, headers={"Content-Type": content_type})


class Counting:
    """Counts each call by its route and how it ended, with how long it took; inside the envelope."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, outcome = time.perf_counter(), "cancelled"

        async def answer(message: Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = _outcome(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except (ClientDisconnect, CancelledError):
            outcome = "cancelled"
            raise
        except Exception as error:
            outcome = _outcome(Problem.of(error).status)
            # What went wrong in the batcher, it has told itself.
            if not scope["state"].get("submitted"):
                self._metrics.count_error(error)
            raise
        finally:
            route = getattr(scope.get("route"), "path", _UNKNOWN)
            seconds = time.perf_counter() - began
            channel = channel_name(scope)
            self._metrics.count_request(route, outcome, seconds, channel=channel)
            running = scope["state"].get("running")
            if running is not None and running.failure is None:
                self._metrics.count_serialised(running.serialised, channel=channel)


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return _OUTCOMES.get(status, "refused" if status < 500 else "failed")
