"""A node's port for the replicas of one application, and for nobody else.

The system deals the connections of a port out among all processes of an account that share it,
whatever they serve: another application's replicas, or Ray's own proxy. So each replica leaves a mark
beside the port, and takes it only where all marks are its application's. Marks are sockets in Linux'
abstract namespace: the system removes them with the process, and they are where the ports are, also
in containers.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from centra.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.serving.listener import Listener

__all__ = ["NodePorts"]

_MARKS = Path("/proc/net/unix")
_SECONDS = 30.0
"""How long a replica waits for others that take the same port; each takes milliseconds."""


class NodePorts:
    """What a replica listens on; closed, it leaves that to the others."""

    def __init__(self, listener: Listener, *, application: str, replica: str) -> None:
        """Bind; nobody can connect yet.

        Args:
            listener: where.
            application: whose replicas may share the ports.
            replica: a name that no other replica has.

        Raises:
            ConflictError: somebody else has one of the ports.
            UsageError, NotAllowedError: see :meth:`Listener.bind`.
        """
        self._held = ExitStack()
        with ExitStack() as held:
            if listener.shared and sys.platform == "linux":
                for port in filter(None, (listener.port, listener.grpc_port)):
                    held.enter_context(_mark(listener, port, application, replica))
            self.sockets = [held.enter_context(each) for each in listener.bind()]
            """Of HTTP, as :class:`centra.serving.endpoint.Endpoint` takes them."""
            self._held = held.pop_all()

    def close(self) -> None:
        """Give the ports up."""
        self._held.close()


@contextmanager
def _mark(listener: Listener, port: int, application: str, replica: str) -> Iterator[None]:
    owner = f"{quote(application, safe='')[:40]}.{_digest(application)}"
    mark = socket.socket(socket.AF_UNIX)
    with mark:
        with _alone(port):
            owners = {name.split("/")[2] for name in _marks(f"centra/{port}/")}
            if strangers := owners - {owner}:
                raise ConflictError(
                    f"port {port} is in use by replicas of the application "
                    f"{unquote(min(strangers).rpartition('.')[0])}: each takes a port of its own",
                    code="port-in-use",
                    port=port,
                )
            if not owners:
                # The first of its node shares with nobody yet, so this tells whether there is anybody.
                for each in replace(listener, port=port, shared=False).bind():
                    each.close()
            mark.bind(f"\0centra/{port}/{owner}/{replica}")
        yield


@contextmanager
def _alone(port: int) -> Iterator[None]:
    """One replica after the other."""
    deadline = time.monotonic() + _SECONDS
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0centra/{port}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"another process has been taking port {port} for {_SECONDS:.0f} seconds",
                        code="port-in-use",
                        port=port,
                    ) from None
                time.sleep(0.02)
        yield


def _marks(prefix: str) -> list[str]:
    names = [line.rpartition(" ")[2] for line in _MARKS.read_text().splitlines()]
    return [name[1:] for name in names if name.startswith(f"@{prefix}")]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
