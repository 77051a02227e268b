"""An application behind Ray Serve's proxy: calls look as if they had come straight from the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Proxied"]

_REQUEST_ID = b"x-request-id"


class Proxied:
    """Takes away what the proxy puts around calls, so that it is not there twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "").encode("latin-1")

        async def answer(message: Message) -> None:
            # The proxy gives each call an id, which is ours then, and writes it on the answer itself.
            if message["type"] == "http.response.start":
                headers = [h for h in message["headers"] if h != (_REQUEST_ID, given)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(_without_prefix(scope), receive, answer)


def _without_prefix(scope: Scope) -> Scope:
    """A call's path without the prefix that the application has in the cluster."""
    prefix = scope.get("root_path", "").rstrip("/")
    if not prefix or not scope["path"].startswith(prefix):
        return scope
    raw = scope.get("raw_path") or scope["path"].encode()
    return {
        **scope,
        "root_path": "",
        "path": scope["path"][len(prefix) :] or "/",
        "raw_path": raw.removeprefix(prefix.encode()) or b"/",
    }
