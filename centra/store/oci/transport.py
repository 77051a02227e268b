"""HTTP requests to a registry and to whom it sends us, made again while that may help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from centra.errors import FormatError
from centra.system.forks import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

__all__ = ["Transport"]

_CONNECT_TIMEOUT, _READ_TIMEOUT = 5, 30
"""Seconds after which an attempt is given up: without a connection, and without any byte."""
_ATTEMPTS, _TO_CONNECT = 6, 3
"""How often a request is made again: in general, and where nobody is reached."""
_PASSING = (429, 500, 502, 503, 504)
_CONNECTIONS = 8
_PART = 1 << 16
_LARGEST = 4 << 20
"""Bytes of a manifest, which registries take no more of, or of an error."""


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
        from urllib3.util import Retry

        if once:
            again = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
        else:
            again = Retry(
                total=_ATTEMPTS,
                connect=_TO_CONNECT,
                status_forcelist=_PASSING,
                allowed_methods=None,
                backoff_factor=0.2,
                backoff_max=5,
                backoff_jitter=0.2,
                raise_on_status=False,
                # A server may say a day.
                respect_retry_after_header=False,
            )
        return self._pool(url).request(  # type: ignore[no-any-return]
            method,
            url,
            body=body,
            headers={"User-Agent": "centra", "Accept-Encoding": "identity", **headers},
            retries=again,
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
                urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            )
        return self._pools[proxy]
