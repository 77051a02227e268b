"""A server in a thread of the test, on a release that the test holds up."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx

from centra.serving import Batcher, Limits
from centra.serving.endpoint import Endpoint
from centra.serving.http.app import create_app
from centra.serving.listener import Listener
from tests.serving.fakes import FakeRelease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def fake_release() -> FakeRelease:
    """A release of the tasks intent and mood, with what a manifest says of them."""
    release = FakeRelease()
    entry = SimpleNamespace(digest="ab" * 32, kind="classification", input="single", labels=())
    release.manifest.tasks = dict.fromkeys(release.tasks, entry)
    return release


@dataclass
class HeldServer:
    """A running server, of which all is at hand."""

    release: FakeRelease
    port: int
    batcher: Any = None
    server: Any = None
    app: Any = None
    client: httpx.Client = field(default_factory=httpx.Client)

    def hold(self) -> None:
        """Let the next batch wait, until ``release.go`` is set."""
        self.release.go.clear()
        while self.release.begun.acquire(blocking=False):
            pass

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self.server.server_state.connections)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until this holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def held(**limits: int) -> Iterator[HeldServer]:
    """A server on :func:`fake_release`, until the block ends."""
    (bound,) = Listener(port=0).bind()
    found = HeldServer(fake_release(), bound.getsockname()[1])
    begun, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        source: Any = found.release
        async with Batcher(source, limits=Limits(**limits)) as found.batcher:
            found.app = create_app(found.batcher)
            endpoint = Endpoint(found.app, Listener(), [bound])
            await endpoint.open()
            found.server = endpoint._server
            begun.set()
            await ended.wait()
            endpoint.hurry()
            await endpoint.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert begun.wait(30)
        found.client = httpx.Client(base_url=f"http://127.0.0.1:{found.port}", timeout=30)
        yield found
    finally:
        found.release.go.set()
        found.client.close()
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()
