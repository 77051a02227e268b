"""A server process: it listens, answers, and ends when it is asked to, with every call answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from centra.errors import ConflictError, NotAllowedError, UsageError
from centra.serving.http.app import create_app
from centra.serving.http.connection import Connection
from centra.serving.metrics import Metrics
from centra.serving.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc
    from fastapi import FastAPI

    from centra.serving.batcher import Batcher, Observer
    from centra.serving.http.call import Serving
    from centra.serving.tokens import Tokens

__all__ = ["Listener", "serve"]

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than load balancers keep theirs, so that it is they
who close it, and no call is lost between the two."""
_FAREWELL = 1.0
"""Seconds for which a server that ends still takes calls, and says on each answer that it ends."""
_DRAIN = 30
"""Seconds after which calls that are not answered then are given up."""
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
                sockets.append(_bound(family, (address[0], port, *address[2:])))
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


def serve(
    make_batcher: Callable[[Observer], Batcher],
    listener: Listener,
    *,
    tokens: Tokens | None = None,
) -> None:
    """Serve until the process is asked to end (SIGTERM or SIGINT) and every call is answered.

    Args:
        make_batcher: makes what answers, and tells an observer; called when the port is taken.
        listener: where.
        tokens: who may call; default everybody.

    Raises:
        UsageError, ConflictError, NotAllowedError: it cannot listen there.
        CentraError: the release cannot be loaded.
    """
    listener.check()
    _raise_open_files()
    sockets = listener.bind()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(make_batcher, listener, sockets, tokens))
    finally:
        for each in sockets:
            each.close()


async def _serve(
    make_batcher: Callable[[Observer], Batcher],
    listener: Listener,
    sockets: list[socket.socket],
    tokens: Tokens | None,
) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    metrics, tracing = Metrics(), Tracing.from_environment()
    server: _Server | None = None

    def end() -> None:
        if ending.is_set() and server is not None:
            _log.warning("asked to end again: calls that are not answered are given up")
            server.force_exit = True
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    async with contextlib.AsyncExitStack() as stack:
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        loading = asyncio.ensure_future(stack.enter_async_context(make_batcher(metrics)))
        if not await _first(loading, ending):
            return
        batcher = await loading
        app = create_app(batcher, tokens=tokens, metrics=metrics, tracing=tracing)
        listener.listen(sockets)
        grpc_server = await _start_grpc(app.state.serving, listener)
        server = _Server(_config(app, listener))
        serving = asyncio.ensure_future(server.serve(sockets))
        await server.listening.wait()
        _tell(batcher, listener, sockets[0].getsockname()[1], tokens)
        await ending.wait()
        _log.info("ending: calls that have begun are answered")
        app.state.serving.draining = True
        await asyncio.sleep(0 if server.force_exit else _FAREWELL)
        server.should_exit = True
        if grpc_server is not None:
            await grpc_server.stop(0 if server.force_exit else _DRAIN)
        await serving
    _log.info("ended")


async def _start_grpc(serving: Serving, listener: Listener) -> grpc.aio.Server | None:
    """Listen for gRPC, too, where that is wanted.

    Raises:
        ConflictError: the port is in use.
    """
    if listener.grpc_port is None:
        return None
    from centra.serving.oip.grpc import start_grpc

    certificate = None
    if listener.certificate is not None and listener.key is not None:
        certificate = listener.key.read_bytes(), listener.certificate.read_bytes()
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    try:
        server, port = await start_grpc(
            serving, host=host, port=listener.grpc_port, certificate=certificate
        )
    except RuntimeError as error:
        raise ConflictError(
            f"cannot listen for gRPC on {host}:{listener.grpc_port}; is the port in use?",
            code="port-in-use",
            port=listener.grpc_port,
        ) from error
    address = f"{host}:{port}"
    _log.info("listening for gRPC on %s", address, extra={"grpc": address})
    return server


async def _first(task: asyncio.Future[Any], ending: asyncio.Event) -> bool:
    """Whether a task ends before the process is asked to; else it is cancelled."""
    asked = asyncio.ensure_future(ending.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if task.done():
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


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
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_DRAIN,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
    )


def _tell(batcher: Batcher, listener: Listener, port: int, tokens: Tokens | None) -> None:
    served = batcher.served
    number = f"release {served.number}, " if served.number is not None else ""
    channel = f" of channel {served.channel}, revision {served.revision}" if served.channel else ""
    _log.info(
        "serving %ssha256:%s%s: %s with engine %s",
        number,
        served.digest[:12],
        channel,
        "1 task" if len(served.tasks) == 1 else f"{len(served.tasks)} tasks",
        served.release.engine,
        extra={"release": served.number, "digest": served.digest},
    )
    url = listener.url(port)
    _log.info("listening on %s, with its calls explained at %s/docs", url, url, extra={"url": url})
    if tokens is None and listener.host not in ("localhost", "127.0.0.1", "::1"):
        _log.warning("no tokens are asked for: whoever reaches %s may call", url)


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def _raise_open_files() -> None:
    """Allow as many connections as the system does: each takes an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(OSError, ValueError):
            wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none.
        return None
    return uvloop.new_event_loop
