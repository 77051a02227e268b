"""Calls on their way: too many, too late, failed, and when the server ends."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.held import HeldServer, eventually, held

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[HeldServer]:
    """A server whose queue holds four inputs."""
    with held(queue_inputs=4) as running:
        yield running


class Sent:
    """A call that waits in a thread."""

    def __init__(self, server: HeldServer, **body: Any) -> None:
        self.response: Any = None
        self._thread = threading.Thread(target=self._send, args=(server, body))
        self._thread.start()

    def _send(self, server: HeldServer, body: dict[str, Any]) -> None:
        self.response = server.client.post("/v1/predict", json=body)

    def answer(self) -> Any:
        self._thread.join()
        return self.response


def test_beyond_the_queue_callers_come_back_later(server: HeldServer) -> None:
    server.hold()
    first = Sent(server, inputs=["first"])
    assert server.release.begun.acquire(timeout=30)
    waiting = [Sent(server, inputs=["one", "two"]) for _ in range(2)]
    eventually(lambda: server.batcher.queue.inputs == 4)
    for inputs in (["one"], ["one", "two"]):
        response = server.client.post("/v1/predict", json={"inputs": inputs})
        assert (response.status_code, response.json()["code"]) == (429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    tei = server.client.post("/predict/intent", json={"inputs": "one"})
    assert (tei.status_code, tei.json()["error_type"]) == (429, "Overloaded")
    server.release.go.set()
    assert [sent.answer().status_code for sent in (first, *waiting)] == [200] * 3


def test_what_is_late_is_said(server: HeldServer) -> None:
    server.hold()
    first = Sent(server, inputs=["first"])
    assert server.release.begun.acquire(timeout=30)
    body = {"inputs": ["late"], "timeout_ms": 50}
    response = server.client.post("/v1/predict", json=body)
    assert (response.status_code, response.json()["code"]) == (504, "deadline")
    lines = {"Accept": "application/x-ndjson"}
    response = server.client.post("/v1/predict", json=body, headers=lines)
    assert (response.status_code, response.json()["code"]) == (504, "deadline")
    server.release.go.set()
    assert first.answer().status_code == 200
    assert ["late"] not in server.release.batches


def test_lines_come_as_soon_as_branches_are_done(server: HeldServer) -> None:
    server.release.end.clear()
    try:
        lines = {"Accept": "application/x-ndjson"}
        body = {"inputs": ["hello"]}
        with server.client.stream("POST", "/v1/predict", json=body, headers=lines) as response:
            read = map(json.loads, response.iter_lines())
            assert "release" in next(read)
            assert next(read)["task"] == "intent"  # While the other branch is held up.
            server.release.end.set()
            assert next(read)["task"] == "mood"
            assert next(read)["end"] is True
    finally:
        server.release.end.set()


def test_a_branch_that_fails_fails_alone(
    server: HeldServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.release.broken.add("mood")
    try:
        response = server.client.post("/v1/predict", json={"inputs": ["hello"]})
        (answer,) = response.json()["answers"]
        assert response.status_code == 200
        assert [*answer["tasks"]] == ["intent"]
        assert [*answer["errors"]] == ["mood"]
        assert "mood failed" not in response.text
        # Where, and not what it says, which may be a text.
        (record,) = [r for r in caplog.records if r.name == "centra.serving.compute"]
        assert record.getMessage().startswith("task mood failed: RuntimeError")
        response = server.client.post("/predict/mood", json={"inputs": "hello"})
        assert response.status_code in (422, 500)
    finally:
        server.release.broken.clear()


def test_a_server_that_ends_says_so_and_answers(server: HeldServer) -> None:
    server.app.state.serving.draining = True
    try:
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/livez").status_code == 200
        response = server.client.post("/v1/predict", json={"inputs": ["hello"]})
        assert (response.status_code, response.headers["connection"]) == (200, "close")
    finally:
        server.app.state.serving.draining = False
    assert server.client.get("/readyz").status_code == 200
