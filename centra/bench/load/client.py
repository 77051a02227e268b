"""A connection to a server over HTTP/1.1 that costs the machine little.

Generator and server often share a machine. A request through httpx took 1.5 ms of a processor here, one
through this module 0.1 ms, which is small beside what a model takes.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import h11

from centra.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answer", "Connection", "Target"]

_READ = 2**16
"""Bytes that are read at once, at most."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server that is asked."""

    host: str
    port: int
    secure: bool = False
    """Whether it is spoken to by TLS."""
    path: str = ""
    """What stands before every path."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Sent with every request, ``host`` first; they may hold a secret."""

    @classmethod
    def parse(cls, url: str, *, token: str | None = None) -> Target:
        """The server behind a URL.

        Args:
            url: ``http://HOST[:PORT][/PATH]`` or ``https://…``; a name and password in it are sent.
            token: a bearer token to send.

        Raises:
            UsageError: this is no such URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no URL of a server: expected http://HOST:PORT")
        if parts.query or parts.fragment:
            raise UsageError(f"{url!r} asks for something: expected a server's address alone")
        secure = parts.scheme == "https"
        port = port or (443 if secure else 80)
        named = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        headers = [("host", f"{named}:{port}")]
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        elif parts.username is not None:
            secret = f"{parts.username}:{parts.password or ''}".encode()
            headers.append(("authorization", f"Basic {base64.b64encode(secret).decode()}"))
        return cls(
            host=parts.hostname,
            port=port,
            secure=secure,
            path=parts.path.rstrip("/"),
            headers=tuple(headers),
        )

    @property
    def url(self) -> str:
        """The server's address, without secrets."""
        return f"http{'s' if self.secure else ''}://{self.headers[0][1]}{self.path}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server sent back, whole."""

    status: int
    headers: dict[str, str]
    """By name in small letters; of several with one name, joined by commas."""
    body: bytes


class Connection:
    """One connection, which is made when it is needed and kept as long as the server keeps it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = ssl.create_default_context() if target.secure else None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._state = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def send(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request and read the whole answer.

        A request is sent once more where the server had closed a kept connection before it said
        anything.

        Raises:
            OSError: the server cannot be reached, or the connection broke; ``ConnectionError`` too
                where what came is no HTTP.
        """
        was_kept = self._streams is not None
        try:
            return await self._exchange(method, path, body)
        except _NothingSaidError:
            if not was_kept:
                raise
            return await self._exchange(method, path, body)

    def close(self) -> None:
        """Close the connection, whatever it does."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, method: str, path: str, body: bytes) -> Answer:
        try:
            return await self._ask(method, path, body)
        except h11.ProtocolError as error:
            self.close()
            raise ConnectionError(f"no HTTP: {error}") from error
        except BaseException:  # Cancelled, too: half an answer is on the way.
            self.close()
            raise

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        reader, writer = await self._connected()
        headers = [*self._target.headers, ("accept", "application/json")]
        if body:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        request = h11.Request(method=method, target=self._target.path + path, headers=headers)
        parts = [self._state.send(request)]
        if body:
            parts.append(self._state.send(h11.Data(data=body)))
        parts.append(self._state.send(h11.EndOfMessage()))
        try:
            writer.write(b"".join(part for part in parts if part))
            head, content = await self._answer(reader)
        except ConnectionResetError as error:
            raise _NothingSaidError(str(error)) from error
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()
        found: dict[str, str] = {}
        for name, value in head.headers:
            text = value.decode("latin-1")
            key = name.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
        return Answer(status=head.status_code, headers=found, body=content)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[h11.Response, bytes]:
        head: h11.Response | None = None
        content: list[bytes] = []
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(_READ)
                if not data and head is None:
                    raise _NothingSaidError("the server closed the connection without an answer")
                self._state.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                content.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return head, b"".join(content)
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("the server closed the connection within an answer")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            target = self._target
            self._streams = await asyncio.open_connection(target.host, target.port, ssl=self._tls)
            self._state = h11.Connection(h11.CLIENT)
        return self._streams


class _NothingSaidError(ConnectionError):
    """The connection was closed before the first byte of an answer."""
