"""A client's connection, which cannot hold up the server.

uvicorn waits for the head of a call for ever and keeps whatever comes of it, and waits for ever for a
client to read. The bounds of bodies are in :mod:`centra.serving.http.bodies`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["Connection"]

HEAD_SECONDS = 10.0
"""How long the head of a call may take, from the connection or from its first byte on."""
_HEAD_BYTES = 64 * 2**10
_READ_SECONDS = 30.0
"""How long a client may leave an answer unread."""
_LINGER_SECONDS = 2.0
"""How long the rest of a body is thrown away that was answered before its end: closed at once, the
answer could be lost on its way."""
_OFFER = re.compile(rb"\nupgrade[ \t]*:", re.IGNORECASE)
_LAST_SECONDS = 2.0
"""How long the rest of a body may still take once the server ends: its end need not wait for a client
that sends none."""
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """One connection, over which calls come one after the other."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._moved_on = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._set_timer(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._set_timer(None)
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in some bytes; those of a head are counted."""
        was_in_head, self._moved_on = self._in_head, False
        super().data_received(_without_offers(data) if was_in_head else data)
        if not self._in_head:
            return
        if was_in_head and not self._moved_on:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
            if self._timer is None:
                self._set_timer(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """A head has ended, and its call begins."""
        self._in_head, self._moved_on, self._head_bytes = False, True, 0
        self._set_timer(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A call has come in whole."""
        self._in_head = self._moved_on = True
        if self._timer is not None:
            # It was answered before, so the connection is idle now.
            self._set_timer(self.timeout_keep_alive)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A call was answered, perhaps before all of it had come."""
        super().on_response_complete()
        if not self._in_head:
            self._set_timer(_LINGER_SECONDS)

    def shutdown(self) -> None:
        """The server ends: what has come in whole is answered."""
        super().shutdown()
        if not self._in_head:
            self.loop.call_later(_LAST_SECONDS, self._give_up_body)

    def _give_up_body(self) -> None:
        if not self._in_head and not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read as fast as answers are written."""
        super().pause_writing()
        self._unread = self.loop.call_later(_READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read enough."""
        self._stop_unread()
        super().resume_writing()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            # An earlier call on this connection is still being answered.
            self._set_timer(HEAD_SECONDS)
        elif not self.transport.is_closing():
            self.transport.close()


def _without_offers(data: bytes) -> bytes:
    """A head without the offer to speak another protocol, which a server is free to pass over.

    Some clients offer HTTP/2 with every first call (Java's, ``curl --http2``), and the parser takes
    the body of such a call for that other protocol and loses it.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"\nx-offer:", head) + end + rest
