"""HTTP requests to a registry and to whom it sends us, made again while that may help.

Redirections and repetitions are made here and not by urllib3, because it logs whole addresses, and those of
a registry's own storage have signatures in them that let anybody read.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from centra.errors import FormatError
from centra.system.forks import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

__all__ = ["Transport", "pause", "retry_after", "same_origin"]

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT, _READ_TIMEOUT = 5, 30
"""Seconds after which an attempt is given up: without a connection, and without any byte."""
_ATTEMPTS = 5
_PASSING = (429, 500, 502, 503, 504)
"""A registry's answers that another attempt may change."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30
"""Seconds. A registry that wants a longer pause is not asked again: it may say a day."""
_REDIRECTIONS = 5
_KEEPING_THE_METHOD = (307, 308)
_LEADING_ELSEWHERE = (301, 302, 303, *_KEEPING_THE_METHOD)
_CONNECTIONS = 8
_PART = 1 << 16
_LARGEST = 4 << 20
"""Bytes of a manifest, which registries take no more of, or of an error."""
_random = random.SystemRandom()


class Transport:
    """Connections. It can be sent to other processes, and begins anew in forked ones."""

    def __init__(self) -> None:
        self._pools: dict[str, Any] = {}
        after_fork_in_child(self, Transport.disconnect)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connections, which cannot go to another process."""
        return {}

    def __setstate__(self, _state: dict[str, Any]) -> None:
        """As it was made."""
        self._pools = {}
        after_fork_in_child(self, Transport.disconnect)

    def disconnect(self) -> None:
        """Begin anew, as a forked process must: two on one connection read each other's answers."""
        self._pools = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | BinaryIO | None = None,
        once: bool = False,
    ) -> BaseHTTPResponse:
        """Make a request, and follow where it leads; another machine gets no ``Authorization``.

        Args:
            method, url, headers, body: of the request.
            once: do not make it again.

        Returns:
            The answer, whose body has not been read: see :meth:`read`.

        Raises:
            HTTPError: of urllib3; nobody answers.
        """
        from urllib3 import exceptions

        passing = (
            exceptions.NewConnectionError,
            exceptions.ProtocolError,
            exceptions.ProxyError,
            exceptions.TimeoutError,
        )
        attempts = 1 if once else _ATTEMPTS
        for attempt in range(attempts):
            last = attempt == attempts - 1
            response = None
            try:
                response = self._follow(method, url, dict(headers), body)
                if response.status not in _PASSING or last:
                    return response
            except passing as error:
                if last:
                    raise
                _log.debug(
                    "%s of %s: %s; again", method, urlsplit(url).netloc, type(error).__name__
                )
            if not pause(attempt, response):
                break
            if response is not None:
                response.close()
        assert response is not None, "the last attempt returns or raises"
        return response

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes | BinaryIO | None
    ) -> BaseHTTPResponse:
        """Make a request once, wherever it leads."""
        for _ in range(_REDIRECTIONS):
            response = self._ask(method, url, headers, body)
            place = response.headers.get("Location")
            keeps = method in ("GET", "HEAD") or response.status in _KEEPING_THE_METHOD
            if response.status not in _LEADING_ELSEWHERE or not place or not keeps:
                return response
            self.read(response)
            there = urljoin(url, place)
            if not same_origin(url, there):
                headers.pop("Authorization", None)
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            url = there
        return self._ask(method, url, headers, body)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
    ) -> BaseHTTPResponse:
        return self._pool(url).request(  # type: ignore[no-any-return]
            method,
            url,
            body=body,
            headers={"User-Agent": "centra", "Accept-Encoding": "identity", **headers},
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def read(self, response: BaseHTTPResponse) -> bytes:
        """The body of a small answer, whose connection is free again then.

        Raises:
            FormatError: it is no small one.
            HTTPError: of urllib3; it broke off.
        """
        data = bytearray()
        try:
            for part in response.stream(_PART):
                data += part
                if len(data) > _LARGEST:
                    response.close()
                    raise FormatError(f"a registry's answer has more than {_LARGEST:,} bytes")
        finally:
            response.release_conn()
        return bytes(data)

    def _pool(self, url: str) -> Any:
        """The connections to a host: through a proxy, where the environment says so for it."""
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        parts = urlsplit(url)
        proxy = "" if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme, "")
        if proxy not in self._pools:
            options: dict[str, Any] = {
                "maxsize": _CONNECTIONS,
                "timeout": urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT),
            }
            self._pools[proxy] = (
                urllib3.ProxyManager(**_through(proxy), **options)
                if proxy
                else urllib3.PoolManager(**options)
            )
        return self._pools[proxy]


def _through(proxy: str) -> dict[str, Any]:
    """How urllib3 is told of a proxy; a login that stands in the address becomes a header."""
    from urllib3.util import make_headers

    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is None:
        return {"proxy_url": address}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"proxy_url": address, "proxy_headers": make_headers(proxy_basic_auth=login)}


def same_origin(one: str, other: str) -> bool:
    """Whether what is a secret at one address may be told at the other: the same server, as safely."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def pause(attempt: int, response: BaseHTTPResponse | None = None) -> bool:
    """Wait before another attempt: longer each time, and as long as the answer wants.

    Args:
        attempt: how many there have been before the last.
        response: the answer to the last one, if there was any.

    Returns:
        False where it wants more time than anybody waits, and it was not waited.
    """
    seconds = _FIRST_PAUSE * 2**attempt * _random.uniform(1, 1.5)
    if response is not None:
        seconds = max(seconds, retry_after(response) or 0)
    if seconds > _LONGEST_PAUSE:
        return False
    time.sleep(seconds)
    return True


def retry_after(response: BaseHTTPResponse) -> float | None:
    """In how many seconds the answer wants to be asked again; None where it does not say, or nonsense."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        then = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (then.astimezone(UTC) - datetime.now(UTC)).total_seconds())
