"""A server process: it listens, answers, and ends when it is asked to, with every call answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from typing import TYPE_CHECKING, Any

from centra.serving.endpoint import Endpoint
from centra.serving.http.app import create_app
from centra.serving.metrics import Metrics
from centra.serving.tracing import Tracing

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from centra.serving.batcher import Batcher, Observer
    from centra.serving.listener import Listener
    from centra.serving.served_channel import ServedChannel
    from centra.serving.tokens import Tokens

__all__ = ["raise_open_files", "serve"]

_log = logging.getLogger(__name__)


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
    raise_open_files()
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
    endpoint: Endpoint | None = None

    def end() -> None:
        if ending.is_set() and endpoint is not None:
            _log.warning("asked to end again: calls that are not answered are given up")
            endpoint.hurry()
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
        endpoint = Endpoint(app, listener, sockets)
        await endpoint.open()
        _tell(batcher, listener, endpoint.url, tokens)
        await ending.wait()
        _log.info("ending: calls that have begun are answered")
        await endpoint.close()
    _log.info("ended")


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


def _tell(batcher: Batcher, listener: Listener, url: str, tokens: Tokens | None) -> None:
    for channel in batcher.channels.values():
        _tell_of(channel)
    _log.info("listening on %s, with its calls explained at %s/docs", url, url, extra={"url": url})
    if tokens is None and listener.host not in ("localhost", "127.0.0.1", "::1"):
        _log.warning("no tokens are asked for: whoever reaches %s may call", url)


def _tell_of(channel: ServedChannel) -> None:
    served = channel.served
    number = f"release {served.number}, " if served.number is not None else ""
    source = f" of channel {served.channel}, revision {served.revision}" if served.channel else ""
    _log.info(
        "serving %s%ssha256:%s%s: %s with engine %s",
        f"{channel.name}: " if channel.name else "",
        number,
        served.digest[:12],
        source,
        "1 task" if len(served.tasks) == 1 else f"{len(served.tasks)} tasks",
        served.release.engine,
        extra={"release": served.number, "digest": served.digest},
    )


def raise_open_files() -> None:
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
