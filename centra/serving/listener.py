"""Where a server listens."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import ConflictError, NotAllowedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Listener"]

_BACKLOG = 2048
"""Connections that may wait to be taken."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Where a server listens, and how."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 for any that is free."""
    certificate: Path | None = None
    """PEM, for TLS; with it ``key``."""
    key: Path | None = None
    grpc_port: int | None = None
    """For gRPC on the same host, likewise; None for no gRPC."""
    shared: bool = False
    """Whether other processes of this account may listen on the same ports: the system deals
    connections out among them."""

    def check(self) -> None:
        """Refuse a certificate and key that cannot be used.

        Raises:
            UsageError: they cannot.
        """
        if (self.certificate is None) != (self.key is None):
            raise UsageError("TLS takes a certificate and its key", code="tls-incomplete")
        if self.certificate is None or self.key is None:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"TLS with {self.certificate} and {self.key}: {error}", code="tls-unusable"
            ) from error

    def bind(self) -> list[socket.socket]:
        """Take the port on every address of the host; nobody can connect yet.

        Raises:
            UsageError: there is no such host.
            ConflictError: the port is in use.
            NotAllowedError: it is not for this account.
        """
        try:
            found = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            raise UsageError(f"there is no host {self.host!r}: {error}", code="no-host") from error
        sockets: list[socket.socket] = []
        failure: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            port = sockets[0].getsockname()[1] if sockets else self.port
            try:
                where = (address[0], port, *address[2:])
                sockets.append(_bound(family, where, shared=self.shared))
            except OSError as error:
                failure = error
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    break
        if failure and (not sockets or failure.errno in (errno.EADDRINUSE, errno.EACCES)):
            for each in sockets:
                each.close()
            raise _unbound(self, failure) from failure
        return sockets

    def listen(self, sockets: list[socket.socket]) -> None:
        """Let callers connect.

        Args:
            sockets: as :meth:`bind` gave them.

        Raises:
            ConflictError: another process has listened there meanwhile.
        """
        for each in sockets:
            try:
                each.listen(_BACKLOG)
            except OSError as error:
                raise _unbound(self, error) from error

    def url(self, port: int) -> str:
        """The address that callers use."""
        scheme = "https" if self.certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}"


def _bound(family: int, address: tuple[str | int, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _unbound(listener: Listener, error: OSError) -> Exception:
    where = f"{listener.host}:{listener.port}"
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"{where} is in use by another process", code="port-in-use", port=listener.port
        )
    if error.errno == errno.EACCES:
        return NotAllowedError(
            f"this account may not listen on {where}", code="port-not-allowed", port=listener.port
        )
    return UsageError(f"cannot listen on {where}: {error.strerror}", code="no-host")
