"""``centra serve``: what it serves, where it listens, how it ends, and what it loads for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.serving.servers import Server


def test_it_says_what_it_serves(server: Server) -> None:
    found = server.client.get("/v1/release").json()
    assert (found["release"], found["channel"], found["revision"]) == (7, "production", 1)
    assert found["refused"] is None
    assert found["tasks"]["intent"] == {
        "version": "2.1",
        "module": found["tasks"]["intent"]["module"],
        "kind": "classification",
        "input": "single",
        "labels": ["alarm", "music", "weather"],
    }
