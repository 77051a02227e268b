"""A span around each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from centra.serving.http.middleware import channel_name
from centra.serving.http.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from centra.serving.tracing import Tracing

__all__ = ["Spans"]


class Spans:
    """Traces each call; inside the envelope."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        span = self._tracing.begin(Headers(scope=scope), scope["method"])
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            status = Problem.of(error).status
            raise
        finally:
            route = getattr(scope.get("route"), "path", "")
            span.update_name(f"{scope['method']} {route}".strip())
            attributes: dict[str, str | int] = {
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
                "centra.request_id": scope["state"]["request_id"],
            }
            if channel := channel_name(scope):
                attributes["centra.channel"] = channel
            running = scope["state"].get("running")
            self._tracing.end(span, attributes, running, failed=status >= 500)
