"""Where an application answers over the network, from its first call to its last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import uvicorn

from centra.errors import ConflictError
from centra.serving.http.connection import Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    import grpc
    from fastapi import FastAPI

    from centra.serving.http.call import Serving
    from centra.serving.listener import Listener

__all__ = ["KEEP_ALIVE", "Endpoint"]

_log = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than load balancers keep theirs, so that it is they
who close it, and no call is lost between the two."""
_FAREWELL = 1.0
"""Seconds for which a server that ends still takes calls, and says on each answer that it ends."""
_DRAIN = 30
"""Seconds after which calls that are not answered then are given up."""


class Endpoint:
    """Answers over HTTP, and over gRPC where the listener has a port for it."""

    def __init__(self, app: FastAPI, listener: Listener, sockets: list[socket.socket]) -> None:
        """Say what answers where; nobody can connect yet.

        Args:
            app: see :func:`centra.serving.http.app.create_app`.
            listener: where.
            sockets: as the listener has bound them; closed by whoever has them.
        """
        self.url = listener.url(sockets[0].getsockname()[1])
        """Of HTTP."""
        self.grpc: str | None = None
        """The address of gRPC, where there is one, once it is open."""
        self._serving: Serving = app.state.serving
        self._listener, self._sockets = listener, sockets
        self._server = _Server(_config(app, listener))
        self._running: asyncio.Future[None] | None = None
        self._grpc_server: grpc.aio.Server | None = None

    async def open(self) -> None:
        """Let callers connect.

        Raises:
            ConflictError: a port is in use.
        """
        self._listener.listen(self._sockets)
        await self._start_grpc()
        self._running = asyncio.ensure_future(self._server.serve(self._sockets))
        await self._server.listening.wait()

    def hurry(self) -> None:
        """Give up calls that are not answered once it closes, or as it does."""
        self._server.force_exit = True

    async def close(self) -> None:
        """Take no new calls, and answer those that have begun."""
        self._serving.draining = True
        await asyncio.sleep(0 if self._server.force_exit else _FAREWELL)
        self._server.should_exit = True
        if self._grpc_server is not None:
            await self._grpc_server.stop(0 if self._server.force_exit else _DRAIN)
        if self._running is not None:
            await self._running

    async def _start_grpc(self) -> None:
        listener = self._listener
        if listener.grpc_port is None:
            return
        from centra.serving.oip.grpc import start_grpc

        certificate = None
        if listener.certificate is not None and listener.key is not None:
            certificate = listener.key.read_bytes(), listener.certificate.read_bytes()
        host = f"[{listener.host}]" if ":" in listener.host else listener.host
        try:
            self._grpc_server, port = await start_grpc(
                self._serving,
                host=host,
                port=listener.grpc_port,
                certificate=certificate,
                shared=listener.shared,
            )
        except RuntimeError as error:
            raise ConflictError(
                f"cannot listen for gRPC on {host}:{listener.grpc_port}; is the port in use?",
                code="port-in-use",
                port=listener.grpc_port,
            ) from error
        self.grpc = f"{host}:{port}"
        _log.info("listening for gRPC on %s", self.grpc, extra={"grpc": self.grpc})


class _Server(uvicorn.Server):
    """uvicorn, with signals left to who runs it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


def _config(app: FastAPI, listener: Listener) -> uvicorn.Config:
    # What goes wrong is logged by the application, with ids and without texts.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=_DRAIN,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
    )
