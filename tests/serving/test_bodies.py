"""Bodies of calls on their way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from centra.serving.errors import OverloadedError
from centra.serving.http import bodies
from centra.serving.http.bodies import read_body

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 2**20


class Call:
    """A call whose body comes in two parts, the second when it is let go."""

    def __init__(self, size: int) -> None:
        self.half_came, self.go = asyncio.Event(), asyncio.Event()
        self._size = size

    async def body(self) -> bytes:
        return await read_body(Request({"type": "http", "headers": []}, self._receive()), LIMIT)

    def _receive(self) -> Callable[[], Any]:
        parts = iter([True, False])

        async def receive() -> dict[str, Any]:
            more = next(parts)
            if not more:
                self.half_came.set()
                await self.go.wait()
            return {"type": "http.request", "body": b"x" * (self._size // 2), "more_body": more}

        return receive


def test_large_bodies_share_memory_and_small_ones_are_always_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "_TOGETHER", 1)

    async def main() -> None:
        large, other, small = Call(LIMIT), Call(LIMIT), Call(1000)
        reading = asyncio.create_task(large.body())
        await large.half_came.wait()
        other.go.set()
        with pytest.raises(OverloadedError, match="other calls are on their way"):
            await other.body()
        small.go.set()
        assert len(await small.body()) == 1000
        large.go.set()
        assert len(await reading) == LIMIT
        assert len(await other.body()) == LIMIT

    asyncio.run(main())
