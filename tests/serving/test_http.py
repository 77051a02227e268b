"""Calls over HTTP: what is answered, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import centra
from tests.serving.servers import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.servers import ServedStore, Server


@pytest.fixture(scope="module")
def offline(served_store: ServedStore) -> Iterator[centra.runtime.Release]:
    """The same release in this process."""
    with centra.load_release(served_store.source, engine="onnx", threads=1) as release:
        yield release


def predict(server: Server, **body: Any) -> Any:
    response = server.client.post("/v1/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_answers_are_those_of_predict(server: Server, offline: centra.runtime.Release) -> None:
    found = predict(server, inputs=["wake me at seven", {"text": "snow", "id": 5}])
    assert found["release"] == {"release": 7, "digest": offline.digest}
    first, second = found["answers"]
    assert (first["id"], second["id"]) == (None, 5)
    assert (first["truncated"], first["errors"]) == (None, {})
    expected = offline.predict("wake me at seven")
    assert first["tasks"].keys() == expected.keys()
    for task, answer in first["tasks"].items():
        module = offline.manifest.tasks[task].digest[:12]
        assert (answer.pop("version"), answer.pop("module")) == ("2.1", module)
        assert alike(answer, expected[task]), task
