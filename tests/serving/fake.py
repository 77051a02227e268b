"""A server that speaks HTTP and has no model: what load generators are tried on."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIGEST = "ab" * 32

Reply = tuple[int, Any]
"""A status and a document; a document that is bytes is sent as it is."""


def whole(asked: dict[str, Any]) -> Reply:
    """What ``POST /v1/predict`` would answer."""
    answers = [
        {
            "id": None,
            "truncated": None,
            "tasks": {
                task: {"version": "1.0", "label": "alarm", "score": 0.9}
                for task in asked.get("tasks", ["intent", "slots"])
            },
            "errors": {},
        }
        for _ in asked["inputs"]
    ]
    return 200, {"release": {"release": 1, "digest": DIGEST}, "answers": answers}


class FakeServer:
    """Answers every request with what a function makes of its body."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply = reply
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        """Headers and body of each, in order."""
        self.gate = asyncio.Event()
        """Nothing is answered while it is not set."""
        self.gate.set()
        self.at_once = 0
        """The most requests that waited at one time."""
        self._waiting = 0
        self.close_after = 0
        """Requests after which a connection is closed; 0 for none."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h11.Connection(h11.SERVER)
        served = 0
        headers: dict[str, str] = {}
        body = b""
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                body = b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                asked = json.loads(body)
                self.requests.append((headers, asked))
                self._waiting += 1
                self.at_once = max(self.at_once, self._waiting)
                await self.gate.wait()
                self._waiting -= 1
                status, document = self.reply(asked)
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                answered = [
                    ("content-length", str(len(data))),
                    ("server-timing", 'queue;dur=1.5, trunk;desc="shared";dur=4'),
                ]
                parts = (
                    state.send(h11.Response(status_code=status, headers=answered)),
                    state.send(h11.Data(data=data)),
                    state.send(h11.EndOfMessage()),
                )
                writer.write(b"".join(part for part in parts if part))
                served += 1
                if served == self.close_after:
                    break
                state.start_next_cycle()
            else:
                break


@contextmanager
def running(server: FakeServer) -> Iterator[str]:
    """The server's URL, while it runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    bound = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end(bound))
        loop.close()


async def _end(bound: asyncio.Server) -> None:
    bound.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
