"""A proxy in front of a real S3 server that answers wrongly when it is told to.

What a script says of a request is done to it; everything else passes through untouched. The host
that a client signed is passed on, so that its signature holds.
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FAULTS", "Fault", "Proxy", "Script", "at_random", "in_order", "proxied"]

Fault = Literal[
    "error",  # 503 SlowDown; the server never hears of the request
    "throttle",  # 429
    "drop",  # the connection is closed; the server never hears of the request
    "lost",  # the server does it, and its answer is lost
    "failed",  # the server does it, and the answer is 500
    "short",  # half of the answer's body
    "flip",  # a flipped bit in the answer's body
    "spoil",  # a flipped bit in the body that is sent
    "stale",  # as it was before the last write: an older body, or 404
    "delay",  # half a second late
    "hang",  # no answer at all, as long as the proxy runs
]
FAULTS: tuple[Fault, ...] = (
    *("error", "throttle", "drop", "lost", "failed", "short", "flip", "spoil", "stale", "delay"),
)
"""All that can be told from a quick right answer without waiting for long."""

Script = Callable[[str, str], Fault | None]
"""What to do to a request, by its method and its path with the query."""

_dice = random.Random(0)
_PASSED_ON_ANEW = {"connection", "expect", "transfer-encoding", "keep-alive"}
_ERROR = b"<Error><Code>%s</Code><Message>by script</Message></Error>"


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def in_order(*faults: Fault | None, method: str = "", path: str = "") -> Script:
    """A script: the first matching request meets the first fault, the second the second, and so on.

    Args:
        faults: what they meet; None lets one pass, and so does the end of the list.
        method: of the requests that count; default all.
        path: a regular expression that is found in theirs.
    """
    coming, lock = iter(faults), threading.Lock()

    def script(asked: str, where: str) -> Fault | None:
        if (method and asked != method) or not re.search(path, where):
            return None
        with lock:
            return next(coming, None)

    return script


def at_random(rate: float, seed: int, faults: Sequence[Fault] = FAULTS) -> Script:
    """A script: each request meets one of these faults with this probability."""
    dice, lock = random.Random(seed), threading.Lock()

    def script(_method: str, _path: str) -> Fault | None:
        with lock:
            return dice.choice(faults) if dice.random() < rate else None

    return script


class Proxy(ThreadingHTTPServer):
    """A running proxy; :attr:`script` may be replaced at any time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: str, script: Script | None = None) -> None:
        """Listen on a port of its own.

        Args:
            server: the endpoint of the real one.
            script: what goes wrong; default nothing.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server
        self.script = script
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request."""
        self.faults: Counter[str] = Counter()
        """How often each fault was met."""
        self.over = threading.Event()
        self._now: dict[str, _Answer] = {}
        self._before: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what this is for."""

    def fault(self, method: str, path: str) -> Fault | None:
        """What becomes of a request, which is noted."""
        with self._lock:
            self.requests.append((method, path))
        return self.script(method, path) if self.script else None

    def note(self, fault: Fault) -> None:
        """Count a fault that was really met."""
        with self._lock:
            self.faults[fault] += 1

    def remember(self, method: str, path: str, answer: _Answer) -> None:
        """Keep what was answered, so that it can be given again when it is out of date."""
        if answer.status >= 300 or method not in ("GET", "PUT", "DELETE") or path.count("/") < 2:
            return
        with self._lock:
            if method == "GET":
                self._now[path] = answer
            elif path in self._now:
                self._before[path] = self._now.pop(path)
            elif method == "PUT":
                self._before.setdefault(path, _Answer(404, [], _ERROR % b"NoSuchKey"))

    def older(self, path: str) -> _Answer | None:
        """What was answered before the last write; a listing is simply the last one."""
        with self._lock:
            return (self._now if "list-type" in path else self._before).get(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Whatever the method is."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(self.command, self.path)
        if fault is None:
            self._answer(self._ask(body))
        else:
            self._misbehave(fault, body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        pass

    def _misbehave(self, fault: Fault, body: bytes) -> None:
        met = True
        match fault:
            case "error":
                self._answer(_Answer(503, [], _ERROR % b"SlowDown"))
            case "throttle":
                self._answer(_Answer(429, [], _ERROR % b"TooManyRequests"))
            case "drop":
                self._hang_up()
            case "lost":
                self._ask(body)
                self._hang_up()
            case "failed":
                self._ask(body)
                self._answer(_Answer(500, [], _ERROR % b"InternalError"))
            case "short":
                self._answer(answer := self._ask(body), half=True)
                met = bool(answer.body)
            case "flip":
                answer = self._ask(body)
                met = answer.status < 300 and bool(answer.body)
                self._answer(answer._replace(body=_flipped(answer.body)) if met else answer)
            case "spoil":
                met = bool(body)
                self._answer(self._ask(_flipped(body) if met else body))
            case "stale":
                old = self.server.older(self.path) if self.command in ("GET", "HEAD") else None
                met = old is not None
                self._answer(old or self._ask(body))
            case "delay":
                time.sleep(0.5)
                self._answer(self._ask(body))
            case "hang":
                self.server.over.wait()
                self._hang_up()
        if met:
            self.server.note(fault)

    def _ask(self, body: bytes) -> _Answer:
        """What the real server says."""
        there = urlsplit(self.server.server)
        connection = HTTPConnection(there.hostname or "", there.port, timeout=60)
        headers = [(k, v) for k, v in self.headers.items() if k.lower() not in _PASSED_ON_ANEW]
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body or None)
            found = connection.getresponse()
            answer = _Answer(found.status, found.getheaders(), found.read())
        except (OSError, HTTPException):
            return _Answer(502, [], _ERROR % b"BadGateway")
        finally:
            connection.close()
        self.server.remember(self.command, self.path, answer)
        return answer

    def _answer(self, answer: _Answer, *, half: bool = False) -> None:
        self.send_response_only(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() == "content-length":
                length = value  # Of HEAD: that of a body which does not follow.
            elif name.lower() not in _PASSED_ON_ANEW:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if half else answer.body)
        if half:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _flipped(data: bytes) -> bytes:
    """With one bit changed, each time another one."""
    place = _dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << _dice.randrange(8)]) + data[place + 1 :]


@contextmanager
def proxied(server: str, script: Script | None = None) -> Iterator[Proxy]:
    """A proxy that runs as long as the block.

    Args:
        server: the endpoint of the real one.
        script: what goes wrong; default nothing.
    """
    with Proxy(server, script) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.over.set()
            proxy.shutdown()
            thread.join()
